"""Render: manifests that have a scheduler run mdl, all from one description of the work and one table of exit codes.

from mdl.plugins import render

print(render.manifest(mdl.Client(), "slurm", ["bert-fa"]).text)
"""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mdl.disk.process import split_command
from mdl.plugin import Plugin, PluginCommand
from mdl.units import texts

if TYPE_CHECKING:
    from mdl.client import Client
    from mdl.plugins.render.work import Rendered
    from mdl.units import Texts

PLUGIN = Plugin(
    commands={
        "render": PluginCommand("mdl.plugins.render.command", "Print manifests for Kubernetes, Slurm and others")
    },
    heading="Many machines",
)


def manifest(
    client: Client,
    name: str,
    names: Texts | None = None,
    *,
    limit_rate: str | None = None,
    window: str | None = None,
    **options: Any,
) -> Rendered:
    """A manifest that has a scheduler bring the models and groups ``names``, or all that is locked. ``name`` is the
    format: ``k8s``, ``slurm``, ``systemd`` or ``cron``. Nothing is contacted.

    ``window`` are the hours in which systemd and cron begin a run. ``options`` are texts: ``home``, ``program``,
    ``schedule``, ``mail_to``, ``shape``, ``image``, ``claim``, ``secret``. Without a ``program`` it is the ``mdl``
    of this PATH, for systemd only if a service can run that. Raises `LockError` if Kubernetes is to have a model
    that is not locked, or nothing is named and nothing locked, `UsageError`, `NotFound`, `CatalogError`.
    """
    from mdl.plugins.render.plan import render
    from mdl.plugins.render.programs import is_reachable
    from mdl.plugins.render.variables import variables_of
    from mdl.plugins.render.work import USUAL_PROGRAM
    from mdl.sources.hub_endpoint import token_path

    path = ""
    if not client.catalogs.is_shipped:
        path = os.pathsep.join(str(catalog.absolute()) for catalog in client.catalogs.paths)
    environ = client.config.environ
    variables = {name: value for name in ("HF_ENDPOINT",) if (value := environ.get(name))}
    shell = variables_of(environ, _credentials(client))
    token_file = token_path(environ)
    if token_file and name in ("cron", "slurm"):
        shell.setdefault("HF_TOKEN_PATH", str(token_file))
    warnings: list[str] = []
    here = shutil.which("mdl", path=client.config.environ.get("PATH"))
    if here and not options.get("program"):
        here = os.path.abspath(here)
        if name == "cron" or (name == "systemd" and is_reachable(here)):
            options["program"] = shlex.quote(here)
        elif name == "systemd" and not is_reachable(USUAL_PROGRAM):
            options["lacks_program"] = True
            warnings.append(
                f"the unit starts {USUAL_PROGRAM}, which is not there, because no service can run {here}; "
                f"the unit has the line that installs mdl for all users"
            )
    elif program := options.get("program"):
        doubt = _doubt_about(name, split_command(program, "--mdl")[0])
        if doubt:
            options["lacks_program"] = name == "systemd"
            warnings.append(doubt)
    options |= {"limit_rate": limit_rate, "window": window, "catalog": path, "variables": variables, "shell": shell}
    found = render(name, texts(names or ()), client.catalog, client.catalogs.lock, **options)
    return replace(found, warnings=tuple(warnings))


def _credentials(client: Client) -> list[str]:
    """The names of the variables in which the settings have keys of remotes and hosts."""
    names = [remote.key_variable for remote in client.network.remotes.values()]
    for host in client.network.host_tables.values():
        names += [host.variable, host.key_password_variable]
    return names


def _doubt_about(name: str, program: str) -> str:
    """Why what a manifest of this format starts may not be able to run the ``program`` that the user named; '' if
    nothing is known against it. A manifest may be for another machine, so that it is only told."""
    from mdl.plugins.render.programs import why_closed
    from mdl.plugins.render.work import INSTALL_FOR_ALL, USUAL_PROGRAM

    is_full = program.startswith("/")
    if name == "slurm" and "/" in program and not is_full:
        return f"the script starts {program}, which each node looks for in the folder in which sbatch is called"
    if name == "systemd" and is_full and program != USUAL_PROGRAM and (why := why_closed(program)):
        return f"the unit starts {program}, which no service can run: {why}; for all users: {INSTALL_FOR_ALL}"
    if name == "cron" and is_full and program != USUAL_PROGRAM and not os.access(program, os.X_OK):
        return f"the crontab starts {program}, which you cannot run on this machine"
    return ""
