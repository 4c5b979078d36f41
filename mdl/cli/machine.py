"""doctor and schema: this machine, and what mdl prints."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Annotated

from mdl import MdlError, NotFound, schemas
from mdl.cli import completion
from mdl.cli.command import command
from mdl.cli.flags import DoctorSettings, argument
from mdl.cli.session import Session
from mdl.errors import joint_error


@command(
    "doctor",
    "mdl doctor  # what works here, and what to do about the rest",
    "mdl doctor --offline  # without asking any server",
    checks_config=True,
)
def doctor(session: Session, settings: DoctorSettings) -> int:
    """Check what works here, and say what to do about the rest: endpoint, proxy, CA, token, clock, disk, versions."""
    from mdl.doctor import run_checks

    settings["stall"] = settings.get("stall") or "10s"
    trouble = session.without_broken_file()
    client = session.client(settings, checked=False)
    console = session.console
    errors: list[MdlError] = []
    checks: list[dict[str, object]] = []
    session.empty = {"checks": checks}
    for result in run_checks(client, trouble):
        checks.append({"name": result.name, "ok": result.ok, "detail": result.detail, "advice": result.advice})
        first, *lines = f"{result.name}: {result.detail}".split("\n")
        console.entry("ok    " if result.ok else "FAIL  ", console.clean(first))
        if result.error:
            errors.append(result.error)
        if result.advice:
            lines.append(result.advice)
        for line in lines:
            console.entry("      ", console.clean(line))
    problem = joint_error(errors)
    if problem and console.is_machine_readable:
        console.error(problem)
    return session.show({"checks": checks}, error=problem)


@command(
    "schema",
    "mdl schema  # the names of all",
    "mdl schema get > get.schema.json  # that of one command",
    "mdl schema event  # one line of --progress json",
)
def schema(
    session: Session,
    name: Annotated[
        str | None,
        argument("NAME", "A command, or event; without one, the names of all.", autocompletion=completion.schema_names),
    ] = None,
) -> int:
    """The JSON Schema of what a command prints with --json, or of one line of --progress json (event).

    A later release may add keys, and changes the meaning of none. With --json the schema is the document's
    "definition", beside the "names" of all.
    """
    names = schemas.names()
    if name is not None and name not in names:
        near = get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else "'mdl schema' lists them"
        raise NotFound("there is no schema of this name", item=name, hint=hint)
    definition = None if name is None else schemas.schema(name)

    def show() -> None:
        for line in names if definition is None else json.dumps(definition, indent=2).split("\n"):
            session.console.data(line)

    return session.show({"names": list(names), "definition": definition}, show)
