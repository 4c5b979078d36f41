"""mirror: what the lock holds, put into an object store, listed there, and fetched from it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from mdl import __version__
from mdl.bounds import LARGEST_DOCUMENT
from mdl.catalog.lock import Lock, LockedModel
from mdl.catalog.mirror_layout import MirrorPlace
from mdl.catalog.model import Model
from mdl.context import Context
from mdl.disk.pool import in_thread
from mdl.downloader.store import Store
from mdl.errors import Cancelled, LockError, MdlError, NetworkError, NotFound, ProtocolError, UsageError
from mdl.events import Planned
from mdl.files import RemoteFile
from mdl.formatting import utc_now
from mdl.local.verify import Remedy
from mdl.ops.get import GetRequest, get
from mdl.plugins.mirror.marker import MARKER, MarkedFile, Marker
from mdl.plugins.mirror.upload import Reporter, Sender, Sending, watched, workers
from mdl.reports import ModelReport, ModelsReport, Report, error_of
from mdl.sources.object_store import Bucket
from mdl.values import value_class

Result = TypeVar("Result")
PUSH = "'mdl mirror push' puts it there"
"""What to do about what a mirror lacks."""


@value_class
class MirroredFile:
    """One file of a version in a mirror. ``status``: after a push ``pushed``, ``kept`` (it was there) or ``failed``;
    after a check ``ok``, ``corrupt``, ``missing`` or ``unverified``. ``resumed_at`` bytes were there as parts."""

    path: str
    size: int
    sha256: str | None
    status: str
    error: MdlError | None = None
    resumed_at: int = 0


@value_class
class MirrorVersion:
    """One version of a model in a mirror: the ``url`` of its folder, how many ``objects`` and ``bytes`` it has, and
    what its marker says. ``is_complete`` if it has one; ``is_locked`` if it is the one that the lock names."""

    name: str
    version: str
    url: str
    is_complete: bool = False
    is_locked: bool = False
    objects: int = 0
    bytes: int = 0
    commit: str = ""
    license: str = ""
    written_at: str = ""
    files: tuple[MirroredFile, ...] = ()
    error: MdlError | None = None

    def with_marker(self, marker: Marker) -> MirrorVersion:
        """The same version, complete, with what its marker says. The files stay if they were looked at."""
        files = self.files
        if not files:
            files = tuple(MirroredFile(file.path, file.size, file.sha256, "unverified") for file in marker.files)
        return replace(
            self,
            is_complete=True,
            commit=marker.commit,
            license=marker.license,
            written_at=marker.written_at,
            files=files,
        )


@value_class
class MirrorReport(ModelsReport):
    """How a push or a check went. ``bytes_sent`` went over the network; ``bytes_kept`` were in the mirror before;
    ``bytes_read`` of it were read and hashed."""

    models: tuple[MirrorVersion, ...] = ()
    bytes_sent: int = 0
    bytes_kept: int = 0
    bytes_read: int = 0
    seconds: float = 0.0

    @property
    def error(self) -> MdlError | None:
        """The one error that sums up all failures; None if all is well. What is corrupt counts more than what is
        missing, as in a `VerifyReport`."""
        failed = self.failed
        total = sum(len(model.files) or 1 for model in self.models)
        corrupt = [failure for failure in failed if isinstance(failure.error, ProtocolError)]
        missing = [failure for failure in failed if isinstance(failure.error, NotFound)]
        if corrupt and len(corrupt) + len(missing) == len(failed):
            failed = corrupt
        return error_of(failed, total)


@value_class
class MarkerFound:
    """The marker of a version, None if it has none; or what is wrong with it."""

    marker: Marker | None = None
    error: ProtocolError | None = None

    @property
    def files(self) -> dict[str, MarkedFile]:
        """The files that the marker names, by their paths."""
        return {file.path: file for file in self.marker.files} if self.marker else {}


@value_class
class Mirror:
    """A mirror, open: where it is, and how it is asked; at most ``connections`` are used at once."""

    place: MirrorPlace
    bucket: Bucket
    connections: int
    reporter: Reporter

    def marker(self, name: str, version: str) -> Marker | None:
        """The marker of a version; None if it has none. Raises `ProtocolError`, and `NotFound` if there is no such
        bucket."""
        key = self.place.key(name, version, MARKER)
        try:
            data = self.bucket.read(key, LARGEST_DOCUMENT)
        except NotFound as error:
            if error.server_code != "NoSuchBucket":
                return None
            raise NotFound(error.message, item=str(self.bucket), hint=error.hint) from error
        found = Marker.from_json(data, f"{self.bucket}/{key}")
        if (found.name, found.version) != (name, version):
            raise ProtocolError("it is the marker of something else", item=f"{self.bucket}/{key}")
        return found

    def markers(self, versions: Sequence[LockedModel | Held]) -> list[MarkerFound]:
        """Ask for the markers of several versions at once. Raises as `marker`, but for a `ProtocolError`."""
        return self.at_once([partial(self._find_marker, version.name, version.version) for version in versions])

    def _find_marker(self, name: str, version: str) -> MarkerFound:
        try:
            return MarkerFound(self.marker(name, version))
        except ProtocolError as error:
            return MarkerFound(error=error)

    def at_once(self, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        """Return the results of the calls, several of which are made at once. Raises the first error."""
        results = []
        for result in watched(calls, self.connections, self.look):
            if isinstance(result, MdlError):
                raise result
            results.append(result)
        return results

    def look(self) -> None:
        """Tell what happened meanwhile. Raises `Cancelled`."""
        self.bucket.http.cancel.check()
        self.reporter.look()


# Push


def push(
    models: Sequence[Model], lock: Lock, context: Context, mirror: Mirror, *, read_back: bool = False
) -> MirrorReport:
    """Put the locked files of ``models`` into the mirror, and the marker of each model last.

    What is there already is kept after its size and sha256 were compared; with ``read_back`` every object is read and
    hashed. What fails for one file or model is in the report, and hinders no other. Raises `NotFound` if there is no
    such bucket, `AuthError` before anything is sent, `Cancelled`.
    """
    began = time.monotonic()
    mirror.markers([lock.models[model.name] for model in models])  # raises before anything is sent
    plans = [_plan(model, lock.models[model.name], context, mirror) for model in models]
    files: list[Sending] = []
    for plan in plans:
        files += plan.files
    total = sum(file.size for file in files)
    counts = tuple((plan.model.name, len(plan.files)) for plan in plans)
    mirror.reporter.tell(Planned(models=counts, files=len(files), bytes_total=total, bytes_to_fetch=total, verb="push"))
    mirror.reporter.files = files
    try:
        most = workers(mirror.connections, mirror.bucket.http.throttle.rate)
        with contextlib.closing(Sender(mirror.bucket, most, mirror.reporter.post, reads_back=read_back)) as sender:
            in_thread(partial(sender.send, files), mirror.look)
        mirror.reporter.look(now=True)
    except Cancelled as stopped:
        hint = "the parts that were sent are kept; run the same command again to continue"
        raise stopped.but(hint=hint) from stopped.__cause__
    bytes_sent = sum(file.bytes_sent for file in files)
    bytes_kept = sum(file.bytes_kept for file in files)
    versions = tuple(_pushed(plan, mirror) for plan in plans)
    return MirrorReport(versions, bytes_sent, bytes_kept, seconds=time.monotonic() - began)


@value_class
class _Plan:
    """What is to be sent of one model; ``error`` says why nothing can be."""

    model: Model
    locked: LockedModel
    files: Sequence[Sending] = ()
    error: MdlError | None = None


def _plan(model: Model, locked: LockedModel, context: Context, mirror: Mirror) -> _Plan:
    try:
        known = context.resolver.known(model) or ()
        return _Plan(model, locked, [_sending(model.name, locked, remote, context.store, mirror) for remote in known])
    except MdlError as error:
        return _Plan(model, locked, error=error.on(model.name))


def _sending(name: str, locked: LockedModel, remote: RemoteFile, store: Store, mirror: Mirror) -> Sending:
    """One file as it is to be sent. Raises `LockError` if it has no digest, or only a bundle's, `UsageError` if it has
    the marker's name, `NotFound` if it is not here."""
    item = f"{name}/{remote.path}"
    path = remote.path.text
    if remote.digest is None:
        hint = f"'{store.command('get', name)}' downloads it, and the lock then has the digest of what came"
        raise LockError("the lock has no digest of it", item=item, hint=hint)
    if not remote.is_vouched_for:
        hint = f"online, 'mdl lock {name}' asks its source; if you trust the bundle, take 'bundled' out of the lock"
        raise LockError("only a bundle says which bytes are right", item=item, hint=hint)
    if remote.path.folded == MARKER:
        raise UsageError("a mirror has a file of its own with that name", item=item)
    local = store.quick_check(name, remote)
    if local.kind != "file" or local.stamp is None:
        raise NotFound(local.why or "not on this disk", item=item, hint=store.command("get", name))
    size = local.stamp.size if remote.size is None else remote.size
    key = mirror.place.key(name, locked.version, path)
    is_kept_by_repair = local.is_edited or local.receipt is None
    remedy = Remedy("replace" if is_kept_by_repair else "repair", (name,)).hint()
    return Sending(name, path, store.final_path(name, remote), size, remote.digest, key=key, remedy=remedy)


def _pushed(plan: _Plan, mirror: Mirror) -> MirrorVersion:
    """How the push of one model went; if every file is there, its marker is written now."""
    files = []
    has_failed = plan.error is not None
    for sent in plan.files:
        files.append(MirroredFile(sent.name, sent.size, sent.sha256 or None, sent.action, sent.error, sent.resumed_at))
        has_failed = has_failed or sent.error is not None
    version = replace(version_of(plan.locked, tuple(files), mirror.place), license=plan.model.license)
    if has_failed:
        return replace(version, error=plan.error)
    try:
        return version.with_marker(_mark(plan, files, mirror))
    except MdlError as error:
        return replace(version, error=error.on(version.name))


def _mark(plan: _Plan, files: Sequence[MirroredFile], mirror: Mirror) -> Marker:
    """Write the marker of a version of which every file is there, unless it has a right one. Raises `ProtocolError` if
    a newer mdl wrote it."""
    marked = [MarkedFile(file.path, file.size, file.sha256 or "") for file in files]
    marker = Marker.of(plan.model, plan.locked, marked, utc_now("seconds"), __version__)
    key = mirror.place.key(marker.name, marker.version, MARKER)

    def write() -> Marker | None:
        if mirror.bucket.create(key, marker.to_json()):
            return marker
        try:
            there = mirror.marker(marker.name, marker.version)
        except ProtocolError as error:
            if error.final:
                raise
            return None
        if there is None:  # S3 refuses the second of two that write at once, even if the first one fails then
            raise NetworkError("another process is writing the marker", item=f"{mirror.bucket}/{key}")
        return there if there.files == marker.files else None

    written = mirror.bucket.http.retry(mirror.bucket.url, write, mirror.reporter.on_retry)
    if written:
        return written
    mirror.bucket.put(key, marker.to_json())  # the version says which files it has: a marker of others is wrong
    return marker


# List


def version_of(
    locked: LockedModel, files: tuple[MirroredFile, ...], place: MirrorPlace, error: MdlError | None = None
) -> MirrorVersion:
    """What is known of a locked version by its ``files``; ``error`` is what is wrong with it as a whole."""
    return MirrorVersion(
        locked.name,
        locked.version,
        place.url(locked.name, locked.version),
        is_locked=True,
        objects=len(files),
        bytes=sum(file.size for file in files),
        files=files,
        error=error,
    )


def versions(mirror: Mirror, lock: Lock, names: Sequence[str] | None = None) -> list[MirrorVersion]:
    """Every version of a model that has an object in the mirror, by name; only of ``names`` if they are given."""
    held_versions = held_by(mirror, names=names)
    found = []
    for held, looked in zip(held_versions, mirror.markers(held_versions), strict=True):
        locked = lock.models.get(held.name)
        version = MirrorVersion(
            held.name,
            held.version,
            mirror.place.url(held.name, held.version),
            is_locked=locked is not None and locked.version == held.version,
            objects=len(held.keys),
            bytes=held.bytes,
            error=looked.error,
        )
        if looked.marker:
            version = version.with_marker(looked.marker)
        found.append(version)
    return sorted(found, key=lambda version: (version.name, not version.is_locked, version.written_at))


@dataclass
class Held:
    """The objects of one version in a mirror; ``modified`` is when the newest was written, ``marked`` when its marker
    was."""

    name: str
    version: str
    keys: list[str] = field(default_factory=list)
    bytes: int = 0
    modified: datetime | None = None
    marked: datetime | None = None

    @property
    def is_complete(self) -> bool:
        return self.marked is not None


def held_by(mirror: Mirror, prefix: str = "", names: Sequence[str] | None = None) -> list[Held]:
    """The objects of every version, in one look at all of the mirror, or below a longer ``prefix``; only of the models
    ``names`` if they are given. Raises as `versions`."""
    held_versions: dict[tuple[str, str], Held] = {}
    for stored in mirror.bucket.list(prefix or mirror.place.prefix):
        mirror.look()
        parts = mirror.place.split(stored.key)
        if parts is None:
            continue
        name, version, path = parts
        if names is not None and name not in names:
            continue
        held = held_versions.setdefault((name, version), Held(name, version))
        held.keys.append(stored.key)
        held.bytes += stored.size
        if held.modified is None or (stored.modified and stored.modified > held.modified):
            held.modified = stored.modified
        if path == MARKER:
            held.marked = stored.modified
    return list(held_versions.values())


# Pull


def pull(models: Sequence[Model], lock: Lock, context: Context, mirror: Mirror, *, force: bool = False) -> Report:
    """Fetch locked models from the mirror alone, as `get` does; ``context`` has a resolver that asks it. A model that
    is not complete in the mirror is a `NotFound` in the report. Raises as `get`, and `LockError`."""
    locked_models = [lock.models[model.name] for model in models]
    complete = []
    lost = []
    for model, locked, looked in zip(models, locked_models, mirror.markers(locked_models), strict=True):
        if looked.marker:
            complete.append(model)
            continue
        why = f"the mirror has no complete version {locked.version} of it"
        error = looked.error or NotFound(why, item=model.name, hint=PUSH)
        lost.append(ModelReport(model.name, context.store.folder(model.name), "missing", error=error))
    report = get(context, GetRequest(tuple(complete), force))
    return replace(report, models=(*report.models, *lost))
