"""demo: mdl shown on this machine alone."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from mdl import Occupied, StorageError
from mdl.cli.command import all_or_nothing, command
from mdl.cli.flags import flag
from mdl.cli.session import Session

_STDERR = 2


@command(
    "demo",
    "mdl demo  # about half a minute",
    "mdl demo --in play  # and look at what it left there",
)
def demo(
    session: Session,
    folder: Annotated[
        Path | None, flag("--in DIR", "A new or empty folder, which stays. [default: a temporary one]", panel="Where")
    ] = None,
    keep: Annotated[bool, flag("--keep", "Do not remove the temporary folder at the end.", panel="Where")] = False,
) -> int:
    """Try all of mdl on this machine alone: a download is killed and resumed, a run packed, released, rolled back."""
    place = _made(folder)
    stays = keep or folder is not None
    try:
        with all_or_nothing(f"what it made is in {place}" if stays else "its folder is removed"):
            code = _play(session, place, stays=stays)
        stays = stays or code != 0
    finally:
        if not stays:
            shutil.rmtree(place, ignore_errors=True)
    return code


def _made(folder: Path | None) -> Path:
    """The folder to play in, which is there and empty. Raises `Occupied`, `StorageError`."""
    try:
        folder = (folder or Path(tempfile.mkdtemp(prefix="mdl-demo-"))).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Occupied("this folder is not empty", item=str(folder), hint="choose another with --in")
    except OSError as error:
        raise StorageError(error.strerror or str(error), item=str(folder), hint="choose another with --in") from error
    return folder


def _play(session: Session, folder: Path, *, stays: bool) -> int:
    """The demo in ``folder``. Returns the exit code."""
    from mdl.demo import Demo

    console = session.console
    story = list[str]()

    def say(line: str) -> None:
        story.append(line)
        console.data(line)

    def heading(line: str) -> None:
        story.append(line)
        console.heading(line)

    stdout = _STDERR if session.common.json else None
    code = Demo(folder, say, heading, console.leave_bars, stdout=stdout, color=not session.common.no_color).play()
    if code or stays:
        heading(f"Everything is in {folder}.")
    else:
        heading(f"Everything was in {folder}, which is now removed.")
        say("To look at what it leaves: mdl demo --keep, or mdl demo --in DIR.")
    if not code:
        say("For a model of the catalog: mdl list, then mdl get NAME.")
        say("For a run of yours: mdl checkpoints RUN, then mdl pack RUN.")
    if session.common.json:
        console.document("demo", {"path": str(folder), "story": story}, exit_code=code)
    return code
