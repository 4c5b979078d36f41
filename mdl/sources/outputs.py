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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from mdl.errors import MdlError, NotFound, ProtocolError, Unsafe
from mdl.paths import RelPath, refuse_twins, shown
from mdl.redact import bare_url

_DEEPEST = 8
_MOST = 100_000
_NAMES = ("filename", "file_name", "name", "key", "s3_key")
_URLS = ("url", "download_url", "presigned_url", "file_url", "href", "link")
_DATA = ("data", "base64", "content", "file_data")
_PICTURE = (".png", ".jpg", ".jpeg", ".webp", ".gif")
_NAMED = 10


@dataclass(frozen=True)
class Output:
    """One file of a job: with its bytes (``data``), or with the ``url`` that they are at. ``size`` in bytes, if it was
    told."""

    path: RelPath
    url: str = field(default="", repr=False)
    data: bytes | None = field(default=None, repr=False)
    size: int | None = None
    content_type: str = ""


def outputs_of(answer: Any, job: str) -> list[Output]:
    """Every file that ``answer`` names or contains, each under its own name, made safe.

    Raises `NotFound` if it names none, `ProtocolError` for data that is no base64 or not of the size that was told,
    and for a text like ``/download/ID``, which is no URL; `Unsafe` for a name that leaves the folder.
    """
    found = list(_walk(answer, job, ""))[:_MOST]
    if not found:
        raise NotFound("its answer names no file", item=job, hint="look at it with 'mdl remote status'")
    urls: dict[str, set[str]] = {}
    for one in found:
        urls.setdefault(one.path.text.casefold(), set()).add(one.url)
    found = [
        _apart(one, job, number) if len(urls[one.path.text.casefold()]) > 1 else one
        for number, one in enumerate(found, 1)
    ]
    unique = list({one.path: one for one in found}.values())
    refuse_twins(one.path for one in unique)
    return unique


def _apart(one: Output, job: str, number: int) -> Output:
    """Two files of one name lie in folders, as their URLs tell: ``…/results/ID/lora/a.bin`` is ``lora/a.bin``."""
    path = unquote(urlsplit(one.url).path)
    below = path.rpartition(f"/{job}/")[2] if f"/{job}/" in path else ""
    text = below if below.endswith(one.path.text) and below != one.path.text else f"{number}/{one.path.text}"
    return Output(RelPath.parse(text), one.url, one.data, one.size, one.content_type)


def _walk(value: Any, job: str, key: str, depth: int = 0) -> Iterator[Output]:
    if depth > _DEEPEST:
        return
    if isinstance(value, str):
        if _is_url(value):
            yield _linked({"url": value}, value)
        elif key in _URLS and value:
            raise ProtocolError(f"{shown(value)[:80]!r} is no download: it has no host", item=job, hint=_ASK_FOR_URL)
    elif isinstance(value, list):
        for one in value[:_MOST]:
            yield from _walk(one, job, key, depth + 1)
    elif isinstance(value, dict):
        url = next((value[name] for name in _URLS if isinstance(value.get(name), str) and value[name]), None)
        data = next((value[name] for name in _DATA if isinstance(value.get(name), str)), None)
        if url is not None and not _is_url(url):
            raise ProtocolError(f"{shown(url)[:80]!r} is no download: it has no host", item=job, hint=_ASK_FOR_URL)
        if url is not None:
            yield _linked(value, url)
        elif data is not None and (value.get("type") == "file_data" or _name_in(value)):
            yield _inline(value, data, job)
        else:
            for name, one in value.items():
                yield from _walk(one, job, str(name), depth + 1)


_ASK_FOR_URL = "have the endpoint answer with a presigned URL, or give the remote its bucket"


def _is_url(text: str) -> bool:
    try:
        return urlsplit(text).scheme in ("http", "https") and bool(urlsplit(text).hostname)
    except ValueError:
        return False


def _name_in(value: Mapping[str, Any]) -> str:
    return next((value[name] for name in _NAMES if isinstance(value.get(name), str) and value[name]), "")


def _size_in(value: Mapping[str, Any]) -> int | None:
    size = value.get("size", value.get("size_bytes"))
    return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None


def _linked(value: Mapping[str, Any], url: str) -> Output:
    name = _name_in(value) or unquote(urlsplit(bare_url(url)).path)
    kind = value.get("content_type")
    return Output(_safe_name(name), url, None, _size_in(value), kind if isinstance(kind, str) else "")


def _inline(value: Mapping[str, Any], text: str, job: str) -> Output:
    """The bytes of a base64 text. Blanks and missing padding are forgiven; any other letter, and a length that no text
    has, is not."""
    kind = value.get("content_type")
    kind = kind if isinstance(kind, str) else ""
    name = _name_in(value) or f"{job}{mimetypes.guess_extension(kind) or '.bin'}"
    packed = "".join(text.split()).rstrip("=")
    try:
        if len(packed) % 4 == 1:
            raise ValueError("its end is missing")
        data = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (ValueError, binascii.Error) as error:
        raise ProtocolError(f"the data is no base64: {error}", item=name, hint=_ASK_FOR_URL) from error
    told = value.get("size", len(data))
    if told != len(data):
        raise ProtocolError(f"{len(data)} bytes came, and {told} were told", item=name, hint=_ASK_FOR_URL)
    return Output(_safe_name(name), "", data, len(data), kind)


def _safe_name(text: str) -> RelPath:
    """The last part of a name or of a path. Raises `Unsafe` if that is no file name."""
    name = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    try:
        return RelPath.parse(name)
    except MdlError as error:
        raise Unsafe(f"the answer names a file {shown(text)[:100]!r}: {error.message}") from error


class HasPath(Protocol):
    @property
    def path(self) -> RelPath: ...


File = TypeVar("File", bound=HasPath)


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
        names = ", ".join(one.path.text for one in files[:_NAMED]) or "nothing"
        what = f"no checkpoint {shown(checkpoint)!r}" if checkpoint else "no log" if logs else "no file"
        raise NotFound(f"{what} is among its results", hint=f"there is {names}")
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


def error_in(text: Any) -> str:
    """What a worker says went wrong: a text, a text that is JSON (``error_message``, ``error``, ``detail``), or such an
    object."""
    import json

    for _ in range(3):
        if isinstance(text, str) and text.lstrip().startswith("{"):
            try:
                text = json.loads(text)
            except ValueError:
                break
        if not isinstance(text, dict):
            break
        text = next((text[key] for key in ("error_message", "error", "message", "detail") if text.get(key)), "")
    return shown(" ".join(str(text or "").split()))[:300]
