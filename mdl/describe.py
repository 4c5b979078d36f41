"""Describe: what events mean, once for every printer. Pure.

`describe` puts one event into words and numbers. Bars, plain lines, JSON lines and logs print these. Texts are as they
came: each printer takes out secrets and control characters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import field, replace
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


def item_of(about: Event | FileProgress) -> str:
    """``model/file``, or the one of the two that is known."""
    return "/".join(part for part in (about.model, about.file) if part)


def spelled(model: str, repo: str) -> str:
    """The name of a model as people read it: a repository of the hub as ``org/name``, any other as it is called."""
    path = repo.removeprefix("hf:")
    is_named_after_it = repo.startswith("hf:") and model == path.replace("/", "--")
    return path if is_named_after_it else model


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
