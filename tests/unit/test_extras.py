"""Extras: the command that installs one is that of the installation that runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from mdl.extras import libraries, to_install

REQUIRED = [
    "httpx>=0.28",
    'boto3>=1.36; extra == "s3"',
    'botocore>=1.36; extra == "s3"',
    "starlette>=0.41.2; extra == 'serve'",
    "uvicorn>=0.30; extra == 'serve'",
]


@pytest.mark.parametrize(
    ("left_by_its_tool", "command"),
    [
        ("pyvenv.cfg", "'/x y/python' -m pip install "),
        ("pipx_metadata.json", "pipx runpip mdl install "),
        ("uv-receipt.toml", "uv pip install --python '/x y/python' "),
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
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: REQUIRED)
    assert to_install("s3") == command + "'boto3>=1.36' 'botocore>=1.36'"
    assert to_install("serve") == command + "'starlette>=0.41.2' 'uvicorn>=0.30'"


def test_no_index_is_asked_for_mdl(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an index has under mdl's name is somebody else's: the libraries are named, else the checkout."""
    for extra in ("s3", "serve", "ray"):
        assert not re.search(r"\bmdl\b", " ".join(libraries(extra)))
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: None)
    assert libraries("s3") == [".[s3]"]
