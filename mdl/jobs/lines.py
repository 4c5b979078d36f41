"""The lines of a job's file. Pure.

Each line is a JSON object with a checksum, so that a torn or damaged one is noticed. The first has the facts of the job
that stay as they are (``mdl-job``). Others have its state at one moment (``status``), or an event (``event``). Further
lines, which are no JSON, are what the process of a detached job, or a hook, wrote to its stderr.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from types import NoneType
from typing import Any

from mdl import events
from mdl.bounds import parse_json
from mdl.events import Event, FileProgress
from mdl.redact import redact

STATE = b'{"status":'
"""How the line of a state begins."""
_CHECK = b',"crc":"'
_EVENTS: dict[str, type[Event]] = {
    "planned": events.Planned,
    "started": events.Started,
    "progress": events.Progressed,
    "retrying": events.Retrying,
    "rewound": events.Rewound,
    "verifying": events.Verifying,
    "finished": events.Finished,
    "failed": events.Failed,
    "notice": events.Noticed,
    "ended": events.Ended,
}
_NAMES = {event_class: name for name, event_class in _EVENTS.items()}
_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "str | None": (str, NoneType),
    "int | None": (int, NoneType),
    "float | None": (int, float, NoneType),
}
"""The types in which a field is written, by its annotation."""


def line_of(facts: Mapping[str, Any]) -> str:
    """The facts as one line, with its checksum, without its end."""
    body = json.dumps(facts, separators=(",", ":"), ensure_ascii=True).removesuffix("}")
    return f'{body}{_CHECK.decode()}{zlib.crc32(body.encode()):08x}"}}'


def facts_in(line: bytes) -> dict[str, Any] | None:
    """The facts of a line; None if it is torn or damaged, or of another program."""
    line = line.rstrip(b"\n")
    body, _, check = line.rpartition(_CHECK)
    if check != b'%08x"}' % zlib.crc32(body):
        return None
    try:
        facts = parse_json(line)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


@cache
def _types_of(record: type) -> list[tuple[str, tuple[type, ...]]]:
    """The names of the fields of ``record`` that are single values, each with its types."""
    types_of = []
    for field in fields(record):
        types = _TYPES.get(str(field.type))
        if types is not None:
            types_of.append((field.name, types))
    return types_of


def is_well_typed(record: type, facts: Mapping[str, Any]) -> bool:
    """Whether each single value of ``record`` that is in ``facts`` has a type that it is written in."""
    return all(type(facts[name]) in types for name, types in _types_of(record) if name in facts)


def event_facts(event: Event) -> dict[str, Any]:
    """The facts of an event. A field that has its default is left out."""
    facts: dict[str, Any] = {"event": _NAMES[type(event)], "time": event.time}
    for field in fields(event):
        value = getattr(event, field.name)
        if value != field.default:
            facts[field.name] = value
    if isinstance(event, events.Progressed):
        facts["files"] = [vars(file) for file in event.files]
    return facts


def event_in(facts: Mapping[str, Any]) -> Event | None:
    """The event of a line; None if it has none, or one that cannot be."""
    event_class = _EVENTS.get(str(facts.get("event")))
    if event_class is None or not is_well_typed(event_class, facts):
        return None
    values = {field.name: facts[field.name] for field in fields(event_class) if field.name in facts}
    try:
        if event_class is events.Progressed:
            values["files"] = tuple(progress_in(file) for file in facts.get("files", ()))
        if event_class is events.Planned:
            values["models"] = tuple((str(name), int(count)) for name, count in facts.get("models", ()))
        return event_class(**values)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def progress_in(facts: Mapping[str, Any]) -> FileProgress:
    """Where one running file is. Raises `KeyError`, `TypeError` or `ValueError` if it cannot be that."""
    total = facts["total"]
    return FileProgress(
        str(facts["model"]),
        str(facts["file"]),
        int(facts["index"]),
        int(facts["done"]),
        None if total is None else int(total),
        int(facts.get("resumed_at", 0)),
    )


def without_secrets(event: Event, secrets: tuple[str, ...], now: str) -> Event:
    """The event with no secret and no signed query in any text; it happened at its time, or else ``now``."""
    values = dict(vars(event))
    values["time"] = event.time or now
    for name, value in values.items():
        if value and isinstance(value, str):
            values[name] = redact(value, secrets)
    return type(event)(**values)
