"""Copying between open files, with and without the help of the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mdl.disk.copy import copy_range
from mdl.disk.safe_open import create, open_for_reading


@pytest.mark.parametrize("has_call", [True, False], ids=["Linux", "macOS"])
def test_bytes_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_call: bool) -> None:
    """From an offset on and no further than was asked; a system without ``copy_file_range`` reads and writes."""
    if not has_call:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    (tmp_path / "source").write_bytes(b"0123456789")
    told: list[int] = []
    target = create(tmp_path / "target")
    with open_for_reading(tmp_path / "source") as source:
        assert copy_range(source, target, 5, told.append, start=2) == 5
    os.close(target)
    assert (tmp_path / "target").read_bytes() == b"\0\0" + b"23456"
    assert told == [5]
