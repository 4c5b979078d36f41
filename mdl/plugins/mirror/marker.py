"""Marker of a mirror: what ``complete.json`` says of a version that is complete, and how large parts are. Pure.

A bucket has no rename: the marker is written last, and a version without one is unfinished.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mdl.bounds import LARGEST_DOCUMENT, parse_json, whole_number
from mdl.catalog.lock import LockedModel
from mdl.catalog.model import Model
from mdl.errors import MdlError, ProtocolError
from mdl.hashing import Digest
from mdl.paths import RelPath, shown
from mdl.redact import bare_url
from mdl.values import value_class

MARKER = "complete.json"
SCHEMA = "mdl.mirror-complete/1"
PART = 32 * 2**20
_MOST_PARTS = 10_000
"""S3's own limit."""
_MIB = 2**20


def part_size(size: int) -> int:
    """Bytes of each part of a file of ``size`` bytes but the last: 32 MiB, or as much as makes at most 10,000 parts."""
    least = -(-size // _MOST_PARTS)
    return max(PART, -(-least // _MIB) * _MIB)


@value_class
class MarkedFile:
    """One file of a complete version; ``size`` in bytes."""

    path: str
    size: int
    sha256: str


@value_class
class Marker:
    """What ``complete.json`` says of a version: its files, and where they came from. ``commit`` is '' unless all files
    are of one. ``written_at`` is a time in UTC, ``written_by`` a version of mdl."""

    name: str
    version: str
    files: tuple[MarkedFile, ...]
    source: str = ""
    commit: str = ""
    license: str = ""
    written_at: str = ""
    written_by: str = ""

    @classmethod
    def of(cls, model: Model, locked: LockedModel, files: Sequence[MarkedFile], now: str, by: str) -> Marker:
        """The marker of a locked model with these files."""
        commits = {file.revision for file in locked.files}
        sources = {file.repository or bare_url(file.source).rpartition("/")[0] for file in locked.files}
        commit = commits.pop() if len(commits) == 1 else ""
        source = ", ".join(sorted(sources))
        return cls(model.name, locked.version, tuple(files), source, commit, model.license, now, by)

    def to_json(self) -> bytes:
        """The text of ``complete.json``."""
        facts = {"schema": SCHEMA, **vars(self), "files": [vars(file) for file in self.files]}
        return (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, item: str) -> Marker:
        """The marker that ``data`` is. Raises `ProtocolError`, naming ``item``, if it is not one, or is that of a newer
        mdl."""
        try:
            facts = parse_json(data, most=LARGEST_DOCUMENT)
            if (schema := str(facts["schema"])) != SCHEMA:
                if schema.startswith(SCHEMA.rpartition("/")[0]):
                    raise _newer(schema, item)
                raise ValueError(f"its schema is {schema[:40]}")
            files = tuple(_marked(one) for one in facts["files"])
            texts = ("source", "commit", "license", "written_at", "written_by")
            more = (_writable(facts.get(key, "")) for key in texts)
            return cls(_writable(facts["name"]), _writable(facts["version"]), files, *more)
        except (ValueError, TypeError, KeyError, AttributeError, MdlError) as error:
            if isinstance(error, ProtocolError) and error.final:
                raise
            raise ProtocolError(f"not a marker of a mirror: {error}", item=item, hint="push the model again") from error


def _writable(value: object) -> str:
    """``value`` as text. Raises ``ValueError`` for half a character, which JSON can name and no file can hold."""
    text = str(value)
    text.encode()
    return text


def _newer(schema: str, item: str) -> ProtocolError:
    why = f"a marker of another mdl: its schema is {shown(schema)[:40]}"
    return ProtocolError(why, item=item, hint="upgrade mdl").but(final=True)


def _marked(facts: Any) -> MarkedFile:
    size = whole_number(facts["size"])
    return MarkedFile(RelPath.of_repository(facts["path"]).text, size, Digest.parse("sha256", facts["sha256"]).hex)
