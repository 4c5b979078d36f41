"""Which version of a model in a mirror may go, by its age, by the lock, and by what else is there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mdl.catalog.lock import Lock, LockedFile, LockedModel
from mdl.catalog.mirror_layout import MirrorPlace
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.plugins.mirror.cleaning import judge
from mdl.plugins.mirror.operation import Held

NOW, DAY = 2_000_000_000.0, 86_400.0
ONE = LockedModel("one", "e", (LockedFile(RelPath("f"), "https://h/f", 1, Digest("sha256", "1" * 64)),))
LOCK, PLACE, OTHER = Lock({"one": ONE}), MirrorPlace("bucket", "m/"), "0123456789abcdef"
NOBODY: set[tuple[str, str]] = set()


@pytest.mark.parametrize(
    ("name", "version", "complete", "days", "locked", "busy", "action"),
    [
        ("one", ONE.version, True, 900, 900, False, None),
        ("one", ONE.version, False, 900, None, False, "kept"),
        ("one", OTHER, True, 900, 2, False, "would delete"),
        ("one", OTHER, True, 900, 900, False, "would delete"),
        pytest.param("one", OTHER, True, 800, 900, False, "kept", marks=pytest.mark.fault(474)),
        ("one", OTHER, True, 0.5, 0.2, False, "kept"),
        ("one", OTHER, True, 900, None, False, "kept"),
        ("one", OTHER, False, 900, None, False, "would delete"),
        ("one", OTHER, False, 800, 900, False, "would delete"),
        ("one", OTHER, False, 0.5, None, False, "kept"),
        ("two", OTHER, True, 900, 900, False, None),
        ("two", OTHER, False, 900, 900, False, "would delete"),
        ("two", OTHER, False, 900, 900, True, "kept"),
    ],
)
def test_what_may_go(
    name: str, version: str, *, complete: bool, days: float, locked: float | None, busy: bool, action: str | None
) -> None:
    """Nothing young, nothing that the lock names, nothing into which something is sent, nothing complete of another
    catalog's, and nothing superseded before its successor is there, which was written so many days before (``locked``).
    What is newer than that shows that the lock is an old one. The marker goes first."""
    keys = [PLACE.key(name, version, path) for path in ("a.bin", "complete.json", "z.bin")]
    held = Held(name, version, keys, 3, _ago(days), _ago(days) if complete else None)
    marked = {("one", ONE.version): _ago(locked)} if locked is not None else {}
    found = judge(held, LOCK, marked, {(name, version)} if busy else NOBODY, PLACE, DAY, NOW)
    assert (found and found.action) == action
    assert found is None or found.keys[0].endswith("/complete.json")


def _ago(days: float) -> datetime:
    return datetime.fromtimestamp(NOW - days * DAY, UTC)
