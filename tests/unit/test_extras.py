"""Extras: the command that installs one is that of the installation that runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mdl.extras import to_install


@pytest.mark.parametrize(
    ("left_by_its_tool", "command"),
    [
        ("pyvenv.cfg", "'/x y/python' -m pip install 'mdl[s3]'"),
        ("pipx_metadata.json", "pipx runpip mdl install 'mdl[s3]'"),
        ("uv-receipt.toml", "uv pip install --python '/x y/python' 'mdl[s3]'"),
    ],
)
def test_an_extra_goes_where_mdl_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_by_its_tool: str, command: str
) -> None:
    """The environments of pipx and uv have no pip, and a bare pip is that of another Python."""
    (tmp_path / "mdl").mkdir()
    (tmp_path / "mdl" / left_by_its_tool).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "mdl"))
    monkeypatch.setattr(sys, "executable", "/x y/python")
    assert to_install("s3") == command
