"""Ray: one task on each node of a cluster that runs, whose address is in ``RAY_ADDRESS``.

Ray writes to standard output when a node dies, and takes the signals of its process, so it has a process of its own:
`mdl.plugins.fleet.ray_driver`. The two speak JSON, one object a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
from collections.abc import Generator
from typing import Any

from mdl.bounds import LARGEST_CHILD_OUTPUT, LARGEST_NOTE, parse_json
from mdl.disk.process import python_command
from mdl.errors import MdlError, NetworkError, ProtocolError, UsageError
from mdl.plugins.fleet.cluster import Nodes
from mdl.plugins.fleet.work import Answer, Work

_LOOK_SECONDS = 0.25
_GRACE_SECONDS = 15.0
"""How long the driver may take to end the tasks."""
_LONGEST_LINE = 8 * (LARGEST_CHILD_OUTPUT + LARGEST_NOTE)
"""Bytes of one answer in JSON, which may write a byte as six letters."""
_GONE = "Ray has ended the connection: the head of the cluster may be gone"


class _Ended(NetworkError):
    """The driver has ended without a word."""


def open_engine(nodes: Nodes) -> Ray:
    """Raises `UsageError` if Ray is not installed or has too few nodes, `NetworkError` if there is no cluster."""
    if nodes.hosts:
        raise UsageError("Ray chooses the nodes", item="--hosts", hint="--nodes N says how many")
    return Ray(nodes)


class Ray:
    """An `Engine`. If there are more nodes than are asked, a spare one does the work of one that dies."""

    goes_on = ""

    def __init__(self, nodes: Nodes) -> None:
        words = python_command("mdl.plugins.fleet.ray_driver")
        self._driver = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=nodes.environ,
            start_new_session=True,
        )
        self._unread = bytearray()
        self._cancel = nodes.cancel
        try:
            self._send(count=nodes.count)
            self._asked: list[str] = self._next()["nodes"]
            self.waiting = set(self._asked)
        except BaseException:
            self._end()
            raise

    @property
    def count(self) -> int:
        return len(self._asked)

    def run(self, work: Work) -> Generator[Answer]:
        """See `Engine.run`."""
        try:
            self._send(script=work.script(ends_with_stdin=True), is_replaceable=work.command == "get")
            while facts := self._next():
                answer = Answer(**facts)
                self.waiting.discard(answer.node)
                self.waiting |= {answer.replaced_by} if answer.replaced_by else set()
                yield answer
        except _Ended as error:
            yield from (Answer(node, None, err=error.message) for node in sorted(self.waiting))
        finally:
            self._end()

    def _send(self, **facts: Any) -> None:
        assert self._driver.stdin
        try:
            self._driver.stdin.write(json.dumps(facts).encode() + b"\n")
            self._driver.stdin.flush()
        except OSError as error:
            raise _Ended(_GONE, item="--on ray") from error

    def _next(self) -> dict[str, Any]:
        """The next object of the driver, which is empty after the last one. Raises the error that it tells,
        `Cancelled`."""
        assert self._driver.stdout
        pipe = self._driver.stdout.fileno()
        searched = 0
        while (end := self._unread.find(b"\n", searched)) < 0:
            self._cancel.check()
            searched = len(self._unread)
            if searched > _LONGEST_LINE:
                raise ProtocolError(f"Ray's driver says more than {_LONGEST_LINE:,} bytes in one line", item="--on ray")
            if select.select([pipe], [], [], _LOOK_SECONDS)[0]:
                block = os.read(pipe, 2**16)
                if not block:
                    raise _Ended(_GONE, item="--on ray")
                self._unread += block
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        try:
            facts: dict[str, Any] = dict(parse_json(line))
        except (ValueError, TypeError) as error:
            raise ProtocolError("Ray's driver does not speak JSON", item="--on ray") from error
        if "usage" in facts:
            raise UsageError(facts["usage"], item="--on ray", hint=facts.get("hint"))
        if "network" in facts:
            hint = "set RAY_ADDRESS to the cluster's address, and use its version of Ray"
            raise NetworkError(facts["network"], item="--on ray", hint=hint)
        if "fault" in facts:
            raise MdlError(facts["fault"], item="--on ray", hint="look at the cluster: ray status")
        return facts

    def _end(self) -> None:
        """End the driver, which cancels the tasks that still run when its standard input ends."""
        for file in (self._driver.stdin, self._driver.stdout):
            assert file
            with contextlib.suppress(OSError):
                file.close()
        try:
            self._driver.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._driver.kill()
            self._driver.wait()
