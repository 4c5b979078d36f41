"""Entry: one ``[models.NAME]`` table, read into a Model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from mdl.catalog.mistakes import did_you_mean
from mdl.catalog.model import CatalogFile, HubOrigin, Model
from mdl.catalog.references import HUB_HOSTS, check_revision, check_url, file_url, parse_hub, parse_hub_page, url_name
from mdl.catalog.table import Table
from mdl.errors import ProtocolError, Unsafe, UsageError
from mdl.hashing import Digest
from mdl.paths import RelPath, refuse_twins

ROLES = ("weights", "config", "vocab", "other")
"""What a file of a model is for."""

_TEXT_KEYS = ("title", "kind", "license", "tags", "note", "homepage", "gone", "see")
_SOURCE_KEYS = ("source", "include", "exclude", "revision", "files")
_FILE_KEYS = ("id", "path", "role", "url", "mirrors", "size", "sha256")
_MOST_TWINS = 10


def read_entry(name: str, table: Table) -> Model:
    """The model that ``table`` describes; what is wrong with it is noted in the table's file."""
    table.allow(*_TEXT_KEYS, *_SOURCE_KEYS)
    origins, direct = _read_sources(table)
    files = [*direct, *filter(None, map(_read_file, table.tables("files")))]
    _note_twins(table, files)
    gone = table.string("gone")
    if "gone" not in table.data and table.lacks("source", "files"):
        table.wrong("says nowhere where it comes from; give it a source or files (or gone, with the reason)")
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
        origin=table.file.place(table.where),
    )


def _read_sources(table: Table) -> tuple[list[HubOrigin | None], list[CatalogFile]]:
    """Hub repositories (None where one is wrong) and files whose URL is a source."""
    origins: list[HubOrigin | None] = []
    files: list[CatalogFile] = []
    for key, text in table.one_or_many("source"):
        source = table.attempt(_read_source, text, *key)
        if isinstance(source, CatalogFile):
            files.append(source)
        else:
            origins.append(source)
    return origins, files


def _read_source(text: str) -> HubOrigin | CatalogFile:
    if text.startswith("hf:"):
        return parse_hub(text)
    url = file_url(text)
    page = _hub_page(url)
    return page or CatalogFile(url_name(url), url)


def _hub_page(url: str) -> HubOrigin | None:
    """The repository or folder that ``url`` shows in a browser; None where it is the file itself."""
    verb = re.search(r"/(tree|blob|raw|resolve)/", url)
    return None if verb and verb[1] == "resolve" else parse_hub_page(url, HUB_HOSTS)


def _pin(table: Table, origins: list[HubOrigin | None]) -> tuple[HubOrigin, ...]:
    """The origins, with ``revision`` put into the one there is."""
    known = [origin for origin in origins if origin]
    text = table.string("revision")
    revision = table.attempt(check_revision, text, "revision") if text else None
    if revision is None or len(known) < len(origins):
        return tuple(known)
    if len(known) != 1:
        table.wrong("belongs to one hub source; with others write hf:org/repo@revision in each", "revision")
        return tuple(known)
    [origin] = known
    if origin.revision not in (None, revision):
        table.wrong(f"is {revision}, but the source says {origin.revision}", "revision")
    return (replace(origin, revision=revision),)


def _read_file(table: Table) -> CatalogFile | None:
    """One ``[[models.NAME.files]]`` table."""
    table.allow(*_FILE_KEYS)
    url = ""
    if table.lacks("url"):
        table.wrong("missing", "url")
    elif text := table.string("url"):
        url = table.attempt(_check_file_url, text, "url") or ""
    mirrors = [table.attempt(_check_file_url, mirror, *key) for key, mirror in table.strings("mirrors")]
    path = _read_path(table, url)
    sha256 = table.string("sha256")
    digest = table.attempt(_read_sha256, sha256, "sha256") if sha256 else None
    role = table.string("role", "other")
    if role not in ROLES:
        guess = table.file.mistakes.guess(role, ROLES)
        table.wrong(f"must be one of {', '.join(ROLES)}{did_you_mean(guess)}", "role")
    size, name = table.size("size"), table.string("id")
    if path is None:
        return None
    return CatalogFile(path, url, tuple(filter(None, mirrors)), size, digest, name, role)


def _read_path(table: Table, url: str) -> RelPath | None:
    """The path a file gets: its ``path``, else the name its URL ends in."""
    if "path" in table.data:
        text = table.string("path")
        return table.attempt(RelPath.parse, text, "path") if text else None
    return table.attempt(url_name, url, "path") if url else None


def _check_file_url(url: str) -> str:
    """A file's URL or ``hf:`` reference, as given."""
    if url.startswith("hf:"):
        if not parse_hub(url).subpath:
            hint = "write hf:org/repo@revision/path/of/the/file"
            raise UsageError("names a repository, not a file of it", hint=hint)
        return url
    checked = file_url(url)
    if _hub_page(checked):
        raise UsageError("is a page to look at, not the file", hint="write the /resolve/ URL")
    return checked


def _read_sha256(text: str) -> Digest:
    try:
        return Digest.parse("sha256", text)
    except ProtocolError as error:
        raise UsageError("not a sha256", hint="64 digits, 0-9 and a-f in lower case") from error


def _note_twins(table: Table, files: Iterable[CatalogFile]) -> None:
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
