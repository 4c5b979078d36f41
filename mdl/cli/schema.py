"""schema: what every JSON text of mdl looks like."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Annotated

import typer

from mdl import schemas
from mdl.cli.command import command
from mdl.cli.session import Session
from mdl.errors import NotFound


def register(app: typer.Typer) -> None:
    command(app, "schema")(schema)


def schema(
    session: Session,
    name: Annotated[str | None, typer.Argument(help="A command, or event; the names without one.")] = None,
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
    if session.common.json:
        payload = {"names": list(names), "definition": definition}
        session.console.document("schema", payload, ok=True, exit_code=0)
        return 0
    for line in names if definition is None else json.dumps(definition, indent=2).split("\n"):
        session.console.data(line)
    return 0
