"""The folders of partials: whose they are, who goes on with one that an ended process left, and which are removed.

A partial download is a folder ``<key>.<process>``. A process takes over the folder of a dead one by renaming it, so
that two processes never write to one partial. If the owner cannot be seen from here, and no lock proves that it is
dead, the folder is copied: if its owner is alive after all, it goes on in a file that no other process uses.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path

from mdl.cancel import CancelToken
from mdl.disk import copy, publish, sync
from mdl.disk.mutex import has_reliable_locks, may_be_alive
from mdl.disk.own_files import is_own_folder, make_private_dir, open_new, open_own
from mdl.disk.process import ProcessId
from mdl.downloader import journal as journals
from mdl.downloader.journal import Identity, Journal, Record
from mdl.errors import Busy, Unsafe
from mdl.net.ranges import ByteRange
from mdl.paths import record_name

_KEYED = re.compile(r"([0-9a-f]{16})\.(.+)")
"""The name of a partial: a key and a process."""
_LOOK_SECONDS = 0.2


def leftovers(partials: Path, key: str) -> list[Path]:
    """Return the partial folders of ``key``, of all processes of this user."""
    return _folders_of(partials, {key})


def _folders_of(partials: Path, keys: Collection[str]) -> list[Path]:
    folders: list[Path] = []
    for folder in _folders_in(partials):
        if key_of(folder) in keys and is_own_folder(folder):
            folders.append(folder)
    return folders


def _folders_in(place: Path) -> list[Path]:
    """Return what is in ``side`` or ``partials``, sorted; nothing if that cannot be listed, or is a link, which mdl did
    not make."""
    with contextlib.suppress(OSError):
        if not place.is_symlink():
            return sorted(place.iterdir())
    return []


def key_of(folder: Path) -> str:
    """Return the key of the file that a folder of ``partials`` or ``side`` is of; '' if it is none of mdl's."""
    match = _KEYED.fullmatch(folder.name)
    return match[1] if match else ""


def size_of_partial(folder: Path) -> int:
    """Bytes that a partial takes on the disk; it is sparse."""
    with contextlib.suppress(OSError):
        return (folder / "data").lstat().st_blocks * 512
    return 0


def claimed_bytes(partials: Path, key: str, identity: Identity) -> int:
    """Return how many bytes of this very file the best leftover has; changes nothing."""
    return max((_usable_bytes(folder, identity) for folder in leftovers(partials, key)), default=0)


def adopt(partials: Path, key: str, mine: Path, identity: Identity) -> None:
    """Make the folder ``mine`` of the leftover that has most of this very file, and remove the others.

    Raises `Busy` if a living process works on one, `OSError`.
    """
    if _is_published(mine):
        shutil.rmtree(mine, ignore_errors=True)
    others = [folder for folder in leftovers(partials, key) if folder != mine]
    others.sort(key=partial(_usable_bytes, identity=identity), reverse=True)
    for folder in others:
        _check_free(folder)
        _take(folder, mine, identity)


def move_leftover(folder: Path, partials: Path) -> None:
    """Move an unfinished download to the ``partials`` of another models folder, where the next process goes on with it.
    On another file system what its journal claims is copied. The caller holds the model's lock, so no other download
    of this process works on it. Raises `Busy` if another living process does, `OSError`.
    """
    _check_free(folder)
    _take(folder, make_private_dir(partials) / f"{key_of(folder)}.{ProcessId.current()}")


def _take(folder: Path, mine: Path, identity: Identity | None = None) -> None:
    """Make the folder ``mine`` of one that no process holds, if there is none yet, and remove that one. Of a file that
    is not of this ``identity`` only the journal is taken, which tells what is lost. Raises `OSError`."""
    if not (mine.exists() or _is_published(folder)):
        is_taken = _may_rename(folder) and publish.take_over(folder, mine)
        if not is_taken:
            _copy(folder, mine, identity)
    shutil.rmtree(folder, ignore_errors=True)


def discard_leftovers(partials: Path, key: str) -> int:
    """Remove all leftovers of ``key``, of which nothing can be used, and return how many bytes the largest one had,
    whatever they were of. Raises `Busy` if another living process works on one, `StateError`."""
    lost = 0
    for folder in leftovers(partials, key):
        _check_free(folder)
        record = journals.load(folder / "journal")
        lost = max(lost, record.have.total if record else size_of_partial(folder))
        shutil.rmtree(folder, ignore_errors=True)
    return lost


def wait_for_owners(
    partials: Path, keys: Iterable[str], seconds: float, on_wait: Callable[[str], None], cancel: CancelToken
) -> None:
    """Wait up to ``seconds`` until no other process holds a partial of these keys. ``on_wait`` is called once with the
    name of the holder. Raises `Cancelled`."""
    wanted = frozenset(keys)
    until = time.monotonic() + seconds
    holder = _other_holder(partials, wanted)
    if holder and seconds > 0:
        on_wait(holder)
    while holder and time.monotonic() < until:
        cancel.wait(_LOOK_SECONDS)
        holder = _other_holder(partials, wanted)


def _other_holder(partials: Path, keys: frozenset[str]) -> str:
    """Return which other process holds a partial of one of ``keys``, in words; '' if none does. The folder is listed
    once, however many keys there are."""
    for folder in _folders_of(partials, keys):
        if _is_held_by_other(folder):
            return _holder(folder)
    return ""


def remove_stale(own: Path, models: Iterable[str]) -> None:
    """Remove from mdl's folder ``own`` what ended processes left and no process goes on with: staged files of these
    models, copies that never got a final name, and partials whose bytes have been published."""
    for name in ("stage", "listings", "locks", "wanted", *(f"receipts/{record_name(model)}" for model in models)):
        if is_own_folder(own / name):
            publish.sweep(own / name)
    for folder in stale_dirs(own / "side"):
        publish.remove(folder)
    for folder in stale_dirs(own / "partials"):
        if not (folder / "data").exists() or _is_published(folder):
            publish.remove(folder)


def stale_dirs(place: Path) -> list[Path]:
    """Return the folders in ``side`` or ``partials`` whose processes have ended."""
    stale: list[Path] = []
    for folder in _folders_in(place):
        if key_of(folder) and _owner(folder).pid and not is_held(folder):
            stale.append(folder)
    return stale


def is_held(folder: Path) -> bool:
    """Return whether a living process is at work in this folder of ``partials`` or ``side``, or may be: it keeps the
    data of a partial locked, or the whole folder. One that lives on after its download was stopped, like a notebook,
    does not."""
    is_alive = _owner(folder).is_alive()
    if is_alive is False:
        return False
    if is_alive and not has_reliable_locks(folder):
        return True
    locked = folder if folder.parent.name == "side" else folder / "data"
    touched = [folder]
    with contextlib.suppress(OSError):  # its process may be removing it
        touched += folder.rglob("*")
    return may_be_alive(locked, touched)


def _is_held_by_other(folder: Path) -> bool:
    """Return whether a living process that is not this one is at work in a partial's folder, or may be."""
    return _owner(folder) != ProcessId.current() and is_held(folder)


def _check_free(folder: Path) -> None:
    """Raises `Busy` if another living process is at work in a partial's folder, or may be."""
    if _is_held_by_other(folder):
        raise Busy(f"{_holder(folder)} is at work on it", hint="wait for it, or stop it")


def _may_rename(folder: Path) -> bool:
    """Return whether the owner of a folder that no process holds is this one, or is known to be dead, not only very
    likely to be."""
    owner = _owner(folder)
    if owner == ProcessId.current() or owner.is_alive() is False:
        return True
    return bool(owner.pid) and has_reliable_locks(folder)


def _is_published(folder: Path) -> bool:
    """Return whether the data of a partial has a second name: its process was killed while it gave it the final one.
    This file must not be written to any more."""
    with contextlib.suppress(OSError):
        return (folder / "data").lstat().st_nlink > 1
    return False


def _owner(folder: Path) -> ProcessId:
    return ProcessId(folder.name.partition(".")[2])


def _holder(folder: Path) -> str:
    """Return who holds a partial, in words."""
    owner = _owner(folder)
    where = "" if owner.is_alive() else " of another machine or container"
    return f"another mdl (process {owner.pid or 'unknown'}{where})"


def _usable_bytes(folder: Path, identity: Identity) -> int:
    record = journals.load(folder / "journal")
    if record is None or not record.resumable_as(identity):
        return 0
    return record.have.total


def _copy(folder: Path, mine: Path, identity: Identity | None) -> None:
    """Copy what the journal of a leftover claims into the folder ``mine``, as `_take` says; that is removed again if it
    fails. Raises `OSError`."""
    record = journals.load(folder / "journal")
    if record is None:
        return
    claims = list(record.have) if record.resumable_as(identity or record.identity) else []
    make_private_dir(mine)
    try:
        _copy_claimed(folder, mine, record, claims)
    except BaseException:
        shutil.rmtree(mine, ignore_errors=True)
        raise


def _copy_claimed(folder: Path, mine: Path, record: Record, claims: Iterable[ByteRange]) -> None:
    """Do as `_copy`. The owner may be alive after all: nothing is believed of what it cut off or began again
    meanwhile."""
    try:
        source = open_own(folder / "data", os.O_RDONLY, may_be_shared=True)
    except (Unsafe, FileNotFoundError):
        return
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, source)
        target = open_new(mine / "data", os.O_WRONLY, 0o666)
        stack.callback(os.close, target)
        for claim in claims:
            copy.copy_range(source, target, claim.length, start=claim.start)
        sync(target, data_only=True)
        length = os.fstat(source).st_size
        now = journals.load(folder / "journal")  # after the length: a file begun anew has a new journal when it grows
    if now is None or now.identity != record.identity or record.have.without(now.have):
        (mine / "data").unlink()
        return
    record.have.remove(length, 2**63)
    Journal.create(mine / "journal", record.identity, record.have, record.validators).close()
