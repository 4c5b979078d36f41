"""mdl checkpoints: what a training's folder holds, as a table and as a document."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from support.packing import make_run
from support.shell import Shell

FIELDS = {"name", "step", "bytes", "files", "modified_at", "complete", "latest", "best", "note"}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    run = make_run(tmp_path)
    for path in sorted(run.rglob("*")):
        newer = 1_700_000_000 if "checkpoint-500" in path.parts else 1_600_000_000
        os.utime(path, (newer, newer))
    return Shell(tmp_path)


def test_the_document(shell: Shell) -> None:
    """Every field of the contract, the run's own path, the layout, and a row for each checkpoint."""
    ran = shell.run("checkpoints", "run/", "--json")
    document = ran.document
    assert (ran.code, document["schema"], document["ok"]) == (0, "mdl.checkpoints/1", True)
    assert (document["run"], document["layout"]) == (str(shell.home / "run"), "hf-trainer")
    assert [set(row) for row in document["checkpoints"]] == [FIELDS] * 3
    first = document["checkpoints"][0]
    folder = shell.home / "run" / "checkpoint-500"
    assert (first["name"], first["step"], first["files"], first["best"]) == ("checkpoint-500", 500, 4, True)
    assert first["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert first["modified_at"] == "2023-11-14T22:13:20Z"


def test_rows_go_by_their_number(shell: Shell) -> None:
    """The order, and the latest, are by step, whatever the times say; 500 comes before 1000."""
    rows = shell.run("checkpoints", "run", "--json").document["checkpoints"]
    assert [row["name"] for row in rows] == ["checkpoint-500", "checkpoint-1000", "final"]
    assert rows[0]["modified_at"] > rows[1]["modified_at"]
    assert [row["latest"] for row in rows] == [False, True, False]


def test_the_table(shell: Shell) -> None:
    """A head and a line for each checkpoint on stdout, its state in words, and no escape codes in a pipe."""
    (shell.home / "run" / "checkpoint-1000" / "trainer_state.json").unlink()
    ran = shell.run("checkpoints", "run")
    assert ran.code == 0
    rows = [re.split(r"  +", line.strip()) for line in ran.out.splitlines()]
    assert rows[0] == ["NAME", "STEP", "SIZE", "FILES", "TIME", "STATE", "NOTE"]
    assert [(row[0], row[1], row[5]) for row in rows[1:3]] == [
        ("checkpoint-500", "500", "complete, latest, best"),
        ("checkpoint-1000", "1000", "incomplete"),
    ]
    assert "trainer_state.json" in rows[2][6]
    assert "\x1b" not in ran.out + ran.err


def test_what_is_incomplete_is_never_the_latest(shell: Shell) -> None:
    """A checkpoint without what its trainer writes last is told incomplete, with why."""
    (shell.home / "run" / "checkpoint-1000" / "trainer_state.json").unlink()
    rows = shell.run("checkpoints", "run", "--json").document["checkpoints"]
    assert [(row["complete"], row["latest"]) for row in rows] == [(True, True), (False, False), (True, False)]
    assert "trainer_state.json" in rows[1]["note"]


def test_a_best_that_is_gone_is_said(shell: Shell) -> None:
    """Where the recorded best was deleted no row is best, and it is said which one was."""
    for path in (shell.home / "run" / "checkpoint-500").iterdir():
        path.unlink()
    (shell.home / "run" / "checkpoint-500").rmdir()
    assert not any(row["best"] for row in shell.run("checkpoints", "run", "--json").document["checkpoints"])
    assert "checkpoint-500 is recorded as best and is gone" in shell.run("checkpoints", "run").err


@pytest.mark.parametrize("words", [("nope",), ("run/config.json",)])
def test_runs_that_are_none(shell: Shell, words: tuple[str, ...]) -> None:
    """No such run, or a file, is 3 with a document of the same fields."""
    ran = shell.run("checkpoints", *words, "--json")
    assert (ran.code, ran.document["error"]["code"], ran.document["checkpoints"]) == (3, "NOTFOUND", [])


def test_an_empty_run_is_an_empty_table(shell: Shell) -> None:
    """A folder without a model is no error: a row for nothing, and it is said."""
    (shell.home / "empty").mkdir()
    ran = shell.run("checkpoints", "empty")
    assert (ran.code, ran.out.splitlines()[1:]) == (0, [])
    assert "no model" in ran.err


def test_hostile_names_are_shown_harmless(shell: Shell) -> None:
    """Control characters of a file's name reach neither the terminal nor break the document."""
    (shell.home / "evil").mkdir()
    (shell.home / "evil" / "a\x1b[2J\n-000500.safetensors").write_bytes(b"x")
    (shell.home / "evil" / os.fsdecode(b"caf\xe9-000600.safetensors")).write_bytes(b"x")
    table = shell.run("checkpoints", "evil")
    assert (table.code, "\x1b" in table.out + table.err) == (0, False)
    document = shell.run("checkpoints", "evil", "--json")
    assert document.code == 0
    assert json.dumps(document.document, ensure_ascii=False).encode("utf-8", "surrogatepass")
