"""A third source, as docs/architecture.md describes how to add one: a folder of files on a web server, with an index.

``shelf://host:port/name`` lists what ``http://host:port/name/index.json`` says: ``{"version", "files": [{"path",
"size", "sha256"}]}``.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

from mdl.errors import LockError, ProtocolError, UsageError
from mdl.files import RemoteFile
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.sources import Origin, Source, SourceContext


@dataclass(frozen=True)
class ShelfOrigin(Origin):
    """One shelf of a server, or one file on it."""

    scheme: ClassVar[str] = "shelf"

    host: str
    name: str
    subpath: str = ""

    def __str__(self) -> str:
        return f"shelf://{self.host}/{self.name}" + (f"/{self.subpath}" if self.subpath else "")

    @property
    def file_name(self) -> RelPath:
        if not self.subpath:
            raise UsageError("names a shelf, not a file on it", item=str(self))
        return RelPath.parse(self.subpath.rpartition("/")[2])

    @property
    def folder(self) -> str:
        return f"shelf--{self.name}"

    def url(self, path: str) -> str:
        return f"http://{self.host}/{self.name}/{path}"


def parse(text: str, page_hosts: Collection[str]) -> ShelfOrigin:
    parts = urlsplit(text)
    name, _, subpath = parts.path.strip("/").partition("/")
    if not parts.netloc or not name:
        raise UsageError("write shelf://host/name", item=text)
    return ShelfOrigin(parts.netloc, name, subpath)


def open_source(context: SourceContext) -> ShelfSource:
    return ShelfSource(context)


class ShelfSource(Source):
    """Asks for the index, and keeps it."""

    def __init__(self, context: SourceContext) -> None:
        self._http, self._kept = context.http, context.folder

    def resolve(self, origin: ShelfOrigin) -> list[RemoteFile]:
        http, url = self._http, origin.url("index.json")
        if http is None:
            if known := self.known(origin):
                return known
            raise LockError("offline, and this shelf was never listed here", item=str(origin))
        index, _, _ = http.retry(url, lambda: http.json("GET", url))
        self._kept.mkdir(parents=True, exist_ok=True)
        (self._kept / f"shelf-{origin.name}.json").write_text(json.dumps(index))
        return self._files(origin, index)

    def known(self, origin: ShelfOrigin) -> list[RemoteFile] | None:
        kept = self._kept / f"shelf-{origin.name}.json"
        return self._files(origin, json.loads(kept.read_text())) if kept.exists() else None

    def file(self, origin: ShelfOrigin, path: RelPath) -> RemoteFile:
        origin.check_is_file()
        return RemoteFile(path, origin.url(origin.subpath), reference=str(origin))

    def complete(self, origin: ShelfOrigin, stated: RemoteFile) -> RemoteFile:
        found = next(one for one in self.resolve(ShelfOrigin(origin.host, origin.name)) if one.url == stated.url)
        return RemoteFile(stated.path, stated.url, found.size, stated.digest or found.digest, reference=str(origin))

    def hosts(self, origin: ShelfOrigin) -> tuple[str, ...]:
        return (origin.host,)

    def _files(self, origin: ShelfOrigin, index: dict[str, list[dict[str, str]]]) -> list[RemoteFile]:
        if not isinstance(index.get("files"), list):
            raise ProtocolError("the index lists no files", item=str(origin))
        return [
            RemoteFile(
                path=RelPath.parse(file["path"]),
                url=origin.url(file["path"]),
                size=int(file["size"]),
                digest=Digest.parse("sha256", file["sha256"]),
                probed=True,
                reference=f"shelf://{origin.host}/{origin.name}/{file['path']}",
            )
            for file in index["files"]
            if file["path"].startswith(origin.subpath)
        ]
