"""Doctor: checks of what mdl needs from this machine and its network, with advice for each check that fails."""

from __future__ import annotations

import contextlib
import os
import platform
import ssl
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path

from mdl.disk import disk_space
from mdl.disk.safe_open import check_own_folder, read_regular
from mdl.doctor.network import Hub, certificates, clock, endpoint, proxy, token, token_file
from mdl.errors import MdlError, NoSpace, StorageError, UsageError
from mdl.formatting import words_of_code
from mdl.net.client import HttpClient
from mdl.net.credentials import NETRC, HostCredential
from mdl.plugin import broken_plugins, plugins
from mdl.sources.endpoint import Endpoint
from mdl.values import value_class
from mdl.version import full_version
from mdl.weights.pickles import head_of, runs_code

__all__ = ["CheckResult", "Environment", "run_checks"]

Check = Callable[[], str | None]
"""Returns what was found, or None if there is nothing to say. Raises `MdlError`, with a hint, if the check fails."""

_PACKAGES = ("httpx", "huggingface_hub", "typer", "rich", "truststore", "platformdirs", "tomlkit", "isal")
_MOST_FILES = 20_000
"""How many files of the models folder are looked at for pickles."""


@value_class
class CheckResult:
    """What one check found. If it is not ``ok``, ``advice`` says what to do and ``exit_code`` how serious it is."""

    name: str
    ok: bool
    detail: str
    advice: str = ""
    exit_code: int = 0

    @classmethod
    def of(cls, name: str, check: Check) -> CheckResult | None:
        """Run a check. Returns None if it has nothing to say."""
        try:
            detail = check()
        except MdlError as error:
            return cls.failed(name, error)
        return None if detail is None else cls(name, True, detail)

    @classmethod
    def failed(cls, name: str, error: MdlError) -> CheckResult:
        """The result of a check that raised ``error``."""
        item = f"{error.item}: " if error.item and error.item not in error.message else ""
        return cls(name, False, item + error.message, error.advice or "", error.exit_code)

    def error(self) -> MdlError:
        """A failed check as an error: of the kind that has its exit code."""
        kind = next((kind for kind in MdlError.__subclasses__() if kind.exit_code == self.exit_code), MdlError)
        return kind(self.detail, item=self.name, hint=self.advice or None)


@value_class
class Environment:
    """What is checked. Each function may raise `MdlError`, which is then what the check found.

    ``settings``, ``catalog`` and ``lock`` describe themselves in words. If ``connect`` is None, no host is contacted.
    """

    settings: Callable[[], str]
    catalog: Callable[[], str]
    lock: Callable[[], str]
    home: Callable[[], Path]
    state: Callable[[], Path]
    endpoint: Callable[[], Endpoint]
    connect: Callable[[], HttpClient] | None
    credentials: Callable[[], Iterable[HostCredential]] = tuple


def plug_ins() -> str | None:
    """The commands that plug-ins add. Raises `UsageError` if one of them cannot be used."""
    broken = [f"{name}: {reason}" for name, reason in broken_plugins().items()]
    if broken:
        raise UsageError(f"cannot be used: {'; '.join(broken)}", hint="install their packages again, or remove them")
    return ", ".join(name for plugin in plugins() for name in (*plugin.commands, *plugin.sources)) or None


def run_checks(environment: Environment) -> Iterator[CheckResult]:
    """Run every check, one after the other. Nothing is raised but an interruption."""
    local: dict[str, Check] = {
        "versions": versions,
        "plug-ins": plug_ins,
        "settings": environment.settings,
        "catalog": environment.catalog,
        "lock": environment.lock,
        "models folder": partial(models_folder, environment.home),
        "pickles": partial(pickles, environment.home),
        "state folder": partial(state_folder, environment.state),
        "certificates": certificates,
        "host credentials": partial(host_credentials, environment.credentials),
    }
    yield from _results(local)
    try:
        found = environment.endpoint()
    except MdlError as error:
        if error.item == "HF_ENDPOINT":
            failed = CheckResult.failed("endpoint", error.but(hint="set HF_ENDPOINT to https://host, or unset it"))
        else:
            hint = f"put only the token into {error.item}, without spaces or line breaks"
            failed = CheckResult.failed("token", error.but(hint=hint))
        yield failed
        return
    with contextlib.ExitStack() as closing:
        hub = Hub(found, environment.connect, closing)
        remote: dict[str, Check] = {
            "proxy": partial(proxy, found.url),
            "token file": partial(token_file, found),
            "endpoint": partial(endpoint, hub),
            "clock": partial(clock, hub),
            "token": partial(token, hub),
        }
        yield from _results(remote)


def _results(checks: dict[str, Check]) -> Iterator[CheckResult]:
    for name, check in checks.items():
        if result := CheckResult.of(name, check):
            yield result


def versions() -> str:
    """The versions that a report of a fault should name. This check never fails."""
    found = []
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    system = f"Python {platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    return f"mdl {full_version()}, {system}, {ssl.OPENSSL_VERSION}, {', '.join(found)}"


def models_folder(place: Callable[[], Path]) -> str:
    """The models folder can be written, and has free space. Raises `MdlError`."""
    return _writable(place(), "choose another folder with --to or MDL_HOME")


def state_folder(place: Callable[[], Path]) -> str:
    """The folder of records, locks and logs can be written. Raises `StorageError`."""
    try:
        folder = place()
    except MdlError as error:
        return f"none: {error.message}"
    return _writable(folder, "choose another folder with XDG_STATE_HOME")


def _writable(folder: Path, advice: str) -> str:
    """The folder and its free space, after a file without a name has been written there. Raises `StorageError`."""
    parent = folder
    while not os.path.lexists(parent) and parent != parent.parent:  # a link to nowhere exists, and cannot be written
        parent = parent.parent
    try:
        space = disk_space(parent)
        files = f", room for {space.free_files:,} files" if space.free_files is not None else ""
        free = "free space not known" if space.free_bytes is None else f"{space.free_bytes / 1e9:.1f} GB free"
        detail = f"{folder}{'' if parent == folder else ' (does not exist yet)'}: {free}{files}"
        if space.free_bytes == 0:
            raise NoSpace(detail, hint=f"free some space, or {advice}")
        if space.free_files == 0:
            raise NoSpace(detail, hint=f"remove files that are not needed ('df -i' shows the inodes), or {advice}")
        own = folder / ".mdl"
        if os.path.lexists(own):
            _check_own(own, advice)
        with tempfile.TemporaryFile(dir=parent) as probe:
            probe.write(bytes(4096))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        where = f"{folder}" if parent == folder else f"{folder}, to be created in {parent}"
        raise StorageError(f"{where}: {error.strerror or error}", hint=advice) from error
    return detail


def _check_own(own: Path, advice: str) -> None:
    """mdl's own folder in the models folder is one that a download takes. Raises `StorageError`, `Unsafe`."""
    try:
        check_own_folder(own)
    except OSError as error:
        raise StorageError(f"{own}: {error.strerror or error}", hint=advice) from error
    if not os.access(own, os.W_OK | os.X_OK):
        raise StorageError(f"{own} cannot be written by this user", hint=advice)


def pickles(place: Callable[[], Path]) -> str | None:
    """A warning if files in the models folder run code when they are loaded. This check never fails."""
    try:
        folder = place()
    except MdlError:
        return None
    found = []
    for name in islice(_files(folder), _MOST_FILES):
        head = None
        with contextlib.suppress(OSError):
            head = read_regular(folder / name, head_of(name), is_own=False)
        if runs_code(name, head or b""):
            found.append(name)
    return words_of_code(sorted(found)) if found else None


def host_credentials(read: Callable[[], Iterable[HostCredential]]) -> str | None:
    """The hosts that a credential is written down for, and whether there is one now. Raises `UsageError` for one that
    cannot be sent. No host is asked."""
    found = []
    for one in read():
        has, lacks = ("has a login", "has no login") if one.source == NETRC else ("is set", "is not set")
        found.append(f"{one.place}: {one.source} {has if one.secret else lacks}")
    return "; ".join(found) or None


def _files(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.relpath(os.path.join(parent, name), folder) for name in names)
