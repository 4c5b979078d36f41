"""Direct URLs: what a catalog or a command line names by itself, on any web server or CDN.

A server need not answer HEAD, or may answer it wrongly, so the first byte is asked for instead: the answer
tells the size, whether ranges are served, and the file's validator.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import SplitResult, unquote, urlsplit

from mdl.errors import CatalogError, MdlError, ProtocolError, UsageError
from mdl.files import RemoteFile
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.presigned import identifying_parameters
from mdl.redact import bare_url
from mdl.sources import Context, Origin
from mdl.sources.hub_origin import parse_page, shown_url, split_url

if TYPE_CHECKING:
    from mdl.http.client import HttpClient

_LONGEST_NAME = 120
_PLAIN_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")
_PLAIN_FOLDER = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class UrlOrigin(Origin):
    """One file under an absolute http(s) URL."""

    scheme: ClassVar[str] = "https"

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def file_name(self) -> RelPath:
        """The name that the URL ends in, percent-decoded and without ``;parameters``."""
        name = unquote(urlsplit(bare_url(self.url)).path.rpartition("/")[2])
        if not name or "/" in name:
            raise UsageError("the URL ends in no file name", item=shown_url(self.url), hint="say which path it gets")
        return RelPath.parse(name)

    @property
    def folder(self) -> str:
        """Named after host and folders, so that two files of one name never meet. What these do not tell, a hash at
        the end does."""
        parts = urlsplit(bare_url(self.url))
        *folders, _ = unquote(parts.path).split("/")
        place = "--".join([parts.netloc, *filter(None, folders)])
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", place).strip("._-") or "download"
        told = repr(found) if (found := identifying_parameters(self.url)) else ""
        if not _is_told_by_name(parts):
            told += f" of {parts.netloc}{parts.path}"
        if len(name) > _LONGEST_NAME:
            name, told = name[:_LONGEST_NAME], place + told
        return f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:8]}" if told else name


def _is_told_by_name(parts: SplitResult) -> bool:
    """Host and folders can be read off the name that they are made to, and the file's name off its own."""
    _, *folders, last = parts.path.split("/")
    plain = _PLAIN_HOST.fullmatch(parts.netloc) and all(map(_PLAIN_FOLDER.fullmatch, folders))
    ends = any("--" in part or part.strip("-") != part for part in (parts.netloc, *folders))
    readable = "\ufffd" not in unquote(last)
    return bool(plain) and not ends and readable and (not folders or folders[-1].rstrip("._") == folders[-1])


def parse(text: str, page_hosts: Collection[str]) -> Origin:
    """A page of the hub as the hub's origin, any other URL as that one file. Raises `UsageError`, `Unsafe`."""
    return parse_page(text, page_hosts) or UrlOrigin(file_url(text))


def open_source(context: Context) -> UrlSource:
    return UrlSource(context)


class UrlSource:
    """Asks servers what they have under a URL."""

    def __init__(self, context: Context) -> None:
        self._context, self._on_event = context, context.on_event

    def resolve(self, origin: UrlOrigin) -> list[RemoteFile]:
        return [self.complete(origin, self.file(origin, origin.file_name))]

    def known(self, origin: UrlOrigin) -> list[RemoteFile] | None:
        return None

    def file(self, origin: UrlOrigin, path: RelPath) -> RemoteFile:
        return RemoteFile(path, origin.url)

    def complete(self, origin: UrlOrigin, stated: RemoteFile) -> RemoteFile:
        return self.probe(stated)

    def hosts(self, origin: UrlOrigin) -> tuple[str, ...]:
        from mdl.http.allowlist import host_of

        return (host_of(origin.url),)

    def probe(self, remote: RemoteFile) -> RemoteFile:
        """The same file with what its server tells of it. The mirrors are asked if the first server fails
        and a digest is known. Raises `MdlError` of the first server."""
        if remote.probed or (http := self._context.http) is None:
            return remote
        from mdl.events import Retrying

        first: MdlError | None = None
        for url in (remote.url, *(remote.mirrors if remote.digest else ())):
            try:
                return http.retry(
                    url,
                    lambda url=url: self._probe(http, remote, url),  # type: ignore[misc]
                    lambda again: self._on_event(
                        Retrying("", remote.path.text, again.why, again.failure, again.delay, again.most)
                    ),
                )
            except MdlError as error:
                first = first or error
        assert first is not None
        raise first.on(remote.path.text)

    def _probe(self, http: HttpClient, remote: RemoteFile, url: str) -> RemoteFile:
        from mdl.http.responses import announced_size, parse_size, recorded_digest, validator_of

        with http.open("GET", url, {"Range": "bytes=0-0"}, allow=(416,)) as opened:
            names, pinned = (remote.path.text, url), remote.digest is not None
            size = announced_size(opened.status, opened.headers, names, pinned=pinned)
            validator = validator_of(opened.headers)
            digest, commit = remote.digest, remote.commit
            for headers in opened.hops:
                digest = digest or Digest.of_etag(headers.get("x-linked-etag"))
                commit = commit or headers.get("x-repo-commit")
                size = size if size is not None else parse_size(headers.get("x-linked-size", ""))
            digest = digest or Digest.of_etag(opened.headers.get("x-linked-etag")) or recorded_digest(opened.headers)
        known = remote.size if remote.size is not None else size
        if digest is None and None not in (size, known) and size != known:
            hint = "the source or the catalog's size is wrong; look at both"
            raise ProtocolError(f"the server announces {size} bytes, expected {known}", hint=hint)
        return replace(remote, size=known, digest=digest, commit=commit, validator=validator, probed=True)


@lru_cache(256)
def check_url(url: str) -> str:
    """``url`` if it is an absolute http(s) URL that everybody reads alike; its scheme comes back in lower case.

    Raises `CatalogError`. The message never repeats the URL, which may hold a secret.
    """
    parts = split_url(url)
    why, hint = _why_bad_url(url, parts)
    if why or parts is None:
        raise CatalogError(f"not a usable URL: {why}", item=shown_url(url), hint=hint)
    return parts.scheme + url[len(parts.scheme) :]


def file_url(url: str) -> str:
    """As `check_url`, without a ``#fragment``: no server is told of it, and it tells nothing of a file."""
    return check_url(url).partition("#")[0]


def _why_bad_url(url: str, parts: SplitResult | None) -> tuple[str | None, str | None]:
    """What is wrong with ``url`` and what to do about it; (None, None) when it is fine."""
    if " " in url or not url.isprintable():
        return "a blank, control or invisible character", "percent-encode it"
    if "\\" in url:
        return "a backslash", "percent-encode it"
    if parts is None:
        return "malformed host", None
    if "@" in parts.netloc:
        return "a user name or password", "never put secrets in URLs; a token comes from the environment"
    if parts.scheme not in ("http", "https"):
        return "only http:// and https://", "write https://… or hf:org/repo"
    if not parts.hostname:
        return "no host", "write https://host/path"
    if not re.fullmatch(r"(\[[^\[\]]*\])?(:[0-9]*)?|[^\[\]]*", parts.netloc):
        return "something beside the bracketed address", "write https://[address]:port/path"
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        return "a port must be 1 to 65535", None
    return _why_bad_host(parts.hostname, bracketed=parts.netloc.startswith("["))


def _why_bad_host(host: str, *, bracketed: bool) -> tuple[str | None, str | None]:
    """Refuse what is no host name and every spelling of an address but the usual one."""
    if bracketed:
        try:
            address = IPv6Address(host)
        except AddressValueError:
            return "not an IPv6 address", None
        if address.scope_id:
            return "an address with a zone", None
        if address.ipv4_mapped:
            return "an odd spelling of an address", f"write {address.ipv4_mapped}"
        return (None, None) if str(address) == host else ("an odd spelling of an address", f"write [{address}]")
    if not host.isascii():
        return "a host name beyond ASCII", "write its xn-- form"
    labels = host.removesuffix(".").split(".")
    if not all(re.fullmatch(r"[a-z0-9_-]{1,63}", label) for label in labels) or len(host) > 253:
        return "not a host name", None
    if re.fullmatch(r"0x[0-9a-f]*|[0-9]+", labels[-1]):
        try:
            IPv4Address(host)
        except AddressValueError:
            return "an odd spelling of an address", "write it as four decimal numbers, such as 127.0.0.1"
    return None, None
