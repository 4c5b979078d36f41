"""Workspace: which catalog, lock, models folder, hub and limits are in use, and the objects that this makes.

Everything is opened, and imported, when it is first used.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from mdl.cancel import CancelToken
from mdl.config import places
from mdl.config.settings import Config
from mdl.errors import Deadline, MdlError, UsageError
from mdl.listener import Listener, silence
from mdl.redact import Secrets

if TYPE_CHECKING:
    from mdl.catalog.lock import Lock
    from mdl.catalog.model import Catalog, Model
    from mdl.catalog.resolver import Resolver
    from mdl.config.hosts import HostSettings
    from mdl.config.remotes import RemoteSettings
    from mdl.downloader.copies import LocalCopies
    from mdl.downloader.deadline import TimeLimit
    from mdl.downloader.hub_client import HubClient
    from mdl.downloader.store import Store
    from mdl.net.allowlist import AllowList, OriginToken
    from mdl.net.body import Throttle
    from mdl.net.client import HttpClient
    from mdl.net.credentials import HostCredential, HostTls
    from mdl.net.network import Network
    from mdl.reports import Report
    from mdl.sources import CachedListing, Context
    from mdl.sources.endpoint import Endpoint

Folder = str | os.PathLike[str]


class Workspace:
    """What a `Client` works with. ``warn`` is told in words what may hurt later; ``secrets`` is told the token."""

    def __init__(
        self, config: Config, cancel: CancelToken, warn: Callable[[str], None], secrets: Secrets | None = None
    ) -> None:
        self.config = config
        self.cancel = cancel
        self.warn = warn
        self._secrets = secrets or Secrets()
        self.environ: Mapping[str, str] = config.environ
        self._making = threading.Lock()
        self._throttle: Throttle | None = None
        self._warned: set[str] = set()

    def _warn_once(self, words: str) -> None:
        """Warn of what every client of this workspace would find anew."""
        with self._making:
            is_new = words not in self._warned
            self._warned.add(words)
        if is_new:
            self.warn(words)

    # Catalog and lock.

    @cached_property
    def catalog_paths(self) -> tuple[tuple[Path, ...], str]:
        """The catalog files in use, and why these. One that another user may have written is warned of."""
        try:
            folder = places.config_dir()
        except UsageError:
            folder = places.working_folder()
        given = self.config.given.get("catalog") or ()
        named = [given] if isinstance(given, str | os.PathLike) else given
        paths, why = places.find_catalogs([Path(one) for one in named], self.environ, places.working_folder(), folder)
        if doubt := places.why_untrusted(paths[0], why):
            self.warn(f"{paths[0]} was found {why}, and {doubt}: if you trust it, name it with --catalog (catalog=)")
        return paths, why

    @property
    def has_shipped_catalog(self) -> bool:
        """Whether the catalog in use is the one that comes with mdl, and the user named none."""
        paths, why = self.catalog_paths
        return paths == (places.SHIPPED,) and not why.startswith("given")

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog in use. Raises `CatalogError` with every mistake in it."""
        from mdl.catalog.parsed import ParsedCatalogs
        from mdl.catalog.reader import read_catalog

        folder = None
        with contextlib.suppress(UsageError):
            folder = places.state_dir() / "parsed"
        return read_catalog(self.catalog_paths[0], self.web_base, ParsedCatalogs(folder))

    def web_base(self, url: str, named: str) -> str:
        """The text of a catalog at ``url``, which the catalog in use extends; ``named`` is the URL that a file on this
        disk has. Raises `MdlError`."""
        from mdl.catalog.extends import WebBases
        from mdl.net.allowlist import host_of

        folder = None
        with contextlib.suppress(UsageError):
            folder = places.state_dir() / "catalogs"
        connect = None if self.config.is_offline else lambda place: self.http(more=[host_of(place)])
        return WebBases(
            folder, connect, self.warn, prefers_copies=self.config["frozen"], offline_by=self.config.offline_by
        )(url, named)

    def place_of(self, model: Model) -> str:
        """Where a model was read: the file and line of its entry, or that it was named on the command line."""
        from mdl.catalog.reader import place_of

        return (place_of(model.name, [Path(model.origin)]) if model.is_of_catalog else "") or model.origin

    @cached_property
    def catalog_id(self) -> str:
        """Says of which catalog a file is, in its receipt."""
        paths = ["shipped" if path == places.SHIPPED else os.path.realpath(path) for path in self.catalog_paths[0]]
        return hashlib.sha256(os.fsencode("\0".join(sorted(paths)))).hexdigest()[:16]

    @cached_property
    def lock_path(self) -> Path:
        """Beside the catalog it locks; the catalog that comes with mdl is locked in the user's config folder."""
        first = self.catalog_paths[0][0]
        return (places.config_dir() if first == places.SHIPPED else first.absolute().parent) / places.LOCK_NAME

    @cached_property
    def locked(self) -> Lock | None:
        """What the lock file says; None if there is none. Raises `StateError` for a broken one, `Unsafe` for another
        user's."""
        from mdl.catalog.lock_file import read_lock

        try:
            if doubt := places.why_untrusted(self.lock_path, self.catalog_paths[1]):
                self.warn(f"{self.lock_path}: {doubt}")
            return read_lock(self.lock_path, self.catalog_paths[0][0])
        except UsageError:
            return None  # a user without a home folder has no settings and no lock

    @property
    def lock(self) -> Lock:
        """What the lock file says; an empty lock if there is none. Raises as `locked`."""
        from mdl.catalog.lock import Lock

        return self.locked or Lock()

    @cached_property
    def shipped_lock(self) -> Lock:
        """What is known of the files of the catalog that comes with mdl. It pins nothing: list and show tell it of an
        entry whose source was never asked, and which the user's own lock does not cover."""
        from mdl.catalog.lock import Lock

        return Lock.from_toml(places.SHIPPED_LOCK.read_text("utf-8"))

    def forget_catalog(self) -> None:
        """A catalog was just written: look anew which one is in use, and read it."""
        for name in ("catalog_paths", "catalog", "catalog_id", "lock_path"):
            self.__dict__.pop(name, None)
        self.forget_lock()

    def forget_lock(self) -> None:
        """The lock was just written: read it anew."""
        self.__dict__.pop("locked", None)

    def remember_first(self, models: Sequence[Model], report: Report) -> None:
        """Trust on first use: what came of files without a published digest is what the lock says from now on.

        The lock is read anew, for another process may have written it meanwhile.
        """
        if self.locked is None:
            return
        from mdl.catalog.lock_file import update_lock, with_first_digests

        try:
            catalog = self.catalog_paths[0][0]
            update_lock(self.lock_path, catalog, lambda lock: with_first_digests(lock, models, report))
            self.forget_lock()
        except MdlError as error:
            self.warn(f"the lock could not be brought up to date: {error.message}")

    # The models folder.

    @property
    def is_cache(self) -> bool:
        return bool(self.config["layout"] == "hf-cache")

    def store(self, models: Sequence[Model], into: Folder | None = None, cancel: CancelToken | None = None) -> Store:
        """The models folder. Raises `UsageError` for ``into`` with several models."""
        from mdl.downloader.layouts import HubCache
        from mdl.downloader.store import Store

        catalog = self.catalog_id if any(model.is_of_catalog for model in models) else None
        cancel = cancel or self.cancel
        if into is not None:
            if self.is_cache:
                raise UsageError("--into and --layout hf-cache do not go together", hint="--to (home=) names the cache")
            check_into(len(models))
            return Store(places.place_of(into, "--into"), into=True, catalog=catalog, cancel=cancel)
        layout = HubCache if self.is_cache else None
        return Store(self.config.home.path, layout=layout, catalog=catalog, cancel=cancel)

    @property
    def _usual_home(self) -> Path:
        """The models folder of the layout ``plain``, whatever is given for this run. Raises `UsageError`."""
        return replace(self.config, given={"layout": "plain"}).home.path

    def stores(self) -> list[Store]:
        """The models folder in use; and, unless folder or layout were given for this run, the one of the other layout:
        the usual models folder, or the hub's cache."""
        from mdl.downloader.layouts import HubCache
        from mdl.downloader.store import Store

        found = [self.store([])]
        if self.config.given.get("home") is None and self.config.given.get("layout") is None:
            with contextlib.suppress(UsageError):
                if self.is_cache:
                    found.append(Store(self._usual_home, cancel=self.cancel))
                else:
                    found.append(Store(places.hub_cache(self.environ), layout=HubCache, cancel=self.cancel))
        return found

    def local_copies(self, store: Store) -> LocalCopies | None:
        """Where on this machine the same bytes may be: ``store`` itself, the usual models folder, the hub's cache,
        ``[stores] also``. None if ``[stores] link`` says that nothing is to be taken from there."""
        from mdl.downloader.copies import LocalCopies
        from mdl.downloader.store import Store

        link = self.config["stores.link"]
        also = self.config["stores.also"]
        if link == "none":
            return None
        caches = [store.root] if store.layout.is_by_digest else []
        others = []
        with contextlib.suppress(UsageError):
            caches.append(places.hub_cache(self.environ))
        with contextlib.suppress(UsageError):
            others = [] if self._usual_home == store.root else [Store(self._usual_home)]
        return LocalCopies(store, others, tuple(dict.fromkeys(caches)), also, link)

    def _cached_listing(self, store: Store, reference: str) -> CachedListing | None:
        """What the hub's cache tells of the revision of a repository: the one that is ``store``, and the usual one."""
        from mdl.downloader.hub_repos import cached_listing
        from mdl.sources.hub_origin import parse_reference

        caches = [store.root] if store.layout.is_by_digest else []
        with contextlib.suppress(UsageError):
            caches.append(places.hub_cache(self.environ))
        return cached_listing(dict.fromkeys(caches), parse_reference(reference))

    # The network, and the limits on it.

    @cached_property
    def endpoint(self) -> Endpoint:
        """The hub in use, and the token for it. Raises `UsageError`."""
        from mdl.sources.endpoint import Endpoint

        found = Endpoint.from_environ(self.environ)
        self._secrets.add(found.token)
        return found

    @cached_property
    def remotes(self) -> Mapping[str, RemoteSettings]:
        """The remotes of ``config.toml``, by their names. Raises `UsageError`."""
        found: Mapping[str, RemoteSettings] = self.config.file.get("remotes", {})
        return found

    @cached_property
    def _remote_tokens(self) -> Mapping[str, OriginToken]:
        """The keys of the remotes, by their names, each for the origin of its remote alone."""
        found = {name: token for name, one in self.remotes.items() if (token := one.token(self.environ))}
        self._secrets.add_all(token.token for token in found.values())
        return found

    def _tokens(self, models: Iterable[Model]) -> list[OriginToken | None]:
        """The tokens that a client for ``models`` may send: the hub's, and those of the remotes that they come from.
        Two remotes of one host may have two keys."""
        origins = [origin for model in models for origin in model.sources]
        names = {getattr(origin, "remote", "") for origin in origins} & self._remote_tokens.keys()
        return [self.endpoint.origin_token, *(self._remote_tokens[name] for name in names)]

    @cached_property
    def credentials(self) -> Mapping[str, HostCredential]:
        """What the user's settings have mdl send to hosts, by ``[hosts."HOST"]``. Raises `UsageError` if one cannot be
        sent."""
        tables: Mapping[str, HostSettings] = self.config.file.get("hosts", {})
        if not tables:
            return {}
        from mdl.config.hosts import netrc_login

        login = partial(netrc_login, self.environ.get("HOME", ""))
        found = {
            place: table.credential(self.environ, login) for place, table in tables.items() if table.has_credential
        }
        for one in found.values():
            self._secrets.add_all(one.values())
        return found

    @cached_property
    def host_tls(self) -> Sequence[HostTls]:
        """What ``[hosts."HOST"]`` of ``config.toml`` says of certificates. No file is read. Raises `UsageError`."""
        tables: Mapping[str, HostSettings] = self.config.file.get("hosts", {})
        settings = [table.tls(self.environ, places.config_dir()) for table in tables.values()]
        found = [one for one in settings if one]
        self._secrets.add_all(one.password for one in found)
        return found

    def time_limit(self) -> TimeLimit:
        """When to stop. Raises `Deadline` outside the window."""
        from mdl.downloader.deadline import TimeLimit

        seconds = self.config["max_duration"]
        window = self.config["window"]
        limit = TimeLimit(math.inf if seconds is None else seconds, window)
        if limit.is_over():
            raise Deadline(f"outside the download window ({window})")
        return limit

    def hosts(
        self, models: Sequence[Model], more: Iterable[str] = (), *, with_lock: bool = True, mirror: str = ""
    ) -> AllowList:
        """The hosts that may be asked: the hub, those of ``models``, of their lock and of their mirrors, ``more``, and
        what the user allows."""
        from mdl.catalog.resolver import Resolver
        from mdl.net.allowlist import AllowList, address_of, host_of

        found: list[str] = []
        if models:
            lock = self.locked if with_lock else None
            mirrors = [*self.config["mirror"], *(url for model in models for url in model.mirrors)] if lock else []
            mirrors += [mirror] if mirror else []
            named = lock.urls(model.name for model in models) if lock else []
            found = Resolver(self.context()).hosts(models, [*named, *mirrors])
        hosts = [host_of(self.endpoint.url), *found, *more]
        patterns = [f"[{one.strip('[]')}]" if ":" in one and address_of(one) else one for one in hosts]
        return AllowList.of(patterns, self.config["allow_hosts"])

    def network(
        self,
        models: Sequence[Model] = (),
        cancel: CancelToken | None = None,
        more: Iterable[str] = (),
        *,
        with_lock: bool = True,
        mirror: str = "",
    ) -> Network:
        """The way to the `hosts` of ``models`` and ``more``. Close it when done."""
        from mdl.net.network import Network

        hosts = self.hosts(models, more, with_lock=with_lock, mirror=mirror)
        tokens = self._tokens(models)
        credentials = self.credentials.values()
        hub = self.endpoint.url
        tls = self.host_tls
        stall, connections, retries = (self.config[name] for name in ("stall", "connections", "retries"))
        patience, unanswered = self.config.patience
        _ = self.config["limit_rate"]  # a wrong setting is the caller's error, before anything is asked
        cancel = cancel or self.cancel

        def connect() -> HttpClient:
            from mdl.net.client import HttpClient, Timeouts
            from mdl.net.policy import RetryPolicy

            return HttpClient(
                hosts,
                tokens=tokens,
                credentials=credentials,
                hub=hub,
                timeouts=Timeouts(connect=min(10.0, stall), stall=stall),
                cancel=cancel,
                connections=connections,
                throttle=self.throttle,
                policy=RetryPolicy(retries, patience, unanswered),
                environ=self.environ,
                tls=tls,
                warn=self._warn_once,
            )

        return Network(connect, connections, cancel)

    def http(self, more: Iterable[str] = ()) -> HttpClient:
        """An open client for the hub and ``more`` hosts. Close it when done."""
        return self.network(more=more).http

    def context(self, network: Network | None = None) -> Context:
        """What a source works with that keeps nothing on the disk."""
        from mdl.sources import Context

        by = self.config.offline_by
        return Context(
            self.endpoint, Path(os.devnull), network, environ=self.environ, remotes=self.remotes, offline_by=by
        )

    @property
    def throttle(self) -> Throttle:
        """One for all operations of a client, also if several threads begin at once: `cached_property` makes several
        then."""
        from mdl.net.body import Throttle
        from mdl.units import NO_RATE_LIMIT

        with self._making:
            self._throttle = self._throttle or Throttle(self.config["limit_rate"] or NO_RATE_LIMIT)
            return self._throttle

    def hub_client(self, models: Sequence[Model]) -> HubClient | None:
        """The hub's own client, if it was asked for."""
        if self.config["via"] != "hub":
            return None
        from mdl.downloader.hub_client import HubClient
        from mdl.net.trust import Trust

        hub = self.endpoint
        trust = Trust(self.environ, self.host_tls, self._warn_once)
        return HubClient(hub.url, hub.origin_token, self.hosts(models), self.config["stall"], trust, self.environ)

    def resolver(
        self,
        store: Store,
        network: Network | None = None,
        on_event: Listener = silence,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        *,
        exact: bool = False,
        is_strict: bool = False,
        keeps: bool = True,
        mirror: str = "",
    ) -> Resolver:
        """What turns models into files. ``exact`` resolves to commits, past the lock; if it ``is_strict``, the settings
        ``locked`` and ``frozen`` hold: a model that the lock does not cover is then a `LockError`. What sources answer
        is kept for later if it ``keeps``. With a ``mirror`` the lock must cover every model, and its files are asked of
        that mirror alone."""
        from mdl.catalog.resolver import Resolver
        from mdl.sources import Context

        context = Context(
            self.endpoint,
            store.listings,
            network,
            on_event,
            self.environ,
            self.remotes,
            keeps,
            self.config.offline_by,
            cached=partial(self._cached_listing, store),
        )
        if exact:
            return Resolver(context, exact=True)
        lock = self.locked
        must, frozen = (self.config["locked"], self.config["frozen"]) if is_strict else (False, False)

        def pin(model: Model) -> Model:
            if must or frozen or mirror:
                pinned = self.lock.pin(model, stale=frozen and not must)
            elif lock and lock.covers(model):
                pinned = lock.pin(model)
            else:
                return model
            first = (mirror,) if mirror else self.config["mirror"]
            if lock is None or not (first or model.mirrors):
                return pinned
            from mdl.catalog.mirror_layout import with_mirrors

            return with_mirrors(pinned, lock.models[model.name], first, alone=bool(mirror))

        def describe(model: Model) -> Model | None:
            return self.shipped_lock.pin(model) if self.shipped_lock.covers(model) else None

        return Resolver(context, include=include, exclude=exclude, pin=pin, describe=describe)


def check_into(count: int, flag: str = "--into") -> None:
    """Raises `UsageError` unless one target is to go ``into`` a folder."""
    if count != 1:
        raise UsageError(f"{flag} takes one target, not {count}", hint="use --to (home=) for several")
