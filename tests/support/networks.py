"""The network of a client that is open."""

from __future__ import annotations

from mdl.net.client import HttpClient
from mdl.net.network import Network


def network_of(http: HttpClient) -> Network:
    """The network that has this client, and the locators of it."""
    found = Network(lambda: http, http.connections, http.cancel)
    found.locators = http.locators
    return found
