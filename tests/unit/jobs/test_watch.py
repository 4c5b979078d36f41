"""Following a job: its events from the log, its progress from the record, and an end whatever becomes of either."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
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
from mdl.jobs.job import Invocation, Job
from mdl.jobs.log import Log, LogListener, event_of
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
        name = self.records.new_id()
        again = Invocation(("get", "--", "m"), str(folder))
        self.log = self.records.log(name)
        owner, began = str(ProcessId.current()), "2026-01-02T03:04:05.678Z"
        self.job = Job(name, "get", ("m",), owner, hostname(), again, began, str(self.log), bytes_total=100)
        self.records.put(self.job)
        self.waits: list[float] = []

    def put(self, **facts: object) -> None:
        self.job = replace(self.job, **facts)  # type: ignore[arg-type]
        self.records.put(self.job)

    def write(self, *events: Event, largest: int = 10**6) -> None:
        """Write what a running job would."""
        log = Log(self.log, largest=largest)
        listener = LogListener([log], Secrets(), self.job.id, "get", lambda _path, _error: None)
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


def test_a_log_that_is_put_aside(followed: Followed) -> None:
    """If the log is rotated or removed while it is followed, no line is lost and none is told twice."""
    followed.write(PLAN)
    told = followed.follow(
        lambda: followed.write(FIRST, DONE, SECOND, largest=1),
        lambda: followed.log.unlink(),
        lambda: followed.write(replace(DONE, file="b.bin")),
        followed.end,
    )
    assert plain(told)[0] == PLAN
    assert plain(told)[-2:] == [replace(DONE, file="b.bin"), Ended()]
    assert len(plain(told)) == len(set(plain(told)))


def test_a_log_that_is_rotated_in_between(followed: Followed) -> None:
    """Lines that came into the old file before it was put aside are told, and then those of the new one."""
    followed.write(PLAN)

    def rotate() -> None:
        followed.write(FIRST)
        followed.log.rename(followed.log.with_suffix(".log.1"))
        followed.write(DONE)

    assert plain(followed.follow(rotate, followed.end)) == [PLAN, FIRST, DONE, Ended()]


def test_half_a_line_is_waited_for(followed: Followed) -> None:
    """A line is told when it is whole; what is no line of a log is passed over."""
    followed.write(PLAN, FIRST)
    line = followed.log.read_bytes().splitlines(keepends=True)[1]
    followed.log.write_bytes(b"mdl: m: a warning of the process itself\n\n" + line[:50])

    def rest() -> None:
        with followed.log.open("ab") as file:
            file.write(line[50:])

    assert plain(followed.follow(lambda: None, rest, followed.end))[-2:] == [FIRST, Ended()]


def test_only_this_run_of_it(followed: Followed) -> None:
    """What was told before a pause is not told again."""
    followed.write(PLAN, FIRST, DONE, Ended(status="paused"), PLAN, SECOND)
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


class Kept(Log):
    """A log that keeps its lines here."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def append(self, text: str) -> None:
        self.lines.append(text)

    def close(self) -> None:
        pass


@given(event=EVENTS, kind=st.sampled_from(["", "tts"]), repo=st.sampled_from(["", "hf:org/a", "https://h/a=b"]))
def test_a_line_is_read_as_what_was_written(event: Event, kind: str, repo: str) -> None:
    """Whatever the names and words, the event that a line of the log tells is the one that was logged."""
    log, event = Kept(), replace(event, kind=kind, repo=repo)
    began = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() - 60))
    listener = LogListener([log], Secrets(), "0101-abcd", "get", lambda _path, _error: None)
    listener(event)
    listener.close()
    found = event_of(log.lines[0])
    assert found is not None
    assert replace(found, time="") == event
    assert found.time > began


@pytest.mark.parametrize(
    "line",
    [
        "",
        "a b c d",
        "t INFO planned",
        "t INFO planned files=x",
        "t INFO planned files=1 bytes_total=1 bytes_kept=0 bytes_to_fetch=1 models=3",
        "t INFO started bytes=one",
        't INFO failed "',
        r't INFO notice model="\q"',
        "t I finished",
    ],
)
def test_what_is_no_line(line: str) -> None:
    """What is damaged, or of another program, tells nothing."""
    assert event_of(line) is None
