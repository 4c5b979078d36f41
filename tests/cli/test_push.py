"""mdl push: what is refused before a hub is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.packing import make_run
from support.shell import Inside, Shell, done, machine


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    make_run(tmp_path)
    return machine(tmp_path, HF_TOKEN="hf_" + "k3" * 17)


@pytest.mark.parametrize(
    "place", ["https://h/x.bin", "hf:org/new@main/x.bin", "hf:gpt2", f"hf:org/x@{'a' * 40}", "hf:spaces/o/x"]
)
def test_what_is_no_repository(shell: Shell, mdl: Inside, place: str) -> None:
    """2: a URL, a file, a repository without an owner, a commit, a space."""
    assert done(mdl(shell, "push", "run", place), 2).out == ""


def test_what_cannot_be_pushed(shell: Shell, mdl: Inside) -> None:
    """3 for what is not here, 8 offline, 11 for a link that leaves the folder."""
    done(mdl(shell, "push", "nosuch", "hf:org/new"), 3)
    done(mdl(shell, "push", "run", "hf:org/new", "--offline"), 8)
    (shell.home / "run/escape.json").symlink_to("/etc/passwd")
    done(mdl(shell, "push", "run", "hf:org/new"), 11)
