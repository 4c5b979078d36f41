"""Prometheus: numbers as it reads them, of a server or in a text file for node_exporter's textfile collector.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import ClassVar

from mdl.disk import publish
from mdl.values import value_class


@value_class
class Gauge:
    """A metric: its name, what it is ``about``, and its values by their `labels` ('' without any)."""

    kind: ClassVar[str] = "gauge"

    name: str
    about: str
    values: Mapping[str, float] = field(default_factory=dict)


class Counter(Gauge):
    """A metric that only grows."""

    kind = "counter"


def labels(**texts: str) -> str:
    """``{remote="gpu",state="idle"}``."""
    return "{" + ",".join(f'{name}="{_escaped(text)}"' for name, text in texts.items()) + "}"


def exposition(metrics: Iterable[Gauge]) -> str:
    """These metrics as Prometheus reads them; one without values is left out."""
    lines: list[str] = []
    for metric in metrics:
        if metric.values:
            lines += [f"# HELP {metric.name} {metric.about}", f"# TYPE {metric.name} {metric.kind}"]
            lines += [f"{metric.name}{labels_text} {value!r}" for labels_text, value in metric.values.items()]
    return "\n".join([*lines, ""])


def write_gauges(path: Path, gauges: Iterable[Gauge]) -> None:
    """Replace ``path`` as a whole by these metrics. Raises `OSError`."""
    publish.write_file(path, exposition(gauges).encode(), mode=0o644, durable=False, sweep_first=True)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
