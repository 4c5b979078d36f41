"""Reader: catalog files, and the catalogs that they extend → Catalog. Every problem of every file is told at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mdl.bounds import LARGEST_DOCUMENT, LONGEST_SHOWN_NAME
from mdl.catalog.extends import MOST, Fetch, Place, identity_of, name_of, place_of_base
from mdl.catalog.model import Catalog, Model
from mdl.catalog.parser import Draft, parse_draft
from mdl.disk.safe_open import read_whole
from mdl.errors import CatalogError, LockError, UsageError
from mdl.paths import RelPath, shown
from mdl.redact import bare_url
from mdl.toml.table import Problems, TomlText, did_you_mean, one_line


def no_web(url: str, named: str) -> str:
    """A `Fetch` that asks nobody. Raises `LockError`."""
    raise LockError("this catalog is on the web, and mdl may not ask for it", item=bare_url(url))


def read_catalog(paths: Sequence[Path], fetch: Fetch = no_web) -> Catalog:
    """The catalog that ``paths`` hold together, with the models and groups of those that they extend; what they say
    themselves has precedence over that. ``fetch`` gets the text of what is extended by its URL.

    Raises `CatalogError` with every problem of every file, each as ``file:line: key: what is wrong``; what ``fetch``
    raises.
    """
    reading = _Reading(fetch)
    unique = tuple(dict.fromkeys(paths))
    for path in unique:
        reading.read_file(path)
    return reading.joined(unique)


def parse_catalog(text: str, path: Path, fetch: Fetch = no_web) -> Catalog:
    """The catalog that ``text`` is, with what it extends; ``path`` is its own. Raises as `read_catalog`."""
    reading = _Reading(fetch)
    reading.read_text(path, text)
    return reading.joined((path,))


class _Reading:
    """Files that are read to be one catalog: those that were named, and their bases, which are those that they
    extend."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._problems = Problems("the catalog", CatalogError)
        self._named: list[Draft] = []
        self._drafts: dict[Place, Draft] = {}
        """By the identity of the file, each after those that it extends."""
        self._length = 0
        """Characters of all bases."""
        self._is_full = False
        """Set once there are too many of them, which is noted once."""

    def read_file(self, path: Path) -> None:
        """Read a file that was named."""
        if identity_of(path) in self._drafts:
            self._add_named(self._drafts[identity_of(path)])
            return
        try:
            text = read_text(path)
        except CatalogError as error:
            self._problems.file(path).broken(one_line(error))
            return
        self.read_text(path, text)

    def read_text(self, path: Path, text: str) -> None:
        """Read the text of a file that was named."""
        self._add_named(self._with_bases(path, text, {}))

    def _add_named(self, draft: Draft) -> None:
        if draft not in self._named:
            self._named.append(draft)

    def joined(self, paths: tuple[Path, ...]) -> Catalog:
        """Make one catalog of all that was read. Raises `CatalogError` with all problems."""
        bases = [draft for draft in reversed(self._drafts.values()) if draft not in self._named]
        catalog = _joined(self._named, bases, paths)
        self._problems.check()
        return catalog

    def _with_bases(self, place: Place, text: str, chain: dict[Place, str]) -> Draft:
        """Read a catalog, and what it extends. ``chain`` has those that lead to it, with their names."""
        identity = identity_of(place)
        chain = {**chain, identity: name_of(place)}
        draft = parse_draft(self._problems.file(name_of(place), text, is_of_others=len(chain) > 1))
        if len(draft.extends) > MOST:
            reason = f"names {len(draft.extends):,} catalogs, and at most {MOST} are read for one"
            draft.text.wrong(("extends",), reason)
        else:
            self._read_bases(draft, place, chain)
        self._drafts[identity] = draft
        return draft

    def _read_bases(self, draft: Draft, place: Place, chain: dict[Place, str]) -> None:
        for key, reference in draft.extends:
            if self._is_full:
                return
            try:
                self._read_base(place_of_base(reference, place), chain)
            except CatalogError as error:
                draft.text.wrong(key, f"{error.item or shown(reference)}: {one_line(error)}")
            except UsageError as error:
                draft.text.wrong(key, one_line(error))

    def _read_base(self, place: Place, chain: dict[Place, str]) -> None:
        """Raises `CatalogError` if it cannot be read, and what fetching it raises."""
        identity = identity_of(place)
        way = " → ".join([*chain.values(), name_of(place)])
        if identity in chain:
            raise CatalogError(f"extends itself: {way}", item="a circle")
        if identity in self._drafts:
            return
        if len(self._drafts) + len(chain) >= MOST:
            self._is_full = True
            raise CatalogError(f"over {MOST} catalogs: {way}", item="too many")
        if isinstance(place, Path):
            text = read_text(place)
        else:
            urls = [url for url in (*chain, place) if isinstance(url, str)]
            text = self._fetch(place, urls[0])  # the first of them is named by a file of this disk
        self._length += len(text)
        if self._length > LARGEST_DOCUMENT:
            self._is_full = True
            raise CatalogError(f"over {LARGEST_DOCUMENT // 2**20} MiB of catalogs: {way}", item="too much")
        self._with_bases(place, text, chain)


def read_text(path: Path) -> str:
    """The text of a catalog file: a regular file of UTF-8, at most 64 MiB; a byte-order mark is dropped.

    Raises `CatalogError`, which does not name the file.
    """
    try:
        data = read_whole(path, LARGEST_DOCUMENT)
    except FileNotFoundError:
        raise CatalogError("no such file") from None
    except IsADirectoryError:
        raise CatalogError("a folder, not a file") from None
    except OSError as error:
        raise CatalogError(error.strerror or str(error)) from error
    except ValueError as error:
        raise CatalogError(str(error)) from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CatalogError("UTF-16; save it as UTF-8")
    if b"\0" in data:
        raise CatalogError("holds a NUL byte; save it as UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CatalogError(f"not UTF-8 (line {line}); save it as UTF-8") from error


def place_of(name: str, path: Path) -> str:
    """The file and the line of a model's entry, as ``catalog.toml:3``; the file is read once more. It is '' if the
    entry is not there any more."""
    from mdl.toml.positions import line_numbers

    try:
        lines = line_numbers(read_text(path))
    except CatalogError:
        return ""
    line = lines.get(("models", name))
    return f"{shown(str(path))}:{line}" if line else ""


# Several files as one catalog.


def _joined(named: Sequence[Draft], bases: Sequence[Draft], paths: tuple[Path, ...]) -> Catalog:
    """Make one catalog of all drafts. An earlier one hides entries of the same name in those after it. What is wrong is
    noted."""
    drafts = [*named, *bases]
    _note_same_names(named, drafts)
    models: dict[str, Model] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for draft in drafts:
        hidden = models.keys() | groups.keys()
        models |= {name: model for name, model in draft.models.items() if name not in hidden}
        groups |= {name: members for name, members in draft.groups.items() if name not in hidden}
    for draft in drafts:
        for name, model in draft.models.items():
            _note_unknown(draft.text, ("models", name, "see"), model.see, models, groups)
        for name, members in draft.groups.items():
            _note_unknown(draft.text, ("groups", name), members, models, groups)
    own: set[str] = set()
    for draft in named:
        own.update(draft.models, *draft.groups.values())
    return Catalog(models, groups, paths, frozenset(own))


def _note_same_names(named: Sequence[Draft], drafts: Sequence[Draft]) -> None:
    """Note every name that is given twice, or differs from another only by case or Unicode form. A base may give a
    name of another file again."""
    first_uses: dict[str, tuple[tuple[str, str], Draft]] = {}
    for draft in drafts:
        for key in draft.names:
            name = key[1]
            folded = RelPath(name).folded
            if folded not in first_uses:
                first_uses[folded] = (key, draft)
                continue
            first_key, first_draft = first_uses[folded]
            place = first_draft.text.place(first_key)
            if first_key[1] != name:
                other = shown(first_key[1])
                draft.text.wrong(key, f"differs only by case or Unicode form from {other} at {place}")
            elif draft in named or draft is first_draft:
                draft.text.wrong(key, f"the name is taken by {place}")


def _note_unknown(
    text: TomlText, where: tuple[str, ...], names: Iterable[str], models: dict[str, Model], groups: Iterable[str]
) -> None:
    """Note every one of ``names`` that is not a model, or is there twice."""
    seen: set[str] = set()
    for name in names:
        quoted = shown(name)[:LONGEST_SHOWN_NAME]
        if name in seen:
            text.wrong(where, f"names {quoted} twice")
        elif name in groups:
            text.wrong(where, f"{quoted} is a group; name its models")
        elif name not in models:
            guess = did_you_mean(text.problems.guess(name, models))
            text.wrong(where, f"no model is called {quoted}{guess}")
        seen.add(name)
