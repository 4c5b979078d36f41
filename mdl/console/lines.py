"""Lines: what happens, as plain lines for a log, a pipe or a terminal that can do no more. No escape codes, ever."""

from __future__ import annotations

from collections.abc import Callable

from mdl.console.humans import human_bytes, human_duration, human_rate
from mdl.console.streams import Streams
from mdl.console.wording import (
    Clean,
    dropped_words,
    ended_words,
    error_text,
    finished_words,
    item_of,
    plan_words,
    resumed_words,
    retrying_words,
    rewound_words,
)
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

_EVERY = 30.0
_LONG_CHECK = 500_000_000
_KEPT = (Planned, Finished, Failed, Ended)
"""What a reader that takes nothing for a while is told all the same. There are no more of them than files."""


class Lines:
    """A listener that writes a line where something happened, and at every tenth of the whole or 30 seconds."""

    def __init__(self, streams: Streams, clean: Clean, clock: Callable[[], float]) -> None:
        self._outlet, self._clean, self._clock = streams.stderr, clean, clock
        self._last_at = clock()
        self._tenth: int | None = None
        self._whole = Progressed()
        self._checking = ""

    def __call__(self, event: Event) -> None:
        """Write down what happened."""
        if isinstance(event, Progressed):
            self._progress(event)
            return
        words = self._words(event)
        if words:
            self._outlet.post(f"{words}\n", keep=isinstance(event, _KEPT))

    def close(self) -> None:
        """Say what was dropped, and wait until the reader has the rest."""
        if words := dropped_words(self._outlet.take_dropped()):
            self._outlet.post(f"{words}\n", keep=True)
        self._outlet.drain()

    def _words(self, event: Event) -> str:
        clean, item = self._clean, self._clean(item_of(event))
        match event:
            case Planned():
                self._whole = Progressed(bytes_done=event.bytes_kept, bytes_total=event.bytes_total)
                return plan_words(event)
            case Started():
                size = "size unknown" if event.total is None else human_bytes(event.total)
                return f"started   {item}  {resumed_words(event) if event.resumed_at else size}"
            case Retrying():
                return f"retrying  {item}  {retrying_words(event, clean)}"
            case Rewound():
                return f"rewound   {item}  {rewound_words(event, clean)}"
            case Verifying():
                return self._check_words(event, item)
            case Finished():
                return f"finished  {item}  {finished_words(event, clean)}"
            case Failed():
                return f"failed    {item}  {clean(event.message)}"
            case Noticed():
                return f"{item}: {clean(event.message)}" if item else clean(event.message)
            case Ended() if event.status in ("cancelled", "paused"):
                return ended_words(event, self._whole.bytes_done, self._whole.bytes_total or None)
            case _:
                return ""

    def _check_words(self, event: Verifying, item: str) -> str:
        """Only a check that takes a while is worth a line, and only one."""
        if event.total is None or event.total - event.done < _LONG_CHECK or self._checking == item:
            return ""
        self._checking = item
        return f"checking  {item}  {human_bytes(event.total)}"

    def _progress(self, event: Progressed) -> None:
        self._whole = event
        known = 0 < event.bytes_total >= event.bytes_done and all(file.total is not None for file in event.files)
        tenth = event.bytes_done * 10 // event.bytes_total if known else None
        if self._tenth is None:
            self._tenth = tenth
        is_further = tenth is not None and self._tenth is not None and tenth > self._tenth
        if not is_further and self._clock() - self._last_at < _EVERY:
            return
        words = _progress_words(event, known=known)
        if self._outlet.offer(f"{words}\n"):
            self._last_at = self._clock()
            self._tenth = tenth


def _progress_words(event: Progressed, *, known: bool) -> str:
    done, rate = human_bytes(event.bytes_done), human_rate(event.bytes_per_second)
    if not known:
        return f"{done} of ?  {rate}"
    percent = event.bytes_done * 100 // event.bytes_total
    left = "" if event.eta_seconds is None else f"  {human_duration(event.eta_seconds)} left"
    return f"{percent:3d}%  {done} of {human_bytes(event.bytes_total)}  {rate}{left}"


class FailuresOnly:
    """A listener for quiet: silent, but for what failed, told ``at_end`` in one block if so wished.

    It remembers, so that nothing is told twice."""

    def __init__(self, streams: Streams, clean: Clean, *, at_end: bool = False) -> None:
        self._outlet, self._clean, self._at_end = streams.stderr, clean, at_end
        self._told: list[tuple[str, str]] = []
        self._block = ""

    def __call__(self, event: Event) -> None:
        """Write down a failure."""
        if isinstance(event, Failed):
            self._told.append((item_of(event), event.message))
            text = error_text(item_of(event), event.message, event.hint, self._clean)
            if self._at_end:
                self._block += text
            else:
                self._outlet.post(text, keep=True)

    def has_told(self, error: Problem) -> bool:
        """The same failure was written down already, whichever way its item is named."""
        item = error.item or ""
        return any(
            message == error.message and (item in told or told in item or "://" in item) for told, message in self._told
        )

    def close(self) -> None:
        """Tell what is left to tell, and wait until the reader has it all."""
        if self._block:
            self._outlet.post(self._block, keep=True)
            self._block = ""
        self._outlet.drain()
