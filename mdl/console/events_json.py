"""JSON lines: every event as one JSON object a line, ``mdl.event/1``, for a program that watches.

Never more than ten objects of routine in a second: progress that comes too fast is dropped, the finish of a file waits
for its turn, with the time at which it happened. Before the last object, which is the end, every finish that still
waits is told, however many there are. What went wrong is told at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from mdl.console.documents import error_facts, json_text
from mdl.console.streams import Streams
from mdl.console.wording import dropped_words, item_of
from mdl.errors import Problem
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
from mdl.redact import Secrets

_MOST, _MOST_STARTS, _MOST_FINISHES = 10, 6, 8
"""How many objects a second may hold when another look, start or finish wants to join them."""
_SPAN = 1.01
_BETWEEN_LOOKS = 0.2


class JsonLines:
    """A listener that writes JSON lines to stderr, all of one job."""

    def __init__(
        self, streams: Streams, secrets: Secrets, clock: Callable[[], float], *, job: str = "", method: str = "http"
    ) -> None:
        self._outlet, self._secrets, self._clock = streams.stderr, secrets, clock
        self._job, self._method = job, method
        self._written_at: deque[float] = deque()
        self._looked_at = -math.inf
        self._finishes: deque[dict[str, Any]] = deque()
        self._files: dict[tuple[str, str], tuple[int | None, int | None]] = {}
        self._checking: tuple[str, str] | None = None
        self._count = 0
        self._whole = Progressed()

    def __call__(self, event: Event) -> None:
        """Write what happened, or drop it when the second is full."""
        self._note(event)
        self._write_finishes(math.inf if isinstance(event, Ended) else _MOST_FINISHES)
        match event:
            case Progressed():
                self._look("progress", self._of_first_file(event))
            case Verifying():
                self._check(event)
            case Started():
                if self._has_turn(_MOST_STARTS):
                    self._write(self._of(event, event.resumed_at, event.total) | {"event": "started"})
            case Finished():
                facts = {"status": "file-finished", "time": _now()}
                self._finishes.append(self._of(event, event.size, event.size) | facts)
                self._write_finishes(_MOST_FINISHES)
            case _:
                self._write_weighty(event)

    def remark(self, status: str, message: str) -> None:
        """Something to be said that is no event: progress with another status, and the words as its error."""
        self._write({"status": status, "error": _trouble(None, message)}, keep=True)

    def fail(self, error: Problem) -> None:
        """The last object, for an error that came before anything could be watched."""
        self._write({"event": "failed", "status": "failed", "error": error_facts(error)}, keep=True)

    def close(self) -> None:
        """Wait until the reader has it all."""
        self._outlet.drain()

    def _write_weighty(self, event: Event) -> None:
        """What is never dropped."""
        of = self._of(event, None, None)
        item = item_of(event) or None
        match event:
            case Planned():
                self._write({"event": "planned"})
            case Retrying():
                why = f"attempt {event.attempt} in {event.delay:.1f} s: {event.why}"
                self._write(of | {"event": "retrying", "status": "retrying", "error": _trouble(None, why, item)})
            case Rewound():
                why = f"{event.bytes_discarded} bytes discarded: {event.why}"
                self._write(of | {"event": "rewound", "error": _trouble(None, why, item)})
            case Failed():
                trouble = _trouble(event.code, event.message, item, event.hint)
                self._write(of | {"status": "file-failed", "error": trouble}, keep=True)
            case Noticed():
                self._write(of | {"status": "notice", "error": _trouble(None, event.message, item)})
            case Ended():
                trouble = _trouble(event.code, event.message or "", event.item or item, event.hint)
                if words := dropped_words(self._outlet.take_dropped()):
                    self._write({"status": "notice", "error": _trouble(None, words)}, keep=True)
                is_well = event.code is None and event.message is None
                end = {"event": event.status, "status": event.status, "error": None if is_well else trouble}
                self._write(of | end, keep=True)

    def _note(self, event: Event) -> None:
        """Remember what later lines repeat."""
        match event:
            case Planned():
                self._count = event.files
                self._whole = Progressed(bytes_done=event.bytes_kept, bytes_total=event.bytes_total)
            case Started():
                self._count = max(self._count, event.count)
                self._files[event.model, event.file] = (event.index or None, event.total)
            case Progressed():
                self._whole = event
                for file in event.files:
                    self._files[file.model, file.file] = (file.index or None, file.total)
            case _:
                pass

    def _of(self, event: Event, done: int | None, total: int | None) -> dict[str, Any]:
        """What is known of the event's file."""
        index, known = self._files.get((event.model, event.file), (None, None))
        return {
            "model": event.model or None,
            "file": event.file or None,
            "file_index": index,
            "file_bytes": done,
            "file_total": known if total is None else total,
        }

    def _of_first_file(self, event: Progressed) -> dict[str, Any]:
        if not event.files:
            return self._of(event, None, None)
        first = event.files[0]
        return self._of(Event(first.model, first.file), first.done, first.total)

    def _write_finishes(self, most: float) -> None:
        while self._finishes and self._has_turn(most):
            self._write(self._finishes.popleft(), keep=True)

    def _has_turn(self, most: float) -> bool:
        now = self._clock()
        while self._written_at and now - self._written_at[0] >= _SPAN:
            self._written_at.popleft()
        return len(self._written_at) < most

    def _check(self, event: Verifying) -> None:
        """That a file is being checked is told once for certain; how far it is, as routine."""
        of = self._of(event, event.done, event.total)
        if self._checking == (event.model, event.file):
            self._look("verifying", of)
        elif self._has_turn(_MOST_FINISHES):
            self._checking = (event.model, event.file)
            self._write(of | {"event": "verifying"})

    def _look(self, name: str, of: Mapping[str, Any]) -> None:
        """Routine: written if it is time for it, the second is not full, and the reader keeps up."""
        now = self._clock()
        if now - self._looked_at < _BETWEEN_LOOKS or not self._has_turn(_MOST):
            return
        if self._outlet.offer(self._line({**of, "event": name})):
            self._looked_at = now
            self._written_at.append(now)

    def _write(self, facts: Mapping[str, Any], *, keep: bool = False) -> None:
        self._outlet.post(self._line(facts), keep=keep)
        self._written_at.append(self._clock())

    def _line(self, facts: Mapping[str, Any]) -> str:
        whole, known = self._whole, facts.get
        record = {
            "event": known("event", "progress"),
            "schema": "mdl.event/1",
            "time": known("time") or _now(),
            "job": self._job or None,
            "model": known("model"),
            "method": self._method,
            "file": known("file"),
            "file_index": known("file_index"),
            "file_count": self._count or None,
            "file_bytes": known("file_bytes"),
            "file_total": known("file_total"),
            "bytes_done": whole.bytes_done,
            "bytes_total": whole.bytes_total or None,
            "bytes_per_second": _finite(whole.bytes_per_second) or 0.0,
            "eta_seconds": _finite(whole.eta_seconds),
            "status": known("status", "running"),
            "error": known("error"),
        }
        return json_text(record, secrets=self._secrets) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trouble(code: str | None, message: str, item: str | None = None, hint: str | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "hint": hint, "item": item}


def _finite(number: float | None) -> float | None:
    return max(0.0, round(number, 3)) if number is not None and math.isfinite(number) else None
