"""Processes of a test: which run, which one started which, and ending them as a power cut would."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path


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
