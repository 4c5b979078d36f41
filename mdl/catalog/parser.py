"""Parser: the text of one catalog file → its models and groups; every problem is noted. Pure."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mdl.catalog.model import CatalogFile, Model
from mdl.errors import CatalogError, MdlError, ProtocolError, Unsafe, UsageError
from mdl.hashing import Digest
from mdl.paths import RelPath, refuse_twins
from mdl.sources import HUB_HOSTS, Origin, parse
from mdl.sources.url import UrlOrigin, check_url, digest_in
from mdl.toml.problems import Table, TomlText, did_you_mean

if TYPE_CHECKING:
    from mdl.toml.positions import Key

SCHEMA = 1
"""The version of the catalog format that this mdl reads."""

_SCHEME = re.compile(r"(hf|s3|https?|file):", re.IGNORECASE)
_ROLES = ("weights", "config", "vocab", "other")
"""What a file of a model is for."""

_TEXT_KEYS = ("title", "kind", "license", "tags", "note", "homepage", "gone", "see")
_SOURCE_KEYS = ("source", "include", "exclude", "revision", "files", "mirrors")
_FILE_KEYS = ("id", "path", "role", "url", "mirrors", "size", "sha256")
_MOST_TWINS = 10


class Draft:
    """One file's models and groups, before they are compared with the other files' and with each other."""

    def __init__(self, text: TomlText) -> None:
        self.text = text
        self.models: dict[str, Model] = {}
        self.groups: dict[str, tuple[str, ...]] = {}
        self.extends: list[tuple[Key, str]] = []
        """What it extends, as it is written, each with its key; what has precedence comes last."""
        data = text.parse()
        if data is None:
            return
        top = Table(data, (), text)
        schema = top.data.get("schema")
        number = schema if type(schema) is int else 0
        if number > SCHEMA:  # the rest is left unread
            top.wrong(f"{schema} is newer than this mdl, which reads {SCHEMA}; upgrade mdl", "schema")
            return
        top.allow("schema", "extends", "models", "groups")
        if schema is not None and number != SCHEMA:
            top.wrong(f"must be {SCHEMA}", "schema")
        elif schema is None and top.lacks("schema"):
            top.wrong(f"missing; write schema = {SCHEMA} as the first line", "schema")
        self.extends = list(top.strings("extends"))
        models = top.table("models")
        groups = top.table("groups")
        for name in models.data:
            table = models.table(name)
            self.models[name] = _read_entry(name, table) if table.data is models.data[name] else Model(name)
        for name in groups.data:
            self.groups[name] = groups.texts(name)
        for table in (models, groups):
            for name in table.data:
                table.attempt(_check_name, name, name)


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


def _read_entry(name: str, table: Table) -> Model:
    """The model that ``table`` describes; what is wrong with it is noted in the table's file."""
    table.allow(*_TEXT_KEYS, *_SOURCE_KEYS)
    origins, direct = _read_sources(table)
    files = [*direct, *filter(None, map(_read_file, table.tables("files")))]
    _note_clashes(table, files)
    gone = table.string("gone")
    if "gone" not in table.data and table.lacks("source", "files"):
        table.wrong("has no source: add source or files (or gone, with the reason)")
    homepage = table.prose("homepage")
    return Model(
        name=name,
        title=table.prose("title"),
        kind=table.string("kind", "model"),
        license=table.prose("license"),
        tags=table.texts("tags"),
        note=table.prose("note"),
        homepage=(table.attempt(check_url, homepage, "homepage") or "") if homepage else "",
        gone=gone,
        see=table.texts("see"),
        sources=_pin(table, origins),
        include=table.texts("include"),
        exclude=table.texts("exclude"),
        files=tuple(files),
        mirrors=tuple(
            filter(None, (table.attempt(_check_mirror, text, *key) for key, text in table.strings("mirrors")))
        ),
        origin=table.file.name,
    )


def _read_sources(table: Table) -> tuple[list[Origin | None], list[CatalogFile]]:
    """Collections, such as hub repositories (None if one is wrong), and files whose URL is a source."""
    origins: list[Origin | None] = []
    files: list[CatalogFile] = []
    for key, text in table.one_or_many("source"):
        source = table.attempt(_read_source, text, *key)
        if isinstance(source, CatalogFile):
            files.append(source)
        else:
            origins.append(source)
    return origins, files


def _read_source(text: str) -> Origin | CatalogFile:
    origin = _origin(text)
    if not isinstance(origin, UrlOrigin):
        return origin
    origin.check_is_file()
    if not origin.is_named:
        return origin  # the server is asked for the name
    return CatalogFile(origin.file_name, origin.url, digest=origin.digest)


def _origin(text: str) -> Origin:
    """What a reference means; a ``/resolve/`` URL of the hub is the file itself, as any other URL."""
    verb = re.search(r"/(tree|blob|raw|resolve)/", text.partition("#")[0])
    origin = parse(text, () if verb and verb[1] == "resolve" else HUB_HOSTS)
    if origin.repository and origin.subpath:
        RelPath.parse(origin.subpath)  # what a catalog names is to be the same on every system
    return origin


def _pin(table: Table, origins: list[Origin | None]) -> tuple[Origin, ...]:
    """The origins, with ``revision`` put into the one there is."""
    known = [origin for origin in origins if origin]
    revision = table.string("revision")
    if not revision or len(known) < len(origins):
        return tuple(known)
    if len(known) != 1 or isinstance(known[0], UrlOrigin):
        table.wrong("belongs to one hub source; with others write hf:org/repo@revision in each", "revision")
        return tuple(known)
    [origin] = known
    if origin.revision not in (None, revision):
        table.wrong(f"is {revision}, but the source says {origin.revision}", "revision")
    return (table.attempt(origin.at, revision, "revision") or origin,)


def _read_file(table: Table) -> CatalogFile | None:
    """One ``[[models.NAME.files]]`` table."""
    table.allow(*_FILE_KEYS)
    origin = None
    url = ""
    texts: dict[Key, str] = {}
    if table.lacks("url"):
        table.wrong("missing", "url")
    elif text := table.string("url"):
        texts[("url",)] = text
        if origin := table.attempt(_file_origin, text, "url"):
            url = _written(origin, text)
    mirrors = []
    for key, text in table.strings("mirrors"):
        texts[key] = text
        if mirror := table.attempt(_file_origin, text, *key):
            mirrors.append(_written(mirror, text))
    if "path" in table.data:
        named = table.string("path")
        path = table.attempt(RelPath.parse, named, "path") if named else None
    else:
        path = table.attempt(lambda _: origin.file_name, url, "path") if origin else None
    sha256 = table.string("sha256")
    digest = table.attempt(_read_sha256, sha256, "sha256") if sha256 else None
    digest = _with_told(table, digest, texts)
    role = table.string("role", "other")
    if role not in _ROLES:
        guess = table.file.problems.guess(role, _ROLES)
        table.wrong(f"must be one of {', '.join(_ROLES)}{did_you_mean(guess)}", "role")
    size = table.size("size")
    name = table.string("id")
    if path is None:
        return None
    return CatalogFile(path, url, tuple(mirrors), size, digest, name, role)


def _with_told(table: Table, digest: Digest | None, urls: Mapping[Key, str]) -> Digest | None:
    """The ``digest`` of a file, or the one in the fragment of one of its URLs. Note two that differ."""
    for where, url in urls.items():
        told = None
        with contextlib.suppress(MdlError):  # a wrong one was noted with the URL
            told = digest_in(url)
        if told and digest and told != digest:
            table.wrong(f"says {told.hex[:12]}… of the sha256, and the file or another URL {digest.hex[:12]}…", *where)
        digest = digest or told
    return digest


def _file_origin(text: str) -> Origin:
    """What the URL of a file, or another reference to one file, means."""
    origin = _origin(text)
    if isinstance(origin, UrlOrigin):
        return origin
    if "://" in text and not text.startswith("hf:") and origin.scheme == "hf":
        raise UsageError("is a page to look at, not the file", hint="write the /resolve/ URL")
    origin.check_is_file()
    return origin


def _written(origin: Origin, text: str) -> str:
    """The reference to a file as an entry keeps it: a URL without its fragment, anything else as it was written."""
    return origin.url if isinstance(origin, UrlOrigin) else text


def _check_mirror(url: str) -> str:
    """The place of a mirror, as it is written."""
    if not url.startswith("s3://"):
        raise UsageError("not a mirror of 'mdl mirror'", hint="write s3://bucket/prefix")
    return str(parse(url))


def _read_sha256(text: str) -> Digest:
    try:
        return Digest.parse("sha256", text)
    except ProtocolError as error:
        raise UsageError("not a sha256", hint="64 digits, 0-9 and a-f in lower case") from error


def _note_clashes(table: Table, files: Iterable[CatalogFile]) -> None:
    """Note two files with one path or one id, as any file system may see them."""
    paths = [file.path for file in files]
    for _ in range(_MOST_TWINS):
        try:
            refuse_twins(paths)
        except Unsafe as error:
            table.wrong(error.message, "files")
            last = max(index for index, path in enumerate(paths) if path.text == error.item)
            del paths[last]
        else:
            break
    seen: set[str] = set()
    for file in files:
        folded = RelPath(file.id).folded
        if file.id and folded in seen:
            table.wrong(f"two files have the id {file.id}", "files")
        seen.add(folded)
