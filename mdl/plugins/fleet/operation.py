"""fleet: one command on every node of an engine, with the lock pinned; what they answer becomes one report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from mdl.catalog.lock import Lock
from mdl.catalog.model import Model
from mdl.config.settings import settings_table
from mdl.errors import Cancelled, UsageError
from mdl.ops.sub_catalog import excerpt
from mdl.plugins.fleet.cluster import Nodes, open_engine
from mdl.plugins.fleet.report import FleetReport, NodeReport, node_report
from mdl.plugins.fleet.work import Answer, Work

COMMANDS = {"get": ("get", "--locked"), "verify": ("verify",), "status": ("list",)}
"""What each task is for a node: a command of mdl, and flags of it."""
_NOT_SENT = ("catalog", "locked", "frozen", "progress", "log_file")
"""Settings that are not for the nodes: they have a catalog and a lock of their own."""
OnNode = Callable[[NodeReport, int, int], None]
"""Is told of a node that has answered, how many have, and of how many."""


def work_of(
    task: str,
    models: Sequence[Model],
    lock: Lock,
    *,
    flags: Sequence[str] = (),
    program: Sequence[str] = ("mdl",),
    home: str | None = None,
) -> Work:
    """What every node is to do for a ``task``, which is one of `COMMANDS`. Raises `LockError` if the lock does not
    cover a model, `UsageError`."""
    if task not in COMMANDS:
        raise UsageError(f"{task!r} is not a task", item="fleet", hint=f"choose one of {', '.join(COMMANDS)}")
    found = excerpt(models, lock)
    command, *own = COMMANDS[task]
    names = [model.name for model in models]
    files = [f"{name}/{file.path}" for name in names for file in lock.models[name].files]
    words = (*own, *flags)
    return Work(command, words, names, found.catalog, found.lock, tuple(program), home, files, found.left_out)


def given_flags(given: Mapping[str, Any], task: str) -> list[str]:
    """The flags by which the nodes get the settings that were ``given``: those that the command of the task has."""
    table = settings_table()
    known = ("home", "layout") if task == "status" else tuple(table)
    flags = []
    for name in known:
        flag = table[name].flag_name
        value = given.get(name)
        if flag and value not in (None, False) and name not in _NOT_SENT:
            flags.append(flag if value is True else f"{flag}={value}")
    return flags


def fleet(task: str, work: Work, lock: Lock, on: str, nodes: Nodes, on_node: OnNode) -> FleetReport:
    """Have every node of the engine ``on`` do the work. Raises `UsageError`, `NetworkError`, and `Cancelled` with the
    report so far."""
    engine = open_engine(on, nodes)
    found: dict[str, NodeReport] = {}
    began = time.monotonic()
    sizes = {(name, file.path.text): file.size or 0 for name in work.names for file in lock.models[name].files}
    report = FleetReport(on, task, engine.count, left_out=work.left_out)

    def so_far() -> FleetReport:
        return replace(report, nodes=tuple(found.values()), seconds=time.monotonic() - began)

    try:
        with closing(engine.run(work)) as answers:
            for answer in answers:
                found[answer.node] = node = node_report(answer, sizes, work.names)
                done = sum(not one.replaced_by for one in found.values())
                on_node(node, done, engine.count)
    except Cancelled as stopped:
        for name in engine.waiting - found.keys():
            why = Answer(name, None, err="cancelled before it answered", hint="run the same command again to continue")
            found[name] = node_report(why, sizes, work.names)
        hint = engine.goes_on or "it was cancelled on the nodes too; what they have fetched is kept"
        raise stopped.but(so_far=so_far(), hint=hint) from stopped.__cause__
    return so_far()
