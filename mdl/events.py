"""What happened: frozen facts with plain numbers. Nothing here knows how they are shown.

A Listener is any callable taking an Event; ``list.append`` is a perfect one for a test. Sizes are
bytes, rates bytes per second, durations seconds.
"""

from __future__ import annotations

from typing import Protocol

from mdl.listener import Event as Event
from mdl.listener import Listener as Listener
from mdl.listener import silence as silence
from mdl.values import value_class


@value_class
class Planned(Event):
    """The plan: how many files and bytes are wanted, kept and still to be fetched (or what ``verb`` says). Of the
    bytes kept, ``bytes_elsewhere`` are in another place on this disk, and ``bytes_to_copy`` of these are copied.
    ``models`` are the models with the number of their files, if there is more to tell than of the files alone."""

    files: int = 0
    bytes_total: int = 0
    bytes_kept: int = 0
    bytes_to_fetch: int = 0
    bytes_elsewhere: int = 0
    bytes_to_copy: int = 0
    verb: str = "fetch"
    models: tuple[tuple[str, int], ...] = ()


@value_class
class Started(Event):
    """A file begins; ``resumed_at`` bytes of it are on disk already. ``index`` counts from 1."""

    index: int = 0
    count: int = 0
    total: int | None = None
    resumed_at: int = 0
    host: str = ""


@value_class
class FileProgress:
    """Where one running file stands."""

    model: str
    file: str
    index: int
    done: int
    total: int | None
    resumed_at: int = 0


@value_class
class Progressed(Event):
    """A look at the whole: bytes over all files, the windowed speed, each running file, and how many connections bring
    them. ``files_done`` counts the members of an archive that are done: they have no events of their own."""

    bytes_done: int = 0
    bytes_total: int = 0
    bytes_per_second: float = 0.0
    files: tuple[FileProgress, ...] = ()
    connections: int = 0
    files_done: int = 0


class Attempt(Protocol):
    """What `mdl.net.policy.Again` says of the next attempt."""

    @property
    def why(self) -> str: ...
    @property
    def failure(self) -> int: ...
    @property
    def delay(self) -> float: ...
    @property
    def most(self) -> int: ...
    @property
    def idle(self) -> float: ...
    @property
    def patience(self) -> float: ...


LONG_OUTAGE = 60.0
"""Seconds without a byte that are worth a line."""


def _minutes(seconds: float) -> str:
    """Whole minutes or hours, as ``--patience`` is written: ``5m``, ``1h``."""
    minutes = round(seconds / 60)
    if seconds < LONG_OUTAGE:
        return f"{seconds:.0f}s"
    return f"{minutes // 60}h" if minutes >= 60 and minutes % 60 == 0 else f"{minutes}m"


@value_class
class Retrying(Event):
    """A try failed and another follows in ``delay`` seconds: retry ``attempt`` of ``most`` (0: there is no limit).
    ``attempt`` is 0 if no patience is spent, as when another mirror is asked. Nothing has moved for ``idle`` seconds;
    after ``patience`` seconds of that mdl gives up."""

    why: str = ""
    attempt: int = 0
    delay: float = 0.0
    most: int = 0
    idle: float = 0.0
    patience: float = 0.0

    @classmethod
    def of(cls, again: Attempt, model: str = "", file: str = "") -> Retrying:
        """What the retry policy decided, of that file."""
        return cls(
            model,
            file,
            why=again.why,
            attempt=again.failure,
            delay=again.delay,
            most=again.most,
            idle=again.idle,
            patience=again.patience,
        )

    @property
    def outage(self) -> str:
        """What has failed for how long, and until when it is tried; '' within the first minute."""
        if self.idle < LONG_OUTAGE:
            return ""
        what, _, reason = self.why.partition(": ")
        text = f"{what} for {_minutes(self.idle)}, still trying until {_minutes(self.patience)}"
        return f"{text}: {reason}" if reason else text


@value_class
class Rewound(Event):
    """Bytes discarded, and why. ``start`` is where in the file they were, if that block alone is fetched again."""

    bytes_discarded: int = 0
    why: str = ""
    start: int | None = None


@value_class
class Verifying(Event):
    """All bytes of the file are here; the digest is being finished. ``done`` of ``total`` bytes hashed."""

    done: int = 0
    total: int | None = None


@value_class
class Finished(Event):
    """The file stands under its final name. ``action`` as in `FileReport`; ``way`` says how bytes from elsewhere on
    this disk came: ``clone``, ``link`` or ``copy``. ``source`` is where they came from: a host, or a path."""

    size: int = 0
    action: str = "fetched"
    verified: str = "none"
    way: str | None = None
    source: str = ""


@value_class
class Failed(Event):
    """A file or a model failed, with the facts of its error. ``item`` is what the error itself is about, if it says."""

    code: str = "INTERNAL"
    message: str = ""
    hint: str | None = None
    item: str | None = None


@value_class
class Noticed(Event):
    """Something that the user should know; nothing failed."""

    message: str = ""


@value_class
class Ended(Event):
    """The last event of all: ``status`` is "finished", "failed", "cancelled" or "paused"; the rest as in an error.

    ``exit_code`` is None if the failure does not say it."""

    status: str = "finished"
    code: str | None = None
    message: str | None = None
    hint: str | None = None
    item: str | None = None
    exit_code: int | None = 0
