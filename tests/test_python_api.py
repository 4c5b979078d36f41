"""The library: what `import mdl` offers, as docs/python.md shows it, and what it never does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_hub import Generated, LoopbackHub, Repo

DOCS = Path(__file__).parents[1] / "docs" / "python.md"
TINY = Repo("org/tiny", {"config.json": b"{}", "model.safetensors": b"t" * 5000}, lfs_threshold=1000)
OTHER = Repo("org/other", {"weights.bin": Generated(3_000_000, "other")})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub, and a user of it with a home of their own."""
    with LoopbackHub([TINY, OTHER]) as hub:
        for name in [name for name in os.environ if name.startswith(("MDL_", "HF_", "XDG_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.chdir(tmp_path)
        yield hub
