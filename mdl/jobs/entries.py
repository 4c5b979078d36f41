"""Entries: events as lines of a log, ``level what key=value …``. Pure.

A name that holds a blank or a quote is quoted as JSON quotes it, so that a line can be split again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mdl.events import (
    Ended,
    Event,
    Failed,
    Finished,
    Noticed,
    Planned,
    Progressed,
    Retrying,
    Rewound,
    Started,
    Verifying,
)

Fact = tuple[str, object]


@dataclass(frozen=True)
class Entry:
    """One line without its time: ``level`` is INFO, WARN or ERROR."""

    level: str
    what: str
    facts: tuple[Fact, ...]


class Entries:
    """Turns the events of one job into entries; progress at every tenth of the whole."""

    def __init__(self) -> None:
        self._tenth = 0

    def __call__(self, event: Event) -> Iterator[Entry]:
        """None, one or several entries for what happened."""
        match event:
            case Planned(files=files, bytes_total=total, bytes_kept=kept):
                self._tenth = _tenth(kept, total)
                facts: dict[str, Any] = {"files": files, "bytes_total": total, "bytes_kept": kept}
                yield _of(event, "planned", **facts, bytes_to_fetch=event.bytes_to_fetch)
            case Progressed():
                yield from self._progress(event)
            case Started():
                yield _of(event, "started", bytes=event.total, resumed_at=event.resumed_at, host=event.host)
            case Finished():
                yield _of(event, "finished", bytes=event.size, action=event.action, verified=event.verified)
            case Verifying():
                yield _of(event, "verifying", bytes_done=event.done, bytes=event.total)
            case _:
                yield from _trouble(event)

    def _progress(self, event: Progressed) -> Iterator[Entry]:
        tenth = _tenth(event.bytes_done, event.bytes_total)
        if tenth <= self._tenth:
            return
        self._tenth = tenth
        of = event.files[0] if event.files else None
        yield _of(
            Event(of.model, of.file) if of else event,
            "progress",
            file_bytes=of.done if of else None,
            percent=tenth * 10,
            bytes_done=event.bytes_done,
            bytes_total=event.bytes_total,
            bytes_per_second=round(event.bytes_per_second),
        )


def _trouble(event: Event) -> Iterator[Entry]:
    match event:
        case Retrying():
            facts: dict[str, Any] = {"attempt": event.attempt, "delay": round(event.delay, 1), "why": event.why}
            yield _of(event, "retrying", "WARN", **facts)
        case Rewound():
            yield _of(event, "rewound", "WARN", bytes_discarded=event.bytes_discarded, why=event.why)
        case Failed():
            yield _of(event, "failed", "ERROR", code=event.code, error=event.message, hint=event.hint)
        case Noticed():
            yield _of(event, "notice", message=event.message)
        case Ended():
            level = {"finished": "INFO", "failed": "ERROR"}.get(event.status, "WARN")
            facts = {"status": event.status, "exit_code": event.exit_code, "code": event.code, "item": event.item}
            yield _of(event, "ended", level, **facts, error=event.message)


def _of(event: Event, what: str, level: str = "INFO", **facts: object) -> Entry:
    return Entry(level, what, (("model", event.model), ("file", event.file), *facts.items()))


def _tenth(done: int, total: int) -> int:
    return done * 10 // total if total > 0 else 0


def line(entry: Entry, time: str, before: Iterable[Fact]) -> str:
    """One line of a log, without its newline. What nobody knows is left out."""
    facts = [f"{key}={_text(value)}" for key, value in (*before, *entry.facts) if value not in (None, "")]
    return " ".join([time, entry.level, entry.what, *facts])


def _text(value: object) -> str:
    text = str(value)
    is_plain = text.isascii() and text.isprintable() and not set(text) & set(' "=\\')
    return text if is_plain else json.dumps(text)
