"""What a terminal obeys, and all that reached one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

EVIL = "a\x1b]0;PWN\x07\x1b[2Jb\x9b31mc\u202ed[red]e[/]f"
"""A window title, a cleared screen, a C1 code, text turned round, and what Rich would take for markup."""
NAME = EVIL.replace("/", "")
MARKUP = "x [red]y[/] [/] z.bin"
OBEYED = ("\x1b]0", "\x07", "\x1b[2J", "\x9b", "\u202e", "PWN\n")
Told = Callable[..., str]


class Seen:
    """What reached a terminal, read by a thread of its own so that nobody waits for it."""

    def __init__(self) -> None:
        self._ours, theirs = os.openpty()
        self.file = os.fdopen(theirs, "w", encoding="utf-8")
        self._bytes = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 65536):
                self._bytes += data
        except OSError:
            return

    def text(self) -> str:
        self.file.close()
        self._thread.join(10)
        os.close(self._ours)
        return self._bytes.decode("utf-8", "replace")


def harmless(text: str) -> str:
    found = [code for code in OBEYED if code in text]
    assert not found, text
    assert text
    return text
