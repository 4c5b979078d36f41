"""Endpoint: which hub is asked, and with whose token. Read from the environment that Hugging Face's own tools read.

``huggingface_hub.get_token`` is not used: it may contact the network, and importing it costs more than
all of mdl's start. The order is the same: HF_TOKEN, HUGGING_FACE_HUB_TOKEN, the token file.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path

from mdl.bounds import LARGEST_NOTE
from mdl.disk.safe_open import UNREADABLE_ERRNOS, read_whole
from mdl.errors import UsageError
from mdl.net.allowlist import OriginToken, host_of, is_public, origin_of
from mdl.units import as_meant, is_true
from mdl.urls import check_server_url
from mdl.values import value_class

DEFAULT = "https://huggingface.co"
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What a token may be that is sent as ``Bearer`` (RFC 6750, 2.1)."""


@value_class
class Endpoint:
    """``url`` without a trailing slash; ``token`` never shown. ``problem`` says why there is none though one is set: it
    stops whoever asks this hub, and nobody else."""

    url: str = DEFAULT
    token: str | None = field(default=None, repr=False)
    token_from: str = "no token set"
    problem: UsageError | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Endpoint:
        """HF_ENDPOINT and the token. Raises `UsageError` for an endpoint over plain http on a public host."""
        url = _endpoint_url(as_meant(environ.get("HF_ENDPOINT", "")) or DEFAULT)
        if is_true(environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN")):
            return cls(url, None, "HF_HUB_DISABLE_IMPLICIT_TOKEN is set")
        try:
            first = next(_tokens(environ), None)
        except UsageError as error:
            return cls(url, token_from=error.item or "the token file", problem=error)
        if first is None:
            return cls(url)
        token, place = first
        if not _BEARER.fullmatch(token):
            hint = "it must hold the token alone, in one word, without 'Bearer'"
            problem = UsageError(f"the token in {place} has a character that cannot be sent", item=place, hint=hint)
            return cls(url, token_from=place, problem=problem)
        return cls(url, token, place)

    def check_token(self) -> None:
        """Raises `UsageError` if a token is set that cannot be used."""
        if self.problem:
            raise self.problem.but()

    @property
    def origin_token(self) -> OriginToken | None:
        if not (self.token or self.problem):
            return None
        return OriginToken(origin_of(self.url), self.token or "", self.token_from, self.problem)


def _endpoint_url(text: str) -> str:
    """The URL of the hub that HF_ENDPOINT names, without a slash at its end. Raises `UsageError`."""
    try:
        url = check_server_url(text)
    except UsageError as error:
        hint = "write it as https://HOST or http://HOST:PORT, without a user name, a query or a fragment"
        raise UsageError("it is not the URL of a hub", item="HF_ENDPOINT", hint=hint) from error
    host = host_of(url)
    if url.startswith("http:") and is_public(host):
        reason = f"it is plain http to {host}; a token would be sent in the clear"
        hint = "write https://, or the name of a machine of your own network, which has no dot, or its address"
        raise UsageError(reason, item="HF_ENDPOINT", hint=hint)
    return url


def token_places(environ: Mapping[str, str]) -> list[str]:
    """Every variable and file that has a token; only the first one's is used."""
    places = []
    with contextlib.suppress(UsageError):
        for _, place in _tokens(environ):
            places.append(place)
    return places


def _tokens(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each token and where it stands. Raises `UsageError` if the token file is a pipe, a device, too large for a token,
    or no text; a file that is missing or may not be read has no token."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        token = as_meant(environ.get(name, ""))
        if token:
            yield token, name
    path = token_path(environ)
    token = _token_in(path) if path else ""
    if token:
        yield token, str(path)


def _token_in(path: Path) -> str:
    """The token in a file; '' if it is missing or may not be read. Raises `UsageError`."""
    try:
        return as_meant(_decoded(read_whole(path, LARGEST_NOTE)))
    except OSError as error:
        if error.errno not in UNREADABLE_ERRNOS:
            return ""
        hint = "name the file that holds the token, or set HF_TOKEN"
        raise UsageError(f"cannot read a token from {path}: {error.strerror}", item=str(path), hint=hint) from error
    except UnicodeDecodeError as error:
        hint = "write the token into it again, as plain text, or set HF_TOKEN"
        raise UsageError(f"the token file {path} is no text", item=str(path), hint=hint) from error


def _decoded(data: bytes) -> str:
    """The text of a small file as editors and shells of all systems write one. Raises `UnicodeDecodeError`."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def token_path(environ: Mapping[str, str]) -> Path | None:
    """The hub's token file: HF_TOKEN_PATH, else ``token`` in HF_HOME, else in the cache folder."""
    named = as_meant(environ.get("HF_TOKEN_PATH", ""))
    if named:
        return _expanded(named, environ)
    hub_home = as_meant(environ.get("HF_HOME", ""))
    if hub_home:
        return _expanded(hub_home, environ) / "token"
    cache = as_meant(environ.get("XDG_CACHE_HOME", ""))
    if cache:
        return _expanded(cache, environ) / "huggingface" / "token"
    home = environ.get("HOME")
    return Path(home, ".cache", "huggingface", "token") if home else None


def _expanded(text: str, environ: Mapping[str, str]) -> Path:
    """``~`` and ``$NAME`` as the hub's client expands them."""
    text = re.sub(r"\$(\w+|\{\w+\})", lambda match: environ.get(match[1].strip("{}"), match[0]), text)
    home = environ.get("HOME")
    if home and (text == "~" or text.startswith("~/")):
        return Path(home + text[1:])
    return Path(text)
