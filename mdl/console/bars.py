"""Bars: the board, live at the foot of a terminal; what is done scrolls up above it as plain lines."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import ConsoleDimensions
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from mdl.console.board import ASCII, Board, Glyphs, Line
from mdl.console.humans import cells, shorten
from mdl.console.streams import Streams
from mdl.console.terminal import rich_console
from mdl.console.wording import (
    Clean,
    dropped_words,
    ended_words,
    finished_words,
    item_of,
    resumed_words,
    retrying_words,
    rewound_words,
)
from mdl.events import Ended, Event, Failed, Finished, Noticed, Retrying, Rewound, Started

_BETWEEN_FRAMES = 0.1
_LOOKS = {
    "bar": "cyan",
    "check": "magenta",
    "total": "green",
    "rest": "bright_black",
    "whole": "bold",
    "note": "yellow",
    "good": "green",
    "bad": "red",
}


class Bars:
    """A listener that draws. `close` gives the terminal back as it was."""

    def __init__(self, streams: Streams, clean: Clean, clock: Callable[[], float]) -> None:
        self._streams, self._clean, self._clock = streams, clean, clock
        self._glyphs = Glyphs() if streams.stderr.is_unicode else ASCII
        self._board = Board(clean, self._glyphs)
        self._console = rich_console(streams, streams.stderr)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._drawn_at = float("-inf")
        self._lines: list[Line] = []

    def __call__(self, event: Event) -> None:
        """Draw what happened."""
        self._board.take(event, self._clock())
        with self._console:  # one write for all of it, so that nothing half is ever seen
            self._scroll(event)
            if self._board.busy and not isinstance(event, Ended):
                self._refresh(hurry=isinstance(event, (Started, Finished, Failed)))
            self._park()

    def say(self, text: str) -> None:
        """Plain lines above the bars."""
        with self._console:
            self._print(Text(text.removesuffix("\n")))
            self._park()

    def close(self) -> None:
        """Take the bars away and show the cursor again."""
        try:
            self._live.stop()
            if words := dropped_words(self._streams.stderr.take_dropped()):
                self.say(words)
        finally:
            self._streams.stderr.drain()

    def _park(self) -> None:
        """Leave the cursor at the start of the last row: at its end, a terminal that shows ``^C`` would begin another
        row with it, and the bars would be taken away one row too low."""
        if self._live.is_started:
            self._console.control(Control((ControlType.CARRIAGE_RETURN,)))

    def _refresh(self, *, hurry: bool) -> None:
        now = self._clock()
        if not hurry and now - self._drawn_at < _BETWEEN_FRAMES:
            return
        if not self._streams.stderr.is_ready():
            return
        self._drawn_at = now
        size = self._streams.size(self._streams.stderr)
        lines = self._board.draw(*size)
        if lines == self._lines and size == self._console.size:
            return
        self._lines, self._console.size = lines, ConsoleDimensions(*size)
        self._live.start()
        self._live.update(_as_text(lines), refresh=True)

    def _scroll(self, event: Event) -> None:
        signs = self._glyphs
        match event:
            case Finished():
                self._sign(signs.good, "good", item_of(event), finished_words(event, self._clean))
            case Failed():
                self._sign(signs.bad, "bad", item_of(event), self._clean(event.message), whole=True)
            case Started() if event.resumed_at:
                self._sign(signs.resumed, "bar", item_of(event), resumed_words(event))
            case Rewound():
                self._sign(signs.lost, "note", item_of(event), rewound_words(event, self._clean))
            case Retrying() if not event.file:
                self._sign(signs.lost, "note", item_of(event), retrying_words(event, self._clean), whole=True)
            case Noticed():
                self.say(self._clean(event.message))
            case Ended() if event.status in ("cancelled", "paused") and self._board.busy:
                self.say(ended_words(event, self._board.bytes_done(), self._board.bytes_total()))
            case _:
                pass

    def _sign(self, sign: str, look: str, item: str, words: str, *, whole: bool = False) -> None:
        """One line: a sign, a name and what is to be said of it; the name shortened to fit unless ``whole``."""
        name = self._clean(item)
        if not whole:
            width, _ = self._streams.size(self._streams.stderr)
            name = shorten(name, max(12, width - 1 - cells(f"{sign} {words}  ")), self._glyphs.ellipsis)
        self._print(Text.assemble((sign, _LOOKS[look]), f" {name}  {words}"))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def _as_text(lines: list[Line]) -> Text:
    pieces = [Text.assemble(*((text, _LOOKS.get(look, "")) for text, look in line)) for line in lines]
    return Text("\n", no_wrap=True, overflow="crop", end="").join(pieces)
