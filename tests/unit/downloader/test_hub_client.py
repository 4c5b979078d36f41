"""The hub's own client at work for mdl, with a hub that misbehaves: each fault is the right error."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.faults import honest
from support.faulty_server import Answer, FaultyServer, Request

from mdl.downloader.hub_client import HubClient
from mdl.errors import MdlError
from mdl.files import HubFile
from mdl.net.allowlist import AllowList
from mdl.net.certificates import Trust

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
        client = HubClient(server.url, None, AllowList.of(["127.0.0.1"]), stall, Trust(os.environ), os.environ)
        return client.fetch(FILE, folder, lambda _count: None).read_bytes()


def test_an_honest_hub(tmp_path: Path) -> None:
    """The control: without a fault the file comes."""
    assert fetched(Hub(), tmp_path) == DATA


@pytest.mark.fault(271, 272)
@pytest.mark.parametrize(
    ("hub", "exit_code", "words"),
    [
        (Hub(at=500), 5, "should be of size 70000 but has size 500"),
        (Hub(at=500, is_silent=True), 5, "not a byte in 1 s"),
        *((Hub(tag), 6, "ETag") for tag in ('"a/b"', '"../../../x"', '"' + "e" * 300 + '"', '"a b"', '""')),
    ],
    ids=["short", "silent", "a folder", "dots", "long", "a blank", "empty"],
)
def test_a_hub_that_misbehaves(tmp_path: Path, hub: Hub, exit_code: int, words: str) -> None:
    """A file shorter than the hub said is not an error of the disk. A silent hub is given up when --stall says so. An
    ETag that cannot be a file name, as the client uses it, is a lie: nothing is fetched."""
    began = time.monotonic()
    with pytest.raises(MdlError, match=words) as caught:
        fetched(hub, tmp_path / "side", 1.0)
    assert (caught.value.exit_code, time.monotonic() - began < 8) == (exit_code, True)
    assert exit_code == 5 or not list(tmp_path.rglob("*.incomplete"))
