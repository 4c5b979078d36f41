"""A typist: a real shell on a terminal of its own, keys pressed in it, and what is then to be seen."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from support.polling import PATIENCE

_OWN_TERMINAL = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
_OWN_TERMINAL += "; os.execvp(sys.argv[1], sys.argv[1:])"
PROMPT = "READY> "
TAB, ENTER, CLEAR_LINE = "\t", "\r", "\x15"


class Typist:
    """``with Typist(["bash"], folder, environ) as typist``: the shell is at its `PROMPT`; it is killed in the end."""

    def __init__(self, command: list[str], folder: Path, environ: Mapping[str, str]) -> None:
        self._command, self._folder, self._environ = command, folder, environ

    def __enter__(self) -> Typist:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        words = [sys.executable, "-c", _OWN_TERMINAL, *self._command]
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        environ = {**self._environ, "TERM": "xterm"}
        self._process = subprocess.Popen(words, cwd=self._folder, env=environ, **streams)
        os.close(theirs)
        self.until(PROMPT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def until(self, *texts: str) -> str:
        """All that is seen, without escape codes, until all of ``texts`` are in it; the next call begins anew."""
        end = time.monotonic() + PATIENCE
        seen = b""
        while not all(text in _plain(seen) for text in texts):
            assert time.monotonic() < end, f"{texts} did not appear: {_plain(seen)!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                data = os.read(self._ours, 65536)
                if b"\x1b[c" in data or b"\x1b[0c" in data:  # a newer fish asks what the terminal can do
                    os.write(self._ours, b"\x1b[?6c")
                seen += data
        return _plain(seen)


def _plain(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return re.sub(r"\x1b\][^\x07\x1b]*(\x07|\x1b\\)|\x1b[\[?>=()][0-9;?]*[A-Za-z0-9]?|[\x0e\x0f]", "", text)
