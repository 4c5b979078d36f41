"""Import: a bundle's files go straight into the store, hashed while they are written, and its entries into catalog and
lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path

from mdl.archive.streaming import BackgroundHash, BackgroundSync, Progress
from mdl.archive.tar import TarMember
from mdl.catalog.lock import Lock, LockedFile, entry_of
from mdl.catalog.model import Catalog, Model
from mdl.context import Context, adopt_kept, model_locks, wait_for_others
from mdl.disk import write_all
from mdl.disk.pool import Pool
from mdl.disk.publish import StagedFile
from mdl.disk.safe_open import create
from mdl.downloader.plan import Item, Plan, Wanted
from mdl.downloader.store import Ready, Store
from mdl.errors import DigestMismatch, MdlError, NoSpace, Occupied, ProtocolError, storage_error, whole_error
from mdl.files import LocalFile, RemoteFile
from mdl.formatting import counted, listed
from mdl.hashing import PREFIX_STEP, Digest, Fingerprint, new_hasher
from mdl.local.hash_progress import watch_reading
from mdl.ops.sub_catalog import portable
from mdl.plugins.bundle.manifest import BundledFile, place_of, verified_by
from mdl.plugins.bundle.reading import AGAIN, Bundle

_BLOCK = 2**20
_SMALL = 2**20
"""Files of at most this many bytes are published several at once."""
_BATCH = 64


# Catalog and lock


def confirmed(bundle: Bundle, context: Context, catalog: Catalog, lock: Lock) -> Bundle:
    """Return the same bundle. The lines of its lock that somebody here vouches for as well are not its word alone any
    more: the user's own ``catalog`` and ``lock``, and kept listings of the hubs. ``context`` resolves past the user's
    lock, and asks nobody."""
    new_lock = bundle.lock
    for model in bundle.models:
        known = list(context.resolver.known(bundle.lock.pin(model)) or ())
        own = catalog.models.get(model.name)
        if own is not None:
            if lock.covers(own):
                own = lock.pin(own)
            with suppress(MdlError):  # its entry does not fit what is known of its source: that is for 'get' to report
                known += context.resolver.known(own) or ()
        vouched = {(remote.path, remote.digest) for remote in known if remote.is_vouched_for}
        files = []
        for file in bundle.lock.models[model.name].files:
            files.append(replace(file, bundled=(file.path, file.digest) not in vouched))
        new_lock = new_lock.with_model(replace(bundle.lock.models[model.name], files=tuple(files)))
    return replace(bundle, lock=new_lock)


def changes(bundle: Bundle, catalog: Catalog, lock: Lock, *, may_replace: bool) -> tuple[list[Model], list[str]]:
    """What an import changes: the models that ``catalog`` lacks, and the names of those that ``lock`` lacks. What one
    of the two has otherwise is among them only if ``may_replace``; else it is an `Occupied` error. Pure."""
    added: list[Model] = []
    locked: list[str] = []
    errors: list[MdlError] = []
    for model in bundle.models:
        name = model.name
        own = catalog.models.get(name)
        own_files: Sequence[LockedFile] = ()
        if own is None:
            added.append(model)
        elif entry_of(portable(own)) != entry_of(model):
            added.append(model)
            hint = "--replace takes the bundle's; --catalog FILE imports into another catalog"
            errors.append(Occupied(f"the catalog {own.origin} has another entry of this name", item=name, hint=hint))
        elif lock.covers(own):
            own_files = lock.models[name].files
        if _are_same(own_files, bundle.lock.models[name].files):
            continue
        locked.append(name)
        if own_files:
            errors.append(Occupied("the lock has other files of it", item=name, hint="--replace takes the bundle's"))
    if errors and not may_replace:
        raise _one_of(errors, listed([str(error) for error in errors], "; "))
    return added, locked


def _are_same(before: Sequence[LockedFile], after: Sequence[LockedFile]) -> bool:
    old = {file.path: file for file in before}
    new = {file.path: file for file in after}
    return old.keys() == new.keys() and all(old[path].is_same_as(new[path]) for path in new)


def with_locked(lock: Lock, bundle: Bundle, names: Sequence[str], catalog: Mapping[str, Model]) -> Lock:
    """The lock with those of the bundle's models, which ``catalog`` has by now; as it was without ``names``. Pure."""
    for name in names:
        lock = lock.with_model(replace(bundle.lock.models[name], entry=entry_of(catalog[name])))
    return lock


def _one_of(errors: Sequence[MdlError], message: str) -> MdlError:
    """Return the one error, or one with this ``message`` that stands for several."""
    return errors[0] if len(errors) == 1 else whole_error(message, errors)


# Files


def import_files(bundle: Bundle, context: Context, *, may_replace: bool) -> tuple[BundledFile, ...]:
    """Bring the files of a bundle into the store; those that are here already are not read. ``context`` resolves past
    the user's lock. Files here that somebody else vouches for give way only if they may be replaced.

    What comes from a bundle came from no hub, whatever its lock says: nobody knows who may have it.

    Raises `DigestMismatch` for wrong bytes, which are not published, `ProtocolError` for a bundle that is not whole,
    `Unsafe`, `Occupied`, `NoSpace` before the first byte, `StorageError`, `Busy`, `Cancelled`. What was published
    before stays.
    """
    store = context.store
    with model_locks(bundle.models, context):
        wanted: list[Wanted] = []
        for model in bundle.models:
            remotes = context.resolver.known(bundle.lock.pin(model)) or ()
            clashes = store.clashes(model.name, remotes)
            for number, remote in enumerate(remotes):
                hub = remote.hub
                if hub is not None:
                    hub = replace(hub, endpoint="")
                remote = replace(remote, hub=hub, access="unknown")
                if number in clashes:
                    wanted.append(Wanted(model.name, remote, LocalFile(), clashes[number]))
                    continue
                local = store.check(model.name, remote, watch=watch_reading(model.name, remote, context.on_event))
                error = None
                if not may_replace and not remote.is_vouched_for:
                    error = _why_not_replaced(model.name, local, remote, store)
                wanted.append(Wanted(model.name, remote, local, error))
        plan = Plan.of(wanted)
        refused = [item.refused.on(item.remote.path.text) for item in plan.refuse if item.refused]
        if refused:
            count = counted(len(refused), "file")
            raise _one_of(refused, f"{count} cannot be imported; the first is {refused[0]}")
        plan.check_size(context.max_size)
        try:
            plan.check_space(store.free_space())
        except NoSpace as error:
            hint = "nothing was written; free some space, or choose another folder with --to"
            raise error.but(hint=hint) from error
        adopt_kept(plan, store)
        wait_for_others(plan.fetch, context)
        if plan.fetch:
            _Import(bundle, context).run(plan)
        for model in bundle.models:
            remotes = [one.remote for one in wanted if one.model == model.name]
            store.layout.mark_complete(remotes, is_news=False)
    fetched = {place_of(item.wanted.model, item.remote.path.text) for item in plan.fetch}
    files = []
    for place, (name, file) in bundle.files.items():
        action = "imported" if place in fetched else "kept"
        size = file.size or 0
        files.append(BundledFile(name, file.path.text, size, bundle.sums[place], verified_by(file), action))
    return tuple(files)


def _why_not_replaced(model: str, local: LocalFile, remote: RemoteFile, store: Store) -> Occupied | None:
    """Why a file here does not give way to one for which only the bundle vouches; None if it does."""
    hint = "--replace takes the bundle's; --to DIR imports into another folder"
    pointer = store.layout.pointer(remote)
    if pointer is not None and os.path.lexists(pointer) and store.pointer_state(model, remote) != "right":
        return Occupied("the cache has another file of this name and commit", hint=hint)
    receipt = local.receipt
    if receipt is None or not local.untouched or not receipt.is_vouched_for or receipt.matches(remote):
        return None
    by = receipt.vouched_by
    why = f"another file is here, with a digest from the {by}; of this one only the bundle has a digest"
    return Occupied(why, hint=hint)


class _Import:
    """The members of a bundle on their way into the store."""

    def __init__(self, bundle: Bundle, context: Context) -> None:
        self._bundle = bundle
        self._files = bundle.files
        self._store = context.store
        self._on_event = context.on_event
        self._ready: list[Ready] = []
        self._staged: list[StagedFile] = []
        """Small files that are to be published together, and their bytes."""

    def run(self, plan: Plan) -> None:
        """Bring what the plan fetches. Raises as `import_files`."""
        tar = self._bundle.tar
        items = {place_of(item.wanted.model, item.remote.path.text): item for item in plan.fetch}
        size = plan.bytes_to_fetch
        progress = Progress(self._on_event, tar.name, "import", len(items), size, self._store.cancel)
        try:
            for member in tar.members():
                item = items.pop(member.path.text, None)
                if item is None:
                    continue
                about = f"{item.wanted.model}/{item.remote.path}"
                try:
                    if member.size <= _SMALL:
                        self._stage(item, member)
                        progress.add(member.size, about)
                    else:
                        self._import_large(item, member, partial(progress.add, file=about))
                except OSError as error:
                    raise storage_error(error, about) from error
            self._publish()
        finally:
            for staged in self._staged:
                staged.close()
        for place in items:
            raise ProtocolError("this file is missing from the bundle", item=place, hint=AGAIN)
        progress.finish(size, "imported", "sha256")

    def _stage(self, item: Item, member: TarMember) -> None:
        """Take a small file, which is published with others. Raises as `import_files`, `OSError`."""
        data = self._bundle.tar.read(member)
        self._check_sum(_fingerprint(data, "sha256"), member)
        actual = _fingerprint(data, item.remote.hash_algorithm)
        _check_lock(actual, item)
        staged = self._store.stage(data)
        self._staged.append(staged)
        self._ready.append(self._of(item, staged, actual))
        if len(self._ready) == _BATCH:
            self._publish()

    def _import_large(self, item: Item, member: TarMember, on_bytes: Callable[[int], None]) -> None:
        """Write a file, and publish it. Raises as `import_files`, `OSError`."""
        store = self._store
        remote = item.remote
        with store.scratch_folder(item.wanted.model, remote) as folder:
            path = folder / "data"
            actual = self._write(path, on_bytes)
            self._check_sum(actual, member)
            if remote.hash_algorithm != "sha256":
                actual = store.fingerprint(path, remote)
            _check_lock(actual, item)
            store.publish(self._of(item, path, actual))

    def _write(self, path: Path, on_bytes: Callable[[int], None]) -> Fingerprint:
        """Write the current member to a new file; returns the fingerprint of what was written. Raises `OSError`."""
        fd = create(path, flags=os.O_RDWR)
        buffers = cycle((bytearray(_BLOCK), bytearray(_BLOCK)))  # one is hashed while the other is filled
        done = 0
        prefixes: list[str] = []
        try:
            with Pool(1, "mdl-hash") as pool, BackgroundSync(1) as sync:
                hasher = BackgroundHash(pool)
                while True:
                    buffer = memoryview(next(buffers))
                    count = self._bundle.tar.read_into(buffer)
                    if count == 0:
                        return Fingerprint(Digest("sha256", hasher.hexdigest()), done, tuple(prefixes))
                    hasher.update(buffer[:count])
                    write_all(fd, buffer[:count])
                    done += count
                    sync.wrote(fd, count)
                    on_bytes(count)
                    if done % PREFIX_STEP == 0:
                        prefixes.append(hasher.hexdigest())
        finally:
            os.close(fd)

    def _of(self, item: Item, source: Path | StagedFile, actual: Fingerprint) -> Ready:
        """Return a file that can be published. Its bytes are those that came first if nobody published a digest."""
        model = item.wanted.model
        _, file = self._files[place_of(model, item.remote.path.text)]
        verified = "none" if file.tofu else item.remote.hash_algorithm
        return Ready(model, item.remote, source, actual, verified, item.seen)

    def _check_sum(self, actual: Fingerprint, member: TarMember) -> None:
        """Raise `DigestMismatch` if the bundle's own list has another digest."""
        place = member.path.text
        if actual.digest.hex != self._bundle.sums[place] or actual.size != member.size:
            why = f"it does not have the digest of SHA256SUMS: it has {actual.digest.hex}"
            raise DigestMismatch(why, item=place, hint=AGAIN)

    def _publish(self) -> None:
        """Publish the small files that wait. Raises the first error."""
        ready = self._ready
        self._ready = []
        self._staged = []
        for item, error in zip(ready, self._store.publish_all(ready), strict=True):
            if isinstance(error, OSError):
                raise storage_error(error, f"{item.model}/{item.remote.path}")
            if error is not None:
                raise error


def _check_lock(actual: Fingerprint, item: Item) -> None:
    """Raise `DigestMismatch` if the lock of the bundle has another digest."""
    if actual.digest != item.remote.digest:
        why = f"it does not have the digest of mdl.lock: it has {actual.digest}"
        about = f"{item.wanted.model}/{item.remote.path}"
        raise DigestMismatch(why, item=about, hint="look at who made the bundle")


def _fingerprint(data: bytes, algorithm: str) -> Fingerprint:
    hasher = new_hasher(algorithm, len(data))
    hasher.update(data)
    return Fingerprint(Digest(algorithm, hasher.hexdigest()), len(data))
