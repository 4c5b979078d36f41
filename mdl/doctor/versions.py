"""Versions: of mdl and of all that it stands on."""

from __future__ import annotations

import contextlib
import platform
import ssl
from importlib import metadata

from mdl import __version__
from mdl.doctor.finding import Finding

_PACKAGES = ("httpx", "huggingface_hub", "typer", "rich", "truststore", "platformdirs", "tomlkit", "isal")


def versions() -> Finding:
    """For a report of a fault; always ok, as installing has seen to it."""
    found = []
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    system = f"Python {platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    return Finding("versions", True, f"mdl {__version__}, {system}, {ssl.OPENSSL_VERSION}, {', '.join(found)}")
