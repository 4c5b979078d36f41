"""Containers: processes in PID name spaces of their own, with another host name, on one disk with everybody else."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.faulty_server import FaultyServer
from support.jobs import Gate, arrived, records_of, state_of, the_job, waits
from support.namespaces import prefix_of
from support.polling import until
from support.schemas import document_of
from support.shell import Shell, machine

from mdl.fs import staging
from mdl.locks import has_reliable_locks

CONTAINER = ("-p", "-u", "-f", "--mount-proc", "--kill-child")


@pytest.fixture
def shell(tmp_path: Path, gate: Gate) -> Iterator[Shell]:
    if not has_reliable_locks(tmp_path):
        pytest.skip("LOCKS MAY LIE HERE: nothing is done at once")
    with FaultyServer(gate) as server:
        yield machine(tmp_path / "home", catalog_of(one=server.url, two=server.url))


@contextlib.contextmanager
def contained(shell: Shell, *words: str, name: str = "") -> Iterator[subprocess.Popen[str]]:
    """mdl in a container, which may have a host name of its own; ended with it."""
    named = ("sh", "-c", f'hostname {name} && exec "$@"', "sh") if name else ()
    with subprocess.Popen(
        [*prefix_of(CONTAINER), *named, *shell.command(*words)],
        env=shell.environ,
        cwd=shell.home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def partials(shell: Shell) -> list[str]:
    return sorted(os.listdir(shell.models / ".mdl" / "partials"))


@pytest.mark.fault(264)
def test_nothing_is_taken_from_who_lives_in_a_container(shell: Shell, gate: Gate) -> None:
    """clean, another get, jobs and cancel leave a download in a container alone; it ends well, and was never dead."""
    with contained(shell, "get", "one") as living:
        job = waits(shell, gate)
        held = partials(shell)
        ran = shell.run("clean", "--yes")
        assert (ran.code, partials(shell)) == (0, held), ran.out
        assert (the_job(shell).status, shell.run("jobs", "cancel", job.id).code) == ("running", 2)
        assert shell.run("jobs", "clean", "--older-than", "0").code == 0
        assert shell.run("get", "one", "--lock-wait", "0").code == 9
        gate.opened.set()
        assert living.wait(30) == 0, living.communicate()
    assert arrived(shell)
    assert records_of(shell).find(job.id).status == "done"


@pytest.mark.fault(264)
def test_folders_beside_are_not_taken_either(shell: Shell, gate: Gate) -> None:
    """What a process in a container has beside, for another client to write into, is not removed by a get of another
    model; once it was killed it goes."""
    code = (
        "import sys, time; from pathlib import Path; from mdl.engine.store import Store; from mdl.files import *;"
        "from mdl.paths import RelPath; remote = RemoteFile(RelPath.parse('f.bin'), 'http://h/f.bin');"
        "side = Store(Path(sys.argv[1])).scratch_folder('three', remote);"
        "print(side.__enter__().name, flush=True); time.sleep(100)"
    )
    gate.opened.set()
    words = [*prefix_of(CONTAINER), *shell.command()[:1], "-c", code, str(shell.models)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=shell.environ) as living:
        assert living.stdout is not None
        name = living.stdout.readline().strip()
        side = shell.models / ".mdl" / "side" / name
        os.utime(side, (1e9, 1e9))
        assert (shell.run("get", "one").code, side.exists()) == (0, True)
        living.kill()
    assert (shell.run("get", "two").code, side.exists()) == (0, False)


@pytest.mark.fault(265, 266)
def test_the_successor_of_a_killed_container(shell: Shell, gate: Gate) -> None:
    """A container with another host name, on the same disk, goes on at once with what a killed one left; the killed
    one's job is dead, not running, and can be cancelled and cleaned."""
    with contained(shell, "get", "one", name="pod-1") as killed:
        job = waits(shell, gate)
        killed.kill()
        killed.wait()
    until(lambda: records_of(shell).find(job.id).status == "dead", "it goes on running")
    gate.opened.set()
    began = time.monotonic()
    with contained(shell, "get", "one", "--json", "--lock-wait", "30s", name="pod-2") as successor:
        out, err = successor.communicate(timeout=60)
    assert successor.returncode == 0, err
    assert time.monotonic() - began < 20
    assert arrived(shell)
    assert document_of(out)["models"][0]["files"][0]["resumed_at"] > 0
    assert shell.run("jobs", "cancel", job.id).code == 0
    assert shell.run("jobs", "clean", "--older-than", "0").code == 0
    assert [one for one in (state_of(shell) / "jobs").iterdir() if one.name.startswith(job.id)] == []


@pytest.mark.fault(264)
def test_two_packs_of_one_folder(tmp_path: Path) -> None:
    """A pack here sweeps nothing of one that is at work on the same archive in a container: both end well."""
    staged = tmp_path / "out"
    staged.mkdir()
    code = (
        "import sys, time; from pathlib import Path; from mdl.fs.staging import StagedFile;"
        "held = StagedFile(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read(); held.publish()"
    )
    shell = Shell(tmp_path)
    words = [*prefix_of(CONTAINER), *shell.command()[:1], "-c", code, str(staged / "run.zip")]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as living:
        assert living.stdout is not None
        assert living.stdout.readline() == "held\n"
        staging.sweep(staged)
        assert len(os.listdir(staged)) == 1
        _, err = living.communicate()
        assert living.returncode == 0, err
    assert os.listdir(staged) == ["run.zip"]
