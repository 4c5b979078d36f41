"""Render: manifests that have a scheduler run mdl, all from one description of the work and one table of exit codes.

from mdl.plugins import render

print(render.manifest(mdl.Client(), "slurm", ["bert-fa"]).text)
"""

from __future__ import annotations

import os
import shlex
import shutil
from typing import TYPE_CHECKING, Any

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
    ``schedule``, ``mail_to``, ``shape``, ``image``, ``claim``, ``secret``. Without a ``program`` a crontab has the
    ``mdl`` of this PATH, and a service `USUAL_PROGRAM` (ADR 107). Raises `LockError` if Kubernetes is to have a model
    that is not locked, or nothing is named and nothing locked, `UsageError`, `NotFound`, `CatalogError`.
    """
    from mdl.plugins.render.plan import render
    from mdl.plugins.render.variables import variables_of
    from mdl.sources.hub_endpoint import token_path

    catalog = ""
    if not client.catalogs.is_shipped:
        catalog = os.pathsep.join(str(path.absolute()) for path in client.catalogs.paths)
    environ = client.config.environ
    variables = {}
    if "HF_ENDPOINT" in environ:
        variables["HF_ENDPOINT"] = environ["HF_ENDPOINT"]
    shell = variables_of(environ, _credentials(client))
    token_file = token_path(environ)
    if token_file and name in ("cron", "slurm"):
        shell.setdefault("HF_TOKEN_PATH", str(token_file))
    here = shutil.which("mdl", path=environ.get("PATH"))
    if name == "cron" and here:
        options.setdefault("program", shlex.quote(os.path.abspath(here)))
    options |= {"limit_rate": limit_rate, "window": window, "catalog": catalog, "variables": variables, "shell": shell}
    return render(name, texts(names or ()), client.catalog, client.catalogs.lock, **options)


def _credentials(client: Client) -> list[str]:
    """The names of the variables in which the settings have keys of remotes and hosts."""
    names = [remote.key_variable for remote in client.network.remotes.values()]
    for host in client.network.host_tables.values():
        names += [host.variable, host.key_password_variable]
    return names
