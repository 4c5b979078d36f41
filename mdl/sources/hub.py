"""The hub as a source: a branch becomes a commit once, then the files are those of that commit's listing.

A hub is asked by its REST API (`mdl.sources.hub_api`); what it said of a commit is kept (`mdl.sources.hub_listing`), so
that it is not asked again, and is known offline.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from difflib import get_close_matches

from mdl.errors import DigestMismatch, LockError, MdlError, NotFound, Unsafe, UsageError, online_hint
from mdl.files import HubFile, RefusedFile, RemoteFile, role_of
from mdl.paths import RelPath, names_for_a_hint
from mdl.sources import RepoFacts, Source, SourceContext
from mdl.sources.gguf import of_quantisation
from mdl.sources.hub_api import KNOWN_CODES, WITHOUT_LISTS, RepositoryApi
from mdl.sources.hub_listing import Entry, Listing, Listings
from mdl.sources.hub_origin import HubOrigin, is_pinned, parse_reference
from mdl.sources.url import UrlSource


def parse(text: str, page_hosts: Collection[str]) -> HubOrigin:
    """The origin that ``hf:…`` names."""
    return parse_reference(text)


class HubSource(Source):
    """A hub. Offline only kept listings are known."""

    def __init__(self, context: SourceContext) -> None:
        self._url = context.endpoint.url
        self._listings = Listings(context.folder)
        self._context = context
        self._locks: defaultdict[HubOrigin, threading.Lock] = defaultdict(threading.Lock)
        self._asked: dict[HubOrigin, Listing] = {}
        self._last_whole: tuple[HubOrigin, Listing, list[RemoteFile]] | None = None

    # What a source does.

    def resolve(self, origin: HubOrigin) -> list[RemoteFile]:
        """Every file of the repository at one commit, narrowed to the origin's own path.

        A branch is asked for its commit once, whatever is taken from it. Nothing is contacted if the revision is
        pinned and its listing is kept. Raises `NotFound`, `AuthError`, `NetworkError`, `ProtocolError`, `Unsafe`.
        """
        return self._files(origin, self._listing(origin))

    def refused(self, origin: HubOrigin) -> list[RefusedFile]:
        """The files of ``origin`` whose names cannot be kept on this system. Raises as `resolve`."""
        listing = self._listing(origin)
        files = []
        for file in listing.refused_below(origin.subpath):
            sendable = file.path.encode(errors="replace").decode()
            files.append(replace(file, url=origin.file_url(self._hub_of(origin), listing.commit, sendable)))
        return files

    def known(self, origin: HubOrigin) -> list[RemoteFile] | None:
        """As `resolve`, from kept listings of its hub alone; None if there is none."""
        listing = self._listings.get(self._hub_of(origin), origin)
        return self._files(origin, listing) if listing else None

    def file(self, origin: HubOrigin, path: RelPath) -> RemoteFile:
        """The file at its stable URL, at the revision as it is written; at a commit with what a kept listing of this
        hub says of it."""
        origin.check_is_file()
        hub = self._hub_of(origin)
        revision = origin.revision or "main"
        remote = RemoteFile(
            path=path,
            url=origin.file_url(hub, revision, origin.subpath),
            hub=HubFile(origin.repo, origin.repo_type, revision, origin.subpath, endpoint=hub),
            vouched_by="hub",
        )
        if not is_pinned(revision):
            return remote
        remote = replace(remote, commit=revision)
        listing = self._listings.get(hub, origin)
        if listing is None:
            return remote
        entry = listing.entry(origin.subpath)
        return replace(remote, access=listing.access, digest=entry.digest if entry else None)

    def complete(self, origin: HubOrigin, stated: RemoteFile) -> RemoteFile:
        """The file as the hub's listing has it; a digest that the catalog states must be the hub's. What a listing of
        names alone lacks, the file's own answer has."""
        path = stated.hub.path if stated.hub else origin.subpath
        listed = self._listed_file(origin, path)
        if not listed.probed:
            listed = UrlSource(self._context).probe(replace(listed, path=stated.path))
        remote = replace(listed, path=stated.path, role=stated.role)
        if stated.digest is None or stated.digest == listed.digest:
            return remote
        if listed.digest and listed.digest.algorithm == stated.digest.algorithm:
            reason = f"the hub has {listed.digest}, the catalog says {stated.digest}"
            raise DigestMismatch(reason, item=stated.path.text)
        return replace(remote, digest=stated.digest, vouched_by=stated.vouched_by)

    def facts(self, origin: HubOrigin) -> RepoFacts:
        """Ask the hub for the facts of the repository, at this moment. Raises as `resolve`, and `LockError` offline."""
        return self._api(origin).facts()

    def modified_at(self, origin: HubOrigin) -> str | None:
        listing = self._asked.get(origin.whole)
        return listing.modified_at if listing else None

    # Listings.

    def _listing(self, origin: HubOrigin) -> Listing:
        """The listing that is kept if the revision cannot move, else that of the hub now. Each revision is asked for
        once."""
        whole = origin.whole
        with self._locks[whole]:
            if whole not in self._asked:
                is_offline = self._context.network is None
                listing = None
                if is_offline or is_pinned(origin.revision):
                    listing = self._listings.get(self._hub_of(origin), origin)
                if listing is None and is_offline:
                    listing = self._listing_of_cache(origin)
                self._asked[whole] = listing or self._listing_of_hub(origin)
            return self._asked[whole]

    def _listing_of_cache(self, origin: HubOrigin) -> Listing | None:
        """The listing of a revision in the cache of the hub's client; None if it has nothing of it. It does not say
        which hub that was."""
        cached = None if origin.endpoint else self._context.cached(str(origin.whole))
        if cached is None:
            return None
        commit, files, is_whole = cached
        if not is_whole:
            from mdl.events import Noticed

            name = origin.repository.removeprefix("hf:")
            words = f"{name}: these files are in Hugging Face's cache; nothing there says whether that is all"
            self._context.on_event(Noticed(message=words))
        entries = []
        for path, size, digest in files:
            with contextlib.suppress(Unsafe):  # it cannot be kept here, and so is not here
                entries.append(Entry(RelPath.of_repository(path), size, digest))
        return Listing(commit, tuple(entries), vouched_by="folder")

    def _listing_of_hub(self, origin: HubOrigin) -> Listing:
        """The listing that the hub gives now; it is kept."""
        try:
            listing = self._ask(origin)
        except MdlError as error:
            listing = self._listing_of_server(origin, error)
        if self._context.keeps and not listing.unlisted:
            hub = self._hub_of(origin)
            with contextlib.suppress(OSError, Unsafe):  # a listing that cannot be kept is asked for again
                self._listings.put(hub, origin, listing)
                if listing.commit != origin.revision:
                    self._listings.put(hub, replace(origin, revision=listing.commit), listing)
        return listing

    def _listing_of_server(self, origin: HubOrigin, error: MdlError) -> Listing:
        """The empty listing of a server that has a hub's files and not its API, after this ``error``: the file that
        ``origin`` names tells the commit, as it does to the hub's own client. Raises the error if it does not."""
        is_without_api = isinstance(error, NotFound) and error.server_code not in KNOWN_CODES
        if is_without_api and origin.subpath:
            with contextlib.suppress(NotFound):
                asked = UrlSource(self._context).probe(self.file(origin, origin.file_name))
                if asked.commit and is_pinned(asked.commit):
                    return Listing(asked.commit, (), unlisted=self._hub_of(origin))
        raise error.on(str(origin)) from error

    def _ask(self, origin: HubOrigin) -> Listing:
        """Ask the hub for a listing. A hub without ``/tree`` may name its files with the revision."""
        api = self._api(origin)
        answer = None
        commit = origin.revision or ""
        if not is_pinned(commit):
            answer = api.revision()
            commit = answer.commit
            kept = self._listings.get(self._hub_of(origin), replace(origin, revision=commit))
            if kept:
                return replace(kept, modified_at=answer.modified_at, access=answer.access)
        unlisted = ""
        try:
            files = api.files(commit)
        except MdlError as error:
            if error.status_code not in WITHOUT_LISTS or error.server_code in KNOWN_CODES:
                raise
            if answer is None or not answer.is_plain:
                try:
                    answer = api.plain_revision()
                except NotFound:
                    raise error from None
            files = answer.files
            if not files:
                unlisted = api.tree_url(commit)
        if answer is None:
            return files.listing(commit, access=api.access())
        return files.listing(commit, modified_at=answer.modified_at, access=answer.access, unlisted=unlisted)

    def _api(self, origin: HubOrigin) -> RepositoryApi:
        """Raises `UsageError` for a repository of another hub, `LockError` offline."""
        hub = self._hub_of(origin)
        if hub != self._url:
            hint = f"HF_ENDPOINT={hub} asks that hub; 'mdl get {origin}' takes what the hub in use has by this name"
            raise UsageError(f"it came from {hub}, and {self._url} is the hub in use", item=str(origin), hint=hint)
        http = self._context.http
        if http is None:
            hint = online_hint(self._context.offline_by)
            raise LockError("offline, and this revision was never listed here", item=str(origin), hint=hint)
        return RepositoryApi(http, hub, origin, self._context.on_retry(str(origin)))

    def _hub_of(self, origin: HubOrigin) -> str:
        """The URL of the hub that has a repository."""
        return origin.endpoint or self._url

    # The files of a listing.

    def _files(self, origin: HubOrigin, listing: Listing) -> list[RemoteFile]:
        """The files that ``origin`` means. Raises `NotFound` with what is near if there is none."""
        if listing.unlisted:
            return [self._unlisted_file(origin, listing)]
        if not (listing.entries or listing.refused):
            raise NotFound("the repository is empty", item=str(origin))
        if origin.subpath:
            return self._files_below(origin, listing)
        files = self._all_files(origin, listing)
        return of_quantisation(files, origin.quant, str(origin)) if origin.quant else files

    def _all_files(self, origin: HubOrigin, listing: Listing) -> list[RemoteFile]:
        """Every file. Those of the last repository are remembered: many models may each take a few files of one."""
        last = self._last_whole  # looked at once: another thread may put those of its repository there
        if last is None or last[:2] != (origin.whole, listing):
            last = (origin.whole, listing, self._remote_files(origin, listing, listing.entries))
            self._last_whole = last
        return last[2].copy()

    def _files_below(self, origin: HubOrigin, listing: Listing) -> list[RemoteFile]:
        """The file at the path of ``origin``, or those in the folder of that name."""
        entries = listing.below(origin.subpath)
        if not entries and not listing.refused_below(origin.subpath):
            names = [entry.path.text for entry in listing.entries]
            near = get_close_matches(origin.subpath, names, 3, 0.4) or names[:3]
            hint = f"available: {names_for_a_hint(near)}"
            if len(names) > len(near):
                hint += " …"
            raise NotFound(f"{origin.subpath} is not there at {listing.commit[:12]}", item=str(origin), hint=hint)
        return self._remote_files(origin, listing, entries)

    def _unlisted_file(self, origin: HubOrigin, listing: Listing) -> RemoteFile:
        """The one file that ``origin`` names, in a hub that lists no files; its server is asked for the rest."""
        if not origin.subpath:
            hint = f"name the files: mdl get {origin.repository.removeprefix('hf:')} FILE…"
            raise NotFound(f"this hub lists no files at {listing.unlisted}", item=str(origin), hint=hint)
        entry = Entry(RelPath.of_repository(origin.subpath), None, None)
        return self._remote_files(origin, listing, [entry])[0]

    def _listed_file(self, origin: HubOrigin, path: str) -> RemoteFile:
        for file in self._files(origin, self._listing(origin)):
            if file.hub and file.hub.path == path:
                return file
        raise NotFound("names a folder, not a file", item=str(origin))

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


open_source = HubSource
