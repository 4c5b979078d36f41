"""The hub's own origin: its API, and ``resolve`` with its redirects and headers.

It knows the questions of huggingface_hub 2.4 and answers as the hub was seen to answer. Only this origin sends
X-Repo-Commit, X-Linked-Etag and X-Linked-Size. Small files take one hop more, to ``/api/resolve-cache``.
"""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Iterable
from urllib.parse import quote, unquote, urlencode

from support.loopback_hub.answers import Reply, Request, error_reply, file_reply, json_reply, redirect_reply
from support.loopback_hub.cdn import Cdn
from support.loopback_hub.repos import Repo, StoredFile

_ID = r"(?:[^/]+/)??[^/]+"
_TYPE = r"models|datasets|spaces"
_API = re.compile(rf"/api/({_TYPE})/({_ID})(?:/(revision|tree)(?:/(.*))?)?")
_RESOLVE = re.compile(rf"/(?:(datasets|spaces)/)?({_ID})/resolve/(refs/(?:pr|convert)/[^/]+|[^/]+)/(.+)")
_CACHED = re.compile(rf"/api/resolve-cache/({_TYPE})/({_ID})/([0-9a-f]{{40}})/(.+)")
_TEXT = (".json", ".txt", ".md", ".yaml", ".py", ".csv")


class Refusal(Exception):
    """Ends the search for an answer with a refusal."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class HubApi:
    """Answers the hub's origin from repositories; several commits of one repository may be published."""

    def __init__(self, repos: Iterable[Repo], cdn: Cdn) -> None:
        self._cdn, self._lock = cdn, threading.Lock()
        self._repos: dict[tuple[str, str], list[Repo]] = {}
        self.origin = ""
        for repo in repos:
            self.publish(repo)

    def publish(self, repo: Repo) -> None:
        """Put this commit at the head of its branch; earlier commits stay reachable by their hash."""
        with self._lock:
            self._repos.setdefault((f"{repo.repo_type}s", repo.id), []).append(repo)

    def answer(self, request: Request) -> Reply:
        try:
            if found := _CACHED.fullmatch(request.path):
                return self._cached(request, *map(unquote, found.groups()))
            if found := _API.fullmatch(request.path):
                kind, repo_id, call, rest = found.groups()
                return self._api(request, kind, unquote(repo_id), call, rest)
            if found := _RESOLVE.fullmatch(request.path):
                kind, repo_id, rev, path = found.groups()
                return self._resolve(request, kind or "models", *map(unquote, (repo_id, rev, path)))
        except Refusal as refusal:
            return refusal.reply
        return error_reply(404, None, "Not Found")

    # Repositories, revisions and files

    def _at(self, kind: str, repo_id: str, rev: str) -> Repo:
        """The repository at a branch or commit. Raises `Refusal` if there is none, or it is private."""
        with self._lock:
            versions = list(self._repos.get((kind, repo_id), ()))
        if not versions:
            raise Refusal(error_reply(404, "RepoNotFound", "Repository not found"))
        if versions[-1].private:
            raise Refusal(error_reply(401, "RepoNotFound", "Invalid username or password."))
        for repo in reversed(versions):
            if rev in (repo.branch, repo.commit):
                return repo
        raise Refusal(error_reply(404, "RevisionNotFound", f"Invalid rev id: {rev}"))

    def _file(self, request: Request, kind: str, repo_id: str, rev: str, path: str) -> tuple[Repo, StoredFile]:
        """A file of a repository. Raises `Refusal` for one of a gated repository: 401 without a token, else 403, as for
        an account that did not accept the licence."""
        repo = self._at(kind, repo_id, rev)
        if repo.gated:
            why = f"Access to {repo.repo_type} {repo.id} is restricted."
            raise Refusal(error_reply(403 if "authorization" in request.headers else 401, "GatedRepo", why))
        file = repo.stored.get(path)
        if file is None:
            raise Refusal(error_reply(404, "EntryNotFound", "Entry not found", ("X-Repo-Commit", repo.commit)))
        return repo, file

    # /resolve

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

    # /api

    def _api(self, request: Request, kind: str, repo_id: str, call: str | None, rest: str | None) -> Reply:
        rev, _, path = (rest or "main").partition("/")
        repo, under = self._at(kind, repo_id, unquote(rev)), unquote(path)
        if call != "tree":
            return json_reply(repo.info(blobs=request.flag("blobs")))
        items = repo.listing(under, recursive=request.flag("recursive"))
        if items is None:
            return error_reply(404, "EntryNotFound", f"{under} does not exist on {repo.commit}")
        return json_reply(items)


def _facts(repo: Repo, file: StoredFile) -> tuple[tuple[str, str], ...]:
    """The headers that only the hub's origin sends with a file; the ETag first."""
    return (
        ("ETag", f'"{file.etag}"'),
        ("X-Repo-Commit", repo.commit),
        ("X-Linked-Etag", f'"{file.etag}"'),
        ("X-Linked-Size", str(file.size)),
        ("Accept-Ranges", "bytes"),
    )
