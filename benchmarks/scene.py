"""What the benchmarks share: files to serve, a catalog that names them, an environment of their own."""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_STEP = 2**20
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class Sample:
    """A file to serve."""

    path: Path
    size: int
    sha256: str


@contextmanager
def folder(under: Path | None) -> Iterator[Path]:
    """A temporary folder on the disk to measure, removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="mdl-bench-", dir=under))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def memory(size: int) -> Path | None:
    """A folder in memory with room for so many bytes, to serve them from; None where there is none."""
    place = Path("/dev/shm")
    return place if place.is_dir() and shutil.disk_usage(place).free > 2 * size else None


def size_of(text: str) -> int:
    """``64M``, ``1G``, ``20G``: powers of two, for argparse."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text.upper())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512M or 4G")
    return int(match[1]) * _UNITS[match[2]]


def shown(size: int) -> str:
    return f"{size / 2**30:g} GiB" if size >= 2**30 else f"{size / 2**20:g} MiB"


def random_file(path: Path, size: int, seed: int = 1) -> Sample:
    """Bytes that do not compress, the same for the same seed."""
    draw, digest, left = random.Random(seed), hashlib.sha256(), size
    with path.open("wb") as file:
        while left:
            block = draw.randbytes(min(_STEP, left))
            digest.update(block)
            left -= file.write(block)
        os.fsync(file.fileno())
    return Sample(path, size, digest.hexdigest())


def sparse_file(path: Path, size: int) -> Sample:
    """Zeros that take no room on the serving side."""
    digest, zeros = hashlib.sha256(), bytes(_STEP)
    with path.open("wb") as file:
        file.truncate(size)
    for _ in range(size // _STEP):
        digest.update(zeros)
    digest.update(zeros[: size % _STEP])
    return Sample(path, size, digest.hexdigest())


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def growing(under: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The files under a folder in which somebody is at work, by name; what goes away meanwhile is passed over."""
    for folder, _, names in os.walk(under):
        for name in names:
            with suppress(OSError):
                yield name, os.lstat(os.path.join(folder, name))


def catalog(path: Path, sample: Sample, url: str) -> Path:
    """A catalog of one model, ``bench``, whose one file has its size and sha256."""
    path.write_text(
        f'schema = 1\n[models.bench]\ntitle = "Benchmark"\n[[models.bench.files]]\npath = "{sample.path.name}"\n'
        f'url = "{url}"\nsize = {sample.size}\nsha256 = "{sample.sha256}"\n'
    )
    return path


def mdl_get(book: Path, target: Path, *flags: str) -> list[str]:
    """The command that downloads, verifies and publishes what ``book`` names into ``target``."""
    command = [sys.executable, "-m", "mdl", "get", "bench", "--catalog", str(book), "--to", str(target)]
    return [*command, "--progress", "none", "--quiet", *flags]


def environment(home: Path) -> dict[str, str]:
    """This environment without proxies, tokens and settings, and with a home of its own."""
    names = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV")
    env = {name: os.environ[name] for name in names if name in os.environ}
    home.mkdir(parents=True, exist_ok=True)
    return {**env, "HOME": str(home), "NO_PROXY": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"}


def remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def tool(name: str) -> str | None:
    """A program on PATH, or beside this Python."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def skip(why: str, code: int) -> None:
    print(f"SKIPPED: {why}", file=sys.stderr)
    raise SystemExit(code)


def common_flags(parser: argparse.ArgumentParser, size: str) -> None:
    parser.add_argument("--size", type=size_of, default=size_of(size), help=f"bytes of the file, as 512M [{size}]")
    parser.add_argument("--dir", type=Path, help="folder on the disk to measure [the system's temporary folder]")
