"""Numbers of thousands of digits, from every file and server that mdl reads: the exit code of its kind, never 1."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.faulty_server import FaultyServer, reply
from support.shell import Inside, Ran, machine

HEX, DECIMAL = "0x" + "f" * 6000, "9" * 6000
MODEL = '[models.m]\nsource = "https://h.example/a.bin"\n'
LOCKED = '[[model]]\nname = "m"\nentry = "e"\nsource = "https://h.example"\nfiles = [{ path = "a", size = %s }]\n'
COMMIT = "c" * 40


def ended(ran: Ran, code: int) -> str:
    """What it said, in few words, with this exit code."""
    said = ran.out + ran.err
    assert ran.code == code, said
    assert "Traceback" not in said
    assert "fault in mdl" not in said
    assert len(said) < 3000
    return said


@pytest.mark.parametrize("number", [HEX, DECIMAL, "1e999", str(2**63)], ids=["hex", "decimal", "float", "64 bits"])
def test_files_that_people_write(mdl: Inside, tmp_path: Path, number: str) -> None:
    """A catalog, what it extends, and the settings: 2, with the file, the line and the key."""
    shell = machine(tmp_path)
    catalog, base = tmp_path / "catalog.toml", tmp_path / "base.toml"
    for text in (
        f"schema = {number}\n",
        f"schema = 1\nx-a = [1,\n {number}]\n",
        f"schema = 1\nx-a.b = {{c = {number}}}\n",
    ):
        catalog.write_text(text)
        assert "catalog.toml:" in ended(mdl(shell, "list"), 2)
    catalog.write_text(f"schema = 1\n[[models.m.files]]\nurl = 'https://h/a'\nsize = {number}\n")
    assert "catalog.toml:4: models.m.files[0].size: the number " in ended(mdl(shell, "list"), 2)
    catalog.write_text('schema = 1\nextends = ["base.toml"]\n')
    base.write_text(f"schema = 1\nx-a = {number}\n")
    assert "base.toml:2: x-a: the number " in ended(mdl(shell, "list"), 2)
    catalog.unlink()
    settings = tmp_path / ".config" / "mdl" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"[defaults]\nconnections = {number}\n")
    assert "config.toml:2: defaults.connections: the number " in ended(mdl(shell, "list"), 2)


@pytest.mark.parametrize("number", [HEX, DECIMAL, "1e999", str(2**63)], ids=["hex", "decimal", "float", "64 bits"])
def test_a_lock(mdl: Inside, tmp_path: Path, number: str) -> None:
    """A lock that holds one cannot be read: 12."""
    shell = machine(tmp_path)
    (tmp_path / "catalog.toml").write_text(f"schema = 1\n{MODEL}")
    (tmp_path / "mdl.lock").write_text(f"version = 2\n{LOCKED % number}")
    ended(mdl(shell, "get", "--locked", "m"), 12)
    (tmp_path / "mdl.lock").write_text(f"version = {number}\n")
    ended(mdl(shell, "get", "--locked", "m"), 12)


def entry(size: str) -> bytes:
    return f'[{{"type":"file","path":"a.bin","oid":"{"b" * 40}","size":{size}}}]'.encode()


@pytest.mark.parametrize(
    ("size", "code"),
    [
        *((DECIMAL, 6), ("-" + DECIMAL, 6), ("NaN", 6), ("1e999", 6), ("-1", 6), ("0." + DECIMAL, 6), ("[" * 9000, 6)),
        *((str(2**63 - 1), 7), (str(2**63), 7), ("1" + "0" * 30, 7)),
    ],
)
def test_a_listing(mdl: Inside, tmp_path: Path, size: str, code: int) -> None:
    """A hub that tells no size is 6, and what it told is not kept; one that tells of more than any disk is 7."""
    with FaultyServer(lambda request, number: reply(200, entry(size))) as server:
        shell = machine(tmp_path, endpoint=server.url)
        ended(mdl(shell, "get", f"hf:org/m@{COMMIT}"), code)
        ended(mdl(shell, "lock", "m", "--catalog", str(catalog_of(tmp_path))), 0 if size == str(2**63 - 1) else code)
    if code == 6:
        ended(mdl(shell, "get", "--offline", f"hf:org/m@{COMMIT}"), 8)


def catalog_of(folder: Path) -> Path:
    place = folder / "catalog.toml"
    place.write_text(f'schema = 1\n[models.m]\nsource = "hf:org/m@{COMMIT}"\n')
    return place


JOBS: dict[str, Callable[[str], str]] = {
    "a size": lambda number: f'{{"jobs": [{{"id": "a", "status": "done", "size_bytes": {number}}}]}}',
    "a time": lambda number: f'{{"jobs": [{{"id": "a", "status": "done", "created_at": {number}}}]}}',
    "something else": lambda number: f'{{"jobs": [{{"id": "a", "status": "done", "loss": {number}}}]}}',
}


@pytest.mark.parametrize("answer", JOBS.values(), ids=JOBS)
@pytest.mark.parametrize(("number", "code"), [(DECIMAL, 6), ("1" + "0" * 30, 0), ("NaN", 0), ("1e999", 0)])
def test_jobs_of_a_server(mdl: Inside, tmp_path: Path, answer: Callable[[str], str], number: str, code: int) -> None:
    """A training server whose list of jobs cannot be read is 6; a loss that is no number is nobody's fault."""
    text = answer(number).encode()
    with FaultyServer(lambda request, number: reply(200, text)) as server:
        shell = machine(tmp_path)
        settings = tmp_path / ".config" / "mdl" / "config.toml"
        settings.parent.mkdir(parents=True)
        settings.write_text(f'[remotes.box]\nkind = "trainer"\nurl = "{server.url}"\n')
        said = mdl(shell, "remote", "jobs", "box", "--json")
    ended(said, code)
    json.loads(said.out, parse_constant=pytest.fail)
