"""Version: which mdl this is, with the commit that it was built from."""

from __future__ import annotations

from pathlib import Path

from mdl import __version__

_BUILT_FROM = Path(__file__).with_name("commit.txt")
"""Written into a wheel by ``hatch_build.py``; a checkout has none."""


def full_version() -> str:
    """``0.2.0 (1fc3fa41)``; in a checkout, ``0.2.0 (checkout)``."""
    try:
        commit = _BUILT_FROM.read_text("ascii").strip()
    except OSError:
        commit = "checkout"
    return f"{__version__} ({commit})" if commit else __version__
