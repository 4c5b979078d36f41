"""A plain download of a URL: the answer that brings the bytes says what they are, and nobody is asked before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.data import MIB, noise, sha256
from support.faulty_server import FaultyServer, Handler
from support.shell import Inside, machine

TINY, LARGE = noise(3000), noise(5 * MIB, 1)
NAMED = ("Content-Disposition", 'attachment; filename="told.bin"')


@pytest.fixture(params=[TINY, LARGE], ids=["tiny", "large"])
def data(request: pytest.FixtureRequest) -> bytes:
    content: bytes = request.param
    return content


def asked(server: FaultyServer) -> list[str]:
    """What the requests asked for: a range, or '' for all of the file."""
    return [request.header("range") or "" for request in server.requests]


def rows(document: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(row["path"], row["action"], row["size"]) for model in document["models"] for row in model["files"]]


SERVED: dict[str, tuple[Any, tuple[str, ...], str, str]] = {
    "a URL": (faults.honest, (), "m.bin", "m.bin"),
    "its digest is known": (faults.honest, ("--sha256",), "m.bin", "m.bin"),
    "another name": (faults.honest, ("-o", "other.bin"), "m.bin", "other.bin"),
    "the server names it": (lambda data: faults.with_headers(faults.honest(data), NAMED), (), "d/1", "told.bin"),
    "nobody names it": (faults.honest, (), "d/1", "1"),
    "no ranges": (faults.norange, (), "m.bin", "m.bin"),
    "no length": (faults.chunked, (), "m.bin", "m.bin"),
}


@pytest.mark.parametrize("case", SERVED)
def test_one_request_for_the_whole_file(tmp_path: Path, mdl: Inside, data: bytes, case: str) -> None:
    """One GET without a range brings name, size and bytes; a second run finds the file and fetches nothing."""
    serve, flags, path, name = SERVED[case]
    flags = (*flags, sha256(data)) if flags == ("--sha256",) else flags
    with FaultyServer(serve(data)) as server:
        shell, url = machine(tmp_path / "home", MDL_CONNECTIONS="1"), f"{server.url}/{path}"
        ran = mdl(shell, "get", url, *flags, "--json")
        assert (ran.code, rows(ran.document)) == (0, [(name, "fetched", len(data))])
        assert asked(server) == [""]
        folder = Path(ran.document["models"][0]["path"])
        assert (folder / name).read_bytes() == data
        again = mdl(shell, "get", url, *flags, "--json")
        assert (again.code, again.document["bytes_fetched"]) == (0, 0) or case == "no length"


def test_each_file_of_a_catalog_once(tmp_path: Path, mdl: Inside) -> None:
    """Several files without sizes and digests cost one request each."""
    with FaultyServer(faults.honest(TINY)) as server:
        lines = ["schema = 1"]
        for number in range(12):
            lines += ["[[models.many.files]]", f'path = "{number}.bin"', f'url = "{server.url}/{number}.bin"']
        shell = machine(tmp_path / "home", "\n".join(lines))
        assert mdl(shell, "get", "many").code == 0
        assert sorted(request.target for request in server.requests) == sorted(f"/{n}.bin" for n in range(12))
        assert asked(server) == [""] * 12


def test_only_a_plan_asks_for_a_byte(tmp_path: Path, mdl: Inside, data: bytes) -> None:
    """A dry run asks what is there, and fetches none of it."""
    with FaultyServer(faults.honest(data)) as server:
        ran = mdl(machine(tmp_path / "home"), "get", f"{server.url}/m.bin", "-n", "--json")
        assert (asked(server), ran.document["bytes_to_fetch"]) == (["bytes=0-0"], len(data))


@pytest.mark.parametrize("flags", [(), ("-n",)], ids=["get", "plan"])
def test_a_size_that_the_catalog_states(tmp_path: Path, mdl: Inside, flags: tuple[str, ...]) -> None:
    """Another size than the catalog states is told as that: 6, in a plan as in a download."""
    with FaultyServer(faults.honest(TINY)) as server:
        file = f'[[models.one.files]]\npath = "f.bin"\nurl = "{server.url}/f.bin"\nsize = 2999\n'
        ran = mdl(machine(tmp_path / "home", f"schema = 1\n{file}"), "get", "one", *flags)
    assert (ran.code, "announces 3000 bytes, expected 2999" in ran.err) == (6, True), ran.err


REFUSED: dict[str, tuple[Handler, tuple[str, ...], int, str]] = {
    "too large": (faults.honest(LARGE), ("--max-size", "1M"), 11, "5,242,880 bytes"),
    "absent": (faults.answers(404), (), 3, "404"),
    "forbidden": (faults.answers(403), (), 4, "403"),
    "a name that is none": (
        faults.with_headers(faults.honest(LARGE), ("Content-Disposition", "attachment; filename=CON")),
        (),
        11,
        "-o NAME",
    ),
    "a page": (faults.portal(), (), 4, "log in"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_head_tells_is_refused(tmp_path: Path, mdl: Inside, case: str) -> None:
    """What a plan refuses is refused when the answer's head tells it: nothing is left under a final name."""
    handler, flags, code, words = REFUSED[case]
    with FaultyServer(handler) as server:
        shell = machine(tmp_path / "home")
        ran = mdl(shell, "get", f"{server.url}/d/1", *flags)
    assert (ran.code, words in ran.err) == (code, True), ran.err
    assert not [path for path in shell.models.rglob("*") if path.is_file() and ".mdl" not in path.parts]


def test_there_must_be_room(tmp_path: Path, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the head tells more bytes than are free it is 7 before the first of them is written."""
    monkeypatch.setattr("mdl.downloader.store.Store.free_space", lambda _self: MIB)
    with FaultyServer(faults.honest(LARGE)) as server:
        shell = machine(tmp_path / "home")
        ran = mdl(shell, "get", f"{server.url}/m.bin")
        assert (ran.code, "the plan needs 5.2 MB and 1.0 MB are free" in ran.err) == (7, True), ran.err
        assert len(server.requests) == 1


def test_a_strangers_file_stays(tmp_path: Path, mdl: Inside) -> None:
    """A file of the name that only the answer tells is not overwritten."""
    with FaultyServer(faults.with_headers(faults.honest(LARGE), NAMED)) as server:
        shell, place = machine(tmp_path / "home"), tmp_path / "mine"
        place.mkdir()
        (place / "told.bin").write_bytes(b"mine")
        assert mdl(shell, "get", f"{server.url}/d/1", "--into", str(place)).code == 7
        assert (place / "told.bin").read_bytes() == b"mine"
        assert mdl(shell, "get", f"{server.url}/d/1", "--into", str(place), "--force").code == 0
        assert (place / "told.bin").read_bytes() == LARGE


@pytest.mark.parametrize(("path", "name"), [("m.bin", "m.bin"), ("d/1", "told.bin")])
def test_an_interrupted_one_goes_on(tmp_path: Path, mdl: Inside, path: str, name: str) -> None:
    """What came before a run ended is not fetched again by the next, whether or not the URL names the file."""
    cut = faults.with_headers(faults.cut(faults.honest(LARGE), 3 * MIB), NAMED)
    with FaultyServer(cut) as server:
        shell = machine(tmp_path / "home", MDL_RETRIES="1", MDL_CONNECTIONS="1")
        assert mdl(shell, "get", f"{server.url}/{path}").code == 5
        server.handler, before = faults.with_headers(faults.honest(LARGE), NAMED), len(server.requests)
        ran = mdl(shell, "get", f"{server.url}/{path}", "--json")
        assert (ran.code, [row[0] for row in rows(ran.document)]) == (0, [name])
        assert ran.document["bytes_fetched"] <= 2 * MIB + 65536
        assert sum(request.sent for request in server.requests[before:]) <= 2 * MIB + 2 * 65536
