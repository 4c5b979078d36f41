"""The two nouns every room trades in: a file there, and a file here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from mdl.hashing import Digest, Fingerprint
from mdl.paths import RelPath
from mdl.presigned import asked_mark
from mdl.redact import bare_url


@dataclass(frozen=True)
class HubFile:
    """Where a hub keeps a file: ``repo_type`` is ``model``, ``dataset`` or ``space``. ``revision`` is a commit where
    it is known; ``branch`` the branch or tag that was asked for, if it was one."""

    repo: str
    repo_type: str
    revision: str
    path: str
    branch: str = ""

    def is_same_as(self, other: HubFile) -> bool:
        """The same file at the same revision, whichever branch led there."""
        return replace(self, branch="") == replace(other, branch="")


@dataclass(frozen=True)
class RemoteFile:
    """One file as its source describes it.

    ``url`` is the stable one (pinned to a commit where the source has commits), never a signed one.
    ``hub`` names it to the hub's own client. ``size`` is in bytes; None where nobody said yet.
    ``validator`` is the source's own strong ETag or date, used as identity only where no digest is
    known. ``mirrors`` hold the same bytes.
    """

    path: RelPath
    url: str
    size: int | None = None
    digest: Digest | None = None
    validator: str | None = None
    commit: str | None = None
    mirrors: tuple[str, ...] = ()
    role: str = "other"
    probed: bool = False
    hub: HubFile | None = None


Kind = Literal["absent", "file", "folder", "link", "special"]


class Status(Protocol):
    """The part of an ``os.stat_result`` that a stamp is made of."""

    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ino(self) -> int: ...


@dataclass(frozen=True)
class Stamp:
    """What the file system says of a file without reading it; equal stamps mean an untouched file."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: Status) -> Stamp:
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass(frozen=True)
class Receipt:
    """What mdl wrote down when it published a file: what came, from where, and how it was checked.

    ``prefixes`` are running digests at every 16 MiB; ``digest`` is of the bytes that came, and
    ``verified`` says what they were held against: a published digest, only a size, or nothing. An ``adopted``
    file was there before, put there by somebody else. ``catalog`` names the one catalog whose entry brought or kept it;
    None if there was none, or several. ``url`` has no query; ``asked`` is the `asked_mark` of it.
    """

    model: str
    path: RelPath
    stamp: Stamp
    digest: Digest
    verified: str
    url: str
    asked: str = ""
    validator: str | None = None
    commit: str | None = None
    suspect: bool = False
    adopted: bool = False
    prefixes: tuple[str, ...] = field(default=(), repr=False)
    hub: HubFile | None = None
    catalog: str | None = None

    @property
    def remote(self) -> RemoteFile:
        """The file that came, as far as the receipt tells."""
        return RemoteFile(self.path, self.url, self.stamp.size, self.digest, hub=self.hub)

    def settles(self, remote: RemoteFile) -> bool:
        """What came then is what the source has now, by all that both tell. A validator tells versions of one URL
        apart, not two URLs (RFC 9110, 8.8.3): without a digest another URL or commit is another file."""
        if remote.size not in (None, self.stamp.size):
            return False
        if remote.digest is not None:
            return remote.digest == self.digest
        return self._came_from(remote) and remote.validator in (None, self.validator)

    def _came_from(self, remote: RemoteFile) -> bool:
        """The same place at the same commit; the mirrors of a file are one place with it."""
        if self.commit and remote.commit and self.commit != remote.commit:
            return False
        if self.hub and remote.hub:
            return self.hub.is_same_as(remote.hub)
        return (self.url, self.asked) in {(bare_url(url), asked_mark(url)) for url in (remote.url, *remote.mirrors)}


@dataclass(frozen=True)
class LocalFile:
    """What stands under the final name. ``fingerprint`` is set where the bytes were hashed just now, and ``own_digest``
    where they were hashed as the receipt's digest was; ``partial`` counts the bytes an unfinished download already
    has; ``why`` says what a link or a folder in the way is. A ``foreign`` file belongs to another user."""

    kind: Kind = "absent"
    stamp: Stamp | None = None
    receipt: Receipt | None = None
    fingerprint: Fingerprint | None = None
    partial: int = 0
    why: str = ""
    own_digest: Digest | None = None
    foreign: bool = False

    @property
    def untouched(self) -> bool:
        """mdl published this very file and nobody touched it since, nor could put its times back."""
        return self.receipt is not None and self._is_the_same and not self.receipt.suspect

    @property
    def is_as_it_came(self) -> bool:
        """The bytes are those that mdl wrote."""
        hashed = (self.fingerprint.digest if self.fingerprint else None, self.own_digest)
        return self.untouched or (self.receipt is not None and self.receipt.digest in hashed)

    @property
    def is_edited(self) -> bool:
        """Somebody changed the file since mdl wrote it. Other bytes under the old stamp are damage of the disk."""
        return self.receipt is not None and not self._is_the_same and not self.is_as_it_came

    @property
    def _is_the_same(self) -> bool:
        return self.receipt is not None and self.receipt.stamp == self.stamp and not self.foreign
