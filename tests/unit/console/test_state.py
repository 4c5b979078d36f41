"""The state of a download: what every printer reads, after any events in any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.console import Clock

from mdl.archive import streaming
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


def made(clock: Clock | None = None) -> State:
    return State(clock or Clock())


@given(st.lists(EVENTS, max_size=40))
def test_any_order_of_events(events: list[Event]) -> None:
    """Whatever comes in whatever order: a file that is over does not run, no byte count is below zero, and no failure
    is lost once the end has come."""
    state = made()
    said = []
    for event in events:
        said += state.take(event)
        if isinstance(event, Finished | Failed):
            assert (event.model, event.file) not in state.running
        assert all(file.done >= 0 for file in state.running.values())
        assert set(state.running) <= set(state.files)
        assert state.amount
    said += state.take(Ended(status="paused"))
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
    state.take(Progressed("", "", 500, 1000, 50.0, 10.0, (FileProgress("org--m", "f", 1, 400, 900),)))
    assert (state.amount, state.speed, state.time_left) == ("500 B of 1.0 kB", "50 B/s", "10 s left")
    [file] = state.running.values()
    assert (file.item, file.done, file.total, file.moved_at) == ("org/m/f", 400, 900, clock.now)
    state.take(Retrying("org--m", "f", "reset", 1, 4.0))
    assert file.waits_for == "retry 1 in 4 s: reset"
    state.take(Verifying("org--m", "f", 900, 900))
    assert (file.is_checked, file.waits_for) == (True, "")
    state.take(Finished("org--m", "f", 900, "fetched", "sha256"))
    assert (state.running, state.counted, state.bytes_done) == ({}, "1/2 files", 500)


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
    state = made()

    def lines(*events: Event) -> list[str]:
        return [remark.text for event in events for remark in state.take(event)]

    tries = [Retrying("m", f"f{n}", "no connection to h: refused", n, 30.0, 0, 30.0 * n, 300.0) for n in range(1, 9)]
    first, second = lines(*tries)
    assert first.startswith("retry 1 in 30 s: no connection to h")
    assert second == "no connection to h for 1m, still trying until 5m: refused"
    assert state.outage.startswith("no connection to h for 4m")
    assert lines(Progressed(bytes_done=1, bytes_total=2), tries[0]) == [first]
    assert state.outage == ""


def test_people_read_the_name_that_they_typed() -> None:
    """A repository is called ``org/m`` in every line, whatever its folder and its errors are called."""
    state = made()
    state.take(Planned(files=2, models=(("org--m", 2),)))
    said = state.take(Started("org--m", "f", 1, 2, 900, 100, repo="hf:org/m"))
    said += state.take(Finished("org--m", "f", 900, "fetched", "sha256"))
    said += state.take(Failed("org--m", "g", "NET", "503", item="org--m/g"))
    said += state.take(Failed("org--m", "", "NET", "late", item="org--m"))
    items = [(remark.kind, remark.item) for remark in said]
    assert items == [("started", "org/m/f"), ("failure", "org/m/g"), ("failed", "org/m"), ("failure", "org/m")]


def test_members_of_an_archive_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """While an archive is packed or unpacked, its members are counted as they are done; in the end all of them are."""
    monkeypatch.setattr(streaming, "_BETWEEN", 0.0)
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
