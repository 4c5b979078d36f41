"""Ray's driver: a process that speaks with the cluster for `mdl.plugins.fleet.ray`, which starts it.

A task needs nothing of mdl's Python on the node: it starts ``sh``, and ends it when Ray ends the task.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import IO, Any

from mdl.bounds import LARGEST_CHILD_OUTPUT, LARGEST_NOTE
from mdl.extras import to_install
from mdl.plugins.fleet.work import TOO_LONG

_LOOK_SECONDS = 0.25
_REACH_SECONDS = 10.0
_GRACE_SECONDS = 10.0
"""How long a cancelled task may take to end its mdl."""


def main() -> None:
    """Do what the standard input says, and tell it on the standard output. That is for these lines alone: whatever Ray
    writes there goes to standard error."""
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        try:
            _drive(replies)
        except Exception as error:
            _tell(replies, fault=f"{type(error).__name__}: {error}")


def _drive(replies: IO[str]) -> None:
    """Connect, tell which nodes there are, have each run the script, and tell what it answered."""
    asked = json.loads(sys.stdin.readline())["count"]
    try:
        ray = importlib.import_module("ray")
        address = os.environ.get("RAY_ADDRESS") or "auto"
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except ImportError:
        _tell(replies, usage="Ray is not installed", hint=to_install("ray"))
        return
    except (OSError, RuntimeError, ValueError) as error:
        _tell(replies, network=f"no cluster: {' '.join(str(error).split())[:300]}")
        return
    nodes = _named([node for node in ray.nodes() if node["Alive"]])
    count = asked or len(nodes)
    if count > len(nodes):
        _tell(replies, usage=f"the cluster has {len(nodes)} nodes", hint="--nodes says how many")
        return
    _tell(replies, nodes=[name for _, name in nodes[:count]])
    if line := sys.stdin.readline():
        work = json.loads(line)
        _run(ray, replies, work["script"], nodes[:count], nodes[count:] if work["is_replaceable"] else [])


def _reach(address: str) -> None:
    """Find out at once whether anybody answers there: Ray tries for minutes. Raises `OSError`, ``ValueError``."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_SECONDS).close()


def _run(ray: Any, replies: IO[str], script: str, asked: list[tuple[str, str]], spare: list[tuple[str, str]]) -> None:
    """Run the script on the nodes ``asked``, and on a ``spare`` one for each that dies."""
    task = ray.remote(num_cpus=0, max_retries=0)(_task())
    affinity = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    running: dict[Any, str] = {}

    def begin(node: str, name: str) -> None:
        running[task.options(scheduling_strategy=affinity(node, soft=False)).remote(script)] = name

    try:
        for node, name in asked:
            begin(node, name)
        while running and not select.select([sys.stdin], [], [], 0)[0]:  # its end: the process that asked is gone
            over, _ = ray.wait([*running], num_returns=1, timeout=_LOOK_SECONDS)
            for one in over:
                facts = {"node": running.pop(one), **_outcome(ray, one)}
                if facts["exit_code"] is None and "fault" not in facts and spare:
                    node, facts["replaced_by"] = spare.pop(0)
                    begin(node, facts["replaced_by"])
                _tell(replies, **facts)
        if not running:
            _tell(replies)
    finally:
        for one in running:
            ray.cancel(one)
        if running:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.wait([*running], num_returns=len(running), timeout=_GRACE_SECONDS)
        ray.shutdown()


def _outcome(ray: Any, reference: Any) -> dict[str, Any]:
    try:
        code, out, err, seconds = ray.get(reference)
    except ray.exceptions.RayError as error:
        words = " ".join(str(error).split()).partition(". ")[0]
        return {"exit_code": None, "err": words or type(error).__name__}
    if len(out) > LARGEST_CHILD_OUTPUT:
        return {"exit_code": None, "fault": TOO_LONG, "seconds": seconds}
    return {"exit_code": code, "out": out, "err": err, "seconds": seconds}


def _tell(replies: IO[str], **facts: Any) -> None:
    replies.write(json.dumps(facts) + "\n")
    replies.flush()


def _named(nodes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The id of each node, and what it is called: by its host, with a part of the id if others have the same name."""
    names = [str(node.get("NodeName") or node["NodeManagerHostname"]) for node in nodes]
    counts = Counter(names)
    pairs = zip(nodes, names, strict=True)
    return [(str(one["NodeID"]), name if counts[name] == 1 else f"{name}-{one['NodeID'][:6]}") for one, name in pairs]


def _task() -> Callable[[str], tuple[int, str, str, float]]:
    """What a node runs. It is a function within a function, so that Ray sends its code and not its name."""
    most = LARGEST_CHILD_OUTPUT
    most_errors = LARGEST_NOTE

    def run_script(script: str) -> tuple[int, str, str, float]:
        import subprocess
        import tempfile

        began = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(["sh", "-s"], stdin=subprocess.PIPE, stdout=out, stderr=err)
            assert process.stdin
            try:
                process.stdin.write(script.encode())
                process.stdin.flush()
                while process.poll() is None:
                    time.sleep(0.1)  # Ray cancels a task between two steps of Python
            finally:
                process.stdin.close()
                process.wait()
            out.seek(0)
            said = out.read(most + 1).decode(errors="replace")  # one more than it may say is too much
            err.seek(max(0, err.seek(0, 2) - most_errors))
            errors = err.read(most_errors).decode(errors="replace")
        return process.returncode, said, errors, time.monotonic() - began

    return run_script


if __name__ == "__main__":
    main()
