"""Job: one get, prefetch or repair, as its record describes it. Sizes in bytes, times in ISO 8601 and UTC. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, field, fields
from typing import Any

from mdl.events import FileProgress
from mdl.values import value_class

VERSION = 1
JOB_VARIABLE = "MDL_JOB"
"""Names the job that a process resumes, and has its `Job.stamp` of the moment when that was decided."""
ENDED = ("done", "failed", "cancelled")
"""A job of these is over; one that is ``running``, ``paused`` or ``dead`` can go on."""


@value_class
class Invocation:
    """What it takes to run a command again: the words after ``mdl``, the folder, the variables that matter.

    ``withheld`` is True if a word or variable held a secret, which is never written down.
    """

    words: tuple[str, ...] = ()
    folder: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    withheld: bool = False


@value_class
class Job:
    """One job. ``owner`` is its process, ``host`` the machine; ``error`` has code, message, hint and item. ``kind`` and
    ``repo`` are those of its models; None if they have several. ``method`` is how files come, and ``running`` are the
    files that are coming now. What was added later is not in the record of an older mdl."""

    id: str
    command: str
    models: tuple[str, ...]
    owner: str
    host: str
    again: Invocation
    started_at: str
    log: str | None = None
    status: str = "running"
    bytes_done: int = 0
    bytes_total: int | None = None
    bytes_per_second: float | None = None
    eta_seconds: float | None = None
    file: str | None = None
    finished_at: str | None = None
    exit_code: int | None = None
    error: Mapping[str, str | None] | None = None
    kind: str | None = None
    repo: str | None = None
    method: str = "http"
    running: tuple[FileProgress, ...] = ()

    @property
    def stamp(self) -> str:
        """It changes when another process takes the job over, pauses it or ends it."""
        return f"{'running' if self.status == 'dead' else self.status} {self.owner}"

    @property
    def percent(self) -> float | None:
        """How much of its bytes is done; None if the total is not known."""
        return min(100.0, round(100 * self.bytes_done / self.bytes_total, 1)) if self.bytes_total else None


_ADDED: dict[str, Any] = {"kind": None, "repo": None, "method": "http", "running": []}
"""What records of earlier releases do not have, and what it is for these."""
_NAMES = tuple(one.name for one in fields(Job) if one.name not in _ADDED)
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("id", "command", "owner", "host", "started_at", "status", "method"), str),
    **dict.fromkeys(("log", "file", "finished_at", "kind", "repo"), (str, type(None))),
    **dict.fromkeys(("bytes_total", "bytes_per_second", "eta_seconds", "exit_code"), (int, float, type(None))),
    "bytes_done": (int, float),
    **dict.fromkeys(("models", "running"), list),
    "again": dict,
    "error": (dict, type(None)),
}
_PLACES = ("--to", "--into", "--include", "--exclude", "--revision", "--layout", "--catalog")
"""The options that say what a job brings, and where to."""
_SHOWN = (
    *("id", "command", "models", "kind", "repo", "status"),
    *("bytes_done", "bytes_total", "percent", "bytes_per_second", "eta_seconds"),
    *("file", "started_at", "finished_at", "exit_code", "error", "log"),
)


def finishers(jobs: Iterable[Job]) -> dict[str, Job]:
    """The jobs that died, failed or were paused, and whose models later jobs finished in the same place: by the id of
    each, the last one of these later jobs."""
    done: dict[tuple[object, str], Job] = {}
    unfinished = []
    for job in jobs:
        if job.status == "done":
            for key in _targets(job):
                done[key] = max(job, done.get(key, job), key=_ended_at)
        elif job.status in ("dead", "failed", "paused"):
            unfinished.append(job)
    found = {}
    for job in unfinished:
        later = [done[key] for key in _targets(job) if key in done and _ended_at(done[key]) > _ended_at(job)]
        if later and len(later) == len(job.models):
            found[job.id] = max(later, key=_ended_at)
    return found


def _targets(job: Job) -> list[tuple[object, str]]:
    """Each model of a job, with what says where it goes and what of it."""
    options = sorted(word for word in job.again.words if word.partition("=")[0] in _PLACES)
    place = (*options, job.again.folder if options else "", job.again.variables.get("MDL_HOME"))
    return [(place, model) for model in job.models]


def _ended_at(job: Job) -> str:
    return job.finished_at or job.started_at


def resume_command(job: Job) -> str | None:
    """The command that resumes it; None if it is over or running, or if its record does not say enough to resume it."""
    can = job.status not in ("done", "running") and job.again.words and not job.again.withheld
    return f"mdl jobs resume {job.id}" if can else None


def shown_facts(job: Job) -> dict[str, Any]:
    """What ``--json`` tells of it."""
    return {name: getattr(job, name) for name in _SHOWN}


def facts_of(job: Job) -> dict[str, Any]:
    """What its record holds."""
    return {"mdl-job": VERSION, **asdict(job)}


def job_of(facts: Mapping[str, Any]) -> Job | None:
    """The job of a record; None if it is not a record of a job."""
    try:
        values = {name: facts[name] for name in _NAMES} | {name: facts.get(name, one) for name, one in _ADDED.items()}
        for name, kinds in _KINDS.items():
            if not isinstance(values[name], kinds):
                return None
        again = values["again"]
        if not _are_texts([again["folder"], *again["words"], *again["variables"], *again["variables"].values()]):
            return None
        values["again"] = Invocation(
            tuple(again["words"]), again["folder"], again["variables"], bool(again["withheld"])
        )
        values["models"] = tuple(values["models"])
        values["running"] = tuple(FileProgress(**one) for one in values["running"])
        return Job(**values) if _are_texts(values["models"]) else None
    except (KeyError, TypeError, AttributeError):
        return None


def _are_texts(values: Iterable[Any]) -> bool:
    for value in values:  # noqa: SIM110 - there may be ten thousand records, and this takes half the time
        if not isinstance(value, str) or "\0" in value:
            return False
    return True
