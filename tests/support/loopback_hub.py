"""LoopbackHub: the hub of `mdl.demo.hub`, served on 127.0.0.1 to tests, benchmarks and pictures (docs/adr/0108).

    with LoopbackHub([Repo("demo/tiny", {"config.json": b"{}", "model.bin": Generated(2**25)})]) as hub:
        …                                 # HF_ENDPOINT=hub.url
    hub.requests                          # what both origins were asked, and how much they sent

The ordinary answers are those of `mdl.demo.hub.Hub`, and nowhere else; here are those that only tests need: uploads,
search, Xet, a hub that knows less, and `LoopbackHub.script`, by which a test answers a request by itself. Hub and body
host are two origins, so that whatever leaks from one to the other shows in `LoopbackHub.requests`.
`tests/support/test_loopback_hub.py` checks it over plain HTTP, `tests/cli/test_hf_cache.py` with the hub's own client.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, parse_qsl, quote, unquote

from mdl.demo.hub import Hub, HubAnswer, HubRequest, RefusalError, json_answer, repository_info
from mdl.demo.repositories import Content, Repo
from mdl.sources.hub_protocol import parse_call
from support.faults.wire import Answer, Handler, Piece, Request
from support.faulty_server import FaultyServer
from support.generated import Generated
from support.hub_uploads import Uploads

__all__ = ["Content", "Generated", "LoopbackHub", "Recorded", "Repo"]

_SEARCH = re.compile("/api/(model|dataset)s")
_XET_TOKEN = re.compile(r"/api/(model|dataset|space)s/((?:[^/]+/)??[^/]+)/xet-read-token/([^/]+)")
_XET_HEADERS = {"casUrl": "X-Xet-Cas-Url", "accessToken": "X-Xet-Access-Token", "exp": "X-Xet-Token-Expiration"}
_API = ("/api/models", "/api/datasets")
_STEP = 64 * 1024
_BEATS = 20
"""How often a second a throttled connection sends."""

Script = Callable[[Request, int], Answer | None]


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


class LoopbackHub(Hub):
    """The hub, a context manager.

    ``bytes_per_second`` limits every connection while it sends a file. ``lacks`` says what a smaller hub does not know:
    ``tree``, ``expand``, ``siblings``, ``redirects`` (it sends all bytes itself), ``headers`` (it names no commit and
    no digest). ``script`` is asked before either origin answers; when it returns None, the ordinary answer is sent.
    """

    def __init__(
        self,
        repos: Iterable[Repo],
        *,
        bytes_per_second: float | None = None,
        lacks: Iterable[str] = (),
        script: Script | None = None,
    ) -> None:
        super().__init__(repos)
        self.bytes_per_second = bytes_per_second
        self.script = script
        self.uploads = Uploads(self)
        self._lacks = frozenset(lacks)
        self._xet: dict[str, str] = {}
        self._xet_route = ""
        self._read_token: Callable[[], dict[str, Any]] = dict
        self._recorded: list[Recorded] = []
        self._servers = [FaultyServer(self._handler("hub")), FaultyServer(self._handler("cdn"))]
        self.url, self.body_url = (server.url for server in self._servers)
        self._stack = ExitStack()

    def __enter__(self) -> LoopbackHub:
        for server in self._servers:
            self._stack.enter_context(server)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, tb)

    @property
    def requests(self) -> list[Recorded]:
        """All requests so far, of both origins, in the order they came in."""
        return list(self._recorded)

    @property
    def sent(self) -> int:
        """The bytes of files that were sent so far."""
        answered = [one for one in self.requests if one.status in (200, 206)]
        return sum(one.body_bytes_sent for one in answered if not one.path.startswith(_API))

    def put_on_xet(self, hashes: Mapping[str, str], read_token: Callable[[], dict[str, Any]], route: str = "") -> None:
        """From now on the files of these sha256 are on Xet too, under these hashes. ``read_token`` makes the answer to
        who asks for one; ``route`` is the origin that the redirects name for it, if not the hub's own."""
        self._xet.update(hashes)
        self._read_token = read_token
        self._xet_route = route

    def _handler(self, origin: Literal["hub", "cdn"]) -> Handler:
        """Records each request of an origin, and answers it as the script says, or as is usual."""

        def handler(request: Request, number: int) -> Answer:
            self._recorded.append(Recorded(request, origin))
            scripted = self.script(request, number) if self.script else None
            return scripted or self.ordinary(request, number)

        return handler

    def ordinary(self, request: Request, number: int) -> Answer:
        """What the hub or its body host itself answers, at the pace of this moment. It is a handler, which a script may
        spoil."""
        headers = {name.lower(): value for name, value in request.headers}
        asked = HubRequest(request.method, request.target, headers, request.body)
        answer = self.answer(asked) if request.origin == self.url else self.body_answer(asked)
        body: Any = answer.body
        if not isinstance(body, bytes) and self.bytes_per_second is not None:
            body = _paced(body, self.bytes_per_second)
        return Answer(answer.status, [*answer.headers.items()], body)

    # --- what only tests need ------------------------------------------------------------------------------

    def find_answer(self, request: HubRequest) -> HubAnswer:
        if answer := self.uploads.answer(request):
            return answer
        if words := _SEARCH.fullmatch(request.path):
            return self._search(words[1], dict(parse_qsl(request.query)))
        if asked := _XET_TOKEN.fullmatch(request.path):
            repo_type, repo_id, revision = map(unquote, asked.groups())
            self.repo_at(request, repo_type, repo_id, revision)
            token = self._read_token()
            told = {header: str(token[key]) for key, header in _XET_HEADERS.items() if key in token}
            return json_answer(token, {name: text for name, text in told.items() if text.isprintable()})
        call = parse_call(request.path)
        name = call.call if call else ""
        if name in self._lacks:
            raise RefusalError(404, "", "Not Found")
        if name == "info" and "expand" in self._lacks & parse_qs(request.query).keys():
            raise RefusalError(400, "", '"expand" is not allowed')
        answer = super().find_answer(request)
        if name == "info" and "siblings" in self._lacks:
            assert isinstance(answer.body, bytes)
            info = json.loads(answer.body)
            info.pop("siblings", None)
            return json_answer(info)
        if name == "resolve":
            return self._resolved(request, self._with_xet(request, answer))
        return answer

    def _search(self, repo_type: str, words: dict[str, str]) -> HubAnswer:
        """The repositories whose names hold the words."""
        wanted = words.get("search", "").lower().split()
        named = [repo for repo in self.heads(repo_type) if all(word in repo.id.lower() for word in wanted)]
        facts = [
            repository_info(repo) | {"usedStorage": sum(map(len, repo.files.values()))}
            for repo in named
            if not repo.private
        ]
        return json_answer(facts[: int(words.get("limit", "100"))])

    def _with_xet(self, request: HubRequest, answer: HubAnswer) -> HubAnswer:
        """The same redirect; if its file is on Xet, it says so."""
        xet_hash = self._xet.get(answer.headers["ETag"].strip('"'))
        call = parse_call(request.path)
        if xet_hash is None or call is None:
            return answer
        route = f"{self._xet_route or self.url}/api/{call.repo_type}s/{quote(call.repo)}"
        link = f'<{route}/xet-read-token/{answer.headers["X-Repo-Commit"]}>; rel="xet-auth"'
        return replace(answer, headers={**answer.headers, "X-Xet-Hash": xet_hash, "Link": link})

    def _resolved(self, request: HubRequest, answer: HubAnswer) -> HubAnswer:
        """The answer of a hub that sends no redirects, or tells nothing in headers."""
        if "redirects" in self._lacks:
            to = replace(request, target=answer.headers["Location"].removeprefix(self.body_url))
            answer = self.answer(to) if to.path.startswith("/api/") else self.body_answer(to)
        if "headers" in self._lacks:
            kept = {name: value for name, value in answer.headers.items() if not name.startswith("X-")}
            own_etag = hashlib.md5(kept["ETag"].encode(), usedforsecurity=False).hexdigest()
            answer = replace(answer, headers={**kept, "ETag": f'"{own_etag}"'})
        return answer


def at_path(part: str, handler: Handler) -> Script:
    """A script that answers the requests with this part in their path."""

    def script(request: Request, number: int) -> Answer | None:
        return handler(request, number) if part in request.path else None

    return script


def _paced(pieces: Iterable[bytes], pace: float) -> Iterator[Piece]:
    """The bytes in small steps, each followed by a pause that keeps the pace."""
    began, sent, step = time.monotonic(), 0, max(min(int(pace / _BEATS), _STEP), 1)
    for piece in pieces:
        for at in range(0, len(piece), step):
            yield piece[at : at + step]
            sent = sent + min(step, len(piece) - at)
            yield max(0.0, began + sent / pace - time.monotonic())
