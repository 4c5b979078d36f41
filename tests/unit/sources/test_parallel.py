"""Several models are resolved at once: no host keeps another waiting, and events come in the caller's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import faults
from support.bench import loose
from support.data import noise
from support.faulty_server import Answer, FaultyServer, Request
from support.networks import network_of
from support.polling import until

from mdl.catalog.model import Model
from mdl.catalog.resolver import Resolver
from mdl.disk.pool import in_parallel
from mdl.errors import Cancelled, MdlError, NetworkError
from mdl.events import Event, Retrying
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.policy import Limits, RetryPolicy
from mdl.sources import SourceContext
from mdl.sources.hub_endpoint import Endpoint

DATA = noise(1000)


@pytest.mark.fault(223)
def test_a_host_that_is_silent_keeps_no_other_waiting(tmp_path: Path) -> None:
    """While the first model's host says nothing, the second's is asked and answers; both come in their order."""
    second_asked = threading.Event()
    right = faults.honest(DATA)

    def slow(request: Request, number: int) -> Answer:
        assert second_asked.wait(20)
        return right(request, number)

    def quick(request: Request, number: int) -> Answer:
        second_asked.set()
        return right(request, number)

    with FaultyServer(slow) as one, FaultyServer(quick) as other, HttpClient(AllowList.of(["127.0.0.1"])) as http:
        sources = Resolver(SourceContext(Endpoint("http://127.0.0.1:9"), tmp_path, network_of(http)))
        models = [Model("one", files=(loose(one.url + "/f"),)), Model("other", files=(loose(other.url + "/f"),))]
        found = list(sources.resolve_all(models))
    assert [[file.size for file in one.files] for one in found if not isinstance(one, MdlError)] == [[1000], [1000]]


def test_events_come_in_the_caller_s_thread(tmp_path: Path) -> None:
    """Listeners need no lock: retries of other threads are told by the one that asked."""
    told: list[tuple[int, Event]] = []
    busy = faults.busy(faults.honest(DATA), times=1)
    with (
        FaultyServer(busy) as server,
        HttpClient(AllowList.of(["127.0.0.1"]), limits=Limits(policy=RetryPolicy(first=0.0))) as http,
    ):
        listen: Callable[[Event], None] = lambda event: told.append((threading.get_ident(), event))  # noqa: E731
        sources = Resolver(SourceContext(Endpoint("http://127.0.0.1:9"), tmp_path, network_of(http), listen))
        models = [Model(name, files=(loose(f"{server.url}/{name}"),)) for name in "abcd"]
        assert not any(isinstance(one, MdlError) or one.failed for one in sources.resolve_all(models))
    assert [thread for thread, event in told if isinstance(event, Retrying)]
    assert {thread for thread, _ in told} == {threading.get_ident()}


def test_results_keep_their_order_and_errors_are_values() -> None:
    """Whatever ends first, results come in the order asked; an error of one is its result."""
    gate = threading.Event()

    def first() -> str:
        assert gate.wait(20)
        return "first"

    def second() -> str:
        gate.set()
        raise NetworkError("no")

    one, other = in_parallel([first, second], 2, lambda: None)
    assert one == "first"
    assert isinstance(other, NetworkError)


def test_a_stop_ends_the_waiting() -> None:
    """What the caller's look raises comes out, and calls that were not begun are never made."""
    gate, made = threading.Event(), list[int]()

    def call() -> int:
        made.append(1)
        assert gate.wait(20)
        return 1

    def look() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        list(in_parallel([call] * 100, 2, look))
    gate.set()
    until(lambda: not any(thread.name.startswith("mdl-call") for thread in threading.enumerate()))
    assert len(made) <= 2
