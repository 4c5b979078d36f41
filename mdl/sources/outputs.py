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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from mdl.errors import MdlError, NotFound, ProtocolError, Unsafe
from mdl.paths import RelPath, refuse_twins, shown
from mdl.redact import bare_url

WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx", ".h5", ".keras", ".zip")
_DEEPEST = 8
_MOST = 100_000
_NAMES = ("filename", "file_name", "name", "key", "s3_key")
_URLS = ("url", "download_url", "presigned_url", "file_url", "href", "link")
_DATA = ("data", "base64", "content", "file_data")
_IMAGE = (".png", ".jpg", ".jpeg", ".webp", ".gif")


@dataclass(frozen=True)
class Output:
    """One file of a job: with its bytes (``data``), or with the ``url`` that they are at. ``size`` in bytes, if it was
    told."""

    path: RelPath
    url: str = field(default="", repr=False)
    data: bytes | None = field(default=None, repr=False)
    size: int | None = None
    content_type: str = ""

    @property
    def is_weights(self) -> bool:
        return self.path.text.lower().endswith(WEIGHTS)


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


def weights_of(outputs: list[Output]) -> list[Output]:
    """The weights; all that are no pictures if there are none; else everything."""
    weights = [one for one in outputs if one.is_weights]
    others = [one for one in outputs if PurePosixPath(one.path.text).suffix.lower() not in _IMAGE]
    return weights or others or outputs


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
