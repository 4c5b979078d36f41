"""action.yml: its steps, run as GitHub's runner runs them, as far as that can be done without it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Shell, done

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
TINY = Repo("org/tiny", {"config.json": b"{}", "model.bin": b"w" * 5000})


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A checked out repository with a catalog, and a runner's folders with mdl in them."""
    (tmp_path / "catalog.toml").write_text('schema = 1\n[models.tiny]\nsource = "hf:org/tiny"\n')
    program = tmp_path / "mdl" / "bin" / "mdl"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mdl "$@"\n')
    program.chmod(0o755)
    with LoopbackHub([TINY]) as hub:
        yield Shell(tmp_path, hub.url)


def step(shell: Shell, name: str, models: str = "tiny", **inputs: str) -> tuple[int, str, str]:
    """The script of one step: its exit code, what it gives as outputs, and what it prints."""
    [script] = [one["run"] for one in ACTION["runs"]["steps"] if one.get("id") == name]
    outputs = shell.home / "outputs"
    outputs.write_text("")
    environ = shell.environ | {
        "GITHUB_OUTPUT": str(outputs),
        "RUNNER_TEMP": str(shell.home),
        "MDL_ACTION_CATALOG": "catalog.toml",
        "MDL_ACTION_MODELS": models,
        "MDL_ACTION_HOME": str(shell.home / "kept"),
        **inputs,
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    ran = subprocess.run(command, env=environ, cwd=shell.home, capture_output=True, text=True, check=False)
    return ran.returncode, outputs.read_text(), ran.stdout + ran.stderr


def test_models_come_by_the_lock(shell: Shell) -> None:
    """Without a lock the first step fails and says what to do; with one the models come, and their folders are told."""
    code, _, said = step(shell, "lock")
    assert (code, "run 'mdl lock'" in said) == (8, True)
    done(shell.run("lock"))
    code, key, _ = step(shell, "lock")
    assert code == 0
    code, outputs, said = step(shell, "get")
    assert code == 0, said
    end = outputs.splitlines()[-1]
    assert re.fullmatch("[0-9a-f]{32}", end)
    assert outputs == f"path<<{end}\n{shell.home}/kept/tiny\n{end}\n"
    assert end not in step(shell, "get")[1]
    assert (shell.home / "kept" / "tiny" / "model.bin").read_bytes() == b"w" * 5000
    assert step(shell, "lock")[1] == key != step(shell, "lock", "tiny other")[1]


def test_inputs_are_never_code(shell: Shell) -> None:
    """No step has an input in its script: what a caller gives is a variable, and no model's name is a flag."""
    for one in ACTION["runs"]["steps"]:
        assert "${{" not in one.get("run", "")
    done(shell.run("lock"))
    code, _, said = step(shell, "get", "$(touch${IFS}owned) --force")
    assert (code != 0, "not in the catalog" in said) == (True, True), said
    assert not (shell.home / "owned").exists()


@pytest.mark.parametrize(
    "inputs",
    [
        {"MDL_ACTION_HOME": "kept\n__MDL__\nevil=1"},
        {"MDL_ACTION_HOME": "kept\r"},
        {"MDL_ACTION_CATALOG": "catalog.toml\n::warning::evil"},
        {"MDL_ACTION_MODELS": "tiny\x1b[2J"},
    ],
)
def test_inputs_are_one_line(shell: Shell, inputs: dict[str, str]) -> None:
    """A control character in an input is 2 before anything runs, and nothing of it is printed or becomes an output."""
    code, outputs, said = step(shell, "lock", **inputs)
    assert (code, outputs) == (2, "")
    assert "evil" not in said
    assert said.count("\n") == 1


def test_models_may_be_one_a_line(shell: Shell) -> None:
    """The models of a workflow are often a block of lines."""
    done(shell.run("lock"))
    assert step(shell, "lock", "tiny\n")[0] == 0
    code, outputs, said = step(shell, "get", "tiny\n tiny\n")
    assert (code, "kept/tiny" in outputs) == (0, True), said


def test_a_cache_is_hashed(shell: Shell) -> None:
    """Bytes that came with a cache are compared with the lock, whatever its receipts say of them."""
    done(shell.run("lock"))
    assert step(shell, "get")[0] == 0
    model = shell.home / "kept" / "tiny" / "model.bin"
    before = model.stat()
    model.write_bytes(b"v" * 5000)
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert step(shell, "get")[0] == 0
    assert model.read_bytes() == b"w" * 5000


def test_actions_are_pinned() -> None:
    """An action of somebody else is named by its commit."""
    used = [one["uses"] for one in ACTION["runs"]["steps"] if "uses" in one]
    assert used
    assert [name for name in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name)] == []


PINNED = (ROOT / "requirements.txt").read_text("utf-8")


def test_packages_are_pinned() -> None:
    """Each package that is installed is named with its version and its digests, and the rest of the step fetches
    nothing. What mdl depends on is among them, in a version that mdl takes."""
    words = [line.split() for line in PINNED.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    pins = {Requirement(name.partition(";")[0]).name: (name, more) for name, *more in words}
    assert [name for name, more in pins.values() if not re.fullmatch(r"[\w.-]+==[\w.]+", name)] == []
    for _, more in pins.values():
        digests = [word for word in more if word.startswith("--hash=")]
        assert digests
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", digest) for digest in digests)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extra = project["project"]["optional-dependencies"]["s3"]
    for text in (*project["project"]["dependencies"], *extra, *project["build-system"]["requires"]):
        wanted = Requirement(text)
        version = pins[wanted.name.replace("_", "-")][0].partition("==")[2]
        assert wanted.specifier.contains(version, prereleases=True), text
    [install] = [one["run"] for one in ACTION["runs"]["steps"] if one.get("id") == "install"]
    image = (ROOT / "Dockerfile").read_text("utf-8")
    lines = [line for line in install.splitlines() if line.strip().startswith("pip ")]
    lines += [line for line in image.splitlines() if "/pip install" in line]
    pinned = ["--require-hashes" in line or {"--no-deps", "--no-index"} <= {*line.split()} for line in lines]
    assert pinned == [True] * 4
    assert re.search(r"^ARG PYTHON=python:\d+\.\d+\.\d+-\w+", image, re.MULTILINE)
