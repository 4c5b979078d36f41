"""Abilities: what the file system of a folder can do, found by trying it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mdl.doctor.finding import Finding
from mdl.errors import StorageError
from mdl.fs.volume import filesystem_type

_FICLONE = 0x40049409
_APPARENT = 2**24
_BEYOND_4_GIB = 2**32 + 1


def abilities(folder: Path) -> Finding:
    """Try everything in ``folder``, which is the prober's own. Raises `OSError` where not even a file can be made."""
    file = folder / "file"
    file.write_bytes(b"x" * 4096)
    tries: dict[str, Callable[[Path], bool]] = {
        "hard links": _links_hard,
        "symbolic links": _links_symbolically,
        "sparse files": _leaves_holes,
        "reflinks": _clones,
        "files over 4 GiB": _holds_large,
    }
    can = {name: _worked(does, file) for name, does in tries.items()}
    locks, trouble = _locks(file)
    has = [*locks, *(name for name, worked in can.items() if worked)]
    lacks = [name for name, worked in can.items() if not worked]
    parts = [
        f"{filesystem_type(folder) or 'it'} has {', '.join(has)}" + (f"; no {', no '.join(lacks)}" if lacks else "")
    ]
    if longest := _longest_name(folder):
        parts.append(f"names up to {longest} bytes")
    if (folder / "FILE").exists():
        parts.append("upper and lower case are the same")
    if trouble:
        advice = "choose a folder on another file system with --to or MDL_HOME; on NFS see that its lock service runs"
        return Finding("file system", False, f"{'; '.join(parts)}; no locks: {trouble}", advice, StorageError.exit_code)
    return Finding("file system", True, "; ".join(parts))


def _worked(does: Callable[[Path], bool], file: Path) -> bool:
    try:
        return does(file)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        return False


def _locks(file: Path) -> tuple[list[str], str]:
    """What its locks are worth, and the system's words where there are none. A lock of another descriptor must
    keep this one out; Lustre and some NFS let both in."""
    first, second = os.open(file, os.O_RDWR), os.open(file, os.O_RDWR)
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ["locks"], ""
    except OSError as error:
        return [], error.strerror or str(error)
    finally:
        os.close(second)
        os.close(first)
    return ["locks that keep nobody out (mdl does not rely on them)"], ""


def _links_hard(file: Path) -> bool:
    os.link(file, file.with_name("hard"))
    return os.stat(file).st_ino == os.stat(file.with_name("hard")).st_ino


def _links_symbolically(file: Path) -> bool:
    os.symlink(file.name, file.with_name("symbolic"))
    return file.with_name("symbolic").is_symlink()


def _leaves_holes(file: Path) -> bool:
    with file.with_name("sparse").open("wb") as sparse:
        sparse.truncate(_APPARENT)
        return os.fstat(sparse.fileno()).st_blocks * 512 < _APPARENT


def _clones(file: Path) -> bool:
    """Linux's FICLONE: another file on the same blocks, until one of them is written."""
    if sys.platform != "linux":
        return False
    with file.open("rb") as source, file.with_name("clone").open("wb") as clone:
        fcntl.ioctl(clone.fileno(), _FICLONE, source.fileno())
    return True


def _holds_large(file: Path) -> bool:
    """Asked only where it costs nothing: a file system without holes would write them."""
    if not file.with_name("sparse").stat().st_blocks * 512 < _APPARENT:
        return filesystem_type(file.parent) not in ("vfat", "msdos")
    os.truncate(file.with_name("sparse"), _BEYOND_4_GIB)
    return True


def _longest_name(folder: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return os.pathconf(folder, "PC_NAME_MAX")
    return 0
