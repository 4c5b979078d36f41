"""Who holds what: a process that is there, one that is gone, one that cannot be seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mdl.owner import host, is_alive, is_gone, me


@pytest.fixture
def past() -> str:
    """A process of this machine that is over."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    machine, *_ = me().split("-")
    return f"{machine}-{process.pid}-1"


def test_this_process_and_one_that_is_over(past: str) -> None:
    """We are alive, and not gone; what ended is gone, and so is who had our number before us."""
    again = me().rpartition("-")[0] + "-1"
    assert [(is_alive(one), is_gone(one, host())) for one in (me(), past, again)] == [
        *((True, False), (False, True), (False, True)),
    ]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="nothing could be hidden")
def test_a_process_that_is_hidden(past: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's process that /proc does not show may be the one: nobody knows, and nothing of its is taken."""

    def kill(_process: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert (is_alive(past), is_gone(past, host())) == (None, False)
