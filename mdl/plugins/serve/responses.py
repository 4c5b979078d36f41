"""Answers and bodies: what answers at an address, a file from the disk, a refusal in words, what a client sends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, BinaryIO

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from mdl.bounds import LARGEST_SMALL_FILE
from mdl.errors import AuthError, Busy, NotFinished, NotFound, Occupied, Problem, Unsafe, UsageError
from mdl.files import Stamp
from mdl.formatting import json_bytes
from mdl.net.ranges import Answer
from mdl.plugins.serve.connection import KEY, Connection
from mdl.plugins.serve.traffic import COUNT, Traffic
from mdl.sources.hub_protocol import refusal_headers
from mdl.values import value_class

_STATUSES: tuple[tuple[type[Problem], int], ...] = (
    (NotFound, 404),
    (Unsafe, 400),
    (UsageError, 400),
    (AuthError, 403),
    (Busy, 409),
    (Occupied, 409),
    (NotFinished, 409),
)


class Refusal(Exception):
    """Ends the search for an answer. ``code`` is what the hub's clients read: ``RepoNotFound``, ``EntryNotFound``."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {**refusal_headers(code, message), **(headers or {})}

    @classmethod
    def of(cls, error: Problem) -> Refusal:
        """What a client is told of an error: what failed, and what there is instead."""
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
        hint = f" ({error.hint})" if error.hint and status != 500 else ""
        return cls(status, "", f"{error.message}{hint}")


_BODY_SECONDS = 20.0
Handler = Callable[[Request], Awaitable[Response]]


@value_class
class Address:
    """A path, and what answers to GET and HEAD."""

    path: str
    handler: Handler


class JsonResponse(Response):
    """A value as JSON. A name of this disk that is no UTF-8 is escaped in it as on a terminal."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json_bytes(content)


def answer_with(refusal: Refusal) -> Response:
    """A refusal, as the hub words it: in headers and as JSON."""
    return JsonResponse({"error": refusal.message}, refusal.status, refusal.headers)


async def body_of(request: Request) -> bytes:
    """The body of a request. Raises `Refusal` if it is too large, takes too long, or does not come to its end."""
    found = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                found += piece
                if len(found) > LARGEST_SMALL_FILE:
                    raise Refusal(413, "", "the body is too large")
    except TimeoutError:
        raise Refusal(408, "", "the body did not come in time") from None
    except ClientDisconnect:
        raise Refusal(400, "", "the body was cut") from None
    return found


class SentFile(Response):
    """A file, or a part of it, which goes from the disk to the socket inside the kernel while it has this ``stamp``."""

    def __init__(
        self, file: BinaryIO, stamp: Stamp, answer: Answer, headers: Mapping[str, str], traffic: Traffic
    ) -> None:
        facts = dict(headers)
        if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            facts |= {"Content-Range": f"bytes */{stamp.size}"}
        elif answer.status == HTTPStatus.PARTIAL_CONTENT:
            facts |= {"Content-Range": f"bytes {answer.start}-{answer.stop - 1}/{stamp.size}"}
        if answer.status != HTTPStatus.NOT_MODIFIED:
            facts |= {"Content-Length": str(answer.stop - answer.start), "Content-Type": "application/octet-stream"}
        super().__init__(status_code=answer.status, headers=facts)
        self._file = file
        self._stamp = stamp
        self._answer = answer
        self._traffic = traffic

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        connection: Connection = scope[KEY]
        self._traffic.files_open += 1
        try:
            with self._file:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                start = self._answer.start
                stop = self._answer.stop
                if start < stop and scope["method"] != "HEAD":
                    await connection.send_file(self._file.fileno(), self._stamp, start, stop, scope[COUNT])
                await send({"type": "http.response.body"})
        except OSError:
            connection.abort()  # the client has gone, or takes nothing, or the file was changed
        finally:
            self._traffic.files_open -= 1
