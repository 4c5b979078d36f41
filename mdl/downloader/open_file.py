"""Open files: the bytes of a download on this disk, from the opening of its partial to the name of the whole file.

An `OpenFile` belongs to the workers. What the schedule asks of it, it asks of the `Download`. What all files of a
transfer are worked on with is its `TransferContext`.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mdl.disk.copy import copy_range, read_no_further
from mdl.disk.publish import StagedFile
from mdl.disk.safe_open import open_for_reading
from mdl.downloader.content_check import LOOKED_AT, check_content, check_whole
from mdl.downloader.download import Download
from mdl.downloader.hub_client import HubClient
from mdl.downloader.journal import Identity
from mdl.downloader.partial import FileModified, OrderedPartial, Partial
from mdl.downloader.shared_schedule import SharedSchedule
from mdl.downloader.store import Ready, Store
from mdl.downloader.stream_hasher import InOrderHasher, StreamHasher
from mdl.errors import DigestMismatch, MdlError, Occupied
from mdl.events import Noticed, Started
from mdl.files import HalfFile, RemoteFile, Stamp
from mdl.formatting import human_bytes
from mdl.hashing import Digest, Fingerprint, fingerprint
from mdl.listener import Event, Listener
from mdl.net.allowlist import host_of
from mdl.net.client import HttpClient
from mdl.net.follower import OpenResponse
from mdl.net.ranges import ByteRange
from mdl.net.server_messages import impostor
from mdl.redact import Secrets, redact_error
from mdl.values import value_class
from mdl.weights.end_records import ReadableFile, read_at

_IN_ORDER = "this folder takes writes in order alone"
_TELLING = 4096
"""The first bytes of an answer that tell whether it is a page or a pointer instead of the file."""

ErrorT = TypeVar("ErrorT", bound=MdlError)
Describe = Callable[[RemoteFile, OpenResponse, Listener], RemoteFile]


@value_class
class TransferContext:
    """What every file of a transfer is worked on with, made once for it.

    ``tell`` accepts events from any thread. ``describe`` reads off the head of an answer what an unasked file is.
    ``count`` is how many files there are; with ``repair`` only the bad blocks of damaged files are fetched. The
    ``hub_client``, if there is one, fetches the hub's files. All files together may have ``most`` bytes.
    """

    store: Store
    http: HttpClient
    shared: SharedSchedule
    tell: Callable[[Event], None]
    describe: Describe
    count: int
    repair: bool = False
    hub_client: HubClient | None = None
    most: float = math.inf

    def check_cancel(self, _done: int = 0) -> None:
        """Raises `Cancelled` if the transfer is to stop."""
        self.http.cancel.check()


class OpenFile:
    """One file that workers work on: its partial, the hasher that follows its front, and what answers told of it.

    ``expected`` are the prefix digests that are known beforehand, in a repair. ``recorded`` is what an answer says of
    the digest of a file of which none is known. ``answered_by`` is the URL that brought bytes last, ``responses`` how
    many answers did.
    """

    def __init__(self, download: Download, context: TransferContext) -> None:
        self.download = download
        self._context = context
        self.partial: Partial | None = None
        self.hasher: StreamHasher | InOrderHasher | None = None
        self.expected: tuple[str, ...] = ()
        self.recorded: Digest | None = None
        self.answered_by = ""
        self.responses = 0
        self.is_begun = False
        """Of a small file: its start was reported."""
        self.is_borrowed_from_final = False
        """Some of its bytes were taken from another program's file under the final name."""

    @property
    def part(self) -> Partial:
        """The partial, which must be open."""
        assert self.partial is not None
        return self.partial

    @property
    def digest(self) -> Digest | None:
        """What its bytes are compared with."""
        return self.download.remote.digest or self.recorded

    @property
    def is_in_order(self) -> bool:
        """Whether its bytes can only be written one after the other."""
        return self.partial is not None and self.partial.is_in_order

    @property
    def is_written_anywhere(self) -> bool:
        """Whether its bytes are written at any place."""
        return self.partial is not None and not self.partial.is_in_order

    def answered(self, url: str) -> None:
        """Record that an answer from this ``url`` contains bytes of the file."""
        self.responses += 1
        self.answered_by = url

    def note_digest(self, recorded: Digest) -> None:
        """Note the digest that an answer tells of it."""
        self.recorded = recorded

    def forget_expected(self) -> None:
        """Let the digest of the whole file decide alone."""
        self.expected = ()

    # Its partial.

    def begin(self) -> None:
        """Open the partial, or remove one that is not needed, and report the start. Raises `MdlError`, `OSError`."""
        self.is_begun = True
        download = self.download
        if download.small or download.via_hub:
            lost = self._context.store.discard_partials(download.model, download.remote)
            self._context.shared.discarded(download, lost, "the file comes in one piece")
        else:
            self.open()
        self.report_start()

    def report_start(self) -> None:
        """Report that it is begun, and how many of its bytes are here."""
        download = self.download
        self._context.tell(
            Started(
                download.model,
                download.name,
                index=download.index,
                count=self._context.count,
                total=download.remote.size,
                resumed_at=download.resumed_at,
                host=host_of(download.url),
            )
        )

    def open(self) -> None:
        """Open the partial: one that is written at any place, or in order where nothing else is taken. Raises
        `MdlError`, `OSError`."""
        store = self._context.store
        download = self.download
        if not store.writes_in_order:
            try:
                self._open_anywhere()
                return
            except OSError as error:
                if not self._shows_order(error):
                    raise
                self._drop()
        self.partial = store.open_in_order(download.model, download.remote)
        download.opened(self.partial)
        self.start_hasher()

    def _open_anywhere(self) -> None:
        """Open a partial that is written at any place, in a repair with the bytes of the damaged file. Raises
        `MdlError`, `OSError`."""
        store = self._context.store
        download = self.download
        remote = download.remote
        receipt = store.receipts.get(download.model, remote.path) if self._context.repair else None
        if receipt and receipt.digest == remote.digest and receipt.prefixes and download.item.local.kind == "file":
            self.expected = (*receipt.prefixes, receipt.digest.hex)
            partial = store.open_for_repair(download.model, remote)
        else:
            partial = store.open_partial(download.model, remote)
        self.partial = partial
        if remote.size is not None:
            partial.set_length(remote.size)
            if download.item.half:
                self._borrow(partial, download.item.half, remote.size)
        self._context.shared.discarded(download, partial.dropped, partial.dropped_why)
        download.opened(partial)
        self.start_hasher()

    def _borrow(self, partial: Partial, half: HalfFile, size: int) -> None:
        """Copy what another program has of the file, and mdl has not, into the partial. If that cannot be read, it is
        fetched. Raises `OSError` of mdl's own disk, `Cancelled`."""
        borrowed = 0
        with contextlib.suppress(OSError), open_for_reading(half.path, os.O_NOFOLLOW) as source:
            read_no_further(source)
            for wanted in partial.gaps(size):
                for first, last in half.ranges:
                    start = max(first, wanted.start)
                    stop = min(last, wanted.stop)
                    if start < stop:
                        count = copy_range(source, partial.fd, stop - start, self._context.check_cancel, start)
                        partial.mark_present(ByteRange(start, start + count))
                        borrowed += count
        if borrowed:
            self.is_borrowed_from_final = half.is_final
            why = f"{human_bytes(borrowed)} of it are taken from {half.path}; its digest decides whether they are right"
            self._context.tell(Noticed(self.download.model, self.download.name, why))

    def begins_anew_in_order(self, error: BaseException) -> bool:
        """Return whether the error means that the folder takes writes in order alone; then the file begins anew, in
        order."""
        if not isinstance(error, OSError) or not self.is_written_anywhere or not self._shows_order(error):
            return False
        with self._context.shared.locked():
            self.download.discard(_IN_ORDER)
        return True

    def _shows_order(self, error: OSError) -> bool:
        """Return whether an error of a partial's means that this folder takes writes in order alone. It is told
        once."""
        is_news = self._context.store.write_in_order(error)
        if is_news:
            words = error.strerror or str(error)
            self._context.tell(
                Noticed(message=f"{_IN_ORDER} ({words}): one connection per file, and a broken download starts again")
            )
        return is_news is not None

    def start_hasher(self) -> None:
        """Have the file hashed while it is fetched: by a thread if its size is known, or as it is written in order. A
        block that is wrong is fetched again, once."""
        partial = self.part
        download = self.download
        size = download.remote.size
        algorithm = download.remote.hash_algorithm
        if isinstance(partial, OrderedPartial):
            in_order = InOrderHasher(partial, algorithm, size)
            partial.hash_with(in_order.feed)
            self.hasher = in_order
            return
        if size is None:
            return
        fetched_again: set[int] = set()

        def is_fetched_again(block: ByteRange) -> bool:
            if block.start in fetched_again or download.single_stream:
                return False  # it is still wrong, or cannot be fetched alone: the digest of the whole file decides
            fetched_again.add(block.start)
            partial.mark_missing(block)
            self._context.shared.block_is_bad(download, block)
            return True

        self.hasher = StreamHasher(partial, algorithm, size, expected=self.expected, on_bad=is_fetched_again)

    def rewind(self, why: str) -> None:
        """Begin anew, for this reason. Nothing else may work on the file. No byte of a small file is kept that could be
        discarded, but its new version may be large. Raises `MdlError`, `OSError`."""
        download = self.download
        if self.partial is None:
            download.begin_anew()
            if not download.small and not download.is_unasked:
                self.open()
        elif self.is_written_anywhere and self._context.store.writes_in_order:
            lost = self._drop()
            download.begin_anew()
            self.open()
            self._context.shared.discarded(download, lost, why)
        else:
            self.discard_bytes(why)

    def discard_bytes(self, why: str) -> None:
        """Discard every byte of the partial, for this reason, and begin anew. Nothing else may work on the file. Raises
        `OSError`."""
        download = self.download
        self.stop_hasher()
        download.begin_anew()
        lost = self.part.rewind(Identity.of(download.remote))
        size = download.remote.size
        if size is not None:
            self.part.set_length(size)
        self.hasher = None
        self.start_hasher()
        self._context.shared.discarded(download, lost, why)

    def _drop(self) -> int:
        """Give up a partial that the folder does not take; returns how many bytes it had."""
        lost = 0
        self.stop_hasher()
        if self.partial:
            lost = self.partial.total
            with contextlib.suppress(OSError):
                self.partial.close()
            self.partial.discard()
        self.hasher = None
        self.partial = None
        self.expected = ()
        self.download.dropped()
        return lost

    def wake_hasher(self) -> None:
        """Tell the hasher that more bytes were written, which may be hashed now."""
        if self.hasher:
            self.hasher.wake()

    def stop_hasher(self, *, wait: bool = True) -> None:
        """End the hasher's thread, if there is one; wait for that unless told otherwise."""
        if self.hasher:
            self.hasher.stop(wait=wait)

    def claim(self) -> None:
        """Claim what was written, as far as the disk allows that."""
        if self.partial:
            with contextlib.suppress(OSError):
                self.partial.claim()

    def sync(self) -> None:
        """Sync what was written, as far as the disk allows that."""
        if self.partial:
            with contextlib.suppress(OSError):
                self.partial.sync()

    def close(self) -> None:
        """Close it. The bytes that came are kept; what could not be synced may be fetched again."""
        self.stop_hasher()
        self.sync()
        if self.partial:
            with contextlib.suppress(OSError):
                self.partial.close()

    # Whether it is the file that was asked for.

    def why_wrong(self, print_: Fingerprint, beginning: bytes) -> MdlError | None:
        """Return the error if this is not the file that was asked for, by its digest, or by its first bytes if no
        digest is known."""
        error: MdlError | None = None
        if self.digest is None:
            name = self.download.remote.name_by_content(beginning)
            error = check_content(name, beginning, print_.size, url=self.answered_by)
        elif self.digest != print_.digest:
            error = self.mismatch(print_)
            if self.download.small:
                error = name_impostor(error, beginning)
        if error:
            self._redact(error)
        return error

    def why_cut(self, print_: Fingerprint, file: ReadableFile) -> MdlError | None:
        """Return the error if the end of a file is missing of which no digest is known."""
        if self.digest is not None:
            return None
        name = self.download.remote.name_by_content(read_at(file, 0, LOOKED_AT))
        return check_whole(file, print_.size, name)

    def verify(self, print_: Fingerprint) -> tuple[MdlError | None, bool]:
        """Return what is wrong with the bytes in the partial, and whether to fetch the file once more may help. Raises
        `FileModified` if another program changed it while it was written, `OSError`."""
        self._check_as_written(print_)
        error = self.why_wrong(print_, os.pread(self.part.fd, LOOKED_AT, 0))
        if error is None:
            with open(self.part.fd, "rb", closefd=False) as file:
                return self.why_cut(print_, file), True
        if self.is_borrowed_from_final and isinstance(error, DigestMismatch):
            hint = "use --force to replace it, or choose another folder"
            why = "another file has this name, and is no part of this one"
            return Occupied(why, item=self.download.name, hint=hint), False
        return error, not self.expected and (self.download.resumed_at > 0 or self.responses > 1)

    def _check_as_written(self, print_: Fingerprint) -> None:
        """Give the partial its final length. Raises `FileModified` if another program changed the file while it was
        written. If that may be, the whole file is hashed again: the digest is that of the bytes as they were before.
        Raises `OSError`."""
        partial = self.part
        try:
            is_as_written = partial.seal(print_.size)
        except OSError as error:
            if self.is_in_order or not self._shows_order(error):
                raise
            raise FileModified("this folder does not take a file that is cut") from error
        if is_as_written:
            return
        if not partial.was_cut:
            again = fingerprint(partial.fd, print_.digest.algorithm, watch=self._context.check_cancel)
            is_as_written = again.digest == print_.digest
        if not is_as_written:
            raise FileModified

    def ready(self, source: Partial | Path | StagedFile, print_: Fingerprint, stamp: Stamp | None = None) -> Ready:
        """Return what the store publishes: its bytes are in ``source``, and were verified."""
        download = self.download
        verified = "none" if download.length_discovered else "size"
        if download.remote.is_vouched_for:
            verified = download.remote.verified
        elif download.remote.digest is None and self.recorded:
            verified = self.recorded.algorithm
        return Ready(download.model, download.remote, source, print_, verified, download.seen, stamp)

    def mismatch(self, print_: Fingerprint) -> DigestMismatch:
        """Return the error for bytes whose digest is another one."""
        return DigestMismatch(
            f"wrong bytes from {host_of(self.download.url)}: {print_.digest}, expected {self.digest}",
            hint="the source or the catalog's digest is wrong; look at both",
        )

    def _redact(self, error: MdlError) -> None:
        """Remove the query strings of the URLs that were asked from an error: a server may repeat them."""
        secrets = Secrets()
        for url in (self.download.url, self.download.location, self.answered_by):
            secrets.add_query(url or "")
        redact_error(error, secrets)


def name_impostor(error: ErrorT, beginning: bytes | bytearray) -> ErrorT:
    """Return the error, which also says if ``beginning`` is that of a web page or a git-lfs pointer."""
    found = impostor(bytes(beginning[:_TELLING]))
    if found:
        return error.but(message=f"{error.message}: {found[0]}", hint=found[1])
    return error
