"""The hub's own client at work for mdl, with a hub that misbehaves: its faults are told as what they are."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.faults import honest
from support.faulty_server import Answer, FaultyServer, Request

from mdl.engine.hub_client import HubClient
from mdl.errors import MdlError
from mdl.files import HubFile
from mdl.http.allowlist import AllowList

DATA = b"weights" * 10_000
COMMIT = "a" * 40
FILE = HubFile("org/tiny", "model", COMMIT, "model.bin")


class Hub:
    """A hub of one file. ``etag`` is what it calls it; a body ends after ``at`` bytes, or falls silent there."""

    def __init__(self, etag: str = '"0123abcd"', at: int | None = None, *, is_silent: bool = False) -> None:
        self._right, self._etag, self._at, self._is_silent = honest(DATA), etag, at, is_silent

    def __call__(self, request: Request, number: int) -> Answer:
        answer = self._right(request, number)
        names = {"etag", "x-repo-commit"}
        kept = [(name, value) for name, value in answer.headers if name.lower() not in names]
        answer = replace(answer, headers=[*kept, ("ETag", self._etag), ("X-Repo-Commit", COMMIT)])
        if self._at is None or request.method == "HEAD":
            return answer
        if self._is_silent:
            return replace(answer, body=DATA[: self._at], end="hang")
        headers = [(name, value) for name, value in answer.headers if name.lower() != "content-length"]
        return replace(answer, headers=[*headers, ("Content-Length", str(self._at))], body=DATA[: self._at])


def fetched(hub: Hub, folder: Path, stall: float = 20.0) -> bytes:
    with FaultyServer(hub) as server:
        client = HubClient(server.url, None, AllowList.of(["127.0.0.1"]), stall)
        return client.fetch(FILE, folder, lambda _count: None).read_bytes()


def test_an_honest_hub(tmp_path: Path) -> None:
    """What the others do to it is the only fault."""
    assert fetched(Hub(), tmp_path) == DATA


@pytest.mark.fault(271)
def test_a_short_file_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    """A file shorter than the hub said is 5, in the client's words."""
    with pytest.raises(MdlError, match="should be of size 70000 but has size 500") as caught:
        fetched(Hub(at=500), tmp_path)
    assert caught.value.exit_code == 5


@pytest.mark.fault(271)
@pytest.mark.parametrize("etag", ['"a/b"', '"../../../x"', '"' + "e" * 300 + '"', '"a b"', '""'])
def test_an_etag_that_is_none(tmp_path: Path, etag: str) -> None:
    """The client makes a file name of the ETag: one that can be none is a lie, 6; nothing is fetched."""
    with pytest.raises(MdlError) as caught:
        fetched(Hub(etag), tmp_path / "side")
    assert caught.value.exit_code == 6
    assert "ETag" in caught.value.message
    assert not list(tmp_path.rglob("*.incomplete"))


@pytest.mark.fault(272)
def test_a_silent_hub_is_given_up(tmp_path: Path) -> None:
    """Not a byte for as long as --stall says: 5, however long the client would wait."""
    began = time.monotonic()
    with pytest.raises(MdlError, match="not a byte in 1 s") as caught:
        fetched(Hub(at=500, is_silent=True), tmp_path, 1.0)
    assert (caught.value.exit_code, time.monotonic() - began < 8) == (5, True)
