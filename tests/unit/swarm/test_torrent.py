"""Torrents: two machines write the same, libtorrent reads them, and one that lies is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from support.data import MIB, noise
from support.swarms import FILE, PIECE, locked, torrent_of

from mdl.catalog.lock import LockedFile
from mdl.errors import ProtocolError
from mdl.hashing import Digest
from mdl.http.ranges import ByteRange
from mdl.paths import RelPath
from mdl.swarm.torrent import covered, make_torrent, piece_length, read_torrent

pytest.importorskip("libtorrent", reason="LIBTORRENT IS NOT HERE: no swarm is tried")

DATA = noise(16 * MIB + 5)


def test_libtorrent_reads_what_two_machines_write(tmp_path: Path) -> None:
    """The torrent of the same bytes is the same anywhere, and libtorrent finds its own info hash and pieces in it."""
    torrent, info_hash = torrent_of(DATA, tmp_path / "a")
    assert torrent_of(DATA, tmp_path / "b") == (torrent, info_hash)
    [file] = read_torrent(torrent, locked(DATA, info_hash)).files
    assert (file.path, file.size, file.pieces) == (FILE, len(DATA), range(5))
    assert (file.bytes_of(0), file.bytes_of(4)) == (ByteRange(0, PIECE), ByteRange(4 * PIECE, len(DATA)))
    assert b"://" not in torrent


def test_several_files_each_begin_with_a_piece(tmp_path: Path) -> None:
    """A model in folders: every file of it has pieces of its own, whatever the order of the names."""
    names = ("z/a.bin", "b.bin", "a/b/c.bin")
    files = {RelPath.parse(name): tmp_path / str(n) for n, name in enumerate(names)}
    for path in files.values():
        path.write_bytes(DATA)
    torrent, info_hash = make_torrent("one", files, PIECE, lambda _done: None)
    digest = Digest("sha256", hashlib.sha256(DATA).hexdigest())
    rows = tuple(LockedFile(path, "https://h/f", len(DATA), digest) for path in files)
    found = read_torrent(torrent, replace(locked(DATA, info_hash), files=rows)).files
    assert {file.path for file in found} == set(files)
    assert sorted(piece for file in found for piece in file.pieces) == list(range(15))


@pytest.mark.fault(521)
@pytest.mark.parametrize("name", ["../f.bin", "/etc/f.bin", "f.bin/..", "other.bin", "F.BIN"])
def test_a_torrent_with_other_names_is_refused(tmp_path: Path, name: str) -> None:
    """Its names are compared with the lock and never become paths, even if the lock has its info hash."""
    (tmp_path / "f").write_bytes(DATA)
    torrent, info_hash = make_torrent("one", {RelPath(name): tmp_path / "f"}, PIECE, lambda _done: None)
    with pytest.raises(ProtocolError):
        read_torrent(torrent, locked(DATA, info_hash))


@pytest.mark.fault(521, 522)
def test_a_torrent_that_is_not_the_one_of_the_lock_is_refused(tmp_path: Path) -> None:
    """Another info hash, another size, pieces without hashes or with wrong ones, and what is no torrent at all."""
    torrent, info_hash = torrent_of(DATA, tmp_path)
    layers = torrent.index(b"12:piece layers")
    flipped = bytearray(torrent)
    flipped[layers + 100] ^= 1
    short = DATA[:-1]
    lies = {
        "other": (torrent, locked(DATA, "0" * 64)),
        "stale": (torrent, locked(DATA, torrent_of(noise(17 * MIB), tmp_path)[1])),
        "size": (torrent_of(short, tmp_path)[0], locked(DATA, torrent_of(short, tmp_path)[1])),
        "no layers": (torrent[:layers] + b"12:piece layersdee", locked(DATA, info_hash)),
        "wrong layers": (bytes(flipped), locked(DATA, info_hash)),
        "cut": (torrent[:-9], locked(DATA, info_hash)),
        "junk": (b"junk", locked(DATA, info_hash)),
    }
    for what, (data, model) in lies.items():
        with pytest.raises(ProtocolError):
            read_torrent(data, model)
            pytest.fail(what)
    assert read_torrent(torrent, locked(DATA, info_hash)).files  # the control


def test_what_a_torrent_covers() -> None:
    """Large files with a sha256; pieces grow for a model of more than 50 GB."""
    model = locked(DATA, "")
    [file] = model.files
    others = (replace(file, size=16 * MIB - 1), replace(file, digest=Digest("git-sha1", "0" * 40)))
    assert covered(model) == (file,)
    assert covered(replace(model, files=(*others, replace(file, size=None), replace(file, digest=None)))) == ()
    assert (piece_length(50 * 10**9), piece_length(70 * 10**9)) == (4 * MIB, 16 * MIB)
