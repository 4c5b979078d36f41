"""Hub: whether the endpoint answers as a hub does, and how far this machine's clock is from its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from mdl.doctor.finding import Finding
from mdl.doctor.proxy import through
from mdl.doctor.token import token
from mdl.errors import MdlError, NetworkError, ProtocolError, TlsError, UsageError
from mdl.http.client import Http, OpenResponse
from mdl.sources.endpoint import Endpoint

_ANSWERS = tuple(status for status in range(400, 500) if status not in (407, 408, 429))
"""Refusals that show that somebody is there: of a wrong token, or of a question that a mirror does not know."""

_LONGEST = 2**20
_CLOCK_SECONDS = 120


def hub(endpoint: Endpoint, connect: Callable[[], Http] | None) -> Iterator[Finding]:
    """Endpoint, clock and token. Without ``connect`` nobody is contacted."""
    if connect is None:
        yield Finding("endpoint", True, f"{endpoint.url}, not asked (offline)")
        yield _clock({}, "nobody was asked the time")
        yield token(endpoint, None)
        return
    try:
        http = connect()
    except MdlError as error:
        detail = f"{endpoint.url}, not asked: {error.message}"
        yield Finding("endpoint", False, detail, error.advice or "see above", error.exit_code)
        yield _clock({}, "nobody was asked the time")
        yield token(endpoint, None)
        return
    with http:
        found, headers = _asked(endpoint, http)
        yield found
        yield _clock(headers, "the endpoint told no time to compare it with")
        yield token(endpoint, http if found.ok else None)


def _asked(endpoint: Endpoint, http: Http) -> tuple[Finding, Mapping[str, str]]:
    """Ask for one line of the hub's list, which costs it nothing."""
    way = through(endpoint.url)
    began = time.monotonic()
    try:
        with http.open("GET", f"{endpoint.url}/api/models?limit=1", allow=_ANSWERS) as opened:
            words = f"{endpoint.url} answers in {(time.monotonic() - began) * 1000:.0f} ms{way}"
            if opened.status >= 400:
                words += _aside(opened.status, endpoint)
            elif not _is_json(http, opened):
                raise ProtocolError("it answers, but not as a hub does")
            return Finding("endpoint", True, words), opened.headers
    except MdlError as error:
        detail = f"{endpoint.url}{way}: {error.message}"
        return Finding("endpoint", False, detail, _advice(error), error.exit_code), {}


def _aside(status: int, endpoint: Endpoint) -> str:
    """What a refusal of the question says, where the answer is all that matters."""
    if status in (401, 403):
        return f" (with {status}: {'see the token' if endpoint.token else 'it may want a token'})"
    return f" (with {status}: it has no list of models, which mdl does not need)"


def _is_json(http: Http, opened: OpenResponse) -> bool:
    text = b""
    for block in http.body(opened):
        text += block
        if len(text) > _LONGEST:
            return False
    try:
        return isinstance(json.loads(text), (list, dict))
    except (ValueError, RecursionError):
        return False


def _advice(error: MdlError) -> str:
    """What to do, where the usual advice is to look here."""
    if isinstance(error, TlsError):
        return "check the clock; where a company's proxy opens TLS, name its CA certificates in SSL_CERT_FILE"
    if isinstance(error, NetworkError):
        return "check the network, HF_ENDPOINT and the proxy; if they are right, try again later"
    if isinstance(error, ProtocolError):
        return "check HF_ENDPOINT; a network that wants a sign-in first, or a proxy, may answer in the hub's place"
    return error.advice or "check HF_ENDPOINT"


def _clock(headers: Mapping[str, str], alone: str) -> Finding:
    """This machine's time beside that of the endpoint's answer; a cached one was made ``Age`` seconds ago."""
    now = datetime.now(UTC)
    here = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    try:
        age = int(headers["age"]) if headers.get("age", "").isdecimal() else 0
        theirs = parsedate_to_datetime(headers["date"]) + timedelta(seconds=age)
        skew, theirs = abs((now - theirs).total_seconds()), theirs.astimezone(UTC)
    except (KeyError, ValueError, TypeError, OverflowError):
        return Finding("clock", True, f"{here}; {alone}")
    if skew < _CLOCK_SECONDS:
        return Finding("clock", True, f"{here}, within {max(skew, 1):.0f} s of the endpoint's")
    detail = f"{here}, but the endpoint has {theirs:%Y-%m-%d %H:%M:%S} UTC"
    return Finding("clock", False, detail, "set the clock; certificates are judged by it", UsageError.exit_code)
