"""Dialling: one connection to a host of several addresses, the first that answers (RFC 8305).

An address that says nothing costs a quarter of a second, not the whole connect timeout: then the next one is tried
beside it. All of them together have that timeout.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

import httpcore
from httpcore._backends.sync import SyncStream

from mdl.cancel import Cancel
from mdl.http.line import Line

_HEAD_START = 0.25
"""Seconds that an address has for itself (RFC 8305, 5)."""
_TICK = 0.05
"""How often somebody who waits for an address looks whether all is stopped, in seconds."""
_ON_ITS_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)

Address = tuple[int, int, int, Any]
"""Family, type, protocol and what to connect to."""


class Dialler(httpcore.SyncBackend):
    """httpcore's way to a connection, with `dialled` in place of one address after the other."""

    def __init__(self, cancel: Cancel) -> None:
        self._cancel = cancel

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Raises httpcore's ``ConnectTimeout`` and ``ConnectError``, `Cancelled`, `Unsafe`."""
        try:
            sock = dialled(_looked_up(host, port, self._cancel), math.inf if timeout is None else timeout, self._cancel)
            for option in (*(socket_options or ()), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)):
                sock.setsockopt(*option)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        return Line(SyncStream(sock), self._cancel).opened()


def _looked_up(host: str, port: int, cancel: Cancel) -> list[Address]:
    """`addresses`; the main thread does not wait for them past a cancel, for no signal ends a look-up. Raises
    `OSError`, `Cancelled`."""
    if threading.current_thread() is not threading.main_thread():
        return addresses(host, port)
    found: Future[list[Address]] = Future()
    try:
        threading.Thread(target=_look_up, args=(found, host, port), name="mdl-names", daemon=True).start()
    except RuntimeError:  # no more threads
        return addresses(host, port)
    while not found.done():
        with contextlib.suppress(TimeoutError):
            found.exception(_TICK)
        cancel.check()
    return found.result()


def _look_up(found: Future[list[Address]], host: str, port: int) -> None:
    try:
        found.set_result(addresses(host, port))
    except Exception as error:
        found.set_exception(error)


def addresses(host: str, port: int) -> list[Address]:
    """Where ``host`` is, its two families by turns (RFC 8305, 4). Raises `OSError`."""
    found = [
        (family, kind, proto, place)
        for family, kind, proto, _, place in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    ]
    first = [one for one in found if one[0] == found[0][0]]
    others = [one for one in found if one[0] != found[0][0]]
    return [one for pair in itertools.zip_longest(first, others) for one in pair if one]


def dialled(places: list[Address], seconds: float, cancel: Cancel) -> socket.socket:
    """A connection to the first of ``places`` that takes one. Raises `TimeoutError`, `OSError`, `Cancelled`."""
    until = time.monotonic() + seconds
    head_start = min(_HEAD_START, seconds / (len(places) + 1))
    queue, troubles = deque(places), list[OSError]()
    with selectors.DefaultSelector() as race:
        try:
            while queue or race.get_map():
                if queue:
                    _start(queue.popleft(), race, troubles)
                winner = _first(race, min(head_start, until - time.monotonic()), troubles)
                cancel.check()
                if winner is not None:
                    return winner
                if time.monotonic() >= until:
                    raise TimeoutError("timed out")
        finally:
            for key in list(race.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
    raise troubles[0] if troubles else OSError("the name has no address")


def _start(place: Address, race: selectors.BaseSelector, troubles: list[OSError]) -> None:
    try:
        sock = socket.socket(*place[:3])
    except OSError as error:
        troubles.append(error)
        return
    sock.setblocking(False)
    code = sock.connect_ex(place[3])
    if code in _ON_ITS_WAY:
        race.register(sock, selectors.EVENT_WRITE)
    else:
        _lost(sock, code, troubles)


def _first(race: selectors.BaseSelector, seconds: float, troubles: list[OSError]) -> socket.socket | None:
    """Who came in within ``seconds``, no longer in the race; None also where one fell out."""
    if not race.get_map():
        return None
    for key, _ in race.select(max(0.0, seconds)):
        sock = key.fileobj
        assert isinstance(sock, socket.socket)
        race.unregister(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            sock.setblocking(True)
            return sock
        _lost(sock, code, troubles)
    return None


def _lost(sock: socket.socket, code: int, troubles: list[OSError]) -> None:
    sock.close()
    troubles.append(OSError(code, os.strerror(code)))
