"""Access: who may ask. The Host must be right on loopback, and the token if there is one; other sites may not ask."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping

from mdl.net.credentials import is_loopback
from mdl.plugins.serve.refusals import Refusal

_ASK = {"WWW-Authenticate": 'Basic realm="mdl serve: any name, and the token as password", charset="UTF-8"'}
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")


class WrongTokenError(Exception):
    """A request came with a token that is not the right one. ``refusal`` is what its client is told."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Access:
    """What a request must bring. Without a ``token``, everybody who can reach the server may ask."""

    def __init__(self, token: str | None, *, loopback: bool) -> None:
        self.has_token = token is not None
        self._token = (token or "").encode()
        self._loopback = loopback

    def check(self, headers: Mapping[str, str]) -> None:
        """Raises `Refusal` for a request that must not be answered, and `WrongTokenError` for one with a wrong token.
        ``headers`` have lower-case names.

        A page of another site can have its own name lead to 127.0.0.1 (DNS rebinding). The browser still sends that
        name as the Host, and has no token for it. A proxy before this server may find another end of a
        request that states two lengths.
        """
        if "transfer-encoding" in headers and "content-length" in headers:
            why = "a request has a Content-Length or a Transfer-Encoding, not both"
            raise Refusal(400, "", why, {"Connection": "close"})
        if self._loopback and not self.has_token and not is_loopback(_host(headers.get("host", ""))):
            raise Refusal(421, "", "this server answers to localhost and 127.0.0.1 only, not to the name in Host")
        if self.has_token and not hmac.compare_digest(_token_in(headers.get("authorization", "")), self._token):
            refusal = Refusal(401, "", "Invalid credentials in Authorization header", _ASK)
            raise WrongTokenError(refusal) if "authorization" in headers else refusal

    def check_site(self, headers: Mapping[str, str]) -> None:
        """Raises `Refusal` for what a page of another site has a browser ask for, with which the browser sends the
        token too. Such a page cannot read the answer, but it could make this server work."""
        site = headers.get("sec-fetch-site")
        origin = headers.get("origin")
        is_strange = origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()
        if is_strange or site not in (None, "same-origin", "none"):
            raise Refusal(403, "", "a page of another site may not ask for this")


def _host(header: str) -> str:
    """The host without its port and brackets; empty if the header is malformed."""
    found = _HOST.fullmatch(header)
    return (found[1] or found[2]).lower() if found else ""


def _token_in(authorization: str) -> bytes:
    """The token of a program (``Bearer``), or what a person typed as the password (``Basic``)."""
    scheme, _, value = authorization.partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value.encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
