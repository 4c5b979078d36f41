"""Partials as a process leaves them: open one, leave one behind, look at what it claims."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from mdl.downloader import journal as journals
from mdl.downloader.journal import Identity
from mdl.downloader.partial import Partial
from mdl.net.ranges import ByteRange, RangeSet

KEY = "a" * 16
SIZE = 1000
WHO = Identity("https://h/m.bin", SIZE, "sha256:" + "ab" * 32, None, None)
OTHER = replace(WHO, digest="sha256:" + "cd" * 32)


@dataclass
class KnownBytes:
    """A partial without bytes that knows which ones it has."""

    is_in_order = False
    have: RangeSet = field(default_factory=RangeSet)

    @property
    def total(self) -> int:
        return self.have.total

    def gaps(self, size: int) -> list[ByteRange]:
        return self.have.gaps(size)


def opened(folder: Path, identity: Identity = WHO) -> Partial:
    partial = Partial.open(folder, KEY, identity)
    partial.set_length(SIZE)
    return partial


def claimed(partial: Partial) -> int:
    """How many bytes a second look would find after a kill."""
    record = journals.load(partial.folder / "journal")
    return record.have.total if record else 0


def on_disk(partial: Partial) -> int:
    """How many bytes a second look would find after a power cut."""
    record = journals.load(partial.folder / "journal")
    return record.on_disk.total if record else 0


@functools.cache
def dead_owner(_which: int = 1) -> str:
    """The name of a process of this machine that is gone; another one for another number."""
    child = subprocess.Popen(
        [sys.executable, "-c", "from mdl.disk.process import ProcessId; print(str(ProcessId.current()))"], stdout=-1
    )
    name = child.communicate()[0].decode().strip()
    assert child.returncode == 0
    return name


def left_behind(folder: Path, who: str, identity: Identity = WHO, have: tuple[int, int] = (0, 400)) -> Path:
    """A partial as the process ``who`` left it, of bytes 0x78."""
    making = folder / "making"
    partial = opened(making, identity)
    partial.write(have[0], b"x" * (have[1] - have[0]))
    partial.sync()
    partial.close()
    left = partial.folder.rename(folder / f"{KEY}.{who}")
    making.rmdir()
    return left
