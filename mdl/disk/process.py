"""Processes: which one something belongs to, whether it is still alive, and running a program of the user's own.

A process is named by the boot of its machine, its PID name space, its number and the moment it started, so that a later
process with the same number is never mistaken for it. A process of another machine or container cannot be seen from
here: `mdl.disk.mutex` then tells from the files that it keeps locked and touches whether it is alive.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mdl.cancel import CancelToken
from mdl.errors import UsageError
from mdl.values import value_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATTERN = r"[0-9a-f]{12}-[0-9]+-[0-9]+-[0-9]+"
"""What the text of a `ProcessId` matches."""
_HIDDEN = "?"
"""The start time of a process that exists but cannot be inspected."""
_UNKNOWN = "0"
"""The start time of a process that exists if /proc does not describe this PID name space."""
_STDERR = 2
"""A user's program writes to mdl's stderr: stdout is for mdl's own data."""
_starting = threading.RLock()
"""Held while the limit of core files is another one, so that only the child to be started gets that."""
_core_limit: int | None = None
"""The soft limit of core files that the user set, while mdl's own is 0."""
_TICK_SECONDS = 0.05
"""How often mdl checks whether it is to stop while a program runs."""


@value_class
class ProcessId:
    """One process of one boot of one machine. ``text`` can be part of a file name:
    ``<machine>-<pid>-<start in clock ticks>-<PID name space>``. Of a process with any other text nothing is known."""

    text: str

    @classmethod
    def current(cls) -> ProcessId:
        """This process."""
        return _current(os.getpid())

    @property
    def pid(self) -> int:
        """Its number; 0 if the text is no process id."""
        parts = self._parts
        return int(parts[1]) if parts else 0

    def is_alive(self) -> bool | None:
        """Return whether it still runs; None if that cannot be known from here."""
        if not self._parts:
            return None
        machine, pid, recorded, namespace = self._parts
        if machine != _machine() or namespace != _namespace():
            return None
        started = _start_time(int(pid))
        if started is None:
            return False
        if started == _HIDDEN:
            return None
        return started == recorded or _UNKNOWN in (started, recorded)

    def is_stopped(self) -> bool:
        """Return whether it runs no more until it is told to go on (SIGCONT), as after Ctrl-Z. False if that is not
        known."""
        with contextlib.suppress(OSError):
            return bool(self.is_alive()) and _state_and_more(self.pid)[0] in "Tt"
        return False

    @property
    def _parts(self) -> list[str]:
        return self.text.split("-") if re.fullmatch(PATTERN, self.text) else []

    def __str__(self) -> str:
        return self.text


@functools.lru_cache(maxsize=1)
def _current(pid: int) -> ProcessId:
    """This process, whose number is ``pid``: another one after a fork."""
    return ProcessId(f"{_machine()}-{pid}-{_start_time(pid) or _UNKNOWN}-{_namespace()}")


def free_descriptors() -> int:
    """Return how many more files and sockets this process may open (``ulimit -n``)."""
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError):
        return max(0, most - sum(1 for _ in os.scandir("/dev/fd")))
    return most


def allow_descriptors(count: int) -> None:
    """Let this process have ``count`` files and sockets open, or as many as the hard limit allows (``ulimit -Hn``). The
    usual soft limit is 1,024; it is raised as far as needed, and never lowered."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def hostname() -> str:
    """Return the name of this machine."""
    return platform.node()


@functools.cache
def this_boot() -> str:
    """This boot of this machine, as 12 hex digits; '' if the system does not number its boots."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return _short_hash(boot) if boot else ""


@functools.cache
def _machine() -> str:
    """This boot of this machine; this machine by its host name if the system does not number its boots."""
    return this_boot() or _short_hash(platform.node())


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _namespace() -> str:
    """Return the PID name space of this process; 0 if the system has none."""
    with contextlib.suppress(OSError):
        return str(os.stat("/proc/self/ns/pid").st_ino)
    return "0"


def _start_time(pid: int) -> str | None:
    """Return when process ``pid`` started, in clock ticks since boot; None if there is no such process. Another user's
    process may be hidden (the mount option ``hidepid``)."""
    try:
        is_described = os.readlink("/proc/self") == str(os.getpid())
    except OSError:  # no /proc, or that of another PID name space
        is_described = False
    if is_described:
        with contextlib.suppress(OSError, IndexError, ValueError):
            state, *rest = _state_and_more(pid)
            return None if state in "ZX" else rest[18]
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:
        return _HIDDEN if is_described else _UNKNOWN
    return None if is_described else _UNKNOWN


def _state_and_more(pid: int) -> list[str]:
    """Return what ``/proc/PID/stat`` says of a process, from the letter of its state on. Raises `OSError`."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def isolated_python() -> list[str]:
    """Return the words that start this Python so that it imports nothing from the current folder, from the user's
    folder of packages, or from what a variable ``PYTHON…`` names. Raises `UsageError` if nobody knows where this Python
    is."""
    if not sys.executable:
        raise UsageError(
            "mdl cannot start itself: where its Python is, is not known", hint="start mdl by its full path"
        )
    encoding = ["-X", "utf8"] if sys.flags.utf8_mode else []
    return [os.path.abspath(sys.executable), "-I", *encoding]


def python_command(module: str = "mdl.__main__") -> list[str]:
    """Return the words that start a module of this mdl, which has a function ``main``, in a Python of its own; the
    words for ``main`` follow. Every child of mdl that is Python is started by these. Raises `UsageError` as
    `isolated_python`."""
    return [*isolated_python(), str(Path(__file__).resolve().with_name("child.py")), module]


_SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")


def split_command(command: str, what: str) -> list[str]:
    """Return the words of ``command``, which is started without a shell. Raises `UsageError`, which names ``what`` (a
    flag), if it cannot be split, needs a shell, or is empty."""
    import shlex

    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"it cannot be run: {error}", item=what) from error
    unquoted = shlex.shlex(command, posix=False, punctuation_chars=True)
    unquoted.whitespace_split = True
    unquoted.commenters = ""
    needs_shell = any(word and set(word) <= set("();<>|&") for word in unquoted)
    quoted = r"'[^']*'"
    if words and Path(words[0]).name in _SHELLS:
        quoted += r'|"[^"]*"'  # a shell itself replaces what has $ in its script
    if needs_shell or re.search(r"[$`]", re.sub(quoted, "", command)):
        hint = f"write {what} \"sh -c '…'\", or put it into a script"
        raise UsageError("it is started without a shell, and this needs one", item=what, hint=hint)
    if not words:
        raise UsageError("it is empty", item=what, hint="is a variable unset?")
    return words


@contextlib.contextmanager
def without_core_files() -> Iterator[None]:
    """Inside the block this process leaves no core file, in which the tokens that it holds would stand. Programs of the
    user's have the limit that the user set: see `users_core_limit`."""
    import resource

    global _core_limit
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if _core_limit is not None or soft == 0:
        yield
        return
    _core_limit = soft
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
        _core_limit = None


@contextlib.contextmanager
def users_core_limit() -> Iterator[None]:
    """Inside the block, in which a program is started, core files are limited as the user said."""
    if _core_limit is None:
        yield
        return
    import resource

    with _starting:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (_core_limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def run_program(
    words: list[str],
    facts: Mapping[str, str],
    *,
    folder: str | os.PathLike[str] | None = None,
    silent: bool = False,
    output: IO[bytes] | None = None,
    cancel: CancelToken | None = None,
    grace: float = 5.0,
) -> int:
    """Run a program to its end and return its exit status.

    ``facts`` are added to its environment. It runs in ``folder``, or in mdl's own; a program that is named by a
    relative path is looked for there. It gets no input. Its output goes to stderr, or nowhere if ``silent``, or to
    the file ``output``. A stop ends it too, by force after ``grace`` seconds; a pause does not, because a program
    cannot be continued later.
    Raises `UsageError` if it cannot be started, `Cancelled`.
    """
    import subprocess

    from mdl.disk.child_output import end_program

    cancel = cancel or CancelToken()
    out = output or (subprocess.DEVNULL if silent else _STDERR)
    with cancel.polled():  # an exception raised by a signal during the start would leave the program running alone
        _check(cancel)
        try:
            environ = {**os.environ, **facts}
            if folder is not None:
                environ["PWD"] = os.fspath(folder)
            with users_core_limit():
                process = subprocess.Popen(
                    words, env=environ, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
                )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"it cannot be run: {why}", item=words[0], hint="name a program that exists") from error
        try:
            while True:
                _check(cancel)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(_TICK_SECONDS)
                    if code:
                        _check(cancel)  # Ctrl-C in a terminal ends the program as well
                    return code
        except BaseException:
            end_program(process, grace)
            raise


def _check(cancel: CancelToken) -> None:
    if cancel.reason is not None and cancel.reason.status != "paused":
        cancel.check()
