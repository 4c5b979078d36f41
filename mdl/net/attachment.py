"""Attachment: the file name that a server gives what it sends, in Content-Disposition. Pure.

RFC 6266: ``filename*`` (RFC 8187) goes before ``filename``. A name is never a path: only its last part counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

_PARAMETER = re.compile(r';\s*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))')
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE)


def attached_name(headers: Mapping[str, str]) -> str:
    """The last part of the name in a Content-Disposition; '' if it has none. It may still be no safe name."""
    found: dict[str, str] = {}
    for name, quoted, token in _PARAMETER.findall(headers.get("content-disposition", "")):
        found.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted else token.strip())
    name = _extended(found.get("filename*", "")) or found.get("filename", "")
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def _extended(text: str) -> str:
    """The value of a parameter like ``filename*``: ``UTF-8''na%C3%AFve.bin``; '' if it is not one."""
    match = _EXTENDED.fullmatch(text)
    try:
        return unquote_to_bytes(match[2]).decode(match[1]) if match else ""
    except UnicodeDecodeError:
        return ""
