"""mdl's own folder: how git and others see it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mdl.fs.private import make_private_dir


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_git_passes_over_it(tmp_path: Path) -> None:
    """A project in which mdl keeps its files, as with --into, has nothing new for git but what the user wanted."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    make_private_dir(tmp_path / ".mdl" / "receipts" / "model")
    (tmp_path / ".mdl" / "receipts" / "model" / "all.receipts").write_text("x")
    (tmp_path / "model.bin").write_text("x")
    ran = subprocess.run(["git", "status", "--porcelain"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ran.stdout == "?? model.bin\n"


def test_what_stands_there_already_stays(tmp_path: Path) -> None:
    """A file of that name that the user changed, or a link in its place, is left alone."""
    for number, place in enumerate(("file", "link")):
        own = tmp_path / place / ".mdl"
        own.mkdir(parents=True, mode=0o700)
        if number:
            (own / ".gitignore").symlink_to(tmp_path / "elsewhere")
        else:
            (own / ".gitignore").write_text("mine")
        make_private_dir(own / "receipts")
    assert (tmp_path / "file" / ".mdl" / ".gitignore").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
