"""Finding the catalog: flag, environment, this folder and upward, the user's own, the shipped one."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from mdl.errors import storage_error

NAME = "catalog.toml"
SHIPPED = Path(__file__).parent / "shipped.toml"
"""The catalog that comes with mdl."""
_HERE, _ABOVE = "in the current folder", "above the current folder"


def find_catalogs(
    flags: Sequence[Path], environ: Mapping[str, str], cwd: Path, config_dir: Path
) -> tuple[tuple[Path, ...], str]:
    """The catalog files to read, and why these.

    ``--catalog`` comes first, then ``MDL_CATALOG`` (several with ``:`` between), then ``catalog.toml`` in
    ``cwd`` or the nearest folder above it, then the one in ``config_dir``, then the shipped one. What a flag or
    the environment names is not looked at here: that it is missing is for the reader to say.

    Raises `StorageError` for a place that cannot be looked at: another catalog would not be what the user means. Only
    a folder above that the user may not enter is passed over, for nothing in it can be the user's catalog.
    """
    if flags:
        return tuple(flags), "given by --catalog"
    named = [Path(text) for text in environ.get("MDL_CATALOG", "").split(os.pathsep) if text]
    if named:
        return tuple(named), "given by MDL_CATALOG"
    for folder in (cwd, *cwd.parents):
        if _is_there(folder / NAME, may_be_shut=folder != cwd):
            return (folder / NAME,), _HERE if folder == cwd else _ABOVE
    if _is_there(config_dir / NAME):
        return (config_dir / NAME,), "in the user's config folder"
    return (SHIPPED,), "shipped with mdl"


def why_untrusted(path: Path, why: str) -> str | None:
    """Why a catalog that was found, not named, should not be trusted; None if it is the user's own or the system's."""
    if why not in (_HERE, _ABOVE):
        return None
    try:
        link, file = path.lstat(), path.stat()
    except OSError:
        return None
    if not {link.st_uid, file.st_uid} <= {os.geteuid(), 0}:
        return "it belongs to another user"
    return "everybody may write it" if file.st_mode & stat.S_IWOTH else None


def _is_there(path: Path, *, may_be_shut: bool = False) -> bool:
    """A folder of that name is something else; a dangling link counts as a catalog, and will be reported."""
    try:
        os.lstat(path)
        return not path.is_dir()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        if may_be_shut:
            return False
        raise storage_error(error, str(path)) from error
    except OSError as error:
        raise storage_error(error, str(path)) from error
