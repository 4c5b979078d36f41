"""Certificates: whose word is taken for it that a host is itself."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mdl.doctor.finding import Finding
from mdl.errors import TlsError
from mdl.http.transport import describe_trust, tls_context

_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")
_OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def certificates() -> Finding:
    """The CA certificates that the environment names, or the system's, can be read."""
    for name, advice in (
        ("SSL_CERT_FILE", "let SSL_CERT_FILE name a file of CA certificates in PEM form, or unset it"),
        ("SSL_CERT_DIR", "let SSL_CERT_DIR name a folder that 'openssl rehash' has been through, or unset it"),
    ):
        if why := _trouble(name):
            return Finding("certificates", False, why, advice, TlsError.exit_code)
    try:
        tls_context()
    except TlsError as error:
        return Finding.of(
            "certificates", error, "it must hold CA certificates in PEM form; mend it, or unset the variable"
        )
    return Finding("certificates", True, describe_trust() + _misnamed())


def _trouble(name: str) -> str:
    """Why what the variable ``name`` holds is of no use, as far as nothing would say so before the first connection."""
    value = os.environ.get(name, "")
    folders = name == "SSL_CERT_DIR"
    places = [Path(place) for place in (value.split(os.pathsep) if folders else [value]) if place]
    for place in places:
        if not place.exists():
            return f"{name} names {place}, which is not there"
    if folders and places and not any(map(_has_certificates, places)) and not os.environ.get("SSL_CERT_FILE"):
        return f"{name} names {value}, where no certificate has the name that OpenSSL looks for (as 5ed36f99.0)"
    return ""


def _has_certificates(folder: Path) -> bool:
    try:
        return any(_HASHED.fullmatch(entry.name) for entry in os.scandir(folder))
    except OSError:
        return False


def _misnamed() -> str:
    """A word on the variables of other programs, which may be meant for mdl too."""
    set_ = [name for name in _OTHERS if os.environ.get(name)]
    if not set_ or os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return ""
    return f"; {' and '.join(set_)} {'are' if len(set_) > 1 else 'is'} not read, SSL_CERT_FILE is"
