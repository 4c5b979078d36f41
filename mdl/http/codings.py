"""Codings: what Content-Encoding says was done to a body, and undoing it. Pure.

gzip (any number of members, RFC 1952, 2.2) and deflate are read, one of them at a time: a coding within a coding is
a bomb's shape and nobody's habit. What comes out does so in pieces of a bounded size, however much it inflates to.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from mdl.errors import ProtocolError

STEP = 256 * 1024
"""Bytes of one decoded piece, at most."""

READABLE = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP, _ZLIB, _RAW = 31, 15, -15
_ENDINGS = {
    "gzip": (".gz", ".tgz", ".svgz"),
    "compress": (".z", ".taz"),
    "bzip2": (".bz2", ".tbz2", ".tbz"),
    "xz": (".xz", ".txz"),
    "zstd": (".zst", ".tzst"),
    "br": (".br",),
}
"""How the names of files end whose own bytes are in a coding."""


def codings_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The codings in the order in which they were applied, lower case; empty for the bytes themselves."""
    names = (name.strip().lower() for name in headers.get("content-encoding", "").split(","))
    return tuple(name for name in names if name not in ("", "identity"))


def is_readable(codings: tuple[str, ...]) -> bool:
    """True for what a `Decoder` undoes."""
    return len(codings) == 1 and codings[0] in READABLE


def is_as_stored(
    codings: tuple[str, ...], names: Iterable[str], *, pinned: bool, length: int | None, size: int | None
) -> bool:
    """Whether a body that is called encoded holds the file's own bytes, and is to be taken as it comes.

    mdl asks for no encoding, but many servers call an archive's own compression one (Apache: .tar.gz is ``x-gzip``).
    ``pinned`` says that a digest decides in the end: then the announced ``length`` tells, if the file's ``size`` is
    known. Else one of the file's ``names``, a path or a URL, does. What nobody could undo is taken as it comes if there
    is a digest.
    """
    if pinned and is_readable(codings) and None not in (length, size):
        return length == size
    endings = tuple(ending for coding in codings for ending in _ENDINGS.get(coding.removeprefix("x-"), ()))
    named = len(codings) == 1 and any(urlsplit(name).path.lower().endswith(endings) for name in names)
    return named or (pinned and not is_readable(codings))


def unreadable(codings: tuple[str, ...]) -> ProtocolError:
    return ProtocolError(
        f"the server sends it in an encoding that mdl cannot read ({', '.join(codings)})",
        hint="the server or a proxy on the way is at fault: mdl asks for no encoding; try another mirror",
    )


class Decoder:
    """Undoes one coding. Raises `ProtocolError` for what cannot be undone, or for bytes after its end."""

    def __init__(self, codings: tuple[str, ...]) -> None:
        if not is_readable(codings):
            raise unreadable(codings)
        self._is_gzip = codings[0] != "deflate"
        self._member: zlib._Decompress | None = None
        self._head = b""

    @property
    def is_complete(self) -> bool:
        """Whether the body may end here; an empty body is one."""
        return self._member.eof if self._member else not self._head

    def decode(self, data: bytes) -> Iterator[bytes]:
        """What ``data`` is, in pieces of at most `STEP` bytes."""
        data = self._head + data
        try:
            while data:
                member = self._member = self._current(data)
                if member is None:
                    self._head = data
                    return
                self._head = b""
                piece = member.decompress(data, STEP)
                while piece:
                    yield piece
                    piece = member.decompress(member.unconsumed_tail, STEP) if not member.eof else b""
                data = member.unused_data if member.eof else b""
        except zlib.error as error:
            raise ProtocolError(f"the server's encoding is damaged: {error}") from error

    def _current(self, data: bytes) -> zlib._Decompress | None:
        """The member that ``data`` belongs to; None where it is too short to tell."""
        if self._member is not None and not self._member.eof:
            return self._member
        if self._member is not None and not self._is_gzip:
            raise ProtocolError("the server's encoding goes on after its end")
        if len(data) < 2 and not self._is_gzip:
            return None
        return zlib.decompressobj(_GZIP if self._is_gzip else _wrapping(data))


def beginning(headers: Mapping[str, str], raw: bytes) -> bytes:
    """The beginning of a body of which ``raw`` came: at most `STEP` bytes, nothing where it cannot be read."""
    codings = codings_of(headers)
    if not codings:
        return raw
    try:
        return next(Decoder(codings).decode(raw), b"")
    except ProtocolError:
        return b""


def _wrapping(data: bytes) -> int:
    """deflate is a zlib stream (RFC 9110, 8.4.1.2); some servers send it without its two bytes of header."""
    return _ZLIB if data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0 else _RAW
