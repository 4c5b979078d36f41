"""Model and Catalog: what a catalog says, as values. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Sequence
from dataclasses import field, replace
from difflib import get_close_matches
from pathlib import Path

from mdl.errors import NotFound
from mdl.files import Voucher
from mdl.formatting import spelled
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.sources import Origin, parse
from mdl.values import value_class

COMMAND_LINE = "command line"
"""The `Model.origin` of a model that a reference made, not a catalog."""
_FILE = "file://"
"""How the URLs of files begin that were imported from a folder."""
_NEAR = 0.65
"""How like a name another one must be to be proposed in its place, as `difflib` measures it."""
_SHORTEST_PART = 3
"""Letters that a part of a name needs for that: a letter alone is in most names."""


@value_class
class CatalogFile:
    """A file that a catalog names itself: its URL, its mirrors (the same bytes elsewhere, in order of
    preference) and, if they are known, its size in bytes and its digest."""

    path: RelPath
    url: str
    mirrors: tuple[str, ...] = ()
    size: int | None = None
    digest: Digest | None = None
    id: str = ""
    role: str = "other"
    branch: str = ""
    """Of a locked file, the branch of the hub whose commit it was locked at."""
    places: tuple[str, ...] = ()
    """Of a locked file, what is asked for its bytes instead of ``url`` and ``mirrors``, in this order."""
    vouched_by: Voucher = "catalog"
    """Who says that it has this digest."""


@value_class
class RepoIds:
    """The ids (`Origin.id`) of what the files of a model come from; '' where there are several. ``whole`` is that of
    all its files, ``named`` has those of the files that the catalog names, by their paths, and ``others`` is that of
    the rest."""

    whole: str
    others: str
    named: dict[str, str]

    def of(self, path: str) -> str:
        """The id for the file at ``path``, or for the whole model if that is ''."""
        return self.named.get(path, self.others) if path else self.whole


@value_class
class Model:
    """An entry of a catalog. ``sources`` are collections to take files from, such as hub repositories, narrowed by
    ``include``/``exclude`` globs; ``files`` are named one by one. ``gone`` says why an entry no longer has
    data, ``see`` which entries to use instead. ``mirrors`` are object stores that `mdl mirror` wrote."""

    name: str
    title: str = ""
    kind: str = "model"
    license: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""
    homepage: str = ""
    gone: str = ""
    see: tuple[str, ...] = ()
    sources: tuple[Origin, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    files: tuple[CatalogFile, ...] = ()
    mirrors: tuple[str, ...] = ()
    origin: str = ""
    """Which file the entry was read from, for messages; `mdl.catalog.reader.place_of` tells the line too."""

    @property
    def is_of_catalog(self) -> bool:
        """A catalog has it, not the command line alone."""
        return self.origin not in ("", COMMAND_LINE)

    @property
    def has_source(self) -> bool:
        """Return whether it says where its files come from."""
        return bool(self.sources or self.files)

    @property
    def target(self) -> str:
        """The word to type for it: its name if a catalog has it, else the reference that made it."""
        return self.name if self.is_of_catalog or not self.sources else self.sources[0].label

    @property
    def label(self) -> str:
        """Its name as people write it: that of a repository of the hub which has no name of its own is ``org/name``."""
        repositories = {source.repository for source in self.sources}
        return spelled(self.name, repositories.pop()) if len(repositories) == 1 else self.name

    def is_one_file(self, paths: Sequence[str]) -> bool:
        """Return whether ``paths``, which are those of all its files, are the one file that somebody asked for by
        itself: with a URL, with its path in a repository or a bucket, or as a quantisation of a single file."""
        if self.is_of_catalog or len(paths) != 1:
            return False
        if not self.sources:
            return True
        if self.files or len(self.sources) > 1:
            return False
        origin = self.sources[0]
        if origin.subpath:
            return origin.subpath.rpartition("/")[2] == paths[0].rpartition("/")[2]
        return origin.scheme == "https" or not origin.is_whole

    def of_quantisation(self, name: str) -> Model:
        """The same model, of whose one repository only the quantisation of this name is meant."""
        [source] = self.sources
        return replace(self, sources=(source.of_quantisation(name),))

    @property
    def urls(self) -> tuple[str, ...]:
        """Every URL the entry names itself."""
        urls: list[str] = []
        for file in self.files:
            urls += [file.url, *file.mirrors]
        return tuple(urls)

    def repos(self, page_hosts: Collection[str]) -> RepoIds:
        """The ids of the places that its files come from."""
        named = {file.path.text: parse(file.url, page_hosts).id for file in self.files}
        others = {origin.id for origin in self.sources}
        return RepoIds(_only_one(others.union(named.values())), _only_one(others), named)

    @property
    def source_text(self) -> str:
        """Where it comes from, in one line. Of what was imported it is the folder."""
        if self.sources:
            return ", ".join(source.label for source in self.sources)
        places: dict[str, None] = {}
        imported: list[str] = []
        for url in self.urls:
            if url.startswith(_FILE):
                imported.append(url.removeprefix(_FILE))
                continue
            place = url.split("/")[2] if url.startswith("http") else url
            places[place] = None
        if imported:
            places[_FILE + posixpath.commonpath(imported)] = None
        return ", ".join(places)


@value_class
class Catalog:
    """Models by name and groups of names, read from ``paths``. ``own`` are the names of the models that these files
    have themselves, or have in a group; None if that is all. The others are of catalogs that they extend."""

    models: dict[str, Model] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()
    own: frozenset[str] | None = None

    def meant(self, names: Iterable[str] | None = None) -> list[Model]:
        """The models that a command means: those of the models and groups of ``names``; without names the `own` ones.
        Raises `NotFound`."""
        if names is None:
            return [model for name, model in self.models.items() if not self.is_only_extended(name)]
        models: dict[str, Model] = {}
        for name in names:
            for model in self.find(name):
                models[model.name] = model
        return list(models.values())

    def is_only_extended(self, name: str) -> bool:
        """Return whether a model is one of a catalog that is extended, and so is meant only if it is named."""
        return self.own is not None and name in self.models and name not in self.own

    def find(self, name: str) -> list[Model]:
        """The model or the group's models called exactly ``name``.

        Raises `NotFound`, saying what is near.
        """
        if name in self.models:
            return [self.models[name]]
        if name in self.groups:
            return [self.models[member] for member in self.groups[name]]
        raise self.not_found(name)

    def near(self, name: str) -> list[str]:
        """At most three names of models and groups that ``name`` may be a misspelling or a part of."""
        names = [*self.models, *self.groups]
        near = get_close_matches(name, names, 3, _NEAR)
        if not near and len(name) >= _SHORTEST_PART:
            near = [known for known in names if name.lower() in known.lower()]
        return near[:3]

    def not_found(self, name: str) -> NotFound:
        """The error of a name that is not here, which says what is near."""
        near = self.near(name)
        hint = "'mdl list' shows what there is"
        if near:
            hint = f"did you mean {', '.join(near)}?"
        elif ":" in name.partition("/")[0]:
            hint = "mdl gets hf:org/repo, s3://bucket/key and https://… URLs: give one of these"
        elif name.strip("/").count("/") == 1 and " " not in name:
            hint = f"name a model of the catalog: 'mdl add NAME {name}' adds one"
        return NotFound("not in the catalog", item=name, hint=hint)


def _only_one(ids: set[str]) -> str:
    """The id if there is just one; else ''."""
    return ids.copy().pop() if len(ids) == 1 else ""
