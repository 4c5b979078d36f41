"""Describe: what events mean, once for every printer. Pure.

`describe` puts one event into words and numbers; `ProgressState` sums up all events so far. Bars, plain lines, JSON
lines and logs print from these two. Texts are as they came: each printer takes out secrets and control characters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mdl.errors import as_problem
from mdl.events import (
    Ended,
    Event,
    Failed,
    FileProgress,
    Finished,
    Noticed,
    Planned,
    Progressed,
    Retrying,
    Rewound,
    Started,
    Verifying,
)
from mdl.formatting import counted, elsewhere, human_bytes, human_duration, human_rate
from mdl.values import value_class

CHECKS = {"size": "checked only by size", "none": "unverified"}
"""What is said of a file whose bytes were compared with no digest."""
_ACTIONS = {"kept": "already here", "linked": "linked", "planned": "planned", "imported": "imported"}
SENT = {"pushed": "pushed", "mirrored": "in the mirror already"}
"""How a file came into a mirror."""
_ACTIONS |= SENT
WAYS = {"clone": "cloned", "link": "hard-linked, read-only", "copy": "copied from this disk"}
"""How the bytes of a file came from elsewhere on this disk."""
_NAMED = 100
"""How many models of a plan a log names, with their numbers of files."""
_LEVELS = {"finished": "INFO", "failed": "ERROR"}


@value_class
class Description:
    """One event in words and numbers.

    ``text`` is the sentence for people, without the item. ``facts`` are the numbers and words of a log line, in order.
    ``done`` of ``total`` bytes of the file are on disk. ``reason``, ``code`` and ``hint`` say what went wrong.
    """

    kind: str
    """planned, started, progress, retrying, rewound, verifying, finished, failed, notice or ended"""
    model: str
    file: str
    item: str
    """What the event is about: ``model/file``, or the one of the two that is known."""
    model_kind: str = ""
    repo: str = ""
    text: str = ""
    level: str = "INFO"
    facts: Mapping[str, object] = field(default_factory=dict)
    done: int | None = None
    total: int | None = None
    reason: str | None = None
    code: str | None = None
    hint: str | None = None

    @property
    def error(self) -> dict[str, str | None] | None:
        """The reason as the four facts that a script reads; None if nothing went wrong."""
        if self.reason is None:
            return None
        return {"code": self.code, "message": self.reason, "hint": self.hint, "item": self.item or None}


def describe(event: Event) -> Description:
    """Put ``event`` into words and numbers."""
    facts: dict[str, object]
    match event:
        case Planned(files=files, bytes_total=total, bytes_kept=kept):
            facts = {"files": files, "bytes_total": total, "bytes_kept": kept, "bytes_to_fetch": event.bytes_to_fetch}
            models = json.dumps(dict(event.models)) if 0 < len(event.models) <= _NAMED else None
            facts |= {"verb": event.verb, "models": models}
            return _of(event, "planned", _plan_text(event), facts=facts)
        case Started(total=total, resumed_at=done):
            facts = {"bytes": total, "resumed_at": done, "host": event.host, "index": event.index or None}
            size = "size unknown" if total is None else human_bytes(total)
            text = f"resumed at {human_bytes(done)} of {human_bytes(total)}" if 0 < done != total else size
            return _of(event, "started", text, facts=facts, done=done, total=total)
        case Progressed(bytes_per_second=speed):
            first = event.files[0] if event.files else None
            of_file: dict[str, Any] = {"done": first.done, "total": first.total} if first else {}
            facts = {"file_bytes": of_file.get("done"), "percent": 10 * tenth(event.bytes_done, event.bytes_total)}
            facts |= {"bytes_done": event.bytes_done, "bytes_total": event.bytes_total}
            facts |= {"bytes_per_second": round(speed) if math.isfinite(speed) else None}
            found = _of(first or event, "progress", facts=facts, **of_file)
            return replace(found, model_kind=event.kind, repo=event.repo)
        case Verifying(done=done, total=total):
            facts = {"bytes_done": done, "bytes": total}
            return _of(event, "verifying", human_bytes(total), facts=facts, done=done, total=total)
        case Finished(size=size):
            facts = {"bytes": size, "action": event.action, "verified": event.verified, "way": event.way}
            check = CHECKS.get(event.verified) or (f"{event.verified} ok" if event.verified else "")
            words = [human_bytes(size), check, WAYS.get(event.way or "") or _ACTIONS.get(event.action, "")]
            return _of(event, "finished", "  ".join(filter(None, words)), facts=facts, done=size, total=size)
        case Noticed(message=message):
            return _of(event, "notice", message, facts={"message": message}, reason=message)
        case Retrying(attempt=attempt, delay=delay, why=why):
            facts = {"attempt": attempt, "delay": round(delay, 1), "why": why}
            if event.outage:
                facts |= {"idle": round(event.idle), "patience": round(event.patience)}
            numbered = f"retry {attempt} of {event.most}" if event.most else f"retry {attempt}"
            when = f" in {human_duration(delay)}" if delay >= 0.5 else ""
            told = numbered if attempt else "again" if when else ""  # the first refusal of a busy host does not count
            text = event.outage or (f"{told}{when}: {why}" if told else why)
            reason = f"attempt {attempt} in {delay:.1f} s: {why}"
            return _of(event, "retrying", text, "WARN", facts=facts, reason=reason)
        case Rewound(bytes_discarded=count, why=why):
            facts = {"bytes_discarded": count, "why": why}
            text = f"{human_bytes(count)} discarded" + (f": {why}" if why else "")
            if event.start is not None:
                text = f"re-fetching {human_bytes(count)} at {human_bytes(event.start)}"
            return _of(event, "rewound", text, "WARN", facts=facts, reason=f"{count} bytes discarded: {why}")
        case Failed(code=code, message=message, hint=hint):
            facts = {"code": code, "error": message, "hint": hint}
            return _of(event, "failed", message, "ERROR", facts=facts, reason=message, code=code, hint=hint)
        case Ended(status=status, message=said):
            facts = {"status": status, "exit_code": event.exit_code, "code": event.code}
            facts |= {"item": event.item, "error": said}
            text = status if status in ("cancelled", "paused") else ""
            level = _LEVELS.get(status, "WARN")
            error = {"reason": said or ("" if event.code else None), "code": event.code, "hint": event.hint}
            return _of(event, "ended", text, level, item=event.item, facts=facts, **error)
    return _of(event, "")


def _of(
    about: Event | FileProgress, kind: str, text: str = "", level: str = "INFO", *, item: str | None = None, **more: Any
) -> Description:
    of_model = (about.kind, about.repo) if isinstance(about, Event) else ("", "")
    return Description(kind, about.model, about.file, item or item_of(about), *of_model, text, level, **more)


def item_of(about: Event | FileProgress | FileState) -> str:
    """``model/file``, or the one of the two that is known."""
    return "/".join(part for part in (about.model, about.file) if part)


def tenth(done: int, total: int) -> int:
    """How many tenths of ``total`` bytes are ``done``; 0 while the total is not known."""
    return done * 10 // total if total > 0 else 0


def ended_by(error: BaseException) -> Ended:
    """The last event of a download that ``error`` ended."""
    found = as_problem(error)
    return Ended(
        status=found.status,
        code=found.code,
        message=found.message,
        hint=found.advice,
        item=found.item,
        exit_code=found.exit_code,
    )


def _plan_text(event: Planned) -> str:
    """``plan: 7 files, 7.2 GB: 1.0 GB already here, 400.1 MB elsewhere on this disk, 5.8 GB to fetch``."""
    if event.files and not event.bytes_total:
        return f"plan: {counted(event.files, 'file')}, size not known"
    here = event.bytes_kept - event.bytes_elsewhere
    parts = [f"{human_bytes(here)} already here"] if here else []
    parts += [elsewhere(event.bytes_elsewhere, event.bytes_to_copy)] if event.bytes_elsewhere else []
    if event.bytes_to_fetch or not parts:
        parts.append(f"{human_bytes(event.bytes_to_fetch)} to {event.verb}")
    return f"plan: {counted(event.files, 'file')}, {human_bytes(event.bytes_total)}: {', '.join(parts)}"


@dataclass(slots=True)
class FileState:
    """One file that has begun. ``waiting`` says for what, if an attempt failed and the next one is still to come."""

    model: str
    file: str
    index: int | None = None
    done: int = 0
    total: int | None = None
    checking: bool = False
    waiting: str = ""


class ProgressState:
    """Where a download stands after all events so far. Feed it with `update`."""

    def __init__(self) -> None:
        self.whole = Progressed()
        """The last look at the whole."""
        self.is_measured = False
        """A look came, with a speed; before that there is only the plan."""
        self.count = 0
        """How many files there are."""
        self.finished: set[tuple[str, str]] = set()
        self.files: dict[tuple[str, str], FileState] = {}
        """Every file that has begun, also if it is over."""
        self.running: dict[tuple[str, str], FileState] = {}
        self._read: tuple[str, str] | None = None
        """A file that is here already and is read. Such files are read one after the other."""

    def update(self, event: Event) -> None:
        """Take in what happened."""
        key = (event.model, event.file)
        match event:
            case Planned():
                self.count = event.files
                self.whole = Progressed(bytes_done=event.bytes_kept, bytes_total=event.bytes_total)
            case Started(index=index, resumed_at=done, total=total):
                self.count = max(self.count, event.count)
                self.files[key] = self.running[key] = FileState(*key, index or None, done, total)
                self.finished.discard(key)
            case Progressed():
                self._progress(event)
            case Verifying():
                if self._read not in (None, key):
                    self.running.pop(self._read, None)
                self._read = None if key in self.running and key != self._read else key
                one = self._run(event)
                one.checking = True
                one.waiting = ""
                one.done = event.done
                one.total = one.total if event.total is None else event.total
            case Retrying() if event.file:
                self._run(event).waiting = describe(event).text
            case Rewound():
                one = self._run(event)
                one.done = max(0, one.done - event.bytes_discarded)
            case Finished():
                if file := self.running.pop(key, None):
                    rest = max(0, event.size - file.done)
                    self.whole = replace(self.whole, bytes_done=self.whole.bytes_done + rest)
                self.finished.add(key)
            case Failed():
                self.running.pop(key, None)
                self.finished.discard(key)

    def _run(self, about: Event | FileProgress) -> FileState:
        key = (about.model, about.file)
        return self.running.setdefault(key, self.files.setdefault(key, FileState(*key)))

    def _progress(self, event: Progressed) -> None:
        self.whole = event
        self.is_measured = True
        seen = {(file.model, file.file) for file in event.files}
        kept = [key for key, one in self.running.items() if key in seen or one.checking or one.waiting]
        self.running = {key: self.running[key] for key in kept}
        for file in event.files:
            one = self._run(file)
            one.index = file.index or None
            one.total = file.total
            if one.checking and (file.total is None or file.done >= file.total):
                continue
            if file.done != one.done:
                one.checking = False
                one.waiting = ""
            one.done = file.done

    @property
    def bytes_total(self) -> int | None:
        """The bytes of all files; None while the size of one is not known."""
        whole = self.whole
        if not 0 < whole.bytes_total >= whole.bytes_done:
            return None
        return None if any(file.total is None for file in whole.files) else whole.bytes_total

    @property
    def counted(self) -> str:
        """How many files are done: ``43/101 files``."""
        return f"{max(len(self.finished), self.whole.files_done):,}/{counted(self.count, 'file')}"

    @property
    def amount(self) -> str:
        """``1.2 GB of 4.3 GB``."""
        return f"{human_bytes(self.whole.bytes_done)} of {human_bytes(self.bytes_total)}"

    @property
    def speed(self) -> str:
        """``85.2 MB/s``."""
        return human_rate(self.whole.bytes_per_second)

    @property
    def time_left(self) -> str:
        """``4m 05s left``, or nothing if it is not known."""
        return "" if self.whole.eta_seconds is None else f"{human_duration(self.whole.eta_seconds)} left"
