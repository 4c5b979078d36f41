"""The rate limit, its timetable, and windows: how fast mdl downloads, when, and for how long."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import each
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.shell import Inside, Shell

from mdl.cancel import CancelToken
from mdl.errors import Cancelled, UsageError
from mdl.net.throttle import Throttle, minute_of_day
from mdl.units import Timetable, Window, parse_rate, parse_size

MINUTES = st.integers(0, 24 * 60 - 1)
REPOS = [Repo("org/large", {"model.bin": Generated(12 * 10**6, 5)})]


class Clock(CancelToken):
    """A clock that advances only when a thread waits for the cancel token, which it stands in for."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def limited(rate: float | None, clock: Clock | None = None) -> Throttle:
    return Throttle(Timetable(((0, rate),)), clock or Clock())


@given(st.integers(1000, 10**9), st.lists(st.integers(1, 512 * 1024), min_size=50, max_size=200))
def test_rate(rate: int, reads: list[int]) -> None:
    """Whatever the reads, they take together as long as the rate says, to a tenth of a second."""
    clock = Clock()
    throttle = limited(rate, clock)
    for count in reads:
        throttle.take(count, clock)
    assert sum(reads) / rate - 0.1 <= clock.now <= sum(reads) / rate + 1e-6


def test_full_while_somebody_waits() -> None:
    """The rate limit is reached while a thread waits for it, and not before or after; without a rate it never is."""
    seen: list[bool] = []

    class Watched(Clock):
        def wait(self, seconds: float) -> None:
            seen.append(throttle.is_full)
            super().wait(seconds)

    clock = Watched()
    throttle = limited(1e6, clock)
    before = throttle.is_full
    throttle.take(3_000_000, clock)
    assert (before, set(seen), throttle.is_full) == (False, {True}, False)
    free = limited(None, clock)
    free.take(3_000_000, clock)
    assert not free.is_full


def test_silence_is_not_made_up_for() -> None:
    """After ten seconds without a byte no burst follows: a second's bytes still take three quarters of a second."""
    clock = Clock()
    throttle = limited(1e6, clock)
    clock.now = 10.0
    throttle.take(1_000_000, clock)
    assert 10.74 <= clock.now <= 11.0


def test_connections_share_the_rate() -> None:
    """Eight threads together get what one would: the last of 8 MB is due after 0.4 s, less what may be caught up."""
    throttle, waits = limited(20e6, Clock()), list[float]()

    class Counting(CancelToken):
        def wait(self, seconds: float) -> None:
            waits.append(seconds)

    def take(_thread: int) -> None:
        for _ in range(100):
            throttle.take(10_000, Counting())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, range(8)))
    assert max(waits) == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize(("rate", "quantum"), [(None, 512 * 1024), (20e6, 200_000), (1000, 4096)])
def test_quantum(rate: float | None, quantum: int) -> None:
    """No read takes more than a hundredth of a second's bytes, or 4 KiB. Without a rate nothing waits."""
    clock = Clock()
    throttle = limited(rate, clock)
    assert throttle.quantum(512 * 1024) == quantum
    if rate is None:
        throttle.take(10**12, clock)
        assert clock.now == 0.0


def test_cancel_ends_the_wait() -> None:
    """A thread that waits for the rate is woken by a cancel."""
    cancel = CancelToken()
    cancel.set()
    with pytest.raises(Cancelled):
        limited(1000).take(10**9, cancel)


@given(MINUTES)
def test_timetable(minute: int) -> None:
    """Slow from eight to ten in the evening, without a limit at night, also past midnight."""
    table = parse_rate("08:00,2M 22:00,off", "--limit-rate")
    assert table.rate_at(minute) == (2e6 if 480 <= minute < 1320 else None)


@each(
    ("text", "bytes_"), [("20M", 20e6), ("20Mi", 20 * 2**20), ("1.5G", 1.5e9), ("512k", 512e3), ("7", 7), ("2MB", 2e6)]
)
def test_sizes(text: str, bytes_: float) -> None:
    """Units are decimal without the i, binary with it."""
    assert parse_size(text, "--max-size") == bytes_


@each("text", ["", "fast", "20 X", "-1", "1", "25:00,2M", "08:00", "08:00,2M 22:00", "i", "1e9"])
def test_bad_rate(text: str) -> None:
    """A text that is no rate is a usage error that names the flag."""
    with pytest.raises(UsageError) as caught:
        parse_rate(text, "--limit-rate")
    assert caught.value.item == "--limit-rate"


@given(MINUTES, MINUTES, MINUTES)
def test_window(start: int, stop: int, now: int) -> None:
    """A window is open from its start until its end, also past midnight; the whole day if they are the same."""
    window = Window.parse(f"{start // 60:02}:{start % 60:02}-{stop // 60:02}:{stop % 60:02}", "--window")
    assert window.is_open(now) == ((now - start) % 1440 < ((stop - start) % 1440 or 1440))


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    (tmp_path / "catalog.toml").write_text('schema = 1\n[models.large]\nsource = "hf:org/large"\n')
    return Shell(tmp_path, hub.url)


def test_limit_rate(shell: Shell, mdl: Inside) -> None:
    """A limit does not change the bytes, and it is kept: 12 MB at 12 MB/s take a second."""
    ran = mdl(shell, "get", "large", "--limit-rate", "12M", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["models"][0]["files"][0]["verified"] == "sha256"
    assert ran.document["seconds"] >= 0.9


def test_max_duration(shell: Shell, mdl: Inside) -> None:
    """--max-duration ends with 75, and the last event says that the job is paused."""
    ran = mdl(shell, "get", "large", "--limit-rate", "3M", "--max-duration", "0.5s", "--json", "--progress", "json")
    assert (ran.code, ran.document["error"]["code"], ran.events[-1]["event"]) == (75, "DEADLINE", "paused")


@pytest.mark.parametrize(("start", "stop", "code"), [(120, 180, 75), (-60, 60, 0)])
def test_window_of_a_get(shell: Shell, mdl: Inside, hub: LoopbackHub, start: int, stop: int, code: int) -> None:
    """Outside its window a get ends with 75 at once, without a request; inside nothing changes."""
    times = [f"{minute // 60:02}:{minute % 60:02}" for minute in ((minute_of_day() + m) % 1440 for m in (start, stop))]
    ran = mdl(shell, "get", "large", "--window", "-".join(times))
    assert (ran.code, bool(hub.requests), "window" in ran.err) == (code, code == 0, code == 75)
