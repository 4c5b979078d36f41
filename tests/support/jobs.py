"""What tests of jobs need: a server that waits at a gate, the records and logs of a machine, a hook."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mdl.jobs.job import Job, head_facts, line_of, state_facts
from mdl.jobs.records import Records
from support.data import DATA
from support.faults import honest
from support.faulty_server import Answer, Request
from support.polling import until
from support.shell import Shell

GATE = -(-len(DATA) * 7 // 10)
"""The offset of the gate: the first byte at which the log says 70 per cent."""
_FACT = re.compile(r' ([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "]+)')


class Gate:
    """An honest server of `DATA` that sends no byte from the offset ``at`` on until ``opened`` is set.

    With None it says nothing at all. ``reached`` is set as soon as a client has been sent what comes before ``at``.
    """

    def __init__(self, at: int | None = GATE) -> None:
        self._right, self._at = honest(DATA), at
        self.reached, self.opened = threading.Event(), threading.Event()
        self.requests = 0

    def __call__(self, request: Request, number: int) -> Answer:
        self.requests += 1
        answer = self._right(request, number)
        body = b"".join(piece for piece in answer.pieces() if isinstance(piece, bytes))
        if self._at is None:
            return replace(answer, status=None, body=self._pieces(answer.head() + body, 0))
        start, _ = request.range(len(DATA)) or (0, 0)
        return replace(answer, body=self._pieces(body, max(self._at - start, 0)))

    def _pieces(self, data: bytes, at: int) -> Iterator[bytes | threading.Event]:
        yield data[:at]
        self.reached.set()
        yield self.opened
        yield data[at:]

    def wait(self) -> None:
        """Wait until a client has come to the gate."""
        self.reached.wait()


def state_of(shell: Shell) -> Path:
    return shell.home / ".local" / "state" / "mdl"


def records_of(shell: Shell) -> Records:
    return Records(state_of(shell) / "jobs")


def the_job(shell: Shell) -> Job:
    """The newest job."""
    return records_of(shell).all()[0]


def file_of(job: Job, **facts: object) -> bytes:
    """The file of a job without events; ``facts`` are put in the place of some of its own."""
    head = {key: facts.get(key, value) for key, value in head_facts(job).items()}
    state = {key: facts.get(key, value) for key, value in state_facts(job, job.started_at).items()}
    return f"{line_of(head)}\n{line_of(state)}\n".encode()


def put_job(records: Records, job: Job) -> None:
    """Have the job among the records, as if it had come to this state without an event."""
    records.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged = records.folder / f".{job.id}.new"
    staged.write_bytes(file_of(job))
    staged.replace(records.path(job.id))


def log_of(shell: Shell) -> str:
    return (state_of(shell) / "downloads.log").read_text()


def parsed(text: str) -> list[dict[str, str]]:
    """The lines of a log, split again; each must have the exact form of one."""
    found = []
    for line in text.splitlines():
        time, level, what, rest = re.fullmatch(r"(\S+) (INFO|WARN|ERROR) ([a-z]+)((?: .*)?)", line).groups()  # type: ignore[union-attr]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
        assert _FACT.sub("", rest) == "", line
        facts = {key: json.loads(value) if value[0] == '"' else value for key, value in _FACT.findall(rest)}
        found.append({"level": level, "what": what, **facts})
    return found


def waits(shell: Shell, gate: Gate) -> Job:
    """Wait until a download has all that the gate lets through; the newest job."""
    gate.wait()
    until(lambda: "percent=70" in log_of(shell))
    return the_job(shell)


def arrived(shell: Shell, data: bytes = DATA) -> bool:
    """The right bytes stand under the final name of ``one``, and no hidden part of them is left."""
    partials = shell.models / ".mdl" / "partials"
    left = list(partials.iterdir()) if partials.exists() else []
    return (shell.models / "one" / "f.bin").read_bytes() == data and not left


def program(folder: Path) -> Path:
    """A program that writes its arguments and MDL_HOOK_* to ``told`` in ``folder``, as JSON, one line a call."""
    place = folder / "hook"
    place.write_text(
        f"#!{sys.executable} -SE\n"
        "import json, os, sys\n"
        "facts = {k: v for k, v in os.environ.items() if k.startswith('MDL_')}\n"
        f"open({str(folder / 'told')!r}, 'a').write(json.dumps([sys.argv[1:], facts]) + '\\n')\n"
        "print('said by the hook')\n"
    )
    place.chmod(0o755)
    return place


def secrets_in(folder: Path, *secrets: str) -> set[str]:
    """The files below a folder that hold one of these, in their bytes or their names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder))
        for path in files
        for secret in secrets
        if secret in str(path) or secret.encode() in path.read_bytes()
    }
