"""The state of a download: what every printer reads, after any events in any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.console import Clock

from mdl.archive import streaming
from mdl.console.remarks import Remark, Remarks
from mdl.console.state import State
from mdl.describe import ended_by
from mdl.errors import MdlError
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

EVENTS = st.one_of(
    st.builds(Started, st.just("m"), st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 3)),
    st.builds(Finished, st.just("m"), st.sampled_from("abc")),
    st.builds(Failed, st.just("m"), st.sampled_from("abc")),
    st.builds(Retrying, st.just("m"), st.sampled_from(["", *"abc"])),
    st.builds(Rewound, st.just("m"), st.sampled_from("abc"), st.integers(0, 2000)),
    st.builds(Verifying, st.just("m"), st.sampled_from("abc"), st.integers(0, 1000), st.just(1000)),
    st.builds(
        lambda names, done: Progressed(files=tuple(FileProgress("m", name, 1, done, 1000) for name in sorted(names))),
        st.sets(st.sampled_from("abc")),
        st.integers(0, 1000),
    ),
    st.builds(Planned, files=st.integers(0, 3)),
    st.builds(Noticed, message=st.just("n")),
    st.builds(MdlError, st.just("no")).map(ended_by),
)


class Story:
    """A state, and the remarks on what it takes in."""

    def __init__(self) -> None:
        clock = Clock()
        self.state = State(clock)
        self._remarks = Remarks(self.state, clock, large=float("inf"))

    def take(self, *events: Event) -> list[Remark]:
        """What deserves a line."""
        remarks = []
        for event in events:
            self.state.take(event)
            remarks += self._remarks.of(event)
        return remarks


def made(clock: Clock | None = None) -> State:
    return State(clock or Clock())


@given(st.lists(EVENTS, max_size=40))
def test_any_order_of_events(events: list[Event]) -> None:
    """Whatever comes in whatever order: a file that is over does not run, no byte count is below zero, and no failure
    is lost once the end has come."""
    story = Story()
    state = story.state
    said = []
    for event in events:
        said += story.take(event)
        if isinstance(event, Finished | Failed):
            assert (event.model, event.file) not in state.running
        assert all(file.done >= 0 for file in state.running.values())
        assert set(state.running) <= set(state.files)
        assert state.amount
    said += story.take(Ended(status="paused"))
    failures = [failure for remark in said if remark.kind == "failure" for failure in remark.failures]
    assert len(failures) == sum(isinstance(event, Failed) for event in events)


def test_what_a_printer_reads() -> None:
    """Bytes, total, rate and time left of the whole, and of each file that runs its bytes and what it waits for."""
    clock = Clock()
    state = made(clock)
    state.take(Planned(files=2, bytes_total=1000, bytes_kept=100))
    assert (state.bytes_done, state.bytes_total, state.counted, state.is_measured) == (100, 1000, "0/2 files", False)
    state.take(Started("org--m", "f", 1, 2, 900, 100, repo="hf:org/m"))
    clock.now += 5
    state.take(Progressed("", "", 500, 1000, 50.0, (FileProgress("org--m", "f", 1, 400, 900),)))
    assert (state.amount, state.speed, state.time_left) == ("500 B of 1.0 kB", "50 B/s", "10 s left")
    [file] = state.running.values()
    assert (file.item, file.done, file.total, file.moved_at) == ("org/m/f", 400, 900, clock.now)
    state.take(Retrying("org--m", "f", "reset", 1, 4.0))
    assert file.waits_for == "retry 1 in 4 s: reset"
    state.take(Verifying("org--m", "f", 900, 900))
    assert (file.is_checked, file.waits_for) == (True, "")
    state.take(Finished("org--m", "f", 900, "fetched", "sha256"))
    assert (state.running, state.counted, state.bytes_done) == ({}, "1/2 files", 1000)


@st.composite
def honest_downloads(draw: st.DrawFn) -> tuple[int, list[Event]]:
    """The bytes that were here before, and the events of a download as a transfer tells them: looks at the whole now
    and then, and a check of each file, which begins wherever the hash is by then."""
    kept = draw(st.integers(0, 500))
    sizes = draw(st.lists(st.integers(1, 1000), min_size=1, max_size=4))
    total = kept + sum(sizes)
    events: list[Event] = [Planned(files=len(sizes), bytes_total=total, bytes_kept=kept)]
    done = [0] * len(sizes)

    def look() -> Progressed:
        running = [
            FileProgress("m", str(at), at + 1, done[at], size) for at, size in enumerate(sizes) if done[at] < size
        ]
        return Progressed(bytes_done=kept + sum(done), bytes_total=total, files=tuple(running))

    events += [Started("m", str(at), at + 1, len(sizes), size) for at, size in enumerate(sizes)]
    for at, size in enumerate(sizes):
        for count in draw(st.lists(st.integers(0, size), max_size=3)):
            done[at] = max(done[at], min(count, size - 1))
            events.append(look())
        if draw(st.booleans()):
            events.append(Verifying("m", str(at), draw(st.integers(0, size)), size))
        done[at] = size
        events.append(Finished("m", str(at), size, "fetched", "sha256"))
        if draw(st.booleans()):
            events.append(look())
    return kept, events


@given(honest_downloads())
def test_a_file_that_is_finished_counts_with_all_its_bytes(download: tuple[int, list[Event]]) -> None:
    """Whatever was told of a file before, all its bytes are among those of the whole once it has finished."""
    finished, events = download
    state = made()
    for event in events:
        state.take(event)
        if isinstance(event, Finished):
            finished += event.size
        assert finished <= state.bytes_done <= state.whole_total
    assert state.bytes_done == state.bytes_total


def test_a_file_that_is_copied_from_this_disk_counts_once() -> None:
    """Bytes that are elsewhere on this disk are among those that the plan keeps; their check and finish add none."""
    state = made()
    state.take(Planned(files=2, bytes_total=1000, bytes_kept=900, bytes_to_fetch=100, bytes_elsewhere=900))
    state.take(Verifying("m", "f", 0, 900))
    state.take(Finished("m", "f", 900, "linked", "sha256", "copy"))
    assert (state.bytes_done, state.bytes_total) == (900, 1000)


def test_a_file_that_is_finished_shortens_the_time_left() -> None:
    """The rest of a small file may come all at once: no hour is left then of a download that is over."""
    story = Story()
    row = FileProgress("m", "f", 1, 100, 1000)
    progress = Progressed(bytes_done=100, bytes_total=1000, bytes_per_second=1.0, files=(row,))
    story.take(Planned(files=1, bytes_to_fetch=1000), progress)
    assert story.state.time_left == "15m 00s left"
    story.take(Finished("m", "f", 1000))
    assert (story.state.bytes_done, story.state.time_left) == (1000, "0 s left")


def test_an_unknown_size_is_no_total() -> None:
    """The whole has no total while the size of one file is not known, or if more bytes came than were planned."""
    state = made()
    state.take(Progressed(bytes_done=5, bytes_total=9, files=(FileProgress("m", "f", 1, 5, None),)))
    assert state.bytes_total is None
    state.take(Progressed(bytes_done=10, bytes_total=9))
    assert state.bytes_total is None


def test_an_outage_is_two_lines() -> None:
    """An outage has a line when it begins and one when it is long, not one for each attempt; and again after bytes
    have come."""
    story = Story()

    def lines(*events: Event) -> list[str]:
        return [remark.text for remark in story.take(*events)]

    tries = [Retrying("m", f"f{n}", "no connection to h: refused", n, 30.0, 0, 30.0 * n, 300.0) for n in range(1, 9)]
    first, second = lines(*tries)
    assert first.startswith("retry 1 in 30 s: no connection to h")
    assert second == "no connection to h for 1m, still trying until 5m: refused"
    assert story.state.outage.startswith("no connection to h for 4m")
    assert lines(Progressed(bytes_done=1, bytes_total=2), tries[0]) == [first]
    assert story.state.outage == ""


def test_people_read_the_name_that_they_typed() -> None:
    """A repository is called ``org/m`` in every line, whatever its folder and its errors are called."""
    story = Story()
    story.take(Planned(files=2, models=(("org--m", 2),)))
    said = story.take(Started("org--m", "f", 1, 2, 900, 100, repo="hf:org/m"))
    said += story.take(Finished("org--m", "f", 900, "fetched", "sha256"))
    said += story.take(Failed("org--m", "g", "NET", "503", item="org--m/g"))
    said += story.take(Failed("org--m", "", "NET", "late", item="org--m"))
    items = [(remark.kind, remark.item) for remark in said]
    assert items == [("started", "org/m/f"), ("failure", "org/m/g"), ("failed", "org/m"), ("failure", "org/m")]


def test_members_of_an_archive_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """While an archive is packed or unpacked, its members are counted as they are done; in the end all of them are."""
    monkeypatch.setattr(streaming, "BETWEEN", 0.0)
    state = made()
    seen = list[str]()

    def listen(event: Event) -> None:
        state.take(event)
        seen.append(state.counted)

    progress = streaming.Progress(listen, "a.zip", "pack", 3, 30)
    for name in ("one", "one", "two", "three"):
        progress.add(7, name)
    assert seen[2:] == ["0/3 files", "0/3 files", "1/3 files", "2/3 files"]
    progress.finish(30, "packed")
    assert seen[-1] == "3/3 files"
