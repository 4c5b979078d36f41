"""How often and how long a request is retried: the policy, the wait that a server asks for, `HttpClient.retry`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import each

from mdl.cancel import CancelToken
from mdl.errors import Cancelled, NetworkError, NotFound
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient, OnRetry
from mdl.net.headers import retry_after
from mdl.net.pacer import Pacer
from mdl.net.policy import Again, Limits, RetryPolicy

calm = settings(deadline=None)

NOW = datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)


@pytest.mark.fault(57)
@calm
@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0, 600))
def test_delay(failure: int, jitter: float, asked: float) -> None:
    """The n-th wait is between half and the whole of first·2^(n-1), never over the cap, never under what the server
    asks for."""
    policy = RetryPolicy(first=0.5, longest=30.0)
    full, delay = min(30.0, 0.5 * 2 ** min(failure - 1, 100)), policy.delay(failure, jitter)
    assert full / 2 <= delay <= full
    assert policy.delay(failure, jitter, asked) == max(asked, delay)


@pytest.mark.fault(57)
def test_clients_spread() -> None:
    """Two clients that failed together do not come back together."""
    assert RetryPolicy().delay(3, 0.0) < RetryPolicy().delay(3, 0.5) < RetryPolicy().delay(3, 0.99)


@pytest.mark.fault(58)
@each(
    ("text", "seconds"),
    [
        ("3", 3.0),
        (" 0 ", 0.0),
        ("1000000000", 1e9),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 30.0),
        ("Wed, 21 Oct 2026 09:28:30 +0200", 30.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None),
        ("Fri, 31 Dec 2020 23:59:59 +99999999999999", None),
        *((text, None) for text in ("-5", "soon", "1.5", "99999999999")),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    """Retry-After is seconds or a date in any zone; anything else is ignored."""
    assert retry_after({"retry-after": text}, NOW) == seconds


@pytest.mark.fault(58)
@pytest.mark.parametrize(("date", "seconds"), [("Wed, 21 Oct 2026 08:28:25 GMT", 5.0), ("soon", 3630.0), ("", 3630.0)])
def test_a_date_is_by_the_clock_of_the_server(date: str, seconds: float) -> None:
    """If the clocks differ by an hour, the wait is still what the server means."""
    assert retry_after({"retry-after": "Wed, 21 Oct 2026 08:28:30 GMT", "date": date}, NOW) == seconds


@pytest.mark.fault(58)
@each(
    ("headers", "seconds"),
    [
        ({"ratelimit": '"api";r=0;t=55'}, 56.0),
        ({"ratelimit": '"api"; r=0; t=55'}, 56.0),
        ({"ratelimit": '"api";t=55;r=0'}, 56.0),
        ({"ratelimit": '"api";r=10;t=55'}, None),
        ({"ratelimit": '"api";r=0'}, None),
        ({"ratelimit": '"api";r=0, "pages";r=5;t=30'}, None),
        ({"ratelimit": "nonsense"}, None),
        ({"retry-after": "3", "ratelimit": '"api";r=0;t=55'}, 3.0),
        ({}, None),
    ],
)
def test_rate_limit(headers: dict[str, str], seconds: float | None) -> None:
    """The reset time of an exhausted limit counts, in any order of parameters, if there is no Retry-After."""
    assert retry_after(headers, NOW) == seconds


@pytest.mark.fault(58)
@calm
@given(st.text(max_size=40), st.text(max_size=40))
def test_wait_is_never_negative(one: str, other: str) -> None:
    """Whatever a server writes, the wait is unknown or at least 0."""
    asked = retry_after({"retry-after": one, "ratelimit": other}, NOW)
    assert asked is None or asked >= 0


class Script:
    """A call that raises these errors in turn, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


AT_ONCE = RetryPolicy(tries=3, first=0.0)


def retried(script: Script, cancel: CancelToken | None = None, on_retry: OnRetry | None = None) -> str:
    with HttpClient(AllowList.of([]), cancel=cancel, limits=Limits(policy=AT_ONCE)) as http:
        return http.retry("https://host/x", script, on_retry)


def test_retry_until_it_answers() -> None:
    """Trouble that passes within the tries is reported once each, then the answer comes."""
    told: list[Again] = []
    script = Script(NetworkError("one"), NetworkError("two"))
    assert retried(script, None, told.append) == "answer"
    assert [replace(again, idle=0.0) for again in told] == [
        Again(0.0, 1, "one", 2, patience=15.0),
        Again(0.0, 2, "two", 2, patience=15.0),
    ]


@pytest.mark.fault(57)
@pytest.mark.parametrize(
    ("errors", "calls"),
    [
        ([NetworkError(str(n)) for n in range(3)], 3),
        ([NetworkError("for good", final=True)], 1),
        ([NotFound("gone")], 1),
        ([ValueError("a fault")], 1),
    ],
    ids=["too often", "final", "not found", "a fault"],
)
def test_retry_ends(errors: list[Exception], calls: int) -> None:
    """The last error is raised after the last try, and an error that asking again cannot help is raised at once."""
    script = Script(*errors)
    with pytest.raises(type(errors[0])) as caught:
        retried(script)
    assert str(caught.value) == str(errors[-1])
    assert script.calls == calls


@pytest.mark.fault(58)
def test_retry_waits_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait between two tries is the one that the server asks for."""
    cancel, waits = CancelToken(), list[float]()
    monkeypatch.setattr(cancel, "wait", waits.append)
    retried(Script(NetworkError("busy", retry_after=56.0)), cancel)
    assert waits == [pytest.approx(56.0)]


def test_cancel_ends_the_wait() -> None:
    """A cancel ends a wait at once."""
    cancel, script = CancelToken(), Script(NetworkError("busy", retry_after=600.0))
    cancel.set()
    with pytest.raises(Cancelled):
        retried(script, cancel)
    assert script.calls == 1


@pytest.mark.fault(223)
def test_dead_host_is_asked_once_for_all() -> None:
    """Twelve short requests to a dead host cost the tries of one and one more; other hosts are asked."""
    http = HttpClient(AllowList.of([]), limits=Limits(policy=AT_ONCE))
    script = Script(*[NetworkError("refused")] * 99)
    for number in range(12):
        with pytest.raises(NetworkError, match="refused"):
            http.retry(f"https://dead/api/{number}", script)
    assert script.calls == AT_ONCE.tries + 1
    assert http.retry("https://alive/api", lambda: "answer") == "answer"


@pytest.mark.fault(223)
def test_host_that_is_down() -> None:
    """After half a minute one request finds out whether a host is back; if the host serves one, all is forgotten."""
    pacer = Pacer(8, RetryPolicy(2))
    for moment in (1.0, 2.0):
        pacer.failed("o", f"url {moment}", moment, moment, 0.0, NetworkError("reset"))
    assert pacer.down("o", 31.0)
    assert pacer.down("o", 33.0) is None
    pacer.failed("o", "url", 33.0, 34.0, 0.0, NetworkError("reset"))
    assert pacer.down("o", 35.0)
    pacer.served("o", 35.5, 36.0)
    assert pacer.down("o", 36.0) is None
