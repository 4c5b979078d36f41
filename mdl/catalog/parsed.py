"""Parsed catalogs: what a large catalog's TOML says, kept as JSON by the digest of its text, which is read ten times as
fast. A catalog of 60,000 models takes seconds to parse, and each command reads it."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

from mdl import crc_json
from mdl.bounds import LARGEST_JSON
from mdl.disk import publish
from mdl.disk.safe_open import make_private_dir, read_regular
from mdl.toml import parse_toml

_LEAST = 2**20
"""Characters of a text whose parsed form is kept."""
_MOST_KEPT = 4


class ParsedCatalogs:
    """As `parse_toml`, with the parsed form of large texts in ``folder``; None keeps none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def __call__(self, text: str) -> dict[str, Any]:
        """Raises `ValueError`."""
        if self._folder is None or len(text) < _LEAST:
            return parse_toml(text)
        place = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
        with contextlib.suppress(OSError, ValueError, RecursionError):
            kept = crc_json.loads((read_regular(place, LARGEST_JSON) or b"").rstrip(b"\n"))
            if isinstance(kept, dict) and isinstance(kept.get("parsed"), dict):
                parsed: dict[str, Any] = kept["parsed"]
                return parsed
        parsed = parse_toml(text)
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):  # JSON has no dates
            data = crc_json.dumps({"parsed": parsed})
            make_private_dir(self._folder)
            publish.write_file(place, data, durable=False)
            self._drop_old()
        return parsed

    def _drop_old(self) -> None:
        """Remove all but the last few. Raises `OSError`."""
        assert self._folder is not None
        kept = sorted(self._folder.glob("*.json"), key=lambda path: path.lstat().st_mtime_ns, reverse=True)
        for path in kept[_MOST_KEPT:]:
            path.unlink(missing_ok=True)
