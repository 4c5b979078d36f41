"""Xet: files of the hub from its content-addressed storage, as one more way to their bytes (``--via xet``).

The hub's redirect to a file also names its Xet hash and where to get a read token. Then hf_xet puts the ranges that the
engine asks for together, in a process of its own (`mdl.sources.xet_worker`) whose only connection is mdl's gateway
(`mdl.sources.xet_gateway`). Journal, verification, retries and resuming are the engine's. hf_xet does not notice wrong
bytes; the file's sha256 does.

If Xet cannot begin a range, not at the second try either, the redirect is followed over HTTP instead, and so is that of
every file from then on.

Protocol: https://huggingface.co/docs/xet, "Authentication" and "Download Protocol".
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import queue
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

from mdl.errors import MdlError, NetworkError, ProtocolError
from mdl.events import Event, Listener, Noticed, silence
from mdl.http.allowlist import host_of, origin_of
from mdl.http.client import HttpClient, redirect_target
from mdl.http.locators import Body, Link, Part
from mdl.http.responses import parse_size
from mdl.paths import shown
from mdl.process import isolated_python
from mdl.sources import xet_worker
from mdl.sources.xet_gateway import ADDRESS, Channel, Gateway
from mdl.values import value_class

_PIECE = 8 * 2**20
"""Bytes that hf_xet is asked for at a time. Those that have come are lost if mdl is killed."""
_STREAMS = 8
"""Pieces that are put together at once. hf_xet holds each up to three times, packed, unpacked and on its way to mdl:
some 250 MiB in all."""
_STEP = 2**18
_START_SECONDS, _LOOK_SECONDS = 20.0, 0.25
_SPARE_SECONDS = 60.0
"""A token is not used any more so long before it expires, but for as long at least: this machine's clock may be wrong,
and a token that the storage refuses is replaced in any case."""
_HASH = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(r"[!-~]{1,16384}")
_ROUTE = re.compile(r'<([^<>]*)>\s*;[^,<]*rel="?xet-auth"?')
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "HOME", "LANG", "TMPDIR")


@value_class
class XetFile:
    """A file on Xet: its stable URL, its Xet hash and size, and the URL of the hub that gives a read token for it."""

    url: str
    hash: str
    size: int
    route: str


@value_class
class ReadToken:
    """A token for the storage at ``base``; ``until`` is the moment (`time.monotonic`) from which it is not used."""

    token: str = field(repr=False)
    base: str
    until: float


class Xet:
    """The way over Xet of one `HttpClient`, whose ``detour`` and locator it is; a context manager.

    The block gets a listener, `tell`: what Xet has to say reaches ``on_event`` in the threads that call it, and at the
    end. ``endpoint`` is the URL of the hub; ``keep_secret`` is told each token.
    """

    def __init__(
        self,
        http: HttpClient,
        endpoint: str,
        on_event: Listener = silence,
        keep_secret: Callable[[str], None] = lambda _token: None,
    ) -> None:
        self._http, self._endpoint, self._on_event, self._keep_secret = http, endpoint, on_event, keep_secret
        self._files: dict[str, XetFile] = {}
        self._tokens: dict[str, ReadToken] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._room = threading.BoundedSemaphore(_STREAMS)
        self._starting, self._telling = threading.Lock(), threading.Lock()
        self._worker: Worker | None = None
        self._told, self._notices = set[str](), queue.SimpleQueue[Noticed]()
        self._is_over = False
        http.detour = self.detour
        http.locators["xet"] = self.locate

    def __enter__(self) -> Listener:
        return self.tell

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        with self._starting:
            if self._worker:
                self._worker.close()
        self._flush()

    def tell(self, event: Event) -> None:
        """Pass an event on, after what Xet had to say until now."""
        self._flush()
        self._on_event(event)

    def _flush(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._on_event(self._notices.get_nowait())

    def detour(self, hop: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, Body] | None:
        """Another way to what a redirect leads to: a URL to ask directly the next time, and the body. ``headers`` are
        those of the request. None if there is none, or if earlier bytes of the file were wrong."""
        url = hop[":url"]
        if self._is_over or origin_of(url) != origin_of(self._endpoint) or "Cache-Control" in headers:
            return None
        if "x-xet-hash" not in hop:
            if not _same_origin(url, hop.get("location", "")):
                self._notice("absent", "a file is not on Xet: it comes over HTTP, and so does any other that is not")
            return None
        hash_, size = hop["x-xet-hash"], parse_size(hop.get("x-linked-size", ""))
        found = _ROUTE.search(hop.get("link", ""))
        route = _same_origin(url, found[1]) if found else ""
        if not _HASH.fullmatch(hash_) or not size or not route:
            self._give_up("the hub's answer names no usable hash, size and token")
            return None
        name = f"xet{url.removeprefix('https').removeprefix('http')}"
        self._files[name] = XetFile(url, hash_, size, route)
        return name, self.locate(name)

    def locate(self, url: str) -> Body:
        """The body of a file that was met in a redirect."""
        return Body(partial(self._read, self._files[url]))

    def _read(self, file: XetFile, start: int, stop: int | None) -> Part | Link:
        """A range of a file; the way over HTTP if Xet does not bring the first bytes of it."""
        end = file.size if stop is None else min(stop, file.size)
        if start >= end:
            return Part(file.size, ())
        for attempt in range(2):
            if self._is_over:
                break
            try:
                blocks = _Begun(self._blocks(file, start, end))
                return Part(file.size, blocks, {"Content-Type": "application/octet-stream"}, is_throttled=True)
            except NetworkError as error:
                cause = error.__cause__
                if attempt == 0 and isinstance(cause, NetworkError) and not cause.final:
                    self._notice("again", f"{error.message}: it is asked again")
                else:
                    self._give_up(error.message)
        return Link(file.url, authorized=True)

    def _blocks(self, file: XetFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of a range. Raises `NetworkError`, whatever the cause is: the engine asks again for the rest."""
        for at in range(start, stop, _PIECE):
            while not self._room.acquire(timeout=0.1):
                self._http.cancel.check()
            try:
                yield from self._piece(file, at, min(at + _PIECE, stop))
            except MdlError as error:
                raise NetworkError(f"Xet: {error.message}") from error
            finally:
                self._room.release()

    def _piece(self, file: XetFile, start: int, stop: int) -> Iterator[bytes]:
        token, worker, at = self._token(file.route), self._started(), start

        def bearer(refused: str) -> str:
            return self._token(file.route, refused).token

        with (
            worker.gateway.channel(token.base, file.route, bearer) as (key, channel),
            worker.order(file, key, start, stop) as sock,
        ):
            self._http.cancel.register(sock)
            while at < stop:
                left = int.from_bytes(b"".join(self._received(sock, channel, 4)), "big")
                if not left:
                    raise channel.error or _ended_early(sock, at - start, stop - start)
                at += left
                if at > stop:
                    raise ProtocolError(f"hf_xet gave more than the {stop - start} bytes that were asked for")
                yield from self._received(sock, channel, left)

    def _received(self, sock: socket.socket, channel: Channel, count: int) -> Iterator[bytes]:
        """The next ``count`` bytes of the worker, as they come."""
        while count:
            try:
                block = sock.recv(min(count, _STEP))
            except TimeoutError:
                if channel.is_silent(self._http.stall):
                    raise NetworkError(f"no byte for {self._http.stall:g} s") from None
                self._http.cancel.check()
                continue
            except OSError as error:
                raise NetworkError(error.strerror or str(error)) from error
            self._http.cancel.check()
            if not block:
                raise NetworkError("hf_xet has ended")
            count -= len(block)
            yield block

    def _token(self, route: str, refused: str = "") -> ReadToken:
        """A token that is not about to expire, and is not the ``refused`` one; the hub is asked if it has to be."""
        with self._locks[route]:
            found = self._tokens.get(route)
            if found and found.token != refused and time.monotonic() < found.until:
                return found
            answer, _, final = self._http.json("GET", route)
            try:
                token, base = answer["accessToken"], answer["casUrl"]
                self._keep_secret(token)
                seconds = max(float(answer["exp"]) - time.time() - _SPARE_SECONDS, _SPARE_SECONDS)
                base = redirect_target(base, final).rstrip("/")
                is_usable = bool(_TOKEN.fullmatch(token)) and math.isfinite(seconds) and "?" not in base
            except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
                raise ProtocolError("the hub gave no read token") from error
            if not is_usable:
                raise ProtocolError(f"the hub named a storage that cannot be used: {host_of(base)}")
            found = self._tokens[route] = ReadToken(token, base, time.monotonic() + seconds)
            return found

    def _started(self) -> Worker:
        """The worker, which is started when it is first needed."""
        with self._starting:
            if self._worker is None:
                if importlib.util.find_spec("hf_xet") is None:
                    raise ProtocolError("hf_xet is not installed")
                try:
                    self._worker = Worker(self._http)
                except OSError as error:
                    self._http.cancel.check()
                    raise NetworkError(f"hf_xet does not start: {error.strerror or error}", final=True) from error
            return self._worker

    def _give_up(self, why: str) -> None:
        """From now on every file comes over HTTP."""
        self._is_over = True
        self._notice("over", f"{why}: the files come over HTTP instead of Xet")

    def _notice(self, about: str, message: str) -> None:
        """Have something said once."""
        with self._telling:
            if about not in self._told:
                self._told.add(about)
                self._notices.put(Noticed(message=message))


def _same_origin(url: str, target: str) -> str:
    """The URL that ``target`` means in an answer of ``url``; '' if it has another origin, or is no URL."""
    with contextlib.suppress(ValueError):
        found = urljoin(url, target)
        if origin_of(found) == origin_of(url):
            return found
    return ""


def _ended_early(sock: socket.socket, came: int, count: int) -> MdlError:
    """Why hf_xet gave only so many of ``count`` bytes, in its own words if it has any."""
    words = b""
    with contextlib.suppress(OSError):
        words = sock.recv(4096)
    if words:
        return NetworkError(f"hf_xet: {shown(words.decode(errors='replace'))[:300]}")
    return ProtocolError(f"hf_xet gave only {came} of {count} bytes")


class _Begun:
    """Blocks, the first of which is here already. ``close`` drops the others."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._first = blocks, next(blocks)

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        yield from self._blocks

    def close(self) -> None:
        self._blocks.close()  # type: ignore[attr-defined]


class Worker:
    """The process of hf_xet, with the gateway that it asks, in a folder that only this user may open."""

    def __init__(self, http: HttpClient) -> None:
        """Raises `OSError` if it does not start."""
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack, theirs:
            folder = Path(tempfile.mkdtemp(prefix="mdl-xet-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(self._control)
            self.gateway = stack.enter_context(contextlib.closing(Gateway(http, folder / "gw")))
            process = subprocess.Popen(
                [*isolated_python(), xet_worker.__file__, str(folder / "gw")],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env=_environment(folder),
                start_new_session=True,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            theirs.close()
            http.cancel.register(self._control)
            self._control.settimeout(_START_SECONDS)
            answer = self._control.recv(xet_worker.ORDER)
            if answer != xet_worker.READY:
                raise OSError(shown(answer.decode(errors="replace"))[:300] or "its process ended")
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End the process, and remove its folder."""
        self._stack.close()

    @contextlib.contextmanager
    def order(self, file: XetFile, key: str, start: int, stop: int) -> Iterator[socket.socket]:
        """A socket with the bytes of a range, the length of each block before the block. Raises `NetworkError`."""
        asked = {"endpoint": ADDRESS, "key": key, "hash": file.hash, "size": file.size, "start": start, "stop": stop}
        with contextlib.ExitStack() as stack:
            try:
                ours, theirs = (stack.enter_context(one) for one in socket.socketpair())
                ours.settimeout(_LOOK_SECONDS)
                with theirs, self._lock:
                    message = json.dumps(asked).encode().ljust(xet_worker.ORDER)
                    socket.send_fds(self._control, [message], [theirs.fileno()])
            except ConnectionError as error:
                raise NetworkError("hf_xet has ended", final=True) from error
            except OSError as error:
                raise NetworkError(f"hf_xet cannot be asked: {error.strerror}", final=True) from error
            yield ours


def _environment(folder: Path) -> dict[str, str]:
    """What the process of hf_xet inherits: no token, no proxy, and no folder but its own to keep anything in."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    own = {"HF_XET_CACHE": str(folder), "HF_XET_LOG_DEST": os.devnull, "HF_XET_TELEMETRY_ENABLED": "0"}
    return {**kept, **own}
