"""Targets: what a user asks for, as Models: a catalog's name, a group, a hub reference or page, any URL. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from urllib.parse import parse_qsl, unquote, urlsplit

from mdl.catalog.model import Catalog, CatalogFile, HubOrigin, Model
from mdl.catalog.references import check_revision, file_url, parse_hub, parse_hub_page, url_name
from mdl.errors import UsageError
from mdl.redact import bare_url

_LONGEST_NAME = 120
_SIGNED = re.compile(r"(?i)x-(amz|goog)-.*|expires|signature|policy|key-pair-id|sig|s[etvrpk]|token|download")
"""Query parameters that sign a URL rather than say what it names."""


def models_of(
    targets: Sequence[str], catalog: Catalog, page_hosts: Collection[str], revision: str | None = None
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


def _joined(first: Model, second: Model) -> Model:
    """Two targets that land in one folder as one model. Raises `UsageError` where they would be in each other's way."""
    if first == second:
        return first
    repos = {(source.repo_type, source.repo, source.revision) for source in first.sources + second.sources}
    files = tuple(dict.fromkeys(first.files + second.files))
    if len(repos) > 1 or len({file.path for file in files}) < len(files) or (repos and files):
        raise UsageError("two targets would land in one folder", item=first.name, hint="get them one by one, with --to")
    whole = any(not source.subpath for source in first.sources + second.sources)
    sources = tuple(dict.fromkeys(first.sources + second.sources))
    if whole:
        sources = tuple(source for source in sources if not source.subpath)
    return replace(first, sources=sources, files=files)


def is_adhoc(target: str) -> bool:
    """True for a target that no catalog needs to know."""
    return target.startswith("hf:") or "://" in target


def _models_of(target: str, catalog: Catalog, page_hosts: Collection[str]) -> list[Model]:
    if target.startswith("hf:"):
        return [_of_hub(parse_hub(target))]
    if "://" in target:
        origin = parse_hub_page(target, page_hosts)
        return [_of_hub(origin) if origin else _of_url(file_url(target))]
    return catalog.find(target)


def _at(model: Model, revision: str) -> Model:
    if not model.sources:
        raise UsageError("--revision needs a hub source; this one's files are pinned one by one", item=model.name)
    check_revision(revision)
    return replace(model, sources=tuple(replace(source, revision=revision) for source in model.sources))


def _of_hub(origin: HubOrigin) -> Model:
    """A repository lands in a folder of its own, named after it: ``org--name``, ``datasets--org--name``."""
    kind = "" if origin.repo_type == "model" else f"{origin.repo_type}s--"
    name = kind + origin.repo.replace("/", "--")
    return Model(name=name, title=name, sources=(origin,), origin="command line")


def _of_url(url: str) -> Model:
    """A file lands in a folder named after where it comes from, so that two of one name never meet."""
    parts = urlsplit(url)
    *folders, _ = unquote(urlsplit(bare_url(url)).path).split("/")
    place = "--".join([parts.netloc, *filter(None, folders)])
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", place).strip("._-") or "download"
    asked = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if not _SIGNED.fullmatch(pair[0])]
    if asked:
        name += f"-{hashlib.sha256(repr(asked).encode()).hexdigest()[:8]}"
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    path = url_name(url)
    return Model(name=name, title=path.name, files=(CatalogFile(path=path, url=url),), origin="command line")
