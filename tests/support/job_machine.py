"""Jobs as tests need them: a file whose server waits at a gate, a machine that knows it, mdl beside the test."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.faults import honest
from support.faulty_server import Answer, Request
from support.loopback_hub import Generated
from support.shell import Ran, Shell

from mdl.cli import main
from mdl.jobs.job import Job
from mdl.jobs.records import Records

DATA = Generated(3 * 2**20, "jobs")[0 : 3 * 2**20]
NOBODY = "http://127.0.0.1:9"
SMALL = b"small enough to be held in memory"
GATE = -(-len(DATA) * 7 // 10)
"""Where the gate stands: the first byte of which the log says 70 per cent."""
PATIENCE = 30.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM)
Inside = Callable[..., int]


class Gate:
    """An honest server of ``data`` whose bodies stop at ``at`` bytes until ``opened`` is set; with None it is silent.

    ``reached`` is set as soon as a client has been sent that much and waits for the rest.
    """

    def __init__(self, data: bytes = DATA, at: int | None = GATE) -> None:
        self._right, self._at = honest(data), at
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, request: Request, number: int) -> Answer:
        answer = self._right(request, number)
        if self._at is None:
            return replace(answer, status=None, body=self._pieces(answer.head() + _body(answer), 0))
        return replace(answer, body=self._pieces(_body(answer), self._at))

    def _pieces(self, data: bytes, at: int) -> Iterator[bytes | threading.Event]:
        yield data[:at]
        self.reached.set()
        yield self.opened
        yield data[at:]

    def wait(self) -> None:
        """Wait until a client has come to the gate."""
        assert self.reached.wait(PATIENCE), "nobody came to the gate"


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Shut until the test opens it, or is over."""
    gate = Gate()
    yield gate
    gate.opened.set()


def _body(answer: Answer) -> bytes:
    return b"".join(piece for piece in answer.pieces() if isinstance(piece, bytes))


def catalog_of(**urls: str) -> str:
    """A catalog of one model for each URL; its file ``f.bin`` is `DATA`, and known to be."""
    return "schema = 1\n" + "".join(entry_of(name, url) for name, url in urls.items())


def entry_of(name: str, url: str, data: bytes = DATA) -> str:
    """A model whose one file is known by the size and the digest of ``data``."""
    facts = f'size = {len(data)}\nsha256 = "{hashlib.sha256(data).hexdigest()}"\n'
    return f'[models.{name}]\n[[models.{name}.files]]\npath = "f.bin"\nurl = "{url}"\n{facts}'


def machine(home: Path, catalog: str = "schema = 1\n", endpoint: str = NOBODY, **extra: str) -> Shell:
    """A home of one's own with a catalog in it."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "catalog.toml").write_text(catalog)
    return Shell(home, endpoint, extra)


def with_environ(shell: Shell, **more: str) -> Shell:
    return replace(shell, extra={**(shell.extra or {}), **more})


def state_of(shell: Shell) -> Path:
    return shell.home / ".local" / "state" / "mdl"


def records_of(shell: Shell) -> Records:
    return Records(state_of(shell) / "jobs")


def the_job(shell: Shell) -> Job:
    """The newest job."""
    return records_of(shell).all()[0]


def log_of(shell: Shell) -> str:
    return (state_of(shell) / "downloads.log").read_text()


def waits(shell: Shell, gate: Gate) -> Job:
    """Wait until a download has all that the gate lets through; the newest job."""
    gate.wait()
    until(lambda: "percent=70" in log_of(shell), "it does not come to the gate")
    return the_job(shell)


def arrived(shell: Shell, data: bytes = DATA) -> bool:
    """The right bytes stand under the final name of ``one``, and no hidden part of them is left."""
    partials = shell.models / ".mdl" / "partials"
    left = list(partials.iterdir()) if partials.exists() else []
    return (shell.models / "one" / "f.bin").read_bytes() == data and not left


def secrets_in(folder: Path, *secrets: str) -> set[str]:
    """The files below a folder that hold one of these, in their bytes or their names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder))
        for path in files
        for secret in secrets
        if secret in str(path) or secret.encode() in path.read_bytes()
    }


def done(ran: Ran, code: int = 0) -> Ran:
    assert ran.code == code, ran.out + ran.err
    assert "Traceback" not in ran.err
    return ran


@contextlib.contextmanager
def started(
    shell: Shell, *words: str, folder: Path | None = None, stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[str]]:
    """mdl as a process that goes on beside the test; it is killed if it still runs in the end."""
    process = subprocess.Popen(
        shell.command(*words),
        env=shell.environ,
        cwd=folder or shell.home,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # with this process beside it: a group that nobody could continue cannot be stopped
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], code: int) -> Ran:
    """Wait for its end, which must be that exit code."""
    out, err = process.communicate(timeout=PATIENCE)
    return done(Ran(process.returncode, out, err), code)


def until(test: Callable[[], object], what: str) -> None:
    """Poll what another process makes true, by the file system or /proc."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not test():
        assert time.monotonic() < deadline, what
        pause.wait(0.01)


@pytest.fixture
def mdl(monkeypatch: pytest.MonkeyPatch) -> Inside:
    """A command line run in this process, which is quicker: its exit code. It gives way to nobody."""

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


def program(folder: Path) -> Path:
    """A program that writes its arguments and MDL_HOOK_* to ``told`` in ``folder``, as JSON, one line a call."""
    place = folder / "hook"
    place.write_text(
        "#!/usr/bin/env python3\n"
        "import json, os, sys\n"
        "facts = {k: v for k, v in os.environ.items() if k.startswith('MDL_')}\n"
        f"open({str(folder / 'told')!r}, 'a').write(json.dumps([sys.argv[1:], facts]) + '\\n')\n"
        "print('said by the hook')\n"
    )
    place.chmod(0o755)
    return place
