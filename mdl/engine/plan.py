"""Plan: what is kept, what is fetched, what is refused, and why. Pure: decide here, do elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mdl.errors import MdlError, Occupied, Unsafe
from mdl.files import LocalFile, RemoteFile
from mdl.reports import no_space


@dataclass(frozen=True)
class Wanted:
    """One file of one model, as its source describes it and as it stands here."""

    model: str
    remote: RemoteFile
    local: LocalFile


@dataclass(frozen=True)
class Item:
    """A decision on one file. ``adopt`` marks right bytes that lack a receipt; ``refused`` is why not. ``way`` is how
    bytes from elsewhere on this disk come here: ``clone``, ``link`` or ``copy``."""

    wanted: Wanted
    why: str
    adopt: bool = False
    refused: MdlError | None = None
    way: str | None = None

    @property
    def remote(self) -> RemoteFile:
        return self.wanted.remote

    @property
    def local(self) -> LocalFile:
        return self.wanted.local

    @property
    def seen(self) -> LocalFile | None:
        """What the file that is brought may replace; None where that is any other file."""
        return None if self.why == _FORCED else self.local


@dataclass(frozen=True)
class Plan:
    """Every wanted file is in exactly one of the four; what is ``linked`` was found elsewhere on this disk."""

    keep: tuple[Item, ...] = ()
    fetch: tuple[Item, ...] = ()
    refuse: tuple[Item, ...] = ()
    linked: tuple[Item, ...] = ()

    @classmethod
    def of(cls, wanted: Iterable[Wanted], *, force: bool = False, repair: bool = False) -> Plan:
        """``force`` replaces whatever file is there, ``repair`` one that mdl wrote and somebody changed since."""
        keep: list[Item] = []
        fetch: list[Item] = []
        refuse: list[Item] = []
        for one in wanted:
            item = _decide(one, force, repair)
            (refuse if item.refused else keep if item.why in _KEPT else fetch).append(item)
        return cls(tuple(keep), tuple(fetch), tuple(refuse))

    @property
    def items(self) -> tuple[Item, ...]:
        return self.keep + self.linked + self.fetch + self.refuse

    @property
    def bytes_total(self) -> int:
        return sum(_size(item) for item in self.keep + self.linked + self.fetch)

    @property
    def bytes_whole(self) -> int:
        """Bytes of whole files that are here, or elsewhere on this disk."""
        return sum(_size(item) for item in self.keep + self.linked)

    @property
    def bytes_kept(self) -> int:
        """Bytes already here: whole files, and what partials have."""
        return self.bytes_whole + sum(item.local.partial for item in self.fetch)

    @property
    def bytes_to_fetch(self) -> int:
        return sum(max(0, (item.remote.size or 0) - item.local.partial) for item in self.fetch)

    @property
    def bytes_elsewhere(self) -> int:
        """Bytes that are elsewhere on this disk."""
        return sum(_size(item) for item in self.linked)

    @property
    def bytes_to_copy(self) -> int:
        """Of `bytes_elsewhere`, those that cannot be shared, and need their room."""
        return sum(_size(item) for item in self.linked if item.way == "copy")

    def with_sizes(self, probed: dict[tuple[str, str], RemoteFile]) -> Plan:
        """The same decisions, with what probing found out about files of unknown size."""
        fetch = []
        for item in self.fetch:
            found = probed.get((item.wanted.model, item.remote.path.text))
            fetch.append(replace(item, wanted=replace(item.wanted, remote=found)) if found else item)
        return replace(self, fetch=tuple(fetch))

    def check_space(self, free: int) -> None:
        """Fail before the first byte if the whole plan does not fit. Raises `NoSpace` with need and have."""
        if error := no_space(self.bytes_to_fetch, self.bytes_to_copy, free):
            raise error


_HERE, _RIGHT, _FORCED = "already here", "the right bytes were there", "forced"
_KEPT = {_HERE, _RIGHT}


def _size(item: Item) -> int:
    return item.remote.size if item.remote.size is not None else (item.local.stamp.size if item.local.stamp else 0)


def _decide(one: Wanted, force: bool, repair: bool) -> Item:
    local, remote = one.local, one.remote
    if local.kind in ("link", "special"):
        return Item(one, "unsafe", refused=Unsafe(f"refused: {local.why}", item=remote.path.text))
    if local.kind == "folder":
        return Item(one, "occupied", refused=Occupied(local.why, item=remote.path.text))
    if local.kind == "absent":
        return Item(one, "partly here" if local.partial else "missing")
    if force:
        return Item(one, _FORCED)
    receipt = local.receipt
    if local.untouched and receipt and receipt.settles(remote):
        return Item(one, _HERE)
    if local.fingerprint and remote.digest and local.fingerprint.digest == remote.digest:
        return Item(one, _RIGHT, adopt=True)
    if receipt is None:
        hint = "use --force to replace it, or --to for another folder"
        return Item(one, "occupied", refused=Occupied("another file stands there", item=remote.path.text, hint=hint))
    if local.is_edited and not repair:
        return Item(one, "edited", refused=_edited(local, remote))
    if local.is_as_it_came and remote.digest is None and receipt.settles(remote):
        return Item(one, _RIGHT, adopt=True)
    return Item(one, "a newer one is there" if local.is_as_it_came else "damaged here")


def _edited(local: LocalFile, remote: RemoteFile) -> Occupied:
    why = "it was changed after mdl wrote it"
    with contextlib.suppress(OverflowError, ValueError, OSError):
        seconds = local.stamp.mtime_ns // 10**9 if local.stamp else 0
        why += f", last on {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d at %H:%M:%S} UTC"
    hint = "keep your copy under another name, then --force or 'mdl verify --repair' replaces it"
    return Occupied(why, item=remote.path.text, hint=hint)
