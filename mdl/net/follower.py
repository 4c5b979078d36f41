"""Following a URL over its redirects to the answer; every hop is checked.

https never becomes http. No cookie, Referer or custom header follows a redirect.
"""

from __future__ import annotations

import functools
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from urllib.parse import urljoin, urlsplit

import httpx

from mdl import __version__
from mdl.cancel import CancelToken
from mdl.errors import NetworkError, ProtocolError, Unsafe, UsageError
from mdl.net.allowlist import host_of, is_private, origin_of
from mdl.net.connection import Interrupter, RequestLimits
from mdl.net.connection_errors import PROXY
from mdl.net.credentials import HostAccess
from mdl.net.locators import Body, Link, Locate
from mdl.net.pacer import OriginRecord
from mdl.net.policy import Limits
from mdl.net.sender import Sender, drain
from mdl.net.transport import LIMITS
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
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 10
_UNUSABLE = re.compile(r"^$|[\x00-\x1f\x7f]")
"""A Location that is empty, or holds what no URL may hold."""


@value_class
class Question:
    """What is asked: ``url``, to which ``start`` once led, or which it is. ``bearer`` is a token for this request.
    ``is_anonymous``: the token of the origin is not sent."""

    method: str
    url: str
    start: str
    headers: Mapping[str, str]
    content: bytes | Iterable[bytes] | None = None
    bearer: str = field(default="", repr=False)
    interrupter: Interrupter = field(default_factory=Interrupter)
    is_anonymous: bool = False


@value_class
class OpenResponse:
    """A response whose body is still to be read.

    ``url`` is where it came from in the end. ``hops`` are the headers of the redirects on the way, with lower-case
    keys. ``location`` is the URL to ask directly the next time, with the same ``start``; None if that is the start
    itself, or a URL on the start's host that only another host named. ``is_fresh`` if mdl signed ``url`` itself for
    this request. The first byte of its body may take ``first_byte`` seconds, as the head might. ``sent`` is the name of
    what proved who asks: a variable or a file; '' if nothing did.
    """

    response: httpx.Response
    url: str
    hops: tuple[Mapping[str, str], ...]
    location: str | None
    is_fresh: bool = False
    first_byte: float = 0.0
    sent: str = ""

    @property
    def status(self) -> int:
        return self.response.status_code

    @functools.cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers, with lower-case keys."""
        return _lower(self.response.headers)


class Follower:
    """Asks a URL, and where its redirects lead; for any number of threads.

    ``record`` returns what is known of the origin of a URL. ``locate`` says where the file of a URL of another scheme
    than http(s) is; its link is followed as a redirect is.
    """

    def __init__(
        self,
        access: HostAccess,
        sender: Sender,
        record: Callable[[str], OriginRecord],
        limits: Limits,
        cancel: CancelToken,
        locate: Locate | None,
    ) -> None:
        self._access = access
        self._sender = sender
        self._record = record
        self._limits = limits
        self._cancel = cancel
        self.locate = locate

    def is_located(self, url: str) -> bool:
        """Return whether the locator says where the file of this URL is."""
        return self.locate is not None and url.partition(":")[0].lower() not in ("http", "https")

    def follow(self, question: Question, secrets: Secrets) -> OpenResponse:
        """Return the response at the end of the redirects. The query of every URL that is asked is added to
        ``secrets``. Raises `Unsafe`, `ProtocolError`, `NetworkError` and httpx's errors."""
        try:
            link = self._link_for(question)
            if isinstance(link, Link):
                return self._follow(question, link, secrets)
            return OpenResponse(link, question.url, ({":url": question.url},), None)
        except (httpx.InvalidURL, ValueError) as why:
            host = host_of(question.url)
            raise Unsafe(f"refused: {host} leads to an unusable URL: {why}", item=host) from why

    def _link_for(self, question: Question) -> Link | httpx.Response:
        """Return the link to ask for a URL, or the answer itself if its locator has the body."""
        if self.locate is None or not self.is_located(question.url):
            return Link(question.url)
        located = self.locate(question.url)
        return located.response(question.headers) if isinstance(located, Body) else located

    def _follow(self, question: Question, link: Link, secrets: Secrets) -> OpenResponse:
        start = question.start
        record = self._record(start)
        is_located = self.is_located(question.url)
        hops: list[Mapping[str, str]] = [{":url": question.url}] if is_located else []
        home = origin_of(link.url if link.authorized else start)
        at_home = link.authorized or not is_located
        has_met_public = question.url != start and self._access.was_public(start)
        secrets.add_all(link.headers.values())
        current = link.url
        for redirects in range(_MAX_REDIRECTS + 1):
            self._cancel.check()
            secrets.add_query(current)
            self._access.check(current, start, is_redirected=redirects > 0)
            at_home = at_home and origin_of(current) == home
            proxy = self._access.proxy_for(current)
            is_first = not hops
            proof = self._access.proof(
                current,
                proxy,
                bearer=question.bearer if is_first else "",
                at_home=at_home and not question.is_anonymous,
                is_named=is_first and question.url == start,
            )
            of_link = link.headers if current == link.url else {}
            limits = RequestLimits(
                host_of(current),
                private_ok=proxy is not None or self._access.may_be_private(current, start, has_met_public),
                was_public=self._access.was_public(current),
                interrupter=question.interrupter,
            )
            request = httpx.Request(
                question.method,
                proof.url,
                headers={**_HEADERS, **question.headers, **of_link, **proof.headers},
                content=question.content,
                extensions={PROXY: proxy, LIMITS: limits},
            )
            first_byte = record.first_byte_limit(self._limits.stall, self._limits.policy.patience)
            response = self._sender.send(request, limits, max(link.patience, first_byte))
            record.note_contact()
            if proxy is None and limits.peer and not is_private(limits.peer):
                has_met_public = True
                self._access.note_public(current)
            if response.status_code not in _REDIRECTS:
                is_back = not at_home and origin_of(current) == home
                is_made_each_time = link.authorized or bool(link.headers)
                is_lasting = current != start and not is_back and not is_made_each_time
                return OpenResponse(
                    response,
                    current,
                    tuple(hops),
                    location=current if is_lasting else None,
                    is_fresh=link.is_fresh and redirects == 0,
                    first_byte=first_byte,
                    sent=proof.source,
                )
            redirect = {**_lower(response.headers), "location": _location(response.headers), ":url": current}
            hops.append(redirect)
            drain(response)
            target = redirect_target(redirect, current)
            if question.content is not None:
                hint = f"if {shown(bare_url(target))[:200]} is right, set that address"
                why = f"{host_of(current)} redirects, and a {question.method} is not sent on"
                raise NetworkError(why, hint=hint, final=True)
            current = target
        why = f"more than {_MAX_REDIRECTS} redirects, the last to {host_of(current)}"
        raise NetworkError(why, hint=loop_hint(hops), final=True)


def _lower(headers: httpx.Headers) -> dict[str, str]:
    """Return the headers with lower-case keys. Values of one name are joined with a comma."""
    joined: dict[str, str] = {}
    for key, value in headers.raw:
        name = key.decode("latin-1").lower()
        text = _text(value)
        joined[name] = f"{joined[name]}, {text}" if name in joined else text
    return joined


def _location(headers: httpx.Headers) -> str:
    """Return where a redirect leads; "" if it names no place, or several, which are no URL when joined."""
    places = {_text(value) for key, value in headers.raw if key.lower() == b"location"}
    return places.pop() if len(places) == 1 else ""


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


# Where a redirect leads, and what to do about one that leads nowhere.


def redirect_target(headers: Mapping[str, str], current: str) -> str:
    """Return the URL that a redirect from ``current`` leads to, which the allow-list has yet to check. ``headers`` are
    its own, with lower-case keys.

    Raises `Unsafe`, `ProtocolError`, and `UsageError` if a bucket is in another region: S3 names the region then, and
    no URL.
    """
    host = host_of(current)
    location = headers.get("location", "").strip().replace(" ", "%20")  # as browsers read it (ADR 143)
    region = headers.get("x-amz-bucket-region", "")
    if region and not location:
        hint = "for s3:// set AWS_REGION to that; in an https URL write s3.REGION.amazonaws.com"
        raise UsageError(f"the bucket is in another region: {shown(region)[:40]}", hint=hint)
    if _UNUSABLE.search(location):
        raise ProtocolError(f"{host} redirects without a usable Location")
    if location.startswith("//") and not urlsplit(location).netloc:
        raise Unsafe(f"refused: {host} redirects to a URL without a host", item=host)
    target = urljoin(current, location)
    if urlsplit(current).scheme == "https" and urlsplit(target).scheme == "http":
        why = f"refused: a redirect from https to http, to {host_of(target)}"
        raise Unsafe(why, item=host_of(target), hint=plain_http_hint(host, host_of(target)))
    return target.split("#")[0]


def plain_http_hint(host: str, target: str) -> str:
    """Return what to do if ``host`` redirects from https to http on the host ``target``."""
    advice = "ask its owner for an https URL"
    if host == target:
        advice = "behind a TLS proxy it must know its own address (X-Forwarded-Proto: https)"
    return f"that is a setting of {host}: {advice}, or name the http:// URL yourself"


def loop_hint(hops: Sequence[Mapping[str, str]]) -> str:
    """Return what to do about redirects without an end. ``hops`` are their headers, and the URL of each as ``:url``."""
    urls = [hop[":url"] for hop in hops]
    if any("set-cookie" in hop for hop in hops):
        return "the answers set a cookie, which mdl never sends: download it in a browser, then mdl import"
    if len(set(urls)) < len(urls):
        hosts = " and ".join(dict.fromkeys(map(host_of, urls)))
        return f"its addresses lead back to one another: that is a setting of {hosts}; take another URL or a mirror"
    return "give the URL at which the redirects end"
