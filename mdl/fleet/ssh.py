"""ssh: a list of hosts, each asked over the ``ssh`` of this machine, many at once.

Keys, users, ports and jump hosts are those of ``~/.ssh/config``; nothing is asked for (``BatchMode``). The script goes
over the standard input, which stays open: a host whose connection ends stops its mdl.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from pathlib import Path

from mdl.errors import UsageError
from mdl.fleet.engine import Nodes
from mdl.fleet.work import Answer, Work
from mdl.threads import start_threads
from mdl.values import value_class

_MOST = 64
"""How many hosts are asked at once."""
_LOOK_SECONDS = 0.1
_OPTIONS = (
    *("BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=15"),
    *("RequestTTY=no", "RemoteCommand=none", "ClearAllForwardings=yes"),
)
_SSH = ("ssh", *(word for option in _OPTIONS for word in ("-o", option)))
"""The terminal, the command and the ports that a person's own ssh to a host may have are not for this one."""
_NO_CONNECTION = 255
"""What ``ssh`` exits with if it fails itself."""


def open_engine(nodes: Nodes) -> Ssh:
    """Raises `UsageError` if no hosts are named."""
    hosts = tuple(dict.fromkeys(nodes.hosts))[: nodes.count]
    if not hosts:
        raise UsageError("no hosts are named", item="--on ssh", hint="--hosts a,b,c or --hosts-file FILE")
    for host in hosts:
        if host.startswith("-"):
            raise UsageError("a host does not begin with '-'", item=host)
    return Ssh(hosts, nodes)


@value_class
class _Call:
    """One ``ssh`` that runs."""

    host: str
    process: subprocess.Popen[bytes]
    folder: Path
    began: float

    def answer(self) -> Answer:
        """Of a process that has ended."""
        out, err = ((self.folder / name).read_text(errors="replace") for name in ("out", "err"))
        code = self.process.returncode
        is_lost = code < 0 or code == _NO_CONNECTION  # whatever a node said until then: its shell may greet
        hint = f"'ssh {self.host}' must work, and ask no question"
        return Answer(self.host, None if is_lost else code, out, err, time.monotonic() - self.began, hint=hint)


class Ssh:
    """An `Engine`."""

    goes_on = ""

    def __init__(self, hosts: Sequence[str], nodes: Nodes) -> None:
        self._hosts, self._nodes, self.waiting = hosts, nodes, set(hosts)

    @property
    def count(self) -> int:
        return len(self._hosts)

    def run(self, work: Work) -> Generator[Answer]:
        """See `Engine.run`."""
        script, waiting = work.script(ends_with_stdin=True).encode(), list(self._hosts)
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mdl-fleet-")))
            calls: list[_Call] = []
            while waiting or calls:
                while waiting and len(calls) < _MOST:
                    place = Path(tempfile.mkdtemp(dir=folder))
                    calls.append(_begin(waiting.pop(0), script, place, self._nodes.environ))
                    stack.callback(_end, calls[-1].process)
                self._nodes.cancel.wait(_LOOK_SECONDS)
                over = [call for call in calls if call.process.poll() is not None]
                calls = [call for call in calls if call not in over]
                for call in over:
                    _end(call.process)
                    self.waiting.discard(call.host)
                    yield call.answer()


def _begin(host: str, script: bytes, folder: Path, environ: Mapping[str, str]) -> _Call:
    """Start ``ssh``, whose outputs go into ``folder``. Raises `UsageError` if there is none."""
    words = [*_SSH, "--", host, "sh -s"]
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        try:
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=out, stderr=err, env=environ)
        except OSError as error:
            why = error.strerror or str(error)
            raise UsageError(f"it cannot be run: {why}", item="ssh", hint="install OpenSSH's client") from error
    start_threads("mdl-ssh", [partial(_feed, process, script)])
    return _Call(host, process, folder, time.monotonic())


def _feed(process: subprocess.Popen[bytes], script: bytes) -> None:
    """Send the script, and leave the standard input open."""
    with contextlib.suppress(OSError, ValueError):  # it has ended, and says why itself
        assert process.stdin
        process.stdin.write(script)
        process.stdin.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it, if it still runs: the host then has no standard input any more, and stops."""
    if process.poll() is None:
        process.terminate()
        process.wait()
    with contextlib.suppress(OSError):
        assert process.stdin
        process.stdin.close()
