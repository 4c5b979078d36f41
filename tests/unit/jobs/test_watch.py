"""Following a job: its events from the log, its progress from the record, and an end whatever becomes of either."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import each
from support.partials import dead_owner

from mdl.disk.process import ProcessId, hostname
from mdl.errors import NotFound
from mdl.events import (
    Ended,
    Event,
    Failed,
    FileProgress,
    Finished,
    Noticed,
    Planned,
    Progressed,
    Retrying,
    Rewound,
    Started,
    Verifying,
)
from mdl.jobs.job import Invocation, Job, event_facts, event_in, facts_in, line_of
from mdl.jobs.log import LogListener, LogSource
from mdl.jobs.records import Records
from mdl.jobs.watch import follow
from mdl.redact import Secrets

PLAN = Planned(files=2, bytes_total=100, bytes_kept=10, bytes_to_fetch=90)
FIRST, SECOND = (Started("m", name, at, 0, 50, 0, "h") for at, name in ((1, "a b.bin"), (2, "b.bin")))
DONE = Finished("m", "a b.bin", 50, "fetched", "sha256")
ERROR = {"code": "NET", "message": "503", "hint": "later", "item": "m/b.bin"}
Step = Callable[[], object]


class Followed:
    """A job that goes on by one step whenever its follower waits."""

    def __init__(self, folder: Path) -> None:
        self.records = Records(folder / "jobs")
        again = Invocation(("get", "--", "m"), str(folder))
        owner, began = str(ProcessId.current()), "2026-01-02T03:04:05.678Z"
        self.job = self.records.create(Job("", "get", ("m",), owner, hostname(), again, began, bytes_total=100))
        self.path = self.records.path(self.job.id)
        self.waits: list[float] = []

    def put(self, **facts: object) -> None:
        self.job = replace(self.job, **facts)  # type: ignore[arg-type]
        with closing(self.records.open(self.job.id)) as file:
            file.add_state(self.job)

    def write(self, *events: Event) -> None:
        """Write what a running job would."""
        with closing(self.records.open(self.job.id)) as file:
            listener = LogListener(None, Secrets(), LogSource(self.job.id, 7, "get"), lambda _path, _error: None, file)
            for event in events:
                listener(event)
            listener.close()

    def end(self, **facts: object) -> None:
        usual = {"status": "done", "exit_code": 0, "finished_at": "2026-01-02T03:05:00.000Z", "bytes_done": 100}
        self.put(**usual | facts)

    def follow(self, *steps: Step) -> list[Event]:
        """What is told of it while it takes these steps, one at each wait."""
        left: Iterator[Step] = iter(steps)
        told: list[Event] = []

        def wait(seconds: float) -> None:
            self.waits.append(seconds)
            next(left)()

        follow(self.job, self.records, told.append, wait)
        assert next(left, None) is None, "it ended too early"
        return told


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path)


def plain(events: list[Event]) -> list[Event]:
    """The events without their times, and without progress."""
    return [replace(event, time="") for event in events if not isinstance(event, Progressed)]


def test_events_and_progress_as_they_come(followed: Followed) -> None:
    """What the log has when it is looked at first is told, then each line once; progress if the record has news. It
    looks a few times a second: not much more often, and soon enough to end within a second."""
    followed.write(PLAN, FIRST)
    rows = (FileProgress("m", "a b.bin", 1, 40, 50),)
    told = followed.follow(
        lambda: followed.put(bytes_done=40, running=rows),
        lambda: None,
        lambda: followed.write(DONE, SECOND),
        lambda: (followed.write(replace(DONE, file="b.bin"), Ended()), followed.end()),
    )
    assert plain(told) == [PLAN, FIRST, DONE, SECOND, replace(DONE, file="b.bin"), Ended()]
    looks = [event for event in told if isinstance(event, Progressed)]
    assert [(one.bytes_done, one.bytes_total, one.files) for one in looks] == [
        (0, 100, ()),
        (40, 100, rows),
        (100, 100, rows),
    ]
    assert all(event.time for event in told if not isinstance(event, Progressed | Ended))
    assert (len(followed.waits), min(followed.waits) >= 0.1, max(followed.waits) <= 0.5) == (4, True, True)


def test_half_a_line_is_waited_for(followed: Followed) -> None:
    """A line is told when it is whole; what is no line of a log is passed over."""
    line = line_of(event_facts(replace(FIRST, time="2026-01-02T03:04:05.678Z"))).encode() + b"\n"
    with followed.path.open("ab") as file:
        file.write(b"mdl: m: a warning of the process itself\n\n" + line[:50])

    def rest() -> None:
        with followed.path.open("ab") as file:
            file.write(line[50:])

    told = plain(followed.follow(lambda: None, rest, followed.end))
    assert told == [Planned(bytes_total=100), FIRST, Ended()]


def test_only_this_run_of_it(followed: Followed) -> None:
    """What was told before a pause, or before the process was killed, is not told again."""
    own = followed.job.owner
    followed.put(owner=dead_owner())
    followed.write(PLAN, FIRST, DONE)
    followed.put(owner=own)
    followed.write(PLAN, SECOND)
    assert plain(followed.follow(followed.end)) == [PLAN, SECOND, Ended()]


def ends(**facts: object) -> Callable[[Followed], object]:
    return lambda followed: followed.end(**facts)


ENDS: dict[str, tuple[Callable[[Followed], object], tuple[object, ...]]] = {
    "done": (ends(), ("finished", None, None, 0)),
    "failed": (ends(status="failed", exit_code=5, error=ERROR), ("failed", "NET", "503", 5)),
    "paused": (ends(status="paused", exit_code=75, error=ERROR | {"code": "PAUSED"}), ("paused", "PAUSED", "503", 75)),
    "cancelled": (ends(status="cancelled", exit_code=143), ("cancelled", "CANCELLED", "cancelled", 143)),
    "killed": (lambda followed: followed.put(owner=dead_owner()), ("failed", "INTERNAL", None, 1)),
}


@pytest.mark.parametrize("is_over", [True, False], ids=["over before", "over meanwhile"])
@pytest.mark.parametrize(("act", "end"), ENDS.values(), ids=ENDS)
def test_how_it_ends(
    followed: Followed, act: Callable[[Followed], object], end: tuple[object, ...], is_over: bool
) -> None:
    """The last event says how the job ended, in its words and with its exit code; of one that is over it is the only
    one, at once. One that was killed is dead, which counts as 1."""
    followed.write(PLAN)
    if is_over:
        act(followed)
        followed.job = followed.records.find(followed.job.id)
    told = followed.follow(*([] if is_over else [lambda: act(followed)]))
    last = told[-1]
    assert isinstance(last, Ended)
    message = last.message if end[1] != "INTERNAL" else None
    assert (last.status, last.code, message, last.exit_code) == end
    assert end[1] != "INTERNAL" or "dead" in (last.message or "")
    assert (len(told) == 1) == is_over


def test_a_record_that_is_removed(followed: Followed) -> None:
    """If the job's record is removed meanwhile there is nothing to follow: 3."""
    with pytest.raises(NotFound):
        followed.follow(lambda: followed.records.remove(followed.job.id))


NAMES = st.text(st.characters(codec="utf-8", min_codepoint=1), min_size=1, max_size=9)
COUNTS = st.integers(0, 2**40)
EVENTS = st.one_of(
    st.builds(
        Planned,
        files=COUNTS,
        bytes_total=COUNTS,
        bytes_kept=COUNTS,
        bytes_to_fetch=COUNTS,
        verb=NAMES,
        models=st.dictionaries(NAMES, COUNTS, max_size=3).map(lambda found: tuple(found.items())),
    ),
    st.builds(Started, NAMES, NAMES, st.integers(1, 99), total=st.none() | COUNTS, resumed_at=COUNTS, host=NAMES),
    st.builds(Retrying, NAMES, NAMES, NAMES, st.integers(1, 9), st.integers(0, 99).map(float)),
    st.builds(Rewound, NAMES, NAMES, COUNTS, NAMES),
    st.builds(Verifying, NAMES, NAMES, COUNTS, st.none() | COUNTS),
    st.builds(Finished, NAMES, NAMES, COUNTS, st.sampled_from(["fetched", "linked"]), NAMES, st.none() | NAMES),
    st.builds(Failed, NAMES, NAMES, NAMES, NAMES, st.none() | NAMES),
    st.builds(Noticed, NAMES, message=NAMES),
)


class Kept:
    """A job's file that keeps its lines here."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def append(self, *facts: Mapping[str, Any]) -> None:
        self.lines += [line_of(line_facts).encode() for line_facts in facts]


@given(event=EVENTS, kind=st.sampled_from(["", "tts"]), repo=st.sampled_from(["", "hf:org/a", "https://h/a=b"]))
def test_a_line_is_read_as_what_was_written(event: Event, kind: str, repo: str) -> None:
    """Whatever the names and words, the event that a line of the log tells is the one that was logged."""
    kept = Kept()
    event = replace(event, kind=kind, repo=repo)
    began = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() - 60))
    listener = LogListener(None, Secrets(), LogSource("0101-abcd", 7, "get"), lambda _path, _error: None, kept)
    listener(event)
    listener.close()
    found = event_in(facts_in(kept.lines[0]) or {})
    assert found is not None
    assert replace(found, time="") == event
    assert found.time > began
    assert kept.lines[0].isascii()
    assert json.loads(kept.lines[0])["event"]


@each(
    "facts",
    [
        {},
        {"event": "unknown"},
        {"event": ["planned"]},
        {"event": "planned", "files": "x"},
        {"event": "planned", "files": True},
        {"event": "planned", "models": 3},
        {"event": "started", "total": "one"},
        {"event": "failed", "message": None},
        {"event": "progress", "files": [{"model": "m"}]},
    ],
)
def test_what_is_no_event(facts: dict[str, object]) -> None:
    """Facts of another type, or of an event that is not known, are no event."""
    assert event_in(facts) is None


def test_no_secret_is_in_a_line() -> None:
    """Every text of every event is without secrets and signed queries before it is written."""
    kept = Kept()
    listener = LogListener(None, Secrets(["s3cr3t-token"]), LogSource("j", 7, "get"), lambda _path, _error: None, kept)
    text = "s3cr3t-token at https://h/f?sig=5ignature"
    for event_class in (Started, Finished, Failed, Noticed, Retrying, Rewound, Ended, Verifying):
        texts = {field.name: text for field in fields(event_class) if field.type in ("str", "str | None")}
        listener(event_class(**texts))
    listener.close()
    written = b"".join(kept.lines)
    assert (len(kept.lines), b"s3cr3t" in written, b"5ignature" in written) == (8, False, False)
