"""Log: events as lines ``time level kind key=value …`` of a file that several processes append to and rotate.

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
from pathlib import Path
from typing import TextIO

from mdl.bounds import parse_json, parse_number, parse_whole_number, whole_number
from mdl.describe import describe, tenth
from mdl.disk import publish
from mdl.disk.mutex import try_lock, unlock_and_close
from mdl.disk.safe_open import make_folders, make_private_dir, open_named, open_regular
from mdl.errors import NotFound, storage_error
from mdl.events import Event, Failed, Finished, Noticed, Planned, Progressed, Retrying, Rewound, Started, Verifying
from mdl.formatting import human_bytes, human_rate, utc_now
from mdl.jobs.job import Job
from mdl.redact import Secrets, redact

DOWNLOADS = "downloads.log"
"""The log of all operations, in the state folder."""
LARGEST = 5_000_000
KEPT = 5
_KIND = 9
"""Columns of the word that says what happened, in a log that a person reads."""
_SPECIAL = frozenset(' "=\\')
_TOGETHER = 256
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class Log:
    """One log file, readable by its user alone. At ``largest`` bytes it becomes ``.1``; ``kept`` old ones stay. If
    ``is_own``, the folder is mdl's own, and no link in the file's place is followed; elsewhere one of this user is.

    Raises `OSError` if it cannot be opened or written.
    """

    def __init__(self, path: Path, *, largest: int = LARGEST, kept: int = KEPT, is_own: bool = False) -> None:
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
        """What the next line begins with: a newline if a torn line could not be removed."""

    def _open(self) -> int:
        if self._is_own:
            return os.open(self.path, _FLAGS | os.O_NOFOLLOW, 0o600)
        return open_named(self.path, _FLAGS)

    def append(self, text: str) -> None:
        """Add a line, or several, whole or not at all, while other processes may append too."""
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


class LogListener:
    """A listener that appends what happens to several logs, without secrets; progress at every tenth of the whole.

    Lines of files that started or finished are written together, at the next sign of progress or once there are
    `_TOGETHER`: there may be thousands.
    ``trouble`` is called once for each log that cannot be written; the next line is tried all the same.
    """

    def __init__(
        self, logs: list[Log], secrets: Secrets, job: str, command: str, trouble: Callable[[Path, OSError], None]
    ) -> None:
        self._logs = logs
        self._secrets = secrets
        self._trouble = trouble
        self._failed: set[Path] = set()
        self._tenth = 0
        self._lines: list[str] = []
        self._job = _pairs({"job": job, "pid": os.getpid(), "command": command})

    def __call__(self, event: Event) -> None:
        if self._is_due(event):
            found = describe(event)
            known = tuple(self._secrets)
            facts = {"model": found.model, "file": found.file, "kind": found.model_kind, "repo": found.repo}
            clean = {
                key: redact(one, known) if isinstance(one, str) else one
                for key, one in {**facts, **found.facts}.items()
            }
            self._lines.append(" ".join([utc_now(), found.level, found.kind, *self._job, *_pairs(clean)]))
        if not isinstance(event, Started | Finished) or len(self._lines) >= _TOGETHER:
            self._write()

    def _write(self) -> None:
        lines = self._lines
        self._lines = []
        for log in self._logs if lines else ():
            try:
                log.append("\n".join(lines))
            except OSError as error:
                if log.path not in self._failed:
                    self._failed.add(log.path)
                    self._trouble(log.path, error)

    def close(self) -> None:
        self._write()
        for log in self._logs:
            log.close()

    def _is_due(self, event: Event) -> bool:
        """Progress only if it has reached another tenth, counted on from what was there before."""
        if isinstance(event, Planned):
            self._tenth = tenth(event.bytes_kept, event.bytes_total)
        if not isinstance(event, Progressed):
            return True
        before = self._tenth
        self._tenth = max(self._tenth, tenth(event.bytes_done, event.bytes_total))
        return self._tenth > before


def no_log(path: Path, error: OSError) -> str:
    """The warning about a log that cannot be written."""
    return f"no log is kept in {path}: {error.strerror}"


def _pairs(facts: Mapping[str, object]) -> list[str]:
    return [f"{key}={_quoted(one)}" for key, one in facts.items() if one not in (None, "")]


def _quoted(value: object) -> str:
    text = str(value)
    is_plain = text.isascii() and text.isprintable() and _SPECIAL.isdisjoint(text)
    return text if is_plain else json.dumps(text)


def event_of(line: str) -> Event | None:
    """The event that a line of a log tells; None if it tells of progress or of an end, which a job's record knows
    better, or if it is not a line of a log at all."""
    head = line.split(" ", 3)
    made = _EVENTS.get(head[2]) if len(head) == 4 else None
    try:
        facts = _facts_in(line)
        of_event = {key: facts.get(key, "") for key in ("model", "file", "kind", "repo")}
        return replace(made(facts), **of_event, time=head[0]) if made else None
    except (KeyError, TypeError, ValueError):
        return None


def is_end(line: str) -> bool:
    """Whether a line tells that a job, or one run of it, ended."""
    return line.split(" ", 3)[2:3] == ["ended"]


def _facts_in(line: str) -> dict[str, str]:
    """The keys of a line of a log and their values. Raises ``ValueError`` for a quoted one that is no JSON."""
    pairs = re.findall(r' ([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "]+)', line)
    return {key: parse_json(one) if one[0] == '"' else one for key, one in pairs}


def _whole(facts: Mapping[str, str], name: str) -> int:
    """Raises ``KeyError``, ``ValueError``."""
    return parse_whole_number(facts[name])


def _count(facts: Mapping[str, str], name: str) -> int | None:
    return _whole(facts, name) if name in facts else None


def _counts(facts: Mapping[str, str], name: str) -> tuple[tuple[str, int], ...]:
    """The counts of an object in JSON, by their names. Raises ``ValueError``."""
    counts = parse_json(facts.get(name, "{}"))
    if not isinstance(counts, dict):
        raise ValueError(f"{name} is not an object")
    return tuple((model, whole_number(count)) for model, count in counts.items())


_EVENTS: dict[str, Callable[[Mapping[str, str]], Event]] = {
    "planned": lambda facts: Planned(
        files=_whole(facts, "files"),
        bytes_total=_whole(facts, "bytes_total"),
        bytes_kept=_whole(facts, "bytes_kept"),
        bytes_to_fetch=_whole(facts, "bytes_to_fetch"),
        verb=facts.get("verb", "fetch"),
        models=tuple(
            (str(name), whole_number(count)) for name, count in dict(parse_json(facts.get("models", "{}"))).items()
        ),
    ),
    "started": lambda facts: Started(
        index=_count(facts, "index") or 0,
        total=_count(facts, "bytes"),
        resumed_at=_count(facts, "resumed_at") or 0,
        host=facts.get("host", ""),
    ),
    "verifying": lambda facts: Verifying(done=_whole(facts, "bytes_done"), total=_count(facts, "bytes")),
    "finished": lambda facts: Finished(
        size=_whole(facts, "bytes"),
        action=facts["action"],
        verified=facts.get("verified", ""),
        way=facts.get("way"),
    ),
    "retrying": lambda facts: Retrying(
        why=facts.get("why", ""),
        attempt=_whole(facts, "attempt"),
        delay=parse_number(facts["delay"]),
        idle=parse_number(facts.get("idle", "0")),
        patience=parse_number(facts.get("patience", "0")),
    ),
    "rewound": lambda facts: Rewound(bytes_discarded=_whole(facts, "bytes_discarded"), why=facts.get("why", "")),
    "failed": lambda facts: Failed(code=facts["code"], message=facts.get("error", ""), hint=facts.get("hint")),
    "notice": lambda facts: Noticed(message=facts.get("message", "")),
}


def readable(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """A job's log as a person reads it: local times, and none of what is the same in every line. Each line has a head,
    which is the time and the kind of event, and the rest. The date stands in a line of its own before the first line of
    that day; a line that tells no event, as a program's own output, stays as it is."""
    day = ""
    for line in lines:
        text = line.rstrip("\n")
        head = text.split(" ", 3)
        try:
            when = datetime.fromisoformat(head[0]).astimezone()
            said = _said(text, head[2])
        except (ValueError, IndexError, KeyError):
            yield "", text
            continue
        if day != (day := when.strftime("%Y-%m-%d")):
            yield "", day
        yield f"{when:%H:%M:%S}  {head[2]:<{_KIND}}  ", said


def _said(line: str, kind: str) -> str:
    """What a line says after its time, level and kind. Raises `ValueError` or `KeyError` if that is not known."""
    if event := event_of(line):
        description = describe(event)
        return "  ".join(filter(None, (description.item, description.text)))
    facts = _facts_in(line)
    if kind == "progress":
        done, total = (human_bytes(_whole(facts, name)) for name in ("bytes_done", "bytes_total"))
        speed = human_rate(_whole(facts, "bytes_per_second")) if "bytes_per_second" in facts else ""
        return "  ".join(filter(None, (f"{facts['percent']:>3} %", f"{done} of {total}", speed)))
    if kind == "ended":
        code = facts.get("exit_code")
        why = ": ".join(filter(None, (facts.get("item"), facts.get("error"))))
        return "  ".join(filter(None, (facts["status"], f"exit code {code}" if code else "", why)))
    raise ValueError(kind)


def open_job_log(job: Job) -> TextIO:
    """The log of one job, to be read. Raises `NotFound` if there is none, `StorageError`."""
    if job.log is None or not Path(job.log).exists():
        raise NotFound("no log was kept of it", item=job.id, hint="is MDL_LOG_FILE set to nothing?")
    try:
        return os.fdopen(open_regular(Path(job.log)), encoding="utf-8", errors="replace")
    except OSError as error:
        raise storage_error(error, job.log) from error
