"""The swarm of one command: it fills the partials of a plan as far as it can, and later passes on what is here.

It publishes nothing and decides nothing. What it did not bring is missing in the partials, and the transfer that
follows fetches it. What it did bring the transfer compares with its sha256, as all bytes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mdl.catalog.lock import LockedModel
from mdl.engine.partial import Partial
from mdl.engine.plan import Item, Plan
from mdl.engine.store import Store
from mdl.errors import Cancelled, MdlError
from mdl.events import Event, FileProgress, Finished, Listener, Noticed, Progressed, Started
from mdl.files import RemoteFile
from mdl.formatting import human_bytes
from mdl.fs.private import read_whole
from mdl.http.body import Throttle
from mdl.http.client import HttpClient
from mdl.http.ranges import ByteRange
from mdl.paths import record_name
from mdl.swarm import FOLDER, SwarmOptions, refused
from mdl.swarm.feeder import Feeder, pieces_to_feed
from mdl.swarm.session import Look, Session, Share
from mdl.swarm.torrent import LARGEST_TORRENT, TorrentFile, covered, read_torrent
from mdl.units import Speed

_TICK = 0.1
_ALONE_SECONDS = 2.0
"""How long a node waits for the first peer before it asks the origin."""
_CLAIM_SECONDS = 2.0
_FLUSH_SECONDS = 10.0
_QUIET_SECONDS, _LONGEST_SECONDS = 5.0, 60.0
"""A node that has everything passes it on until no byte was taken for the shorter time, or the longer one is over."""


def torrent_path(lock: Path, model: str) -> Path:
    """Where the torrent of a model is."""
    return lock.parent / FOLDER / f"{record_name(model)}.torrent"


class Swarm:
    """Takes part with each model of a plan that ``locked`` has a torrent of, beside the lock at ``path``. ``stall`` is
    in seconds. ``received`` and ``fed`` count the bytes that came from peers and from the origin. Close it when
    done."""

    def __init__(
        self, options: SwarmOptions, locked: Mapping[str, LockedModel], path: Path, stall: float, throttle: Throttle
    ) -> None:
        self._options, self._locked, self._path = options, locked, path
        self._stall, self._throttle = stall, throttle
        self._session: Session | None = None
        self._parts: list[_Part] = []
        self.received = self.fed = 0

    def bring(self, plan: Plan, store: Store, http: HttpClient, tell: Listener) -> None:
        """Fill the partials of what ``plan`` fetches. Whatever hinders it is told, and left to the transfer.

        Raises `AuthError` for a model that is not to be passed on, `ProtocolError` for a torrent that is not the one of
        the lock, and `Cancelled`.
        """
        for name in dict.fromkeys(item.wanted.model for item in plan.fetch):
            with contextlib.ExitStack() as stack:
                part = self._part(name, plan, store, stack, tell)
                if part is None:
                    continue
                feeder = Feeder(http, part.source_of, part.share.add_piece)
                work = _Work(self._stall, part, feeder, plan, store, tell)
                why = work.run()
                self.received, self.fed = self.received + work.received, self.fed + feeder.bytes_fetched
                peers, origin = human_bytes(work.received), human_bytes(feeder.bytes_fetched)
                told = f"{peers} from other machines, {origin} from the origin"
                tell(Noticed(name, message=f"{told}; {why}: the rest comes over HTTP" if why else told))
                if why:
                    self.close()  # nothing but the transfer may write into the partials from now on
                else:
                    self._parts.append(part)

    def _part(self, name: str, plan: Plan, store: Store, stack: contextlib.ExitStack, tell: Listener) -> _Part | None:
        """This node's part with one model; None if there is nothing in it for the swarm. Raises as `bring`."""
        locked, data = self._locked.get(name), b""
        if locked and locked.swarm:
            with contextlib.suppress(OSError):
                data = read_whole(torrent_path(self._path, name), LARGEST_TORRENT)
        if not locked or not data:
            tell(Noticed(name, message=f"it has no torrent, and comes over HTTP: 'mdl lock --swarm {name}' makes one"))
            return None
        items = [item for item in (*plan.fetch, *plan.keep) if item.wanted.model == name]
        is_gated = locked.swarm_gated or any(item.remote.access in ("gated", "private") for item in items)
        if is_gated and not self._options.gated:
            raise refused(name, "mdl get --swarm")
        torrent = read_torrent(data, locked)
        digests = {one.path: one.digest for one in covered(locked)}
        by_path = {item.remote.path: item for item in items if item.remote.digest == digests.get(item.remote.path)}
        files = {file.index: (file, by_path[file.path]) for file in torrent.files if file.path in by_path}
        part = _Part(files)
        for file, item in files.values():
            if item in plan.keep:
                part.places[file.index] = store.final_path(name, item.remote)
                part.have.update(file.pieces)
            else:
                with contextlib.suppress(OSError, MdlError):  # the transfer meets the same, and reports it
                    part.open(file, item, store, stack)
        if not part.partials:
            return None
        try:
            self._session = self._session or Session(self._options, self._throttle)
            part.share = self._session.join(torrent, part.places, part.partials, part.have)
        except RuntimeError as error:
            tell(Noticed(name, message=f"the swarm cannot be used: {error}"))
            return None
        return part

    def following(self, tell: Listener, store: Store) -> Listener:
        """A listener that passes every event on to ``tell``, and has files passed on from where they are now."""

        def listen(event: Event) -> None:
            if isinstance(event, Finished):
                for part in self._parts:
                    part.published(event, store)
            tell(event)

        return listen

    def linger(self, store: Store, tell: Listener) -> None:
        """Pass on what is here while others want it: until none does, no byte was taken for 5 s, a minute is over, or
        the user stops it."""
        began = quiet_since = time.monotonic()
        sent, is_told = -1, False
        with contextlib.suppress(Cancelled, RuntimeError):  # all that was wanted is here, whatever ends this
            while (now := time.monotonic()) < began + _LONGEST_SECONDS and now < quiet_since + _QUIET_SECONDS:
                looks = [part.share.look() for part in self._parts]
                if not any(look.others for look in looks):
                    return
                if not is_told:
                    tell(Noticed(message="it is here; other machines still take it from here, for a minute at most"))
                is_told = True
                if sum(look.sent for look in looks) != sent:
                    sent, quiet_since = sum(look.sent for look in looks), now
                store.cancel.wait(_TICK)

    def close(self) -> None:
        if self._session:
            self._session.close()
        self._session, self._parts = None, []


@dataclass
class _Part:
    """This node's part with one model: which of its files are in the torrent, where they are, and what of them is
    here."""

    files: dict[int, tuple[TorrentFile, Item]]
    places: dict[int, Path] = field(default_factory=dict)
    partials: dict[int, Partial] = field(default_factory=dict)
    have: set[int] = field(default_factory=set)
    share: Share = field(init=False)

    def open(self, file: TorrentFile, item: Item, store: Store, stack: contextlib.ExitStack) -> None:
        """Open the partial of a file that is to come. Raises as `Partial.open`."""
        partial = store.open_partial(item.wanted.model, item.remote)
        stack.callback(partial.close)
        os.ftruncate(partial.fd, file.size)  # the transfer has it a byte longer, which libtorrent would not take
        gaps = partial.gaps(file.size)
        self.have.update(piece for piece in file.pieces if not _touches(gaps, file.bytes_of(piece)))
        self.partials[file.index] = partial
        self.places[file.index] = partial.folder / "data"

    def wanted(self) -> Iterator[int]:
        """The pieces of the files that are to come."""
        for index in self.partials:
            yield from self.files[index][0].pieces

    def source_of(self, piece: int) -> tuple[RemoteFile, ByteRange]:
        """Which bytes of which file a piece is."""
        file, item = next(one for one in self.files.values() if piece in one[0].pieces)
        return item.remote, file.bytes_of(piece)

    def claim(self, pieces: set[int]) -> None:
        """These pieces are in the partials from now on. Raises `OSError`."""
        for index, partial in self.partials.items():
            file = self.files[index][0]
            for piece in pieces.intersection(file.pieces) - self.have:
                partial.mark_present(file.bytes_of(piece))
            partial.sync_and_claim()
        self.have |= pieces

    def published(self, event: Finished, store: Store) -> None:
        """A file of this model may have got its final name."""
        for index, (_, item) in self.files.items():
            is_it = _names(item) == (event.model, event.file) and index in self.partials
            if is_it and not self.places[index].exists():
                self.places[index] = store.final_path(event.model, item.remote)
                self.share.moved(index, self.places[index])


def _touches(gaps: list[ByteRange], part: ByteRange) -> bool:
    return any(gap.start < part.stop and part.start < gap.stop for gap in gaps)


class _Work:
    """The time in which pieces come."""

    def __init__(self, stall: float, part: _Part, feeder: Feeder, plan: Plan, store: Store, tell: Listener) -> None:
        self._stall, self._part, self._feeder, self._plan = stall, part, feeder, plan
        self._store, self._tell = store, tell
        self._began = self._moved_at = self._claimed_at = time.monotonic()
        self._speed, self._moved = Speed(self._began), -1
        self._flushing: set[int] | None = None
        self._before = set(part.have)
        self.received = 0

    def run(self) -> str:
        """Until all wanted pieces are here; returns why it ended before that, or ''. Raises `Cancelled`."""
        why, part, cancel = "", self._part, self._store.cancel
        for number, (file, item) in enumerate((part.files[index] for index in part.partials), 1):
            here = part.partials[file.index].total
            self._tell(Started(*_names(item), index=number, count=len(part.partials), total=file.size, resumed_at=here))
        try:
            while not why:
                cancel.check()
                look = part.share.look()
                missing = [piece for piece in part.wanted() if not look.have[piece]]
                if not missing:
                    break
                self.received = look.received
                self._claim(look)
                why = self._advance(look, missing)
                cancel.wait(_TICK)
        except (OSError, RuntimeError) as error:  # of the disk, or of libtorrent
            why = str(error)
        finally:
            self._feeder.is_over = True
        self._finish()
        return why

    def _advance(self, look: Look, missing: list[int]) -> str:
        """Ask the origin for what is due, and tell of the progress; returns why it is of no use to go on, or ''."""
        now, feeder = time.monotonic(), self._feeder
        moved = look.done + look.received + feeder.bytes_fetched
        if moved != self._moved:
            self._moved, self._moved_at = moved, now
        idle = now - self._moved_at
        self._report(now, look)
        if look.error or feeder.error:
            return look.error or str(feeder.error)
        wrong, self._part.share.wrong = self._part.share.wrong, []
        if any(feeder.was_wrong(piece) for piece in wrong):
            return "the origin has other bytes than the torrent"
        if idle >= self._stall:
            return f"no byte came for {idle:.0f} s"
        if look.peers or now - self._began >= _ALONE_SECONDS:
            feeder.feed(pieces_to_feed(look.id, look.others, missing, look.availability, idle))
        return ""

    def _claim(self, look: Look) -> None:
        """Have the journals claim what came, once libtorrent wrote it. Raises `OSError`."""
        if self._flushing is not None and self._part.share.has_flushed:
            self._part.claim(self._flushing)
            self._flushing = None
        now, here = time.monotonic(), {piece for piece in self._part.wanted() if look.have[piece]}
        if self._flushing is None and here - self._part.have and now - self._claimed_at >= _CLAIM_SECONDS:
            self._claimed_at, self._flushing = now, here
            self._part.share.flush()

    def _finish(self) -> None:
        """Wait until libtorrent wrote all that came, and claim it: what is not claimed comes again."""
        share, until = self._part.share, time.monotonic() + _FLUSH_SECONDS
        with contextlib.suppress(OSError, RuntimeError):
            look = share.look()
            self.received = max(look.received, self._from_peers(look))
            share.flush()
            while not share.has_flushed and time.monotonic() < until:
                self._store.cancel.wait(_TICK / 10)
                share.look()
            if share.has_flushed:
                self._part.claim({piece for piece in self._part.wanted() if look.have[piece]})

    def _from_peers(self, look: Look) -> int:
        """The bytes of the pieces that came and that this node did not fetch from the origin. libtorrent counts what it
        received once a second only, and a whole small file may come within one."""
        new = {piece for piece, is_here in enumerate(look.have) if is_here} - self._before
        files = [file for file, _ in self._part.files.values()]
        pieces = [(file, piece) for file in files for piece in new.intersection(file.pieces)]
        return sum(file.bytes_of(piece).length for file, piece in pieces if not self._feeder.has_fetched(piece))

    def _report(self, now: float, look: Look) -> None:
        part, plan = self._part, self._plan
        rows = []
        for number, index in enumerate(part.partials, 1):
            file, item = part.files[index]
            done = min(file.size, look.files[index])
            rows.append(FileProgress(*_names(item), number, done, file.size, item.local.partial))
        others = {(row.model, row.file) for row in rows}
        rest = sum(item.local.partial for item in plan.fetch if _names(item) not in others)
        done, total = plan.bytes_whole + rest + sum(row.done for row in rows), plan.bytes_total
        rate = self._speed.observe(now, look.received + self._feeder.bytes_fetched)
        self._tell(
            Progressed(
                bytes_done=done,
                bytes_total=total,
                bytes_per_second=rate,
                eta_seconds=(total - done) / rate if rate else None,
                files=tuple(rows),
                connections=look.peers + self._feeder.connections,
            )
        )


def _names(item: Item) -> tuple[str, str]:
    return item.wanted.model, item.remote.path.text
