"""The Tab key: what mdl offers for each line that a shell asks about."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.jobs import records_of
from support.shell import Inside, Run, Shell, done, machine, settings

from mdl.cli.completion import completion_script
from mdl.jobs.job import Invocation, Job

CATALOG = """\
schema = 1
[models.bert-fa]
title = "It's BERT: Persian"
source = "hf:org/bert"
[models.whisper]
kind = "asr"
tags = ["speech"]
source = "hf:org/whisper"
[groups]
nightly = ["bert-fa", "whisper"]
"""
MODELS = ["bert-fa", "whisper", "nightly"]
PATHS: list[str] = []
"""The shell completes a path by itself where nothing is offered."""
LINES = {
    "mdl ge": ["get"],
    "mdl get ": MODELS,
    "mdl --json get --to x b": ["bert-fa"],
    "mdl get whisper ": ["bert-fa", "nightly"],
    "mdl get 'b": ["bert-fa"],
    "mdl get hf:": [],
    "mdl jobs --status pa": ["paused"],
    "mdl verify ": ["org--other"],
    "mdl update ": [*MODELS, "org--other"],
    "mdl show org": ["org--other"],
    "mdl add ": [],
    "mdl rm ": ["org--other"],
    "mdl import run --as ": [],
    "mdl get x -o ": [],
    "mdl config get conn": ["connections"],
    "mdl rollback served --to ": ["v1", "v2"],
    "mdl get --dry": ["--dry-run"],
    "mdl get -- --dry": [],
    "mdl get x --progress l": ["lines"],
    "mdl get x --progress=j": ["json"],
    "mdl get --via ": ["http", "hub"],
    "mdl list --kind a": ["asr"],
    "mdl list --tag ": ["speech"],
    "mdl list --sort t": ["tags", "title"],
    "mdl list --columns=name,si": ["name,size", "name,since"],
    "mdl list --columns since,si": ["since,size"],
    "mdl --catalog ": PATHS,
    "mdl get --to=": PATHS,
    "mdl unpack ": PATHS,
    "mdl pack ": PATHS,
    "mdl pack run --checkpoint ": ["checkpoint-20", "checkpoint-10", "latest", "best"],
    "mdl fetch g": ["gpu"],
    "mdl fetch gpu --checkpoint ": ["latest", "best"],
    "mdl remote ch": ["check"],
    "mdl remote check ": ["gpu"],
    "mdl help schema ver": ["verify"],
    "mdl help exit": ["exit-codes"],
    "mdl jobs p": ["pause"],
    "mdl doctor --off": ["--offline"],
    "mdl show 'unclosed ": [],
}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A machine with a catalog, a model that no catalog names, a run and a remote."""
    shell = machine(tmp_path, CATALOG)
    (shell.models / "org--other").mkdir(parents=True)
    for step in ("10", "20"):
        folder = shell.home / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x")
    for version in ("v1", "v2"):
        (shell.home / "served" / "releases" / version).mkdir(parents=True)
    settings(shell, '[remotes.gpu]\nkind = "runpod"\nendpoint = "abc"\n')
    return shell


def asked(line: str) -> dict[str, str]:
    """The variables by which the scripts of the shells ask Typer."""
    return {
        "_MDL_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": line,
    }


def offered(run: Run, line: str) -> list[list[str]]:
    """The rows for a line."""
    ran = run("", **asked(line))
    assert ran.err == ""
    return [row.split("\t") for row in ran.out.splitlines() if row]


def test_what_is_offered(run: Run) -> None:
    """Names, jobs, checkpoints and choices where they are meant; paths only where a path is meant; errors never."""
    found = {line: [row[0] for row in offered(run, line)] for line in LINES}
    assert found == LINES
    assert offered(run, "mdl get b") == [["bert-fa", "It's BERT: Persian"]]


def test_jobs_are_offered_with_what_they_are(run: Run, shell: Shell) -> None:
    """A job's id comes with its status and what was typed, and only to the commands that can do something with it."""
    again = Invocation(("get", "--force", "--", "org/bert"), "/")
    job = Job("", "get", ("org--bert",), "owner", "host", again, "2026-01-02T03:04:05.678Z", status="failed")
    job = records_of(shell).create(job)
    assert offered(run, "mdl jobs show ") == [[job.id, "failed: get org/bert"]]
    assert [row[0] for row in offered(run, "mdl jobs resume ")] == [job.id]
    assert offered(run, "mdl jobs pause ") == []


def test_completion_says_no_error(run: Run, shell: Shell) -> None:
    """A file that is broken makes the Tab key offer nothing that is in it; not one word is said."""
    settings(shell, "= broken")
    assert (len(offered(run, "mdl get ")), offered(run, "mdl fetch ")) == (len(MODELS), [])
    (shell.home / "catalog.toml").write_text("= broken")
    assert offered(run, "mdl get ") == []


@pytest.mark.parametrize("asking", ["complete_zsh", "complete_bash", "source_zsh", "x"])
def test_only_mdl_s_own_scripts_are_answered(run: Run, asking: str) -> None:
    """What Typer would say to its own scripts, a shell would run: nothing is said."""
    variables = {**asked("mdl get "), "_MDL_COMPLETE": asking, "COMP_WORDS": "mdl get ", "COMP_CWORD": "2"}
    assert (run("", **variables).out, run("", **variables).err) == ("", "")


@pytest.mark.parametrize("line", ["mdl get ", "mdl jobs show ", "mdl get --"])
def test_completing_is_quick(shell: Shell, line: str) -> None:
    """The Tab key waits for no network, no tables and no validation: nothing of these is imported."""
    code = "import sys; from mdl.cli.main import run; run([]); sys.exit(' '.join({*sys.argv[1:]} & {*sys.modules}))"
    words = [sys.executable, "-c", code, "httpx", "ssl", "rich", "pydantic", "huggingface_hub"]
    environ = {**shell.environ, **asked(line)}
    ran = subprocess.run(words, env=environ, cwd=shell.home, capture_output=True, text=True, check=False)
    assert ran.stderr.strip() == ""


def test_the_shell_is_found_or_asked_for(run: Run, shell: Shell) -> None:
    """Without a name it is the user's shell; for a shell that mdl has no script for the name is asked for."""
    assert "zsh completes mdl" in run("--install-completion", SHELL="/usr/bin/zsh").out
    assert (shell.home / ".zfunc" / "_mdl").read_text() == run("--show-completion zsh").out
    assert "hint: name it, as in mdl --install-completion bash" in run("--install-completion", 2, SHELL="tcsh").err
    assert "tcsh: completion is there for bash, zsh, fish" in run("--install-completion tcsh", 2).err


def test_a_start_file_of_another_day(mdl: Inside, shell: Shell) -> None:
    """The user's file may be in any encoding: it gets one line more, once, and stays what it was. Whatever the umask,
    nobody else may write the script, which the shell runs."""
    start = shell.home / ".bashrc"
    before = "# für mich\n".encode("latin-1")
    start.write_bytes(before)
    umask = os.umask(0)
    try:
        for _ in range(2):
            done(mdl(shell, "--install-completion", "bash"))
    finally:
        os.umask(umask)
    script = shell.home / ".bash_completions/mdl.sh"
    assert start.read_bytes() == before + f"\nsource '{script}'\n".encode()
    assert script.read_text() == completion_script("bash", {})
    assert [path.stat().st_mode & 0o777 for path in (script.parent, script)] == [0o700, 0o644]
