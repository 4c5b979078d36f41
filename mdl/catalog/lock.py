"""Lock: what every model of a catalog was resolved to: commits, files, sizes, digests. Pure.

A locked model is a model whose files are all named: `Lock.pin` turns an entry into that, and everything else
goes on as if a human had written it so. Sorted, one line a file, no times: two machines write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import field, replace
from typing import Any, TypeVar

from mdl.bounds import LARGEST_NUMBER, whole_number
from mdl.catalog.model import CatalogFile, Model
from mdl.errors import LockError, MdlError, NoSpace, StateError
from mdl.files import RemoteFile, Voucher, role_of
from mdl.formatting import counted, human_bytes, words_of_left_out
from mdl.hashing import Digest
from mdl.paths import RelPath, matching, shown
from mdl.reports import LeftOutFile
from mdl.sources import is_reference, parse
from mdl.toml import parse_toml
from mdl.values import value_class

VERSION = 2
_HEAD = f"# Written by 'mdl lock'; edit the catalog instead.\nversion = {VERSION}\n"
_ALGORITHMS = ("sha256", "git-sha1")


@value_class
class LockedFile:
    """One file as it was resolved. ``source`` is ``hf:repo@commit/path`` or a URL; ``size`` in bytes.

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
    def of(cls, remote: RemoteFile, *, first: Digest | None = None, mirrors: tuple[str, ...] = ()) -> LockedFile:
        """``first`` is the digest of what came, for a file without a published digest; ``mirrors`` are as the
        catalog writes them. Raises `NoSpace` for a size that no lock can hold."""
        if remote.size is not None and remote.size > LARGEST_NUMBER:
            raise NoSpace(f"it has {human_bytes(remote.size)}, and no disk is that large", item=remote.path.text)
        digest = remote.digest or first
        is_tofu = remote.digest is None and first is not None
        return cls(remote.path, remote.source, remote.size, digest, is_tofu, mirrors, remote.role)

    @property
    def vouched_by(self) -> Voucher:
        """Who says that it has its digest."""
        if self.bundled:
            return "folder"
        return "first use" if self.tofu else "lock"

    def is_same_as(self, other: LockedFile) -> bool:
        """The same bytes, as far as both lines tell."""
        both = ((self.digest, other.digest), (self.size, other.size))
        return all(None in pair or pair[0] == pair[1] for pair in both)

    @property
    def repository(self) -> str:
        """The repository of a file that comes from one, as ``hf:org/repo``; else ''."""
        return parse(self.source, ()).repository

    @property
    def revision(self) -> str:
        """The commit of a file that comes from a repository, or ''."""
        return parse(self.source, ()).revision or ""


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
        lines = "".join(f"{one.digest}  {one.path}\n" for one in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    @property
    def is_doubtful(self) -> bool:
        """Whether only a bundle says which bytes some of its files have."""
        return any(one.bundled for one in self.files)


@value_class
class Lock:
    """Locked models by name."""

    models: dict[str, LockedModel] = field(default_factory=dict)

    def covers(self, model: Model) -> bool:
        """The model is locked, and its entry is still the one that was locked."""
        found = self.models.get(model.name)
        return found is not None and found.entry == entry_of(model)

    def pin(self, model: Model, *, stale: bool = False, include: Sequence[str] = ()) -> Model:
        """The model with nothing left to resolve. Raises `LockError` if it is not covered (``stale`` allows an
        entry that has changed since), or if the patterns ``include`` ask for files that are left out."""
        found = self.models.get(model.name)
        if found is None:
            raise LockError("not in the lock", item=model.name, hint=_LOCK_IT)
        if not stale and not self.covers(model):
            raise LockError("its entry has changed since it was locked", item=model.name, hint=_LOCK_IT)
        if self.leaves_out(model.name, include):
            hint = 'include = ["*"] in its entry locks all formats'
            raise LockError("the lock leaves out files that are asked for", item=model.name, hint=hint)
        branches = {} if stale and not self.covers(model) else _branches(model)
        files = []
        for one in found.files:
            branch = branches.get(one.repository, "")
            file = CatalogFile(one.path, one.source, one.mirrors, one.size, one.digest, "", one.role, branch)
            files.append(replace(file, vouched_by=one.vouched_by))
        return replace(model, sources=(), include=(), exclude=(), files=tuple(files))

    def leaves_out(self, name: str, include: Sequence[str]) -> bool:
        """Whether the patterns ``include`` ask for files that the lock leaves out of a model."""
        locked = self.models.get(name)
        return locked is not None and bool(matching([file.path for file in locked.left_out], include))

    def at_commits(self, model: Model) -> Model:
        """The entry of a locked model, with each repository at the commit at which its files are locked."""
        commits = {file.repository: file.revision for file in self.models[model.name].files if file.revision}
        sources = [
            source.at(commits[source.repository]) if source.repository in commits else source
            for source in model.sources
        ]
        return replace(model, sources=tuple(sources))

    def questioned(self, model: Model) -> Model:
        """As `pin`, without sizes and digests that only a bundle names, so that the source at these commits is asked
        for them. Raises `LockError`."""
        pinned = self.pin(model)
        files = (one if one.vouched_by != "folder" else replace(one, size=None, digest=None) for one in pinned.files)
        return replace(pinned, files=tuple(files))

    def urls(self, names: Iterable[str]) -> list[str]:
        """The references that these models' files come from, mirrors too."""
        files = [one for name in names if name in self.models for one in self.models[name].files]
        return [url for one in files for url in (one.source, *one.mirrors)]

    def with_model(self, locked: LockedModel) -> Lock:
        return Lock({**self.models, locked.name: locked})

    def only(self, names: Iterable[str]) -> Lock:
        wanted = set(names)
        return Lock({name: locked for name, locked in self.models.items() if name in wanted})

    def with_changes(self, before: Lock, after: Lock) -> Lock:
        """This lock with what ``after`` says differently from ``before``, and all else as it is here."""
        changed = {name for name, _, _ in before._changes(after)}
        kept = {name: locked for name, locked in self.models.items() if name not in changed}
        return Lock(kept | {name: locked for name, locked in after.models.items() if name in changed})

    def misfits(self, models: Iterable[Model], known: Iterable[Model]) -> list[str]:
        """Where this lock does not fit a catalog, a line each: of its entries ``models``, and of what is locked and not
        among the ``known`` ones."""
        lines = {}
        for model in models:
            if model.name not in self.models:
                lines[model.name] = "not locked yet"
            elif not self.covers(model):
                lines[model.name] = "its entry has changed"
        lines |= dict.fromkeys(self.models.keys() - {model.name for model in known}, "not in the catalog any more")
        return [f"{name}: {why}" for name, why in sorted(lines.items())]

    def differences(self, new: Lock) -> list[str]:
        """What another lock of the same catalog says differently, a line each."""
        lines = []
        for name, before, after in self._changes(new):
            if before is None or after is None:
                lines.append(f"{name}: {'not locked yet' if before is None else 'not in the catalog any more'}")
            else:
                lines += [f"{name}: {line}" for line in _moved(before, after)]
        return lines

    def told(self, new: Lock) -> list[str]:
        """What it means to write ``new`` in the place of this lock, a line each."""
        lines = []
        for name, before, after in self._changes(new):
            if after is None:
                lines.append(f"took {name} out of the lock: it is not in the catalog any more")
            elif before is None:
                lines.append(f"locked {name}{_in_short(after)}")
            else:
                lines += [f"{name}: {line}" for line in _moved(before, after)]
        return lines

    def _changes(self, new: Lock) -> Iterator[tuple[str, LockedModel | None, LockedModel | None]]:
        """Every name of which the two locks say something different, with what each of them says."""
        for name in sorted(self.models.keys() | new.models.keys()):
            before = self.models.get(name)
            after = new.models.get(name)
            if before != after:
                yield name, before, after

    def to_toml(self) -> str:
        return "\n".join([_HEAD, *(_model_text(self.models[name]) for name in sorted(self.models))])

    @classmethod
    def from_toml(cls, text: str) -> Lock:
        """Raises `StateError` if the text is not a lock, or is one of a newer mdl."""
        try:
            data = parse_toml(text)
        except ValueError as error:
            raise StateError(f"the lock cannot be read: {shown(str(error))[:80]}", hint=_AGAIN) from None
        version = data.get("version")
        if type(version) is not int or version not in (1, VERSION):
            newer = type(version) is int and version > VERSION
            why = f"a lock of version {version}" if newer else "the lock has no known version"
            raise StateError(why, hint="use a newer mdl" if newer else _AGAIN)
        try:
            return cls(_models_of_version_1(data) if version == 1 else _models(data))
        except (KeyError, TypeError, ValueError, AttributeError, MdlError) as error:
            raise StateError(f"the lock is damaged: {shown(str(error))[:80]}", hint=_AGAIN) from None


_LOCK_IT = "'mdl lock' locks what the catalog has"
_AGAIN = "restore it from version control; or remove it, and 'mdl lock' writes what the sources have now"


def entry_of(model: Model) -> str:
    """What of an entry decides which files it means, as 16 hex digits."""
    facts = [
        *(str(origin) for origin in model.sources),
        list(model.include),
        list(model.exclude),
        *([one.path.text, one.url, list(one.mirrors), one.size, str(one.digest)] for one in model.files),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _branches(model: Model) -> dict[str, str]:
    """The branch that an entry follows of each repository it follows one of, and no second one nor a commit."""
    found: dict[str, set[str]] = {}
    files = [parse(file.url, ()) for file in model.files if file.url]
    for origin in (*model.sources, *files):
        if origin.repository:
            found.setdefault(origin.repository, set()).add(origin.branch)
    return {repository: next(iter(names)) for repository, names in found.items() if len(names) == 1}


def _moved(before: LockedModel, after: LockedModel) -> list[str]:
    old, new = ({one.path.text: one for one in locked.files} for locked in (before, after))
    revisions = [sorted({one.revision for one in side.values() if one.revision}) for side in (old, new)]
    lines = ["its entry has changed"] if before.entry != after.entry else []
    if revisions[0] != revisions[1]:
        lines.append(f"moved from {', '.join(revisions[0]) or 'no commit'} to {', '.join(revisions[1]) or 'no commit'}")
    left_out = {file.path for file in after.left_out}
    for path in sorted(old.keys() - new.keys()):
        gone = "left out: the same weights in another format" if path in left_out else "gone"
        lines.append(f"{path} is {gone}")
    lines += [f"{path} is new" for path in sorted(new.keys() - old.keys())]
    same = sorted(old.keys() & new.keys())
    lines += [f"{path} has other bytes" for path in same if not old[path].is_same_as(new[path])]
    confirmed = [old[path].bundled and not new[path].bundled and old[path].is_same_as(new[path]) for path in same]
    if any(confirmed):
        lines.append("its source says what only a bundle said")
    return lines or ["its files come from elsewhere"]


def _bytes_of(one: LockedFile) -> tuple[RelPath, Digest | None, int | None]:
    return one.path, one.digest, one.size


def _in_short(locked: LockedModel) -> str:
    """At which commits, how many files, how many bytes: `` at b732cfb, 5 files, 5.8 MB``."""
    revisions = sorted({one.revision[:7] for one in locked.files if one.revision})
    sizes = [one.size for one in locked.files if one.size is not None]
    at = f" at {', '.join(revisions)}" if revisions else ""
    total = f", {human_bytes(sum(sizes))}" if len(sizes) == len(locked.files) else ""
    left_out = f"; {words_of_left_out([file.size for file in locked.left_out])}" if locked.left_out else ""
    return f"{at}, {counted(len(locked.files), 'file')}{total}{left_out}"


# How a lock is written. (ADR 77)


def _model_text(locked: LockedModel) -> str:
    """The block of a model. Its entry comes last, so that it is missed if the text was cut."""
    base = _base_of(locked.files)
    text = f"[[model]]\nname = {_toml(locked.name)}\n"
    if base:
        text += f"source = {_toml(base)}\n"
    if locked.left_out:
        lines = [{"path": file.path} | _known(size=file.size) for file in locked.left_out]
        text += f"left_out = {_toml_lines(lines)}\n"
    text += f"files = {_toml_lines([_file_facts(file, base) for file in locked.files])}\n"
    return text + f"entry = {_toml(locked.entry)}\n"


def _base_of(files: Sequence[LockedFile]) -> str:
    """What the sources of most files begin with, before ``/`` and their paths: a repository at its commit; '' if no
    source ends with its file's path."""
    bases: Counter[str] = Counter()
    for file in files:
        end = f"/{file.path.text}"
        if file.source.endswith(end):
            bases[file.source.removesuffix(end)] += 1
    return max(bases, key=lambda base: (bases[base], base), default="")


def _file_facts(file: LockedFile, base: str) -> dict[str, Any]:
    """The line of a file: path, size, digest, and what does not follow from its path and its model."""
    facts: dict[str, Any] = {"path": file.path.text} | _known(size=file.size)
    if file.digest is not None:
        facts[file.digest.algorithm] = file.digest.hex
    if not base or file.source != f"{base}/{file.path.text}":
        facts["source"] = file.source
    if file.mirrors:
        facts["mirrors"] = list(file.mirrors)
    if file.role != role_of(file.path.text):
        facts["role"] = file.role
    if file.tofu:
        facts["tofu"] = True
    if file.bundled:
        facts["bundled"] = True
    return facts


def _known(**facts: Any) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def _toml_lines(tables: Sequence[dict[str, Any]]) -> str:
    """An array with one table a line."""
    lines = []
    for table in tables:
        pairs = ", ".join(f"{key} = {_toml(value)}" for key, value in table.items())
        lines.append(f"  {{ {pairs} }},\n")
    return "[\n" + "".join(lines) + "]"


def _toml(value: Any) -> str:
    """Text, integers, true and lists of text: JSON writes them as TOML reads them, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# How a lock is read.


def _models(data: dict[str, Any]) -> dict[str, LockedModel]:
    models: dict[str, LockedModel] = {}
    for facts in data.get("model", []):
        name = _name_of(facts, models)
        base = _typed(facts.get("source", ""), str)
        files = []
        for file in _typed(facts["files"], list):
            path = _typed(file["path"], str)
            files.append(_file({"source": f"{base}/{path}", "role": role_of(path), **file}))
        left_out = []
        for file in _typed(facts.get("left_out", []), list):
            size = whole_number(file["size"]) if "size" in file else None
            left_out.append(LeftOutFile(_typed(file["path"], str), size))
        models[name] = LockedModel(name, _typed(facts["entry"], str), tuple(files), tuple(left_out))
    return models


def _models_of_version_1(data: dict[str, Any]) -> dict[str, LockedModel]:
    """A lock in which each file was a table of its own, which named its model."""
    entries: dict[str, str] = {}
    counts: dict[str, int] = {}
    files: dict[str, list[LockedFile]] = {}
    for facts in data.get("model", []):
        name = _name_of(facts, entries)
        entries[name] = _typed(facts["entry"], str)
        counts[name] = _typed(facts["files"], int)
        files[name] = []
    for facts in data.get("file", []):
        files[facts["model"]].append(_file(facts))
    for name, count in counts.items():
        if count != len(files[name]):
            raise ValueError(f"{name} has {len(files[name])} of {count} files")
    return {name: LockedModel(name, entry, tuple(files[name])) for name, entry in entries.items()}


def _name_of(facts: dict[str, Any], known: Collection[str]) -> str:
    name = RelPath.parse(_typed(facts["name"], str)).text
    if name in known:
        raise ValueError(f"{name} is there twice")
    return name


def _file(facts: dict[str, Any]) -> LockedFile:
    digests = [Digest.parse(name, facts[name]) for name in _ALGORITHMS if name in facts]
    size = whole_number(facts["size"]) if "size" in facts else None
    if len(digests) > 1:
        raise ValueError("a file with two digests")
    source = _typed(facts["source"], str)
    mirrors = tuple(_typed(url, str) for url in _typed(facts.get("mirrors", []), list))
    if not all(map(is_reference, (source, *mirrors))):
        raise ValueError("a source that is not a reference")
    return LockedFile(
        RelPath.of_repository(_typed(facts["path"], str)),
        source,
        size,
        digests[0] if digests else None,
        tofu=_typed(facts.get("tofu", False), bool),
        mirrors=mirrors,
        role=_typed(facts["role"], str),
        bundled=_typed(facts.get("bundled", False), bool),
    )


_Type = TypeVar("_Type", str, int, bool, list[Any])


def _typed(value: Any, kind: type[_Type]) -> _Type:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    return value
