"""Targets: what a user asks for, as Models: a catalog's name, a group, a hub reference or page, any URL. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from urllib.parse import unquote, urlsplit

from mdl.catalog.model import Catalog, CatalogFile, HubOrigin, Model
from mdl.catalog.references import check_revision, check_url, parse_hub, parse_hub_page, url_name
from mdl.errors import UsageError

_LONGEST_NAME = 120


def models_of(
    targets: Sequence[str], catalog: Catalog, page_hosts: Collection[str], revision: str | None = None
) -> list[Model]:
    """The models behind ``targets``, each once, in order. ``revision`` replaces that of every hub source.

    Raises `NotFound` for a name the catalog does not have, `UsageError` for what is no target.
    """
    found: dict[str, Model] = {}
    for target in targets:
        for model in _models_of(target, catalog, page_hosts):
            found.setdefault(model.name, model if revision is None else _at(model, revision))
    return list(found.values())


def is_adhoc(target: str) -> bool:
    """True for a target that no catalog needs to know."""
    return target.startswith("hf:") or "://" in target


def _models_of(target: str, catalog: Catalog, page_hosts: Collection[str]) -> list[Model]:
    if target.startswith("hf:"):
        return [_of_hub(parse_hub(target))]
    if "://" in target:
        origin = parse_hub_page(target, page_hosts)
        return [_of_hub(origin) if origin else _of_url(check_url(target))]
    return catalog.find(target)


def _at(model: Model, revision: str) -> Model:
    if not model.sources:
        raise UsageError("--revision needs a hub source; this one's files are pinned one by one", item=model.name)
    check_revision(revision)
    return replace(model, sources=tuple(replace(source, revision=revision) for source in model.sources))


def _of_hub(origin: HubOrigin) -> Model:
    """A repository lands in a folder of its own, named after it: ``org--name``."""
    return Model(name=origin.repo.replace("/", "--"), title=str(origin), sources=(origin,), origin="command line")


def _of_url(url: str) -> Model:
    """A file lands in a folder named after where it comes from, so that two of one name never meet."""
    parts = urlsplit(url)
    *folders, _ = unquote(parts.path).split("/")
    place = "--".join([parts.netloc, *filter(None, folders)])
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", place).strip("._-") or "download"
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    path = url_name(url)
    return Model(name=name, title=path.name, files=(CatalogFile(path=path, url=url),), origin="command line")
