"""What a prefetch leaves: its figures however it ended, one record of many nights; and where it has no place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.data import DATA
from support.faults import honest
from support.faulty_server import FaultyServer
from support.jobs import Gate, arrived, records_of, the_job
from support.prefetch import clock, metrics
from support.shell import ExitCode, Shell, machine

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(honest(DATA)) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path / "home", catalog_of(one=server.url))


def test_a_run_that_fetches_nothing_measures_what_is_here(shell: Shell, exit_code: ExitCode) -> None:
    """Outside its window, and beside a get, the metrics have each model as it stands on the disk."""
    words = ("prefetch", "--metrics", "mdl.prom", "--window", f"{clock(120)}-{clock(180)}")
    assert exit_code(shell, *words) == 75
    assert metrics(shell)['model_present{model="one"}'] == 0
    assert exit_code(shell, *words[:3]) == 0
    assert exit_code(shell, *words) == 75
    found = metrics(shell)
    assert (found["exit_code"], found['model_present{model="one"}'], found['models{status="present"}']) == (75, 1, 1)


@pytest.mark.parametrize(("how", "code"), [("settings", 2), ("fault", 1), ("disk", 7), ("interrupt", 130)])
def test_metrics_of_a_run_that_could_not_be(
    shell: Shell, exit_code: ExitCode, monkeypatch: pytest.MonkeyPatch, how: str, code: int
) -> None:
    """Settings that are wrong, a fault in mdl itself, a disk that fails and Ctrl-C: the metrics say that it was so."""
    words = ("prefetch", "--metrics", "mdl.prom")
    assert exit_code(shell, *words) == 0
    if how == "settings":
        (shell.home / ".config" / "mdl").mkdir(parents=True)
        (shell.home / ".config" / "mdl" / "config.toml").write_text("[defaults\n")
    else:
        raised = {"fault": RuntimeError("a fault"), "disk": OSError(5, "worn out"), "interrupt": KeyboardInterrupt()}

        def fail(*_words: object, **_more: object) -> None:
            raise raised[how]

        monkeypatch.setattr("mdl.cli.prefetch.download", fail)
    assert exit_code(shell, *words) == code
    assert metrics(shell)["exit_code"] == code


def test_one_record_of_many_nights(tmp_path: Path, server: FaultyServer, exit_code: ExitCode) -> None:
    """What its time limit stopped is one paused job, however often; it is gone once all is here; others stay."""
    shell = machine(tmp_path / "home", catalog_of(one=server.url, two=server.url))
    server.handler = gate = Gate(at=100_000)
    words = ("prefetch", "one", "--max-duration", "1")
    assert exit_code(shell, *words) == 75
    other = replace(the_job(shell), id="0101-rest", models=("two",))
    records_of(shell).put(other)
    assert exit_code(shell, *words) == 75
    assert [job.status for job in records_of(shell).all()] == ["paused", "paused"]
    gate.opened.set()
    assert exit_code(shell, "prefetch", "one") == 0
    assert {job.id: job.status for job in records_of(shell).all()} == {
        the_job(shell).id: "done",
        "0101-rest": "paused",
    }


@pytest.mark.parametrize("where", ["state", "state and locks"])
def test_without_a_place_for_its_turn(shell: Shell, exit_code: ExitCode, capfd: Captured, where: str) -> None:
    """Where the state folder cannot be had, prefetch says so once and works, as get does."""
    (shell.home / ".local").mkdir()
    (shell.home / ".local" / "state").write_text("in the way")
    if where == "state and locks":
        (shell.models / ".mdl").mkdir(parents=True)
        (shell.models / ".mdl" / "locks").write_text("in the way")
    assert exit_code(shell, "prefetch", "one") == 0
    assert arrived(shell)
    assert capfd.readouterr().err.count("mdl: warning: ") == 1
