"""JSON lines: every event as one JSON object a line, ``mdl.event/1``, for a program that watches.

Never more than ten objects of routine in a second: progress that comes too fast is dropped, and the finish of a file
waits for its turn, with the time at which it happened. Before the last object, which is the end, every finish that
still waits is written. What went wrong is written at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from mdl.console.documents import json_text
from mdl.console.lines import dropped_text
from mdl.console.streams import NonBlockingStream
from mdl.describe import Description, ProgressState, describe
from mdl.events import Ended, Event, Noticed
from mdl.formatting import utc_now
from mdl.redact import Secrets

_MOST = 10
_MOST_OF_FILES = 8
"""How many objects a second may hold if progress, or the start, check or finish of a file, is to join them."""
_SPAN = 1.01
_BETWEEN_ROUTINE = 0.2
_EVENTS = {"planned", "started", "progress", "retrying", "rewound", "verifying"}
"""Descriptions whose kind is the name of the event; any other is ``progress`` with a status."""
_STATUSES = {"retrying": "retrying", "finished": "file-finished", "failed": "file-failed", "notice": "notice"}


class JsonLines:
    """A renderer that writes JSON lines, all of one job."""

    def __init__(
        self,
        stream: NonBlockingStream,
        secrets: Secrets,
        clock: Callable[[], float],
        *,
        job: str = "",
        method: str = "http",
    ) -> None:
        self._stream = stream
        self._secrets = secrets
        self._clock = clock
        self._job = job
        self._method = method
        self._state = ProgressState()
        self._written_at: deque[float] = deque()
        self._routine_at = -math.inf
        self._finishes: deque[dict[str, Any]] = deque()
        self._checking = ""
        self._is_over = False
        """The last object was written."""

    def __call__(self, event: Event) -> None:
        """Write what happened, or drop it if the second is full or the last object was written."""
        if self._is_over:
            return
        self._state.update(event)
        self._write_finishes(math.inf if isinstance(event, Ended) else _MOST_OF_FILES)
        description = describe(event)
        facts = self._facts(description, event.time)
        match description.kind:
            case "progress":
                self._write_routine(facts)
            case "verifying" if self._checking == description.item:
                self._write_routine(facts)
            case "started" | "verifying" if self._has_turn(_MOST_OF_FILES):
                self._checking = description.item if description.kind == "verifying" else self._checking
                self._write(facts)
            case "started" | "verifying":
                pass
            case "finished":
                self._finishes.append(facts)
                self._write_finishes(_MOST_OF_FILES)
            case "ended" if isinstance(event, Ended):
                if dropped := dropped_text(self._stream.take_dropped()):
                    self.remark("notice", dropped.rstrip())
                self._write(facts | {"event": event.status, "status": event.status}, keep=True)
                self._is_over = True
            case _ if description.kind:
                self._write(facts, keep=description.kind == "failed")

    def remark(self, status: str, message: str) -> None:
        """Write something that is no event: progress with another status, and the message as its error."""
        if not self._is_over:
            self._write(self._facts(describe(Noticed(message=message))) | {"status": status}, keep=True)

    def close(self) -> None:
        """Wait until the reader has it all."""
        self._stream.drain()

    def _facts(self, description: Description, time: str = "") -> dict[str, Any]:
        """What is said of one event, which happened at ``time``, or else now."""
        file = self._state.files.get((description.model, description.file))
        return {
            "event": description.kind if description.kind in _EVENTS else "progress",
            "schema": "mdl.event/1",
            "time": time or utc_now(),
            "job": self._job or None,
            "model": description.model or None,
            "kind": description.model_kind or None,
            "repo": description.repo or None,
            "method": self._method,
            "file": description.file or None,
            "file_index": file.index if file else None,
            "file_count": self._state.count or None,
            "file_bytes": description.done,
            "file_total": description.total if description.total is not None else file.total if file else None,
            **self._whole(),
            "status": _STATUSES.get(description.kind, "running"),
            "error": description.error,
        }

    def _whole(self) -> dict[str, Any]:
        """Where the whole stands now."""
        whole = self._state.whole
        return {
            "bytes_done": whole.bytes_done,
            "bytes_total": whole.bytes_total or None,
            "bytes_per_second": _finite(whole.bytes_per_second) or 0.0,
            "eta_seconds": _finite(whole.eta_seconds),
        }

    def _write_finishes(self, most: float) -> None:
        while self._finishes and self._has_turn(most):
            self._write(self._finishes.popleft(), keep=True)

    def _has_turn(self, most: float) -> bool:
        now = self._clock()
        while self._written_at and now - self._written_at[0] >= _SPAN:
            self._written_at.popleft()
        return len(self._written_at) < most

    def _write_routine(self, facts: Mapping[str, Any]) -> None:
        """Write progress if it is time for it, the second is not full, and the reader keeps up."""
        now = self._clock()
        is_due = now - self._routine_at >= _BETWEEN_ROUTINE and self._has_turn(_MOST)
        if is_due and self._stream.offer(self._line(facts)):
            self._routine_at = now
            self._written_at.append(now)

    def _write(self, facts: Mapping[str, Any], *, keep: bool = False) -> None:
        self._stream.post(self._line(facts), keep=keep)
        self._written_at.append(self._clock())

    def _line(self, facts: Mapping[str, Any]) -> str:
        """One object: the facts of an event, with where the whole stands as it is written."""
        return json_text({**facts, **self._whole()}, secrets=self._secrets) + "\n"


def _finite(number: float | None) -> float | None:
    return max(0.0, round(number, 3)) if number is not None and math.isfinite(number) else None
