"""Session: what one run of mdl has at hand. The composition root; everything is opened here, and imported, late: a
command that has to do with trained runs alone needs no catalog, no store and no source."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdl.cli import places
from mdl.cli.flags import Choice, Common, Home, Layout, Locking, Network, Via, Where
from mdl.cli.signals import the_signals
from mdl.console import Console
from mdl.deadline import TimeLimit
from mdl.errors import Deadline, MdlError, UsageError
from mdl.events import Listener, Report, silence
from mdl.units import Window, parse_duration, parse_rate

if TYPE_CHECKING:
    from mdl.catalog.lock import Lock
    from mdl.catalog.model import Catalog, Model
    from mdl.engine.hub_client import HubClient
    from mdl.engine.local_copies import LocalCopies
    from mdl.engine.store import Store
    from mdl.http.client import Http
    from mdl.http.hosts import Hosts
    from mdl.sources import Sources
    from mdl.sources.endpoint import Endpoint


class Session:
    """One command's run. ``empty`` is what its JSON document holds when it fails before it has results; ``words``
    are the command line as it could be typed again."""

    def __init__(self, command: str, common: Common, environ: Mapping[str, str], words: tuple[str, ...] = ()) -> None:
        self.command, self.common, self.environ, self.words = command, common, environ, words
        self.empty: dict[str, Any] = {}
        self._catalog_id: str | None = None
        self.signals = the_signals()
        self.cancel = self.signals.cancel
        self.console = Console(
            progress=common.progress.value if common.progress else "auto",
            quiet=common.quiet,
            verbose=common.verbose,
            color=not common.no_color,
            json_output=common.json,
            environ=environ,
            cancel=self.cancel,
        )

    @cached_property
    def config(self) -> dict[str, Any]:
        return places.read_config()

    def check_config(self) -> None:
        """Raises `UsageError` where the settings are wrong."""
        assert self.config is not None

    @property
    def defaults(self) -> dict[str, Any]:
        found: dict[str, Any] = self.config.get("defaults", {})
        return found

    @cached_property
    def catalog_place(self) -> tuple[tuple[Any, ...], str]:
        """The catalog files in use, and why these. One that may be somebody else's is told of."""
        from mdl.catalog.find import doubt, find_catalogs

        try:
            folder = places.config_dir()
        except UsageError:
            folder = places.working_folder()
        paths, why = find_catalogs(self.common.catalog or (), self.environ, places.working_folder(), folder)
        if doubted := doubt(paths[0], why):
            self.console.warn(f"{paths[0]} was found {why}, and {doubted}: if you trust it, name it with --catalog")
        return paths, why

    @cached_property
    def catalog(self) -> Catalog:
        from mdl.catalog.read import read_catalog

        return read_catalog(self.catalog_place[0])

    @cached_property
    def lock_path(self) -> Path:
        """Beside the catalog it locks; the catalog that comes with mdl is locked in the user's config folder."""
        from mdl.catalog.find import SHIPPED
        from mdl.catalog.lock import NAME

        first = Path(self.catalog_place[0][0])
        return (places.config_dir() if first == SHIPPED else first.absolute().parent) / NAME

    @cached_property
    def lock(self) -> Lock | None:
        """Raises `StateError` for a broken one, `Unsafe` for another user's."""
        from mdl.catalog.find import doubt
        from mdl.operations.lock import read_lock

        try:
            if doubted := doubt(self.lock_path, self.catalog_place[1]):
                self.console.warn(f"{self.lock_path}: {doubted}")
            return read_lock(self.lock_path, self.catalog_place[0][0])
        except UsageError:
            return None  # nobody's home: no settings, no lock

    def pin(self, locking: Locking) -> Callable[[Model], Model]:
        """What the lock makes of a model. Raises `LockError` there where the flags ask for a lock and there is none."""
        from mdl.catalog.lock import Lock

        lock = self.lock
        if locking.locked or locking.frozen:
            held, stale = lock or Lock(), locking.frozen and not locking.locked
            return lambda model: held.pin(model, stale=stale)
        if lock is None:
            return lambda model: model
        return lambda model: lock.pin(model) if lock.covers(model) else model

    def locked_urls(self, models: Sequence[Model]) -> list[str]:
        """Where the lock says that these models come from, which the user's own lock allows."""
        return self.lock.urls(model.name for model in models) if self.lock else []

    def remember_first(self, models: Sequence[Model], report: Report) -> None:
        """Trust on first use: what came of files without a published digest is what the lock says from now on.

        The lock is read anew, for somebody may have written it meanwhile.
        """
        from mdl.operations.lock import update_lock, with_first_digests

        if self.lock is None:
            return
        try:
            update_lock(
                self.lock_path,
                self.catalog_place[0][0],
                lambda lock: lock and with_first_digests(lock, models, report),
            )
        except MdlError as error:
            self.console.warn(f"the lock could not be brought up to date: {error.message}")

    @cached_property
    def endpoint(self) -> Endpoint:
        from mdl.sources.endpoint import Endpoint

        found = Endpoint.from_environ(self.environ)
        if found.token:
            self.console.secrets.add(found.token)
        return found

    def use_catalog(self) -> None:
        """Have the stores that are opened from now on note that files are there for the catalog in use."""
        import hashlib

        from mdl.catalog.find import SHIPPED

        paths = ["shipped" if path == SHIPPED else str(Path(path).resolve()) for path in self.catalog_place[0]]
        self._catalog_id = hashlib.sha256("\0".join(sorted(paths)).encode()).hexdigest()[:16]

    def models(self, targets: Sequence[str], choice: Choice) -> list[Model]:
        """What the targets mean. The catalog is read only where one of them is a name."""
        from mdl.catalog.model import Catalog
        from mdl.catalog.targets import is_adhoc, models_of

        is_named = not all(is_adhoc(target) for target in targets)
        catalog = self.catalog if is_named else Catalog()
        if is_named:
            self.use_catalog()
        return models_of(targets, catalog, self.endpoint.page_hosts, choice.revision)

    def home(self, where: Where | Home) -> places.Place:
        """The models folder, or the hub's cache, and why this one. Raises `UsageError`."""
        if where.layout is Layout.hf_cache:
            return places.cache_home(where.to, self.environ)
        return places.models_home(where.to, self.environ, self.defaults)

    def store(self, where: Where | Home, models: Sequence[Model] = (), targets: Sequence[str] = ()) -> Store:
        """The models folder. Raises `UsageError` for ``--into`` with several targets or models."""
        from mdl.engine.layout import HubCache
        from mdl.engine.store import Store

        into = where.into if isinstance(where, Where) else None
        if where.layout is Layout.hf_cache:
            if into is not None:
                raise UsageError("--into and --layout hf-cache do not go together", hint="--to names the cache")
            return Store(self.home(where).path, layout=HubCache, catalog=self._catalog_id, cancel=self.cancel)
        if into is not None:
            count = max(len(models), len(targets))
            if count != 1:
                raise UsageError(f"--into takes one target, not {count}", hint="use --to for several")
            into = places.expanded(into, "--into")
            return Store(into, into=True, catalog=self._catalog_id, cancel=self.cancel)
        return Store(self.home(where).path, catalog=self._catalog_id, cancel=self.cancel)

    def elsewhere(self, store: Store) -> LocalCopies | None:
        """Where on this machine the same bytes may be: ``store`` itself, the usual models folder, the hub's cache,
        ``[stores] also``. None if ``[stores] link`` says that nothing is to be taken from there."""
        from mdl.engine.local_copies import LocalCopies
        from mdl.engine.store import Store

        wishes = self.config.get("stores", {})
        if wishes.get("link") == "none":
            return None
        caches, others = [store.root] if store.is_by_digest else [], []
        with contextlib.suppress(UsageError):
            caches.append(places.hub_cache(self.environ))
        with contextlib.suppress(UsageError):
            home = places.models_home(None, self.environ, self.defaults).path
            others = [] if home == store.root else [Store(home)]
        also = [places.expanded(one, "[stores] also") for one in wishes.get("also", [])]
        return LocalCopies(store, others, tuple(dict.fromkeys(caches)), also, wishes.get("link", "auto"))

    def is_offline(self, network: Network) -> bool:
        from mdl.sources.endpoint import is_true

        hub = is_true(self.environ.get("HF_HUB_OFFLINE")) or is_true(self.environ.get("TRANSFORMERS_OFFLINE"))
        return network.offline or hub

    def time_limit(self, network: Network) -> TimeLimit:
        """When to stop. Raises `Deadline` outside the window."""
        seconds = parse_duration(network.max_duration, "--max-duration") if network.max_duration else math.inf
        limit = TimeLimit(seconds, Window.parse(network.window, "--window") if network.window else None)
        if limit.is_over():
            raise Deadline(f"it is not the time for it: the window is {network.window}")
        return limit

    def carrier(self, network: Network, models: Iterable[Model]) -> HubClient | None:
        """The hub's own client, where it was asked for."""
        if network.via is not Via.hub:
            return None
        from mdl.engine.hub_client import HubClient

        stall = parse_duration(network.stall, "--stall")
        return HubClient(self.endpoint.url, self.endpoint.bearer, self.hosts(models), stall)

    def http(self, network: Network, models: Iterable[Model], more: Iterable[str] = ()) -> Http:
        """A client that may speak to the hub, to what models and ``more`` name, and to what the user allowed."""
        from mdl.http.client import Http, Timeouts
        from mdl.http.policy import RetryPolicy
        from mdl.http.throttle import NO_LIMIT, Throttle

        stall = parse_duration(network.stall, "--stall")
        return Http(
            self.hosts(models, more),
            bearer=self.endpoint.bearer,
            timeouts=Timeouts(connect=min(10.0, stall), stall=stall),
            cancel=self.cancel,
            connections=network.connections,
            throttle=Throttle(parse_rate(network.limit_rate, "--limit-rate")) if network.limit_rate else NO_LIMIT,
            policy=RetryPolicy(network.retries),
        )

    def hosts(self, models: Iterable[Model], more: Iterable[str] = ()) -> Hosts:
        from mdl.http.hosts import Hosts, host_of
        from mdl.sources.direct import hub_origin

        patterns = [host_of(self.endpoint.url)]
        trusted = self.environ.get("MDL_ALLOW_HOSTS", "").split(",")
        trusted += [str(host) for host in self.defaults.get("allow_hosts", [])]
        for model in models:
            urls = [url for url in model.urls if hub_origin(url, self.endpoint) is None]
            patterns += [host_of(url) for url in urls]
        return Hosts.of([*patterns, *map(host_of, more)], trusted)

    def sources(
        self,
        store: Store,
        *,
        http: Http | None = None,
        tell: Listener = silence,
        choice: Choice = Choice(),  # noqa: B008 - frozen
        locking: Locking | None = None,
        exact: bool = False,
    ) -> Sources:
        """``locking`` None resolves without any lock; ``exact`` to commits everywhere."""
        from mdl.sources import Sources
        from mdl.sources.listings import Listings

        return Sources(
            self.endpoint,
            Listings(store.listings),
            http,
            tell=tell,
            include=choice.include or (),
            exclude=choice.exclude or (),
            pin=self.pin(locking) if locking else lambda model: model,
            exact=exact,
        )
