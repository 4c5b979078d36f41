"""Import: a bundle's files go straight into the store, hashed while they are written, and its entries into catalog and
lock. Somebody else made the bundle: mdl believes nothing in it that does not fit the bundle's own list and lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

from mdl.archive.streaming import BackgroundHash, BackgroundSync, Progress
from mdl.archive.tar import TarMember
from mdl.bounds import LARGEST_DOCUMENT, MOST_ITEMS
from mdl.catalog.lock import Lock, LockedFile, LockedModel, entry_of
from mdl.catalog.lock_file import parse_lock
from mdl.catalog.model import Catalog, Model
from mdl.catalog.reader import parse_catalog
from mdl.context import Context, adopt_kept, model_locks, wait_for_others
from mdl.disk import write_all
from mdl.disk.pool import Pool
from mdl.disk.publish import StagedFile
from mdl.downloader.plan import Item, Plan, Wanted
from mdl.downloader.store import Ready, Store
from mdl.errors import (
    CatalogError,
    DigestMismatch,
    MdlError,
    NoSpace,
    Occupied,
    ProtocolError,
    StateError,
    Unsafe,
    UsageError,
    storage_error,
    whole_error,
)
from mdl.files import LocalFile, RemoteFile
from mdl.formatting import counted, listed
from mdl.hashing import PREFIX_STEP, Digest, Fingerprint, new_hasher
from mdl.local.hash_progress import watch_reading
from mdl.ops.sub_catalog import portable
from mdl.paths import RelPath, clashing, shown
from mdl.plugins.bundle.manifest import CATALOG, HEAD, LOCK, SUMS, BundledFile, place_of, read_sums, verified_by
from mdl.plugins.bundle.tar_stream import BundleMedium, open_medium
from mdl.sources import parse
from mdl.toml import parse_toml
from mdl.values import value_class

_BLOCK = 2**20
_SMALL = 2**20
"""Files of at most this many bytes are published several at once."""
_BATCH = 64
_AGAIN = "copy the bundle again; what was imported is kept"


@value_class
class Bundle:
    """A bundle that is open, and all of whose headers were read: ``models`` with their ``lock``, and the digests of its
    files by their paths in it. A line of the lock is ``bundled`` as long as nobody else says the same."""

    medium: BundleMedium
    sums: Mapping[str, str]
    models: Sequence[Model]
    lock: Lock

    @property
    def files(self) -> dict[str, tuple[str, LockedFile]]:
        """The files of its models by their paths in it, each with the name of its model."""
        locked = ((name, self.lock.models[name]) for name in sorted(self.lock.models))
        return {place_of(name, file.path.text): (name, file) for name, model in locked for file in model.files}

    def confirmed_by(self, known: Mapping[str, Sequence[RemoteFile]]) -> Bundle:
        """The same bundle. The lines of its lock that somebody else vouches for as well are not its word alone any
        more. ``known`` has, by model, what is known here of files."""
        lock = self.lock
        for name, model in self.lock.models.items():
            vouched = {(one.path, one.digest) for one in known.get(name, ()) if one.is_vouched_for}
            files = (replace(one, bundled=(one.path, one.digest) not in vouched) for one in model.files)
            lock = lock.with_model(replace(model, files=tuple(files)))
        return replace(self, lock=lock)


@contextmanager
def open_bundle(place: Path, watch: Callable[[int], None]) -> Iterator[Bundle]:
    """Open the bundle at ``place`` and look at every member before any is used. Within the block an error says which
    part of the bundle is damaged, if that is known; ``watch`` is called with the bytes that are read to find it.

    Raises `NotFound`, `ProtocolError` for a damaged bundle, `Unsafe`, `StorageError`.
    """
    with closing(open_medium(place)) as medium:
        try:
            yield _read(medium)
        except ProtocolError as error:
            if why := medium.why_damaged(watch):
                raise DigestMismatch(why, item=error.item, hint=_AGAIN) from error
            raise error.on(medium.name) from None
        except MdlError as error:
            raise error.on(medium.name) from None


def _read(medium: BundleMedium) -> Bundle:
    sizes = dict[str, int]()
    texts = dict[str, bytes]()
    for member in medium.members():
        path = member.path.text
        if path in sizes or len(sizes) == MOST_ITEMS:
            why = "it is there twice" if path in sizes else f"there are more than {MOST_ITEMS:,} files"
            raise Unsafe(f"refused: {why}", item=path)
        sizes[path] = member.size
        if path in HEAD:
            texts[path] = _text(medium, member)
    for name in HEAD:
        if name not in texts:
            raise ProtocolError(f"it lacks {name}: it is not a bundle, or it is damaged", hint=_AGAIN)
    sums = read_sums(texts[SUMS])
    for name in (one for one in HEAD if one != SUMS):
        if _fingerprint(texts[name]).digest.hex != sums.get(name):
            raise DigestMismatch("it does not have the digest of SHA256SUMS", item=name, hint=_AGAIN)
    bundle = Bundle(medium, sums, *_models(texts[CATALOG], texts[LOCK]))
    _check_members(bundle, sizes)
    return bundle


def _check_members(bundle: Bundle, sizes: Mapping[str, int]) -> None:
    """See that the members, SHA256SUMS and the lock have the same files. Raises `ProtocolError`, `Unsafe`."""
    files = bundle.files
    for place in sorted(sizes.keys() - files.keys() - {*HEAD}):
        raise Unsafe("refused: no model in the bundle's lock has this file", item=place)
    for place in sorted(bundle.sums.keys() - sizes.keys()):
        raise ProtocolError("the bundle lacks this file", item=place, hint=_AGAIN)
    for place, (_, file) in files.items():
        if place not in bundle.sums:
            raise Unsafe("refused: SHA256SUMS does not list it", item=place)
        if sizes[place] != file.size:
            why = f"it has {sizes[place]:,} bytes, and the lock of the bundle says {file.size:,}"
            raise ProtocolError(why, item=place, hint=_AGAIN)
    paths = [RelPath.of_repository(place) for place in files]
    for number, other in clashing(paths).items():
        raise Unsafe(f"refused: {shown(other.text)} is a file too", item=paths[number].text)


def _text(medium: BundleMedium, member: TarMember) -> bytes:
    if member.size > LARGEST_DOCUMENT:
        raise Unsafe(f"refused: it has {member.size:,} bytes", item=member.path.text)
    data = bytearray(member.size)
    if medium.read_into(memoryview(data)) < member.size:
        raise ProtocolError("it ends too early", item=member.path.text, hint=_AGAIN)
    return bytes(data)


def _models(catalog: bytes, lock: bytes) -> tuple[list[Model], Lock]:
    """The models of a bundle, and their lock, which must agree. Raises `ProtocolError`, `Unsafe`."""
    try:
        text = catalog.decode()
        if parse_toml(text).keys() - {"schema", "models"}:
            raise Unsafe("refused: the catalog of a bundle has models only", item=CATALOG)
        models = list(parse_catalog(text, Path(CATALOG)).models.values())
        found = parse_lock(lock.decode())
    except (CatalogError, StateError, ValueError) as error:
        raise ProtocolError(f"its catalog or lock cannot be read: {error}", hint="it may be of a newer mdl") from error
    if found.models.keys() != {model.name for model in models} or not all(map(found.covers, models)):
        raise ProtocolError("its catalog and its lock are not of the same models", item=LOCK)
    for name, locked in found.models.items():
        for file in locked.files:
            if file.digest is None or file.size is None:
                raise ProtocolError("its lock has no digest of this file", item=f"{name}/{file.path}")
    for model in models:
        _check_sources(model, found.models[model.name])
    bundled = {
        name: replace(model, files=tuple(replace(file, bundled=True) for file in model.files))
        for name, model in found.models.items()
    }
    return models, Lock(bundled)


def _check_sources(model: Model, locked: LockedModel) -> None:
    """See that the lock has the files come from where the entry says. Otherwise later downloads would ask a host or a
    repository that the entry, which the user may know well, does not name. Raises `Unsafe`, `ProtocolError`."""
    named = set(model.sources)
    for url in model.urls:
        host = urlsplit(url)
        pages = host.netloc, host.hostname or ""  # if it is a hub's, the lock has hf:… for the URL
        named |= {parse(url, ()), parse(url, pages)}
    for file in locked.files:
        for text in (file.source, *file.mirrors):
            try:
                place = parse(text, ())
            except UsageError as error:
                raise ProtocolError(f"its lock cannot be read: {error}", item=LOCK, hint=_AGAIN) from error
            if not any(origin.holds(place) for origin in named):
                why = f"the lock of the bundle has it come from {shown(text)[:200]}, which its entry does not name"
                raise Unsafe(f"refused: {why}", item=f"{model.name}/{file.path}")


def changes(bundle: Bundle, catalog: Catalog, lock: Lock, *, may_replace: bool) -> tuple[list[Model], list[str]]:
    """What an import changes: the models that ``catalog`` lacks, and the names of those that ``lock`` lacks. What one
    of the two has otherwise is among them only if ``may_replace``; else it is an `Occupied` error. Pure."""
    added: list[Model] = []
    locked: list[str] = []
    errors: list[MdlError] = []
    for model in bundle.models:
        name = model.name
        here = catalog.models.get(model.name)
        is_same = here is not None and entry_of(portable(here)) == entry_of(model)
        if not is_same:
            added.append(model)
        if here is not None and not is_same:
            hint = "--replace takes the bundle's; --catalog FILE imports into another catalog"
            errors.append(Occupied(f"the catalog {here.origin} has another entry of this name", item=name, hint=hint))
        before = lock.models[name].files if is_same and here and lock.covers(here) else ()
        if _are_same(before, bundle.lock.models[name].files):
            continue
        locked.append(name)
        if before:
            errors.append(Occupied("the lock has other files of it", item=name, hint="--replace takes the bundle's"))
    if errors and not may_replace:
        raise errors[0] if len(errors) == 1 else whole_error(listed([str(error) for error in errors], "; "), errors)
    return added, locked


def _are_same(before: Sequence[LockedFile], after: Sequence[LockedFile]) -> bool:
    old, new = ({file.path: file for file in side} for side in (before, after))
    return old.keys() == new.keys() and all(old[path].is_same_as(new[path]) for path in new)


def with_locked(lock: Lock, bundle: Bundle, names: Sequence[str], catalog: Mapping[str, Model]) -> Lock:
    """The lock with those of the bundle's models, which ``catalog`` has by now; as it was without ``names``. Pure."""
    for name in names:
        locked = replace(bundle.lock.models[name], entry=entry_of(catalog[name]))
        lock = lock.with_model(locked)
    return lock


def known_here(bundle: Bundle, context: Context, catalog: Catalog, lock: Lock) -> dict[str, list[RemoteFile]]:
    """What is known here of the files of a bundle's models, by model: from the user's own ``catalog`` and ``lock``, and
    from kept listings of the hubs. ``context`` resolves past the user's lock, and asks nobody."""
    found: dict[str, list[RemoteFile]] = {}
    for model in bundle.models:
        files = context.resolver.known(bundle.lock.pin(model)) or []
        own = catalog.models.get(model.name)
        if own is not None:
            with suppress(MdlError):  # its entry does not fit what is known of its source: that is for 'get' to report
                files += context.resolver.known(lock.pin(own) if lock.covers(own) else own) or []
        found[model.name] = files
    return found


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
        wanted = []
        for model in bundle.models:
            remotes = context.resolver.known(bundle.lock.pin(model)) or ()
            clashes = store.clashes(model.name, remotes)
            for number, remote in enumerate(remotes):
                hub = replace(remote.hub, endpoint="") if remote.hub else None
                remote = replace(remote, hub=hub, access="unknown")
                watch = watch_reading(model.name, remote, context.on_event)
                local = LocalFile() if number in clashes else store.check(model.name, remote, watch=watch)
                error: MdlError | None = clashes.get(number)
                if error is None and not (may_replace or remote.is_vouched_for):
                    error = _why_not_replaced(model.name, local, remote, store)
                wanted.append(Wanted(model.name, remote, local, error))
        plan = Plan.of(wanted)
        refused = [item.refused.on(item.remote.path.text) for item in plan.refuse if item.refused]
        if refused:
            why = f"{counted(len(refused), 'file')} cannot be imported; the first is {refused[0]}"
            raise refused[0] if len(refused) == 1 else whole_error(why, refused)
        plan.check_size(context.max_size)
        try:
            plan.check_space(store.free_space())
        except NoSpace as error:
            hint = "nothing was written; free some space, or choose another folder with --to"
            raise error.but(hint=hint) from error
        adopt_kept(plan, store)
        wait_for_others(plan.fetch, context)
        if plan.fetch:
            _Import(bundle, context, plan).run()
        for model in bundle.models:
            store.layout.mark_complete([one.remote for one in wanted if one.model == model.name], is_news=False)
    fetched = {(item.wanted.model, item.remote.path) for item in plan.fetch}
    rows = []
    for place, (name, file) in bundle.files.items():
        action = "imported" if (name, file.path) in fetched else "kept"
        facts = (file.size or 0, bundle.sums[place], verified_by(file), action)
        rows.append(BundledFile(name, file.path.text, *facts))
    return tuple(rows)


def _why_not_replaced(model: str, local: LocalFile, remote: RemoteFile, store: Store) -> Occupied | None:
    """Why a file here does not give way to one for which only the bundle vouches; None if it does."""
    hint = "--replace takes the bundle's; --to DIR imports beside it"
    pointer = store.layout.pointer(remote)
    receipt = local.receipt
    if pointer is not None and os.path.lexists(pointer) and store.pointer_state(model, remote) != "right":
        return Occupied("the cache has another file of this name and commit", hint=hint)
    if receipt is None or not (local.untouched and receipt.is_vouched_for) or receipt.matches(remote):
        return None
    why = f"another file is here, for which the {receipt.vouched_by} vouches; for this one only the bundle does"
    return Occupied(why, hint=hint)


@dataclass
class _Import:
    """The members of a bundle on their way into the store."""

    bundle: Bundle
    context: Context
    plan: Plan
    ready: list[Ready] = field(default_factory=list)
    staged: list[StagedFile] = field(default_factory=list)
    """Small files that are to be published together, and their bytes."""

    def run(self) -> None:
        """Raises as `import_files`."""
        medium = self.bundle.medium
        size = self.plan.bytes_to_fetch
        items = {place_of(item.wanted.model, item.remote.path.text): item for item in self.plan.fetch}
        progress = Progress(self.context.on_event, medium.name, "import", len(items), size, self.context.store.cancel)
        try:
            for member in medium.members():
                if item := items.pop(member.path.text, None):
                    self._take(item, member, progress)
            self._publish()
        finally:
            for staged in self.staged:
                staged.close()
        if items:
            raise ProtocolError("the bundle lacks this file", item=next(iter(items)), hint=_AGAIN)
        progress.finish(size, "imported", "sha256")

    def _take(self, item: Item, member: TarMember, progress: Progress) -> None:
        """Bring one file into the store. Raises as `import_files`."""
        store = self.context.store
        model = item.wanted.model
        remote = item.remote
        about = f"{model}/{remote.path}"
        verified = "none" if self.bundle.files[member.path.text][1].tofu else remote.hash_algorithm
        try:
            if member.size <= _SMALL:
                data = _text(self.bundle.medium, member)
                self._check(_fingerprint(data), member)
                print_ = _fingerprint(data, remote.hash_algorithm)
                self._check_remote(print_, item)
                progress.add(len(data), about)
                self.staged.append(store.stage(data))
                self.ready.append(Ready(model, remote, self.staged[-1], print_, verified, item.seen))
                if len(self.ready) == _BATCH:
                    self._publish()
                return
            with store.scratch_folder(model, remote) as folder:
                here = folder / "data"
                print_ = self._write(here, member, lambda count: progress.add(count, about))
                self._check(print_, member)
                if remote.hash_algorithm != "sha256":
                    print_ = store.fingerprint(here, remote)
                self._check_remote(print_, item)
                store.publish(Ready(model, remote, here, print_, verified, item.seen))
        except OSError as error:
            raise storage_error(error, about) from error

    def _write(self, path: Path, member: TarMember, wrote: Callable[[int], None]) -> Fingerprint:
        """Write the current member to a new file; returns the fingerprint of what was written. Raises `OSError`."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o666)
        buffers = cycle((bytearray(_BLOCK), bytearray(_BLOCK)))
        done = 0
        prefixes = []
        try:
            with Pool(1, "mdl-hash") as pool, BackgroundSync(1) as sync:
                hasher = BackgroundHash(pool)
                while count := self.bundle.medium.read_into(memoryview(buffer := next(buffers))):
                    view = memoryview(buffer)[:count]
                    hasher.update(view)
                    write_all(fd, view)
                    done += count
                    sync.wrote(fd, count)
                    wrote(count)
                    if done % PREFIX_STEP == 0:
                        prefixes.append(hasher.hexdigest())
                return Fingerprint(Digest("sha256", hasher.hexdigest()), done, tuple(prefixes))
        finally:
            os.close(fd)

    def _check(self, print_: Fingerprint, member: TarMember) -> None:
        """Raises `DigestMismatch` if the bundle's own list has another digest."""
        place = member.path.text
        if print_.digest.hex != self.bundle.sums[place] or print_.size != member.size:
            why = f"it does not have the digest of SHA256SUMS: it has {print_.digest.hex}"
            raise DigestMismatch(why, item=place, hint=_AGAIN)

    def _check_remote(self, print_: Fingerprint, item: Item) -> None:
        """Raises `DigestMismatch` if the lock of the bundle has another digest."""
        if print_.digest != item.remote.digest:
            why = f"it does not have the digest of mdl.lock: it has {print_.digest}"
            raise DigestMismatch(
                why, item=f"{item.wanted.model}/{item.remote.path}", hint="look at who made the bundle"
            )

    def _publish(self) -> None:
        """Publish the small files that wait. Raises the first error."""
        ready = self.ready
        self.ready = []
        self.staged = []
        for one, error in zip(ready, self.context.store.publish_all(ready), strict=True):
            if isinstance(error, OSError):
                raise storage_error(error, f"{one.model}/{one.remote.path}")
            if error is not None:
                raise error


def _fingerprint(data: bytes, algorithm: str = "sha256") -> Fingerprint:
    hasher = new_hasher(algorithm, len(data))
    hasher.update(data)
    return Fingerprint(Digest(algorithm, hasher.hexdigest()), len(data))
