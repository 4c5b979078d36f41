"""Direct URLs: what a catalog or a command line names by itself, on any web server or CDN.

What a server has under a URL is told by its answer to a GET: size, validator and digest, and the file's name if the URL
does not end in one with an extension. A download reads that off the answer that brings the bytes (`UrlSource.met`), as
some servers and proxies fetch the whole file for every request. Who only wants to know (a plan, a lock, whether a file
that is here has changed) asks for the first byte: a server need not answer HEAD, or may answer it wrongly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mdl.bounds import LARGEST_NOTE
from mdl.errors import AuthError, LockError, MdlError, NetworkError, ProtocolError, Unsafe, UsageError, online_hint
from mdl.files import RemoteFile
from mdl.hashing import Digest
from mdl.paths import RelPath, shown
from mdl.redact import bare_url
from mdl.sources import Source, SourceContext
from mdl.sources.answer_cache import keep, kept_path, read_kept
from mdl.sources.url_origin import UrlOrigin
from mdl.sources.url_origin import parse as parse
from mdl.urls import url_identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mdl.listener import Listener
    from mdl.net.client import HttpClient
    from mdl.net.follower import OpenResponse

_Reader = Callable[["OpenResponse"], RemoteFile]
"""What makes a file of the head of an answer."""
VERSION = 1
"""Of the file that keeps what a server called its file."""
_UNNAMED = RelPath("download")
"""Stands for the name that the server of a file will tell."""


class UrlSource(Source):
    """Asks servers what they have under a URL."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context

    def resolve(self, origin: UrlOrigin) -> list[RemoteFile]:
        """The one file, by the name that its server gives it, or else by the one that the URL ends in."""
        if self._context.network is None:
            known = self.known(origin)
            if known is None:
                hint = online_hint(self._context.offline_by)
                raise LockError("offline, and the file's name was never asked for", item=origin.label, hint=hint)
            return known
        stated = self.file(origin, _UNNAMED)
        try:
            remote = self._ask(stated, lambda url, opened: _named_by(opened, origin, stated, url))
        except MdlError as error:
            if error.item == stated.path.text:
                raise error.but(item=origin.label) from error
            raise
        self._note_name(origin, remote.path, self._context.on_event)
        return [remote]

    def unasked(self, origin: UrlOrigin) -> RemoteFile:
        """The file of ``origin`` before anybody was asked. Its name is what its server called it before, what the URL
        ends in, or a name that stands for the one that the server will tell."""
        name = self._kept_name(origin)
        if name is None:
            name = _UNNAMED
            with contextlib.suppress(UsageError, Unsafe):
                name = origin.file_name
        return replace(self.file(origin, name), is_left_open=True, is_name_open=True, label=origin.label)

    def met(self, remote: RemoteFile, opened: OpenResponse, on_event: Listener) -> RemoteFile:
        """The same file with what the answer that brings it says about it. Raises `ProtocolError`, `Unsafe`,
        `UsageError`."""
        if not remote.is_name_open:
            return described(remote, remote.url, opened)
        origin = UrlOrigin(remote.url, remote.digest)
        remote = _named_by(opened, origin, remote, remote.url)
        self._note_name(origin, remote.path, on_event)
        return remote

    def _note_name(self, origin: UrlOrigin, path: RelPath, on_event: Listener) -> None:
        """Keep what the server called its file, and say so if neither it nor the URL named one."""
        if not origin.is_named and path.text == origin.last_part:
            from mdl.events import Noticed

            on_event(Noticed(message=f"saved as {shown(path.text)}: the URL names no file; -o NAME"))
        with contextlib.suppress(OSError, Unsafe):  # a name that cannot be kept is asked for again
            facts = {"url": bare_url(origin.url), "name": path.text}
            keep(self._place_of_name(origin), "mdl-url-name", VERSION, facts)

    def known(self, origin: UrlOrigin) -> list[RemoteFile] | None:
        name = origin.file_name if origin.is_named else self._kept_name(origin)
        return [self.file(origin, name)] if name else None

    def _kept_name(self, origin: UrlOrigin) -> RelPath | None:
        """The name that the server gave the file when it was last asked; None if that is not known."""
        facts = read_kept(self._place_of_name(origin), "mdl-url-name", VERSION, LARGEST_NOTE)
        if facts is None:
            return None
        try:
            return RelPath.parse(facts["name"])
        except (KeyError, TypeError, AttributeError, MdlError):
            return None

    def _place_of_name(self, origin: UrlOrigin) -> Path:
        return kept_path(self._context.folder, url_identity(origin.url), ".name")

    def file(self, origin: UrlOrigin, path: RelPath) -> RemoteFile:
        return RemoteFile(path, origin.url, digest=origin.digest)

    def complete(self, origin: UrlOrigin, stated: RemoteFile) -> RemoteFile:
        return self.probe(stated)

    def hosts(self, origin: UrlOrigin) -> tuple[str, ...]:
        from mdl.net.allowlist import host_of

        return (host_of(origin.url),)

    def probe(self, remote: RemoteFile) -> RemoteFile:
        """The same file with what its server says about it. The mirrors are asked if the first server fails and a
        digest is known. Raises `MdlError` of the first server."""
        if remote.probed:
            return remote
        return self._ask(remote, lambda url, opened: described(remote, url, opened))

    def _ask(self, remote: RemoteFile, read: Callable[[str, OpenResponse], RemoteFile]) -> RemoteFile:
        """The file that ``read`` makes of a URL and the head of its answer; as it is if nobody can be asked."""
        http = self._context.http
        if http is None:
            return remote
        urls = [remote.url]
        if remote.digest is not None:
            urls += remote.mirrors
        errors = []
        for url in urls:
            ask = partial(_ask_for_first_byte, http, url, partial(read, url))
            try:
                return http.retry(url, ask, self._context.on_retry(file=remote.path.text))
            except MdlError as error:
                errors.append(error)
        raise errors[0].on(remote.path.text)


def _ask_for_first_byte(http: HttpClient, url: str, read: _Reader) -> RemoteFile:
    """Ask for the first byte. A server that refuses that is asked plainly, and the body is left unread."""
    from mdl.net.policy import STATUSES_OF_A_RANGE

    record = http.record(url)
    if record.serves_ranges is False:
        remote = _read_head(http, url, read)
        record.note_refused_range()
        return remote
    try:
        with http.open("GET", url, {"Range": "bytes=0-0"}, allow=(416,), is_file=True) as opened:
            return read(opened)
    except NetworkError as error:
        if not error.is_answer:
            raise
        if not error.final:  # it may be busy, and no enemy of ranges
            record.range_troubles += 1
            if record.range_troubles < STATUSES_OF_A_RANGE:
                raise
            return _read_head(http, url, read)
    except (AuthError, ProtocolError):
        pass
    remote = _read_head(http, url, read)
    record.note_refused_range()
    return remote


def _read_head(http: HttpClient, url: str, read: _Reader) -> RemoteFile:
    with http.open("GET", url, {}, is_file=True) as opened:
        return read(opened)


def _named_by(opened: OpenResponse, origin: UrlOrigin, remote: RemoteFile, url: str) -> RemoteFile:
    """The file with the name and all else that the answer of ``url`` says. Raises as `_name_of` and `described`."""
    return described(replace(remote, path=_name_of(origin, opened.headers)), url, opened)


def described(remote: RemoteFile, url: str, opened: OpenResponse) -> RemoteFile:
    """``remote`` with what the answer of ``url`` says about it in its head. Raises `ProtocolError`."""
    from mdl.net.headers import parse_content_range, parse_size, recorded_digest, validator_of
    from mdl.net.responses import announced_size

    if opened.status not in (200, 206, 416):
        raise ProtocolError(f"the server answered with status {opened.status}, which carries no file")
    if opened.status == 206 and not parse_content_range(opened.headers.get("content-range", "")):
        raise ProtocolError("the server sent a partial answer without a usable Content-Range")
    names = (remote.path.text, url)
    size = announced_size(opened.status, opened.headers, names, pinned=remote.digest is not None)
    if opened.status == 416 and size is None:
        raise ProtocolError("the server refused a range that lies inside the file (416)")
    digest = remote.digest
    commit = remote.commit
    for headers in (*opened.hops, opened.headers):  # a hub says what the file is where it redirects to the bytes
        digest = digest or Digest.of_etag(headers.get("x-linked-etag"))
        commit = commit or headers.get("x-repo-commit")
        if size is None:
            size = parse_size(headers.get("x-linked-size", ""))
    digest = digest or recorded_digest(opened.headers)
    expected = size if remote.size is None else remote.size
    if digest is None and size is not None and size != expected:
        hint = "the source or the catalog's size is wrong; look at both"
        raise ProtocolError(f"the server announces {size} bytes, expected {expected}", hint=hint)
    validator = validator_of(opened.headers)
    return replace(remote, size=expected, digest=digest, commit=commit, validator=validator, probed=True)


open_source = UrlSource


def _name_of(origin: UrlOrigin, headers: Mapping[str, str]) -> RelPath:
    """The name of the file of a URL. Raises `Unsafe`, and `UsageError` if neither server nor URL say."""
    from mdl.net.headers import attached_name

    name = attached_name(headers)
    if not name and not origin.is_named:
        name = origin.name_in_query
    try:
        return RelPath.parse(name) if name else origin.file_name
    except Unsafe as error:
        raise error.but(hint="give it another name: mdl get URL -o NAME") from error
