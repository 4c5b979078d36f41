"""Targets: what a user asks for, as Models: a catalog's name, a group, a hub reference or page, any URL. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from mdl.catalog.model import COMMAND_LINE, Catalog, CatalogFile, Model
from mdl.errors import UsageError
from mdl.sources import Origin, is_reference, parse
from mdl.sources.url import UrlOrigin


def models_of(
    targets: Sequence[str | Model], catalog: Catalog, page_hosts: Collection[str], revision: str | None = None
) -> list[Model]:
    """The models behind ``targets``, each once, in order. ``revision`` replaces that of every hub source.

    Raises `NotFound` for a name the catalog does not have, `UsageError` for what is no target.
    """
    found: dict[str, Model] = {}
    for target in targets:
        for model in _models_of(target, catalog, page_hosts):
            wanted = model if revision is None else _at(model, revision)
            found[model.name] = _joined(found[model.name], wanted) if model.name in found else wanted
    return list(found.values())


def _models_of(target: str | Model, catalog: Catalog, page_hosts: Collection[str]) -> list[Model]:
    if isinstance(target, Model):
        return [target]
    return [_of_origin(parse(target, page_hosts))] if is_reference(target) else catalog.find(target)


def _of_origin(origin: Origin) -> Model:
    """What no catalog names goes to a folder named after its source."""
    if isinstance(origin, UrlOrigin):
        file = CatalogFile(origin.file_name, origin.url)
        return Model(name=origin.folder, title=file.path.name, files=(file,), origin=COMMAND_LINE)
    return Model(name=origin.folder, title=origin.folder, sources=(origin,), origin=COMMAND_LINE)


def _at(model: Model, revision: str) -> Model:
    if not model.sources:
        raise UsageError("--revision needs a hub source; this one's files are pinned one by one", item=model.name)
    return replace(model, sources=tuple(source.at(revision) for source in model.sources))


def _joined(first: Model, second: Model) -> Model:
    """Two targets that land in one folder as one model. Raises `UsageError` if they would be in each other's way."""
    if first == second:
        return first
    places = {(source.repository, source.revision) for source in first.sources + second.sources}
    files = tuple(dict.fromkeys(first.files + second.files))
    if len(places) > 1 or len({file.path for file in files}) < len(files) or (places and files):
        raise UsageError("two targets would land in one folder", item=first.name, hint="get them one by one, with --to")
    sources = tuple(dict.fromkeys(first.sources + second.sources))
    whole = tuple(source for source in sources if not source.subpath)
    return replace(first, sources=whole or sources, files=files)
