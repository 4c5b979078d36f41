"""Render: manifests that have a scheduler run mdl, all from one description of the work and one table of exit codes.

from mdl.plugins import render

print(render.manifest(mdl.Client(), "slurm", ["bert-fa"]).text)
"""

from __future__ import annotations

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
    ``schedule``, ``mail_to``, ``shape``, ``image``, ``claim``, ``secret``. Without a ``program`` it is the ``mdl``
    of this PATH, or the one that runs, for systemd only if a service can run that. Raises `LockError` if Kubernetes
    is to have a model that is not locked, or nothing is named and nothing locked, `UsageError`, `NotFound`,
    `CatalogError`.
    """
    from mdl.plugins.render import plan

    return plan.manifest(client, name, texts(names or ()), limit_rate=limit_rate, window=window, **options)
