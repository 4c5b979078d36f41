"""The hub's CDN: signed links that expire, and the answers to them.

It behaves as the hub's body hosts were seen to behave: a link is good for an hour, for every client that has it;
the ETag is the CDN's own; the hub's headers are absent; a refusal is XML; a request with a token is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from urllib.parse import parse_qs, quote

from support.faults.base import honest
from support.faults.wire import Answer, Request, reply
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
        name = quote(f'inline; filename="{file.path.rpartition("/")[2]}";', safe="")
        signature = self._signature(path, str(expires))
        return f"{self.origin}{path}?response-content-disposition={name}&Expires={expires}&Signature={signature}"

    def answer(self, request: Request, number: int) -> Answer:
        if request.header("authorization"):
            return _refusal(400, "InvalidArgument", "Only one auth mechanism allowed")
        given = {name: values[0] for name, values in parse_qs(request.query).items()}
        expires = given.get("Expires", "")
        if not hmac.compare_digest(
            given.get("Signature", "").encode(), self._signature(request.path, expires).encode()
        ):
            return _refusal(403, "AccessDenied", "Access denied")
        if time.time() >= int(expires):
            return _refusal(403, "AccessDenied", "Request has expired")
        file = self._files[request.path]
        own = hashlib.md5(file.sha256.encode(), usedforsecurity=False).hexdigest()
        return honest(file.content, etag=f'"{own}"')(request, number)

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._key, f"{path}?{expires}".encode(), "sha256").hexdigest()


def _refusal(status: int, code: str, message: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return reply(status, text.encode(), ("Content-Type", "application/xml"))
