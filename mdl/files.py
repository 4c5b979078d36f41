"""The nouns that every room uses: a remote file, a local file, and the receipt of a published one."""

from __future__ import annotations

import math
from dataclasses import field, replace
from pathlib import Path
from typing import Literal, Protocol, get_args

from mdl.bounds import LARGEST_NUMBER, OutOfBounds, whole_number
from mdl.errors import ProtocolError, Unsafe
from mdl.hashing import Digest, Fingerprint
from mdl.paths import RelPath, shown
from mdl.redact import bare_url
from mdl.urls import query_hash
from mdl.values import small_value_class
from mdl.weights.known_formats import archive_kind, is_weights, stem_of

_DATA = ".parquet"
"""The suffix of a data set's own files, which are to it what weights are to a model."""
_SECOND = 10**9
"""Nanoseconds."""
_VOCAB = ("vocab", "tokenizer", "spiece", "merges", "sentencepiece", "special_tokens")


def repo_path(repo: str, repo_type: str) -> str:
    """``org/name``, ``datasets/org/name``: how the path of a repository's page begins."""
    return repo if repo_type == "model" else f"{repo_type}s/{repo}"


def hub_reference(repo: str, repo_type: str, revision: str, path: str = "", quant: str = "") -> str:
    """A repository of a hub, or a file of it, as a catalog writes it."""
    if not revision.startswith(("refs/pr/", "refs/convert/")):
        revision = revision.replace("%", "%25").replace("/", "%2F")
    at = f"@{revision}" if revision else ""
    return f"hf:{repo_path(repo, repo_type)}{at}" + (f":{quant}" if quant else "") + (f"/{path}" if path else "")


@small_value_class
class HubFile:
    """A file in a repository of a hub. ``repo_type`` is ``model``, ``dataset`` or ``space``. ``revision`` is a commit
    if that is known; ``branch`` is the branch or tag that was asked for, if it was one. ``endpoint`` is the URL of the
    hub; "" if it is not known: two hubs may have repositories of one name."""

    repo: str
    repo_type: str
    revision: str
    path: str
    branch: str = ""
    endpoint: str = ""

    def is_same_as(self, other: HubFile) -> bool:
        """Whether it is the same file at the same revision, whatever branch was asked for. A hub that is not known may
        be the same one."""
        hubs = {self.endpoint, other.endpoint} - {""}
        return len(hubs) < 2 and replace(self, branch="", endpoint="") == replace(other, branch="", endpoint="")

    @property
    def reference(self) -> str:
        """How a catalog or a lock writes it, at its revision."""
        return hub_reference(self.repo, self.repo_type, self.revision, self.path)


Access = Literal["unknown", "public", "gated", "private"]
"""Who may have a file, as its own hub said of its repository: everybody (``public``), or only those to whom the owners
gave access (``gated``, ``private``); ``unknown`` if the hub did not say it."""
ACCESSES: tuple[Access, ...] = get_args(Access)

Voucher = Literal["hub", "catalog", "lock", "url", "first use", "folder"]
"""Who says which digest a file has: its hub, the user's catalog or lock, the server or the fragment of its URL; nobody,
so that it is the digest of the bytes that came first (``first use``); or only the folder or bundle that brought the
bytes (``folder``), which is no proof of anything."""
VOUCHERS: tuple[Voucher, ...] = get_args(Voucher)


@small_value_class
class RemoteFile:
    """One file as its source describes it.

    ``url`` is the stable one (with the commit, if the source has commits), never a signed one. ``hub`` names the file
    in its repository. ``reference`` is how a catalog writes a file of a source with references of its own. ``size`` is
    in bytes; None if it is not known yet. ``validator`` is the source's own strong ETag or date; it identifies the file
    only if no digest is known. ``mirrors`` are URLs of the same bytes.
    ``places``, if there are any, are the URLs that are asked for the bytes instead of these, in this order.
    ``access`` says who may have it, and ``vouched_by`` who says that it has this digest. ``probed``: its server was
    asked, and told nothing else. ``is_left_open``: it was not asked, though nobody knows a digest. ``is_name_open``:
    the answer that brings it may give it another name. ``is_archive``: it is an archive whose name does not tell its
    format. Errors call it by its ``label``, if it has one, else by its model and path.
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
    reference: str = field(default="", compare=False)
    places: tuple[str, ...] = field(default=(), compare=False)
    access: Access = field(default="unknown", compare=False)
    vouched_by: Voucher = field(default="url", compare=False)
    is_left_open: bool = field(default=False, compare=False)
    is_name_open: bool = field(default=False, compare=False)
    is_archive: bool = field(default=False, compare=False)
    label: str = field(default="", compare=False)

    @property
    def is_unasked(self) -> bool:
        """Whether its server is still to say what it has there: the answer that brings the bytes says that too."""
        return not self.probed and (self.size is None or self.is_left_open)

    def name_by_content(self, beginning: bytes) -> str:
        """The name by which its content is checked: its path, for an archive with the suffix that its first bytes
        tell."""
        path = self.path.text
        kind = archive_kind(beginning) if self.is_archive else None
        return f"{stem_of(path)}.{kind}" if kind else path

    @property
    def is_vouched_for(self) -> bool:
        """Whether its digest is known from somebody else than the folder or bundle that brought the bytes."""
        return self.digest is not None and self.vouched_by != "folder"

    @property
    def source(self) -> str:
        """Where it comes from, with its commit, as a catalog or a lock writes that."""
        return self.reference or (self.hub.reference if self.hub else self.url)

    @property
    def hash_algorithm(self) -> str:
        """The algorithm of its digest; ``sha256`` if that is not known."""
        return self.digest.algorithm if self.digest else "sha256"

    @property
    def verified(self) -> str:
        """What bytes with its digest are verified by: its algorithm, or ``none`` if only the folder or bundle that
        brought them says that they are right."""
        return self.hash_algorithm if self.is_vouched_for else "none"


@small_value_class
class RefusedFile:
    """A file that a source has under a name that cannot be kept on this system: it is told, and never fetched. Its
    ``path`` is as the source has it, and must not be joined to a folder; ``why`` says what is wrong with it."""

    path: str
    why: str
    size: int | None = None
    url: str = ""

    @property
    def error(self) -> Unsafe:
        """What the row of this file says."""
        return Unsafe(f"refused: its name has {self.why}", item=shown(self.path)[:200], hint=_OF_REFUSED)


_OF_REFUSED = "the other files are fetched; --exclude leaves this one out"

Kind = Literal["absent", "file", "folder", "link", "special"]


class StatResult(Protocol):
    """The part of an ``os.stat_result`` that a stamp is made of."""

    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ino(self) -> int: ...


@small_value_class
class Stamp:
    """What the file system says about a file without reading it. A file with an equal stamp is untouched."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: StatResult) -> Stamp:
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)

    def fits(self, now: Stamp) -> bool:
        """Whether a file with the stamp ``now`` is the one of which this stamp was taken, or an archiver's copy of it.

        A copy has another inode, and what archives, image layers and snapshots keep of a time may be its whole second.
        A file that was edited has a time with a fraction. (ADR 52)
        """
        if self == now:
            return True
        is_another_file = self.inode != now.inode
        is_cut = now.mtime_ns == self.mtime_ns // _SECOND * _SECOND
        return is_another_file and is_cut and self.size == now.size

    def is_of(self, status: StatResult) -> bool:
        """Whether it is the stamp of this file."""
        same_file = self.inode == status.st_ino and self.size == status.st_size
        return same_file and self.mtime_ns == status.st_mtime_ns


@small_value_class
class Receipt:
    """What mdl recorded when it published a file: its bytes, its source, and how it was verified.

    ``digest`` is of the bytes that came, and ``prefixes`` are running digests at every 16 MiB. ``verified`` says what
    the bytes were compared with: the algorithm of a published digest, ``size``, or ``none``. An ``adopted`` file was
    there before mdl looked. ``catalog`` names the one catalog for which it was fetched or kept; None if there is none,
    or several. ``url`` has no query; ``asked`` is the `query_hash` of it. A ``suspect`` file is hashed at the next
    check. ``replaced`` is the stamp of mdl's own file that this one takes the place of: a process that is killed before
    this one has its name leaves that one. ``access`` is what the hub said of the file when it came, and ``vouched_by``
    is who says that these bytes are the right ones.
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
    replaced: Stamp | None = None
    access: Access = "unknown"
    vouched_by: Voucher = "folder"

    @property
    def is_vouched_for(self) -> bool:
        """Whether the bytes were compared with a digest that somebody else than their folder or bundle published."""
        return self.vouched_by != "folder" and is_verified(self.verified)

    @property
    def remote(self) -> RemoteFile:
        """The file at its source, as far as the receipt tells."""
        role = role_of(self.path.text)
        return RemoteFile(
            self.path,
            self.url,
            self.stamp.size,
            self.digest,
            role=role,
            hub=self.hub,
            access=self.access,
            vouched_by=self.vouched_by,
        )

    def replaced_one_of(self, stamp: Stamp) -> bool:
        """Whether the file that this one takes the place of has this stamp."""
        return self.replaced is not None and self.replaced.fits(stamp)

    def matches(self, remote: RemoteFile) -> bool:
        """Whether the source still has the file that came then, by all that both tell. A validator tells versions of
        one URL apart, not two URLs (RFC 9110, 8.8.3): without a digest another URL or commit is another file."""
        if remote.size not in (None, self.stamp.size):
            return False
        if remote.digest is not None:
            return remote.digest == self.digest
        return self._came_from(remote) and remote.validator in (None, self.validator)

    def _came_from(self, remote: RemoteFile) -> bool:
        """Whether it is the same place at the same commit. The mirrors of a file count as the same place."""
        if self.commit and remote.commit and self.commit != remote.commit:
            return False
        if self.hub and remote.hub:
            return self.hub.is_same_as(remote.hub)
        return (self.url, self.asked) in {(bare_url(url), query_hash(url)) for url in (remote.url, *remote.mirrors)}


@small_value_class
class LocalFile:
    """What is under the final name. ``fingerprint`` is set if the bytes were hashed just now, and ``own_digest`` if
    they were hashed with the algorithm of the receipt's digest. ``partial`` counts the bytes that an unfinished
    download has. ``why`` says what is in the way, or why a file that is not mdl's is no part of the one that is
    wanted, and ``hint`` what to do about it. A ``foreign`` file belongs to
    another user."""

    kind: Kind = "absent"
    stamp: Stamp | None = None
    receipt: Receipt | None = None
    fingerprint: Fingerprint | None = None
    partial: int = 0
    why: str = ""
    own_digest: Digest | None = None
    foreign: bool = False
    hint: str = ""
    written: tuple[tuple[int, int], ...] | None = None
    """The ranges of it that were written, as far as that is sure, if it has holes. This is looked at before a file is
    read that is not mdl's: what was reserved and then read counts as written."""

    @property
    def size(self) -> int:
        """Its size in bytes; 0 if no file is there."""
        return self.stamp.size if self.stamp else 0

    @property
    def untouched(self) -> bool:
        """Whether mdl published this very file and it was not touched since, as far as is known: bytes that were hashed
        just now are still those."""
        if self.receipt is None or self.receipt.suspect or not self._is_the_same:
            return False
        return all(found == self.receipt.digest for found in self._hashed)

    @property
    def is_unmodified(self) -> bool:
        """Whether the bytes are those that mdl wrote last."""
        return self.untouched or self.was_read_as_written

    @property
    def was_read_as_written(self) -> bool:
        """Whether the file was read just now, and has the bytes of its receipt."""
        return self.receipt is not None and self.receipt.digest in self._hashed

    @property
    def is_edited(self) -> bool:
        """Whether the file was changed after mdl wrote it. Other bytes under the old stamp are damage of the disk."""
        if self.receipt is None or self._is_the_same or self.is_unmodified:
            return False
        return self.foreign or self.stamp is None or not self.receipt.replaced_one_of(self.stamp)

    @property
    def _hashed(self) -> list[Digest]:
        """Digests of the bytes by the receipt's algorithm."""
        found = [self.fingerprint.digest if self.fingerprint else None, self.own_digest]
        algorithm = self.receipt.digest.algorithm if self.receipt else ""
        return [digest for digest in found if digest and digest.algorithm == algorithm]

    @property
    def _is_the_same(self) -> bool:
        if self.receipt is None or self.stamp is None or self.foreign:
            return False
        return self.receipt.stamp.fits(self.stamp)


def told_size(value: object, item: str) -> int:
    """A size in bytes as somebody else tells it. One that no disk has is a size too, for which the plan
    finds no room. Raises `ProtocolError` for what is no size at all."""
    if isinstance(value, float) and LARGEST_NUMBER < value < math.inf:
        return int(value)
    try:
        return value if type(value) is int and value > LARGEST_NUMBER else whole_number(value)
    except OutOfBounds as error:
        raise ProtocolError(f"the size that its source gives: {error}", item=item) from None


def is_verified(verified: str) -> bool:
    """Whether bytes were compared with a digest. ``verified`` is as in a receipt or report: the algorithm of that
    digest, ``size`` or ``none``."""
    return verified not in ("size", "none")


@small_value_class
class HalfFile:
    """An unfinished file. Its bytes in these ranges, each from a first byte to before a last one, may be right.
    ``is_final`` if it has the final name."""

    path: Path
    ranges: tuple[tuple[int, int], ...]
    is_final: bool = False

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return sum(stop - start for start, stop in self.ranges)


def role_of(path: str) -> str:
    """What a file is for, by its name: weights, vocab, config or other."""
    name = path.rsplit("/", 1)[-1].lower()
    if is_weights(name) or name.endswith(_DATA):
        return "weights"
    if name.startswith(_VOCAB):
        return "vocab"
    return "config" if name.endswith((".json", ".yaml", ".yml", ".toml")) else "other"
