"""Targets: what a user asks for, as Models: a catalog's name, a group, a hub reference or page, any URL. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from urllib.parse import SplitResult, unquote, urlsplit

from mdl.catalog.model import Catalog, CatalogFile, HubOrigin, Model
from mdl.catalog.references import check_revision, file_url, parse_hub, parse_hub_page, url_name
from mdl.errors import UsageError
from mdl.presigned import identifying_parameters
from mdl.redact import bare_url

_LONGEST_NAME = 120
_PLAIN_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")
_PLAIN_FOLDER = re.compile(r"[A-Za-z0-9._-]+")


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
    """A file lands in a folder named after where it comes from, so that two of one name never meet. What the name
    alone does not tell, a mark at its end does."""
    path, parts = url_name(url), urlsplit(bare_url(url))
    *folders, _ = unquote(parts.path).split("/")
    place = "--".join([parts.netloc, *filter(None, folders)])
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", place).strip("._-") or "download"
    told = repr(found) if (found := identifying_parameters(url)) else ""
    if not _is_told_by_name(parts):
        told += f" of {parts.netloc}{parts.path}"
    if len(name) > _LONGEST_NAME:
        name, told = name[:_LONGEST_NAME], place + told
    if told:
        name += f"-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
    return Model(name=name, title=path.name, files=(CatalogFile(path=path, url=url),), origin="command line")


def _is_told_by_name(parts: SplitResult) -> bool:
    """Host and folders can be read off the name that they are made to, and the file's name off its own."""
    _, *folders, last = parts.path.split("/")
    plain = _PLAIN_HOST.fullmatch(parts.netloc) and all(map(_PLAIN_FOLDER.fullmatch, folders))
    ends = any("--" in part or part.strip("-") != part for part in (parts.netloc, *folders))
    readable = "\ufffd" not in unquote(last)
    return bool(plain) and not ends and readable and (not folders or folders[-1].rstrip("._") == folders[-1])
