"""Lock: what every model of a catalog was resolved to: commits, files, sizes, digests. Pure.

A locked model is a model whose files are all named: `Lock.pin` turns an entry into that, and everything else
goes on as if a human had written it so. `mdl.catalog.lock_file` has the text of a lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from mdl.bounds import LARGEST_NUMBER
from mdl.catalog.model import CatalogFile, Model
from mdl.errors import LockError, NoSpace, Unsafe
from mdl.files import RemoteFile, Voucher
from mdl.formatting import counted, human_bytes, words_of_left_out
from mdl.hashing import Digest
from mdl.paths import RelPath, matching
from mdl.reports import LeftOutFile
from mdl.sources import Origin, parse
from mdl.sources.hub_origin import HubOrigin
from mdl.units import total_size
from mdl.values import value_class

_LOCK_IT = "'mdl lock' locks what the catalog has"


@value_class
class LockedFile:
    """A file as it was resolved. ``source`` is ``hf:repo@commit/path`` or a URL; ``size`` in bytes.

    ``tofu`` (trust on first use) marks a digest that was not published: it is that of what was fetched first.
    ``bundled`` marks one that only a bundle names, until the file's source says the same.
    """

    path: RelPath
    source: str
    size: int | None = None
    digest: Digest | None = None
    tofu: bool = False
    mirrors: tuple[str, ...] = ()
    role: str = "other"
    bundled: bool = False

    @classmethod
    def of(cls, remote: RemoteFile, mirrors: tuple[str, ...] = ()) -> LockedFile:
        """A file as its source has it now; ``mirrors`` are as the catalog writes them. Raises `NoSpace` for a size that
        no lock can hold."""
        if remote.size is not None and remote.size > LARGEST_NUMBER:
            raise NoSpace(f"it has {human_bytes(remote.size)}, and no disk is that large", item=remote.path.text)
        return cls(remote.path, remote.source, remote.size, remote.digest, mirrors=mirrors, role=remote.role)

    def trusted_first(self, digest: Digest, size: int | None) -> LockedFile:
        """The file with the digest of what came first, which nobody has published."""
        return replace(self, digest=digest, size=size, tofu=True)

    @property
    def vouched_by(self) -> Voucher:
        """Who says that it has its digest."""
        if self.bundled:
            return "folder"
        return "first use" if self.tofu else "lock"

    def is_same_as(self, other: LockedFile) -> bool:
        """Return whether both have the same bytes, as far as digests and sizes are known."""
        return _agree(self.digest, other.digest) and _agree(self.size, other.size)

    def pinned(self, branches: Mapping[str, str]) -> CatalogFile:
        """The file as a catalog would name it; ``branches`` are those that its entry follows, by repository."""
        return CatalogFile(
            self.path,
            self.source,
            self.mirrors,
            self.size,
            self.digest,
            role=self.role,
            branch=branches.get(self.repository, ""),
            vouched_by=self.vouched_by,
        )

    @property
    def repository(self) -> str:
        """The repository of a file that comes from one, as ``hf:org/repo``; else ''."""
        return parse(self.source, ()).repository

    @property
    def revision(self) -> str:
        """The commit of a file that comes from a repository, or ''."""
        return parse(self.source, ()).revision or ""


def _agree(first: object, second: object) -> bool:
    """Return whether two facts are equal; one that is not known (None) contradicts nothing."""
    return first is None or second is None or first == second


@value_class
class LockedModel:
    """A model as it was resolved. ``entry`` stands for the catalog's entry: another entry needs another lock.
    ``left_out`` are the files of its repository that are the same weights in other formats. ``files`` and
    ``left_out`` are sorted by path, in whatever order they were given."""

    name: str
    entry: str
    files: tuple[LockedFile, ...]
    left_out: tuple[LeftOutFile, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(sorted(self.files, key=lambda file: file.path)))
        object.__setattr__(self, "left_out", tuple(sorted(self.left_out, key=lambda file: file.path)))

    @property
    def version(self) -> str:
        """Which bytes these are, as 16 hex digits of a sha256: the lock digest. Only another path or another digest of
        a file changes it; where the files come from, their order and other models do not."""
        lines = "".join(f"{file.digest}  {file.path}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    @property
    def commits(self) -> list[str]:
        """The commits of the repositories that its files come from, sorted."""
        return sorted({file.revision for file in self.files} - {""})

    def other_formats(self) -> list[CatalogFile]:
        """The files that are left out, as a catalog would name them: at the commit of what is locked. Of several
        repositories the lock does not tell theirs, and the first one stands for all."""
        if not self.left_out:
            return []
        files: list[CatalogFile] = []
        origins = [parse(file.source, ()) for file in self.files]
        for origin in [origin for origin in origins if isinstance(origin, HubOrigin)][:1]:
            for file in self.left_out:
                with contextlib.suppress(Unsafe):  # a name that cannot be kept here
                    path = RelPath.of_repository(file.path)
                    files.append(CatalogFile(path, str(replace(origin, subpath=path.text)), size=file.size))
        return files

    @property
    def is_doubtful(self) -> bool:
        """Return whether only a bundle says which bytes some of its files have."""
        return any(file.bundled for file in self.files)


@value_class
class Lock:
    """Locked models by name."""

    models: dict[str, LockedModel] = field(default_factory=dict)

    def covers(self, model: Model) -> bool:
        """Return whether the model is locked, and its entry is still the one that was locked."""
        locked = self.models.get(model.name)
        return locked is not None and locked.entry == entry_of(model)

    def pin(
        self, model: Model, *, stale: bool = False, include: Sequence[str] = (), in_all_formats: bool = False
    ) -> Model:
        """The model with nothing left to resolve; ``in_all_formats`` with the files that are left out, of which the
        lock has no digest. Raises `LockError` if it is not covered (``stale`` allows an entry that has changed since),
        or if the patterns ``include`` ask for files that are left out."""
        locked = self.models.get(model.name)
        if locked is None:
            hint = _LOCK_IT
            if not model.is_of_catalog and model.sources:
                hint = f"a lock holds models of the catalog: mdl add NAME {model.sources[0].label}, then mdl lock"
            raise LockError("not in the lock", item=model.label, hint=hint)
        is_covered = self.covers(model)
        if not is_covered and not stale:
            raise LockError("its entry has changed since it was locked", item=model.name, hint=_LOCK_IT)
        if self.leaves_out(model.name, include):
            hint = 'include = ["*"] in its entry locks all formats'
            raise LockError("the lock leaves out files that are asked for", item=model.name, hint=hint)
        branches: Mapping[str, str] = {}
        if is_covered:
            branches = _branches(model)
        files = [file.pinned(branches) for file in locked.files]
        if in_all_formats:
            files += locked.other_formats()
        return replace(model, sources=(), include=(), exclude=(), files=tuple(files))

    def leaves_out(self, name: str, include: Sequence[str]) -> bool:
        """Return whether the patterns ``include`` ask for files that the lock leaves out of a model."""
        if name not in self.models:
            return False
        paths = [file.path for file in self.models[name].left_out]
        return bool(matching(paths, include))

    def at_commits(self, model: Model) -> Model:
        """The entry of a locked model, with each repository at the commit at which its files are locked."""
        commits = {file.repository: file.revision for file in self.models[model.name].files}
        sources: list[Origin] = []
        for source in model.sources:
            commit = commits.get(source.repository)
            if commit:
                source = source.at(commit)
            sources.append(source)
        return replace(model, sources=tuple(sources))

    def without_bundled_facts(self, model: Model) -> Model:
        """As `pin`, without sizes and digests that only a bundle names, so that the source at these commits is asked
        for them. Raises `LockError`."""
        pinned = self.pin(model)
        files = []
        for file in pinned.files:
            if file.vouched_by == "folder":
                file = replace(file, size=None, digest=None)
            files.append(file)
        return replace(pinned, files=tuple(files))

    def urls(self, names: Iterable[str]) -> list[str]:
        """The references that these models' files come from, mirrors too."""
        urls = []
        for locked in self.only(names).models.values():
            for file in locked.files:
                urls += [file.source, *file.mirrors]
        return urls

    def with_model(self, locked: LockedModel) -> Lock:
        """This lock with one model more, or another one in place of that of its name."""
        return Lock({**self.models, locked.name: locked})

    def only(self, names: Iterable[str]) -> Lock:
        """This lock without the models that are not among ``names``."""
        wanted = set(names)
        return Lock({name: locked for name, locked in self.models.items() if name in wanted})

    def changed_names(self, new: Lock) -> list[str]:
        """The names of which another lock says something different, sorted."""
        names = sorted(self.models.keys() | new.models.keys())
        return [name for name in names if self.models.get(name) != new.models.get(name)]

    def with_changes(self, before: Lock, after: Lock) -> Lock:
        """This lock with what ``after`` says differently from ``before``, and all else as it is here."""
        changed = before.changed_names(after)
        kept = {name: locked for name, locked in self.models.items() if name not in changed}
        return Lock({**kept, **after.only(changed).models})

    def misfits(self, models: Iterable[Model], known: Iterable[Model]) -> list[str]:
        """Where this lock does not fit a catalog, a line each: of its entries ``models``, and of what is locked and not
        among the ``known`` ones."""
        reasons = dict.fromkeys(self.models, "not in the catalog any more")
        for model in known:
            reasons.pop(model.name, None)
        for model in models:
            if model.name not in self.models:
                reasons[model.name] = "not locked yet"
            elif not self.covers(model):
                reasons[model.name] = "its entry has changed"
        return [f"{name}: {reasons[name]}" for name in sorted(reasons)]


def entry_of(model: Model) -> str:
    """A digest of what decides which files an entry means, as 16 hex digits."""
    facts: list[Any] = [str(origin) for origin in model.sources]
    facts += [list(model.include), list(model.exclude)]
    for file in model.files:
        facts.append([file.path.text, file.url, list(file.mirrors), file.size, str(file.digest)])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _branches(model: Model) -> dict[str, str]:
    """The branch that an entry follows, by repository; without those of which it names several revisions."""
    origins = [*model.sources, *(parse(file.url, ()) for file in model.files)]
    branches: dict[str, set[str]] = {}
    for origin in origins:
        if origin.repository:
            branches.setdefault(origin.repository, set()).add(origin.branch)
    only_branches: dict[str, str] = {}
    for repository, names in branches.items():
        if len(names) == 1:
            only_branches[repository] = names.pop()
    return only_branches


# The difference between two locks, in words.


def words_of_changes(before: Lock, after: Lock) -> list[str]:
    """Describe what it means to write ``after`` in place of ``before``, a line each."""
    lines = []
    for name in before.changed_names(after):
        old = before.models.get(name)
        new = after.models.get(name)
        if new is None:
            lines.append(f"took {name} out of the lock: it is not in the catalog any more")
        elif old is None:
            lines.append(f"locked {name}{_summary(new)}")
        else:
            lines += [f"{name}: {change}" for change in _changes_of_model(old, new)]
    return lines


def _summary(locked: LockedModel) -> str:
    """Commits, number of files and bytes of a model: `` at b732cfb, 5 files, 5.8 MB``."""
    summary = f", {counted(len(locked.files), 'file')}"
    if locked.commits:
        summary = f" at {', '.join(commit[:7] for commit in locked.commits)}{summary}"
    size = total_size(file.size for file in locked.files)
    if size is not None:
        summary += f", {human_bytes(size)}"
    if locked.left_out:
        summary += f"; {words_of_left_out([file.size for file in locked.left_out])}"
    return summary


def _changes_of_model(before: LockedModel, after: LockedModel) -> list[str]:
    """Describe how a locked model changed, a line for each change."""
    changes = []
    if before.entry != after.entry:
        changes.append("its entry has changed")
    if before.commits != after.commits:
        changes.append(f"moved from {_listed(before.commits)} to {_listed(after.commits)}")
    changes += _changes_of_files(before, after)
    return changes or ["its files come from elsewhere"]


def _listed(commits: list[str]) -> str:
    return ", ".join(commits) or "no commit"


def _changes_of_files(before: LockedModel, after: LockedModel) -> list[str]:
    old_files = {file.path.text: file for file in before.files}
    new_files = {file.path.text: file for file in after.files}
    left_out = {file.path for file in after.left_out}
    gone = []
    changed = []
    is_confirmed = False
    for path, old in old_files.items():
        new = new_files.pop(path, None)
        if new is not None:
            if not old.is_same_as(new):
                changed.append(f"{path} has other bytes")
            elif old.bundled and not new.bundled:
                is_confirmed = True
        elif path in left_out:
            gone.append(f"{path} is left out: the same weights in another format")
        else:
            gone.append(f"{path} was removed")
    changes = [*gone, *(f"{path} is new" for path in new_files), *changed]
    if is_confirmed:
        changes.append("its source says what only a bundle said")
    return changes
