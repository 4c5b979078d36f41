"""Job: one get, prefetch or repair, and the lines of its file. Sizes in bytes, times in ISO 8601 and UTC. Pure.

Each line is a JSON object with a checksum, so that a torn or damaged one is noticed. The first has the facts of the job
that stay as they are (``mdl-job``). Others have its state at one moment (``status``), or an event (``event``). Further
lines, which are no JSON, are what the process of a detached job, or a hook, wrote to its stderr.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import field, fields
from functools import cache
from types import NoneType
from typing import Any

from mdl import events
from mdl.bounds import parse_json
from mdl.errors import STOPPED, AuthError, NotFound, Unsafe, UsageError
from mdl.events import Event, FileProgress
from mdl.formatting import spelled
from mdl.redact import redact
from mdl.values import value_class

VERSION = 2
"""Version of the format of a job's file."""
JOB_VARIABLE = "MDL_JOB"
"""Names the job that a process resumes, and has its `Job.stamp` of the moment when that was decided."""
ENDED = ("done", "failed", "cancelled")
"""A job of these is over; one that is ``running``, ``paused`` or ``dead`` can go on."""
STATE = b'{"status":'
"""How the line of a state begins."""
_CHECK = b',"crc":"'
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_EVENTS: dict[str, type[Event]] = {
    "planned": events.Planned,
    "started": events.Started,
    "progress": events.Progressed,
    "retrying": events.Retrying,
    "rewound": events.Rewound,
    "verifying": events.Verifying,
    "finished": events.Finished,
    "failed": events.Failed,
    "notice": events.Noticed,
    "ended": events.Ended,
}
_NAMES = {event_class: name for name, event_class in _EVENTS.items()}
_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "str | None": (str, NoneType),
    "int | None": (int, NoneType),
    "float | None": (int, float, NoneType),
}
"""The types in which a field is written, by its annotation."""


def line_of(facts: Mapping[str, Any]) -> str:
    """The facts as one line, with its checksum, without its end."""
    body = _ENCODER.encode(facts).removesuffix("}")
    return f'{body}{_CHECK.decode()}{zlib.crc32(body.encode()):08x}"}}'


def facts_in(line: bytes) -> dict[str, Any] | None:
    """The facts of a line; None if it is torn or damaged, or of another program."""
    line = line.rstrip(b"\n")
    body, _, check = line.rpartition(_CHECK)
    if check != b'%08x"}' % zlib.crc32(body):
        return None
    try:
        facts = parse_json(line)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


@cache
def _types_of(record: type) -> list[tuple[str, tuple[type, ...]]]:
    """The names of the fields of ``record`` that are single values, each with its types."""
    types_of = []
    for entry in fields(record):
        types = _TYPES.get(str(entry.type))
        if types is not None:
            types_of.append((entry.name, types))
    return types_of


def is_well_typed(record: type, facts: Mapping[str, Any]) -> bool:
    """Whether each single value of ``record`` that is in ``facts`` has a type that it is written in."""
    return all(type(facts[name]) in types for name, types in _types_of(record) if name in facts)


@cache
def _defaults_of(event_class: type) -> list[tuple[str, Any]]:
    """The names of the fields of an event, each with its default."""
    return [(entry.name, entry.default) for entry in fields(event_class)]


def event_facts(event: Event) -> dict[str, Any]:
    """The facts of an event. A field that has its default is left out."""
    event_class: type = type(event)
    facts: dict[str, Any] = {"event": _NAMES[event_class], "time": event.time}
    values = vars(event)
    for name, default in _defaults_of(event_class):
        value = values[name]
        if value != default:
            facts[name] = value
    if isinstance(event, events.Progressed):
        facts["files"] = [vars(file) for file in event.files]
    return facts


def event_in(facts: Mapping[str, Any]) -> Event | None:
    """The event of a line; None if it has none, or one that cannot be."""
    event_class = _EVENTS.get(str(facts.get("event")))
    if event_class is None or not is_well_typed(event_class, facts):
        return None
    values = {field.name: facts[field.name] for field in fields(event_class) if field.name in facts}
    try:
        if event_class is events.Progressed:
            values["files"] = tuple(progress_in(file) for file in facts.get("files", ()))
        if event_class is events.Planned:
            values["models"] = tuple((str(name), int(count)) for name, count in facts.get("models", ()))
        return event_class(**values)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def progress_in(facts: Mapping[str, Any]) -> FileProgress:
    """Where one running file is. Raises `KeyError`, `TypeError` or `ValueError` if it cannot be that."""
    total = facts["total"]
    return FileProgress(
        str(facts["model"]),
        str(facts["file"]),
        int(facts["index"]),
        int(facts["done"]),
        None if total is None else int(total),
        int(facts.get("resumed_at", 0)),
    )


def without_secrets(event: Event, secrets: tuple[str, ...], now: str) -> Event:
    """The event with no secret and no signed query in any text; it happened at its time, or else ``now``."""
    values = dict(vars(event))
    values["time"] = event.time or now
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    together = "\n".join(texts.values())
    if redact(together, secrets) != together:  # hardly any event has one: most are looked at once, not field by field
        values |= {name: redact(text, secrets) for name, text in texts.items()}
    return type(event)(**values)


@value_class
class Invocation:
    """The parts of a command line that run it again: the words after ``mdl``, the folder, the variables that matter.

    ``withheld`` is True if a word or variable held a secret, which is never written down.
    """

    words: tuple[str, ...] = ()
    folder: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    withheld: bool = False


HOW = {
    "--connections": "MDL_CONNECTIONS",
    "--patience": "MDL_PATIENCE",
    "--retries": "MDL_RETRIES",
    "--stall": "MDL_STALL",
    "--limit-rate": "MDL_LIMIT_RATE",
    "--max-duration": "MDL_MAX_DURATION",
    "--window": "MDL_WINDOW",
    "--lock-wait": "MDL_LOCK_WAIT",
}
"""The flags and variables that say how fast and at which hours files come, and not which ones. Each has a value."""

Request = tuple[tuple[str, ...], tuple[str, ...], str, tuple[tuple[str, str], ...]]
"""The models, the words, the folder and the variables of a job."""


@value_class
class Job:
    """A job. ``owner`` is its process, ``host`` the machine; ``error`` has code, message, hint and item. ``kind`` and
    ``repo`` are those of its models; None if they have several. ``method`` is how files come, and ``running`` are the
    files that are coming now."""

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
    waiting: str | None = None
    """The server or network that it waits for, if that is away for a while."""
    is_planned: bool = True
    """True once it knows which files it has to fetch."""

    @property
    def stamp(self) -> str:
        """A text that changes when another process takes the job over, pauses it or ends it."""
        return f"{'running' if self.status == 'dead' else self.status} {self.owner}"

    @property
    def request(self) -> Request | None:
        """What was asked for: equal requests are for the same files in the same places, however fast and at whatever
        hours they come. None if its record does not say all of it."""
        again = self.again
        if not again.words or again.withheld:
            return None
        words = without_flags(again.words, HOW)
        variables = {name: value for name, value in again.variables.items() if name not in HOW.values()}
        return self.models, words, again.folder, tuple(sorted(variables.items()))

    @property
    def percent(self) -> float | None:
        """How much of its bytes is done; None if the total is not known."""
        if not self.bytes_total:
            return None
        return min(100.0, round(100 * self.bytes_done / self.bytes_total, 1))


_FIXED = ("id", "command", "models", "again", "started_at", "log")
"""The fields that never change, and are in the first line of a job's file."""
_CHANGING = ("status", *(field.name for field in fields(Job) if field.name not in (*_FIXED, "status")))
_ALL = (*_FIXED, *_CHANGING)
_SHOWN = (
    *("id", "command", "models", "kind", "repo", "status"),
    *("bytes_done", "bytes_total", "percent", "bytes_per_second", "eta_seconds"),
    *("file", "started_at", "finished_at", "exit_code", "error", "log"),
)


def without_flags(words: Sequence[str], flags: Container[str]) -> tuple[str, ...]:
    """The words of a command line without these flags and their values: ``--flag VALUE`` or ``--flag=VALUE``."""
    left = []
    is_value = False
    for word in words:
        is_flag = word.partition("=")[0] in flags
        if not is_flag and not is_value:
            left.append(word)
        is_value = is_flag and "=" not in word
    return tuple(left)


def is_no_job(job: Job) -> bool:
    """Whether it failed before it knew what to bring, as after a slip in a name. Then it is not listed, and nothing of
    it can be resumed; whoever has its id can still look at it."""
    return job.status == "failed" and not job.is_planned


def can_be_resumed(job: Job) -> bool:
    """Whether a job was interrupted, so that the same command goes on where it stopped: it was paused, killed, stopped
    by its limits or by a signal. A job that failed by itself is none of these: the same words would fail again."""
    return job.status in ("paused", "dead") or job.exit_code in STOPPED


def finishers(jobs: Sequence[Job]) -> dict[str, Job]:
    """The unfinished jobs whose request a later job has carried out: by the id of each, the first of these later
    jobs."""
    finished_by: dict[str, Job] = {}
    unfinished: dict[Request, list[Job]] = {}
    for job in sorted(jobs, key=_ended_at):
        if job.request is None or job.status == "running":
            continue
        if job.status != "done":
            unfinished.setdefault(job.request, []).append(job)
            continue
        for earlier in unfinished.pop(job.request, ()):
            finished_by[earlier.id] = job
    return finished_by


def _ended_at(job: Job) -> str:
    return job.finished_at or job.started_at


def what_was_typed(job: Job) -> str:
    """The command and its arguments as they were typed: ``get org/model``; its flags too if it had no arguments."""
    words = job.again.words
    at = words.index("--") if "--" in words else len(words)
    arguments = words[at + 1 :] or words[1:at] or job.models
    return " ".join((job.command, *arguments))


def readable_item(job: Job, item: str) -> str:
    """The model or file that ``item`` names, as people read it: ``org/model/file``."""
    for model in job.models:
        if item == model or item.startswith(f"{model}/"):
            return spelled(model, job.repo or "") + item[len(model) :]
    return item


_LASTING = frozenset((UsageError.exit_code, NotFound.exit_code, AuthError.exit_code, Unsafe.exit_code))
"""The exit codes after which the same command fails again."""


def fails_again(job: Job) -> bool:
    """Whether the same words would fail for the same reason, as for a wrong name or a missing token."""
    return job.status == "failed" and job.exit_code in _LASTING


def resume_command(job: Job) -> str | None:
    """The command that resumes it; None if it is over or running, if it would fail again, or if its record does not say
    enough to resume it."""
    if job.status in ("done", "running") or job.request is None or fails_again(job):
        return None
    return f"mdl jobs resume {job.id}"


def shown_facts(job: Job) -> dict[str, Any]:
    """Return the facts that ``--json`` shows."""
    return {name: getattr(job, name) for name in _SHOWN}


def head_facts(job: Job) -> dict[str, Any]:
    """The first line of its file."""
    facts: dict[str, Any] = {"mdl-job": VERSION}
    facts |= {name: getattr(job, name) for name in _FIXED}
    facts["again"] = dict(vars(job.again))
    return facts


def state_facts(job: Job, time: str) -> dict[str, Any]:
    """The line of its state at ``time``."""
    facts = {name: getattr(job, name) for name in _CHANGING}
    facts["running"] = [dict(vars(file)) for file in job.running]
    return facts | {"time": time}


def job_of(facts: Mapping[str, Any]) -> Job | None:
    """The job of these facts: those of the first line of its file with those of its last state; None if they are not of
    a job."""
    try:
        values = {name: facts[name] for name in _ALL}
        again = facts["again"]
        variables = again["variables"]
        _texts_in([again["folder"], *variables, *variables.values()])
        values["again"] = Invocation(_texts_in(again["words"]), again["folder"], variables, bool(again["withheld"]))
        values["models"] = _texts_in(facts["models"])
        values["running"] = tuple(progress_in(file) for file in facts["running"])
        is_right = is_well_typed(Job, facts) and isinstance(facts["error"], dict | None)
        return Job(**values) if is_right else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _texts_in(values: object) -> tuple[str, ...]:
    """A list of texts that a command line can have. Raises `TypeError` if it is not that."""
    if not isinstance(values, list):
        raise TypeError("no list")
    for value in values:
        if not isinstance(value, str) or "\0" in value:
            raise TypeError("no text")
    return tuple(values)
