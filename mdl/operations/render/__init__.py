"""Render: manifests that have a scheduler run mdl, all from one description of the work and one table of exit codes.
Pure."""

from __future__ import annotations

from mdl.operations.render import cron, kubernetes, slurm, systemd
from mdl.operations.render.work import Rendered, Work

RENDERERS = {"k8s": kubernetes.render, "slurm": slurm.render, "systemd": systemd.render, "cron": cron.render}
"""How each format is written."""


def render(name: str, work: Work) -> Rendered:
    """The manifest of some ``work`` in the format ``name``, which is one of `RENDERERS`. Raises `UsageError`."""
    work.check()
    return Rendered(name, RENDERERS[name](work))
