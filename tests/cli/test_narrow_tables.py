"""Tables on a terminal of 40 columns: whole columns go before a word or a number is broken (docs/adr/0147)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.loopback_hub import LoopbackHub, Repo
from support.packing import make_run
from support.shell import Inside, Shell, done, machine, with_environ
from support.terminal import Screen, Terminal

REPOS = [Repo("org/tiny", {"config.json": b"{}", "model.bin": b"w" * 70_000})]
NARROW = 40


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return machine(tmp_path / "home", endpoint=hub.url)


@pytest.mark.parametrize(
    ("words", "cells"),
    [
        ("outdated", "org/tiny|up to date"),
        ("releases srv", "current|1.1 MB"),
        ("unpack model_run.zip --list", "1.1 MB|model.safetensors"),
        ("get -n org/tiny", "keep|70.0 kB|org/tiny/model.bin"),
        ("import -n run", "run|11|1.4 MB"),
        ("list --local", "org/tiny|present|70.0 kB"),
    ],
)
def test_no_word_is_broken(
    shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch, exit_code: Callable[..., int], words: str, cells: str
) -> None:
    """Each row is one line, in which sizes and statuses are whole."""
    make_run(shell.home)
    done(mdl(shell, "get", "org/tiny"))
    done(mdl(shell, "pack", "run"))
    done(mdl(shell, "unpack", "model_run.zip", "--to", "srv", "--release"))
    seen = Terminal(NARROW)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", seen.file)
        assert exit_code(with_environ(shell, TERM="xterm", NO_COLOR="1"), *words.split()) == 0
    screen = Screen(seen.text())
    assert screen.widest <= NARROW
    assert any(all(cell in row for cell in cells.split("|")) for row in screen.rows), screen.rows
