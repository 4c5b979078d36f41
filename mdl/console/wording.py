"""Wording: what bars and plain lines say alike. Every name and message passes through ``clean``. Pure."""

from __future__ import annotations

from collections.abc import Callable

from mdl.console.humans import human_bytes, human_duration
from mdl.events import Ended, Event, Finished, Planned, Retrying, Rewound, Started

Clean = Callable[[str], str]
"""Takes secrets out of a text and escapes what a terminal would obey."""

_CHECKS = {"none": "unverified", "size": "only its size checked"}
_ACTIONS = {"kept": "already here", "linked": "linked", "planned": "planned"}
_WAYS = {"clone": "cloned", "link": "hard-linked, read-only", "copy": "copied from this disk"}


def item_of(event: Event) -> str:
    """``model/file``, or whichever of the two there is."""
    return "/".join(part for part in (event.model, event.file) if part)


def error_text(item: str | None, message: str, hint: str | None, clean: Clean) -> str:
    """``mdl: item: message``, further lines of the message indented, and the hint on a line of its own."""
    first, *more = [clean(line) for line in message.rstrip("\n").split("\n")]
    named = f"{clean(item)}: " if item else ""
    lines = [f"mdl: {named}{first}", *(f"  {line}" for line in more)]
    if hint:
        lines.append(f"  hint: {clean(hint)}")
    return "".join(f"{line}\n" for line in lines)


def plan_words(event: Planned) -> str:
    """``plan: 7 files, 7.2 GB: 1.0 GB already here, 6.2 GB to fetch``."""
    files = "1 file" if event.files == 1 else f"{event.files} files"
    here = event.bytes_kept - event.bytes_elsewhere
    parts = [f"{human_bytes(here)} already here"] if here else []
    if event.bytes_elsewhere:
        parts.append(elsewhere_words(event.bytes_elsewhere, event.bytes_to_copy))
    parts.append(f"{human_bytes(event.bytes_to_fetch)} to {event.verb}")
    return f"plan: {files}, {human_bytes(event.bytes_total)}: {', '.join(parts)}"


def elsewhere_words(found: int, to_copy: int) -> str:
    """``400.1 MB elsewhere on this disk (400.1 MB are copied)``."""
    copied = f" ({human_bytes(to_copy)} are copied)" if to_copy else ""
    return f"{human_bytes(found)} elsewhere on this disk{copied}"


def resumed_words(event: Started) -> str:
    """``resumed at 1.2 GB of 4.3 GB``."""
    whole = "?" if event.total is None else human_bytes(event.total)
    return f"resumed at {human_bytes(event.resumed_at)} of {whole}"


def retrying_words(event: Retrying, clean: Clean) -> str:
    """``attempt 2 in 4 s: why``."""
    return f"attempt {event.attempt} in {human_duration(event.delay)}: {clean(event.why)}"


def rewound_words(event: Rewound, clean: Clean) -> str:
    """``120.0 MB thrown away: why``."""
    why = f": {clean(event.why)}" if event.why else ""
    return f"{human_bytes(event.bytes_discarded)} thrown away{why}"


def finished_words(event: Finished, clean: Clean) -> str:
    """``1.2 GB  sha256 ok``."""
    check = _CHECKS.get(event.verified) or (f"{clean(event.verified)} ok" if event.verified else "")
    words = [human_bytes(event.size), check, _WAYS.get(event.way or "") or _ACTIONS.get(event.action, "")]
    return "  ".join(word for word in words if word)


def dropped_words(count: int) -> str:
    """What is said of the lines that nobody read in time; nothing if there are none."""
    return f"{count} lines are left out here: they were not read in time" if count else ""


def ended_words(event: Ended, done: int, total: int | None) -> str:
    """``paused at 1.2 GB of 4.3 GB``."""
    whole = "?" if total is None else human_bytes(total)
    return f"{event.status} at {human_bytes(done)} of {whole}"
