"""S3: ``s3://bucket/prefix`` and ``s3://bucket/key`` as sources of files, and what signs their URLs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import ClassVar
from urllib.parse import quote, unquote

from mdl.errors import MdlError, NotFound, UsageError
from mdl.files import RefusedFile, RemoteFile
from mdl.net.locators import Link
from mdl.paths import RelPath, is_at_or_below, shown, why_not_kept
from mdl.sources import Origin, Source, SourceContext
from mdl.sources.object_store import Bucket, S3Object
from mdl.sources.s3_client import Access
from mdl.values import value_class

_LONGEST_NAME = 120
"""Characters of a folder's name; with a hash behind it fits on every disk."""
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


@value_class
class S3Origin(Origin):
    """The objects below a prefix of a bucket, or one object."""

    scheme: ClassVar[str] = "s3"

    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}" + (f"/{quote(self.key)}" if self.key else "")

    def holds(self, place: Origin) -> bool:
        """An object of the same bucket, at or below the same key."""
        return isinstance(place, S3Origin) and place.bucket == self.bucket and is_at_or_below(place.key, self.key)

    @property
    def subpath(self) -> str:
        return self.key

    @property
    def file_name(self) -> RelPath:
        if not self.key or self.key.endswith("/"):
            raise UsageError("names a bucket or a prefix, not an object", item=str(self), hint="write s3://bucket/key")
        return RelPath.of_repository(self.key.rpartition("/")[2])

    @property
    def folder(self) -> str:
        place = f"{self.bucket}--{self.key.strip('/').replace('/', '--')}"
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", place).strip("._-")
        if len(name) <= _LONGEST_NAME:
            return name
        return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


def parse(text: str, page_hosts: Collection[str]) -> S3Origin:
    """The origin that ``s3://bucket/key`` means, the key percent-decoded. Raises `UsageError`, `Unsafe`."""
    bucket, _, key = text.removeprefix("s3://").partition("/")
    if not text.startswith("s3://") or not _BUCKET.fullmatch(bucket) or "?" in text or "#" in text:
        hint = "write s3://bucket/prefix or s3://bucket/key; a bucket's name has 2 characters or more"
        raise UsageError("not a bucket", item=shown(text)[:200], hint=hint)
    key = unquote(key)
    if key:
        RelPath.of_repository(key.rstrip("/"))
    return S3Origin(bucket, key)


class S3Source(Source):
    """Buckets as sources of files, and what signs their URLs."""

    def __init__(self, context: SourceContext) -> None:
        self.context = context
        self._buckets: dict[str, Bucket] = {}
        self._refused: dict[S3Origin, list[RefusedFile]] = {}

    def bucket(self, name: str) -> Bucket:
        if name not in self._buckets:
            access = Access.of(name, self.context.environ, self.context.remotes)
            self._buckets[name] = Bucket(name, access, self.context)
        return self._buckets[name]

    def resolve(self, origin: S3Origin) -> list[RemoteFile]:
        """Every object below the prefix that can be kept here, or the one object of that name (ADR 153)."""
        prefix = origin.key.rstrip("/")
        bucket = self.bucket(origin.bucket)
        objects = [item for item in bucket.list(prefix) if not item.is_folder]
        if not objects:
            if not prefix:
                raise NotFound("the bucket is empty", item=str(origin))
            return [_file(origin, bucket.head(prefix), RelPath.of_repository(prefix.rpartition("/")[2]))]
        files: list[RemoteFile] = []
        refused: list[RefusedFile] = []
        for item in objects:
            name = item.key.removeprefix(prefix and f"{prefix}/")
            why = why_not_kept(name)
            if why:
                refused.append(RefusedFile(name, why, item.size, _url_of(origin, item)))
            else:
                files.append(_file(origin, item, RelPath.of_repository(name)))
        self._refused[origin] = refused
        return files

    def refused(self, origin: S3Origin) -> list[RefusedFile]:
        """The objects that `resolve` found below the prefix, and whose names cannot be kept on this system."""
        return self._refused.get(origin, [])

    def file(self, origin: S3Origin, path: RelPath) -> RemoteFile:
        origin.check_is_file()
        return RemoteFile(path, str(origin))

    def complete(self, origin: S3Origin, stated: RemoteFile) -> RemoteFile:
        from mdl.sources.url import UrlSource

        return UrlSource(self.context).probe(stated)

    def hosts(self, origin: S3Origin) -> tuple[str, ...]:
        """None if a setting is wrong or boto3 is missing: the error is raised once the bucket is asked."""
        try:
            return (self.bucket(origin.bucket).host,)
        except MdlError:
            return ()

    def locate(self, url: str) -> Link:
        """The signed URL that an ``s3://`` URL stands for at this moment."""
        origin = parse(url, ())
        return self.bucket(origin.bucket).locate(origin.key)


def _url_of(origin: S3Origin, item: S3Object) -> str:
    return str(S3Origin(origin.bucket, item.key))


def _file(origin: S3Origin, item: S3Object, path: RelPath) -> RemoteFile:
    return RemoteFile(path, _url_of(origin, item), item.size, validator=item.etag)


open_source = S3Source
