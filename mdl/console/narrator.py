"""Narrator: which events deserve a line that stays, and what it says. The files of a model are told of together, in one
line; how it went as a whole comes last. Bars and plain lines tell the same story."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from mdl.console.failures import Clean, Failures
from mdl.describe import CHECKS, SENT, WAYS, ProgressState, describe, item_of
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
from mdl.formatting import counted, human_bytes, human_elapsed, human_rate
from mdl.values import value_class

_COMMIT = re.compile(r"(?<=@[0-9a-f]{7})[0-9a-f]{33}\b")
"""What of a commit is too much for people."""
_WAYS = {"kept": "already here", **WAYS}
_LONG_CHECK = 500_000_000
"""Bytes that are left to be hashed of a file, from which its check is worth a line."""
_CAME = {"fetched", "linked", *_WAYS}
"""The actions of a download, and the ways of a file from this disk."""


@value_class
class Remark:
    """One line: what kind of event it is about, as `Description.kind`, the item, and what is said of it. The text of a
    ``failure`` is whole lines; a ``summary`` is of the whole."""

    kind: str
    item: str
    text: str


@dataclass
class Tally:
    """What came of some files. Sizes are in bytes; ``fetched`` bytes came from the network."""

    files: int = 0
    failed: int = 0
    size: int = 0
    fetched: int = 0
    ways: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    last: Finished | None = None
    is_told: bool = False

    def add(self, event: Finished, fetched: int) -> None:
        self.files = self.files + 1
        self.size = self.size + event.size
        self.fetched = self.fetched + fetched
        self.last = event
        self.ways[event.way or event.action] += 1
        self.checks[event.verified] += 1

    @classmethod
    def of(cls, parts: Iterable[Tally]) -> Tally:
        """The sum of several."""
        whole = cls()
        for one in parts:
            whole.files = whole.files + one.files
            whole.failed = whole.failed + one.failed
            whole.size = whole.size + one.size
            whole.fetched = whole.fetched + one.fetched
            whole.ways += one.ways
            whole.checks += one.checks
        return whole

    @property
    def hashes(self) -> str:
        """The algorithms of the digests that were compared: ``sha256 and git-sha1``."""
        return " and ".join(sorted(set(self.checks) - {*CHECKS, ""}, reverse=True))

    @property
    def weak(self) -> str:
        """How many files could not be compared with a digest: ``1 checked only by size``; nothing if all could."""
        found = [(self.checks[one], words) for one, words in CHECKS.items() if self.checks[one]]
        return ", ".join(words if count == self.files else f"{count:,} {words}" for count, words in found)

    @property
    def text(self) -> str:
        """How a model went: ``2,000 files  3.1 MB  sha256 ok  5 already here``."""
        checked = f"{self.hashes} ok" + (f" ({self.weak})" if self.weak else "") if self.hashes else self.weak
        ways = [(self.ways[one], words) for one, words in (_WAYS | SENT).items() if self.ways[one]]
        came = ", ".join(words if count == self.files else f"{count:,} {words}" for count, words in ways)
        return "  ".join(filter(None, (counted(self.files, "file"), human_bytes(self.size), checked, came)))

    def sentence(self, seconds: float) -> str:
        """How all went: ``101 files, 400.1 MB in 31 s, 13 MB/s, verified by sha256 (1 checked only by size)``."""
        speed = f", {human_rate(self.fetched / seconds)}" if self.fetched and seconds >= 0.05 else ""
        size = human_bytes(self.size)
        fetched = human_bytes(self.fetched)
        part = ""
        if not self.fetched:
            ways = [words for way, words in WAYS.items() if self.ways[way]]
            part = f" {ways[0]}" if len(ways) == 1 else " from this disk"
        elif size != fetched:
            part = f", {fetched} of it fetched"
        checked = f"verified by {self.hashes}" + (f" ({self.weak})" if self.weak else "") if self.hashes else self.weak
        text = f"{counted(self.files, 'file')}, {size}{part} in {human_elapsed(seconds)}{speed}"
        return f"{text}, {checked}" if checked else text


class Narrator:
    """Feed it every event in turn, after ``state``. Files of at least ``large`` bytes have lines of their own; with
    ``verbose`` all have. ``clock`` is in seconds."""

    def __init__(
        self,
        state: ProgressState,
        clean: Clean,
        failures: Failures,
        clock: Callable[[], float],
        *,
        verbose: int = 0,
        large: float = float("inf"),
    ) -> None:
        self._state = state
        self._clean = clean
        self._failures = failures
        self._clock = clock
        self._verbose = verbose
        self._large = 0 if verbose else large
        self._began: float | None = None
        self._has_started = False
        self._expected: dict[str, int] = {}
        self._models: dict[str, Tally] = {}
        self._new: dict[tuple[str, str], int] = {}
        """Of files that have begun: the bytes that came from the network, less those that are still to come."""
        self._is_news = False
        """Something was done; before that, what is kept may be all there is to tell."""
        self._checking: tuple[str, str] | None = None
        self._lost: set[str] = set()
        """Models that failed as a whole."""
        self._hosts: set[str] = set()
        self._connections = 0
        self._bytes_done = 0
        self._told_outages: set[tuple[str, str]] = set()

    def remarks(self, event: Event) -> Iterator[Remark]:
        """What is worth a line now."""
        key = event.model, event.file
        is_first_byte = isinstance(event, Started) and not self._has_started
        if is_first_byte or (self._began is None and not isinstance(event, Noticed)):
            self._began = self._clock()
            self._has_started = is_first_byte
        match event:
            case Planned():
                self._expected.update(event.models)
                if event.files:
                    yield self._remark(event)
                yield from self._whole_models()
            case Started(total=total, resumed_at=resumed):
                self._is_news = True
                self._new[key] = -resumed
                if (total or 0) >= self._large or 0 < resumed < (total or 0):
                    yield self._remark(event, event.host)
            case Progressed(connections=count):
                self._connections = max(self._connections, count)
                if event.bytes_done > self._bytes_done:
                    self._told_outages.clear()
                self._bytes_done = event.bytes_done
            case Finished():
                yield from self._finished(event)
            case Failed():
                self._is_news = True
                if event.file:
                    self._failures.add(event)
                    self._models.setdefault(event.model, Tally()).failed += 1
                    yield from self._whole_models()
                else:
                    self._lost.add(event.model)
                    yield Remark("failure", item_of(event), self._failures.text(event))
            case Ended():
                yield from self._ended(event)
            case Retrying() if event.attempt and not self._verbose:
                if self._is_worth_a_line(event):
                    yield self._remark(event)
            case Verifying(done=done, total=total):
                if (total or 0) - done >= _LONG_CHECK and self._checking != key:
                    self._checking = key
                    yield self._remark(event)
            case _:
                if isinstance(event, Rewound) and key in self._new:
                    self._new[key] += event.bytes_discarded
                yield self._remark(event)

    def _is_worth_a_line(self, event: Retrying) -> bool:
        """The first failure of an outage is told, and once more that it is long; not each attempt."""
        what = event.why.partition(": ")[0]
        stage = "long" if event.outage else "short"
        if (what, stage) in self._told_outages or (what, "long") in self._told_outages:
            return False
        self._told_outages.add((what, stage))
        return True

    def _remark(self, event: Event, source: str = "") -> Remark:
        description = describe(event)
        item = _COMMIT.sub("", description.item) if isinstance(event, Retrying) else description.item
        more = f"{': ' if source.startswith('/') else '  from '}{source}" if self._verbose and source else ""
        return Remark(description.kind, self._clean(item), self._clean(description.text + more))

    def _finished(self, event: Finished) -> Iterator[Remark]:
        self._is_news = self._is_news or event.action != "kept"
        new = self._new.pop((event.model, event.file), None)
        tally = self._models.setdefault(event.model, Tally())
        tally.add(event, event.size + new if new is not None and event.action == "fetched" else 0)
        if event.action == "fetched" and event.source:
            self._hosts.add(event.source)
        if event.size >= self._large and (event.action != "kept" or self._verbose):
            yield self._remark(event, event.source)
        yield from self._whole_models()

    def _whole_models(self, *, is_over: bool = False) -> Iterator[Remark]:
        """A line for each model of which every file is over. What was here already waits until there is news."""
        for name, tally in self._models.items() if self._is_news else ():
            is_whole = tally.files + tally.failed >= self._expected.get(name, float("inf"))
            if tally.is_told or not (is_over or is_whole):
                continue
            tally.is_told = True
            if tally.failed:
                yield self._files_failed(name)
            if tally.files and tally.failed:
                text = f"{tally.failed:,} of {counted(tally.files + tally.failed, 'file')} failed"
                yield Remark("failed", self._clean(name), text)
            elif tally.files > 1:
                yield Remark("finished", self._clean(name), tally.text)
            elif tally.last and tally.size < self._large:
                yield self._remark(tally.last)

    def _files_failed(self, model: str) -> Remark:
        """Why files of a model failed, which were not told of yet."""
        tally = self._models[model]
        count = self._expected.get(model, tally.files + tally.failed)
        return Remark("failure", model, self._failures.text_of_files(model, count))

    def _ended(self, event: Ended) -> Iterator[Remark]:
        """What is left to be told, and how all went."""
        if event.status in ("cancelled", "paused"):
            for model in self._failures.models_waiting:
                yield self._files_failed(model)
            at = f" at {self._state.amount}" if self._state.whole.bytes_total else ""
            yield Remark("ended", "", event.status + at)
            return
        yield from self._whole_models(is_over=True)
        whole = Tally.of(self._models.values())
        if not whole.files or not _CAME.issuperset(whole.ways):
            return
        failed = [(whole.failed, "file"), (len(self._lost), "model")]
        lost = " and ".join(counted(count, noun) for count, noun in failed if count)
        if set(whole.ways) == {"kept"}:
            files = counted(whole.files, "file")
            weak = f" ({whole.weak})" if whole.weak else ""
            text = f"{files}, {human_bytes(whole.size)} {'is' if whole.files == 1 else 'are'} here{weak}"
            text = text if lost else f"nothing to do: {text}"
        else:
            text = whole.sentence(self._clock() - self._began if self._began is not None else 0.0)
        if lost:
            text = f"{lost} failed; {text}"
        if self._verbose and self._hosts:
            over = f" over at most {counted(self._connections, 'connection')}" if self._connections else ""
            text += f", from {', '.join(sorted(self._hosts))}{over}"
        yield Remark("summary", "", self._clean(text))
