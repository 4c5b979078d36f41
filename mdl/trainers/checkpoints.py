"""Checkpoint: one saved state of a training."""

from __future__ import annotations

from dataclasses import dataclass, field

from mdl.trainers.tree import Entry


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of a training.

    ``name`` is its folder's or file's; ``base`` the folder, below the run, that its members' names begin under;
    ``entries`` all that belongs to it, also what cannot be packed. ``step`` is the trainer's own count, in
    whatever it counts. ``note`` says why it is not complete, or whatever else one should know. ``layout`` names the
    trainer that wrote it.
    """

    name: str
    base: str
    entries: tuple[Entry, ...] = field(repr=False)
    step: int | None = None
    complete: bool = True
    latest: bool = False
    best: bool = False
    note: str = ""
    layout: str = ""

    @property
    def files(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == "file"]

    @property
    def bytes(self) -> int:
        return sum(entry.stamp.size for entry in self.files)

    @property
    def modified_ns(self) -> int:
        """The newest of its files' times, in nanoseconds since 1970; for showing, never for ordering."""
        return max((entry.stamp.mtime_ns for entry in self.files), default=0)
