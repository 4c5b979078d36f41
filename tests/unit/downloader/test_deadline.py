"""Timing: a window is one of the clock on the wall, a duration one of work."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from mdl.cancel import CancelToken
from mdl.downloader.deadline import TimeLimit, time_limit
from mdl.errors import DeadlineReached
from mdl.units import Window

NIGHT = Window.parse("00:00-04:00", "--window")


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[ZoneInfo]:
    """This process's local time is that of Berlin."""
    try:
        zone = ZoneInfo("Europe/Berlin")
    except (KeyError, OSError) as error:
        pytest.skip(f"NO TIME ZONES HERE: {error}")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield zone
    monkeypatch.undo()
    time.tzset()


def moment(text: str, zone: ZoneInfo) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.fault(270)
@pytest.mark.parametrize(
    ("day", "hours"), [("2025-03-30", 3), ("2025-10-26", 5), ("2025-06-01", 4)], ids=["spring", "autumn", "else"]
)
def test_daylight_saving(berlin: ZoneInfo, day: str, hours: int) -> None:
    """00:00-04:00 ends when the clock on the wall says four, also if that night is an hour shorter or longer."""
    now = [moment(f"{day}T00:00:00", berlin)]
    limit = TimeLimit(window=NIGHT, wall=lambda: time.localtime(now[0]))
    seen = []
    for _ in range(12 * 60):
        seen.append(bool(limit.reason()))
        now[0] += 60.0
    assert seen == [False] * (hours * 60) + [True] * ((12 - hours) * 60)


@pytest.mark.fault(270)
def test_sleep_and_a_clock_that_is_set(berlin: ZoneInfo) -> None:
    """A machine that slept past the end stops as soon as it wakes, though it worked for a moment only; one whose
    clock is set back goes on. A duration counts work alone."""
    wall, work = [moment("2025-06-01T03:00:00", berlin)], [0.0]
    limit = TimeLimit(100.0, NIGHT, lambda: work[0], lambda: time.localtime(wall[0]))
    assert not limit.reason()
    wall[0], work[0] = wall[0] + 7 * 3600, work[0] + 1
    assert limit.reason()
    wall[0] -= 7 * 3600
    assert not limit.reason()
    work[0] += 100
    assert limit.reason()


@pytest.mark.fault(270)
def test_a_wait_is_over_when_the_window_shuts() -> None:
    """Whatever the command waits for then, it is woken; the clock is looked at once a second, and without a limit
    nothing is armed."""
    looks = [time.struct_time((2025, 6, 1, hour, 59, 59, 6, 152, 0)) for hour in (10, 3)]
    wall = lambda: looks.pop() if len(looks) > 1 else looks[0]  # noqa: E731
    limit = TimeLimit(0.001, NIGHT, lambda: 0.0, wall)  # by a clock that stands, this much is always left to work
    cancel = CancelToken()
    with pytest.raises(DeadlineReached), time_limit(limit, cancel):
        cancel.wait(1000)
    assert TimeLimit(window=NIGHT).next_look() == 1.0
    assert TimeLimit().next_look() == math.inf
