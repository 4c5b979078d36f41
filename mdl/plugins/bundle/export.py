"""Export: models of this disk become one plain tar, or parts of one. Only bytes that were verified go in, and they are
hashed once more while they are written."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import cycle
from pathlib import Path

from mdl.archive.streaming import BackgroundHash, Progress
from mdl.archive.tar import END, header, padding
from mdl.archive.unpack import staged_folder
from mdl.archive.zip_write import ArchiveSink
from mdl.catalog.lock import Lock, LockedFile, LockedModel, entry_of
from mdl.catalog.lock_file import lock_text
from mdl.catalog.model import Model
from mdl.context import Context, adopt_kept, model_locks
from mdl.disk import free_space, publish, sync
from mdl.disk.pool import Pool
from mdl.disk.safe_open import create, open_for_reading
from mdl.downloader.plan import Item, Plan, Wanted
from mdl.errors import (
    DigestMismatch,
    LockError,
    MdlError,
    NotFound,
    Occupied,
    StorageError,
    UsageError,
    storage_error,
    storage_trouble,
    whole_error,
)
from mdl.formatting import counted
from mdl.hashing import Digest
from mdl.local.hash_progress import watch_reading
from mdl.local.verify import Remedy
from mdl.ops.sub_catalog import catalog_of, left_out, portable_lock
from mdl.plugins.bundle import manifest
from mdl.plugins.bundle.manifest import CATALOG, LOCK, README, SUMS, TOP, BundledFile, BundleExport, BundlePart, sums
from mdl.reports import no_space
from mdl.values import value_class

_BLOCK = 2**20
_WHEN_FULL = "nothing was left behind; free some space, or choose another disk with -o"
_WHEN_TOO_LARGE = "nothing was left behind; --split 4G writes parts for a disk that takes no larger files"


@value_class
class _Packed:
    """One file that goes into a bundle, and where it is. ``is_restricted``: its hub gives it only to some."""

    row: BundledFile
    source: Path
    is_restricted: bool


def export_bundle(
    models: Sequence[Model],
    context: Context,
    lock: Lock,
    path: Path,
    *,
    split: int | None = None,
    force: bool = False,
) -> BundleExport:
    """Write ``models``, all of which must be here and right, to the tar ``path``, or to parts of at most ``split``
    bytes. ``lock`` is the catalog's. ``force`` replaces files that are no bundle.

    Returns what was written. Raises `NotFound` for a file that is not here, `LockError` for a model of which nothing is
    known, `DigestMismatch` for a damaged file, `Occupied`, `NoSpace` before the first byte, `StorageError`, `Busy`,
    `Cancelled`.
    """
    models = sorted((_as_fetched(model, context) for model in models), key=lambda model: model.name)
    catalog, written = catalog_of(models)
    BundleOutput(path, 1, split).check(force=force)  # what can be known before the files are looked at
    with model_locks(models, context), Pool(1, "mdl-hash") as hashers:
        locks: dict[str, LockedModel] = {}
        packed: list[_Packed] = []
        cut: list[str] = []
        for model in models:
            locked, files = _look(model, lock, context)
            cut += left_out([model], [locked])
            locks[model.name] = portable_lock(locked, entry_of(written[model.name]))
            packed += files
        rows = tuple(one.row for one in packed)
        texts = _texts(models, catalog, locks, rows)
        sizes = {name: len(text) for name, text in texts.items()} | {row.place: row.size for row in rows}
        heads = {name: header(f"{TOP}/{name}", size) for name, size in sizes.items()}
        total = sum(len(heads[name]) + size + len(padding(size)) for name, size in sizes.items()) + len(END)
        output = BundleOutput(path, total, split)
        output.check(force=force)
        if error := no_space(total, 0, free_space(path.parent)):
            raise error.on(str(path)).but(hint="free some space, or choose another disk with -o")
        progress = Progress(
            context.on_event, path.name, "bundle", len(sizes), sum(sizes.values()), context.store.cancel
        )
        with (
            storage_trouble(path, _WHEN_FULL, _WHEN_TOO_LARGE),
            staged_folder(path) as folder,
            closing(BundleWriter(output, folder)) as writer,
        ):
            for name, text in texts.items():
                writer.write(heads[name] + text + padding(len(text)))
                progress.add(len(text), name)
            for one in packed:
                writer.write(heads[one.row.place])
                _write(one, writer, progress, BackgroundHash(hashers))
            writer.write(END)
            sums = writer.publish()
    progress.finish(total, "bundled")
    restricted = dict.fromkeys(one.row.model for one in packed if one.is_restricted)
    return BundleExport(path, tuple(writer.parts), rows, sums, tuple(restricted), tuple(cut))


def _as_fetched(model: Model, context: Context) -> Model:
    """A repository that no catalog has, of which only some files were fetched, as a model of these alone (ADR 157). A
    file counts as one of them if it has a receipt, if the last download wanted it, or if anything of it is here."""
    store = context.store
    is_whole = all(origin.repository and origin.is_whole for origin in model.sources)
    fetched = {receipt.path.text for receipt in store.receipts.of_model(model.name)}
    if model.is_of_catalog or not model.sources or not is_whole or not fetched:
        return model
    fetched |= store.receipts.wanted(model.name)
    known = context.resolver.known(model) or ()
    never_asked_for = set()
    for remote in known:
        is_new = store.is_new(model.name, remote) and not os.path.lexists(store.visible_path(model.name, remote))
        if is_new and remote.path.text not in fetched:
            never_asked_for.add(remote.path.text)
    if not never_asked_for:
        return model
    listing = context.resolver.known(model, in_all_formats=True) or ()
    paths = fetched.intersection(remote.path.text for remote in listing)
    paths |= {remote.path.text for remote in known} - never_asked_for
    return replace(model, include=tuple(glob.escape(path) for path in sorted(paths)))


def _look(model: Model, lock: Lock, context: Context) -> tuple[LockedModel, list[_Packed]]:
    """A model as it is locked, or as its source had it when it was last asked; and its files here. Raises as
    `export_bundle`."""
    store = context.store
    name = model.name
    get = store.command("get", model.target)
    remotes = context.resolver.known(model)
    if remotes is None:
        hint = f"'{get}' asks its source"
        raise LockError("which files it has is not known here", item=model.label, hint=hint)
    wanted = []
    for remote in remotes:
        local = store.check(name, remote, watch=watch_reading(name, remote, context.on_event))
        wanted.append(Wanted(name, remote, local))
    plan = Plan.of(wanted)
    if errors := [_why_not(item, get) for item in (*plan.refuse, *plan.fetch)]:
        count = f"{counted(len(errors), 'file')} of {len(remotes)}"
        why = f"{count} are not here as they should be; the first is {errors[0]}"
        raise errors[0] if len(errors) == 1 else whole_error(why, errors).on(name)
    adopt_kept(plan, store)
    mirrors = {file.path: file.mirrors for file in model.files}
    locked = LockedModel(name, "", tuple(LockedFile.of(one, mirrors=mirrors.get(one.path, ())) for one in remotes))
    if lock.covers(model):
        locked = lock.models[name]
    found = {one.path: one for one in locked.files}
    packed: list[_Packed] = []
    for item in plan.keep:
        path = item.remote.path
        place = store.final_path(name, item.remote)
        size, sha256 = _sha256(item, place, context)
        one = replace(found[path], size=size)
        if one.digest is None:
            one = replace(one, digest=Digest("sha256", sha256), tofu=True)
        found[path] = one
        receipt = store.receipts.get(name, path)
        accesses = {item.remote.access, receipt.access if receipt else "unknown"}
        is_restricted = not accesses.isdisjoint(("gated", "private"))
        row = BundledFile(name, path.text, size, sha256, manifest.verified_by(one))
        packed.append(_Packed(row, place, is_restricted))
    return replace(locked, files=tuple(found.values())), sorted(packed, key=lambda one: one.row.path)


def _why_not(item: Item, get: str) -> MdlError:
    """The error of a file that cannot be packed as it is here; the command ``get`` downloads it."""
    error = item.refused or NotFound(item.reason, hint=f"'{get}' downloads it")
    return error.but(item=f"{item.wanted.model}/{item.remote.path}")


def _sha256(item: Item, place: Path, context: Context) -> tuple[int, str]:
    """The size of a file, and the digest that its bytes must have. Only a file of which nothing but the git digest is
    known is read for that, and compared with it. Raises `DigestMismatch`, `StorageError`."""
    store = context.store
    remote = item.remote
    receipt = store.receipts.get(item.wanted.model, remote.path)
    known = [one for one in (remote.digest, receipt.digest if receipt else None) if one]
    for digest in known:
        if digest.algorithm == "sha256" and receipt:
            return receipt.stamp.size, digest.hex
    print_ = store.fingerprint(place, remote)
    if remote.digest and print_.digest != remote.digest:
        raise _mismatch(f"{item.wanted.model}/{remote.path}", item.wanted.model)
    return print_.size, store.fingerprint(place, replace(remote, digest=None)).digest.hex


def _mismatch(item: str, model: str) -> DigestMismatch:
    hint = f"{Remedy('repair', (model,)).hint()}; nothing was written"
    return DigestMismatch("the bytes on this disk are not the right ones", item=item, hint=hint)


def _texts(
    models: Sequence[Model], catalog: str, locks: dict[str, LockedModel], files: Sequence[BundledFile]
) -> dict[str, bytes]:
    """The texts of a bundle by their names, in their order."""
    readme = manifest.readme(models, locks, files)
    found = {README: readme.encode(), CATALOG: catalog.encode(), LOCK: lock_text(Lock(locks)).encode()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    found[SUMS] = manifest.sums(digests | {file.place: file.sha256 for file in files}).encode()
    return {name: found[name] for name in manifest.HEAD}


def _write(one: _Packed, writer: BundleWriter, progress: Progress, hasher: BackgroundHash) -> None:
    """Write one file, and compare what was read with its digest. Raises `DigestMismatch`, `StorageError`, `OSError`."""
    row = one.row
    item = f"{one.row.model}/{one.row.path}"
    for block in _blocks(one):
        writer.write(block)
        hasher.update(block)
        progress.add(len(block), item)
    if hasher.hexdigest() != row.sha256:
        raise _mismatch(item, row.model)
    writer.write(padding(row.size))


def _blocks(one: _Packed) -> Iterator[memoryview]:
    """The bytes of a file, as many as it should have, in two buffers by turns: the block before may still be in use.
    Raises `DigestMismatch` if there are fewer or more, `StorageError`."""
    item = f"{one.row.model}/{one.row.path}"
    buffers = cycle((bytearray(_BLOCK), bytearray(_BLOCK)))
    at = 0
    try:
        with open_for_reading(one.source, os.O_NOFOLLOW) as fd:
            while at <= one.row.size and (count := os.preadv(fd, [buffer := next(buffers)], at)):
                yield memoryview(buffer)[:count]
                at += count
    except OSError as error:
        raise storage_error(error, item) from error
    if at != one.row.size:
        raise _mismatch(item, one.row.model)


PART = re.compile(r"(?P<whole>.+)\.(?P<number>[0-9]{3,})")
"""The name of a part: that of the whole tar, and its number."""
_LEAST = 2**20
"""The least bytes of a part."""


@value_class
class BundleOutput:
    """Where a bundle of ``total`` bytes goes: to the file ``path``, or to parts of at most ``split`` bytes beside it,
    called ``path.000`` and so on."""

    path: Path
    total: int
    split: int | None = None

    @property
    def names(self) -> list[str]:
        """The names of its parts."""
        if self.split is None:
            return [self.path.name]
        count = -(-self.total // self.split)
        digits = max(3, len(str(count - 1)))
        return [f"{self.path.name}.{number:0{digits}}" for number in range(count)]

    @property
    def sums(self) -> str | None:
        """The name of the file with the digests of the parts."""
        return None if self.split is None else sums_name(self.path.name)

    def check(self, *, force: bool) -> None:
        """See that nothing is there but an earlier bundle, which may be replaced; with ``force`` any file. Raises
        `Occupied`, `UsageError`, `StorageError`."""
        if self.split is not None and self.split < _LEAST:
            raise UsageError("a part must have at least 1Mi", item="--split", hint="--split 4G is for FAT32")
        if not self.path.parent.is_dir():
            hint = "make it first, or choose another with -o"
            raise StorageError("no such folder", item=str(self.path.parent), hint=hint)
        paths = [self.path.with_name(name) for name in self.names]
        may_replace = force or _begins_a_bundle(paths[0])
        if self.sums is not None:
            paths.append(self.path.with_name(self.sums))
        for path in paths:
            if not os.path.lexists(path):
                continue
            is_file = path.is_file()
            if may_replace and is_file and not path.is_symlink():
                continue
            hint = "choose another name with -o"
            if is_file:
                hint += ", or replace it with --force"
            raise Occupied("this file exists already, and is not a bundle of mdl", item=str(path), hint=hint)

    def stale(self) -> Iterator[Path]:
        """Parts of an earlier, longer bundle, which would be taken for the end of this one."""
        if self.split is None:
            return
        names = set(self.names)
        for path in self.path.parent.iterdir():
            part = PART.fullmatch(path.name)
            is_part = part is not None and part["whole"] == self.path.name
            if is_part and path.name not in names and path.is_file():
                yield path


def sums_name(name: str) -> str:
    return f"{name}.sha256sums"


def _begins_a_bundle(path: Path) -> bool:
    """Whether a file begins as a bundle does."""
    start = header(f"{TOP}/{README}", 0)[: len(f"{TOP}/{README}") + 1]
    try:
        with open_for_reading(path, os.O_NOFOLLOW) as fd:
            return os.pread(fd, len(start), 0) == start
    except OSError:
        return False


class BundleWriter:
    """Takes the bytes of a bundle to files in ``folder``, a hidden one beside the output; `publish` gives them their
    names. Each is synced, and its digest is made, on the way."""

    def __init__(self, output: BundleOutput, folder: Path) -> None:
        self._output = output
        self._folder = folder
        self._names = iter(output.names)
        self._sink: ArchiveSink | None = None
        self._stack = ExitStack()
        self.parts: list[BundlePart] = []

    def write(self, data: bytes | memoryview) -> None:
        """Write ``data``, whose bytes must not change before the next call. Raises `OSError`."""
        view = memoryview(data)
        while view:
            sink = self._sink or self._begin()
            room = len(view) if self._output.split is None else self._output.split - sink.at
            sink.write(view[:room])
            view = view[room:]
            if sink.at == self._output.split:
                self.end_part()

    def _begin(self) -> ArchiveSink:
        self._path = self._folder / next(self._names)
        self._fd = create(self._path, flags=os.O_RDWR)
        self._stack.callback(os.close, self._fd)
        self._sink = self._stack.enter_context(ArchiveSink(self._fd, sync=True, digest=True))
        return self._sink

    def end_part(self) -> None:
        """End the part that is being written, if there is one, and begin no other yet. Raises `OSError`."""
        sink = self._sink
        if sink is None:
            return
        self._sink = None
        sink.close()
        sync(self._fd)
        self.parts.append(BundlePart(self._output.path.with_name(self._path.name), sink.at, sink.sha256 or ""))
        self._stack.close()

    def publish(self) -> Path | None:
        """Give all parts their names, the first one first, and then the list of their digests, without which a bundle
        in parts is not whole; returns its path. Raises `OSError`."""
        self.end_part()
        place = self._output.path.parent
        name = self._output.sums
        if name:
            publish.unpublish(place / name)
        for part in self.parts:
            publish.replace_file(self._folder / part.path.name, part.path)
        for path in self._output.stale():
            publish.unpublish(path)
        publish.sync_folder(place)
        if name is None:
            return None
        text = sums({part.path.name: part.sha256 for part in self.parts})
        publish.write_file(place / name, text.encode(), mode=0o666 & ~publish.umask())
        return place / name

    def close(self) -> None:
        """Close what is open; nothing is published."""
        self._stack.close()
