"""The hub's own origin: its API, and ``resolve`` with its redirects and headers.

It knows the requests of huggingface_hub 2.4 and answers as the hub was seen to answer. Only this origin sends
X-Repo-Commit, X-Linked-Etag and X-Linked-Size. Small files take one hop more, to ``/api/resolve-cache``.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode

from support.faults.base import honest, with_headers
from support.faults.wire import Answer, Request, reply
from support.loopback_hub.cdn import Cdn
from support.loopback_hub.repos import Json, Repo, StoredFile
from support.loopback_hub.uploads import Uploads

_ID = r"(?:[^/]+/)??[^/]+"
_TYPE = r"models|datasets|spaces"
_API = re.compile(rf"/api/({_TYPE})/({_ID})(?:/(revision|tree)(?:/(.*))?)?")
_SEARCH = re.compile("/api/(models|datasets)")
_XET_TOKEN = re.compile(rf"/api/({_TYPE})/({_ID})/xet-read-token/([^/]+)")
_RESOLVE = re.compile(rf"/(?:(datasets|spaces)/)?({_ID})/resolve/(refs/(?:pr|convert)/[^/]+|[^/]+)/(.+)")
_CACHED = re.compile(rf"/api/resolve-cache/({_TYPE})/({_ID})/([0-9a-f]{{40}})/(.+)")


class Refusal(Exception):
    """Ends the search for an answer: a status, the code that clients read, and the message in a header and as JSON."""

    def __init__(self, status: int, code: str, message: str, *headers: tuple[str, str]) -> None:
        coded = [("X-Error-Code", code)] if code else []
        self.answer = _json({"error": message}, *coded, ("X-Error-Message", message), *headers, status=status)


class HubApi:
    """Answers the hub's origin from repositories; several commits of one repository may be published."""

    def __init__(self, repos: Iterable[Repo], cdn: Cdn, lacks: Iterable[str] = ()) -> None:
        """``lacks`` says what a smaller hub does not know: ``tree``, ``expand``, ``siblings``."""
        self._cdn, self._lock = cdn, threading.Lock()
        self._lacks = frozenset(lacks)
        self.xet: dict[str, str] = {}
        """The Xet hashes of the files that are on Xet, by their sha256."""
        self.xet_route = ""
        """Where the redirects say that it is, if not here."""
        self.read_token: Callable[[], Json] = dict
        """What the API answers if it is asked for a read token of Xet."""
        self.uploads = Uploads(self)
        self._repos: dict[tuple[str, str], list[Repo]] = {}
        for repo in repos:
            self.publish(repo)

    def publish(self, repo: Repo) -> None:
        """Put this commit at the head of its branch; earlier commits stay reachable by their hash."""
        with self._lock:
            self._repos.setdefault((f"{repo.repo_type}s", repo.id), []).append(repo)

    def versions(self, kind: str, repo_id: str) -> list[Repo]:
        """The commits of a repository, the newest at the end."""
        with self._lock:
            return list(self._repos.get((kind, repo_id), ()))

    def answer(self, request: Request, number: int) -> Answer:
        try:
            if (answer := self.uploads.answer(request)) is not None:
                return answer
            if found := _CACHED.fullmatch(request.path):
                return self._cached(request, *map(unquote, found.groups()))
            if found := _API.fullmatch(request.path):
                kind, repo_id, call, rest = found.groups()
                return self._api(request, kind, unquote(repo_id), call, rest)
            if found := _SEARCH.fullmatch(request.path):
                return self._search(found[1], dict(parse_qsl(request.query)))
            if found := _XET_TOKEN.fullmatch(request.path):
                self._at(found[1], unquote(found[2]), found[3])
                token = self.read_token()
                names = {"casUrl": "Cas-Url", "accessToken": "Access-Token", "exp": "Token-Expiration"}
                told = [
                    (f"X-Xet-{name}", shown)
                    for key, name in names.items()
                    if (shown := str(token.get(key, ""))).isprintable()
                ]
                return _json(token, *told)
            if found := _RESOLVE.fullmatch(request.path):
                kind, repo_id, rev, path = found.groups()
                return self._resolve(request, kind or "models", *map(unquote, (repo_id, rev, path)))
            raise Refusal(404, "", "Not Found")
        except Refusal as refusal:
            return refusal.answer

    def _at(self, kind: str, repo_id: str, rev: str, request: Request | None = None) -> Repo:
        """The repository at a branch or commit. Raises `Refusal` if there is none, or it is private."""
        versions = self.versions(kind, repo_id)
        if not versions:
            raise Refusal(404, "RepoNotFound", "Repository not found")
        given = request.header("authorization") if request else ""
        if versions[-1].private and not (versions[-1].token and given == f"Bearer {versions[-1].token}"):
            raise Refusal(401, "RepoNotFound", "Invalid username or password.")
        for repo in reversed(versions):
            if rev in (repo.branch, repo.commit):
                return repo
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {rev}")

    def _file(self, request: Request, kind: str, repo_id: str, rev: str, path: str) -> tuple[Repo, StoredFile]:
        """A file of a repository. Raises `Refusal` for one of a gated repository: 401 without a token, else 403, as for
        an account that did not accept the licence."""
        repo = self._at(kind, repo_id, rev, request)
        if repo.gated:
            why = f"Access to {repo.repo_type} {repo.id} is restricted."
            raise Refusal(403 if request.header("authorization") else 401, "GatedRepo", why)
        file = repo.stored.get(path)
        if file is None:
            raise Refusal(404, "EntryNotFound", "Entry not found", ("X-Repo-Commit", repo.commit))
        return repo, file

    def _resolve(self, request: Request, kind: str, repo_id: str, rev: str, path: str) -> Answer:
        """A redirect: to the CDN for an LFS file, else to the small file's address on the hub. It has a body, as the
        hub's redirects have, so its Content-Length is not the file's."""
        repo, file = self._file(request, kind, repo_id, rev, path)
        tail = urlencode({request.path: "", "etag": f'"{file.etag}"'})
        cached = f"/api/resolve-cache/{kind}/{quote(repo_id)}/{repo.commit}/{quote(path)}?{tail}"
        location = self._cdn.link(file) if file.lfs else cached
        text = f"Redirecting to {location}".encode()
        told = [("Location", location), ("ETag", f'"{file.etag}"'), *_facts(repo, file)]
        if file.lfs and (known := self.xet.get(file.sha256)):
            here = self.xet_route or f"http://{request.header('host')}"
            route = f"<{here}/api/{kind}/{quote(repo_id)}/xet-read-token/{repo.commit}>"
            told += [("X-Xet-Hash", known), ("Link", f'{route}; rel="xet-auth"')]
        return reply(302 if file.lfs else 307, text, *told)

    def _cached(self, request: Request, kind: str, repo_id: str, commit: str, path: str) -> Answer:
        repo, file = self._file(request, kind, repo_id, commit, path)
        return with_headers(honest(file.content, etag=f'"{file.etag}"'), *_facts(repo, file))(request, 0)

    def _search(self, kind: str, words: dict[str, str]) -> Answer:
        """The repositories whose names hold the words."""
        with self._lock:
            heads = [repos[-1] for (of_kind, _), repos in self._repos.items() if of_kind == kind]
        names = [
            repo for repo in heads if all(word in repo.id.lower() for word in words.get("search", "").lower().split())
        ]
        facts = [
            repo.info() | {"usedStorage": sum(map(len, repo.files.values()))} for repo in names if not repo.private
        ]
        return _json(facts[: int(words.get("limit", "100"))])

    def _api(self, request: Request, kind: str, repo_id: str, call: str | None, rest: str | None) -> Answer:
        rev, _, path = (rest or "main").partition("/")
        repo, under = self._at(kind, repo_id, unquote(rev), request), unquote(path)
        asked = parse_qs(request.query)
        flags = {name for name, values in asked.items() if values[0].lower() in ("true", "1")}
        if call in self._lacks:
            raise Refusal(404, "", "Not Found")
        if call != "tree":
            if "expand" in asked and "expand" in self._lacks:
                raise Refusal(400, "", '"expand" is not allowed')
            info = repo.info(blobs="blobs" in flags)
            if "siblings" in self._lacks:
                del info["siblings"]
            names = {"_id", "id", *asked.get("expand", info)}
            return _json({name: value for name, value in info.items() if name in names})
        items = repo.listing(under, recursive="recursive" in flags)
        if items is None:
            raise Refusal(404, "EntryNotFound", f"{under} does not exist on {repo.commit}")
        return _json(items)


def _json(value: Any, *headers: tuple[str, str], status: int = 200) -> Answer:
    return reply(status, json.dumps(value).encode(), ("Content-Type", "application/json; charset=utf-8"), *headers)


def _facts(repo: Repo, file: StoredFile) -> list[tuple[str, str]]:
    """The headers that only the hub's origin sends with a file."""
    linked = [("X-Linked-Etag", f'"{file.etag}"'), ("X-Linked-Size", str(file.size))]
    return [("X-Repo-Commit", repo.commit), *linked, ("Accept-Ranges", "bytes")]
