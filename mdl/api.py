"""One operation each, under the settings given: what ``import mdl`` offers beside `mdl.Client`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from mdl.client import Client, ClientOptions
from mdl.config.places import place_of
from mdl.targets import Targets, Texts

if TYPE_CHECKING:
    from mdl.catalog.model import Model
    from mdl.local.verify import VerifyReport
    from mdl.ops.fetch import FetchReport
    from mdl.ops.lock import LockReport
    from mdl.reports import PlanReport, Report
    from mdl.runs.run import Run
    from mdl.stores import Folder


class Options(ClientOptions, total=False):
    """What `get`, `download`, `plan` and `verify` take: the options of `Client`, and those of its method. Files land in
    ``home/<model>/``, or in ``into`` itself for one target; ``include`` and ``exclude`` are globs on file names;
    ``revision`` replaces that of every source that has revisions; ``force`` fetches all anew, and replaces files that
    are not mdl's."""

    into: Folder | None
    include: Texts
    exclude: Texts
    revision: str | None
    force: bool


_OF_CALL = Options.__optional_keys__ - ClientOptions.__optional_keys__


def _client(options: Options) -> tuple[Client, dict[str, Any]]:
    """A client under the settings among ``options``, and the options of the call."""
    call = {name: value for name, value in options.items() if name in _OF_CALL}
    settings: Any = {name: value for name, value in options.items() if name not in _OF_CALL}
    return Client(**settings), call


def get(target: str | Model, **options: Unpack[Options]) -> Path:
    """Bring one model to this disk and return its folder, or the path of its file if exactly one was asked for; see
    `Client.get` and, for the ``options``, `Options`."""
    client, call = _client(options)
    return client.get(target, **call)


def download(targets: Targets, **options: Unpack[Options]) -> Report:
    """Bring models to this disk and say how it went; see `Client.download` and `Options`."""
    client, call = _client(options)
    return client.download(targets, **call)


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
    **options: Unpack[ClientOptions],
) -> FetchReport:
    """Bring the results of jobs of a remote to this disk; see `Client.results` for which, and `Client.fetch` for how.
    ``options`` are those of `Client`."""
    client = Client(**options)
    models = client.results(remote, jobs, checkpoint=checkpoint, logs=logs, include=include, exclude=exclude)
    return client.fetch(models, wait=wait, into=into, release=release)


def plan(targets: Targets, **options: Unpack[Options]) -> PlanReport:
    """What `download` would do; only what sources answer is kept. See `Client.plan` and `Options`."""
    client, call = _client(options)
    return client.plan(targets, **call)


def verify(
    targets: Targets | None = None, *, repair: bool = False, strict: bool = False, **options: Unpack[Options]
) -> VerifyReport:
    """Read what is on this disk again and compare it with its digests; see `Client.verify` and `Options`."""
    client, call = _client(options)
    return client.verify(targets, repair=repair, strict=strict, **call)


def lock(
    names: Texts | None = None, *, check: bool = False, upgrade: Texts = (), **options: Unpack[ClientOptions]
) -> LockReport:
    """Write down what the catalog's models are now; see `Client.lock`. ``options`` are those of `Client`."""
    return Client(**options).lock(names, check=check, upgrade=upgrade)


def checkpoints(run: str | os.PathLike[str]) -> Run:
    """Look at a training's folder: its checkpoints, which is the latest and the best, and whether they are complete.

    Nothing in it is executed or unpickled. Raises `NotFound` if there is no such folder, `Unsafe`, `OSError`.
    """
    from mdl.runs import find_run

    return find_run(place_of(run, "run"))
