"""Bases: the catalogs that a catalog extends: where ``extends`` leads to, and the text of those that are on the web.

A base on the web is asked for at most every ten minutes, with the validator of the copy that mdl keeps beside its
state. The copy is used if mdl is offline, or if the network fails. (ADR 31)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from mdl.bounds import LARGEST_RECORD, LAST_MOMENT, LONGEST_QUOTE, finite_number
from mdl.config.places import SHIPPED, expanded
from mdl.errors import (
    CatalogError,
    LockError,
    MdlError,
    NetworkError,
    ProtocolError,
    Unsafe,
    UsageError,
    online_hint,
)
from mdl.redact import bare_url
from mdl.sources.answer_cache import keep, kept_path, read_kept
from mdl.toml import parse_toml
from mdl.urls import check_url
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.net.client import HttpClient

Place = Path | str
"""A file, or the URL of one."""
Fetch = Callable[[str, str], str]
"""The text of the catalog at a URL; the second one is the URL that a file on this disk named. Raises `MdlError`."""

MOST = 64
"""So many catalogs may be read for one, and so many may one extend."""
FRESH = 600.0
"""So many seconds a copy is used without asking."""
_VERSION = 1
_VALIDATORS = {"If-None-Match": "etag", "If-Modified-Since": "last-modified"}
"""Headers that ask whether a text is still the same, each with the header of the answer that they send back."""


def place_of_base(text: str, of: Place) -> Place:
    """Where ``text`` in the ``extends`` of a catalog leads: "shipped", a path from the folder of that catalog, or a
    URL. What a catalog on the web extends is on the web as well, or shipped. Raises `UsageError`."""
    if text == "shipped":
        return SHIPPED
    if isinstance(of, str):
        return _checked_url(text, of)
    if "://" in text:
        return _checked_url(text, "")
    return of.parent / expanded(text, "extends")


def _checked_url(text: str, base: str) -> str:
    """The URL that ``text`` means in the catalog at the URL ``base``; '' is a file on this disk. It is one of https, or
    of http on this machine, but never of http in a catalog that came over https. Raises `UsageError`."""
    from mdl.net.allowlist import host_of
    from mdl.net.credentials import is_loopback

    refused = UsageError('must be "shipped", a path, or an https URL without a password')
    try:
        url = check_url(urljoin(base, text))
    except (ValueError, UsageError):
        raise refused from None
    is_plain_allowed = is_loopback(host_of(url)) and not base.startswith("https:")
    if url.startswith("http:") and not is_plain_allowed:
        raise refused
    return url


def name_of(place: Place) -> str:
    """How a catalog is called in messages."""
    return bare_url(place)[:LONGEST_QUOTE] if isinstance(place, str) else str(place)


def identity_of(place: Place) -> Place:
    """The same for two names of one catalog."""
    if isinstance(place, str):
        return place
    try:
        return Path(os.path.realpath(place))
    except (OSError, ValueError):
        return place


@value_class
class _Copy:
    """The text that a URL had ``at`` so many seconds since 1970, how to ask whether it still has that, and when it was
    last asked, even if it did not answer."""

    text: str
    validator: Mapping[str, str]
    at: float
    asked: float

    @property
    def is_fresh(self) -> bool:
        return 0 <= time.time() - self.asked < FRESH


class WebBases:
    """A `Fetch`. ``connect`` opens a client for the host of a URL; None if nothing may be asked. The copies are in
    ``folder``; if that is None, none are kept. With ``prefers_copies`` it asks only if there is none. ``warn`` is
    called with a sentence if a copy is used because the network fails, or because a page came instead of a catalog.
    ``offline_by`` is what keeps mdl offline."""

    def __init__(
        self,
        folder: Path | None,
        connect: Callable[[str], AbstractContextManager[HttpClient]] | None,
        warn: Callable[[str], None],
        *,
        prefers_copies: bool = False,
        offline_by: str = "",
    ) -> None:
        self._folder = folder
        self._connect = connect
        self._warn = warn
        self._prefers_copies = prefers_copies
        self._offline_by = offline_by

    def __call__(self, url: str, named: str) -> str:
        """Raises `LockError` if it may not be asked for and there is no copy, `CatalogError`, and what `HttpClient`
        raises."""
        copy = self._kept(url)
        if copy is not None and (self._prefers_copies or self._connect is None or copy.is_fresh):
            return copy.text
        if self._connect is None:
            hint = online_hint(self._offline_by)
            raise LockError("offline: this catalog was never fetched", item=bare_url(url), hint=hint)
        try:
            with self._connect(named) as http:
                if copy is None:
                    current = http.retry(url, lambda: _fetched(http, url, None))
                else:
                    current = _fetched(http, url, copy)
        except MdlError as error:
            if copy is None or not isinstance(error, NetworkError | ProtocolError):
                raise error.on(bare_url(url)) from None
            then = datetime.fromtimestamp(copy.at).isoformat(" ", "minutes")
            self._warn(f"{bare_url(url)}: {error.message}; the copy of {then} is used")
            current = replace(copy, asked=time.time())
        self._keep(url, current)
        return current.text

    def _kept(self, url: str) -> _Copy | None:
        """The copy; None if there is none, or it is damaged."""
        if self._folder is None:
            return None
        facts = read_kept(kept_path(self._folder, url, ".json"), "mdl-base", _VERSION, 8 * LARGEST_RECORD)
        if facts is None:
            return None
        try:
            return _Copy(str(facts["text"]), dict(facts["validator"]), _moment(facts["at"]), _moment(facts["asked"]))
        except (ValueError, KeyError, TypeError):
            return None

    def _keep(self, url: str, copy: _Copy) -> None:
        """Keep what can be read as TOML: a page that is not a catalog must not hide the next answer for ten minutes."""
        if self._folder is None:
            return
        try:
            parse_toml(copy.text)
            keep(kept_path(self._folder, url, ".json"), "mdl-base", _VERSION, vars(copy))
        except (OSError, Unsafe, ValueError):
            pass  # the next command asks again


def _moment(value: object) -> float:
    """A time in seconds since 1970. Raises `OutOfBounds`."""
    return finite_number(value, most=LAST_MOMENT)


def _fetched(http: HttpClient, url: str, copy: _Copy | None) -> _Copy:
    """Ask for what the URL has now."""
    from mdl.net.server_messages import impostor

    now = time.time()
    with http.open("GET", url, copy.validator if copy else None) as opened:
        if opened.status == 304 and copy:
            return replace(copy, at=now, asked=now)
        if opened.status != 200:
            raise ProtocolError(f"answered {opened.status} to a request for a catalog", item=bare_url(url))
        data = bytearray()
        for block in http.body(opened):
            data += block
            if len(data) > LARGEST_RECORD:
                raise CatalogError(f"larger than {LARGEST_RECORD // 2**20} MiB, the most of a catalog on the web")
    page = impostor(bytes(data))
    if page:
        raise ProtocolError(page[0], hint=page[1])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CatalogError("not UTF-8") from None
    return _Copy(text, _validator(opened.headers), now, now)


def _validator(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The header that asks whether it is still the same; none if what the server sent cannot be sent back."""
    for question, answer in _VALIDATORS.items():
        value = headers.get(answer, "")
        if value and value.isascii():
            return {question: value}
    return {}
