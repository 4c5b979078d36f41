"""People read a repository as org/repo, whatever its folder is called, and a list says whose catalog it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.loopback_hub import LoopbackHub, Repo
from support.partials import dead_owner, left_behind
from support.shell import Inside, Shell, done, machine

from mdl.disk.mutex import file_lock
from mdl.downloader.receipts import RECORD, file_key
from mdl.downloader.store import Store
from mdl.paths import RelPath

FILES = {"config.json": b"{}", "model.safetensors": (2).to_bytes(8, "little") + b"{}" + b"w" * 3_000}


def test_a_repository_is_read_as_it_is_typed(tmp_path: Path, mdl: Inside) -> None:
    """verify, outdated, show and list name it org/repo; the folder's name is in paths and in JSON alone. What a hint
    says works as it stands there."""
    with LoopbackHub([Repo("org/m", FILES)]) as hub:
        shell = Shell(tmp_path, hub.url)
        done(mdl(shell, "get", "org/m"))
        (shell.models / "org--m" / "config.json").write_text('{"edited": 1}')
        (shell.models / "org--m" / "model.safetensors").unlink()
        checked = done(mdl(shell, "verify"), 3)
        document = done(mdl(shell, "verify", "--json"), 3).document
        assert [model["name"] for model in document["models"]] == ["org--m"]
        assert "changed  org/m/config.json" in checked.out
        assert "mdl verify org/m --repair fetches what is wrong" in checked.err
        assert "org--m" not in checked.out + checked.err
        assert "name:     org/m\n" in done(mdl(shell, "show", "org/m")).out
        done(mdl(shell, "verify", "org/m", "--repair"))
        assert "org/m" in done(mdl(shell, "outdated")).out
        hub.publish(Repo("org/m", {**FILES, "config.json": b"[]"}))
        moved = done(mdl(shell, "outdated"))
        assert moved.err.endswith("to fetch: mdl update org/m\n")
        assert "org--m" not in moved.out + moved.err


def test_failures_and_leftovers_too(tmp_path: Path, mdl: Inside) -> None:
    """What offline lacks, what another process holds, and what clean finds is named org/repo."""
    with LoopbackHub([Repo("org/m", FILES)]) as hub:
        shell = Shell(tmp_path, hub.url)
        done(mdl(shell, "get", "org/m", "config.json"))
        done(mdl(shell, "get", "org/m", "-n"))
        offline = done(mdl(shell, "get", "org/m", "--offline"), 8)
        assert "mdl: org/m/model.safetensors: missing; mdl is offline\n" in offline.err
        left = left_behind(shell.models / ".mdl" / "partials", dead_owner())
        left.rename(left.with_name(f"{file_key('org--m', RelPath('config.json'))}.{dead_owner()}"))
        assert done(mdl(shell, "clean")).out.splitlines()[1].split()[2:5] == ["partial", "org/m", "config.json"]
        with file_lock(Store(shell.models).locks, "org--m", 0.0, lambda _holder: None):
            busy = done(mdl(shell, "get", "org/m", "--lock-wait", "0s"), 9)
        assert busy.err.splitlines()[-2].startswith("mdl: org/m: another ")


def test_an_import_too(tmp_path: Path, mdl: Inside) -> None:
    """Also the one line of a model that was imported as a repository of the hub."""
    with LoopbackHub([Repo("org/m", FILES)]) as hub:
        shell = Shell(tmp_path, hub.url)
        folder = tmp_path / "came"
        folder.mkdir()
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
        planned = done(mdl(shell, "import", str(folder), "--from", "hf:org/m", "-n"))
        imported = done(mdl(shell, "import", str(folder), "--from", "hf:org/m"))
        document = done(mdl(shell, "import", str(folder), "--from", "hf:org/m", "--json")).document
    assert [ran.out.splitlines()[1].split()[0] for ran in (planned, imported)] == ["org/m", "org/m"]
    assert {file["model"] for file in document["files"]} == {"org--m"}


@pytest.mark.parametrize("command", ["rm", "mv --to there", "verify", "verify --repair", "update", "outdated", "path"])
def test_a_name_that_is_not_here(tmp_path: Path, mdl: Inside, command: str) -> None:
    """What works on this disk alone says how to see what is there, and not how to download it."""
    shell = machine(tmp_path)
    refused = done(mdl(shell, *command.split(), "nosuch"), 3)
    assert refused.err == "mdl: nosuch: not in the catalog\n  hint: 'mdl list --local' shows what is on this disk\n"
    assert "OWNER/nosuch" in done(mdl(shell, "get", "nosuch"), 3).err


@pytest.mark.parametrize("has_own", [False, True])
def test_a_list_says_whose_catalog_it_is(tmp_path: Path, mdl: Inside, has_own: bool) -> None:
    """Without a catalog of one's own, one line says that this one comes with mdl. A size that nobody knows is an empty
    cell."""
    shell = machine(tmp_path) if has_own else Shell(tmp_path)
    listed = done(mdl(shell, "list"))
    assert ("this catalog comes with mdl; 'mdl init' begins one of your own" in listed.err) is not has_own
    assert "?" not in listed.out


def test_a_plan_has_every_file(tmp_path: Path, mdl: Inside) -> None:
    """Also one that gets the bytes of another file of the plan; and a refused one is named with its model."""
    with LoopbackHub([Repo("org/m", {**FILES, "params": b"{}"})]) as hub:
        shell = Shell(tmp_path, hub.url)
        planned = done(mdl(shell, "get", "-n", "org/m"))
        document = done(mdl(shell, "get", "-n", "org/m", "--json")).document
        done(mdl(shell, "get", "org/m"))
        (shell.models / "org--m" / "params").write_text("edited")
        refused = done(mdl(shell, "get", "-n", "org/m"), 7)
    assert [line.split()[-1] for line in planned.out.splitlines()[1:]] == [
        "org/m/config.json",
        "org/m/model.safetensors",
        "org/m/params",
    ]
    assert [file["path"] for file in document["models"][0]["files"]] == ["config.json", "model.safetensors", "params"]
    assert "mdl: org/m/params: it was changed after mdl wrote it" in refused.err


def test_receipts_that_cannot_be_read(tmp_path: Path, mdl: Inside) -> None:
    """verify names the file of mdl's own that is damaged (12), not the folder it is in as a model; get mends it."""
    with LoopbackHub([Repo("org/m", FILES)]) as hub:
        shell = Shell(tmp_path, hub.url)
        done(mdl(shell, "get", "org/m"))
        record = Store(shell.models).receipts.place("org--m") / RECORD
        record.write_bytes(b"\0" * 100)
        damaged = done(mdl(shell, "verify"), 12)
        assert f"mdl: {record}: the receipts of a model cannot be read\n" in damaged.err
        done(mdl(shell, "get", "org/m"))
        assert "2 files ok" in done(mdl(shell, "verify")).err


def test_force_without_a_repair(tmp_path: Path, mdl: Inside) -> None:
    """A flag that would do nothing is no silence: 2, and what to add."""
    refused = done(mdl(machine(tmp_path), "verify", "--force"), 2)
    assert refused.err == "mdl: --force: only a repair replaces files\n  hint: add --repair\n"
