"""Layout of a mirror: ``PREFIX/NAME/VERSION/FILE``, and how a model's files are asked of it. Pure.

VERSION is the lock digest of the model (`LockedModel.version`), so two versions never share an object, and the folder
of one holds exactly the model's files and its marker.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote, unquote

from mdl.catalog.lock import LockedModel
from mdl.catalog.model import Model
from mdl.errors import UsageError
from mdl.paths import shown
from mdl.sources import parse
from mdl.values import value_class

_KEY = re.compile(r"(?P<name>[^/]+)/(?P<version>[0-9a-f]{16})/(?P<path>.+)", re.DOTALL)


@value_class
class MirrorPlace:
    """A mirror: the bucket, and the prefix of all its keys ('' or one that ends with a slash)."""

    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> MirrorPlace:
        """The mirror at ``s3://bucket/prefix``. Raises `UsageError`, `Unsafe`."""
        if not url.startswith("s3://"):
            raise UsageError("not a mirror", item=shown(url)[:200], hint="write s3://bucket/prefix")
        bucket, _, key = str(parse(url)).removeprefix("s3://").partition("/")
        prefix = unquote(key).strip("/")
        return cls(bucket, f"{prefix}/" if prefix else "")

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{quote(self.prefix)}".rstrip("/")

    def key(self, name: str, version: str, path: str = "") -> str:
        """The key of a file, or of the marker; without a ``path`` the prefix of a version."""
        return f"{self.prefix}{name}/{version}/{path}"

    def url(self, name: str, version: str, path: str = "") -> str:
        """The same as a URL."""
        return f"s3://{self.bucket}/{quote(self.key(name, version, path))}"

    def split(self, key: str) -> tuple[str, str, str] | None:
        """The name, the version and the path of a key; None if it is not an object of a mirror."""
        if not key.startswith(self.prefix):
            return None
        parts = _KEY.fullmatch(key.removeprefix(self.prefix))
        return (parts["name"], parts["version"], parts["path"]) if parts else None


def with_mirrors(model: Model, locked: LockedModel, first: Sequence[str], *, alone: bool = False) -> Model:
    """A model whose files are named by its lock, which are also asked of its mirrors: those that ``first`` names before
    their source, those of its catalog entry after it. With ``alone`` nobody else is asked."""
    if not first and not model.mirrors:
        return model
    before = [MirrorPlace.parse(url) for url in first]
    after = [MirrorPlace.parse(url) for url in model.mirrors]
    files = []
    for file in model.files:
        path = file.path.text
        places = [mirror.url(model.name, locked.version, path) for mirror in before]
        if not alone:
            places += [file.url, *file.mirrors]
            places += [mirror.url(model.name, locked.version, path) for mirror in after]
        files.append(replace(file, places=tuple(places)))
    return replace(model, files=tuple(files))
