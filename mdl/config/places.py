"""Places: where the catalog, the settings, mdl's state and the hub's cache are. No other module looks for one."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import platformdirs

from mdl.disk import publish
from mdl.disk.safe_open import make_folders
from mdl.errors import UsageError, storage_error
from mdl.units import as_meant
from mdl.values import value_class

CATALOG_NAME = "catalog.toml"
LOCK_NAME = "mdl.lock"
SHIPPED = Path(__file__).parents[1] / "catalog" / "shipped.toml"
"""The catalog that comes with mdl."""
SHIPPED_LOCK = SHIPPED.with_name("shipped.lock")
"""What is known of its models' files."""
_HERE = "in the current folder"
_ABOVE = "above the current folder"


def is_shipped(path: Path) -> bool:
    """Whether this is the catalog that comes with mdl, by whatever name, or that of a clone of mdl."""
    return Path(os.path.realpath(path)).parts[-3:] == SHIPPED.parts[-3:]


@value_class
class Place:
    """A file or folder, and why this one."""

    path: Path
    why: str


def user_folder(find: Callable[[str], str]) -> Path:
    """The folder that ``find`` names for mdl. Raises `UsageError` for a user without a home folder."""
    try:
        folder = find("mdl")
    except RuntimeError:
        folder = "~"
    if folder.startswith("~") or not Path(folder).is_absolute():
        hint = "set HOME, or name a folder with --to (home=), MDL_HOME or XDG_CONFIG_HOME"
        raise UsageError("this user has no home folder", hint=hint)
    return Path(folder)


def config_dir() -> Path:
    return user_folder(platformdirs.user_config_dir)


def state_dir() -> Path:
    return user_folder(platformdirs.user_state_dir)


def config_file() -> Path:
    return config_dir() / "config.toml"


def make_folder_of(file: Path) -> None:
    """Make the folder for a file of the user's. One in the user's config folder is for the user alone, and so is what
    is made above it: a ``config.toml`` there names programs that mdl starts. Raises `OSError`."""
    folder = Path(os.path.realpath(file.parent))
    with contextlib.suppress(UsageError):  # a user without a home folder
        if folder.is_relative_to(os.path.realpath(config_dir())):
            make_folders(folder)
    folder.mkdir(parents=True, exist_ok=True)


def find_catalogs(
    given: Sequence[Path], environ: Mapping[str, str], cwd: Path, user_dir: Path
) -> tuple[tuple[Path, ...], str]:
    """The catalog files to read, and why these.

    What was ``given`` comes first, then ``MDL_CATALOG`` (several with ``:`` between), then ``catalog.toml`` in
    ``cwd`` or the nearest folder above it, then the one in ``user_dir``, then the shipped one. What is given or in
    the environment is not looked at here: that it is missing is for the reader to say. The ``catalog.toml`` of a clone
    of mdl is a link to the shipped one, and is passed over: it is no catalog of the user's.

    Raises `StorageError` for a place that cannot be looked at: another catalog would not be what the user means. Only
    a folder above that the user may not enter is passed over, for nothing in it can be the user's catalog.
    """
    if given:
        return tuple(given), "given by --catalog"
    texts = as_meant(environ.get("MDL_CATALOG", "")).split(os.pathsep)
    named = [expanded(text, "MDL_CATALOG") for text in texts if text]
    if named:
        return tuple(named), "given by MDL_CATALOG"
    for folder in (cwd, *cwd.parents):
        found = folder / CATALOG_NAME
        if _is_there(found, may_be_shut=folder != cwd) and not is_shipped(found):
            return (found,), _HERE if folder == cwd else _ABOVE
    if _is_there(user_dir / CATALOG_NAME):
        return (user_dir / CATALOG_NAME,), "in the user's config folder"
    return (SHIPPED,), "shipped with mdl"


def why_untrusted(path: Path, why: str) -> str | None:
    """Why a catalog that was found, not named, should not be trusted; None if it is the user's own or the system's."""
    if why not in (_HERE, _ABOVE):
        return None
    try:
        link = path.lstat()
        file = path.stat()
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
    except OSError as error:
        if may_be_shut and isinstance(error, PermissionError):
            return False
        raise storage_error(error, str(path)) from error


CACHE_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Hugging Face's cache: ``HF_HUB_CACHE``, ``HF_HOME``, the user cache folder, as huggingface_hub finds it."""
    named = as_meant(environ.get("HF_HUB_CACHE", "")) or as_meant(environ.get("HUGGINGFACE_HUB_CACHE", ""))
    if named:
        return expanded(os.path.expandvars(named), "HF_HUB_CACHE").absolute()
    home = as_meant(environ.get("HF_HOME", ""))
    if not home:
        cache = as_meant(environ.get("XDG_CACHE_HOME", "")) or "~/.cache"
        home = os.path.join(cache, "huggingface")
    if home.startswith("~/"):
        return user_folder(lambda _name: str(Path(os.path.expandvars(home)).expanduser().absolute())) / "hub"
    return expanded(os.path.expandvars(home), "HF_HOME").absolute() / "hub"


_CACHES_OF_LIBRARIES = ("TRANSFORMERS_CACHE", "SENTENCE_TRANSFORMERS_HOME")
"""Variables by which libraries have the hub's client keep its cache elsewhere. Nothing is written there (ADR 144)."""


def further_hub_caches(environ: Mapping[str, str]) -> list[Path]:
    """Folders that are laid out as Hugging Face's cache, and that a library names instead of it. Raises `UsageError`
    for one below the home of nobody."""
    caches: list[Path] = []
    for variable in _CACHES_OF_LIBRARIES:
        named = as_meant(environ.get(variable, ""))
        if named:
            caches.append(expanded(os.path.expandvars(named), variable).absolute())
    return caches


def working_folder() -> Path:
    """The current folder; ``/`` if it was deleted meanwhile, so that absolute paths still work."""
    try:
        return Path.cwd()
    except OSError:
        return Path(os.sep)


def place_of(text: str | os.PathLike[str], what: str) -> Path:
    """A path as it was given; an empty one, as of an unset variable, raises `UsageError` naming ``what``."""
    if not os.fspath(text):
        raise UsageError("it is empty", item=what, hint="is a variable unset?")
    return expanded(text, what)


def expanded(path: str | os.PathLike[str], what: str) -> Path:
    """The path with ``~`` and ``~name`` replaced by the home folder of that user. ``$HOME`` means the same: nobody
    replaces it in a .env file and a unit of systemd. Raises `UsageError` naming ``what`` if there is no such user or
    home folder, and for a URL."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(path)):
        raise UsageError("it is a URL, and a path on this machine is needed", item=what, hint="name a folder or a file")
    path = re.sub(r"\A\$(HOME|\{HOME\})(?=/|\Z)", "~", os.fspath(path))
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        name = Path(path).parts[0]
        hint = "write the full path, or ./~… for a name that begins with ~"
        raise UsageError(f"there is no home folder for {name}", item=what, hint=hint) from error


def output_file(path: Path | None, what: str) -> Path | None:
    """The path of a file that is to be replaced as a whole: a regular file, or nothing yet; None if none was given. A
    link there is not followed, for another user may have put it there, nor replaced: ``/dev/stdout`` is one.

    Raises `UsageError` naming ``what`` if something else is there.
    """
    if path is None:
        return None
    path = expanded(path, what)
    trouble = "it is a link, and mdl replaces regular files only" if path.is_symlink() else ""
    try:
        publish.refuse_special(path)
    except FileExistsError as error:
        trouble = str(error.strerror)
    except OSError:
        return path  # writing it will say why that is not possible
    if trouble:
        raise UsageError(f"{path}: {trouble}", item=what, hint="name a regular file, or a new one")
    return path
