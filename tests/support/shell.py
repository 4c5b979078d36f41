"""mdl as its users run it: in a separate process, with an environment made for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from support.forked import Forked, can_be_a_copy
from support.schemas import document_of, events_of

NOBODY = "http://127.0.0.1:9"
Inside = Callable[..., "Ran"]
Process = subprocess.Popen[str] | Forked
Run = Callable[..., "Ran"]
"""Of words in one text: see the fixture ``run``."""
ExitCode = Callable[..., int]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        return document_of(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        return events_of(self.err)


@dataclass(frozen=True)
class Shell:
    """A home folder for one test; nothing of the tester's environment gets in."""

    home: Path
    endpoint: str = NOBODY
    extra: Mapping[str, str] | None = None

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "HOME": str(self.home),
            "HF_ENDPOINT": self.endpoint,
            "MDL_HOME": str(self.models),
            **(self.extra or {}),
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "mdl", *words]

    def run(self, *words: str, prefix: tuple[str, ...] = ()) -> Ran:
        """Run it to its end. What it says as JSON is checked against the schemas in any case."""
        with beside(self, *prefix, *self.command(*words), process_group=None) as process:
            out, err = process.communicate()
        assert process.returncode is not None
        ran = Ran(process.returncode, out, err)
        assert "--json" not in words or not ran.out or ran.document
        assert ("--progress", "json") not in pairwise(words) or ran.events
        return ran


def machine(home: Path, catalog: str = "schema = 1\n", endpoint: str = NOBODY, **extra: str) -> Shell:
    """A home folder for one test, with a catalog in it."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "catalog.toml").write_text(catalog)
    return Shell(home, endpoint, extra)


def with_environ(shell: Shell, **more: str) -> Shell:
    return replace(shell, extra={**(shell.extra or {}), **more})


def settings(shell: Shell, text: str) -> None:
    """Write the user's config.toml."""
    place = shell.home / ".config" / "mdl" / "config.toml"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def write_catalog(shell: Shell, catalog: str) -> Shell:
    """Replace the catalog."""
    (shell.home / "catalog.toml").write_text(catalog)
    return shell


def bytes_of(shell: Shell, name: str = "tiny") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (shell.models / name).iterdir()}


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file of a models folder that is not mdl's own."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".mdl" not in path.relative_to(folder).parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def done(ran: Ran, code: int = 0) -> Ran:
    assert ran.code == code, ran.out + ran.err
    assert "Traceback" not in ran.err
    return ran


@contextlib.contextmanager
def beside(shell: Shell, *command: str, **options: Any) -> Iterator[Process]:
    """A command that goes on beside the test; it is killed if it still runs in the end."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    group = 0  # this process stays outside it and can continue it: the system stops no orphaned group
    settings = {"cwd": shell.home, "env": shell.environ, "process_group": group, **streams, **options}
    with _process(command, **settings) as process:
        try:
            yield process
        finally:
            process.kill()


def _process(command: Sequence[str], **settings: Any) -> Process:
    """That command: mdl without options of Python's is a copy of a process that has imported it."""
    python, words = [sys.executable, "-m", "mdl"], list(command)
    if words[:3] == python and can_be_a_copy(settings["env"]):
        return Forked(tuple(words[3:]), **settings)
    return subprocess.Popen(command, text=True, **settings)


def started(shell: Shell, *words: str, folder: Path | None = None) -> contextlib.AbstractContextManager[Process]:
    """mdl beside the test."""
    return beside(shell, *shell.command(*words), cwd=folder or shell.home)


def opened_by(pid: int) -> set[str]:
    """The files that a process has open now."""
    try:
        return {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return set()


def ended(process: Process, code: int) -> Ran:
    """Wait for its end: it must have that exit code."""
    out, err = process.communicate()
    return done(Ran(process.returncode, out, err), code)


def environ(home: Path, **more: str) -> dict[str, str]:
    """A child's environment without any setting of this machine."""
    usual = {"PATH": os.environ["PATH"], "NO_COLOR": "1", "AWS_EC2_METADATA_DISABLED": "true"}
    return {"HOME": str(home), **usual, **more}


def child(home: Path, *words: str, **more: str) -> Process:
    """``mdl …`` in a separate process, which does not outlive the test."""
    return Forked(words, env=environ(home, **more), cwd=home)
