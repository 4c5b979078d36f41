"""Excerpt: a few locked models as a catalog and a lock of their own, which another machine can use. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mdl.catalog.lock import Lock, toml_block
from mdl.catalog.model import CatalogFile, Model
from mdl.catalog.parser import SCHEMA


def excerpt(models: Sequence[Model], lock: Lock) -> tuple[str, str]:
    """The text of a catalog with ``models`` alone, and that of its lock.

    The entries mean the same files as before, so that ``lock`` covers them there too. Raises `LockError` if it does
    not cover them here.
    """
    for model in models:
        lock.pin(model)
    return "\n".join([f"schema = {SCHEMA}\n", *map(_entry, models)]), lock.only(one.name for one in models).to_toml()


def _entry(model: Model) -> str:
    head = f"models.{json.dumps(model.name, ensure_ascii=False)}"
    facts = {
        "title": model.title,
        "kind": model.kind,
        "license": model.license,
        "source": [str(origin) for origin in model.sources],
        "include": list(model.include),
        "exclude": list(model.exclude),
        "mirrors": list(model.mirrors),
    }
    blocks = [toml_block(f"[{head}]", {key: value for key, value in facts.items() if value})]
    return "\n".join([*blocks, *(toml_block(f"[[{head}.files]]", _file(one)) for one in model.files)])


def _file(file: CatalogFile) -> dict[str, object]:
    facts = {
        "path": file.path.text,
        "role": file.role,
        "url": file.url,
        "mirrors": list(file.mirrors),
        "size": file.size,
        "sha256": file.digest.hex if file.digest else None,
    }
    return {key: value for key, value in facts.items() if value not in (None, [], "")}
