"""fleet: one command on every node of Slurm, Ray or a list of hosts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mdl import Cancelled, UsageError
from mdl.cli.command import command
from mdl.cli.flags import DOWNLOAD, LookSettings, argument, bare_flag, flag
from mdl.cli.session import Session, warn_of_queries
from mdl.config import places
from mdl.config.settings import Settings
from mdl.errors import storage_error
from mdl.formatting import counted, human_bytes, human_elapsed
from mdl.paths import shown
from mdl.plugins import fleet as fleets
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.plugins.fleet.report import FleetReport, NodeReport

_MOST_ROWS = 32
"""Of a larger fleet only the nodes that are not well are listed, unless --verbose asks for all."""
_MOST_LINES = 20
"""How many lines tell how far a fleet is."""


@value_class
class FleetFlags:
    """Which nodes, and how they are reached."""

    on: Annotated[
        Literal["slurm", "ray", "ssh"] | None, flag("--on", "The engine that the nodes belong to.", panel="Where")
    ] = None
    nodes: Annotated[int | None, flag("--nodes N", "How many nodes; of Ray, all without it.", panel="Where")] = None
    hosts: Annotated[str | None, flag("--hosts A,B", "These hosts of ssh, or nodes of Slurm.", panel="Where")] = None
    hosts_file: Annotated[
        Path | None, flag("--hosts-file FILE", "The hosts from a file, one a line.", panel="Where")
    ] = None
    shared: Annotated[
        str | None,
        flag("--shared DIR", "Slurm: a folder all nodes see, for their answers. [default: in the home]", panel="Where"),
    ] = None
    program: Annotated[str, bare_flag("--mdl CMD", "How a node calls its mdl.", panel="Where")] = "mdl"


GetSettings = Annotated[Settings, tuple(name for name in DOWNLOAD if name not in ("locked", "frozen", "offline"))]
Names = Annotated[list[str], argument("NAME", "Models and groups of the catalog; the lock must have them.")]
_ABOUT = """Run get, verify or status on every node of your Slurm or Ray cluster, or on a list of hosts.

Each node runs its own mdl, with your lock: all get the same commits. A node has its own token and config.toml; Slurm
also passes your environment on. One row per node, one exit code: the one reason why nodes failed, or 10 for several.
"""


@command(
    "fleet",
    "mdl fleet get bert-fa --on slurm --nodes 4  # each with its own mdl",
    "mdl fleet verify bert-fa --on ssh --hosts a,b,c  # re-hash it everywhere",
    "mdl fleet status nightly --on ray --json  # which nodes have it?",
    group_help=_ABOUT,
)
def fleet(session: Session) -> int:
    """Refused: it must be named what the nodes do."""
    raise UsageError(
        "get, verify or status is missing", item="mdl fleet", hint="mdl fleet get, verify or status; see --help"
    )


@command(
    "fleet get",
    "mdl fleet get bert-fa --on ssh --hosts a,b,c  # to each one's models folder",
    "mdl fleet get bert-fa --on slurm --nodes 4 --to /local  # to their disks",
    "mdl fleet get x --on slurm --nodes 9 --to /local --fan-out sbcast  # one copy",
)
def get(
    session: Session,
    names: Names,
    where: FleetFlags,
    settings: GetSettings,
    fan_out: Annotated[
        Literal["sbcast"] | None,
        flag("--fan-out WAY", "sbcast: one node downloads; Slurm copies to the others' disks.", panel="Where"),
    ] = None,
) -> int:
    """Download models on every node, as the lock has them. Run it again to continue after an interruption."""
    return _run(session, "get", names, where, settings, fan_out=fan_out or "")


@command(
    "fleet verify",
    "mdl fleet verify bert-fa --on slurm --nodes 4 --json  # for a script",
    "mdl fleet verify bert-fa --on ssh --hosts a,b --repair  # repair it there",
)
def verify(
    session: Session,
    names: Names,
    where: FleetFlags,
    settings: GetSettings,
    repair: Annotated[bool, flag("--repair", "Download only what is wrong there.")] = False,
) -> int:
    """Read models on every node again, and compare them with their digests."""
    return _run(session, "verify", names, where, settings, repair=repair)


@command(
    "fleet status",
    "mdl fleet status bert-fa --on ray  # exit code 3 if a node misses a file",
    "mdl fleet status bert-fa --on slurm --hosts n1,n2  # of these nodes",
)
def status(session: Session, names: Names, where: FleetFlags, settings: LookSettings) -> int:
    """Show what every node has of models, without reading the files."""
    return _run(session, "status", names, where, settings)


def _run(session: Session, task: str, names: list[str], where: FleetFlags, settings: Settings, **how: Any) -> int:
    """Have the nodes do it, tell how far they are, and show how it went. Returns the exit code."""
    console = session.console
    client = session.client(settings)
    hosts = _hosts(where)
    session.signals.poll()

    def tell(node: NodeReport, done: int, asked: int) -> None:
        if asked <= _MOST_LINES or node.error or done * _MOST_LINES // asked > (done - 1) * _MOST_LINES // asked:
            console.note(f"{done:,} of {asked:,} nodes: {shown(node.node)}: {node.status}")

    try:
        report = fleets.run(
            client,
            task,
            names,
            on=where.on or "",
            nodes=where.nodes,
            hosts=hosts,
            shared=where.shared,
            program=where.program,
            on_node=tell,
            on_note=console.note,
            **how,
        )
    except Cancelled as stopped:
        from mdl.plugins.fleet.report import FleetReport

        if isinstance(stopped.so_far, FleetReport):
            session.empty = _facts(stopped.so_far)
            _table(session, stopped.so_far)
        raise
    warn_of_queries(session, report.left_out)
    return session.show(_facts(report), lambda: _show(session, report), error=report.error)


def _hosts(where: FleetFlags) -> list[str]:
    """The hosts of the flag and of the file, whose comments begin with ``#``. Raises `StorageError`."""
    hosts = (where.hosts or "").split(",")
    if where.hosts_file:
        try:
            text = places.expanded(where.hosts_file, "--hosts-file").read_text("utf-8-sig", "replace")
        except OSError as error:
            raise storage_error(error, str(where.hosts_file)) from error
        for line in text.splitlines():
            hosts.append(line.partition("#")[0])
    return [host.strip() for host in hosts if host.strip()]


def _facts(report: FleetReport) -> dict[str, Any]:
    """What ``--json`` shows."""
    nodes = [vars(node) | {"status": node.status, "bytes": node.bytes} for node in report.nodes]
    return {
        "engine": report.engine,
        "task": report.task,
        "asked": report.asked,
        "seconds": round(report.seconds, 3),
        "nodes": sorted(nodes, key=lambda node: str(node["node"])),
        "queries_left_out": report.left_out,
    }


def _show(session: Session, report: FleetReport) -> None:
    """The rows, and one line for the whole, which comes first if only some of the rows are shown."""
    well = [node for node in report.counted if not node.error]
    summary = f"{len(well):,} of {counted(len(report.counted), 'node')} ok"
    summary += f": {human_bytes(sum(node.bytes for node in well))} in all"
    if report.task == "get":
        summary += f", {human_bytes(sum(node.bytes_fetched for node in report.nodes))} fetched"
    summary += f", {human_elapsed(report.seconds)}"
    is_large = len(report.nodes) > _MOST_ROWS
    if is_large:
        session.console.note(summary)
    _table(session, report)
    if not is_large:
        session.console.note(summary)
    error = report.error
    if error:
        session.console.error(error)


def _table(session: Session, report: FleetReport) -> None:
    """One row a node, by their names; of a large fleet only those that are not well."""
    are_all_shown = len(report.nodes) <= _MOST_ROWS or session.console.verbose
    is_get = report.task == "get"
    rows = []
    for node in sorted(report.nodes, key=lambda node: node.node):
        if not node.error and not are_all_shown:
            continue
        models = "-"
        if node.models:
            models = f"{sum(model.is_right for model in node.models)}/{len(node.models)}"
        row = [shown(node.node), node.status, models, human_bytes(node.bytes)]
        if is_get:
            row.append(human_bytes(node.bytes_fetched))
        rows.append([*row, human_elapsed(node.seconds), _why(node)])
    heads = ["NODE", "STATUS", "MODELS", "SIZE", "TIME", "WHY"]
    if is_get:
        heads.insert(heads.index("TIME"), "FETCHED")
    if rows:
        session.console.table(heads, rows, cut=["WHY"])


def _why(node: NodeReport) -> str:
    """Why a node is not well, in one line."""
    if not node.error:
        return ""
    why = shown(node.error.message)
    if node.replaced_by:
        why += f"; {node.replaced_by} was asked instead"
    return why
