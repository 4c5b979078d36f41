"""Folders of releases, and archives to fill them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdl.archive.manifest import NAME, Manifest, ManifestEntry
from mdl.ops.release import ReleaseResult, release, rollback

Files = dict[str, bytes]


def files_of(letter: str) -> dict[str, bytes]:
    """A model whose config.json is the same whatever the letter."""
    return {
        "config.json": b'{"layers": 2}\n',
        "model.bin": letter.encode() * 30_000,
        "text/vocab.txt": letter.encode() + b"\n",
    }


def zipped(path: Path, files: Files, *, step: int | None = None, manifest: bool = True, year: int = 1980) -> Path:
    """A zip with mdl's manifest, or a foreign one; members of 2001 come in the other order."""
    names = sorted(files, reverse=year == 2001)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), files[name])
        if manifest:
            lines = tuple(
                ManifestEntry(name, len(files[name]), hashlib.sha256(files[name]).hexdigest()) for name in names
            )
            archive.writestr(NAME, Manifest(lines, step=step).to_json())
    return path


@dataclass(frozen=True)
class Site:
    """A folder of releases, and archives named by letters beside it."""

    folder: Path

    def release(self, what: str | Path, **options: Any) -> ReleaseResult:
        archive = zipped(self.folder.parent / f"{what}.zip", files_of(what)) if isinstance(what, str) else what
        return release(archive, self.folder, **options)

    def back(self) -> ReleaseResult:
        return rollback(self.folder)

    @property
    def served(self) -> str:
        """The letter of what ``current`` leads to."""
        return (self.folder / "current" / "model.bin").read_bytes()[:1].decode()

    @property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "releases.json").read_bytes())
        return found

    @property
    def letters(self) -> str:
        """What is in releases/."""
        found = [one.read_bytes()[:1].decode() for one in self.folder.glob("releases/*/model.bin")]
        return "".join(sorted(found))

    def facts(self) -> dict[str, tuple[int, ...]]:
        """Every name below, with what would betray a touch."""
        found = {str(path): path.lstat() for path in self.folder.rglob("*") if ".mdl" not in path.parts}
        return {
            name: (facts.st_ino, facts.st_mode, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
            for name, facts in found.items()
        }
