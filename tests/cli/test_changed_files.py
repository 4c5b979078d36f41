"""A file that was edited after mdl wrote it: every command that judges it says the same, and none but ``--force``
replaces it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.data import spoil
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Ran, Shell, done

CONFIG, WEIGHTS = b'{"layers": 2}', bytes(range(256)) * 40
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
REPOS = [Repo("o/m", FILES), Repo("o/n", FILES)]
EDIT = b'{"edited":1}!'


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> Shell:
    """A machine that has fetched o/m."""
    shell = Shell(tmp_path, hub.url)
    done(mdl(shell, "get", "o/m"))
    return shell


def config(shell: Shell) -> Path:
    return shell.models / "o--m" / "config.json"


def edit(path: Path, data: bytes = EDIT) -> None:
    """Write other bytes, as an editor does."""
    path.write_bytes(data)
    os.utime(path, ns=(1, 86_400 * 10**9))


def replaced(path: Path) -> None:
    """Write other bytes into a new file that takes the place of this one, under its old time."""
    times = path.stat()
    new = path.with_suffix(".new")
    new.write_bytes(EDIT)
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
    new.replace(path)


def statuses(ran: Ran) -> dict[str, str]:
    return {file["path"]: file["status"] for model in ran.document["models"] for file in model["files"]}


CHANGES: dict[str, tuple[Callable[[Path], None], str, int, int]] = {
    "edited, same size": (edit, "changed", 0, 6),
    "edited, shorter": (lambda path: edit(path, b"{}"), "changed", 0, 6),
    "edited, longer": (lambda path: edit(path, EDIT * 9), "changed", 0, 6),
    "emptied": (lambda path: edit(path, b""), "changed", 0, 6),
    "replaced under the old time": (replaced, "changed", 0, 6),
    "touched": (lambda path: edit(path, CONFIG), "ok", 0, 0),
    "restored from a backup": (lambda path: shutil.copy2(shutil.move(path, f"{path}.old"), path), "ok", 0, 0),
    "damaged": (lambda path: spoil(path, EDIT), "corrupt", 6, 6),
    "gone": (Path.unlink, "missing", 3, 3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_verify_says(shell: Shell, mdl: Inside, change: str) -> None:
    """Changed is what has other bytes and another size, time or inode than mdl's receipt; alone that is 0, and 6 with
    --strict. The same bytes are ok under any time; other bytes under the receipt's time are corrupt."""
    do, status, code, strict = CHANGES[change]
    do(config(shell))
    ran = mdl(shell, "verify", "o/m", "--json")
    assert (ran.code, statuses(ran)) == (code, {"config.json": status, "model.safetensors": "ok"})
    assert mdl(shell, "verify", "o/m", "--strict", "--json").code == strict


@pytest.mark.parametrize("strict", [False, True])
def test_verify_says_what_to_do(shell: Shell, mdl: Inside, strict: bool) -> None:
    """The file is a row of the table, and a line names the command that would replace it."""
    edit(config(shell))
    ran = mdl(shell, "verify", "o/m", *(["--strict"] if strict else []))
    assert ["changed", "o/m/config.json"] in [line.split() for line in ran.out.splitlines()]
    assert "keep a copy of what was changed; 'mdl verify --repair --force o/m' replaces it" in ran.err
    assert ran.err.count("replaces it") == 1


@pytest.mark.parametrize("words", [[], ["o/m"]])
def test_repair_repairs_the_rest(shell: Shell, mdl: Inside, words: list[str]) -> None:
    """--repair fetches what is damaged, leaves what was edited and says so; with --force it replaces that too."""
    edit(config(shell))
    weights = shell.models / "o--m" / "model.safetensors"
    spoil(weights, WEIGHTS[::-1])
    ran = mdl(shell, "verify", *words, "--repair", "--json")
    assert (ran.code, statuses(ran)) == (0, {"config.json": "changed", "model.safetensors": "ok"})
    assert (config(shell).read_bytes(), weights.read_bytes()) == (EDIT, WEIGHTS)
    ran = done(mdl(shell, "verify", *words, "--repair"))
    assert "o/m/config.json was changed after mdl wrote it" in ran.err
    assert mdl(shell, "verify", *words, "--repair", "--strict").code == 6
    assert config(shell).read_bytes() == EDIT
    done(mdl(shell, "verify", *words, "--repair", "--force"))
    assert config(shell).read_bytes() == CONFIG


def test_get_has_the_same_way_out(shell: Shell, mdl: Inside) -> None:
    """get is 7, and its hint names what verify's does: this model, so that an edit of another one stays."""
    other = shell.models / "o--n" / "config.json"
    done(mdl(shell, "get", "o/n"))
    for path in (config(shell), other):
        edit(path)
    ran = mdl(shell, "get", "o/m")
    assert (ran.code, config(shell).read_bytes()) == (7, EDIT)
    assert "changed after mdl wrote it" in ran.err
    command = re.search("'mdl (verify .*?)' replaces it, with the same --to or --into", ran.err)
    assert command
    assert command[1] == "verify --repair --force o/m"
    done(mdl(shell, *command[1].split()))
    assert (config(shell).read_bytes(), other.read_bytes()) == (CONFIG, EDIT)


def test_other_commands_judge_it_alike(shell: Shell, mdl: Inside) -> None:
    """list does not call it missing, outdated calls it edited, clean leaves it, and rm keeps it and says why."""
    edit(config(shell))
    (row,) = done(mdl(shell, "list", "--local", "--json")).document["models"]
    assert (row["status"], row["files_present"]) == ("unverified", 2)
    ran = done(mdl(shell, "outdated", "--json"))
    changes = {one["path"]: one["change"] for model in ran.document["models"] for one in model["changes"]}
    assert changes == {"config.json": "edited"}
    done(mdl(shell, "clean", "--yes"))
    ran = done(mdl(shell, "rm", "o/m", "--yes", "--json"))
    assert [Path(one["path"]).name for one in ran.document["models"][0]["kept"]] == ["config.json"]
    assert config(shell).read_bytes() == EDIT


def test_what_was_only_touched_is_not_edited(shell: Shell, mdl: Inside) -> None:
    """Under another time the same bytes are current for outdated, and rm takes them."""
    edit(config(shell), CONFIG)
    (row,) = done(mdl(shell, "outdated", "--json")).document["models"]
    assert (row["state"], row["changes"]) == ("current", [])
    done(mdl(shell, "rm", "o/m", "--yes"))
    assert not config(shell).exists()


def test_what_is_listed_and_not_read_is_told(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> None:
    """Where there is nothing of mdl's, verify says that files of other programs are listed and were not read."""
    shell = Shell(tmp_path, hub.url)
    assert done(mdl(shell, "verify")).err.startswith("mdl has no files here to verify; ")
    place = shell.models / "theirs" / "model.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(WEIGHTS)
    assert "'mdl list --local' shows what other programs put here" in done(mdl(shell, "verify")).err


def test_the_hubs_cache(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> None:
    """What was edited through the snapshot's link is changed in that layout too."""
    shell = Shell(tmp_path, hub.url)
    layout = ("--layout", "hf-cache")
    folder = Path(done(mdl(shell, "get", "o/m", *layout)).out.strip())
    edit(folder / "config.json")
    ran = mdl(shell, "verify", "o/m", *layout, "--json")
    assert (ran.code, statuses(ran)["config.json"]) == (0, "changed")
    done(mdl(shell, "verify", "o/m", *layout, "--repair"))
    assert (folder / "config.json").read_bytes() == EDIT
    done(mdl(shell, "verify", "o/m", *layout, "--repair", "--force"))
    assert (folder / "config.json").read_bytes() == CONFIG
