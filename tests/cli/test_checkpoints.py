"""mdl checkpoints: what a training's folder holds, as a table and as a document."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from support.packing import MANIFEST, make_run, read_whole
from support.runs import write
from support.shell import Inside, Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A run whose first checkpoint has the newest files."""
    for path in sorted(make_run(tmp_path).rglob("*")):
        newer = 1_700_000_000 if "checkpoint-500" in path.parts else 1_600_000_000
        os.utime(path, (newer, newer))
    return Shell(tmp_path)


def test_the_document(mdl: Inside, shell: Shell) -> None:
    """The run's own path, the layout, and a row for each checkpoint: the order, and the latest, are by step, whatever
    the times say; 500 comes before 1000."""
    ran = mdl(shell, "checkpoints", "run/", "--json")
    document, folder = ran.document, shell.home / "run" / "checkpoint-500"
    assert (ran.code, document["schema"], document["ok"]) == (0, "mdl.checkpoints/1", True)
    assert (document["run"], document["layout"]) == (str(shell.home / "run"), "hf-trainer")
    rows = document["checkpoints"]
    assert [row["name"] for row in rows] == ["checkpoint-500", "checkpoint-1000", "final"]
    assert [row["latest"] for row in rows] == [False, True, False]
    assert (rows[0]["step"], rows[0]["files"], rows[0]["best"]) == (500, 4, True)
    assert rows[0]["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert rows[1]["modified_at"] < rows[0]["modified_at"] == "2023-11-14T22:13:20Z"


def test_an_incomplete_checkpoint(mdl: Inside, shell: Shell) -> None:
    """A checkpoint without what its trainer writes last is incomplete, with why, and never the latest. The table has a
    head and a line for each checkpoint, its state in words, and no escape codes in a pipe."""
    (shell.home / "run" / "checkpoint-1000" / "trainer_state.json").unlink()
    rows = mdl(shell, "checkpoints", "run", "--json").document["checkpoints"]
    assert [(row["complete"], row["latest"]) for row in rows] == [(True, True), (False, False), (True, False)]
    assert "trainer_state.json" in rows[1]["note"]
    ran = mdl(shell, "checkpoints", "run")
    lines = [re.split(r"  +", line.strip()) for line in ran.out.splitlines()]
    assert lines[0] == ["NAME", "STEP", "EPOCH", "SIZE", "FILES", "TIME", "STATE", "NOTE"]
    assert [(line[0], line[1], line[6]) for line in lines[1:3]] == [
        ("checkpoint-500", "500", "complete, latest, best"),
        ("checkpoint-1000", "1000", "incomplete"),
    ]
    assert "trainer_state.json" in lines[2][7]
    assert (ran.code, "\x1b" in ran.out + ran.err) == (0, False)


def test_checkpoints_one_folder_below(mdl: Inside, tmp_path: Path) -> None:
    """A folder in the run that holds several checkpoints of its own is named, with their number; a checkpoint with
    several files of weights is not."""
    write(tmp_path / "runs" / "keras", "final.keras ckpt/epoch-{1,2,3}.keras one/model.keras")
    write(tmp_path / "runs" / "keras", "checkpoint-5/{config.json,model.safetensors,adapter_model.safetensors}")
    shell = Shell(tmp_path)
    also = [{"path": "ckpt", "checkpoints": 3}]
    assert mdl(shell, "checkpoints", "runs/keras", "--json").document["also"] == also
    assert "also: runs/keras/ckpt (3 checkpoints)\n" in mdl(shell, "checkpoints", "runs/keras").err


@pytest.mark.parametrize(
    ("files", "latest", "packed"),
    [
        (  # the numbers of the second stage begin anew
            "epoch_1st_00050.pth epoch_2nd_00009.pth config.yml",
            "epoch_2nd_00009.pth",
            "config.yml epoch_1st_00050.pth epoch_2nd_00009.pth",
        ),
        ("checkpoint0099.pth checkpoint.pth", "checkpoint.pth", "checkpoint.pth checkpoint0099.pth"),
        (
            "model_00000100.bin state_00000100_00000.bin",
            "model_00000100.bin",
            "model_00000100.bin state_00000100_00000.bin",
        ),
        ("900.ckpt 1000.ckpt best.ckpt latest.ckpt", "latest.ckpt", "1000.ckpt 900.ckpt best.ckpt latest.ckpt"),
        ("step_5/a.safetensors final/a.safetensors", "final", "final/a.safetensors"),
        (
            "checkpoint-5/model.safetensors checkpoint-5/trainer_state.json final/model.safetensors final/config.json",
            "final",
            "final/config.json final/model.safetensors",
        ),
        (
            "training-state-000100.pt network-snapshot-000100.pkl",
            "network-snapshot-000100.pkl",
            "network-snapshot-000100.pkl training-state-000100.pt",
        ),
        ("MLmodel model.pkl", "final", "MLmodel model.pkl"),
        ("a-000001.safetensors b-000002.safetensors", None, None),
    ],
)
def test_the_latest_and_the_plain_pack(
    mdl: Inside, tmp_path: Path, files: str, latest: str | None, packed: str | None
) -> None:
    """The latest is what the trainer saved last, and a pack holds the model: never the state of the training alone, nor
    one of several trainings."""
    write(tmp_path / "run", files)
    shell = Shell(tmp_path)
    rows = mdl(shell, "checkpoints", "run", "--json").document["checkpoints"]
    assert [row["name"] for row in rows if row["latest"]] == ([latest] if latest else [])
    ran = mdl(shell, "pack", "run", "-o", "x.zip")
    assert ran.code == (0 if packed else 3), ran.err
    if packed:
        assert sorted(read_whole(tmp_path / "x.zip")) == sorted([*packed.split(), MANIFEST])


def test_a_best_that_is_gone_is_said(mdl: Inside, shell: Shell) -> None:
    """If the recorded best was deleted no row is best, and the message names it."""
    for path in (shell.home / "run" / "checkpoint-500").iterdir():
        path.unlink()
    (shell.home / "run" / "checkpoint-500").rmdir()
    assert not any(row["best"] for row in mdl(shell, "checkpoints", "run", "--json").document["checkpoints"])
    assert "checkpoint-500 is recorded as best and does not exist any more" in mdl(shell, "checkpoints", "run").err


def test_what_is_no_run(mdl: Inside, shell: Shell) -> None:
    """No such run, or a file, is 3. A folder without a model is no error: an empty table, and a note."""
    for word in ("nope", "run/config.json"):
        ran = mdl(shell, "checkpoints", word, "--json")
        assert (ran.code, ran.document["error"]["code"], ran.document["checkpoints"]) == (3, "NOTFOUND", [])
    (shell.home / "empty").mkdir()
    ran = mdl(shell, "checkpoints", "empty")
    assert (ran.code, ran.out.splitlines()[1:], "no model" in ran.err) == (0, [], True)


def test_hostile_names_are_shown_harmless(mdl: Inside, shell: Shell) -> None:
    """Control characters of a file's name reach neither the terminal nor break the document."""
    (shell.home / "evil").mkdir()
    (shell.home / "evil" / "a\x1b[2J\n-000500.safetensors").write_bytes(b"x")
    (shell.home / "evil" / os.fsdecode(b"caf\xe9-000600.safetensors")).write_bytes(b"x")
    table = mdl(shell, "checkpoints", "evil")
    assert (table.code, "\x1b" in table.out + table.err) == (0, False)
    document = mdl(shell, "checkpoints", "evil", "--json")
    assert document.code == 0
    assert json.dumps(document.document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def test_names_that_are_no_utf_8(mdl: Inside, shell: Shell) -> None:
    """A name that is no UTF-8 is escaped in each document as on a terminal: valid JSON, which every program reads."""
    odd = os.fsdecode(b"checkpoint-\xff")
    run = write(shell.home / os.fsdecode(b"r\xe9"), f"{{{odd},checkpoint-10}}/{{model.safetensors,trainer_state.json}}")
    for words, code in (
        (("checkpoints", str(run)), 0),
        (("checkpoints", str(shell.home)), 0),
        (("pack", str(run), "-n", "-o", str(shell.home / "x.zip")), 11),
        (("pack", str(run), "--checkpoint", "nothing"), 3),
        (("list", "--local", "--to", str(run)), 0),
        (("unpack", str(run / "none.zip")), 3),
    ):
        ran = mdl(shell, *words, "--json")
        assert ran.code == code, ran.err
        assert "\\ud" not in ran.out.replace("\\\\ud", ""), ran.out
        assert json.loads(ran.out) == json.loads(ran.out.encode())
    names = [row["name"] for row in mdl(shell, "checkpoints", str(run), "--json").document["checkpoints"]]
    assert sorted(names) == ["checkpoint-10", "checkpoint-\\udcff"]
    lines = mdl(shell, "pack", str(run), "--progress", "json", "-o", str(shell.home / "x.zip")).err
    assert "\\ud" not in lines.replace("\\\\ud", "")
