"""Formats: what a file is by its first bytes, and what to say of one that is no archive which mdl unpacks. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

from mdl.archive.tar_format import BLOCK, GZIP, is_header
from mdl.archive.zip_format import END
from mdl.errors import ProtocolError
from mdl.values import value_class
from mdl.weights.table import kind_of

ArchiveKind = Literal["zip", "tar", "tar.gz"]
BEGINNING = 2**16
"""Bytes from the start of a file by which its format is told."""
_UNPACKS = "mdl unpacks zip, tar and tar.gz"


@value_class
class Format:
    """One format of a file: how it begins, and the command that unpacks it; without one, the file is used as it is, for
    it holds a model or a text."""

    name: str
    begins: tuple[bytes, ...]
    command: str = ""
    at: int = 0


_FORMATS = (
    Format("a 7z archive", (b"7z\xbc\xaf\x27\x1c",), "7z x"),
    Format("a rar archive", (b"Rar!\x1a\x07",), "unrar x"),
    Format("packed with Zstandard", (b"\x28\xb5\x2f\xfd",), "tar --zstd -xf"),
    Format("packed with xz", (b"\xfd7zXZ\0",), "tar -xJf"),
    Format("packed with bzip2", (b"BZh",), "tar -xjf"),
    Format("packed with lz4", (b"\x04\x22\x4d\x18",), "lz4 -d"),
    Format("packed with lzip", (b"LZIP",), "tar --lzip -xf"),
    Format("packed with compress", (b"\x1f\x9d",), "tar -xZf"),
    Format("a cabinet archive", (b"MSCF",), "7z x"),
    Format("a Debian package or a static library", (b"!<arch>\n",), "ar x"),
    Format("a squashfs image", (b"hsqs",), "unsquashfs"),
    Format("a GGUF file", (b"GGUF",)),
    Format("an HDF5 file", (b"\x89HDF\r\n\x1a\n",)),
    Format("a NumPy array", (b"\x93NUMPY",)),
    Format("a TensorFlow Lite file", (b"TFL3",), at=4),
    Format("a pickle, perhaps of torch", (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")),
    Format("a Parquet file", (b"PAR1",)),
    Format("an Arrow file", (b"ARROW1",)),
)
"""One row a format, by its first bytes."""


def archive_kind(beginning: bytes) -> ArchiveKind | None:
    """Which kind of archive a file is that begins so; None if that does not tell. A zip may begin with anything."""
    if beginning.startswith(GZIP):
        return "tar.gz"
    if beginning.startswith((b"PK\3\4", END)):
        return "zip"
    return "tar" if len(beginning) >= BLOCK and is_header(beginning[:BLOCK]) else None


def not_an_archive(beginning: bytes, name: str) -> ProtocolError:
    """The error for a file called ``name`` that is neither a zip nor a tar."""
    for known in _FORMATS:
        if beginning[known.at :].startswith(known.begins):
            return _named(known.name, known.command, name)
    if beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") < 2**32:
        return _named("a safetensors file", "", name)
    text = beginning[:512].lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return ProtocolError("this is a web page, no archive", hint="fetch it again; a login may be needed")
    if text.startswith(b"version https://git-lfs"):
        return ProtocolError("this is a Git LFS pointer, no archive", hint="fetch the file itself with 'git lfs pull'")
    if not beginning:
        return ProtocolError("this file is empty", hint="fetch or pack the archive again")
    what = f"this is no archive that mdl knows: {_UNPACKS}"
    if not beginning.strip(b"\0"):
        what = "this file begins with zeros: it was not written to its end, or is no archive"
    return ProtocolError(what, hint="fetch or pack the archive again, or name a zip, a tar or a tar.gz")


def _named(what: str, command: str, name: str) -> ProtocolError:
    if not command:
        return ProtocolError(f"this is {what}, no archive", hint="it is used as it is: there is nothing to unpack")
    hint = f"unpack it with '{command} {name}', then pack it again as a zip or a tar.gz"
    return ProtocolError(f"this is {what}; {_UNPACKS}", hint=hint)


_TORCH = re.compile(r"(?P<top>[^/]+/)(?:data\.pkl|archive_format)|serialized_exported_program\.json")
"""What stands beside the ``version`` in a zip of ``torch.save`` and of ``torch.export``."""
_MODELS = (
    ("a Keras model", frozenset({"metadata.json", "config.json", "model.weights.h5"})),
    ("a model of stable-baselines3", frozenset({"data", "policy.pth"})),
    ("a torch file", frozenset({"sys_info", "pickle", "storages", "tensors"})),
)
"""Models that are an archive with these names in it."""


def model_in_an_archive(name: str, members: Collection[str]) -> str:
    """What a file called ``name`` is if programs load it as it is, though it is an archive too; "" if it is nothing
    else than one. ``members`` are the names in it. Of a torch file they alone tell, whatever it is called."""
    tops = [match["top"] or "" for match in map(_TORCH.fullmatch, members) if match]
    if any(f"{top}version" in members for top in tops):
        return "a torch file"
    for what, names in _MODELS:
        if names.issubset(members):
            return what
    kind = kind_of(name)
    if kind is None or not kind.holds_weights or kind.loaded_with == "torch":
        return ""
    return f"a {kind.name} file"
