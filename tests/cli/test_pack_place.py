"""mdl pack and where the archive goes: into its own run, over an older one, and over what it must never replace."""

from __future__ import annotations

import os
import stat
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from support.packing import make_run, read_whole
from support.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    make_run(tmp_path)
    return Shell(tmp_path)


@pytest.mark.fault(214)
def test_an_archive_in_the_run_does_not_swallow_itself(shell: Shell) -> None:
    """Packed into its own run, again and again, it holds the model and neither itself nor another of its archives."""
    inside = replace(shell, home=shell.home / "run")
    (inside.home / "old.zip").write_bytes(b"not mdl's")
    for words in ((), ("--checkpoint", "latest"), (), ("-o", "mine.zip"), ("-o", "mine.zip")):
        assert inside.run("pack", ".", *words).code == 0
    assert len(read_whole(inside.home / "model_run.zip")) == len(read_whole(inside.home / "mine.zip")) == 12


@pytest.mark.fault(214, 216)
def test_an_archive_in_the_run_is_the_same_again(shell: Shell) -> None:
    """Its own archive of before is no part of the tree: the second pack has the same bytes."""
    first, second = (shell.run("pack", "run", "-o", "run", "--json").document["sha256"] for _ in range(2))
    assert first == second


@pytest.mark.fault(214)
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "train.log",
        ".env",
    ],
)
def test_no_file_of_the_run_is_written_over(shell: Shell, name: str) -> None:
    """-o that names a file of the run is 7, and the file is what it was."""
    (shell.home / "run" / ".env").write_text("hush")
    before = (shell.home / "run" / name).read_bytes()
    ran = shell.run("pack", "run", "-o", f"run/{name}")
    assert (shell.home / "run" / name).read_bytes() == before
    assert (ran.code, ran.out) == (7, "")


@pytest.mark.fault(214)
def test_a_device_is_not_replaced(shell: Shell) -> None:
    """-o that names what is no file, a FIFO or a device, never puts a file in its place."""
    os.mkfifo(shell.home / "fifo")
    code = shell.run("pack", "run", "-o", "fifo").code
    assert stat.S_ISFIFO((shell.home / "fifo").stat().st_mode)
    assert code in (7, 11)


@pytest.mark.fault(214)
def test_an_older_archive_is_replaced_in_one_step(shell: Shell) -> None:
    """Who has the older archive open goes on reading it whole; a link to it stays a link."""
    shell.run("pack", "run", "--logs", "-o", "real.zip")
    (shell.home / "link.zip").symlink_to("real.zip")
    with (shell.home / "real.zip").open("rb") as older:
        assert shell.run("pack", "run", "-o", "link.zip").out == f"{shell.home / 'real.zip'}\n"
        with zipfile.ZipFile(older) as opened:
            assert "train.log" in opened.namelist()
    assert (shell.home / "link.zip").is_symlink()
    assert "model.safetensors" in read_whole(shell.home / "real.zip")
    assert sorted(os.listdir(shell.home)) == ["link.zip", "real.zip", "run"]


def test_a_folder_that_is_not_there(shell: Shell) -> None:
    """-o into no folder is 7 and names that folder, not a name of mdl's own."""
    ran = shell.run("pack", "run", "-o", "nowhere/x.zip")
    assert (ran.code, ran.out) == (7, "")
    assert "nowhere" in ran.err
    assert "mdl-tmp" not in ran.err


def test_a_terminal_gets_no_archive(shell: Shell) -> None:
    """-o - is 2 where stdout is a terminal, before a byte is written."""
    ours, theirs = os.openpty()
    try:
        command = shell.command("pack", "run", "-o", "-")
        child = subprocess.run(command, env=shell.environ, cwd=shell.home, stdout=theirs, stderr=-1, check=False)
        os.set_blocking(ours, False)
        assert child.returncode == 2
        assert b"terminal" in child.stderr
        with pytest.raises(BlockingIOError):
            os.read(ours, 1)
    finally:
        os.close(ours)
        os.close(theirs)


def shelled(shell: Shell, words: str) -> int:
    script = f'"$@" {words}'
    return shell.run("pack", "run", "-o", "-", prefix=("sh", "-c", script, "-")).code


def test_a_full_stdout(shell: Shell) -> None:
    """An archive that its stdout has no room for is 7."""
    assert shelled(shell, "> /dev/full") == 7


def test_a_closed_stdout(shell: Shell) -> None:
    """An archive for a stdout that is closed is written nowhere: that is not 0."""
    assert shelled(shell, ">&-") != 0
