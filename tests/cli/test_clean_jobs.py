"""``mdl clean`` beside jobs, over broken state, and over links that were planted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.data import DATA
from support.faults import honest, routes
from support.faulty_server import FaultyServer
from support.hf_cache import listing
from support.jobs import Gate, the_job, waits
from support.partials import dead_owner, left_behind
from support.polling import until
from support.shell import Inside, Shell, done, ended, machine, started, write_catalog

from mdl import crc_json
from mdl.disk import publish
from mdl.disk.process import ProcessId
from mdl.downloader.receipts import RECORD, file_key
from mdl.paths import RelPath, record_name

FILE = RelPath.parse("f.bin")


@pytest.fixture
def server(gate: Gate) -> Iterator[FaultyServer]:
    with FaultyServer(routes({"/one": gate, "/two": honest(DATA)})) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    """A machine whose catalog has the models one, which waits at the gate, and two."""
    return machine(tmp_path / "home", catalog_of(one=f"{server.url}/one", two=f"{server.url}/two"))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that mdl has nothing to do with. Some of its files have names that mdl gives to what can go."""
    folder, key, staged = tmp_path / "outside", "a" * 16, f".x.{dead_owner()}.mdl-tmp"
    names = ["notes.txt", "data", "f.bin", "thesis/chapter.tex", f"{key}.{dead_owner()}/data", f"{key}.receipt"]
    for name in (*names, f"thesis/{key}.receipt", staged, f"stage/{staged}"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    return folder


def partials(shell: Shell) -> Path:
    return shell.models / ".mdl" / "partials"


def found(shell: Shell, mdl: Inside, *words: str) -> dict[str, str]:
    """What clean found, by the name of it: what became of it."""
    items = done(mdl(shell, "clean", "--json", *words)).document["items"]
    return {Path(one["path"]).name: one["action"] for one in items}


def left(shell: Shell, model: str, days: float = 0.0) -> Path:
    """A partial of a model as a process that is gone left it, some days ago."""
    path = left_behind(partials(shell), dead_owner())
    place = path.rename(path.with_name(f"{file_key(model, FILE)}.{dead_owner()}"))
    for entry in (*place.iterdir(), place):
        os.utime(entry, times=(entry.stat().st_mtime - days * 86400,) * 2)
    return place


def pause(shell: Shell, gate: Gate, mdl: Inside, *models: str) -> None:
    """A job that was paused while it waited at the gate."""
    with started(shell, "get", *models, "--connections", "1") as process:
        waits(shell, gate)
        done(mdl(shell, "jobs", "pause", the_job(shell).id))
        ended(process, 75)


def test_of_a_job_that_runs_is_paused_and_dies(shell: Shell, gate: Gate, mdl: Inside) -> None:
    """A running job's partial is not even shown, a paused one's is kept and said why, a dead one's goes."""
    with started(shell, "get", "one") as process:
        waits(shell, gate)
        assert found(shell, mdl, "--yes") == {}
        (name,) = os.listdir(partials(shell))
        done(mdl(shell, "jobs", "pause", the_job(shell).id))
        ended(process, 75)
    assert found(shell, mdl, "--yes") == {name: "kept"}
    assert "may continue it" in done(mdl(shell, "clean")).out
    assert os.listdir(partials(shell)) == [name]
    gate.reached.clear()
    with started(shell, "jobs", "resume", the_job(shell).id) as process:
        gate.wait()
        until(lambda: the_job(shell).status == "running")
        process.kill()
        process.wait()
    (name,) = os.listdir(partials(shell))
    assert found(shell, mdl) == {name: "would delete"}
    assert found(shell, mdl, "--yes") == {name: "deleted"}
    assert os.listdir(partials(shell)) == []


def test_of_a_job_that_runs_and_has_not_come_to_it(shell: Shell, gate: Gate, mdl: Inside) -> None:
    """What a dead process left of a file stays while a running job has that file still before it."""
    waiting = left(shell, "two", days=1)
    with started(shell, "get", "one", "two", "--connections", "1") as process:
        gate.wait()
        assert found(shell, mdl, "--yes").get(waiting.name) != "deleted"
        gate.opened.set()
        ended(process, 0)


@pytest.mark.parametrize(
    ("models", "is_readable", "action"),
    [("one two", True, "kept"), ("one", True, "deleted"), ("one", False, "kept")],
    ids=["of its models", "of another", "catalog unreadable"],
)
def test_of_a_job_that_was_paused_before_it_came_to_it(
    shell: Shell, gate: Gate, mdl: Inside, models: str, is_readable: bool, action: str
) -> None:
    """A paused job wants also the partials of its models that it has not touched itself, and any if its catalog cannot
    be read; an older one of another model goes."""
    old = left(shell, "two", days=1)
    pause(shell, gate, mdl, *models.split())
    if not is_readable:
        write_catalog(shell, "schema = \n")
    assert found(shell, mdl, "--yes")[old.name] == action


def test_a_receipt_that_is_being_written(shell: Shell, mdl: Inside) -> None:
    """A receipt that a living mdl has half written under its hidden name is not taken for a damaged one."""
    folder = shell.models / ".mdl" / "receipts" / record_name("one")
    folder.mkdir(parents=True)
    staged = publish.staged_name(folder / RECORD)
    staged.write_bytes(b"00000000 {")
    assert str(ProcessId.current()) in staged.name
    assert found(shell, mdl, "--yes") == {}
    assert staged.exists()


def test_a_receipt_that_a_killed_one_was_writing(shell: Shell, mdl: Inside) -> None:
    """What a killed mdl left of a receipt is a leftover, whole or half."""
    folder = shell.models / ".mdl" / "receipts" / record_name("two")
    done(mdl(shell, "get", "two"))
    (receipt,) = folder.glob("*.receipts")
    staged = folder / f".{'a' * 12}-{receipt.name}.{dead_owner()}.mdl-tmp"
    staged.write_bytes(receipt.read_bytes())
    assert found(shell, mdl) == {staged.name: "would delete"}


def test_what_of_a_newer_mdl_stops_a_get(shell: Shell, mdl: Inside) -> None:
    """A newer mdl's receipt and journal are 12, which names 'mdl clean'; after it the get goes through."""
    done(mdl(shell, "get", "two"))
    (receipt,) = (shell.models / ".mdl" / "receipts" / record_name("two")).iterdir()
    receipt.write_bytes(crc_json.dumps({"mdl-receipt": 9}))
    assert mdl(shell, "get", "two").code == 12
    assert found(shell, mdl, "--yes") == {receipt.name: "deleted"}
    (shell.models / "two" / "f.bin").unlink()
    partial = left(shell, "two")
    (partial / "journal").write_bytes(crc_json.dumps({"mdl-journal": 9}))
    assert mdl(shell, "get", "two").code == 12
    assert found(shell, mdl, "--yes") == {partial.name: "deleted"}
    done(mdl(shell, "get", "two"))


@pytest.mark.parametrize("text", ["version = 99\n", "not TOML"])
def test_a_lock_that_cannot_be_read(shell: Shell, mdl: Inside, text: str) -> None:
    """Clean is what 12 tells to do, so it works where the lock itself is 12; what needs the lock to be known stays."""
    (shell.home / "mdl.lock").write_text(text)
    partial = left(shell, "one")
    assert found(shell, mdl) == {partial.name: "would delete"}


def test_what_cannot_be_removed(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system would not let go of is not called deleted, nor counted as freed."""
    partial = left(shell, "one")

    with monkeypatch.context() as patch:
        patch.setattr(publish, "remove", lambda _: None)
        ran = done(mdl(shell, "clean", "--yes", "--json"))
    assert partial.exists()
    assert [one["action"] for one in ran.document["items"]] != ["deleted"]
    assert ran.document["bytes"] == 0


def test_the_hubs_cache(tmp_path: Path, mdl: Inside) -> None:
    """What --layout hf-cache left unfinished can be cleaned too."""
    shell = Shell(tmp_path)
    own = tmp_path / ".cache" / "huggingface" / "hub" / ".locks" / ".mdl"
    partial = left_behind(own / "partials", dead_owner())
    assert found(shell, mdl, "--layout", "hf-cache") == {partial.name: "would delete"}


OWN = ["partials", "side", "receipts/one", "stage"]


@pytest.mark.parametrize("place", [".mdl", "one", *(f".mdl/{name}" for name in (*OWN, "receipts"))])
def test_mdls_own_folder_leads_out(shell: Shell, outside: Path, mdl: Inside, place: str) -> None:
    """If one of mdl's own folders, or that of a model, is a link, what is behind it was never mdl's to remove."""
    link = shell.models / place
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    before = listing(outside)
    done(mdl(shell, "clean", "--yes"))
    assert listing(outside) == before


@pytest.mark.parametrize("place", OWN)
def test_a_stranger_in_mdls_own_folder(shell: Shell, mdl: Inside, place: str) -> None:
    """A file whose name mdl does not give is not removed, wherever it is."""
    path = shell.models / ".mdl" / place / "notes"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert found(shell, mdl, "--yes") == {}
    assert path.exists()


def test_a_partial_that_is_a_link(shell: Shell, outside: Path, mdl: Inside) -> None:
    """A link by a partial's name goes, and what it leads to stays."""
    partials(shell).mkdir(parents=True)
    link = partials(shell) / f"{file_key('one', FILE)}.{dead_owner()}"
    link.symlink_to(outside)
    before = listing(outside)
    assert found(shell, mdl, "--yes") == {link.name: "deleted"}
    assert (listing(outside), link.is_symlink()) == (before, False)


NOTHING_MORE = dict.fromkeys(("validator", "commit", "catalog", "hub", "replaced"))
NOTHING_MORE |= {"suspect": False, "adopted": False, "prefixes": [], "asked": "", "endpoint": ""}
NOTHING_MORE |= {"access": "unknown", "vouched_by": "folder"}
"""The facts of a receipt that say nothing."""


@pytest.mark.parametrize("model", ["../../outside", "/etc", "..", "one/../../../outside"])
def test_a_forged_receipt(shell: Shell, outside: Path, mdl: Inside, model: str) -> None:
    """A receipt that names a place outside of the models folder does not lead there."""
    status, before = (outside / "f.bin").stat(), listing(outside)
    facts = {"path": "f.bin", "stamp": [status.st_size, status.st_mtime_ns, status.st_ino], "verified": "sha256"}
    facts |= {"mdl-receipt": 2, "model": model, "digest": f"sha256:{'0' * 64}", "url": "http://h/f.bin"}
    place = shell.models / ".mdl" / "receipts" / record_name("one") / RECORD
    place.parent.mkdir(parents=True)
    place.write_bytes(crc_json.dumps(facts | NOTHING_MORE))
    done(mdl(shell, "clean", "--yes"))
    assert listing(outside) == before
