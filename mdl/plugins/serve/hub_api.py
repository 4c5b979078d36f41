"""The hub's calls, answered from what is on this disk: which repository, revision and file a request means."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from mdl.bounds import LONGEST_LOCAL_PATH
from mdl.paths import shown
from mdl.plugins.serve.repositories import Repository, Revision, ServedFile, Table
from mdl.plugins.serve.responses import Refusal
from mdl.sources.hub_origin import why_bad_id
from mdl.sources.hub_protocol import HubCall, file_headers, header_text, parse_call, repository_info


def call_of(raw_path: str) -> HubCall:
    """What the path of a request, still percent-encoded, asks for. Raises `Refusal`."""
    if len(raw_path) > LONGEST_LOCAL_PATH:
        raise Refusal(414, "", "the path is too long")
    call = parse_call(raw_path)
    if call is None:
        raise Refusal(404, "", "there is nothing at this address")
    if why_bad_id(call.repo):
        raise Refusal(404, "RepoNotFound", "that cannot be the name of a repository")
    return call


def repository(table: Table, call: HubCall, *, gated: bool) -> Repository:
    """The repository that is meant: of several hubs that have one of this name, the first that has the revision.

    Raises `Refusal`. Unless ``gated`` repositories are served too, it does not tell whether one is here.
    """
    repositories = table.get((call.repo_type, call.repo), ())
    for candidate in repositories:
        if candidate.at(call.revision):
            return candidate
    if repositories:
        return repositories[0]
    name = f"the {call.repo_type} {shown(call.repo)[:200]}"
    if gated:
        raise Refusal(404, "RepoNotFound", f"no verified file of {name} is on this disk")
    why = f"{name} is not on this disk, or its hub did not say that it is public: 'mdl serve --gated' serves it then"
    raise Refusal(403, "GatedRepo", why)


def revision(repo: Repository, call: HubCall) -> Revision:
    """The revision that is meant. Raises `Refusal`."""
    at = repo.at(call.revision)
    if at is None:
        known = ", ".join(sorted(repo.refs)[:5])
        what = f"{shown(call.revision)[:200]} of {repo.id} is not on this disk; available: {known}"
        raise Refusal(404, "RevisionNotFound", what)
    return at


def file(repo: Repository, at: Revision, path: str) -> ServedFile:
    """The file that is meant. Raises `Refusal`."""
    served = at.files.get(path)
    if served is None:
        what = f"{shown(path)[:200]} of {repo.id} is not on this disk, or was not verified"
        raise Refusal(404, "EntryNotFound", what, {"X-Repo-Commit": at.commit})
    return served


def headers_of(at: Revision, served: ServedFile) -> dict[str, str]:
    """The headers that a file is sent with."""
    name = quote(served.path.rpartition("/")[2])
    return {**file_headers(served, at.commit), "Content-Disposition": f"inline; filename*=UTF-8''{name}"}


def warning(repo: Repository, at: Revision) -> dict[str, str]:
    """The header by which the hub's clients show a warning; none if the repository is whole."""
    if at.is_whole:
        return {}
    what = f"only {len(at.files)} of the {at.total} files of {repo.id} are on the disk of this server"
    return {"X-HF-Warning": header_text(f"partial; {what}")}


def info(repo: Repository, at: Revision) -> dict[str, Any]:
    """What the API says about a repository at a revision."""
    gated = False if repo.is_public else "manual"
    files = at.files.values()
    document = repository_info(repo.id, at.commit, files, gated=gated, private=False, blobs=True)
    return {**document, "usedStorage": sum(served.size for served in files)}
