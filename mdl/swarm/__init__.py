"""The swarm: machines that want the same locked model fetch it once and pass it on to each other. Experimental.

libtorrent is known in this room alone, and is imported when a torrent is read. It moves pieces between machines and
nothing else: mdl asks the origin, verifies with sha256 and publishes, as in any other download.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from mdl.errors import AuthError, UsageError
from mdl.extras import require
from mdl.values import value_class

FOLDER = "mdl.swarm"
"""The folder beside the lock that has the torrents."""


@value_class
class SwarmOptions:
    """``peers`` are the machines of the swarm, each as ``host:port``; the same list is right on all of them, for each
    listens at the one of these addresses that is its own. Without peers they are found in the local network.
    ``gated``: models that are not known to be open are passed on as well."""

    peers: tuple[str, ...] = ()
    gated: bool = False

    def __post_init__(self) -> None:
        for peer in self.peers:
            address_of(peer)


def address_of(peer: str) -> tuple[str, int]:
    """The host and the port of ``host:port``. Raises `UsageError`."""
    try:
        parts = urlsplit(f"//{peer}")
        if parts.hostname and parts.port and parts.netloc == peer and not parts.username:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise UsageError(f"{peer!r} is not HOST:PORT", item="--peers", hint="as in 10.0.0.5:6881,10.0.0.6:6881")


def check_installed() -> None:
    """Raises `UsageError` if the extra ``swarm`` is not installed."""
    require("swarm", "libtorrent", why="--swarm needs libtorrent")


def refused(model: str, command: str) -> AuthError:
    """The error for a model that is not known to be open to everybody; ``command`` takes the flag that allows it."""
    why = "it is gated or private, or nobody noted that it is not"
    return AuthError(why, item=model, hint=f"'{command} --gated' has the swarm pass it on nevertheless")
