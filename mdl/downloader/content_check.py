"""Content check: whether bytes can be the file that was asked for, if no digest tells. Pure.

A captive portal, a sign-in page, an error text and a git-lfs pointer come with status 200 and the right length. Only
what cannot be right is refused: the bytes decide, whatever the server's Content-Type says. What each kind of file
begins with, and what stands at its end, is in `mdl.weights.known_formats`.
"""

from __future__ import annotations

import codecs
import re
from pathlib import PurePosixPath

from mdl.errors import AuthError, ProtocolError
from mdl.net.allowlist import has_sign_in_path
from mdl.net.server_messages import (
    LFS_POINTER,
    LONGEST_PLAIN_ERROR,
    LONGEST_POINTER,
    impostor,
    is_error_text,
    server_message,
)
from mdl.weights.end_records import ReadableFile
from mdl.weights.junk import why_junk_path
from mdl.weights.known_formats import BEGINNING as LOOKED_AT
from mdl.weights.known_formats import holds_no_text, is_media, kind_of

__all__ = ["LOOKED_AT", "check_content", "check_message", "check_whole"]

_MAY_BE_A_PAGE = {
    *(".html", ".htm", ".xhtml", ".shtml", ".xml", ".svg", ".md", ".mdx", ".markdown", ".rst", ".txt", ".csv"),
    *(".tsv", ".svelte", ".jinja", ".jinja2", ".j2", ".tmpl", ".tpl", ".php", ".vue", ".py", ".js", ".ts", ".css"),
}
_MAY_BE_JSON = _MAY_BE_A_PAGE | {".json", ".jsonl", ".ndjson", ".yaml", ".yml", ".ipynb", ".geojson", ".log"}
_TEXTS = ("readme", "licence", "license", "notice", "changelog", "authors", "copying")
"""How the names of texts begin that may have no suffix."""
_BEFORE_A_PAGE = rb"(?is)\s*+(?:<\?xml[^>]*+>\s*+)?+(?:(?><!--.*?-->)\s*+)*+"
_PAGE = _BEFORE_A_PAGE + rb"<(?:!doctype\s+html|html|head|title|body|meta|script)\b"
_FRAGMENT = _BEFORE_A_PAGE + rb"<(?:style|div|center|h1|iframe|br)\b"
"""How an error begins that a server writes as a piece of a page; many a text in Markdown begins so as well."""
_SIGN_IN = (
    rb"""(?i)<input[^>]{0,500}type\s*=\s*["']?password|<title[^>]{0,200}>[^<]{0,200}\b(?:log|sign)[\s-]?(?:in|on)\b"""
)
_PAGES_OF_FILES = (
    (r"//github\.com/.+/blob/", "that is GitHub's page of the file: write /raw/ in place of /blob/"),
    (r"/-/blob/", "that is GitLab's page of the file: write /-/raw/ in place of /-/blob/"),
    (
        r"//(www\.)?dropbox\.com/(?!.*\b(dl|raw)=1)",
        "that is Dropbox's page of the file: end the URL with dl=1 in place of dl=0",
    ),
    (
        r"//(drive|docs|drive\.usercontent)\.google\.com/(?!.*\bconfirm=t)",
        "that is a page of Google Drive: https://drive.usercontent.google.com/download?id=ID&confirm=t is the file, "
        "and -o NAME its name",
    ),
    (
        r"//(www\.)?modelscope\.\w+/models/(?!.*/resolve/)",
        "that is ModelScope's page: write …/resolve/master/FILE behind the model's name",
    ),
    (r"//civitai\.\w+/models/", "that is Civitai's page of the model: copy the link of its download button"),
    (
        r"//zenodo\.org/records?/(?!.*/files/.*\bdownload=1)",
        "that is Zenodo's page: write …/records/ID/files/NAME?download=1",
    ),
)
"""URLs of pages about a file, as people copy them from a browser, and where the file itself is. The URL that a hint
asks for is none of them."""
_BOM = b"\xef\xbb\xbf"
_MESSAGE_HINT = "read what it says; the token of a host is set in config.toml, as 'mdl doctor' shows"
_WHITE = "\t\r\n\f"


def check_content(name: str, beginning: bytes, size: int, *, url: str = "") -> AuthError | ProtocolError | None:
    """Return why a file cannot be what was asked for: an `AuthError` for a sign-in page, else a `ProtocolError`. None
    if it can be. To ask the same server again does not help.

    ``name`` is the file's, ``beginning`` its first `LOOKED_AT` bytes, or all; it has ``size`` bytes. ``url`` is where
    the last redirect led.
    """
    message = check_message(name, beginning, size, url=url)
    kind = kind_of(name)
    if message or kind is None or kind.can_begin_with(beginning, size) or why_junk_path(name):
        return message
    suffix = PurePosixPath(name).suffix.lower()
    hint = "look at the URL in a browser; if the file is right, give it the name of its real format"
    return _final(f"what came is not a {suffix} file: it begins with {ascii(beginning[:8])[1:]}", hint)


def _final(why: str, hint: str) -> ProtocolError:
    return ProtocolError(why, hint=hint).but(final=True)


def check_message(name: str, beginning: bytes, size: int, *, url: str = "") -> AuthError | ProtocolError | None:
    """As `check_content`, for what a server says in place of a file: a page, an error text or a git-lfs pointer. A file
    of another format is not refused."""
    if why_junk_path(name):
        return None
    suffix = PurePosixPath(name).suffix.lower()
    if size <= LONGEST_POINTER and beginning.startswith(LFS_POINTER):
        return _final(*_named(beginning))
    if suffix not in _MAY_BE_A_PAGE and _is_page(name, beginning.removeprefix(_BOM), size):
        what, hint = _named(beginning)
        hint = next((direct for page, direct in _PAGES_OF_FILES if re.search(page, url)), hint)
        if re.search(_SIGN_IN, beginning) or has_sign_in_path(url):
            what = what.replace("a web page", "a page to sign in at")
            hint = "sign in to the network or to the host first, or use a direct download URL"
            return AuthError(what, hint=hint)
        return _final(what, hint)
    is_known = holds_no_text(name)
    text = _text_of(beginning) if is_known else ""
    if is_media(name) and not text.lstrip().startswith(("{", "[")):
        return None  # a few letters may stand in for a picture; an API's error is JSON
    if not is_known and size == len(beginning) and suffix not in _MAY_BE_JSON:
        whole = _text_of(beginning)  # a name that nobody knows: only what is plainly an error is refused
        text = whole if is_error_text(whole) else ""
    if not text:
        return None
    why = "the server sent a message, not the file"
    words = server_message({}, text.encode())
    if words:
        why += f": {words}"
    return _final(why, _MESSAGE_HINT)


def _is_page(name: str, beginning: bytes, size: int) -> bool:
    """Return whether a file is a web page, or a fragment of one that is as short as an error and has no text's name."""
    if re.match(_PAGE, beginning):
        return True
    is_error = size <= LONGEST_PLAIN_ERROR or holds_no_text(name)
    is_text = PurePosixPath(name).name.lower().startswith(_TEXTS)
    return is_error and not is_text and re.match(_FRAGMENT, beginning) is not None


def check_whole(file: ReadableFile, size: int, name: str) -> ProtocolError | None:
    """Return why an open file of ``size`` bytes lacks its end, as its own format tells; None if it does not tell. A
    server that builds a zip while it sends it, or a proxy before it, may end a stream in good order that is cut."""
    kind = kind_of(name)
    if kind is None or not size or why_junk_path(name):
        return None
    why = kind.why_not_whole(file, size)
    if why is None:
        return None
    return ProtocolError(f"what came is cut: {why}", hint="run the same command again; the server ended it too early")


def _is_mostly_zeros(data: bytes) -> bool:
    """Return whether these are the upper bytes of a text in UTF-16 without a mark: any two bytes may be some letter."""
    return data.count(0) > len(data) * 3 // 4


def _text_of(beginning: bytes) -> str:
    """Return the text that a file begins with, if that is nothing but printable characters in UTF-8 or UTF-16; else
    ""."""
    encoding = "utf-8-sig"
    if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif _is_mostly_zeros(beginning[1::2]):
        encoding = "utf-16-le"
    elif _is_mostly_zeros(beginning[::2]):
        encoding = "utf-16-be"
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        text = decoder.decode(beginning)  # the last character may be incomplete
    except UnicodeDecodeError:
        return ""
    is_text = all(letter.isprintable() or letter in _WHITE for letter in text)
    return text if is_text and text.strip() else ""


def _named(beginning: bytes) -> tuple[str, str]:
    """Return what a page or a pointer is, and what to do about it."""
    return impostor(beginning) or ("what came is a web page", "look at the URL in a browser")
