"""cron: a crontab that brings models by night. Pure."""

from __future__ import annotations

import re
import shlex

from mdl.errors import UsageError
from mdl.plugins.render.work import RenderedFile, Work, ranges

_LONGEST = 998
"""The most bytes of a command or a variable: cron refuses longer ones, and some kinds of it cut them off."""
_SCHEDULE = r"@[a-z]+|[^\s@]\S*(\s+[^\s@]\S*){4}"


def render(work: Work) -> tuple[RenderedFile, ...]:
    """A crontab for one user. Nothing else keeps two runs apart: mdl itself does. Raises `UsageError` for what cron
    would not take."""
    hours, minute = work.starts()
    schedule = work.schedule or f"{minute} {'*' if len(hours) == 24 else ranges(hours, '-')} * * *"
    if not re.fullmatch(_SCHEDULE, schedule):
        hint = "write five fields, as in '5 1 * * *', or @daily"
        raise UsageError(f"{schedule!r} is not a schedule that cron reads", item="--schedule", hint=hint)
    variables = {"MAILTO": work.mail_to} | work.environ
    lines = [
        "# Made by 'mdl render cron'. To add it to your crontab: (crontab -l; mdl render cron …) | crontab -",
        "# mdl is silent unless a model failed, and cron mails what it says; two runs never meet.",
        *(_short(f"{name}={_value(value)}") for name, value in variables.items() if value),
        *work.shell_comments(lambda name, value: f"{name}={_quoted(value)}"),
        f"{schedule} {_short(_line(work))}",
    ]
    return (RenderedFile("crontab", "".join(f"{line}\n" for line in lines)),)


def _line(work: Work) -> str:
    """The command; cron takes a bare % for the end of the line."""
    return shlex.join(work.nightly_command("--skip-if-running")).replace("%", r"\%")


def _short(text: str) -> str:
    """The same. Raises `UsageError` if it is longer than cron reads."""
    if (size := len(text.encode())) > _LONGEST:
        hint = "name a group of the catalog instead of many models"
        raise UsageError(f"cron reads lines of {_LONGEST} bytes, and this one has {size:,}", hint=hint)
    return text


def _value(text: str) -> str:
    """The value of a variable. cron knows quotes around it, and nothing that escapes one. Raises `UsageError` if it has
    both kinds."""
    if "'" in text and '"' in text:
        raise UsageError(f"cron cannot have both kinds of quotes in {text}", hint="use a path with one kind, or none")
    return _quoted(text)


def _quoted(text: str) -> str:
    quote = "'" if '"' in text else '"'
    return text if re.fullmatch(r"[\w./@+,:-]*", text) else f"{quote}{text}{quote}"
