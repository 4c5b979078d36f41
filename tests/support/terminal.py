"""Terminals: what one obeys, all that reached one, and what is to be seen on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import threading
from collections.abc import Callable, Sequence

from mdl.formatting import cells
from support.polling import until
from support.shell import Shell

EVIL = "a\x1b]0;PWN\x07\x1b[2Jb\x9b31mc\u202ed[red]e[/]f"
"""A window title, a cleared screen, a C1 code, text turned round, and what Rich would take for markup."""
NAME = EVIL.replace("/", "")
MARKUP = "x [red]y[/] [/] z.bin"
OBEYED = ("\x1b]0", "\x07", "\x1b[2J", "\x9b", "\u202e", "PWN\n")
Told = Callable[..., str]


def harmless(text: str) -> str:
    """``text``, which must hold nothing that a terminal obeys."""
    found = [code for code in OBEYED if code in text]
    assert not found, text
    assert text
    return text


def all_harmless(told: Told, shell: Shell, *commands: str) -> list[str]:
    """What each command says, which must hold nothing that a terminal obeys."""
    return [harmless(told(shell, *words.split())) for words in commands]


class Reader:
    """Reads a pipe or a terminal in a thread until its last writer has closed it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self._bytes = descriptor, bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _read(self) -> None:
        try:
            while data := os.read(self.descriptor, 65536):
                self._bytes += data
        except OSError:  # how Linux says that the other side of a terminal is gone
            return

    def so_far(self) -> str:
        """What was written until now."""
        return bytes(self._bytes).decode("utf-8", "replace")

    def data(self) -> bytes:
        """All that was written, once the writers have closed it."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        os.close(self.descriptor)
        return bytes(self._bytes)


class Terminal:
    """A terminal whose other side is ``file``. A thread reads all that reaches it, unless it is not ``is_read`` yet."""

    def __init__(self, columns: int = 80, *, encoding: str = "utf-8", is_read: bool = True) -> None:
        ours, theirs = os.openpty()
        self.file = os.fdopen(theirs, "w", encoding=encoding)
        self.reader = Reader(ours)
        self.resize(columns)
        if is_read:
            self.reader.start()

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def until_shown(self, text: str) -> None:
        """Wait until ``text`` has reached the terminal, which a thread reads."""
        until(lambda: text in self.reader.so_far())

    def text(self) -> str:
        """Close the terminal; all that reached it."""
        self.file.close()
        return self.reader.data().decode("utf-8", "replace")

    def seen(self) -> str:
        """What has reached the terminal since the last call, while no thread reads it."""
        got = bytearray()
        while select.select([self.reader.descriptor], [], [], 0.1)[0]:
            got += os.read(self.reader.descriptor, 65536)
        return got.decode()


class Screen:
    """As much of a terminal as bars use. ``widest`` is the widest line ever written, before it could wrap."""

    def __init__(self, output: str, columns: int = sys.maxsize) -> None:
        self.columns = columns
        self.rows, self.row, self.column, self.widest, self.cursor = [""], 0, 0, 0, True
        self.feed(output)

    @property
    def text(self) -> list[str]:
        """The rows that are not empty."""
        return [row.rstrip() for row in self.rows if row.strip()]

    def feed(self, output: str) -> None:
        for text, code, kind in re.findall(r"([^\x1b]+)|\x1b\[([?0-9;]*)([A-Za-z])", output):
            if text:
                self._write(text)
            elif kind == "A":
                self.row -= int(code or 1)
            elif kind == "K":
                assert code == "2"
                self.rows[self.row] = ""
            elif code == "?25":
                self.cursor = kind == "h"
            else:
                assert kind == "m", f"an escape code that is not known here: {code}{kind}"

    def _write(self, text: str) -> None:
        for char in text:
            if char == "\n":
                self.row += 1
                self.rows += [""] * (self.row + 1 - len(self.rows))
            elif char == "\r":
                self.column = 0
            else:
                if self.column == self.columns:
                    self._write("\r\n")
                row = self.rows[self.row]
                self.rows[self.row] = row[: self.column] + char + row[self.column + 1 :]
                self.column += 1
                self.widest = max(self.widest, cells(self.rows[self.row]))


def typed_into(shell: Shell, answers: Sequence[bytes], *words: str) -> tuple[str, int]:
    """What a command says on a terminal of its own, on which one answer after the other is typed, each at a question
    that ends with ``]``; and its exit code."""
    pid, ours = pty.fork()
    if not pid:
        os.chdir(shell.home)
        os.execve(sys.executable, shell.command(*words), {**shell.environ, "TERM": "dumb"})
    seen = bytearray()
    left = list(answers)
    with contextlib.suppress(OSError):
        while data := os.read(ours, 65536):
            seen += data
            if left and seen.endswith(b"] "):  # an interrupted write may be done again
                os.write(ours, left.pop(0))
    os.close(ours)
    return seen.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
