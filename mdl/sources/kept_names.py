"""Kept names: what the server of a URL called its file when it was last asked, so that it is found again offline."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mdl import crc_json
from mdl.errors import MdlError
from mdl.fs import staging
from mdl.fs.private import make_private_dir, read_regular
from mdl.paths import RelPath
from mdl.presigned import url_identity
from mdl.redact import bare_url

VERSION = 1
_LARGEST = 2**16


def kept_name(folder: Path, url: str) -> RelPath | None:
    """The name that is kept in ``folder`` for a URL; None if there is none, or it is damaged."""
    try:
        data = crc_json.loads((read_regular(_place(folder, url), _LARGEST) or b"").rstrip(b"\n"))
        if not isinstance(data, dict) or data["mdl-url-name"] != VERSION:
            return None
        return RelPath.parse(data["name"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MdlError):
        return None


def keep_name(folder: Path, url: str, name: RelPath) -> None:
    """Keep the name for a URL, of which no query is written down. Raises `OSError`, `Unsafe`."""
    data = {"mdl-url-name": VERSION, "url": bare_url(url), "name": name.text}
    make_private_dir(folder)
    staging.write_file(_place(folder, url), crc_json.dumps(data), durable=False)


def _place(folder: Path, url: str) -> Path:
    return folder / f"{hashlib.sha256(url_identity(url).encode()).hexdigest()[:32]}.name"
