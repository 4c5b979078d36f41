"""mdl outdated: what has moved at its source, with a hub and a plain server on loopback. Nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.catalogs import entry_of, unpinned
from support.data import write_files
from support.faults import honest
from support.faulty_server import FaultyServer
from support.hf_cache import listing
from support.loopback_hub import LoopbackHub, Repo
from support.shell import NOBODY, Inside, Run, Shell, done, machine, write_catalog

TINY = Repo("org/tiny", {"config.json": b'{"a": 1}', "model.bin": b"1" * 5000, "same.bin": b"s" * 900}, lfs_threshold=9)
MOVED = replace(
    TINY, files={**TINY.files, "model.bin": b"2" * 5000, "new.txt": b"n", "twin.bin": b"s" * 900}, commit=""
)
TOUCHED = replace(TINY, commit="f" * 40)
SHUT = Repo("org/shut", {"model.bin": b"s"}, private=True)
CATALOG = 'schema = 1\n[models.tiny]\nsource = "hf:org/tiny"\n'
PINNED = CATALOG + f'revision = "{TINY.commit}"\n'

Rows = Callable[..., dict[str, Any]]
REPOS = [TINY, SHUT]


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return machine(tmp_path / "home", CATALOG, hub.url)


@pytest.fixture
def rows(mdl: Inside) -> Rows:
    """The rows of ``mdl outdated --json``, by name; it must end with ``code`` and leave the models folder as it is."""

    def run(shell: Shell, *words: str, code: int = 0) -> dict[str, Any]:
        before = listing(shell.models) if shell.models.exists() else None
        document = done(mdl(shell, "outdated", *words, "--json"), code).document
        assert (listing(shell.models) if shell.models.exists() else None) == before
        return {row["name"]: row for row in document["models"]}

    return run


def asked(hub: LoopbackHub) -> list[str]:
    """The last words of what was asked of the hub's API."""
    return [one.path.split("/")[5] for one in hub.requests if one.path.startswith("/api/models/")]


def test_what_changed_here_is_no_move(shell: Shell, hub: LoopbackHub, ok: Run, rows: Rows, mdl: Inside) -> None:
    """A file that was edited or removed here is no move of the source: 0, also with --exit-code. An edited one is none
    that an update would fetch."""
    ok(shell, "get tiny")
    (shell.models / "tiny" / "config.json").write_text('{"edited": 1}')
    edited = done(mdl(shell, "outdated", "--exit-code"))
    assert "up to date, 1 file edited here" in edited.out
    assert edited.err == "nothing to update among 1 model\n"
    (shell.models / "tiny" / "model.bin").unlink()
    assert "1 of 1 can be updated, 5.0 kB to fetch: mdl update tiny" in done(mdl(shell, "outdated", "--exit-code")).err
    hub.publish(MOVED)
    assert done(mdl(shell, "outdated", "--exit-code"), 8).err.count("1 model moved at the source") == 1
    *_, last = done(mdl(shell, "outdated", "--exit-code", "--progress", "json"), 8).err.splitlines()
    assert json.loads(last)["error"]["message"] == "1 model moved at the source"


def test_a_branch_that_moved(shell: Shell, hub: LoopbackHub, ok: Run, rows: Rows) -> None:
    """What changed and what is new is counted; bytes that are here under another name are none to fetch. It takes two
    requests, and one if the branch is where it was."""
    ok(shell, "get tiny")
    before = len(asked(hub))
    row = rows(shell)["tiny"]
    assert (asked(hub)[before:], row["state"], row["changes"]) == (["revision"], "current", [])
    assert (row["here"], row["newest"], row["newest_at"]) == ([TINY.commit], [TINY.commit], "2026-01-01T00:00:00.000Z")
    hub.publish(MOVED)
    before = len(asked(hub))
    row = rows(shell)["tiny"]
    assert asked(hub)[before:] == ["revision", "tree"]
    assert (row["state"], row["revision"], row["files"]) == ("outdated", "main", 5)
    assert (row["here"], row["locked"], row["newest"]) == ([TINY.commit], [], [MOVED.commit])
    found = {change["path"]: (change["change"], change["bytes_to_fetch"]) for change in row["changes"]}
    assert found == {"model.bin": ("changed", 5000), "new.txt": ("new", 1), "twin.bin": ("new", 0)}
    told = ok(shell, "outdated")
    assert "3 of 5 files, 5.0 kB" in told.out
    assert told.err == "1 of 1 can be updated, 5.0 kB to fetch: mdl update tiny\n"


def test_the_lock_has_its_own_column(shell: Shell, hub: LoopbackHub, ok: Run, rows: Rows) -> None:
    """A lock that is older than the branch is outdated even if no byte moved; one that is newer than the disk as well;
    a locked model of which nothing is here is missing."""
    ok(shell, "lock; get tiny")
    hub.publish(TOUCHED)
    row = rows(shell)["tiny"]
    assert (row["state"], row["changes"], row["here"]) == ("outdated", [], [TOUCHED.commit])
    assert (row["locked"], row["newest"]) == ([TINY.commit], [TOUCHED.commit])
    assert "the same bytes; the lock is older" in ok(shell, "outdated").out
    hub.publish(MOVED)
    ok(shell, "lock --upgrade tiny")
    row = rows(shell)["tiny"]
    assert (row["state"], row["here"]) == ("outdated", [TINY.commit])
    assert row["locked"] == row["newest"] == [MOVED.commit]
    shutil.rmtree(shell.models)
    assert rows(shell)["tiny"]["state"] == "missing"


def test_a_pinned_commit(shell: Shell, hub: LoopbackHub, ok: Run, rows: Rows) -> None:
    """A commit in the catalog cannot move: it is pinned, and nobody is asked."""
    write_catalog(shell, PINNED + entry_of("one", f"{NOBODY}/f"))
    ok(shell, "get tiny")
    hub.publish(MOVED)
    before = len(hub.requests)
    found = rows(shell, "tiny", "one")
    assert hub.requests[before:] == []
    assert [(row["state"], row["newest"]) for row in found.values()] == [("pinned", [TINY.commit]), ("missing", [])]
    assert "nothing to update among 1 model\n" in ok(shell, "outdated tiny").err
    (shell.models / "tiny" / "model.bin").unlink()
    assert [change["change"] for change in rows(shell)["tiny"]["changes"]] == ["missing"]


def test_a_url_tells_by_its_etag(tmp_path: Path, server: FaultyServer, ok: Run, rows: Rows) -> None:
    """A plain URL is asked for one byte: another ETag or size is another file; nothing else is fetched."""
    shell = machine(tmp_path / "home", unpinned(f"{server.url}/f.bin"))
    server.handler = honest(b"on\0" * 100, etag='"1"')
    ok(shell, "get one")
    before = len(server.requests)
    assert rows(shell)["one"]["state"] == "current"
    assert [request.header("range") for request in server.requests[before:]] == ["bytes=0-0"]
    server.handler = honest(b"tw\0" * 100, etag='"2"')
    row = rows(shell)["one"]
    assert (row["state"], row["changes"][0]["bytes_to_fetch"]) == ("outdated", 300)


def test_a_url_of_the_command_line(tmp_path: Path, server: FaultyServer, ok: Run, rows: Rows) -> None:
    """A URL that no catalog has is asked again as it was; one with a query was not kept whole, and nobody is asked."""
    shell = machine(tmp_path / "home")
    server.handler = honest(b"on\0" * 100, etag='"1"')
    ok(shell, f"get {server.url}/f.bin; get {server.url}/sub/g.bin?key=secret")
    server.handler = honest(b"tw\0" * 100, etag='"2"')
    before = len(server.requests)
    found = {name.partition("_")[2]: row["state"] for name, row in rows(shell).items()}
    assert (sorted(found.values()), len(server.requests) - before) == (["outdated", "unknown"], 1)


def test_what_no_catalog_has(shell: Shell, hub: LoopbackHub, ok: Run, rows: Rows) -> None:
    """What was fetched by its reference is followed by its receipts: all of the repository if all of it is here, else
    only what is here. A name that is nowhere is 3."""
    ok(shell, "get hf:org/tiny; get hf:org/tiny --include config.json --to some")
    hub.publish(MOVED)
    assert len(rows(shell)["org--tiny"]["changes"]) == 3
    some = replace(shell, extra={"MDL_HOME": str(shell.home / "some")})
    row = rows(some)["org--tiny"]
    assert (row["state"], row["files"], row["newest"]) == ("current", 1, [MOVED.commit])
    hub.publish(replace(MOVED, files={"config.json": b"{}"}, commit=""))
    assert [change["path"] for change in rows(some)["org--tiny"]["changes"]] == ["config.json"]
    rows(shell, "tinny", code=3)


def test_a_file_that_was_edited(shell: Shell, ok: Run, rows: Rows) -> None:
    """A file that was changed after mdl wrote it is told, and is nothing that an update would fetch."""
    ok(shell, "get tiny")
    (shell.models / "tiny" / "config.json").write_text(json.dumps({"mine": True}))
    [change] = rows(shell)["tiny"]["changes"]
    assert (change["path"], change["change"], change["bytes_to_fetch"]) == ("config.json", "edited", 0)


def test_what_another_program_put_here(shell: Shell, ok: Run, rows: Rows) -> None:
    """Files without a receipt are not read, and are not called edited: they may be right to the last byte."""
    write_files(shell.models / "tiny", TINY.files)
    assert {change["change"] for change in rows(shell, "tiny")["tiny"]["changes"]} == {"unread"}
    told = ok(shell, "outdated tiny").out
    assert ("3 put here by another program, and not read" in told, "edited" in told) == (True, False), told


def test_what_cannot_be_asked_is_a_row(shell: Shell, ok: Run, rows: Rows, mdl: Inside) -> None:
    """A repository that is not there or may not be read is a row with its reason; the others are told, and the exit
    code is that of the reason, or 10 if there are several."""
    lost = '[models.lost]\nsource = "hf:org/lost"\n'
    shut = '[models.shut]\nsource = "hf:org/shut"\n'
    ok(shell, "get tiny")
    write_catalog(shell, CATALOG + lost + shut)
    found = rows(shell, "tiny", "lost", "shut", code=10)
    assert [row["state"] for row in found.values()] == ["current", "failed", "failed"]
    assert [found[name]["error"]["exit_code"] for name in ("lost", "shut")] == [3, 4]
    rows(shell, "shut", code=4)
    ran = done(mdl(shell, "outdated", "tiny", "lost"), 3)
    assert "up to date" in ran.out
    assert "mdl: lost: 127.0.0.1 answered 404" in ran.err
    assert "nothing to update among 1 model\n" in ran.err  # of tiny alone that is known


def test_offline(shell: Shell, ok: Run, mdl: Inside) -> None:
    """Offline nobody can be asked: 8, and no row pretends to know."""
    ok(shell, "get tiny")
    offline = replace(shell, extra={"HF_HUB_OFFLINE": "1"})
    assert done(mdl(offline, "outdated", "--json"), 8).document["models"] == []
    assert "nothing is here" in done(mdl(replace(shell, extra={"MDL_HOME": "none"}), "outdated")).err
