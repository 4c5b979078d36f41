"""search: which repositories the hub has."""

from __future__ import annotations

from typing import Annotated, Literal

from mdl.cli.command import command
from mdl.cli.flags import AskSettings, argument, bare_flag, flag
from mdl.cli.session import Session
from mdl.formatting import human_bytes


@command(
    "search",
    "mdl search whisper  # the models that are downloaded most",
    "mdl search persian tts --sort modified --limit 5  # the newest",
    "mdl search parsinlu --kind dataset --json  # for a script",
)
def search(
    session: Session,
    words: Annotated[list[str], argument("TEXT", "A part of their names.")],
    settings: AskSettings,
    kind: Annotated[Literal["model", "dataset"], flag("--kind", "What to look for.")] = "model",
    sort: Annotated[
        Literal["downloads", "likes", "modified"],
        bare_flag("--sort", "The order: those with the most, or the newest, first.", panel="Output"),
    ] = "downloads",
    limit: Annotated[int, flag("--limit N", "How many at most, 1 to 100.", panel="Output")] = 20,
) -> int:
    """Find repositories of the hub by a part of their names: size, licence, and whether access is restricted.

    The size counts all revisions of a repository; 'mdl show --remote org/repo' has the size of the newest.
    """
    found = session.client(settings).search(" ".join(words), kind=kind, sort=sort, limit=limit)

    def show() -> None:
        rows = [
            (
                one.repo.removeprefix("hf:"),
                human_bytes(one.bytes),
                f"{one.downloads:,}" if one.downloads is not None else "?",
                one.license or "-",
                one.access,
                (one.modified_at or "-")[:10],
            )
            for one in found
        ]
        heads = ("REPOSITORY", "SIZE", "DOWNLOADS", "LICENSE", "ACCESS", "MODIFIED")
        session.console.table(heads, rows, cut=(), drop=("LICENSE", "MODIFIED", "DOWNLOADS", "ACCESS"))
        note = "'mdl get REPOSITORY' downloads one; 'mdl add NAME hf:REPOSITORY' adds it to your catalog"
        session.console.note(note if found else "the hub has no such repository")

    return session.show({"repos": found}, show)
