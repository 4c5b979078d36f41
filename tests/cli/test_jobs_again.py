"""What a job keeps of its command line, so that it can go on another time: all that matters, and no secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.catalogs import entry_of
from support.data import SMALL
from support.faults import honest
from support.faulty_server import FaultyServer
from support.jobs import secrets_in, the_job
from support.shell import ExitCode, Shell, machine, with_environ

from mdl.cli.session import invocation_of

TOKEN = "hf_" + "s3cr3t" * 5


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(honest(SMALL)) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path / "home", "schema = 1\n" + entry_of("one", f"{server.url}/f", SMALL))


def test_the_same_command_invocation_of(shell: Shell, exit_code: ExitCode) -> None:
    """Flags, lists, switches and folders are kept as they were said; how it was shown and what was not said is not."""
    words = (
        "download one --json -q --include *.bin --include=f* --to a/b --connections 3 --force --catalog catalog.toml"
    )
    asked = with_environ(shell, MDL_RETRIES="2", HF_HUB_OFFLINE="0", HF_TOKEN=TOKEN, OTHER="x")
    assert exit_code(asked, *words.split(), "--progress=none", "--no-color", "-vy") == 0
    kept = the_job(shell).again
    command, *options, dashes, target = kept.words
    assert (command, dashes, target, kept.folder, kept.withheld) == ("download", "--", "one", str(shell.home), False)
    said = {"--include=*.bin", "--include=f*", "--to=a/b", "--connections=3", "--force", "--catalog=catalog.toml"}
    assert (set(options), len(options)) == (said, len(said))
    variables = {
        "MDL_HOME": str(shell.models),
        "MDL_RETRIES": "2",
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": shell.endpoint,
    }
    assert kept.variables == variables


@pytest.mark.parametrize("how", ["--on-complete", "MDL_ON_COMPLETE"])
def test_a_token_in_a_hook_is_written_nowhere(shell: Shell, exit_code: ExitCode, how: str) -> None:
    """A secret that mdl knows is in no record, whether it came in a flag or in a variable."""
    command = f"true {TOKEN}"
    words, extra = (["--on-complete", command], {}) if how.startswith("--") else ([], {how: command})
    assert exit_code(with_environ(shell, HF_TOKEN=TOKEN, **extra), "get", "one", *words) == 0
    assert secrets_in(shell.home, TOKEN) == set()


def test_how_it_was_shown_is_not_kept() -> None:
    """The variables of flags that are of the moment are left out, as the flags themselves are."""
    moment = dict.fromkeys(("MDL_DETACH", "MDL_JSON", "MDL_QUIET", "MDL_YES", "MDL_VERBOSE", "MDL_NO_COLOR"), "1")
    kept = invocation_of(("get", "--", "one"), {**moment, "MDL_PROGRESS": "json", "MDL_JOB": "x", "MDL_HOME": "/m"})
    assert kept.variables == {"MDL_HOME": "/m"}


def test_what_cannot_be_done_again_is_withheld() -> None:
    """A job that could only go on without one of its variables is not gone on with, as with one of its words."""
    kept = invocation_of(("get", "--", "one"), {"MDL_ON_COMPLETE": "curl https://chat.example/hook?token=5ignatur3"})
    assert (kept.variables, kept.withheld) == ({}, True)
