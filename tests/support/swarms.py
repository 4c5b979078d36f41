"""Machines that may form a swarm, and peers that misbehave."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mdl.catalog.lock import Lock, LockedFile, LockedModel, entry_of
from mdl.hashing import Digest
from mdl.http.body import NO_LIMIT
from mdl.paths import RelPath
from mdl.swarm import FOLDER, SwarmOptions
from mdl.swarm.session import Session, Share
from mdl.swarm.torrent import make_torrent, read_torrent
from support.catalogs import catalog_of, parse
from support.data import sha256
from support.processes import free_ports
from support.shell import Shell, machine

PIECE = 4 * 2**20
FILE = RelPath.parse("f.bin")


def addresses(count: int) -> list[str]:
    return [f"127.0.0.1:{port}" for port in free_ports(count)]


def accepted(peers: Iterable[str]) -> int:
    """How many connections the nodes at these addresses have accepted and keep."""
    ports = {f"{int(peer.rpartition(':')[2]):04X}" for peer in peers}
    rows = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(state == "01" and here.rpartition(":")[2] in ports for here, _there, state in rows)


def torrent_of(data: bytes, folder: Path) -> tuple[bytes, str]:
    """The torrent of a model ``one`` with the one file ``f.bin``, and its info hash."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "f.bin").write_bytes(data)
    return make_torrent("one", {FILE: folder / "f.bin"}, PIECE, lambda _done: None)


def locked(data: bytes, info_hash: str, entry: str = "e", url: str = "https://h/f", **more: bool) -> LockedModel:
    file = LockedFile(FILE, url, len(data), Digest("sha256", sha256(data)))
    return LockedModel("one", entry, (file,), info_hash, **more)


def node(home: Path, url: str, data: bytes, torrent: bytes, info_hash: str, **more: bool) -> Shell:
    """A machine whose lock has a model ``one`` at ``url``, with this torrent beside it."""
    text = catalog_of(data, one=url)
    shell = machine(home, text)
    model = parse(text.removeprefix("schema = 1\n")).models["one"]
    lock = Lock({"one": locked(data, info_hash, entry_of(model), url, **more)})
    (home / "mdl.lock").write_text(lock.to_toml())
    (home / FOLDER).mkdir()
    (home / FOLDER / "one.torrent").write_bytes(torrent)
    return shell


@contextlib.contextmanager
def seed(
    address: str, torrent: bytes, model: LockedModel, data: Path, *, is_empty: bool = False, **settings: int
) -> Iterator[Share]:
    """A peer that says that it has everything, and sends what is in the file ``data``; or, if it ``is_empty``, one that
    wants it all."""
    session = Session(SwarmOptions((address,)), NO_LIMIT)
    session._session.apply_settings(dict(settings))
    read = read_torrent(torrent, model)
    places: Mapping[int, Path] = {read.files[0].index: data}
    share = session.join(read, places, places, () if is_empty else read.files[0].pieces)
    try:
        yield share
    finally:
        session.close()
