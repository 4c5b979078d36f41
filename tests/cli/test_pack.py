"""mdl pack, seen from outside: names, streams, documents, and an archive that is the same bytes every time.

`make_run`, `read_whole` and `raw` serve the other tests of packing too.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest
from support.data import noise
from support.packing import MANIFEST, make_run, read_whole
from support.shell import Shell

FIELDS = {"archive", "bytes", "files", "sha256", "skipped", "path"}


def raw(shell: Shell, *words: str) -> subprocess.CompletedProcess[bytes]:
    """mdl with a stdout of bytes."""
    return subprocess.run(
        shell.command(*words), env=shell.environ, cwd=shell.home, capture_output=True, check=False, timeout=100
    )


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    make_run(tmp_path)
    return Shell(tmp_path)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((), "model_run.zip"),
        (("--checkpoint", "checkpoint-500"), "model_run_checkpoint-500.zip"),
        (("--checkpoint", "latest"), "model_run_checkpoint-1000.zip"),
        (("--checkpoint", "best"), "model_run_checkpoint-500.zip"),
        (("--logs",), "logs_run.zip"),
    ],
)
def test_an_archive_bears_the_name_of_its_run(shell: Shell, words: tuple[str, ...], name: str) -> None:
    """Without -o it lies in the current folder under its own name, whose path is the one stdout line."""
    ran = shell.run("pack", "run/", *words)
    assert (ran.code, ran.out) == (0, f"{shell.home / name}\n"), ran.err
    assert "\x1b" not in ran.err
    assert sorted(os.listdir(shell.home)) == sorted([name, "run"])
    held = read_whole(shell.home / name)
    if "--logs" in words:
        assert "train.log" in held
        assert not [one for one in held if one.endswith((".safetensors", ".pt"))]
    else:
        folder = shell.home / "run" / (json.loads(held[MANIFEST])["checkpoint"] or ".")
        assert held["model.safetensors"] == (folder / "model.safetensors").read_bytes()
        assert "train.log" not in held


@pytest.mark.fault(288)
@pytest.mark.parametrize("pick", ["latest", "best"])
def test_an_incomplete_one_that_is_passed_over_is_named(shell: Shell, pick: str) -> None:
    """``latest`` and ``best`` that skip a newer incomplete checkpoint say which and why: stderr, document, manifest."""
    (shell.home / "run" / "checkpoint-1000" / "trainer_state.json").unlink()
    ran = shell.run("pack", "run", "--checkpoint", pick, "--json")
    assert (ran.code, ran.document["archive"]) == (0, "model_run_checkpoint-500.zip"), ran.err
    left = [one for one in ran.document["skipped"] if one["path"] == "checkpoint-1000"]
    assert len(left) == 1
    assert left[0]["why"].startswith("not complete: ")
    assert "trainer_state.json" in left[0]["why"]
    assert "checkpoint-500 is taken" in left[0]["why"]
    assert "left out: checkpoint-1000 (not complete" in ran.err
    assert json.loads(read_whole(Path(ran.document["path"]))[MANIFEST])["skipped"] == left
    for words in (("--checkpoint", "checkpoint-500"), ()):
        assert "not complete" not in shell.run("pack", "run", *words, "-n").err


@pytest.mark.fault(216)
def test_a_file_a_folder_and_a_pipe_get_the_same_bytes(shell: Shell) -> None:
    """-o FILE, -o DIR and -o - write one and the same archive; stdout holds it or its path, nothing else."""
    (shell.home / "out").mkdir()
    for target, place in (("mine.zip", "mine.zip"), ("out", "out/model_run.zip")):
        ran = shell.run("pack", "run", "-o", target)
        assert (ran.code, ran.out) == (0, f"{shell.home / place}\n"), ran.err
    piped = raw(shell, "pack", "run", "-o", "-")
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout == (shell.home / "mine.zip").read_bytes() == (shell.home / "out/model_run.zip").read_bytes()
    assert len(read_whole(shell.home / "mine.zip")) == 11


def test_the_document_tells_the_truth(shell: Shell) -> None:
    """--json has every field of the contract, true of the archive on the disk, and no other line on stdout."""
    document = shell.run("pack", "run", "--json").document
    archive = shell.home / "model_run.zip"
    data = archive.read_bytes()
    assert set(document) >= FIELDS
    assert [document[key] for key in ("schema", "ok", "exit_code", "error")] == ["mdl.pack/1", True, 0, None]
    assert (document["archive"], document["path"]) == (archive.name, str(archive))
    assert (document["bytes"], document["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert document["files"] == len(read_whole(archive)) - 1 == 10
    assert [one["path"] for one in document["skipped"]] == ["train.log"]
    assert all(one["why"] for one in document["skipped"])


def test_a_failure_has_the_same_fields(shell: Shell) -> None:
    """Also a refusal ends with a document of every field, its error and the exit code that the shell sees."""
    ran = shell.run("pack", "run", "--checkpoint", "nope", "--json")
    assert set(ran.document) >= FIELDS
    assert (ran.code, ran.document["exit_code"], ran.document["ok"]) == (3, 3, False)
    assert ran.document["error"]["code"] == "NOTFOUND"
    assert ran.document["path"] is None


@pytest.mark.fault(217)
def test_a_dry_run_writes_nothing(shell: Shell) -> None:
    """-n shows each file that would be packed and where to, and writes not a byte."""
    document = shell.run("pack", "run", "-n", "--json").document
    ran = shell.run("pack", "run", "-n")
    assert ran.code == 0
    assert {one["path"] for one in document["members"]} == {line.split()[-1] for line in ran.out.splitlines()[1:]}
    assert (document["sha256"], document["files"]) == (None, 10)
    assert document["bytes"] == sum(one["size"] for one in document["members"])
    assert "model_run.zip" in ran.err
    assert "train.log" in ran.err
    assert os.listdir(shell.home) == ["run"]


def test_globs_choose(shell: Shell) -> None:
    """--include keeps what matches, --exclude drops what matches; with nothing left it is 3."""
    words = ("pack", "run", "--include", "*.json", "--exclude", "checkpoint-500/*", "-o", "x.zip")
    assert shell.run(*words).code == 0
    names = {"config.json", "checkpoint-1000/config.json", "checkpoint-1000/trainer_state.json", MANIFEST}
    assert set(read_whole(shell.home / "x.zip")) == names
    assert shell.run("pack", "run", "--include", "*.nothing", "-o", "y.zip").code == 3
    assert not (shell.home / "y.zip").exists()


@pytest.mark.fault(218)
def test_hostile_globs_end_soon(shell: Shell) -> None:
    """Globs that climb or that explode match nothing and take no time."""
    words = [word for glob in ("../*", "/etc/*", "*a" * 60 + "b", "{a,b}" * 40) for word in ("--include", glob)]
    assert shell.run("pack", "run", *words).code == 3


def test_inference_needs_no_optimizer(shell: Shell) -> None:
    """--inference-only leaves the optimizer and the trainer's record behind and says so."""
    ran = shell.run("pack", "run", "--checkpoint", "latest", "--inference-only", "--json")
    assert set(read_whole(Path(ran.document["path"]))) == {"config.json", "model.safetensors", MANIFEST}
    assert {one["path"] for one in ran.document["skipped"]} == {"optimizer.pt", "trainer_state.json"}


def test_what_cannot_be_loaded_is_refused(shell: Shell) -> None:
    """--inference-only of DeepSpeed's shards alone is 3 and names the tool that merges them."""
    folder = shell.home / "run" / "checkpoint-1000"
    (folder / "model.safetensors").unlink()
    (folder / "global_step1000").mkdir()
    (folder / "latest").write_text("global_step1000")
    (folder / "global_step1000" / "zero_pp_rank_0_mp_rank_00_model_states.pt").write_bytes(b"x")
    ran = shell.run("pack", "run", "--checkpoint", "checkpoint-1000", "--inference-only")
    assert (ran.code, ran.out) == (3, "")
    assert "zero_to_fp32.py" in ran.err
    assert os.listdir(shell.home) == ["run"]


def bf16(count: int) -> bytes:
    """Weights as trainings make them, two bytes each: the exponents repeat, the rest is noise."""
    chance = random.Random(1)
    return b"".join(struct.pack("<f", chance.gauss(0, 0.02))[2:] for _ in range(count))


@pytest.mark.parametrize(("mode", "deflated"), [("store", ""), ("deflate", "noise text bf16"), ("auto", "text bf16")])
def test_each_file_is_packed_as_suits_it(tmp_path: Path, mode: str, deflated: str) -> None:
    """store and deflate do as they say; auto stores noise and deflates text and bf16 weights."""
    run = tmp_path / "run"
    run.mkdir()
    small = {"noise": noise(50_000), "text": b"word " * 9_000, "bf16": bf16(30_000)}
    for name, data in small.items():
        (run / f"{name}.bin").write_bytes(data)
        (run / f"large-{name}.bin").write_bytes(data * (2**20 // len(data) + 2) if name != "noise" else noise(2**21))
    shell = Shell(tmp_path)
    assert shell.run("pack", "run", "--compress", mode).code == 0
    read_whole(tmp_path / "model_run.zip")
    with zipfile.ZipFile(tmp_path / "model_run.zip") as opened:
        method = {one.filename: one.compress_type for one in opened.infolist()}
    for name in small:
        wanted = zipfile.ZIP_DEFLATED if name in deflated.split() else zipfile.ZIP_STORED
        assert (method[f"{name}.bin"], method[f"large-{name}.bin"]) == (wanted, wanted), name


@pytest.mark.fault(216)
def test_the_same_tree_is_the_same_bytes(shell: Shell) -> None:
    """Neither times nor the place nor the order of making them change a byte of the archive."""
    assert shell.run("pack", "run", "-o", "a.zip").code == 0
    copy = shell.home / "elsewhere" / "run"
    for path in sorted((shell.home / "run").rglob("*"), reverse=True):
        if path.is_file():
            to = copy / path.relative_to(shell.home / "run")
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
            os.utime(to, (1, 86_400 * 365))
    assert shell.run("pack", "elsewhere/run", "-o", "b.zip").code == 0
    assert (shell.home / "a.zip").read_bytes() == (shell.home / "b.zip").read_bytes()


@pytest.mark.fault(213)
def test_times_modes_and_empty_folders(shell: Shell) -> None:
    """Every member bears one date; files are 0644 or 0755 by their own x bit; empty folders stay."""
    run = shell.home / "run"
    (run / "void" / "inner").mkdir(parents=True)
    (run / "tool.sh").write_text("#!/bin/sh\n")
    (run / "tool.sh").chmod(0o4711)
    (run / "config.json").chmod(0o600)
    for path, moment in ((run / "tool.sh", 0), (run / "config.json", 5_000_000_000)):
        os.utime(path, (moment, moment))
    assert shell.run("pack", "run").code == 0
    with zipfile.ZipFile(shell.home / "model_run.zip") as opened:
        modes = {one.filename: one.external_attr >> 16 for one in opened.infolist()}
        assert {one.date_time for one in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    wanted = {"void/inner/": stat.S_IFDIR | 0o755, "tool.sh": stat.S_IFREG | 0o755}
    assert {name: modes.pop(name) for name in wanted} == wanted
    assert set(modes.values()) == {stat.S_IFREG | 0o644}


def test_the_document_and_the_archive_never_share_stdout(shell: Shell) -> None:
    """--json with -o - is 2 before a byte is written; with -n there is only the document."""
    ran = shell.run("pack", "run", "-o", "-", "--json")
    assert (ran.code, ran.document["error"]["code"]) == (2, "USAGE")
    dry = shell.run("pack", "run", "-o", "-", "--json", "-n")
    assert (dry.code, dry.document["path"]) == (0, None)


@pytest.mark.parametrize("words", [("--checkpoint", "latest"), ("--inference-only",)])
def test_logs_are_logs_alone(shell: Shell, words: tuple[str, ...]) -> None:
    """--logs goes with no choice of a model: 2."""
    assert shell.run("pack", "run", "--logs", *words).code == 2
