"""Ray: one task on each node of a cluster that runs, whose address is in ``RAY_ADDRESS``.

The task needs nothing of mdl's Python on the node: it starts ``sh``, and ends it when Ray ends the task.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

from mdl.cancel import CancelToken
from mdl.errors import NetworkError, UsageError
from mdl.fleet.engine import Nodes
from mdl.fleet.work import Answer, Work

_LOOK_SECONDS = 0.25
_GRACE_SECONDS = 10.0
"""How long a cancelled task may take to end its mdl."""


def open_engine(nodes: Nodes) -> Ray:
    """Raises `UsageError` if Ray is not installed, `NetworkError` if there is no cluster."""
    if nodes.hosts:
        raise UsageError("Ray chooses the nodes", item="--hosts", hint="--nodes N says how many")
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray = importlib.import_module("ray")
        address = os.environ.get("RAY_ADDRESS") or "auto"
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except ImportError as error:
        raise UsageError("Ray is not installed", item="--on ray", hint="pip install 'mdl[ray]'") from error
    except (OSError, RuntimeError, ValueError) as error:
        hint = "set RAY_ADDRESS to the cluster's address, and use its version of Ray"
        raise NetworkError(str(error).splitlines()[0], item="--on ray", hint=hint) from error
    finally:
        with contextlib.suppress(ValueError):  # Ray takes the signal; only the main thread can have it back
            signal.signal(signal.SIGTERM, before)
    return Ray(ray, nodes)


class Ray:
    """An `Engine`. If there are more nodes than are asked, a spare one takes the place of one that dies."""

    def __init__(self, ray: Any, nodes: Nodes) -> None:
        self._ray = ray
        alive = _named([node for node in ray.nodes() if node["Alive"]])
        if nodes.count is not None and nodes.count > len(alive):
            raise UsageError(f"the cluster has {len(alive)} nodes", item="--nodes")
        self.count = nodes.count or len(alive)
        """How many nodes are asked."""
        self._asked, self._spare = alive[: self.count], alive[self.count :]

    def run(self, work: Work, cancel: CancelToken) -> Generator[Answer]:
        """See `Engine.run`."""
        ray = self._ray
        task = ray.remote(num_cpus=0, max_retries=0)(_task())
        script, running = work.script(ends_with_stdin=True), dict[Any, str]()

        def begin(node: str, name: str) -> None:
            affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
            running[task.options(scheduling_strategy=affinity).remote(script)] = name

        try:
            for node, name in self._asked:
                begin(node, name)
            while running:
                cancel.check()
                over, _ = ray.wait([*running], num_returns=1, timeout=_LOOK_SECONDS)
                for one in over:
                    answer = self._answer(one, running.pop(one))
                    if answer.exit_code is None and self._spare and work.command == "get":
                        node, name = self._spare.pop(0)
                        begin(node, name)
                        answer = Answer(**vars(answer) | {"replaced_by": name})
                    yield answer
        finally:
            for one in running:
                ray.cancel(one)
            with contextlib.suppress(ray.exceptions.RayError):
                ray.wait([*running], num_returns=len(running), timeout=_GRACE_SECONDS) if running else None
            ray.shutdown()

    def _answer(self, reference: Any, name: str) -> Answer:
        try:
            code, out, err, seconds = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            words = [line for line in str(error).splitlines() if line.strip()]
            return Answer(name, None, err=words[0] if words else type(error).__name__)
        return Answer(name, code, out, err, seconds)


def _named(nodes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The id of each node, and what it is called: by its host, with a part of the id if others have the same name."""
    names = [str(node.get("NodeName") or node["NodeManagerHostname"]) for node in nodes]
    counts = Counter(names)
    pairs = zip(nodes, names, strict=True)
    return [(str(one["NodeID"]), name if counts[name] == 1 else f"{name}-{one['NodeID'][:6]}") for one, name in pairs]


def _task() -> Callable[[str], tuple[int, str, str, float]]:
    """What a node runs. It is a function within a function, so that Ray sends its code and not its name."""

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
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return process.returncode, texts[0], texts[1], time.monotonic() - began

    return run_script
