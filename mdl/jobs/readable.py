"""A job's log as a person reads it: local times, and none of what is the same in every line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from mdl.describe import describe
from mdl.formatting import human_bytes, human_rate
from mdl.jobs.log import event_of, facts_in

_KIND = 9
"""Columns of the word that says what happened."""


def readable(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each line of a job's log in words: its head, which is the time and the kind of event, and the rest. The date
    stands in a line of its own before the first line of that day; a line that is not an event's, as a program's own
    output, stays as it is."""
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
    facts = facts_in(line)
    if kind == "progress":
        done, total = (human_bytes(int(facts[name])) for name in ("bytes_done", "bytes_total"))
        speed = human_rate(int(facts["bytes_per_second"])) if "bytes_per_second" in facts else ""
        return "  ".join(filter(None, (f"{facts['percent']:>3} %", f"{done} of {total}", speed)))
    if kind == "ended":
        code = facts.get("exit_code")
        why = ": ".join(filter(None, (facts.get("item"), facts.get("error"))))
        return "  ".join(filter(None, (facts["status"], f"exit code {code}" if code else "", why)))
    raise ValueError(kind)
