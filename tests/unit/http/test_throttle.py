"""Throttle and windows: how fast, when, and how long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.shell import Shell

from mdl.cancel import CancelToken
from mdl.errors import Cancelled, UsageError
from mdl.http.body import Throttle
from mdl.units import Timetable, Window, parse_rate, parse_size

MINUTES = st.integers(0, 24 * 60 - 1)


class Clock(CancelToken):
    """A clock that goes on only where somebody sleeps; it stands in for the cancel that sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def all_day(rate: float | None) -> Timetable:
    return Timetable(((0, rate),))


@given(st.integers(1000, 10**9), st.lists(st.integers(1, 512 * 1024), min_size=50, max_size=200))
def test_the_rate_is_held(rate: int, reads: list[int]) -> None:
    """Whatever the reads, their sum takes as long as the rate says, to a tenth of a second."""
    clock = Clock()
    throttle = Throttle(all_day(rate), clock)
    for count in reads:
        throttle.take(count, clock)
    assert sum(reads) / rate - 0.1 <= clock.now <= sum(reads) / rate + 1e-6


def test_silence_is_not_made_up_for() -> None:
    """After ten seconds without a byte no burst follows: a second's bytes still take three quarters of one."""
    clock = Clock()
    throttle = Throttle(all_day(1e6), clock)
    clock.now = 10.0
    throttle.take(1_000_000, clock)
    assert 10.74 <= clock.now <= 11.0


def test_many_connections_share_one_rate() -> None:
    """Eight threads together get what one would."""
    throttle, cancel = Throttle(all_day(20e6)), CancelToken()
    waits: list[float] = []

    class Counting(CancelToken):
        def wait(self, seconds: float) -> None:
            waits.append(seconds)

    threads = [
        threading.Thread(target=lambda: [throttle.take(10_000, Counting()) for _ in range(100)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.2 <= max(waits) <= 0.4
    assert not cancel.is_set()


def test_no_limit_does_not_wait() -> None:
    """Without a rate nobody sleeps and reads are as large as they may be."""
    clock = Clock()
    throttle = Throttle(all_day(None), clock)
    throttle.take(10**12, clock)
    assert (clock.now, throttle.quantum(512 * 1024)) == (0.0, 512 * 1024)


def test_reads_are_small_where_the_rate_is() -> None:
    """A slow rate is kept smooth: no read takes more than a hundredth of a second's bytes, but 4 KiB."""
    assert Throttle(all_day(20e6)).quantum(512 * 1024) == 200_000
    assert Throttle(all_day(1000)).quantum(512 * 1024) == 4096


def test_a_cancel_ends_the_wait() -> None:
    """Whoever waits for its turn is woken by a cancel."""
    throttle, cancel = Throttle(all_day(1000)), CancelToken()
    cancel.set()
    with pytest.raises(Cancelled):
        throttle.take(10**9, cancel)


@given(MINUTES)
def test_a_timetable_by_the_day(minute: int) -> None:
    """Slow from eight to ten in the evening, without a limit at night, past midnight too."""
    table = parse_rate("08:00,2M 22:00,off", "--limit-rate")
    assert table.rate_at(minute) == (2e6 if 480 <= minute < 1320 else None)


@pytest.mark.parametrize(
    ("text", "bytes_"), [("20M", 20e6), ("20Mi", 20 * 2**20), ("1.5G", 1.5e9), ("512k", 512e3), ("7", 7), ("2MB", 2e6)]
)
def test_sizes(text: str, bytes_: float) -> None:
    """Decimal without the i, binary with it."""
    assert parse_size(text, "--max-size") == bytes_


@pytest.mark.parametrize("text", ["", "fast", "20 X", "-1", "1", "25:00,2M", "08:00", "08:00,2M 22:00", "i", "1e9"])
def test_rates_that_are_none(text: str) -> None:
    """What is no rate is a usage error that names the flag."""
    with pytest.raises(UsageError) as caught:
        parse_rate(text, "--limit-rate")
    assert caught.value.item == "--limit-rate"


@given(MINUTES, MINUTES, MINUTES)
def test_windows(start: int, stop: int, now: int) -> None:
    """A window is open from its start until its end, also past midnight; the whole day if they are the same."""
    window = Window.parse(f"{start // 60:02}:{start % 60:02}-{stop // 60:02}:{stop % 60:02}", "--window")
    assert window.is_open(now) == ((now - start) % 1440 < ((stop - start) % 1440 or 1440))


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub([Repo("org/large", {"model.bin": Generated(12 * 10**6, 5)})]) as hub:
        yield hub


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    (tmp_path / "catalog.toml").write_text('schema = 1\n[models.large]\nsource = "hf:org/large"\n')
    return Shell(tmp_path, hub.url)


def test_what_arrives_is_the_same(shell: Shell) -> None:
    """A limit changes nothing in what arrives, and is kept: 12 MB at 6 MB/s are no faster than that."""
    ran = shell.run("get", "large", "--limit-rate", "6M", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["models"][0]["files"][0]["verified"] == "sha256"
    assert ran.document["seconds"] >= 1.9


def test_stopped_by_its_time_it_goes_on_next_time(shell: Shell) -> None:
    """--max-duration ends with 75 and keeps what is there; the next run goes on from it."""
    ran = shell.run("get", "large", "--limit-rate", "3M", "--max-duration", "1s", "--json", "--progress", "json")
    assert (ran.code, ran.document["error"]["code"]) == (75, "DEADLINE")
    assert ran.events[-1]["event"] == "paused"
    again = shell.run("get", "large", "--json")
    assert again.code == 0, again.err
    assert 0 < again.document["bytes_fetched"] < 12 * 10**6


def test_outside_its_window_nobody_is_asked(shell: Shell, hub: LoopbackHub) -> None:
    """A window that is closed is 75 at once, and no request is made; an open one changes nothing."""
    from mdl.http.body import minute_of_day

    def clock(minutes: int) -> str:
        moment = (minute_of_day() + minutes) % 1440
        return f"{moment // 60:02}:{moment % 60:02}"

    ran = shell.run("get", "large", "--window", f"{clock(120)}-{clock(180)}")
    assert (ran.code, len(hub.requests)) == (75, 0)
    assert "window" in ran.err
    assert shell.run("get", "large", "--window", f"{clock(-60)}-{clock(60)}").code == 0
