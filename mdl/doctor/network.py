"""Checks of the way to the hub: certificates, proxy, endpoint, clock and token."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mdl.bounds import LARGEST_SMALL_FILE, LONGEST_SHOWN_NAME, parse_json
from mdl.disk.safe_open import read_whole
from mdl.errors import AuthError, MdlError, NetworkError, NotFound, ProtocolError, TlsError, UsageError
from mdl.net.allowlist import host_of
from mdl.net.certificates import UNREAD_VARIABLES, describe_trust, make_context
from mdl.net.client import HttpClient
from mdl.net.headers import parse_size
from mdl.net.proxies import ProxySettings
from mdl.net.transport import system_settings
from mdl.paths import shown
from mdl.sources.hub_endpoint import Endpoint, token_path, token_places
from mdl.units import as_meant

_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.\d+")

_REFUSALS = tuple(status for status in range(400, 500) if status not in (407, 408, 429))
"""Statuses of a server that works: it refuses the token, or it is a mirror that does not know the question."""

_ADVICE = {
    TlsError: "check the clock; if a company's proxy decrypts TLS, set SSL_CERT_FILE to its CA certificates",
    NetworkError: "check the network, HF_ENDPOINT and the proxy; if they are right, try again later",
    ProtocolError: "check HF_ENDPOINT; a proxy, or a network that wants a sign-in first, may have answered for the hub",
}
"""What to do about an endpoint that fails. The usual hint of these errors is to run the doctor."""

_CLOCK_SECONDS = 120


# Certificates


def certificates() -> str:
    """The CA certificates that the environment names, or the system's, can be read. Raises `TlsError`."""
    file = as_meant(os.environ.get("SSL_CERT_FILE", ""))
    folders = as_meant(os.environ.get("SSL_CERT_DIR", ""))
    if folders:
        _check_folders(folders, is_only_source=not file)
    notes: list[str] = []
    try:
        make_context(os.environ, notes.append)
    except TlsError as error:
        advice = "it must contain CA certificates in PEM format; fix it, or unset the variable"
        raise error.but(hint=advice, item=None) from None
    if not file and not folders:
        unread = [name for name in UNREAD_VARIABLES if os.environ.get(name)]
        if unread:
            notes.append(f"{_ignored(unread)}; mdl reads SSL_CERT_FILE")
    return "; ".join((describe_trust(os.environ), *notes))


def _check_folders(folders: str, *, is_only_source: bool) -> None:
    """Raise `TlsError` if OpenSSL would find no certificate in the folders of SSL_CERT_DIR: it says nothing about
    that."""
    advice = "set SSL_CERT_DIR to a folder that 'openssl rehash' has prepared, or unset it"
    has_certificate = False
    for folder in filter(None, folders.split(os.pathsep)):
        if not os.path.exists(folder):
            raise TlsError(f"SSL_CERT_DIR names {folder}, which does not exist", hint=advice)
        for path in Path(folder).glob("*"):
            if _HASHED_NAME.fullmatch(path.name):
                has_certificate = True
    if is_only_source and not has_certificate:
        reason = f"SSL_CERT_DIR names {folders}, but no certificate there is named as OpenSSL wants it"
        raise TlsError(f"{reason} (such as 5ed36f99.0)", hint=advice)


# Proxy


def proxy(url: str) -> str:
    """Which proxy is used for ``url``, and which variable says so; beside it what is wrong with other variables. Raises
    `UsageError` if the variable that would name the proxy cannot be used.

    Whether the proxy answers is found out by `endpoint`.
    """
    settings = _proxies()
    problem = settings.problem_of(url)
    chosen = _chosen(url, settings)
    if problem:
        raise UsageError(problem, hint=f"fix the variable, or unset it; mdl works without it: {chosen}")
    return "; ".join((chosen, *settings.problems.values()))


def _chosen(url: str, settings: ProxySettings) -> str:
    """The proxy for ``url`` in words, or why there is none."""
    if not settings.proxies:
        return "none set"
    host = host_of(url)
    chosen = settings.choose(url)
    if chosen is not None:
        source = chosen.variable if os.environ.get(chosen.variable) else "the system's settings"
        return f"{chosen.shown} for {host}, from {source}"
    entry = settings.exemption(url)
    reason = f"NO_PROXY contains {entry}" if entry else f"no proxy is set for {urlsplit(url).scheme}"
    return f"none for {host}, because {reason}"


def _proxies() -> ProxySettings:
    return ProxySettings.of(system_settings(os.environ))


# Endpoint and clock


@dataclass
class Hub:
    """The hub of an endpoint. `endpoint` asks it first and keeps what `clock` and `token` need.

    If ``connect`` is None, the hub is not contacted. A client that is connected is closed with ``closing``.
    """

    endpoint: Endpoint
    connect: Callable[[], HttpClient] | None
    closing: contextlib.ExitStack
    http: HttpClient | None = None
    """The client, once the hub has answered as a hub does."""
    headers: Mapping[str, str] | None = None
    """Of that answer."""


def endpoint(hub: Hub) -> str:
    """The hub answers a request for one line of its list of models. Raises `MdlError` if not."""
    url = hub.endpoint.url
    if hub.connect is None:
        return f"{url}, not contacted (offline)"
    used = _proxies().choose(url)
    through = f", through {used.shown}" if used else ""
    try:
        http = hub.closing.enter_context(hub.connect())
        began = time.monotonic()
        with http.open("GET", f"{url}/api/models?limit=1", allow=_REFUSALS) as opened:
            detail = f"{url} answers in {(time.monotonic() - began) * 1000:.0f} ms{through}"
            if opened.status >= 400:
                detail += f" (with {opened.status}: {_meaning(opened.status, hub.endpoint)})"
            else:
                _check_list(http.read(opened, LARGEST_SMALL_FILE))
            hub.http = http
            hub.headers = opened.headers
            return detail
    except MdlError as error:
        advice = error.advice or "check HF_ENDPOINT"
        for kind, text in _ADVICE.items():
            if isinstance(error, kind):
                advice = text
        raise error.but(message=f"{url}{through}: {error.message}", hint=advice, item=None) from None


def _meaning(status: int, endpoint: Endpoint) -> str:
    """What the refusal of a hub that works means."""
    if status not in (401, 403):
        return "it does not list models, and mdl does not need that"
    return "see the token" if endpoint.token else "it may want a token"


def _check_list(body: bytes) -> None:
    """Raise `ProtocolError` if this is not what a hub answers."""
    with contextlib.suppress(ValueError):
        if isinstance(parse_json(body), (list, dict)):
            return
    raise ProtocolError("the answer is not that of a hub")


def clock(hub: Hub) -> str:
    """This machine's time is within two minutes of the hub's. Raises `UsageError` if not.

    The hub's time is the Date of its answer, plus the Age of a cached one (RFC 9110, 6.6.1, and RFC 9111, 5.1).
    """
    now = datetime.now(UTC)
    here = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if hub.headers is None:
        return f"{here}; there was no answer to compare it with"
    try:
        age = parse_size(hub.headers.get("age", "")) or 0
        theirs = parsedate_to_datetime(hub.headers["date"]) + timedelta(seconds=age)
        skew = abs((now - theirs).total_seconds())
        theirs = theirs.astimezone(UTC)
    except (KeyError, ValueError, TypeError, OverflowError):
        return f"{here}; the endpoint's answer has no time to compare it with"
    if skew < _CLOCK_SECONDS:
        return f"{here}, within {max(skew, 1):.0f} s of the endpoint's"
    detail = f"{here}, but the endpoint has {theirs:%Y-%m-%d %H:%M:%S} UTC"
    raise UsageError(detail, hint="set the clock; certificates and signed links depend on it")


# Token


def token_file(endpoint: Endpoint) -> None:
    """The token's file can be read, and is closed to other users. Raises `UsageError` if not."""
    path = token_path(os.environ)
    if path is None:
        return
    if endpoint.token_from == Endpoint().token_from:
        _check_readable(path)
    elif endpoint.token and endpoint.token_from == str(path) and _is_open_to_others(path):
        raise UsageError(f"other users can read {path}", hint=f"chmod 600 {path}")


def _check_readable(path: Path) -> None:
    """Raise `UsageError` if the file exists and cannot be read as text."""
    try:
        read_whole(path, LARGEST_SMALL_FILE).decode()
        return
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError:
        reason = "it is not text"
    raise UsageError(f"{path} cannot be read: {reason}", hint="log in again with 'hf auth login', or set HF_TOKEN")


def _is_open_to_others(path: Path) -> bool:
    try:
        real = path.resolve()
        for folder in real.parents:
            if not folder.stat().st_mode & 0o011:
                return False
        return real.stat().st_mode & 0o044 != 0
    except (OSError, RuntimeError):
        return False


def token(hub: Hub) -> str:
    """Where the token comes from, and whose it is according to the hub. Raises `AuthError` if the hub refuses it.

    The token itself is never shown. If `endpoint` failed, the hub is not asked.
    """
    own = hub.endpoint
    own.check_token()
    if own.token is None:
        return f"{own.token_from}; private and gated repositories cannot be downloaded"
    host = host_of(own.url)
    source = f"from {own.token_from}"
    others = [place for place in token_places(os.environ) if place != own.token_from]
    if others:
        source += f" ({_ignored(others)})"
    source += f", for {host} only"
    if hub.http is None:
        return f"{source}; not checked with {host}"
    try:
        answer, _, _ = hub.http.json("GET", f"{own.url}/api/whoami-v2")
    except NotFound:
        return f"{source}; {host} cannot say whether it is valid"
    except AuthError as error:
        if error.redirected:
            return f"{source}; checking it failed: {error.message}"
        advice = f"create a new token at {own.url}/settings/tokens and put it into {own.token_from}"
        raise error.but(message=f"{source}: {error.message}", hint=advice, item=None) from None
    except MdlError as error:
        return f"{source}; checking it failed: {error.message}"
    owner = _owner(answer)
    if not owner:
        return f"{source}; {host} did not say whose it is"
    return f"{source}; valid: {owner}"


def _owner(answer: Any) -> str:
    """``user alice, token 'ci', role read``: as much of the hub's answer as is there."""
    name = _text(answer, "name")
    if not name:
        return ""
    owner = f"{_text(answer, 'type') or 'user'} {name}"
    title = _text(answer, "auth", "accessToken", "displayName")
    if title:
        owner += f", token {title!r}"
    role = _text(answer, "auth", "accessToken", "role")
    if role:
        owner += f", role {role}"
    return owner


def _text(answer: Any, *keys: str) -> str:
    """The text under these keys, in one harmless line; '' if there is no text."""
    for key in keys:
        if not isinstance(answer, dict):
            return ""
        answer = answer.get(key)
    if not isinstance(answer, str):
        return ""
    return shown(" ".join(answer.split()))[:LONGEST_SHOWN_NAME]


def _ignored(names: list[str]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} ignored"
