"""The command ``mdl shelf``."""

from mdl.cli.command import command
from mdl.cli.session import Session


@command("shelf", "mdl shelf shelf://host/name  # the files there")
def shelf(session: Session, reference: str) -> int:
    """List what is on a shelf."""
    plan = session.client().plan(reference)
    paths = [file.path for model in plan.models for file in model.files]
    return session.show({"files": paths}, lambda: [session.console.data(path) for path in paths])
