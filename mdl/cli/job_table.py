"""The table of jobs: one line a job, however wide the terminal is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mdl.errors import EXIT_CODES
from mdl.formatting import cells, clip, human_bytes, human_duration, human_rate, local_moment, local_time
from mdl.jobs.job import Job, what_was_typed
from mdl.paths import shown
from mdl.values import value_class

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""The heads of the columns, and the lines."""
_WIDE = 100
"""Columns of a terminal that has room for whole dates and sizes."""
_PLAIN = ("ID", "STATUS", "DONE", "OF", "SPEED", "LEFT", "STARTED", "WHAT", "TOOK", "REASON")
WHAT = "WHAT"
REASON = "SPEED OR REASON"
_DRAWN = ("ID", "STATUS", "DONE", "BEGAN", "TOOK", WHAT, REASON)
_GAP = 2
_LEAST = 10
"""Columns that what a job does, and the reason, have at least."""


@value_class
class Row:
    """One job of the table. ``stalled`` says why it makes no progress, if it runs; ``finished_by`` is the id of the
    later job that finished what this one did not."""

    job: Job
    stalled: str = ""
    finished_by: str = ""

    @property
    def status(self) -> str:
        return "stalled" if self.stalled else self.job.status

    @property
    def reason(self) -> str:
        """Why it is not done: the name of its exit code, and its error; or which job has done it since."""
        error = self.job.error or {}
        if self.stalled or self.finished_by:
            return self.stalled or f"{self.finished_by} finished it"
        if self.job.status == "dead":
            return "its process is gone"
        name, *_ = EXIT_CODES.get(self.job.exit_code or 0, ("",)) if self.job.status == "failed" else ("",)
        said = [name.replace("-", " "), error.get("message") or ""]
        said = [text for text in said if text and text != self.job.status]
        return shown(": ".join(said).replace("\n", " "))

    @property
    def what(self) -> str:
        return shown(what_was_typed(self.job))

    @property
    def speed_or_reason(self) -> str:
        job = self.job
        if job.bytes_per_second is None or self.stalled:
            return self.reason
        left = f", {human_duration(job.eta_seconds)} left" if job.eta_seconds is not None else ""
        return human_rate(job.bytes_per_second) + left

    def took(self, now: datetime) -> str:
        """From its start to its end, or until now; "-" if nobody knows when it ended."""
        job = self.job
        end = now if job.status == "running" else local_moment(job.finished_at or "")
        start = local_moment(job.started_at)
        return human_duration((end - start).total_seconds()) if start and end else "-"


def plain_table(rows: Sequence[Row], now: datetime) -> Table:
    """Head and lines for a pipe: all of it, nothing cut."""
    lines = [
        (
            row.job.id,
            row.status,
            human_bytes(row.job.bytes_done),
            human_bytes(row.job.bytes_total),
            human_rate(row.job.bytes_per_second) if row.job.bytes_per_second is not None else "-",
            human_duration(row.job.eta_seconds) if row.job.eta_seconds is not None else "-",
            local_time(row.job.started_at),
            row.what,
            row.took(now),
            row.reason or "-",
        )
        for row in rows
    ]
    return _PLAIN, lines


def drawn_table(rows: Sequence[Row], now: datetime, width: int) -> Table:
    """Head and lines for a terminal of ``width`` columns. What a job does and the reason are cut to what is left."""
    is_wide = width >= _WIDE
    fixed = [
        (
            row.job.id,
            row.status,
            _done(row.job, is_wide=is_wide),
            local_time(row.job.started_at, now, is_short=not is_wide),
            row.took(now),
        )
        for row in rows
    ]
    whats = [row.what if is_wide else row.what.removeprefix("get ") for row in rows]
    reasons = [row.speed_or_reason or "-" for row in rows]
    widths = [max(map(cells, column)) for column in zip(_DRAWN, *fixed, strict=False)]
    left = max(width - sum(widths) - _GAP * (len(_DRAWN) - 1), 2 * _LEAST)
    longest, longest_reason = (max(map(cells, texts)) for texts in ((WHAT, *whats), (REASON, *reasons)))
    what = min(longest, max(left - longest_reason, left * 3 // 8))
    lines = [
        (*start, clip(one, what), clip(reason, left - what))
        for start, one, reason in zip(fixed, whats, reasons, strict=True)
    ]
    return _DRAWN, lines


def _done(job: Job, *, is_wide: bool) -> str:
    if is_wide:
        return f"{human_bytes(job.bytes_done)} of {human_bytes(job.bytes_total)}"
    return human_bytes(job.bytes_done) if job.percent is None else f"{int(job.percent)} %"
