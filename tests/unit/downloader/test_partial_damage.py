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

from mdl import crc_json
from mdl.bounds import LARGEST_RECORD
from mdl.disk.process import ProcessId
from mdl.downloader.journal import Identity
from mdl.downloader.partial import Partial
from mdl.downloader.partial_folders import claimed_bytes
from mdl.errors import Busy


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The folder of a dead process, which claimed 400 bytes."""
    return left_behind(tmp_path, dead_owner())


@pytest.mark.fault(148)
def test_cut_data_is_not_believed(tmp_path: Path, left: Path) -> None:
    """If the data is shorter than what was claimed, only what is still there counts, also when the file was stretched
    with zeros and is opened once more. The lost bytes are reported as dropped."""
    os.truncate(left / "data", 150)
    partial = opened(tmp_path)
    assert (partial.total, partial.dropped) == (150, 250)
    partial.close()
    assert opened(tmp_path).total == 150


@pytest.mark.fault(177)
def test_link_in_place_of_the_data_is_not_followed(tmp_path: Path, left: Path) -> None:
    """A link under the data's name is not followed: its target keeps its bytes."""
    (tmp_path / "precious").write_bytes(b"p" * 10)
    (left / "data").unlink()
    (left / "data").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        opened(tmp_path)
    assert (tmp_path / "precious").read_bytes() == b"p" * 10


@pytest.mark.parametrize(
    ("other", "size"),
    [(WHO, 400), (replace(WHO, size=None), 400), (OTHER, 100)],
    ids=["same file", "same file, size unknown then", "another file"],
)
def test_the_best_leftover_is_used(tmp_path: Path, other: Identity, size: int) -> None:
    """Of two leftovers of the same file the larger one is used, as the plan promised; one of another file is not."""
    left_behind(tmp_path, dead_owner(1), other, have=(0, 400))
    left_behind(tmp_path, dead_owner(2), WHO, have=(0, 100))
    assert claimed_bytes(tmp_path, KEY, WHO) == size
    assert opened(tmp_path).total == size
    assert len(list(tmp_path.iterdir())) == 1


NAMELESS = replace(WHO, digest=None)


@pytest.mark.fault(149, 250)
@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (OTHER, WHO, "another digest"),
        (NAMELESS, NAMELESS, "without a digest or a strong validator"),
        (replace(WHO, size=None), replace(WHO, size=399), "has 399 bytes, and 400 had come"),
        (WHO, replace(WHO, size=2 * SIZE), f"has {2 * SIZE} bytes now; it had {SIZE}"),
        (replace(NAMELESS, validator='"a"'), replace(NAMELESS, validator='"b"'), "has changed"),
    ],
)
def test_what_cannot_be_resumed_is_dropped(tmp_path: Path, old: Identity, new: Identity, why: str) -> None:
    """Another file, one that nothing tells apart from another, one that got more bytes than it turns out to have, and
    one that changed are begun anew. No byte of it counts before, or is left, and the report says why."""
    left_behind(tmp_path, dead_owner(), old)
    assert claimed_bytes(tmp_path, KEY, new) == 0
    partial = Partial.open(tmp_path, KEY, new)
    assert (partial.total, partial.dropped, claimed(partial)) == (0, 400, 0)
    assert why in partial.dropped_why
    assert os.pread(partial.fd, 400, 0) == b""


def test_folder_of_an_odd_name_is_survived(tmp_path: Path) -> None:
    """A folder that mdl did not make is left alone or counts as another process's; it is never an error of mdl."""
    (tmp_path / f"{KEY}.tmp").mkdir()
    (tmp_path / f"{KEY}.tmp" / "journal").touch()
    with contextlib.suppress(Busy):
        opened(tmp_path)


@pytest.mark.parametrize("pid", ["9" * 30, "²"])
def test_impossible_process_is_not_alive(pid: str) -> None:
    """A process id that no system has is not that of a living process."""
    machine, _, _, space = str(ProcessId.current()).split("-")
    assert not ProcessId(f"{machine}-{pid}-1-{space}").is_alive()


def test_zombie_is_not_alive() -> None:
    """A process that has ended and was not waited for, as in many containers, holds nothing any more."""
    program = (
        "import sys; from mdl.disk.process import ProcessId; "
        "print(str(ProcessId.current()), flush=True); sys.stdin.read()"
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


@pytest.mark.fault(251)
def test_a_long_journal_is_written_anew(tmp_path: Path, left: Path) -> None:
    """A journal that grows towards the bound is made short again when it is resumed, and claims the same."""
    with (left / "journal").open("ab") as journal:
        journal.write(crc_json.dumps({"origin": "https://h", "validator": "x" * 2**20}) * (LARGEST_RECORD // 2**21))
    partial = opened(tmp_path)
    assert (partial.total, partial.dropped) == (400, 0)
    assert (partial.folder / "journal").stat().st_size < LARGEST_RECORD // 8
