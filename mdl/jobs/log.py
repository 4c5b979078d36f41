"""Log: text lines ``time level kind key=value …`` of a file that several processes append to and rotate, and the
listeners that write what happens: into such a log as text, and into the file of a job as JSON.

A value with a blank or a quote is quoted as in JSON, so that a line can be split again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mdl.config.places import working_folder
from mdl.console.reporter import BROKEN_PIPE
from mdl.describe import describe, ended_by, tenth
from mdl.disk import publish
from mdl.disk.mutex import try_lock, unlock_and_close
from mdl.disk.own_files import make_private_dir
from mdl.disk.process import ProcessId
from mdl.disk.safe_open import make_folders, open_named
from mdl.events import Ended, Event, Finished, Noticed, Planned, Progressed, Started
from mdl.formatting import human_bytes, human_rate, spelled, utc_now
from mdl.jobs.job import event_facts, event_in, facts_in, without_secrets
from mdl.redact import Secrets
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.console import Console

DOWNLOADS = "downloads.log"
"""The log of all operations, in the state folder."""
LARGEST = 5_000_000
KEPT = 5
_KIND = 9
"""Columns of the word that says what happened, in a log that a person reads."""
_PLAIN = re.compile(r"[!#-<>-\[\]-~]*")
"""A value that needs no quotes: ASCII without blanks, double quotes, ``=`` and backslashes."""
_TOGETHER = 256
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class Log:
    """A log file, readable by its user alone. At ``largest`` bytes it becomes ``.1``, and ``kept`` old ones stay; if
    that is None, it stays the file that was opened, also if its name is another's by then. If ``is_own``, the folder is
    mdl's own, and no link in the file's place is followed; elsewhere a link of this user's is.

    Raises `OSError` if it cannot be opened or written.
    """

    def __init__(self, path: Path, *, largest: int | None = LARGEST, kept: int = KEPT, is_own: bool = False) -> None:
        self.path = path
        self._largest = largest
        self._kept = kept
        if is_own:
            make_private_dir(path.parent)
        else:
            make_folders(path.parent)
        self._is_own = is_own
        self._fd = self._open()
        self._line_end = b""
        """The beginning of the next line: a newline if a torn line could not be removed."""

    def _open(self) -> int:
        if self._is_own:
            return os.open(self.path, _FLAGS | os.O_NOFOLLOW, 0o600)
        return open_named(self.path, _FLAGS)

    def append(self, text: str) -> None:
        """Add a line, or several: all of the text or nothing, while other processes may append too."""
        if self._largest is not None:
            self._follow(self._largest)
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

    def _follow(self, largest: int) -> None:
        """Open the file again if its path names another one now, and rotate it if it has ``largest`` bytes."""
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            return
        if not self._is_named():
            self._reopen()
        if os.fstat(self._fd).st_size >= largest:
            self._rotate()

    def _is_named(self) -> bool:
        """Whether the open file is the one that its path names; another process may have rotated it."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except OSError:
            return False

    def _reopen(self) -> None:
        fresh = self._open()
        os.close(self._fd)
        self._fd = fresh

    def _rotate(self) -> None:
        """Put the file aside; one process does this. The others append to the old file until their next line."""
        with contextlib.suppress(OSError):
            lock = os.open(f"{self.path}.lock", _FLAGS | os.O_NOFOLLOW, 0o600)
            try:
                if try_lock(lock, patience=0.0) is not False:
                    if self._is_named():
                        publish.rotate(self.path, self._kept)
                    self._reopen()
            finally:
                unlock_and_close(lock)


class FactsFile(Protocol):
    """The file of a job, which takes facts: `mdl.jobs.records.JobFile`."""

    def append(self, *facts: Mapping[str, Any]) -> None:
        """Raises `OSError`."""


@value_class
class LogSource:
    """The writer of a line of a text log: the id of the job, if it is one, the process, and the name of the command."""

    job: str
    pid: int
    command: str

    @cached_property
    def words(self) -> list[str]:
        """What stands in each of its lines."""
        return _words({"job": self.job, "pid": self.pid, "command": self.command})


class LogListener:
    """A listener that writes what happens, without secrets; progress at every tenth of the whole.

    Text goes to ``log``, and JSON to ``file``, if the command is a job. Events of files that started or finished are
    written together, at the next sign of progress or once there are `_TOGETHER`: there may be thousands. ``trouble`` is
    called once if ``file`` cannot be written, with None, and once for the log, with its path; the next event is tried
    all the same.
    """

    def __init__(
        self,
        log: Log | None,
        secrets: Secrets,
        source: LogSource,
        trouble: Callable[[Path | None, OSError], None],
        file: FactsFile | None = None,
    ) -> None:
        self._log = log
        self._secrets = secrets
        self._source = source
        self._trouble = trouble
        self._file = file
        self._in_trouble: set[Path | None] = set()
        self._tenth = 0
        self._waiting: list[Event] = []

    def __call__(self, event: Event) -> None:
        if self._is_due(event):
            self._waiting.append(without_secrets(event, tuple(self._secrets), utc_now()))
        if not isinstance(event, Started | Finished) or len(self._waiting) >= _TOGETHER:
            self._write()

    def note(self, item: str, message: str) -> None:
        """Write a line about ``item`` that the log alone has."""
        self(Noticed(item, message=message))

    def close(self) -> None:
        """Write the events that still wait, and close the log."""
        self._write()
        if self._log is not None:
            self._log.close()

    def _write(self) -> None:
        events = self._waiting
        self._waiting = []
        if not events:
            return
        if self._file is not None:
            try:
                self._file.append(*[event_facts(event) for event in events])
            except OSError as error:
                self._report(None, error)
        if self._log is not None:
            try:
                self._log.append("\n".join(log_line(event, self._source) for event in events))
            except OSError as error:
                self._report(self._log.path, error)

    def _report(self, path: Path | None, error: OSError) -> None:
        if path not in self._in_trouble:
            self._in_trouble.add(path)
            self._trouble(path, error)

    def _is_due(self, event: Event) -> bool:
        """Progress only if it has reached another tenth, counted on from what was there before."""
        if isinstance(event, Planned):
            self._tenth = tenth(event.bytes_kept, event.bytes_total)
        if not isinstance(event, Progressed):
            return True
        before = self._tenth
        self._tenth = max(self._tenth, tenth(event.bytes_done, event.bytes_total))
        return self._tenth > before


class OperationLog:
    """The downloads log of pack, unpack, release and rollback, which are no jobs: a listener that writes their events.
    The end that the console's session reports is left out: `operation_log` writes it, as the user sees it."""

    def __init__(self, listener: LogListener) -> None:
        self._listener = listener
        self.note = listener.note

    def __call__(self, event: Event) -> None:
        """Write the event."""
        if not isinstance(event, Ended):
            self._listener(event)


@contextlib.contextmanager
def operation_log(
    console: Console, command: str, typed: str, path: Path | None, *, is_own: bool
) -> Iterator[OperationLog]:
    """Log one operation to ``path``, or nowhere if that is None: when it began, its events, and how it ended, also if
    it failed before the first event.

    ``command`` is the name of the command and ``typed`` the whole of it; ``is_own`` as for `Log`. A log that cannot be
    written is one warning.
    """

    def warn(place: Path | None, error: OSError) -> None:
        if place is not None:
            console.warn(no_log(place, error))

    log = None
    if path is not None:
        try:
            log = Log(path, is_own=is_own)
        except OSError as error:
            warn(path, error)
    listener = LogListener(log, console.secrets, LogSource("", os.getpid(), command), warn)
    listener.note("", f"begun in {working_folder()}: mdl {typed}")
    end = Ended()
    try:
        yield OperationLog(listener)
    except BaseException as error:
        end = ended_by(error)
        if isinstance(error, BrokenPipeError):
            end = replace(end, exit_code=BROKEN_PIPE)
        raise
    finally:
        listener(end)
        listener.close()


def no_log(path: Path, error: OSError) -> str:
    """The warning about a log that cannot be written."""
    return f"no log is kept in {path}: {error.strerror}"


def log_line(event: Event, source: LogSource) -> str:
    """Return an event as a line of a text log."""
    description = describe(event)
    facts = {
        "model": description.model,
        "file": description.file,
        "kind": description.model_kind,
        "repo": description.repo,
        **description.facts,
    }
    return " ".join([event.time, description.level, description.kind, *source.words, *_words(facts)])


def _words(facts: Mapping[str, object]) -> list[str]:
    """The facts that there are, each as ``key=value``."""
    words = []
    for key, value in facts.items():
        if value is None or value == "":
            continue
        text = str(value)
        words.append(f"{key}={text if _PLAIN.fullmatch(text) else json.dumps(text)}")
    return words


def raw_lines(lines: Iterable[bytes], job: str, command: str) -> Iterator[str]:
    """The events in the lines of a job's file as lines of a text log; what is no JSON stays as it is."""
    pid = 0
    for line in lines:
        facts = facts_in(line)
        if facts is None:
            yield _text_of(line)
            continue
        if isinstance(facts.get("owner"), str):
            pid = ProcessId(facts["owner"]).pid
        event = event_in(facts)
        if event is not None:
            yield log_line(event, LogSource(job, pid, command))


def readable(lines: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """The events in the lines of a job's file as a person reads them, in local time. Each has a head, which is the time
    and the kind of event, and the rest. The date has a line of its own before the first event of that day; what is no
    JSON, as a program's own output, stays as it is."""
    day = ""
    for line in lines:
        facts = facts_in(line)
        if facts is None:
            yield "", _text_of(line)
            continue
        event = event_in(facts)
        if event is None:
            continue
        try:
            moment = datetime.fromisoformat(event.time).astimezone()
        except (ValueError, OverflowError):
            continue
        if day != moment.strftime("%Y-%m-%d"):
            day = moment.strftime("%Y-%m-%d")
            yield "", day
        yield f"{moment:%H:%M:%S}  {describe(event).kind:<{_KIND}}  ", _said(event)


def _said(event: Event) -> str:
    """Say an event in words for a person."""
    if isinstance(event, Progressed):
        percent = tenth(event.bytes_done, event.bytes_total) * 10
        done = f"{human_bytes(event.bytes_done)} of {human_bytes(event.bytes_total)}"
        speed = human_rate(event.bytes_per_second) if event.bytes_per_second else ""
        return _joined("  ", f"{percent:>3} %", done, speed)
    if isinstance(event, Ended):
        code = "" if event.exit_code is None else f"exit code {event.exit_code}"
        message = "" if event.message == event.status else event.message
        return _joined("  ", event.status, code, _joined(": ", event.item, message))
    item = _joined("/", spelled(event.model, event.repo), event.file)
    return _joined("  ", item, describe(event).text)


def _joined(separator: str, *parts: str | None) -> str:
    """Join those of the parts that have any text."""
    return separator.join(filter(None, parts))


def _text_of(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\n")
