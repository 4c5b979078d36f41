"""doctor and demo: what works on this machine, and what to do about the rest; mdl shown on this machine alone."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from mdl import MdlError, Occupied, StorageError
from mdl.cli.command import all_or_nothing, command
from mdl.cli.flags import DoctorSettings, flag
from mdl.cli.session import Session
from mdl.errors import joint_error


@command(
    "doctor",
    "mdl doctor  # what works here, and what to do about the rest",
    "mdl doctor --offline  # without asking any server",
    checks_config=True,
)
def doctor(session: Session, settings: DoctorSettings) -> int:
    """Check endpoint, proxy, certificates, token, clock, disk and versions, and say what to do about trouble."""
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
