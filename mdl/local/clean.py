"""Clean: what mdl has on this disk and nothing needs any more; removed only when asked to.

Never a file that mdl did not publish itself, nor one that was touched since.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import field, replace
from functools import partial as bound
from pathlib import Path

from mdl.disk import publish
from mdl.disk.safe_open import is_own_folder
from mdl.downloader import journal
from mdl.downloader.adoption import key_of, stale_dirs
from mdl.downloader.hub_cache import remove_shared, shared_files
from mdl.downloader.hub_repos import all_shared_links
from mdl.downloader.receipts import file_key
from mdl.downloader.store import Store
from mdl.errors import MdlError, StateError
from mdl.files import HubFile, Receipt, RemoteFile
from mdl.jobs.records import Records
from mdl.local.delete import delete, prune
from mdl.local.delete_plan import Deletion, of_model
from mdl.net.allowlist import host_of
from mdl.paths import RelPath
from mdl.values import value_class

Known = Callable[[str], Sequence[RemoteFile] | None]
"""A model's files as its source or lock has them; None if they are not known."""

_LEFT = "left by a process that is gone"


@value_class
class Waste:
    """``kind``: ``partial``, ``superseded``, ``receipt``, ``leftover``, ``shared`` for a file that the hub's client
    kept for several repositories and none has any more, or ``unlisted`` for a model that no catalog names; ``bytes`` on
    the disk; ``path`` is removed, unless it is the record in which a ``receipt`` is. An unlisted model is removed as
    `mdl.Client.delete` does it.

    ``kept`` says why it stays all the same. ``forget`` removes the receipts that go with it. ``model`` and ``file`` say
    what it is of, if that is known; ``since`` is when it was last written, in seconds since 1970.
    """

    kind: str
    path: Path
    bytes: int
    why: str
    kept: str = ""
    model: str = ""
    file: str = ""
    since: float | None = None
    forget: Callable[[], None] | None = field(default=None, repr=False, compare=False)


def find_waste(store: Store, known: Known, wanted: Callable[[str], str]) -> list[Waste]:
    """Everything that could go. A partial stays that is ``wanted``, which is told its folder. What another catalog than
    the store's brought or kept is not superseded, for ``known`` says nothing of that one's models."""
    if os.path.lexists(store.own) and not is_own_folder(store.own):
        return []
    files = _counted_once(_files(store, known))
    return [*_unfinished(store, wanted), *_archives(store, wanted), *files, *_leftovers(store), *_shared(store)]


def remove(waste: Waste) -> bool:
    """Remove it. What cannot be removed is left for the next time; tells whether it is gone."""
    if waste.kind not in ("receipt", "unlisted", "shared"):
        publish.remove(waste.path)
        if os.path.lexists(waste.path):
            return False
    try:
        if waste.forget:
            waste.forget()
    except (OSError, MdlError):
        return False
    return True


def unlisted(store: Store, catalog: Collection[str], *, keep: bool) -> Iterator[Waste]:
    """The models in ``store`` that the ``catalog`` does not name; not those that another catalog brought. With ``keep``
    they stay, and in any case those with a file that mdl did not fetch itself: it may be the only copy. What several of
    them have in common is freed with the last of these."""
    found: list[tuple[str, str, Sequence[Deletion]]] = []
    for name in store.receipts.models():
        receipts = store.receipts.in_order(name)
        if name in catalog or not {receipt.catalog for receipt in receipts} <= {None, store.catalog}:
            continue
        with contextlib.suppress(MdlError):
            deletions = of_model(store, name)
            why = f"'mdl rm {name}' deletes it" + (", --unlisted all of these" if keep else "")
            if error := delete(store, deletions, dry_run=True).error:
                why = error.message
            elif not keep and not any(receipt.adopted or receipt.url.startswith("file:") for receipt in receipts):
                why = ""
            if any(one.files for one in deletions):
                found.append((name, why, deletions))
    found.sort(key=lambda one: bool(one[1]))  # what goes is counted first: what stays has no part in what that frees
    rows = delete(store, [one for *_, deletions in found for one in deletions], dry_run=True).models
    for name, why, going in sorted(found):
        size = sum(row.bytes_freed for row in rows if row.name == name)
        forget = bound(_delete, store, going)
        yield Waste("unlisted", going[0].path, size, "no catalog names it", why, model=name, forget=forget)


def _delete(store: Store, deletions: Sequence[Deletion]) -> None:
    delete(store, deletions).raise_for_errors()


def wanted_by_jobs(known: Known, state: Path | None) -> Callable[[str], str]:
    """The id of the job that runs or is paused and may want a partial, "" if there is none: by its models, or any
    partial if the files of these are not known. ``state`` is the folder that holds the records of jobs."""
    job_of_key: dict[str, str] = {}
    job_of_unknown_files = ""
    for job in Records(state / "jobs").all() if state else []:
        if job.status not in ("running", "paused"):
            continue
        for model in job.models:
            files = known(model)
            if files is None:
                job_of_unknown_files = job.id
            for file in files or ():
                job_of_key[file_key(model, file.path)] = job.id
    return lambda key: job_of_key.get(key, job_of_unknown_files)


def _why_kept(job: str) -> str:
    return f"job {job} may go on with it" if job else ""


def _unfinished(store: Store, wanted: Callable[[str], str]) -> Iterator[Waste]:
    named = _names_of_partials(store)
    for folder in stale_dirs(store.partials):
        url = ""
        try:
            record = journal.load(folder / "journal")
            what = "its journal cannot be read"
            if record:
                url = record.identity.url
                what = url
        except StateError:
            what = "of a newer mdl"
        model, file = named.get(key_of(folder), ("", url.rpartition("/")[2]))
        kept = _why_kept(wanted(key_of(folder)))
        why = f"unfinished: {what}"
        yield Waste("partial", folder, _size(folder), why, kept, model, file, _written_at(folder))


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
    """When anything in a folder was last written."""
    times = []
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            times.append(entry.lstat().st_mtime)
    return max(times, default=None)


def _archives(store: Store, wanted: Callable[[str], str]) -> Iterator[Waste]:
    """Zips of training servers that were fetched, at least in part, and not unpacked."""
    archives = Store(store.archives)
    if not is_own_folder(archives.own):
        return
    yield from _unfinished(archives, wanted)
    for receipt in archives.receipts.all():
        if (place := archives.path_of(receipt)) is not None:
            kept = _why_kept(wanted(file_key(receipt.model, receipt.path)))
            yield Waste("leftover", place, receipt.stamp.size, "fetched, and never unpacked", kept)


def _files(store: Store, known: Known) -> Iterator[Waste]:
    for model in store.receipts.models():
        receipts = store.receipts.in_order(model)
        current = _current(receipts, known(model))
        gone = list[RelPath]()
        for receipt in receipts:
            if (place := store.path_of(receipt)) is not None:
                if current is not None and _is_superseded(receipt, store, current):
                    forget = bound(_forget, store, receipt, place)
                    yield Waste(
                        "superseded",
                        place,
                        receipt.stamp.size,
                        f"no file of {model} any more",
                        model=model,
                        file=receipt.path.text,
                        since=receipt.stamp.mtime_ns / 1e9,
                        forget=forget,
                    )
            elif store.is_gone(receipt):
                gone.append(receipt.path)
        yield from _receipts(store, model, gone)
        yield from _left_in(store.receipts.place(model))


def _forget(store: Store, receipt: Receipt, place: Path) -> None:
    """The file of a receipt was removed: so are the folders that it left empty, where a file may have to be."""
    store.receipts.forget(receipt.model, receipt.path)
    prune([place.parent], store.root)


def _receipts(store: Store, model: str, gone: Sequence[RelPath]) -> Iterator[Waste]:
    """The receipts of a model that are of no use: those of files that are gone, and what cannot be read."""
    record, unreadable, lost = store.receipts.useless(model, gone)
    whys = []
    if gone:
        whys.append(f"{gone[0]} is gone" if len(gone) == 1 else f"{len(gone)} files are gone")
    if unreadable:
        whys.append("some are unreadable; the files they were for are hashed at the next get")
    if whys:
        forget = bound(store.receipts.forget, model, *gone, tidy=True)
        yield Waste("receipt", record, unreadable + lost, "; ".join(whys), model=model, forget=forget)


@value_class
class _Current:
    """Which files a model has now, and where they come from."""

    paths: frozenset[RelPath]
    sources: frozenset[tuple[str, ...]]


def _current(receipts: Sequence[Receipt], known: Sequence[RemoteFile] | None) -> _Current | None:
    """The files a model has now; None if that is not known, or if another revision was fetched last."""
    if known is None or not receipts:
        return None
    last = receipts[-1].commit
    if last is not None and last not in {remote.commit for remote in known}:
        return None
    sources = frozenset(_source(remote.hub, remote.url) for remote in known)
    return _Current(frozenset(remote.path for remote in known), sources)


def _counted_once(found: Iterable[Waste]) -> Iterator[Waste]:
    """Bytes that have several names are freed with the last of these alone, as `delete` counts them."""
    names: Counter[tuple[int, int]] = Counter()
    for waste in found:
        if waste.kind == "superseded":
            status = waste.path.lstat()
            names[status.st_dev, status.st_ino] += 1
            if names[status.st_dev, status.st_ino] < status.st_nlink:
                waste = replace(waste, bytes=0, why=f"{waste.why}; its bytes have another name")
        yield waste


def _is_superseded(receipt: Receipt, store: Store, current: _Current) -> bool:
    """Whether the file came for the entry as this very catalog has it, which has no such file any more: for no other
    catalog, and from the same repository or host. (Catalogs in two containers may have one path.)"""
    if receipt.adopted or store.layout.is_by_digest or store.catalog is None or receipt.catalog != store.catalog:
        return False
    return _source(receipt.hub, receipt.url) in current.sources and receipt.path not in current.paths


def _source(hub: HubFile | None, url: str) -> tuple[str, ...]:
    return (hub.repo_type, hub.repo) if hub else (host_of(url),)


def _leftovers(store: Store) -> Iterator[Waste]:
    for folder in (store.own / "stage", *_entries(store.root)):
        if folder != store.own:
            yield from _left_in(folder)
    for folder in stale_dirs(store.own / "side"):
        yield Waste("leftover", folder, _size(folder), _LEFT)


def _shared(store: Store) -> Iterator[Waste]:
    """Files of the hub cache's shared store to which no repository of the cache leads."""
    if not store.layout.is_by_digest:
        return
    links = all_shared_links(store.root)
    for path in shared_files(store.root):
        if path not in links:
            why = "no repository of Hugging Face's cache leads to it"
            yield Waste("shared", path, _size(path), why, forget=bound(_forget_shared, store.root, path))


def _forget_shared(cache: Path, path: Path) -> None:
    remove_shared(cache, path, lambda: path in all_shared_links(cache))


def _left_in(folder: Path) -> Iterator[Waste]:
    """What is staged in a folder; nothing if the folder is a link, for mdl makes none."""
    for path in [] if folder.is_symlink() else publish.leftovers(folder):
        yield Waste("leftover", path, _size(path), _LEFT)


def _entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing if the folder is a link, for mdl makes none."""
    try:
        return [] if folder.is_symlink() else sorted(folder.iterdir())
    except OSError:
        return []


def _size(path: Path) -> int:
    """Bytes on the disk, of a sparse file only what it holds."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_blocks * 512
    return sum(os.lstat(os.path.join(at, name)).st_blocks * 512 for at, _, names in os.walk(path) for name in names)
