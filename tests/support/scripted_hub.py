"""The sources in a world whose every answer is scripted: for what no hub says that is in order (docs/adr/0108)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_httpx import HTTPXMock

from mdl.catalog.resolver import Resolver
from mdl.events import Event
from mdl.hashing import Digest
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.policy import Limits, RetryPolicy
from mdl.sources import SourceContext
from mdl.sources.hub import HubSource
from mdl.sources.hub_endpoint import Endpoint
from mdl.sources.hub_listing import Listings
from mdl.sources.hub_origin import HubOrigin
from mdl.sources.hub_protocol import file_item
from support.networks import network_of

HUB = "https://huggingface.co"
COMMIT, LATER = "c" * 40, "d" * 40
SHA, GIT = "ab" * 32, "12" * 20
ORIGIN = HubOrigin("org/repo")
PINNED = HubOrigin("org/repo", revision=COMMIT)
AT_ONCE = RetryPolicy(tries=3, first=0.0)
REVISION = f"{HUB}/api/models/org/repo/revision/main?expand=sha&expand=gated&expand=private&expand=lastModified"

_ACCESS = re.compile(rf"{HUB}/api/.*/revision/[0-9a-f]{{40}}\?expand=gated&expand=private")


def tree_url(commit: str = COMMIT, more: str = "", repo: str = "models/org/repo") -> str:
    return f"{HUB}/api/{repo}/tree/{commit}?recursive=true&expand=false{more}"


@dataclass(frozen=True)
class _File:
    path: Any
    size: Any
    digest: Digest


def entry(path: Any = "config.json", size: Any = 10, **more: Any) -> dict[str, Any]:
    """An item of a listing; ``path`` and ``size`` may be anything, and ``more`` replaces what is right."""
    return {**file_item(_File(path, size, Digest("git-sha1", GIT))), **more}


def large(path: str = "model.safetensors", size: int = 1000, oid: str = SHA) -> dict[str, Any]:
    """An item of a listing: a large file with this sha256."""
    return file_item(_File(path, size, Digest("sha256", oid)))


class World:
    """A hub's client and sources over kept listings; ``told`` are the events."""

    def __init__(self, folder: Path, mock: HTTPXMock, token: str | None = None) -> None:
        self.mock, self.told, self.waits = mock, list[Event](), list[float]()
        self.endpoint = Endpoint(token=token)
        self.folder = folder / "listings"
        self.listings = Listings(self.folder)
        self.http = HttpClient(
            AllowList.of([]), tokens=[self.endpoint.origin_token], limits=Limits(policy=AT_ONCE), hub=HUB
        )
        self.http.cancel.wait = self.waits.append  # type: ignore[method-assign]
        self._mock_access()
        self.next_run()
        self.offline = HubSource(self._context(None))
        self.sources = Resolver(self._context(self.http))

    def _mock_access(self) -> None:
        """Say nothing of who may have the files of a commit, whenever that is asked."""
        self.mock.add_response(url=_ACCESS, json={}, is_optional=True, is_reusable=True)

    def next_run(self) -> None:
        """What one run asked is asked again in the next."""
        self.hub = HubSource(self._context(self.http))

    def _context(self, http: HttpClient | None) -> SourceContext:
        return SourceContext(self.endpoint, self.folder, network_of(http) if http else None, self.told.append)

    def revision(self, commit: Any = COMMIT, **more: Any) -> None:
        """Answer which commit the branch is."""
        self.mock.add_response(url=REVISION, json={"id": "org/repo", "sha": commit}, **more)

    def tree(self, *entries: Any, commit: str = COMMIT, **more: Any) -> None:
        """Answer the listing at a commit."""
        self.mock.add_response(url=tree_url(commit), json=list(entries), **more)

    @property
    def asked(self) -> list[str]:
        """All requests, but those about who may have the files of a commit."""
        urls = [str(request.url) for request in self.mock.get_requests()]
        return [url for url in urls if not _ACCESS.fullmatch(url)]


@contextmanager
def world(folder: Path, mock: HTTPXMock, patch: pytest.MonkeyPatch, token: str | None = None) -> Iterator[World]:
    """A `World` that no proxy variable of this machine disturbs."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        patch.delenv(name, raising=False)
        patch.delenv(name.lower(), raising=False)
    made = World(folder, mock, token)
    with made.http:
        yield made
