"""Open files: the bytes of a download on this disk, from the opening of its partial to the name of the whole file.

An `OpenFile` belongs to the workers. What the schedule asks of it, it asks of the `Download`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TypeVar

from mdl.disk.copy import copy_range, read_no_further
from mdl.disk.safe_open import open_for_reading
from mdl.downloader.content_check import LOOKED_AT, check_content, check_whole
from mdl.downloader.download import Download
from mdl.downloader.journal import Identity
from mdl.downloader.partial import OrderedPartial, Partial
from mdl.downloader.store import Store
from mdl.downloader.stream_hasher import InOrderHasher, StreamHasher
from mdl.errors import DigestMismatch, MdlError, Occupied
from mdl.files import HalfFile
from mdl.hashing import Digest, Fingerprint, fingerprint
from mdl.net.allowlist import host_of
from mdl.net.ranges import ByteRange
from mdl.net.server_messages import impostor
from mdl.redact import Secrets, redact_error
from mdl.weights.end_records import ReadableFile, read_at

_TELLING = 4096
"""The first bytes of an answer that tell whether it is a page or a pointer instead of the file."""

ErrorT = TypeVar("ErrorT", bound=MdlError)
OnBytes = Callable[[int], None]
OnBadBlock = Callable[[Download, ByteRange], None]


class OpenFile:
    """One file that workers work on: its partial, the hasher that follows its front, and what answers told of it.

    ``expected`` are the prefix digests that are known beforehand, in a repair. ``recorded`` is what an answer says of
    the digest of a file of which none is known. ``answered_by`` is the URL that brought bytes last, ``responses`` how
    many answers did.
    """

    def __init__(self, download: Download) -> None:
        self.download = download
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

    def begin(self) -> None:
        """Note that its start is reported."""
        self.is_begun = True

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

    def open_anywhere(self, store: Store, *, repair: bool) -> None:
        """Open a partial that is written at any place, in a ``repair`` with the bytes of the damaged file. Raises
        `MdlError`, `OSError`."""
        download = self.download
        remote = download.remote
        receipt = store.receipts.get(download.model, remote.path) if repair else None
        if receipt and receipt.digest == remote.digest and receipt.prefixes and download.item.local.kind == "file":
            self.expected = (*receipt.prefixes, receipt.digest.hex)
            self.partial = store.open_for_repair(download.model, remote)
        else:
            self.partial = store.open_partial(download.model, remote)

    def open_in_order(self, store: Store) -> None:
        """Open a partial that is written in order. Raises `MdlError`, `OSError`."""
        self.partial = store.open_in_order(self.download.model, self.download.remote)

    def borrow(self, half: HalfFile, size: int, watch: OnBytes) -> int:
        """Copy what another program has of the file, and mdl has not, into the partial; returns how many bytes. If that
        cannot be read, it is fetched. Raises `OSError` of mdl's own disk, and what ``watch`` raises."""
        partial = self.part
        borrowed = 0
        with contextlib.suppress(OSError), open_for_reading(half.path, os.O_NOFOLLOW) as source:
            read_no_further(source)
            for wanted in partial.gaps(size):
                for first, last in half.ranges:
                    start = max(first, wanted.start)
                    stop = min(last, wanted.stop)
                    if start < stop:
                        count = copy_range(source, partial.fd, stop - start, watch, start)
                        partial.mark_present(ByteRange(start, start + count))
                        borrowed += count
        self.is_borrowed_from_final = borrowed > 0 and half.is_final
        return borrowed

    def start_hasher(self, on_bad: OnBadBlock) -> None:
        """Have the file hashed while it is fetched: by a thread if its size is known, or as it is written in order.
        ``on_bad`` gets a block that is wrong, once, and that will be fetched again."""
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
            on_bad(download, block)
            return True

        self.hasher = StreamHasher(partial, algorithm, size, expected=self.expected, on_bad=is_fetched_again)

    def rewind(self, on_bad: OnBadBlock) -> int:
        """Discard every byte and begin anew; returns how many they were. Nothing else may work on the file. Raises
        `OSError`."""
        download = self.download
        self.stop_hasher()
        download.begin_anew()
        lost = self.part.rewind(Identity.of(download.remote))
        size = download.remote.size
        if size is not None:
            self.part.set_length(size)
        self.hasher = None
        self.start_hasher(on_bad)
        return lost

    def drop(self) -> int:
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

    def why_wrong_on_disk(self, print_: Fingerprint) -> MdlError | None:
        """Do as `why_wrong`, for the bytes in the partial. Raises `OSError`."""
        error = self.why_wrong(print_, os.pread(self.part.fd, LOOKED_AT, 0))
        if self.is_borrowed_from_final and isinstance(error, DigestMismatch):
            hint = "use --force to replace it, or --to for another folder"
            why = "another file has this name, and is no part of this one"
            return Occupied(why, item=self.download.name, hint=hint)
        return error

    def why_cut_on_disk(self, print_: Fingerprint) -> MdlError | None:
        """Do as `why_cut`, for the bytes in the partial. Raises `OSError`."""
        with open(self.part.fd, "rb", closefd=False) as file:
            return self.why_cut(print_, file)

    def is_as_written(self, print_: Fingerprint, watch: OnBytes) -> bool:
        """Give the partial its final length. Returns whether no other program changed it. If that may be, the whole
        file is hashed again: the digest is that of the bytes as they were before. Raises `OSError`."""
        partial = self.part
        if partial.seal(print_.size):
            return True
        if partial.was_cut:
            return False
        return fingerprint(partial.fd, print_.digest.algorithm, watch=watch).digest == print_.digest

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
