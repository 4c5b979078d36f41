"""The hub, by its REST answers: a branch becomes a commit once, then one listing with sizes and digests.

Protocol: ``GET /api/{type}s/{id}/revision/{rev}`` and ``/tree/{commit}?recursive=true`` with Link pagination
(https://huggingface.co/docs/hub/api). Every name and digest in an answer is hostile input. A hub that knows less is
asked in a simpler way: without ``expand``, or for ``siblings`` if it has no ``/tree``. (ADR 49)
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from mdl.bounds import LARGEST_LIST, MOST_ITEMS, MOST_PAGES, parse_json, whole_number
from mdl.disk.safe_open import read_regular
from mdl.errors import (
    DigestMismatch,
    LockError,
    MdlError,
    NotFound,
    ProtocolError,
    Unsafe,
    UsageError,
    online_hint,
)
from mdl.files import ACCESSES, Access, HubFile, RefusedFile, RemoteFile, Voucher, role_of, told_size
from mdl.hashing import Digest
from mdl.net.allowlist import host_of, origin_of
from mdl.paths import RelPath, names_for_a_hint, shown, why_not_kept
from mdl.sources import RepoFacts, Source, SourceContext
from mdl.sources.answer_cache import keep, kept_path, read_kept
from mdl.sources.hub_origin import HubOrigin, is_pinned, parse_reference
from mdl.sources.url import UrlSource
from mdl.values import small_value_class, value_class

if TYPE_CHECKING:
    from mdl.net.client import HttpClient

VERSION = 1
"""Of the file that a listing is kept in."""
_LARGEST_LISTING = LARGEST_LIST
_MOST_PAGES = MOST_PAGES
_MOST_ITEMS = MOST_ITEMS
"""Files and folders of all pages together."""
_USED = ("sha", "gated", "private", "lastModified")
"""What of the facts of a repository is used to list it; ``siblings`` may be long."""
_ACCESS = ("gated", "private")
"""What says who may have the files of a repository."""
_TOLD = (*_USED, "cardData", "tags")
_SIMPLER = (400, 404)
"""How a hub answers that does not know ``expand``."""
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
_KNOWN_CODES = ("RepoNotFound", "RevisionNotFound", "EntryNotFound", "GatedRepo")
"""What the hub calls its refusals: one that has such a name would be the same if it were asked in another way."""
_LISTED = re.compile(rb'[0-9a-f]{8} \{"mdl-listing":\d+,"source":("[^"]*"),"endpoint":("[^"]*"),')
_LONGEST_HEAD = 2**12
"""How the file of a listing begins."""
_REMEMBERED = 4


def parse(text: str, page_hosts: Collection[str]) -> HubOrigin:
    """The origin that ``hf:…`` names."""
    return parse_reference(text)


@small_value_class
class Entry:
    """One file of a repository. ``size`` is None if the hub names files only."""

    path: RelPath
    size: int | None
    digest: Digest | None


@value_class
class Listing:
    """What a repository held at a commit. A commit never changes, so its listing is kept for good. ``modified_at`` is
    when that was, as the hub just said it; it is not kept. ``access`` is unknown if the hub was not asked for it.
    ``refused`` are files whose names cannot be kept on this system. ``unlisted`` is the URL at which a hub without
    lists was asked; '' if it has them. ``vouched_by`` says who says which digests the files have."""

    commit: str
    entries: tuple[Entry, ...]
    modified_at: str | None = field(default=None, compare=False)
    access: Access = field(default="unknown", compare=False)
    refused: tuple[RefusedFile, ...] = ()
    unlisted: str = ""
    vouched_by: Voucher = "hub"

    def below(self, path: str) -> Sequence[Entry]:
        """The file at ``path``, or every file in the folder of that name; all files if ``path`` is ''."""
        if not path:
            return self.entries
        found = self.entry(path)
        return [found] if found else [one for one in self.entries if one.path.text.startswith(f"{path}/")]

    def entry(self, path: str) -> Entry | None:
        """The file at ``path``; None if there is none."""
        return self._by_path.get(path)

    def refused_below(self, path: str) -> list[RefusedFile]:
        """As `below`, of the refused files."""
        if not path:
            return list(self.refused)
        return [file for file in self.refused if file.path == path or file.path.startswith(f"{path}/")]

    @cached_property
    def _by_path(self) -> Mapping[str, Entry]:
        return {entry.path.text: entry for entry in self.entries}


class Listings:
    """The listings kept in one folder, one file for each revision that was asked for. A branch's file says at which
    commit the branch was last. The last few are remembered: a catalog may name thousands of files of one repository."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read = lru_cache(_REMEMBERED)(_read_listing)

    def get(self, endpoint: str, origin: HubOrigin) -> Listing | None:
        """The last listing seen for the revision as asked; None if there is none, or it is damaged."""
        return self._read(self._path(endpoint, origin))

    def all_of(self, endpoint: str, repository: str) -> list[Listing]:
        """Every listing that is kept of a ``repository`` (``hf:org/repo``) of this hub, of each commit the newest."""
        listings = map(self._read, self._by_hub.get((endpoint, repository), ()))
        return list({listing.commit: listing for listing in listings if listing}.values())

    @cached_property
    def _by_hub(self) -> dict[tuple[str, str], list[Path]]:
        """The files of the listings by hub and repository, the newest at the end. Earlier versions did not write down
        the hub."""
        found: dict[tuple[str, str], list[Path]] = {}
        with contextlib.suppress(OSError):
            for path in sorted(self._folder.glob("*.json"), key=lambda one: one.stat().st_mtime):
                if match := _LISTED.match(read_regular(path, _LONGEST_HEAD) or b""):
                    with contextlib.suppress(ValueError, MdlError):
                        source = parse_json(match[1])
                        endpoint = parse_json(match[2])
                        found.setdefault((endpoint, parse_reference(source).repository), []).append(path)
        return found

    def put(self, endpoint: str, origin: HubOrigin, listing: Listing) -> None:
        """Keep a listing. Raises `OSError`, `Unsafe`."""
        data = {"source": str(origin), "endpoint": endpoint, "commit": listing.commit}
        data |= {"access": listing.access} if listing.access != "unknown" else {}
        keep(self._path(endpoint, origin), "mdl-listing", VERSION, data, "files", _facts_of(listing))
        self._read.cache_clear()

    def _path(self, endpoint: str, origin: HubOrigin) -> Path:
        key = f"{endpoint}\0{origin.repo_type}\0{origin.repo}\0{origin.revision or 'main'}"
        return kept_path(self._folder, key, ".json")


def _facts_of(listing: Listing) -> Iterator[list[Any]]:
    """The files of a listing as it is kept."""
    for entry in listing.entries:
        yield [entry.path.text, entry.size, str(entry.digest) if entry.digest else None]
    for file in listing.refused:
        yield [file.path, file.size, None]


def _read_listing(path: Path) -> Listing | None:
    """A kept listing; None if there is none, or it is damaged."""
    found = _Found()

    def take(facts: Any) -> None:
        name, size, digest = facts
        found.add(
            name,
            None if size is None else whole_number(size),
            None if digest is None else Digest.parse(*digest.split(":", 1)),
        )

    try:
        data = read_kept(path, "mdl-listing", VERSION, _LARGEST_LISTING, {"files": take})
        if data is None or "files" not in data:
            return None
        access = data.get("access")
        return found.listing(str(data["commit"]), access=access if access in ACCESSES else "unknown")
    except (ValueError, KeyError, TypeError, AttributeError, MdlError):
        return None


@dataclass
class _Found:
    """The files of a listing as they come."""

    entries: list[Entry] = field(default_factory=list)
    refused: list[RefusedFile] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.entries) + len(self.refused)

    def add(self, name: str, size: int | None, digest: Digest | None) -> None:
        """One more file."""
        if why := why_not_kept(name):
            self.refused.append(RefusedFile(name, why, size))
        else:
            self.entries.append(Entry(RelPath(name), size, digest))

    def extend(self, other: _Found) -> None:
        self.entries += other.entries
        self.refused += other.refused

    def listing(self, commit: str, **more: Any) -> Listing:
        """All of them in order; a hub that names one file twice, and says the same of it, has one."""
        self.entries.sort(key=lambda entry: entry.path)
        entries = tuple(
            entry for number, entry in enumerate(self.entries) if not number or entry != self.entries[number - 1]
        )
        return Listing(commit, entries, refused=tuple(self.refused), **more)


@value_class
class _Revision:
    """What a hub says of a revision: its ``commit``, '' if what it names is none, and None if it names nothing; the
    files that it names (``siblings``), None if it names none. ``url`` is what was asked."""

    url: str
    commit: str | None
    modified_at: str | None
    access: Access
    siblings: _Found | None


class HubSource(Source):
    """One hub. Offline only kept listings are known."""

    def __init__(self, context: SourceContext) -> None:
        self._url = context.endpoint.url
        self._listings = Listings(context.folder)
        self._context = context
        self._locks: defaultdict[HubOrigin, threading.Lock] = defaultdict(threading.Lock)
        self._asked: dict[HubOrigin, Listing] = {}
        self._whole: tuple[HubOrigin, Listing, list[RemoteFile]] | None = None
        """All files of the repository that was asked for last: many models may each take a few files of one."""

    def resolve(self, origin: HubOrigin) -> list[RemoteFile]:
        """Every file of the repository at one commit, narrowed to the origin's own path.

        A branch is asked for its commit once, whatever is taken from it. Nothing is contacted if the revision is
        pinned and its listing is kept. Raises `NotFound`, `AuthError`, `NetworkError`, `ProtocolError`, `Unsafe`.
        """
        return self._files(origin, self._listing(origin))

    def _listing(self, origin: HubOrigin) -> Listing:
        """What is kept if the revision cannot move, else what the hub says now. Each revision is asked for once."""
        whole = origin.whole
        with self._locks[whole]:
            listing = self._asked.get(whole)
            is_offline = self._context.network is None
            if listing is None and (is_pinned(origin.revision) or is_offline):
                listing = self._listings.get(self._hub_of(origin), origin)
            if listing is None and is_offline:
                listing = self._cached(origin)
            if listing is None:
                try:
                    listing = self._ask(origin)
                except MdlError as error:
                    raise error.on(str(origin)) from error
                if self._context.keeps and not listing.unlisted:
                    self._keep(origin, listing)
            self._asked[whole] = listing
            return listing

    def _cached(self, origin: HubOrigin) -> Listing | None:
        """What the cache of the hub's client says of a revision; None if it has nothing of it. It does not say which
        hub that was."""
        if origin.endpoint:
            return None
        found = self._context.cached(str(origin.whole))
        if found is None:
            return None
        commit, files = found
        entries = []
        for path, size, digest in files:
            with contextlib.suppress(Unsafe):  # it cannot be kept here, and so is not here
                entries.append(Entry(RelPath.of_repository(path), size, digest))
        return Listing(commit, tuple(entries), vouched_by="folder")

    def _keep(self, origin: HubOrigin, listing: Listing) -> None:
        with contextlib.suppress(OSError, Unsafe):  # a listing that cannot be kept is asked for again
            self._listings.put(self._hub_of(origin), origin, listing)
            if listing.commit != origin.revision:
                self._listings.put(self._hub_of(origin), replace(origin, revision=listing.commit), listing)

    def _hub_of(self, origin: HubOrigin) -> str:
        """The URL of the hub that has a repository."""
        return origin.endpoint or self._url

    def modified_at(self, origin: HubOrigin) -> str | None:
        listing = self._asked.get(origin.whole)
        return listing.modified_at if listing else None

    def known(self, origin: HubOrigin) -> list[RemoteFile] | None:
        """As `resolve`, from kept listings of its hub alone; None if there is none."""
        listing = self._listings.get(self._hub_of(origin), origin)
        return self._files(origin, listing) if listing else None

    def facts(self, origin: HubOrigin) -> RepoFacts:
        """What the hub says of the repository, at this moment. Raises as `resolve`, and `LockError` offline."""
        info = self._facts(origin)
        card = info.get("cardData")
        named = card.get("license") if isinstance(card, dict) else None
        commit = info.get("sha")
        updated = info.get("lastModified")
        return RepoFacts(
            commit=commit if isinstance(commit, str) and is_pinned(commit) else None,
            license=named if isinstance(named, str) else license_in(info.get("tags")),
            is_gated=bool(info.get("gated")),
            is_private=bool(info.get("private")),
            updated_at=updated if isinstance(updated, str) else None,
        )

    def _facts(self, origin: HubOrigin) -> dict[str, Any]:
        http = self._http(origin)
        url = origin.api_url(self._hub_of(origin), "revision", origin.revision or "main")

        def ask(asked: str) -> dict[str, Any]:
            info, _, _ = http.json_lists(asked, {"siblings": lambda _: None}, self._too_long)
            return info if isinstance(info, dict) else {}

        on_retry = self._context.on_retry(str(origin))
        try:
            return http.retry(url, lambda: ask(f"{url}?{_expanded(_TOLD)}"), on_retry)
        except MdlError as error:
            if error.status_code not in _SIMPLER or error.server_code in _KNOWN_CODES:
                raise
            return http.retry(url, lambda: ask(url), on_retry)

    def file(self, origin: HubOrigin, path: RelPath) -> RemoteFile:
        """The file at its stable URL, at the revision as it is written; at a commit with what a kept listing of this
        hub says of it."""
        origin.check_is_file()
        revision = origin.revision or "main"
        listing = self._listings.get(self._hub_of(origin), origin) if is_pinned(revision) else None
        entry = listing.entry(origin.subpath) if listing else None
        return RemoteFile(
            path=path,
            url=origin.file_url(self._hub_of(origin), revision, origin.subpath),
            digest=entry.digest if entry else None,
            commit=revision if is_pinned(revision) else None,
            hub=HubFile(origin.repo, origin.repo_type, revision, origin.subpath, endpoint=self._hub_of(origin)),
            access=listing.access if listing else "unknown",
            vouched_by="hub",
        )

    def complete(self, origin: HubOrigin, stated: RemoteFile) -> RemoteFile:
        """The file as the hub's listing has it; a digest that the catalog states must be the hub's. What a listing of
        names alone lacks, the file's own answer has."""
        path = stated.hub.path if stated.hub else origin.subpath
        found = next(
            (one for one in self._files(origin, self._listing(origin)) if one.hub and one.hub.path == path), None
        )
        if found is None:
            raise NotFound("names a folder, not a file", item=str(origin))
        if not found.probed:
            found = UrlSource(self._context).probe(replace(found, path=stated.path))
        theirs = found.digest
        ours = stated.digest
        is_ours = ours is not None and ours != theirs
        if theirs and ours and theirs != ours and theirs.algorithm == ours.algorithm:
            why = f"the hub has {theirs}, the catalog says {ours}"
            raise DigestMismatch(why, item=stated.path.text)
        vouched_by = stated.vouched_by if is_ours else found.vouched_by
        return replace(found, path=stated.path, role=stated.role, digest=ours or theirs, vouched_by=vouched_by)

    def refused(self, origin: HubOrigin) -> list[RefusedFile]:
        """Those of the files of ``origin`` whose names cannot be kept on this system. Raises as `resolve`."""
        listing = self._listing(origin)
        return [
            replace(file, url=self._url_of(origin, listing, file)) for file in listing.refused_below(origin.subpath)
        ]

    def _url_of(self, origin: HubOrigin, listing: Listing, file: RefusedFile) -> str:
        sendable = file.path.encode(errors="replace").decode()
        return origin.file_url(self._hub_of(origin), listing.commit, sendable)

    def _files(self, origin: HubOrigin, listing: Listing) -> list[RemoteFile]:
        if listing.unlisted:
            return [self._unlisted(origin, listing)]
        if not (listing.entries or listing.refused):
            raise NotFound("the repository is empty", item=str(origin))
        entries = listing.below(origin.subpath)
        if not entries and listing.refused_below(origin.subpath):
            return []
        if not entries:
            names = [entry.path.text for entry in listing.entries]
            near = get_close_matches(origin.subpath, names, 3, 0.4) or names[:3]
            hint = f"available: {names_for_a_hint(near)}" + (" …" if len(names) > len(near) else "")
            raise NotFound(f"{origin.subpath} is not there at {listing.commit[:12]}", item=str(origin), hint=hint)
        files = self._remote_files(origin, listing, entries) if origin.subpath else self._all_files(origin, listing)
        if not origin.quant:
            return files
        from mdl.sources.gguf import of_quantisation

        return of_quantisation(files, origin.quant, str(origin))

    def _all_files(self, origin: HubOrigin, listing: Listing) -> list[RemoteFile]:
        asked = origin.whole, listing
        if self._whole is None or self._whole[:2] != asked:
            self._whole = *asked, self._remote_files(origin, listing, listing.entries)
        return [*self._whole[2]]

    def _unlisted(self, origin: HubOrigin, listing: Listing) -> RemoteFile:
        """The one file that ``origin`` names, in a hub that lists no files; its server is asked for the rest."""
        if not origin.subpath:
            hint = f"name the files: mdl get {origin.repository.removeprefix('hf:')} FILE…"
            raise NotFound(f"this hub lists no files at {listing.unlisted}", item=str(origin), hint=hint)
        entry = Entry(RelPath.of_repository(origin.subpath), None, None)
        return self._remote_files(origin, listing, [entry])[0]

    def _remote_files(self, origin: HubOrigin, listing: Listing, entries: Sequence[Entry]) -> list[RemoteFile]:
        commit = listing.commit
        hub = self._hub_of(origin)
        return [
            RemoteFile(
                path=entry.path,
                url=origin.file_url(hub, commit, entry.path.text),
                size=entry.size,
                digest=entry.digest,
                commit=commit,
                role=role_of(entry.path.text),
                probed=entry.size is not None,
                hub=HubFile(origin.repo, origin.repo_type, commit, entry.path.text, origin.branch, hub),
                access=listing.access,
                vouched_by=listing.vouched_by,
            )
            for entry in entries
        ]

    def _ask(self, origin: HubOrigin) -> Listing:
        """What the hub says now. A hub without ``/tree`` may name its files with the revision."""
        about: _Revision | None = None
        commit = origin.revision or ""
        if not is_pinned(commit):
            about = self._revision(origin)
            commit = about.commit or ""
            if kept := self._listings.get(self._hub_of(origin), replace(origin, revision=commit)):
                return replace(kept, modified_at=about.modified_at, access=about.access)
        try:
            files = self._tree(origin, commit)
            unlisted = ""
        except NotFound as error:
            if error.server_code in _KNOWN_CODES:
                raise
            about = self._plain_revision(origin, about, error)
            files = about.siblings or _Found()
            unlisted = "" if about.siblings else self._tree_url(origin, commit)
        modified_at = about.modified_at if about else None
        access = about.access if about else self._access_at(origin)
        return files.listing(commit, modified_at=modified_at, access=access, unlisted=unlisted)

    def _access_at(self, origin: HubOrigin) -> Access:
        """Who may have the files of a commit, which is all that its listing does not tell. A hub that does not answer
        has said nothing."""
        url = origin.api_url(self._hub_of(origin), "revision", origin.revision or "main")
        with contextlib.suppress(MdlError):
            info, _, _ = self._http(origin).json_lists(
                f"{url}?{_expanded(_ACCESS)}", {"siblings": lambda _: None}, self._too_long
            )
            return _access_in(info) if isinstance(info, dict) else "unknown"
        return "unknown"

    def _revision(self, origin: HubOrigin) -> _Revision:
        """What the hub says of a revision that is no commit. Raises `ProtocolError` if it names no commit for it."""
        url = origin.api_url(self._hub_of(origin), "revision", origin.revision or "main")
        try:
            found = self._about(f"{url}?{_expanded(_USED)}", origin)
        except MdlError as error:
            if error.status_code not in _SIMPLER or error.server_code in _KNOWN_CODES:
                raise
            found = self._about(url, origin)
        else:
            found = self._about(url, origin) if found.commit is None else found
        if not found.commit:
            hint = f"name the commit yourself: {origin.repository.removeprefix('hf:')}@COMMIT"
            raise ProtocolError("the hub names no commit for this revision", hint=hint)
        return found

    def _plain_revision(self, origin: HubOrigin, about: _Revision | None, missing: NotFound) -> _Revision:
        """What the hub says of a revision if everything is asked for. Raises ``missing`` if it does not know it."""
        if about and about.siblings:
            return about
        url = origin.api_url(self._hub_of(origin), "revision", origin.revision or "main")
        if about and about.url == url:
            return about
        try:
            return self._about(url, origin)
        except NotFound:
            raise missing from None

    def _about(self, url: str, origin: HubOrigin) -> _Revision:
        """The facts of a revision, and the files that it names."""

        def request() -> _Revision:
            siblings = _Found()
            info, _, _ = http.json_lists(url, {"siblings": lambda item: _take_sibling(item, siblings)}, self._too_long)
            info = info if isinstance(info, dict) else {}
            commit: str | None = None
            if "sha" in info:
                told = info["sha"]
                commit = told if isinstance(told, str) and is_pinned(told) else ""
            modified_at = str(info.get("lastModified"))
            return _Revision(
                url,
                commit,
                modified_at if re.fullmatch(TIME, modified_at) else None,
                _access_in(info),
                siblings if siblings.count else None,
            )

        http = self._http(origin)
        return http.retry(url, request, self._context.on_retry(str(origin)))

    def _tree_url(self, origin: HubOrigin, commit: str) -> str:
        return origin.api_url(self._hub_of(origin), "tree", commit) + "?recursive=true&expand=false"

    def _tree(self, origin: HubOrigin, commit: str) -> _Found:
        url: str | None = self._tree_url(origin, commit)
        found = _Found()
        asked = set[str]()
        items = 0
        last = _Found()
        while url is not None:
            if url in asked:
                raise ProtocolError("the hub's listing goes round in circles")
            if len(asked) >= _MOST_PAGES:
                raise ProtocolError(f"the hub's listing has more than {_MOST_PAGES} pages", hint=self._too_long)
            asked.add(url)
            page, count, url = self._page(url, origin, _MOST_ITEMS - items)
            items += count
            is_new = page.count != last.count or page.entries != last.entries or (count and not page.count)
            if url is not None and not (count and is_new):
                raise ProtocolError("the hub's listing does not come to an end: a page of it brings nothing new")
            found.extend(page)
            last = page
        return found

    def _page(self, url: str, origin: HubOrigin, most: int) -> tuple[_Found, int, str | None]:
        """One page of a listing: its files, how many files and folders it has, and the URL of the next page."""

        def request() -> tuple[_Found, int, str | None]:
            found = _Found()
            count = 0

            def take(item: Any) -> None:
                nonlocal count
                count += 1
                if count > most:
                    why = f"the hub's listing has more than {_MOST_ITEMS:,} files and folders"
                    raise ProtocolError(f"{why}, the most that mdl lists", hint=self._too_long)
                if not (isinstance(item, dict) and item.get("type") == "directory"):
                    _take_item(item, found)

            page, headers, final = http.json_lists(url, {"": take}, self._too_long)
            if not isinstance(page, list):
                raise ProtocolError("the hub's listing is not a list")
            return found, count, _next_page(headers, final)

        http = self._http(origin)
        return http.retry(url, request, self._context.on_retry(str(origin)))

    @property
    def _too_long(self) -> str:
        return f"a file's own URL works without a list: mdl get {self._url}/ORG/REPO/resolve/REVISION/PATH"

    def _http(self, origin: HubOrigin) -> HttpClient:
        if (hub := self._hub_of(origin)) != self._url:
            hint = f"HF_ENDPOINT={hub} asks that hub; 'mdl get {origin}' takes what the hub in use has by this name"
            raise UsageError(f"it came from {hub}, and {self._url} is the hub in use", item=str(origin), hint=hint)
        if (http := self._context.http) is None:
            hint = online_hint(self._context.offline_by)
            raise LockError("offline, and this revision was never listed here", item=str(origin), hint=hint)
        return http


open_source = HubSource


def license_in(tags: object) -> str | None:
    """The licence that the tags of a repository name; None if they name none."""
    texts = [str(tag) for tag in tags] if isinstance(tags, list) else []
    return next((text.removeprefix("license:") for text in texts if text.startswith("license:")), None)


def _expanded(names: Sequence[str]) -> str:
    return "&".join(f"expand={name}" for name in names)


def _access_in(info: Mapping[str, Any]) -> Access:
    """Who may have the files of a repository, by what its hub says of it."""
    if info.get("private"):
        return "private"
    if info.get("gated"):
        return "gated"
    return "public" if info.get("private") is False and info.get("gated") is False else "unknown"


def _take_item(item: Any, found: _Found) -> None:
    """One item of a tree answer; the digest is the LFS sha256, else the git blob id."""
    if not isinstance(item, dict) or not isinstance(item.get("path"), str):
        raise ProtocolError("the hub's listing has an entry without a path")
    path = item["path"]
    lfs = item.get("lfs")
    size = lfs.get("size", item.get("size")) if isinstance(lfs, dict) else item.get("size")
    size = told_size(size, shown(path)[:200])
    if isinstance(lfs, dict):
        oid = str(lfs.get("oid", lfs.get("sha256", "")))
        found.add(path, size, Digest.parse("sha256", oid.removeprefix("sha256:")))
        return
    digest = Digest.of_etag(str(item.get("oid", "")))
    found.add(path, size, digest if digest and digest.algorithm == "git-sha1" else None)


def _take_sibling(item: Any, found: _Found) -> None:
    """One item of ``siblings``: a name; what else is known of the file, its server is asked."""
    if not isinstance(item, dict) or not isinstance(item.get("rfilename"), str):
        raise ProtocolError("the hub names a file without a name")
    if found.count >= _MOST_ITEMS:
        raise ProtocolError(f"the hub names more than {_MOST_ITEMS:,} files, the most that mdl lists")
    found.add(item["rfilename"], None, None)


def _next_page(headers: Mapping[str, str], url: str) -> str | None:
    """The next page of a listing, which must be on the same origin (RFC 8288, rel="next")."""
    match = re.search(r'<([^<>]*)>\s*;[^,<]*rel="?next"?', headers.get("link", ""))
    if not match:
        return None
    try:
        target = urljoin(url, str(match[1]))
        is_same = origin_of(target) == origin_of(url)
    except ValueError as error:
        raise ProtocolError(f"the next page of the listing has no usable address: {error}") from error
    if not is_same:
        host = host_of(target)
        raise Unsafe(f"refused: the next page of the listing is on another host, {host}", item=host)
    return target
