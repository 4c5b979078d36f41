"""One operation each, under the settings given: what ``import mdl`` offers beside `mdl.Client`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from mdl.archive.directory import ArchiveLimits
from mdl.client import Client, ClientOptions, Targets, Texts
from mdl.operations.pack import PackPlan, PackResult, pack, plan_pack, write_pack
from mdl.operations.release import ReleaseResult, UnpackResult, release, rollback, unpack
from mdl.places import place_of

if TYPE_CHECKING:
    from mdl.catalog.model import Model
    from mdl.reports import LockReport, PlanReport, Report, VerifyReport
    from mdl.trainers.runs import Run
    from mdl.workspace import Folder


__all__ = [
    "ArchiveLimits",
    "ArchiveMember",
    "PackPlan",
    "PackResult",
    "ReleaseResult",
    "UnpackResult",
    "checkpoints",
    "contents",
    "download",
    "get",
    "lock",
    "pack",
    "plan",
    "plan_pack",
    "release",
    "rollback",
    "unpack",
    "verify",
    "write_pack",
]


def get(
    target: str | Model,
    *,
    into: Folder | None = None,
    include: Texts = (),
    exclude: Texts = (),
    revision: str | None = None,
    force: bool = False,
    **options: Unpack[ClientOptions],
) -> Path:
    """Bring one model to this disk and return its folder; see `Client.get`. ``options`` are those of `Client`."""
    with Client(**options) as client:
        return client.get(target, into=into, include=include, exclude=exclude, revision=revision, force=force)


def download(
    targets: Targets,
    *,
    into: Folder | None = None,
    include: Texts = (),
    exclude: Texts = (),
    revision: str | None = None,
    force: bool = False,
    **options: Unpack[ClientOptions],
) -> Report:
    """Bring models to this disk and say how it went; see `Client.download`. ``options`` are those of `Client`."""
    with Client(**options) as client:
        return client.download(targets, into=into, include=include, exclude=exclude, revision=revision, force=force)


def plan(
    targets: Targets,
    *,
    into: Folder | None = None,
    include: Texts = (),
    exclude: Texts = (),
    revision: str | None = None,
    force: bool = False,
    **options: Unpack[ClientOptions],
) -> PlanReport:
    """What `download` would do; nothing is written. See `Client.plan`. ``options`` are those of `Client`."""
    with Client(**options) as client:
        return client.plan(targets, into=into, include=include, exclude=exclude, revision=revision, force=force)


def verify(
    targets: Targets | None = None,
    *,
    repair: bool = False,
    force: bool = False,
    strict: bool = False,
    into: Folder | None = None,
    include: Texts = (),
    exclude: Texts = (),
    revision: str | None = None,
    **options: Unpack[ClientOptions],
) -> VerifyReport:
    """Read what is on this disk again and compare it with its digests; see `Client.verify`. ``options`` are those of
    `Client`."""
    with Client(**options) as client:
        return client.verify(
            targets,
            repair=repair,
            force=force,
            strict=strict,
            into=into,
            include=include,
            exclude=exclude,
            revision=revision,
        )


def lock(
    names: Texts | None = None,
    *,
    check: bool = False,
    upgrade: Texts = (),
    **options: Unpack[ClientOptions],
) -> LockReport:
    """Write down what the catalog's models are now; see `Client.lock`. ``options`` are those of `Client`."""
    with Client(**options) as client:
        return client.lock(names, check=check, upgrade=upgrade)


def checkpoints(run: str | os.PathLike[str]) -> Run:
    """Look at a training's folder: its checkpoints, which is the latest and the best, and whether they are complete.

    Nothing in it is executed or unpickled. Raises `NotFound` if there is no such folder, `Unsafe`, `OSError`.
    """
    from mdl.trainers import find_run

    return find_run(place_of(run, "run"))


@dataclass(frozen=True)
class ArchiveMember:
    """One file of a zip: its path, its size in bytes as it is and ``packed``, and its SHA-256 if a manifest has it."""

    path: str
    size: int
    packed: int
    sha256: str | None


def contents(archive: str | os.PathLike[str], *, limits: ArchiveLimits | None = None) -> list[ArchiveMember]:
    """The files of a zip, by their paths. The archive is checked as for `unpack`; nothing is written.

    Raises `ProtocolError` if it is damaged, `Unsafe` if it holds what must not be unpacked or exceeds ``limits``.
    """
    from mdl.archive.reader import Archive

    with Archive(place_of(archive, "archive"), limits or ArchiveLimits()) as opened:
        files = sorted((one for one in opened.members if not one.is_folder), key=lambda one: one.path.text)
        return [ArchiveMember(one.path.text, one.size, one.packed, opened.digests.get(one.path.text)) for one in files]
