"""Reading catalogs: files → text → Catalog. Every mistake of every file is told at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mdl.catalog.entry import read_entry
from mdl.catalog.lines import Key
from mdl.catalog.mistakes import CatalogText, Mistakes, did_you_mean, words_of
from mdl.catalog.model import Catalog, Model
from mdl.catalog.table import Table
from mdl.errors import CatalogError, MdlError
from mdl.fs.private import read_whole
from mdl.paths import RelPath, shown
from mdl.toml import NestedTooDeeply, parse_toml

SCHEMA = 1
"""The version of the catalog format that this mdl reads."""

_LARGEST = 64 * 2**20
_SCHEME = re.compile(r"(hf|s3|https?|file):", re.IGNORECASE)


def read_catalog(paths: Sequence[Path]) -> Catalog:
    """The catalog that ``paths`` hold together.

    Raises `CatalogError` with every mistake of every file, each as ``file:line: key: what is wrong``.
    """
    mistakes = Mistakes()
    unique = tuple(dict.fromkeys(paths))
    drafts = []
    for path in unique:
        try:
            text = read_text(path)
        except CatalogError as error:
            mistakes.file(path).broken(words_of(error))
        else:
            drafts.append(_Draft(mistakes.file(path, text)))
    return _joined(drafts, unique, mistakes)


def parse_catalog(text: str, path: Path) -> Catalog:
    """The catalog that ``text`` is; ``path`` is its name in messages. Raises as `read_catalog`."""
    mistakes = Mistakes()
    return _joined([_Draft(mistakes.file(path, text))], (path,), mistakes)


def read_text(path: Path) -> str:
    """The text of a catalog file: a regular file of UTF-8, at most 64 MiB; a byte-order mark is dropped.

    Raises `CatalogError`, which does not name the file.
    """
    try:
        data = read_whole(path, _LARGEST)
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


class _Draft:
    """One file's models and groups, before they are compared with the other files' and with each other."""

    def __init__(self, text: CatalogText) -> None:
        self.text = text
        self.models: dict[str, Model] = {}
        self.groups: dict[str, tuple[str, ...]] = {}
        top = Table(_toml(text), (), text)
        if _is_newer(top):
            return
        top.allow("schema", "models", "groups")
        _note_schema(top)
        models, groups = top.table("models"), top.table("groups")
        for name in models.data:
            table = models.table(name)
            self.models[name] = read_entry(name, table) if table.data is models.data[name] else Model(name)
        for name in groups.data:
            self.groups[name] = groups.texts(name)
        for table in (models, groups):
            for name in table.data:
                table.attempt(_check_name, name, name)

    @property
    def names(self) -> Iterable[tuple[str, Key]]:
        """Every name this file gives, and where."""
        yield from ((name, ("models", name)) for name in self.models)
        yield from ((name, ("groups", name)) for name in self.groups)


def _toml(text: CatalogText) -> dict[str, Any]:
    """The file's TOML; where it is none, a mistake, and a catalog that is merely empty."""
    source = text.text.removeprefix("\ufeff")
    try:
        return parse_toml(source)
    except NestedTooDeeply as error:
        text.broken(str(error))
    except ValueError as error:
        words = str(error)
        at = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", words)
        line = int(at[1]) if at and at[1] else source.count("\n") + 1
        column = f" (column {at[2]})" if at and at[2] else ""
        text.broken(f"not TOML: {shown(words[: at.start() if at else 200])}{column}", line)
    return {"schema": SCHEMA}


def _is_newer(top: Table) -> bool:
    """Whether the file is of a format this mdl does not know; noted, and the rest is then left unread."""
    schema = top.data.get("schema")
    if not isinstance(schema, int) or schema <= SCHEMA:
        return False
    top.wrong(f"{schema} is newer than this mdl, which reads {SCHEMA}; upgrade mdl", "schema")
    return True


def _note_schema(top: Table) -> None:
    """Note a ``schema`` that is missing or odd; it is no hindrance to reading the rest."""
    schema = top.data.get("schema")
    if schema is None:
        if top.lacks("schema"):
            top.wrong(f"missing; write schema = {SCHEMA} as the first line", "schema")
    elif schema != SCHEMA or not isinstance(schema, int) or isinstance(schema, bool):
        top.wrong(f"must be {SCHEMA}", "schema")


def _check_name(name: str) -> None:
    """A model's name is its folder's name and what one types. Raises `MdlError` when it cannot be."""
    if not re.match(r"[A-Za-z0-9]", name):
        raise CatalogError("a name starts with a letter or a digit (a-z, 0-9)")
    if "/" in name:
        raise CatalogError("a name is one folder and holds no '/'")
    if _SCHEME.match(name):
        raise CatalogError("a name must not look like a reference or a URL")
    try:
        RelPath.parse(name)
    except MdlError as error:
        raise CatalogError(error.message.replace("path", "name", 1)) from error


def _joined(drafts: Sequence[_Draft], paths: tuple[Path, ...], mistakes: Mistakes) -> Catalog:
    """One catalog of all drafts. Raises `CatalogError` with all mistakes."""
    _note_twins(drafts)
    models = {name: model for draft in drafts for name, model in draft.models.items()}
    groups = {name: members for draft in drafts for name, members in draft.groups.items()}
    for draft in drafts:
        for name, model in draft.models.items():
            _note_unknown(draft.text, ("models", name, "see"), model.see, models, groups)
        for name, members in draft.groups.items():
            _note_unknown(draft.text, ("groups", name), members, models, groups)
    mistakes.check()
    return Catalog(models, groups, paths)


def _note_twins(drafts: Iterable[_Draft]) -> None:
    """Note every name that is given twice, or differs from another only by case or Unicode form."""
    seen: dict[str, tuple[str, Key, _Draft]] = {}
    for draft in drafts:
        for name, where in draft.names:
            folded = RelPath(name).folded
            if folded not in seen:
                seen[folded] = (name, where, draft)
                continue
            other, there, first = seen[folded]
            place = first.text.place(there)
            if other == name:
                draft.text.wrong(where, f"the name is taken by {place}")
            else:
                draft.text.wrong(where, f"differs only by case or Unicode form from {shown(other)} at {place}")


def _note_unknown(
    text: CatalogText, where: Key, names: Iterable[str], models: dict[str, Model], groups: Iterable[str]
) -> None:
    """Note every one of ``names`` that is no model, or stands there twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            text.wrong(where, f"names {shown(name)[:80]} twice")
        elif name in groups:
            text.wrong(where, f"{shown(name)[:80]} is a group; name its models")
        elif name not in models:
            guess = did_you_mean(text.mistakes.guess(name, models))
            text.wrong(where, f"no model is called {shown(name)[:80]}{guess}")
        seen.add(name)
