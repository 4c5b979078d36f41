"""The hub, by its REST answers: a branch becomes a commit once, then one listing with sizes and digests.

Protocol: ``GET /api/{type}s/{id}/revision/{rev}`` and ``/tree/{commit}?recursive=true`` with Link pagination
(https://huggingface.co/docs/hub/api). Every name and digest in an answer is hostile input.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from mdl.catalog.model import HubOrigin, is_pinned
from mdl.errors import LockError, MdlError, NotFound, ProtocolError, Unsafe
from mdl.events import Listener, Retrying
from mdl.files import HubFile, RemoteFile
from mdl.hashing import Digest
from mdl.http.hosts import host_of, origin_of
from mdl.paths import RelPath, refuse_twins
from mdl.sources.endpoint import Endpoint
from mdl.sources.listings import Entry, Listing, Listings

if TYPE_CHECKING:
    from mdl.http.client import Http

_MOST_PAGES = 1000
_MOST_ITEMS = 500_000
"""Files and folders of all pages together: about a gigabyte of memory."""
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".parquet")
_VOCAB = ("vocab", "tokenizer", "spiece", "merges", "sentencepiece", "special_tokens")
_NO_DATA = re.compile(r"(.*/)?(\.gitattributes|\.gitignore|readme.*|licen[sc]e.*|dataset_infos?\.json|[^/]*\.py)", re.I)


class HubSource:
    """One hub. ``http`` is None when nothing may be contacted: then only kept listings are known."""

    def __init__(self, endpoint: Endpoint, listings: Listings, http: Http | None, tell: Listener) -> None:
        self.endpoint = endpoint
        self._listings, self._http, self._tell = listings, http, tell
        self._locks: defaultdict[tuple[str, str, str | None], threading.Lock] = defaultdict(threading.Lock)
        self._asked: dict[tuple[str, str, str | None], Listing] = {}

    def resolve(self, origin: HubOrigin) -> list[RemoteFile]:
        """Every file of the repository at one commit, narrowed to the origin's own path.

        A branch is asked for its commit once, whatever is taken from it. Contacts nobody where the revision is
        pinned and its listing is kept. Raises `NotFound`, `AuthError`,
        `NetworkError`, `ProtocolError`, `Unsafe`.
        """
        key = (origin.repo_type, origin.repo, origin.revision)
        with self._locks[key]:
            listing = self._asked.get(key) or self._listed(origin)
            self._asked[key] = listing
        return self._files(origin, listing)

    def _listed(self, origin: HubOrigin) -> Listing:
        """What is kept if the revision cannot move, else what the hub says now."""
        listing = self._kept(origin) if is_pinned(origin.revision) or self._http is None else None
        if listing is None:
            try:
                listing = self._ask(origin)
            except MdlError as error:
                raise error.on(str(origin)) from error
            self._keep(origin, listing)
        return listing

    def known(self, origin: HubOrigin) -> list[RemoteFile] | None:
        """As `resolve`, from what is kept alone; None where nothing is."""
        listing = self._kept(origin)
        return self._files(origin, listing) if listing else None

    def _kept(self, origin: HubOrigin) -> Listing | None:
        return self._listings.get(self.endpoint.url, origin)

    def _keep(self, origin: HubOrigin, listing: Listing) -> None:
        try:
            self._listings.put(self.endpoint.url, origin, listing)
            pinned = replace(origin, revision=listing.commit)
            if pinned.revision != origin.revision:
                self._listings.put(self.endpoint.url, pinned, listing)
        except (OSError, Unsafe):
            return  # a listing that cannot be kept is asked for again

    def _files(self, origin: HubOrigin, listing: Listing) -> list[RemoteFile]:
        below = origin.subpath
        entries = [
            e for e in listing.entries if not below or e.path.text == below or e.path.text.startswith(below + "/")
        ]
        if not entries:
            raise NotFound(
                f"{below or 'the repository'} is not there at {listing.commit[:12]}"
                if below
                else "the repository is empty",
                item=str(origin),
                hint=_near(below, listing),
            )
        return [
            RemoteFile(
                path=entry.path,
                url=self.endpoint.resolve_url(origin, listing.commit, entry.path.text),
                size=entry.size,
                digest=entry.digest,
                commit=listing.commit,
                role=role_of(entry.path.text),
                probed=True,
                hub=HubFile(origin.repo, origin.repo_type, listing.commit, entry.path.text, origin.branch),
            )
            for entry in entries
        ]

    def _ask(self, origin: HubOrigin) -> Listing:
        commit = origin.revision if is_pinned(origin.revision) else None
        if commit is None:
            info, _, _ = self._json(self.endpoint.api_url(origin, "revision", origin.revision or "main"), origin)
            commit = info.get("sha") if isinstance(info, dict) else None
            if not isinstance(commit, str) or not is_pinned(commit):
                raise ProtocolError("the hub names no commit for this revision")
        entries = self._tree(origin, commit)
        refuse_twins(entry.path for entry in entries)
        return Listing(commit, tuple(sorted(entries, key=lambda entry: entry.path)))

    def _tree(self, origin: HubOrigin, commit: str) -> list[Entry]:
        url: str | None = self.endpoint.api_url(origin, "tree", commit) + "?recursive=true&expand=false"
        entries: list[Entry] = []
        asked: set[str] = set()
        items = 0
        while url is not None:
            if url in asked:
                raise ProtocolError("the hub's listing goes round in circles")
            if len(asked) >= _MOST_PAGES:
                raise ProtocolError(f"the hub's listing has more than {_MOST_PAGES} pages")
            asked.add(url)
            page, headers, final = self._json(url, origin)
            if not isinstance(page, list):
                raise ProtocolError("the hub's listing is not a list")
            items += len(page)
            if items > _MOST_ITEMS:
                hint = "mdl cannot list a repository of this size; fetch the files that you need by their URLs"
                raise ProtocolError(f"the hub's listing has more than {_MOST_ITEMS:,} files and folders", hint=hint)
            entries += [_entry(item) for item in page if not _is_folder(item)]
            url = _next_page(headers, final)
        return entries

    def _json(self, url: str, origin: HubOrigin) -> tuple[Any, Mapping[str, str], str]:
        http = self._http
        if http is None:
            raise LockError("offline, and this revision was never listed here", item=str(origin), hint="go online once")
        return http.patience.ask(
            url,
            lambda: http.get_json(url),
            lambda error, failure, delay: self._tell(
                Retrying(model=str(origin), why=error.message, attempt=failure, delay=delay)
            ),
        )


def _is_folder(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == "directory"


def _entry(item: Any) -> Entry:
    """One item of a tree answer; the digest is the LFS sha256, else the git blob id."""
    if not isinstance(item, dict) or not isinstance(item.get("path"), str):
        raise ProtocolError("the hub's listing has an entry without a path")
    path, lfs = RelPath.parse(item["path"]), item.get("lfs")
    size = lfs.get("size", item.get("size")) if isinstance(lfs, dict) else item.get("size")
    if type(size) is not int or size < 0:
        raise ProtocolError("the hub's listing has no size for it", item=path.text)
    if isinstance(lfs, dict):
        oid = str(lfs.get("oid", lfs.get("sha256", "")))
        return Entry(path, size, Digest.parse("sha256", oid.removeprefix("sha256:")))
    found = Digest.of_etag(str(item.get("oid", "")))
    return Entry(path, size, found if found and found.algorithm == "git-sha1" else None)


def _next_page(headers: Mapping[str, str], url: str) -> str | None:
    """The next page of a listing, which must be on the same origin (RFC 8288, rel="next")."""
    match = re.search(r'<([^<>]*)>\s*;[^,<]*rel="?next"?', headers.get("link", ""))
    if not match:
        return None
    try:
        target = urljoin(url, str(match[1]))
        is_same = origin_of(target) == origin_of(url)
    except ValueError as error:
        raise ProtocolError(f"the listing goes on at no usable address: {error}") from error
    if not is_same:
        raise Unsafe(f"refused: the listing goes on at another host, {host_of(target)}", item=host_of(target))
    return target


def _near(below: str, listing: Listing) -> str:
    names = [entry.path.text for entry in listing.entries]
    near = get_close_matches(below, names, 3, 0.4) or names[:3]
    return f"there is {', '.join(near)}" + (" …" if len(names) > len(near) else "")


def role_of(path: str) -> str:
    """What a file is for, by its name: weights, vocab, config or other."""
    name = path.rsplit("/", 1)[-1].lower()
    if name.endswith(_WEIGHTS):
        return "weights"
    if name.startswith(_VOCAB):
        return "vocab"
    return "config" if name.endswith((".json", ".yaml", ".yml", ".toml")) else "other"


def lacks_data(files: list[RemoteFile]) -> bool:
    """True for a dataset repository that holds only cards and loader scripts."""
    return all(_NO_DATA.fullmatch(file.path.text) for file in files)
