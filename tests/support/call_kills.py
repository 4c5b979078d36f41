"""SIGKILL before any one system call that changes the disk, counted over all threads of a command.

It uses seccomp and ptrace. strace counts each thread separately, so a worker's first rename, which publishes, would
hide behind the main thread's first, which writes the job's record.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_CALLS = {  # name: its numbers on x86_64 and aarch64, and what its arguments are: p path, d folder of the next, f file
    "rename": (82, -1, "pp"),
    "renameat": (264, 38, "dpdp"),
    "renameat2": (316, 276, "dpdp"),
    "unlink": (87, -1, "p"),
    "unlinkat": (263, 35, "dp"),
    "rmdir": (84, -1, "p"),
    "link": (86, -1, "pp"),
    "linkat": (265, 37, "dpdp"),
    "symlink": (88, -1, "pp"),
    "symlinkat": (266, 36, "pdp"),
    "mkdir": (83, -1, "p"),
    "mkdirat": (258, 34, "dp"),
    "chmod": (90, -1, "p"),
    "fchmodat": (268, 53, "dp"),
    "ftruncate": (77, 46, "f"),
    "fsync": (74, 82, "f"),
    "fdatasync": (75, 83, "f"),
}
_MACHINE = platform.machine()
_KINDS = {(arm if _MACHINE == "aarch64" else x86): (name, kinds) for name, (x86, arm, kinds) in _CALLS.items()}
_KINDS.pop(-1, None)
_TRACEME, _CONT, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 7, 0x4200, 0x420E
_FOLLOW = 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000
"""PTRACE_O_TRACE: FORK, VFORK, CLONE, EXEC, SECCOMP; and EXITKILL."""
_EVENT_SECCOMP, _SECCOMP, _NO_NEW_PRIVS = 7, 22, 38
_ALL, _OWN_CHILDREN = 0x40000000, 0x20000000
"""For waitpid: __WALL, also threads; __WNOTHREAD, only those of the thread that traces."""
_PATIENCE = 300.0
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


@dataclass(frozen=True)
class Ended:
    """How a traced command ended: its code, how many calls it came to, and which one it was killed at, if it was."""

    code: int
    calls: int
    point: str = ""


def _be_traced() -> None:
    """In the child, before it becomes the command: the calls of `_KINDS` stop for the tracer, all others pass."""
    load, same, give = 0x20, 0x15, 0x06
    rules = [(load, 0, 0, 0)]
    for number in sorted(_KINDS):
        rules += [(same, 0, 1, number), (give, 0, 0, 0x7FF00000)]
    code = b"".join(struct.pack("<HBBI", *rule) for rule in [*rules, (give, 0, 0, 0x7FFF0000)])
    held = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(held)))
    if (
        _libc.ptrace(_TRACEME, 0, None, None)
        or _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
        or _libc.prctl(_SECCOMP, 2, program, 0, 0)
    ):
        raise OSError(ctypes.get_errno(), "no tracing here")


@dataclass(frozen=True)
class Nudge:
    """A signal sent on the way, as soon as ``when`` holds; only the calls after it count."""

    number: signal.Signals
    when: Callable[[], bool]

    def give(self, process: subprocess.Popen[bytes], given: threading.Event) -> None:
        while process.returncode is None and not self.when():
            time.sleep(0.1)
        given.set()
        if process.returncode is None:
            os.kill(process.pid, self.number)


def killed_at(
    number: int, command: Sequence[str], env: dict[str, str], cwd: Path, output: Path, nudge: Nudge | None = None
) -> Ended:
    """Run a command and kill it before its ``number``-th call, counted over all its threads; 0 never."""
    with output.open("wb") as out:
        process = subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=_be_traced
        )
    counting = threading.Event()
    if nudge:
        threading.Thread(target=nudge.give, args=(process, counting), daemon=True).start()
    else:
        counting.set()
    watchdog = threading.Timer(_PATIENCE, os.kill, (process.pid, signal.SIGKILL))
    watchdog.start()
    try:
        return _traced(process, number, counting)
    finally:
        watchdog.cancel()


def _traced(process: subprocess.Popen[bytes], number: int, counting: threading.Event) -> Ended:
    os.waitpid(process.pid, _ALL)
    _libc.ptrace(_SETOPTIONS, process.pid, None, _FOLLOW)
    _libc.ptrace(_CONT, process.pid, None, None)
    calls, point = 0, ""
    while True:
        thread, status = os.waitpid(-1, _ALL | _OWN_CHILDREN)
        if not os.WIFSTOPPED(status):
            if thread == process.pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return Ended(process.returncode, calls, point)
            continue
        event, given = status >> 16, os.WSTOPSIG(status)
        if event == _EVENT_SECCOMP and counting.is_set():
            calls += 1
            if calls == number:
                point = _described(thread)
                os.kill(process.pid, signal.SIGKILL)
                continue
        _libc.ptrace(_CONT, thread, None, given if not event and given != signal.SIGSTOP else None)


def _described(thread: int) -> str:
    """The call a thread is about to make, with its paths."""
    info = ctypes.create_string_buffer(88)
    _libc.ptrace(_GET_SYSCALL_INFO, thread, 88, info)
    number, *arguments = struct.unpack_from("<7Q", info.raw, 24)
    name, layout = _KINDS[number]
    words, base = [], ""
    for kind, value in zip(layout, arguments, strict=False):
        if kind == "p":
            with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
                memory.seek(value)
                words.append(base + os.fsdecode(memory.read(1024).split(b"\0")[0]))
        else:
            at = ctypes.c_int(value & 0xFFFFFFFF).value
            base = f"{os.readlink(f'/proc/{thread}/fd/{at}')}/" if at >= 0 else ""
            words += [base[:-1]] if kind == "f" else []
    return f"{name} {' '.join(words)}"


def tracing_works(place: Path) -> bool:
    """Whether a command can be killed at a call here."""
    if _MACHINE not in ("x86_64", "aarch64") or sys.platform != "linux":
        return False
    try:
        command = [sys.executable, "-c", "import os; os.mkdir('a'); os.mkdir('b')"]
        ended = killed_at(2, command, dict(os.environ), place, place / "try")
    except (OSError, subprocess.SubprocessError):
        return False
    return (ended.code, (place / "a").is_dir(), (place / "b").is_dir()) == (-signal.SIGKILL, True, False)
