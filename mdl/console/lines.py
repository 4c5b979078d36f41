"""Lines: plain lines for a log, a pipe or a terminal that can do no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mdl.console.messages import Clean, Messages
from mdl.console.remarks import Remark
from mdl.console.state import State
from mdl.console.streams import NonBlockingStream
from mdl.describe import tenth
from mdl.events import Event, Failed, Finished, Progressed, Rewound

LARGE = 100_000_000
"""Bytes of a file that has lines of its own."""
_EVERY = 30.0
"""Seconds after which there is a line about progress, also if little has come."""
_FIRST_WORDS = {
    "started": "started",
    "retrying": "retrying",
    "rewound": "rewound",
    "verifying": "checking",
    "finished": "finished",
    "failed": "failed",
}
"""The first word of a line that goes on with the name of a file or a model."""


class Lines:
    """A printer that writes a line when something happens, and at every tenth of the whole or every 30 seconds."""

    def __init__(
        self,
        stream: NonBlockingStream,
        state: State,
        clean: Clean,
        messages: Messages,
        clock: Callable[[], float],
    ) -> None:
        self._stream = stream
        self._state = state
        self._clean = clean
        self._messages = messages
        self._clock = clock
        self._written_at = clock()
        self._tenth: int | None = None
        """The tenths of the whole that were told; None until the first look, and after a rewind: what was there then
        is no progress."""
        self._has_ended = False
        """Whether a model has finished or failed."""

    def show(self, event: Event, remarks: Sequence[Remark]) -> None:
        """Write the lines of the event. The bytes of a file are told before its finish."""
        if isinstance(event, Rewound):
            self._tenth = None
        if isinstance(event, Finished) and self._tenth is not None:
            self._write_progress()
        for remark in remarks:
            line = self._line_of(remark)
            if remark.kind == "retrying":  # there may be any number: a reader that takes nothing misses them (ADR 90)
                self._stream.offer(line)
            else:
                self._stream.post(line)
        if isinstance(event, Finished | Failed):
            self._has_ended = True
        if isinstance(event, Progressed):
            is_after_the_last = self._has_ended and not event.files
            if not is_after_the_last:
                self._write_progress()

    def close(self) -> None:
        """Wait until the reader has it all."""
        self._stream.drain()

    def _write_progress(self) -> None:
        """Write how far it is, if another tenth is done or the last such line is old."""
        state = self._state
        total = state.bytes_total
        now = self._clock()
        tenth_now = tenth(state.bytes_done, total) if total else None
        if self._tenth is None:
            self._tenth = tenth_now
        is_further = tenth_now is not None and self._tenth is not None and tenth_now > self._tenth
        if not is_further and now - self._written_at < _EVERY:
            return
        parts = []
        if total:
            parts.append(f"{state.bytes_done * 100 // total:3d}%")
        if state.file_count > 1:
            parts.append(state.counted)
        parts += [state.amount, state.speed]
        if total and state.time_left:
            parts.append(state.time_left)
        if self._stream.offer("  ".join(parts) + "\n"):
            self._written_at = now
            self._tenth = tenth_now

    def _line_of(self, remark: Remark) -> str:
        if remark.kind == "failure":
            return self._messages.failure(remark)
        item = self._clean(remark.item)
        text = self._clean(remark.text)
        if remark.kind in _FIRST_WORDS:
            return f"{_FIRST_WORDS[remark.kind]:<10}{item}  {text}\n"
        if remark.kind == "notice" and item:
            return f"{item}: {text}\n"
        return f"{text}\n"


class FailuresOnly:
    """A printer for quiet: it writes only failures."""

    def __init__(self, stream: NonBlockingStream, messages: Messages) -> None:
        self._stream = stream
        self._messages = messages

    def show(self, _event: Event, remarks: Sequence[Remark]) -> None:
        """Write the failures."""
        for remark in remarks:
            if remark.kind == "failure":
                self._stream.post(self._messages.failure(remark))

    def close(self) -> None:
        """Wait until the reader has it all."""
        self._stream.drain()
