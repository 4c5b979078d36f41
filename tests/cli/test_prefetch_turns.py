"""prefetch beside others: models that a get is at work on, and its one turn in the background."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.data import DATA
from support.faulty_server import FaultyServer
from support.jobs import Gate, arrived, log_of, records_of, the_job, waits
from support.polling import until
from support.schemas import document_of
from support.shell import ExitCode, Shell, done, ended, machine, started

from mdl.process import ProcessId


@pytest.fixture
def server(gate: Gate) -> Iterator[FaultyServer]:
    with FaultyServer(gate) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path / "home", catalog_of(one=f"{server.url}/f", prefetch=f"{server.url}/p"))


def test_a_model_that_a_get_is_at_work_on(
    shell: Shell, server: FaultyServer, gate: Gate, exit_code: ExitCode, capfd: pytest.CaptureFixture[str]
) -> None:
    """It waits in silence as long as it may, then it is 9, also with --skip-if-running; nothing is fetched twice."""
    with started(shell, "get", "one") as get:
        waits(shell, gate)
        words = ("prefetch", "one", "--lock-wait", "0", "--metrics", "mdl.prom")
        assert exit_code(shell, *words) == exit_code(shell, *words, "--skip-if-running") == 9
        assert str(get.pid) in capfd.readouterr().err
        assert "mdl_prefetch_exit_code 9\n" in (shell.home / "mdl.prom").read_text()
        with started(shell, "prefetch", "one") as waiting:
            until(lambda: log_of(shell).count("waiting for another mdl") == 3, "it does not wait")
            gate.opened.set()
            ended(get, 0)
            ran = ended(waiting, 0)
    assert (ran.out, ran.err, arrived(shell), server.bytes_sent) == ("", "", True, len(DATA))


def test_a_model_named_prefetch(shell: Shell, gate: Gate, exit_code: ExitCode) -> None:
    """A model of that name that another mdl is at work on is 9: nothing was skipped, for no prefetch runs."""
    with started(shell, "get", "prefetch"):
        waits(shell, gate)
        assert exit_code(shell, "prefetch", "prefetch", "--lock-wait", "0", "--skip-if-running") == 9


def test_in_the_background_it_has_its_turn(
    shell: Shell, gate: Gate, exit_code: ExitCode, capfd: pytest.CaptureFixture[str]
) -> None:
    """With --detach it is the process in the background that holds the turn, and leaves the metrics when it ends."""
    ran = done(shell.run("prefetch", "one", "--detach", "--metrics", "mdl.prom", "--json"))
    job = waits(shell, gate)
    assert ran.document["job"] == job.id
    assert not (shell.home / "mdl.prom").exists()
    assert exit_code(shell, "prefetch", "one") == 9
    assert exit_code(shell, "jobs", "pause", job.id, "--json") == 0
    assert document_of(capfd.readouterr().out)["jobs"][0]["status"] == "paused"
    until(lambda: ProcessId(job.owner).is_alive() is False, "it does not end")
    assert "mdl_prefetch_exit_code 75\n" in (shell.home / "mdl.prom").read_text()
    gate.opened.set()
    assert exit_code(shell, "prefetch", "one", "--metrics", "mdl.prom") == 0
    assert [job.status for job in records_of(shell).all() if job.status != "failed"] == ["done", "paused"]
    assert (the_job(shell).bytes_done, arrived(shell)) == (len(DATA), True)
