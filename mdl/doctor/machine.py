"""Checks of this machine: versions, plug-ins, settings, catalog, lock, folders and credentials."""

from __future__ import annotations

import contextlib
import os
import platform
import ssl
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mdl.config import places
from mdl.disk import disk_space
from mdl.disk.own_files import check_own_folder
from mdl.errors import MdlError, NoSpace, StorageError, UsageError, joint_error
from mdl.formatting import counted
from mdl.net.credentials import NETRC
from mdl.plugin import broken_plugins, plugins
from mdl.version import full_version

if TYPE_CHECKING:
    from mdl.client import Client

_PACKAGES = ("httpx", "huggingface_hub", "typer", "rich", "truststore", "platformdirs", "tomlkit", "isal")


def versions() -> str:
    """The versions that a report of a fault should name. This check never fails."""
    system = f"Python {platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    found = [f"mdl {full_version()}", system, ssl.OPENSSL_VERSION]
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return ", ".join(found)


def plug_ins() -> str:
    """The commands that plug-ins add. Raises `UsageError` if one of them cannot be used."""
    broken = [f"{name}: {reason}" for name, reason in broken_plugins().items()]
    if broken:
        raise UsageError(f"cannot be used: {'; '.join(broken)}", hint="install their packages again, or remove them")
    names: list[str] = []
    for plugin in plugins():
        names += [*plugin.commands, *plugin.sources]
    return ", ".join(names)


def settings(client: Client, trouble: MdlError | None) -> str:
    """The file of the settings. Raises `MdlError` for whatever is wrong with it, the ``trouble``, or with a setting."""
    problem = trouble or joint_error([setting.error for setting in client.settings() if setting.error])
    if problem:
        raise problem
    try:
        path = places.config_file()
    except UsageError as error:
        return f"none: {error.message}"
    return str(path) if path.exists() else f"{path} (does not exist)"


def is_offline(client: Client) -> bool:
    """Whether nothing is to be contacted; not if that setting is wrong, which `settings` reports."""
    try:
        return client.config.is_offline
    except UsageError:
        return False


def catalog(client: Client) -> str:
    """The catalog in use, and why it is that one. Raises `MdlError`."""
    paths, why = client.catalogs.found
    return f"{counted(len(client.catalog.models), 'model')} in {', '.join(map(str, paths))} ({why})"


def lock(client: Client) -> str:
    """The lock beside the catalog. Raises `MdlError`."""
    locked = client.catalogs.locked
    if locked is None:
        return "none; 'mdl lock' writes one"
    return f"{counted(len(locked.models), 'model')} in {client.catalogs.lock_path}"


def models_folder(place: Callable[[], Path]) -> str:
    """The models folder can be written, and has free space. Raises `MdlError`."""
    return _check_folder(place(), "choose another folder with --to or MDL_HOME")


def state_folder(place: Callable[[], Path]) -> str:
    """The folder of records, locks and logs can be written. Raises `StorageError`."""
    try:
        folder = place()
    except MdlError as error:
        return f"none: {error.message}"
    return _check_folder(folder, "choose another folder with XDG_STATE_HOME")


def _check_folder(folder: Path, advice: str) -> str:
    """The folder and its free space, after a file without a name has been written there. Raises `StorageError`."""
    parent = folder
    while not os.path.lexists(parent) and parent != parent.parent:  # a link to nowhere exists, and cannot be written
        parent = parent.parent
    name = str(folder)
    place = name
    if parent != folder:
        name += " (does not exist yet)"
        place += f", to be created in {parent}"
    try:
        detail = f"{name}: {_free_space(parent, advice)}"
        _check_own(folder / ".mdl", advice)
        with tempfile.TemporaryFile(dir=parent) as probe:
            probe.write(bytes(4096))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise StorageError(f"{place}: {error.strerror or error}", hint=advice) from error
    return detail


def _free_space(folder: Path, advice: str) -> str:
    """The free space of a disk in words. Raises `NoSpace` if there is none, `OSError`."""
    space = disk_space(folder)
    words = "free space not known"
    if space.free_bytes is not None:
        words = f"{space.free_bytes / 1e9:.1f} GB free"
    if space.free_files is not None:
        words += f", room for {space.free_files:,} files"
    if space.free_bytes == 0:
        raise NoSpace(f"{folder}: {words}", hint=f"free some space, or {advice}")
    if space.free_files == 0:
        hint = f"remove files that are not needed ('df -i' shows the inodes), or {advice}"
        raise NoSpace(f"{folder}: {words}", hint=hint)
    return words


def _check_own(own: Path, advice: str) -> None:
    """mdl's own folder in the models folder is one that a download takes, if it is there. Raises `StorageError`,
    `Unsafe`."""
    if not os.path.lexists(own):
        return
    try:
        check_own_folder(own)
    except OSError as error:
        raise StorageError(f"{own}: {error.strerror or error}", hint=advice) from error
    if not os.access(own, os.W_OK | os.X_OK):
        raise StorageError(f"{own} cannot be written by this user", hint=advice)


def host_credentials(client: Client) -> str:
    """The hosts for which the settings name a credential, and whether there is one now. No host is asked. Raises
    `UsageError` for a credential that cannot be sent."""
    words: list[str] = []
    for credential in client.network.credentials.values():
        credential.check()
        has_secret = bool(credential.secret)
        if credential.source == NETRC:
            state = "has a login" if has_secret else "has no login"
        else:
            state = "is set" if has_secret else "is not set"
        words.append(f"{credential.place}: {credential.source} {state}")
    return "; ".join(words)
