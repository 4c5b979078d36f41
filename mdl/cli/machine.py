"""config and doctor: where things are, and what works."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdl import places
from mdl.cli.command import command
from mdl.cli.flags import DoctorSettings, LookSettings
from mdl.cli.session import Session
from mdl.console import Console
from mdl.errors import UsageError, joint_error

_SETTINGS = "the user config folder"

if TYPE_CHECKING:
    from mdl.client import Client
    from mdl.doctor import CheckResult

_INDENT = " " * 6


def register(app: typer.Typer) -> None:
    command(app, "config")(config)
    command(app, "doctor")(doctor)


def config(
    session: Session,
    settings: LookSettings,
    what: Annotated[str | None, typer.Argument(metavar="path", help="'path': the settings file, nothing else.")] = None,
) -> int:
    """Where settings, catalog, state and models are, and why."""
    if what not in (None, "path"):
        raise UsageError("config takes 'path' or nothing", item=what)
    rows = [_facts("settings", places.config_file(), _SETTINGS)] if what else _places(session, settings)

    def tell() -> None:
        if what:
            session.console.data(rows[0][1])
            return
        table = [(kind, path + ("" if exists else " (not there)"), why) for kind, path, exists, why in rows]
        session.console.table(("WHAT", "WHERE", "WHY"), table)

    keys = ("what", "path", "exists", "why")
    return session.show({"places": [dict(zip(keys, row, strict=True)) for row in rows]}, tell)


def _places(session: Session, settings: LookSettings) -> list[tuple[str, str, bool, str]]:
    client = session.client(settings)
    found: list[tuple[str, Path, str]] = []
    with contextlib.suppress(UsageError):
        found.append(("settings", places.config_file(), _SETTINGS))
    paths, why = client.workspace.catalog_paths
    found += [("catalog", Path(path), why) for path in paths]
    with contextlib.suppress(UsageError):
        found.append(("state", places.state_dir(), "the user state folder"))
    found.append(("models", client.workspace.config.home.path, client.workspace.config.home.why))
    return [_facts(*one) for one in found]


def _facts(what: str, path: Path, why: str) -> tuple[str, str, bool, str]:
    return what, str(path), os.path.exists(path), why


def doctor(session: Session, settings: DoctorSettings) -> int:
    """What works here, and what to do about what does not: endpoint, proxy, CA, token, clock, disk, versions."""
    from mdl.doctor import Environment, run_checks

    settings["stall"] = settings.get("stall") or "10s"
    client = session.client(settings)
    environment = Environment(
        catalog=lambda: _catalog(client),
        lock=lambda: _lock(client),
        home=lambda: client.workspace.config.home.path,
        state=places.state_dir,
        endpoint=lambda: client.workspace.endpoint,
        connect=None if client.workspace.config.is_offline else client.workspace.http,
    )
    results: list[CheckResult] = []
    checks: list[dict[str, object]] = []
    session.empty = {"checks": checks}
    for result in run_checks(environment):
        results.append(result)
        checks.append({"name": result.name, "ok": result.ok, "detail": result.detail, "advice": result.advice or None})
        _tell(session.console, result)
    problem = joint_error([result.error() for result in results if not result.ok])
    if problem and session.console.progress == "json":
        session.console.error(problem)
    return session.show({"checks": checks}, error=problem)


def _catalog(client: Client) -> str:
    paths, why = client.workspace.catalog_paths
    return f"{len(client.catalog.models)} models in {', '.join(map(str, paths))} ({why})"


def _lock(client: Client) -> str:
    lock = client.workspace.locked
    return (
        "none; 'mdl lock' writes one" if lock is None else f"{len(lock.models)} models in {client.workspace.lock_path}"
    )


def _tell(console: Console, result: CheckResult) -> None:
    """One line, folded if the terminal is narrower, and the advice on the next."""
    text = f"{'ok  ' if result.ok else 'FAIL'}  {result.name}: {result.detail}"
    width = console.streams.size(console.streams.stdout)[0] if console.streams.stdout.is_terminal else sys.maxsize
    for number, line in enumerate(filter(None, [*text.split("\n"), "" if result.ok else result.advice])):
        folded = textwrap.wrap(
            console.clean(line),
            width - 1,
            initial_indent=_INDENT if number else "",
            subsequent_indent=_INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for piece in folded:
            console.data(piece)
