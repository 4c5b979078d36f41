"""Pack, unpack, release and rollback in the downloads log: begin, events, end, and the error that the user sees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.jobs import log_of, parsed, state_of
from support.packing import make_run
from support.releases import files_of, zipped
from support.shell import Inside, Shell, settings, with_environ


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A home with a run, two archives, one of which is damaged, and no releases."""
    make_run(tmp_path)
    for letter in "ab":
        zipped(tmp_path / f"{letter}.zip", files_of(letter))
    damaged = zipped(tmp_path / "c.zip", files_of("c"))
    damaged.write_bytes(
        damaged.read_bytes().replace(files_of("c")["config.json"], b"x" * len(files_of("c")["config.json"]))
    )
    return Shell(tmp_path)


OPERATIONS = [
    ("pack run -o x.zip", 0, "wrote {home}/x.zip"),
    ("pack none", 3, "no such run"),
    ("pack run --checkpoint 7", 3, "checkpoint"),
    ("unpack a.zip --to out", 0, "unpacked into {home}/out"),
    ("unpack c.zip --to out", 6, "damaged"),
    ("unpack none.zip", 3, "no such archive"),
    ("unpack a.zip --release --to srv", 0, "is served now: {home}/srv/releases/"),
    ("unpack a.zip --release --to srv --check false", 6, "the check ended with 1"),
    ("rollback srv", 3, "nothing was released here"),
]


@pytest.mark.parametrize(("words", "code", "told"), OPERATIONS)
def test_an_operation_is_written_down(mdl: Inside, shell: Shell, words: str, code: int, told: str) -> None:
    """The first line says what was called and where, the last how it ended, with the exit code; the result or the
    error is between or in it. It is no job."""
    ran = mdl(shell, *words.split())
    assert ran.code == code, ran.err
    lines = parsed(log_of(shell))
    assert {(line["command"], line["pid"], "job" in line) for line in lines} == {
        (words.split()[0], str(os.getpid()), False)
    }
    first, last = lines[0], lines[-1]
    said = first["message"].replace("--to=", "--to ").replace("--check=", "--check ")
    assert said.startswith(f"begun in {shell.home}: mdl {words.split()[0]} ")
    assert all(word.removeprefix("-o") in said for word in words.split())
    assert (last["what"], last["exit_code"]) == ("ended", str(code))
    assert [line["what"] for line in lines].count("ended") == 1
    where = lines[-2]["message"] if code == 0 else last["error"]
    assert told.format(home=shell.home) in where, where
    assert (last["level"], last["status"]) == (("ERROR", "failed") if code else ("INFO", "finished"))
    assert code == 0 or last["error"] in ran.err
    assert code or {"planned", "finished"} <= {line["what"] for line in lines}
    assert not (state_of(shell) / "jobs").exists()


def test_releases_tell_what_was_served_before(mdl: Inside, shell: Shell) -> None:
    """Release and rollback name the version that is served now, and the one before it."""
    for words in ("unpack a.zip --release --to srv", "unpack b.zip --release --to srv", "rollback srv"):
        assert mdl(shell, *words.split()).code == 0
    served = [line for line in parsed(log_of(shell)) if "is served now" in line.get("message", "")]
    a, b = served[0]["model"], served[1]["model"]
    assert [line["model"] for line in served] == [a, b, a]
    assert [line["message"].partition("; before it: ")[2] for line in served[:2]] == ["", a]
    assert a != b


@pytest.mark.parametrize("words", ["pack run -n", "unpack a.zip --list", "unpack a.zip --test", "checkpoints run"])
def test_what_only_looks_is_not_written_down(mdl: Inside, shell: Shell, words: str) -> None:
    """A command that writes nothing leaves no log either."""
    assert mdl(shell, *words.split()).code == 0
    assert not state_of(shell).exists()


@pytest.mark.parametrize("how", ["MDL_LOG_FILE", "--log-file=", "[defaults]"])
def test_switched_off(mdl: Inside, shell: Shell, how: str) -> None:
    """It is switched off as for get: then nothing is written but the archive."""
    if how == "[defaults]":
        settings(shell, '[defaults]\nlog_file = ""')
    asked = with_environ(shell, MDL_LOG_FILE="") if how == "MDL_LOG_FILE" else shell
    assert mdl(asked, "pack", "run", *([how] if how.startswith("--") else [])).code == 0
    assert not state_of(shell).exists()


@pytest.mark.parametrize("words", ["pack run", "unpack a.zip --to out", "unpack a.zip --release --to srv"])
def test_another_place_and_one_that_cannot_be_written(mdl: Inside, shell: Shell, words: str) -> None:
    """--log-file names another place; if it cannot be written that is one warning, and all else is as usual."""
    assert mdl(shell, *words.split(), "--log-file", "var/mdl.log").code == 0
    assert parsed((shell.home / "var" / "mdl.log").read_text())[-1]["status"] == "finished"
    assert not state_of(shell).exists()
    words = words.replace("--to out", "--to other")
    ran = mdl(shell, *words.split(), "--log-file", "run")
    assert (ran.code, ran.err.count("warning"), "no log is kept in run: Is a directory" in ran.err) == (0, 1, True)
    full = mdl(shell, *words.replace("--to other", "--to third").split(), "--log-file", "/dev/full")
    assert (full.code, full.err.count("warning")) == (0, 1)


def test_no_secret_is_written(mdl: Inside, shell: Shell) -> None:
    """A token that is part of a name is in no line of the log."""
    token = "hf_" + "s3cr3t" * 5
    asked = with_environ(shell, HF_TOKEN=token)
    assert mdl(asked, "unpack", "a.zip", "--to", f"out-{token}").code == 0
    text = log_of(shell)
    assert ("begun in" in text, token in text) == (True, False)
