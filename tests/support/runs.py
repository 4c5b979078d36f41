"""Small runs, written as the trainers really write them; nothing here needs torch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from mdl.runs import find_run, inference_files, recognise
from mdl.runs.checkpoint import Checkpoint, Found
from mdl.runs.layout import InferenceFiles
from mdl.runs.tree import Tree
from support.weights import safetensors_file, whole_file


def put(file: Path, content: object = None) -> Path:
    """A file with its folders, a whole one of its kind if nothing else is asked for.

    A dict becomes JSON; of a safetensors file it is the header's metadata, and a number that of its missing bytes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors" and not isinstance(content, (str, bytes)):
        metadata = content if isinstance(content, dict) else {}
        content = safetensors_file(metadata, content if isinstance(content, int) else 0)
    elif content is None:
        content = whole_file(file.name)
    elif isinstance(content, dict):
        content = json.dumps(content)
    file.write_bytes(content if isinstance(content, bytes) else str(content).encode())
    return file


def write(run: Path, files: str, contents: Mapping[str, object] | None = None) -> Path:
    """Files by their paths, as a shell expands ``a/{b,c}``; those of ``contents`` with these, or removed if None."""
    for path in (path for word in files.split() for path in _expanded(word)):
        put(run / path)
    for path, content in (contents or {}).items():
        if content is None:
            (run / path).unlink()
        else:
            put(run / path, content)
    return run


def _expanded(word: str) -> list[str]:
    braces = re.search(r"\{([^{}]*)\}", word)
    if not braces:
        return [word]
    return [
        path
        for part in braces[1].split(",")
        for path in _expanded(word[: braces.start()] + part + word[braces.end() :])
    ]


def index_of(*shards: str) -> dict[str, object]:
    """The index that names these shards of a model."""
    return {
        "metadata": {"total_size": 16 * len(shards)},
        "weight_map": {f"w{n}": name for n, name in enumerate(shards)},
    }


def scanned(run: Path) -> Tree:
    """The run's tree, with every file's time set against the order of the names: the last of them is the oldest."""
    run.mkdir(exist_ok=True)
    for age, file in enumerate(sorted(file for file in run.rglob("*") if file.is_file())):
        os.utime(file, (2_000_000_000 - age * 1000,) * 2)
    return Tree.scan(run)


def found(run: Path, base: str = "") -> Found:
    return recognise(scanned(run), base)


def rows(found: Found) -> str:
    """The checkpoints in their order: ``name@step``, or ``name@eEPOCH`` if only that is known, then ``!`` for an
    incomplete one, ``*`` for the latest and ``+`` for the best."""
    epochs = {row.name: "" if row.epoch is None else f"@e{row.epoch}" for row in found.checkpoints}
    marked = ((row, epochs[row.name] if row.step is None else f"@{row.step}") for row in found.checkpoints)
    return " ".join(
        f"{row.name}{step}{'!' * (not row.complete)}{'*' * row.latest}{'+' * row.best}" for row, step in marked
    )


def latest(found: Found) -> str | None:
    return next((row.name for row in found.checkpoints if row.latest), None)


def row(found: Found, name: str) -> Checkpoint:
    return next(one for one in found.checkpoints if one.name == name)


def inferred(run: Path, name: str) -> tuple[InferenceFiles, str]:
    """What inference needs of a checkpoint; and the names below its base, as ``kept | dropped | unknown``."""
    scanned(run)
    seen = find_run(run)
    checkpoint = row(Found(seen.checkpoints), name)
    files = inference_files(seen.tree, checkpoint)
    parts = (files.keep, [entry for entry, _ in files.drop], files.unknown)
    return files, " | ".join(" ".join(sorted(map(checkpoint.relative, part))) for part in parts)
