"""ssh: a list of hosts, each asked over the ``ssh`` of this machine, many at once.

Keys, users, ports and jump hosts are those of ``~/.ssh/config``; nothing is asked for (``BatchMode``). The script goes
over the standard input, which stays open: a host whose connection ends stops its mdl.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from functools import partial

from mdl.disk.child_output import Child, read_ready
from mdl.disk.pool import start_threads
from mdl.disk.process import free_descriptors
from mdl.errors import UsageError
from mdl.plugins.fleet.cluster import Nodes, check_hosts
from mdl.plugins.fleet.work import TOO_LONG, Answer, Work

_MOST = 64
"""How many hosts are asked at once."""
_FILES_OF_ONE = 3
"""The pipes of one ``ssh``."""
_SPARE_FILES = 32
"""Files that mdl opens beside them."""
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
    check_hosts(hosts)
    return Ssh(hosts, nodes)


class _Call:
    """One ``ssh`` that runs."""

    def __init__(self, host: str, script: bytes, environ: Mapping[str, str]) -> None:
        """Start it. Raises `UsageError` if there is none."""
        self.host = host
        try:
            self.child = Child([*_SSH, "--", host, "sh -s"], environ=environ, stdin=subprocess.PIPE)
        except OSError as error:
            why = error.strerror or str(error)
            raise UsageError(f"it cannot be run: {why}", item="ssh", hint="install OpenSSH's client") from error
        start_threads("mdl-ssh", [partial(_feed, self.child.process, script)])

    def answer(self) -> Answer:
        """Of a process that has ended."""
        seconds = time.monotonic() - self.child.began
        if self.child.is_too_long:
            return Answer(self.host, None, seconds=seconds, fault=TOO_LONG)
        out, err = (bytes(said).decode(errors="replace") for said in (self.child.out, self.child.err))
        code = self.child.process.returncode
        is_lost = code < 0 or code == _NO_CONNECTION  # whatever a node said until then: its shell may greet
        hint = f"'ssh {self.host}' must work, and ask no question"
        return Answer(self.host, None if is_lost else code, out, err, seconds, hint=hint)


class Ssh:
    """An `Engine`."""

    goes_on = ""

    def __init__(self, hosts: Sequence[str], nodes: Nodes) -> None:
        self._hosts = hosts
        self._nodes = nodes
        self.waiting = set(hosts)

    @property
    def count(self) -> int:
        return len(self._hosts)

    def run(self, work: Work) -> Generator[Answer]:
        """See `Engine.run`."""
        script = work.script(ends_with_stdin=True).encode()
        waiting = list(self._hosts)
        with contextlib.ExitStack() as stack:
            calls: list[_Call] = []
            most = max(1, min(_MOST, (free_descriptors() - _SPARE_FILES) // _FILES_OF_ONE))
            while waiting or calls:
                while waiting and len(calls) < most:
                    calls.append(_Call(waiting.pop(0), script, self._nodes.environ))
                    stack.callback(calls[-1].child.end)
                read_ready([call.child for call in calls], _LOOK_SECONDS, self._nodes.cancel)
                over = [call for call in calls if call.child.is_over()]
                calls = [call for call in calls if call not in over]
                for call in over:
                    call.child.end()
                    self.waiting.discard(call.host)
                    yield call.answer()


def _feed(process: subprocess.Popen[bytes], script: bytes) -> None:
    """Send the script, and leave the standard input open."""
    with contextlib.suppress(OSError, ValueError):  # it has ended, and says why itself
        assert process.stdin
        process.stdin.write(script)
        process.stdin.flush()
