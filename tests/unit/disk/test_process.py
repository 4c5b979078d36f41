"""Processes: one that lives, one that has ended, one that cannot be seen from here."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.namespaces import prefix_of

from mdl.disk.process import ProcessId, run_program, users_core_limit, without_core_files


@pytest.fixture
def past() -> str:
    """A process of this machine and PID name space that is over."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    machine, _, _, space = str(ProcessId.current()).split("-")
    return f"{machine}-{process.pid}-1-{space}"


def test_this_process_and_one_that_is_over(past: str) -> None:
    """This process is alive, an ended one is not, nor an earlier one with our number."""
    machine, pid, _, space = str(ProcessId.current()).split("-")
    names = (str(ProcessId.current()), past, f"{machine}-{pid}-1-{space}", "strange")
    assert [ProcessId(one).is_alive() for one in names] == [True, False, False, None]
    assert [ProcessId(one).pid for one in (names[0], names[3])] == [os.getpid(), 0]


@pytest.mark.fault(264)
def test_another_name_space_is_unknown(past: str) -> None:
    """A process of another PID name space, another boot or no name at all: mdl cannot know whether it lives."""
    for owner in (str(ProcessId.current()), past):
        machine, pid, born, space = owner.split("-")
        assert ProcessId(f"{machine}-{pid}-{born}-{int(space) + 1}").is_alive() is None
        assert ProcessId(f"{'0' * 12}-{pid}-{born}-{space}").is_alive() is None
    assert ProcessId("").is_alive() is None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="nothing could be hidden")
def test_a_process_that_is_hidden(past: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's process that /proc does not show may be the one: mdl cannot know, and leaves its files alone."""

    def kill(_process: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert ProcessId(past).is_alive() is None


@pytest.mark.fault(264)
def test_a_container_that_sees_its_host_by_proc() -> None:
    """In a PID name space whose /proc counts processes as the one outside does, who lives is asked of the kernel."""
    code = (
        "import os; from mdl.disk.process import ProcessId as P; me = P.current(); "
        "print(me.is_alive(), P(me.text.replace(f'-{os.getpid()}-', '-77-')).is_alive())"
    )
    words = [*prefix_of(("-pf",)), sys.executable, "-c", code]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": root})
    assert done.stdout.split() == ["True", "False"]


def test_a_program_that_prints_to_a_file(tmp_path: Path) -> None:
    """Both of its streams go to the file, in the order in which it wrote them."""
    script = "import sys; print('a', flush=True); sys.stderr.write('b'); sys.exit(3)"
    with (tmp_path / "said").open("w+b") as output:
        assert run_program([sys.executable, "-c", script], {}, output=output) == 3
    assert (tmp_path / "said").read_text() == "a\nb"


@pytest.fixture
def core_limit() -> Iterator[int]:
    """A soft limit of core files that is not 0."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    wanted = 4096 if before[1] == resource.RLIM_INFINITY else min(4096, before[1])
    if not wanted:
        pytest.skip("no core files are allowed here")
    resource.setrlimit(resource.RLIMIT_CORE, (wanted, before[1]))
    yield wanted
    resource.setrlimit(resource.RLIMIT_CORE, before)


def test_no_core_file_has_a_token(core_limit: int, tmp_path: Path) -> None:
    """mdl's own soft limit is 0, a hook has the user's, and afterwards all is as before."""
    place = tmp_path / "limit"
    ask = f"import resource; open({str(place)!r}, 'w').write(str(resource.getrlimit(resource.RLIMIT_CORE)[0]))"
    with without_core_files():
        assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
        assert run_program([sys.executable, "-c", ask], {}) == 0
        with without_core_files(), users_core_limit():
            assert resource.getrlimit(resource.RLIMIT_CORE)[0] == core_limit
        assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
    assert place.read_text() == str(core_limit)
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == core_limit
