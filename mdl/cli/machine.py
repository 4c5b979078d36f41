"""config and doctor: where things are, and what works."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdl.cli import places
from mdl.cli.command import command
from mdl.cli.flags import Home, Network
from mdl.cli.session import Session
from mdl.console import Console
from mdl.errors import UsageError, joint_error

_SETTINGS = "the user config folder"

if TYPE_CHECKING:
    from mdl.doctor import CheckResult

_INDENT = " " * 6


def register(app: typer.Typer) -> None:
    command(app, "config")(config)
    command(app, "doctor")(doctor)


def config(
    session: Session,
    what: Annotated[str | None, typer.Argument(metavar="path", help="'path': the settings file, nothing else.")] = None,
    home: Home = Home(),  # noqa: B008 - frozen
) -> int:
    """Where settings, catalog, state and models are, and why."""
    if what not in (None, "path"):
        raise UsageError("config takes 'path' or nothing", item=what)
    rows = _places(session, home) if what is None else [_facts("settings", places.config_file(), _SETTINGS)]
    if session.common.json:
        keys = ("what", "path", "exists", "why")
        payload = {"places": [dict(zip(keys, row, strict=True)) for row in rows]}
        session.console.document("config", payload, ok=True, exit_code=0)
        return 0
    if what == "path":
        session.console.data(rows[0][1])
        return 0
    table = [(what, path + ("" if exists else " (not there)"), why) for what, path, exists, why in rows]
    session.console.table(("WHAT", "WHERE", "WHY"), table)
    return 0


def _places(session: Session, home: Home) -> list[tuple[str, str, bool, str]]:
    found: list[tuple[str, Path, str]] = []
    with contextlib.suppress(UsageError):
        found.append(("settings", places.config_file(), _SETTINGS))
    paths, why = session.catalog_place
    found += [("catalog", Path(path), why) for path in paths]
    with contextlib.suppress(UsageError):
        found.append(("state", places.state_dir(), "the user state folder"))
    models = session.home(home)
    found.append(("models", models.path, models.why))
    return [_facts(*one) for one in found]


def _facts(what: str, path: Path, why: str) -> tuple[str, str, bool, str]:
    return what, str(path), os.path.exists(path), why


def doctor(
    session: Session,
    home: Home = Home(),  # noqa: B008 - frozen
    offline: Annotated[bool, typer.Option("--offline", help="Contact nobody.")] = False,
) -> int:
    """What works here, and what to do about what does not: endpoint, proxy, CA, token, clock, disk, versions."""
    from mdl.doctor import Environment, run_checks

    network = Network(stall="10s", offline=offline)
    environment = Environment(
        catalog=lambda: _catalog(session),
        lock=lambda: _lock(session),
        home=lambda: session.home(home).path,
        state=places.state_dir,
        endpoint=lambda: session.endpoint,
        connect=None if session.is_offline(network) else lambda: session.http(network, ()),
    )
    results: list[CheckResult] = []
    checks: list[dict[str, object]] = []
    session.empty = {"checks": checks}
    for result in run_checks(environment):
        results.append(result)
        checks.append({"name": result.name, "ok": result.ok, "detail": result.detail, "advice": result.advice or None})
        _tell(session.console, result)
    problem = joint_error([result.error() for result in results if not result.ok])
    code = problem.exit_code if problem else 0
    if problem and session.console.progress == "json":
        session.console.error(problem)
    if session.common.json:
        session.console.document("doctor", {"checks": checks}, ok=code == 0, exit_code=code, error=problem)
    return code


def _catalog(session: Session) -> str:
    paths, why = session.catalog_place
    return f"{len(session.catalog.models)} models in {', '.join(map(str, paths))} ({why})"


def _lock(session: Session) -> str:
    lock = session.lock
    return "none; 'mdl lock' writes one" if lock is None else f"{len(lock.models)} models in {session.lock_path}"


def _tell(console: Console, result: CheckResult) -> None:
    """One line, folded where a terminal is narrower, and what to do on one more."""
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
