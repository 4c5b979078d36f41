"""Outputs: the files of a job as its remote tells them, and which of them are meant. Pure.

What files an answer holds is judged in `mdl.results.answers`.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from mdl.bounds import LONGEST_TEXT, OutOfBounds, parse_integer, parse_json
from mdl.errors import MdlError, ProtocolError, Unsafe
from mdl.files import RemoteFile, told_size
from mdl.formatting import human_bytes
from mdl.hashing import Digest
from mdl.net.server_messages import safe_excerpt, server_message
from mdl.paths import RelPath, names_for_a_hint, shown
from mdl.results.answer_keys import DIGESTS, ERRORS, MEDIA_TYPE, SIZES, first_text, told_name
from mdl.values import value_class
from mdl.weights.junk import is_log, why_junk_path
from mdl.weights.known_formats import is_weights, kind_of

ASK_FOR_URL = (
    "have the worker upload its files to a bucket and answer with presigned URLs, or give the remote its bucket"
)
_DEEPEST_ERROR = 4
"""How many objects, one in the other, the words of an error are looked for in."""
_PICTURE_FOLDERS = ("samples/", "images/")
_PICTURE = (".png", ".jpg", ".jpeg", ".webp", ".gif")
_FEW = 3


class NoDownload(ProtocolError):
    """The answer names a place that is no URL, such as ``/download/ID``."""


@value_class
class Output:
    """One file of a job: with its bytes (``data``), with the ``url`` that they are at, or with the ``key`` by which a
    worker is asked for them; or the ``error`` for which it cannot be had. ``size`` is in bytes, if it was told. If
    ``is_stable``, the URL is one of the remote itself: it does not expire, and takes the remote's key."""

    path: RelPath
    url: str = field(default="", repr=False)
    data: bytes | None = field(default=None, repr=False)
    size: int | None = None
    content_type: str = ""
    key: str = ""
    digest: Digest | None = None
    is_stable: bool = False
    error: MdlError | None = None


def is_web_url(text: str) -> bool:
    """Tell whether a text is a whole URL of http or https."""
    if not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def told_size_in(facts: Mapping[str, Any]) -> int | None:
    """Return the size that an object tells of its file, in bytes; None if it tells none, and for 0, which handlers
    write if they do not know it. Raises `ProtocolError` for a number that is no size."""
    size: Any = next((facts[key] for key in SIZES if key in facts), None)
    name = shown(told_name(facts))[:200] or "a file of the job"
    if isinstance(size, str) and _DIGITS.fullmatch(size):
        try:
            size = parse_integer(size)
        except OutOfBounds as error:
            raise ProtocolError(f"the size that its source gives: {error}", item=name) from None
    if type(size) in (int, float) and size > 0:
        return told_size(size, name)
    return None


def told_digest(facts: Mapping[str, Any]) -> Digest | None:
    """Return the sha256 that an object tells of its file."""
    text = first_text(facts, DIGESTS).lower()
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return Digest("sha256", text)
    return None


def told_kind(facts: Mapping[str, Any]) -> str:
    """Return the media type that an object tells of its file; '' if it tells none."""
    kind = first_text(facts, [MEDIA_TYPE])
    if kind.isascii() and kind.isprintable():
        return kind
    return ""


def safe_name(text: str) -> RelPath:
    """The last part of a name or of a path. Raises `Unsafe` if that cannot be the name of a file."""
    return checked_path(re.split(r"[/\\]", text.rstrip("/\\"))[-1])


def checked_path(text: str) -> RelPath:
    """The path that an answer names. Raises `Unsafe` for one that leads out of the folder, or cannot be kept."""
    try:
        return RelPath.parse(text)
    except MdlError as error:
        raise Unsafe(f"the answer names a file {shown(text)[:100]!r}: {error.message}") from error


_DIGITS = re.compile(r"[0-9]+")
_TELLING_TYPES = ("text/", "image/", "audio/", "video/", "application/json")
_TELLING_SUFFIXES = (".yaml", ".yml", ".toml", ".cfg", ".ini", ".md", ".jsonl", ".model", ".log")
_ARCHIVE = re.compile(r".+\.(zip|tar|tar\.gz|tgz)", re.IGNORECASE)
_MEDIA_TYPES = mimetypes.MimeTypes()
"""Those of Python itself: what a machine's own tables say differs from one to the next."""


def is_archive_name(name: str) -> bool:
    """Tell whether a name says that its file is an archive which mdl unpacks."""
    return _ARCHIVE.fullmatch(name) is not None and not is_weights(name)


def may_be_archive(name: str) -> bool:
    """Tell whether a file of a job may be an archive by its name, so that its bytes must tell once it is fetched: it
    says so, or is packed with gzip; torch files are zips too, and anything may be called ``.bin``; or its suffix does
    not tell what it is. A pattern that means members of archives alone does not bring a torch file, unless the job has
    no other file: it is mostly weights, and large."""
    kind = kind_of(name)
    if kind is not None:
        return kind.loaded_with == "torch" or is_archive_name(name) or name.lower().endswith(".gz")
    if name.lower().endswith(_TELLING_SUFFIXES):
        return False
    media_type = _MEDIA_TYPES.guess_type(name)[0]
    return media_type is None or not media_type.startswith(_TELLING_TYPES)


CHOICES = ("latest", "best")
"""What a user calls a checkpoint whose name he leaves to the run."""
File = TypeVar("File", Output, RemoteFile)


def wanted_paths(paths: Collection[str], *, logs: bool = False, everything: bool = False) -> set[str]:
    """Return those of the ``paths`` of a job's files that are asked for: its logs, all, or by default neither logs nor
    pictures; if it has only these, all of them. Which of them are a checkpoint's is not decided here."""
    if everything:
        return set(paths)
    if logs:
        return {path for path in paths if _role_of(path) == "log"}
    return {path for path in paths if _role_of(path) == "result"} or set(paths)


def without_litter(files: Sequence[File]) -> tuple[list[File], list[File]]:
    """Return the results, and what file systems, file managers and killed programs left among them."""
    results: list[File] = []
    litter: list[File] = []
    for file in files:
        if why_junk_path(file.path.text):
            litter.append(file)
        else:
            results.append(file)
    return results, litter


def litter_note(sizes: Mapping[str, int | None]) -> str:
    """Return the one line that says that litter is not fetched; ``sizes`` are its bytes by its paths."""
    named = names_for_a_hint(sizes, _FEW)
    size = human_bytes(sum(size or 0 for size in sizes.values()))
    return f"not fetched: {named}, {size}, left by file systems and file managers; --all fetches them"


def _role_of(path: str) -> Literal["log", "picture", "result"]:
    lower = path.lower()
    if lower.startswith("logs/") or is_log(lower):
        return "log"
    if lower.startswith(_PICTURE_FOLDERS) or lower.endswith(_PICTURE):
        return "picture"
    return "result"


def error_in(value: Any, secrets: Iterable[str] = ()) -> str:
    """Return what a worker says went wrong, in one line without ``secrets`` and without the query of any URL. The value
    is anything that `words_in` reads, or a web page."""
    text = words_in(value)
    if text.startswith("<"):
        text = server_message({}, text.encode(errors="replace")) or text
    return safe_excerpt(text, secrets)


def words_in(value: Any, depth: int = 0) -> str:
    """Return the words about an error in a value: a text, a number, or an object or a list of them, also as JSON in a
    text; '' if there are none. `ERRORS` are the keys that they are under."""
    if depth > _DEEPEST_ERROR or value in (None, True, False):
        return ""
    if isinstance(value, str):
        value = json_in(value) or value.strip()[:LONGEST_TEXT]
    if isinstance(value, dict):
        inner = (words_in(value.get(key), depth + 1) for key in ERRORS)
        return next(filter(None, inner), "")
    if isinstance(value, list):
        return words_in(value[0], depth + 1) if value else ""
    return str(value)


def json_in(text: str) -> Any:
    """Return the object or the list that a text holds as JSON; None if it holds none."""
    stripped = text.strip()
    if not stripped.startswith(("{", "[")):
        return None
    try:
        return parse_json(stripped, allow_nan=True)
    except ValueError:
        return None
