"""Outputs: the files of a job as its remote tells them, and which of them are meant. Pure.

What files an answer holds is judged in `mdl.results.answers`.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mdl.bounds import OutOfBounds, parse_integer, parse_json
from mdl.errors import MdlError, NotFound, ProtocolError, Unsafe
from mdl.files import RemoteFile, told_size
from mdl.formatting import human_bytes
from mdl.hashing import Digest
from mdl.junk import is_log, why_junk_path
from mdl.net.refusals import safe_excerpt, server_message
from mdl.paths import RelPath, names_for_a_hint, refuse_twins, shown
from mdl.results.answer_words import path_of
from mdl.values import value_class
from mdl.weights.table import is_weights, kind_of

ASK_FOR_URL = (
    "have the worker upload its files to a bucket and answer with presigned URLs, or give the remote its bucket"
)
NAME_KEYS = ("filename", "file_name", "name", "key", "s3_key")
_ERROR_KEYS = ("error_message", "error", "message", "detail", "msg")
_DEEPEST_ERROR = 4
"""How many objects, one in the other, the words of an error are looked for in."""
_PICTURE = (".png", ".jpg", ".jpeg", ".webp", ".gif")
_NAMED = 10
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


def items_of(answer: Any, job: str) -> list[Any]:
    """The rows of ``download_items`` that are of ``job``. They carry no id, but the path of their URL has it:
    ``…/results/ID/…``. A row whose path names no job counts as one of it."""
    rows = answer.get("download_items") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        return []
    return [row for row in rows if _job_in(row) in ("", job)]


def _job_in(row: Any) -> str:
    url = row.get("url") if isinstance(row, dict) else row
    found = re.search(r"/results/([^/]+)/", path_of(url)) if isinstance(url, str) else None
    return found[1] if found else ""


def keyed_outputs(answer: Any, job: str) -> list[Output]:
    """The files in a worker's list of keys (``{"files": [{"key", "size"}]}``, or texts), which can be asked for one by
    one. Raises `Unsafe` for a key that leaves the folder."""
    rows = answer
    if isinstance(answer, dict):
        keys = [key for key in ("files", "keys", "objects") if key in answer]
        rows = answer[keys[0]] if keys else None
    if not isinstance(rows, list):
        return []
    outputs = []
    for row in rows:
        facts = row if isinstance(row, dict) else {"key": row}
        key = first_text(facts, ("key", "s3_key", "path", "name"))
        if not key or key.endswith("/"):
            continue
        below = key.rpartition(f"results/{job}/")[2] or key
        outputs.append(Output(checked_path(below.lstrip("/")), size=told_size_in(facts), key=key))
    refuse_twins(output.path for output in outputs)
    return outputs


def first_text(value: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The first text under one of ``keys`` that is not empty; '' if there is none."""
    key = key_of_text(value, keys)
    return str(value[key]) if key else ""


def key_of_text(value: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The first of ``keys`` under which is a text that is not empty; '' if there is none."""
    for key in keys:
        text = value.get(key)
        if isinstance(text, str) and text:
            return key
    return ""


def is_web_url(text: str) -> bool:
    """Whether a text is a whole URL of http or https."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable() and " " not in text
    except ValueError:
        return False


def told_size_in(value: Mapping[str, Any]) -> int | None:
    """The size that an object tells of its file, in bytes; None if it tells none, and for 0, which handlers write if
    they do not know it."""
    size = value.get("size", value.get("size_bytes"))
    name = shown(first_text(value, NAME_KEYS))[:200] or "a file of the job"
    if isinstance(size, str) and size.isascii() and size.isdigit():
        try:
            size = parse_integer(size)
        except OutOfBounds as error:
            raise ProtocolError(f"the size that is told of it: {error}", item=name) from None
    if isinstance(size, bool) or not isinstance(size, int | float) or size <= 0:
        return None
    return told_size(size, name)


def told_digest(value: Mapping[str, Any]) -> Digest | None:
    """The sha256 that an object tells of its file."""
    text = value.get("sha256", value.get("checksum_sha256"))
    if isinstance(text, str) and re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return Digest("sha256", text.lower())
    return None


def told_kind(value: Mapping[str, Any]) -> str:
    """The media type that an object tells of its file; '' if it tells none."""
    kind = value.get("content_type")
    return kind if isinstance(kind, str) and kind.isascii() and kind.isprintable() else ""


def safe_name(text: str) -> RelPath:
    """The last part of a name or of a path. Raises `Unsafe` if that cannot be the name of a file."""
    return checked_path(re.split(r"[/\\]", text.rstrip("/\\"))[-1])


def checked_path(text: str) -> RelPath:
    """The path that an answer names. Raises `Unsafe` for one that leads out of the folder, or cannot be kept."""
    try:
        return RelPath.parse(text)
    except MdlError as error:
        raise Unsafe(f"the answer names a file {shown(text)[:100]!r}: {error.message}") from error


_TELLING_TYPES = ("text/", "image/", "audio/", "video/", "application/json")
_TELLING_SUFFIXES = (".yaml", ".yml", ".toml", ".cfg", ".ini", ".md", ".jsonl", ".model", ".log")
_ARCHIVE = re.compile(r".+\.(zip|tar|tar\.gz|tgz)", re.IGNORECASE)


def is_archive_name(name: str) -> bool:
    """Whether a name says that its file is an archive which mdl unpacks."""
    return _ARCHIVE.fullmatch(name) is not None and not is_weights(name)


def may_be_archive(name: str) -> bool:
    """Whether a file of a job may be an archive by its name, so that its bytes must tell: it says so, or is packed with
    gzip; torch files are zips too, and anything may be called ``.bin``; or its suffix does not tell what it is."""
    kind = kind_of(name)
    if kind is not None:
        is_of_torch = kind.loaded_with == "torch"
        return is_of_torch or is_archive_name(name) or name.lower().endswith(".gz")
    media_type = _media_types().guess_type(name)[0] or ""
    return not media_type.startswith(_TELLING_TYPES) and not name.lower().endswith(_TELLING_SUFFIXES)


@cache
def _media_types() -> mimetypes.MimeTypes:
    """Those of Python itself: what a machine's own tables say differs from one to the next."""
    return mimetypes.MimeTypes()


def unnamed(job: str) -> str:
    """What the one file of a job is called if nothing tells what it is."""
    return f"{job}.bin"


CHOICES = ("latest", "best")
"""What a user calls a checkpoint whose name he leaves to the run."""
File = TypeVar("File", Output, RemoteFile)


def select(files: Sequence[File], *, checkpoint: str = "", logs: bool = False, everything: bool = False) -> list[File]:
    """Those of a job's files that are asked for: its logs, all, or by default neither logs nor pictures; of these the
    ones of a ``checkpoint``, which is the name or the end of the name of a file or folder (``step_1500``, ``1500``).
    Which is the ``latest`` or the ``best`` is not decided here: then all that may be it are returned.

    If a job has only logs and pictures, all of them are meant by default. Raises `NotFound`, with what there is.
    """
    chosen = list(files)
    if logs:
        chosen = [file for file in files if _is_log(file.path)]
    elif not everything:
        models = [file for file in files if not _is_log(file.path) and not _is_picture(file.path)]
        chosen = models or chosen
    if checkpoint and checkpoint not in CHOICES:
        chosen = [file for file in chosen if _is_of(file.path, checkpoint)]
    if chosen:
        return chosen
    missing = "no file"
    if checkpoint:
        missing = f"no checkpoint {shown(checkpoint)!r}"
    elif logs:
        missing = "no log"
    names = names_for_a_hint((file.path.text for file in files), _NAMED) or "nothing"
    raise NotFound(f"{missing} is among its results", hint=f"available: {names}")


def without_litter(files: Sequence[File]) -> tuple[list[File], list[File]]:
    """The results, and what file systems, file managers and killed programs left among them."""
    results: list[File] = []
    litter: list[File] = []
    for file in files:
        if why_junk_path(file.path.text) is None:
            results.append(file)
        else:
            litter.append(file)
    return results, litter


def litter_note(litter: Sequence[File]) -> str:
    """That litter is not fetched, in one line."""
    named = names_for_a_hint((file.path.text for file in litter), _FEW)
    size = human_bytes(sum(file.size or 0 for file in litter))
    return f"not fetched: {named}, {size}, left by file systems and file managers; --all brings them"


def _is_log(path: RelPath) -> bool:
    *folders, name = path.text.lower().split("/")
    return folders[:1] == ["logs"] or is_log(name)


def _is_picture(path: RelPath) -> bool:
    *folders, name = path.text.lower().split("/")
    return folders[:1] in (["samples"], ["images"]) or name.endswith(_PICTURE)


def _is_of(path: RelPath, checkpoint: str) -> bool:
    """Whether a folder of a path, or its name with or without a suffix, ends with the name of a checkpoint."""
    pattern = rf"(?:.*[-_.])?{re.escape(checkpoint)}"
    if checkpoint.isdigit():
        pattern = rf"(?:.*\D)?0*{checkpoint}"
    parts = path.text.split("/")
    parts.append(path.name.rpartition(".")[0])
    return any(re.fullmatch(pattern, part) for part in parts)


def error_in(words: Any, secrets: Iterable[str] = ()) -> str:
    """What a worker says went wrong, in one line without ``secrets`` and without the query of any URL: a text, a text
    that is JSON (``error_message``, ``error``, ``message``, ``detail``) or a web page, or such an object."""
    for _ in range(_DEEPEST_ERROR):
        if isinstance(words, str) and words.lstrip().startswith("{"):
            try:
                words = parse_json(words, allow_nan=True)
            except ValueError:
                break
        if isinstance(words, list) and words:
            words = words[0]
        if not isinstance(words, dict):
            break
        said = [words[key] for key in _ERROR_KEYS if words.get(key)]
        words = said[0] if said else ""
    text = str(words or "")
    if text.lstrip().startswith("<"):
        text = server_message({}, text.encode(errors="replace")) or text
    return safe_excerpt(text, secrets)
