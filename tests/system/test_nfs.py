"""A real NFS, in a virtual machine: locks that lie, attributes and names from a cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.long import LONG
from support.nfs_machine import rows

from mdl.paths import record_name


@pytest.mark.fault(604)
@pytest.mark.timeout(1000)
@pytest.mark.skipif(not LONG, reason="MDL_LONG=1 starts a virtual machine")
def test_one_downloads_for_all(tmp_path: Path) -> None:
    """Three machines on one folder, over NFS 3 without locks: all end with 0 and see the right bytes, and
    the origin serves one copy. If the one that downloads is killed, another goes on with what is there."""
    for row in rows(tmp_path, "v3", "v3-killed"):
        is_killed = row["scene"].endswith("killed")
        assert row["codes"] == [None if is_killed else 0, 0, 0], row
        assert row["right"] == [True] * (3 - is_killed), row
        assert row["served"] <= (1.69 if is_killed else 1.05), row
        assert set(row["left"]) == {".gitignore", "all.receipts", "f.bin", f"{record_name('one')}.lock"}, row
