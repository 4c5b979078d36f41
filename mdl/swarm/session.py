"""A session of libtorrent: the machines that are asked, what each has, and the pieces that come from them.

No tracker, no DHT, no peer exchange, no port mapping, no uTP. A peer must know the info hash, and have a private
address or one that the user named. libtorrent writes into the partials of the store, and reads no other file than those
of the torrent.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mdl.http.body import Throttle
from mdl.swarm import SwarmOptions, address_of
from mdl.swarm.torrent import Torrent
from mdl.values import value_class

_PRIVATE = (
    *(("10.0.0.0", "10.255.255.255"), ("172.16.0.0", "172.31.255.255"), ("192.168.0.0", "192.168.255.255")),
    *(("127.0.0.0", "127.255.255.255"), ("169.254.0.0", "169.254.255.255"), ("100.64.0.0", "100.127.255.255")),
    *(("::1", "::1"), ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ("fe80::", "febf:ffff::")),
)
_EVERYTHING = (("0.0.0.0", "255.255.255.255"), ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
_KNOCK_SECONDS = 2.0
"""How often a named peer that is not there is tried again."""
_SETTINGS = {
    "enable_dht": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "max_retry_port_bind": 0,
    "listen_system_port_fallback": False,
    "allow_multiple_connections_per_ip": True,
    "min_reconnect_time": 1,
    "max_failcount": 1000,
    "unchoke_slots_limit": 20,
    "connections_limit": 200,
    "local_service_announce_interval": 2,
    "user_agent": "mdl",
}


@value_class
class Look:
    """How one torrent stands. ``id`` is this node's own. ``have`` tells of each piece whether it is here,
    ``availability`` how many peers have it; ``others`` are the ids of those of the ``peers`` that still want something.
    Bytes: ``done`` of what is wanted, ``files`` of each file, ``received`` from peers and ``sent`` to them. ``error``
    says in libtorrent's own words why it stopped."""

    id: bytes
    have: Sequence[bool]
    availability: Sequence[int]
    peers: int
    others: frozenset[bytes]
    done: int
    files: Sequence[int]
    received: int
    sent: int
    error: str


class Session:
    """libtorrent, listening. ``id`` is what the others see of this node. The rate of ``throttle`` holds for what comes
    from peers, and for what goes to them. Close it when done."""

    def __init__(self, options: SwarmOptions, throttle: Throttle) -> None:
        import libtorrent

        self._lt: Any = libtorrent
        self._peers, self._knocked = options.peers, 0.0
        self._throttle, self._rate = throttle, 0.0
        self.id = secrets.token_hex(10).encode()
        kinds = libtorrent.alert.category_t
        settings = _SETTINGS | {
            "enable_lsd": not options.peers,
            "peer_fingerprint": self.id.decode(),
            "alert_mask": int(kinds.error_notification | kinds.storage_notification | kinds.status_notification),
        }
        for here in (*self._own_addresses(), *(_anywhere() for _ in range(3))):
            self._session = self._lt.session(settings | {"listen_interfaces": here})
            if self._session.listen_port():
                break  # else another process took the address meanwhile
        allowed = libtorrent.ip_filter()
        for first, last in _EVERYTHING:
            allowed.add_rule(first, last, 1)
        for first, last in (*_PRIVATE, *((host, host) for host, _ in self._addresses())):
            allowed.add_rule(first, last, 0)
        self._session.set_ip_filter(allowed)

    def _addresses(self) -> Iterator[tuple[str, int]]:
        """The addresses of the named peers; one that has no address now may have one later."""
        for host, port in map(address_of, self._peers):
            with contextlib.suppress(OSError):
                for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                    yield str(found[4][0]), port

    def _own_addresses(self) -> Iterator[str]:
        """Those of them at which this machine can listen."""
        for host, port in self._addresses():
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def keep_to_the_rate(self) -> None:
        """Receive, and send, as many bytes a second as the rate of this time of the day allows."""
        if (rate := self._throttle.rate or 0.0) != self._rate:
            self._rate = rate
            kinds = ("download_rate_limit", "upload_rate_limit")  # a rate of 0 is no limit
            self._session.apply_settings(dict.fromkeys([*kinds, *(f"local_{kind}" for kind in kinds)], int(rate)))

    def join(self, torrent: Torrent, places: Mapping[int, Path], wanted: Iterable[int], have: Iterable[int]) -> Share:
        """Take part in a torrent: ``places`` are the paths of its files by number, ``wanted`` the numbers of those that
        are to come, ``have`` the pieces that are here. Raises ``RuntimeError``."""
        flags, here, to_come = self._lt.torrent_flags, set(have), set(wanted)
        params = self._lt.add_torrent_params()
        params.ti, params.save_path = torrent.info, "/nonexistent"
        params.renamed_files = {file.index: str(places.get(file.index, "/nonexistent/f")) for file in torrent.files}
        params.file_priorities = [4 if n in to_come else 0 for n in range(torrent.info.num_files())]
        params.have_pieces = [piece in here for piece in range(torrent.info.num_pieces())]
        params.flags = flags.no_verify_files | flags.disable_dht | flags.disable_pex | flags.apply_ip_filter
        return Share(self, self._lt, self._session.add_torrent(params))

    def knock(self, share: Share) -> None:
        """Try the named peers, now and then."""
        if time.monotonic() - self._knocked >= _KNOCK_SECONDS:
            self._knocked = time.monotonic()
            for address in self._addresses():
                share.handle.connect_peer(address)

    def alerts(self) -> list[Any]:
        """What libtorrent told since the last call."""
        return list(self._session.pop_alerts())

    def close(self) -> None:
        """Leave every torrent. Once this returns, libtorrent writes to no file any more: its threads have ended."""
        self._session.pause()
        del self._session


def _anywhere() -> str:
    """Every address of this machine, at one free port: what is found in the local network is told only one."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    return f"0.0.0.0:{port},[::]:{port}"


class Share:
    """This node's part in one torrent."""

    def __init__(self, session: Session, libtorrent: Any, handle: Any) -> None:
        self._session, self._lt, self.handle = session, libtorrent, handle
        self.has_flushed = False
        """What `flush` asked for is done."""
        self.wrong: list[int] = []
        """Pieces whose bytes were not those of the torrent, until somebody takes note of them."""

    def look(self) -> Look:
        """How it stands now."""
        self._session.keep_to_the_rate()
        self._session.knock(self)
        for alert in self._session.alerts():
            if getattr(alert, "handle", None) == self.handle:
                if isinstance(alert, self._lt.cache_flushed_alert):
                    self.has_flushed = True
                elif isinstance(alert, self._lt.hash_failed_alert):
                    self.wrong.append(int(alert.piece_index))
        status, kinds = self.handle.status(), self._lt.peer_info
        peers = [one for one in self.handle.get_peer_info() if not one.flags & (kinds.connecting | kinds.handshake)]
        leechers = [one for one in peers if not one.flags & (kinds.seed | kinds.upload_only)]
        return Look(
            id=self._session.id,
            have=status.pieces,
            availability=self.handle.piece_availability() or [0] * len(status.pieces),
            peers=len(peers),
            others=frozenset(one.pid.to_bytes() for one in leechers),
            done=status.total_wanted_done,
            files=self.handle.file_progress(),
            received=status.total_payload_download,
            sent=status.total_payload_upload,
            error=status.errc.message() if status.errc.value() else "",
        )

    def add_piece(self, piece: int, data: bytes) -> None:
        """Give it a piece that came from the origin, whatever a peer sent of it."""
        self.handle.add_piece(piece, data, self._lt.torrent_handle.overwrite_existing)

    def flush(self) -> None:
        """Have it write what it holds in memory."""
        self.has_flushed = False
        self.handle.flush_cache()

    def moved(self, index: int, path: Path) -> None:
        """A file got its final name. libtorrent has nothing to rename, and notes the path."""
        with contextlib.suppress(RuntimeError):
            self.handle.rename_file(index, str(path))
            self.handle.clear_error()
