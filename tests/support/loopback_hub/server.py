"""LoopbackHub: the server, with the hub on one port of 127.0.0.1 and its CDN on another.

    with LoopbackHub([Repo("demo/tiny", {"config.json": b"{}", "model.bin": Generated(2**25)})]) as hub:
        …                                 # HF_ENDPOINT=hub.url
    hub.requests                          # what both were asked, and how much they sent

The two ports are two origins, so whatever leaks from one to the other shows in `LoopbackHub.requests`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal

from support.faults.wire import Answer, Handler, Piece, Request
from support.faulty_server import FaultyServer
from support.loopback_hub.api import HubApi
from support.loopback_hub.cdn import Cdn
from support.loopback_hub.repos import Json, Repo
from support.loopback_hub.uploads import Uploads

_STEP = 64 * 1024
_BEATS = 20
"""How often a second a throttled connection sends."""


@dataclass(frozen=True)
class Recorded:
    """A request and what became of it, also while it is answered."""

    request: Request
    origin: Literal["hub", "cdn"]

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def path(self) -> str:
        """The path with its query."""
        return self.request.target

    @property
    def headers(self) -> dict[str, str]:
        """The headers, with lower-case names."""
        return {name.lower(): value for name, value in self.request.headers}

    @property
    def status(self) -> int:
        """The status of the answer; 0 before it begins."""
        return int(self.request.status.split()[1]) if self.request.status else 0

    @property
    def body_bytes_sent(self) -> int:
        return self.request.sent


class LoopbackHub:
    """The hub, a context manager. ``bytes_per_second`` limits every connection while it sends a file; ``lacks`` is as
    in `HubApi`."""

    def __init__(
        self, repos: Iterable[Repo], *, bytes_per_second: float | None = None, lacks: Iterable[str] = ()
    ) -> None:
        self.bytes_per_second = bytes_per_second
        self._recorded: list[Recorded] = []
        self._cdn = Cdn()
        self.api = HubApi(repos, self._cdn, lacks)
        self._servers = [FaultyServer(self._handler("hub")), FaultyServer(self._handler("cdn"))]
        self.url, self._cdn.origin = (server.url for server in self._servers)
        self._stack = ExitStack()

    @property
    def requests(self) -> list[Recorded]:
        """All requests so far, of both origins, in the order they came in."""
        return list(self._recorded)

    @property
    def uploads(self) -> Uploads:
        """What others upload to it."""
        return self.api.uploads

    def newest(self, repo_id: str, branch: str = "main", kind: str = "models") -> Repo:
        """The newest commit of a branch of a repository."""
        return [repo for repo in self.api.versions(kind, repo_id) if repo.branch == branch][-1]

    def publish(self, repo: Repo) -> None:
        """Move a branch to another commit, or add a repository, while the hub serves."""
        self.api.publish(repo)

    def put_on_xet(self, hashes: Mapping[str, str], read_token: Callable[[], Json], route: str = "") -> None:
        """From now on the files of these sha256 are on Xet too, under these hashes; ``route`` is the origin that the
        redirects name for the read token, if not the hub's own."""
        self.api.xet.update(hashes)
        self.api.read_token, self.api.xet_route = read_token, route

    def expire_links(self) -> None:
        """Make every signed link handed out so far invalid."""
        self._cdn.expire_links()

    def __enter__(self) -> LoopbackHub:
        for server in self._servers:
            self._stack.enter_context(server)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, tb)

    def _handler(self, origin: Literal["hub", "cdn"]) -> Handler:
        """Records each request of an origin; a file is sent at the pace of this moment."""

        def handler(request: Request, number: int) -> Answer:
            self._recorded.append(Recorded(request, origin))
            answer = (self.api if origin == "hub" else self._cdn).answer(request, number)
            pace = None if isinstance(answer.body, bytes) else self.bytes_per_second
            return answer if pace is None else replace(answer, body=_paced(answer.pieces(), pace))

        return handler


def _paced(pieces: Iterable[Piece], pace: float) -> Iterator[Piece]:
    """The bytes in small steps, each followed by a pause that keeps the pace."""
    began, sent, step = time.monotonic(), 0, max(min(int(pace / _BEATS), _STEP), 1)
    for piece in pieces:
        assert isinstance(piece, bytes)
        for at in range(0, len(piece), step):
            yield piece[at : at + step]
            sent = sent + min(step, len(piece) - at)
            yield max(0.0, began + sent / pace - time.monotonic())
