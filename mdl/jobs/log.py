"""Log: events as lines ``time level kind key=value …`` of a file that several processes append to and rotate.

A value with a blank or a quote is quoted as in JSON, so that a line can be split again.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from mdl.describe import describe, tenth
from mdl.errors import NotFound, storage_error
from mdl.events import Event, Planned, Progressed
from mdl.fs import staging
from mdl.fs.private import make_private_dir, open_regular
from mdl.jobs.job import Job
from mdl.jobs.records import now
from mdl.locks import try_lock
from mdl.redact import Secrets, redact

DOWNLOADS = "downloads.log"
"""The log of all operations, in the state folder."""
LARGEST = 5_000_000
KEPT = 5
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class Log:
    """One log file, readable by its user alone. At ``largest`` bytes it becomes ``.1``; ``kept`` old ones stay. If
    ``is_own``, the folder is mdl's own, and a symlink in the file's place is not followed.

    Raises `OSError` if it cannot be opened or written.
    """

    def __init__(self, path: Path, *, largest: int = LARGEST, kept: int = KEPT, is_own: bool = False) -> None:
        self.path, self._largest, self._kept = path, largest, kept
        self._flags = _FLAGS | os.O_NOFOLLOW if is_own else _FLAGS
        if is_own:
            make_private_dir(path.parent)
        else:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(path, self._flags, 0o600)
        self._line_end = b""
        """What the next line begins with: a newline if a torn line could not be removed."""

    def append(self, text: str) -> None:
        """Add one line, whole or not at all, while other processes may append too."""
        self._follow()
        line = self._line_end + text.encode("utf-8", "backslashreplace") + b"\n"
        written = os.write(self._fd, line)
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError:
            self._take_back(written)
            raise
        self._line_end = b""

    def _take_back(self, written: int) -> None:
        """Remove the part of a line for which there was room, unless another process has written after it."""
        self._line_end = b"\n"
        with contextlib.suppress(OSError):
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if os.fstat(self._fd).st_size == end:
                os.ftruncate(self._fd, end - written)
                self._line_end = b""

    def close(self) -> None:
        os.close(self._fd)

    def _follow(self) -> None:
        """Open the file anew if its path names another one now, and rotate it if it has grown too large."""
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            return
        if not self._is_named():
            self._reopen()
        if os.fstat(self._fd).st_size >= self._largest:
            self._rotate()

    def _is_named(self) -> bool:
        """Whether the open file is the one that its path names; another process may have rotated it."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except OSError:
            return False

    def _reopen(self) -> None:
        fresh = os.open(self.path, self._flags, 0o600)
        os.close(self._fd)
        self._fd = fresh

    def _rotate(self) -> None:
        """Put the file aside; one process does this. The others append to the old file until their next line."""
        with contextlib.suppress(OSError):
            lock = os.open(f"{self.path}.lock", _FLAGS | os.O_NOFOLLOW, 0o600)
            try:
                if try_lock(lock, patience=0.0) is not False:
                    if self._is_named():
                        staging.rotate(self.path, self._kept)
                    self._reopen()
            finally:
                os.close(lock)


class LogListener:
    """A listener that appends what happens to several logs, without secrets; progress at every tenth of the whole.

    ``trouble`` is called once for each log that cannot be written; the next line is tried all the same.
    """

    def __init__(
        self, logs: list[Log], secrets: Secrets, job: str, command: str, trouble: Callable[[Path, OSError], None]
    ) -> None:
        self._logs, self._secrets, self._trouble = logs, secrets, trouble
        self._failed: set[Path] = set()
        self._tenth = 0
        self._job: Mapping[str, object] = {"job": job, "pid": os.getpid(), "command": command}

    def __call__(self, event: Event) -> None:
        if not self._is_due(event):
            return
        found = describe(event)
        facts = {"model": found.model, "file": found.file, "kind": found.model_kind, "repo": found.repo, **found.facts}
        clean = {key: redact(one, self._secrets) if isinstance(one, str) else one for key, one in facts.items()}
        known = [f"{key}={_quoted(one)}" for key, one in {**self._job, **clean}.items() if one not in (None, "")]
        line = " ".join([now(), found.level, found.kind, *known])
        for log in self._logs:
            try:
                log.append(line)
            except OSError as error:
                if log.path not in self._failed:
                    self._failed.add(log.path)
                    self._trouble(log.path, error)

    def close(self) -> None:
        for log in self._logs:
            log.close()

    def _is_due(self, event: Event) -> bool:
        """Progress only if it has reached another tenth, counted on from what was there before."""
        if isinstance(event, Planned):
            self._tenth = tenth(event.bytes_kept, event.bytes_total)
        if not isinstance(event, Progressed):
            return True
        before, self._tenth = self._tenth, max(self._tenth, tenth(event.bytes_done, event.bytes_total))
        return self._tenth > before


def no_log(path: Path, error: OSError) -> str:
    """The warning about a log that cannot be written."""
    return f"no log is kept in {path}: {error.strerror}"


def _quoted(value: object) -> str:
    text = str(value)
    is_plain = text.isascii() and text.isprintable() and not set(text) & set(' "=\\')
    return text if is_plain else json.dumps(text)


def open_job_log(job: Job) -> TextIO:
    """The log of one job, to be read. Raises `NotFound` if there is none, `StorageError`."""
    if job.log is None or not Path(job.log).exists():
        raise NotFound("no log was kept of it", item=job.id, hint="is MDL_LOG_FILE set to nothing?")
    try:
        return os.fdopen(open_regular(Path(job.log)), encoding="utf-8", errors="replace")
    except OSError as error:
        raise storage_error(error, job.log) from error
