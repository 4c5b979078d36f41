"""The hub's protocol: what a request means, and what the hub would answer of what is on this disk.

The requests are those of huggingface_hub 2, ``@huggingface/hub`` and mdl (https://huggingface.co/docs/hub/api).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote

from mdl.bounds import LONGEST_LOCAL_PATH
from mdl.paths import shown
from mdl.plugins.serve.refusals import Refusal, header
from mdl.plugins.serve.repositories import Repository, Revision, ServedFile, Table
from mdl.sources.hub_origin import why_bad_id
from mdl.values import value_class

_ID = r"(?:[^/]+/)??[^/]+"
_API = re.compile(rf"/api/(model|dataset|space)s/({_ID})(?:/(revision|tree|paths-info|refs)(?:/(.*))?)?")
_RESOLVE = re.compile(rf"/(?:(dataset|space)s/)?({_ID})/resolve/(refs/(?:pr|convert)/[^/]+|[^/]+)/(.+)")


@value_class
class Asked:
    """What a path asks for: one ``call`` about a repository at a revision, with the ``path`` below it."""

    call: str
    """``resolve``, ``info``, ``tree``, ``paths-info`` or ``refs``."""
    repo_type: str
    repo: str
    revision: str
    path: str


def asked_by(raw_path: str) -> Asked:
    """What the path of a request, still percent-encoded, asks for. Raises `Refusal`."""
    if len(raw_path) > LONGEST_LOCAL_PATH:
        raise Refusal(414, "", "the path is too long")
    if found := _API.fullmatch(raw_path):
        kind, repo, call, rest = found.groups()
        revision, _, below = (rest or "main").partition("/")
        named = Asked(call or "info", kind, unquote(repo), unquote(revision), unquote(below))
        return _of_repository(replace(named, call="info") if named.call == "revision" else named)
    if found := _RESOLVE.fullmatch(raw_path):
        kind, repo, revision, path = found.groups()
        return _of_repository(Asked("resolve", kind or "model", unquote(repo), unquote(revision), unquote(path)))
    raise Refusal(404, "", "there is nothing at this address")


def _of_repository(asked: Asked) -> Asked:
    """The same, if it can be the name of a repository. Raises `Refusal`."""
    if why_bad_id(asked.repo):
        raise Refusal(404, "RepoNotFound", "that cannot be the name of a repository")
    return asked


def repository(table: Table, asked: Asked, *, gated: bool) -> Repository:
    """The repository that is meant: of several hubs that have one of this name, the first that has the revision.

    Raises `Refusal`. Unless ``gated`` repositories are served too, it does not tell whether one is here.
    """
    found = table.get((asked.repo_type, asked.repo), ())
    if found:
        return next((one for one in found if one.at(asked.revision)), found[0])
    name = f"the {asked.repo_type} {shown(asked.repo)[:200]}"
    if gated:
        raise Refusal(404, "RepoNotFound", f"no verified file of {name} is on this disk")
    why = f"{name} is not on this disk, or its hub did not say that it is public: 'mdl serve --gated' serves it then"
    raise Refusal(403, "GatedRepo", why)


def revision(repo: Repository, asked: Asked) -> Revision:
    """The revision that is meant. Raises `Refusal`."""
    found = repo.at(asked.revision)
    if found is None:
        known = ", ".join(sorted(repo.refs)[:5])
        what = f"{shown(asked.revision)[:200]} of {repo.id} is not on this disk; available: {known}"
        raise Refusal(404, "RevisionNotFound", what)
    return found


def file(repo: Repository, at: Revision, path: str) -> ServedFile:
    """The file that is meant. Raises `Refusal`."""
    found = at.files.get(path)
    if found is None:
        what = f"{shown(path)[:200]} of {repo.id} is not on this disk, or was not verified"
        raise Refusal(404, "EntryNotFound", what, {"X-Repo-Commit": at.commit})
    return found


def file_headers(at: Revision, found: ServedFile) -> dict[str, str]:
    """What the hub sends with a file: which commit it is of, and what identifies its bytes."""
    name = quote(found.path.rpartition("/")[2])
    return {
        "ETag": found.etag,
        "X-Linked-Etag": found.etag,
        "X-Linked-Size": str(found.size),
        "X-Repo-Commit": at.commit,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"inline; filename*=UTF-8''{name}",
    }


def warning(repo: Repository, at: Revision) -> dict[str, str]:
    """The header by which the hub's clients show a warning; none if the repository is whole."""
    if at.is_whole:
        return {}
    what = f"only {len(at.files)} of the {at.total} files of {repo.id} are on the disk of this server"
    return {"X-HF-Warning": header(f"partial; {what}")}


def info(repo: Repository, at: Revision) -> dict[str, Any]:
    """What the API says about a repository at a revision."""
    siblings = [{"rfilename": path, **_sizes(one)} for path, one in at.files.items()]
    return {
        **dict.fromkeys(("_id", "id", "modelId"), repo.id),
        "sha": at.commit,
        "private": False,
        "gated": False if repo.is_public else "manual",
        "disabled": False,
        **dict.fromkeys(("downloads", "likes"), 0),
        "tags": [],
        "siblings": siblings,
        "usedStorage": sum(one.size for one in at.files.values()),
    }


def _sizes(one: ServedFile) -> dict[str, Any]:
    large = _lfs(one)
    sizes = {"size": one.size, "blobId": _oid(one)}
    return sizes | ({"lfs": {"sha256": large["oid"], **large}} if large else {})


def tree(at: Revision, below: str, *, recursive: bool) -> list[dict[str, Any]] | None:
    """The files and folders below a path; None if there is none of them."""
    prefix = f"{below.strip('/')}/" if below.strip("/") else ""
    inside = [one for path, one in at.files.items() if path.startswith(prefix)]
    if not inside and prefix:
        return None
    folders: dict[str, None] = {}
    files = []
    for one in inside:
        *parents, _ = one.path[len(prefix) :].split("/")
        above = [prefix + "/".join(parents[:count]) for count in range(1, len(parents) + 1)]
        folders |= dict.fromkeys(above if recursive else above[:1])
        files += [_item(one)] if recursive or not parents else []
    return [*(_folder(path) for path in folders), *files]


def paths_info(at: Revision, paths: Iterable[str]) -> list[dict[str, Any]]:
    """The named files and folders; what is not here is left out, as the hub leaves it out."""
    folders = {folder for one in at.files for folder in _parents(one)}
    found: list[dict[str, Any]] = []
    for path in dict.fromkeys(paths):
        if path in at.files:
            found.append(_item(at.files[path]))
        elif path in folders:
            found.append(_folder(path))
    return found


def _parents(path: str) -> Iterator[str]:
    """The folders above a path, the nearest first."""
    while path := path.rpartition("/")[0]:
        yield path


def refs(repo: Repository) -> dict[str, Any]:
    """The branches that are known here."""
    names = [name for name in repo.refs if not name.startswith("refs/")]
    rows = [{"name": one, "ref": f"refs/heads/{one}", "targetCommit": repo.refs[one]} for one in sorted(names)]
    return {"branches": rows, "tags": [], "converts": [], "pullRequests": []}


def _item(one: ServedFile) -> dict[str, Any]:
    large = _lfs(one)
    return {"type": "file", "path": one.path, "size": one.size, "oid": _oid(one)} | ({"lfs": large} if large else {})


def _folder(path: str) -> dict[str, Any]:
    oid = hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()
    return {"type": "directory", "path": path, "size": 0, "oid": oid}


def _oid(one: ServedFile) -> str:
    """The blob id in git: of a large file that of its pointer."""
    if one.digest.algorithm != "sha256":
        return one.digest.hex
    pointer = _pointer(one)
    return hashlib.sha1(b"blob %d\0%b" % (len(pointer), pointer), usedforsecurity=False).hexdigest()


def _lfs(one: ServedFile) -> dict[str, Any] | None:
    if one.digest.algorithm != "sha256":
        return None
    return {"oid": one.digest.hex, "size": one.size, "pointerSize": len(_pointer(one))}


def _pointer(one: ServedFile) -> bytes:
    """What git has in the place of a large file (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md)."""
    lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{one.digest.hex}", f"size {one.size}", "")
    return "\n".join(lines).encode()
