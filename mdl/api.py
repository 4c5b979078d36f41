"""One operation each, under the settings given: what ``import mdl`` offers beside `mdl.Client`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, Unpack

from mdl.client import Client, ClientOptions
from mdl.config.places import place_of
from mdl.units import Texts

if TYPE_CHECKING:
    from mdl.catalog.model import Model
    from mdl.catalog.targets import Targets
    from mdl.local.verify import VerifyReport
    from mdl.ops.fetch import FetchReport
    from mdl.ops.lock import LockReport
    from mdl.reports import PlanReport, Report
    from mdl.runs.run import Run
    from mdl.stores import Folder


Function = TypeVar("Function", bound=Callable[..., object])


def _shows_settings(function: Function) -> Function:
    """Has ``help(function)`` name every setting of the client, in place of ``**settings``."""
    own = inspect.signature(function)
    parameters = list(own.parameters.values())[:-1]
    for name in ClientOptions.__annotations__:
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None))
    function.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


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
    that of every source that has revisions; ``force`` downloads again, and replaces files that mdl did not write. The
    other arguments are the settings of `mdl.Client`; what is None is read from variables and ``config.toml``. Raises as
    `Client.download`, and the first error of the report.
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
    """Download models, and return how it went. The arguments are those of `get`, for several targets; raises as
    `Client.download`. What fails for one file is in the report."""
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
    """What `download` would do with the same arguments. Sources are asked, and only their answers are kept."""
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
    """Read what is on this disk again and compare it with its digests; see `Client.verify`. The other arguments are
    those of `get`."""
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
    """Download the results of jobs of a remote; see `Client.results` for which, and `Client.fetch` for how."""
    client = Client(**settings)
    models = client.results(remote, jobs, checkpoint=checkpoint, logs=logs, include=include, exclude=exclude)
    return client.fetch(models, wait=wait, into=into, release=release)


@_shows_settings
def lock(
    names: Texts | None = None, *, check: bool = False, upgrade: Texts = (), **settings: Unpack[ClientOptions]
) -> LockReport:
    """Write down what the catalog's models are now; see `Client.lock`."""
    return Client(**settings).lock(names, check=check, upgrade=upgrade)


def checkpoints(run: str | os.PathLike[str]) -> Run:
    """Look at a training's folder: its checkpoints, which is the latest and the best, and whether they are complete.

    Nothing in it is executed or unpickled. Raises `NotFound` if there is no such folder, `Unsafe`, `OSError`.
    """
    from mdl.runs import find_run

    return find_run(place_of(run, "run"))
