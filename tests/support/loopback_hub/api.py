"""The hub's own origin: its API, and ``resolve`` with its redirects and headers.

It knows the questions of huggingface_hub 2.4 and answers as the hub was seen to answer. Only this origin sends
X-Repo-Commit, X-Linked-Etag and X-Linked-Size. Small files take one hop more, to ``/api/resolve-cache``.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterable
from urllib.parse import parse_qs, quote, unquote, urlencode

from support.loopback_hub.answers import Reply, Request, error_reply, file_reply, json_reply, redirect_reply
from support.loopback_hub.cdn import Cdn
from support.loopback_hub.repos import Json, Repo, StoredFile

_ID = r"(?:[^/]+/)??[^/]+"
_TYPE = r"models|datasets|spaces"
_API = re.compile(rf"/api/({_TYPE})/({_ID})(?:/(revision|tree|refs|paths-info)(?:/(.*))?)?")
_RESOLVE = re.compile(rf"/(?:(datasets|spaces)/)?({_ID})/(resolve|raw)/(refs/(?:pr|convert)/[^/]+|[^/]+)/(.+)")
_CACHED = re.compile(rf"/api/resolve-cache/({_TYPE})/({_ID})/([0-9a-f]{{40}})/(.+)")
_TEXT = (".json", ".txt", ".md", ".yaml", ".py", ".csv")


class Refusal(Exception):
    """Ends the search for an answer with a refusal or a redirect."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class HubApi:
    """Answers the hub's origin from repositories; several commits of one repository may be published."""

    def __init__(self, repos: Iterable[Repo], *, cdn: Cdn, token: str | None = None, page_size: int = 1000) -> None:
        self._cdn, self._token, self._page_size = cdn, token, page_size
        self._lock = threading.Lock()
        self._repos: dict[tuple[str, str], list[Repo]] = {}
        self._renamed: dict[tuple[str, str], str] = {}
        self.origin = ""
        for repo in repos:
            self.publish(repo)

    def publish(self, repo: Repo) -> None:
        """Put this commit at the head of its branch; earlier commits stay reachable by their hash."""
        kind = f"{repo.repo_type}s"
        with self._lock:
            self._repos.setdefault((kind, repo.id), []).append(repo)
            self._renamed.update({(kind, old): repo.id for old in repo.renamed_from})

    def answer(self, request: Request) -> Reply:
        try:
            if found := _CACHED.fullmatch(request.path):
                return self._cached(request, *map(unquote, found.groups()))
            if found := _API.fullmatch(request.path):
                kind, repo_id, what, rest = found.groups()
                return self._api(request, kind, unquote(repo_id), what or "revision", rest)
            if found := _RESOLVE.fullmatch(request.path):
                kind, repo_id, what, rev, path = found.groups()
                file_of = self._resolve if what == "resolve" else self._raw
                return file_of(request, kind or "models", *map(unquote, (repo_id, rev, path)))
        except Refusal as refusal:
            return refusal.reply
        except ValueError as error:
            return error_reply(400, None, f"Bad request: {error}")
        return error_reply(404, None, "Not Found")

    # Repositories, revisions and files

    def _versions(self, request: Request, kind: str, repo_id: str) -> list[Repo]:
        """The commits of a repository, newest last. Raises `Refusal` if it does not exist for this client."""
        given = _bearer(request)
        if given and self._token and given != self._token:
            raise Refusal(error_reply(401, None, "Invalid credentials in Authorization header"))
        with self._lock:
            new = self._renamed.get((kind, repo_id))
            versions = list(self._repos.get((kind, repo_id), ()))
        if new is not None:
            old = rf"/{re.escape(quote(repo_id))}(?=[/?]|$)"
            raise Refusal(redirect_reply(307, re.sub(old, f"/{quote(new)}", request.target, count=1)))
        if not versions:
            raise Refusal(error_reply(404, "RepoNotFound", "Repository not found"))
        if versions[-1].private and not (self._token and given == self._token):
            raise Refusal(error_reply(401, "RepoNotFound", "Invalid username or password."))
        return versions

    def _at(self, request: Request, kind: str, repo_id: str, rev: str) -> Repo:
        """The repository at a branch or commit."""
        for repo in reversed(self._versions(request, kind, repo_id)):
            if rev in (repo.branch, repo.commit):
                return repo
        raise Refusal(error_reply(404, "RevisionNotFound", f"Invalid rev id: {rev}"))

    def _file(self, request: Request, kind: str, repo_id: str, rev: str, path: str) -> tuple[Repo, StoredFile]:
        """A file that this client may have. A gated one is refused without a token (401), and with another token
        than the hub's own (403), which stands for an account that did not accept the licence."""
        repo = self._at(request, kind, repo_id, rev)
        given = _bearer(request)
        if repo.gated and (not given or given != self._token):
            why = f"Access to {repo.repo_type} {repo.id} is restricted."
            raise Refusal(error_reply(403 if given else 401, "GatedRepo", why))
        file = repo.stored.get(path)
        if file is None:
            raise Refusal(error_reply(404, "EntryNotFound", "Entry not found", ("X-Repo-Commit", repo.commit)))
        return repo, file

    # /resolve, /raw

    def _resolve(self, request: Request, kind: str, repo_id: str, rev: str, path: str) -> Reply:
        repo, file = self._file(request, kind, repo_id, rev, path)
        facts = _facts(repo, file)
        if file.lfs:
            return redirect_reply(302, self._cdn.link(file), *facts)
        tail = urlencode({request.path: "", "etag": f'"{file.etag}"'})
        cached = f"/api/resolve-cache/{kind}/{quote(repo_id)}/{repo.commit}/{quote(path)}?{tail}"
        return redirect_reply(307, cached, *facts)

    def _cached(self, request: Request, kind: str, repo_id: str, commit: str, path: str) -> Reply:
        """A small file itself: as it is, or gzipped and without a length for a client that accepts gzip."""
        repo, file = self._file(request, kind, repo_id, commit, path)
        etag, *facts = _facts(repo, file)
        takes_gzip = "gzip" in request.headers.get("accept-encoding", "")
        if takes_gzip and "range" not in request.headers and path.endswith(_TEXT):
            coded = gzip.compress(file.content[0 : file.size], mtime=0)
            weak = ("ETag", f"W/{etag[1]}")
            return Reply(
                200, (*facts, weak, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")), coded, sized=False
            )
        return file_reply(request, file.content, etag[1], *facts[:-1])

    def _raw(self, request: Request, kind: str, repo_id: str, rev: str, path: str) -> Reply:
        """What git holds: for an LFS file, the pointer."""
        repo, file = self._file(request, kind, repo_id, rev, path)
        body = file.pointer if file.lfs else file.content
        return file_reply(request, body, f'"{file.blob_id}"', ("X-Repo-Commit", repo.commit))

    # /api

    def _api(self, request: Request, kind: str, repo_id: str, what: str, rest: str | None) -> Reply:
        if what == "refs":
            return json_reply(_refs(self._versions(request, kind, repo_id), request.flag("include_prs")))
        rev, _, path = (rest or "main").partition("/")
        repo = self._at(request, kind, repo_id, unquote(rev))
        if what == "tree":
            return self._tree(request, repo, unquote(path))
        if what == "paths-info":
            return json_reply(
                [repo.item(name) for name in _paths(request) if name in repo.stored or name in repo.folders]
            )
        return json_reply(repo.info(blobs=request.flag("blobs")))

    def _tree(self, request: Request, repo: Repo, under: str) -> Reply:
        items = repo.listing(under, recursive=request.flag("recursive"))
        if items is None:
            raise Refusal(error_reply(404, "EntryNotFound", f"{under} does not exist on {repo.commit}"))
        given = {name: values[0] for name, values in request.query.items()}
        start = int(given.get("cursor", 0))
        size = min(int(given.get("limit", self._page_size)), self._page_size)
        page, rest = items[start : start + size], items[start + size :]
        if not rest:
            return json_reply(page)
        following = f"{self.origin}{request.path}?{urlencode({**given, 'limit': size, 'cursor': start + size})}"
        return json_reply(page, ("Link", f'<{following}>; rel="next"'))


def _bearer(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def _facts(repo: Repo, file: StoredFile) -> tuple[tuple[str, str], ...]:
    """The headers that only the hub's origin sends with a file; the ETag first."""
    return (
        ("ETag", f'"{file.etag}"'),
        ("X-Repo-Commit", repo.commit),
        ("X-Linked-Etag", f'"{file.etag}"'),
        ("X-Linked-Size", str(file.size)),
        ("Accept-Ranges", "bytes"),
    )


def _refs(versions: list[Repo], pull_requests: bool) -> Json:
    heads = {repo.branch: repo.commit for repo in versions}
    found: dict[str, list[Json]] = {"branches": [], "tags": [], "converts": []}
    if pull_requests:
        found["pullRequests"] = []
    for branch, commit in heads.items():
        ref = branch if branch.startswith("refs/") else f"refs/heads/{branch}"
        name = ref.split("/", 2)[2]
        where = {"refs/pr": "pullRequests", "refs/convert": "converts"}.get(ref.rpartition("/")[0], "branches")
        found.get(where, []).append({"name": name, "ref": ref, "targetCommit": commit})
    return found


def _paths(request: Request) -> list[str]:
    """The names a ``paths-info`` asks for, from a form (as the hub's client sends) or from JSON."""
    if "json" in request.headers.get("content-type", ""):
        return [str(name) for name in json.loads(request.body)["paths"]]
    return parse_qs(request.body.decode()).get("paths", [])
