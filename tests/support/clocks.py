"""Another time for a process, by libfaketime, which is preloaded.

Not by its program ``faketime``: that one does not start if one that was killed left its semaphore under the same id.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_PLACES = ("/usr/lib", "/usr/lib64", "/usr/local/lib")


def faked(**more: str) -> dict[str, str]:
    """The environment of a process whose clock is set, by ``FAKETIME`` or ``FAKETIME_TIMESTAMP_FILE`` in ``more``."""
    found = [path for place in _PLACES for path in Path(place).glob("**/faketime/libfaketime.so.1")]
    if not found:
        pytest.skip("NO FAKETIME HERE: no clock can be set")
    return {"LD_PRELOAD": str(found[0]), "FAKETIME_DONT_FAKE_MONOTONIC": "1", **more}
