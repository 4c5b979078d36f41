"""The source ``shelf://host/name``: ``http://host/name/index.json`` has the SHA-256 of each file by its path."""

from dataclasses import dataclass

from mdl.files import RemoteFile
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.sources import Origin, Source


@dataclass(frozen=True)
class Shelf(Origin):
    place: str
    scheme = "shelf"

    def __str__(self):
        return f"shelf://{self.place}"

    @property
    def folder(self):
        return self.place.rpartition("/")[2]


class ShelfSource(Source):
    def __init__(self, http):
        self.http = http

    def hosts(self, origin):
        return (origin.place.partition("/")[0],)

    def known(self, origin):
        return None

    def resolve(self, origin):
        base = f"http://{origin.place}"
        index, _, _ = self.http.json("GET", f"{base}/index.json")
        digests = {path: Digest.parse("sha256", text) for path, text in index.items()}
        return [
            RemoteFile(RelPath.parse(path), f"{base}/{path}", digest=digest, reference=str(origin))
            for path, digest in digests.items()
        ]


def parse(text, page_hosts):
    return Shelf(text.removeprefix("shelf://").rstrip("/"))


def open_source(context):
    return ShelfSource(context.http)
