"""The HTTP client: asks URLs, reads what they answer, and says what a refusal means.

`mdl.net.follower` follows redirects, `mdl.net.credentials` decides which host gets which secret, and `mdl.net.sender`
sends the single requests.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from mdl.bounds import LARGEST_ANSWER, LARGEST_LIST, parse_json
from mdl.cancel import CancelToken
from mdl.errors import MdlError, NetworkError, NotFound, ProtocolError
from mdl.json_stream import Take, read_json
from mdl.net.allowlist import AllowList, OriginToken, host_of, origin_of
from mdl.net.body import Block, BodyReader
from mdl.net.certificates import Trust, unheard
from mdl.net.connection import Interrupter
from mdl.net.connection_errors import map_httpx_errors
from mdl.net.credentials import HostAccess, HostCredential, HostTls
from mdl.net.follower import Follower, OpenResponse, Question
from mdl.net.http_errors import Asker, error_for_status, is_not_yet, may_be_the_token, page_of
from mdl.net.locators import Locate
from mdl.net.pacer import OriginRecord, Pacer
from mdl.net.policy import Again, Limits, RequestEnded, State, decide
from mdl.net.proxies import Proxy, ProxySettings
from mdl.net.sender import SMALL_BODY, Sender
from mdl.net.server_messages import impostor, server_message
from mdl.net.throttle import NO_LIMIT, Throttle
from mdl.net.transport import system_settings
from mdl.redact import Secrets
from mdl.urls import expires_at

_BEGINNING = 4096

Answer = TypeVar("Answer")
OnRetry = Callable[[Again], None]
"""Receives what the retry policy decided after a failure."""


class HttpClient:
    """An HTTP client for any number of threads. Close it when done."""

    def __init__(
        self,
        hosts: AllowList,
        *,
        tokens: Iterable[OriginToken | None] = (),
        credentials: Iterable[HostCredential] = (),
        hub: str = "",
        limits: Limits = Limits(),
        cancel: CancelToken | None = None,
        throttle: Throttle = NO_LIMIT,
        environ: Mapping[str, str] | None = None,
        tls: Iterable[HostTls] = (),
        warn: Callable[[str], None] = unheard,
        locate: Locate | None = None,
    ) -> None:
        """``locate`` says where the file of a URL of another scheme than http(s) is; its link is followed as a redirect
        is. ``hub`` is the URL of the hub in use: a refusal of it is told in another way than that of any other host.
        ``environ`` has the variables of proxies and certificates; the process's own without it. ``tls`` is what the
        settings say of the certificates of single hosts. ``warn`` is told in words what cannot be used."""
        environ = os.environ if environ is None else environ
        proxies = ProxySettings.of(system_settings(environ))
        for problem in proxies.problems.values():
            warn(problem)
        self.cancel = cancel or CancelToken()
        self.policy = limits.policy
        self.connections = limits.connections
        self.throttle = throttle
        self.stall = limits.stall
        self.pacer = Pacer(limits.connections, limits.policy)
        self.sender = Sender(limits, self.cancel, Trust(environ, tls, warn))
        self._pacer_lock = threading.Lock()
        self._hub = origin_of(hub) if hub else ""
        self._access = HostAccess(hosts, filter(None, tokens), credentials, proxies)
        self._reader = BodyReader(self.cancel, limits.stall, limits.slow, throttle)
        self.follower = Follower(self._access, self.sender, self.record, limits, self.cancel, locate)
        self._open_without: dict[str, bool] = {}
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True
        self.sender.close()

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        start: str | None = None,
        allow: tuple[int, ...] = (),
        content: bytes | Iterable[bytes] | None = None,
        bearer: str = "",
        interrupter: Interrupter | None = None,
        is_file: bool = False,
    ) -> Iterator[OpenResponse]:
        """Ask ``url``, follow redirects, and yield the response with its body unread. A request with ``content`` is
        sent once, and follows none. Content in blocks is iterated over anew if the connection turns out to be dead; its
        length must be in ``headers``. A ``bearer`` is sent with ``url`` instead of the token of its origin, and not
        with what it redirects to.

        ``start`` is the URL that the user named, if ``url`` is only where it once led to (`OpenResponse.location`). A
        host that a redirect named is not trusted more when it is asked directly than it was on the way from ``start``.
        Another thread may end the request with the ``interrupter``. If a file is asked for (``is_file``), an answer
        that it is not there yet is a `NetworkError` too.

        A status of 400 or more that is not in ``allow`` raises the error that it means (`AuthError`, `NotFound`,
        `NetworkError`). A refused hop raises `Unsafe`. Trouble with the connection raises `NetworkError`,
        `ProtocolError` or `TlsError`, also while the body is read inside the block.
        """
        question = Question(method, url, start or url, headers or {}, content, bearer, interrupter or Interrupter())
        secrets = self._access.secrets(bearer)
        opened: OpenResponse | None = None
        began = time.monotonic()
        with map_httpx_errors(url, secrets):
            try:
                opened = self.follower.follow(question, secrets)
                is_refusal = opened.status >= 400 and opened.status not in allow
                if is_refusal or (is_file and is_not_yet(opened.status, opened.headers)):
                    raise self._refusal(opened, question, secrets)
                yield opened
            except Exception as error:
                has_body_begun = opened is not None and opened.response.num_bytes_downloaded > 0
                if _is_silence(error) and not has_body_begun:
                    self.record(question.start).note_silence(began, time.monotonic())
                self.cancel.check()  # a cancel closes the connections, which causes every kind of error
                raise
            finally:
                if opened is not None:
                    opened.response.close()

    def _refusal(self, opened: OpenResponse, question: Question, secrets: Secrets) -> MdlError:
        """Return the error that a response means, in the server's own words."""
        with self.sender.refusal_deadline(opened.response):
            words = self.beginning(opened, SMALL_BODY)
        is_redirected = bool(opened.hops)
        code = opened.headers.get("x-error-code", "")
        hub_moved_to = ""
        if opened.status == 401 or code:  # it speaks as a hub does, and not as a host that only serves the bytes
            hub_moved_to = self._hub_moved_to(question.start, opened.url)
        asker = Asker(
            sent=opened.sent,
            is_hub=origin_of(opened.url) == self._hub,
            is_redirected=is_redirected or question.url != question.start,
            is_located=self.is_located(question.start),
            credential=self._access.credential_for(opened.url),
            proxy=self.proxy_for(opened.url),
            is_expired=expires_at(opened.url) < time.time(),
            hub_moved_to=hub_moved_to,
        )
        is_of_token = asker.is_hub and asker.sent != "" and not question.bearer
        if is_of_token and may_be_the_token(opened.status, code, server_message(opened.headers, words, secrets)):
            asker = replace(asker, is_open_without=self._is_open_without(question.url, secrets))
        error = error_for_status(opened.status, opened.headers, words, opened.url, asker, secrets)
        is_gone_for_good = opened.is_fresh and isinstance(error, NotFound)
        return error.but(
            status_code=opened.status,
            server_code=code,
            redirected=is_redirected and not is_gone_for_good,
        )

    def _hub_moved_to(self, start: str, url: str) -> str:
        """Return the origin of ``url`` if that is where the hub's address leads on from ``start``: the same question is
        asked of another scheme, host or port. '' if not."""
        before = urlsplit(start)
        after = urlsplit(url)
        is_same = (before.path, before.query) == (after.path, after.query)
        is_moved = is_same and origin_of(start) == self._hub and origin_of(url) != self._hub
        return f"{after.scheme}://{after.netloc}" if is_moved else ""

    def _is_open_without(self, url: str, secrets: Secrets) -> bool:
        """Return whether a URL of the hub is served if it is asked once without the token. Each repository is asked
        once; nothing is downloaded without the token by itself (ADR 96)."""
        page = page_of(url)
        if page not in self._open_without:
            headers = {"Range": "bytes=0-0"} if "/resolve/" in url else {}
            self._open_without[page] = False
            with contextlib.suppress(MdlError, httpx.HTTPError):
                opened = self.follower.follow(Question("GET", url, url, headers, is_anonymous=True), secrets)
                self._open_without[page] = opened.status < 400
                opened.response.close()
        return self._open_without[page]

    def body(self, opened: OpenResponse, length: int | None = None, *, decode: bool = True) -> Iterator[Block]:
        """Return the body of a response, ``length`` bytes of it if that is known; see `BodyReader.blocks`."""
        return self._reader.blocks(opened.response, length, decode=decode, first_byte=opened.first_byte)

    def beginning(self, opened: OpenResponse, count: int = _BEGINNING) -> bytes:
        """About the first ``count`` bytes of a body; fewer or none if they cannot be read."""
        text = bytearray()
        with contextlib.suppress(httpx.HTTPError, httpx.StreamError, NetworkError, ProtocolError):
            for block in self.body(opened):
                text += block
                if len(text) >= count:
                    break
        return bytes(text)

    def read(self, opened: OpenResponse, most: int) -> bytes:
        """Return the whole body of an answer. Raises `ProtocolError` if it has more than ``most`` bytes."""
        data = bytearray()
        for block in self._bounded(opened, most):
            data += block
        return bytes(data)

    def _bounded(self, opened: OpenResponse, most: int, hint: str | None = None) -> Iterator[Block]:
        """Return the body of an answer. Raises `ProtocolError`, with this ``hint``, once it has more than ``most``
        bytes."""
        received = 0
        for block in self.body(opened):
            received += len(block)
            if received > most:
                why = f"{host_of(opened.url)} sent an answer of over {most:,} bytes, the most that mdl reads"
                raise ProtocolError(why, hint=hint)
            yield block

    def json(
        self, method: str, url: str, content: Any = None, *, most: int = LARGEST_ANSWER
    ) -> tuple[Any, Mapping[str, str], str]:
        """Return a JSON answer of at most ``most`` bytes, its headers, and the URL that it came from in the end.
        ``content`` is sent as JSON, once: what is not idempotent is not sent again if the answer is lost.

        Raises `ProtocolError` for anything that is not JSON or is too large, and what `open` raises.
        """
        headers = {"Accept": "application/json"}
        body: bytes | None = None
        if content is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(content).encode()
        with self.open(method, url, headers, content=body) as opened:
            text = self.read(opened, most)
            try:
                return parse_json(text, allow_nan=True), opened.headers, opened.url
            except ValueError as error:
                raise _not_json(url, text[:_BEGINNING]) from error

    def json_lists(
        self, url: str, lists: Mapping[str, Take], hint: str, *, most: int = LARGEST_LIST
    ) -> tuple[Any, Mapping[str, str], str]:
        """As `json`, for an answer with a list that may be long: it is read as it comes, and its items go to ``lists``,
        as `read_json` has them. ``hint`` is for an answer of more than ``most`` bytes."""
        with self.open("GET", url, {"Accept": "application/json"}, is_file=True) as opened:
            beginning = bytearray()

            def blocks() -> Iterator[Block]:
                for block in self._bounded(opened, most, hint):
                    if len(beginning) < _BEGINNING:
                        beginning.extend(block[:_BEGINNING])
                    yield block

            try:
                return read_json(blocks(), lists, LARGEST_ANSWER), opened.headers, opened.url
            except (ValueError, RecursionError) as error:
                raise _not_json(url, bytes(beginning)) from error

    def retry(self, url: str, request: Callable[[], Answer], on_retry: OnRetry | None = None) -> Answer:
        """Return the result of a short ``request``, which asks ``url``. It is called again while it fails with an error
        that may pass. Files are retried by the engine, with the same policy and pacer.

        Raises the last error, the error of an origin that is down, or `Cancelled`.
        """
        policy = replace(self.policy, protocol_errors=0)  # an API answer that makes no sense does not get better
        state = State()
        origin = origin_of(url)
        self._wait_for(origin, 0.0)
        while True:
            began = time.monotonic()
            try:
                answer = request()
            except MdlError as error:
                has_answered = self.pacer.record(origin).has_answered
                now = time.monotonic()
                ended = RequestEnded(began, asked=1, error=error, has_answered=has_answered)
                state, decision = decide(policy, state, ended, now, random.random())
                delay = max(0.0, state.retry_at - now)
                if isinstance(error, NetworkError) and not error.final:
                    with self._pacer_lock:
                        self.pacer.failed(origin, url, began, now, delay, error)
                if not isinstance(decision, Again):
                    raise error.of_nothing_kept() from error
                if on_retry:
                    on_retry(decision)
                self._wait_for(origin, delay)
            else:
                with self._pacer_lock:
                    self.pacer.served(origin, began, time.monotonic())
                return answer

    def _wait_for(self, origin: str, delay: float) -> None:
        """Wait ``delay`` seconds, and until the origin may be asked again, which other threads may postpone meanwhile.
        Raises the error of an origin that is down."""
        moment = time.monotonic() + delay
        if delay > 0:
            self.cancel.wait(delay)
        while True:
            with self._pacer_lock:
                later = self.pacer.retry_at(origin)
                down = self.pacer.down(origin, time.monotonic())
            if down:
                raise down
            if later <= moment:
                return
            self.cancel.wait(later - moment)
            moment = later

    def record(self, url: str) -> OriginRecord:
        """Return what this run has found out about the origin of ``url``."""
        return self.pacer.record(origin_of(url))

    def is_located(self, url: str) -> bool:
        """Return whether `locate` says where the file of this URL is."""
        return self.follower.is_located(url)

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy that a request for ``url`` goes through."""
        return self._access.proxy_for(url)


def _not_json(url: str, beginning: bytes) -> ProtocolError:
    """Return the error for an answer that is not JSON; it says what it is if that is a web page."""
    why = f"{host_of(url)} did not answer in JSON"
    page = impostor(beginning)
    return ProtocolError(f"{why}: {page[0]}", hint=page[1]) if page else ProtocolError(why)


def _is_silence(error: Exception) -> bool:
    """Return whether an error means that a server accepted a connection and sent nothing in time."""
    return isinstance(error, httpx.ReadTimeout) or (isinstance(error, NetworkError) and error.is_silence)
