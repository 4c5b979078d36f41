"""One operation each, under the settings given: what ``import mdl`` offers beside `mdl.Client`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from mdl.client import Client, ClientOptions
from mdl.config.places import place_of
from mdl.config.settings import client_settings
from mdl.units import Texts
from mdl.values import shows_keywords

if TYPE_CHECKING:
    from mdl.catalog.model import Model
    from mdl.catalog.targets import Targets
    from mdl.local.verify import VerifyReport
    from mdl.ops.fetch import FetchReport
    from mdl.ops.lock import LockReport
    from mdl.reports import PlanReport, Report
    from mdl.runs.run import Run
    from mdl.stores import Folder


def _about_settings() -> str:
    """What ``help`` says of each argument of `mdl.Client`."""
    lines = ["Settings. What is None is read from its variable, then from config.toml; else it is the default:"]
    for name, setting in client_settings().items():
        lines.append(f"  {name}: {setting.help}")
    lines += [
        "  on_event: A function that is called with every event (`mdl.events`).",
        "  progress: True draws bars on a terminal and in a notebook, and writes plain lines elsewhere.",
        "  cancel: A `CancelToken`: once it is set, the operation raises `Cancelled`.",
        "  on_warning: A function that is called with each warning; by default it is a Python warning.",
    ]
    return "\n".join(lines)


_shows_settings = shows_keywords(ClientOptions, _about_settings())


@_shows_settings
def get(
    target: str | Model,
    *,
    into: Folder | None = None,
    include: Texts = (),
    exclude: Texts = (),
    revision: str | None = None,
    force: bool = False,
    **settings: Unpack[ClientOptions],
) -> Path:
    """Download one model, and return its folder, or the path of its file if exactly one was asked for.

    ``target`` is a name of the catalog, ``org/repo``, ``hf:org/repo@revision/path`` or any URL. Its files land in
    ``home/<model>/``, or in ``into`` itself. ``include`` and ``exclude`` are globs on file names; ``revision`` replaces
    that of every source that has revisions; ``force`` downloads again, and replaces files that mdl did not write.
    Raises as `Client.download`, and the first error of the report.
    """
    client = Client(**settings)
    return client.get(target, into=into, include=include, exclude=exclude, revision=revision, force=force)


@_shows_settings
def download(
    targets: Targets,
    *,
    into: Folder | None = None,
    include: Texts = (),
    exclude: Texts = (),
    revision: str | None = None,
    force: bool = False,
    **settings: Unpack[ClientOptions],
) -> Report:
    """Download models, and return how it went. What fails for one file hinders no other and is in the report.

    ``targets`` is one target or several. ``into``, ``include``, ``exclude``, ``revision`` and ``force`` are as for
    `get`. Raises as `Client.download`.
    """
    client = Client(**settings)
    return client.download(targets, into=into, include=include, exclude=exclude, revision=revision, force=force)


@_shows_settings
def plan(
    targets: Targets,
    *,
    into: Folder | None = None,
    include: Texts = (),
    exclude: Texts = (),
    revision: str | None = None,
    force: bool = False,
    **settings: Unpack[ClientOptions],
) -> PlanReport:
    """Say what `download` would do with the same arguments. Sources are asked, and only their answers are kept.

    ``targets``, ``into``, ``include``, ``exclude``, ``revision`` and ``force`` are as for `download`.
    """
    client = Client(**settings)
    return client.plan(targets, into=into, include=include, exclude=exclude, revision=revision, force=force)


@_shows_settings
def verify(
    targets: Targets | None = None,
    *,
    repair: bool = False,
    strict: bool = False,
    into: Folder | None = None,
    include: Texts = (),
    exclude: Texts = (),
    revision: str | None = None,
    force: bool = False,
    **settings: Unpack[ClientOptions],
) -> VerifyReport:
    """Read what is on this disk again and compare it with its digests.

    ``targets`` are the models to check; None checks all that are here. ``repair`` downloads only what is wrong, with
    ``force`` also what was changed after mdl wrote it. With ``strict`` a changed file, or one without a published
    digest, counts as wrong. ``into``, ``include``, ``exclude`` and ``revision`` are as for `get`. What is wrong is in
    the report. Raises as `Client.verify`.
    """
    client = Client(**settings)
    return client.verify(
        targets,
        repair=repair,
        strict=strict,
        into=into,
        include=include,
        exclude=exclude,
        revision=revision,
        force=force,
    )


@_shows_settings
def fetch(
    remote: str,
    jobs: Texts,
    *,
    checkpoint: str = "",
    logs: bool = False,
    include: Texts = (),
    exclude: Texts = (),
    wait: float | str | bool = False,
    into: Folder | None = None,
    release: Folder | None = None,
    **settings: Unpack[ClientOptions],
) -> FetchReport:
    """Download the results of ``jobs`` of a ``remote``, a table ``[remotes.NAME]`` of ``config.toml``.

    ``checkpoint`` is one checkpoint: its name, its step, ``latest`` or ``best``; ``logs`` downloads the logs alone;
    ``include`` and ``exclude`` are globs on file names. ``wait`` waits for jobs that still run, at most so many seconds
    if it is a number. ``into`` is the folder for the files of one job; ``release`` is a folder of releases, in which
    the results of one job are put into service. Raises as `Client.results` and `Client.fetch`.
    """
    client = Client(**settings)
    models = client.results(remote, jobs, checkpoint=checkpoint, logs=logs, include=include, exclude=exclude)
    return client.fetch(models, wait=wait, into=into, release=release)


@_shows_settings
def lock(
    names: Texts | None = None, *, check: bool = False, upgrade: Texts = (), **settings: Unpack[ClientOptions]
) -> LockReport:
    """Pin models of the catalog in ``mdl.lock``: commits, sizes and digests; see `Client.lock`. ``names`` are models or
    groups; None means all. ``check`` compares catalog and lock and writes nothing; ``upgrade`` names the models to
    resolve again."""
    return Client(**settings).lock(names, check=check, upgrade=upgrade)


def checkpoints(run: str | os.PathLike[str]) -> Run:
    """Look at ``run``, a training's folder: its checkpoints, which is the latest and the best, and whether they are
    complete.

    Nothing in it is executed or unpickled. Raises `NotFound` if there is no such folder, `Unsafe`, `OSError`.
    """
    from mdl.runs import find_run

    return find_run(place_of(run, "run"))
