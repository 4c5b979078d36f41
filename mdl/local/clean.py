"""Clean: what mdl has on this disk and nothing needs any more; removed only when asked to.

Never a file that mdl did not publish itself, nor one that was touched since.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, replace
from functools import partial
from pathlib import Path

from mdl.disk import publish
from mdl.disk.own_files import is_own_folder
from mdl.downloader import journal
from mdl.downloader.hub_cache import all_shared_links, shared_files
from mdl.downloader.partial_folders import key_of, stale_dirs
from mdl.downloader.receipts import file_key
from mdl.downloader.store import Store
from mdl.errors import MdlError, StateError
from mdl.files import HubFile, Receipt, RemoteFile
from mdl.jobs.records import Records
from mdl.local.delete import prune, remove_unlinked
from mdl.local.from_receipts import commits_not_listed
from mdl.local.on_disk import entries
from mdl.net.allowlist import host_of
from mdl.paths import RelPath
from mdl.values import value_class

Known = Callable[[str], Sequence[RemoteFile] | None]
"""A model's files as its source or lock has them; None if they are not known."""

_LEFT = "left by a process that has ended"


@value_class
class Waste:
    """``kind``: ``partial``, ``superseded``, ``receipt``, ``leftover``, or ``shared`` for a file that the hub's client
    kept for several repositories and none has any more; ``bytes`` on the disk. ``path`` goes, unless it is the record
    in which a ``receipt`` is.

    ``kept`` says why it stays all the same. ``model`` and ``file`` say what it is of, if that is known; ``since`` is
    when it was last written, in seconds since 1970. ``on_remove`` removes it, or, if ``path`` is removed for it, what
    mdl keeps of it beside.
    """

    kind: str
    path: Path
    bytes: int
    why: str
    kept: str = ""
    model: str = ""
    file: str = ""
    since: float | None = None
    on_remove: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    @property
    def reason(self) -> str:
        """Why it could go, and why it stays all the same."""
        if not self.kept:
            return self.why
        return f"{self.why}: {self.kept}"


def remove(waste: Waste) -> bool:
    """Remove it. What cannot be removed is left for the next time; tells whether it is gone."""
    if waste.kind in ("partial", "superseded", "leftover"):
        publish.remove(waste.path)
        if os.path.lexists(waste.path):
            return False
    try:
        if waste.on_remove is not None:
            waste.on_remove()
    except (OSError, MdlError):
        return False
    return True


def find_waste(store: Store, known: Known, why_wanted: Callable[[str], str]) -> list[Waste]:
    """Find everything that could go. A partial stays if ``why_wanted`` gives a reason for its key. What another catalog
    than the store's brought or kept is not superseded, for ``known`` says nothing of that one's models."""
    if os.path.lexists(store.own) and not is_own_folder(store.own):
        return []
    waste = [*_unfinished(store, why_wanted), *_archives(store, why_wanted)]
    superseded: list[Waste] = []
    has_superseded = store.catalog is not None and not store.layout.is_by_digest
    for model in store.receipts.models():
        receipts = store.receipts.in_order(model)
        if has_superseded:
            superseded += _superseded(store, model, receipts, known(model))
        waste += _useless_receipts(store, model, receipts)
        waste += _staged_in(store.receipts.place(model))
    waste += _freed_once(superseded)
    waste += _staged_in(store.own / "stage")
    if not store.root.is_symlink():  # mdl makes no links
        for folder in entries(store.root):
            if folder != store.own:
                waste += _staged_in(folder)
    for folder in stale_dirs(store.own / "side"):
        waste.append(Waste("leftover", folder, _size(folder), _LEFT))
    if store.layout.is_by_digest:
        waste += _shared(store)
    return waste


# Unfinished downloads.


def wanted_by_jobs(known: Known, state: Path | None) -> Callable[[str], str]:
    """Why a partial, which is named by its key, is wanted; '' if it is not. A job that runs or is paused may want those
    of its models' files, or any partial if these files are not known. ``state`` is the folder that holds the records of
    jobs."""
    reasons: dict[str, str] = {}
    reason_for_others = ""
    jobs = [] if state is None else Records(state / "jobs").all()
    for job in jobs:
        if job.status not in ("running", "paused"):
            continue
        reason = f"job {job.id} may continue it"
        for model in job.models:
            files = known(model)
            if files is None:
                reason_for_others = reason
                continue
            for file in files:
                reasons[file_key(model, file.path)] = reason
    return lambda key: reasons.get(key, reason_for_others)


def _unfinished(store: Store, why_wanted: Callable[[str], str]) -> Iterator[Waste]:
    named = _names_of_partials(store)
    for folder in stale_dirs(store.partials):
        url, reason = _source_of_partial(folder)
        key = key_of(folder)
        model, file = named.get(key, ("", url.rpartition("/")[2]))
        yield Waste("partial", folder, _size(folder), reason, why_wanted(key), model, file, _written_at(folder))


def _source_of_partial(folder: Path) -> tuple[str, str]:
    """The URL of an unfinished download, '' if its journal does not tell it, and why it could go."""
    try:
        record = journal.load(folder / "journal")
    except StateError:
        return "", "unfinished: of a newer mdl"
    if record is None:
        return "", "unfinished: its journal cannot be read"
    return record.identity.url, f"unfinished: {record.identity.url}"


def _names_of_partials(store: Store) -> dict[str, tuple[str, str]]:
    """The model and the file of each unfinished download, by its key: of those that the last download of a model
    wanted, and those of which an earlier version is here."""
    names: dict[str, tuple[str, str]] = {}
    for model in (*store.receipts.models(), *store.receipts.models_wanted()):
        paths = {receipt.path.text for receipt in store.receipts.in_order(model)}
        for path in paths | store.receipts.wanted(model):
            names[file_key(model, RelPath(path))] = (model, path)
    return names


def _written_at(folder: Path) -> float | None:
    """When anything in a folder was last written, in seconds since 1970."""
    times: list[float] = []
    for entry in entries(folder):
        with contextlib.suppress(OSError):
            times.append(entry.lstat().st_mtime)
    return max(times, default=None)


def _archives(store: Store, why_wanted: Callable[[str], str]) -> Iterator[Waste]:
    """Zips of training servers that were fetched, at least in part, and not unpacked."""
    archives = Store(store.archives)
    if not is_own_folder(archives.own):
        return
    yield from _unfinished(archives, why_wanted)
    for receipt in archives.receipts.all():
        place = archives.path_of(receipt)
        if place is not None:
            kept = why_wanted(file_key(receipt.model, receipt.path))
            yield Waste("leftover", place, receipt.stamp.size, "fetched, and never unpacked", kept)


# Files and receipts of models.


def _superseded(
    store: Store, model: str, receipts: Sequence[Receipt], known: Sequence[RemoteFile] | None
) -> Iterator[Waste]:
    """Untouched files that came for the entry as this very catalog has it, which has no such file any more: for no
    other catalog, and from the same repository or host. (Catalogs in two containers may have one path.)

    Nothing is if the model's files are not known, or if another revision of it is here.
    """
    if known is None or not receipts:
        return
    if commits_not_listed(receipts, known) - {None}:
        return
    paths = {remote.path for remote in known}
    sources = {_source(remote.hub, remote.url) for remote in known}
    for receipt in receipts:
        if receipt.path in paths or receipt.adopted:
            continue
        if receipt.catalog != store.catalog or _source(receipt.hub, receipt.url) not in sources:
            continue
        place = store.path_of(receipt)
        if place is not None:
            yield Waste(
                "superseded",
                place,
                receipt.stamp.size,
                f"no file of {model} any more",
                model=model,
                file=receipt.path.text,
                since=receipt.stamp.mtime_ns / 1e9,
                on_remove=partial(_forget, store, receipt, place),
            )


def _source(hub: HubFile | None, url: str) -> tuple[str, ...]:
    if hub is None:
        return (host_of(url),)
    return (hub.repo_type, hub.repo)


def _forget(store: Store, receipt: Receipt, place: Path) -> None:
    """The file of a receipt was removed: so are the folders that it left empty, where a file may have to be."""
    store.receipts.forget(receipt.model, receipt.path)
    prune([place.parent], store.root)


def _freed_once(waste: Sequence[Waste]) -> Iterator[Waste]:
    """The same; bytes that have several names are freed with the last of these alone, as `delete` counts them."""
    names_gone: Counter[tuple[int, int]] = Counter()
    for item in waste:
        status = item.path.lstat()
        inode = status.st_dev, status.st_ino
        names_gone[inode] += 1
        if names_gone[inode] < status.st_nlink:
            item = replace(item, bytes=0, why=f"{item.why}; its bytes have another name")
        yield item


def _useless_receipts(store: Store, model: str, receipts: Sequence[Receipt]) -> Iterator[Waste]:
    """The receipts of files that are gone, and what cannot be read, in the record of a model."""
    gone = [receipt.path for receipt in receipts if store.is_gone(receipt)]
    record, unreadable, lost = store.receipts.useless(model, gone)
    reasons: list[str] = []
    if len(gone) == 1:
        reasons.append(f"{gone[0]} does not exist any more")
    elif gone:
        reasons.append(f"{len(gone)} files do not exist any more")
    if unreadable:
        reasons.append("some are unreadable; the files they were for are hashed at the next get")
    if reasons:
        forget = partial(store.receipts.forget, model, *gone, tidy=True)
        yield Waste("receipt", record, unreadable + lost, "; ".join(reasons), model=model, on_remove=forget)


# What is left in folders.


def _shared(store: Store) -> Iterator[Waste]:
    """Files of the hub cache's shared store to which no repository of the cache leads."""
    links = all_shared_links(store.root)
    for path in shared_files(store.root):
        if path not in links:
            reason = "no repository of Hugging Face's cache leads to it"
            yield Waste("shared", path, _size(path), reason, on_remove=partial(remove_unlinked, store.root, path))


def _staged_in(folder: Path) -> Iterator[Waste]:
    """List what is staged in a folder; nothing if the folder is a link, for mdl makes none."""
    if not folder.is_symlink():
        for path in publish.leftovers(folder):
            yield Waste("leftover", path, _size(path), _LEFT)


def _size(path: Path) -> int:
    """Bytes on the disk, of a sparse file only what it holds."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_blocks * 512
    size = 0
    for at, _, names in os.walk(path):
        for name in names:
            size += os.lstat(os.path.join(at, name)).st_blocks * 512
    return size
