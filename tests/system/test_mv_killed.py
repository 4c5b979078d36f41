"""mdl mv where it is hard: killed before any call that changes a disk, and with fewer open files than folders."""

from __future__ import annotations

import contextlib
import itertools
import signal
from pathlib import Path

import pytest
from support.call_kills import killed_at, tracing_works
from support.copies import second_file_system
from support.data import MIB, noise
from support.descriptors import few_descriptors
from support.long import LONG
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Shell, done, files_below, machine, with_environ

FILES = {"config.json": b'{"a": 1}\n', "model.bin": noise(2 * MIB, 1), "sub/vocab.txt": b"v"}
REPOS = [Repo("org/tiny", FILES, lfs_threshold=1000)]
TINY = {f"tiny/{path}": content for path, content in FILES.items()}


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return machine(tmp_path / "home", 'schema = 1\n[models.tiny]\nsource = "hf:org/tiny"\n', hub.url)


def test_a_model_with_many_folders(mdl: Inside, shell: Shell, hub: LoopbackHub) -> None:
    """A dataset may have more folders than a process may open at once."""
    files = {f"{number}/part.txt": b"%d" % number for number in range(130)}
    hub.publish(Repo("org/wide", files))
    done(mdl(shell, "get", "org/wide"))
    with second_file_system(shell) as other:
        old = shell.models
        for new in (other / "copied", other / "renamed"):
            with few_descriptors(100):
                done(mdl(with_environ(shell, MDL_HOME=str(old)), "mv", "org/wide", "--to", str(new)))
            assert files_below(new) == {f"org--wide/{path}": content for path, content in files.items()}
            assert files_below(old) == {}
            old = new


@pytest.mark.parametrize("crosses", [False, True], ids=["one file system", "two file systems"])
def test_killed_at_any_call(mdl: Inside, shell: Shell, tmp_path: Path, crosses: bool) -> None:
    """SIGKILL before calls that change the disk: each file is whole in the old folder or the new one, the same command
    finishes the move, and nothing is left over."""
    if not tracing_works(tmp_path):
        pytest.skip("nothing can be traced and killed at a call here")
    with contextlib.ExitStack() as stack:
        places = itertools.cycle([shell.home])
        if crosses:
            places = itertools.cycle([stack.enter_context(second_file_system(shell)), shell.home])
        done(mdl(shell, "get", "tiny"))
        (shell.models / "tiny/config.json").write_bytes(b"edited")
        whole = TINY | {"tiny/config.json": b"edited"}
        command = shell.command("mv", "tiny", "--to")
        at = next(places) / "0"
        ended = killed_at(0, [*command, str(at)], shell.environ, shell.home, tmp_path / "log")
        assert ended.code == 0, (tmp_path / "log").read_text()
        step = 1 if LONG else max(1, ended.calls // 9)
        for number in range(1, ended.calls + 1, step):
            new = next(places) / str(number)
            environ = shell.environ | {"MDL_HOME": str(at)}
            ended = killed_at(number, [*command, str(new)], environ, shell.home, tmp_path / "log")
            assert ended.code == -signal.SIGKILL, ended
            old_files = files_below(at)
            new_files = files_below(new)
            for path, content in whole.items():
                assert content in (old_files.get(path), new_files.get(path)), ended.point
            done(mdl(with_environ(shell, MDL_HOME=str(at)), "mv", "tiny", "--to", str(new)))
            assert (files_below(at), files_below(new)) == ({}, whole), ended.point
            leftovers = [path for path in (*at.rglob("*"), *new.rglob("*")) if path.name.endswith(".mdl-tmp")]
            assert leftovers == [], ended.point
            verified = done(mdl(with_environ(shell, MDL_HOME=str(new)), "verify", "tiny", "--json")).document
            statuses = {file["path"]: file["status"] for file in verified["models"][0]["files"]}
            assert statuses == {"config.json": "changed", "model.bin": "ok", "sub/vocab.txt": "ok"}, ended.point
            at = new
