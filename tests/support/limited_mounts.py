"""File systems that can do less, mounted for real by FUSE: short names (eCryptfs), writes in order alone (buckets).

Run as a program this is the file system itself, which passes everything on to a folder: ``MOUNT FOLDER LIMIT…``, where
a limit is ``names=143``; ``in-order``: a file is written once, from its first byte to its last; ``cuts``: but it may be
cut and extended before; ``write-only``: and not read before it is closed; ``closed``: and
has its name once it is closed; ``bare``: no modes, times and syncing either; ``no-writes``: it has 4,096 bytes at most.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.polling import until

_STATUS = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino", "st_blocks")


@contextlib.contextmanager
def limited_mount(folder: Path, *limits: str) -> Iterator[Path]:
    """A file system with these limits, mounted below ``folder``; skips the test where none can be mounted."""
    import pytest

    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("NO /dev/fuse HERE: file systems with limits are not tried")
    if not shutil.which("fusermount3"):
        pytest.skip("NO fusermount3 HERE: file systems with limits are not tried")
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: the library of the system is missing
        pytest.skip(f"NO FUSE HERE: file systems with limits are not tried: {error}")
    point, below = folder / "mount", folder / "below"
    point.mkdir()
    below.mkdir()
    words = [sys.executable, "-W", "ignore", "-m", "support.limited_mounts", str(point), str(below), *limits]
    process = subprocess.Popen(words, cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: os.path.ismount(point) or process.poll() is not None)
        if process.poll() is not None:
            pytest.skip(f"FUSE MOUNTS NOTHING HERE: {process.stderr and process.stderr.read()}")
        yield point
    finally:
        subprocess.run(["fusermount3", "-uz", str(point)], check=False)
        process.kill()
        process.communicate()


def _serve(point: str, below: str, limits: list[str]) -> None:
    import mfusepy

    longest = next((int(limit.removeprefix("names=")) for limit in limits if limit.startswith("names=")), 255)
    in_order, takes_cuts, is_write_only = (name in limits for name in ("in-order", "cuts", "write-only"))
    is_bare = "bare" in limits
    must_be_closed = "closed" in limits
    writers: dict[int, str] = {}
    takes_writes = "no-writes" not in limits
    ends: dict[int, int] = {}
    written: set[int] = set()
    changing = threading.Lock()

    def place(path: str) -> str:
        if any(len(os.fsencode(name)) > longest for name in path.split("/")):
            raise mfusepy.FuseOSError(errno.ENAMETOOLONG)
        return below + path

    class Limited(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def __call__(self, op: str, *args: Any) -> Any:
            try:
                return super().__call__(op, *args)
            except mfusepy.FuseOSError:
                raise
            except OSError as error:
                raise mfusepy.FuseOSError(error.errno or errno.EIO) from error

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            found = os.lstat(place(path))
            facts = {name: getattr(found, name) for name in _STATUS}
            return {**facts, **{f"st_{name}time": getattr(found, f"st_{name}time_ns") for name in "amc"}}

        def statfs(self, path: str) -> dict[str, int]:
            found = os.statvfs(below)
            names = [name for name in dir(found) if name.startswith("f_") and name != "f_fsid"]
            return {name: getattr(found, name) for name in names}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", *os.listdir(place(path))]

        def mkdir(self, path: str, mode: int) -> None:
            os.mkdir(place(path), mode)

        def rmdir(self, path: str) -> None:
            os.rmdir(place(path))

        def unlink(self, path: str) -> None:
            os.unlink(place(path))

        def rename(self, old: str, new: str) -> None:
            if must_be_closed and old in writers.values():
                raise mfusepy.FuseOSError(errno.EBUSY)
            os.rename(place(old), place(new))

        def link(self, target: str, source: str) -> None:
            if in_order:
                raise mfusepy.FuseOSError(errno.EPERM)
            os.link(place(source), place(target))

        def symlink(self, target: str, source: str) -> None:
            if in_order:
                raise mfusepy.FuseOSError(errno.EPERM)
            os.symlink(source, place(target))

        def readlink(self, path: str) -> str:
            return os.readlink(place(path))

        def chmod(self, path: str, mode: int) -> None:
            if is_bare:
                raise mfusepy.FuseOSError(errno.ENOTSUP)
            os.chmod(place(path), mode)

        def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
            if is_bare:
                raise mfusepy.FuseOSError(errno.ENOTSUP)
            os.utime(place(path), ns=times)

        def create(self, path: str, mode: int, fi: Any = None) -> int:
            fd = os.open(place(path), os.O_RDWR | os.O_CREAT, stat.S_IMODE(mode))
            with changing:
                ends[fd] = 0
            return fd

        def open(self, path: str, flags: int) -> int:
            wants_to_write = flags & (os.O_WRONLY | os.O_RDWR)
            is_begun_anew = flags & os.O_TRUNC
            if in_order and wants_to_write and not is_begun_anew and os.path.getsize(place(path)):
                raise mfusepy.FuseOSError(errno.EPERM)
            fd = os.open(place(path), os.O_RDWR if wants_to_write else os.O_RDONLY)
            if is_begun_anew:
                os.ftruncate(fd, 0)
            with changing:
                ends[fd] = 0
            return fd

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            if is_write_only and fh in written:
                raise mfusepy.FuseOSError(errno.EBADF)
            return os.pread(fh, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            with changing:
                if not takes_writes and offset + len(data) > 4096:
                    raise mfusepy.FuseOSError(errno.ENOTSUP)
                if in_order and offset != ends[fh]:
                    raise mfusepy.FuseOSError(errno.EINVAL)
                ends[fh] = offset + len(data)
                written.add(fh)
                writers[fh] = path
            return os.pwrite(fh, data, offset)

        def truncate(self, path: str, length: int, fh: int | None = None) -> None:
            if in_order and not takes_cuts:
                raise mfusepy.FuseOSError(errno.ENOTSUP)
            os.truncate(place(path), length)

        def flush(self, path: str, fh: int) -> None:
            writers.pop(fh, None)

        def release(self, path: str, fh: int) -> None:
            with changing:
                ends.pop(fh, None)
                written.discard(fh)
            os.close(fh)

        def fsync(self, path: str, datasync: int, fh: int) -> None:
            if is_bare:
                raise mfusepy.FuseOSError(errno.ENOSYS)
            os.fsync(fh)

    mfusepy.FUSE(Limited(), point, foreground=True, nothreads=True, default_permissions=True, attr_timeout=0)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], sys.argv[3:])
