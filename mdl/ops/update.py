"""update: from the versions that were here to those that came: the report of it. Pure.

An update is two steps that each may be run alone: the lock is resolved anew, then the files are fetched. If mdl is
killed in between, the next `get` finishes, for it brings what the lock says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mdl.reports import ModelReport, Report
from mdl.values import value_class


@value_class
class Move:
    """How one model was updated: its commits ``before`` and ``after``, none if its source has none; how many of its
    ``files`` are new, and their ``bytes``. A model that is ``pinned`` stays at the commit that the catalog names."""

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    files: int
    files_changed: int
    bytes: int
    pinned: bool


@value_class
class UpdateReport(Report):
    """How an update went: as a download, and how each model moved."""

    moves: tuple[Move, ...] = ()


def update_report(
    report: Report, before: Mapping[str, Iterable[str]], failed: Iterable[ModelReport], pinned: Iterable[str]
) -> UpdateReport:
    """The report of a download with what it moved. ``before`` has the commits of each model, ``failed`` the models
    that could not be resolved, and ``pinned`` the names of those that stay where they are."""
    moves = []
    stays = set(pinned)
    for model in report.models:
        if model.is_whole:
            came = [file for file in model.files if file.action in ("fetched", "linked")]
            after = tuple(sorted({file.commit for file in model.files if file.commit}))
            size = sum(file.size or 0 for file in came)
            row = (tuple(before.get(model.name, ())), after, len(model.files), len(came), size, model.name in stays)
            moves.append(Move(model.name, *row))
    return UpdateReport(**{**vars(report), "models": (*report.models, *failed)}, moves=tuple(moves))
