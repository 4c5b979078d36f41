"""Processes of a test: servers and ports for them, which run, which one started which, and ending them as a power cut
would."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import httpx

from support.polling import until


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 at which nobody listens, all of them different."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


@contextlib.contextmanager
def serving_at(url: str, words: Sequence[str]) -> Iterator[None]:
    """A program that serves HTTP, from its first answer at ``url`` on; it is killed in the end."""
    silent = subprocess.DEVNULL
    process = subprocess.Popen(words, stdin=silent, stdout=silent, stderr=silent)

    def is_up() -> bool:
        assert process.poll() is None, f"{words[0]} ended with {process.returncode}"
        try:
            return httpx.get(url).status_code < 500
        except httpx.HTTPError:
            return False

    try:
        until(is_up)
        yield
    finally:
        process.kill()
        process.wait()


def below(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    children = [int(one) for one in listed.stdout.split()]
    return [found for child in children for found in (*below(child), child)]


def cut_power(pids: Iterable[int]) -> None:
    """End these processes, and all that they started, without a word: none of them sees another one die."""
    doomed = [one for pid in pids for one in (pid, *below(pid))]
    for sent in (signal.SIGSTOP, signal.SIGKILL):
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)


def running(*words: str) -> list[int]:
    """The processes that have all of ``words`` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if line and all(word.encode() in line for word in words):
                found.append(int(entry.name))
    return found
