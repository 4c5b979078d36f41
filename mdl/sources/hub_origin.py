"""References to the hub: ``hf:org/repo@revision/path``, ``hf:org/repo:Q8_0``, or a page copied from a browser. Pure.

Nothing here asks anything of a server; a reference that cannot be right is refused before a socket is opened.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import ClassVar
from urllib.parse import SplitResult, quote, unquote

from mdl.errors import UsageError
from mdl.files import hub_reference, repo_path
from mdl.paths import RelPath, is_at_or_below, shown
from mdl.sources import Origin
from mdl.urls import shown_url, split_url
from mdl.values import value_class

_TYPES = {"datasets": "dataset", "models": "model", "spaces": "space"}
_FORMS = "write hf:org/repo, hf:org/repo@revision or hf:org/repo@revision/path/in/repo"
_ID_PART = r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_ID_NEVER = r"--|\.\.|\.git\Z"
_QUANT = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}"
_REVISION = r"(?![-/])(?!.*(\.\.|//))[^\x00-\x20\x7f~^:?*\[\\]{1,255}(?<![/.])"
_COMMIT = r"[0-9a-f]{40}([0-9a-f]{24})?"
_FILE_PAGES = {"tree", "blob", "resolve", "raw"}
_OTHER_PAGES = {"blame", "commit", "commits", "discussions", "edit", "settings", "sql-console", "viewer"}
_NOT_REPOS = {
    *("api", "blog", "chat", "collections", "datasets", "docs", "join", "kernels", "learn", "login", "logout"),
    *("models", "new", "notifications", "organizations", "papers", "posts", "pricing", "search", "settings"),
    *("spaces", "tasks"),
}


def is_pinned(revision: str | None) -> bool:
    """A full commit id, which always means the same files: 40 hex digits, 64 on some hubs."""
    return revision is not None and re.fullmatch(_COMMIT, revision) is not None


@value_class
class HubOrigin(Origin):
    """A repository of the hub: ``repo_type`` is ``model``, ``dataset`` or ``space``; ``revision`` a branch,
    tag, ref or commit, None for the default branch; ``subpath`` one file or folder of it, '' for all; ``quant`` the
    one quantisation of it that is meant, '' for all. ``endpoint`` is the URL of the hub that files on this disk came
    from; '' is the hub in use, which is the only one that is asked."""

    scheme: ClassVar[str] = "hf"

    repo: str
    repo_type: str = "model"
    revision: str | None = None
    subpath: str = ""
    quant: str = ""
    endpoint: str = ""

    @property
    def is_whole(self) -> bool:
        return not (self.subpath or self.quant)

    @property
    def whole(self) -> HubOrigin:
        """The whole repository at the same revision."""
        return replace(self, subpath="", quant="")

    @property
    def branch(self) -> str:
        return "" if is_pinned(self.revision) else self.revision or "main"

    def __str__(self) -> str:
        return hub_reference(self.repo, self.repo_type, self.revision or "", self.subpath, self.quant)

    @property
    def is_model_repository(self) -> bool:
        return self.repo_type == "model" and not self.quant

    @property
    def repo_path(self) -> str:
        """``org/name``, ``datasets/org/name``: how the path of its page begins."""
        return repo_path(self.repo, self.repo_type)

    @property
    def repository(self) -> str:
        return f"hf:{self.repo_path}"

    @property
    def kind(self) -> str:
        return self.repo_type

    @property
    def file_name(self) -> RelPath:
        if not self.subpath:
            hint = "write hf:org/repo@revision/path/of/the/file"
            raise UsageError("names a repository, not a file of it", item=str(self), hint=hint)
        return RelPath.of_repository(self.subpath.rpartition("/")[2])

    @property
    def folder(self) -> str:
        """``org--name``, ``datasets--org--name``."""
        return self.repo_path.replace("/", "--")

    def holds(self, place: Origin) -> bool:
        """A file of the same repository, at or below the same path; at this very commit, if this names one."""
        if not isinstance(place, HubOrigin) or place.repository != self.repository:
            return False
        if is_pinned(self.revision) and place.revision != self.revision:
            return False
        return is_at_or_below(place.subpath, self.subpath)

    def of_quantisation(self, name: str) -> HubOrigin:
        return replace(self, subpath="", quant=name)

    def at(self, revision: str) -> HubOrigin:
        return replace(self, revision=check_revision(revision))

    def file_url(self, endpoint: str, revision: str, path: str) -> str:
        """The stable URL of one file at a revision, on the hub whose URL is ``endpoint``."""
        return f"{endpoint}/{self.repo_path}/resolve/{quote(revision, safe='')}/{quote(path)}"

    def api_url(self, endpoint: str, call: str, revision: str) -> str:
        """The URL of an API call about a revision: ``call`` is ``revision`` or ``tree``."""
        return f"{endpoint}/api/{self.repo_type}s/{self.repo}/{call}/{quote(revision, safe='')}"


def parse_reference(text: str) -> HubOrigin:
    """Read ``hf:[datasets/|spaces/]org/repo[@revision][/path]``, or ``hf:org/repo[@revision]:Q8_0`` for the GGUF files
    of one quantisation; ``hf://…`` is the same.

    A bare id (``hf:gpt2``) is legal; to name a path in it, name its revision too (``hf:gpt2@main/config.json``).
    A revision with slashes is ``refs/pr/N``, ``refs/convert/NAME`` or percent-encoded (``feature%2Fx``).
    Raises `UsageError` if it is not a hub reference, `Unsafe` for a path that is not safe.
    """
    if not text.startswith("hf:"):
        raise UsageError("not a hub reference", item=shown(text)[:200], hint=_FORMS)
    segments = text.removeprefix("hf:").removeprefix("//").rstrip("/").split("/")
    if segments[0] == "buckets" and len(segments) > 1:
        hint = "repositories are: hf:org/repo, hf:datasets/org/name"
        raise UsageError("storage buckets of the hub are not supported", item=shown(text)[:200], hint=hint)
    repo_type = _TYPES.get(segments[0], "model")
    if segments[0] in _TYPES:
        segments = segments[1:] or [""]
    length = 1 if "@" in segments[0] else 2
    quant = ""
    if len(segments) <= length and ":" in segments[-1]:
        segments[-1], _, quant = segments[-1].partition(":")
        _check_quantisation(quant, text)
    *owner, last = segments[:length]
    name, at, revision = last.partition("@")
    repo = "/".join([*owner, name])
    path = segments[length:]
    reason = why_bad_id(repo)
    if reason:
        raise UsageError(f"not a repository id: {reason}", item=shown(text)[:200], hint=_FORMS)
    if not at:
        return _origin(repo_type, repo, None, path, quant)
    return _origin(repo_type, repo, *_take_revision([revision, *path]), quant)


def parse_page(url: str, hosts: Collection[str]) -> HubOrigin | None:
    """Read a page of the hub as people copy it from a browser: a repository, ``/tree/``, ``/blob/`` or ``/resolve/``.

    ``hosts`` are ``host`` (any port) or ``host:port``. None when ``url`` is not such a page. Raises `UsageError`
    for ``/raw/`` and for pages that hold no file, `Unsafe` for a path that is not safe.
    """
    parts = split_url(url)
    if parts is None or not _is_of_hub(parts, hosts):
        return None
    segments = parts.path.strip("/").split("/")
    repo_type = _TYPES.get(segments[0], "model")
    if repo_type != "model":
        del segments[0]
    elif segments[0] in _NOT_REPOS:
        return None
    at = _index_of_verb(segments)
    if at is None:
        return _repository_page(url, repo_type, segments)
    repo = "/".join(segments[:at])
    if why_bad_id(repo):
        return None
    if segments[at] == "raw":
        hint = "write /resolve/ instead of /raw/"
        raise UsageError("/raw/ serves a pointer instead of a large file", item=shown_url(url), hint=hint)
    revision, path = _take_revision(segments[at + 1 :])
    return _origin(repo_type, repo, revision, [unquote(segment) for segment in path])


def _is_of_hub(parts: SplitResult, hosts: Collection[str]) -> bool:
    """Return whether a URL is one of ``hosts``, and has no user name."""
    if parts.scheme not in ("http", "https") or "@" in parts.netloc:
        return False
    known = {host.lower() for host in hosts}
    return parts.netloc.lower() in known or (parts.hostname or "").lower() in known


def _index_of_verb(segments: Sequence[str]) -> int | None:
    """Where ``tree``, ``blob``, ``resolve`` or ``raw`` is behind the repository; None if nothing follows it there."""
    for index in (1, 2):
        if len(segments) > index + 1 and segments[index] in _FILE_PAGES:
            return index
    return None


def _repository_page(url: str, repo_type: str, segments: Sequence[str]) -> HubOrigin | None:
    """The repository whose page this is; None if it is no page of one. Raises `UsageError` for a page of it that holds
    no file."""
    if len(segments) > 2:
        for segment in segments[1:3]:
            if segment in _OTHER_PAGES:
                hint = "give the repository, or the file's /resolve/ URL"
                raise UsageError(f"a /{segment}/ page of the hub holds no file", item=shown_url(url), hint=hint)
        return None
    repo, _, quant = "/".join(segments).partition(":")
    if why_bad_id(repo):
        return None
    return HubOrigin(repo, repo_type, quant=quant and _check_quantisation(quant, url))


def _origin(repo_type: str, repo: str, revision: str | None, path: list[str], quant: str = "") -> HubOrigin:
    subpath = "/".join(path)
    if subpath:
        RelPath.of_repository(subpath)
    return HubOrigin(repo, repo_type, revision, subpath, quant)


def _take_revision(segments: list[str]) -> tuple[str, list[str]]:
    """Split ``segments`` into the revision they begin with (percent-decoded) and the rest (as it stands)."""
    revision = unquote(segments[0])
    rest = segments[1:]
    if revision == "refs":
        revision = "/".join(["refs", *map(unquote, segments[1:3])])
        rest = segments[3:]
        if not re.fullmatch(r"refs/(pr/[0-9]+|convert/[^/]+)", revision):
            hint = "write refs/pr/N or refs/convert/NAME, or percent-encode the revision's slashes"
            raise UsageError("not a revision of the hub", item=shown(revision)[:200], hint=hint)
    return check_revision(revision), rest


def check_revision(text: str) -> str:
    """``text`` if it can be a branch, tag, ref or commit. Raises `UsageError`."""
    if not re.fullmatch(_REVISION, text) or not text.isprintable():
        raise UsageError("not a revision", item=shown(text)[:200], hint="a revision is a branch, a tag or a commit")
    return text


def _check_quantisation(quant: str, text: str) -> str:
    """``quant`` if it can be the name of a quantisation. Raises `UsageError` about ``text``, which has it."""
    if not re.fullmatch(_QUANT, quant):
        raise UsageError("not a quantisation", item=shown_url(text), hint="write it as in hf:org/repo:Q8_0")
    return quant


def why_bad_id(repo: str) -> str | None:
    """Why ``repo`` cannot be the id of a repository (the hub's own rules), or None."""
    parts = repo.split("/")
    if not repo:
        return "it is empty"
    for part in parts:
        if not re.fullmatch(_ID_PART, part):
            return "letters, digits, '-', '_' and '.' only, at most 96, not beginning or ending with '-' or '.'"
        if re.search(_ID_NEVER, part):
            return "'--', '..' and a '.git' ending are not allowed"
    return None
