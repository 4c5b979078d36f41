"""Targets: what a user asks for, as models: names and groups of the catalog, references, and what people type. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from mdl.catalog.model import COMMAND_LINE, Catalog, CatalogFile, Model
from mdl.errors import CatalogError, NotFound, Unsafe, UsageError
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.sources import Origin, is_reference, parse
from mdl.sources.hub_origin import HubOrigin
from mdl.sources.shorthand import is_file_word, reference_in, what_else
from mdl.sources.url import UrlOrigin, digest_in, sha256_of


def models_of(
    targets: Sequence[str | Model],
    catalog: Catalog,
    page_hosts: Collection[str],
    revision: str | None = None,
    *,
    output: str | None = None,
    sha256: str | None = None,
) -> list[Model]:
    """The models that ``targets`` mean, each once, in order: a catalog's name or group, a hub reference or page, any
    URL, a model. Words behind a repository that name files are files of it. ``revision`` replaces that of every hub
    source; ``output`` is the name of the one file, and ``sha256`` its digest.

    Raises `NotFound` for a name the catalog does not have, `UsageError` for anything that is not a target.
    """
    meant = _read_words(targets, catalog, page_hosts)
    if output is not None or sha256 is not None:
        meant = [_one_file(meant, output, sha256)]
    models: dict[str, Model] = {}
    for target in meant:
        for model in _models_meant(target, catalog):
            if revision is not None:
                model = _at_revision(model, revision)
            if model.name in models:
                model = _joined(models[model.name], model)
            models[model.name] = model
    return list(models.values())


def needs_catalog(targets: Sequence[str | Model]) -> bool:
    """Whether one of the targets may be a name of the catalog."""
    words = [target for target in targets if isinstance(target, str)]
    return any("/" not in word and not is_reference(word) for word in words)


def _read_words(targets: Sequence[str | Model], catalog: Catalog, hosts: Collection[str]) -> list[str | Origin | Model]:
    """Each target as a model, an origin or a name of the catalog. Files that are named behind a repository take its
    place."""
    meant: list[str | Origin | Model] = []
    repository: HubOrigin | None = None
    for target in targets:
        if isinstance(target, Model) or target in catalog.models or target in catalog.groups:
            meant.append(target)
            repository = None
        elif repository and is_file_word(target, repository.label, hosts):
            if repository in meant and repository.is_whole:
                meant.remove(repository)
            subpath = RelPath.of_repository(target.removeprefix("./").rstrip("/")).text
            meant.append(replace(repository, subpath=subpath, quant=""))
        else:
            reference = reference_in(target, hosts)
            target_meant = _parsed(reference, hosts) if reference else target
            meant.append(target_meant)
            repository = None
            if isinstance(target_meant, HubOrigin) and not target_meant.subpath:
                repository = target_meant
    return meant


def _models_meant(target: str | Origin | Model, catalog: Catalog) -> list[Model]:
    if isinstance(target, Model):
        return [target]
    if isinstance(target, Origin):
        return [_of_origin(target)]
    return _named(target, catalog)


def _parsed(reference: str, page_hosts: Collection[str]) -> Origin | Model:
    """Read a reference of the command line; a file of the hub with a digest is a model. Raises `UsageError`,
    `Unsafe`."""
    try:
        origin = parse(reference, page_hosts)
    except CatalogError as error:  # no catalog is to be mended
        raise UsageError(error.message, item=error.item, hint=error.hint) from error
    if isinstance(origin, HubOrigin) and "://" in reference:
        digest = digest_in(reference)
        if digest is not None:
            return _pinned(_of_origin(origin), None, digest)
    return origin


def _named(name: str, catalog: Catalog) -> list[Model]:
    """The models of a name or group of the catalog. Raises `NotFound` with what is near, and what else may be meant."""
    try:
        return catalog.find(name)
    except NotFound as error:
        near = "" if ":" in name else error.hint or ""
        other = what_else(name)
        if not other:
            hint = near or error.hint
        elif not near:
            hint = other
        elif near.endswith("?"):
            hint = f"{near} {other[0].upper()}{other[1:]}"
        else:
            hint = f"{near}; {other}"
        raise error.but(hint=hint) from error


def _of_origin(origin: Origin) -> Model:
    """Make a model of what no catalog names; its folder is named after its source."""
    folder = origin.folder
    if isinstance(origin, UrlOrigin) and origin.is_named:
        file = CatalogFile(origin.file_name, origin.url, digest=origin.digest)
        return Model(name=folder, title=file.path.name, files=(file,), origin=COMMAND_LINE)
    return Model(name=folder, title=folder, kind=origin.kind, sources=(origin,), origin=COMMAND_LINE)


def _at_revision(model: Model, revision: str) -> Model:
    """The model at another revision of its repositories. Raises `UsageError`."""
    if not model.sources:
        reason = "--revision needs a hub source; this one's files are pinned one by one"
        raise UsageError(reason, item=model.name)
    return replace(model, sources=tuple(source.at(revision) for source in model.sources))


def _one_file(meant: Sequence[str | Origin | Model], output: str | None, sha256: str | None) -> Model:
    """The one target with the name and the digest that were given for its file. Raises `UsageError`, `Unsafe`."""
    target = meant[0] if len(meant) == 1 else ""
    if isinstance(target, str):
        flag = "--output" if output is not None else "--sha256"
        raise UsageError(f"{flag} takes the URL of one file", hint="for files of the hub: --include and --into")
    path = _checked_output(output) if output is not None else None
    digest = sha256_of(sha256, "--sha256") if sha256 is not None else None
    return _pinned(_of_origin(target) if isinstance(target, Origin) else target, path, digest)


def _checked_output(output: str) -> RelPath:
    try:
        return RelPath.parse(output.removeprefix("./"))
    except Unsafe as error:
        hint = "it is a name below the model's folder; --into DIR says which folder"
        raise error.but(item="--output", hint=hint) from error


def _pinned(model: Model, path: RelPath | None, digest: Digest | None) -> Model:
    """The model of one file, which has this path and this digest, if they are given. Raises `UsageError`."""
    file = _single_file(model)
    if digest and file.digest and digest != file.digest:
        reason = f"its URL has the sha256 {file.digest.hex[:12]}…, and --sha256 is {digest.hex[:12]}…"
        raise UsageError(reason, item=model.title, hint="give the one that is right")
    digest = digest or file.digest
    if path is None and model.sources and isinstance(model.sources[0], UrlOrigin):
        return replace(model, sources=(replace(model.sources[0], digest=digest),))  # its server names it
    file = replace(file, path=path or file.path, digest=digest)
    return replace(model, title=file.path.name, sources=(), files=(file,))


def _single_file(model: Model) -> CatalogFile:
    """The file of a model that the command line named. Raises `UsageError` if it may have several."""
    if model.sources:
        origin = model.sources[0]
        if isinstance(origin, UrlOrigin):
            return CatalogFile(RelPath("-"), origin.url, digest=origin.digest)
        if origin.subpath:
            return CatalogFile(RelPath.of_repository(origin.subpath), str(origin))
    elif len(model.files) == 1 and not model.is_of_catalog:
        return model.files[0]
    raise UsageError("names no single file", item=model.name, hint="give the URL of one file")


def _joined(first: Model, second: Model) -> Model:
    """Two targets that land in one folder as one model. Raises `UsageError` if they would be in each other's way."""
    if first == second:
        return first
    sources = tuple(dict.fromkeys(first.sources + second.sources))
    files = tuple(dict.fromkeys(first.files + second.files))
    revisions = {(source.repository, source.revision) for source in sources}
    has_twins = len({file.path for file in files}) < len(files)
    if len(revisions) > 1 or has_twins or (sources and files):
        raise UsageError("two targets would land in one folder", item=first.name, hint="get them one by one, with --to")
    whole = tuple(source for source in sources if source.is_whole)
    return replace(first, sources=whole or sources, files=files)
