"""Hub: the stand-in for Hugging Face of the demo, the tests and the benchmarks (docs/adr/0108). It opens no socket.

    request to the hub        → Hub.answer       → a document (mdl.sources.hub_protocol), a small file, or a redirect
    request to the body host  → Hub.body_answer  → the bytes of a large file, all or a range

Who serves it gives each of the two an origin of its own. It answers as the hub was seen to answer: a large file is
redirected to a signed link that expires; a small one takes one hop more, on the hub; only the hub's own origin names
the commit and the digest. The body host has ETags of its own, words a refusal in XML, and refuses every token.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, unquote, urlencode

from mdl.demo.repositories import Content, Repo, StoredFile, blocks
from mdl.net.ranges import answer_to
from mdl.sources import hub_protocol
from mdl.sources.hub_protocol import HubCall

_CACHED = re.compile(r"/api/resolve-cache/(model|dataset|space)s/((?:[^/]+/)??[^/]+)/([0-9a-f]{40})/(.+)")
_LINK_SECONDS = 3600
_PIECE = 64 * 1024


@dataclass(frozen=True)
class HubRequest:
    """A request. ``target`` is the path with its query; ``headers`` have lower-case names."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        """Still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


@dataclass(frozen=True)
class HubAnswer:
    """An answer. ``headers`` have its Content-Length; a ``body`` that is not ``bytes`` is a file, in pieces."""

    status: int
    headers: Mapping[str, str]
    body: bytes | Iterable[bytes]


class RefusalError(Exception):
    """Ends the search for an answer. ``code`` is what the hub's clients read, "" for none."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        coded = hub_protocol.refusal_headers(code, message)
        self.answer = json_answer({"error": message}, {**coded, **(headers or {})}, status=status)


class Hub:
    """Repositories, and the answers about them; of one repository several commits may be published.

    ``url`` and ``body_url`` are the origins at which the hub and its body host are served.
    """

    page_size: ClassVar[int] = 1000
    """How many items one answer has of a listing."""

    def __init__(self, repos: Iterable[Repo]) -> None:
        self.url = ""
        self.body_url = ""
        self._lock = threading.Lock()
        self._commits: dict[tuple[str, str], list[Repo]] = {}
        self._linked: dict[str, StoredFile] = {}
        self._key = secrets.token_bytes(32)
        for repo in repos:
            self.publish(repo)

    def publish(self, repo: Repo) -> None:
        """Put this commit at the head of its branch; earlier ones stay reachable by their hash."""
        with self._lock:
            self._commits.setdefault((repo.repo_type, repo.id), []).append(repo)

    def commits(self, repo_type: str, repo_id: str) -> list[Repo]:
        """The commits of a repository, the newest at the end."""
        with self._lock:
            return list(self._commits.get((repo_type, repo_id), ()))

    def heads(self, repo_type: str) -> list[Repo]:
        """The newest commit of each repository of a type."""
        with self._lock:
            return [commits[-1] for (of_type, _), commits in self._commits.items() if of_type == repo_type]

    def newest(self, repo_id: str, branch: str = "main", repo_type: str = "model") -> Repo:
        """The newest commit of a branch of a repository."""
        return [repo for repo in self.commits(repo_type, repo_id) if repo.branch == branch][-1]

    def expire_links(self) -> None:
        """Make every signed link that was handed out so far invalid."""
        self._key = secrets.token_bytes(32)

    # --- the hub's own origin ------------------------------------------------------------------------------

    def answer(self, request: HubRequest) -> HubAnswer:
        """Answer a request to the hub's own origin."""
        try:
            return self.find_answer(request)
        except RefusalError as refusal:
            return refusal.answer

    def find_answer(self, request: HubRequest) -> HubAnswer:
        """The answer to a request that is not refused. Raises `RefusalError`."""
        cached = _CACHED.fullmatch(request.path)
        if cached:
            repo_type, repo_id, commit, path = map(unquote, cached.groups())
            repo = self.repo_at(request, repo_type, repo_id, commit)
            file = _file_in(request, repo, path)
            return _file_answer(request, file.content, hub_protocol.file_headers(file, repo.commit))
        call = hub_protocol.parse_call(request.path)
        if call is None:
            raise RefusalError(404, "", "Not Found")
        repo = self.repo_at(request, call.repo_type, call.repo, call.revision)
        if call.call == "resolve":
            return self._redirect(request, repo, _file_in(request, repo, call.path))
        return self._document(request, call, repo)

    def repo_at(self, request: HubRequest, repo_type: str, repo_id: str, revision: str) -> Repo:
        """The repository at a branch or commit. Raises `RefusalError` if there is none, or if it is private."""
        commits = self.commits(repo_type, repo_id)
        if not commits:
            raise RefusalError(404, "RepoNotFound", "Repository not found")
        head = commits[-1]
        if head.private and not head.is_open_to(request.authorization):
            raise RefusalError(401, "RepoNotFound", "Invalid username or password.")
        for repo in reversed(commits):
            if revision in (repo.branch, repo.commit):
                return repo
        raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def _document(self, request: HubRequest, call: HubCall, repo: Repo) -> HubAnswer:
        """What the API says about a repository."""
        if call.call == "refs":
            heads = {commit.branch: commit.commit for commit in self.commits(call.repo_type, call.repo)}
            return json_answer(hub_protocol.refs(heads))
        if call.call == "paths-info":
            return json_answer(hub_protocol.paths_info(repo.stored, hub_protocol.asked_paths(request.body)))
        if call.call == "tree":
            return self._page(request, call, repo)
        info = repository_info(repo, blobs=hub_protocol.is_asked(request.query, "blobs"))
        names = {"_id", "id", *parse_qs(request.query).get("expand", info)}
        return json_answer({name: value for name, value in info.items() if name in names})

    def _page(self, request: HubRequest, call: HubCall, repo: Repo) -> HubAnswer:
        """A page of a listing, and where the next one is."""
        recursive = hub_protocol.is_asked(request.query, "recursive")
        items = hub_protocol.tree(repo.stored, call.path, recursive=recursive)
        if items is None:
            raise RefusalError(404, "EntryNotFound", f"{call.path} does not exist on {repo.commit}")
        asked = {name: values[0] for name, values in parse_qs(request.query).items()}
        start = int(asked.get("cursor", "0"))
        stop = start + self.page_size
        headers = {}
        if stop < len(items):
            query = urlencode({**asked, "cursor": str(stop)})
            headers["Link"] = f'<{self.url}{request.path}?{query}>; rel="next"'
        return json_answer(items[start:stop], headers)

    def _redirect(self, request: HubRequest, repo: Repo, file: StoredFile) -> HubAnswer:
        """The redirect for a file: of a large one to the body host, of a small one to its address on the hub.

        It has a body, as the hub's redirects have, so that its Content-Length is not the file's.
        """
        if file.is_large:
            status = HTTPStatus.FOUND
            location = self.link(file)
        else:
            status = HTTPStatus.TEMPORARY_REDIRECT
            tail = urlencode({request.path: "", "etag": hub_protocol.etag(file)})
            location = f"/api/resolve-cache/{repo.repo_type}s/{quote(repo.id)}/{repo.commit}/{quote(file.path)}?{tail}"
        headers = {**hub_protocol.file_headers(file, repo.commit), "Location": location}
        return bytes_answer(status, f"Redirecting to {location}".encode(), headers)

    # --- the body host -------------------------------------------------------------------------------------

    def link(self, file: StoredFile) -> str:
        """A signed URL of the bytes of a large file: good for an hour, for every client that has it."""
        path = f"/xet-bridge-us/{file.digest.hex[:24]}/{file.digest.hex}"
        self._linked[path] = file
        expires = str(int(time.time() + _LINK_SECONDS))
        name = quote(f'inline; filename="{file.path.rpartition("/")[2]}";', safe="")
        signature = self._signature(path, expires)
        return f"{self.body_url}{path}?response-content-disposition={name}&Expires={expires}&Signature={signature}"

    def body_answer(self, request: HubRequest) -> HubAnswer:
        """Answer a request to the body host."""
        if request.authorization is not None:
            return _xml_answer(400, "InvalidArgument", "Only one auth mechanism allowed")
        asked = {name: values[0] for name, values in parse_qs(request.query).items()}
        expires = asked.get("Expires", "")
        given = asked.get("Signature", "")
        if not hmac.compare_digest(given.encode(), self._signature(request.path, expires).encode()):
            return _xml_answer(403, "AccessDenied", "Access denied")
        if time.time() >= int(expires):
            return _xml_answer(403, "AccessDenied", "Request has expired")
        file = self._linked[request.path]
        own_etag = hashlib.md5(file.digest.hex.encode(), usedforsecurity=False).hexdigest()
        return _file_answer(request, file.content, {"ETag": f'"{own_etag}"', "Accept-Ranges": "bytes"})

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._key, f"{path}?{expires}".encode(), "sha256").hexdigest()


def repository_info(repo: Repo, *, blobs: bool = False) -> dict[str, Any]:
    """What the API says about a repository at a commit."""
    gated = "auto" if repo.gated else False
    files = repo.stored.values()
    info = hub_protocol.repository_info(repo.id, repo.commit, files, gated=gated, private=repo.private, blobs=blobs)
    times = dict.fromkeys(("lastModified", "createdAt"), "2026-01-01T00:00:00.000Z")
    return {**info, "author": repo.id.rpartition("/")[0], **times}


def _file_in(request: HubRequest, repo: Repo, path: str) -> StoredFile:
    """A file of a repository.

    Raises `RefusalError` for one of a gated repository: with 401 without a token, and with 403 for the token of an
    account that did not accept the licence.
    """
    if repo.gated and not repo.is_open_to(request.authorization):
        status = 401 if request.authorization is None else 403
        raise RefusalError(status, "GatedRepo", f"Access to {repo.repo_type} {repo.id} is restricted.")
    file = repo.stored.get(path)
    if file is None:
        raise RefusalError(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repo.commit})
    return file


def _file_answer(request: HubRequest, content: Content, headers: Mapping[str, str]) -> HubAnswer:
    """The bytes of a file, or the range of them that is asked for; ``headers`` have its ETag."""
    size = len(content)
    part = answer_to(request.headers, size, headers["ETag"])
    facts = {**headers, "Content-Type": "application/octet-stream", "Content-Length": str(part.stop - part.start)}
    if part.status == HTTPStatus.PARTIAL_CONTENT:
        facts["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    elif part.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        facts["Content-Range"] = f"bytes */{size}"
    return HubAnswer(part.status, facts, blocks(content, part.start, part.stop, _PIECE))


def bytes_answer(status: int, body: bytes, headers: Mapping[str, str]) -> HubAnswer:
    """An answer with its Content-Length."""
    return HubAnswer(status, {**headers, "Content-Length": str(len(body))}, body)


def json_answer(value: object, headers: Mapping[str, str] | None = None, *, status: int = 200) -> HubAnswer:
    """A value as JSON."""
    typed = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return bytes_answer(status, json.dumps(value).encode(), typed)


def _xml_answer(status: int, code: str, message: str) -> HubAnswer:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return bytes_answer(status, text.encode(), {"Content-Type": "application/xml"})
