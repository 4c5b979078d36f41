"""Describe: what events mean, once for every printer. Pure.

`describe` puts one event into words and numbers. Bars, plain lines, JSON lines and logs print these. Texts are as they
came: each printer takes out secrets and control characters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import field
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
from mdl.formatting import counted, elsewhere, human_bytes, human_duration
from mdl.values import value_class

CHECKS = {"size": "checked only by size", "none": "unverified"}
"""What is said of a file whose bytes were compared with no digest."""
SENT = {"pushed": "pushed", "mirrored": "in the mirror already"}
"""How a file came into a mirror."""
WAYS = {"clone": "cloned", "link": "hard-linked, read-only", "copy": "copied from this disk"}
"""How the bytes of a file came from elsewhere on this disk."""
_ACTIONS = {"kept": "already here", "linked": "linked", "planned": "planned", "imported": "imported", **SENT}
_MOST_MODELS = 100
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
    describe_kind = _DESCRIBE.get(type(event))
    return describe_kind(event) if describe_kind else _description(event, "")


def _description(event: Event, kind: str, **more: Any) -> Description:
    """What can be said of every event, and ``more``."""
    about = {
        "model": event.model,
        "file": event.file,
        "item": item_of(event),
        "model_kind": event.kind,
        "repo": event.repo,
    }
    return Description(kind, **(about | more))


def _planned(event: Planned) -> Description:
    facts: dict[str, object] = {
        "files": event.files,
        "bytes_total": event.bytes_total,
        "bytes_kept": event.bytes_kept,
        "bytes_to_fetch": event.bytes_to_fetch,
        "verb": event.verb,
    }
    if 0 < len(event.models) <= _MOST_MODELS:
        facts["models"] = json.dumps(dict(event.models))
    return _description(event, "planned", text=_plan_text(event), facts=facts)


def _plan_text(event: Planned) -> str:
    """``plan: 7 files, 7.2 GB: 1.0 GB already here, 400.1 MB elsewhere on this disk, 5.8 GB to fetch``."""
    files = f"plan: {counted(event.files, 'file')}"
    if event.files and not event.bytes_total:
        return f"{files}, size not known"
    parts = []
    here = event.bytes_kept - event.bytes_elsewhere
    if here:
        parts.append(f"{human_bytes(here)} already here")
    if event.bytes_elsewhere:
        parts.append(elsewhere(event.bytes_elsewhere, event.bytes_to_copy))
    if event.bytes_to_fetch or not parts:
        parts.append(f"{human_bytes(event.bytes_to_fetch)} to {event.verb}")
    return f"{files}, {human_bytes(event.bytes_total)}: {', '.join(parts)}"


def _started(event: Started) -> Description:
    facts: dict[str, object] = {
        "bytes": event.total,
        "resumed_at": event.resumed_at,
        "host": event.host,
        "index": event.index or None,
    }
    text = "size unknown" if event.total is None else human_bytes(event.total)
    if 0 < event.resumed_at != event.total:
        text = f"resumed at {human_bytes(event.resumed_at)} of {human_bytes(event.total)}"
    return _description(event, "started", text=text, facts=facts, done=event.resumed_at, total=event.total)


def _progressed(event: Progressed) -> Description:
    """The whole, and the first file that runs."""
    speed = event.bytes_per_second
    facts: dict[str, object] = {
        "file_bytes": None,
        "percent": 10 * tenth(event.bytes_done, event.bytes_total),
        "bytes_done": event.bytes_done,
        "bytes_total": event.bytes_total,
        "bytes_per_second": round(speed) if math.isfinite(speed) else None,
    }
    if not event.files:
        return _description(event, "progress", facts=facts)
    first = event.files[0]
    facts["file_bytes"] = first.done
    return _description(
        event,
        "progress",
        model=first.model,
        file=first.file,
        item=item_of(first),
        facts=facts,
        done=first.done,
        total=first.total,
    )


def _verifying(event: Verifying) -> Description:
    facts = {"bytes_done": event.done, "bytes": event.total}
    text = human_bytes(event.total)
    return _description(event, "verifying", text=text, facts=facts, done=event.done, total=event.total)


def _finished(event: Finished) -> Description:
    facts = {"bytes": event.size, "action": event.action, "verified": event.verified, "way": event.way}
    check = f"{event.verified} ok" if event.verified else ""
    check = CHECKS.get(event.verified, check)
    way = WAYS.get(event.way or "", _ACTIONS.get(event.action, ""))
    text = "  ".join(part for part in (human_bytes(event.size), check, way) if part)
    return _description(event, "finished", text=text, facts=facts, done=event.size, total=event.size)


def _noticed(event: Noticed) -> Description:
    facts = {"message": event.message}
    return _description(event, "notice", text=event.message, facts=facts, reason=event.message)


def _retrying(event: Retrying) -> Description:
    facts: dict[str, object] = {"attempt": event.attempt, "delay": round(event.delay, 1), "why": event.why}
    text = event.outage
    if text:
        facts |= {"idle": round(event.idle), "patience": round(event.patience)}
    else:
        text = _attempt_text(event)
    reason = f"attempt {event.attempt} in {event.delay:.1f} s: {event.why}"
    return _description(event, "retrying", text=text, level="WARN", facts=facts, reason=reason)


def _attempt_text(event: Retrying) -> str:
    """``retry 2 of 4 in 1m 05s: reset``. The first refusal of a busy host does not count as an attempt."""
    is_delayed = event.delay >= 0.5
    if event.attempt:
        words = f"retry {event.attempt}"
        if event.most:
            words += f" of {event.most}"
    elif is_delayed:
        words = "again"
    else:
        return event.why
    if is_delayed:
        words += f" in {human_duration(event.delay)}"
    return f"{words}: {event.why}"


def _rewound(event: Rewound) -> Description:
    size = human_bytes(event.bytes_discarded)
    facts = {"bytes_discarded": event.bytes_discarded, "why": event.why}
    text = f"{size} discarded"
    if event.start is not None:
        text = f"re-fetching {size} at {human_bytes(event.start)}"
    elif event.why:
        text += f": {event.why}"
    reason = f"{event.bytes_discarded} bytes discarded: {event.why}"
    return _description(event, "rewound", text=text, level="WARN", facts=facts, reason=reason)


def _failed(event: Failed) -> Description:
    facts = {"code": event.code, "error": event.message, "hint": event.hint}
    return _description(
        event,
        "failed",
        text=event.message,
        level="ERROR",
        facts=facts,
        reason=event.message,
        code=event.code,
        hint=event.hint,
    )


def _ended(event: Ended) -> Description:
    facts: dict[str, object] = {
        "status": event.status,
        "exit_code": event.exit_code,
        "code": event.code,
        "item": event.item,
        "error": event.message,
    }
    reason = event.message
    if not reason:
        reason = "" if event.code else None
    return _description(
        event,
        "ended",
        item=event.item or item_of(event),
        text=event.status if event.status in ("cancelled", "paused") else "",
        level=_LEVELS.get(event.status, "WARN"),
        facts=facts,
        reason=reason,
        code=event.code,
        hint=event.hint,
    )


_DESCRIBE: dict[type[Event], Callable[[Any], Description]] = {
    Planned: _planned,
    Started: _started,
    Progressed: _progressed,
    Verifying: _verifying,
    Finished: _finished,
    Noticed: _noticed,
    Retrying: _retrying,
    Rewound: _rewound,
    Failed: _failed,
    Ended: _ended,
}


def item_of(about: Event | FileProgress) -> str:
    """``model/file``, or the one of the two that is known."""
    return "/".join(part for part in (about.model, about.file) if part)


def tenth(done: int, total: int) -> int:
    """How many tenths of ``total`` bytes are ``done``; 0 while the total is not known."""
    return done * 10 // total if total > 0 else 0


def ended_by(error: BaseException) -> Ended:
    """The last event of a download that ``error`` ended."""
    problem = as_problem(error)
    return Ended(
        status=problem.status,
        code=problem.code,
        message=problem.message,
        hint=problem.advice,
        item=problem.item,
        exit_code=problem.exit_code,
    )
