"""Engine: what runs one mdl command on every node. Each engine is a module of its own, which is imported late."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import field
from typing import Protocol

from mdl.cancel import CancelToken
from mdl.errors import UsageError
from mdl.paths import shown
from mdl.plugins.fleet.work import Answer, Work
from mdl.values import value_class

ENGINES = ("slurm", "ray", "ssh")
"""Each is the name of a module beside this one, with a function ``open_engine(nodes)``."""
FAN_OUTS = ("sbcast",)
"""How one download may reach all nodes."""


@value_class
class Nodes:
    """Which nodes: ``count`` of them, or these ``hosts``. ``shared`` is a folder that all of them see; ``fan_out`` is
    one of `FAN_OUTS` or ''. ``note`` is told in words what happens meanwhile; ``cancel`` stops everything. ``environ``
    has the variables of the engine's programs."""

    count: int | None = None
    hosts: tuple[str, ...] = ()
    shared: str | None = None
    fan_out: str = ""
    note: Callable[[str], None] = lambda _text: None
    cancel: CancelToken = field(default_factory=CancelToken)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


class Engine(Protocol):
    """One scheduler, or the lack of one."""

    goes_on: str
    """What may go on although it was cancelled, and how to end it; '' if nothing does."""
    waiting: set[str]
    """The nodes that are at work, or are still to be asked."""

    @property
    def count(self) -> int:
        """How many nodes are asked."""

    def run(self, work: Work) -> Generator[Answer]:
        """Have every node do the work, and yield each answer as it comes; a later one of the same node replaces it.
        Every node that was asked is in it, also one that did not answer. If it is cancelled, or the caller stops
        asking, the work is cancelled on the nodes too. Raises `MdlError` if it could not begin, `Cancelled`."""


def check_hosts(hosts: Iterable[str]) -> None:
    """Raises `UsageError` for a host that a program would take for an option of its own."""
    for host in hosts:
        if host.startswith("-"):
            raise UsageError(
                "a host does not begin with '-'", item=shown(host)[:100], hint="name it as Slurm or ssh does"
            )


def open_engine(name: str, nodes: Nodes) -> Engine:
    """The engine of that name. Raises `UsageError` if there is none, or it cannot do what is asked."""
    if name not in ENGINES:
        hint = f"choose one of {', '.join(ENGINES)}"
        raise UsageError(f"{name!r} is not an engine" if name else "no engine is named", item="--on", hint=hint)
    if nodes.fan_out and (name != "slurm" or nodes.fan_out not in FAN_OUTS):
        raise UsageError("there is no such fan-out", item="--fan-out", hint="--on slurm has --fan-out sbcast")
    if nodes.count is not None and nodes.count < 1:
        raise UsageError(f"{nodes.count} is not a number of nodes", item="--nodes")
    engine: Engine = importlib.import_module(f"mdl.plugins.fleet.{name}").open_engine(nodes)
    return engine
