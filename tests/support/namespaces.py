"""Scenes: a part of a test runs in a separate process with private mounts, a private network or another user."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MOUNTS = ("-Urm",)
NETWORK = ("-Urmn",)
USER = ("-U", "--map-user=12345", "--map-group=12345")
"""A user without a name and a home, who owns the tester's files and has no right to what modes forbid."""
_MISSING = 77
_SECONDS = 90.0


def apart(scene: Callable[..., None], folder: Path, kind: tuple[str, ...], *words: str) -> None:
    """Run ``scene(folder, *words)``, a function of a test's module, in a process of its own, in namespaces of that
    kind, or with an empty ``kind`` in those of the test. Skips the test if there are none."""
    prefix = prefix_of(kind) if kind else ()
    tests = Path(__file__).parents[1]
    call = f"here.{scene.__name__}(pathlib.Path(sys.argv[1]), *sys.argv[2:])"
    run = f"import {scene.__module__} as here, pathlib, sys; {call}"
    done = subprocess.run(
        [*prefix, sys.executable, "-c", run, str(folder), *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tests), str(tests.parent)))},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode == _MISSING:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr[-3000:]


@functools.cache
def prefix_of(kind: tuple[str, ...]) -> tuple[str, ...]:
    """The words before a command that is to run in namespaces of that kind; skips the test if there are none."""
    words = ("unshare", *kind)
    try:
        done = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"NO NAMESPACES HERE: {error}")
    if done.returncode:
        pytest.skip(f"NO NAMESPACES HERE: {done.stderr.strip()}")
    return words


@functools.cache
def bound_by_modes() -> tuple[str, ...]:
    """The words before a command that may read only what the modes of files allow, as root otherwise need not."""
    if os.geteuid():
        return ()
    words = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    try:
        works = subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        works = False
    return words if works else prefix_of(USER)


def tool(*words: str) -> None:
    """Run a tool of the system inside a scene; if it is missing or not allowed, the test is skipped."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        missing(str(error))
    if done.returncode:
        missing(f"{' '.join(words)}: {done.stderr.strip()}")


def missing(why: str) -> None:
    """Have the test skipped, from inside a scene."""
    print(f"NOT TRIED HERE: {why}", file=sys.stderr)
    raise SystemExit(_MISSING)


def small_disk(folder: Path, options: str) -> Path:
    """A file system in memory at ``folder``, made with these mount options."""
    folder.mkdir(parents=True, exist_ok=True)
    tool("mount", "-t", "tmpfs", "-o", options, "none", str(folder))
    return folder


def resize(folder: Path, options: str) -> None:
    """Change the mount options of a `small_disk`."""
    tool("mount", "-o", f"remount,{options}", str(folder))


def loopback() -> None:
    """Bring up the loopback interface of a private network."""
    tool("ip", "link", "set", "lo", "up")


@functools.cache
def strace() -> tuple[str, ...]:
    """The words that trace a command and all its threads in silence; skips the test if nothing can be traced."""
    words = ("strace", "-f", "-qq", "-o", os.devnull)
    try:
        works = subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        works = False
    if not works:
        pytest.skip("STRACE CANNOT TRACE HERE: no system call can be made to fail")
    return words


def failing(*calls: str) -> tuple[str, ...]:
    """Words before a command whose system calls are to go wrong: each as ``call:error=EIO:when=3``."""
    names = ",".join(call.partition(":")[0] for call in calls)
    return (*strace(), "-e", f"trace={names}", *(word for call in calls for word in ("-e", f"inject={call}")))
