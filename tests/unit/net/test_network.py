"""Network: the HTTP client is opened by the first who asks, once, and closed if it was opened."""

from __future__ import annotations

from mdl.cancel import CancelToken
from mdl.disk.pool import in_parallel
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.network import Network


def test_it_is_opened_once() -> None:
    """Threads that ask at once get one client."""
    opened: list[HttpClient] = []

    def connect() -> HttpClient:
        opened.append(HttpClient(AllowList.of([])))
        return opened[-1]

    with Network(connect, 4, CancelToken()) as network:
        found = list(in_parallel([lambda: network.http] * 8, 8, lambda: None))
        assert found == opened * 8
    assert opened[0].is_closed


def test_it_is_not_opened_for_nothing() -> None:
    """Nothing is opened if nobody asks, not even to be closed."""

    def connect() -> HttpClient:
        raise AssertionError("nobody asked")

    with Network(connect, 4, CancelToken()) as network:
        assert network.connections == 4
