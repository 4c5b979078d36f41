"""Torrents: what `mdl lock --swarm` writes of a model's large files, and how one is compared with the lock.

Version 2 alone (BEP 52): sha256 in a Merkle tree for each file, every piece of one file. A torrent has no tracker, no
URL and no date: two machines write the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mdl.catalog.lock import LockedFile, LockedModel
from mdl.errors import ProtocolError
from mdl.http.ranges import ByteRange
from mdl.paths import RelPath
from mdl.values import value_class

LEAST = 16 * 2**20
"""Smaller files are not in a torrent: they come from the origin anyway."""
LARGEST_TORRENT = 16 * 2**20
_BLOCK = 16 * 2**10
_PIECE, _LARGE_PIECE, _LARGE_MODEL = 4 * 2**20, 16 * 2**20, 50 * 10**9
_LAYERS = b"12:piece layers"
"""The key of the hashes of all pieces; libtorrent would do without, and wait for a peer that tells them."""
_NOTHING = bytes(32)
"""What stands in a tree for a block behind the end of the file."""


def covered(model: LockedModel) -> tuple[LockedFile, ...]:
    """The files of a locked model that its torrent has: those of at least `LEAST` bytes with a sha256."""
    return tuple(
        one for one in model.files if one.digest and one.digest.algorithm == "sha256" and (one.size or 0) >= LEAST
    )


def piece_length(total: int) -> int:
    """The bytes of a piece, for files of ``total`` bytes in all: larger for a large model, so that the torrent of
    50 GB has 400 kB, and one piece is not much to hold in memory."""
    return _PIECE if total <= _LARGE_MODEL else _LARGE_PIECE


def make_torrent(
    name: str, files: Mapping[RelPath, Path], length: int, watch: Callable[[int], None]
) -> tuple[bytes, str]:
    """The torrent of these files, which are read, and its info hash in hex. ``length`` is that of a piece. ``watch`` is
    called with the bytes read so far. Raises `OSError`, and what ``watch`` raises."""
    tree: dict[str, Any] = {}
    layers: dict[bytes, bytes] = {}
    done = 0
    for relative, path in files.items():
        pieces, size = [], 0
        with path.open("rb") as file:
            while data := file.read(length):
                blocks = [_sha256(data[start : start + _BLOCK]) for start in range(0, len(data), _BLOCK)]
                pieces.append(_root(blocks, length // _BLOCK, _NOTHING))
                size += len(data)
                watch(done + size)
        done += size
        root = _root(pieces, 1 << (len(pieces) - 1).bit_length(), _root([], length // _BLOCK, _NOTHING))
        layers |= {root: b"".join(pieces)} if len(pieces) > 1 else {}
        node = tree
        for part in relative.text.split("/"):
            node = node.setdefault(part, {})
        node[""] = {"length": size, "pieces root": root}
    info = {"file tree": tree, "meta version": 2, "name": name, "piece length": length}
    return _bencode({"info": info, "piece layers": layers}), hashlib.sha256(_bencode(info)).hexdigest()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _root(leaves: list[bytes], width: int, filler: bytes) -> bytes:
    """The root of a Merkle tree with ``width`` leaves, a power of two; ``filler`` stands for those that are missing."""
    row = leaves + [filler] * (width - len(leaves))
    while len(row) > 1:
        row = [_sha256(row[at] + row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


def _bencode(value: Any) -> bytes:
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, dict):
        items = sorted((key.encode() if isinstance(key, str) else key, one) for key, one in value.items())
        return b"d%be" % b"".join(_bencode(key) + _bencode(one) for key, one in items)
    data = value.encode() if isinstance(value, str) else value
    return b"%d:%b" % (len(data), data)


@value_class
class TorrentFile:
    """One file of a torrent: its number there, and its ``pieces`` of ``length`` bytes each."""

    index: int
    path: RelPath
    size: int
    pieces: range
    length: int

    def bytes_of(self, piece: int) -> ByteRange:
        """Which bytes of the file a piece is."""
        start = (piece - self.pieces.start) * self.length
        return ByteRange(start, min(start + self.length, self.size))


@value_class
class Torrent:
    """A torrent that is the one of the lock. ``info`` is libtorrent's own."""

    info: Any
    files: tuple[TorrentFile, ...]


def read_torrent(data: bytes, model: LockedModel) -> Torrent:
    """The torrent of a locked model. No name in it is ever used as a path. Raises `ProtocolError` if it is not the one
    whose info hash the lock has, or has other files than the lock."""
    import libtorrent

    try:
        info: Any = libtorrent.load_torrent_buffer(data).ti
    except RuntimeError as error:
        raise _refused(model, f"the torrent cannot be read: {error}") from error
    hashes, layout, length = info.info_hashes(), info.layout(), info.piece_length()
    if hashes.has_v1() or str(hashes.v2) != model.swarm:
        raise _refused(model, "the torrent is another than the lock names")
    numbers = [n for n in range(layout.num_files()) if not layout.file_flags(n) & layout.flag_pad_file]
    folder = f"{layout.name()}/"  # libtorrent puts a lone file into none
    found = {layout.file_path(n).removeprefix(folder): (n, layout.file_size(n)) for n in numbers}
    expected = {one.path.text: one for one in covered(model)}
    if {path: size for path, (_, size) in found.items()} != {path: one.size for path, one in expected.items()}:
        raise _refused(model, "the torrent has other files than the lock")
    if not _BLOCK <= length <= _LARGE_PIECE:
        raise _refused(model, "the torrent has pieces that are too large")
    files = []
    for path, one in expected.items():
        number, size = found[path]
        first = layout.piece_index_at_file(number)
        files.append(TorrentFile(number, one.path, size, range(first, first - (-size // length)), length))
    hashed = {layout.root(file.index).to_bytes(): len(file.pieces) for file in files if len(file.pieces) > 1}
    if len(data.rpartition(_LAYERS)[2]) < sum(hashed.values()) * len(_NOTHING):
        raise _refused(model, "the torrent lacks the hashes of its pieces")
    return Torrent(info, tuple(files))


def _refused(model: LockedModel, why: str) -> ProtocolError:
    hint = f"'mdl lock --swarm {model.name}' writes it anew; without --swarm the model comes from its origin"
    return ProtocolError(why, item=model.name, hint=hint)
