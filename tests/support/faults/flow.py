"""Faults of redirects, status and time (catalogue C)."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import parse_qs

from support.faults.base import PIECE, Data, choose, first, honest
from support.faults.bodies import upto
from support.faults.wire import Answer, Handler, Piece, Request, reply

REDIRECTS = (301, 302, 303, 307, 308)
RETRIED = (408, 425, 429, 500, 502, 503, 504)

HOSTILE_LOCATIONS = {
    "file": "file:///etc/hostname",
    "ftp": "ftp://127.0.0.1/x",
    "gopher": "gopher://127.0.0.1/x",
    "data": "data:text/plain,x",
    "leading blank": " file:///etc/hostname",
    "userinfo": "http://user:secret@127.0.0.1:{port}/moved",
    "line feed": "/moved\r\nX-Injected: 1",
    "private network": "http://10.0.0.1:{port}/moved",
    "loopback of IPv6": "http://[::1]:{port}/moved",
    "private network of IPv6": "http://[fd00::8]:{port}/moved",
    "metadata service": "http://169.254.169.254/latest/meta-data",
    "no host": "http:///moved",
    "odd address": "http://127.1:{port}/moved",
    "hex address": "http://0x7f.1:{port}/moved",
    "decimal address": "http://2130706433:{port}/moved",
    "unspecified address": "http://0.0.0.0:{port}/moved",
    "mapped address": "http://[::ffff:127.0.0.1]:{port}/moved",
    "empty": "",
}
"""Location values that must be refused; {port} is the server's own (see `redirects`)."""

ODD_LOCATIONS = {
    "absolute": "{origin}/moved",
    "path": "/moved",
    "no slash": "moved",
    "dot segments": "../moved",
    "too many dots": "../../../moved",
    "no scheme": "//127.0.0.1:{port}/moved",
    "capital scheme": "HTTP://127.0.0.1:{port}/moved",
    "fragment": "/moved#there",
}
"""Ways to say /moved (from /file) that must be understood."""


def redirects(location: str | bytes, *, status: int = 302, body: bytes = b"moved\n") -> Handler:
    """Sends everything to ``location``; {origin} and {port} in it are this server's."""

    def handler(request: Request, number: int) -> Answer:
        port = request.origin.rpartition(":")[2]
        said = location if isinstance(location, bytes) else location.format(origin=request.origin, port=port)
        return Answer(status, [("Location", said), ("Content-Length", str(len(body)))], body)

    return handler


def moved(data: Data, location: str | bytes = "/moved", *, status: int = 302) -> Handler:
    """Serves ``data`` at /moved; every other path is sent to ``location``."""
    here, there = honest(data), redirects(location, status=status)
    return lambda request, number: (here if request.path == "/moved" else there)(request, number)


def loop() -> Handler:
    """/a goes to /b, everything else to /a."""
    return choose(lambda request: request.path == "/a", redirects("/b"), redirects("/a"))


def chain(data: Data, hops: int) -> Handler:
    """``hops`` redirects, /hop/1 to /hop/N, before the file at the last."""
    right = honest(data)

    def handler(request: Request, number: int) -> Answer:
        at = int(request.path.removeprefix("/hop/")) if request.path.startswith("/hop/") else 0
        if at >= hops:
            return right(request, number)
        return redirects(f"/hop/{at + 1}")(request, number)

    return handler


def heavy_redirect() -> Handler:
    """A redirect to /moved with a body of 10 GB."""
    headers = [("Location", "/moved"), ("Content-Length", str(10**10))]
    return lambda request, number: Answer(302, headers, itertools.repeat(bytes(PIECE), 10**10 // PIECE), "close")


def answers(status: int | str, *headers: tuple[str, str], body: bytes = b"no\n") -> Handler:
    """Always this status, with these headers."""
    return lambda request, number: reply(status, body, *headers)


def busy(handler: Handler, *, times: int = 1, status: int = 503, retry_after: str | None = None) -> Handler:
    """``status`` for the first ``times`` GETs (with a Retry-After, if given), then the handler."""
    headers = [("Retry-After", retry_after)] if retry_after is not None else []
    return first(times, answers(status, *headers), handler)


class Signed:
    """A stable URL that redirects to /signed?sig=…&n=…, which stops working: 403 then, until asked anew.

    A signature is good for ``requests`` GETs, until `expire` is called, or, with ``one_range``, for the first Range it
    was used with. Paths other than /signed hand out signatures; HEAD too.
    """

    def __init__(
        self, data: Data, *, requests: int | None = None, one_range: bool = False, body: Handler | None = None
    ) -> None:
        self._serve, self._requests, self._one_range = body or honest(data), requests, one_range
        self._lock = threading.Lock()
        self._used: dict[int, list[str | None]] = {}
        self._from = 0
        self.minted = self.refused = 0

    def expire(self) -> None:
        """All signatures handed out so far are void from now on."""
        with self._lock:
            self._from = self.minted

    def __call__(self, request: Request, number: int) -> Answer:
        if request.path != "/signed":
            with self._lock:
                self.minted += 1
                location = f"/signed?sig={_signature(self.minted - 1)}&n={self.minted - 1}"
            return redirects(location)(request, number)
        why = self._refusal(request)
        if why is None:
            return self._serve(request, number)
        body = f"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>{why}</Message></Error>"
        return reply(403, body.encode(), ("Content-Type", "application/xml"))

    def _refusal(self, request: Request) -> str | None:
        query = parse_qs(request.query)
        number = int(query.get("n", ["-1"])[0])
        with self._lock:
            used = self._used.setdefault(number, [])
            asked = request.header("range")
            why = None
            if not 0 <= number < self.minted or query.get("sig") != [_signature(number)]:
                why = "Bad signature"
            elif number < self._from or (self._requests is not None and len(used) >= self._requests):
                why = "Request has expired"
            elif self._one_range and used and asked != used[0]:
                why = "Auth failed: invalid range"
            if why is None and request.method != "HEAD":
                used.append(asked)
            self.refused += why is not None
            return why


def _signature(number: int) -> str:
    return hashlib.sha256(f"secret {number}".encode()).hexdigest()[:40]


def trickle(handler: Handler, *, piece: int = 1, pause: float = 1.0) -> Handler:
    """The handler's answers, ``piece`` bytes at a time with ``pause`` seconds between."""

    def slow(request: Request, number: int) -> Answer:
        answer = handler(request, number)
        whole = b"".join(part for part in answer.pieces() if isinstance(part, bytes))

        def body() -> Iterator[Piece]:
            for at in range(0, len(whole), piece):
                yield from ([pause] if at else [])
                yield whole[at : at + piece]

        return replace(answer, body=body())

    return slow


def acting_at(act: Callable[[], object], data: Data, at: int) -> Handler:
    """Every answer is the whole file, and after ``at`` bytes of its body something is done."""
    right = honest(data)

    def handler(request: Request, number: int) -> Answer:
        def body() -> Iterator[Piece]:
            yield data[:at]
            act()
            yield data[at:]

        return replace(right(request, number), body=body())

    return handler


def stall_before_headers() -> Handler:
    """Takes the request and says nothing."""
    return lambda request, number: Answer(None, end="hang")


def stall_in_body(data: Data, at: int, *, gate: threading.Event | None = None) -> Handler:
    """``at`` bytes of each body, then silence: for good, or until the ``gate`` is set, when the rest follows."""
    right = honest(data)

    def handler(request: Request, number: int) -> Answer:
        answer = right(request, number)
        body = (piece for piece in answer.pieces() if isinstance(piece, bytes))
        if gate is None:
            return replace(answer, body=upto(body, at), end="hang")
        whole = b"".join(body)
        return replace(answer, body=[whole[:at], gate, whole[at:]])

    return handler


def slow_headers(handler: Handler, *, pause: float = 1.0) -> Handler:
    """The head one byte at a time, ``pause`` seconds apart."""

    def slow(request: Request, number: int) -> Answer:
        answer = handler(request, number)
        head = answer.head()

        def body() -> Iterator[Piece]:
            for at in range(len(head)):
                yield head[at : at + 1]
                yield pause
            yield from answer.pieces()

        return replace(answer, status=None, headers=(), body=body())

    return slow
