"""What a running job keeps up to date as events come: its record, and the ready file that other programs wait for."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from mdl.describe import describe
from mdl.disk import publish
from mdl.events import Ended, Event, Planned, Progressed, Retrying, Started
from mdl.formatting import utc_now
from mdl.jobs.job import Job
from mdl.jobs.records import Records
from mdl.redact import Secrets, redact

_WRITE_SECONDS = 0.5
"""How often the record is written, which other terminals show."""


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
        self.job = job
        self._records = records
        self._secrets = secrets
        self._trouble = trouble
        self._clock = clock
        self._is_lost = False
        self._written_at = -math.inf
        self._has_moved = False
        """Whether any byte has come: before, no speed is known, and after, a speed of 0 means that it stalls."""

    def __call__(self, event: Event) -> None:
        """Note what happened; write it at the start, at the end, and twice a second."""
        match event:
            case Planned():
                self.job = replace(self.job, bytes_done=event.bytes_kept, bytes_total=event.bytes_total)
                self.write()
            case Started():
                self.job = replace(self.job, file=f"{event.model}/{event.file}")
            case Retrying() if event.outage:
                self.job = replace(self.job, waiting=redact(event.outage, self._secrets))
            case Progressed():
                if event.bytes_done > self.job.bytes_done:
                    self.job = replace(self.job, waiting=None)
                first = event.files[0] if event.files else None
                self._has_moved = self._has_moved or event.bytes_per_second > 0
                self.job = replace(
                    self.job,
                    bytes_done=event.bytes_done,
                    bytes_total=event.bytes_total or None,
                    bytes_per_second=round(event.bytes_per_second, 1) if self._has_moved else None,
                    eta_seconds=round(event.eta_seconds, 1) if event.eta_seconds is not None else None,
                    file=f"{first.model}/{first.file}" if first else self.job.file,
                    running=event.files,
                )
                if self._clock() - self._written_at >= _WRITE_SECONDS:
                    self.write()
            case Ended():
                self._end(event)

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

    def _end(self, event: Ended) -> None:
        facts = describe(event).error if event.message is not None else None
        error = {key: redact(text, self._secrets) if text else text for key, text in facts.items()} if facts else None
        self.job = replace(
            self.job,
            status="done" if event.status == "finished" else event.status,
            bytes_per_second=None,
            eta_seconds=None,
            running=(),
            waiting=None,
            file=None if event.status == "finished" else self.job.file,
            finished_at=utc_now(),
            exit_code=event.exit_code,
            error=error,
        )
        self.write()


class RateControl:
    """A listener that looks, twice a second, whether another process has set a rate for the job ``name``, and then
    calls ``change`` with it."""

    def __init__(
        self,
        records: Records,
        name: str,
        change: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._name = name
        self._change = change
        self._clock = clock
        self._rate = ""
        self._looked_at = -math.inf

    def __call__(self, _event: Event) -> None:
        now = self._clock()
        if now - self._looked_at < _WRITE_SECONDS:
            return
        before = self._rate
        self._looked_at = now
        self._rate = self._records.rate(self._name)
        if self._rate not in ("", before):
            self._change(self._rate)


class ReadyFile:
    """A listener that keeps a file which exists only while everything that was asked for is here.

    The file is removed when something has to be fetched or the run fails, and written when all ended well. ``trouble``
    is called once if it cannot be written or removed.
    """

    def __init__(self, path: Path, models: Mapping[str, Path], trouble: Callable[[OSError], None]) -> None:
        self._path = path
        self._models = models
        self._trouble = trouble
        self._is_lost = self._is_written = False

    def __call__(self, event: Event) -> None:
        try:
            if isinstance(event, Started) or (isinstance(event, Ended) and event.status == "failed"):
                self._is_written = False
                publish.unpublish(self._path)
            elif isinstance(event, Ended) and event.status == "finished" and not self._is_written:
                self._is_written = True
                models = {name: str(path) for name, path in self._models.items()}
                data = json.dumps({"schema": "mdl.ready/1", "time": utc_now(), "models": models}).encode()
                publish.write_file(self._path, data + b"\n", mode=0o644, sweep_first=True)
        except OSError as error:
            if not self._is_lost:
                self._is_lost = True
                self._trouble(error)
