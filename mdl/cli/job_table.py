"""The table of jobs: one line a job, however wide the terminal is. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from mdl.errors import EXIT_CODES
from mdl.formatting import counted, human_bytes, human_duration, human_rate, local_moment, local_time
from mdl.jobs.job import Job, what_was_typed
from mdl.paths import shown
from mdl.values import value_class

Fact = TypeVar("Fact")
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""The heads of the columns, and the lines."""
_WIDE = 100
"""Columns of a terminal that has room for whole dates and sizes."""
_PLAIN = ("ID", "STATUS", "DONE", "OF", "SPEED", "LEFT", "STARTED", "WHAT", "TOOK", "REASON")
_DRAWN = ("ID", "STATUS", "DONE", "BEGAN", "TOOK", "WHAT", "DETAILS")
CUT = ("DETAILS", "WHAT")
"""The columns that are cut on a narrow terminal."""
DROPPED = ("TOOK", "BEGAN", "DETAILS")
"""The columns that are left out if that is not enough, in this order."""


@value_class
class Row:
    """A job of the table. ``stalled`` says why it makes no progress, if it runs; ``finished_by`` is the id of the
    later job that finished what this one did not."""

    job: Job
    stalled: str = ""
    finished_by: str = ""

    @property
    def status(self) -> str:
        return "stalled" if self.stalled else self.job.status

    @property
    def what(self) -> str:
        return shown(what_was_typed(self.job))

    @property
    def reason(self) -> str:
        """Why it is not done: the name of its exit code, and its error; or which job has done it since."""
        if self.stalled:
            return self.stalled
        if self.finished_by:
            return f"{self.finished_by} finished it"
        if self.job.status == "dead":
            return "its process ended"
        parts = []
        if self.job.status == "failed":
            name, *_ = EXIT_CODES.get(self.job.exit_code or 0, ("",))
            parts.append(name.replace("-", " "))
        parts.append((self.job.error or {}).get("message") or "")
        reason = ": ".join(part for part in parts if part and part != self.job.status)
        return shown(reason.replace("\n", " "))

    @property
    def details(self) -> str:
        """Its speed, or why it is not done."""
        job = self.job
        if job.bytes_per_second is None or self.stalled:
            return self.reason
        left = in_words(job.eta_seconds, lambda seconds: f", {human_duration(seconds)} left")
        return human_rate(job.bytes_per_second) + left

    def took(self, now: datetime) -> str:
        """From its start to its end, or until now; "-" if nobody knows when it ended."""
        end = now if self.job.status == "running" else local_moment(self.job.finished_at or "")
        start = local_moment(self.job.started_at)
        if start is None or end is None:
            return "-"
        return human_duration((end - start).total_seconds())


def in_words(fact: Fact | None, words: Callable[[Fact], str]) -> str:
    """A fact of a job in ``words``; '' if it is not known."""
    return "" if fact is None else words(fact)


def plain_table(rows: Sequence[Row], now: datetime) -> Table:
    """Head and lines for a pipe: all of it, nothing cut."""
    lines = []
    for row in rows:
        job = row.job
        lines.append(
            (
                job.id,
                row.status,
                human_bytes(job.bytes_done),
                human_bytes(job.bytes_total),
                in_words(job.bytes_per_second, human_rate) or "-",
                in_words(job.eta_seconds, human_duration) or "-",
                local_time(job.started_at),
                row.what,
                row.took(now),
                row.reason or "-",
            )
        )
    return _PLAIN, lines


def drawn_table(rows: Sequence[Row], now: datetime, width: int) -> Table:
    """Head and lines for a terminal of ``width`` columns, of which `CUT` and `DROPPED` give room."""
    is_wide = width >= _WIDE
    lines = []
    for row in rows:
        job = row.job
        if is_wide:
            done = f"{human_bytes(job.bytes_done)} of {human_bytes(job.bytes_total)}"
        elif job.percent is None:
            done = human_bytes(job.bytes_done)
        else:
            done = f"{int(job.percent)} %"
        began = local_time(job.started_at, now, is_short=not is_wide)
        what = row.what if is_wide else row.what.removeprefix("get ")
        lines.append((job.id, row.status, done, began, row.took(now), what, row.details or "-"))
    return _DRAWN, lines


def total_line(rows: Sequence[Row]) -> str:
    """``5 jobs: 1 running, 2 paused, 2 done``."""
    statuses = Counter(row.status for row in rows)
    counts = ", ".join(f"{count:,} {status}" for status, count in statuses.items())
    return f"{counted(len(rows), 'job')}: {counts}"
