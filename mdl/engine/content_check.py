"""Content check: whether bytes can be the file that was asked for, if no digest tells. Pure.

A captive portal, a sign-in page and a git-lfs pointer come with status 200 and the right length. Only what cannot be
right is refused: the bytes decide, and the server's Content-Type only if they do not.

Formats: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, https://huggingface.co/docs/safetensors,
APPNOTE.TXT 4.3 of PKWARE for zip, https://protobuf.dev/programming-guides/encoding for ONNX.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from mdl.errors import AuthError, ProtocolError
from mdl.http.refusals import impostor
from mdl.safetensors import SAFETENSORS, why_truncated

LOOKED_AT = 2**16
"""The number of bytes that `check_content` needs from the beginning of a file."""

_POINTER = b"version https://git-lfs.github.com/spec/"
_LONGEST_POINTER = 1024
_MAY_BE_A_PAGE = {
    *(".html", ".htm", ".xhtml", ".shtml", ".xml", ".svg", ".md", ".markdown", ".rst", ".txt", ".csv", ".tsv"),
    *(".jinja", ".jinja2", ".j2", ".tmpl", ".tpl", ".php", ".vue", ".py", ".js", ".ts", ".css"),
}
_IS_NO_TEXT = {
    *(".gguf", ".ggml", ".safetensors", ".onnx", ".pt", ".pth", ".ckpt", ".bin", ".h5", ".hdf5", ".keras", ".tflite"),
    *(".npy", ".npz", ".msgpack", ".parquet", ".arrow", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z"),
}
_PAGE = re.compile(
    rb"\s*+(?:<\?xml[^>]*+>\s*+)?+(?:(?><!--.*?-->)\s*+)*+<(?:!doctype\s+html|html|head|title|body)\b", re.I | re.S
)
_SIGN_IN = re.compile(
    rb"""<input[^>]{0,500}type\s*=\s*["']?password|<title[^>]{0,200}>[^<]{0,200}\b(?:log|sign)[\s-]?(?:in|on)\b""", re.I
)
_SIGN_IN_PATH = re.compile(r"/(?:log[-_]?in|sign[-_]?in|sso|saml2?|oauth2?|auth)(?:[/.?]|$)", re.I)
_PAGE_TYPES = ("text/html", "application/xhtml+xml")
_BOM = b"\xef\xbb\xbf"


def check_content(
    name: str, beginning: bytes, size: int, *, content_type: str = "", url: str = ""
) -> AuthError | ProtocolError | None:
    """Why a file cannot be what was asked for: an `AuthError` for a sign-in page, else a `ProtocolError`. None if it
    can be.

    ``name`` is the file's, ``beginning`` its first `LOOKED_AT` bytes, or all; it has ``size`` bytes. ``content_type``
    is the server's, and ``url`` is where the last redirect led.
    """
    suffix = PurePosixPath(name).suffix.lower()
    fits = _FORMATS.get(suffix)
    if fits and fits(beginning, size):
        return None
    if size <= _LONGEST_POINTER and beginning.startswith(_POINTER):
        return _named(beginning, ProtocolError)
    if suffix not in _MAY_BE_A_PAGE and _is_page(suffix, beginning, content_type):
        is_sign_in = _SIGN_IN.search(beginning) or _SIGN_IN_PATH.search(url.split("?")[0])
        return _named(beginning, AuthError if is_sign_in else ProtocolError)
    if fits is None:
        return None
    hint = "look at the URL in a browser; if the file is right, give it the name of its real format"
    return ProtocolError(f"what came is not a {suffix} file: it begins with {ascii(beginning[:8])[1:]}", hint=hint)


def check_whole(name: str, size: int, read: Callable[[int, int], bytes]) -> ProtocolError | None:
    """Why a file of ``size`` bytes lacks its end, as its own format tells; None if it does not tell. A server that
    builds a zip while it sends it, or a proxy before it, may end a stream in good order that is cut.

    ``read(start, count)`` gives bytes of the file.
    """
    suffix, why = PurePosixPath(name).suffix.lower(), None
    if suffix == SAFETENSORS:
        why = why_truncated(size, lambda count: read(0, count))
    elif suffix == ".zip" and size and _ZIP_END not in read(max(0, size - _LONGEST_ZIP_END), _LONGEST_ZIP_END):
        why = "a zip without its end record"
    if why is None:
        return None
    return ProtocolError(f"what came is cut: {why}", hint="run the same command again; the server ended it too early")


def _is_page(suffix: str, beginning: bytes, content_type: str) -> bool:
    if _PAGE.match(beginning.removeprefix(_BOM)):
        return True
    if content_type.partition(";")[0].strip().lower() not in _PAGE_TYPES or suffix not in _IS_NO_TEXT:
        return False
    text = beginning.decode("utf-8", "replace")
    is_text = text.count("\ufffd") < 2  # the last character may be incomplete
    return bool(text) and is_text and all(letter.isprintable() or letter in "\t\r\n" for letter in text)


def _named(beginning: bytes, kind: type[AuthError] | type[ProtocolError]) -> AuthError | ProtocolError:
    what, hint = impostor(beginning) or ("what came is a web page", "look at the URL in a browser")
    if kind is AuthError:
        what = what.replace("a web page", "a page to sign in at")
        hint = "sign in to the network or to the host first, or use a direct download URL"
    return kind(what, hint=hint)


def _is_safetensors(beginning: bytes, size: int) -> bool:
    """The length of a JSON header, which fits into the file, and its first byte."""
    header = int.from_bytes(beginning[:8], "little")
    return len(beginning) > 8 and 2 <= header <= size - 8 and beginning[8:9] == b"{"


def _is_onnx(beginning: bytes, _size: int) -> bool:
    """A protobuf message: it begins with the tag of a field, which has a number and a wire type."""
    return not beginning or (beginning[0] >> 3 > 0 and beginning[0] & 7 in (0, 1, 2, 5))


_ZIP_END = b"PK\x05\x06"
_LONGEST_ZIP_END = 22 + 2**16
"""The end record with the longest comment (APPNOTE 4.3.16)."""
_ZIPS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", b"PK00", b"MZ", b"\x7fELF", b"#!")
"""How a member, an empty archive, a part of a split one, or a self-extracting archive begins."""
_FORMATS: dict[str, Callable[[bytes, int], bool]] = {
    ".gguf": lambda beginning, _size: beginning.startswith(b"GGUF"),
    ".safetensors": _is_safetensors,
    ".zip": lambda beginning, _size: beginning.startswith(_ZIPS),
    ".onnx": _is_onnx,
}
