"""cron: a crontab that brings models by night. Pure."""

from __future__ import annotations

import re
import shlex

from mdl.operations.render.work import MINUTE, RenderedFile, Work, ranges

_USUAL_PROGRAM = "/usr/local/bin/mdl"


def render(work: Work) -> tuple[RenderedFile, ...]:
    """A crontab for one user. Nothing else keeps two runs apart: mdl itself does."""
    hours = "*" if len(work.hours()) == 24 else ranges(work.hours(), "-")
    schedule = work.schedule or f"{MINUTE} {hours} * * *"
    variables = {"MAILTO": work.mail_to} | work.environ
    lines = [
        "# Made by 'mdl render cron'. To add it to your crontab: (crontab -l; mdl render cron …) | crontab -",
        "# mdl is silent unless a model failed, and cron mails what it says; two runs never meet.",
        *(f"{name}={_value(value)}" for name, value in variables.items() if value),
        f"{schedule} {_line(work)}",
    ]
    return (RenderedFile("crontab", "".join(f"{line}\n" for line in lines)),)


def _line(work: Work) -> str:
    """The command; cron takes a bare % for the end of the line."""
    program, *words = work.command("prefetch", "--skip-if-running")
    return shlex.join([program if "/" in program else _USUAL_PROGRAM, *words]).replace("%", r"\%")


def _value(text: str) -> str:
    """The value of a variable. cron knows quotes around it, and nothing that escapes one."""
    quote = "'" if '"' in text else '"'
    return text if re.fullmatch(r"[\w./@+,:-]+", text) else f"{quote}{text}{quote}"
