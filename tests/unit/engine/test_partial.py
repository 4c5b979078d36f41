"""Partial: bytes first, then the sync, then the claim; one living process at a time; nothing dropped in silence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.partials import KEY, OTHER, SIZE, WHO, claimed, dead_owner, left_behind, opened

from mdl.cancel import CancelToken
from mdl.engine.adoption import claimed_bytes, is_held, leftovers, stale_dirs, wait_for_owners
from mdl.engine.journal import Journal
from mdl.engine.partial import Partial
from mdl.errors import Busy
from mdl.fs import copying, filesystem_type
from mdl.fs.entries import open_parent
from mdl.http.ranges import ByteRange
from mdl.locks import has_reliable_locks
from mdl.paths import RelPath
from mdl.process import ProcessId


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """The order of every write and sync, with the file each was on."""
    calls: list[tuple[str, int]] = []
    for name in ("pwrite", "write", "fdatasync", "fsync", "ftruncate"):
        real = getattr(os, name)

        def spy(fd: int, *args: object, real: object = real, name: str = name) -> object:
            calls.append((name, fd))
            return real(fd, *args)  # type: ignore[operator]

        monkeypatch.setattr(os, name, spy)
    return calls


def test_bytes_are_synced_before_they_are_claimed(tmp_path: Path, trace: list[tuple[str, int]]) -> None:
    """Write, then fdatasync of the data, then one line in the journal: in this order, and no claim without it."""
    partial = opened(tmp_path)
    trace.clear()
    partial.write(0, b"x" * 100)
    partial.write(500, b"x" * 100)
    assert claimed(partial) == 0
    assert [name for name, _ in trace] == ["pwrite", "pwrite"]
    partial.sync_and_claim()
    assert [name for name, _ in trace[2:]] == ["fdatasync", "write"]
    assert trace[2][1] == partial.fd != trace[3][1]
    assert claimed(partial) == 200
    assert partial.unclaimed == 0


def test_claims_outlive_a_power_cut(
    tmp_path: Path, trace: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second the journal itself is synced too, after its claim; in between it is not."""
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    partial = opened(tmp_path)
    seen = []
    for number in range(4):
        now[0] += 0.6
        partial.write(number * 100, b"x" * 100)
        trace.clear()
        partial.sync_and_claim()
        seen.append(" ".join(name if fd == partial.fd else f"journal's {name}" for name, fd in trace))
    short, whole = "fdatasync journal's write", "fdatasync journal's write journal's fdatasync"
    assert seen == [short, whole, short, whole]


def test_nothing_new_is_not_synced(tmp_path: Path, trace: list[tuple[str, int]]) -> None:
    """A checkpoint without new bytes touches nothing, also after the partial was closed."""
    partial = opened(tmp_path)
    partial.write(0, b"x" * 100)
    partial.sync_and_claim()
    trace.clear()
    partial.sync_and_claim()
    partial.write(0, b"y" * 100)
    trace.clear()
    partial.close()
    partial.sync_and_claim()
    assert trace == []


def test_what_is_written_during_the_sync_is_not_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that arrive while the sync runs wait for the next one."""
    partial, real = opened(tmp_path), os.fdatasync

    def sync_and_write(fd: int) -> None:
        real(fd)
        partial.write(100, b"y" * 50)

    monkeypatch.setattr(os, "fdatasync", sync_and_write)
    partial.write(0, b"x" * 100)
    partial.sync_and_claim()
    assert (claimed(partial), partial.unclaimed, partial.total) == (100, 50, 150)


@pytest.mark.fault(106)
@pytest.mark.parametrize("trouble", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_failed_sync_loses_what_was_not_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: int) -> None:
    """After a failed sync the unclaimed bytes count as lost, the claimed ones stay, and the error is told."""
    partial = opened(tmp_path)
    partial.write(0, b"x" * 100)
    partial.sync_and_claim()
    partial.write(100, b"x" * 100)

    def broken(_fd: int) -> None:
        raise OSError(trouble, os.strerror(trouble))

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(OSError) as caught:
        partial.sync_and_claim()
    assert caught.value.errno == trouble
    assert (partial.total, partial.unclaimed, claimed(partial)) == (100, 0, 100)
    assert partial.gaps(SIZE) == [ByteRange(100, SIZE)]


def test_failed_claim_claims_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the journal cannot be written (a full disk), the old journal stays right."""
    partial = opened(tmp_path)
    partial.write(0, b"x" * 100)
    partial.sync_and_claim()
    partial.write(200, b"x" * 100)
    real = os.write

    def torn(fd: int, data: memoryview) -> int:
        if len(data) > 5:
            return real(fd, data[:5])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", torn)
    with pytest.raises(OSError):
        partial.sync_and_claim()
    monkeypatch.undo()
    assert claimed(partial) == 100
    partial.close()
    again = opened(tmp_path)
    assert (again.total, again.dropped) == (100, 0)


@pytest.mark.fault(108)
def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that takes fewer bytes than it was given is gone on with until all are there."""
    partial, real = opened(tmp_path), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data)[:7], at))
    data = bytes(range(100))
    partial.write(50, data)
    assert os.pread(partial.fd, 100, 50) == data
    assert partial.total == 100


_STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "sync", "kill"]), st.integers(0, SIZE - 1), st.integers(1, 300)), max_size=20
)


@pytest.mark.fault(124, 146)
@settings(deadline=None, max_examples=60)
@given(_STEPS)
def test_a_kill_never_costs_a_claim_nor_makes_one(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """Killed at any point and opened again, it has what was synced, no byte more, and the bytes are right."""
    folder, truth = tmp_path_factory.mktemp("p"), bytes(n % 251 for n in range(SIZE))
    partial, written, synced = opened(folder), set[int](), set[int]()
    for step, at, length in steps:
        if step == "write":
            stop = min(SIZE, at + length)
            partial.write(at, truth[at:stop])
            written |= set(range(at, stop))
        elif step == "sync":
            partial.sync_and_claim()
            synced = set(written)
        else:
            for n in written - synced:
                os.pwrite(partial.fd, b"\xff", n)
            partial.close()
            partial, written = opened(folder), set(synced)
            assert partial.dropped == 0
        here = {n for n in range(SIZE) if not any(gap.start <= n < gap.stop for gap in partial.gaps(SIZE))}
        assert here == written
        assert all(os.pread(partial.fd, 1, n) == truth[n : n + 1] for n in here)
    partial.close()


def test_dead_process_is_gone_on_with(tmp_path: Path) -> None:
    """What a process that is gone left behind is taken over, bytes and all, by one folder's rename."""
    old = left_behind(tmp_path, dead_owner())
    partial = opened(tmp_path)
    assert not old.exists()
    assert (partial.total, partial.dropped) == (400, 0)
    assert os.pread(partial.fd, 400, 0) == b"x" * 400
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{KEY}.{ProcessId.current()}"]


@pytest.mark.parametrize("who", ["dead", "me", "unseen"])
def test_a_published_leftover_is_not_written_to(tmp_path: Path, who: str) -> None:
    """A process that was killed while it gave its file the final name leaves the data with two names. Whatever comes
    next, the published file keeps its bytes, and the leftover goes."""
    me = str(ProcessId.current())
    old = left_behind(tmp_path / "partials", {"dead": dead_owner(), "me": me, "unseen": unseen(dead_owner())}[who])
    for path in (old / "data", old / "journal", old):
        os.utime(path, (0, 0))
    os.link(old / "data", tmp_path / "final")
    before = (tmp_path / "final").read_bytes()
    partial = opened(tmp_path / "partials", OTHER)
    partial.write(0, b"y" * SIZE)
    partial.close()
    assert (tmp_path / "final").read_bytes() == before
    assert (partial.total, partial.dropped) == (SIZE, 0)
    assert [entry.name for entry in (tmp_path / "partials").iterdir()] == [f"{KEY}.{me}"]


def test_living_process_is_not_disturbed(tmp_path: Path) -> None:
    """A partial that a living process holds is Busy (9), names that process, and stays as it is."""
    holds = (
        "import sys; from pathlib import Path; from mdl.engine.journal import Identity;"
        "from mdl.engine.partial import Partial;"
        f"p = Partial.open(Path(sys.argv[1]), {KEY!r}, Identity(*{(WHO.url, SIZE, WHO.digest, None, None)!r}));"
        "p.write(0, b'z' * 300); p.sync_and_claim(); print('held', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", holds, str(tmp_path)], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(Busy, match=str(child.pid)) as caught:
            Partial.open(tmp_path, KEY, WHO)
        assert caught.value.exit_code == 9
        assert [folder.name.split("-")[1] for folder in leftovers(tmp_path, KEY)] == [str(child.pid)]
        child.communicate()
    assert opened(tmp_path).total == 300


def unseen(of: str = "") -> str:
    """The name of a process in a container, which cannot be seen from here."""
    return (of or dead_owner()).rpartition("-")[0] + "-1"


def quiet(folder: Path, seconds: float) -> None:
    """Have nothing in this partial been touched for so long."""
    then = time.time() - seconds
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))


@pytest.mark.fault(264)
@pytest.mark.parametrize("is_local", [True, False])
def test_a_locked_partial_is_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_local: bool) -> None:
    """A process that cannot be seen and keeps its partial locked is alive, however long it has been quiet."""
    if not is_local:
        monkeypatch.setattr("mdl.locks._LOCAL", set())
    alive = opened(tmp_path / "partials")
    alive.folder = alive.folder.rename(tmp_path / "partials" / f"{KEY}.{unseen(str(ProcessId.current()))}")
    quiet(alive.folder, 1e6)
    with pytest.raises(Busy, match="container"):
        Partial.open(tmp_path / "partials", KEY, WHO)
    assert stale_dirs(tmp_path / "partials") == []
    alive.close()
    assert is_held(alive.folder) is False


@pytest.mark.fault(265)
def test_a_successor_goes_on_at_once(tmp_path: Path) -> None:
    """What a killed container left is taken over as soon as its lock is free, if the kernel here knows every lock."""
    if not has_reliable_locks(tmp_path):
        pytest.skip(f"LOCKS MAY LIE HERE: {filesystem_type(tmp_path)}")
    folder = left_behind(tmp_path, unseen())
    inode = (folder / "data").stat().st_ino
    quiet(folder, 3.0)
    partial = opened(tmp_path)
    assert (partial.total, os.fstat(partial.fd).st_ino) == (400, inode)


@pytest.mark.fault(265)
def test_where_locks_may_lie_no_file_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a leftover is waited for, then copied: its owner, if it lives and begins anew, spoils nothing of ours."""
    monkeypatch.setattr("mdl.locks._LOCAL", set())
    folder = left_behind(tmp_path, unseen())
    quiet(folder, 30.0)
    with pytest.raises(Busy, match="container"):
        Partial.open(tmp_path, KEY, WHO)
    quiet(folder, 70.0)
    with (folder / "data").open("r+b") as of_the_living:
        partial = opened(tmp_path)
        of_the_living.write(b"wrong" * 100)
        of_the_living.truncate(0)
    assert (partial.total, partial.dropped, folder.exists()) == (400, 0, False)
    assert os.pread(partial.fd, 400, 0) == b"x" * 400
    assert claimed(partial) == 400


@pytest.mark.fault(265)
@pytest.mark.parametrize("change", ["cut", "begun anew", "another file"])
def test_what_changes_while_it_is_copied_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Bytes that its owner cut off or claims no more are not taken over, nor is another file's."""
    monkeypatch.setattr("mdl.locks._LOCAL", set())
    folder = left_behind(tmp_path, unseen(), OTHER if change == "another file" else WHO)
    quiet(folder, 70.0)
    real = copying.copy_range

    def copy(source: int, target: int, size: int, *, start: int = 0) -> int:
        done = real(source, target, size, start=start)
        os.truncate(folder / "data", 100 if change == "cut" else 0)
        if change == "begun anew":
            Journal.create(folder / "journal", WHO).close()
            os.truncate(folder / "data", SIZE)
        return done

    monkeypatch.setattr(copying, "copy_range", copy)
    partial = opened(tmp_path)
    assert (partial.total, claimed(partial)) == ((100, 100) if change == "cut" else (0, 0))
    assert partial.dropped == (400 if change == "another file" else 0)


@pytest.mark.fault(265)
def test_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it is held, within the time given; the wait is told once, and for whom."""
    folder, told = left_behind(tmp_path, unseen()), list[str]()
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            quiet(folder, 1e6)

    cancel = CancelToken()
    monkeypatch.setattr(cancel, "wait", sleep)
    monkeypatch.setattr("mdl.locks.has_reliable_locks", lambda _path: False)
    wait_for_owners(tmp_path, [KEY], 0.0, told.append, cancel)
    assert (waits, told) == ([], [])
    wait_for_owners(tmp_path, ["b" * 32, KEY], 1e3, told.append, cancel)
    assert (len(waits), len(told)) == (3, 1)
    assert "container" in told[0]


@pytest.mark.fault(149)
def test_another_file_is_begun_anew_and_said(tmp_path: Path) -> None:
    """Under another identity nothing is kept, and how much was dropped and why is told."""
    left_behind(tmp_path, dead_owner(), OTHER)
    partial = opened(tmp_path)
    assert (partial.total, partial.dropped) == (0, 400)
    assert "digest" in partial.dropped_why
    assert os.pread(partial.fd, 400, 0) == b"\0" * 400
    assert claimed(partial) == 0


def test_without_digest_and_validator_nothing_is_resumed(tmp_path: Path) -> None:
    """A file nobody can tell apart from another is never gone on with, even under the same URL and size."""
    nameless = replace(WHO, digest=None)
    left_behind(tmp_path, dead_owner(), nameless)
    assert claimed_bytes(tmp_path, KEY, nameless) == 0
    partial = opened(tmp_path, nameless)
    assert (partial.total, partial.dropped) == (0, 400)
    assert "neither a digest nor a strong validator" in partial.dropped_why


def test_publish_gives_the_bytes_their_name(tmp_path: Path, trace: list[tuple[str, int]]) -> None:
    """The data is synced before it gets its name, and nothing of the partial is left."""
    partial = opened(tmp_path / "p")
    partial.write(0, b"x" * SIZE)
    fd = partial.fd
    trace.clear()
    with open_parent(tmp_path, RelPath.parse("final")) as final:
        partial.publish(final)
    assert trace[0] == ("fsync", fd)
    assert (tmp_path / "final").read_bytes() == b"x" * SIZE
    assert list((tmp_path / "p").iterdir()) == []


def test_validators_are_kept_as_first_seen(tmp_path: Path) -> None:
    """What a host called the file is remembered over a restart; a second name does not replace the first."""
    partial = opened(tmp_path)
    partial.note_validator("https://cdn:443", '"a"')
    partial.note_validator("https://cdn:443", '"b"')
    partial.close()
    assert opened(tmp_path).validators == {"https://cdn:443": '"a"'}
