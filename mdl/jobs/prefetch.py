"""Prefetch: the lock that only one prefetch of a user holds, and the metrics of a run."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mdl.bounds import LARGEST_RECORD, parse_number
from mdl.disk.mutex import file_lock
from mdl.disk.safe_open import read_regular
from mdl.errors import Busy
from mdl.jobs.prometheus import Gauge, labels, write_gauges

if TYPE_CHECKING:
    from mdl.reports import Report

_ACTIONS = ("fetched", "kept", "linked", "failed", "unfinished")
_STATUSES = ("present", "unverified", "partial", "missing")
_SUCCESS = "mdl_prefetch_last_success_timestamp_seconds"


class PrefetchBusy(Busy):
    """Another prefetch of this user is running."""


@contextlib.contextmanager
def prefetch_lock(folders: Iterable[Path]) -> Iterator[None]:
    """Hold the lock of this user's prefetches, in the first of ``folders`` in which a lock file can be made.

    Without any it goes on: a lock only saves work. Raises `PrefetchBusy` at once if another process holds it.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders:
            try:
                stack.enter_context(file_lock(folder, "prefetch", 0.0, lambda _holder: None))
                break
            except Busy as error:
                hint = "wait for it; with --skip-if-running this ends with 0"
                raise PrefetchBusy(error.message, item="prefetch", hint=hint) from error
            except OSError:
                continue
        yield


def write_metrics(path: Path, report: Report, *, exit_code: int, seconds: float, ended: float) -> None:
    """Replace ``path`` as a whole by the metrics of one run; the time of the last success is taken over.

    ``seconds`` is how long the run took, ``ended`` when it ended, in seconds of the epoch. Raises `OSError`.
    """
    actions: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    present: dict[str, float] = {}
    for model in report.models:
        statuses[model.status] += 1
        present[labels(model=model.name)] = int(model.status == "present")
        for file in model.files:
            actions["unfinished" if file.action == "planned" else file.action] += 1
    success = last_success(path) if exit_code else ended
    gauges = [
        Gauge("last_run_timestamp_seconds", "When the last run ended.", {"": ended}),
        Gauge("last_success_timestamp_seconds", "When a run last succeeded; 0: never.", {"": success}),
        Gauge("exit_code", "Exit code of the last run; 75: stopped by its window or limit.", {"": exit_code}),
        Gauge("duration_seconds", "How long the last run took.", {"": round(seconds, 3)}),
        Gauge("fetched_bytes", "Bytes from the network in the last run.", {"": report.bytes_fetched}),
        Gauge("kept_bytes", "Bytes that were here before the last run.", {"": report.bytes_kept}),
        Gauge("discarded_bytes", "Bytes thrown away in the last run.", {"": report.bytes_discarded}),
        Gauge(
            "files",
            "Files of the last run, by what was done.",
            {labels(action=action): actions[action] for action in _ACTIONS},
        ),
        Gauge(
            "models",
            "Models of the last run, by status.",
            {labels(status=status): statuses[status] for status in _STATUSES},
        ),
        Gauge("model_present", "1 if every file of the model is here and verified.", present),
    ]
    write_gauges(path, [replace(gauge, name=f"mdl_prefetch_{gauge.name}") for gauge in gauges])


def last_success(path: Path) -> float:
    try:
        text = (read_regular(path, LARGEST_RECORD) or b"").decode()
        match = re.search(rf"^{_SUCCESS} ([0-9.e+]+)$", text, re.MULTILINE)
        return parse_number(match[1]) if match else 0.0
    except (OSError, ValueError):
        return 0.0
