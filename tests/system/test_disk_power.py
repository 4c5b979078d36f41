"""Power cuts: an ext4 of its own, shut down so that what was not synced is gone (faults, group G; root, MDL_LONG=1).

The control runs the same with syncs that do nothing: it must lose what mdl keeps, or the trial proves nothing. As the
machine itself goes on, the run before the cut is told of another boot than the one after it.
Run it alone, with -n 0: it is skipped if a test beside it takes a copy of the mounts, which keeps the dead file system
alive.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import faults
from support.data import MIB, noise, sha256
from support.faulty_server import FaultyServer
from support.polling import until
from support.shell import beside, machine

from mdl.downloader import journal

FILES = {"large": noise(24 * MIB), "small": noise(300_000, 1)}
TRIALS, SEED = 8, 126
_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN; with NOLOGFLUSH, 2, the file system stops at once and writes nothing more."""
_EARLIER_BOOT = "import mdl.disk.process as p; p.this_boot = lambda: 'b' * 12; "
_NO_SYNC = "import os; os.fsync = os.fdatasync = lambda _fd: None; "

pytestmark = [
    pytest.mark.skipif(os.environ.get("MDL_LONG") != "1", reason="power cuts; asked for with MDL_LONG=1"),
    pytest.mark.skipif(os.geteuid() != 0, reason="NO POWER CUTS: only root may mount an ext4"),
    pytest.mark.timeout(600),
]


class Disk:
    """An image file with an ext4 on it, mounted at ``place``."""

    def __init__(self, folder: Path) -> None:
        self.image, self.place = folder / "image", folder / "disk"
        self.place.mkdir()
        self.image.touch()
        os.truncate(self.image, 96 * MIB)
        words = ["mkfs.ext4", "-q", "-F", str(self.image)]
        if not shutil.which(words[0]) or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("NO POWER CUTS: no ext4 can be made here")
        self.mount()

    def mount(self) -> None:
        words = ["mount", "-o", "loop", str(self.image), str(self.place)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"NO POWER CUTS: {done.stderr.strip()}")
        try:
            (self.place / "probe").touch()
        except OSError:
            pytest.skip("NO POWER CUTS: a process with a copy of the mounts keeps the dead file system alive")

    def cut(self) -> None:
        """From now on nothing reaches the image, and whatever was not there yet is lost."""
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", 2))
        except OSError as error:
            pytest.skip(f"NO POWER CUTS: {error}")
        finally:
            os.close(fd)

    def clear(self) -> None:
        """Nothing of one trial comes back in the next one."""
        shutil.rmtree(self.place / "models")
        os.sync()

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.place)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    with contextlib.suppress(subprocess.CalledProcessError):
        made.unmount()


@dataclass
class Cut:
    """What a power cut left: bytes that journals claim, of them wrong ones; the final names that are there."""

    claimed: int = 0
    false: int = 0
    finals: int = 0
    wrong: int = 0


def look(models: Path) -> Cut:
    found = Cut()
    for place in models.glob(".mdl/partials/*/journal"):
        record, file = journal.load(place), place.with_name("data")
        data = file.read_bytes() if file.exists() else b""
        for item in record.have if record else ():
            found.claimed += item.length
            found.false += data[item.start : item.stop] != FILES["large"][item.start : item.stop]
    for name, data in FILES.items():
        with contextlib.suppress(FileNotFoundError):
            found.wrong += (models / "m" / name).read_bytes() != data
            found.finals += 1
    return found


def trial(disk: Disk, home: Path, after: int, before: str = "") -> tuple[Cut, int, int]:
    """Cut the power once ``after`` bytes were sent; what was left, and how the next run went: code, bytes resumed."""
    models, right = disk.place / "models", {f"/{name}": faults.honest(data) for name, data in FILES.items()}
    slow = faults.trickle(right["/large"], piece=faults.PIECE, pause=0.06)  # 1.1 MB a second on each connection
    with FaultyServer(faults.routes(right | {"/large": slow})) as server:
        files = "".join(
            f'[[models.m.files]]\npath = "{name}"\nurl = "{server.url}/{name}"\n'
            f'size = {len(data)}\nsha256 = "{sha256(data)}"\n'
            for name, data in FILES.items()
        )
        shell = machine(home, f"schema = 1\n[models.m]\n{files}")
        words = ("get", "m", "--to", str(models), "-q", "--connections", "4")
        code = f"{_EARLIER_BOOT}{before}from mdl.__main__ import main; main()"
        with beside(shell, sys.executable, "-c", code, *words) as process:
            until(lambda: server.bytes_sent >= after or process.poll() is not None)
            disk.cut()
        disk.unmount()
        disk.mount()
        found = look(models)
        server.handler = faults.routes(right)
        sent = server.bytes_sent
        ran = shell.run(*words[:-1], "1")  # a second connection may be sent what the first one was on its way to bring
        resumed = sum(map(len, FILES.values())) - (server.bytes_sent - sent)
    after_all = look(models)
    assert before or (after_all.finals, after_all.wrong) == (2, 0), ran.err
    disk.clear()
    return found, ran.code, resumed


@pytest.mark.fault(126)
def test_power_cuts(disk: Disk, tmp_path: Path) -> None:
    """No journal claims a byte that is not there, no final name has wrong bytes, and the next run goes on with what
    was synced."""
    chance, kept, sent = random.Random(SEED), 0, 0
    for number in range(TRIALS):
        after = chance.randrange(MIB, len(FILES["large"]))
        found, code, resumed = trial(disk, tmp_path / str(number), after)
        print(f"cut after {after}: {found}, resumed with {resumed}")
        assert (found.false, found.wrong, code) == (0, 0, 0), (after, found)
        assert resumed >= found.claimed
        kept, sent = kept + found.claimed, sent + after
    print(f"{kept} of {sent} bytes were kept")
    assert kept >= sent // 2


@pytest.mark.fault(126)
def test_power_cuts_without_syncs(disk: Disk, tmp_path: Path) -> None:
    """The control: without syncs the same cuts lose what was claimed, or leave claims of bytes that are not there."""
    chance, lost = random.Random(SEED), 0
    for number in range(TRIALS // 2):
        after = chance.randrange(4 * MIB, len(FILES["large"]))
        found, _, _ = trial(disk, tmp_path / str(number), after, _NO_SYNC)
        print(f"cut after {after} without syncs: {found}, {found.claimed} bytes were kept")
        lost += found.false > 0 or found.wrong > 0 or found.claimed < after // 4
    assert lost >= TRIALS // 4
