"""Repositories in memory: the files of one at a commit, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

from mdl.hashing import Digest, new_hasher

LARGE: Final = 2**20
"""Bytes beyond which a file is a large one, as the hub decides by default."""
_BLOCK = 2**20


class Content(Protocol):
    """The bytes of a file: a ``bytes``, or whatever makes a part of them when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


def blocks(content: Content, start: int = 0, stop: int | None = None, step: int = _BLOCK) -> Iterator[bytes]:
    """Yield the bytes ``[start, stop)`` in pieces that end at multiples of ``step``."""
    end = len(content) if stop is None else stop
    while start < end:
        until = min(start - start % step + step, end)
        yield content[start:until]
        start = until


def digest_of(content: Content, algorithm: str) -> Digest:
    """Hash a content; ``algorithm`` is ``sha256`` or ``git-sha1``."""
    hasher = new_hasher(algorithm, len(content))
    for block in blocks(content):
        hasher.update(block)
    return Digest(algorithm, hasher.hexdigest())


@dataclass(frozen=True)
class StoredFile:
    """A file of a repository. A large one is known by its sha256, and its bytes come from the body host; a small one
    is in git, and known by its blob id there."""

    path: str
    content: Content
    is_large: bool

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content)

    @cached_property
    def digest(self) -> Digest:
        """Made when it is first asked for, and kept: what the content is later is not looked at again."""
        return digest_of(self.content, "sha256" if self.is_large else "git-sha1")


@dataclass(frozen=True)
class Repo:
    """A repository at one commit, which is the head of ``branch``.

    ``files`` are the contents by path; those with more than ``lfs_threshold`` bytes are large. ``commit`` is derived
    from id and files unless it is given. If ``gated``, everybody may see the listing and nobody gets the files; if
    ``private``, everything is refused. Who sends ``token`` gets all of it.
    """

    id: str
    files: Mapping[str, Content]
    repo_type: str = "model"
    commit: str = ""
    branch: str = "main"
    gated: bool = False
    private: bool = False
    lfs_threshold: int = LARGE
    token: str = ""

    def __post_init__(self) -> None:
        if not self.commit:
            object.__setattr__(self, "commit", self._derived_commit())

    def _derived_commit(self) -> str:
        state = hashlib.sha1(f"{self.repo_type} {self.id}".encode(), usedforsecurity=False)
        for path, content in sorted(self.files.items()):
            identity = content if isinstance(content, bytes) else repr(content).encode()
            state.update(f"\0{path}\0{len(content)}\0".encode() + hashlib.sha256(identity).digest())
        return state.hexdigest()

    @cached_property
    def stored(self) -> dict[str, StoredFile]:
        """The files by path, sorted."""
        large = self.lfs_threshold
        return {path: StoredFile(path, content, len(content) > large) for path, content in sorted(self.files.items())}

    def is_open_to(self, authorization: str | None) -> bool:
        """Whether a request with this Authorization header has the repository's token."""
        return bool(self.token) and authorization == f"Bearer {self.token}"
