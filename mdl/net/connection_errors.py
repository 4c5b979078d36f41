"""Failures: the errors of httpx, httpcore and TLS become those of mdl: what failed, and what to do.

Alerts of TLS: RFC 8446, 6; their names here are those of OpenSSL.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import ssl
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import httpx

from mdl.errors import AuthError, MdlError, NetworkError, ProtocolError, TlsError, Unsafe
from mdl.net.allowlist import bracketed, host_of, port_of
from mdl.net.certificates import Trust
from mdl.net.credentials import certificate_wanted, place_of
from mdl.net.proxies import UNKNOWN_PROXY, Proxy
from mdl.net.server_messages import safe_excerpt
from mdl.redact import Secrets, redact_error

PROXY = "mdl.proxy"
"""An extension of a request: the `Proxy` that it goes through, or None."""
PROXY_OFFERS = "mdl.proxy_offers"
"""An extension of a request: the ways to sign in that its proxy named when it refused a tunnel."""
TRUST = "mdl.trust"
"""An extension of a request: the `Trust` that makes its TLS context."""
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
_DATES = "check this machine's clock, its date and time zone; if it is right, the server's owner must renew it"
_OTHER_NAME = "check the host in the URL, and the proxy: the certificate is another host's"
_REFUSED_CERTIFICATES = {9: _DATES, 10: _DATES, 62: _OTHER_NAME, 63: _OTHER_NAME, 64: _OTHER_NAME}
"""OpenSSL's numbers of why a certificate is refused, and what to do: its dates; another name or address."""
_UNKNOWN_MAKER = (2, 18, 19, 20, 21)
"""The numbers of certificates that nobody trusted signed."""
_PARSER_DUMP = re.compile(r"\W*\b(bytearray\()?b(['\"]).*", re.DOTALL)
"""The received bytes, as the parser quotes them in its errors."""
_DROPPED = ("peer closed", "Server disconnected")
"""How errors begin that mean a connection that ended, not a server that breaks the protocol."""
_REFUSED_BY_PROXY = ("407", "Invalid username/password", "Requested ")
"""How the errors of a proxy begin that wants another user or password: those of HTTP and of SOCKS5."""
_OTHER_PROTOCOLS = (
    (re.compile(r"\\x15\\x03"), "{place} speaks TLS on this port: write https://"),
    (re.compile(r"SSH-"), "an SSH server answers there: check the port in the URL"),
    (
        re.compile(r"\\x00\\x00.{1,4}\\x04\\x00"),
        "{place} speaks HTTP/2 alone on this port, and mdl speaks HTTP/1.1: use another port or URL of it",
    ),
)
"""How an answer begins, as the parser quotes it, if what answers speaks something else than HTTP/1.1."""
_PLACE_IN_OPENSSL = re.compile(r" \(_ssl\.c:\d+\)$")
"""The line of CPython's source that every error of TLS ends with."""
_ERRNO = re.compile(r"\A\[Errno -?\d+\] ")
_NO_ADDRESS = "[Errno -"
"""How the system's errors begin; the numbers of a failed look-up of a name are negative."""


class CertificateWanted(ssl.SSLError):
    """A server asked for a client certificate, got none, and ended the handshake."""


def tls_error(
    cause: ssl.SSLError, url: str, *, certificate: str = "", unread: Sequence[str] = (), is_open: bool = False
) -> MdlError:
    """Return the error that ended a TLS connection to the host of ``url``: a `TlsError`, or a `NetworkError` if a new
    try may mend it.

    ``certificate`` is the one that was shown to the host. ``unread`` are variables that name authorities and that mdl
    does not read. ``is_open``: the handshake was over.
    """
    host = host_of(url)
    place = place_of(url)
    words = _PLACE_IN_OPENSSL.sub("", str(cause))
    reason = getattr(cause, "reason", None) or ""
    if isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        when = "within the TLS connection" if is_open else "during the TLS handshake"
        return NetworkError(f"{host} hung up {when}", hint=AGAIN)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TlsError(f"{host}: {words}", hint=_advice(getattr(cause, "verify_code", 0), place, unread))
    is_alert = "ALERT" in reason or reason.startswith("TLSV1_")
    if reason.endswith(_PASSING) or (is_open and not is_alert):
        return NetworkError(f"{host}: {words}", hint=AGAIN)
    if isinstance(cause, CertificateWanted) or reason.endswith(_OF_A_CERTIFICATE):
        if not certificate:
            return certificate_wanted(url, str(cause))
        hint = f'check cert and key of [hosts."{place}"] in config.toml: the host may want another one'
        return TlsError(f"{host} does not accept the client certificate {certificate}: {words}", hint=hint)
    if is_alert:
        hint = "the server ends the connection by itself: check the URL, and whether it takes TLS 1.2 or 1.3"
        return TlsError(f"{host} refuses the TLS connection: {words}", hint=hint)
    hint = "check the URL and the proxy; mdl doctor shows more"
    if reason.endswith(_NO_TLS):
        hint = f"the server speaks plain http: try http://{place}, or check the port"
    return TlsError(f"{host}: {words}", hint=hint)


def _advice(code: int, place: str, unread: Sequence[str]) -> str:
    """Return what to do about a certificate that is refused for the reason with this number."""
    if code not in _UNKNOWN_MAKER:
        return _REFUSED_CERTIFICATES.get(code, "check the clock, SSL_CERT_FILE and the proxy; mdl doctor shows more")
    if unread:
        return f"mdl does not read {' and '.join(unread)}: set SSL_CERT_FILE to that file"
    return (
        "if a company's proxy or its own authority signs here, set SSL_CERT_FILE to the certificate of that "
        f'authority, or ca of [hosts."{place}"] in config.toml; mdl doctor shows more'
    )


def asks_for_certificate(received: bytes) -> bool:
    """Return whether a server's side of a handshake has a CertificateRequest that can be read, as up to TLS 1.2 it can
    (RFC 5246, 6.2.1 and 7.4). In TLS 1.3 it cannot, and there is an alert of its own."""
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


@contextlib.contextmanager
def map_httpx_errors(url: str, secrets: Secrets) -> Iterator[None]:
    """Inside the block httpx's errors become mdl's own, with the name of the host.

    No error that leaves the block contains one of the ``secrets`` that were sent, whatever the server repeated.
    """
    try:
        try:
            yield
        except httpx.HTTPError as error:
            raise _map_error(error, url, secrets) from error
        except httpx.StreamError as error:
            raise NetworkError(f"{host_of(url)}: {error}") from error
    except Exception as error:
        redact_error(error, secrets)
        raise


def _map_error(error: httpx.HTTPError, url: str, secrets: Secrets) -> MdlError:
    proxy: Proxy | None = None
    with contextlib.suppress(RuntimeError):  # an error that belongs to no request
        url = str(error.request.url)
        proxy = error.request.extensions.get(PROXY)
    host = host_of(url)
    where = f"{host} (through the proxy {proxy.shown})" if proxy else host
    words = safe_excerpt(str(error), secrets) or type(error).__name__
    match error:
        case httpx.ConnectTimeout():
            message = f"{_place_in_words(url, proxy)} did not accept the connection in time"
            return NetworkError(message, hint=AGAIN)
        case httpx.TimeoutException():
            return NetworkError(f"{where} was silent for too long", hint=SILENCE, is_silence=True)
        case httpx.UnsupportedProtocol():
            return Unsafe(f"refused: {words}", item=host)
    broken = _tls_cause(error)
    if broken:
        return broken_tls(broken, error.request, is_open=not isinstance(error, httpx.ConnectError))
    match error:
        case httpx.ProxyError():
            return _proxy_error(error, url, proxy or UNKNOWN_PROXY, words)
        case httpx.ConnectError():
            return _connect_error(url, proxy, words)
        case httpx.RemoteProtocolError() if words.startswith(_DROPPED):
            return NetworkError(f"{where} dropped the connection: {words}", hint=AGAIN)
        case httpx.RemoteProtocolError():
            message = f"{where} does not speak HTTP properly: {_PARSER_DUMP.sub('', words)}"
            return ProtocolError(message, hint=not_http_hint(words, url))
    return NetworkError(f"{where}: {words}", hint=AGAIN)


def _tls_cause(error: httpx.HTTPError) -> ssl.SSLError | None:
    """Return the error of TLS that an error of httpx comes from."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLWantReadError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def broken_tls(cause: ssl.SSLError, request: httpx.Request, *, is_open: bool) -> MdlError:
    """Return the error for a request whose TLS connection failed by ``cause``; ``is_open``: after the handshake."""
    trust: Trust = request.extensions[TRUST]
    proxy: Proxy | None = request.extensions.get(PROXY)
    url = str(request.url)
    certificate = trust.certificate_for(host_of(url), port_of(url))
    error = tls_error(cause, url, certificate=certificate, unread=trust.unread, is_open=is_open)
    if proxy and proxy.url.startswith("https:"):
        of_proxy = f" (the TLS may be that of the proxy {proxy.shown}, which {proxy.variable} names)"
        return error.but(message=error.message + of_proxy)
    return error


def _proxy_error(error: httpx.ProxyError, url: str, proxy: Proxy, words: str) -> MdlError:
    """Return the error for a proxy that refuses a tunnel, or wants to know who asks."""
    host = host_of(url)
    if words.startswith(_REFUSED_BY_PROXY):
        hint = proxy.login_hint(error.request.extensions.get(PROXY_OFFERS, ""))
        return AuthError(f"the proxy for {host} answered: {words}", hint=hint)
    if words.startswith("403"):
        return AuthError(f"the proxy for {host} answered: {words}", hint=proxy.trouble_hint(url))
    return NetworkError(f"the proxy for {host}: {words}", hint=proxy.trouble_hint(url))


def _connect_error(url: str, proxy: Proxy | None, words: str) -> NetworkError:
    """Return the error for a host, or its proxy, whose name has no address or that cannot be reached."""
    problem = "cannot resolve" if words.startswith(_NO_ADDRESS) else "no connection to"
    reason = _ERRNO.sub("", words, count=1)
    hint = "check the network and the host's name"
    if reason == os.strerror(errno.ECONNREFUSED):
        hint = "check the host and the port, and whether the server runs"
    if proxy:
        hint = proxy.trouble_hint(url)
    return NetworkError(f"{problem} {_place_in_words(url, proxy)}: {reason}", hint=hint)


def _place_in_words(url: str, proxy: Proxy | None) -> str:
    """Return the host that a request is for, with the port if the URL has one, and its proxy."""
    place = bracketed(host_of(url))
    port = urlsplit(url).port
    if port:
        place += f":{port}"
    return f"the proxy {proxy.shown} for {place}" if proxy else place


def not_http_hint(words: str, url: str) -> str:
    """Return what to do about a server whose answer is no HTTP/1.1. ``words`` quote how it begins."""
    place = bracketed(host_of(url))
    for begins, speaks in _OTHER_PROTOCOLS:
        if begins.search(words):
            return speaks.format(place=place)
    if "status line" not in words:
        return "the server, or a proxy on the way, is at fault: take another source or mirror"
    return f"what answers at {place} on this port is no web server: check host and port in the URL, and the proxy"
