"""Containers: processes in PID name spaces of their own, with another host name, on one disk with all others."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.faulty_server import FaultyServer
from support.jobs import Gate, arrived, records_of, state_of, the_job, waits
from support.namespaces import prefix_of
from support.polling import until
from support.shell import Shell, beside, done, ended, machine

from mdl.disk import publish
from mdl.disk.mutex import has_reliable_locks
from mdl.downloader import journal

CONTAINER = ("-p", "-u", "-f", "--mount-proc", "--kill-child")


@pytest.fixture
def shell(tmp_path: Path, gate: Gate) -> Iterator[Shell]:
    if not has_reliable_locks(tmp_path):
        pytest.skip("LOCKS MAY LIE HERE: nothing is done at once")
    with FaultyServer(gate) as server:
        yield machine(tmp_path / "home", catalog_of(one=server.url, two=server.url))


def contained(
    shell: Shell, *command: str, name: str = "", stdin: int = subprocess.DEVNULL
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """A command in a container, which may have a host name of its own; ended with it."""
    named = ("sh", "-c", f'hostname {name} && exec "$@"', "sh") if name else ()
    return beside(shell, *prefix_of(CONTAINER), *named, *command, stdin=stdin)


def partials(shell: Shell) -> list[str]:
    return sorted(os.listdir(shell.models / ".mdl" / "partials"))


@pytest.mark.fault(264)
def test_nothing_is_taken_from_who_lives_in_a_container(shell: Shell, gate: Gate) -> None:
    """clean, another get, jobs and cancel leave a download in a container alone; it ends well, and was never dead."""
    with contained(shell, *shell.command("get", "one")) as living:
        job = waits(shell, gate)
        held = partials(shell)
        ran = done(shell.run("clean", "--yes"))
        assert partials(shell) == held, ran.out
        assert (the_job(shell).status, shell.run("jobs", "cancel", job.id).code) == ("running", 2)
        done(shell.run("jobs", "clean", "--older-than", "0"))
        done(shell.run("get", "one", "--lock-wait", "0"), 9)
        gate.opened.set()
        ended(living, 0)
    assert arrived(shell)
    assert records_of(shell).find(job.id).status == "done"


@pytest.mark.fault(264)
def test_folders_beside_are_not_taken_either(shell: Shell, gate: Gate) -> None:
    """What a process in a container has beside, for another client to write into, is not removed by a get of another
    model; after the process was killed it goes."""
    code = (
        "import sys, time; from pathlib import Path; from mdl.downloader.store import Store; from mdl.files import *;"
        "from mdl.paths import RelPath; remote = RemoteFile(RelPath.parse('f.bin'), 'http://h/f.bin');"
        "side = Store(Path(sys.argv[1])).scratch_folder('three', remote);"
        "print(side.__enter__().name, flush=True); time.sleep(100)"
    )
    gate.opened.set()
    with contained(shell, sys.executable, "-c", code, str(shell.models)) as living:
        side = shell.models / ".mdl" / "side" / living.stdout.readline().strip()
        os.utime(side, (1e9, 1e9))
        assert (shell.run("get", "one").code, side.exists()) == (0, True)
    assert (shell.run("get", "two").code, side.exists()) == (0, False)


@pytest.mark.fault(265, 266)
def test_the_successor_of_a_killed_container(shell: Shell, gate: Gate) -> None:
    """A container with another host name, on the same disk, goes on at once with what a killed one left; the killed
    one's job is dead, not running, and can be cancelled and cleaned."""
    with contained(shell, *shell.command("get", "one"), name="pod-1"):
        job = waits(shell, gate)
        [place] = (shell.models / ".mdl" / "partials").rglob("journal")
        until(lambda: (record := journal.load(place)) and record.have.total)
    until(lambda: records_of(shell).find(job.id).status == "dead")
    gate.opened.set()
    words = shell.command("get", "one", "--json", "--lock-wait", "10s")
    with contained(shell, *words, name="pod-2") as successor:
        ran = ended(successor, 0)
    assert arrived(shell)
    assert ran.document["models"][0]["files"][0]["resumed_at"] > 0
    done(shell.run("jobs", "cancel", job.id))
    done(shell.run("jobs", "clean", "--older-than", "0"))
    assert [one for one in (state_of(shell) / "jobs").iterdir() if one.name.startswith(job.id)] == []


@pytest.mark.fault(264)
def test_two_packs_of_one_folder(tmp_path: Path) -> None:
    """A pack here sweeps nothing of one that is at work on the same archive in a container: both end well."""
    staged = tmp_path / "out"
    staged.mkdir()
    code = (
        "import sys; from pathlib import Path; from mdl.disk.publish import staged_file\n"
        "with staged_file(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    words = (sys.executable, "-c", code, str(staged / "run.zip"))
    with contained(Shell(tmp_path), *words, stdin=subprocess.PIPE) as living:
        assert living.stdout.readline() == "held\n"
        publish.sweep(staged)
        assert len(os.listdir(staged)) == 1
        ended(living, 0)
    assert os.listdir(staged) == ["run.zip"]
