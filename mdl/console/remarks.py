"""Remarks: the lines of a download that stay, one of them for many files. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mdl.console.state import Key, State
from mdl.describe import CHECKS, SENT, WAYS, describe
from mdl.events import (
    Ended,
    Event,
    Failed,
    Finished,
    Planned,
    Progressed,
    Retrying,
    Rewound,
    Started,
    Verifying,
)
from mdl.formatting import counted, human_bytes, human_elapsed, human_rate
from mdl.reports import FailureSummary
from mdl.values import value_class

_WAYS = {"kept": "already here", **WAYS}
_DOWNLOADED = {"fetched", "linked", *_WAYS}
"""The actions of a download, and how files come from this disk."""
_REST_OF_COMMIT = re.compile(r"(?<=@[0-9a-f]{7})[0-9a-f]{33}\b")
"""The part of a commit that people do not need."""
_LONG_CHECK = 500_000_000
"""A check of at least so many bytes has a line."""


@value_class
class Remark:
    """A line that stays. ``kind`` is that of the event, as in `Description`, or ``failure`` or ``summary``.

    A ``failure`` has the ``hint``, and the events that it sums up as ``failures``.
    """

    kind: str
    item: str
    text: str
    hint: str | None = None
    failures: tuple[Failed, ...] = ()


@dataclass(eq=False, repr=False)
class Tally:
    """How some files ended. Sizes are in bytes; ``fetched`` bytes came from the network."""

    files: int = 0
    failed: int = 0
    size: int = 0
    fetched: int = 0
    ways: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)

    def add(self, event: Finished, fetched: int) -> None:
        self.files += 1
        self.size += event.size
        self.fetched += fetched
        self.ways[event.way or event.action] += 1
        self.checks[event.verified] += 1

    def merge(self, other: Tally) -> None:
        self.files += other.files
        self.failed += other.failed
        self.size += other.size
        self.fetched += other.fetched
        self.ways += other.ways
        self.checks += other.checks

    @property
    def are_all_here(self) -> bool:
        """True if every file was here before."""
        return self.ways.keys() == {"kept"}

    @property
    def is_of_a_download(self) -> bool:
        """True if there are files and all came as those of a download do."""
        return self.files > 0 and self.ways.keys() <= _DOWNLOADED

    @property
    def hashes(self) -> str:
        """The algorithms of the digests that were compared: ``sha256 and git-sha1``."""
        algorithms = self.checks.keys() - {*CHECKS, ""}
        return " and ".join(sorted(algorithms, reverse=True))

    @property
    def weakly_checked(self) -> str:
        """How many files were compared with no digest: ``1 checked only by size``; nothing if there are none."""
        return self._shares(self.checks, CHECKS)

    @property
    def text(self) -> str:
        """How a model went: ``2,000 files  3.1 MB  sha256 ok  5 already here``."""
        checked = self.weakly_checked
        if self.hashes:
            checked = f"{self.hashes} ok{_in_brackets(self.weakly_checked)}"
        came = self._shares(self.ways, _WAYS | SENT)
        parts = [counted(self.files, "file"), human_bytes(self.size), checked, came]
        return "  ".join(part for part in parts if part)

    def sentence(self, seconds: float) -> str:
        """How all went: ``101 files, 400.1 MB in 31 s, 13 MB/s, verified by sha256 (1 checked only by size)``."""
        text = f"{counted(self.files, 'file')}, {human_bytes(self.size)}"
        if not self.fetched:
            text += f" {self._from_this_disk}"
        elif human_bytes(self.fetched) != human_bytes(self.size):
            text += f", {human_bytes(self.fetched)} of it fetched"
        text += f" in {human_elapsed(seconds)}"
        if self.fetched and seconds >= 0.05:
            text += f", {human_rate(self.fetched / seconds)}"
        if self.hashes:
            text += f", verified by {self.hashes}{_in_brackets(self.weakly_checked)}"
        elif self.weakly_checked:
            text += f", {self.weakly_checked}"
        return text

    @property
    def _from_this_disk(self) -> str:
        """How the files came if none was fetched: ``hard-linked, read-only``, or ``from this disk`` if not all came the
        same way."""
        ways = [words for way, words in WAYS.items() if self.ways[way]]
        return ways[0] if len(ways) == 1 else "from this disk"

    def _shares(self, counts: Counter[str], words: dict[str, str]) -> str:
        """``3 cloned, 2 already here``; the word alone if it is true of all files."""
        shares = []
        for key, word in words.items():
            if counts[key] == self.files and self.files:
                shares.append(word)
            elif counts[key]:
                shares.append(f"{counts[key]:,} {word}")
        return ", ".join(shares)


class Remarks:
    """Decides which events deserve a line, and remembers for that what was said, what failed and what finished.

    `of` every event in turn, after ``state`` has taken it in. Files of at least ``large`` bytes have lines of their
    own; with ``verbose`` all have.
    """

    def __init__(self, state: State, clock: Callable[[], float], *, large: float, verbose: int = 0) -> None:
        self._state = state
        self._clock = clock
        self._verbose = verbose
        self._large = 0 if verbose else large
        self._began_at = clock()
        """When the first file began; until then, when the download did."""
        self._has_started = False
        self._has_news = False
        """Something was done. Before that, what is kept may be all there is to say."""
        self._expected: dict[str, int] = {}
        """Number of files of each model."""
        self._tallies: dict[str, Tally] = {}
        self._last_finished: dict[str, Finished | None] = {}
        """The models that have no line yet, each with the file of it that finished last."""
        self._failures: dict[str, list[Failed]] = {}
        """Files of each model whose failure was not said yet."""
        self._lost_models: set[str] = set()
        self._new_bytes: dict[Key, int] = {}
        """Of each file that has begun the bytes that were discarded, less those that were here. With its size they make
        the bytes that came from the network."""
        self._long_check: Key | None = None
        self._said_outages: set[Key] = set()
        self._bytes_done = 0
        self._hosts: set[str] = set()
        self._connections = 0

    def of(self, event: Event) -> list[Remark]:
        """Return the lines that the event deserves."""
        of_kind = _OF.get(type(event), Remarks._of_any)
        return of_kind(self, event)

    def _of_any(self, event: Event) -> list[Remark]:
        return [self._remark(event)]

    def _planned(self, event: Planned) -> list[Remark]:
        self._expected.update(event.models)
        self._bytes_done = event.bytes_kept
        remarks = [self._remark(event)] if event.files else []
        return remarks + self._models_that_are_over()

    def _started(self, event: Started) -> list[Remark]:
        self._has_news = True
        if not self._has_started:
            self._has_started = True
            self._began_at = self._clock()
        self._new_bytes[event.model, event.file] = -event.resumed_at
        total = event.total or 0
        is_resumed = 0 < event.resumed_at < total
        return [self._remark(event, event.host)] if is_resumed or total >= self._large else []

    def _progressed(self, event: Progressed) -> list[Remark]:
        if event.bytes_done > self._bytes_done:
            self._said_outages.clear()
        self._bytes_done = event.bytes_done
        self._connections = max(self._connections, event.connections)
        return []

    def _verifying(self, event: Verifying) -> list[Remark]:
        key = (event.model, event.file)
        is_long = (event.total or 0) - event.done >= _LONG_CHECK
        if not is_long or self._long_check == key:
            return []
        self._long_check = key
        return [self._remark(event)]

    def _retrying(self, event: Retrying) -> list[Remark]:
        """An outage has a line when it begins, and another one when it has become long; not one for each attempt."""
        if event.attempt and not self._verbose:
            cause = event.why.partition(": ")[0]
            stage = "long" if event.outage else "short"
            if (cause, stage) in self._said_outages or (cause, "long") in self._said_outages:
                return []
            self._said_outages.add((cause, stage))
        remark = self._remark(event)
        return [Remark(remark.kind, _REST_OF_COMMIT.sub("", remark.item), remark.text)]

    def _rewound(self, event: Rewound) -> list[Remark]:
        key = (event.model, event.file)
        if key in self._new_bytes:
            self._new_bytes[key] += event.bytes_discarded
        return [self._remark(event)]

    def _finished(self, event: Finished) -> list[Remark]:
        new_bytes = self._new_bytes.pop((event.model, event.file), None)
        fetched = 0
        if event.action == "fetched":
            if new_bytes is not None:
                fetched = event.size + new_bytes
            if event.source:
                self._hosts.add(event.source)
        self._tally(event.model).add(event, fetched)
        if event.model in self._last_finished:
            self._last_finished[event.model] = event
        is_news = event.action != "kept"
        self._has_news = self._has_news or is_news
        remarks = []
        if event.size >= self._large and (is_news or self._verbose):
            remarks.append(self._remark(event, event.source))
        return remarks + self._models_that_are_over()

    def _failed(self, event: Failed) -> list[Remark]:
        self._has_news = True
        if not event.file:
            self._lost_models.add(event.model)
            return [self._failure(event)]
        self._failures.setdefault(event.model, []).append(event)
        self._tally(event.model).failed += 1
        return self._models_that_are_over()

    def _ended(self, event: Ended) -> list[Remark]:
        """Return the lines that are left to be said, and how all went."""
        if event.status in ("cancelled", "paused"):
            remarks = []
            for model in list(self._failures):
                remarks += self._files_that_failed(model)
            at = f" at {self._state.amount}" if self._state.whole_total else ""
            return [*remarks, Remark("ended", "", event.status + at)]
        remarks = self._models_that_are_over(is_end=True)
        summary = self._summary()
        return [*remarks, Remark("summary", "", summary)] if summary else remarks

    def _tally(self, model: str) -> Tally:
        if model not in self._tallies:
            self._tallies[model] = Tally()
            self._last_finished[model] = None
        return self._tallies[model]

    def _remark(self, event: Event, source: str = "") -> Remark:
        """Return the line of one event. ``source`` is where the bytes come from, a host or a path: for the verbose."""
        description = describe(event)
        text = description.text
        if self._verbose and source:
            text += f": {source}" if source.startswith("/") else f"  from {source}"
        return Remark(description.kind, self._state.item(event.model, event.file), text)

    def _failure(self, event: Failed) -> Remark:
        item = event.item or self._state.item(event.model, event.file)
        if item == event.model or item.startswith(f"{event.model}/"):
            item = self._state.item(event.model, item[len(event.model) + 1 :])
        return Remark("failure", item, event.message, event.hint, (event,))

    def _models_that_are_over(self, *, is_end: bool = False) -> list[Remark]:
        """Return a line for each model whose files are all over. Files that were here before wait for news."""
        if not self._has_news:
            return []
        remarks = []
        for model, last in list(self._last_finished.items()):
            tally = self._tallies[model]
            are_all_over = tally.files + tally.failed >= self._expected.get(model, float("inf"))
            if not is_end and not are_all_over:
                continue
            del self._last_finished[model]
            remarks += self._files_that_failed(model)
            if tally.files and tally.failed:
                text = f"{tally.failed:,} of {counted(tally.files + tally.failed, 'file')} failed"
                remarks.append(Remark("failed", self._state.item(model, ""), text))
            elif tally.files > 1:
                remarks.append(Remark("finished", self._state.item(model, ""), tally.text))
            elif last is not None and tally.size < self._large:
                remarks.append(self._remark(last))
        return remarks

    def _files_that_failed(self, model: str) -> list[Remark]:
        """Return a line for each reason for which files of the model failed and that was not said yet."""
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
            item = self._state.item(model, "")
            remarks.append(Remark("failure", item, summary.message, events[0].hint, tuple(events)))
        return remarks

    def _summary(self) -> str:
        """Say in one sentence how all went; nothing if no file came, or if it was no download."""
        total = Tally()
        for tally in self._tallies.values():
            total.merge(tally)
        if not total.is_of_a_download:
            return ""
        lost = []
        if total.failed:
            lost.append(counted(total.failed, "file"))
        if self._lost_models:
            lost.append(counted(len(self._lost_models), "model"))
        if total.are_all_here:
            verb = "is" if total.files == 1 else "are"
            files = f"{counted(total.files, 'file')}, {human_bytes(total.size)}"
            text = f"{files} {verb} here{_in_brackets(total.weakly_checked)}"
            if not lost:
                text = f"nothing to do: {text}"
        else:
            text = total.sentence(self._clock() - self._began_at)
        if lost:
            text = f"{' and '.join(lost)} failed; {text}"
        if self._verbose and self._hosts:
            text += f", from {', '.join(sorted(self._hosts))}"
            if self._connections:
                text += f" over at most {counted(self._connections, 'connection')}"
        return text


_OF: dict[type[Event], Callable[[Remarks, Any], list[Remark]]] = {
    Planned: Remarks._planned,
    Started: Remarks._started,
    Progressed: Remarks._progressed,
    Verifying: Remarks._verifying,
    Retrying: Remarks._retrying,
    Rewound: Remarks._rewound,
    Finished: Remarks._finished,
    Failed: Remarks._failed,
    Ended: Remarks._ended,
}


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""
