"""Excerpt: a few models as a catalog and a lock of their own, for another machine: in a bundle, in a manifest, with a
task of a fleet. The secrets that URLs may have stay here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from mdl.catalog.lock import Lock, LockedModel, entry_of
from mdl.catalog.lock_file import lock_text
from mdl.catalog.model import CatalogFile, Model
from mdl.catalog.reader import parse_catalog
from mdl.config.places import CATALOG_NAME
from mdl.errors import CatalogError, UsageError
from mdl.ops.edit_catalog import EMPTY, with_model
from mdl.redact import open_url, redact
from mdl.sources import Origin, parse
from mdl.values import value_class


@value_class
class Excerpt:
    """Models for another machine, as the texts of a ``catalog`` and its ``lock``. ``left_out`` names the files, as
    ``model/path``, and the models of whose URLs something stays here because it may be a secret."""

    catalog: str
    lock: str
    left_out: tuple[str, ...] = ()


def excerpt(models: Iterable[Model], lock: Lock) -> Excerpt:
    """A catalog of ``models`` alone, sorted by name, and its lock. They mean the same files everywhere. Raises
    `LockError` if ``lock`` does not cover a model, `UsageError` for one that no catalog can name."""
    models = sorted(models, key=attrgetter("name"))
    for model in models:
        lock.pin(model)
    text, written = catalog_of(models)
    locked = {name: portable_lock(lock.models[name], entry_of(model)) for name, model in written.items()}
    found = [lock.models[model.name] for model in models]
    return Excerpt(text, lock_text(Lock(locked)), left_out(models, found))


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
    """The model as it may leave this machine: without the secrets that URLs may have."""
    files = [replace(file, url=open_url(file.url), mirrors=_open_urls(file.mirrors)) for file in model.files]
    return replace(
        model,
        files=tuple(files),
        sources=tuple(_open_origin(origin) for origin in model.sources),
        mirrors=_open_urls(model.mirrors),
        homepage=open_url(model.homepage),
        note=redact(model.note),
    )


def portable_lock(locked: LockedModel, entry: str) -> LockedModel:
    """The same of a locked model; ``entry`` stands for the entry that it is locked from."""
    files = []
    for file in locked.files:
        files.append(replace(file, source=open_url(file.source), mirrors=_open_urls(file.mirrors)))
    return replace(locked, entry=entry, files=tuple(files))


def left_out(models: Iterable[Model], locked: Iterable[LockedModel]) -> tuple[str, ...]:
    """The names of all that `portable` and `portable_lock` take something out of: ``model/path`` of a file, or a
    model's."""
    names: set[str] = set()
    for model in models:
        cut = portable(model)
        if replace(cut, files=model.files) != model:
            names.add(model.name)
        changed = set(model.files).difference(cut.files)
        names.update(f"{model.name}/{file.path}" for file in changed)
    for locked_model in locked:
        changed_files = set(locked_model.files).difference(portable_lock(locked_model, locked_model.entry).files)
        names.update(f"{locked_model.name}/{file.path}" for file in changed_files)
    return tuple(sorted(names))


def _open_urls(urls: Sequence[str]) -> tuple[str, ...]:
    return tuple(open_url(url) for url in urls)


def _open_origin(origin: Origin) -> Origin:
    """The same origin, without the secrets of its URL."""
    text = str(origin)
    return origin if open_url(text) == text else parse(open_url(text), ())


def entry_facts(model: Model) -> dict[str, Any]:
    """A model as the keys of its entry in a catalog; empty ones are left out when they are written."""
    facts: dict[str, Any] = {key: getattr(model, key) for key in ("title", "license", "note", "homepage")}
    if model.kind != Model.kind:
        facts["kind"] = model.kind
    sources = [str(origin) for origin in model.sources]
    facts["source"] = sources[0] if len(sources) == 1 else sources
    for key in ("tags", "include", "exclude", "mirrors"):
        facts[key] = list(getattr(model, key))
    facts["files"] = [_file_facts(file) for file in model.files]
    return facts


def _file_facts(file: CatalogFile) -> dict[str, Any]:
    facts: dict[str, Any] = {"id": file.id, "path": file.path.text, "url": file.url, "mirrors": list(file.mirrors)}
    facts["size"] = file.size
    if file.role != CatalogFile.role:
        facts["role"] = file.role
    if file.digest:
        facts["sha256"] = file.digest.hex
    return {key: value for key, value in facts.items() if value not in ("", [], None)}
