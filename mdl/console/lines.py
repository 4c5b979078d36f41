"""Lines: what happens, as plain lines for a log, a pipe or a terminal that can do no more. No escape codes, ever."""

from __future__ import annotations

from collections.abc import Callable

from mdl.console.streams import NonBlockingStream
from mdl.describe import ProgressState, describe, tenth
from mdl.errors import Problem
from mdl.events import Ended, Event, Failed, Finished, Planned, Progressed, Verifying

Clean = Callable[[str], str]
"""Takes secrets out of a text, and escapes what a terminal would obey."""

_EVERY = 30.0
_LONG_CHECK = 500_000_000
_KEPT = (Planned, Finished, Failed, Ended)
"""Written also for a reader that took nothing for a while. There are hardly more of these events than files."""
_OF_FILES = ("started", "retrying", "rewound", "verifying", "finished", "failed")
"""The descriptions whose lines begin with a word and the name of a file."""


class Lines:
    """A renderer that writes a line when something happens, and at every tenth of the whole or every 30 seconds."""

    def __init__(self, stream: NonBlockingStream, clean: Clean, clock: Callable[[], float]) -> None:
        self._stream, self._clean, self._clock = stream, clean, clock
        self._state = ProgressState()
        self._last_at = clock()
        self._tenth: int | None = None
        self._checking = ""

    def __call__(self, event: Event) -> None:
        """Write down what happened."""
        self._state.update(event)
        if isinstance(event, Progressed):
            self._progress()
        elif line := self._line_of(event):
            self._stream.post(f"{line}\n", keep=isinstance(event, _KEPT))

    def close(self) -> None:
        """Say how many lines were dropped, and wait until the reader has the rest."""
        if dropped := dropped_text(self._stream.take_dropped()):
            self._stream.post(dropped, keep=True)
        self._stream.drain()

    def _line_of(self, event: Event) -> str:
        description = describe(event)
        if isinstance(event, Verifying):  # a check is worth one line if it takes a while
            is_long = event.total is not None and event.total - event.done >= _LONG_CHECK
            if not is_long or self._checking == description.item:
                return ""
            self._checking = description.item
        item, text = self._clean(description.item), self._clean(description.text)
        if description.kind in _OF_FILES:
            word = "checking" if description.kind == "verifying" else description.kind
            return f"{word:<10}{item}  {text}"
        if description.kind == "ended":
            return f"{text} at {self._state.amount}" if text else ""
        return f"{item}: {text}" if item and description.kind == "notice" else text

    def _progress(self) -> None:
        state, total = self._state, self._state.bytes_total
        now_tenth = tenth(state.whole.bytes_done, total) if total else None
        if self._tenth is None:
            self._tenth = now_tenth
        is_further = now_tenth is not None and self._tenth is not None and now_tenth > self._tenth
        if not is_further and self._clock() - self._last_at < _EVERY:
            return
        percent = f"{state.whole.bytes_done * 100 // total:3d}%" if total else ""
        time_left = state.time_left if total else ""
        text = "  ".join(part for part in (percent, state.amount, state.speed, time_left) if part)
        if self._stream.offer(f"{text}\n"):
            self._last_at, self._tenth = self._clock(), now_tenth


class FailuresOnly:
    """A renderer for quiet: it writes only what failed, with ``at_end`` in one block when all is over.

    It remembers what it wrote, so that no failure is written twice."""

    def __init__(self, stream: NonBlockingStream, clean: Clean, *, at_end: bool = False) -> None:
        self._stream, self._clean, self._at_end = stream, clean, at_end
        self._told: list[tuple[str, str]] = []
        self._block = ""

    def __call__(self, event: Event) -> None:
        """Write down a failure."""
        if not isinstance(event, Failed):
            return
        item = describe(event).item
        self._told.append((item, event.message))
        self._block += error_text(item, event.message, event.hint, self._clean)
        if not self._at_end:
            self._tell()

    def has_told(self, error: Problem) -> bool:
        """The same failure was written down already, under whichever name of its item."""
        item = error.item or ""
        return any(
            message == error.message and (item in told or told in item or "://" in item) for told, message in self._told
        )

    def close(self) -> None:
        """Tell what is left to tell, and wait until the reader has it all."""
        self._tell()
        self._stream.drain()

    def _tell(self) -> None:
        if self._block:
            self._stream.post(self._block, keep=True)
            self._block = ""


def error_text(item: str | None, message: str, hint: str | None, clean: Clean) -> str:
    """``mdl: item: message``, further lines of the message indented, and the hint on a separate line."""
    first, *more = [clean(line) for line in message.rstrip("\n").split("\n")]
    named = f"{clean(item)}: " if item else ""
    lines = [f"mdl: {named}{first}", *(f"  {line}" for line in more)]
    if hint:
        lines.append(f"  hint: {clean(hint)}")
    return "".join(f"{line}\n" for line in lines)


def dropped_text(count: int) -> str:
    """A line about the lines that were not read in time; nothing if there are none."""
    return f"{count} lines are left out here: they were not read in time\n" if count else ""
