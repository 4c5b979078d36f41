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
    found: dict[str, Model] = {}
    origins = _with_files(targets, catalog, page_hosts)
    if output is not None or sha256 is not None:
        origins = [_one_file(origins, output, sha256)]
    for target in origins:
        match target:
            case Model():
                models = [target]
            case Origin():
                models = [_of_origin(target)]
            case _:
                models = _named(target, catalog)
        for model in models:
            if revision is not None:
                if not model.sources:
                    why = "--revision needs a hub source; this one's files are pinned one by one"
                    raise UsageError(why, item=model.name)
                model = replace(model, sources=tuple(source.at(revision) for source in model.sources))
            found[model.name] = _joined(found[model.name], model) if model.name in found else model
    return list(found.values())


def needs_catalog(targets: Sequence[str | Model]) -> bool:
    """Whether one of the targets may be a name of the catalog."""
    return any(isinstance(one, str) and "/" not in one and not is_reference(one) for one in targets)


def _with_files(targets: Sequence[str | Model], catalog: Catalog, hosts: Collection[str]) -> list[str | Origin | Model]:
    """Each target as a model, an origin or a name of the catalog. Files that are named behind a repository take its
    place."""
    found: list[str | Origin | Model] = []
    repository: HubOrigin | None = None
    for target in targets:
        if isinstance(target, Model) or target in catalog.models or target in catalog.groups:
            found.append(target)
            repository = None
            continue
        if repository and is_file_word(target, repository.label, hosts):
            if repository in found and repository.is_whole:
                found.remove(repository)
            subpath = RelPath.of_repository(target.removeprefix("./").rstrip("/")).text
            found.append(replace(repository, subpath=subpath, quant=""))
            continue
        reference = reference_in(target, hosts)
        meant = _parsed(reference, hosts) if reference else target
        found.append(meant)
        repository = meant if isinstance(meant, HubOrigin) and not meant.subpath else None
    return found


def _parsed(reference: str, page_hosts: Collection[str]) -> Origin | Model:
    """What a reference of the command line means; a file of the hub with a digest is a model. Raises `UsageError`,
    `Unsafe`."""
    try:
        origin = parse(reference, page_hosts)
    except CatalogError as error:  # no catalog is to be mended
        raise UsageError(error.message, item=error.item, hint=error.hint) from error
    digest = digest_in(reference) if isinstance(origin, HubOrigin) and "://" in reference else None
    return _pinned(_of_origin(origin), None, digest) if digest else origin


def _named(name: str, catalog: Catalog) -> list[Model]:
    """The models of a name or group of the catalog. Raises `NotFound` with what is near, and what else may be meant."""
    try:
        return catalog.find(name)
    except NotFound as error:
        near = "" if ":" in name else error.hint or ""
        else_meant = what_else(name)
        if near.endswith("?") and else_meant:
            hint: str | None = f"{near} {else_meant[0].upper()}{else_meant[1:]}"
        else:
            hint = "; ".join(filter(None, (near, else_meant))) or error.hint
        raise error.but(hint=hint) from error


def _of_origin(origin: Origin) -> Model:
    """What no catalog names goes to a folder named after its source."""
    folder = origin.folder
    if isinstance(origin, UrlOrigin) and origin.is_named:
        file = CatalogFile(origin.file_name, origin.url, digest=origin.digest)
        return Model(name=folder, title=file.path.name, files=(file,), origin=COMMAND_LINE)
    return Model(name=folder, title=folder, kind=origin.kind, sources=(origin,), origin=COMMAND_LINE)


def _one_file(targets: Sequence[str | Origin | Model], output: str | None, sha256: str | None) -> Model:
    """The one target with the name and the digest that were given for its file. Raises `UsageError`, `Unsafe`."""
    flag = "--output" if output is not None else "--sha256"
    target = targets[0] if len(targets) == 1 else ""
    if isinstance(target, str):
        raise UsageError(f"{flag} takes the URL of one file", hint="for files of the hub: --include and --into")
    path = None
    if output is not None:
        try:
            path = RelPath.parse(output.removeprefix("./"))
        except Unsafe as error:
            hint = "it is a name below the model's folder; --into DIR says which folder"
            raise error.but(item="--output", hint=hint) from error
    digest = sha256_of(sha256, "--sha256") if sha256 is not None else None
    return _pinned(target if isinstance(target, Model) else _of_origin(target), path, digest)


def _pinned(model: Model, path: RelPath | None, digest: Digest | None) -> Model:
    """The model of one file, which has this path and this digest, if they are given. Raises `UsageError`."""
    origin = model.sources[0] if model.sources else None
    if isinstance(origin, UrlOrigin):
        known = CatalogFile(path or RelPath("-"), origin.url, digest=origin.digest)
    elif len(model.files) == 1 and not model.is_of_catalog:
        [known] = model.files
    elif origin and origin.subpath:
        known = CatalogFile(RelPath.of_repository(origin.subpath), str(origin))
    else:
        raise UsageError("names no single file", item=model.name, hint="give the URL of one file")
    if digest and known.digest and digest != known.digest:
        why = f"its URL has the sha256 {known.digest.hex[:12]}…, and --sha256 is {digest.hex[:12]}…"
        raise UsageError(why, item=model.title, hint="give the one that is right")
    if isinstance(origin, UrlOrigin) and path is None:
        return replace(model, sources=(replace(origin, digest=digest or known.digest),))
    file = replace(known, path=path or known.path, digest=digest or known.digest)
    return replace(model, title=file.path.name, sources=(), files=(file,))


def _joined(first: Model, second: Model) -> Model:
    """Two targets that land in one folder as one model. Raises `UsageError` if they would be in each other's way."""
    if first == second:
        return first
    places = {(source.repository, source.revision) for source in first.sources + second.sources}
    files = tuple(dict.fromkeys(first.files + second.files))
    if len(places) > 1 or len({file.path for file in files}) < len(files) or (places and files):
        raise UsageError("two targets would land in one folder", item=first.name, hint="get them one by one, with --to")
    sources = tuple(dict.fromkeys(first.sources + second.sources))
    whole = tuple(source for source in sources if source.is_whole)
    return replace(first, sources=whole or sources, files=files)
