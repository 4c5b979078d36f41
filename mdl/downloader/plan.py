"""Plans: which files are kept, fetched or refused, and for what reason. Pure: a plan is carried out elsewhere."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum

from mdl.errors import MdlError, Occupied, StorageError, Unsafe
from mdl.files import HalfFile, LocalFile, RefusedFile, RemoteFile, Stamp
from mdl.formatting import spelled
from mdl.reports import no_space
from mdl.sources.hub_origin import HubOrigin
from mdl.values import small_value_class, value_class


@small_value_class
class Wanted:
    """One file of one model, as its source describes it and as it is on this disk. ``error`` says why its source
    could not describe it."""

    model: str
    remote: RemoteFile
    local: LocalFile
    error: MdlError | None = None

    @property
    def item(self) -> str:
        """The file as messages name it."""
        return f"{self.model}/{self.remote.path}"


class Reason(StrEnum):
    """Why a file is kept, fetched or refused, as messages say it."""

    PRESENT = "already here"
    ADOPTED = "the right bytes were there"
    MISSING = "missing"
    PARTIAL = "partly here"
    UNFINISHED = "another program has left a part of it"
    OUTDATED = "the source has a newer one"
    DAMAGED = "damaged here"
    FORCED = "forced"
    UNSAFE = "unsafe"
    OCCUPIED = "occupied"
    EDITED = "edited"
    UNSTORABLE = "this disk does not take its name"
    UNRESOLVED = "not to be had"


_KEPT = (Reason.PRESENT, Reason.ADOPTED)


@small_value_class
class Item:
    """A decision on one file. ``refused`` is the error of a file that is not fetched. ``way`` is how bytes from
    elsewhere on this disk are taken: ``clone``, ``link`` or ``copy``. ``half`` is an unfinished file of another
    program, from which the first bytes are borrowed."""

    wanted: Wanted
    reason: Reason
    refused: MdlError | None = None
    way: str | None = None
    half: HalfFile | None = None

    @property
    def adopt(self) -> bool:
        """Whether the right bytes are there and lack a receipt."""
        return self.reason == Reason.ADOPTED

    @property
    def bytes_here(self) -> int:
        """Bytes that need not be fetched of a file that is not whole here."""
        return max(self.local.partial, self.bytes_borrowed)

    @property
    def bytes_borrowed(self) -> int:
        """Bytes that are copied from an unfinished file of another program."""
        return self.half.size if self.half else 0

    @property
    def bytes_missing(self) -> int:
        """Bytes that have to be fetched, as far as the size is known."""
        return max(0, (self.remote.size or 0) - self.bytes_here)

    @property
    def size(self) -> int:
        """Bytes of the file, by its source or else by what is here of it."""
        if self.remote.size is not None:
            return self.remote.size
        return self.local.size

    @property
    def remote(self) -> RemoteFile:
        return self.wanted.remote

    @property
    def local(self) -> LocalFile:
        return self.wanted.local

    @property
    def seen(self) -> LocalFile | None:
        """The only file that may be replaced; None if any file may be."""
        return None if self.reason == Reason.FORCED else self.local


@value_class
class Plan:
    """Every wanted file is in exactly one of the five: the bytes of a ``linked`` one are elsewhere on this disk, and a
    ``repeated`` one gets the bytes of another file of this plan. ``unkept`` are the files, each with its model, whose
    names cannot be kept here."""

    keep: tuple[Item, ...] = ()
    fetch: tuple[Item, ...] = ()
    refuse: tuple[Item, ...] = ()
    linked: tuple[Item, ...] = ()
    repeated: tuple[Item, ...] = ()
    unkept: tuple[tuple[str, RefusedFile], ...] = ()

    @classmethod
    def of(
        cls,
        wanted: Iterable[Wanted],
        *,
        force: bool = False,
        unkept: Iterable[tuple[str, RefusedFile]] = (),
    ) -> Plan:
        """Decide on every file. ``force`` replaces any file that is there; ``unkept`` is as in the plan."""
        keep: list[Item] = []
        fetch: list[Item] = []
        refuse: list[Item] = []
        for wanted_file in wanted:
            item = decide_on(wanted_file, force=force)
            if item.refused:
                refuse.append(item)
            elif item.reason in _KEPT:
                keep.append(item)
            else:
                fetch.append(item)
        return cls(tuple(keep), tuple(fetch), tuple(refuse), unkept=tuple(unkept))

    @property
    def items(self) -> tuple[Item, ...]:
        return self.keep + self.linked + self.repeated + self.fetch + self.refuse

    @property
    def bytes_total(self) -> int:
        return _bytes_of(self.keep + self.linked + self.repeated + self.fetch)

    @property
    def bytes_whole(self) -> int:
        """Bytes of complete files that are there already, or elsewhere on this disk."""
        return _bytes_of(self.keep + self.linked)

    @property
    def bytes_kept(self) -> int:
        """Bytes that need not be fetched: of complete files, of those that another file of the plan brings, and of
        partials."""
        partly_here = sum(item.bytes_here for item in self.fetch)
        return self.bytes_whole + _bytes_of(self.repeated) + partly_here

    @property
    def bytes_to_fetch(self) -> int:
        return sum(item.bytes_missing for item in self.fetch)

    @property
    def bytes_elsewhere(self) -> int:
        """Bytes that are elsewhere on this disk, or will be there once another file of the plan has come."""
        return _bytes_of(self.linked + self.repeated)

    @property
    def bytes_to_copy(self) -> int:
        """Bytes that have to be copied, and take space: those of `bytes_elsewhere`, and of unfinished files."""
        copied = [item for item in self.linked + self.repeated if item.way == "copy"]
        return _bytes_of(copied) + sum(item.bytes_borrowed for item in self.fetch)

    def check_space(self, free: int | None) -> None:
        """Raises `NoSpace` if the whole plan needs more than ``free`` bytes. None: the disk does not tell."""
        error = no_space(self.bytes_to_fetch, self.bytes_to_copy, free)
        if error:
            raise error

    def check_size(self, most: int | None) -> None:
        """Raises `Unsafe` if the whole plan has more than ``most`` bytes."""
        if most is not None and self.bytes_total > most:
            raise too_large(f"it has {self.bytes_total:,} bytes in all", most)


def too_large(what: str, most: float) -> Unsafe:
    """Return the error for ``what`` has more than ``most`` bytes."""
    return Unsafe(f"refused: {what}, and {most:,} are allowed", hint="raise --max-size, or narrow with --include")


def _bytes_of(items: Iterable[Item]) -> int:
    return sum(item.size for item in items)


def decide_on(wanted: Wanted, *, force: bool = False) -> Item:
    """Return the decision on one file. ``force`` replaces any file that is there."""
    local = wanted.local
    if wanted.error:
        return Item(wanted, Reason.UNRESOLVED, refused=wanted.error)
    if local.stamp is None:
        return _decide_without_file(wanted)
    if force:
        return Item(wanted, Reason.FORCED)
    remote = wanted.remote
    receipt = local.receipt
    if receipt and local.untouched and receipt.matches(remote):
        return Item(wanted, Reason.PRESENT)
    if local.fingerprint and local.fingerprint.digest == remote.digest:
        return Item(wanted, Reason.ADOPTED)
    if receipt is None:
        return _decide_without_receipt(wanted)
    if local.is_edited:
        return Item(wanted, Reason.EDITED, refused=_edited(local.stamp, wanted))
    if local.is_unmodified:
        if remote.digest is None and receipt.matches(remote):
            return Item(wanted, Reason.ADOPTED)
        return Item(wanted, Reason.OUTDATED)
    if receipt.replaced_one_of(local.stamp):
        return Item(wanted, Reason.OUTDATED)
    return Item(wanted, Reason.DAMAGED)


def _decide_without_receipt(wanted: Wanted) -> Item:
    """Return the decision on a file that is not mdl's."""
    if _is_unfinished(wanted.local, wanted.remote):
        return Item(wanted, Reason.UNFINISHED)
    hint = "use --force to replace it, or choose another folder"
    refused = Occupied("another file has this name", item=wanted.item, hint=hint)
    return Item(wanted, Reason.OCCUPIED, refused=refused)


def _decide_without_file(wanted: Wanted) -> Item:
    """Return the decision where nothing is under the name of the file, or no file."""
    local = wanted.local
    name = wanted.item
    if local.kind == "folder":
        return Item(wanted, Reason.OCCUPIED, refused=Occupied(local.why, item=name))
    if local.kind != "absent":
        unsafe = Unsafe(f"refused: {local.why}", item=name, hint=local.hint or None)
        return Item(wanted, Reason.UNSAFE, refused=unsafe)
    if local.why:
        return Item(wanted, Reason.UNSTORABLE, refused=StorageError(local.why, item=name, hint=local.hint))
    if local.partial:
        return Item(wanted, Reason.PARTIAL)
    return Item(wanted, Reason.MISSING)


def _is_unfinished(local: LocalFile, remote: RemoteFile) -> bool:
    """Return whether a file that is not mdl's may be a part of the one that is wanted. A digest decides in the end."""
    if remote.digest is None or local.stamp is None or local.foreign or local.why:
        return False
    if remote.size is None:
        return True  # it is asked for before anything is fetched, and then this is decided again
    if local.size == remote.size:
        return local.written is not None  # it has holes, or its program noted what is missing
    return local.size < remote.size


def _edited(stamp: Stamp, wanted: Wanted) -> Occupied:
    why = "it was changed after mdl wrote it"
    with contextlib.suppress(OverflowError, ValueError, OSError):
        why += f", last on {datetime.fromtimestamp(stamp.mtime_ns // 10**9, UTC):%Y-%m-%d at %H:%M:%S} UTC"
    name = wanted.model
    hub = wanted.local.receipt and wanted.local.receipt.hub
    if hub:
        name = spelled(name, HubOrigin(hub.repo, hub.repo_type).repository)
    command = f"'mdl verify --repair --force {shlex.quote(name)}'"  # without a name it replaces what others have edited
    hint = f"keep your copy under another name, then --force or {command} replaces it, with the same --to or --into"
    return Occupied(why, item=wanted.item, hint=hint)
