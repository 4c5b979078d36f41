"""What a test of a fault bears, and the table that is written from a run of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fault_table import Matrix

from mdl.http.splice import Pipe

MATRIX = Matrix()


@pytest.fixture(autouse=True)
def unraisable() -> Iterator[None]:
    """A run of mdl in this process leaves nothing of its own behind for exceptions that Python ignores."""
    before = sys.unraisablehook
    yield
    sys.unraisablehook = before


@pytest.fixture(params=["pipe", "memory"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By which a large body without TLS comes into its file: both are tried."""
    found = str(request.param)
    if found == "memory":
        monkeypatch.setattr(Pipe, "open", lambda: None)
    elif sys.platform != "linux":
        pytest.skip("no splice(2) here")
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", metavar="FILE", help="write how every row of the fault matrix ended")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(number, …): tries these rows of tests/faults.toml")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("fault"):
            unknown = [number for number in mark.args if number not in MATRIX.rows]
            assert not unknown, f"{item.nodeid}: no such fault: {unknown}"
            item.user_properties += [("fault", number) for number in mark.args]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
        outcome = "failed" if getattr(report, "wasxfail", None) else report.outcome
        for name, number in report.user_properties:
            if name == "fault":
                MATRIX.note(int(str(number)), Path(report.location[0]).name, outcome)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    place = config.getoption("--fault-table")
    if place:
        for line in MATRIX.summary():
            terminalreporter.write_line(line)
        Path(place).write_text(MATRIX.table(), "utf-8")
