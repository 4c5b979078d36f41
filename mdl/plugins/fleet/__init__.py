"""The fleet: the nodes of an engine that exists (Slurm, Ray, ssh), each of which runs one command of its own mdl.

from mdl.plugins import fleet

report = fleet.run(mdl.Client(), "get", ["bert-fa"], on="ssh", hosts=["node1", "node2"])
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from mdl.cancel import CancelToken
from mdl.plugin import Plugin, PluginCommand
from mdl.units import texts

if TYPE_CHECKING:
    from mdl.client import Client
    from mdl.plugins.fleet.operation import OnNode
    from mdl.plugins.fleet.report import FleetReport
    from mdl.stores import Folder
    from mdl.units import Texts

PLUGIN = Plugin(
    commands={"fleet": PluginCommand("mdl.plugins.fleet.command", "Run get, verify or status on many nodes")},
    heading="Many machines",
)


def run(
    client: Client,
    task: str,
    names: Texts,
    *,
    on: str,
    nodes: int | None = None,
    hosts: Texts = (),
    shared: Folder | None = None,
    fan_out: str = "",
    repair: bool = False,
    program: str = "mdl",
    on_node: OnNode = lambda _node, _done, _asked: None,
    on_note: Callable[[str], None] = lambda _text: None,
    cancel: CancelToken | None = None,
) -> FleetReport:
    """Have every node of an engine ``get``, ``verify`` or look at the ``status`` of the models and groups
    ``names``, as the lock has them. Settings that this client was given go along; all others are the nodes' own.

    ``on`` is ``slurm``, ``ray`` or ``ssh``; ``nodes`` says how many nodes, or ``hosts`` which. All nodes of Slurm
    see the folder ``shared``; with the ``fan_out`` ``sbcast`` one of them downloads, and Slurm copies. A verify may
    ``repair``. ``program`` calls mdl there. ``on_node`` is told of each node that has answered, how many have, and
    how many were asked; ``on_note`` of what else happens.

    Raises `LockError` if the lock does not cover a model, `UsageError`, `NotFound`, `NetworkError`; `Cancelled`,
    after which nothing goes on."""
    from mdl.disk.process import split_command
    from mdl.plugins.fleet import operation
    from mdl.plugins.fleet.cluster import Nodes

    stop = client.stopped_by(cancel)
    models = {model.name: model for name in texts(names) for model in client.catalog.find(name)}
    lock = client.catalogs.lock
    given = client.config.given
    home = os.fspath(given["home"]) if given.get("home") else None
    words = split_command(program, "--mdl")
    flags = [*(["--repair"] if repair else []), *operation.given_flags(given, task)]
    wanted = operation.work_of(task, list(models.values()), lock, flags=flags, program=words, home=home)
    where = Nodes(
        nodes, tuple(texts(hosts)), os.fspath(shared) if shared else None, fan_out, on_note, stop, client.config.environ
    )
    return operation.fleet(task, wanted, lock, on, where, on_node)
