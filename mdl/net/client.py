"""The HTTP client: redirects, the allow-list, and which host gets which secret.

Every hop of every request is checked against the allow-list. A token is sent to its own origin only, and not even there
once a redirect has left it. The credential of a host goes with the URL that was named, and with no redirect. https
never becomes http. No cookie, Referer or custom header follows a redirect.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import os
import platform
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from mdl import __version__
from mdl.bounds import LARGEST_ANSWER, LARGEST_LIST, parse_json
from mdl.cancel import CancelToken
from mdl.errors import KEPT, MdlError, NetworkError, NotFound, ProtocolError, Unsafe
from mdl.json_stream import Take, read_json
from mdl.net.allowlist import AllowList, OriginToken, host_of, is_private, origin_of, port_of
from mdl.net.body import Block, BodyReader
from mdl.net.certificates import Trust
from mdl.net.connection import Connection, Deadline, Interrupter, RequestLimits
from mdl.net.connection_errors import PROXY, SILENCE, map_httpx_errors
from mdl.net.credentials import HostCredential, HostTls
from mdl.net.headers import parse_size
from mdl.net.http_errors import Asker, error_for_status, is_not_yet
from mdl.net.locators import Body, Link, Locate
from mdl.net.pacer import OriginRecord, Pacer
from mdl.net.policy import Again, Limits, RequestEnded, State, decide
from mdl.net.proxies import Proxy, ProxySettings
from mdl.net.redirects import loop_hint, redirect_target
from mdl.net.throttle import NO_LIMIT, Throttle
from mdl.net.transport import LIMITS, PooledTransport, system_settings
from mdl.paths import shown
from mdl.redact import Secrets, bare_url
from mdl.values import value_class

USER_AGENT = f"mdl/{__version__}; python/{platform.python_version()}"
_HEADERS = {
    "User-Agent": USER_AGENT,
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
}
_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 10
_BEGINNING = 4096
_SMALL = 64 * 1024
"""Bytes of a refusal that are read at most, and of a redirect's body if the connection is to be kept."""
_STORING_SECONDS = 600.0
"""How long a server may take to store what it was sent, before it answers."""
_DRAIN_SECONDS = 0.5
"""How long reading a redirect's body may take. After that its connection is closed."""

Answer = TypeVar("Answer")
OnRetry = Callable[[Again], None]
"""Receives what the retry policy decided after a failure."""


@value_class
class OpenResponse:
    """A response whose body is still to be read.

    ``url`` is where it came from in the end. ``hops`` are the headers of the redirects on the way, with lower-case
    keys. ``location`` is the URL to ask directly the next time, with the same ``start``; None if that is the start
    itself, or a URL on the start's host that only another host named. ``is_fresh`` if mdl signed ``url`` itself for
    this request. The first byte of its body may take ``first_byte`` seconds, as the head might.
    """

    response: httpx.Response
    url: str
    hops: tuple[Mapping[str, str], ...]
    location: str | None
    is_fresh: bool = False
    first_byte: float = 0.0

    @property
    def status(self) -> int:
        return self.response.status_code

    @functools.cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers, with lower-case keys."""
        return _lower(self.response.headers)


@value_class
class _Asked:
    """What `HttpClient.open` was asked for."""

    method: str
    url: str
    start: str
    headers: Mapping[str, str]
    content: bytes | Iterable[bytes] | None = None
    bearer: str = field(default="", repr=False)
    interrupter: Interrupter | None = None


class _QuietRequests(logging.Filter):
    """Keeps mdl's own requests out of the log of httpx and httpcore, which has URLs and Location headers that may be
    signed. mdl tells of its requests by events. Requests that a program makes by itself are logged as ever."""

    def __init__(self) -> None:
        super().__init__()
        self._loggers = [logging.getLogger(name) for name in _LOGGERS]
        self._sending: set[int] = set()
        for logger in self._loggers:
            logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """False for what is logged by a thread that sends a request of mdl's."""
        return threading.get_ident() not in self._sending

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Inside the block nothing is logged of what the calling thread does."""
        thread = threading.get_ident()
        self._sending.add(thread)
        try:
            yield
        finally:
            self._sending.discard(thread)

    def close(self) -> None:
        for logger in self._loggers:
            logger.removeFilter(self)


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
        warn: Callable[[str], None] = lambda words: None,
        locate: Locate | None = None,
    ) -> None:
        """``locate`` says where the file of a URL of another scheme than http(s) is; its link is followed as a redirect
        is. ``hub`` is the URL of the hub in use: a refusal of it is told in another way than that of any other host.
        ``environ`` has the variables of proxies and certificates; the process's own without it. ``tls`` is what the
        settings say of the certificates of single hosts. ``warn`` is told in words what cannot be used."""
        self.cancel = cancel or CancelToken()
        self.policy = limits.policy
        self.connections = limits.connections
        self.throttle = throttle
        self.pacer = Pacer(limits.connections, limits.policy)
        self._pacer_lock = threading.Lock()
        self._hosts = hosts
        self.stall = limits.stall
        self._tokens = {token.origin: token for token in tokens if token}
        self._credentials = tuple(credentials)
        self._hub = origin_of(hub) if hub else ""
        self._reader = BodyReader(self.cancel, limits.stall, limits.slow, throttle)
        self._public: set[str] = set()
        self.locate = locate
        environ = os.environ if environ is None else environ
        self._proxies = ProxySettings.of(system_settings(environ))
        for problem in self._proxies.problems.values():
            warn(problem)
        self.is_closed = False
        self._quiet = _QuietRequests()
        self._transport = PooledTransport(limits.connections + 4, self.cancel, Trust(environ, tls, warn))
        self._timeout = httpx.Timeout(limits.stall, connect=limits.connect).as_dict()

    def close(self) -> None:
        self.is_closed = True
        self._transport.close()
        self._quiet.close()

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
        asked = _Asked(method, url, start or url, headers or {}, content, bearer, interrupter)
        secrets = Secrets([bearer, *(token.token for token in self._tokens.values())])
        for credential in self._credentials:
            secrets.add_all(credential.values())
        opened: OpenResponse | None = None
        began = time.monotonic()
        with map_httpx_errors(url, secrets):
            try:
                try:
                    opened, sent = self._follow(asked, secrets)
                except (httpx.InvalidURL, ValueError) as why:
                    host = host_of(url)
                    raise Unsafe(f"refused: {host} leads to an unusable URL: {why}", item=host) from why
                is_refusal = opened.status >= 400 and opened.status not in allow
                if is_refusal or (is_file and is_not_yet(opened.status, opened.headers)):
                    raise self._refusal(opened, asked, sent, secrets)
                yield opened
            except Exception as why:
                has_body_begun = opened is not None and opened.response.num_bytes_downloaded > 0
                if _is_silence(why) and not has_body_begun:
                    self.record(asked.start).note_silence(began, time.monotonic())
                self.cancel.check()  # a cancel closes the connections, which causes every kind of error
                raise
            finally:
                if opened is not None:
                    opened.response.close()

    def _refusal(self, opened: OpenResponse, asked: _Asked, sent: str, secrets: Secrets) -> MdlError:
        """Return the error that a response means, in the server's own words. ``sent`` is the name of what proved who
        asks."""
        with self._response_deadline(_deadline_of(opened.response)):
            words = self.beginning(opened, _SMALL)
        asker = self._asker(opened, asked, sent)
        error = error_for_status(opened.status, opened.headers, words, opened.url, asker, secrets)
        is_gone_for_good = opened.is_fresh and isinstance(error, NotFound)
        return error.but(
            status_code=opened.status,
            server_code=opened.headers.get("x-error-code", ""),
            redirected=bool(opened.hops) and not is_gone_for_good,
        )

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
        for block in self.body(opened):
            data += block
            if len(data) > most:
                raise ProtocolError(f"{host_of(opened.url)} sent an answer of over {most} bytes")
        return bytes(data)

    def json(
        self, method: str, url: str, content: Any = None, *, most: int = LARGEST_ANSWER
    ) -> tuple[Any, Mapping[str, str], str]:
        """Return a JSON answer of at most ``most`` bytes, its headers, and the URL that it came from in the end.
        ``content`` is sent as JSON, once: what is not idempotent is not sent again if the answer is lost.

        Raises `ProtocolError` for anything that is not JSON or is too large, and what `open` raises.
        """
        sent = None if content is None else json.dumps(content).encode()
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if sent else {})
        with self.open(method, url, headers, content=sent) as opened:
            text = self.read(opened, most)
            try:
                return parse_json(text, allow_nan=True), opened.headers, opened.url
            except ValueError as error:
                raise ProtocolError(f"{host_of(url)} did not answer in JSON") from error

    def json_lists(
        self, url: str, lists: Mapping[str, Take], hint: str, *, most: int = LARGEST_LIST
    ) -> tuple[Any, Mapping[str, str], str]:
        """As `json`, for an answer with a list that may be long: it is read as it comes, and its items go to ``lists``,
        as `read_json` has them. ``hint`` is for an answer of more than ``most`` bytes."""

        def blocks() -> Iterator[memoryview | bytes]:
            received = 0
            for block in self.body(opened):
                received += len(block)
                if received > most:
                    why = f"the list that {host_of(opened.url)} sends has more than {most:,} bytes"
                    raise ProtocolError(f"{why}, the most that mdl reads", hint=hint)
                yield block

        with self.open("GET", url, {"Accept": "application/json"}) as opened:
            try:
                return read_json(blocks(), lists, LARGEST_ANSWER), opened.headers, opened.url
            except (ValueError, RecursionError) as error:
                raise ProtocolError(f"{host_of(url)} did not answer in JSON") from error

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
                delay = decision.delay if isinstance(decision, Again) else 0.0
                if isinstance(error, NetworkError) and not error.final:
                    with self._pacer_lock:
                        self.pacer.failed(origin, url, began, now, delay, error)
                if not isinstance(decision, Again):
                    hint = error.advice.removesuffix(KEPT) if error.advice else None
                    raise error.but(hint=hint) from error
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
        return self.locate is not None and urlsplit(url).scheme not in ("http", "https")

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy that a request for ``url`` goes through."""
        return self._proxies.choose(url)

    def _follow(self, asked: _Asked, secrets: Secrets) -> tuple[OpenResponse, str]:
        """Return the response at the end of the redirects, and the name of what was sent with the last request: a
        variable or a file; '' if nothing was. The query of every URL that is asked is added to ``secrets``."""
        start = asked.start
        hops: list[Mapping[str, str]] = []
        home = origin_of(start)
        at_home = True
        link = Link(asked.url)
        if self.locate is not None and self.is_located(asked.url):
            hops.append({":url": asked.url})
            located = self.locate(asked.url)
            answer = located.response(asked.headers) if isinstance(located, Body) else located
            if not isinstance(answer, Link):
                return OpenResponse(answer, asked.url, tuple(hops), None), ""
            link = answer
            at_home = link.authorized
            if at_home:
                home = origin_of(link.url)
        hops_of_locator = len(hops)
        current = link.url
        met_public = asked.url != start and host_of(start) in self._public
        for _ in range(_MAX_REDIRECTS + 1):
            self.cancel.check()
            secrets.add_query(current)
            is_first = not hops
            is_redirected = len(hops) > hops_of_locator
            self._check_host(current, start, is_redirected=is_redirected)
            at_home = at_home and origin_of(current) == home
            headers = {**_HEADERS, **asked.headers}
            if current == link.url:
                secrets.add_all(link.headers.values())
                headers.update(link.headers)
            proxy = self._proxies.choose(current)
            url, proof, sent = self._authorized(
                current,
                asked.bearer if is_first else "",
                may_send_token=at_home,
                is_named=is_first and asked.url == start,
                through_proxy=proxy is not None,
            )
            headers.update(proof)
            host = host_of(current)
            private_ok = proxy is not None or self._may_be_private(current, start, met_public)
            limits = RequestLimits(host, private_ok, was_public=host in self._public, interrupter=asked.interrupter)
            extensions = {PROXY: proxy, LIMITS: limits, "timeout": dict(self._timeout)}
            request = httpx.Request(asked.method, url, headers=headers, content=asked.content, extensions=extensions)
            first_byte = self.record(start).first_byte_limit(self.stall, self.policy.patience)
            response = self._send(request, limits, max(link.patience, first_byte))
            if proxy is None and limits.peer and not is_private(limits.peer):
                met_public = True
                self._public.add(host)
            self.record(start).has_answered = True
            if response.status_code not in _REDIRECTS:
                location: str | None = current
                is_back = not at_home and origin_of(current) == home
                is_located_each_time = link.authorized or bool(link.headers)
                if is_back or current == start or is_located_each_time:
                    location = None
                is_fresh = link.is_fresh and not is_redirected
                return OpenResponse(response, current, tuple(hops), location, is_fresh, first_byte), sent
            redirect = {**_lower(response.headers), ":url": current}
            hops.append(redirect)
            _drain(response)
            current = redirect_target(redirect, current)
            if asked.content is not None:
                hint = f"if {shown(bare_url(current))[:200]} is right, set that address"
                raise NetworkError(f"{host} redirects, and a {asked.method} is not sent on", hint=hint, final=True)
        why = f"more than {_MAX_REDIRECTS} redirects, the last to {host_of(current)}"
        raise NetworkError(why, hint=loop_hint(hops), final=True)

    def _check_host(self, url: str, start: str, *, is_redirected: bool) -> None:
        """Raises `Unsafe` if ``url`` may not be asked, to which ``start`` led: by a redirect, or as a locator says."""
        try:
            self._hosts.check(url)
        except Unsafe as error:
            message = f"it redirects, which is {error.message}" if is_redirected else error.message
            item = error.item if url == start else shown(bare_url(start))[:200]
            raise error.but(message=message, item=item) from error

    def _authorized(
        self, url: str, bearer: str, *, may_send_token: bool, is_named: bool, through_proxy: bool
    ) -> tuple[str, Mapping[str, str], str]:
        """Return the URL to ask for ``url``, with the headers that prove who asks, and where the proof comes from (''
        if there is none). The credential of a host is sent only if the URL ``is_named`` by the user, the catalog or the
        lock."""
        if bearer:
            return url, {"Authorization": f"Bearer {bearer}"}, "the token"
        known = self._tokens.get(origin_of(url)) if may_send_token else None
        if known and known.token:
            return url, {"Authorization": f"Bearer {known.token}"}, known.source
        if is_named:
            for own in self._credentials:
                if own.may_go_to(url, through_proxy=through_proxy):
                    return own.url(url), own.headers(), own.source
        return url, {}, ""

    def _asker(self, opened: OpenResponse, asked: _Asked, sent: str) -> Asker:
        """Who asked for a response that is a refusal: its hint depends on that."""
        return Asker(
            sent=sent,
            is_hub=origin_of(opened.url) == self._hub,
            is_redirected=bool(opened.hops) or asked.url != asked.start,
            is_located=self.is_located(asked.start),
            credential=next((one for one in self._credentials if one.is_for(opened.url)), None),
            proxy=self._proxies.choose(opened.url),
        )

    def _send(self, request: httpx.Request, limits: RequestLimits, patience: float) -> httpx.Response:
        """Return the response, its body unread. It may take ``patience`` seconds to come. A body that is sent in blocks
        may take any time, as each block has its own time limit, and then `_STORING_SECONDS`.

        If a connection that was used before has closed since, or turns out to be out of step, the request is sent again
        on another one, but not a POST. That ends, because each such connection had carried a response.
        """
        is_upload = not isinstance(request.stream, httpx.ByteStream)
        longest = max(self.stall, _STORING_SECONDS if is_upload else patience)
        request.extensions["timeout"]["read"] = longest
        patience = math.inf if is_upload else patience
        while True:
            try:
                limits.begin()
                with self._response_deadline(limits.deadline, patience), self._quiet.sending():
                    response = self._transport.handle_request(request)
                response.request = request
                return response
            except httpx.RequestError as error:
                error.request = request
                self.cancel.check()
                is_dead = isinstance(error, (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError))
                was_used_before = bool(limits.peer) and not limits.is_fresh
                is_ended = limits.interrupter is not None and limits.interrupter.is_set
                may_be_stale = is_dead and was_used_before and not is_ended
                if not may_be_stale or request.method == "POST":
                    raise

    def _response_deadline(self, deadline: Deadline, patience: float = 0.0) -> contextlib.AbstractContextManager[None]:
        """Return the status line and headers, or the words of a refusal, must be there after twice the longest silence,
        or after ``patience`` seconds."""
        seconds = max(2 * self.stall, patience)
        words = f"the server did not send its whole response headers within {seconds:.0f} s"
        error = NetworkError(words, hint=SILENCE, is_silence=True)
        return deadline.within(seconds, error)

    def _may_be_private(self, url: str, start: str, met_public: bool) -> bool:
        """Return whether a request for ``url``, on the way from ``start``, may reach a private address.

        A host that was named may, and so may any host if ``start`` is private itself; but not after a public address
        was on the way (``met_public``), unless the user's own settings trust the host. A host that was at a public
        address before may never.
        """
        host = host_of(url)
        port = port_of(url)
        if host in self._public:
            return False
        follows = is_private(host_of(start)) or host_of(start) == "localhost" or self._hosts.is_named(host, port)
        return self._hosts.is_trusted(host, port) or (follows and not met_public)


def _is_silence(error: Exception) -> bool:
    """Return whether an error means that a server accepted a connection and sent nothing in time."""
    return isinstance(error, httpx.ReadTimeout) or (isinstance(error, NetworkError) and error.is_silence)


def _drain(response: httpx.Response) -> None:
    """Read a redirect's small body so that its connection can be used again. Leave a large or slow one unread."""
    length = parse_size(response.headers.get("content-length", ""))
    if length is not None and length <= _SMALL:
        late = NetworkError("the server did not finish the body of a redirect in time")
        with contextlib.suppress(httpx.HTTPError, NetworkError), _deadline_of(response).within(_DRAIN_SECONDS, late):
            for _ in response.iter_raw():
                pass
    response.close()


def _deadline_of(response: httpx.Response) -> Deadline:
    """Return what ends the reading of a response; of one that comes over no connection it ends nothing."""
    connection = response.extensions.get("network_stream")
    if isinstance(connection, Connection) and connection.limits:
        return connection.limits.deadline
    return Deadline()


def _lower(headers: httpx.Headers) -> dict[str, str]:
    """Return the headers with lower-case keys. Values of one name are joined with a comma."""
    joined: dict[str, str] = {}
    for key, value in headers.raw:
        name = key.decode("latin-1").lower()
        if name in joined:
            joined[name] += f", {_text(value)}"
        else:
            joined[name] = _text(value)
    return joined


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
