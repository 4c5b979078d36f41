"""Tracker: a listener that keeps a job's record up to date while the job runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from mdl.describe import describe
from mdl.events import Ended, Event, Planned, Progressed, Started
from mdl.jobs.job import Job
from mdl.jobs.records import Records, now
from mdl.redact import Secrets, redact

_EVERY = 0.5
"""Seconds between two writes of the record, which other terminals show."""
_STATUS = {"finished": "done"}


class Tracker:
    """Keeps the record of ``job``. ``trouble`` is called once if the record cannot be written; the job goes on without
    one, as it does if ``records`` is None."""

    def __init__(
        self,
        job: Job,
        records: Records | None,
        secrets: Secrets,
        trouble: Callable[[OSError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job, self._records, self._secrets = job, records, secrets
        self._trouble, self._clock, self._is_lost = trouble, clock, False
        self._written_at = -math.inf

    def __call__(self, event: Event) -> None:
        """Note what happened; write it at the start, at the end, and twice a second."""
        match event:
            case Planned():
                self.job = replace(self.job, bytes_done=event.bytes_kept, bytes_total=event.bytes_total)
                self.write()
            case Started():
                self.job = replace(self.job, file=f"{event.model}/{event.file}")
            case Progressed():
                self._progress(event)
            case Ended():
                self._end(event)
            case _:
                pass

    def write(self) -> None:
        """Write the record as it is now."""
        self._written_at = self._clock()
        if self._records is None:
            return
        try:
            self._records.put(self.job)
        except OSError as error:
            if not self._is_lost:
                self._is_lost = True
                self._trouble(error)

    def _progress(self, event: Progressed) -> None:
        first = event.files[0] if event.files else None
        self.job = replace(
            self.job,
            bytes_done=event.bytes_done,
            bytes_total=event.bytes_total or None,
            bytes_per_second=round(event.bytes_per_second, 1),
            eta_seconds=round(event.eta_seconds, 1) if event.eta_seconds is not None else None,
            file=f"{first.model}/{first.file}" if first else self.job.file,
        )
        if self._clock() - self._written_at >= _EVERY:
            self.write()

    def _end(self, event: Ended) -> None:
        facts = describe(event).error if event.message is not None else None
        error = {key: redact(text, self._secrets) if text else text for key, text in facts.items()} if facts else None
        self.job = replace(
            self.job,
            status=_STATUS.get(event.status, event.status),
            bytes_per_second=None,
            eta_seconds=None,
            file=None if event.status == "finished" else self.job.file,
            finished_at=now(),
            exit_code=event.exit_code,
            error=error,
        )
        self.write()
