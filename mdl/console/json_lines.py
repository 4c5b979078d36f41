"""JSON lines: every event as one JSON object a line, ``mdl.event/1``, for a program that watches.

Never more than ten objects of routine in a second: progress that comes too fast is dropped, and the finish of a file
waits for its turn, with the time at which it happened. Before the last object, which is the end, every finish that
still waits is written. What went wrong is written at once. A reader that takes nothing misses everything but finishes,
failures and the end.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mdl.console.documents import json_text
from mdl.console.remarks import Remark
from mdl.console.state import State
from mdl.console.streams import NonBlockingStream
from mdl.describe import Description, describe
from mdl.events import Ended, Event, Noticed
from mdl.formatting import utc_now
from mdl.redact import Secrets

_MOST = 10
_MOST_OF_FILES = 8
"""How many objects a second may hold if the start, check or finish of a file is to join them."""
_SPAN = 1.01
"""Seconds; a little more than the second in which there may be so many."""
_BETWEEN_PROGRESS = 0.2
_EVENTS = {"planned", "started", "progress", "retrying", "rewound", "verifying"}
"""Descriptions whose kind is the name of the event; any other is ``progress`` with a status."""
_STATUSES = {"retrying": "retrying", "finished": "file-finished", "failed": "file-failed", "notice": "notice"}


class JsonLines:
    """A printer that writes JSON lines, all of one ``job``, whose files come by ``method``."""

    def __init__(
        self,
        stream: NonBlockingStream,
        state: State,
        secrets: Secrets,
        clock: Callable[[], float],
        *,
        job: str = "",
        method: str = "http",
    ) -> None:
        self._stream = stream
        self._state = state
        self._secrets = secrets
        self._clock = clock
        self._job = job
        self._method = method
        self._written_at: deque[float] = deque()
        """When the objects of the last second were written."""
        self._progress_at = -math.inf
        self._finishes: deque[dict[str, Any]] = deque()
        """Files that finished and wait for their turn."""
        self._checked = ""
        """The file whose check was written last."""
        self._is_over = False
        """The last object was written."""

    def show(self, event: Event, _remarks: Sequence[Remark] = ()) -> None:
        """Write the event, or leave it out if the second is full or the last object was written."""
        if self._is_over:
            return
        description = describe(event)
        kind = description.kind
        facts = self._facts(description, event.time)
        if isinstance(event, Ended):
            self._write_finishes(math.inf)
            self._post(facts | {"event": event.status, "status": event.status})
            self._is_over = True
            return
        self._write_finishes(_MOST_OF_FILES)
        is_next_step_of_check = kind == "verifying" and self._checked == description.item
        if kind == "progress" or is_next_step_of_check:
            self._offer_progress(facts)
        elif kind == "finished":
            self._finishes.append(facts)
            self._write_finishes(_MOST_OF_FILES)
        elif kind in ("started", "verifying"):
            if self._has_turn(_MOST_OF_FILES):
                self._offer(facts)
                if kind == "verifying":
                    self._checked = description.item
        elif kind == "retrying":
            self._offer(facts)
        elif kind:
            self._post(facts)

    def remark(self, status: str, message: str) -> None:
        """Write a remark that is no event: progress with another status, and the message as its error."""
        if not self._is_over:
            facts = self._facts(describe(Noticed(message=message)))
            self._post(facts | {"status": status})

    def close(self) -> None:
        """Wait until the reader has it all."""
        self._stream.drain()

    def _facts(self, description: Description, time: str = "") -> dict[str, Any]:
        """Return the object of one event, which happened at ``time``, or else now."""
        file = self._state.files.get((description.model, description.file))
        total = description.total
        index = None
        if file is not None:
            index = file.index
            total = file.total if total is None else total
        facts = {
            "event": description.kind if description.kind in _EVENTS else "progress",
            "schema": "mdl.event/1",
            "time": time or utc_now(),
            "job": self._job,
            "model": description.model,
            "kind": description.model_kind,
            "repo": description.repo,
            "method": self._method,
            "file": description.file,
            "file_index": index,
            "file_count": self._state.file_count or None,
            "file_bytes": description.done,
            "file_total": total,
            **self._whole(),
            "status": _STATUSES.get(description.kind, "running"),
            "error": description.error,
        }
        return {key: None if value == "" else value for key, value in facts.items()}

    def _whole(self) -> dict[str, Any]:
        """Return where the whole is now."""
        return {
            "bytes_done": self._state.bytes_done,
            "bytes_total": self._state.whole_total or None,
            "bytes_per_second": _finite(self._state.rate) or 0.0,
            "eta_seconds": _finite(self._state.eta),
        }

    def _write_finishes(self, most: float) -> None:
        while self._finishes and self._has_turn(most):
            self._post(self._finishes.popleft())

    def _has_turn(self, most: float) -> bool:
        """Whether fewer than ``most`` objects were written within the last second."""
        now = self._clock()
        while self._written_at and now - self._written_at[0] >= _SPAN:
            self._written_at.popleft()
        return len(self._written_at) < most

    def _offer_progress(self, facts: Mapping[str, Any]) -> None:
        """Write progress if it is time for it, the second is not full, and the reader keeps up."""
        now = self._clock()
        is_due = now - self._progress_at >= _BETWEEN_PROGRESS
        if is_due and self._has_turn(_MOST) and self._offer(facts):
            self._progress_at = now

    def _offer(self, facts: Mapping[str, Any]) -> bool:
        """Write an object that a reader who is behind may miss."""
        is_written = self._stream.offer(self._line(facts))
        if is_written:
            self._written_at.append(self._clock())
        return is_written

    def _post(self, facts: Mapping[str, Any]) -> None:
        self._stream.post(self._line(facts))
        self._written_at.append(self._clock())

    def _line(self, facts: Mapping[str, Any]) -> str:
        """Return one line: the facts of an event, with where the whole is as it is written."""
        return json_text({**facts, **self._whole()}, secrets=self._secrets) + "\n"


def _finite(number: float | None) -> float | None:
    """The number with three digits; None if it is not known, or no number that JSON has."""
    if number is None or not math.isfinite(number):
        return None
    return max(0.0, round(number, 3))
