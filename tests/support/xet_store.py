"""The storage of Xet on loopback: real files that the real hf_xet uploaded, served by its protocol.

hf_xet writes its uploads into a folder (``local://DIR``). This server reads the xorbs and shards there as their
specification says (https://huggingface.co/docs/xet), and answers reconstructions and ranges of xorbs.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from support.data import sha256
from support.faults.base import honest
from support.faults.wire import Answer, Request, reply
from support.faulty_server import FaultyServer
from support.loopback_hub import LoopbackHub, Repo

NAME = "model.bin"
PART, LITTLE = "part.bin", "little.bin"
"""Files that the engine asks for in one request; the second one it holds in memory."""
TOKEN = "xet-read-token-0123456789"
_UPLOAD = """
import hf_xet, sys
session = hf_xet.XetSession(hf_xet.XetConfig().with_config({"telemetry.enabled": False}))
commit = session.new_upload_commit(endpoint="local://" + sys.argv[1])
uploads = [commit.start_upload_file(path) for path in sys.argv[2:]]
commit.wait_to_finish()
print(*(one.result().xet_info.hash for one in uploads), sep="\\n")
"""
_ENTRY = 48
_VERIFIED, _DESCRIBED = 2**31, 2**30


@dataclass(frozen=True)
class Term:
    """A part of a file: these chunks of a xorb, of so many bytes in all."""

    xorb: str
    size: int
    first: int
    stop: int


@dataclass(frozen=True)
class Chunk:
    """A chunk of a xorb: where its packed bytes are, and how many bytes it holds."""

    start: int
    stop: int
    size: int


@dataclass
class XetStore:
    """What hf_xet keeps in ``folder``. ``files`` are the Xet hashes by the names that were uploaded."""

    folder: Path
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def uploaded(cls, folder: Path, paths: list[Path]) -> XetStore:
        """Upload files with hf_xet itself."""
        environ = {**os.environ, "HF_XET_CACHE": str(folder / "cache"), "HF_XET_LOG_DEST": os.devnull}
        words = [sys.executable, "-c", _UPLOAD, str(folder), *map(str, paths)]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True, timeout=100)
        return cls(folder, dict(zip((path.name for path in paths), done.stdout.split(), strict=True)))

    @cached_property
    def terms(self) -> dict[str, list[Term]]:
        """Of each file, by its Xet hash, what it is put together from."""
        found: dict[str, list[Term]] = {}
        for shard in (self.folder / "xet/xorbs/shards").glob("*.mdb"):
            data, at = shard.read_bytes(), _ENTRY
            while data[at : at + 32] != b"\xff" * 32:
                name, flags, count = _hash(data, at), *struct.unpack_from("<II", data, at + 32)
                rows = [at + _ENTRY * (1 + number) for number in range(count)]
                found[name] = [Term(_hash(data, row), *struct.unpack_from("<III", data, row + 36)) for row in rows]
                at += _ENTRY * (1 + count * (2 if flags & _VERIFIED else 1) + bool(flags & _DESCRIBED))
        return found

    def xorb(self, name: str) -> Path:
        return self.folder / f"xet/xorbs/xorbs/default.{name}"

    def chunks(self, xorb: str) -> list[Chunk]:
        """The chunks of a xorb, by the headers before them."""
        data, at, found = self.xorb(xorb).read_bytes(), 0, list[Chunk]()
        while at < len(data) and data[at] == 0:
            packed, size = (int.from_bytes(data[at + start : at + start + 3], "little") for start in (1, 5))
            found.append(Chunk(at, at + 8 + packed, size))
            at += 8 + packed
        return found


class FileBytes:
    """The bytes of a file, read when they are served."""

    def __init__(self, path: Path) -> None:
        self._path, self._size = path, path.stat().st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, span: slice) -> bytes:
        start, stop, _ = span.indices(self._size)
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)


def _hash(data: bytes, at: int) -> str:
    """A hash as text: four numbers of 64 bits, the lowest byte first."""
    return "".join(f"{number:016x}" for number in struct.unpack_from("<4Q", data, at))


class XetServer:
    """Serves a `XetStore`, a context manager. ``tokens`` are those that it accepts; ``change`` makes another answer of
    one; ``requests`` are all that it got."""

    def __init__(self, store: XetStore, change: Callable[[Request, Answer], Answer] | None = None) -> None:
        self.store, self.change, self.tokens = store, change, {TOKEN}
        self.xorbs_at = ""
        """Where the signed URLs of xorbs lead, if not here."""
        self._chunks: dict[str, list[Chunk]] = {}
        self._lock = threading.Lock()
        self._server = FaultyServer(self._answer)
        self.url, self.port = self._server.url, self._server.port

    def read_token(self) -> dict[str, Any]:
        """What a hub answers that sends its clients here."""
        return {"accessToken": TOKEN, "exp": int(time.time()) + 3600, "casUrl": self.url}

    @property
    def requests(self) -> list[Request]:
        return self._server.requests

    def __enter__(self) -> XetServer:
        self._server.__enter__()
        return self

    def __exit__(self, *stop: Any) -> None:
        self._server.__exit__(*stop)

    def _answer(self, request: Request, number: int) -> Answer:
        answer = self._honest(request, number)
        return self.change(request, answer) if self.change else answer

    def _honest(self, request: Request, number: int) -> Answer:
        _, group, *rest = request.path.split("/")
        if group == "xorb":
            if request.query != "Signature=of-the-xorb":
                return reply(403)
            return honest(FileBytes(self.store.xorb(rest[0])))(request, number)
        if group != "v1":
            return reply(404)
        if (request.header("authorization") or "") not in {f"Bearer {token}" for token in self.tokens}:
            return reply(401, b"token expired")
        terms = self.store.terms.get(rest[-1])
        size = sum(term.size for term in terms or ())
        span = request.range(size) or (0, size)
        if terms is None or span[0] >= size:
            return reply(404 if terms is None else 416)
        return reply(200, json.dumps(self._reconstruction(terms, *span)).encode())

    def _reconstruction(self, terms: list[Term], start: int, stop: int) -> dict[str, Any]:
        """What the range is put together from: the chunks of each term that it touches."""
        found, fetches, offset, at = list[dict[str, Any]](), dict[str, list[dict[str, Any]]](), 0, 0
        for term in terms:
            chunks, touched = self._chunks_of(term.xorb), list[int]()
            for index in range(term.first, term.stop):
                size = chunks[index].size
                if at < stop and at + size > start:
                    if not found and not touched:
                        offset = start - at
                    touched.append(index)
                at += size
            if touched:
                span, size = {"start": touched[0], "end": touched[-1] + 1}, sum(chunks[one].size for one in touched)
                found.append({"hash": term.xorb, "unpacked_length": size, "range": span})
                first, last = chunks[touched[0]].start, chunks[touched[-1]].stop - 1
                url = f"{self.xorbs_at or self.url}/xorb/{term.xorb}?Signature=of-the-xorb"
                fetch = {"range": span, "url": url, "url_range": {"start": first, "end": last}}
                fetches.setdefault(term.xorb, []).append(fetch)
        return {"offset_into_first_range": offset, "terms": found, "fetch_info": fetches}

    def _chunks_of(self, xorb: str) -> list[Chunk]:
        with self._lock:
            if xorb not in self._chunks:
                self._chunks[xorb] = self.store.chunks(xorb)
            return self._chunks[xorb]


@contextmanager
def xet_hub(
    store: XetStore,
    change: Callable[[Request, Answer], Answer] | None = None,
    read_token: Callable[[dict[str, Any]], dict[str, Any]] = lambda right: right,
    name: str = NAME,
) -> Iterator[tuple[LoopbackHub, XetServer]]:
    """A hub with a repository ``demo/tiny``, whose `NAME` has the bytes of ``name`` in the store and is on Xet;
    ``read_token`` makes another answer of a right one."""
    data = (store.folder / name).read_bytes()
    with (
        XetServer(store, change) as server,
        LoopbackHub([Repo("demo/tiny", {"config.json": b"{}", NAME: data}, lfs_threshold=1000)]) as hub,
    ):
        hub.put_on_xet({sha256(data): store.files[name]}, lambda: read_token(server.read_token()))
        yield hub, server


def flipped(answer: Answer, at: int) -> Answer:
    """The same answer with one bit of its body flipped, if it is that long."""

    def pieces() -> Iterator[Any]:
        seen = 0
        for piece in answer.pieces():
            if isinstance(piece, bytes) and seen <= at < seen + len(piece):
                one = bytearray(piece)
                one[at - seen] ^= 1
                piece = bytes(one)
            seen += len(piece) if isinstance(piece, bytes) else 0
            yield piece

    return Answer(answer.status, answer.headers, pieces(), answer.end)
