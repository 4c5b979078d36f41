"""Partial: bytes first, then the claim, then the sync; one living process at a time; every drop is reported."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.long import examples
from support.partials import KEY, OTHER, SIZE, WHO, claimed, dead_owner, left_behind, on_disk, opened

from mdl.bounds import LARGEST_DOCUMENT, LARGEST_RECORD
from mdl.cancel import CancelToken
from mdl.disk import filesystem_type
from mdl.disk.mutex import has_reliable_locks
from mdl.disk.process import ProcessId
from mdl.disk.safe_open import open_parent
from mdl.downloader.journal import Journal
from mdl.downloader.partial import Partial
from mdl.downloader.partial_folders import is_held, stale_dirs, wait_for_owners
from mdl.errors import Busy
from mdl.net.ranges import ByteRange
from mdl.paths import RelPath

MIB = 2**20
Trace = list[tuple[str, int]]


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Trace:
    """The order of every write and sync, with the file each was on."""
    calls: Trace = []
    for name in ("pwrite", "write", "fdatasync", "fsync", "ftruncate"):
        real = getattr(os, name)

        def spy(fd: int, *args: object, real: object = real, name: str = name) -> object:
            calls.append((name, fd))
            return real(fd, *args)  # type: ignore[operator]

        monkeypatch.setattr(os, name, spy)
    return calls


@pytest.fixture
def partial(tmp_path: Path) -> Partial:
    """100 bytes of it are written, and claimed."""
    partial = opened(tmp_path / "partials")
    partial.write(0, b"x" * 100)
    partial.sync()
    return partial


@pytest.fixture
def claims_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are claimed once there are 200 of them."""
    monkeypatch.setattr("mdl.downloader.partial.LEAST_CLAIM", 200)


@pytest.mark.usefixtures("claims_at")
def test_bytes_are_written_before_they_are_claimed(tmp_path: Path, trace: Trace) -> None:
    """Write, then one line in the journal once enough was written. A sync claims the rest, then syncs the data, and
    then says so in the journal."""
    partial = opened(tmp_path)
    trace.clear()
    partial.write(0, b"x" * 100)
    assert (claimed(partial), partial.unsynced, partial.is_worth_syncing(0)) == (0, 100, False)
    partial.write(500, b"x" * 100)
    assert (claimed(partial), on_disk(partial), partial.unsynced, partial.is_worth_syncing(0)) == (200, 0, 200, True)
    partial.write(700, b"x" * 50)
    partial.sync()
    data = partial.fd
    calls = [name if fd == data else f"journal's {name}" for name, fd in trace]
    assert calls == ["pwrite", "pwrite", "journal's write", "pwrite", "journal's write", "fdatasync", "journal's write"]
    assert (claimed(partial), on_disk(partial), partial.unsynced) == (250, 250, 0)


@pytest.mark.parametrize(
    ("size", "connections"), [(300 * MIB, 24), (2**34, 1), (2**34, 16), (2**37, 24), (2**40, 64), (None, 1)]
)
def test_the_journal_of_any_file_is_read_whole(tmp_path: Path, size: int | None, connections: int) -> None:
    """However large a file is, and over however many connections it comes: all that is written to its journal can be
    read back, also if the one who writes and the one who syncs claim by turns, after a resume."""
    partial = Partial.open(tmp_path, KEY, replace(WHO, size=size))
    whole = size or 2**40
    if size:
        partial.set_length(size)
    else:
        partial.mark_present(ByteRange(0, whole // 8))
        partial.sync()
    journal = partial.folder / "journal"
    began = journal.stat().st_size
    before = partial.total
    step = max(MIB // 16, whole // 8192 // 8) // 3 // connections
    for number in range(200):
        for connection in range(connections):
            at = whole // 8 + connection * (whole // 2 // connections) + number * step
            partial.mark_present(ByteRange(at, at + step - 1))
            partial.write(at + step - 1, b"x")
            if connection == connections // 2 and partial.is_worth_syncing(MIB):
                partial.sync()
    grown = journal.stat().st_size - began
    # a part of the file was written: the rest makes the journal grow in the same way
    assert grown * whole / (partial.total - before) + LARGEST_RECORD / 2 < LARGEST_DOCUMENT


def test_a_long_journal_is_read_to_its_end(tmp_path: Path) -> None:
    """What stands behind the length of other records counts too."""
    partial = opened(tmp_path)
    partial.note_validator("https://h", "v" * LARGEST_RECORD)
    partial.write(0, b"x" * 100)
    partial.sync()
    assert on_disk(partial) == 100


def test_a_validator_is_noted_once(partial: Partial) -> None:
    """An origin's first validator is one line of the journal, however often it is sent."""
    journal = partial.folder / "journal"
    partial.note_validator("https://h", "v1")
    length = journal.stat().st_size
    for validator in ("v1", "v2", "v1"):
        partial.note_validator("https://h", validator)
    assert (journal.stat().st_size, partial.validators) == (length, {"https://h": "v1"})


def test_claims_outlive_a_power_cut(tmp_path: Path, trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second the journal itself is synced too, after it says what was synced; in between it is not."""
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    partial, seen = opened(tmp_path), []
    for number in range(4):
        now[0] += 0.6
        partial.write(number * 100, b"x" * 100)
        trace.clear()
        partial.sync()
        seen.append(" ".join(name if fd == partial.fd else f"journal's {name}" for name, fd in trace))
    short = "journal's write fdatasync journal's write"
    assert seen == [short, f"{short} journal's fdatasync", short, f"{short} journal's fdatasync"]


def test_nothing_new_is_not_synced(partial: Partial, trace: Trace) -> None:
    """A sync without new bytes touches nothing, also after the partial was closed."""
    partial.sync()
    assert trace == []
    partial.write(0, b"y" * 100)
    trace.clear()
    partial.close()
    partial.sync()
    assert trace == []


def test_what_is_written_during_the_sync_waits_for_the_next(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that arrive while the sync runs may be claimed, but do not count as synced before the next one."""
    real = os.fdatasync

    def sync_and_write(fd: int) -> None:
        real(fd)
        partial.write(200, b"y" * 50)
        partial.claim()

    monkeypatch.setattr(os, "fdatasync", sync_and_write)
    partial.write(100, b"x" * 100)
    partial.sync()
    assert (claimed(partial), on_disk(partial), partial.unsynced, partial.total) == (250, 200, 50, 250)


@pytest.mark.fault(106)
@pytest.mark.parametrize("trouble", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_failed_sync_loses_what_was_not_synced(partial: Partial, monkeypatch: pytest.MonkeyPatch, trouble: int) -> None:
    """After a failed sync the bytes count as lost that no earlier one confirmed, also those that were claimed. The
    error is raised, also by publish and by each later sync, which the system may call a success though bytes were
    lost; and nothing more is claimed."""
    partial.write(100, b"x" * 100)
    partial.claim()
    assert claimed(partial) == 200

    def broken(_fd: int) -> None:
        raise OSError(trouble, os.strerror(trouble))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(OSError) as caught:
            partial.sync()
    assert caught.value.errno == trouble
    assert (partial.total, partial.unsynced, claimed(partial)) == (100, 0, 100)
    assert partial.gaps(SIZE) == [ByteRange(100, SIZE)]
    partial.write(100, b"x" * 900)
    partial.claim()
    with pytest.raises(OSError, match=os.strerror(trouble)):
        partial.sync()
    with (
        open_parent(partial.folder.parent, RelPath.parse("final")) as final,
        pytest.raises(OSError, match=os.strerror(trouble)),
    ):
        partial.seal(SIZE)
        partial.publish(final)
    assert (claimed(partial), final.path.exists()) == (100, False)


def test_failed_claim_claims_nothing(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the journal cannot be written (a full disk), the old journal stays right."""
    partial.write(200, b"x" * 100)
    real = os.write

    def torn(fd: int, data: memoryview) -> int:
        if len(data) > 5:
            return real(fd, data[:5])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", torn)
    with pytest.raises(OSError):
        partial.sync()
    monkeypatch.undo()
    assert claimed(partial) == 100
    partial.close()
    again = opened(partial.folder.parent)
    assert (again.total, again.dropped) == (100, 0)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "sync", "kill", "power cut"]), st.integers(0, SIZE - 1), st.integers(1, 300)
    ),
    max_size=20,
)


@pytest.fixture(scope="module")
def small_claims() -> Iterator[None]:
    """As `claims_at`, for a test that runs many examples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mdl.downloader.partial.LEAST_CLAIM", 200)
        yield


@pytest.mark.fault(124, 146)
@pytest.mark.usefixtures("small_claims")
@settings(deadline=None, max_examples=examples(60))
@given(_STEPS)
def test_neither_a_kill_nor_a_power_cut_costs_a_claim_or_makes_one(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """Killed at any point and opened again, it has what was claimed, and lacks less than is claimed at once; after a
    power cut it has what was synced. It has no byte more, and the bytes are right."""
    folder, truth = tmp_path_factory.mktemp("p"), bytes(n % 251 for n in range(SIZE))
    partial, written, sure, synced = opened(folder), set[int](), set[int](), set[int]()
    with pytest.MonkeyPatch.context() as patch:
        for number, (step, at, length) in enumerate(steps):
            if step == "write":
                stop = min(SIZE, at + length)
                partial.write(at, truth[at:stop])
                written |= set(range(at, stop))
                sure = set(written) if len(written - sure) >= 200 else sure
            elif step == "sync":
                partial.sync()
                sure = synced = set(written)
            else:
                kept = sure if step == "kill" else synced
                for n in written - kept:
                    os.pwrite(partial.fd, b"\xff", n)
                partial.close()
                if step == "power cut":
                    patch.setattr("mdl.downloader.journal.this_boot", lambda number=number: f"boot {number}")
                partial, written, sure = opened(folder), set(kept), set(kept)
                assert partial.dropped == 0
            here = {n for n in range(SIZE) if not any(gap.start <= n < gap.stop for gap in partial.gaps(SIZE))}
            assert here == written
            assert all(os.pread(partial.fd, 1, n) == truth[n : n + 1] for n in here)
    partial.close()


def test_publish_gives_the_bytes_their_name(partial: Partial, tmp_path: Path, trace: Trace) -> None:
    """The data is synced before it gets its name, and nothing of the partial is left."""
    partial.write(0, b"x" * SIZE)
    assert partial.seal(SIZE)
    fd = partial.fd
    trace.clear()
    with open_parent(tmp_path, RelPath.parse("final")) as final:
        partial.publish(final)
    assert trace[0] == ("fsync", fd)
    assert (tmp_path / "final").read_bytes() == b"x" * SIZE
    assert list((tmp_path / "partials").iterdir()) == []


def test_validators_are_kept_as_first_seen(partial: Partial) -> None:
    """What a host called the file is remembered over a restart; a second name does not replace the first."""
    partial.note_validator("https://cdn:443", '"a"')
    partial.note_validator("https://cdn:443", '"b"')
    partial.close()
    assert opened(partial.folder.parent).validators == {"https://cdn:443": '"a"'}


def test_rewind_counts_and_forgets(partial: Partial, trace: Trace) -> None:
    """Beginning anew returns how many bytes were discarded, and leaves none of them claimed. The journal begun anew is
    on the disk itself before new bytes replace those that the old one claimed."""
    partial.write(100, b"x" * 50)
    partial.note_validator("https://cdn:443", '"a"')
    trace.clear()
    assert partial.rewind(WHO) == 150
    synced = {os.fstat(fd).st_ino for name, fd in trace if name in ("fsync", "fdatasync")}
    assert (partial.folder / "journal").stat().st_ino in synced
    assert (partial.total, partial.front, partial.unsynced, claimed(partial)) == (0, 0, 0, 0)
    assert partial.validators == {}
    partial.write(0, b"y" * 10)
    partial.sync()
    partial.close()
    assert opened(partial.folder.parent).total == 10


def unseen(of: str = "") -> str:
    """The name of a process in a container, which cannot be seen from here."""
    return (of or dead_owner()).rpartition("-")[0] + "-1"


def quiet(folder: Path, seconds: float) -> None:
    """Have nothing in this partial been touched for so long."""
    then = time.time() - seconds
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))


@pytest.fixture
def without_reliable_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system over the network."""
    monkeypatch.setattr("mdl.disk.mutex.LOCAL", set())


def test_dead_process_is_resumed(tmp_path: Path) -> None:
    """What a process that is gone left behind is taken over, bytes and all, by one folder's rename."""
    old = left_behind(tmp_path, dead_owner())
    partial = opened(tmp_path)
    assert (partial.total, partial.dropped, old.exists()) == (400, 0, False)
    assert os.pread(partial.fd, 400, 0) == b"x" * 400
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{KEY}.{ProcessId.current()}"]


@pytest.mark.parametrize("who", ["dead", "me", "unseen"])
def test_a_published_leftover_is_not_written_to(tmp_path: Path, who: str) -> None:
    """A process that was killed while it gave its file the final name leaves the data with two names. Whatever comes
    next, the published file keeps its bytes, and the leftover goes."""
    me = str(ProcessId.current())
    old = left_behind(tmp_path / "partials", {"dead": dead_owner(), "me": me, "unseen": unseen(dead_owner())}[who])
    quiet(old, 1e9)
    os.link(old / "data", tmp_path / "final")
    before = (tmp_path / "final").read_bytes()
    partial = opened(tmp_path / "partials", OTHER)
    partial.write(0, b"y" * SIZE)
    partial.close()
    assert (tmp_path / "final").read_bytes() == before
    assert (partial.total, partial.dropped) == (SIZE, 0)
    assert [entry.name for entry in (tmp_path / "partials").iterdir()] == [f"{KEY}.{me}"]


@pytest.mark.fault(264)
@pytest.mark.parametrize("is_local", [True, False])
def test_a_locked_partial_is_never_taken(tmp_path: Path, request: pytest.FixtureRequest, is_local: bool) -> None:
    """A process that cannot be seen and keeps its partial locked is alive, however long it has been quiet."""
    if not is_local:
        request.getfixturevalue("without_reliable_locks")
    alive = opened(tmp_path)
    alive.folder = alive.folder.rename(tmp_path / f"{KEY}.{unseen(str(ProcessId.current()))}")
    quiet(alive.folder, 1e6)
    with pytest.raises(Busy, match="container"):
        Partial.open(tmp_path, KEY, WHO)
    assert stale_dirs(tmp_path) == []
    alive.close()
    assert is_held(alive.folder) is False


@pytest.mark.fault(112, 264)
def test_without_locks_an_unseen_owner_has_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing can be locked, a partial of a process that cannot be seen is left alone for a minute."""

    def flock(_fd: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    folder = left_behind(tmp_path, unseen())
    for seconds in (0, 50):
        quiet(folder, seconds)
        with pytest.raises(Busy, match="container"):
            Partial.open(tmp_path, KEY, WHO)
    quiet(folder, 70)
    assert opened(tmp_path).total == 400


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
@pytest.mark.usefixtures("without_reliable_locks")
def test_without_reliable_locks_no_file_is_shared(tmp_path: Path) -> None:
    """A leftover is waited for, then copied: if its owner lives and begins anew, it spoils nothing of ours."""
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
@pytest.mark.usefixtures("without_reliable_locks")
@pytest.mark.parametrize(("change", "kept"), [("cut", 100), ("begun anew", 0), ("another file", 0)])
def test_what_changes_while_it_is_copied_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, kept: int
) -> None:
    """Bytes that its owner cut off or claims no more are not taken over, nor is another file's."""
    folder = left_behind(tmp_path, unseen(), OTHER if change == "another file" else WHO)
    quiet(folder, 70.0)
    real = os.copy_file_range

    def copy(*what: int) -> int:
        done = real(*what)
        os.truncate(folder / "data", 100 if change == "cut" else 0)
        if change == "begun anew":
            Journal.create(folder / "journal", WHO).close()
            os.truncate(folder / "data", SIZE)
        return done

    monkeypatch.setattr(os, "copy_file_range", copy)
    partial = opened(tmp_path)
    assert partial.total == claimed(partial) == kept
    assert partial.dropped == (400 if change == "another file" else 0)


class Waits(CancelToken):
    """Counts the waits instead of sleeping; at the third the partial has been quiet for long."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.count = folder, 0

    def wait(self, seconds: float) -> None:
        self.count += 1
        if self.count == 3:
            quiet(self.folder, 1e6)


@pytest.mark.fault(265)
@pytest.mark.usefixtures("without_reliable_locks")
def test_it_is_waited_for(tmp_path: Path) -> None:
    """As long as it is held, within the time given; the wait is reported once, with the holder's name."""
    folder, told = left_behind(tmp_path, unseen()), list[str]()
    cancel = Waits(folder)
    wait_for_owners(tmp_path, [KEY], 0.0, told.append, cancel)
    assert (cancel.count, told) == (0, [])
    wait_for_owners(tmp_path, ["b" * 16, KEY], 1e3, told.append, cancel)
    assert (cancel.count, len(told)) == (3, 1)
    assert "container" in told[0]


def test_the_folder_is_listed_once_for_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of files and hundreds of partials would be their product."""
    left_behind(tmp_path, dead_owner())
    listed, iterdir = list[Path](), Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: listed.append(folder) or iterdir(folder))
    keys = [*(f"{number:032x}" for number in range(50)), KEY]
    wait_for_owners(tmp_path, keys, 1e3, lambda _holder: pytest.fail("nobody holds it"), CancelToken())
    assert listed.count(tmp_path) == 1
