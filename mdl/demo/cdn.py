"""The demo hub's CDN: signed links that expire, and the answers to them.

It behaves as the hub's body hosts were seen to: a link is good for an hour from when it was minted, for anybody
who has it; the ETag is the CDN's own; no header of the hub is there; a refusal is XML; a token is not welcome.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

from mdl.demo.answers import Asked, Reply, file_reply, segment
from mdl.demo.repos import StoredFile


class Cdn:
    """Mints links to LFS files and answers them. ``clock`` is in seconds since the epoch."""

    def __init__(self, link_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self.link_seconds = link_seconds
        self.clock = clock
        self.origin = ""
        self._key = secrets.token_bytes(32)
        self._files: dict[str, StoredFile] = {}

    def expire_links(self) -> None:
        """Make every link minted so far void, as an hour would."""
        self._key = secrets.token_bytes(32)

    def link(self, file: StoredFile) -> str:
        """A fresh signed URL of this file's bytes."""
        path = f"/xet-bridge-us/{file.sha256[:24]}/{file.sha256}"
        self._files[path] = file
        expires = int(self.clock() + self.link_seconds)
        name = segment(f'inline; filename="{file.path.rpartition("/")[2]}";')
        signature = self._signature(path, str(expires))
        return f"{self.origin}{path}?response-content-disposition={name}&Expires={expires}&Signature={signature}"

    def answer(self, asked: Asked) -> Reply:
        if "authorization" in asked.headers:
            return _xml(400, "InvalidArgument", "Only one auth mechanism allowed")
        expires = asked.query.get("Expires", [""])[0]
        given = asked.query.get("Signature", [""])[0]
        if not hmac.compare_digest(given.encode(), self._signature(asked.path, expires).encode()):
            return _xml(403, "AccessDenied", "Access denied")
        if self.clock() >= int(expires):
            return _xml(403, "AccessDenied", "Request has expired")
        file = self._files.get(asked.path)
        if file is None:
            return _xml(404, "NoSuchKey", "The specified key does not exist.")
        if asked.method not in ("GET", "HEAD"):
            return _xml(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
        own = hashlib.md5(file.sha256.encode(), usedforsecurity=False).hexdigest()
        kind = ("Content-Type", "application/octet-stream")
        return file_reply(asked, file.content, f'"{own}"', kind, ("Cache-Control", "public, max-age=31536000"))

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._key, f"{path}?{expires}".encode(), "sha256").hexdigest()


def _xml(status: int, code: str, message: str) -> Reply:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Reply(status, (("Content-Type", "application/xml"),), text.encode())
