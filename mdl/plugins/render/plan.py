"""Plan: a manifest from the names that were given, the catalog and its lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mdl.catalog.lock import Lock
from mdl.catalog.model import Catalog, Model
from mdl.disk.process import split_command
from mdl.errors import LockError, UsageError
from mdl.ops.sub_catalog import excerpt
from mdl.plugins.render import cron, kubernetes, slurm, systemd
from mdl.plugins.render.work import NIGHT, Rendered, Work
from mdl.redact import has_secret
from mdl.units import Window, parse_rate

RENDERERS = {"k8s": kubernetes.render, "slurm": slurm.render, "systemd": systemd.render, "cron": cron.render}
"""How each format is written."""


def render(
    name: str,
    names: Sequence[str],
    known: Catalog,
    lock: Lock,
    *,
    limit_rate: str | None = None,
    window: str | None = None,
    program: str = "",
    variables: Mapping[str, str] | None = None,
    **facts: Any,
) -> Rendered:
    """The manifest in the format ``name``, one of `RENDERERS`, that brings the models and groups ``names`` of the
    catalog ``known``, or all that is locked. ``facts`` are further fields of `Work`.

    Raises `LockError` if nothing is named and nothing locked, or if a pod is to bring what is not locked, `UsageError`,
    `NotFound`.
    """
    if name not in RENDERERS:
        raise UsageError(f"{name!r} is not a format", hint=f"choose one of {', '.join(RENDERERS)}")
    names = names or [one.name for one in known.meant() if one.name in lock.models]
    if not names:
        raise LockError("nothing is named, and nothing is locked", hint="name models; 'mdl lock' writes the lock")
    models = list({model.name: model for one in names for model in known.find(one)}.values())
    limits: list[str] = []
    if limit_rate:
        parse_rate(limit_rate, "--limit-rate")
        limits += ["--limit-rate", limit_rate]
    hours = Window.parse(window or NIGHT, "--window") if name in ("systemd", "cron") else None
    if hours:
        limits += ["--window", str(hours)]
    work = Work(
        names,
        is_locked=all(map(lock.covers, models)),
        limits=limits,
        program=split_command(program, "--mdl") if program else (),
        window=hours,
        variables={key: value for key, value in (variables or {}).items() if not has_secret(value)},
    )
    work = replace(work, **facts)
    if name == "k8s":
        work = _pinned(work, models, lock)
    work.check()
    return Rendered(name, RENDERERS[name](work), work.left_out)


def _pinned(work: Work, models: Sequence[Model], lock: Lock) -> Work:
    """The same with catalog and lock of these models alone, for a machine that has neither. Raises `LockError`."""
    found = excerpt(models, lock)
    names = [model.name for model in models]
    work = replace(work, names=names, is_locked=True, catalog="", left_out=found.left_out)
    return replace(work, catalog_text=found.catalog, lock_text=found.lock)
