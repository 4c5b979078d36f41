"""What tests of prefetch read and say: its metrics, and hours of the day."""

from __future__ import annotations

import re

from mdl.http.body import minute_of_day
from support.shell import Shell


def metrics(shell: Shell, name: str = "mdl.prom") -> dict[str, float]:
    """A file of Prometheus' text format, read by its grammar; the samples by name and labels, all of them gauges.

    https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details
    """
    text, found, said = (shell.home / name).read_text(), {}, set()
    label = r'[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*"'
    assert text.endswith("\n")
    for line in text.splitlines():
        if comment := re.fullmatch(r"# (HELP|TYPE) ([a-zA-Z_:][\w:]*) (.+)", line):
            kind, metric, rest = comment.groups()
            assert (kind, metric) not in said
            assert kind == "HELP" or rest == "gauge"
            said.add((kind, metric))
            continue
        sample = re.fullmatch(
            rf"([a-zA-Z_:][\w:]*)((?:\{{{label}(?:,{label})*\}})?) ([-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?)", line
        )
        assert sample, line
        assert {("HELP", sample[1]), ("TYPE", sample[1])} <= said, line
        key = sample[1].removeprefix("mdl_prefetch_") + sample[2]
        assert key not in found
        found[key] = float(sample[3])
    return found


def clock(minutes: int) -> str:
    moment = (minute_of_day() + minutes) % 1440
    return f"{moment // 60:02}:{moment % 60:02}"
