"""Lines: what happens, as plain lines for a log, a pipe or a terminal that can do no more."""

from __future__ import annotations

from collections.abc import Callable

from mdl.console.failures import Clean, Failures
from mdl.console.narrator import Narrator, Remark
from mdl.console.streams import NonBlockingStream
from mdl.describe import ProgressState, tenth
from mdl.events import Ended, Event, Failed, Finished, Planned, Progressed, Rewound

_EVERY = 30.0
_LARGE = 100_000_000
"""Bytes of a file that has lines of its own."""
_KEPT = (Planned, Finished, Failed, Ended)
"""Written also for a reader that took nothing for a while. There are hardly more of these events than files."""
_OF_ITEMS = {"started": "started", "retrying": "retrying", "rewound": "rewound", "verifying": "checking"}
_OF_ITEMS |= {"finished": "finished", "failed": "failed"}
"""The first word of a line that goes on with the name of a file or a model."""


class Lines:
    """A renderer that writes a line when something happens, and at every tenth of the whole or every 30 seconds."""

    def __init__(
        self,
        stream: NonBlockingStream,
        clean: Clean,
        failures: Failures,
        clock: Callable[[], float],
        *,
        verbose: int = 0,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._state = ProgressState()
        self._narrator = Narrator(self._state, clean, failures, clock, verbose=verbose, large=_LARGE)
        self._last_at = clock()
        self._tenth: int | None = None
        self._has_failures = False

    def __call__(self, event: Event) -> None:
        """Write down what happened."""
        self._state.update(event)
        if isinstance(event, Rewound):
            self._tenth = None  # what is here is counted anew, and only what comes from now on is progress
        if isinstance(event, Finished) and self._tenth is not None:
            self._progress()
        if text := "".join(map(_line_of, self._narrator.remarks(event))):
            self._stream.post(text, keep=isinstance(event, _KEPT))
        self._has_failures |= isinstance(event, Failed)
        if isinstance(event, Progressed) and (event.files or not self._has_failures):  # an error is the last word
            self._progress()

    def close(self) -> None:
        """Say how many lines were dropped, and wait until the reader has the rest."""
        if dropped := dropped_text(self._stream.take_dropped()):
            self._stream.post(dropped, keep=True)
        self._stream.drain()

    def _progress(self) -> None:
        state = self._state
        total = self._state.bytes_total
        now_tenth = tenth(state.whole.bytes_done, total) if total else None
        if self._tenth is None:
            self._tenth = now_tenth
        is_further = now_tenth is not None and self._tenth is not None and now_tenth > self._tenth
        if not is_further and self._clock() - self._last_at < _EVERY:
            return
        percent = f"{state.whole.bytes_done * 100 // total:3d}%" if total else ""
        files = state.counted if state.count > 1 else ""
        time_left = state.time_left if total else ""
        text = "  ".join(part for part in (percent, files, state.amount, state.speed, time_left) if part)
        if self._stream.offer(f"{text}\n"):
            self._last_at = self._clock()
            self._tenth = now_tenth


def _line_of(remark: Remark) -> str:
    if remark.kind == "failure":
        return remark.text
    if word := _OF_ITEMS.get(remark.kind):
        return f"{word:<10}{remark.item}  {remark.text}\n"
    return f"{remark.item}: {remark.text}\n" if remark.item and remark.kind == "notice" else f"{remark.text}\n"


class FailuresOnly:
    """A renderer for quiet: it writes only what failed, with ``at_end`` in one block when all is over."""

    def __init__(self, stream: NonBlockingStream, failures: Failures, *, at_end: bool = False) -> None:
        self._stream = stream
        self._failures = failures
        self._at_end = at_end
        self._expected: dict[str, int] = {}
        self._block = ""

    def __call__(self, event: Event) -> None:
        """Keep the failure of a file until the end, and write down any other."""
        if isinstance(event, Planned):
            self._expected.update(event.models)
        if isinstance(event, Failed) and event.file:
            self._failures.add(event)
        elif isinstance(event, Failed):
            self._block += self._failures.text(event)
            if not self._at_end:
                self._tell()

    def close(self) -> None:
        """Tell what is left to tell, and wait until the reader has it all."""
        for model in self._failures.models_waiting:
            self._block += self._failures.text_of_files(model, self._expected.get(model, 0))
        self._tell()
        self._stream.drain()

    def _tell(self) -> None:
        if self._block:
            self._stream.post(self._block, keep=True)
            self._block = ""


def dropped_text(count: int) -> str:
    """A line about the lines that were not read in time; nothing if there are none."""
    return f"{count} lines are left out here: they were not read in time\n" if count else ""
