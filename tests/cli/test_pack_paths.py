"""mdl pack and paths: what is refused, what is left out and said, what cannot be read, and what is not there."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.packing import make_run, names, planned, read_whole, skipped
from support.shell import Ran, Shell

from mdl.errors import MdlError, Unsafe
from mdl.fs.staging import remove
from mdl.operations.pack import write_pack
from mdl.operations.release import unpack

Stranger = tuple[Path, Callable[..., Ran]]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    make_run(tmp_path)
    return Shell(tmp_path)


@pytest.fixture
def run(shell: Shell) -> Path:
    return shell.home / "run"


def refused(run: Path, checkpoint: str | None = None, **options: Any) -> MdlError:
    """Why no archive is made, and that none is."""
    with pytest.raises(MdlError) as caught:
        write_pack(planned(run, checkpoint, **options))
    assert not (run.parent / "x.zip").exists()
    return caught.value


UNSAFE = ["..", "../run", "a/b", "/etc", "a\\b", "C:x", "nul", "a\0b", "a\nb", "\x1b[2J", "~root", ".", "b\u202ec"]


@pytest.mark.parametrize("pick", UNSAFE)
def test_unsafe_checkpoint_names(run: Path, pick: str) -> None:
    """A checkpoint's name that is no plain name is 11, whatever the run holds."""
    assert isinstance(refused(run, pick), Unsafe)


def test_an_unsafe_name_is_shown_harmless(shell: Shell) -> None:
    """The refusal reaches the shell as 11, its control characters escaped."""
    ran = shell.run("pack", "run", "--checkpoint", "a\x1b[2Jb")
    assert (ran.code, ran.out) == (11, "")
    assert "\x1b" not in ran.err


def test_an_empty_checkpoint_name(run: Path) -> None:
    """--checkpoint "$UNSET" is not a wish for the whole run: 11."""
    assert isinstance(refused(run, ""), Unsafe)


@pytest.mark.fault(207)
@pytest.mark.parametrize("name", ["unet", "weights.bin"])
def test_a_link_out_of_the_run(run: Path, name: str) -> None:
    """A link that leaves the run is 11 and names itself; excluded by a glob it is not followed and not in the way."""
    (run / name).symlink_to("/etc" if name == "unet" else "/etc/hostname")
    error = refused(run)
    assert error.exit_code == 11
    assert name in error.message
    assert name not in names(planned(run, exclude=[name]))


def test_a_folder_excluded_with_its_slash(run: Path) -> None:
    """--exclude DIR/ means the folder: also one that is a link out of the run, and one that is empty."""
    (run / "void").mkdir()
    (run / "data").symlink_to("/etc")
    assert "void" not in names(planned(run, exclude=["data/", "void/"]))


@pytest.mark.fault(207)
def test_links_that_stay_inside_are_followed(run: Path) -> None:
    """A link within the run is packed as what it leads to, a folder with all that is in it."""
    (run / "copy.bin").symlink_to("model.safetensors")
    (run / "last").symlink_to(run / "checkpoint-1000")
    write_pack(planned(run))
    held = read_whole(run.parent / "x.zip")
    assert held["copy.bin"] == held["model.safetensors"]
    assert held["last/optimizer.pt"] == held["checkpoint-1000/optimizer.pt"]


@pytest.mark.fault(207, 209)
def test_what_is_no_file_is_left_out_and_said(run: Path) -> None:
    """Dangling links, loops, FIFOs, sockets and devices hang nothing, are not packed, and are listed with why."""
    (run / "dangling.bin").symlink_to("nothing")
    (run / "loop.bin").symlink_to("loop.bin")
    os.mkfifo(run / "fifo.bin")
    with socket.socket(socket.AF_UNIX) as listening, tempfile.TemporaryDirectory() as short:
        listening.bind(f"{short}/s")
        os.rename(f"{short}/s", run / "socket.bin")
    wanted = {"dangling.bin": "dangling", "loop.bin": "itself", "fifo.bin": "FIFO", "socket.bin": "soc"}
    with suppress(PermissionError):
        os.mknod(run / "device.bin", stat.S_IFCHR | 0o600, os.makedev(1, 5))
        wanted["device.bin"] = "device"
    plan = planned(run)
    write_pack(plan)
    held = read_whole(run.parent / "x.zip")
    for name, why in wanted.items():
        assert why in skipped(plan)[name]
        assert not [one for one in held if one.split("/")[0] == name]


@pytest.mark.fault(207)
@pytest.mark.parametrize("to", [".", "../run"])
def test_a_link_to_the_run_itself(run: Path, to: str) -> None:
    """A link to the folder it is in, or to the run, is a loop: left out and said."""
    (run / "up").symlink_to(to)
    assert "itself" in skipped(planned(run))["up"]


SECRETS = (".env", ".env.local", ".netrc", "token", "id_rsa", "key.pem", "wandb/run/a", ".git/config", ".cache/x")
JUNK = ("__pycache__/m.pyc", ".DS_Store", ".x.zip.0-1-2.mdl-tmp", ".mdl/state", ".ipynb_checkpoints/n.ipynb")


@pytest.mark.fault(217)
def test_secrets_and_junk_stay_behind(shell: Shell, run: Path) -> None:
    """What may hold a secret or is no part of a model is left out, listed, and told on stderr."""
    for name in (*SECRETS, *JUNK, ".env.example"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("hush")
    ran = shell.run("pack", "run")
    held = read_whole(shell.home / "model_run.zip")
    assert ".env.example" in held
    for name in (*SECRETS, *JUNK):
        assert name not in held
        assert f"left out: {name.split('/')[0]} (" in ran.err


@pytest.mark.fault(217)
def test_a_secret_that_is_named_is_packed(run: Path) -> None:
    """--include .env takes it, because it was named; a glob that merely matches does not."""
    (run / ".env").write_text("hush")
    assert names(planned(run, include=[".env"])) == {".env"}
    plan = planned(run, include=["*"])
    assert ".env" not in names(plan)
    assert ".env" in skipped(plan)


@pytest.mark.fault(217)
@pytest.mark.parametrize("secret", [".env", ".git/config", ".git"])
def test_a_link_to_a_secret_is_one(run: Path, secret: str) -> None:
    """A harmless name does not carry a secret of the run into the archive."""
    (run / ".git").mkdir()
    for name in (".git/config", ".env"):
        (run / name).write_text("hush")
    (run / "notes").symlink_to(secret)
    assert not [name for name in names(planned(run)) if name.startswith("notes")]


@pytest.mark.fault(284)
@pytest.mark.parametrize("digits", [18, 19, 200])
def test_a_checkpoint_of_any_number_can_be_unpacked(run: Path, digits: int) -> None:
    """The number in a folder's name is a step only as far as a trainer can count: what is packed can be unpacked."""
    name = f"checkpoint-{'9' * digits}"
    (run / "checkpoint-1000").rename(run / name)
    write_pack(planned(run, name))
    unpacked = unpack(run.parent / "x.zip", run.parent / "back")
    assert unpacked.manifest.checkpoint == name
    assert unpacked.manifest.step == (int("9" * 18) if digits == 18 else None)


TWINS = [(b"A.bin", b"a.BIN"), ("\u00e9".encode(), "e\u0301".encode())]


@pytest.mark.fault(212)
@pytest.mark.parametrize("pair", [(b"caf\xe9.bin",), (b"a\\b",), (b"x ",), *TWINS])
def test_names_that_not_every_machine_can_hold(run: Path, pair: tuple[bytes, ...]) -> None:
    """Names that are not UTF-8, twins in case or Unicode form, and what is unsafe elsewhere: 11."""
    for name in pair:
        Path(os.fsdecode(os.fsencode(run) + b"/" + name)).write_bytes(b"x")
    error = refused(run)
    assert error.exit_code == 11
    str(error.item).encode("utf-8")


@pytest.mark.fault(212)
@pytest.mark.parametrize("name", ["MDL-Manifest.json", "mdl-manifest.json/x", "Checkpoint-500/x.bin"])
def test_names_that_mdl_itself_would_refuse(run: Path, name: str) -> None:
    """The manifest's twin, and two folders that are one elsewhere, are 11: what is packed can be unpacked."""
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("x")
    assert isinstance(refused(run), Unsafe)


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    """mdl as a user whom the run's modes hold for; its home is a folder that everybody may enter."""
    prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") if os.geteuid() == 0 else ()
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    home.chmod(0o777)
    shell = Shell(home)
    try:
        subprocess.run([*prefix, sys.executable, "-c", "import mdl"], env=shell.environ, cwd=home, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mdl cannot be run as another user here, and root may read all")
    make_run(home)
    yield home, lambda *words: shell.run(*words, prefix=prefix)
    remove(home)


def locked(home: Path, name: str, mode: int) -> None:
    """``name``, with a file in it where it is a folder, and then its mode."""
    path = home / "run" / name
    inner = path if path.suffix else path / "part.bin"
    inner.parent.mkdir(exist_ok=True)
    inner.write_text("x")
    path.chmod(mode)


@pytest.mark.fault(210)
def test_what_cannot_be_read_is_named_all_of_it(stranger: Stranger) -> None:
    """Unreadable files and folders are 7, every one of them named, and no archive; excluded, they are forgiven."""
    home, mdl = stranger
    for name in ("closed", "one.bin", "two.bin"):
        locked(home, name, 0)
    ran = mdl("pack", "run")
    assert (ran.code, ran.out) == (7, "")
    for name in ("closed", "one.bin", "two.bin"):
        assert f"  {name}: " in ran.err
    assert sorted(os.listdir(home)) == ["run"]
    excluded = [word for name in ("closed", "one.bin", "two.bin") for word in ("--exclude", name)]
    assert mdl("pack", "run", *excluded).code == 0


@pytest.mark.fault(210)
def test_an_unreadable_folder_is_counted_once(stranger: Stranger) -> None:
    """One closed folder is one entry that cannot be read."""
    locked(stranger[0], "closed", 0)
    assert ": 1 entry cannot be read" in stranger[1]("pack", "run").err


@pytest.mark.fault(210)
def test_a_folder_that_can_only_be_listed(stranger: Stranger) -> None:
    """Files whose folder may be listed but not entered are unreadable: 7, not quietly left out."""
    locked(stranger[0], "listed", 0o444)
    assert stranger[1]("pack", "run").code == 7


@pytest.mark.fault(210)
@pytest.mark.parametrize("words", [("--include", "*.bin", "--include", "*.json"), ("--logs",)])
def test_a_closed_folder_may_hold_what_is_wanted(stranger: Stranger, words: tuple[str, ...]) -> None:
    """Where files are chosen by name, a folder that cannot be looked into is 7 all the same, not passed by."""
    locked(stranger[0], "closed", 0)
    assert stranger[1]("pack", "run", *words).code == 7


def test_runs_that_are_none(shell: Shell, run: Path) -> None:
    """No such run, a file, an empty run, no log: each is 3 with a hint, and the neighbours are named."""
    (shell.home / "empty").mkdir()
    (run / "train.log").unlink()
    for step in (500, 1000):
        (run / f"checkpoint-{step}" / "trainer_state.json").unlink()
    for words in (("nope",), ("run/config.json",), ("empty",), ("run", "--logs")):
        ran = shell.run("pack", *words)
        assert (ran.code, ran.out) == (3, ""), words
        assert "hint: " in ran.err
    assert "run" in shell.run("pack", "nope").err.split("hint: ")[1]


def test_checkpoints_that_are_none(shell: Shell, run: Path) -> None:
    """No such checkpoint, and a best that is recorded and gone, are 3 with the list of what there is."""
    remove(run / "checkpoint-500")
    for pick, word in (("checkpoint-7", "checkpoint-7"), ("best", "gone")):
        ran = shell.run("pack", "run", "--checkpoint", pick)
        assert ran.code == 3
        assert word in ran.err
        assert "there are: checkpoint-1000, final" in ran.err
    (run / "checkpoint-1000" / "trainer_state.json").write_text("{}")
    assert "recorded" in refused(run, "best").message


@pytest.mark.fault(220)
def test_the_latest_is_never_half_written(run: Path) -> None:
    """A checkpoint that lacks what its trainer writes last is not the latest."""
    (run / "checkpoint-1000" / "trainer_state.json").unlink()
    assert planned(run, "latest").selection.manifest.checkpoint == "checkpoint-500"
