"""Matching: the files that a catalog and its lock know, to be found by what a file on this disk is, and the files of a
repository of the hub, to be found by their paths."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from functools import cached_property

from mdl.catalog.model import Model
from mdl.catalog.resolver import Resolver
from mdl.errors import MdlError, NotFound, UsageError
from mdl.files import RemoteFile
from mdl.hashing import Digest
from mdl.local.formats import FoundFile
from mdl.paths import RelPath, matches
from mdl.sources.hub_origin import HubOrigin
from mdl.values import value_class


@value_class
class CatalogFiles:
    """The files that the catalog and its lock know, to be found by their digests and, without contacting anybody, by
    the commits that a folder of the hub's client tells of."""

    by_digest: Mapping[Digest, Sequence[tuple[str, RemoteFile]]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many files of each model have a digest."""
    at_commit: Callable[[FoundFile], tuple[str, RemoteFile] | None] = field(default=lambda _found: None)
    """The model whose pinned commit a folder says that a file is of, and the file. If somebody else than the folder
    has a digest of it, it has that one; else that of the folder, which vouches for it alone."""
    names: frozenset[str] = frozenset()

    @cached_property
    def by_size(self) -> dict[int, list[tuple[str, RemoteFile]]]:
        """The same files by their size in bytes."""
        found: dict[int, list[tuple[str, RemoteFile]]] = {}
        for known in self.by_digest.values():
            for name, remote in known:
                found.setdefault(remote.size or 0, []).append((name, remote))
        return found


def catalog_files(models: Sequence[Model], resolver: Resolver) -> CatalogFiles:
    """What is known, without contacting anybody, of the files of these models of a catalog."""
    by_digest = defaultdict[Digest, list[tuple[str, RemoteFile]]](list)
    counts = Counter[str]()
    published = dict[tuple[str, RelPath], RemoteFile]()
    pinned = defaultdict[str, list[tuple[Model, HubOrigin]]](list)
    for model in models:
        with contextlib.suppress(MdlError):  # the entry is wrong: 'get' will report it
            for remote in resolver.known(model, in_all_formats=True) or resolver.described(model) or ():
                if remote.digest:
                    by_digest[remote.digest].append((model.name, remote))
                    counts[model.name] += 1
                if remote.is_vouched_for:
                    published[model.name, remote.path] = remote
        for origin in model.sources:
            if isinstance(origin, HubOrigin) and not origin.branch:
                pinned[origin.revision or ""].append((model, origin))

    def at_commit(found: FoundFile) -> tuple[str, RemoteFile] | None:
        for model, origin in pinned[found.commit or ""]:
            is_wanted = not model.include or matches(found.path, model.include)
            if not is_wanted or matches(found.path, model.exclude) or origin.subpath:
                continue
            path = RelPath.of_repository(found.path)
            if counts[model.name]:  # its files are known: others are not files of it
                known = published.get((model.name, path))
                return (model.name, known) if known else None
            remote = resolver.source(origin).file(replace(origin, subpath=found.path), path)
            if remote.digest:
                return model.name, replace(remote, size=found.size)
            return model.name, replace(remote, size=found.size, digest=found.digest, vouched_by="folder")
        return None

    return CatalogFiles(by_digest, counts, at_commit, frozenset(model.name for model in models))


@value_class
class RepositoryFiles:
    """The files of one repository at one commit, by their paths, for the model ``name``."""

    name: str
    origin: HubOrigin
    by_path: Mapping[str, RemoteFile]


def repository_files(model: Model, resolver: Resolver, commits: Sequence[str]) -> RepositoryFiles:
    """Ask the hub for the files of a model that a reference to a repository made: at its revision, or without one at
    the first of ``commits`` that the repository has, or else at the newest commit of its default branch.

    Somebody wrote the commits down beside the files, so they only help to find the listing with which these are to be
    compared. Raises as `Resolver.resolve`.
    """
    origins = [origin for origin in model.sources if isinstance(origin, HubOrigin) and origin.is_whole]
    if len(origins) != 1 or model.files:
        hint = "write --from hf:org/repo or hf:org/repo@revision"
        raise UsageError("not a repository of the hub", item=model.target, hint=hint)
    [origin] = origins
    everything = replace(
        model, include=("*",)
    )  # else one set of weights is chosen (ADR 76), and the folder may have all
    for commit in commits if origin.revision is None else ():
        try:
            files = resolver.resolve(replace(everything, sources=(origin.at(commit),))).files
        except NotFound:
            continue
        of_branch = [replace(file, hub=replace(file.hub, branch=origin.branch)) for file in files if file.hub]
        return RepositoryFiles(model.name, origin, {file.path.text: file for file in of_branch})
    files = resolver.resolve(everything).files
    return RepositoryFiles(model.name, origin, {file.path.text: file for file in files})
