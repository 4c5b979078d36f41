"""A home of its own for a test that calls the library in this process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def own_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make ``folder`` the home and the current folder, without any variable of mdl's or the hub's; returns it."""
    for name in [name for name in os.environ if name.startswith(("MDL_", "HF_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    return folder
