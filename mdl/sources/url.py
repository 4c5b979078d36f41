"""Direct URLs: what a catalog or a command line names by itself, on any web server or CDN.

What a server has under a URL is told by its answer to a GET: size, validator and digest, and the file's name if the URL
does not end in one with an extension. A download reads that off the answer that brings the bytes (`UrlSource.met`), as
some servers and proxies fetch the whole file for every request. Who only wants to know (a plan, a lock, whether a file
that is here has changed) asks for the first byte: a server need not answer HEAD, or may answer it wrongly.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from mdl.bounds import LARGEST_NOTE
from mdl.errors import (
    AuthError,
    LockError,
    MdlError,
    NetworkError,
    ProtocolError,
    Unsafe,
    UsageError,
    online_hint,
)
from mdl.files import RemoteFile
from mdl.formatting import listed
from mdl.hashing import Digest
from mdl.paths import RelPath, shown
from mdl.presigned import identifying_parameters, url_identity
from mdl.redact import bare_url
from mdl.sources import Origin, Source, SourceContext, reference_forms
from mdl.sources.answer_cache import keep, kept_path, read_kept
from mdl.sources.hub_origin import parse_page, shown_url, split_url
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.listener import Listener
    from mdl.net.client import HttpClient, OpenResponse

VERSION = 1
"""Of the file that keeps what a server called its file."""
_LONGEST_NAME = 120
_EXTENSION = re.compile(r".+\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,12}")
FILE_NAME = re.compile(
    r".*\.(safetensors|gguf|ggml|onnx|pt|pth|ckpt|bin|h5|hdf5|keras|tflite|npy|npz|msgpack|parquet|arrow|pkl|model|spm"
    r"|tiktoken|vocab|json|jsonl|yaml|yml|toml|xml|md|txt|csv|tsv|jinja|py|html|png|jpe?g|webp|gif|svg|wav|mp3|flac"
    r"|mp4|zip|tar|gz|tgz|bz2|xz|zst|7z)",
    re.IGNORECASE,
)
"""The names of files, by their extensions."""
_DIGESTS = re.compile(r"(?:md5|sha-?[0-9]+|sha3-[0-9]+|blake[0-9a-z]+|crc32c?)", re.IGNORECASE)
"""Names of algorithms in a fragment, which people expect to be compared."""
_PLACE = re.compile(r"(\[[^\[\]]*\])?(:[0-9]*)?|[^\[\]]*")
"""A host or an address in brackets, and a port."""
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_LONGEST_HOST = 253
_PLAIN_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")
_PLAIN_FOLDER = re.compile(r"[A-Za-z0-9._-]+")
_UNNAMED = RelPath("download")
"""Stands for the name that the server of a file will tell."""


@value_class
class UrlOrigin(Origin):
    """A file under an absolute http(s) URL, and its digest if the fragment of the URL has it."""

    scheme: ClassVar[str] = "https"

    url: str
    digest: Digest | None = None

    def __str__(self) -> str:
        return f"{self.url}#{self.digest.algorithm}={self.digest.hex}" if self.digest else self.url

    def holds(self, place: Origin) -> bool:
        """The same URL, to the last character: nothing is below a file. A digest beside it says nothing of where."""
        return isinstance(place, UrlOrigin) and place.url == self.url

    @property
    def label(self) -> str:
        return shown_url(self.url)

    @property
    def last_part(self) -> str:
        """The last part of the path of the URL, percent-decoded and without ``;parameters``."""
        return unquote(urlsplit(bare_url(self.url)).path.rpartition("/")[2])

    @property
    def is_named(self) -> bool:
        """Whether the URL ends in a name with an extension. If not, its server is asked for the name."""
        return has_extension(self.last_part)

    @property
    def name_in_query(self) -> str:
        """The file's name if one value of the query, and no other, ends in one; else ''. A value that has no extension
        that files are known by may be a secret."""
        names: set[str] = set()
        for _, value in parse_qsl(urlsplit(self.url).query, keep_blank_values=True):
            name = value.rpartition("/")[2]
            if FILE_NAME.fullmatch(name):
                names.add(name)
        return names.pop() if len(names) == 1 else ""

    @property
    def file_name(self) -> RelPath:
        """The name that the URL ends in."""
        if not self.last_part or "/" in self.last_part:
            raise UsageError("the URL ends in no file name", item=self.label, hint="name the file: mdl get URL -o NAME")
        return RelPath.parse(self.last_part)

    @property
    def folder(self) -> str:
        """Named after host and folders, so that two files of one name never meet; if the server names the file, after
        all of the URL's path. What these do not tell, a hash at the end does."""
        parts = urlsplit(bare_url(self.url))
        names = [parts.netloc, *unquote(parts.path).split("/")]
        if self.is_named:
            names.pop()
        place = "--".join(name for name in names if name)
        folder = re.sub(r"[^A-Za-z0-9._-]+", "_", place).strip("._-") or "download"
        parameters = identifying_parameters(self.url)
        hashed = repr(parameters) if parameters else ""
        if not (self.is_named and _is_readable_from_name(parts)):
            hashed += f" of {parts.netloc}{parts.path}"
        if len(folder) > _LONGEST_NAME:
            folder = folder[:_LONGEST_NAME]
            hashed = place + hashed
        if not hashed:
            return folder
        return f"{folder}-{hashlib.sha256(hashed.encode()).hexdigest()[:8]}"


def has_extension(name: str) -> bool:
    """Whether a name ends like that of a file: ``.7z`` is an extension, the ``.1`` of a version is not."""
    return _EXTENSION.fullmatch(name) is not None


def _is_readable_from_name(parts: SplitResult) -> bool:
    """Whether host and folders can be read off the name that is made of them, and the file's name off its own."""
    _, *folders, last = parts.path.split("/")
    if not _PLAIN_HOST.fullmatch(parts.netloc) or "\ufffd" in unquote(last):
        return False
    for folder in folders:
        if not _PLAIN_FOLDER.fullmatch(folder):
            return False
    for part in (parts.netloc, *folders):
        if "--" in part or part.startswith("-") or part.endswith("-"):
            return False
    return not folders or not folders[-1].endswith((".", "_"))


def parse(text: str, page_hosts: Collection[str]) -> Origin:
    """A page of the hub as the hub's origin, any other URL as that one file. Raises `UsageError`, `Unsafe`."""
    url = check_url(text)
    return parse_page(url, page_hosts) or UrlOrigin(file_url(url), digest_in(url))


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
            remote = self.probe(stated, partial(_name_of, origin))
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
        remote = described(replace(remote, path=_name_of(origin, opened.headers)), remote.url, opened)
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

    def probe(self, remote: RemoteFile, name: Callable[[Mapping[str, str]], RelPath] | None = None) -> RemoteFile:
        """The same file with what its server says about it; ``name`` finds its path in the headers of the answer. The
        mirrors are asked if the first server fails and a digest is known. Raises `MdlError` of the first server."""
        http = self._context.http
        if remote.probed or http is None:
            return remote
        urls = [remote.url]
        if remote.digest is not None:
            urls += remote.mirrors
        errors = []
        for url in urls:
            request = partial(self._probe, http, remote, url, name)
            try:
                return http.retry(url, request, self._context.on_retry(file=remote.path.text))
            except MdlError as error:
                errors.append(error)
        raise errors[0].on(remote.path.text)

    def _probe(
        self,
        http: HttpClient,
        remote: RemoteFile,
        url: str,
        name: Callable[[Mapping[str, str]], RelPath] | None,
    ) -> RemoteFile:
        """Ask for the first byte. A server that refuses that is asked plainly, and the body is left unread."""
        from mdl.net.policy import STATUSES_OF_A_RANGE

        record = http.record(url)
        may_pass = False
        if record.serves_ranges is not False:
            try:
                return self._head(http, remote, url, name, {"Range": "bytes=0-0"})
            except NetworkError as error:
                if not error.is_answer:
                    raise
                may_pass = not error.final
                record.range_troubles += may_pass
                if may_pass and record.range_troubles < STATUSES_OF_A_RANGE:
                    raise
            except (AuthError, ProtocolError):
                pass
        answer = self._head(http, remote, url, name, {})
        if not may_pass:
            record.note_refused_range()
        return answer

    def _head(
        self,
        http: HttpClient,
        remote: RemoteFile,
        url: str,
        name: Callable[[Mapping[str, str]], RelPath] | None,
        headers: Mapping[str, str],
    ) -> RemoteFile:
        """The file by the head of one answer."""
        with http.open("GET", url, headers, allow=(416,) if headers else (), is_file=True) as opened:
            if name is not None:
                remote = replace(remote, path=name(opened.headers))
            return described(remote, url, opened)


def described(remote: RemoteFile, url: str, opened: OpenResponse) -> RemoteFile:
    """``remote`` with what the answer of ``url`` says about it in its head. Raises `ProtocolError`."""
    from mdl.net.headers import parse_content_range, parse_size, recorded_digest, validator_of
    from mdl.net.responses import announced_size

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


@lru_cache(maxsize=2**14)  # a URL of a catalog is read several times in one command
def check_url(url: str) -> str:
    """``url`` if it is an absolute http(s) URL that everybody reads alike; its scheme comes back in lower case.

    Raises `UsageError`. The message never repeats the URL, which may hold a secret.
    """
    try:
        parts = _checked_parts(url)
    except _BadUrl as error:
        raise UsageError(f"not a usable URL: {error}", item=shown_url(url), hint=error.hint) from None
    return parts.scheme + url[len(parts.scheme) :]


def file_url(url: str) -> str:
    """As `check_url`, without a ``#fragment``: no server is told of it. See `digest_in` for what it may tell."""
    return check_url(url).partition("#")[0]


def digest_in(url: str) -> Digest | None:
    """The digest of a file in the fragment of its URL, as pip writes it: ``#sha256=…``; None if there is none. Raises
    `UsageError` for a wrong one, and for an algorithm that mdl does not compare."""
    for part in url.partition("#")[2].split("&"):
        algorithm, equals, text = part.partition("=")
        if equals and algorithm.lower() == "sha256":
            return sha256_of(text, shown_url(url))
        if equals and _DIGESTS.fullmatch(algorithm):
            hint = "give the sha256 of the file, or leave the fragment out"
            raise UsageError(f"mdl compares sha256, not {algorithm.lower()}", item=shown_url(url), hint=hint)
    return None


def sha256_of(text: str, item: str) -> Digest:
    """The digest that a person wrote, in capital or small letters. Raises `UsageError` about ``item``."""
    try:
        return Digest.parse("sha256", text.strip().lower().removeprefix("sha256:"))
    except ProtocolError as error:
        reason = f"not a sha256: it has {len(text.strip())} characters"
        raise UsageError(reason, item=item, hint="a sha256 has 64 digits, 0-9 and a-f") from error


class _BadUrl(Exception):
    """A URL cannot be used; ``hint`` says what to do about it."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


def _checked_parts(url: str) -> SplitResult:
    """The parts of a URL. Raises `_BadUrl`."""
    if " " in url or not url.isprintable():
        raise _BadUrl("a blank, control or invisible character", "percent-encode it")
    if "\\" in url:
        raise _BadUrl("a backslash", "percent-encode it")
    parts = split_url(url)
    if parts is None:
        raise _BadUrl("malformed host")
    if "@" in parts.netloc:
        raise _BadUrl("a user name or password", "never put secrets in URLs; a token comes from the environment")
    if parts.scheme not in ("http", "https"):
        raise _BadUrl(f"only {listed(reference_forms())}", "write https://… or hf:org/repo")
    if not parts.hostname:
        raise _BadUrl("no host", "write https://host/path")
    if not _PLACE.fullmatch(parts.netloc):
        raise _BadUrl("something beside the bracketed address", "write https://[address]:port/path")
    _check_port(parts)
    if parts.netloc.startswith("["):
        _check_address(parts.hostname)
    else:
        _check_host(parts.hostname)
    return parts


def _check_port(parts: SplitResult) -> None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise _BadUrl("a port must be 1 to 65535")


def _check_address(host: str) -> None:
    """An address in brackets, in its usual spelling. Raises `_BadUrl`."""
    try:
        address = IPv6Address(host)
    except AddressValueError:
        raise _BadUrl("not an IPv6 address") from None
    if address.scope_id:
        raise _BadUrl("an address with a zone")
    if address.ipv4_mapped:
        raise _BadUrl("an odd spelling of an address", f"write {address.ipv4_mapped}")
    if str(address) != host:
        raise _BadUrl("an odd spelling of an address", f"write [{address}]")


def _check_host(host: str) -> None:
    """A host name, or an IPv4 address in its usual spelling. Raises `_BadUrl`."""
    if not host.isascii():
        raise _BadUrl("a host name beyond ASCII", "write its xn-- form")
    labels = host.removesuffix(".").split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise _BadUrl("not a host name")
    if len(host) > _LONGEST_HOST:
        raise _BadUrl("not a host name")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            IPv4Address(host)
        except AddressValueError:
            hint = "write it as four decimal numbers, such as 127.0.0.1"
            raise _BadUrl("an odd spelling of an address", hint) from None
