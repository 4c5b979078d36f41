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

from mdl.plugin import Plugin, PluginCommand
from mdl.units import texts

if TYPE_CHECKING:
    from mdl.client import Client, Texts
    from mdl.plugins.render.work import Rendered

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
    from mdl.plugins.render.work import USUAL_PROGRAM

    work = client.workspace
    path = "" if work.has_shipped_catalog else os.pathsep.join(str(one.absolute()) for one in work.catalog_paths[0])
    variables = {name: value for name in ("HF_ENDPOINT",) if (value := work.environ.get(name))}
    warnings: list[str] = []
    here = shutil.which("mdl", path=work.environ.get("PATH"))
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
    options |= {"limit_rate": limit_rate, "window": window, "catalog": path, "variables": variables}
    found = render(name, texts(names or ()), client.catalog, work.lock, **options)
    return replace(found, warnings=tuple(warnings))
