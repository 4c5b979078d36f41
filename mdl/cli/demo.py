"""demo: see mdl work with no network at all."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from mdl.cli.command import command
from mdl.cli.session import Session
from mdl.errors import Occupied, StorageError

_STDERR = 2


def register(app: typer.Typer) -> None:
    command(app, "demo")(demo)


def demo(
    session: Session,
    folder: Annotated[
        Path | None, typer.Option("--in", metavar="DIR", help="Where to play; a new temporary folder without it.")
    ] = None,
) -> int:
    """The whole of mdl on this machine alone: a download killed and resumed, a run packed, released, rolled back."""
    from mdl.demo import Demo

    try:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="mdl-demo-"))
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Occupied("this folder is not empty", item=str(folder), hint="choose another with --in")
    except OSError as error:
        raise StorageError(error.strerror or str(error), item=str(folder), hint="choose another with --in") from error
    story: list[str] = []

    def say(line: str) -> None:
        story.append(line)
        session.console.data(line)

    code = Demo(folder.absolute(), say, _STDERR if session.common.json else None).play()
    if session.common.json:
        session.console.document("demo", {"path": str(folder), "story": story}, ok=code == 0, exit_code=code)
    return code
