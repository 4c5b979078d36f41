"""export: what the lock holds, as a list that other programs read."""

from __future__ import annotations

from typing import Annotated, Literal

from mdl.cli.command import command
from mdl.cli.flags import LockedNames, flag
from mdl.cli.session import Session
from mdl.formatting import first_of
from mdl.paths import shown
from mdl.redact import Requested


@command(
    "export",
    "mdl export bert-fa  # one URL per line",
    "mdl export --format aria2 | aria2c -i -  # fetch it all with aria2",
    "mdl export --format sha256sums > SHA256SUMS  # for sha256sum -c",
)
def export(
    session: Session,
    names: LockedNames = None,
    list_format: Annotated[
        Literal["urls", "aria2", "metalink", "sha256sums"],
        flag("--format", "urls, aria2 (for aria2c -i), metalink (RFC 5854) or sha256sums.", panel="Output"),
    ] = "urls",
) -> int:
    """Print the locked files as a list for other programs. Paths are relative to the models folder."""
    found = session.client().export(names or None, list_format=list_format)
    left_out = [{"path": path, "why": why} for path, why in found.left_out.items()]
    session.console.check_file(found.text)
    facts = {"format": found.format, "text": Requested(found.text), "files": found.files}

    def show() -> None:
        session.console.file(found.text)
        for line in first_of([f"left out: {shown(path)}: {why}" for path, why in found.left_out.items()]):
            session.console.note(line)

    return session.show(facts | {"skipped": left_out}, show)
