"""mdl's own folder: how git and others see it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mdl.disk.own_files import make_private_dir
from mdl.disk.safe_open import make_folders, open_named


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


def test_every_folder_on_the_way_is_private(tmp_path: Path) -> None:
    """Whatever the umask says; one that was there is left as it is."""
    there = tmp_path / "there"
    there.mkdir()
    there.chmod(0o755)
    before = os.umask(0)
    try:
        make_folders(there / "a" / "b")
        make_private_dir(there / "c" / "d")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (there, *there.rglob("*"))}
    assert modes == {"there": 0o755, "a": 0o700, "b": 0o700, "c": 0o700, "d": 0o700}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a link of another user")
def test_another_users_link_is_not_followed(tmp_path: Path) -> None:
    """Of a file that the user named: a link of this user leads to its target, one of somebody else to nothing."""
    target = tmp_path / "profile"
    target.write_text("before")
    link = tmp_path / "requests.log"
    link.symlink_to(target)
    os.close(open_named(link, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    os.chown(link, 12345, 12345, follow_symlinks=False)
    with pytest.raises(OSError, match="symbolic link of") as refused:
        open_named(link, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    assert refused.value.errno == errno.ELOOP
    assert target.read_text() == "before"


def test_a_link_to_itself(tmp_path: Path) -> None:
    """It ends with the system's own error."""
    link = tmp_path / "loop"
    link.symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links") as refused:
        open_named(link, os.O_WRONLY)
    assert refused.value.errno == errno.ELOOP
