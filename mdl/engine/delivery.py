"""Delivery: the first and the last steps of one file: open its partial; verify, publish, or begin once more."""

from __future__ import annotations

import os
from collections.abc import Callable

from mdl.cancel import Cancel
from mdl.engine.content import LOOKED_AT, check_content
from mdl.engine.fetch import Fetcher, called_by_name
from mdl.engine.hub_carrier import HubCarrier
from mdl.engine.partial import Partial
from mdl.engine.schedule import Schedule
from mdl.engine.segments import Download, Segment
from mdl.engine.store import Store
from mdl.errors import DigestMismatch, MdlError, StorageError
from mdl.events import Event, Finished, Rewound, Started, Verifying
from mdl.files import Stamp
from mdl.hashing import Digest, Fingerprint, fingerprint, new_hasher
from mdl.http.hosts import host_of
from mdl.http.policy import Verified


class Delivery:
    """Takes files of one transfer in hand. ``count`` is how many there are; ``repair`` looks for bad blocks in
    what stands there already."""

    def __init__(
        self,
        store: Store,
        schedule: Schedule,
        fetcher: Fetcher,
        post: Callable[[Event], None],
        cancel: Cancel,
        *,
        count: int,
        repair: bool,
    ) -> None:
        self._store, self._schedule, self._fetcher, self._post = store, schedule, fetcher, post
        self._cancel, self._count, self._repair = cancel, count, repair

    def begin(self, download: Download) -> None:
        if download.small or download.carried:
            self._forget_partials(download)
        else:
            self._open(download)
        self._post(
            Started(
                download.model,
                download.name,
                index=download.index,
                count=self._count,
                total=download.remote.size,
                resumed_at=download.resumed_at,
                host=host_of(download.url),
            )
        )
        self._schedule.ready(download)

    def _forget_partials(self, download: Download) -> None:
        lost = self._store.forget_partials(download.model, download.remote)
        if lost:
            download.discarded += lost
            why = "the file comes in one piece"
            self._post(Rewound(download.model, download.name, bytes_discarded=lost, why=why))

    def _open(self, download: Download) -> None:
        remote = download.remote
        receipt = self._store.receipts.get(download.model, remote.path, prefixes=True) if self._repair else None
        if receipt and receipt.digest == remote.digest and receipt.prefixes and download.item.local.kind == "file":
            download.expected = (*receipt.prefixes, receipt.digest.hex)
            partial = self._store.open_damaged(download.model, remote, receipt)
        else:
            partial = self._store.open_partial(download.model, remote)
        download.partial = partial
        download.resumed_at = partial.total
        if partial.dropped:
            download.discarded += partial.dropped
            self._post(Rewound(download.model, download.name, bytes_discarded=partial.dropped, why=partial.dropped_why))
        if remote.size is not None:
            partial.stretch(remote.size)
            for gap in partial.gaps(remote.size):
                download.pending.add(gap.start, gap.stop)
            download.follower = self._fetcher.follower(download)

    def rewind(self, download: Download) -> None:
        """Begin anew. Nothing of a small file is here that could be thrown away; but its new version may be large."""
        if download.partial:
            self._fetcher.rewind(download, download.rewind_why)
        elif not download.small:
            self._open(download)
        download.rewind_why = ""
        self._schedule.ready(download)

    def small(self, download: Download, segment: Segment) -> None:
        data = self._fetcher.fetch_small(download, segment)
        if data is None:
            self._schedule.returned(download, segment)
            return
        download.answers += 1
        algorithm = download.remote.digest.algorithm if download.remote.digest else "sha256"
        hasher = new_hasher(algorithm, len(data))
        hasher.update(data)
        print_ = Fingerprint(Digest(algorithm, hasher.hexdigest()), len(data))
        download.progressed(len(data))
        error = self._not_it(download, print_, data[:LOOKED_AT])
        if error:
            download.discarded += len(data)
            self._post(Rewound(download.model, download.name, bytes_discarded=len(data), why=error.message))
            raise error
        verified = _verified(download)
        self._store.publish_small(download.model, download.remote, data, print_, verified, download.item.seen)
        self._published(download, print_, verified)

    def carried(self, download: Download, carrier: HubCarrier) -> None:
        """The whole file by the hub's own client; verified here all the same. Raises `MdlError`, `OSError`."""
        remote = download.remote
        assert remote.hub is not None
        with self._store.side_folder(download.model, remote) as folder:
            path = carrier.fetch(remote.hub, folder, download.progressed)
            stamp, print_ = Stamp.of(path.lstat()), self._store.fingerprint(path, remote)
            error = _mismatch(download, print_.digest)
            if error:
                raise error
            seen = download.item.seen
            self._store.publish_file(download.model, remote, path, print_, _verified(download), stamp, seen)
        self._published(download, print_, _verified(download))

    def finish(self, download: Download) -> None:
        partial, size = download.partial, download.remote.size
        assert partial is not None
        assert size is not None
        if download.follower is None:
            partial.stretch(size)
            download.follower = self._fetcher.follower(download)
        self._post(Verifying(download.model, download.name, done=download.follower.done, total=size))
        print_ = download.follower.result(self._verify_tick)
        if print_ is None:
            self._schedule.ready(download)
            return
        error = self._meddled(partial, print_) or self._not_it(download, print_, os.pread(partial.fd, LOOKED_AT, 0))
        self._cancel.check()
        received, is_mixed = download.fetched, isinstance(error, StorageError) or _is_mixed(download)
        self._schedule.outcome(download, Verified(error, is_mixed, received))
        if error is None and not download.error:
            verified = _verified(download)
            self._store.publish(download.model, download.remote, partial, print_, verified, download.item.seen)
            self._published(download, print_, verified)
            return
        if download.error and error:
            self._throw_away(download, error.message)
        download.expected = ()
        self._schedule.ready(download)

    def _not_it(self, download: Download, print_: Fingerprint, beginning: bytes) -> MdlError | None:
        """The error if this is not the file that was asked for: by its digest, or by how it begins if none is known."""
        error: MdlError | None = _mismatch(download, print_.digest)
        if isinstance(error, DigestMismatch) and download.small:
            called_by_name(error, beginning)
        if download.remote.digest is None:
            kind, url = download.content_type, download.answered_by
            error = check_content(download.name, beginning, print_.size, content_type=kind, url=url)
        if error:
            download.clean(error)
        return error

    def _meddled(self, partial: Partial, print_: Fingerprint) -> StorageError | None:
        """The error if another program changed the file while it was written. If it may have, the whole is read
        again, for the digest is of what was read on the way. Raises `OSError`."""
        if partial.is_as_written(print_.size):
            return None
        partial.stretch(print_.size)
        if not partial.is_meddled:
            now = fingerprint(partial.fd, print_.digest.algorithm, watch=self._verify_tick)
            if now.digest == print_.digest:
                return None
        hint = "find out which, and run the same command again"
        return StorageError("another program changed the unfinished file", hint=hint)

    def _throw_away(self, download: Download, why: str) -> None:
        """The file is given up, and no byte of it is worth keeping."""
        partial = download.partial
        assert partial is not None
        lost = partial.total
        download.discarded += lost
        partial.discard()
        self._post(Rewound(download.model, download.name, bytes_discarded=lost, why=why))

    def _verify_tick(self, _done: int) -> None:
        self._cancel.check()

    def _published(self, download: Download, print_: Fingerprint, verified: str) -> None:
        download.fingerprint = print_
        download.verified = verified
        self._schedule.end(download)
        self._post(Finished(download.model, download.name, size=print_.size, verified=verified))


def _verified(download: Download) -> str:
    """What the bytes were held against."""
    if download.remote.digest:
        return download.remote.digest.algorithm
    return "none" if download.streamed else "size"


def _is_mixed(download: Download) -> bool:
    """The bytes came in more than one answer: asking for the whole once more may help."""
    return (download.resumed_at > 0 or download.answers > 1) and not download.expected


def _mismatch(download: Download, got: Digest) -> DigestMismatch | None:
    """The error if the file's digest is known and another one came."""
    if download.remote.digest in (None, got):
        return None
    return DigestMismatch(
        f"wrong bytes from {host_of(download.url)}: {got}, expected {download.remote.digest}",
        hint="the source or the catalog's digest is wrong; look at both",
    )
