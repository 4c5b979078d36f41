"""The network of a client that is open."""

from __future__ import annotations

from mdl.net.client import HttpClient
from mdl.net.network import Network


def network_of(http: HttpClient) -> Network:
    """The network that has this client."""
    return Network(lambda: http, http.connections, http.cancel)
