"""Which certificates are trusted."""

from __future__ import annotations

import os
import platform
import ssl
from pathlib import Path

import truststore

from mdl.errors import TlsError
from mdl.fs.private import read_whole

_LARGEST = 16 * 2**20


def tls_context() -> ssl.SSLContext:
    """The operating system's CA store, or what SSL_CERT_FILE and SSL_CERT_DIR name. Raises `TlsError`."""
    context = _context()
    if ssl.HAS_NEVER_CHECK_COMMON_NAME:
        context.hostname_checks_common_name = False  # RFC 9525, 2: a name is a subjectAltName
    return context


def _context() -> ssl.SSLContext:
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    try:
        if file:
            read_whole(Path(file), _LARGEST)  # OpenSSL would wait for a pipe
        if file or folder:
            return ssl.create_default_context(cafile=file or None, capath=folder or None)
        if _no_system_store():
            import certifi

            return ssl.create_default_context(cafile=certifi.where())
        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    except OSError as error:
        name = file or folder or "the system's CA store"
        raise TlsError(
            f"no CA certificates from {name}: {error.strerror or error}", hint="fix SSL_CERT_FILE or SSL_CERT_DIR"
        ) from error


def trusted() -> str:
    """Whose certificates `tls_context` trusts, in words."""
    named = [f"{os.environ[name]} ({name})" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
    if named:
        return f"those in {' and '.join(named)}"
    return "those of certifi, as this system has none" if _no_system_store() else "those of the operating system"


def _no_system_store() -> bool:
    if platform.system() != "Linux":
        return False
    paths = ssl.get_default_verify_paths()
    return not (paths.cafile or (paths.capath and any(os.scandir(paths.capath))))
