"""Files that run code when they are loaded, recognised by name and first bytes. Nothing is loaded here. Pure.

PyTorch's files are pickles, bare or in a zip whose first member is ``…/data.pkl``; NeMo's are a tar of one:
https://pytorch.org/docs/stable/notes/serialization.html. NumPy's object arrays are pickles behind a header:
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Keras stores the compiled code of a Lambda
layer, and describes the layers in JSON. A configuration of transformers or diffusers can name Python code, which runs
if the program that loads it trusts the repository.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterator

_SUFFIXES = (
    *(".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".pck", ".pcl"),
    *(".pth.tar", ".pt.tar", ".ckpt.tar", ".nemo", ".py", ".so"),
)
_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_HEAD = 2**16
_CONFIG_HEAD = 2**20
"""How many bytes are looked at of a file in which the words that name code may stand far from the beginning."""
_DEEPEST = 3
"""In how many archives, one within the other, a pickle is looked for."""

_ZIP_MEMBER = b"PK\x03\x04"
_ZIP_HEADER_SIZE = 30
_DEFLATED = 8
_TAR_BLOCK = 512
_MOST_MEMORY = 2**26

_BINARY_PICKLE = rb"\x80[\x02-\x05]|\x93NUMPY(?s:.{4})[^\n]*(?:'descr': ?|, ?)'[|<>=]?O[0-9]*'"
"""A pickle's protocol, or the header of a NumPy array whose elements are pickled objects."""
_OLD_PICKLE = rb"[(c}\])]"
"""The first operation of a pickle of protocol 0 or 1: it puts something on the empty stack."""
_MOST_OPERATIONS = 2_000
_FEWEST_OPERATIONS = 8
"""As many operations in a row are taken for a pickle that goes on behind the first bytes."""

_LAMBDA_LAYER = rb'"class_name"\s*:\s*"(?:Lambda|__lambda__)"'
_NAMES_CODE = rb'"(?:auto_map|custom_pipelines?)"\s*:\s*[{\["]'


def head_of(name: str) -> int:
    """Return how many bytes `runs_code` needs of a file of that name."""
    return _CONFIG_HEAD if name.lower().endswith((".json", *_KERAS_SUFFIXES)) else _HEAD


def runs_code(name: str, head: bytes) -> bool:
    """Return whether a file with that name and these first bytes can run code when it is loaded, as far as they show
    it."""
    return _runs_code(name.lower(), head, depth=0)


def _runs_code(name: str, head: bytes, depth: int) -> bool:
    if name.endswith(_SUFFIXES) or re.match(_BINARY_PICKLE, head) or _is_old_pickle(head):
        return True
    if name.endswith(".json") and re.search(_NAMES_CODE, head):
        return True
    is_of_keras = name.endswith(_KERAS_SUFFIXES) or (name.endswith("config.json") and depth > 0)
    if is_of_keras and re.search(_LAMBDA_LAYER, head):
        return True
    if depth == _DEEPEST:
        return False
    return any(_runs_code(member.lower(), data, depth + 1) for member, data in _members(name, head))


def _is_old_pickle(head: bytes) -> bool:
    """Return whether these are the operations of a pickle of protocol 0 or 1, which begins with no mark of its own."""
    if not re.match(_OLD_PICKLE, head):
        return False
    import pickletools

    stream = io.BytesIO(head)
    count = 0
    try:
        for operation, argument, _position in pickletools.genops(stream):
            count += 1
            if operation.name in ("GLOBAL", "INST") and not _is_name_of_code(argument):
                return False
            if operation.name == "STOP":
                return count > 1
            if count == _MOST_OPERATIONS:
                return True
    except (ValueError, OverflowError):
        return count >= _FEWEST_OPERATIONS and stream.tell() == len(head)
    return False


def _is_name_of_code(argument: object) -> bool:
    """Return whether an operation names a module and something in it, as ``copy_reg _reconstructor``."""
    return all(part.isidentifier() for part in str(argument).replace(" ", ".").split("."))


def _members(name: str, head: bytes) -> Iterator[tuple[str, bytes]]:
    """Return what is packed in a file that begins with ``head``, each with its name and its first bytes."""
    if head.startswith(_ZIP_MEMBER):
        yield from _zip_members(head)
    elif head[257:262] == b"ustar":
        yield from _tar_members(head)
    for magic, decompress in _DECOMPRESSORS.items():
        if head.startswith(magic):
            yield name.rpartition(".")[0], _decompressed(head, decompress)


def _zip_members(head: bytes) -> Iterator[tuple[str, bytes]]:
    for found in re.finditer(re.escape(_ZIP_MEMBER), head):
        header = head[found.start() : found.start() + _ZIP_HEADER_SIZE]
        method = int.from_bytes(header[8:10], "little")
        name_at = found.start() + _ZIP_HEADER_SIZE
        data_at = name_at + int.from_bytes(header[26:28], "little")
        name = head[name_at:data_at].decode("utf-8", "replace")
        data = head[data_at + int.from_bytes(header[28:30], "little") :]
        if method == _DEFLATED:
            data = _decompressed(data, _inflate)
        yield name, data


def _tar_members(head: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while head[at + 257 : at + 262] == b"ustar":
        name = head[at : at + 100]
        size = head[at + 124 : at + 135]
        data_at = at + _TAR_BLOCK
        yield name.rstrip(b"\0").decode("utf-8", "replace"), head[data_at:]
        if not re.fullmatch(rb"[0-7 ]+", size):
            return
        at = data_at + -(-int(size, 8) // _TAR_BLOCK) * _TAR_BLOCK


def _decompressed(data: bytes, decompress: Callable[[bytes], bytes]) -> bytes:
    """The first bytes of what was compressed, as far as ``data`` has them; none if it is damaged."""
    import lzma

    try:
        return decompress(data)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return b""


def _inflate(data: bytes) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _HEAD)


def _gunzip(data: bytes) -> bytes:
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, _HEAD)


def _bunzip(data: bytes) -> bytes:
    import bz2

    return bz2.BZ2Decompressor().decompress(data, _HEAD)


def _unxz(data: bytes) -> bytes:
    import lzma

    return lzma.LZMADecompressor(memlimit=_MOST_MEMORY).decompress(data, _HEAD)


_DECOMPRESSORS = {b"\x1f\x8b": _gunzip, b"BZh": _bunzip, b"\xfd7zXZ\x00": _unxz}
"""How compressed files begin, and what decompresses them."""
