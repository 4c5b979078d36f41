"""Parser: the text of one catalog file → its models and groups. Pure.

Every key of an entry and of a file has a line in a table that says how its value is read; every problem is noted with
its file, line and key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import field
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from mdl.catalog.model import CatalogFile, Model
from mdl.errors import CatalogError, MdlError, ProtocolError, UsageError
from mdl.hashing import Digest
from mdl.paths import RelPath, clashing, folded, twin_error
from mdl.sources import HUB_HOSTS, Origin, parse
from mdl.sources.url_origin import UrlOrigin, check_url
from mdl.toml.table import Table, TomlText
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.toml.positions import Key

SCHEMA = 1
"""The version of the catalog format that this mdl reads."""

_ROLES = ("weights", "config", "vocab", "other")
"""The purposes of a model's files."""
_SCHEME = re.compile(r"(hf|s3|https?|file):", re.IGNORECASE)
_PAGE = re.compile(r"/(tree|blob|raw|resolve)/")
_MOST_TWINS = 10


@value_class
class Draft:
    """The models and groups of a file, before they are compared with those of other files and with each other.
    ``extends`` are the catalogs that it extends, as they are written, each with its key; what has precedence comes
    last."""

    text: TomlText
    models: dict[str, Model] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    extends: tuple[tuple[Key, str], ...] = ()

    @property
    def names(self) -> list[tuple[str, str]]:
        """Each name that it gives, as a key: ``("models", name)`` or ``("groups", name)``."""
        models = [("models", name) for name in self.models]
        groups = [("groups", name) for name in self.groups]
        return models + groups


def parse_draft(text: TomlText) -> Draft:
    """Read one file. What is wrong with it is noted in ``text``."""
    data = text.parse()
    if data is None:
        return Draft(text)
    top = Table(data, (), text)
    if _is_newer(top):
        return Draft(text)
    top.allow("schema", "extends", "models", "groups")
    _check_schema(top)
    models = {}
    for name, table in top.table("models").named_tables():
        table.attempt(check_name, name)
        models[name] = _read_model(name, table)
    groups = {}
    group_table = top.table("groups")
    for name in group_table.data:
        group_table.attempt(check_name, name, name)
        groups[name] = group_table.texts(name)
    return Draft(text, models, groups, tuple(top.strings("extends")))


def _is_newer(top: Table) -> bool:
    """Return whether the file is of a newer format, whose other keys say nothing to this mdl; that is noted."""
    schema = top.data.get("schema")
    if type(schema) is not int or schema <= SCHEMA:
        return False
    top.wrong(f"{schema} is newer than this mdl, which reads {SCHEMA}; upgrade mdl", "schema")
    return True


def _check_schema(top: Table) -> None:
    schema = top.data.get("schema")
    if schema is not None:
        if type(schema) is not int or schema != SCHEMA:
            top.wrong(f"must be {SCHEMA}", "schema")
    elif top.lacks("schema"):
        top.wrong(f"missing; write schema = {SCHEMA} as the first line", "schema")


def check_name(name: str) -> None:
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


# An entry.


def _read_model(name: str, table: Table) -> Model:
    """The model that ``table`` describes."""
    values = table.read(_MODEL_KEYS)
    origins: list[Origin] = []
    files: list[CatalogFile] = []
    is_any_source_wrong = False
    for source in values.pop("source"):
        if source is None:
            is_any_source_wrong = True
        elif isinstance(source, CatalogFile):
            files.append(source)
        else:
            origins.append(source)
    files += values.pop("files")
    revision = values.pop("revision")
    if revision and not is_any_source_wrong:
        origins = _at_revision(table, origins, revision)
    if "gone" not in table.data and table.lacks("source", "files"):
        table.wrong("has no source: add source or files (or gone, with the reason)")
    _note_twins(table, files)
    _note_same_ids(table, files)
    return Model(name, sources=tuple(origins), files=tuple(files), origin=table.file.name, **values)


def _kind(table: Table, key: str) -> str:
    return table.string(key, Model.kind)


def _homepage(table: Table, key: str) -> str:
    url = table.prose(key)
    if not url:
        return ""
    return table.attempt(check_url, url, key) or ""


def _mirrors(table: Table, key: str) -> tuple[str, ...]:
    return table.parsed_list(key, _parse_mirror)


def _sources(table: Table, key: str) -> list[Origin | CatalogFile | None]:
    """Collections, such as hub repositories, and files whose URL is a source; None in place of a wrong one."""
    return [table.attempt(_parse_source, text, *where) for where, text in table.one_or_many(key)]


def _files(table: Table, key: str) -> Iterator[CatalogFile]:
    for file_table in table.tables(key):
        file = _read_file(file_table)
        if file is not None:
            yield file


_MODEL_KEYS: dict[str, Callable[[Table, str], Any]] = {
    "title": Table.prose,
    "kind": _kind,
    "license": Table.prose,
    "tags": Table.texts,
    "note": Table.prose,
    "homepage": _homepage,
    "gone": Table.string,
    "see": Table.texts,
    "source": _sources,
    "include": Table.texts,
    "exclude": Table.texts,
    "revision": Table.string,
    "files": _files,
    "mirrors": _mirrors,
}
"""The keys of an entry, each with what reads its value."""


def _parse_source(text: str) -> Origin | CatalogFile:
    """Read one of the sources of an entry. Raises `MdlError`."""
    origin = _parse_origin(text)
    if not isinstance(origin, UrlOrigin):
        return origin
    origin.check_is_file()
    if not origin.is_named:
        return origin  # the server is asked for the name
    return CatalogFile(origin.file_name, origin.url, digest=origin.digest)


def _parse_origin(text: str) -> Origin:
    """Read a reference; a ``/resolve/`` URL of the hub is the file itself, as any other URL."""
    page = _PAGE.search(text.partition("#")[0])
    is_file_url = page is not None and page[1] == "resolve"
    origin = parse(text, () if is_file_url else HUB_HOSTS)
    if origin.repository and origin.subpath:
        RelPath.parse(origin.subpath)  # what a catalog names is to be the same on every system
    return origin


def _parse_mirror(url: str) -> str:
    """The place of a mirror, as it is written."""
    if not url.startswith("s3://"):
        raise UsageError("not a mirror of 'mdl mirror'", hint="write s3://bucket/prefix")
    return str(parse(url))


def _at_revision(table: Table, origins: list[Origin], revision: str) -> list[Origin]:
    """The origins with the entry's ``revision`` in the one there is."""
    if len(origins) != 1 or isinstance(origins[0], UrlOrigin):
        table.wrong("belongs to one hub source; with others write hf:org/repo@revision in each", "revision")
        return origins
    [origin] = origins
    if origin.revision not in (None, revision):
        table.wrong(f"is {revision}, but the source says {origin.revision}", "revision")
    return [table.attempt(origin.at, revision, "revision") or origin]


# A file that an entry names.


@value_class
class _Reference:
    """A reference to one file: its key, and what it means. An entry keeps it as ``url``: a URL without its fragment,
    whose ``digest`` is the one in it, or anything else as it was written."""

    key: Key
    origin: Origin
    url: str
    digest: Digest | None = None


def _read_file(table: Table) -> CatalogFile | None:
    """The file of one ``[[models.NAME.files]]`` table; None if nothing says what it is called."""
    values = table.read(_FILE_KEYS)
    reference: _Reference | None = values["url"]
    mirrors: list[_Reference] = values["mirrors"]
    path: RelPath | None = values["path"]
    url = ""
    references = mirrors
    if reference is not None:
        url = reference.url
        references = [reference, *mirrors]
        if "path" not in table.data:
            path = table.attempt(attrgetter("file_name"), reference.origin, "path")
    digest = _note_other_digests(table, values["sha256"], references)
    if path is None:
        return None
    return CatalogFile(
        path,
        url,
        tuple(mirror.url for mirror in mirrors),
        values["size"],
        digest,
        values["id"],
        values["role"],
    )


def _path(table: Table, key: str) -> RelPath | None:
    return table.parsed(key, RelPath.parse)


def _role(table: Table, key: str) -> str:
    return table.choice(key, _ROLES, CatalogFile.role)


def _sha256(table: Table, key: str) -> Digest | None:
    return table.parsed(key, _parse_sha256)


def _file_url(table: Table, key: str) -> _Reference | None:
    if table.lacks(key):
        table.wrong("missing", key)
        return None
    text = table.string(key)
    if not text:
        return None
    return _read_reference(table, (key,), text)


def _file_mirrors(table: Table, key: str) -> list[_Reference]:
    mirrors: list[_Reference] = []
    for where, text in table.strings(key):
        mirror = _read_reference(table, where, text)
        if mirror is not None:
            mirrors.append(mirror)
    return mirrors


def _read_reference(table: Table, key: Key, text: str) -> _Reference | None:
    """The reference to one file that ``text`` is; None if it is wrong, which is noted."""
    origin = table.attempt(_parse_file_origin, text, *key)
    if origin is None:
        return None
    if isinstance(origin, UrlOrigin):
        return _Reference(key, origin, origin.url, origin.digest)
    return _Reference(key, origin, text)


_FILE_KEYS: dict[str, Callable[[Table, str], Any]] = {
    "id": Table.string,
    "path": _path,
    "role": _role,
    "url": _file_url,
    "mirrors": _file_mirrors,
    "size": Table.size,
    "sha256": _sha256,
}
"""The keys of a file, each with what reads its value."""


def _parse_file_origin(text: str) -> Origin:
    """Read the URL of a file, or another reference to one file. Raises `MdlError`."""
    origin = _parse_origin(text)
    if isinstance(origin, UrlOrigin):
        return origin
    if origin.scheme == "hf" and not text.startswith("hf:"):
        raise UsageError("is a page to look at, not the file", hint="write the /resolve/ URL")
    origin.check_is_file()
    return origin


def _parse_sha256(text: str) -> Digest:
    try:
        return Digest.parse("sha256", text)
    except ProtocolError as error:
        raise UsageError("not a sha256", hint="64 digits, 0-9 and a-f in lower case") from error


def _note_other_digests(table: Table, digest: Digest | None, references: list[_Reference]) -> Digest | None:
    """The ``digest`` of a file, or the one in the fragment of one of its URLs. Note two that differ."""
    for reference in references:
        if digest is None:
            digest = reference.digest
        elif reference.digest is not None and reference.digest != digest:
            theirs = f"{reference.digest.hex[:12]}…"
            table.wrong(f"says {theirs} of the sha256, and the file or another URL {digest.hex[:12]}…", *reference.key)
    return digest


def _note_twins(table: Table, files: list[CatalogFile]) -> None:
    """Note the files that would be one on some file system, or one inside another, at most ten."""
    paths = [file.path for file in files]
    for place, first in islice(clashing(paths, folded).items(), _MOST_TWINS):
        table.wrong(twin_error(first, paths[place]).message, "files")


def _note_same_ids(table: Table, files: list[CatalogFile]) -> None:
    seen: set[str] = set()
    for file in files:
        if not file.id:
            continue
        spelt = folded(file.id)
        if spelt in seen:
            table.wrong(f"two files have the id {file.id}", "files")
        seen.add(spelt)
