"""What receipts and references tell of a model: where its files came from, and which of them somebody means.

A model that no catalog names is made of its receipts here, and nowhere else.
"""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from mdl.catalog.choice_of_weights import Chosen, choose
from mdl.catalog.model import COMMAND_LINE, CatalogFile, Model
from mdl.catalog.resolver import Resolver
from mdl.downloader.hub_cache import part_of
from mdl.files import HubFile, Receipt, RemoteFile
from mdl.paths import RelPath
from mdl.sources import Origin
from mdl.sources.hub_origin import HubOrigin, is_pinned
from mdl.values import value_class

_ASKABLE = ("http://", "https://", "s3://")


def was_imported(file: Receipt | RemoteFile) -> bool:
    """Return whether the file came from a folder of another program, and no source is known for it."""
    return file.url.startswith("file:")


def of_hubs(receipts: Iterable[Receipt]) -> Iterator[tuple[HubFile, Receipt]]:
    """The receipts of files that came from a hub, with the files there."""
    for receipt in receipts:
        if receipt.hub is not None:
            yield receipt.hub, receipt


def hub_origins(model: Model) -> list[HubOrigin]:
    """The repositories of the hub that a model comes from."""
    return [origin for origin in model.sources if isinstance(origin, HubOrigin)]


def meant_paths(model: Model, paths: Sequence[str], receipts: Mapping[str, Receipt]) -> set[str]:
    """Return those of the ``paths`` in a model's folder that it means: all of them, unless it is a reference to a
    part of a repository, to a revision, which the ``receipts`` tell by path, or to one URL."""
    if model.origin != COMMAND_LINE:
        return set(paths)
    meant = {file.path.text for file in model.files}
    for origin in model.sources:
        if not isinstance(origin, HubOrigin):
            meant.update(paths)
        elif origin.revision is None:
            meant.update(part_of(origin, paths))
        else:
            meant.update(part_of(origin, _of_revision(origin.revision, receipts.values())))
    return meant.intersection(paths)


@value_class
class MeantFiles:
    """The files by which a model is judged, at their source. Of the ``optional`` ones, which are named by their paths,
    those count of which something is here. Unless ``is_complete`` is set there may be further files."""

    files: Sequence[RemoteFile]
    optional: Collection[RelPath] = frozenset()
    is_complete: bool = True


def fetched_files(
    receipts: Sequence[Receipt], listing: Sequence[RemoteFile], wanted: frozenset[str], *, is_exact: bool
) -> MeantFiles:
    """Return the files of the ``receipts``, each as it was when it came if its source has another one by now, and those
    of the ``listing`` of the model at its source that have no receipt. Sorted by path. Pure.

    If it ``is_exact``ly these files that are meant, none of them is optional. Else those are that the last download did
    not want: ``wanted`` are the paths of those that it did.
    """
    listed = {remote.path: remote for remote in listing}
    files: dict[RelPath, RemoteFile] = {}
    for receipt in receipts:
        remote = listed.pop(receipt.path, None)
        if remote is None or remote.vouched_by == "first use" or not receipt.matches(remote):
            remote = as_vouched_for(receipt)  # its source has another version, or only says what came first
        files[receipt.path] = remote
    files |= listed
    in_order = [files[path] for path in sorted(files)]
    if is_exact:
        return MeantFiles(in_order)
    optional = {path for path in listed if path.text not in wanted}
    is_complete = wanted <= {path.text for path in files}
    return MeantFiles(in_order, optional, is_complete)


def commits_not_listed(receipts: Sequence[Receipt], listing: Sequence[RemoteFile]) -> set[str | None]:
    """The commits of another revision than that of the ``listing``: what came with them is not superseded by it. They
    are those of files that it has in another version, and that of the last receipt, for another revision may have no
    such file. The last one alone does not tell: a receipt is also written again when its file is repaired. Pure."""
    listed = {remote.path: remote for remote in listing}
    commits = {receipt.commit for receipt in receipts[-1:]}
    for receipt in receipts:
        remote = listed.get(receipt.path)
        if remote is not None and not receipt.matches(remote):
            commits.add(receipt.commit)
    return commits - {remote.commit for remote in listing}


def as_vouched_for(receipt: Receipt) -> RemoteFile:
    """The file of a receipt at its source, with the digest if somebody else than the folder that brought it said that
    it is the right one."""
    digest = receipt.digest if receipt.is_vouched_for else None
    return replace(receipt.remote, digest=digest, validator=receipt.validator, commit=receipt.commit, probed=True)


def _of_revision(revision: str, receipts: Iterable[Receipt]) -> list[str]:
    """The paths of files that came from a branch or commit of a hub."""
    return [receipt.path.text for hub, receipt in of_hubs(receipts) if revision in (hub.branch, hub.revision)]


def model_of(name: str, receipts: Sequence[Receipt]) -> Model:
    """Make a model that no catalog names from its receipts."""
    origins: dict[HubOrigin, None] = {}
    for hub, _ in of_hubs(receipts):
        revision: str | None = None
        if hub.branch:
            revision = hub.branch
        elif is_pinned(hub.revision):
            revision = hub.revision
        origins[HubOrigin(hub.repo, hub.repo_type, revision, endpoint=hub.endpoint)] = None
    sources = tuple(origins)
    if sources:
        return Model(name, title=name, kind=sources[0].kind, sources=sources)
    files: list[CatalogFile] = []
    for receipt in receipts:
        stated = CatalogFile(
            receipt.path, receipt.url, size=receipt.stamp.size, digest=receipt.digest, vouched_by=receipt.vouched_by
        )
        files.append(stated)
    return Model(name, title=name, files=tuple(files))


def at_its_hub(model: Model, receipts: Sequence[Receipt]) -> Model:
    """A model that a reference named, with the hub that its files here came from, if that is one and known. It may be
    another one than the hub in use."""
    endpoints = {hub.endpoint for hub, _ in of_hubs(receipts)}
    if len(endpoints) != 1:
        return model
    [endpoint] = endpoints
    sources: list[Origin] = []
    for source in model.sources:
        if isinstance(source, HubOrigin):
            source = replace(source, endpoint=endpoint)
        sources.append(source)
    return replace(model, sources=tuple(sources))


def model_to_ask(model: Model, receipts: Sequence[Receipt], wanted: frozenset[str], resolver: Resolver) -> Model:
    """Return a model with a source that can be asked for what is newest: if it has none, the one that its receipts
    name; as it is if they name none.

    Of a repository of which only a part was fetched, only that part is wanted, and what the last download left: the
    paths ``wanted``. A URL with a query was not kept whole, so it cannot be asked again.
    """
    if model.has_source or not receipts:
        return model
    last = receipts[-1].hub
    if last is not None:
        paths = {hub.path for hub, _ in of_hubs(receipts)}
        return _of_repository(model, last, paths | wanted, resolver)
    files: list[CatalogFile] = []
    for receipt in receipts:
        if receipt.asked or not receipt.url.startswith(_ASKABLE):
            return model
        files.append(CatalogFile(receipt.path, receipt.url))
    return replace(model, files=tuple(files))


def _of_repository(model: Model, last: HubFile, paths: set[str], resolver: Resolver) -> Model:
    """The model with the repository of its ``last`` file as its source: all of it if its usual files are all among
    ``paths``, else these alone."""
    revision: str | None = None
    if last.branch != "main":
        revision = last.branch or last.revision
    origin = HubOrigin(last.repo, last.repo_type, revision, endpoint=last.endpoint)
    listed = resolver.source(origin).known(replace(origin, revision=last.revision)) or ()
    usual = Chosen(tuple(listed))
    if origin.is_model_repository:
        usual = choose(listed)
    include = tuple(glob.escape(path) for path in sorted(paths))
    if usual.files and paths.issuperset(file.path.text for file in usual.files):
        include = ("*",) if usual.quantisations else ()  # nobody has to choose one: all of them are here
    return replace(model, sources=(origin,), include=include)
