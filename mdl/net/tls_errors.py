"""TLS errors: what it means if a TLS connection cannot be made or is ended by an alert, and what to do. Pure.

Alerts: RFC 8446, 6; their names here are those of OpenSSL.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from mdl.errors import MdlError, NetworkError, TlsError
from mdl.net.allowlist import host_of
from mdl.net.credentials import certificate_wanted, place_of

AGAIN = "run the same command again; what was fetched is kept"
SILENCE = "nothing has come; if a proxy checks files before it passes them on: --stall 10m"
_PASSING = (
    *("ALERT_INTERNAL_ERROR", "ALERT_USER_CANCELLED", "ALERT_BAD_RECORD_MAC", "ALERT_RECORD_OVERFLOW"),
    *("ALERT_DECRYPTION_FAILED", "ALERT_DECODE_ERROR", "ALERT_UNEXPECTED_MESSAGE", "BAD_RECORD_MAC"),
)
"""How the names of errors end that a new connection may mend: a server in trouble, damage on the way."""
_OF_A_CERTIFICATE = (
    *("BAD_CERTIFICATE", "UNSUPPORTED_CERTIFICATE", "CERTIFICATE_REVOKED", "CERTIFICATE_EXPIRED"),
    *("CERTIFICATE_UNKNOWN", "CERTIFICATE_REQUIRED", "UNKNOWN_CA", "ACCESS_DENIED", "ALERT_DECRYPT_ERROR"),
)
"""How the names of alerts end by which a server refuses a client's certificate, or misses it."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
"""How the names of errors end if the other side speaks something else."""
_DATES = (9, 10)
_NAMES = (62, 63, 64)
_UNKNOWN_MAKER = (2, 18, 19, 20, 21)
"""OpenSSL's numbers of why a certificate is refused: its dates; another name or address; nobody trusted signed it."""


class CertificateWanted(ssl.SSLError):
    """A server asked for a client certificate, got none, and ended the handshake."""


def tls_error(
    cause: ssl.SSLError, url: str, *, certificate: str = "", unread: Sequence[str] = (), is_open: bool = False
) -> MdlError:
    """The error that ended a TLS connection to the host of ``url``: a `TlsError`, or a `NetworkError` if a new try may
    mend it.

    ``certificate`` is the one that was shown to the host. ``unread`` are variables that name authorities and that mdl
    does not read. ``is_open``: the handshake was over.
    """
    host = host_of(url)
    place = place_of(url)
    reason = getattr(cause, "reason", None) or ""
    if isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        when = "within the TLS connection" if is_open else "during the TLS handshake"
        return NetworkError(f"{host} hung up {when}", hint=AGAIN)
    is_alert = "ALERT" in reason or reason.startswith("TLSV1_")
    if reason.endswith(_PASSING) or (is_open and not is_alert):
        return NetworkError(f"{host}: {cause}", hint=AGAIN)
    if certificate and (reason.endswith(_OF_A_CERTIFICATE) or isinstance(cause, CertificateWanted)):
        hint = f'check cert and key of [hosts."{place}"] in config.toml: the host may want another one'
        return TlsError(f"{host} does not accept the client certificate {certificate}: {cause}", hint=hint)
    if isinstance(cause, CertificateWanted) or (is_open and reason.endswith(_OF_A_CERTIFICATE)):
        return certificate_wanted(url, str(cause))
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TlsError(f"{host}: {cause}", hint=_advice(getattr(cause, "verify_code", 0), place, unread))
    if is_alert:
        hint = "the server ends the connection by itself: check the URL, and whether it takes TLS 1.2 or 1.3"
        return TlsError(f"{host} refuses the TLS connection: {cause}", hint=hint)
    if reason.endswith(_NO_TLS):
        hint = f"what answers at {place} speaks no TLS: check the port; write http:// only if that is what you mean"
        return TlsError(f"{host}: {cause}", hint=hint)
    return TlsError(f"{host}: {cause}", hint="check the URL and the proxy; mdl doctor tells more")


def _advice(code: int, place: str, unread: Sequence[str]) -> str:
    """What to do about a certificate that is refused for the reason with this number."""
    if code in _DATES:
        return "check this machine's clock, its date and time zone; if it is right, the server's owner must renew it"
    if code in _NAMES:
        return "check the host in the URL, and the proxy: the certificate is another host's"
    if code in _UNKNOWN_MAKER and unread:
        return f"mdl does not read {' and '.join(unread)}: set SSL_CERT_FILE to that file"
    if code in _UNKNOWN_MAKER:
        return (
            "if a company's proxy or its own authority signs here, set SSL_CERT_FILE to the certificate of that "
            f'authority, or ca of [hosts."{place}"] in config.toml; mdl doctor tells more'
        )
    return "check the clock, SSL_CERT_FILE and the proxy; mdl doctor tells more"


def asks_for_certificate(received: bytes) -> bool:
    """Whether a server's side of a handshake has a CertificateRequest that can be read, as up to TLS 1.2 it can (RFC
    5246, 6.2.1 and 7.4). In TLS 1.3 it cannot, and there is an alert of its own."""
    messages = bytearray()
    at = 0
    while at + 5 <= len(received):
        kind = received[at]
        length = int.from_bytes(received[at + 3 : at + 5], "big")
        if kind == 22:
            messages += received[at + 5 : at + 5 + length]
        at += 5 + length
    at = 0
    while at + 4 <= len(messages):
        if messages[at] == 13:
            return True
        at += 4 + int.from_bytes(messages[at + 1 : at + 4], "big")
    return False
