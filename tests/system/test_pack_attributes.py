"""mdl pack and files that are more than their bytes: holes, extended attributes, access lists, sizes that lie."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from support.data import noise
from support.packing import read_whole
from support.shell import Shell

from mdl.operations.pack import pack
from mdl.operations.release import unpack


def with_hole(path: Path) -> None:
    """Data, a hole of 8 MiB, data."""
    with path.open("wb") as file:
        file.write(noise(5000))
        file.seek(2**23)
        file.write(noise(5000, 1))
    if path.stat().st_blocks * 512 >= 2**23:
        pytest.skip("this file system knows no holes")


def with_attributes(path: Path) -> None:
    """As much in extended attributes as the file system takes."""
    path.write_bytes(noise(5000))
    try:
        os.setxattr(path, "user.note", b"canary" * 300)
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    for size in (60_000, 3000, 1000):
        try:
            os.setxattr(path, "user.more", b"x" * size)
        except OSError:
            continue
        return


def with_access_list(path: Path) -> None:
    """An access list that lets a stranger read and write."""
    path.write_bytes(noise(5000))
    entries = ((0x01, 6, 2**32 - 1), (0x02, 6, 65534), (0x04, 4, 2**32 - 1), (0x10, 6, 2**32 - 1), (0x20, 4, 2**32 - 1))
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", packed)
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")


@pytest.mark.fault(219)
@pytest.mark.parametrize("make", [with_hole, with_attributes, with_access_list], ids=lambda make: make.__name__)
def test_only_bytes_are_packed(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Holes are zeros; attributes and access lists stay behind: the archive is that of a file with the same bytes."""
    for name in ("plain", "odd"):
        (tmp_path / name).mkdir()
    make(tmp_path / "odd" / "w.bin")
    (tmp_path / "plain" / "w.bin").write_bytes((tmp_path / "odd" / "w.bin").read_bytes())
    (tmp_path / "plain" / "w.bin").chmod(0o644)
    for name in ("plain", "odd"):
        pack(tmp_path / name, tmp_path / f"{name}.zip")
    odd, plain = (read_whole(tmp_path / f"{name}.zip") for name in ("odd", "plain"))
    assert odd["w.bin"] == plain["w.bin"]
    assert b"canary" not in (tmp_path / "odd.zip").read_bytes()
    unpack(tmp_path / "odd.zip", tmp_path / "out")
    assert set(os.listxattr(tmp_path / "out" / "w.bin")) <= {"security.selinux"}


MOUNTED = 'mount --bind /proc/version "$0" || exit 99; exec "$@"'


@pytest.mark.fault(209)
def test_a_file_that_says_it_is_empty(tmp_path: Path) -> None:
    """A file as in /proc, of no size and yet with bytes, hangs nothing and is as long as it says, as for tar."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "w.bin").write_bytes(b"weights")
    (tmp_path / "run" / "version.bin").touch()
    prefix = ("unshare", "-rm", "sh", "-c", MOUNTED, str(tmp_path / "run" / "version.bin"))
    ran = Shell(tmp_path).run("pack", "run", prefix=prefix)
    if ran.code == 99 or "unshare" in ran.err:
        pytest.skip(f"no mounts of one's own here: {ran.err}")
    held = read_whole(tmp_path / "model_run.zip")
    assert (ran.code, held["version.bin"], held["w.bin"]) == (0, b"", b"weights")
