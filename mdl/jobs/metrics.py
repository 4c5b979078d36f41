"""Metrics: how a prefetch went, as a Prometheus text file for node_exporter's textfile collector.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdl.fs import staging
from mdl.fs.private import read_regular
from mdl.reports import Report

_LARGEST = 2**24
_STATUSES = ("present", "unverified", "partial", "missing")
_ACTIONS = ("fetched", "kept", "linked", "failed")
_SUCCESS = "mdl_prefetch_last_success_timestamp_seconds"


@dataclass(frozen=True)
class Outcome:
    """One run: when it ended (seconds of the epoch), how long it took, its exit code, its report."""

    ended: float
    seconds: float
    exit_code: int
    report: Report


def write_metrics(path: Path, outcome: Outcome) -> None:
    """Replace ``path`` as a whole; the moment of the last success is taken over. Raises `OSError`."""
    text = "".join(_lines(outcome, _last_success(path)))
    staging.write_file(path, text.encode(), mode=0o644, durable=False, sweep_first=True)


def _last_success(path: Path) -> float:
    try:
        match = re.search(
            rf"^{_SUCCESS} ([0-9.e+]+)$", (read_regular(path, _LARGEST, is_own=False) or b"").decode(), re.MULTILINE
        )
        return float(match[1]) if match else 0.0
    except (OSError, ValueError):
        return 0.0


def _lines(outcome: Outcome, last_success: float) -> Iterator[str]:
    report, code = outcome.report, outcome.exit_code
    files = [file for model in report.models for file in model.files]
    success = outcome.ended if code == 0 else last_success
    yield from _metric("last_run_timestamp_seconds", "When the last run ended.", [("", outcome.ended)])
    yield from _metric("last_success_timestamp_seconds", "When a run last ended well; 0: never.", [("", success)])
    yield from _metric("exit_code", "Exit code of the last run; 75: stopped by its window or limit.", [("", code)])
    yield from _metric("duration_seconds", "How long the last run took.", [("", round(outcome.seconds, 3))])
    yield from _metric("fetched_bytes", "Bytes from the network in the last run.", [("", report.bytes_fetched)])
    yield from _metric("kept_bytes", "Bytes that were here before the last run.", [("", report.bytes_kept)])
    yield from _metric("discarded_bytes", "Bytes thrown away in the last run.", [("", report.bytes_discarded)])
    rows = [(f'action="{action}"', sum(file.action == action for file in files)) for action in _ACTIONS]
    yield from _metric("files", "Files of the last run, by what was done.", rows)
    statuses = [(f'status="{one}"', sum(model.status == one for model in report.models)) for one in _STATUSES]
    yield from _metric("models", "Models of the last run, by how they stand.", statuses)
    present = [(f'model="{_escaped(model.name)}"', int(model.status == "present")) for model in report.models]
    yield from _metric("model_present", "1 if every file of the model is here and verified.", present)


def _metric(name: str, about: str, rows: Sequence[tuple[str, float]]) -> Iterator[str]:
    if not rows:
        return
    yield f"# HELP mdl_prefetch_{name} {about}\n# TYPE mdl_prefetch_{name} gauge\n"
    for labels, value in rows:
        yield f"mdl_prefetch_{name}{f'{{{labels}}}' if labels else ''} {value!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
