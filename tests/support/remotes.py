"""Remotes as their users have them, in this process: asked by a client that waits for nothing between two tries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdl.catalog.model import Model
from mdl.catalog.resolver import Resolver
from mdl.config.remotes import RemoteSettings, read_remotes
from mdl.context import Context
from mdl.downloader.store import Store
from mdl.errors import UsageError
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.policy import Limits, RetryPolicy
from mdl.ops.get import GetRequest, get
from mdl.reports import Report
from mdl.results.base import JobOrigin, open_remote
from mdl.sources import SourceContext
from mdl.sources.hub_endpoint import Endpoint
from mdl.toml.table import Problems, Table
from mdl.values import value_class
from support.bench import ONE_CONNECTION
from support.networks import network_of

KEY_CANARY = "KEY-CANARY-5ae1"
"""A key that must be in no message."""


@value_class
class _AtOnce(RetryPolicy):
    waits: list[float | None] = field(default_factory=list)

    def delay(self, failure: int, jitter: float, asked: float | None = None) -> float:
        self.waits.append(asked)
        return 0.0


@dataclass
class World:
    """The remotes of ``config.toml``, and a client that knows their keys."""

    context: SourceContext
    http: HttpClient
    waits: list[float | None]
    """What servers asked to wait, before each further try."""

    def open(self, name: str = "gpu") -> Any:
        return open_remote(self.context.remotes[name], self.context)

    def fetch(self, folder: Path, *origins: JobOrigin) -> Report:
        """Bring the results of jobs to ``folder/m0``, ``folder/m1`` and so on."""
        store = Store(folder)
        resolver = Resolver(self.context)
        self.http.follower.locate = resolver.locate
        models = [Model(f"m{number}", sources=(origin,)) for number, origin in enumerate(origins)]
        return get(
            Context(resolver, store, network_of(self.http), lock_wait=0.0, tuning=ONE_CONNECTION),
            GetRequest(tuple(models)),
        )


def settings_of(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, RemoteSettings]:
    """What the tables ``[remotes.NAME]`` mean. Raises `UsageError`."""
    problems = Problems("config.toml", UsageError)
    found = read_remotes(Table({"remotes": tables}, (), problems.file(Path("config.toml"))).table("remotes"))
    problems.check()
    return found


@contextmanager
def world(
    tables: Mapping[str, Mapping[str, Any]], environ: Mapping[str, str] | None = None, *, stall: float = 6.0
) -> Iterator[World]:
    """The tables ``[remotes.NAME]`` by name."""
    environ, remotes = environ or {}, settings_of(tables)
    tokens = [one.token(environ) for one in remotes.values()]
    hosts, policy = AllowList.of(["127.0.0.1"]), _AtOnce(3)
    with HttpClient(hosts, tokens=tokens, limits=Limits(connect=2, stall=stall, policy=policy)) as http:
        context = SourceContext(
            Endpoint("http://127.0.0.1:9"), Path(os.devnull, "none"), network_of(http), environ=environ, remotes=remotes
        )
        yield World(context, http, policy.waits)
