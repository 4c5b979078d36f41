"""Delivery: the first and the last steps of one file: open its partial; verify, publish, or begin once more."""

from __future__ import annotations

from collections.abc import Callable

from mdl.cancel import Cancel
from mdl.digests import Digest, Fingerprint, fingerprint, new_hasher
from mdl.download.fetch import Fetcher, called_by_name
from mdl.download.hub_carrier import HubCarrier
from mdl.download.partial import Partial
from mdl.download.schedule import Schedule
from mdl.download.segments import Download, Segment
from mdl.download.store import Store
from mdl.errors import DigestMismatch, StorageError
from mdl.events import Event, Finished, Rewound, Started, Verifying
from mdl.files import Stamp
from mdl.net.hosts import host_of


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

    def small(self, download: Download, segment: Segment) -> None:
        data = self._fetcher.fetch_small(download, segment)
        download.answers += 1
        algorithm = download.remote.digest.algorithm if download.remote.digest else "sha256"
        hasher = new_hasher(algorithm, len(data))
        hasher.update(data)
        print_ = Fingerprint(Digest(algorithm, hasher.hexdigest()), len(data))
        download.progressed(len(data))
        if download.remote.digest and print_.digest != download.remote.digest:
            error = _mismatch(download, print_.digest)
            called_by_name(error, data)
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
            if remote.digest and print_.digest != remote.digest:
                raise _mismatch(download, print_.digest)
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
        if not partial.is_as_written(size) and not self._still_right(download, partial, print_):
            return
        if download.remote.digest and print_.digest != download.remote.digest:
            self._mismatched(download, print_.digest)
            return
        verified = _verified(download)
        self._store.publish(download.model, download.remote, partial, print_, verified, download.item.seen)
        self._published(download, print_, verified)

    def _still_right(self, download: Download, partial: Partial, print_: Fingerprint) -> bool:
        """Read the whole file again, for the digest is of what was read on the way. Where it is another now, begin
        once more. Raises `StorageError` the second time."""
        partial.stretch(print_.size)
        if not partial.is_meddled:
            now = fingerprint(partial.fd, print_.digest.algorithm, watch=self._verify_tick)
            if now.digest == print_.digest:
                return True
        why = "another program changed the unfinished file"
        if download.clean_retry_done:
            download.discarded += partial.total
            partial.discard()
            raise StorageError(why, hint="find out which, and run the same command again")
        download.clean_retry_done = True
        self._fetcher.rewind(download, why)
        self._schedule.ready(download)
        return False

    def _verify_tick(self, _done: int) -> None:
        self._cancel.check()

    def _mismatched(self, download: Download, got: Digest) -> None:
        """Wrong bytes: once more where they came in several answers, then the next mirror, then the end."""
        error = _mismatch(download, got)
        several = (download.resumed_at > 0 or download.answers > 1) and not download.expected
        if several and not download.clean_retry_done:
            download.clean_retry_done = True
        elif download.candidate + 1 < len(download.candidates):
            download.candidate += 1
            download.others.append(error)
        else:
            lost = download.partial.total if download.partial else 0
            download.discarded += lost
            if download.partial:
                download.partial.discard()
            self._post(Rewound(download.model, download.name, bytes_discarded=lost, why=error.message))
            raise error
        download.expected = ()
        self._fetcher.rewind(download, error.message)
        self._schedule.ready(download)

    def _published(self, download: Download, print_: Fingerprint, verified: str) -> None:
        download.fingerprint = print_
        download.verified = verified
        self._schedule.end(download, None)
        self._post(Finished(download.model, download.name, size=print_.size, verified=verified))


def _verified(download: Download) -> str:
    """What the bytes were held against."""
    if download.remote.digest:
        return download.remote.digest.algorithm
    return "none" if download.streamed else "size"


def _mismatch(download: Download, got: Digest) -> DigestMismatch:
    return DigestMismatch(
        f"wrong bytes from {host_of(download.url)}: {got}, expected {download.remote.digest}",
        hint="the source or the catalog's digest is wrong; look at both",
    )
