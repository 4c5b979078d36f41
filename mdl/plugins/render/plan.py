"""Plan: a manifest from the names that were given, the catalog, its lock and this machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdl.catalog.lock import Lock
from mdl.catalog.model import Model
from mdl.disk.process import split_command
from mdl.errors import LockError, UsageError
from mdl.net.allowlist import host_of
from mdl.net.credentials import is_loopback
from mdl.ops.sub_catalog import excerpt
from mdl.plugins.render import cron, kubernetes, slurm, systemd
from mdl.plugins.render.this_machine import is_reachable, variables_of, why_closed
from mdl.plugins.render.work import INSTALL_FOR_ALL, NIGHT, USUAL_PROGRAM, Rendered, Work
from mdl.redact import has_secret
from mdl.sources.hub_endpoint import token_path
from mdl.units import Window, parse_rate
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.client import Client

RENDERERS = {"k8s": kubernetes.render, "slurm": slurm.render, "systemd": systemd.render, "cron": cron.render}
"""How each format is written."""


def manifest(
    client: Client,
    name: str,
    names: Sequence[str],
    *,
    limit_rate: str | None = None,
    window: str | None = None,
    program: str | None = None,
    **facts: Any,
) -> Rendered:
    """The manifest in the format ``name``, one of `RENDERERS`, that brings the models and groups ``names`` of the
    client's catalog, or all that is locked. ``facts`` are further fields of `Work`.

    Raises `LockError` if nothing is named and nothing locked, or if a pod is to bring what is not locked, `UsageError`,
    `NotFound`.
    """
    if name not in RENDERERS:
        raise UsageError(f"{name!r} is not a format", hint=f"choose one of {', '.join(RENDERERS)}")
    lock = client.catalogs.lock
    names = names or [model.name for model in client.catalog.meant() if model.name in lock.models]
    if not names:
        raise LockError("nothing is named, and nothing is locked", hint="name models; 'mdl lock' writes the lock")
    by_name: dict[str, Model] = {}
    for target in names:
        by_name |= {model.name: model for model in client.catalog.find(target)}
    models = list(by_name.values())
    limits: list[str] = []
    if limit_rate:
        parse_rate(limit_rate, "--limit-rate")
        limits += ["--limit-rate", limit_rate]
    hours = None
    if name in ("systemd", "cron"):
        hours = Window.parse(window or NIGHT, "--window")
        limits += ["--window", str(hours)]
    starts = _program_of(name, program, client.config.environ.get("PATH"))
    endpoint = client.config.environ.get("HF_ENDPOINT", "")
    work = Work(
        names,
        is_locked=all(map(lock.covers, models)),
        limits=limits,
        program=starts.words,
        lacks_program=starts.is_missing,
        window=hours,
        catalog=_catalogs_of(client),
        variables={} if has_secret(endpoint) else {"HF_ENDPOINT": endpoint},
        shell=_variables_of_shell(client, name),
        **facts,
    )
    warnings = starts.warnings
    if name in ("k8s", "slurm") and _is_this_machine(work.variables.get("HF_ENDPOINT", "")):
        told = f"HF_ENDPOINT is {endpoint}: where this manifest runs, that address is another machine"
        warnings = (*warnings, told)
    if name == "k8s":
        work = _pinned(work, models, lock)
    work.check()
    return Rendered(name, RENDERERS[name](work), work.left_out, warnings)


def _is_this_machine(url: str) -> bool:
    try:
        return is_loopback(host_of(url))
    except ValueError:  # it is no URL, which is for the mdl that reads it to report
        return False


def _catalogs_of(client: Client) -> str:
    """The user's catalogs as MDL_CATALOG has them; '' for the shipped one, which every mdl has."""
    if client.catalogs.is_shipped:
        return ""
    return os.pathsep.join(str(catalog.absolute()) for catalog in client.catalogs.paths)


def _variables_of_shell(client: Client, name: str) -> dict[str, str]:
    """The variables of this shell that mdl reads. Cron and Slurm start mdl as this user, who may read the token's
    file."""
    keys = [remote.key_variable for remote in client.network.remotes.values()]
    for host in client.network.host_tables.values():
        keys += [host.variable, host.key_password_variable]
    environ = client.config.environ
    variables = variables_of(environ, keys)
    token_file = token_path(environ)
    if token_file and name in ("cron", "slurm"):
        variables.setdefault("HF_TOKEN_PATH", str(token_file))
    return variables


@value_class
class _Program:
    """How a manifest calls mdl: the ``words``, none if the format is to choose; whether there ``is_missing`` an mdl
    that a service can run; and what to tell the user about it."""

    words: Sequence[str] = ()
    is_missing: bool = False
    warnings: Sequence[str] = ()


def _program_of(name: str, named: str | None, path: str | None) -> _Program:
    """How a manifest of the format ``name`` calls mdl: as ``named``, else the one of this ``path``, or the
    one that runs, where the format needs a full path. Raises `UsageError`."""
    if named:
        words = split_command(named, "--mdl")
        doubt = _doubt_about(name, words[0])
        return _Program(words, name == "systemd", (doubt,)) if doubt else _Program(words)
    if name not in ("systemd", "cron"):
        return _Program()
    here = shutil.which("mdl", path=path)
    if not here and Path(sys.argv[0]).name == "mdl":
        here = shutil.which(sys.argv[0], path=path)  # it was started by its path
    if here and (name == "cron" or is_reachable(here)):
        return _Program((os.path.abspath(here),))
    if is_reachable(USUAL_PROGRAM):
        return _Program()
    if name == "cron":
        warning = f"the crontab starts {USUAL_PROGRAM}, which is not there; --mdl CMD names another one"
        return _Program((), True, (warning,))
    because = f", because no service can run {os.path.abspath(here)}" if here else ""
    warning = (
        f"the unit starts {USUAL_PROGRAM}, which is not there{because}; "
        f"the unit has the line that installs mdl for all users"
    )
    return _Program((), True, (warning,))


def _doubt_about(name: str, program: str) -> str:
    """Why what a manifest of this format starts may not be able to run the ``program`` that the user named; '' if
    nothing is known against it. A manifest may be for another machine, so that it is only told."""
    is_full = program.startswith("/")
    if name == "slurm" and "/" in program and not is_full:
        return f"the script starts {program}, which each node looks for in the folder in which sbatch is called"
    if not is_full or program == USUAL_PROGRAM:
        return ""
    if name == "cron" and not os.access(program, os.X_OK):
        return f"the crontab starts {program}, which you cannot run on this machine"
    closed = why_closed(program) if name == "systemd" else ""
    if closed:
        return f"the unit starts {program}, which no service can run: {closed}; for all users: {INSTALL_FOR_ALL}"
    return ""


def _pinned(work: Work, models: Sequence[Model], lock: Lock) -> Work:
    """The same with catalog and lock of these models alone, for a machine that has neither. Raises `LockError`."""
    found = excerpt(models, lock)
    names = [model.name for model in models]
    work = replace(work, names=names, is_locked=True, catalog="", left_out=found.left_out)
    return replace(work, catalog_text=found.catalog, lock_text=found.lock)
