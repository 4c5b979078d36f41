"""config and doctor: where things are, and what works."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated

import typer

from mdl.cli import places
from mdl.cli.command import command
from mdl.cli.flags import Network
from mdl.cli.session import Session
from mdl.errors import MdlError, UsageError, joint_exit_code


def register(app: typer.Typer) -> None:
    command(app, "config")(config)
    command(app, "doctor")(doctor)


def config(
    session: Session,
    what: Annotated[str | None, typer.Argument(metavar="path", help="'path': the settings file, nothing else.")] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Models folder (MDL_HOME).")] = None,
) -> int:
    """Where settings, catalog, state and models are, and why."""
    session.empty = {"places": []}
    if what not in (None, "path"):
        raise UsageError("config takes 'path' or nothing", item=what)
    if what == "path":
        session.console.data(str(places.config_file()))
        return 0
    rows = _places(session, to)
    if session.common.json:
        keys = ("what", "path", "exists", "why")
        payload = {"places": [dict(zip(keys, row, strict=True)) for row in rows]}
        session.console.document("config", payload, ok=True, exit_code=0)
        return 0
    table = [(what, path + ("" if exists else " (not there)"), why) for what, path, exists, why in rows]
    session.console.table(("WHAT", "WHERE", "WHY"), table)
    return 0


def _places(session: Session, to: Path | None) -> list[tuple[str, str, bool, str]]:
    found: list[tuple[str, Path, str]] = []
    with contextlib.suppress(UsageError):
        found.append(("settings", places.config_file(), "the user config folder"))
    paths, why = session.catalog_place
    found += [("catalog", Path(path), why) for path in paths]
    with contextlib.suppress(UsageError):
        found.append(("state", places.state_dir(), "the user state folder"))
    home = places.models_home(to, session.environ, session.defaults)
    found.append(("models", home.path, home.why))
    return [(what, str(path), os.path.exists(path), why) for what, path, why in found]


def doctor(
    session: Session,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Models folder (MDL_HOME).")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Contact nobody.")] = False,
) -> int:
    """What works here, and what to do about what does not: endpoint, proxy, CA, token, disk, clock, versions."""
    from mdl.doctor import Finding, examine

    session.empty = {"checks": []}
    home = places.models_home(to, session.environ, session.defaults).path
    state = None
    with contextlib.suppress(UsageError):
        state = places.state_dir()
    network = Network(stall="10s", offline=offline)
    http, trouble = None, []
    try:
        http = None if session.is_offline(network) else session.http(network, ())
    except MdlError as error:
        trouble.append(Finding("client", False, error.message, error.hint or "", error.exit_code))
    try:
        findings = [*examine(session.endpoint, http, home, state), *trouble]
    finally:
        if http is not None:
            http.close()
    code = joint_exit_code(finding.exit_code for finding in findings if not finding.ok)
    if session.common.json:
        checks = [
            {"name": one.name, "ok": one.ok, "detail": one.detail, "advice": one.advice or None} for one in findings
        ]
        session.console.document("doctor", {"checks": checks}, ok=code == 0, exit_code=code)
        return code
    for one in findings:
        session.console.data(f"{'ok  ' if one.ok else 'FAIL'}  {one.name}: {one.detail}")
        if one.advice and not one.ok:
            session.console.data(f"      {one.advice}")
    return code
