"""Excerpt: a few models as a catalog and a lock of their own, for another machine: in a bundle, in a manifest, with a
task of a fleet. The secrets that URLs may have stay here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mdl.catalog.lock import Lock, LockedModel, entry_of
from mdl.catalog.model import CatalogFile, Model
from mdl.catalog.reader import parse_catalog
from mdl.errors import CatalogError, UsageError
from mdl.operations.edit import EMPTY, with_model
from mdl.places import CATALOG_NAME
from mdl.redact import bare_url, has_secret


def excerpt(models: Iterable[Model], lock: Lock) -> tuple[str, str]:
    """The text of a catalog of ``models`` alone, sorted by name, and that of its lock. They mean the same files
    everywhere. Raises `LockError` if ``lock`` does not cover a model, `UsageError` for one that no catalog can name."""
    models = sorted(models, key=lambda model: model.name)
    for model in models:
        lock.pin(model)
    text, written = catalog_of(models)
    locked = {name: portable_lock(lock.models[name], entry_of(model)) for name, model in written.items()}
    return text, Lock(locked).to_toml()


def catalog_of(models: Iterable[Model]) -> tuple[str, dict[str, Model]]:
    """A catalog of these models alone, and the models as it has them. Raises `UsageError` for a model that no catalog
    can name."""
    text = EMPTY
    for model in map(portable, models):
        try:
            text = with_model(text, Path(CATALOG_NAME), model.name, entry_facts(model))
        except CatalogError as error:
            hint = "it must be what a catalog can name; 'mdl pack' takes a trained run along"
            raise UsageError(f"no catalog can name it: {error.message}", item=model.name, hint=hint) from error
    return text, parse_catalog(text, Path(CATALOG_NAME)).models


def portable(model: Model) -> Model:
    """The model as it may leave this machine: without the secrets that the URLs of its files have."""
    files = (replace(one, url=_open_url(one.url), mirrors=_open_urls(one.mirrors)) for one in model.files)
    return replace(model, files=tuple(files))


def portable_lock(locked: LockedModel, entry: str) -> LockedModel:
    """The same of a locked model; ``entry`` stands for the entry that it is locked from."""
    files = (replace(one, source=_open_url(one.source), mirrors=_open_urls(one.mirrors)) for one in locked.files)
    return LockedModel(locked.name, entry, tuple(files))


def _open_urls(urls: Sequence[str]) -> tuple[str, ...]:
    return tuple(_open_url(url) for url in urls)


def _open_url(url: str) -> str:
    return bare_url(url) if has_secret(url) else url


def entry_facts(model: Model) -> dict[str, Any]:
    """A model as the keys of its entry in a catalog; empty ones are left out when they are written."""
    texts = {key: getattr(model, key) for key in ("title", "license", "note", "homepage")}
    kind = {"kind": model.kind} if model.kind != Model.kind else {}
    sources = [str(origin) for origin in model.sources]
    keys = ("tags", "include", "exclude", "mirrors")
    lists = {key: list(getattr(model, key)) for key in keys}
    source = {"source": sources[0] if len(sources) == 1 else sources}
    return texts | kind | source | lists | {"files": [_file_facts(file) for file in model.files]}


def _file_facts(file: CatalogFile) -> dict[str, Any]:
    facts = {"id": file.id, "path": file.path.text, "url": file.url, "mirrors": list(file.mirrors), "size": file.size}
    facts["role"] = file.role if file.role != CatalogFile.role else ""
    facts["sha256"] = file.digest.hex if file.digest else ""
    return {key: value for key, value in facts.items() if value not in ("", [], None)}
