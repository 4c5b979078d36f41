"""Matching: a file of another program's folder is one of a catalog's model by its bytes, or of a repository by its
path.

`CatalogFiles` and `RepositoryFiles` answer the same questions: which models are imported (`arranged`), with which
algorithms a file is hashed (`algorithms`), what it may be before it is read (`guess`), which files have its bytes
(`matches`), and what it is (`identify`).
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from mdl.catalog.model import Model
from mdl.catalog.resolver import Resolver
from mdl.errors import DigestMismatch, MdlError, NotFound, Occupied, Unsafe, UsageError
from mdl.files import RemoteFile, Stamp
from mdl.hashing import Digest, Fingerprint
from mdl.local.formats import FoundFile, FoundModel
from mdl.local.from_receipts import hub_origins
from mdl.paths import RelPath, matches
from mdl.sources.hub_origin import HubOrigin
from mdl.values import value_class

Match = tuple[str, RemoteFile]
"""A model of the catalog, and one of its files."""


@value_class
class HashedFile:
    """A file at ``path`` that was read: its fingerprints by their algorithms, and the stamp that it had meanwhile."""

    model: FoundModel
    file: FoundFile
    path: Path
    prints: Mapping[str, Fingerprint]
    stamp: Stamp

    @property
    def digests(self) -> set[Digest]:
        """The digests of its bytes."""
        return {print_.digest for print_ in self.prints.values()}

    @property
    def has_noted_digest(self) -> bool:
        """Return whether its bytes are those of which the other program noted the digest."""
        return self.file.digest is not None and self.file.digest in self.digests

    def digest(self, algorithm: str) -> Digest:
        """Its digest by an algorithm; the SHA-256 if it was not hashed with that one."""
        return self.prints.get(algorithm, self.prints["sha256"]).digest


@value_class
class Target:
    """The place where a file goes. ``verified`` says which digest its bytes were compared with; ``none`` if only the
    folder itself has one."""

    model: str
    remote: RemoteFile
    verified: str
    of_catalog: bool


class CatalogFiles:
    """The files that the catalog and its lock know, to be matched by their digests and, without contacting anybody, by
    the commits that a folder of the hub's client tells of."""

    def __init__(self, models: Sequence[Model], resolver: Resolver, imported_as: str | None = None) -> None:
        """``imported_as`` is the name of the one model in the folder, if the user gave one."""
        self._imported_as = imported_as
        self.names = frozenset(model.name for model in models)
        self._resolver = resolver
        self._by_digest: defaultdict[Digest, list[Match]] = defaultdict(list)
        self._by_size: defaultdict[int, list[Match]] = defaultdict(list)
        self._counts: Counter[str] = Counter()
        """The number of files with a digest, by model."""
        self._published: dict[tuple[str, RelPath], RemoteFile] = {}
        self._pinned: defaultdict[str, list[tuple[Model, HubOrigin]]] = defaultdict(list)
        """The models that are pinned to a commit."""
        for model in models:
            with contextlib.suppress(MdlError):  # the entry is wrong: 'get' will report it
                for remote in resolver.described(model, in_all_formats=True) or ():
                    self._add(model.name, remote)
            for origin in hub_origins(model):
                if origin.revision and not origin.branch:
                    self._pinned[origin.revision].append((model, origin))

    def _add(self, name: str, remote: RemoteFile) -> None:
        if remote.digest is not None:
            self._by_digest[remote.digest].append((name, remote))
            self._by_size[remote.size or 0].append((name, remote))
            self._counts[name] += 1
        if remote.is_vouched_for:
            self._published[name, remote.path] = remote

    def arranged(self, models: list[FoundModel], own: Collection[str]) -> list[FoundModel]:
        """The models as they are to be imported, without mdl's ``own`` files, unless the folder says of which commit
        they are. Raises `UsageError` if one name was given for several."""
        arranged: list[FoundModel] = []
        for model in models:
            files = tuple(file for file in model.files if file.commit or file.at not in own)
            if files:
                arranged.append(FoundModel(self._imported_as or model.name, files))
        if self._imported_as and len(arranged) > 1:
            raise _several(models, self._imported_as)
        return arranged

    def why_left_out(self, form: str) -> str:
        """Why files in a folder of this format are left out."""
        return f"it belongs to no model ({form})"

    def algorithms(self, file: FoundFile) -> set[str]:
        """With which algorithms a file is hashed: those of the files of its size."""
        algorithms = {"sha256"}
        if file.digest is not None:
            algorithms.add(file.digest.algorithm)
        for _, remote in self._by_size.get(file.size, ()):
            algorithms.add(remote.hash_algorithm)
        return algorithms

    def guess(self, file: FoundFile) -> Match | None:
        """A catalog's file of the same size, if there is one."""
        if file.size in self._by_size and file.size > 0:
            return self._by_size[file.size][0]
        return None

    def matches(self, hashed: HashedFile) -> list[Match]:
        """The catalog's files that have these bytes: those of the model itself first, then those of the same name."""
        path = hashed.file.path
        same_bytes: list[Match] = []
        for print_ in hashed.prints.values():
            same_bytes += self._by_digest.get(print_.digest, ())
        if not same_bytes and hashed.has_noted_digest:
            at_commit = self._at_commit(hashed.file)
            if at_commit is not None:
                same_bytes.append(at_commit)

        def precedence(match: Match) -> tuple[bool, bool]:
            name, remote = match
            return name != hashed.model.name, path not in (remote.path.text, remote.path.name)

        return sorted(same_bytes, key=precedence)

    def _at_commit(self, file: FoundFile) -> Match | None:
        """The model whose pinned commit the folder says that a file is of, and the file. If somebody else than the
        folder has a digest of it, it has that one; else that of the folder, which vouches for it alone."""
        for model, origin in self._pinned.get(file.commit or "", ()):
            if origin.subpath or matches(file.path, model.exclude):
                continue
            if model.include and not matches(file.path, model.include):
                continue
            path = RelPath.of_repository(file.path)
            if self._counts[model.name]:  # its files are known: others are not files of it
                published = self._published.get((model.name, path))
                if published is None:
                    return None
                return model.name, published
            source = self._resolver.source(origin)
            remote = replace(source.file(replace(origin, subpath=file.path), path), size=file.size)
            if remote.digest is None:
                remote = replace(remote, digest=file.digest, vouched_by="folder")
            return model.name, remote
        return None

    def whole_models(self, matched: Sequence[Match]) -> set[str]:
        """The models of which every file is among those that were matched."""
        paths: dict[str, set[RelPath]] = {}
        for name, remote in matched:
            paths.setdefault(name, set()).add(remote.path)
        return {name for name in paths if len(paths[name]) == self._counts[name]}

    def identify(self, hashed: HashedFile, matched: Sequence[Match]) -> Target:
        """Find where a file goes: to the catalog's model that was ``matched`` to have it, else to a model of its own.
        Raises `DigestMismatch`, `Occupied`, `Unsafe`."""
        file = hashed.file
        if file.named_by_digest and not hashed.has_noted_digest:
            raise DigestMismatch(f"it is damaged: it does not have {file.digest}", hint="fetch it again")
        if not matched:
            return self._of_its_own(hashed)
        name, remote = matched[0]
        if remote.digest not in hashed.digests:
            raise _not_the_catalogs(hashed, name, remote)
        if remote.hub is not None:  # it comes from a folder, and from no hub
            remote = replace(remote, hub=replace(remote.hub, endpoint=""))
        return Target(name, replace(remote, access="unknown"), remote.verified, of_catalog=True)

    def _of_its_own(self, hashed: HashedFile) -> Target:
        """A file that the catalog does not know. Its name must not be that of a model that the catalog has. Raises
        `DigestMismatch` if that model has another file of its path, `Occupied`, `Unsafe`."""
        file = hashed.file
        name = hashed.model.name
        path = RelPath.of_repository(file.path)
        if (name, path) in self._published:
            raise _not_the_catalogs(hashed, name, self._published[name, path])
        if name in self.names and self._counts[name]:
            hint = "--as NAME imports it under another name"
            raise Occupied(f"the catalog's {name} has no such file", hint=hint)
        if name in self.names:
            hint = f"'mdl get -n {name}' asks its source; or --as NAME for another name"
            raise Occupied(f"no digest of the catalog's {name} is known here", hint=hint)
        digest = hashed.digest("sha256")
        commit = None
        if hashed.has_noted_digest and file.digest is not None:
            digest = file.digest
            commit = file.commit
        url = f"file://{quote(os.fsencode(hashed.path))}"
        remote = RemoteFile(path, url, file.size, digest, commit=commit, vouched_by="folder")
        try:
            return Target(RelPath.parse(name).text, remote, "none", of_catalog=False)
        except Unsafe as error:
            raise error.but(hint="it was left out; rename the folder, or --as NAME gives the model a name") from None


@value_class
class RepositoryFiles:
    """The files of one repository at one commit, by their paths, for the model ``name``."""

    name: str
    origin: HubOrigin
    by_path: Mapping[str, RemoteFile]
    names: frozenset[str] = frozenset()
    """Models of the catalog; none, for they are not asked."""

    def arranged(self, models: list[FoundModel], _own: Collection[str]) -> list[FoundModel]:
        """The one model that was found, with the files that the repository has too. Raises `UsageError` if there are
        several."""
        if len(models) > 1:
            raise _several(models, str(self.origin))
        arranged: list[FoundModel] = []
        for model in models:
            files = [file for file in model.files if file.path in self.by_path]
            arranged.append(FoundModel(self.name, tuple(files)))
        return arranged

    def why_left_out(self, _form: str) -> str:
        """Why files are left out."""
        return f"{self.origin} has no such file"

    def algorithms(self, file: FoundFile) -> set[str]:
        """The one algorithm with which a file is hashed."""
        return {self.by_path[file.path].hash_algorithm}

    def guess(self, file: FoundFile) -> Match | None:
        """Nothing of a catalog. Raises `DigestMismatch` if the repository's file of this path has another size."""
        remote = self.by_path[file.path]
        if remote.size not in (None, file.size):
            raise self._mismatch(remote, f"{file.size:,} bytes", f"{remote.size:,}")
        return None

    def matches(self, _hashed: HashedFile) -> list[Match]:
        """No file of a catalog."""
        return []

    def whole_models(self, _found: Sequence[Match]) -> set[str]:
        return set()

    def identify(self, hashed: HashedFile, _found: Sequence[Match]) -> Target:
        """A file must be the one of its path. Raises `DigestMismatch`."""
        self.guess(hashed.file)
        remote = self.by_path[hashed.file.path]
        digest = hashed.prints[remote.hash_algorithm].digest
        if remote.digest not in (None, digest):
            raise self._mismatch(remote, str(digest), str(remote.digest))
        verified = remote.hash_algorithm if remote.digest else "size"
        return Target(self.name, remote, verified, of_catalog=False)

    def _mismatch(self, remote: RemoteFile, has: str, other_has: str) -> DigestMismatch:
        reason = f"it is not the file of {remote.source}: it has {has}, and the other one {other_has}"
        hint = f"it stays as it is: 'mdl get {self.origin}' fetches the right one, and --as NAME imports this one"
        return DigestMismatch(reason, hint=hint)


def _not_the_catalogs(hashed: HashedFile, name: str, remote: RemoteFile) -> DigestMismatch:
    digest = hashed.digest(remote.hash_algorithm)
    reason = f"it is not the catalog's {name}: it has {digest}, and {remote.source} has {remote.digest}"
    return DigestMismatch(reason, hint=f"'mdl get {name}' downloads the right one; or --as NAME for another name")


KnownFiles: TypeAlias = CatalogFiles | RepositoryFiles
"""What the files of a folder are compared with."""


def _several(models: Sequence[FoundModel], meant: str) -> UsageError:
    return UsageError(f"{len(models)} models were found, and one is named", item=meant)


def repository_files(model: Model, resolver: Resolver, commits: Sequence[str]) -> RepositoryFiles:
    """Ask the hub for the files of a model that a reference to a repository made: at its revision, or without one at
    the first of ``commits`` that the repository has, or else at the newest commit of its default branch.

    Somebody wrote the commits down beside the files, so they only help to find the listing with which these are to be
    compared. Raises as `Resolver.resolve`.
    """
    origins = [origin for origin in hub_origins(model) if origin.is_whole]
    if len(origins) != 1 or model.files:
        hint = "write --from hf:org/repo or hf:org/repo@revision"
        raise UsageError("not a repository of the hub", item=model.target, hint=hint)
    [origin] = origins
    everything = replace(model, include=("*",))  # else one set of weights is chosen (ADR 76); the folder may have all
    if origin.revision is not None:
        commits = ()
    for commit in commits:
        with contextlib.suppress(NotFound):
            at_commit = resolver.resolve(replace(everything, sources=(origin.at(commit),)))
            by_path: dict[str, RemoteFile] = {}
            for file in at_commit.files:
                if file.hub is not None:
                    by_path[file.path.text] = replace(file, hub=replace(file.hub, branch=origin.branch))
            return RepositoryFiles(model.name, origin, by_path)
    newest = resolver.resolve(everything)
    return RepositoryFiles(model.name, origin, {file.path.text: file for file in newest.files})
