"""Processes of mdl that have not imported it anew: copies of a template process (ADR 110).

A start of Python that imports mdl takes a fifth of a second of a processor, and a copy some milliseconds. What a copy
does, and how it can be stopped, killed and waited for, is as with any process; how mdl starts is not to be seen in it.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

_TESTS = Path(__file__).parents[1]
_TAKE_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
_ONLY_AT_THE_START = re.compile("PYTHON|LC_|LANG|TZ$|LD_|COLUMNS$|TERMINAL_|_?TYPER_|FORCE_|PY_COLORS|GITHUB_ACTIONS")
"""The variables that Python, the C library and the loader read when a process starts, and Typer when it is imported."""


def can_be_a_copy(environ: Mapping[str, str]) -> bool:
    """Whether a process with that environment would be the same if it were started anew."""
    return not any(_ONLY_AT_THE_START.match(name) for name in environ)


@cache
def _template(_tests: int) -> tuple[socket.socket, threading.Lock]:
    """The socket of the template of this process, which ends with it, and what holds other threads off it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_TESTS)}
    streams = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)]
    os.posix_spawn(sys.executable, [sys.executable, "-m", "support.template"], environ, file_actions=streams)
    theirs.close()
    return ours, threading.Lock()


def _copy(request: dict[str, Any], streams: list[int]) -> int:
    """The process id of a new copy, which is a child of this process."""
    connection, mutex = _template(os.getpid())
    prctl = ctypes.CDLL(None).prctl
    with mutex:
        prctl(_TAKE_ORPHANS, 1, 0, 0, 0)
        try:
            socket.send_fds(connection, [json.dumps(request).encode()], streams)
            return int(connection.recv(20))
        finally:
            prctl(_TAKE_ORPHANS, 0, 0, 0, 0)


class Forked:
    """``mdl WORDS…`` in a copy, with what tests use of `subprocess.Popen`. It does not outlive the test."""

    def __init__(
        self,
        words: tuple[str, ...],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
        process_group: int | None = None,
    ) -> None:
        self.args = [sys.executable, "-m", "mdl", *words]
        self.returncode: int | None = None
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        opened: list[int] = []
        streams: list[int] = []
        for name, wanted in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            if wanted == subprocess.PIPE:
                reading, writing = os.pipe()
                ours, theirs = (writing, reading) if name == "stdin" else (reading, writing)
                setattr(self, name, open(ours, "w" if name == "stdin" else "r", encoding="utf-8"))  # noqa: SIM115
                opened.append(theirs)
            elif wanted == subprocess.DEVNULL:
                theirs = os.open(os.devnull, os.O_RDWR)
                opened.append(theirs)
            elif wanted == subprocess.STDOUT:
                theirs = streams[1]
            else:
                theirs = wanted if isinstance(wanted, int) else wanted.fileno()
            streams.append(theirs)
        status = Path("/proc/self/status").read_text()
        request = {
            "words": words,
            "environ": dict(env),
            "folder": str(cwd),
            "group": process_group,
            "umask": int(status.partition("Umask:")[2].split()[0], 8),
        }
        self.pid = _copy(request, streams)
        for stream in opened:
            os.close(stream)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            handle = os.pidfd_open(self.pid)
            try:
                poller = select.poll()
                poller.register(handle, select.POLLIN)
                if not poller.poll(None if timeout is None else timeout * 1000):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            finally:
                os.close(handle)
            assert self.poll() is not None
        assert self.returncode is not None
        return self.returncode

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:  # noqa: A002
        said = ["", ""]

        def read(number: int, stream: IO[str]) -> None:
            said[number] = stream.read()

        readers = [
            threading.Thread(target=read, args=(number, stream))
            for number, stream in enumerate((self.stdout, self.stderr))
            if stream and not stream.closed
        ]
        for reader in readers:
            reader.start()
        if self.stdin:
            self.stdin.write(input or "")
            self.stdin.close()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(timeout)
        self._close()
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self.wait()

    def __del__(self) -> None:
        if hasattr(self, "pid") and self.poll() is None:
            self.kill()
            self.wait()
        self._close()

    def _close(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream:
                stream.close()
