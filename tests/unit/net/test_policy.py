"""The retry policy and the pacer: what follows from one answer, and how many requests an origin gets."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.long import examples

from mdl.errors import AuthError, NetworkError, ProtocolError
from mdl.net.pacer import Pacer
from mdl.net.policy import (
    MAX_OVERHEAD,
    Again,
    AskPlainly,
    GiveUp,
    RequestEnded,
    RetryPolicy,
    Rewind,
    State,
    Verified,
    VersionChanged,
    decide,
)

POLICY = RetryPolicy()
calm = settings(deadline=None, max_examples=examples(80))


@pytest.mark.fault(221)
@calm
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=200), st.integers(1, 2**34))
def test_cut_whole_files_end(cuts: list[float], size: int) -> None:
    """A file that is always sent from its start and cut is received little more than eight times, however it is cut."""
    policy, state, received, now = RetryPolicy(5), State(), 0, 0.0
    for share in itertools.cycle(cuts):
        done = int(size * share)
        received, now = received + done, now + 1000.0
        new = max(0, done - state.done)
        ended = RequestEnded(now, new, size, done, size, received, NetworkError("cut") if done < size else None)
        state, decision = decide(policy, state, ended, now + 1.0)
        if isinstance(decision, GiveUp) or done == size:
            break
    assert received <= (MAX_OVERHEAD + 5) * size


@pytest.mark.fault(224)
def test_limit_recovers() -> None:
    """A refusal lowers an origin's limit to what still runs there; with time it rises to what it was."""
    pacer = Pacer(8)
    pacer.refused("o", 3, 0.0)
    assert [pacer.has_room("o", running, 0.1) for running in (2, 3)] == [True, False]
    limits = [next(n for n in range(9) if not pacer.has_room("o", n, float(second))) for second in range(1, 60)]
    assert limits == sorted(limits)
    assert (limits[0], limits[-1]) == (3, 8)


@pytest.mark.fault(224)
def test_surplus_connection_is_tried_rarely() -> None:
    """An origin that accepts one connection is asked for a second one a few times an hour, not twice a second."""
    pacer, refusals = Pacer(8), 0
    for second in range(3600):
        if pacer.has_room("o", 1, float(second)):
            pacer.refused("o", 1, float(second))
            refusals += 1
    assert 3 <= refusals <= 16


def test_a_burst_of_refusals_is_one() -> None:
    """Sixteen requests that are refused at once leave one connection; requests that are served bring the others back
    at once, but for the one that was refused first, which takes some seconds."""
    pacer = Pacer(16)
    for others in range(15, -1, -1):
        pacer.refused("o", others, 1.0)
    pacer.served("o", 0.5, 1.0)  # it was accepted before
    assert [pacer.has_room("o", running, 1.0) for running in (0, 1)] == [True, False]
    for _ in range(16):
        pacer.served("o", 1.5, 2.0)
    assert [pacer.has_room("o", running, 2.0) for running in (14, 15)] == [True, False]
    assert pacer.has_room("o", 15, 7.0)


def test_a_refusal_while_few_requests_run() -> None:
    """A refusal before the others have begun says nothing of how many the origin takes: these find out."""
    pacer = Pacer(16)
    pacer.refused("o", 1, 0.0)
    assert not pacer.has_room("o", 1, 0.1)
    for _ in range(14):
        pacer.served("o", 0.05, 0.1)
    assert [pacer.has_room("o", running, 0.1) for running in (14, 15)] == [True, False]


@pytest.mark.parametrize(("served", "lowers"), [(7, True), (8, False)])
def test_one_refusal_among_many_served(served: int, lowers: bool) -> None:
    """It is about its file, and leaves the limit as it was."""
    pacer = Pacer(8)
    for _ in range(served):
        pacer.served("o", 0.0, 0.0)
    pacer.refused("o", 3, 1.0)
    assert pacer.has_room("o", 7, 1.0) is not lowers


def test_waits_grow_and_are_spread() -> None:
    """A wait is between half of its length and all of it, twice as long after each failure, and never too short for
    the server, nor longer than the longest."""
    first, longest = POLICY.first, POLICY.longest
    assert [POLICY.delay(failure, 0.0) for failure in (1, 2, 3)] == [first / 2, first, 2 * first]
    assert POLICY.delay(1, 0.5) == 0.75 * first
    assert POLICY.delay(1000, 0.0) == longest / 2
    assert (POLICY.delay(1, 0.0, 9 * longest), POLICY.delay(1000, 0.0, 0.1)) == (9 * longest, longest / 2)


def test_a_server_that_changes_the_file_again_and_again_is_given_up() -> None:
    """After the first change all comes anew, after the second too if it is of the same size, and that was the last."""
    state, decisions = State(), []
    for _ in range(3):
        state, decision = decide(POLICY, state, VersionChanged(ProtocolError("changed"), is_same_size=True), 1.0)
        decisions.append(type(decision).__name__)
    assert decisions == ["Rewind", "Rewind", "GiveUp"]
    assert state.changes == 3
    state, _ = decide(POLICY, State(), VersionChanged(ProtocolError("changed")), 1.0)
    _, decision = decide(POLICY, state, VersionChanged(ProtocolError("changed")), 2.0)
    assert isinstance(decision, GiveUp)


def test_the_last_bytes_are_progress_however_few() -> None:
    """A request that brings the end of the file made progress; one that brings as few and not the end did not."""
    assert [RequestEnded(1.0, 1, 2**20, done, 2**20, 0, None).made_progress for done in (2**20, 2**20 - 1)] == [
        True,
        False,
    ]


def test_a_whole_file_that_is_refused_beside_others_is_asked_for_once_more() -> None:
    """Alone: that is the same question as one more beside the others, and its answer is final."""
    refused = RequestEnded(began=1.0, error=AuthError("403"), others=2, is_serving=True)
    state, decision = decide(RetryPolicy(), State(), refused, 2.0)
    assert isinstance(decision, AskPlainly)
    _, decision = decide(RetryPolicy(), state, RequestEnded(began=3.0, error=AuthError("403")), 4.0)
    assert isinstance(decision, GiveUp)


def test_wrong_bytes_are_fetched_again_once() -> None:
    """The first time the file is downloaded from the start again, and a cache may be to blame; then it is given up."""
    wrong = Verified(ProtocolError("wrong bytes"), may_help=True)
    state, decision = decide(RetryPolicy(), State(mirrors=0, done=7), wrong, 1.0)
    assert (decision, state.is_suspicious, state.done) == (Rewind("wrong bytes"), True, 0)
    _, decision = decide(RetryPolicy(), state, wrong, 2.0)
    assert isinstance(decision, GiveUp)
    assert not State().is_suspicious
    assert State(protocol_errors=1).is_suspicious


def test_a_lie_about_a_range_is_asked_plainly_once() -> None:
    """An answer that is not of the range is no failure of the file: all of it is asked for. The same of a plain request
    is one of its protocol errors, for which there is another try."""
    lie = RequestEnded(began=1.0, error=ProtocolError("another range"), is_ranged=True)
    state, decision = decide(RetryPolicy(), State(), lie, 2.0)
    assert (isinstance(decision, AskPlainly), state.is_plain) == (True, True)
    state, decision = decide(RetryPolicy(), replace(state, charged_at=-math.inf), lie, 3.0)
    assert (type(decision), state.protocol_errors) == (Again, 1)


def test_a_refused_link_is_renewed_at_once() -> None:
    """The first refusal of a link costs no wait: most have expired. The next one is waited for."""
    refused = RequestEnded(began=1.0, error=AuthError("403"), by_link=True)
    state, decision = decide(RetryPolicy(), State(), refused, 2.0)
    assert (decision, state.refused_links) == (Again(), 1)
    _, decision = decide(RetryPolicy(), state, replace(refused, began=3.0), 4.0)
    assert isinstance(decision, Again)
    assert decision.delay > 0


def test_trouble_is_counted_from_one() -> None:
    """The first failure of the network is the first, and the second the second."""
    state = State()
    for count in (1, 2):
        cut = RequestEnded(began=10.0 * count, error=NetworkError("cut"))
        state, decision = decide(RetryPolicy(), state, cut, 10.0 * count + 1)
        assert isinstance(decision, Again)
        assert (state.network_errors, decision.failure) == (count, count)
