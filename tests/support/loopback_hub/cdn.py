"""The hub's CDN: signed links that expire, and the answers to them.

It behaves as the hub's body hosts were seen to behave: a link is good for an hour, for every client that has it;
the ETag is the CDN's own; the hub's headers are absent; a refusal is XML; a request with a token is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from support.loopback_hub.answers import Reply, Request, file_reply, segment
from support.loopback_hub.repos import StoredFile

_LINK_SECONDS = 3600


class Cdn:
    """Mints links to LFS files and answers them."""

    def __init__(self) -> None:
        self.origin = ""
        self._key = secrets.token_bytes(32)
        self._files: dict[str, StoredFile] = {}

    def expire_links(self) -> None:
        """Make every link minted so far invalid."""
        self._key = secrets.token_bytes(32)

    def link(self, file: StoredFile) -> str:
        """A fresh signed URL of this file's bytes."""
        path = f"/xet-bridge-us/{file.sha256[:24]}/{file.sha256}"
        self._files[path] = file
        expires = int(time.time() + _LINK_SECONDS)
        name = segment(f'inline; filename="{file.path.rpartition("/")[2]}";')
        signature = self._signature(path, str(expires))
        return f"{self.origin}{path}?response-content-disposition={name}&Expires={expires}&Signature={signature}"

    def answer(self, request: Request) -> Reply:
        if "authorization" in request.headers:
            return _xml(400, "InvalidArgument", "Only one auth mechanism allowed")
        expires = request.query.get("Expires", [""])[0]
        given = request.query.get("Signature", [""])[0]
        if not hmac.compare_digest(given.encode(), self._signature(request.path, expires).encode()):
            return _xml(403, "AccessDenied", "Access denied")
        if time.time() >= int(expires):
            return _xml(403, "AccessDenied", "Request has expired")
        file = self._files.get(request.path)
        if file is None:
            return _xml(404, "NoSuchKey", "The specified key does not exist.")
        own = hashlib.md5(file.sha256.encode(), usedforsecurity=False).hexdigest()
        kind = ("Content-Type", "application/octet-stream")
        return file_reply(request, file.content, f'"{own}"', kind, ("Cache-Control", "public, max-age=31536000"))

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._key, f"{path}?{expires}".encode(), "sha256").hexdigest()


def _xml(status: int, code: str, message: str) -> Reply:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Reply(status, (("Content-Type", "application/xml"),), text.encode())
