"""One operation each, under the settings given: what ``import mdl`` offers beside `mdl.Client`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from mdl.client import Client, ClientOptions, Targets

if TYPE_CHECKING:
    from mdl.catalog.model import Model
    from mdl.reports import LockReport, PlanReport, Report, VerifyReport
    from mdl.workspace import Folder


def get(
    target: str | Model,
    *,
    into: Folder | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
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
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
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
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
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
    **options: Unpack[ClientOptions],
) -> VerifyReport:
    """Read what is on this disk again and compare it with its digests; see `Client.verify`. ``options`` are those of
    `Client`."""
    with Client(**options) as client:
        return client.verify(targets, repair=repair, force=force, strict=strict)


def lock(
    names: Sequence[str] = (),
    *,
    check: bool = False,
    upgrade: Sequence[str] = (),
    **options: Unpack[ClientOptions],
) -> LockReport:
    """Write down what the catalog's models are now; see `Client.lock`. ``options`` are those of `Client`."""
    with Client(**options) as client:
        return client.lock(names, check=check, upgrade=upgrade)
