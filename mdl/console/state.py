"""State: where a download is after all events so far, in numbers. Pure.

There is one `State` for each download. Bars, plain lines, JSON lines and the record of a job all read it. Which events
deserve a line that stays is decided by `mdl.console.remarks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mdl.describe import describe
from mdl.events import Event, Failed, FileProgress, Finished, Planned, Progressed, Retrying, Rewound, Started, Verifying
from mdl.formatting import counted, human_bytes, human_duration, human_rate, spelled

Key = tuple[str, str]
"""A file: the name of its model, and its path in it."""


@dataclass(slots=True, eq=False, repr=False)
class FileState:
    """A file that has begun. ``done`` of ``total`` bytes are here; ``moved_at`` is when the last of them came, in
    seconds of the clock. While it ``is_checked``, ``checked`` bytes of it are compared with its digest."""

    model: str
    file: str
    item: str
    """Model and file as people read them."""
    index: int | None = None
    done: int = 0
    total: int | None = None
    moved_at: float = 0.0
    is_part_of_whole: bool = False
    """Its ``done`` bytes are among those of the whole. A file that is only read again is no part of it."""
    is_checked: bool = False
    checked: int = 0
    waits_for: str = ""
    """The next attempt, if the last one failed."""


class State:
    """Where a download is. `take` every event in turn; everything else only reads. ``clock`` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.bytes_done = 0
        self.whole_total = 0
        """The bytes of all files, as far as their sizes are known."""
        self.rate = 0.0
        """Bytes per second, over the last seconds."""
        self.has_plan = False
        """True once it is known how much there is to do."""
        self.has_moved = False
        """True once some bytes have come."""
        self.is_measured = False
        """True once progress was reported, with a speed. Before that there is only the plan."""
        self.outage = ""
        """The failure that has lasted for a minute or longer, if no byte has come since."""
        self.file_count = 0
        self.files: dict[Key, FileState] = {}
        """Every file that has begun, also if it is over."""
        self.running: dict[Key, FileState] = {}
        self._models: set[str] = set()
        """The models of the plan."""
        self._has_unknown_size = False
        self._finished: set[Key] = set()
        self._members_done = 0
        """Members of an archive that are done: they have no events of their own."""
        self._read_again: Key | None = None
        """A file that was here already and is read. Such files are read one after the other."""
        self._spellings: dict[str, str] = {}
        """The name of each model as people read it."""

    # --- what printers read ------------------------------------------------------------------------------------

    @property
    def bytes_total(self) -> int | None:
        """The bytes of all files; None while the size of one is not known."""
        if self._has_unknown_size or self.whole_total == 0 or self.whole_total < self.bytes_done:
            return None
        return self.whole_total

    @property
    def eta(self) -> float | None:
        """Seconds that are left at this speed; None while nothing moves, or while it is not known how much is left."""
        total = self.bytes_total
        if total is None or self.rate <= 0:
            return None
        return (total - self.bytes_done) / self.rate

    @property
    def is_of_one_model(self) -> bool:
        """True if all files are of the same model, so that its name need not be said with each."""
        return len(self._models) == 1

    @property
    def counted(self) -> str:
        """How many files are done: ``43/101 files``."""
        done = max(len(self._finished), self._members_done)
        return f"{done:,}/{counted(self.file_count, 'file')}"

    @property
    def amount(self) -> str:
        """``1.2 GB of 4.3 GB``."""
        return f"{human_bytes(self.bytes_done)} of {human_bytes(self.bytes_total)}"

    @property
    def speed(self) -> str:
        """``85.2 MB/s``."""
        return human_rate(self.rate)

    @property
    def time_left(self) -> str:
        """``4m 05s left``, or nothing if it is not known."""
        return "" if self.eta is None else f"{human_duration(self.eta)} left"

    def item(self, model: str, file: str) -> str:
        """A model, or a file of it, as people read it: ``org/model/file``."""
        return "/".join(part for part in (self._spellings.get(model, model), file) if part)

    # --- what happened -----------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Take in an event."""
        if event.model and event.repo:
            self._spellings[event.model] = spelled(event.model, event.repo)
        take_kind = _TAKE.get(type(event))
        if take_kind is not None:
            take_kind(self, event)

    def _planned(self, event: Planned) -> None:
        self.has_plan = True
        self.file_count = event.files
        self.bytes_done = event.bytes_kept
        self.whole_total = event.bytes_total
        self._models.update(model for model, _ in event.models)

    def _started(self, event: Started) -> None:
        self.file_count = max(self.file_count, event.count)
        file = self._run(event.model, event.file)
        file.index = event.index or None
        file.done = event.resumed_at
        file.total = event.total
        file.is_part_of_whole = True
        self._moved(file)
        self._finished.discard((event.model, event.file))

    def _progressed(self, event: Progressed) -> None:
        if event.bytes_done > self.bytes_done:
            self.outage = ""
        self.bytes_done = event.bytes_done
        self.whole_total = event.bytes_total
        self.rate = event.bytes_per_second
        self.has_plan = True
        self.has_moved = self.has_moved or event.bytes_per_second > 0
        self.is_measured = True
        self._members_done = event.files_done
        self._has_unknown_size = any(progress.total is None for progress in event.files)
        seen = {(progress.model, progress.file) for progress in event.files}
        for key, file in list(self.running.items()):
            if key not in seen and not file.is_checked and not file.waits_for:
                del self.running[key]
        for progress in event.files:
            self._file_progressed(progress)

    def _file_progressed(self, progress: FileProgress) -> None:
        file = self._run(progress.model, progress.file)
        has_moved = progress.done != file.done
        file.index = progress.index or None
        file.done = progress.done
        file.total = progress.total
        file.is_part_of_whole = True
        is_complete = progress.total is None or progress.done >= progress.total
        is_still_checked = file.is_checked and is_complete
        if has_moved and not is_still_checked:
            self._moved(file)

    def _verifying(self, event: Verifying) -> None:
        key = (event.model, event.file)
        is_downloaded = key in self.running and key != self._read_again
        if self._read_again is not None and self._read_again != key:
            self.running.pop(self._read_again, None)
        self._read_again = None if is_downloaded else key
        file = self._run(*key)
        file.is_checked = True
        file.checked = event.done
        file.waits_for = ""
        if event.total is not None:
            file.total = event.total

    def _retrying(self, event: Retrying) -> None:
        if event.outage:
            self.outage = event.outage
        if event.file:
            self._run(event.model, event.file).waits_for = describe(event).text

    def _rewound(self, event: Rewound) -> None:
        file = self._run(event.model, event.file)
        lost = min(file.done, event.bytes_discarded)
        file.done -= lost
        if file.is_part_of_whole:
            self.bytes_done = max(0, self.bytes_done - lost)

    def _finish(self, event: Finished) -> None:
        key = (event.model, event.file)
        self._finished.add(key)
        file = self.running.pop(key, None)
        if file is not None and file.is_part_of_whole:
            size = event.size if file.total is None else file.total
            self.bytes_done += max(0, size - file.done)
            file.done = size

    def _failed(self, event: Failed) -> None:
        self.running.pop((event.model, event.file), None)
        self._finished.discard((event.model, event.file))

    def _run(self, model: str, name: str) -> FileState:
        """The file, which is running from now on."""
        key = (model, name)
        if key in self.running:
            return self.running[key]
        if key not in self.files:
            self.files[key] = FileState(model, name, self.item(model, name))
        file = self.files[key]
        file.moved_at = self._clock()
        self.running[key] = file
        return file

    def _moved(self, file: FileState) -> None:
        """Bytes of the file have come: it is neither checked nor waiting."""
        file.moved_at = self._clock()
        file.is_checked = False
        file.waits_for = ""


_TAKE: dict[type[Event], Callable[[State, Any], None]] = {
    Planned: State._planned,
    Started: State._started,
    Progressed: State._progressed,
    Verifying: State._verifying,
    Retrying: State._retrying,
    Rewound: State._rewound,
    Finished: State._finish,
    Failed: State._failed,
}
