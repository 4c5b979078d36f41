"""doctor: what works on this machine, and what to do about the rest."""

from __future__ import annotations

from mdl import MdlError
from mdl.cli.command import command
from mdl.cli.flags import DoctorSettings
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
