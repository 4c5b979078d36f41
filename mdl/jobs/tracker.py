"""Tracker: the listeners of a running job that keep its file and its ready file up to date."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mdl.console.state import State
from mdl.describe import describe
from mdl.disk import publish
from mdl.events import Ended, Event, FileProgress, Planned, Progressed, Started
from mdl.formatting import utc_now
from mdl.jobs.job import Job
from mdl.jobs.records import JobFile
from mdl.redact import Secrets, redact

_WRITE_SECONDS = 0.5
"""How often the state is written at first, which other terminals show."""
_LONGEST_WRITE_SECONDS = 5.0
_SLOWER = 400
"""A job that has run for so many times `_WRITE_SECONDS` seconds writes its state less and less often: a state is kept
for ever, and a job may run for weeks (ADR 70)."""


class Tracker:
    """A listener that keeps ``job`` up to date, and its ``file``, with the figures of the download, whose ``state``
    takes in each event before this does.

    ``trouble`` is called once if the file cannot be written; the job goes on without one, as it does if ``file`` is
    None.
    """

    def __init__(
        self,
        job: Job,
        file: JobFile | None,
        state: State,
        secrets: Secrets,
        trouble: Callable[[OSError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job = job
        self._file = file
        self._state = state
        self._secrets = secrets
        self._trouble = trouble
        self._clock = clock
        self._current_file = job.file
        self._running: tuple[FileProgress, ...] = ()
        self._is_planned = job.is_planned
        self._is_lost = False
        self._began_at = clock()
        self._written_at = -math.inf

    def __call__(self, event: Event) -> None:
        """Write the state at the start, at the end, and now and then."""
        if isinstance(event, Ended):
            self._end(event)
        elif isinstance(event, Planned):
            self._is_planned = self._is_planned or event.files > 0
            self.write()
        elif isinstance(event, Started):
            self._is_planned = True
            self._current_file = f"{event.model}/{event.file}"
        elif isinstance(event, Progressed):
            self._running = event.files
            if event.files:
                self._current_file = f"{event.files[0].model}/{event.files[0].file}"
            now = self._clock()
            pause = (now - self._began_at) / _SLOWER
            if now - self._written_at >= min(max(_WRITE_SECONDS, pause), _LONGEST_WRITE_SECONDS):
                self.write()

    def write(self) -> None:
        """Write the state as it is now."""
        self._written_at = self._clock()
        if not self.job.finished_at:
            self.job = replace(self.job, file=self._current_file, running=self._running, is_planned=self._is_planned)
        if self._state.has_plan:
            self.job = replace(self.job, **self._figures())
        if self._file is None:
            return
        try:
            self._file.add_state(self.job)
        except OSError as error:
            if not self._is_lost:
                self._is_lost = True
                self._trouble(error)

    def _figures(self) -> dict[str, Any]:
        """The figures of the download. Until the first byte comes no speed is known; after that a speed of 0 means that
        it stalls. A job that is over has neither speed nor time left."""
        state = self._state
        figures: dict[str, Any] = {
            "bytes_done": state.bytes_done,
            "bytes_total": state.whole_total or None,
            "bytes_per_second": None,
            "eta_seconds": None,
            "waiting": None,
        }
        if self.job.finished_at:
            return figures
        if state.has_moved:
            figures["bytes_per_second"] = _rounded(state.rate)
        if state.outage:
            figures["waiting"] = redact(state.outage, self._secrets)
        figures["eta_seconds"] = _rounded(state.eta)
        return figures

    def _end(self, event: Ended) -> None:
        error = None
        if event.message is not None:
            error = dict(describe(event).error or {})
            for key, text in error.items():
                if text:
                    error[key] = redact(text, self._secrets)
        is_done = event.status == "finished"
        self.job = replace(
            self.job,
            status="done" if is_done else event.status,
            running=(),
            file=None if is_done else self._current_file,
            is_planned=self._is_planned,
            finished_at=utc_now(),
            exit_code=event.exit_code,
            error=error,
        )
        self.write()


def _rounded(number: float | None) -> float | None:
    """Return the number with one digit after the point; None if it is not known, or none that JSON has."""
    if number is None or not math.isfinite(number):
        return None
    return round(number, 1)


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
