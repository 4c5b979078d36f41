"""Targets: what a user asks for, as models: names and groups of the catalog, references, and what people type. Pure.

What users of other tools write for a source is understood if it can mean only one thing, such as ``org/repo`` or an
address for git. If it can mean two, or nothing, the error names the right words (ADR 30).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from mdl.catalog.model import COMMAND_LINE, Catalog, CatalogFile, Model
from mdl.errors import NotFound, Unsafe, UsageError
from mdl.hashing import Digest
from mdl.paths import RelPath, shown
from mdl.sources import Origin, is_reference, parse
from mdl.sources.hub_origin import HubOrigin, parse_page, parse_reference, why_bad_id
from mdl.sources.url_origin import FILE_NAME, UrlOrigin, digest_in, has_extension, sha256_of
from mdl.urls import shown_url

Targets: TypeAlias = str | Model | Sequence[str | Model]
"""Names and groups of the catalog, ``hf:org/repo[@revision][/path]``, pages of the hub, any URL, or models."""

_OF_ITS_SERVER = RelPath("-")
"""Stands for the name that the server of a URL will tell."""
_CLONE = (
    r"(?i)(?:(?:ssh://)?git@|(?:git\+)?(?:https?|git)://(?=[^?#]*\.git/?\Z))"
    r"(?P<host>[\w.-]+(?::\d+(?=/))?)[:/](?P<path>[^?#]+?)(?:\.git)?/?"
)
"""What 'git clone' takes: an address with ``git@``, or a URL that ends in ``.git``."""
_HOST = r"(?i)localhost|[\w.-]+:\d+|\d+(?:\.\d+){3}|\[[0-9a-f:.]+\](?::\d+)?"
_DOMAIN = r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
_REPOSITORY = r"(?:(?:datasets|models|spaces)/)?(?P<id>[^/@:\s]+/[^/@:\s]+)(?P<more>(?:@[^:\s]+)?(?::[^/@:\s]+)?)"
_FILE_OF_REPOSITORY = r"(?P<id>[^/]+/[^/]+)/(?P<path>[^/]+(?:/[^/]+)*)"
_PATH_OF_PAGE = r"(?P<id>[^/]+/[^/]+)/(?:tree|blob|resolve|raw)/(?P<revision>[^/]+)(?P<path>(?:/[^/]+)+)?"
_MANY_FILES = r"[*?\[]"
_NAME_AND_TAG = r"([\w.-]+):[\w.-]+"


def models_of(
    targets: Sequence[str | Model],
    catalog: Catalog,
    page_hosts: Collection[str],
    revision: str | None = None,
    *,
    output: str | None = None,
    sha256: str | None = None,
) -> list[Model]:
    """The models that ``targets`` mean, each once, in order: a catalog's name or group, a hub reference or page, any
    URL, a model. Words behind a repository that name files are files of it. ``revision`` replaces that of every hub
    source; ``output`` is the name of the one file, and ``sha256`` its digest.

    Raises `NotFound` for a name the catalog does not have, `UsageError` for anything that is not a target.
    """
    models = _read_targets(targets, catalog, page_hosts)
    if output is not None or sha256 is not None:
        models = [_one_file(models, output, sha256)]
    if revision is not None:
        models = [_at_revision(model, revision) for model in models]
    joined: dict[str, Model] = {}
    for model in models:
        if model.name in joined:
            model = _joined(joined[model.name], model)
        joined[model.name] = model
    return list(joined.values())


def as_targets(given: Targets) -> list[str | Model]:
    """The targets one by one. Raises ``TypeError`` for anything else: a caller may not check types."""
    values: Any = given
    if isinstance(given, str | Model) or not isinstance(values, Iterable):
        values = [given]
    targets = list(values)
    for target in targets:
        if not isinstance(target, str | Model):
            raise TypeError(f"{target!r} is not a target: give a name, a reference like 'org/repo', or a mdl.Model")
    return targets


def needs_catalog(targets: Sequence[str | Model]) -> bool:
    """Return whether one of the targets may be a name of the catalog."""
    for target in targets:
        if isinstance(target, Model):
            continue
        if "/" not in target and not is_reference(target):
            return True
    return False


def _read_targets(targets: Sequence[str | Model], catalog: Catalog, page_hosts: Collection[str]) -> list[Model]:
    """The models of each target. Files that are named behind a repository are all that is meant of it."""
    models: list[Model] = []
    repository: HubOrigin | None = None
    """The repository that was named last, if nothing but files of it was named since."""
    for target in targets:
        if isinstance(target, Model):
            models.append(target)
            repository = None
            continue
        if not target.strip():
            raise UsageError("an empty name (is a variable not set?)", hint="give the name of a model, or hf:org/repo")
        if target in catalog.models or target in catalog.groups:
            models += catalog.find(target)
            repository = None
            continue
        if repository and names_a_file(target, repository.label, page_hosts):
            models[-1] = _with_file(models[-1], repository, target)
            continue
        origin = read_word(target, page_hosts)
        if origin is None:
            raise _unknown(target, catalog)
        models.append(_of_word(target, origin))
        repository = None
        if isinstance(origin, HubOrigin) and not origin.subpath:
            repository = origin
    return models


def _with_file(model: Model, repository: HubOrigin, path: str) -> Model:
    """A model of files of a repository, with one more of them; the repository itself is then not meant, unless one of
    its quantisations was named."""
    subpath = RelPath.of_repository(path.removeprefix("./").rstrip("/")).text
    file = replace(repository, subpath=subpath, quant="")
    sources = dict.fromkeys(model.sources)
    if not repository.quant:
        sources.pop(repository, None)
    sources[file] = None
    return replace(model, sources=tuple(sources))


def _of_word(word: str, origin: Origin) -> Model:
    """The model of a word that means ``origin``. A page of a file of the hub may have the digest of it in its fragment;
    in a reference a ``#`` is a letter of the path."""
    model = _of_origin(origin)
    digest = None
    if isinstance(origin, HubOrigin) and not word.lower().startswith("hf:"):
        digest = digest_in(word)
    if digest is None:
        return model
    return _pinned(model, None, digest)


def _unknown(name: str, catalog: Catalog) -> NotFound:
    """The error of a name that the catalog does not have; its hint says what is near, and what else may be meant."""
    advice = advice_on_name(name)
    if advice is None:
        return catalog.not_found(name)
    near = catalog.near(name)
    if near and ":" not in name:
        advice = f"did you mean {', '.join(near)}? {advice[0].upper()}{advice[1:]}"
    return NotFound("not in the catalog", item=name, hint=advice)


def _of_origin(origin: Origin) -> Model:
    """Make a model of what no catalog names; its folder is named after its source."""
    folder = origin.folder
    if isinstance(origin, UrlOrigin) and origin.is_named:
        file = CatalogFile(origin.file_name, origin.url, digest=origin.digest)
        return Model(name=folder, title=file.path.name, files=(file,), origin=COMMAND_LINE)
    return Model(name=folder, title=folder, kind=origin.kind, sources=(origin,), origin=COMMAND_LINE)


def _at_revision(model: Model, revision: str) -> Model:
    """The model at another revision of its repositories. Raises `UsageError`."""
    if not model.sources:
        reason = "--revision needs a hub source; this one's files are pinned one by one"
        raise UsageError(reason, item=model.name)
    return replace(model, sources=tuple(source.at(revision) for source in model.sources))


def _one_file(models: Sequence[Model], output: str | None, sha256: str | None) -> Model:
    """The one model with the name and the digest that were given for its file. Raises `UsageError`, `Unsafe`."""
    if len(models) != 1 or models[0].is_of_catalog:
        flag = "--sha256" if output is None else "--output"
        raise UsageError(f"{flag} takes the URL of one file", hint="for files of the hub: --include and --into")
    path: RelPath | None = None
    digest: Digest | None = None
    if output is not None:
        path = _checked_output(output)
    if sha256 is not None:
        digest = sha256_of(sha256, "--sha256")
    return _pinned(models[0], path, digest)


def _checked_output(output: str) -> RelPath:
    try:
        return RelPath.parse(output.removeprefix("./"))
    except Unsafe as error:
        hint = "it is a name below the model's folder; --into DIR says which folder"
        raise error.but(item="--output", hint=hint) from error


def _pinned(model: Model, path: RelPath | None, digest: Digest | None) -> Model:
    """The model of one file, which has this path and this digest, if they are given. Raises `UsageError`."""
    file = _single_file(model)
    if digest is None:
        digest = file.digest
    elif file.digest is not None and file.digest != digest:
        reason = f"its URL has the sha256 {file.digest.hex[:12]}…, and --sha256 is {digest.hex[:12]}…"
        raise UsageError(reason, item=model.title, hint="give the one that is right")
    if path is None and file.path == _OF_ITS_SERVER:
        return replace(model, sources=(UrlOrigin(file.url, digest),))
    file = replace(file, path=path or file.path, digest=digest)
    return replace(model, title=file.path.name, sources=(), files=(file,))


def _single_file(model: Model) -> CatalogFile:
    """The file of a model that the command line named. Raises `UsageError` if it may have several."""
    if len(model.files) + len(model.sources) == 1:
        if model.files:
            return model.files[0]
        [origin] = model.sources
        if isinstance(origin, UrlOrigin):
            return CatalogFile(_OF_ITS_SERVER, origin.url, digest=origin.digest)
        if origin.subpath:
            return CatalogFile(RelPath.of_repository(origin.subpath), str(origin))
    raise UsageError(
        "this is not one file", item=model.label, hint="--output and --sha256 are for one file: give its URL"
    )


def _joined(first: Model, second: Model) -> Model:
    """Two targets that land in one folder as one model. Raises `UsageError` if they would be in each other's way."""
    if first == second:
        return first
    sources = tuple(dict.fromkeys(first.sources + second.sources))
    files = tuple(dict.fromkeys(first.files + second.files))
    if not _fit_in_one_folder(sources, files):
        raise UsageError("two targets would land in one folder", item=first.name, hint="get them one by one, with --to")
    whole = tuple(source for source in sources if source.is_whole)
    return replace(first, sources=whole or sources, files=files)


def _fit_in_one_folder(sources: Sequence[Origin], files: Sequence[CatalogFile]) -> bool:
    """Return whether these can be one model: parts of one repository at one revision, or files of different names."""
    if sources and files:
        return False
    revisions = {(source.repository, source.revision) for source in sources}
    paths = {file.path for file in files}
    return len(revisions) <= 1 and len(paths) == len(files)


# Words that have no scheme.


def read_word(word: str, page_hosts: Collection[str]) -> Origin | None:
    """The origin that a word of the command line means: a reference, ``org/repo``, a page of the hub without its
    scheme, an address for git. None if it is, or may be, a name of the catalog.

    Raises `UsageError` for what has no one meaning, and as `parse`.
    """
    clone = re.fullmatch(_CLONE, word)
    if clone:
        if clone["host"].lower() in page_hosts:
            return parse_reference(f"hf:{clone['path']}")
        hint = "give the URL of one of its files; a repository of the hub is hf:org/repo"
        raise UsageError("mdl does not clone git repositories", item=shown_url(word), hint=hint)
    if is_reference(word):
        return parse(word, page_hosts)
    if "/" not in word:
        return None
    return parse_page(f"https://{word}", page_hosts) or _read_path(word)


def _read_path(word: str) -> Origin | None:
    """The repository that a word with slashes means, which has no scheme; None for none. Raises `UsageError`."""
    first = word.partition("/")[0]
    said = shown(word)[:200]
    if re.fullmatch(_HOST, first):
        raise UsageError("a URL needs its scheme", item=said, hint=f"write http://{said} or https://{said}")
    if re.fullmatch(_DOMAIN, first):
        hint = f"write https://{said}"
        if why_bad_id(word) is None:
            hint += f"; if {first} is an owner on the hub, hf:{said}"
        raise UsageError("a URL needs its scheme", item=said, hint=hint)
    if _match_repository(_REPOSITORY, word):
        return parse_reference(f"hf:{word}")
    page = _match_repository(_PATH_OF_PAGE, word)
    if page:
        hint = f"write hf:{page['id']}@{page['revision']}{page['path'] or ''}"
        raise UsageError("a part of an address of the hub", item=said, hint=hint)
    file = _match_repository(_FILE_OF_REPOSITORY, word)
    if file:
        hint = f"for a file of a repository of the hub: mdl get {file['id']} {file['path']}"
        raise UsageError("neither a name of the catalog nor a repository", item=said, hint=hint)
    return None


def _match_repository(pattern: str, word: str) -> re.Match[str] | None:
    """Match a word with a pattern whose group ``id`` names a repository; None if that cannot be the id of one."""
    match = re.fullmatch(pattern, word)
    if match is None or why_bad_id(match["id"]) is not None:
        return None
    return match


def names_a_file(word: str, repository: str, page_hosts: Collection[str]) -> bool:
    """Return whether ``word``, which follows ``repository`` and is not a name of the catalog, names a file or a folder
    of it, as 'hf download' has it. Raises `UsageError` if it may be another repository as well, and for a pattern."""
    if is_reference(word) or re.fullmatch(_CLONE, word):
        return False
    said = shown(word)[:200]
    if re.search(_MANY_FILES, word):
        raise UsageError("a pattern is not the name of a file", item=said, hint=f"--include '{said}'")
    first, slash, name = word.partition("/")
    if slash and (first.lower() in page_hosts or re.fullmatch(_HOST, first)):
        return False
    if re.fullmatch(FILE_NAME, word):
        return True
    other = _match_repository(_REPOSITORY, word)
    if other is None:
        return True
    if other["more"] or not has_extension(name):
        return False
    hint = f"write hf:{said} for the repository; for the file: mdl get {repository} --include {said}"
    raise UsageError(f"may be a file of {repository} or a repository", item=said, hint=hint)


def advice_on_name(name: str) -> str | None:
    """A hint at what a name may mean that no catalog has; None for none."""
    if name.startswith((".", "/", "~")):
        return "for what is on this disk already: mdl import DIR"
    if name.endswith("/") and name.strip("/"):
        return f"write {name.rstrip('/')}, without the slash at its end"
    tagged = re.fullmatch(_NAME_AND_TAG, name)
    if tagged:
        return f"mdl does not know Ollama's models; for GGUF files of the hub: mdl get OWNER/{tagged[1]}-GGUF:Q4_K_M"
    if why_bad_id(name) is None:
        return f"a repository of the hub needs its owner: mdl get OWNER/{name}"
    return None
