"""Manifest: what an archive holds, as its last member, in JSON: names, sizes in bytes, SHA-256. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, field
from typing import Any, TypeGuard

from mdl.bounds import LARGEST_NUMBER, parse_json
from mdl.errors import ProtocolError, StateError
from mdl.paths import shown
from mdl.values import small_value_class, value_class

NAME = "mdl-manifest.json"
SCHEMA = "mdl.manifest/1"
_MOST_SKIPPED = 1000
_LONG = 100
"""How many skipped files are listed, and the length from which a name is not: so a manifest stays small."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@small_value_class
class ManifestEntry:
    """One member: its path in the archive, its size in bytes, and its digest."""

    path: str
    size: int
    sha256: str


@small_value_class
class Skipped:
    """One path of the run that is not in the archive, and why."""

    path: str
    why: str


@value_class
class Manifest:
    """What an archive holds.

    ``run``, ``checkpoint``, ``step`` and ``layout`` say where the files come from, as far as that is known.
    ``changed`` are the files that were packed although they changed meanwhile, ``incomplete`` the weights that
    lacked bytes, or other parts of them.
    """

    files: tuple[ManifestEntry, ...]
    run: str = ""
    checkpoint: str = ""
    step: int | None = None
    layout: str = ""
    inference_only: bool = False
    changed: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = field(default=(), repr=False)

    @property
    def content(self) -> str:
        """One SHA-256 for all names and bytes; it does not depend on the archive that they came in."""
        hasher = hashlib.sha256()
        for file in sorted(self.files, key=lambda entry: entry.path):
            hasher.update(f"{file.sha256} {file.size} {json.dumps(file.path)}\n".encode())
        return hasher.hexdigest()

    @property
    def version(self) -> str:
        """A name made of the content, like ``step-1500-0123456789ab``."""
        head = "model" if self.step is None else f"step-{self.step}"
        return f"{head}-{self.content[:12]}"

    @property
    def size(self) -> int:
        """Bytes of all files, uncompressed."""
        return sum(file.size for file in self.files)

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each path."""
        return {file.path: file.sha256 for file in self.files}

    def to_json(self) -> bytes:
        facts = {"schema": SCHEMA} | vars(self)
        skipped = [asdict(left_out) for left_out in self.skipped[:_MOST_SKIPPED] if len(left_out.path) < _LONG]
        text = json.dumps(facts | {"skipped": skipped, "files": []}, indent=1)
        files = ",".join(
            f'\n  {{\n   "path": {json.dumps(file.path)},\n   "size": {file.size},\n   "sha256": "{file.sha256}"\n  }}'
            for file in self.files
        )  # as json.dumps writes them, in a sixth of its time
        if files:
            text = text.replace('"files": []', f'"files": [{files}\n ]', 1)  # no quoted text holds these quotes
        return (text + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read a manifest. Raises `ProtocolError` for damage, `StateError` for a manifest of a newer mdl."""
        try:
            facts = parse_json(data)
            schema = facts["schema"]
        except (ValueError, KeyError, TypeError):
            raise ProtocolError("its manifest cannot be read", item=NAME) from None
        if schema != SCHEMA:
            raise StateError(f"a manifest of another format: {str(schema)[:40]!r}", item=NAME, hint="use a newer mdl")
        try:
            step = facts["step"]
            if step is not None and not is_step(step):
                raise ValueError
            return cls(
                files=tuple(_entry(row) for row in facts["files"]),
                run=_text(facts["run"]),
                checkpoint=_text(facts["checkpoint"]),
                step=step,
                layout=_text(facts["layout"]),
                inference_only=bool(facts["inference_only"]),
                changed=tuple(map(_text, facts["changed"])),
                incomplete=tuple(map(_text, facts.get("incomplete", ()))),
                skipped=tuple(Skipped(_text(row["path"]), _text(row["why"])) for row in facts["skipped"]),
            )
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("its manifest is damaged", item=NAME) from None

    def check_members(self, sizes: dict[str, int]) -> None:
        """Compare it with the members an archive has, by path. Raises `ProtocolError` for the first that differs."""
        listed = {file.path: file.size for file in self.files}
        if len(listed) != len(self.files):
            raise ProtocolError("a file is in the manifest twice", item=NAME)
        for path in sorted(listed.keys() ^ sizes.keys()):
            where = "the archive and not in its manifest" if path in sizes else "the manifest and not in the archive"
            raise ProtocolError(f"a file is in {where}", item=shown(path))
        for path, size in sizes.items():
            if listed[path] != size:
                raise ProtocolError(f"the manifest says {listed[path]} bytes, the archive {size}", item=shown(path))


def is_step(value: object) -> TypeGuard[int]:
    """Tell whether a number can be a trainer's count, and is not merely the digits of a long name."""
    return type(value) is int and 0 <= value <= LARGEST_NUMBER


def _entry(facts: Any) -> ManifestEntry:
    size = facts["size"]
    digest = facts["sha256"]
    if type(size) is not int or size < 0 or not _SHA256.fullmatch(digest):
        raise ValueError
    return ManifestEntry(_text(facts["path"]), size, digest)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
