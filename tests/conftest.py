"""Fixtures that several test files share, and the table of faults that is written from a run of the tests."""

# ruff: noqa: E402

from __future__ import annotations

import contextlib
import functools
import gc
import os
import re
import shutil
import signal
import sys

sys.dont_write_bytecode = False  # else every worker compiles all tests, and hypothesis and pytest's part, anew
_OF_THE_TESTER = r"(?i)MDL_(?!LONG$)|HF_|HUGGING_?FACE|TRANSFORMERS_|AWS_|(NO|FORCE)_COLOR$|COLUMNS$|\w+_PROXY$"
for variable in [name for name in os.environ if re.match(_OF_THE_TESTER, name)]:
    del os.environ[variable]  # a test names what it sets, and is the same on every machine

from collections.abc import Callable, Iterator
from pathlib import Path

import botocore.session
import httpx
import pytest
import trustme
from hypothesis import settings
from pytest_httpx import HTTPXMock
from support.bench import Bench
from support.catalogs import catalog_of, entry_of
from support.data import MIB, SMALL, noise
from support.fault_table import Matrix
from support.faults import honest
from support.faulty_server import FaultyServer
from support.hf_cache import Hf
from support.jobs import Gate
from support.long import CASES, LONG, examples, sampled
from support.loopback_hub import LoopbackHub
from support.moto_store import moto_store
from support.packing import make_run
from support.releases import Site
from support.scripted_hub import World, world
from support.shell import Ran, Shell, done, machine, with_environ
from support.terminal import Terminal
from support.xet_store import LITTLE, NAME, PART, XetStore

from mdl.cli import main
from mdl.net.transport import PooledTransport

# No deadline: a busy machine may be slow. A run of every change tries the same examples each time, a long one others.
settings.register_profile("mdl", deadline=None, max_examples=examples(100), derandomize=not LONG)
settings.load_profile("mdl")
if not LONG:
    # Hypothesis also draws constants out of whichever modules its process has imported, so that a run depends on which
    # worker got which tests before. There is no setting for that; older versions did not do it.
    with contextlib.suppress(ImportError):
        from hypothesis.internal.conjecture import providers
        from hypothesis.internal.constants_ast import Constants

        providers._get_local_constants = Constants
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"  # no test asks the machine that it runs on for credentials
MATRIX = Matrix()
IN_MEMORY = "/dev/shm"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM)


@pytest.fixture(autouse=True)
def unraisable() -> Iterator[None]:
    """A run of mdl in this process leaves no hook behind for exceptions that Python ignores."""
    before = sys.unraisablehook
    yield
    sys.unraisablehook = before


@pytest.fixture(scope="session", autouse=True)
def service_models() -> Iterator[None]:
    """botocore reads its description of S3 once, and not anew for each of its sessions, which is most of their cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        yield


@pytest.fixture
def exit_code(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command line in this process, which is quicker, at the usual priority: its exit code."""

    def run(shell: Shell, *words: str) -> int:
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            with monkeypatch.context() as patch:
                patch.setattr("mdl.cli.prefetch.lower_priority", lambda: None)
                patch.setattr("os.environ", shell.environ)
                patch.chdir(shell.home)
                return main.run(words)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    return run


@pytest.fixture
def mdl(exit_code: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """``mdl(shell, "get", …)`` in this process; what it says as JSON must fit the schemas."""

    def run(shell: Shell, *words: str) -> Ran:
        capfd.readouterr()
        ran = Ran(exit_code(shell, *words), *capfd.readouterr())
        assert "Traceback" not in ran.err
        assert "--json" not in words or ran.document
        return ran

    return run


@pytest.fixture(scope="session")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hf]:
    with Hf(tmp_path_factory.mktemp("hf")) as client:
        yield client


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """An S3-compatible store that takes any credentials."""
    with moto_store() as url:
        yield url


@pytest.fixture(scope="session")
def xet_store(tmp_path_factory: pytest.TempPathFactory) -> XetStore:
    """Files of 24 MiB, 3 MiB and 100 kB that the real hf_xet uploaded."""
    folder, sizes = tmp_path_factory.mktemp("xet"), {NAME: 24 * MIB, PART: 3 * MIB, LITTLE: 100_000}
    for name, size in sizes.items():
        (folder / name).write_bytes(noise(size, size))
    return XetStore.uploaded(folder, [folder / name for name in sizes])


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Shut until the test opens it, or is over."""
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def gated(tmp_path: Path, gate: Gate) -> Iterator[Shell]:
    """A machine whose model ``one`` comes from a server that stops at the gate."""
    with FaultyServer(gate) as server:
        yield machine(tmp_path / "home", catalog_of(one=f"{server.url}/f"))


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[FaultyServer]:
    """A server that answers as ``HANDLER`` of the test's module says, or a right one of ``SMALL``."""
    with FaultyServer(getattr(request.module, "HANDLER", honest(SMALL))) as server:
        yield server


@pytest.fixture
def hub(request: pytest.FixtureRequest) -> Iterator[LoopbackHub]:
    """A hub with the repositories ``REPOS`` of the test's module."""
    with LoopbackHub(request.module.REPOS) as hub:
        yield hub


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path / "home", "schema = 1\n" + entry_of("one", f"{server.url}/f", SMALL))


@pytest.fixture
def trained(tmp_path: Path) -> Shell:
    """A home with a trained run in ``run/``, and without a log."""
    make_run(tmp_path)
    return Shell(tmp_path, extra={"MDL_LOG_FILE": ""})


@pytest.fixture
def run(mdl: Callable[..., Ran], shell: Shell) -> Callable[..., Ran]:
    """``run("get tiny", 3, MDL_VARIABLE="…")``: words on the test's own machine, which must end with this code."""

    def run(words: str, code: int = 0, **environ: str) -> Ran:
        return done(mdl(with_environ(shell, **environ), *words.split()), code)

    return run


@pytest.fixture
def ok(mdl: Callable[..., Ran]) -> Callable[..., Ran]:
    """Run commands, given as one text with ``;`` between; the last one must end with ``code``, the others with 0."""

    def run(shell: Shell, commands: str, code: int = 0) -> Ran:
        *first, last = commands.split(";")
        for words in first:
            done(mdl(shell, *words.split()))
        return done(mdl(shell, *last.split()), code)

    return run


@pytest.fixture(params=["terminal", "pipe"])
def told(
    request: pytest.FixtureRequest,
    exit_code: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """Run a command and have all that it says: on a terminal with bars and tables, or in a pipe."""

    def run(shell: Shell, *words: str) -> str:
        if request.param == "pipe":
            exit_code(shell, *words)
            return "".join(capfd.readouterr())
        seen = Terminal(200)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", seen.file)
            patch.setattr(sys, "stderr", seen.file)
            exit_code(with_environ(shell, TERM="xterm", COLUMNS="200"), *words)
        return seen.text()

    return run


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    """A client that asks the host that is named, through no proxy of the tester's."""
    with httpx.Client(verify=False, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "srv")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


@pytest.fixture
def httpx_mock(httpx_mock: HTTPXMock, monkeypatch: pytest.MonkeyPatch) -> HTTPXMock:
    """That of pytest-httpx, which answers in the place of httpx's own transport: mdl's asks that one."""
    stand_in = httpx.HTTPTransport(verify=False)
    monkeypatch.setattr(PooledTransport, "handle_request", lambda self, request: stand_in.handle_request(request))
    return httpx_mock


@pytest.fixture
def here(tmp_path: Path, httpx_mock: HTTPXMock, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world(tmp_path, httpx_mock, monkeypatch) as made:
        yield made


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", metavar="FILE", help="write how every row of the fault matrix ended")
    parser.addoption("--golden", action="store_true", help="write what the commands print as it is now")


def pytest_configure(config: pytest.Config) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT):  # a script's job in the background ignores them, and so would mdl
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    config.addinivalue_line("markers", "fault(number, …): tries these rows of tests/faults.toml")
    of_disks = any("system" in Path(arg).parts for arg in config.args)  # what a kill leaves on one is their subject
    if not of_disks and os.path.isdir(IN_MEMORY) and shutil.disk_usage(IN_MEMORY).free > 2 * 2**30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", IN_MEMORY)  # a fifth less time than on a disk


def pytest_collection() -> None:
    gc.disable()  # what is collected here stays to the end


def pytest_collection_finish() -> None:
    gc.freeze()  # 300,000 objects of the tests: nobody looks for garbage among them
    gc.enable()


def is_sampled(config: pytest.Config) -> bool:
    """Whether this run leaves cases out: a file that is named runs whole."""
    return all(map(os.path.isdir, config.args)) and not LONG and not config.getoption("--fault-table")


@pytest.hookimpl(trylast=True)  # of the tests that -k and -m leave
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_sampled(config):
        items[:], left = sampled(items)
        config.hook.pytest_deselected(items=left)
    for item in items:
        if item.get_closest_marker("hypothesis"):
            item.add_marker("no_cover")  # many examples run the same lines, and coverage doubles their time
        for mark in item.iter_markers("fault"):
            unknown = [number for number in mark.args if number not in MATRIX.rows]
            assert not unknown, f"{item.nodeid}: no such fault: {unknown}"
            item.user_properties += [("fault", number) for number in mark.args]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
        outcome = "failed" if getattr(report, "wasxfail", None) else report.outcome
        for name, number in report.user_properties:
            if name == "fault":
                MATRIX.note(int(str(number)), report.location[0].removeprefix("tests/"), outcome)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if is_sampled(config):
        terminalreporter.write_line(f"Of longer tables {CASES} cases and the faults were tried; MDL_LONG=1 tries all.")
    place = config.getoption("--fault-table")
    if place:
        for line in MATRIX.summary():
            terminalreporter.write_line(line)
        Path(place).write_text(MATRIX.table(), "utf-8")
