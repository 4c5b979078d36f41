"""The hub's protocol on the side that answers: what a path asks for, and the documents and headers that answer. Pure.

``mdl serve`` answers so, and so does the hub of `mdl.demo`, which the tests and benchmarks use too (docs/adr/0108).
`mdl.sources.hub_api` is the side that asks. Source: https://huggingface.co/docs/hub/api, and huggingface_hub 2.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias
from urllib.parse import parse_qs, unquote

from mdl.bounds import parse_json
from mdl.hashing import Digest
from mdl.values import value_class

Json: TypeAlias = dict[str, Any]

_ID = r"(?:[^/]+/)??[^/]+"
_API = re.compile(rf"/api/(model|dataset|space)s/({_ID})(?:/(revision|tree|paths-info|refs)(?:/(.*))?)?")
_RESOLVE = re.compile(rf"/(?:(dataset|space)s/)?({_ID})/resolve/(refs/(?:pr|convert)/[^/]+|[^/]+)/(.+)")


class PublishedFile(Protocol):
    """A file of a repository at a commit, as an answer describes it."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def digest(self) -> Digest:
        """The sha256 of a large file; the blob id in git (``git-sha1``) of a small one."""


@value_class
class HubCall:
    """What a path asks for: one ``call`` about a repository at a revision, with the ``path`` below it."""

    call: str
    """``resolve``, ``info``, ``tree``, ``paths-info`` or ``refs``."""
    repo_type: str
    repo: str
    revision: str
    path: str


def parse_call(raw_path: str) -> HubCall | None:
    """What the path of a request, still percent-encoded, asks for; None if it is no address of the protocol."""
    if found := _API.fullmatch(raw_path):
        repo_type, repo, call, below = found.groups()
        revision, _, path = (below or "main").partition("/")
        if call in (None, "revision"):
            call = "info"
        return HubCall(call, repo_type, unquote(repo), unquote(revision), unquote(path))
    if found := _RESOLVE.fullmatch(raw_path):
        repo_type, repo, revision, path = found.groups()
        return HubCall("resolve", repo_type or "model", unquote(repo), unquote(revision), unquote(path))
    return None


def asked_paths(body: bytes) -> list[str]:
    """The paths that the body of a ``paths-info`` request names: a form, or a JSON object."""
    if body.lstrip().startswith(b"{"):
        with contextlib.suppress(ValueError):
            named = parse_json(body).get("paths", [])
            if isinstance(named, list):
                return list(map(str, named))
            return [str(named)]
    return parse_qs(body.decode("utf-8", "replace"), max_num_fields=100_000).get("paths", [])


def is_asked(query: str, name: str) -> bool:
    """Return whether a flag is set in a query: ``recursive=true``, ``recursive=True`` or ``recursive=1``."""
    return parse_qs(query).get(name, [""])[0].lower() in ("1", "true")


# --- documents ---------------------------------------------------------------------------------------------


def repository_info(
    repo_id: str, commit: str, files: Iterable[PublishedFile], *, gated: str | bool, private: bool, blobs: bool
) -> Json:
    """The answer to ``info``. ``blobs`` adds size and digest to each of the ``siblings``."""
    return {
        **dict.fromkeys(("_id", "id", "modelId"), repo_id),
        "sha": commit,
        "private": private,
        "gated": gated,
        "disabled": False,
        **dict.fromkeys(("downloads", "likes"), 0),
        "tags": [],
        "siblings": [_sibling(file, blobs=blobs) for file in files],
    }


def _sibling(file: PublishedFile, *, blobs: bool) -> Json:
    if not blobs:
        return {"rfilename": file.path}
    return {"rfilename": file.path, "size": file.size, "blobId": blob_id(file), **_lfs(file, "sha256")}


def tree(files: Mapping[str, PublishedFile], below: str, *, recursive: bool) -> list[Json] | None:
    """The answer to ``tree``: the folders, then the files below a path ("" for all); None if there is nothing."""
    folder = below.strip("/")
    prefix = f"{folder}/" if folder else ""
    folders: dict[str, None] = {}
    items: list[Json] = []
    for path, file in files.items():
        if not path.startswith(prefix):
            continue
        parents = [parent for parent in _parents(path) if parent.startswith(prefix)]
        if recursive:
            folders |= dict.fromkeys(reversed(parents))
        elif parents:
            folders[parents[-1]] = None
            continue
        items.append(file_item(file))
    if folder and not folders and not items:
        return None
    return [*map(_folder_item, folders), *items]


def paths_info(files: Mapping[str, PublishedFile], paths: Iterable[str]) -> list[Json]:
    """The answer to ``paths-info``; what is not there is left out, as the hub leaves it out."""
    folders = {folder for path in files for folder in _parents(path)}
    found: list[Json] = []
    for path in dict.fromkeys(paths):
        if path in files:
            found.append(file_item(files[path]))
        elif path in folders:
            found.append(_folder_item(path))
    return found


def refs(commits: Mapping[str, str]) -> Json:
    """The answer to ``refs``; ``commits`` are those of the branches."""
    names = sorted(name for name in commits if not name.startswith("refs/"))
    branches = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": commits[name]} for name in names]
    return {"branches": branches, "tags": [], "converts": [], "pullRequests": []}


def _parents(path: str) -> Iterator[str]:
    """The folders above a path, the nearest first."""
    while path := path.rpartition("/")[0]:
        yield path


def file_item(file: PublishedFile) -> Json:
    """An item of a listing. Of a large file ``oid`` is that of its pointer, and the digest of its bytes is
    ``lfs.oid``."""
    return {"type": "file", "path": file.path, "size": file.size, "oid": blob_id(file), **_lfs(file, "oid")}


def _folder_item(path: str) -> Json:
    oid = hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()
    return {"type": "directory", "path": path, "size": 0, "oid": oid}


def _lfs(file: PublishedFile, name: str) -> Json:
    """What is said of a large file beside; ``name`` is that of its digest. Nothing for a small one."""
    if not is_large(file):
        return {}
    return {"lfs": {name: file.digest.hex, "size": file.size, "pointerSize": len(pointer(file))}}


def is_large(file: PublishedFile) -> bool:
    """Return whether git holds only a pointer to the file."""
    return file.digest.algorithm == "sha256"


def blob_id(file: PublishedFile) -> str:
    """The blob id in git: of a large file that of its pointer."""
    if not is_large(file):
        return file.digest.hex
    text = pointer(file)
    return hashlib.sha1(b"blob %d\0%b" % (len(text), text), usedforsecurity=False).hexdigest()


def pointer(file: PublishedFile) -> bytes:
    """What git has in the place of a large file (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.digest.hex}\nsize {file.size}\n".encode()


# --- headers -----------------------------------------------------------------------------------------------


def etag(file: PublishedFile) -> str:
    """The ETag with which the hub itself answers for a file."""
    return f'"{file.digest.hex}"'


def file_headers(file: PublishedFile, commit: str) -> dict[str, str]:
    """What the hub sends with a file, or with a redirect to one: the commit, and what identifies the bytes."""
    return {
        "ETag": etag(file),
        "X-Linked-Etag": etag(file),
        "X-Linked-Size": str(file.size),
        "X-Repo-Commit": commit,
        "Accept-Ranges": "bytes",
    }


def refusal_headers(code: str, message: str) -> dict[str, str]:
    """What the hub sends with a refusal. ``code`` is what its clients read, "" for none: ``RepoNotFound``,
    ``RevisionNotFound``, ``EntryNotFound``, ``GatedRepo``."""
    headers = {"X-Error-Message": header_text(message)}
    if code:
        headers["X-Error-Code"] = code
    return headers


def header_text(text: str) -> str:
    """A text that can be the value of a header."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)
