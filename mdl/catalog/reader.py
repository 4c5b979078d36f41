"""Reader: catalog files, and the catalogs that they extend → Catalog. Every problem of every file is told at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdl.bounds import LARGEST_DOCUMENT
from mdl.catalog.extends import DEEPEST, MOST, Fetch, Place, identity_of, name_of, place_of_base
from mdl.catalog.model import Catalog, Model
from mdl.catalog.parser import Draft
from mdl.disk.safe_open import read_whole
from mdl.errors import CatalogError, LockError, UsageError
from mdl.paths import RelPath, shown
from mdl.redact import bare_url
from mdl.toml import parse_toml
from mdl.toml.problems import Problems, TomlText, did_you_mean, one_line

if TYPE_CHECKING:
    from mdl.toml.positions import Key

Parse = Callable[[str], dict[str, Any]]
"""As `mdl.toml.parse_toml`."""


def no_web(url: str, named: str) -> str:
    """A `Fetch` that asks nobody. Raises `LockError`."""
    raise LockError("this catalog is on the web, and mdl may not ask for it", item=bare_url(url))


def read_catalog(paths: Sequence[Path], fetch: Fetch = no_web, parse: Parse = parse_toml) -> Catalog:
    """The catalog that ``paths`` hold together, with the models and groups of those that they extend; what they say
    themselves has precedence over that. ``fetch`` brings the text of what is extended by its URL, and ``parse`` reads
    the TOML of a text.

    Raises `CatalogError` with every problem of every file, each as ``file:line: key: what is wrong``; what ``fetch``
    raises.
    """
    reading = _Reading(fetch, parse)
    unique = tuple(dict.fromkeys(paths))
    for path in unique:
        reading.read(path)
    return reading.joined(unique)


def parse_catalog(text: str, path: Path, fetch: Fetch = no_web) -> Catalog:
    """The catalog that ``text`` is, with what it extends; ``path`` is its own. Raises as `read_catalog`."""
    reading = _Reading(fetch)
    reading.read(path, text)
    return reading.joined((path,))


class _Reading:
    """Files that are read to be one catalog: those that were named, and those that they extend."""

    def __init__(self, fetch: Fetch, parse: Parse = parse_toml) -> None:
        self._fetch = fetch
        self._problems = Problems("the catalog", CatalogError, parse)
        self._named: list[Draft] = []
        self._drafts: dict[Place, Draft] = {}
        """Each after those that it extends."""
        self._length = 0
        """Characters of all that was read of bases."""
        self._is_full = False
        """Whether there are too many of them, which is told once."""

    def read(self, path: Path, text: str | None = None) -> None:
        """Read a file that was named; ``text`` is what is in it, if that is known."""
        draft = self._drafts.get(identity_of(path))
        if draft is None:
            try:
                text = read_text(path) if text is None else text
            except CatalogError as error:
                self._problems.file(path).broken(one_line(error))
                return
            draft = self._with_bases(path, text, {})
        if draft not in self._named:
            self._named.append(draft)

    def joined(self, paths: tuple[Path, ...]) -> Catalog:
        """One catalog of all that was read. Raises `CatalogError` with all problems."""
        extended = [draft for draft in reversed(self._drafts.values()) if draft not in self._named]
        return _joined(self._named, extended, paths, self._problems)

    def _with_bases(self, place: Place, text: str, chain: dict[Place, str]) -> Draft:
        """Read a catalog, and what it extends. ``chain`` are those that lead to it, with their names."""
        known = identity_of(place)
        chain = {**chain, known: name_of(place)}
        draft = Draft(self._problems.file(name_of(place), text, is_of_others=len(chain) > 1))
        if len(draft.extends) > MOST:
            why = f"names {len(draft.extends):,} catalogs, and at most {MOST} are read for one"
            draft.text.wrong(("extends",), why)
            return self._drafts.setdefault(known, draft)
        for key, base in draft.extends:
            if self._is_full:
                break
            try:
                self._read_base(place_of_base(base, place), chain)
            except CatalogError as error:
                draft.text.wrong(key, f"{error.item or shown(base)}: {one_line(error)}")
            except UsageError as error:
                draft.text.wrong(key, one_line(error))
        return self._drafts.setdefault(known, draft)

    def _read_base(self, place: Place, chain: dict[Place, str]) -> None:
        """Raises `CatalogError` if it cannot be read, and what fetching it raises."""
        known = identity_of(place)
        way = " → ".join([*chain.values(), name_of(place)])
        if known in chain:
            raise CatalogError(f"extends itself: {way}", item="a circle")
        if known in self._drafts:
            return
        if len(chain) > DEEPEST:
            raise CatalogError(f"over {DEEPEST} catalogs extend one another: {way}", item="too deep")
        if len(self._drafts) + len(chain) >= MOST:
            self._is_full = True
            raise CatalogError(f"over {MOST} catalogs: {way}", item="too many")
        if isinstance(place, Path):
            text = read_text(place)
        else:
            text = self._fetch(place, next((url for url in chain if isinstance(url, str)), place))
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
    except (OSError, ValueError) as error:
        raise CatalogError(getattr(error, "strerror", None) or str(error)) from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CatalogError("UTF-16; save it as UTF-8")
    if b"\0" in data:
        raise CatalogError("holds a NUL byte; save it as UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CatalogError(f"not UTF-8 (line {line}); save it as UTF-8") from error


def place_of(name: str, paths: Sequence[Path]) -> str:
    """The file and the line of a model's entry, as ``catalog.toml:3``; ``paths`` are read once more. It is '' if the
    entry is not there any more."""
    from mdl.toml.positions import line_numbers

    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            if line := line_numbers(read_whole(path, LARGEST_DOCUMENT).decode()).get(("models", name)):
                return f"{shown(str(path))}:{line}"
    return ""


def _joined(named: Sequence[Draft], extended: Sequence[Draft], paths: tuple[Path, ...], problems: Problems) -> Catalog:
    """One catalog of all drafts. What was ``named`` hides entries of the same name in what is ``extended``, where an
    earlier one hides those of a later one. Raises `CatalogError` with all problems."""
    _note_twins(named, extended)
    models: dict[str, Model] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for draft in (*named, *extended):
        hidden = models.keys() | groups.keys() if draft in extended else set()
        models |= {name: model for name, model in draft.models.items() if name not in hidden}
        groups |= {name: members for name, members in draft.groups.items() if name not in hidden}
    for draft in (*named, *extended):
        for name, model in draft.models.items():
            _note_unknown(draft.text, ("models", name, "see"), model.see, models, groups)
        for name, members in draft.groups.items():
            _note_unknown(draft.text, ("groups", name), members, models, groups)
    problems.check()
    own = {name for draft in named for name in draft.models}
    own |= {member for draft in named for members in draft.groups.values() for member in members}
    return Catalog(models, groups, paths, frozenset(own))


def _note_twins(named: Sequence[Draft], extended: Sequence[Draft]) -> None:
    """Note every name that is given twice, or differs from another only by case or Unicode form. What is ``extended``
    may give a name again."""
    seen: dict[str, tuple[str, Key, Draft]] = {}
    for draft in (*named, *extended):
        wheres: list[Key] = [*(("models", name) for name in draft.models), *(("groups", name) for name in draft.groups)]
        for where in wheres:
            name = str(where[1])
            folded = RelPath(name).folded
            if folded not in seen:
                seen[folded] = (name, where, draft)
                continue
            other, there, first = seen[folded]
            place = first.text.place(there)
            if other != name:
                draft.text.wrong(where, f"differs only by case or Unicode form from {shown(other)} at {place}")
            elif draft in named or draft is first:
                draft.text.wrong(where, f"the name is taken by {place}")


def _note_unknown(
    text: TomlText, where: Key, names: Iterable[str], models: dict[str, Model], groups: Iterable[str]
) -> None:
    """Note every one of ``names`` that is not a model, or is there twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            text.wrong(where, f"names {shown(name)[:80]} twice")
        elif name in groups:
            text.wrong(where, f"{shown(name)[:80]} is a group; name its models")
        elif name not in models:
            guess = did_you_mean(text.problems.guess(name, models))
            text.wrong(where, f"no model is called {shown(name)[:80]}{guess}")
        seen.add(name)
