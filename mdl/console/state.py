"""State: where a download is after all events so far, and which events deserve a line that stays. Pure.

There is one `State` for each download. Bars, plain lines, JSON lines and the record of a job all read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from mdl.console.tally import Tally, in_brackets
from mdl.describe import describe
from mdl.events import (
    Ended,
    Event,
    Failed,
    Finished,
    Noticed,
    Planned,
    Progressed,
    Retrying,
    Rewound,
    Started,
    Verifying,
)
from mdl.formatting import counted, human_bytes, human_duration, human_rate, spelled
from mdl.reports import FailureSummary
from mdl.values import value_class

Key = tuple[str, str]
"""A file: the name of its model, and its path in it."""
_REST_OF_COMMIT = re.compile(r"(?<=@[0-9a-f]{7})[0-9a-f]{33}\b")
"""The part of a commit that people do not need."""
_LONG_CHECK = 500_000_000
"""A check of at least so many bytes has a line."""


@value_class
class Remark:
    """One line that stays. ``kind`` is that of the event, as in `Description`, or ``failure`` or ``summary``.

    A ``failure`` has the ``hint``, and the events that it sums up as ``failures``.
    """

    kind: str
    item: str
    text: str
    hint: str | None = None
    failures: tuple[Failed, ...] = ()


@dataclass(slots=True)
class FileState:
    """One file that has begun. ``done`` of ``total`` bytes are here; ``moved_at`` is when the last of them came, in
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
    """Where a download is. `take` every event in turn; everything else only reads.

    ``clock`` is in seconds. Files of at least ``large`` bytes have lines of their own; with ``verbose`` all have.
    """

    def __init__(self, clock: Callable[[], float], *, verbose: int = 0, large: float = float("inf")) -> None:
        self._clock = clock
        self._verbose = verbose
        self._large = 0 if verbose else large

        self.bytes_done = 0
        self.rate = 0.0
        """Bytes per second, over the last seconds."""
        self.eta: float | None = None
        """Seconds that are left, if that is known."""
        self.has_plan = False
        """It is known how much there is to do."""
        self.has_moved = False
        """Some bytes have come."""
        self.is_measured = False
        """Progress was reported, with a speed. Before that there is only the plan."""
        self.file_count = 0
        self.files: dict[Key, FileState] = {}
        """Every file that has begun, also if it is over."""
        self.running: dict[Key, FileState] = {}
        self.outage = ""
        """What has failed for a minute or longer, if no byte has come since."""
        self.whole_total = 0
        """The bytes of all files, as far as their sizes are known."""
        self._has_unknown_size = False
        self._finished: set[Key] = set()
        self._members_done = 0
        """Members of an archive that are done: they have no events of their own."""
        self._read_now: Key | None = None
        """A file that was here already and is read. Such files are read one after the other."""

        self._began_at: float | None = None
        self._has_started = False
        self._spellings: dict[str, str] = {}
        """Of each model its name as people read it."""
        self._expected: dict[str, int] = {}
        """Of each model the number of its files."""
        self._tallies: dict[str, Tally] = {}
        self._untold: dict[str, Finished | None] = {}
        """The models that have no line yet, each with the file of it that finished last."""
        self._failures: dict[str, list[Failed]] = {}
        """Of each model the files that failed and were not told yet."""
        self._lost_models: set[str] = set()
        self._new_bytes: dict[Key, int] = {}
        """Of files that have begun: the bytes that came from the network, less those that are still to come."""
        self._has_news = False
        """Something was done. Before that, what is kept may be all there is to tell."""
        self._long_check: Key | None = None
        self._told_outages: set[Key] = set()
        self._hosts: set[str] = set()
        self._connections = 0

    # --- what printers read ------------------------------------------------------------------------------------

    @property
    def bytes_total(self) -> int | None:
        """The bytes of all files; None while the size of one is not known."""
        is_possible = 0 < self.whole_total >= self.bytes_done
        return self.whole_total if is_possible and not self._has_unknown_size else None

    @property
    def is_of_one_model(self) -> bool:
        """All files are of the same model, so that its name need not be said with each."""
        return len(self._expected) == 1

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

    def item(self, event: Event) -> str:
        """Model and file of ``event`` as people read them."""
        return self._item(event.model, event.file)

    # --- what happened -----------------------------------------------------------------------------------------

    def take(self, event: Event) -> list[Remark]:
        """Take in what happened. Returns what deserves a line now."""
        self._begin(event)
        if event.model and event.repo:
            self._spellings[event.model] = spelled(event.model, event.repo)
        match event:
            case Planned():
                return self._planned(event)
            case Started():
                return self._started(event)
            case Progressed():
                self._progressed(event)
                return []
            case Verifying():
                return self._verifying(event)
            case Retrying():
                return self._retrying(event)
            case Rewound():
                return self._rewound(event)
            case Finished():
                return self._finish(event)
            case Failed():
                return self._failed(event)
            case Ended():
                return self._ended(event)
        return [self._remark(event)]

    def _begin(self, event: Event) -> None:
        """Measure from the first file that begins; until then, from the first event that says more than a notice."""
        if isinstance(event, Started) and not self._has_started:
            self._has_started = True
            self._began_at = self._clock()
        elif self._began_at is None and not isinstance(event, Noticed):
            self._began_at = self._clock()

    def _planned(self, event: Planned) -> list[Remark]:
        self.has_plan = True
        self.file_count = event.files
        self.bytes_done = event.bytes_kept
        self.whole_total = event.bytes_total
        self._expected.update(event.models)
        remarks = [self._remark(event)] if event.files else []
        return remarks + self._models_that_are_over()

    def _started(self, event: Started) -> list[Remark]:
        self.file_count = max(self.file_count, event.count)
        key = (event.model, event.file)
        state = self._running(key)
        state.index = event.index or None
        state.done = event.resumed_at
        state.total = event.total
        state.moved_at = self._clock()
        state.is_part_of_whole = True
        state.is_checked = False
        state.waits_for = ""
        self._finished.discard(key)
        self._has_news = True
        self._new_bytes[key] = -event.resumed_at
        total = event.total or 0
        is_resumed = 0 < event.resumed_at < total
        return [self._remark(event, event.host)] if is_resumed or total >= self._large else []

    def _progressed(self, event: Progressed) -> None:
        if event.bytes_done > self.bytes_done:
            self.outage = ""
            self._told_outages.clear()
        self.bytes_done = event.bytes_done
        self.whole_total = event.bytes_total
        self.has_plan = True
        self.has_moved = self.has_moved or event.bytes_per_second > 0
        self.rate = event.bytes_per_second
        self.eta = event.eta_seconds
        self.is_measured = True
        self._members_done = event.files_done
        self._connections = max(self._connections, event.connections)
        self._has_unknown_size = any(file.total is None for file in event.files)
        seen = {(file.model, file.file) for file in event.files}
        for key, state in list(self.running.items()):
            if key not in seen and not state.is_checked and not state.waits_for:
                del self.running[key]
        for file in event.files:
            state = self._running((file.model, file.file))
            state.index = file.index or None
            state.total = file.total
            state.is_part_of_whole = True
            has_moved = file.done != state.done
            state.done = file.done
            is_complete = file.total is None or file.done >= file.total
            is_still_checked = state.is_checked and is_complete
            if has_moved and not is_still_checked:
                state.moved_at = self._clock()
                state.is_checked = False
                state.waits_for = ""

    def _verifying(self, event: Verifying) -> list[Remark]:
        key = (event.model, event.file)
        if self._read_now is not None and self._read_now != key:
            self.running.pop(self._read_now, None)
        is_downloaded = key in self.running and key != self._read_now
        self._read_now = None if is_downloaded else key
        state = self._running(key)
        state.is_checked = True
        state.waits_for = ""
        state.checked = event.done
        if event.total is not None:
            state.total = event.total
        is_long = (event.total or 0) - event.done >= _LONG_CHECK
        if not is_long or self._long_check == key:
            return []
        self._long_check = key
        return [self._remark(event)]

    def _retrying(self, event: Retrying) -> list[Remark]:
        if event.outage:
            self.outage = event.outage
        if event.file:
            self._running((event.model, event.file)).waits_for = describe(event).text
        if event.attempt and not self._verbose and not self._is_worth_a_line(event):
            return []
        return [self._remark(event)]

    def _is_worth_a_line(self, event: Retrying) -> bool:
        """An outage has a line when it begins, and another one when it has become long; not one for each attempt."""
        cause = event.why.partition(": ")[0]
        stage = "long" if event.outage else "short"
        if (cause, stage) in self._told_outages or (cause, "long") in self._told_outages:
            return False
        self._told_outages.add((cause, stage))
        return True

    def _rewound(self, event: Rewound) -> list[Remark]:
        key = (event.model, event.file)
        state = self._running(key)
        lost = min(state.done, event.bytes_discarded)
        state.done -= lost
        if state.is_part_of_whole:
            self.bytes_done = max(0, self.bytes_done - lost)
        if key in self._new_bytes:
            self._new_bytes[key] += event.bytes_discarded
        return [self._remark(event)]

    def _finish(self, event: Finished) -> list[Remark]:
        key = (event.model, event.file)
        file = self.running.pop(key, None)
        if file is not None and file.is_part_of_whole:
            size = event.size if file.total is None else file.total
            self.bytes_done += max(0, size - file.done)
            file.done = size
        self._finished.add(key)
        if event.action != "kept":
            self._has_news = True
        new_bytes = self._new_bytes.pop(key, None)
        is_fetched = event.action == "fetched"
        fetched = event.size + new_bytes if is_fetched and new_bytes is not None else 0
        self._tally(event.model).add(event, fetched)
        if event.model in self._untold:
            self._untold[event.model] = event
        if is_fetched and event.source:
            self._hosts.add(event.source)
        remarks = []
        if event.size >= self._large and (event.action != "kept" or self._verbose):
            remarks.append(self._remark(event, event.source))
        return remarks + self._models_that_are_over()

    def _failed(self, event: Failed) -> list[Remark]:
        self.running.pop((event.model, event.file), None)
        self._finished.discard((event.model, event.file))
        self._has_news = True
        if not event.file:
            self._lost_models.add(event.model)
            return [self._failure(event)]
        self._failures.setdefault(event.model, []).append(event)
        self._tally(event.model).failed += 1
        return self._models_that_are_over()

    def _ended(self, event: Ended) -> list[Remark]:
        """What is left to be told, and how all went."""
        if event.status in ("cancelled", "paused"):
            remarks = [remark for model in list(self._failures) for remark in self._files_that_failed(model)]
            at = f" at {self.amount}" if self.whole_total else ""
            return [*remarks, Remark("ended", "", event.status + at)]
        remarks = self._models_that_are_over(is_end=True)
        summary = self._summary()
        return [*remarks, Remark("summary", "", summary)] if summary else remarks

    def _running(self, key: Key) -> FileState:
        """The file, which is running from now on."""
        if key not in self.running:
            if key not in self.files:
                self.files[key] = FileState(*key, self._item(*key))
            self.files[key].moved_at = self._clock()
            self.running[key] = self.files[key]
        return self.running[key]

    def _tally(self, model: str) -> Tally:
        if model not in self._tallies:
            self._tallies[model] = Tally()
            self._untold[model] = None
        return self._tallies[model]

    # --- lines -------------------------------------------------------------------------------------------------

    def _item(self, model: str, file: str) -> str:
        return "/".join(part for part in (self._spellings.get(model, model), file) if part)

    def _remark(self, event: Event, source: str = "") -> Remark:
        """The line of one event. ``source`` is where the bytes come from, a host or a path: for the verbose."""
        description = describe(event)
        item = self.item(event)
        text = description.text
        if isinstance(event, Retrying):
            item = _REST_OF_COMMIT.sub("", item)
        if self._verbose and source:
            text += f": {source}" if source.startswith("/") else f"  from {source}"
        return Remark(description.kind, item, text)

    def _failure(self, event: Failed) -> Remark:
        item = event.item or self.item(event)
        if item == event.model or item.startswith(f"{event.model}/"):
            item = self._item(event.model, item[len(event.model) + 1 :])
        return Remark("failure", item, event.message, event.hint, (event,))

    def _models_that_are_over(self, *, is_end: bool = False) -> list[Remark]:
        """A line for each model of which every file is over. Files that were here already wait until there is news."""
        if not self._has_news:
            return []
        remarks = []
        for model, last in list(self._untold.items()):
            tally = self._tallies[model]
            are_all_over = tally.files + tally.failed >= self._expected.get(model, float("inf"))
            if not is_end and not are_all_over:
                continue
            del self._untold[model]
            remarks += self._files_that_failed(model)
            if tally.files and tally.failed:
                text = f"{tally.failed:,} of {counted(tally.files + tally.failed, 'file')} failed"
                remarks.append(Remark("failed", self._item(model, ""), text))
            elif tally.files > 1:
                remarks.append(Remark("finished", self._item(model, ""), tally.text))
            elif last is not None and tally.size < self._large:
                remarks.append(self._remark(last))
        return remarks

    def _files_that_failed(self, model: str) -> list[Remark]:
        """One line for each reason for which files of the model failed that were not told yet."""
        by_reason: dict[str, list[Failed]] = {}
        for event in self._failures.pop(model, ()):
            by_reason.setdefault(event.message, []).append(event)
        tally = self._tallies[model]
        count = self._expected.get(model, tally.files + tally.failed)
        remarks = []
        for reason, events in by_reason.items():
            if len(events) == 1:
                remarks.append(self._failure(events[0]))
                continue
            summary = FailureSummary(model, reason, tuple(event.file for event in events), count)
            item = self._item(model, "")
            remarks.append(Remark("failure", item, summary.message, events[0].hint, tuple(events)))
        return remarks

    def _summary(self) -> str:
        """One sentence on how all went; nothing if no file came, or if it was no download."""
        total = Tally.sum(self._tallies.values())
        if not total.files or not total.is_of_a_download:
            return ""
        lost = []
        if total.failed:
            lost.append(counted(total.failed, "file"))
        if self._lost_models:
            lost.append(counted(len(self._lost_models), "model"))
        if set(total.ways) == {"kept"}:
            verb = "is" if total.files == 1 else "are"
            files = f"{counted(total.files, 'file')}, {human_bytes(total.size)}"
            text = f"{files} {verb} here{in_brackets(total.weakly_checked)}"
            if not lost:
                text = f"nothing to do: {text}"
        else:
            seconds = 0.0 if self._began_at is None else self._clock() - self._began_at
            text = total.sentence(seconds)
        if lost:
            text = f"{' and '.join(lost)} failed; {text}"
        if self._verbose and self._hosts:
            text += f", from {', '.join(sorted(self._hosts))}"
            if self._connections:
                text += f" over at most {counted(self._connections, 'connection')}"
        return text
