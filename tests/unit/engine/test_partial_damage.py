"""Partials that are not as mdl left them: cut, renamed, doubled, damaged; and owners of odd names."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.partials import KEY, OTHER, SIZE, WHO, claimed, dead_owner, left_behind, opened

from mdl.engine.adoption import claimed_bytes
from mdl.engine.journal import Identity
from mdl.engine.partial import Partial
from mdl.errors import Busy
from mdl.http.ranges import ByteRange
from mdl.process import ProcessId


@pytest.mark.fault(148)
def test_cut_data_is_not_believed(tmp_path: Path) -> None:
    """If the data is shorter than what was claimed, only what is still there counts, also when the file was stretched
    with zeros and is opened once more. The lost bytes are reported as dropped."""
    folder = left_behind(tmp_path, dead_owner())
    os.truncate(folder / "data", 150)
    partial = opened(tmp_path)
    assert (partial.total, partial.dropped) == (150, 250)
    partial.close()
    assert opened(tmp_path).total == 150


@pytest.mark.fault(147)
def test_damaged_journal_claims_nothing(tmp_path: Path) -> None:
    """If the journal's first line is damaged, everything is fetched again, and the loss is reported."""
    folder = left_behind(tmp_path, dead_owner())
    whole = (folder / "journal").read_bytes()
    (folder / "journal").write_bytes(b"X" + whole[1:])
    partial = opened(tmp_path)
    assert (partial.total, claimed(partial)) == (0, 0)
    assert partial.gaps(SIZE) == [ByteRange(0, SIZE)]
    assert (partial.dropped > 0, bool(partial.dropped_why)) == (True, True)


@pytest.mark.fault(177)
def test_link_in_place_of_the_data_is_not_followed(tmp_path: Path) -> None:
    """A link planted under the data's name leads nowhere: what it points to keeps its bytes."""
    folder = left_behind(tmp_path, dead_owner())
    (tmp_path / "precious").write_bytes(b"p" * 10)
    (folder / "data").unlink()
    (folder / "data").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        Partial.open(tmp_path, KEY, WHO)
    assert (tmp_path / "precious").read_bytes() == b"p" * 10


@pytest.mark.parametrize(("other", "size"), [(WHO, 400), (OTHER, 100)], ids=["same file", "another file"])
def test_the_best_leftover_is_used(tmp_path: Path, other: Identity, size: int) -> None:
    """Of two leftovers of the same file the larger one is used, as the plan promised; one of another file is not."""
    left_behind(tmp_path, dead_owner(1), other, have=(0, 400))
    left_behind(tmp_path, dead_owner(2), WHO, have=(0, 100))
    assert claimed_bytes(tmp_path, KEY, WHO) == size
    assert opened(tmp_path).total == size
    assert len(list(tmp_path.iterdir())) == 1


def test_folder_of_an_odd_name_is_survived(tmp_path: Path) -> None:
    """A folder nobody of mdl's made is either left alone, or another's: never a fault of mdl's."""
    odd = tmp_path / f"{KEY}.tmp"
    odd.mkdir()
    (odd / "journal").touch()
    with contextlib.suppress(Busy):
        opened(tmp_path)


@pytest.mark.parametrize("pid", ["9" * 30, "²"])
def test_impossible_process_is_not_alive(pid: str) -> None:
    """A process id no system has belongs to nobody who lives."""
    machine, _, _, space = str(ProcessId.current()).split("-")
    assert not ProcessId(f"{machine}-{pid}-1-{space}").is_alive()


def test_zombie_is_not_alive() -> None:
    """A process that has ended but was not waited for (as in many a container) holds nothing any more."""
    program = (
        "import sys; from mdl.process import ProcessId; print(str(ProcessId.current()), flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        name = child.stdout.readline().decode().strip()
        assert ProcessId(name).is_alive() is True
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert ProcessId(name).is_alive() is False


def test_rewind_counts_and_forgets(tmp_path: Path) -> None:
    """Beginning anew tells how many bytes were thrown away, and leaves none of them claimed."""
    partial = opened(tmp_path)
    partial.write(0, b"x" * 400)
    partial.sync_and_claim()
    partial.write(400, b"x" * 50)
    partial.note_validator("https://cdn:443", '"a"')
    assert partial.rewind(WHO) == 450
    assert (partial.total, partial.front, partial.unclaimed, claimed(partial)) == (0, 0, 0, 0)
    assert partial.validators == {}
    partial.write(0, b"y" * 10)
    partial.sync_and_claim()
    partial.close()
    assert opened(tmp_path).total == 10


def test_old_claims_are_gone_for_good_before_new_bytes_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal begun anew is on the disk itself before bytes it does not know replace those it claimed."""
    partial, synced = opened(tmp_path), set[int]()
    partial.write(0, b"x" * 400)
    partial.sync_and_claim()
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def spy(fd: int, real: object = real) -> None:
            synced.add(os.fstat(fd).st_ino)
            real(fd)  # type: ignore[operator]

        monkeypatch.setattr(os, name, spy)
    partial.rewind(WHO)
    assert (partial.folder / "journal").stat().st_ino in synced


@pytest.mark.fault(250)
def test_more_than_the_file_has_is_not_gone_on_with(tmp_path: Path) -> None:
    """A partial of a file of unknown size that got more bytes than the file turns out to have is begun anew, and what
    it has counts for nothing before."""
    folder = left_behind(tmp_path, dead_owner(), replace(WHO, size=None), (0, 400))
    assert [claimed_bytes(tmp_path, KEY, replace(WHO, size=size)) for size in (400, 399)] == [400, 0]
    partial = Partial.open(tmp_path, KEY, replace(WHO, size=399))
    assert (partial.total, partial.dropped, folder.exists()) == (0, 400, False)
    assert "has 399 bytes, and 400 had come" in partial.dropped_why


@pytest.mark.fault(251)
def test_a_long_journal_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that grows towards the bound is made short again when it is gone on with, and claims the same."""
    folder = left_behind(tmp_path, dead_owner())
    before = claimed_bytes(tmp_path, KEY, WHO)
    journal = folder / "journal"
    first, *rest = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(first + b"".join(rest) * 50)
    monkeypatch.setattr("mdl.engine.journal.LARGEST", journal.stat().st_size)
    long = journal.stat().st_size
    partial = opened(tmp_path)
    assert (partial.total, partial.dropped) == (before, 0)
    assert (partial.folder / "journal").stat().st_size < long // 4
