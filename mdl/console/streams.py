"""Streams: stdout for data and stderr for the rest, and who looks at them."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping

from mdl.cancel import Cancel
from mdl.console.outlet import Outlet
from mdl.errors import StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

BROKEN_PIPE = 141
"""What a shell reports for a program that the broken pipe signal ended."""

_NARROWEST, _USUAL, _WIDEST = 20, 80, 500


class Streams:
    """The two streams of the process. ``above`` is set while bars are drawn: text for the terminal goes there."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        color: bool = True,
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
        cancel: Cancel | None = None,
    ) -> None:
        hold_standard_descriptors()
        self._cancel = cancel or Cancel()
        self.stdout = Outlet(stdout or sys.stdout, self._cancel)
        self.stderr = Outlet(stderr or sys.stderr, self._cancel)
        self.environ = environ
        self.above: Callable[[str], None] | None = None
        self.patient = True
        self._color = color and not environ.get("NO_COLOR")

    def out(self, text: str) -> None:
        """Data. A stdout that breaks is remembered; see `stdout_trouble`. Raises the reason of a stop if nobody takes
        it."""
        if not self.stdout.write(text):
            self._cancel.check()

    def err(self, text: str) -> None:
        """Everything else. A broken stderr is nobody's concern; while a download is watched, nobody waits for it."""
        if self.above:
            self.above(text)
        elif self.patient:
            self.stderr.write(text)
        else:
            self.stderr.post(text, keep=True)

    def stdout_trouble(self) -> int:
        """The exit code that a broken stdout asks for: 0 none, 141 its reader went away, 7 it cannot be written."""
        if not self.stdout.trouble:
            return 0
        return BROKEN_PIPE if self.stdout.trouble == errno.EPIPE else StorageError.exit_code

    def looked_at(self, outlet: Outlet) -> bool:
        """A terminal that can move its cursor looks at ``outlet``."""
        return outlet.is_terminal and self.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")

    def colored(self, outlet: Outlet) -> bool:
        """Colours are wanted and can be shown."""
        return self._color and self.looked_at(outlet)

    def size(self, outlet: Outlet) -> tuple[int, int]:
        """Columns and lines of the terminal; sane whatever ``COLUMNS`` and the terminal claim."""
        real, lines = 0, 0
        if outlet.descriptor is not None:
            try:
                real, lines = os.get_terminal_size(outlet.descriptor)
            except OSError:
                pass
        columns = real if real >= _NARROWEST else _USUAL
        wished = self.environ.get("COLUMNS", "")
        if wished.isascii() and wished.isdigit() and len(wished) < 10 and int(wished) >= _NARROWEST:
            columns = min(int(wished), real or _WIDEST)
        return max(_NARROWEST, min(columns, _WIDEST)), lines or 24


def hold_standard_descriptors() -> None:
    """Fill closed standard descriptors, so that no model file is ever opened as number 1 or 2."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    try:
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
    except OSError:
        pass
