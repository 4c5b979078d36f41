"""Hooks: programs of the user's that are run when a job has ended, and the facts that they get."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mdl.cancel import CancelToken
from mdl.disk import process
from mdl.errors import UsageError
from mdl.events import Ended
from mdl.formatting import json_bytes
from mdl.jobs.job import Job

_LONGEST_VARIABLE = 32 * 1024
"""Bytes of one variable of a hook: Linux allows 128 KiB, and all of them must fit beside the user's own."""


def run_hook(command: Sequence[str], facts: Mapping[str, Any], cancel: CancelToken, *, is_silent: bool) -> str:
    """Run ``command``, which gets the ``facts``; its output goes nowhere if it ``is_silent``. Returns what went
    wrong, or nothing. Raises `Cancelled`."""
    try:
        with hook_environment(facts) as variables:
            code = process.run_program(list(command), variables, silent=is_silent, cancel=cancel)
    except UsageError as error:
        return f"the hook {error.item}: {error.message}"
    except OSError as error:
        return f"the hook {command[0]}: was not run, for MDL_HOOK_FILE cannot be written: {error.strerror}"
    return f"the hook ended with {code}: {' '.join(command)}" if code else ""


def hook_facts(job: Job, folders: Mapping[str, Path], end: Ended, clean: Callable[[str], str]) -> dict[str, Any]:
    """Return the facts of a job for a hook; ``folders`` are those of its models, ``clean`` redacts a text."""
    return {
        "schema": "mdl.hook/1",
        "event": "complete" if end.status == "finished" else "failure",
        "job": job.id,
        "command": job.command,
        "models": [{"name": name, "path": str(path)} for name, path in folders.items()],
        "bytes": job.bytes_done,
        "exit_code": end.exit_code,
        "error": clean(end.message or ""),
        "item": clean(end.item or ""),
        "log": job.log or "",
    }


@contextlib.contextmanager
def hook_environment(facts: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The variables of a hook: all facts are in the file that ``MDL_HOOK_FILE`` names, which exists meanwhile; the
    other variables have as many whole lines of them as fit. Raises `OSError`."""
    models = facts["models"]
    lines = {key: str(value).split("\n") for key, value in facts.items() if key not in ("schema", "models")}
    lines["models"] = [model["name"] for model in models]
    lines["paths"] = [model["path"] for model in models]
    variables = {f"MDL_HOOK_{key.upper()}": _fitting(values) for key, values in lines.items()}
    with tempfile.NamedTemporaryFile(prefix="mdl-hook-", suffix=".json") as file:
        file.write(json_bytes(facts))
        file.flush()
        yield variables | {"MDL_HOOK_COUNT": str(len(models)), "MDL_HOOK_FILE": file.name}


def _fitting(lines: Sequence[str]) -> str:
    """Return as many of the lines as one variable may have."""
    left = _LONGEST_VARIABLE
    fitting = []
    for line in lines:
        left -= len(os.fsencode(line)) + 1
        if left < 0:
            break
        fitting.append(line)
    return "\n".join(fitting)
