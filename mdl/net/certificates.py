"""Trust: the one place where TLS contexts are made: which certificates are trusted, and which one mdl shows to a host.

All contexts are alike, whichever Python made them and wherever the certificates come from. Python 3.13 refuses
certificates of older companies' authorities that OpenSSL, curl and the system's store take (``VERIFY_X509_STRICT``);
names, dates and chains are checked as ever. A context is made when the first request needs it: reading the certificates
takes a while.
"""

from __future__ import annotations

import os
import platform
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import truststore

from mdl.bounds import LARGEST_RECORD
from mdl.disk.safe_open import read_whole
from mdl.errors import TlsError, UsageError
from mdl.net.credentials import HostTls
from mdl.units import as_meant

_DER = b"\x30\x82"
"""How a certificate begins that Windows exported as .cer."""
UNREAD_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables by which other programs are told of certificates. mdl does not read them, but names them if one fails."""
_NO_SETTINGS = HostTls("")


def unheard(words: str) -> None:
    """Take a warning that nobody is to read."""


class Trust:
    """Makes the contexts for all hosts, each when it is first needed; for any number of threads.

    ``environ`` has SSL_CERT_FILE, SSL_CERT_DIR and SSLKEYLOGFILE. ``warn`` is told in words what could not be used.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        hosts: Iterable[HostTls] = (),
        warn: Callable[[str], None] = unheard,
    ) -> None:
        self._environ = environ
        self._hosts = tuple(hosts)
        self._warn = warn
        self._contexts: dict[HostTls, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def _settings_of(self, host: str, port: int) -> HostTls:
        """Return what the user's settings say of this host and port."""
        for settings in self._hosts:
            if settings.is_for(host, port):
                return settings
        return _NO_SETTINGS

    def certificate_for(self, host: str, port: int) -> str:
        """Return the file of the certificate that is shown to this host and port; '' if none is."""
        return str(self._settings_of(host, port).cert or "")

    def context(self, host: str, port: int) -> ssl.SSLContext:
        """Return the context for a connection to this host and port. Raises `TlsError`, and `UsageError` for a file of
        the settings that cannot be read."""
        settings = self._settings_of(host, port)
        with self._lock:
            if settings not in self._contexts:
                self._contexts[settings] = self._make(settings)
            return self._contexts[settings]

    @property
    def unread(self) -> tuple[str, ...]:
        """The variables that name certificates for other programs alone; none if one of mdl's own is set."""
        if self._environ.get("SSL_CERT_FILE") or self._environ.get("SSL_CERT_DIR"):
            return ()
        return tuple(name for name in UNREAD_VARIABLES if self._environ.get(name))

    def _make(self, settings: HostTls) -> ssl.SSLContext:
        context = make_context(self._environ, self._warn)
        if settings.ca:
            _add_authorities(context, settings.ca, settings)
        if settings.cert:
            _show_certificate(context, settings.cert, settings)
        return context


def make_context(environ: Mapping[str, str], warn: Callable[[str], None] = unheard) -> ssl.SSLContext:
    """Return a context that trusts the operating system's certificates, or those in SSL_CERT_FILE and SSL_CERT_DIR.
    Raises `TlsError`, which names the file that cannot be used."""
    file = as_meant(environ.get("SSL_CERT_FILE", ""))
    folder = as_meant(environ.get("SSL_CERT_DIR", ""))
    context = new_context(file, folder)
    context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    if ssl.HAS_NEVER_CHECK_COMMON_NAME:
        context.hostname_checks_common_name = False  # RFC 9525, 2: only a subjectAltName names a host
    _log_keys(context, environ.get("SSLKEYLOGFILE", ""), warn)
    return context


def new_context(file: str, folder: str) -> ssl.SSLContext:
    """Return a context with the certificates of this file and these folders; without both, with those of the system or
    certifi. Raises `TlsError`."""
    if not (file or folder):
        return _usual_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if file:
        _load_authorities(context, Path(file), "fix SSL_CERT_FILE, or unset it")
    parts = filter(None, folder.split(os.pathsep))
    if folder and not file and not any(Path(part).is_dir() for part in parts):
        raise TlsError(f"no CA certificates from {folder}: it is not a folder", hint="fix SSL_CERT_DIR, or unset it")
    if folder:
        context.load_verify_locations(capath=folder)  # OpenSSL says nothing of a folder that is not there
    return context


def _usual_context() -> ssl.SSLContext:
    """Return a context with the certificates of the system, or of certifi if it has none."""
    if has_system_store():
        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    import certifi

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load_authorities(context, Path(certifi.where()), "reinstall certifi")
    return context


def empty_context() -> ssl.SSLContext:
    """Return a context that trusts no certificate, for connections without TLS."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def describe_trust(environ: Mapping[str, str]) -> str:
    """Return which certificates `make_context` trusts, in words."""
    named: list[str] = []
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        place = as_meant(environ.get(name, ""))
        if place:
            named.append(f"{place} ({name})")
    if named:
        return f"those in {' and '.join(named)}"
    return "those of the operating system" if has_system_store() else "those of certifi, as this system has none"


def has_system_store() -> bool:
    """Return whether the operating system has certificates of its own."""
    if platform.system() != "Linux":
        return True
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return True
    try:
        return bool(paths.capath and any(os.scandir(paths.capath)))
    except OSError:
        return False


def _load_authorities(context: ssl.SSLContext, file: Path, hint: str) -> None:
    """Trust the certificates in a file. Raises `TlsError` if there are none, with this ``hint`` unless their format is
    at fault."""
    data = b""
    try:
        data = read_whole(file, LARGEST_RECORD)  # OpenSSL would wait for ever if it were a named pipe
        context.load_verify_locations(cafile=file)
    except OSError as error:
        if data.startswith(_DER):
            hint = f"it is in DER format, and PEM is needed: openssl x509 -inform der -in {file} -out ca.pem"
        raise TlsError(f"no CA certificates from {file}: {_reason(error)}", hint=hint) from error


def _add_authorities(context: ssl.SSLContext, place: Path, settings: HostTls) -> None:
    """Trust the authorities in a file or folder too. Raises `UsageError` if it cannot be read, `TlsError` if it holds
    no certificate."""
    if place.is_dir():
        context.load_verify_locations(capath=place)
        return
    _check_readable(place, "ca", settings)
    _load_authorities(context, place, f"it is ca of {_table(settings)}, in PEM format")


def _show_certificate(context: ssl.SSLContext, cert: Path, settings: HostTls) -> None:
    """Have the context show a certificate to a host that asks for one. Raises `UsageError` if a file cannot be read,
    `TlsError` if certificate, key and password do not belong together."""
    _check_readable(cert, "cert", settings)
    if settings.key:
        _check_readable(settings.key, "key", settings)
    try:
        context.load_cert_chain(cert, settings.key, settings.password)  # None would have OpenSSL ask on the terminal
    except (OSError, ValueError) as error:
        why = "the key is not that of the certificate" if "MISMATCH" in str(error) else _reason(error)
        password = "key_password_env names the variable with the password of a key that has one"
        if settings.password_variable:
            password = f"if the key has a password, set {settings.password_variable} to it"
        hint = f"cert and key of {_table(settings)} must be a certificate and its key in PEM format; {password}"
        raise TlsError(f"no client certificate from {cert}: {why}", hint=hint) from error
    context.post_handshake_auth = True  # a server may ask for it only when it has read the request (RFC 8446, 4.6.2)


def _check_readable(place: Path, key: str, settings: HostTls) -> None:
    """Raises `UsageError` if a file of the settings cannot be read."""
    try:
        read_whole(place, LARGEST_RECORD)
    except OSError as error:
        hint = f"it is {key} of {_table(settings)}"
        raise UsageError(f"it cannot be read: {_reason(error)}", item=str(place), hint=hint) from error


def _table(settings: HostTls) -> str:
    """Return where the settings stand."""
    return f'[hosts."{settings.place}"] in config.toml'


def _log_keys(context: ssl.SSLContext, place: str, warn: Callable[[str], None]) -> None:
    """Have the context write its keys where SSLKEYLOGFILE says, as other programs do."""
    if not place:
        return
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK  # nobody may read a named pipe
        os.close(os.open(place, flags, 0o600))
        context.keylog_filename = place
    except (OSError, ValueError) as error:
        warn(f"SSLKEYLOGFILE is not used: {place}: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Return why, in the system's or OpenSSL's words."""
    return getattr(error, "strerror", None) or str(error)
