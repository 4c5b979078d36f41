"""How often and how long: policy, the server's wish, and a retrier that keeps to both."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdl.cancel import CancelToken
from mdl.errors import Cancelled, NetworkError, NotFound
from mdl.http.allowlist import AllowList
from mdl.http.client import HttpClient, OnRetry
from mdl.http.pacer import Pacer
from mdl.http.policy import RetryPolicy, retry_after

calm = settings(deadline=None)

NOW = datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)
CHANCE = st.floats(0, 1, exclude_max=True)


@pytest.mark.fault(57)
@calm
@given(st.integers(1, 10_000), CHANCE)
def test_delay_doubles_up_to_the_cap(failure: int, chance: float) -> None:
    """The n-th wait is between half and the whole of first·2^(n-1), and never over the cap."""
    policy = RetryPolicy(first=0.5, longest=30.0)
    full = min(30.0, 0.5 * 2 ** min(failure - 1, 100))
    assert full / 2 <= policy.delay(failure, chance) <= full


@calm
@given(st.integers(1, 100), CHANCE, st.floats(0, 600))
def test_wish_is_never_undercut(failure: int, chance: float, wish: float) -> None:
    """A wait is at least as long as the server asked for, and no longer than the wish or the policy."""
    policy = RetryPolicy()
    delay = policy.delay(failure, chance, wish)
    assert delay == max(wish, policy.delay(failure, chance))


@pytest.mark.fault(57)
def test_clients_spread() -> None:
    """Two clients that failed together do not come back together."""
    assert RetryPolicy().delay(3, 0.0) < RetryPolicy().delay(3, 0.5) < RetryPolicy().delay(3, 0.99)


@pytest.mark.fault(58)
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "1000000000"}, 1e9),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 -0000"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 09:28:30 +0200"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "99999999999"}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 56.0),
        ({"ratelimit": '"api"; r=0; t=55'}, 56.0),
        ({"ratelimit": '"api";r=10;t=55'}, None),
        ({"ratelimit": '"api";r=0'}, None),
        ({"ratelimit": "nonsense"}, None),
        ({"retry-after": "3", "ratelimit": '"api";r=0;t=55'}, 3.0),
        ({}, None),
    ],
)
def test_wish_is_read(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, a date in any zone, or an exhausted rate limit is a wish; nonsense is none."""
    assert retry_after(headers, NOW) == seconds


@pytest.mark.fault(58)
@pytest.mark.parametrize(
    "text", ["Fri, 31 Dec 99999999999999999999 23:59:59 GMT", "Fri, 31 Dec 2020 23:59:59 +99999999999999"]
)
def test_an_impossible_date_is_no_wish(text: str) -> None:
    """A date no calendar has is nonsense like any other."""
    assert retry_after({"retry-after": text}, NOW) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [('"api";t=55;r=0', 56.0), ('"api";r=0, "pages";r=5;t=30', None)], ids=["order", "two"]
)
def test_rate_limit_parameters_belong_to_one_limit_in_any_order(text: str, seconds: float | None) -> None:
    """The reset time that counts is that of the exhausted limit, wherever it is written in it."""
    assert retry_after({"ratelimit": text}, NOW) == seconds


@pytest.mark.fault(58)
@calm
@given(st.text(max_size=40), st.text(max_size=40))
def test_a_wish_is_never_negative(one: str, other: str) -> None:
    """Whatever a server writes, the wish is None or a wait from 0 on."""
    wish = retry_after({"retry-after": one, "ratelimit": other}, NOW)
    assert wish is None or wish >= 0


class Script:
    """A call that fails as told, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


AT_ONCE = RetryPolicy(tries=3, first=0.0)


def retried(script: Script, policy: RetryPolicy, cancel: CancelToken, on_wait: OnRetry | None = None) -> str:
    with HttpClient(AllowList.of([]), cancel=cancel, policy=policy) as http:
        return http.retry("https://host/x", script, on_wait)


def test_retry_outlives_trouble() -> None:
    """Trouble that passes within the tries is told once each, then the answer comes."""
    told: list[tuple[str, int, float]] = []
    script = Script(NetworkError("one"), NetworkError("two"))
    answer = retried(script, AT_ONCE, CancelToken(), lambda error, n, delay: told.append((error.message, n, delay)))
    assert answer == "answer"
    assert told == [("one", 1, 0.0), ("two", 2, 0.0)]


@pytest.mark.fault(57)
def test_retry_ends() -> None:
    """After the last try the last error stands."""
    script = Script(*(NetworkError(str(n)) for n in range(9)))
    with pytest.raises(NetworkError) as caught:
        retried(script, AT_ONCE, CancelToken())
    assert (caught.value.message, script.calls) == ("2", 3)


@pytest.mark.parametrize("error", [NetworkError("for good", final=True), NotFound("gone"), ValueError("a fault")])
def test_retry_is_only_for_what_may_pass(error: Exception) -> None:
    """What asking again cannot mend is raised at once."""
    script = Script(error)
    with pytest.raises(type(error)) as caught:
        retried(script, AT_ONCE, CancelToken())
    assert caught.value is error
    assert script.calls == 1


@pytest.mark.fault(58)
def test_retry_keeps_to_the_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait between two tries is the server's own wish."""
    cancel, waits = CancelToken(), list[float]()
    monkeypatch.setattr(cancel, "wait", waits.append)
    retried(Script(NetworkError("busy", retry_after=56.0)), AT_ONCE, cancel)
    assert waits == [56.0]


def test_retry_ends_on_cancel() -> None:
    """A cancelled wait is not sat out."""
    cancel, script = CancelToken(), Script(NetworkError("busy", retry_after=600.0))
    cancel.set()
    with pytest.raises(Cancelled):
        retried(script, AT_ONCE, cancel)
    assert script.calls == 1


@pytest.mark.fault(223)
def test_a_dead_host_is_asked_once_for_all() -> None:
    """Twelve short requests to a host that serves nobody cost the tries of one and a look; other hosts are asked."""
    http = HttpClient(AllowList.of([]), policy=AT_ONCE)
    calls: list[str] = []

    def dead() -> str:
        calls.append("dead")
        raise NetworkError("refused")

    for number in range(12):
        with pytest.raises(NetworkError, match="refused"):
            http.retry(f"https://dead/api/{number}", dead)
    assert len(calls) == AT_ONCE.tries + 1
    assert http.retry("https://alive/api", lambda: "answer") == "answer"


@pytest.mark.fault(223)
def test_a_host_that_comes_back_is_asked_again() -> None:
    """What a host said before it served somebody is forgotten."""
    pacer = Pacer(8, RetryPolicy(2))
    for moment in (1.0, 2.0):
        pacer.failed("o", f"url {moment}", moment, moment, 0.0, NetworkError("reset"))
    assert pacer.down("o", 3.0)
    pacer.served("o", 4.0)
    assert pacer.down("o", 4.0) is None


def test_a_host_that_is_down_is_asked_again_later() -> None:
    """After half a minute one request finds out whether the host is back."""
    pacer = Pacer(8, RetryPolicy(2))
    for moment in (1.0, 2.0):
        pacer.failed("o", f"url {moment}", moment, moment, 0.0, NetworkError("reset"))
    assert pacer.down("o", 31.0)
    assert pacer.down("o", 33.0) is None
    pacer.failed("o", "url", 33.0, 34.0, 0.0, NetworkError("reset"))
    assert pacer.down("o", 35.0)
