"""The command line as it could be typed again: what a job needs to go on another time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import typer

from mdl.cli.flags import Common
from mdl.jobs.job import Invocation
from mdl.jobs.run import JOB_VARIABLE
from mdl.places import working_folder
from mdl.redact import redact

_OF_THE_MOMENT = {field.name for field in dataclasses.fields(Common)} | {"detach", "ctx"}
_OTHERS = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
_VARIABLES_OF_THE_MOMENT = {JOB_VARIABLE, *(f"MDL_{name.upper()}" for name in _OF_THE_MOMENT - {"catalog"})}


def words_of(ctx: typer.Context, common: Common) -> tuple[str, ...]:
    """The command and what was said to it, without how it was to be shown."""
    options = [f"--catalog={path}" for path in common.catalog or ()]
    arguments: list[str] = []
    for param in ctx.command.params:
        name = param.name or ""
        source = ctx.get_parameter_source(name)
        if name in _OF_THE_MOMENT or source is None or source.name != "COMMANDLINE":
            continue
        value = ctx.params[name]
        values = value if isinstance(value, list | tuple) else [value]
        if param.param_type_name == "argument":
            arguments += map(str, values)
        else:
            long = max(param.opts, key=len)
            options += [long if one is True else f"{long}={one}" for one in values]
    return (ctx.command.name or "", *options, "--", *arguments)


def in_background(words: tuple[str, ...]) -> list[str]:
    """The same for a process without a terminal."""
    command, *others = words
    return [command, "--progress=none", "--quiet", "--detach", *others]


def invocation_of(words: tuple[str, ...], environ: Mapping[str, str], secrets: Iterable[str] = ()) -> Invocation:
    """What is written down of a command, to go on with it later. A secret is not: then ``withheld`` is set."""
    known = tuple(secrets)
    kept = {key: value for key, value in environ.items() if key.startswith("MDL_") or key in _OTHERS}
    kept = {key: value for key, value in kept.items() if key not in _VARIABLES_OF_THE_MOMENT}
    clean = tuple(redact(word, known) for word in words)
    variables = {key: value for key, value in kept.items() if redact(value, known) == value}
    return Invocation(clean, str(working_folder()), variables, withheld=clean != words or variables != kept)
