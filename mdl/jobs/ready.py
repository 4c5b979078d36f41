"""Ready file: it exists only while everything that was asked for is here, so that other programs can wait for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mdl.events import Ended, Event, Started
from mdl.fs import staging
from mdl.jobs.records import now


class Ready:
    """A listener. The file goes when something has to be fetched or the run fails, and comes when all ended well."""

    def __init__(self, path: Path, models: Callable[[], dict[str, str]], trouble: Callable[[OSError], None]) -> None:
        self._path, self._models, self._trouble, self._is_lost = path, models, trouble, False
        self._is_told = False
        """It was written for this end already."""

    def __call__(self, event: Event) -> None:
        """``trouble`` is told once if the file cannot be written or removed."""
        try:
            if isinstance(event, Started) or (isinstance(event, Ended) and event.status == "failed"):
                self._is_told = False
                staging.unpublish(self._path)
            elif isinstance(event, Ended) and event.status == "finished" and not self._is_told:
                self._is_told = True
                facts = {"schema": "mdl.ready/1", "time": now(), "models": self._models()}
                staging.write_file(self._path, json.dumps(facts).encode() + b"\n", mode=0o644, sweep_first=True)
        except OSError as error:
            if not self._is_lost:
                self._is_lost = True
                self._trouble(error)
