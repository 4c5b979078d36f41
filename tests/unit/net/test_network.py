"""Network: the HTTP client is opened by the first who asks, once, and closed if it was opened."""

from __future__ import annotations

from mdl.cancel import CancelToken
from mdl.disk.pool import in_parallel
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.locators import Link
from mdl.net.network import Network


def test_it_is_opened_once() -> None:
    """Threads that ask at once get one client; it knows the locators that were added before and are added after."""
    opened: list[HttpClient] = []

    def connect() -> HttpClient:
        opened.append(HttpClient(AllowList.of([])))
        return opened[-1]

    with Network(connect, 4, CancelToken()) as network:
        network.locators["s3"] = Link
        found = list(in_parallel([lambda: network.http] * 8, 8, lambda: None))
        network.locators["job"] = Link
        assert found == opened * 8
        assert opened[0].is_located("s3://bucket/key")
        assert opened[0].is_located("job://one/two")
    assert opened[0].is_closed


def test_it_is_not_opened_for_nothing() -> None:
    """Nothing is opened if nobody asks, not even to be closed."""

    def connect() -> HttpClient:
        raise AssertionError("nobody asked")

    with Network(connect, 4, CancelToken()) as network:
        assert network.connections == 4
