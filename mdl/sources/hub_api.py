"""The API of a hub: what it says of a repository, which files a commit has, and which repositories a search finds.

Protocol: ``GET /api/{type}s/{id}/revision/{rev}`` and ``/tree/{commit}?recursive=true`` with Link pagination
(https://huggingface.co/docs/hub/api). Every name and digest in an answer is hostile input. A hub that knows less is
asked in a simpler way: without ``expand``, or for ``siblings`` if it has no ``/tree``. (ADR 49)
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urljoin, urlsplit

from mdl.bounds import MOST_ITEMS, OutOfBounds, whole_number
from mdl.errors import LockError, MdlError, ProtocolError, Unsafe, UsageError, online_hint
from mdl.files import Access, repo_path, told_size
from mdl.hashing import Digest
from mdl.net.allowlist import host_of, origin_of
from mdl.net.pagination import paged
from mdl.net.server_messages import message_in_json, safe_excerpt
from mdl.paths import shown
from mdl.sources import RepoFacts
from mdl.sources.hub_listing import FileList
from mdl.sources.hub_origin import HubOrigin, is_pinned, parse_reference
from mdl.values import small_value_class, value_class

if TYPE_CHECKING:
    from mdl.net.client import HttpClient
    from mdl.net.policy import Again
    from mdl.sources import SourceContext

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", re.ASCII)
KNOWN_CODES = ("RepoNotFound", "RevisionNotFound", "EntryNotFound", "GatedRepo")
"""The names of refusals that would be the same if the hub were asked in another way."""
_OF_ACCESS = ("gated", "private")
"""The fields that say who may have the files of a repository."""
_OF_REVISION = ("sha", *_OF_ACCESS, "lastModified")
"""The fields that are used to list a repository; ``siblings`` may be long."""
_OF_REPOSITORY = (*_OF_REVISION, "cardData", "tags")
_SIMPLER = (400, 404)
"""How a hub answers that does not know ``expand``."""
WITHOUT_LISTS = (400, 404, 405, 410, 422, 501)
"""How a hub answers that has no ``/tree``."""


_NO_FILES = ("directory", "tree", "submodule", "commit")
"""The types of what a listing has beside files: folders, and other repositories that are linked there."""


@value_class
class RevisionAnswer:
    """The answer of a hub about a revision. ``files`` are those that it names by the way; ``is_plain`` if it was asked
    for all that it knows."""

    facts: Mapping[str, Any]
    files: FileList
    is_plain: bool

    @property
    def commit(self) -> str:
        """The commit of the revision; '' if what the hub names is none."""
        commit = self.facts.get("sha")
        return commit if isinstance(commit, str) and is_pinned(commit) else ""

    @property
    def modified_at(self) -> str | None:
        return time_in(self.facts.get("lastModified"))

    @property
    def access(self) -> Access:
        """Who may have the files of the repository."""
        is_private = self.facts.get("private")
        is_gated = self.facts.get("gated")
        if is_private:
            return "private"
        if is_gated:
            return "gated"
        is_told = is_private is False and is_gated is False
        return "public" if is_told else "unknown"

    @property
    def repo_facts(self) -> RepoFacts:
        card = self.facts.get("cardData")
        license_of_card = card.get("license") if isinstance(card, dict) else None
        return RepoFacts(
            commit=self.commit or None,
            license=license_of_card if isinstance(license_of_card, str) else license_in(self.facts.get("tags")),
            is_gated=bool(self.facts.get("gated")),
            is_private=bool(self.facts.get("private")),
            updated_at=self.modified_at,
        )


class RepositoryApi:
    """Asks a hub about the repository of ``origin``, at the revision that it names. ``hub`` is the URL of the hub."""

    def __init__(self, http: HttpClient, hub: str, origin: HubOrigin, on_retry: Callable[[Again], None]) -> None:
        self._http = http
        self._origin = origin
        self._hub = hub
        self._url = origin.api_url(hub, "revision", origin.revision or "main")
        self._on_retry = on_retry
        self._too_long = f"a file's own URL works without a list: mdl get {hub}/ORG/REPO/resolve/REVISION/PATH"

    def facts(self) -> RepoFacts:
        """Ask for the facts of the repository. Raises `MdlError`."""
        return self._revision(_OF_REPOSITORY).repo_facts

    def access(self) -> Access:
        """Ask who may have the files. A hub that does not answer at once has said nothing."""
        with contextlib.suppress(MdlError):
            return self._answer(self._expanded(_OF_ACCESS)).access
        return "unknown"

    def revision(self) -> RevisionAnswer:
        """Ask about a revision that is no commit. Raises `MdlError`; `ProtocolError` if the hub names no
        commit for it."""
        answer = self._revision(_OF_REVISION)
        if "sha" not in answer.facts and not answer.is_plain:
            answer = self.plain_revision()
        if not answer.commit:
            hint = f"name the commit yourself: {self._origin.repository.removeprefix('hf:')}@COMMIT"
            words = safe_excerpt(message_in_json(dict(answer.facts)))
            why = "the hub names no commit for this revision" + (f": {words}" if words else "")
            raise ProtocolError(why, hint=hint)
        return answer

    def plain_revision(self) -> RevisionAnswer:
        """Ask for all that the hub says of the revision, with its files. Raises `MdlError`."""
        return self._http.retry(self._url, lambda: self._answer(self._url), self._on_retry)

    def _revision(self, fields: Sequence[str]) -> RevisionAnswer:
        """Ask for these fields of the revision, or all of them if the hub does not know how to choose."""
        url = self._expanded(fields)
        try:
            return self._http.retry(url, lambda: self._answer(url), self._on_retry)
        except MdlError as error:
            if error.status_code not in _SIMPLER or error.server_code in KNOWN_CODES:
                raise
        return self.plain_revision()

    def _answer(self, url: str) -> RevisionAnswer:
        files = FileList()
        facts, _, _ = self._http.json_lists(url, {"siblings": lambda item: _take_name(item, files)}, self._too_long)
        return RevisionAnswer(facts if isinstance(facts, dict) else {}, files, is_plain=url == self._url)

    def _expanded(self, fields: Sequence[str]) -> str:
        return f"{self._url}?{'&'.join(f'expand={name}' for name in fields)}"

    def tree_url(self, commit: str) -> str:
        """Where the files of a commit are listed."""
        return self._origin.api_url(self._hub, "tree", commit) + "?recursive=true&expand=false"

    def files(self, commit: str) -> FileList:
        """The files of a commit. Raises `MdlError`."""
        files = FileList()
        for item in paged(self.tree_url(commit), self._page, _name_of, "the hub's listing", noun="files and folders"):
            if not item.is_folder:
                files.add(item.name, item.size, item.digest)
        return files

    def _page(self, url: str) -> tuple[list[_TreeItem], str | None]:
        """Ask for a page of a listing: its files and folders, and the URL of the next page."""

        def request() -> tuple[list[_TreeItem], str | None]:
            items: list[_TreeItem] = []

            def take(item: Any) -> None:
                if len(items) >= MOST_ITEMS:
                    raise ProtocolError(f"the hub's listing has more than {MOST_ITEMS:,} files", hint=self._too_long)
                items.append(_parse_item(item))

            page, headers, final_url = self._http.json_lists(url, {"": take}, self._too_long)
            if not isinstance(page, list):
                raise ProtocolError("the hub's listing is not a list")
            return items, next_page(headers, final_url)

        return self._http.retry(url, request, self._on_retry)


@small_value_class
class _TreeItem:
    """A file or a folder of a listing."""

    name: str
    is_folder: bool = False
    size: int | None = None
    digest: Digest | None = None


def _name_of(item: _TreeItem) -> str:
    return item.name


def _parse_item(item: Any) -> _TreeItem:
    """Read an item of a tree answer; the digest of a file is the LFS sha256, else the git blob id. What a hub does not
    tell of a file, its server is asked for."""
    if not isinstance(item, dict) or not isinstance(item.get("path"), str):
        raise ProtocolError("the hub's listing has an entry without a path")
    name = item["path"]
    if item.get("type") in _NO_FILES:
        return _TreeItem(name, is_folder=True)
    lfs = item.get("lfs")
    if isinstance(lfs, dict):
        size = _told_size(lfs.get("size", item.get("size")), name)
        oid = str(lfs.get("oid", lfs.get("sha256", "")))
        return _TreeItem(name, size=size, digest=Digest.parse("sha256", oid.removeprefix("sha256:")))
    size = _told_size(item.get("size"), name)
    digest = Digest.of_etag(str(item.get("oid", "")))
    if digest is not None and digest.algorithm != "git-sha1":
        digest = None
    return _TreeItem(name, size=size, digest=digest)


def _told_size(value: Any, name: str) -> int | None:
    return None if value is None else told_size(value, shown(name)[:200])


def _take_name(item: Any, files: FileList) -> None:
    """Read an item of ``siblings``: a name; for what else is known of the file, its server is asked."""
    if not isinstance(item, dict) or not isinstance(item.get("rfilename"), str):
        raise ProtocolError("the hub names a file without a name")
    if len(files) >= MOST_ITEMS:
        raise ProtocolError(f"the hub names more than {MOST_ITEMS:,} files, the most that mdl lists")
    files.add(item["rfilename"], None, None)


def next_page(headers: Mapping[str, str], url: str) -> str | None:
    """The next page of a listing, which is asked for on the same origin (RFC 8288, rel="next"). A mirror may repeat the
    link of the hub that it stands before: it has the next page of the same list itself."""
    match = re.search(r'<([^<>]*)>\s*;[^,<]*rel="?next"?', headers.get("link", ""))
    if not match:
        return None
    try:
        target = urljoin(url, str(match[1]))
        is_same_origin = origin_of(target) == origin_of(url)
        asked = urlsplit(url)
        next_of_hub = urlsplit(target)
    except ValueError as error:
        raise ProtocolError(f"the next page of the listing has no usable address: {error}") from error
    if not is_same_origin and next_of_hub.path.startswith("/api/") and asked.path.endswith(next_of_hub.path):
        return f"{url.partition('?')[0]}?{next_of_hub.query}"
    if not is_same_origin:
        host = host_of(target)
        raise Unsafe(f"refused: the next page of the listing is on another host, {host}", item=host)
    return target


def time_in(value: object) -> str | None:
    """A time as a hub writes it, in ISO 8601; None for anything else."""
    if isinstance(value, str) and _TIME.fullmatch(value):
        return value
    return None


def license_in(tags: object) -> str | None:
    """The licence that the tags of a repository name; None if they name none."""
    if not isinstance(tags, list):
        return None
    for tag in tags:
        if str(tag).startswith("license:"):
            return str(tag).removeprefix("license:")
    return None


# Search: repositories whose names hold some words, as the hub's own page finds them.

KINDS: Final = {"model": "models", "dataset": "datasets"}
SORTS: Final = {"downloads": "downloads", "likes": "likes", "modified": "lastModified"}
MOST: Final = 100
"""How many repositories one answer of the hub has at most."""
_FOUND_FACTS = ("downloads", "likes", "gated", "private", "lastModified", "tags", "usedStorage")


@value_class
class FoundRepo:
    """A repository of a hub. ``bytes`` is what all its revisions together take there, ``downloads`` those of the last
    30 days, ``modified_at`` a time in ISO 8601; None is what the hub does not say."""

    repo: str
    """The reference that `mdl.get` takes: ``hf:org/name``, ``hf:datasets/org/name``."""
    access: str
    """open, gated or private"""
    license: str | None
    bytes: int | None
    downloads: int | None
    likes: int | None
    modified_at: str | None


def search(
    context: SourceContext, text: str, *, kind: str = "model", sort: str = "downloads", limit: int = 20
) -> list[FoundRepo]:
    """The repositories of the ``kind`` model or dataset whose names hold ``text``, at most ``limit`` of them (1 to
    100), the most of ``sort`` first.

    Raises `UsageError`, `LockError` offline, `AuthError`, `NetworkError`, `ProtocolError`.

    Source: ``GET /api/models?search=…&expand=…`` of the hub.
    """
    for flag, value, choices in (("--kind", kind, KINDS), ("--sort", sort, SORTS)):
        if value not in choices:
            raise UsageError(f"{value!r} is not one of {', '.join(choices)}", item=flag)
    if not 1 <= limit <= MOST:
        raise UsageError(f"'{limit}' is not a number from 1 to {MOST}", item="--limit")
    text = text.encode(errors="replace").decode()
    if not text.strip():
        raise UsageError("an empty text (is a variable not set?)", hint="mdl search whisper")
    http = context.http
    if http is None:
        raise LockError("offline: no hub can be searched", hint=online_hint(context.offline_by))
    words = [
        ("search", text),
        ("sort", SORTS[sort]),
        ("limit", str(limit)),
        *(("expand", fact) for fact in _FOUND_FACTS),
    ]
    url = f"{context.endpoint.url}/api/{KINDS[kind]}?{urlencode(words)}"
    answer, _, _ = http.retry(url, lambda: http.json("GET", url))
    if not isinstance(answer, list):
        raise ProtocolError("the hub's answer to the search is not a list")
    repositories = []
    for item in answer:
        repository = parse_found_repo(item, kind)
        if repository is not None:
            repositories.append(repository)
    return repositories[:limit]


def parse_found_repo(item: Any, kind: str) -> FoundRepo | None:
    """The repository of an item; None if mdl would refuse its name. Raises `ProtocolError` if it has none."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        raise ProtocolError("the hub's answer to the search has a repository without a name")
    try:
        origin = parse_reference(f"hf:{repo_path(item['id'], kind)}")
    except MdlError:
        return None
    if origin.repo != item["id"]:
        return None  # a revision, a file, or another kind
    access = "gated" if item.get("gated") else "open"
    if item.get("private") is True:
        access = "private"
    return FoundRepo(
        str(origin),
        access,
        license_in(item.get("tags")),
        _count(item.get("usedStorage")),
        _count(item.get("downloads")),
        _count(item.get("likes")),
        time_in(item.get("lastModified")),
    )


def _count(value: object) -> int | None:
    try:
        return whole_number(value)
    except OutOfBounds:
        return None
