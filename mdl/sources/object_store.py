"""Object store: the objects of one bucket, and uploads to it in parts.

boto3 asks (`mdl.sources.s3_client`). The bytes of an object come over a signed URL by the engine, like those of any
file; a URL is signed when it is needed, and again once it has expired.

Protocol: https://docs.aws.amazon.com/AmazonS3/latest/API. An ETag with ``-N`` is that of an upload in parts, and no
hash of the file; without it, it may be the hash of the encrypted bytes. So neither is used as a digest of a file: the
``sha256`` in the object's metadata is.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

from mdl.bounds import MOST_ITEMS, MOST_UPLOADS, whole_number
from mdl.errors import MdlError, NotFound, ProtocolError
from mdl.hashing import Digest
from mdl.net.body import Block
from mdl.net.client import HttpClient, OnRetry
from mdl.net.headers import parse_size, recorded_digest
from mdl.net.locators import Link
from mdl.net.pagination import paged
from mdl.sources import SourceContext
from mdl.sources.s3_client import REFUSALS, Access, Body, OnSent, S3Client, code_and_words, tell_nobody
from mdl.values import value_class

LINK_SECONDS = 3600
"""How long a signed URL is good for. Credentials that end sooner end it too."""
_ITEMS_OF_A_PAGE = 1000
_NO_SIGNED_URLS = re.compile(r"(?i)s3api-[a-z0-9-]+\.runpod\.io")
"""RunPod's network volumes (https://docs.runpod.io/storage/s3-api): "presigned URLs: not supported"."""
LISTS_CHECKSUMS = re.compile(r"\.amazonaws\.com(\.cn)?$")
"""Hosts that list the sha256 of each part. AWS does, and there the ETag of a part is no MD5 if the bucket encrypts with
KMS. SeaweedFS takes these checksums and insists on them in the end, but lists none, so that nobody could go on."""

Item = TypeVar("Item")
Question = TypeVar("Question", bound=Hashable)


@value_class
class S3Object:
    """An object; ``key`` is the whole one, ``size`` in bytes. ``modified`` is when it was written, if the store tells
    that. ``sha256`` is what its metadata says, which a listing does not tell."""

    key: str
    size: int
    etag: str | None = None
    modified: datetime | None = None
    sha256: Digest | None = None

    @property
    def is_folder(self) -> bool:
        """Return whether it only stands for a folder, as the web pages of stores make one."""
        return self.key.endswith("/") and not self.size


@value_class
class UploadedPart:
    """A part that a bucket has. ``etag`` is the MD5 of its bytes if the store does not encrypt; ``checksum`` is their
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


class Bucket:
    """A bucket. Its methods ask the network and may be called from several threads.

    They raise `AuthError`, `NotFound` (no such bucket, object or upload), `NetworkError` after all retries,
    `ProtocolError`, `Unsafe`, `UsageError` for settings that boto3 does not understand, `LockError` offline,
    `Cancelled`.
    """

    def __init__(self, name: str, access: Access, context: SourceContext, on_retry: OnRetry | None = None) -> None:
        """``on_retry`` hears of each request that is sent again; without it the listener of ``context`` does. Raises
        `UsageError` if boto3 is not installed."""
        self.name = name
        self._client = S3Client(name, access, context, on_retry)

    def __str__(self) -> str:
        return str(self._client)

    @property
    def url(self) -> str:
        """The endpoint: what stands before the bucket's name. Nobody is asked for it."""
        return self._client.url

    @property
    def host(self) -> str:
        """The host that is asked, as the allow-list takes it. Raises `UsageError`."""
        return self._client.host

    @property
    def http(self) -> HttpClient:
        """mdl's client. Raises `LockError` offline."""
        return self._client.http

    def require_keys(self) -> None:
        """Raises `AuthError` if there is nothing to sign with."""
        self._client.require_keys()

    @property
    def presigns(self) -> bool:
        """Return whether the bucket takes signed URLs."""
        if self._client.access.presigns is not None:
            return self._client.access.presigns
        return not _NO_SIGNED_URLS.fullmatch(self.host)

    @property
    def lists_checksums(self) -> bool:
        """Return whether this store takes and lists a sha256 of each part."""
        return bool(LISTS_CHECKSUMS.search(self.host))

    # Objects.

    def list(self, prefix: str) -> Iterator[S3Object]:
        """Every object below ``prefix``, page by page; the empty objects ``folder/`` that stand for folders too."""
        below = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

        def ask(token: str) -> tuple[Sequence[S3Object], str | None]:
            more = {"ContinuationToken": token} if token else {}
            return self._client.ask(_read_page, "list_objects_v2", Prefix=below, MaxKeys=_ITEMS_OF_A_PAGE, **more)

        what = "the bucket's listing"
        yield from self._paged("", ask, lambda item: item.key, what, below, MOST_ITEMS, may_be_empty=True)

    def head(self, key: str) -> S3Object:
        """Ask for an object with its metadata. Raises `NotFound` also if there is no such bucket."""

        def read(answer: Mapping[str, Any]) -> S3Object:
            size = whole_number(answer["ContentLength"])
            digest = recorded_digest(answer["ResponseMetadata"]["HTTPHeaders"])
            return S3Object(key, size, answer.get("ETag"), answer.get("LastModified"), digest)

        return self._client.ask(read, "head_object", Key=key)

    def read(self, key: str, most: int) -> bytes:
        """A small object. Raises `ProtocolError` if it has more than ``most`` bytes."""

        def read() -> bytes:
            data = bytearray()
            for block in self.blocks(key):
                data += block
                if len(data) > most:
                    raise ProtocolError(f"has over {most} bytes", item=self._client.item(key))
            return bytes(data)

        return self.http.retry(self.url, read, self._client.on_retry)

    def blocks(self, key: str) -> Iterator[Block]:
        """The bytes of an object, block by block, asked for once. Each block is valid until the next one is asked."""
        link = self.locate(key)
        http = self.http
        with http.open("GET", link.url, link.headers, allow=REFUSALS, content=b"") as opened:
            if opened.status >= 400:
                code, words = code_and_words(http.beginning(opened))
                raise self._client.refusal(opened.status, code, words, opened.headers, self._client.item(key))
            yield from http.body(opened, parse_size(opened.headers.get("content-length", "")))

    def locate(self, key: str) -> Link:
        """A URL by which this object can be read for `LINK_SECONDS`; or, if the bucket takes no signed URLs, for some
        minutes with the headers of the link."""
        self._client.open()
        plain = f"{self.url}/{self.name}/{quote(key)}"
        if self._client.credentials is None:
            return Link(plain, is_fresh=True)
        if self.presigns:
            return Link(self._client.signed_url(key, LINK_SECONDS), is_fresh=True)
        return Link(plain, is_fresh=True, headers=self._client.signed_headers(plain, key))

    def put(
        self,
        key: str,
        data: bytes | bytearray,
        metadata: Mapping[str, str] | None = None,
        on_sent: OnSent = tell_nobody,
    ) -> None:
        """Write an object in place of any of this name."""
        self._client.ask(_nothing, "put_object", Key=key, Body=Body(data, on_sent), **_described(metadata or {}))

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object if there is none of this name; False if there is one, or if another program is writing
        it. A bucket that knows no conditions writes it in any case."""
        try:
            self._client.ask(_nothing, "put_object", Key=key, Body=Body(data), IfNoneMatch="*", **_described({}))
        except MdlError as error:
            if error.server_code in ("PreconditionFailed", "ConditionalRequestConflict", "412"):
                return False
            if error.server_code != "NotImplemented":
                raise
            self.put(key, data)
        return True

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects. It is not an error if one is not there. Not every store has DeleteObjects: RunPod's network
        volumes do not."""
        for key in keys:
            with contextlib.suppress(NotFound):
                self._client.ask(_nothing, "delete_object", Key=key)

    # Uploads in parts.

    def begin(self, key: str, metadata: Mapping[str, str]) -> PartedUpload:
        """Begin an upload in parts."""
        more = {"ChecksumAlgorithm": "SHA256"} if self.lists_checksums else {}
        return self._client.ask(
            lambda answer: PartedUpload(key, answer["UploadId"], self.lists_checksums),
            "create_multipart_upload",
            Key=key,
            **_described(metadata),
            **more,
        )

    def send_part(
        self, upload: PartedUpload, number: int, data: bytes | bytearray, on_sent: OnSent = tell_nobody
    ) -> UploadedPart:
        """Send part ``number`` (from 1) of an upload, in place of one that is there."""
        checksum = checksum_of(data) if upload.keeps_checksums else ""
        more = {"ChecksumSHA256": checksum} if checksum else {}
        return self._client.ask(
            lambda answer: UploadedPart(number, len(data), answer.get("ETag", ""), checksum),
            "upload_part",
            Key=upload.key,
            UploadId=upload.id,
            PartNumber=number,
            Body=Body(data, on_sent),
            **more,
        )

    def complete(self, upload: PartedUpload, parts: Sequence[UploadedPart]) -> None:
        """Make an object of the parts, in place of any of its name."""
        rows = []
        for part in parts:
            row: dict[str, Any] = {"PartNumber": part.number, "ETag": part.etag}
            if part.checksum:
                row["ChecksumSHA256"] = part.checksum
            rows.append(row)
        self._client.ask(
            _nothing, "complete_multipart_upload", Key=upload.key, UploadId=upload.id, MultipartUpload={"Parts": rows}
        )

    def abort(self, upload: PartedUpload) -> None:
        """Throw an upload away with its parts; it is not an error if it is gone already."""
        with contextlib.suppress(NotFound):
            self._client.ask(_nothing, "abort_multipart_upload", Key=upload.key, UploadId=upload.id)

    def uploads(self, prefix: str) -> Sequence[PartedUpload]:
        """The uploads that were begun and not ended, of all keys that begin with ``prefix``, without their parts."""

        def ask(markers: tuple[str, str]) -> tuple[Sequence[PartedUpload], tuple[str, str] | None]:
            more = {"KeyMarker": markers[0], "UploadIdMarker": markers[1]} if markers[0] else {}
            return self._client.ask(_read_uploads, "list_multipart_uploads", Prefix=prefix, **more)

        what = "the bucket's list of uploads"
        uploads = self._paged(("", ""), ask, lambda upload: (upload.key, upload.id), what, prefix)
        return [upload for upload in uploads if upload.key.startswith(prefix)]

    def parts(self, upload: PartedUpload) -> Sequence[UploadedPart]:
        """The parts of an upload that the bucket has."""

        def ask(marker: int) -> tuple[Sequence[UploadedPart], int | None]:
            more = {"PartNumberMarker": marker} if marker else {}
            return self._client.ask(_read_parts, "list_parts", Key=upload.key, UploadId=upload.id, **more)

        what = "the bucket's list of parts"
        return list(self._paged(0, ask, lambda part: part.number, what, upload.key))

    def _paged(
        self,
        first: Question,
        ask: Callable[[Question], tuple[Sequence[Item], Question | None]],
        identity: Callable[[Item], Hashable],
        what: str,
        key: str,
        most: int = MOST_UPLOADS,
        *,
        may_be_empty: bool = False,
    ) -> Iterator[Item]:
        try:
            yield from paged(first, ask, identity, what, most_items=most, may_be_empty=may_be_empty)
        except ProtocolError as error:
            raise error.on(self._client.item(key)) from None


# What boto3 makes of an answer, as mdl's own values. They raise `KeyError`, `ValueError`.


def _nothing(_answer: Mapping[str, Any]) -> None:
    return None


def _read_page(answer: Mapping[str, Any]) -> tuple[Sequence[S3Object], str | None]:
    objects = []
    for row in answer.get("Contents", ()):
        objects.append(S3Object(row["Key"], whole_number(row["Size"]), row.get("ETag"), row["LastModified"]))
    if not answer.get("IsTruncated"):
        return objects, None
    return objects, answer.get("NextContinuationToken") or None


def _read_uploads(answer: Mapping[str, Any]) -> tuple[Sequence[PartedUpload], tuple[str, str] | None]:
    uploads = []
    for row in answer.get("Uploads", ()):
        keeps_checksums = row.get("ChecksumAlgorithm") == "SHA256"
        uploads.append(PartedUpload(row["Key"], row["UploadId"], keeps_checksums, row.get("Initiated")))
    key_marker = answer.get("NextKeyMarker", "")
    if not answer.get("IsTruncated") or not key_marker:
        return uploads, None
    return uploads, (key_marker, answer.get("NextUploadIdMarker", ""))


def _read_parts(answer: Mapping[str, Any]) -> tuple[Sequence[UploadedPart], int | None]:
    parts = []
    for row in answer.get("Parts", ()):
        size = whole_number(row["Size"])
        checksum = row.get("ChecksumSHA256", "")
        parts.append(UploadedPart(row["PartNumber"], size, row.get("ETag", ""), checksum, row.get("LastModified")))
    if not answer.get("IsTruncated"):
        return parts, None
    return parts, answer.get("NextPartNumberMarker") or None


def _described(metadata: Mapping[str, str]) -> dict[str, Any]:
    return {"Metadata": dict(metadata), "ContentType": "application/octet-stream"}


def checksum_of(data: bytes | bytearray) -> str:
    """The sha256 of a part as S3 writes it: in base64."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
