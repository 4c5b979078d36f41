"""Doctor: what of this machine's surroundings works, and what to do about what does not."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import ssl
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path

from mdl import __version__
from mdl.errors import MdlError, StorageError, TlsError
from mdl.net.hosts import host_of
from mdl.net.http import Http
from mdl.sources.endpoint import Endpoint

_PACKAGES = ("httpx", "huggingface_hub", "typer", "rich", "truststore", "filelock", "platformdirs")
_CLOCK_SECONDS = 120


@dataclass(frozen=True)
class Finding:
    """One thing looked at; where it is not ok ``advice`` says what to do, and ``exit_code`` is what it amounts to."""

    name: str
    ok: bool
    detail: str
    advice: str = ""
    exit_code: int = 2


def examine(endpoint: Endpoint, http: Http | None, home: Path, state: Path | None) -> list[Finding]:
    """Look at everything; nothing raises. Without ``http`` nobody is contacted."""
    findings = [_versions(), _proxy(), _certificates(), _token(endpoint), *_disk("models folder", home)]
    if state is not None:
        findings += _disk("state folder", state)[:1]
    return [*findings, *(_hub(endpoint, http) if http else [Finding("endpoint", True, "not asked (offline)")])]


def _versions() -> Finding:
    found = []
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    detail = f"mdl {__version__}, python {platform.python_version()}, {ssl.OPENSSL_VERSION}, {', '.join(found)}"
    return Finding("versions", True, detail)


def _proxy() -> Finding:
    proxies = urllib.request.getproxies()
    shown = [f"{scheme}: {_without_userinfo(url)}" for scheme, url in sorted(proxies.items())]
    return Finding("proxy", True, ", ".join(shown) or "none set")


def _without_userinfo(url: str) -> str:
    scheme, slashes, rest = url.rpartition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}"


def _certificates() -> Finding:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        value = os.environ.get(name)
        if value and not Path(value).exists():
            why = f"{name} names {value}, which is not there"
            return Finding("certificates", False, why, f"fix or unset {name}", TlsError.exit_code)
        if value:
            return Finding("certificates", True, f"{name}={value}")
    return Finding("certificates", True, "the operating system's store")


def _token(endpoint: Endpoint) -> Finding:
    if endpoint.token is None:
        return Finding("token", True, "none: gated and private repositories will refuse")
    path = Path(endpoint.token_from)
    with contextlib.suppress(OSError):
        if path.is_absolute() and path.stat().st_mode & 0o077:
            return Finding("token", False, f"{path} can be read by others", f"chmod 600 {path}")
    return Finding("token", True, f"from {endpoint.token_from}, for {host_of(endpoint.url)} only")


def _disk(name: str, folder: Path) -> list[Finding]:
    """Room, and whether a file can be written, synced, linked and replaced there."""
    at = folder
    while not os.path.exists(at) and at != at.parent:
        at = at.parent
    try:
        space = os.statvfs(at)
        can = _abilities(at)
    except OSError as error:
        advice = "choose another with --to or MDL_HOME"
        return [Finding(name, False, f"{folder}: {error.strerror}", advice, StorageError.exit_code)]
    free = space.f_bavail * space.f_frsize
    detail = f"{folder}: {free / 1e9:.1f} GB free, {space.f_favail} inodes free"
    return [
        Finding(name, free > 0, detail, "" if free else "free some space"),
        Finding(f"{name}: abilities", True, can),
    ]


def _abilities(folder: Path) -> str:
    probe = folder / f".mdl-doctor-{secrets.token_hex(6)}"
    fd = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    can = ["write"]
    try:
        os.ftruncate(fd, 2**24)
        if os.fstat(fd).st_blocks * 512 < 2**24:
            can.append("sparse files")
        began = time.monotonic()
        os.pwrite(fd, b"\0" * 2**20, 0)
        os.fsync(fd)
        can.append(f"sync in {(time.monotonic() - began) * 1000:.0f} ms")
        for name, make in (("hard links", os.link), ("symbolic links", os.symlink)):
            other = probe.with_name(probe.name + ".link")
            with contextlib.suppress(OSError):
                make(probe, other)
                can.append(name)
            other.unlink(missing_ok=True)
    finally:
        os.close(fd)
        probe.unlink()
    return ", ".join(can)


def _hub(endpoint: Endpoint, http: Http) -> list[Finding]:
    name = host_of(endpoint.url)
    try:
        with http.open("GET", f"{endpoint.url}/api/models?limit=1", allow=tuple(range(400, 600))) as opened:
            headers = opened.headers
            status = opened.status
    except MdlError as error:
        advice = error.hint or "check the network"
        return [Finding("endpoint", False, f"{endpoint.url}: {error.message}", advice, error.exit_code)]
    return [Finding("endpoint", True, f"{endpoint.url} answers ({name}, status {status})"), *_clock(headers)]


def _clock(headers: Mapping[str, str]) -> list[Finding]:
    try:
        skew = abs((datetime.now(UTC) - parsedate_to_datetime(headers["date"])).total_seconds())
    except (KeyError, ValueError, TypeError):
        return []
    ok = skew < _CLOCK_SECONDS
    return [
        Finding("clock", ok, f"{skew:.0f} s from the endpoint's", "" if ok else "set the clock; TLS needs it right")
    ]
