"""A repository of the hub, and how the hub's API describes its files.

Small files live in git (known by their git blob id); larger ones are LFS files: git holds a pointer of some
130 bytes, the bytes are known by their sha256 and come from the CDN.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from support.loopback_hub.content import Content, hex_digest

RepoType = Literal["model", "dataset", "space"]
Json = dict[str, Any]


@dataclass(frozen=True)
class StoredFile:
    """One file of one commit."""

    path: str
    content: Content
    lfs: bool

    @property
    def size(self) -> int:
        return len(self.content)

    @cached_property
    def sha256(self) -> str:
        return hex_digest(self.content, "sha256")

    @cached_property
    def pointer(self) -> bytes:
        """What git holds in place of an LFS file."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @cached_property
    def blob_id(self) -> str:
        """The git blob id: of the bytes, or of the pointer for an LFS file."""
        return hex_digest(self.pointer if self.lfs else self.content, "git-sha1")

    @property
    def etag(self) -> str:
        """X-Linked-Etag without its quotes: sha256 for LFS files, else the git blob id."""
        return self.sha256 if self.lfs else self.blob_id

    def in_tree(self) -> Json:
        """An item of ``/tree`` and ``/paths-info``; the hash of an LFS file is ``lfs.oid`` here."""
        item: Json = {"type": "file", "oid": self.blob_id, "size": self.size, "path": self.path}
        if self.lfs:
            item["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": len(self.pointer)}
        return item

    def as_sibling(self, *, blobs: bool) -> Json:
        """An item of ``siblings``; with ``?blobs=true`` the hash of an LFS file is ``lfs.sha256`` here."""
        if not blobs:
            return {"rfilename": self.path}
        item: Json = {"rfilename": self.path, "size": self.size, "blobId": self.blob_id}
        if self.lfs:
            item["lfs"] = {"sha256": self.sha256, "size": self.size, "pointerSize": len(self.pointer)}
        return item


@dataclass(frozen=True)
class Repo:
    """One commit of a repository, at the head of ``branch``. ``commit`` is derived from id and files unless given.

    If ``gated``, the listing is public and the files are refused. If ``private``, everything is refused.
    """

    id: str
    files: Mapping[str, Content]
    repo_type: RepoType = "model"
    commit: str = ""
    branch: str = "main"
    gated: bool = False
    private: bool = False
    lfs_threshold: int = 2**20
    token: str = ""
    """Of a private repository: who sends this token may read it and write to it."""

    def __post_init__(self) -> None:
        if not self.commit:
            object.__setattr__(self, "commit", self._derived())

    def _derived(self) -> str:
        state = hashlib.sha1(f"{self.repo_type} {self.id}".encode(), usedforsecurity=False)
        for path, content in sorted(self.files.items()):
            what = content if isinstance(content, bytes) else repr(content).encode()
            state.update(f"\0{path}\0{len(content)}\0".encode() + hashlib.sha256(what).digest())
        return state.hexdigest()

    @cached_property
    def stored(self) -> dict[str, StoredFile]:
        """The files by path, in the order of the tree."""
        large = self.lfs_threshold
        return {path: StoredFile(path, body, len(body) > large) for path, body in sorted(self.files.items())}

    @cached_property
    def folders(self) -> tuple[str, ...]:
        found = {path[:at] for path in self.files for at, letter in enumerate(path) if letter == "/"}
        return tuple(sorted(found))

    def folder_item(self, path: str) -> Json:
        oid = hashlib.sha1(f"{self.commit}/{path}".encode(), usedforsecurity=False).hexdigest()
        return {"type": "directory", "oid": oid, "size": 0, "path": path}

    def listing(self, under: str, *, recursive: bool) -> list[Json] | None:
        """The items of a folder ("" for the root), folders included; None if there is no such folder."""
        if under and under not in self.folders:
            return None
        start = f"{under}/" if under else ""
        names = [name for name in (*self.folders, *self.stored) if name.startswith(start)]
        if not recursive:
            names = [name for name in names if "/" not in name[len(start) :]]
        return [
            self.stored[name].in_tree() if name in self.stored else self.folder_item(name) for name in sorted(names)
        ]

    def info(self, *, blobs: bool = False) -> Json:
        """The payload of ``/api/models/{id}`` and ``…/revision/{rev}``."""
        return {
            "_id": self.commit[:24],
            "id": self.id,
            "author": self.id.rpartition("/")[0],
            "sha": self.commit,
            "private": self.private,
            "gated": "auto" if self.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": [file.as_sibling(blobs=blobs) for file in self.stored.values()],
        }
