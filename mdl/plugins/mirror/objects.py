"""Objects of a mirror's bucket as mdl itself asks for them, which obstore cannot: with their metadata, and in the parts
of an upload that another process may go on with. Every request is signed if there are keys, and goes through mdl's one
HTTP client.

Protocol: https://docs.aws.amazon.com/AmazonS3/latest/API, "Uploading and copying objects using multipart upload". The
sha256 of a file is in the object's metadata: what a store tells of a file in parts is a checksum of checksums.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from mdl.bounds import LARGEST_XML, MOST_UPLOADS
from mdl.errors import AuthError, MdlError, NetworkError, NotFound, ProtocolError
from mdl.hashing import Digest
from mdl.http.allowlist import host_of
from mdl.http.client import HttpClient, OnRetry, OpenResponse
from mdl.http.refusals import error_for_status
from mdl.http.responses import parse_size, recorded_digest
from mdl.http.sigv4 import EMPTY, Keys, query_text, signed_headers
from mdl.pages import paged
from mdl.paths import shown
from mdl.sources.object_store import Bucket, refusal
from mdl.values import value_class

_REFUSALS = tuple(range(400, 600))
Question = tuple[tuple[str, str], ...]
"""The parameters that ask for one page of a list."""
_DAMAGED = ("BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "RequestTimeout")
"""The body that came is not the one that was signed: sending it again may help."""
_PASSING = ("InternalError", "SlowDown", "ServiceUnavailable", "")
"""Failures of an answer that began with 200 that may not happen again."""
_ERROR = re.compile(rb"<Error[\s>]")
_KEEPS_CHECKSUMS = re.compile(r"\.amazonaws\.com(\.cn)?$")
"""Hosts that list the sha256 of each part. AWS does, and there the ETag of a part is no MD5 if the bucket encrypts with
KMS. SeaweedFS takes these checksums and insists on them in the end, but lists none, so that nobody could go on."""
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for a role: aws configure export-credentials"


class Payload(Protocol):
    """The body of an upload in blocks: it can be iterated over again, and always gives the bytes of this digest."""

    size: int
    sha256: str

    def __iter__(self) -> Iterator[bytes]: ...


@value_class
class Head:
    """What a bucket tells of one object: its size in bytes, and the sha256 in its metadata, if that is there."""

    size: int
    sha256: Digest | None


@value_class
class UploadedPart:
    """One part that a bucket has. ``etag`` is the MD5 of its bytes if the store does not encrypt; ``checksum`` is their
    sha256 in base64, if the store keeps that. ``modified`` is when it was written, if the store tells that."""

    number: int
    size: int
    etag: str
    checksum: str = ""
    modified: datetime | None = field(default=None, compare=False)


@value_class
class PartedUpload:
    """An upload in parts that was begun. ``keeps_checksums`` if the store takes and lists a sha256 of each part."""

    key: str
    id: str = field(repr=False)
    keeps_checksums: bool = False
    begun_at: datetime | None = None


class Objects:
    """The objects of one bucket. Its methods may be called from several threads.

    They raise `AuthError`, `NotFound` (no such bucket, object or upload), `NetworkError` after all retries,
    `ProtocolError`, `Unsafe`, `Cancelled`.
    """

    def __init__(self, bucket: Bucket, http: HttpClient, on_retry: OnRetry | None = None) -> None:
        """Without keys nothing is signed: a public bucket can be read."""
        access = bucket.access
        self.bucket, self.http, self._on_retry = bucket, http, on_retry
        self._keys, self._region = Keys(access.key_id, access.secret, access.token), access.region
        self._base = f"{access.url}/{bucket.name}"
        self.keeps_checksums = bool(_KEEPS_CHECKSUMS.search(host_of(access.url)))

    def require_keys(self) -> None:
        """Raises `AuthError` if there are no keys to sign with."""
        if not self._keys.key_id:
            raise AuthError("there are no keys to sign with", item=str(self.bucket), hint=_CREDENTIALS)

    def head(self, key: str) -> Head | None:
        """What the bucket tells of an object; None if there is none."""
        try:
            _, headers = self._ask("HEAD", key)
        except NotFound:
            return None
        size = parse_size(headers.get("content-length", ""))
        if size is None:
            raise ProtocolError("the store tells no size of it", item=self._item(key))
        return Head(size, recorded_digest(headers))

    def read(self, key: str) -> Iterator[memoryview | bytes]:
        """The bytes of an object in blocks, asked for once."""
        with self._open("GET", key) as opened:
            yield from self.http.body(opened, parse_size(opened.headers.get("content-length", "")))

    def put(self, key: str, payload: Payload, metadata: Mapping[str, str]) -> None:
        """Write a whole object, in place of any of this name."""
        self._ask("PUT", key, headers=_metadata(metadata), payload=payload)

    def begin(self, key: str, metadata: Mapping[str, str]) -> PartedUpload:
        """Begin an upload in parts."""
        asked = {"x-amz-checksum-algorithm": "SHA256"} if self.keeps_checksums else {}
        answer, _ = self._ask("POST", key, {"uploads": ""}, _metadata(metadata) | asked)
        return PartedUpload(key, _text(self._parsed(answer, key), "UploadId"), self.keeps_checksums)

    def send_part(self, upload: PartedUpload, number: int, payload: Payload) -> UploadedPart:
        """Send part ``number`` (from 1) of an upload, in place of one that is there."""
        checksum = checksum_of(payload.sha256) if upload.keeps_checksums else ""
        headers = {"x-amz-checksum-sha256": checksum} if checksum else {}
        query = {"partNumber": str(number), "uploadId": upload.id}
        _, told = self._ask("PUT", upload.key, query, headers, payload)
        return UploadedPart(number, payload.size, told.get("etag", ""), checksum)

    def complete(self, upload: PartedUpload, parts: Sequence[UploadedPart]) -> None:
        """Make an object of the parts, in place of any of its name."""
        rows = "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.etag)}</ETag>"
            + (f"<ChecksumSHA256>{part.checksum}</ChecksumSHA256>" if part.checksum else "")
            + "</Part>"
            for part in parts
        )
        text = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
        self._ask("POST", upload.key, {"uploadId": upload.id}, payload=Bytes(text))

    def abort(self, upload: PartedUpload) -> None:
        """Throw an upload away with its parts; it is not an error if it is gone already."""
        with contextlib.suppress(NotFound):
            self._ask("DELETE", upload.key, {"uploadId": upload.id})

    def uploads(self, prefix: str) -> list[PartedUpload]:
        """The uploads that were begun and not ended, of all keys that begin with ``prefix``, without their parts."""
        found: list[PartedUpload] = []
        after = {"key-marker": "NextKeyMarker", "upload-id-marker": "NextUploadIdMarker"}
        for one in self._listed("Upload", "", {"uploads": "", "prefix": prefix}, after, ("Key", "UploadId")):
            keeps = _text(one, "ChecksumAlgorithm").upper() == "SHA256"
            found.append(PartedUpload(_text(one, "Key"), _text(one, "UploadId"), keeps, _time(one, "Initiated")))
        return [one for one in found if one.key.startswith(prefix) and one.id]

    def parts(self, upload: PartedUpload) -> tuple[UploadedPart, ...]:
        """The parts of an upload that the bucket has."""
        found: list[UploadedPart] = []
        after = {"part-number-marker": "NextPartNumberMarker"}
        for one in self._listed("Part", upload.key, {"uploadId": upload.id}, after, ("PartNumber",)):
            number, size = (parse_size(_text(one, name)) for name in ("PartNumber", "Size"))
            if number and size is not None:
                told = (_text(one, "ETag"), _text(one, "ChecksumSHA256"), _time(one, "LastModified"))
                found.append(UploadedPart(number, size, *told))
        return tuple(found)

    def _listed(
        self, tag: str, key: str, query: Mapping[str, str], after: Mapping[str, str], identity: Sequence[str]
    ) -> Iterator[ElementTree.Element]:
        """The elements of a list that comes in pages. ``after`` has the parameters that ask for the next page, each
        with the element of this page that its value is in; the first is never empty if there is a next page. The
        elements named by ``identity`` tell two items apart."""
        item = self._item(key or query.get("prefix", ""))

        def ask(question: Question) -> tuple[list[ElementTree.Element], Question | None]:
            answer, _ = self._ask("GET", key, dict(question))
            root = self._parsed(answer, key or query.get("prefix", ""))
            following = {name: _text(root, element) for name, element in after.items()}
            is_last = _text(root, "IsTruncated") != "true" or not next(iter(following.values()))
            return list(_all(root, tag)), None if is_last else tuple({**query, **following}.items())

        def named(element: ElementTree.Element) -> tuple[str, ...]:
            return tuple(_text(element, name) for name in identity)

        try:
            yield from paged(tuple(query.items()), ask, named, "the bucket's list", most_items=MOST_UPLOADS)
        except ProtocolError as error:
            raise error.on(item) from None

    def _ask(
        self,
        method: str,
        key: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        payload: Payload | None = None,
    ) -> tuple[bytes, Mapping[str, str]]:
        """The answer to a request and its headers; asked again while the network or the store fails."""

        def request() -> tuple[bytes, Mapping[str, str]]:
            with self._open(method, key, query, headers, payload) as opened:
                answer = self.http.read(opened, LARGEST_XML) if method != "HEAD" else b""
                if _ERROR.search(answer):
                    raise self._late_refusal(answer, key)
                return answer, opened.headers

        return self.http.retry(self._base, request, self._on_retry)

    @contextlib.contextmanager
    def _open(
        self,
        method: str,
        key: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        payload: Payload | None = None,
    ) -> Iterator[OpenResponse]:
        """The answer to one request, signed if there are keys. Raises what its refusal means."""
        url = f"{self._base}/{quote(key)}" if key else self._base
        url += f"?{query_text(query)}" if query else ""
        sha256 = payload.sha256 if payload else EMPTY
        signed = dict(headers or {})
        if self._keys.key_id:
            signed = signed_headers(method, url, signed, sha256, self._keys, self._region, datetime.now(UTC))
        content: bytes | Iterable[bytes] = b""  # even an empty body keeps a redirect from being followed
        if payload:
            content, signed = payload, signed | {"Content-Length": str(payload.size)}
        with self.http.open(method, url, signed, allow=_REFUSALS, content=content) as opened:
            if opened.status >= 400:
                raise self._refusal(opened, key)
            yield opened

    def _refusal(self, opened: OpenResponse, key: str) -> MdlError:
        if opened.status in (401, 403):
            self.require_keys()
        words = self.http.beginning(opened)
        code, said = _code_and_words(words)
        if code in _DAMAGED:
            return NetworkError(f"{code}: {said}", item=self._item(key))
        found = refusal(opened.status, code, said, self._item(key))
        return found or error_for_status(opened.status, opened.headers, words, opened.url).on(self._item(key))

    def _late_refusal(self, answer: bytes, key: str) -> MdlError:
        """A failure that an answer tells of which began with 200: S3 puts the parts together while it answers."""
        code, words = _code_and_words(answer)
        told, item = f"{code}: {words}".strip(": "), self._item(key)
        found = refusal(0, code, words, item)
        return found or NetworkError(told or "the store failed", item=item, final=code not in _PASSING)

    def _parsed(self, answer: bytes, key: str) -> ElementTree.Element:
        try:
            return plain_xml(answer)
        except ProtocolError as error:
            raise self._failed(error.message, key) from error

    def _failed(self, why: str, key: str) -> MdlError:
        return ProtocolError(why, item=self._item(key), hint="does this endpoint speak S3?")

    def _item(self, key: str) -> str:
        return f"{self.bucket}/{shown(key)}" if key else str(self.bucket)


def plain_xml(answer: bytes) -> ElementTree.Element:
    """The root of an answer in XML, in any encoding. Raises `ProtocolError` if it is none, or declares anything."""
    try:
        return ElementTree.fromstring(answer, ElementTree.XMLParser(target=_PlainXml()))
    except _Declaration as error:
        raise ProtocolError("the store's answer is not plain XML") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ProtocolError("the store's answer is not XML") from error


class _Declaration(Exception):
    pass


class _PlainXml(ElementTree.TreeBuilder):
    """Refuses a document type before it is read, in whatever encoding: no answer of S3 declares anything, and a
    declaration can make a parser work for ever."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _Declaration


class Bytes:
    """A small body as a `Payload`."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size, self.sha256 = data, len(data), hashlib.sha256(data).hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        yield self._data


def checksum_of(sha256: str) -> str:
    """A sha256, which is in hex, as S3 writes it: in base64."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    own = {f"x-amz-meta-{name}": value for name, value in metadata.items()}
    return own | {"content-type": "application/octet-stream"}


def _code_and_words(answer: bytes) -> tuple[str, str]:
    """The code and the message of an ``<Error>``; each '' if there is none."""
    text = answer.decode("utf-8", "replace")
    found = [re.search(rf"<{tag}>([^<]{{0,400}})</{tag}>", text) for tag in ("Code", "Message")]
    code, words = ((one[1] if one else "") for one in found)
    return shown(code), shown(words)


def _all(root: ElementTree.Element, tag: str) -> Iterator[ElementTree.Element]:
    """The elements of that name, in whatever namespace."""
    return (one for one in root.iter() if one.tag.rpartition("}")[2] == tag)


def _text(root: ElementTree.Element, tag: str) -> str:
    """The text of the first element of that name; '' if there is none."""
    return next(((one.text or "").strip() for one in _all(root, tag)), "")


def _time(root: ElementTree.Element, tag: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(_text(root, tag))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
