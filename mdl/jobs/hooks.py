"""Hooks: what a program of the user's own is told of a job: all of it in a file, and what fits in variables."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mdl.events import Ended
from mdl.jobs.job import Job

_LONGEST = 32 * 1024
"""Bytes that one variable has at most: Linux takes 128 KiB, and all of them together must fit beside the user's own."""

Facts = Mapping[str, Any]


def hook_facts(job: Job, folders: Mapping[str, str], end: Ended, clean: Callable[[str], str]) -> Facts:
    """What a hook is told; ``folders`` are those of the models, and ``clean`` takes secrets out of a server's words."""
    return {
        "schema": "mdl.hook/1",
        "event": "complete" if end.status == "finished" else "failure",
        "job": job.id,
        "command": job.command,
        "models": [{"name": name, "path": path} for name, path in folders.items()],
        "bytes": job.bytes_done,
        "exit_code": end.exit_code,
        "error": clean(end.message or ""),
        "item": clean(end.item or ""),
        "log": job.log or "",
    }


@contextlib.contextmanager
def hook_environment(facts: Facts) -> Iterator[dict[str, str]]:
    """The variables of a hook, for as long as the file that one of them names is there. Raises `OSError`."""
    with tempfile.NamedTemporaryFile("w", prefix="mdl-hook-", suffix=".json") as file:
        json.dump(facts, file)
        file.flush()
        yield _variables(facts) | {"MDL_HOOK_FILE": file.name}


def _variables(facts: Facts) -> dict[str, str]:
    """As many whole lines as fit."""
    models = facts["models"]
    plain = {key: str(value) for key, value in facts.items() if key not in ("schema", "models")}
    lists = {"models": [one["name"] for one in models], "paths": [one["path"] for one in models]}
    found = {key: _fitting(text.split("\n")) for key, text in plain.items()}
    found |= {key: _fitting(lines) for key, lines in lists.items()} | {"count": str(len(models))}
    return {f"MDL_HOOK_{key.upper()}": text for key, text in found.items()}


def _fitting(lines: Sequence[str]) -> str:
    left, found = _LONGEST, []
    for line in lines:
        left -= len(os.fsencode(line)) + 1
        if left < 0:
            break
        found.append(line)
    return "\n".join(found)
