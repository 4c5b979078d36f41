"""The network of a client: whom it may ask, with which secrets and certificates, and within which limits."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from mdl.cancel import CancelToken
from mdl.config import places
from mdl.config.settings import Config
from mdl.errors import Deadline, UsageError
from mdl.redact import Secrets
from mdl.units import NO_RATE_LIMIT

if TYPE_CHECKING:
    from mdl.catalog.lock import Lock
    from mdl.catalog.model import Model
    from mdl.config.hosts import HostSettings
    from mdl.config.remotes import RemoteSettings
    from mdl.downloader.deadline import TimeLimit
    from mdl.downloader.hub_client import HubClient
    from mdl.net.allowlist import AllowList, OriginToken
    from mdl.net.client import HttpClient
    from mdl.net.credentials import HostCredential, HostTls
    from mdl.net.locators import Locate
    from mdl.net.network import Network
    from mdl.net.throttle import Throttle
    from mdl.sources import SourceContext
    from mdl.sources.hub_endpoint import Endpoint


class NetworkAccess:
    """Opens the HTTP clients of one `mdl.Client`; all of them share one limit on the rate.

    ``secrets`` are given every token and password that may be sent, before anything can be written down. ``warn`` is
    called with a sentence about what may hurt later.
    """

    def __init__(self, config: Config, cancel: CancelToken, warn: Callable[[str], None], secrets: Secrets) -> None:
        self.environ: Mapping[str, str] = config.environ
        self._config = config
        self._cancel = cancel
        self._warn = warn
        self._making = threading.Lock()
        self._throttle: Throttle | None = None
        self._warned: set[str] = set()
        for read in (self._hub_token, self._remote_keys, self._host_secrets, self._certificate_passwords):
            with contextlib.suppress(UsageError):  # whoever needs it is given the error
                secrets.add_all(read())

    # What may be sent, and to whom.

    @cached_property
    def endpoint(self) -> Endpoint:
        """The hub in use, and the token for it. Raises `UsageError`."""
        from mdl.sources.hub_endpoint import Endpoint

        return Endpoint.from_environ(self.environ)

    @cached_property
    def remotes(self) -> Mapping[str, RemoteSettings]:
        """The remotes of ``config.toml``, by their names. Raises `UsageError`."""
        tables: Mapping[str, RemoteSettings] = self._config.file.get("remotes", {})
        return tables

    @cached_property
    def _remote_tokens(self) -> Mapping[str, OriginToken]:
        """The keys of the remotes, by their names, each for the origin of its remote alone."""
        tokens = {name: settings.token(self.environ) for name, settings in self.remotes.items()}
        return {name: token for name, token in tokens.items() if token}

    @cached_property
    def credentials(self) -> Mapping[str, HostCredential]:
        """What the user's settings have mdl send to hosts, by ``[hosts."HOST"]``. Raises `UsageError` if that table is
        wrong."""
        if not self.host_tables:
            return {}
        from mdl.config.hosts import netrc_login

        login = partial(netrc_login, self.environ.get("HOME", ""))
        return {
            place: table.credential(self.environ, login)
            for place, table in self.host_tables.items()
            if table.has_credential
        }

    @cached_property
    def host_tls(self) -> Sequence[HostTls]:
        """What ``[hosts."HOST"]`` of ``config.toml`` says of certificates. No file is read. Raises `UsageError`."""
        settings = [table.tls(self.environ, places.config_dir()) for table in self.host_tables.values()]
        return [tls for tls in settings if tls]

    @property
    def host_tables(self) -> Mapping[str, HostSettings]:
        """The tables ``[hosts."HOST"]`` of ``config.toml``, by their hosts. Raises `UsageError`."""
        tables: Mapping[str, HostSettings] = self._config.file.get("hosts", {})
        return tables

    def _hub_token(self) -> Iterable[str | None]:
        return [self.endpoint.token]

    def _remote_keys(self) -> Iterable[str | None]:
        return [token.token for token in self._remote_tokens.values()]

    def _host_secrets(self) -> Iterable[str | None]:
        return [value for credential in self.credentials.values() for value in credential.values()]

    def _certificate_passwords(self) -> Iterable[str | None]:
        return [tls.password for tls in self.host_tls]

    def _tokens(self, models: Iterable[Model]) -> list[OriginToken | None]:
        """The tokens that a client for ``models`` may send: the hub's, and those of the remotes that they come from.
        Two remotes of one host may have two keys."""
        names = {getattr(origin, "remote", "") for model in models for origin in model.sources}
        return [self.endpoint.origin_token, *(self._remote_tokens[name] for name in names & self._remote_tokens.keys())]

    def hosts(
        self, models: Sequence[Model] = (), *, lock: Lock | None = None, more: Iterable[str] = (), mirror: str = ""
    ) -> AllowList:
        """The hosts that may be asked: the hub, those of ``models``, of what the ``lock`` says of them and of their
        mirrors, ``more``, and those that the user allows."""
        from mdl.catalog.resolver import Resolver
        from mdl.net.allowlist import AllowList, address_of, host_of

        of_models: list[str] = []
        if models:
            urls: list[str] = []
            if lock:
                urls += lock.urls(model.name for model in models)
                urls += self._config["mirror"]
                for model in models:
                    urls += model.mirrors
            if mirror:
                urls.append(mirror)
            of_models = list(Resolver(self.source_context()).hosts(models, urls))
        hosts = [host_of(self.endpoint.url), *of_models, *more]
        patterns = [f"[{host.strip('[]')}]" if ":" in host and address_of(host) else host for host in hosts]
        return AllowList.of(patterns, self._config["allow_hosts"])

    # The limits.

    @property
    def throttle(self) -> Throttle:
        """The limit on the rate of all operations of a client. (A `cached_property` would make several when several
        threads begin at once.) Raises `UsageError`."""
        from mdl.net.throttle import Throttle

        with self._making:
            if self._throttle is None:
                self._throttle = Throttle(self._config["limit_rate"] or NO_RATE_LIMIT)
            return self._throttle

    def time_limit(self) -> TimeLimit:
        """When an operation has to stop. Raises `Deadline` outside of the window."""
        from mdl.downloader.deadline import TimeLimit

        seconds = self._config["max_duration"]
        window = self._config["window"]
        limit = TimeLimit(math.inf if seconds is None else seconds, window)
        reason = limit.reason()
        if reason:
            raise Deadline(reason, hint="run the same command again within the window, or without it")
        return limit

    # What asks.

    def open(
        self,
        models: Sequence[Model] = (),
        *,
        lock: Lock | None = None,
        more: Iterable[str] = (),
        mirror: str = "",
        cancel: CancelToken | None = None,
        locate: Locate | None = None,
    ) -> Network:
        """The way to the `hosts` of ``models``, with the tokens that go with them. ``locate`` says where the files of
        other schemes than http(s) are. Close it when done. A wrong setting is an error here, before anything is asked.
        Raises `UsageError`."""
        from mdl.net.network import Network

        config = self._config
        hosts = self.hosts(models, lock=lock, more=more, mirror=mirror)
        config.check("connections", "stall", "retries", "patience")
        throttle = self.throttle
        tokens = self._tokens(models)
        credentials = self.credentials.values()
        hub = self.endpoint.url
        tls = self.host_tls
        cancel = cancel or self._cancel

        def connect() -> HttpClient:
            from mdl.net.client import HttpClient

            return HttpClient(
                hosts,
                tokens=tokens,
                credentials=credentials,
                hub=hub,
                limits=config.limits,
                cancel=cancel,
                throttle=throttle,
                environ=self.environ,
                tls=tls,
                warn=self._warn_once,
                locate=locate,
            )

        return Network(connect, config["connections"], cancel)

    def http(self, more: Iterable[str] = ()) -> HttpClient:
        """An open client for the hub and ``more`` hosts. Close it when done."""
        return self.open(more=more).http

    def hub_client(self, hosts: AllowList) -> HubClient:
        """huggingface_hub, which asks only these hosts."""
        from mdl.downloader.hub_client import HubClient
        from mdl.net.certificates import Trust

        trust = Trust(self.environ, self.host_tls, self._warn_once)
        hub = self.endpoint
        return HubClient(hub.url, hub.origin_token, hosts, self._config["stall"], trust, self.environ)

    def source_context(self, network: Network | None = None) -> SourceContext:
        """What a source works with that keeps nothing on the disk."""
        from mdl.sources import SourceContext

        return SourceContext(
            self.endpoint,
            Path(os.devnull),
            network,
            environ=self.environ,
            remotes=self.remotes,
            offline_by=self._config.offline_by,
        )

    def _warn_once(self, text: str) -> None:
        """Warn of what every HTTP client of this network would find again."""
        with self._making:
            is_new = text not in self._warned
            self._warned.add(text)
        if is_new:
            self._warn(text)
