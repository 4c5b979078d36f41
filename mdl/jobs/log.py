"""Log: a file that several processes append to, one whole line at a time; rotated by size, a few old ones kept."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mdl.events import Event
from mdl.fs import staging
from mdl.fs.private import make_private_dir
from mdl.jobs.entries import Entries, Entry, Fact, line
from mdl.jobs.records import now
from mdl.locks import lock_if_free
from mdl.redact import Secrets, redact

LARGEST = 5_000_000
KEPT = 5
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class Log:
    """One log file, readable by its user alone. ``largest`` bytes and it is put aside as ``.1``; ``kept`` of them stay.
    One of mdl's ``own`` is never followed where it is a link.

    Raises `OSError` where it cannot be opened or written.
    """

    def __init__(self, path: Path, *, largest: int = LARGEST, kept: int = KEPT, is_own: bool = False) -> None:
        self.path, self._largest, self._kept = path, largest, kept
        self._flags = _FLAGS | os.O_NOFOLLOW if is_own else _FLAGS
        if is_own:
            make_private_dir(path.parent)
        else:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(path, self._flags, 0o600)
        self._torn = b""

    def append(self, text: str) -> None:
        """Add one line, whole or not at all, whoever else writes too."""
        self._follow()
        whole = self._torn + text.encode("utf-8", "backslashreplace") + b"\n"
        written = os.write(self._fd, whole)
        try:
            while written < len(whole):
                written += os.write(self._fd, whole[written:])
        except OSError:
            self._take_back(written)
            raise
        self._torn = b""

    def _take_back(self, written: int) -> None:
        """Part of a line had room: take it out again; where that cannot be, the next line begins with its end."""
        self._torn = b"\n"
        with contextlib.suppress(OSError):
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if os.fstat(self._fd).st_size == end:
                os.ftruncate(self._fd, end - written)
                self._torn = b""

    def close(self) -> None:
        os.close(self._fd)

    def _follow(self) -> None:
        """Be on the file that has the name now, and rotate it where it has grown too large."""
        mine = os.fstat(self._fd)
        if not stat.S_ISREG(mine.st_mode):
            return
        if not self._is_named(mine):
            self._reopen()
            mine = os.fstat(self._fd)
        if mine.st_size >= self._largest:
            self._rotate(mine)

    def _is_named(self, mine: os.stat_result) -> bool:
        try:
            named = os.stat(self.path)
        except OSError:
            return False
        return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)

    def _reopen(self) -> None:
        fresh = os.open(self.path, self._flags, 0o600)
        os.close(self._fd)
        self._fd = fresh

    def _rotate(self, mine: os.stat_result) -> None:
        """One of us does it; the others go on in what is now the newest old one, and follow with the next line."""
        try:
            with lock_if_free(Path(f"{self.path}.lock")) as is_locked:
                if is_locked and self._is_named(mine):
                    staging.rotate(self.path, self._kept)
                if is_locked:
                    self._reopen()
        except OSError:
            return


class Logged:
    """A listener that writes what happens to several logs, free of secrets.

    ``trouble`` is told once of each log that has no room for a line; the next line is tried all the same.
    """

    def __init__(
        self, logs: list[Log], secrets: Secrets, job: str, command: str, trouble: Callable[[Path, OSError], None]
    ) -> None:
        self._logs, self._secrets, self._entries = logs, secrets, Entries()
        self._trouble, self._gaps = trouble, set[Path]()
        self._before: tuple[Fact, ...] = (("job", job), ("pid", os.getpid()), ("command", command))

    def __call__(self, event: Event) -> None:
        """Write down what happened."""
        for entry in self._entries(event):
            text = line(self._clean(entry), now(), self._before)
            for log in self._logs:
                self._append(log, text)

    def _append(self, log: Log, text: str) -> None:
        try:
            log.append(text)
        except OSError as error:
            if log.path not in self._gaps:
                self._gaps.add(log.path)
                self._trouble(log.path, error)

    def _clean(self, entry: Entry) -> Entry:
        facts = [(key, redact(value, self._secrets) if isinstance(value, str) else value) for key, value in entry.facts]
        return replace(entry, facts=tuple(facts))

    def close(self) -> None:
        for log in self._logs:
            log.close()
