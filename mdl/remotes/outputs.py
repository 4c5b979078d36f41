"""Outputs: the files that the answer of a job names, or has in it. Pure.

The forms are those of serverless handlers and of ordinary HTTP APIs: ``{"type": "file_data", "filename", "data",
"size", "content_type"}`` with base64 in ``data``; ``{"type": "url" | "redirect", "url", "filename", "size"}``;
``{"download_items": [{"filename", "url", "size", "type"}]}``; a text that is a URL; and any of them in lists or under
other keys (``output``, ``result``, ``images``, ``lora`` …).
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

from mdl.bounds import OutOfBounds, parse_integer, parse_json
from mdl.errors import MdlError, NotFound, ProtocolError, Unsafe
from mdl.files import RemoteFile, told_size
from mdl.hashing import Digest
from mdl.http.refusals import safe_excerpt, server_message
from mdl.paths import RelPath, names_for_a_hint, refuse_twins, shown
from mdl.redact import bare_url
from mdl.values import value_class

ASK_FOR_URL = (
    "have the worker upload its files to a bucket and answer with presigned URLs, or give the remote its bucket"
)
_DEEPEST = 8
_MOST = 100_000
_NAMES = ("filename", "file_name", "name", "key", "s3_key")
_URLS = ("url", "download_url", "presigned_url", "file_url", "href", "link")
_DATA = ("data", "base64", "content", "file_data")
_NO_FILES = re.compile(r"(?i)(.*_)?(status|webhook|callback|dashboard|docs|help|home|page|web|self|next)(_?ur[il])?")
"""Keys under which APIs give URLs of other things than files."""
_PICTURE = (".png", ".jpg", ".jpeg", ".webp", ".gif")
_NAMED = 10


class NoDownload(ProtocolError):
    """The answer names a place that is no URL, such as ``/download/ID``."""


@value_class
class Output:
    """One file of a job: with its bytes (``data``), with the ``url`` that they are at, or with the ``key`` by which a
    worker is asked for them. ``size`` is in bytes, if it was told. If ``is_stable``, the URL is one of the remote
    itself: it does not expire, and takes the remote's key."""

    path: RelPath
    url: str = field(default="", repr=False)
    data: bytes | None = field(default=None, repr=False)
    size: int | None = None
    content_type: str = ""
    key: str = ""
    digest: Digest | None = None
    is_stable: bool = False


def outputs_of(answer: Any, job: str, base: str = "") -> list[Output]:
    """Every file that ``answer`` names or contains, each under its own name, made safe. With the URL ``base`` that the
    answer came from, URLs may be relative to it.

    Raises `NotFound` if it names none; `ProtocolError` for data that is not base64, is cut, or has not the size that
    was told; `NoDownload` for a text like ``/download/ID``, which is not a URL; `Unsafe` for a name that leaves the
    folder.
    """
    found = list(dict.fromkeys(_walk(answer, job, base)))[:_MOST]
    if not found:
        raise NotFound("its answer names no file", item=job, hint="'mdl remote status' shows its status")
    names = Counter(one.path.folded for one in found)
    files = [_apart(one, job, nth) if names[one.path.folded] > 1 else one for nth, one in enumerate(found, 1)]
    refuse_twins(one.path for one in files)
    return files


def items_of(answer: Any, job: str) -> list[Any]:
    """The rows of ``download_items`` that are of ``job``. They carry no id, but the path of their URL has it:
    ``…/results/ID/…``. A row whose path names no job counts as one of it."""
    rows = answer.get("download_items") if isinstance(answer, dict) else None
    return [row for row in rows if _job_in(row) in ("", job)] if isinstance(rows, list) else []


def _job_in(row: Any) -> str:
    url = row.get("url") if isinstance(row, dict) else row
    found = re.search(r"/results/([^/]+)/", _path_of(url)) if isinstance(url, str) else None
    return found[1] if found else ""


def keyed_outputs(answer: Any, job: str) -> list[Output]:
    """The files in a worker's list of keys (``{"files": [{"key", "size"}]}``, or texts), which can be asked for one by
    one. Raises `Unsafe` for a key that leaves the folder."""
    facts = answer if isinstance(answer, dict) else {"files": answer}
    rows = next((facts[key] for key in ("files", "keys", "objects") if key in facts), ())
    found = []
    for row in rows if isinstance(rows, list) else ():
        facts = row if isinstance(row, dict) else {"key": row}
        key = first_text(facts, ("key", "s3_key", "path", "name"))
        below = key.rpartition(f"results/{job}/")[2] or key
        if key and not key.endswith("/"):
            found.append(Output(_checked(below.lstrip("/")), size=_size_in(facts), key=key))
    refuse_twins(one.path for one in found)
    return found


def _apart(one: Output, job: str, number: int) -> Output:
    """Two files of one name lie in folders, as their URLs tell: ``…/results/ID/lora/a.bin`` is ``lora/a.bin``."""
    below = _path_of(one.url).rpartition(f"/{job}/")[2]
    is_told = below.endswith(f"/{one.path.text}")
    return replace(one, path=_checked(below if is_told else f"{number}/{one.path.text}"))


def _walk(value: Any, job: str, base: str, key: str = "", depth: int = 0) -> Iterator[Output]:
    """The files in a value that is under ``key`` in an answer."""
    if depth > _DEEPEST:
        return
    if isinstance(value, str):
        if (key in _URLS and value) or (_is_url(value) and not _NO_FILES.fullmatch(key)):
            yield from _linked({"url": value}, value, job, base)
    elif isinstance(value, list):
        for one in value[:_MOST]:
            yield from _walk(one, job, base, key, depth + 1)
    elif isinstance(value, dict):
        is_elsewhere = _NO_FILES.fullmatch(key) is not None
        url, data = "" if is_elsewhere else first_text(value, _URLS), first_text(value, _DATA)
        if data and _is_url(data):
            url, data = url or data, ""
        is_inline = bool(data) and (value.get("type") == "file_data" or bool(first_text(value, _NAMES)))
        is_empty = value.get("type") == "file_data" and value.get("data") == ""
        if url:
            yield from _linked(value, url, job, base)
        elif is_inline or is_empty:
            yield _inline(value, data, job)
        own = bool(url) or is_inline or is_empty or is_elsewhere
        for name, one in value.items():
            is_archive_of_all = name == "zip_url" and value.get("download_items")
            if not is_archive_of_all and not (own and isinstance(one, str)):
                yield from _walk(one, job, base, str(name), depth + 1)


def first_text(value: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The first text under one of ``keys`` that is not empty; '' if there is none."""
    return next((value[key] for key in keys if isinstance(value.get(key), str) and value[key]), "")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable() and " " not in text
    except ValueError:
        return False


def _path_of(url: str) -> str:
    """The path of a URL, decoded; '' for what is not one."""
    try:
        return unquote(urlsplit(bare_url(url)).path)
    except ValueError:
        return ""


def _size_in(value: Mapping[str, Any]) -> int | None:
    """The size that is told, in bytes; None if none is, and for 0, which handlers write if they do not know it."""
    size = value.get("size", value.get("size_bytes"))
    name = shown(first_text(value, _NAMES))[:200] or "a file of the job"
    try:
        if isinstance(size, str) and size.isascii() and size.isdigit():
            size = parse_integer(size)
    except OutOfBounds as error:
        raise ProtocolError(f"the size that is told of it: {error}", item=name) from None
    is_told = isinstance(size, int | float) and not isinstance(size, bool) and size > 0
    return told_size(size, name) if is_told else None


def _digest_in(value: Mapping[str, Any]) -> Digest | None:
    text = value.get("sha256", value.get("checksum_sha256"))
    is_one = isinstance(text, str) and re.fullmatch(r"[0-9a-fA-F]{64}", text)
    return Digest("sha256", str(text).lower()) if is_one else None


def _kind_in(value: Mapping[str, Any]) -> str:
    kind = value.get("content_type")
    return kind if isinstance(kind, str) and kind.isascii() and kind.isprintable() else ""


def _linked(value: Mapping[str, Any], url: str, job: str, base: str) -> Iterator[Output]:
    if base and url.startswith("/"):
        url = urljoin(base, url)
    if not _is_url(url):
        why = f"{shown(bare_url(url))[:80]!r} is not a URL, so it cannot be downloaded"
        raise NoDownload(why, item=job, hint=ASK_FOR_URL)
    name = first_text(value, _NAMES) or _path_of(url)
    yield Output(safe_name(name), url, None, _size_in(value), _kind_in(value), digest=_digest_in(value))


def _inline(value: Mapping[str, Any], text: str, job: str) -> Output:
    """The bytes of a base64 text. Blanks and missing padding are forgiven; any other letter, and a length that no text
    has, is not."""
    kind = _kind_in(value)
    path = safe_name(first_text(value, _NAMES) or f"{job}{mimetypes.guess_extension(kind) or '.bin'}")
    packed = "".join(text.split()).rstrip("=")
    try:
        if len(packed) % 4 == 1:
            raise ValueError("its end is missing")
        data = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (ValueError, binascii.Error) as error:
        raise ProtocolError(f"the data is not base64: {error}", item=path.text, hint=ASK_FOR_URL) from error
    size, digest = _size_in(value), _digest_in(value)
    if size not in (None, len(data)):
        why = f"the answer has {len(data)} bytes of the file, and says that it has {size}"
        raise ProtocolError(why, item=path.text, hint=ASK_FOR_URL)
    return Output(path, "", data, len(data), kind, digest=digest)


def safe_name(text: str) -> RelPath:
    """The last part of a name or of a path. Raises `Unsafe` if that cannot be the name of a file."""
    return _checked(re.split(r"[/\\]", text.rstrip("/\\"))[-1])


def _checked(text: str) -> RelPath:
    try:
        return RelPath.parse(text)
    except MdlError as error:
        raise Unsafe(f"the answer names a file {shown(text)[:100]!r}: {error.message}") from error


File = TypeVar("File", Output, RemoteFile)


def select(files: Sequence[File], *, checkpoint: str = "", logs: bool = False, everything: bool = False) -> list[File]:
    """Those of a job's files that are asked for: its logs, all, or by default neither logs nor pictures; of these the
    ones of a ``checkpoint``, which is the name or the end of the name of a file or folder (``step_1500``, ``1500``).

    If a job has only logs and pictures, all of them are meant by default. Raises `NotFound`, with what there is.
    """
    if logs:
        found = [one for one in files if _is_log(one.path)]
    else:
        rest = [one for one in files if not _is_log(one.path) and not _is_picture(one.path)]
        found = list(files) if everything or not rest else rest
    if checkpoint:
        found = [one for one in found if _is_of(one.path, checkpoint)]
    if not found:
        names = names_for_a_hint((one.path.text for one in files), _NAMED) or "nothing"
        what = f"no checkpoint {shown(checkpoint)!r}" if checkpoint else "no log" if logs else "no file"
        raise NotFound(f"{what} is among its results", hint=f"available: {names}")
    return found


def _is_log(path: RelPath) -> bool:
    *folders, name = path.text.lower().split("/")
    return folders[:1] == ["logs"] or name.endswith(".log") or name.startswith("events.out.tfevents")


def _is_picture(path: RelPath) -> bool:
    *folders, name = path.text.lower().split("/")
    return folders[:1] in (["samples"], ["images"]) or name.endswith(_PICTURE)


def _is_of(path: RelPath, checkpoint: str) -> bool:
    number = rf"(?:.*\D)?0*{checkpoint}" if checkpoint.isdigit() else rf"(?:.*[-_.])?{re.escape(checkpoint)}"
    *folders, name = path.text.split("/")
    return any(re.fullmatch(number, part) for part in (*folders, name, name.rpartition(".")[0]))


def error_in(words: Any, secrets: Iterable[str] = ()) -> str:
    """What a worker says went wrong, in one line without ``secrets`` and without the query of any URL: a text, a text
    that is JSON (``error_message``, ``error``, ``message``, ``detail``) or a web page, or such an object."""
    for _ in range(4):
        if isinstance(words, str) and words.lstrip().startswith("{"):
            try:
                words = parse_json(words, allow_nan=True)
            except ValueError:
                break
        if isinstance(words, list) and words:
            words = words[0]
        if not isinstance(words, dict):
            break
        keys = ("error_message", "error", "message", "detail", "msg")
        words = next((words[key] for key in keys if words.get(key)), "")
    text = str(words or "")
    if text.lstrip().startswith("<"):
        text = server_message({}, text.encode(errors="replace")) or text
    return safe_excerpt(text, secrets)
