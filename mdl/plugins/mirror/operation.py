"""mirror: what the lock holds, put into an object store, looked at there, and fetched from it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import chain
from typing import TypeVar

from mdl import __version__
from mdl.bounds import LARGEST_DOCUMENT
from mdl.catalog.lock import Lock, LockedModel
from mdl.catalog.mirror_layout import MirrorPlace
from mdl.catalog.model import Model
from mdl.context import Context
from mdl.disk.pool import in_thread
from mdl.downloader.store import Store
from mdl.errors import Cancelled, DigestMismatch, LockError, MdlError, NetworkError, NotFound, ProtocolError, UsageError
from mdl.events import Planned
from mdl.files import RemoteFile
from mdl.formatting import utc_now
from mdl.ops.get import GetRequest, get
from mdl.plugins.mirror.marker import MARKER, MarkedFile, Marker
from mdl.plugins.mirror.upload import Reading, Reporter, Sender, Sending, watched, workers
from mdl.reports import ModelReport, ModelsReport, Report, error_of
from mdl.sources.object_store import Bucket, S3Object
from mdl.values import value_class

Found = TypeVar("Found")
_PUSH = "'mdl mirror push' puts it there"
_PUSH_AGAIN = "push it again: 'mdl mirror push' compares every file and writes another one"


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
        """The one error that stands for all failures; None if all is well. What is corrupt counts more than what is
        missing, as in a `VerifyReport`."""
        failed = self.failed
        total = sum(len(model.files) or 1 for model in self.models)
        is_check = all(isinstance(failure.error, ProtocolError | NotFound) for failure in failed)
        corrupt = [failure for failure in failed if isinstance(failure.error, ProtocolError)]
        if corrupt and is_check:
            failed = corrupt
        return error_of(failed, total)


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

    def look(self) -> None:
        """Tell what happened meanwhile. Raises `Cancelled`."""
        self.bucket.http.cancel.check()
        self.reporter.look()


# Push.


def push(
    models: Sequence[Model], lock: Lock, context: Context, mirror: Mirror, *, read_back: bool = False
) -> MirrorReport:
    """Put the locked files of ``models`` into the mirror, and the marker of each model last.

    What is there already is kept after its size and sha256 were compared; with ``read_back`` every object is read and
    hashed. What fails for one file or model is in the report, and hinders no other. Raises `NotFound` if there is no
    such bucket, `AuthError` before anything is sent, `Cancelled`.
    """
    began = time.monotonic()
    _markers([lock.models[model.name] for model in models], mirror)  # raises before anything is sent
    plans = [_plan(model, lock.models[model.name], context, mirror) for model in models]
    files: list[Sending] = []
    for plan in plans:
        files += plan.files
    _announce(plans, files, mirror)
    try:
        most = workers(mirror.connections, mirror.bucket.http.throttle.rate)
        with contextlib.closing(Sender(mirror.bucket, most, mirror.reporter.post, reads_back=read_back)) as sender:
            in_thread(partial(sender.send, files), mirror.look)
        mirror.reporter.look(now=True)
    except Cancelled as stopped:
        hint = "the parts that were sent are kept; run the same command again to go on"
        raise stopped.but(hint=hint) from stopped.__cause__
    bytes_sent = 0
    bytes_kept = 0
    for file in files:
        bytes_sent += file.bytes_sent
        bytes_kept += file.size if file.action == "kept" else file.resumed_at
    versions = tuple(_pushed(plan, mirror) for plan in plans)
    return MirrorReport(versions, bytes_sent, bytes_kept, seconds=time.monotonic() - began)


def _announce(plans: Sequence[_Plan], files: Sequence[Sending], mirror: Mirror) -> None:
    total = sum(file.size for file in files)
    counts = tuple((plan.model.name, len(plan.files)) for plan in plans)
    mirror.reporter.tell(Planned(models=counts, files=len(files), bytes_total=total, bytes_to_fetch=total, verb="push"))
    mirror.reporter.files = files


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
        hint = f"'mdl get {name}' downloads it, and the lock then has the digest of what came"
        raise LockError("the lock has no digest of it", item=item, hint=hint)
    if not remote.is_vouched_for:
        hint = f"online, 'mdl lock {name}' asks its source; if you trust the bundle, take 'bundled' out of the lock"
        raise LockError("only a bundle says which bytes are right", item=item, hint=hint)
    if remote.path.folded == MARKER:
        raise UsageError("a mirror has a file of its own with that name", item=item)
    local = store.quick_check(name, remote)
    if local.kind != "file" or local.stamp is None:
        raise NotFound(local.why or "not on this disk", item=item, hint=f"mdl get {name}")
    size = local.stamp.size if remote.size is None else remote.size
    key = mirror.place.key(name, locked.version, path)
    return Sending(name, path, store.final_path(name, remote), size, remote.digest, key=key)


def _pushed(plan: _Plan, mirror: Mirror) -> MirrorVersion:
    """How the push of one model went; if every file is there, its marker is written now."""
    files = []
    for sent in plan.files:
        files.append(MirroredFile(sent.name, sent.size, sent.sha256 or None, sent.action, sent.error, sent.resumed_at))
    version = replace(_version(plan.locked, tuple(files), mirror.place), license=plan.model.license)
    if plan.error or any(file.error for file in files):
        return replace(version, error=plan.error)
    try:
        return _marked(version, _mark(plan, files, mirror))
    except MdlError as error:
        return replace(version, error=error.on(version.name))


def _version(locked: LockedModel, files: tuple[MirroredFile, ...], place: MirrorPlace) -> MirrorVersion:
    """What is known of a locked version by its ``files``."""
    return MirrorVersion(
        locked.name,
        locked.version,
        place.url(locked.name, locked.version),
        is_locked=True,
        objects=len(files),
        bytes=sum(file.size for file in files),
        files=files,
    )


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
            raise NetworkError("somebody else is writing the marker", item=f"{mirror.bucket}/{key}")
        return there if there.files == marker.files else None

    written = mirror.bucket.http.retry(mirror.bucket.url, write, mirror.reporter.on_retry)
    if written:
        return written
    mirror.bucket.put(key, marker.to_json())  # the version says which files it has: a marker of others is wrong
    return marker


# Check and list.


def check(models: Sequence[Model], lock: Lock, mirror: Mirror, *, deep: bool = False) -> MirrorReport:
    """Compare what the mirror has of the locked ``models`` with the lock and with its marker: the size and the sha256
    in the metadata of every object, and with ``deep`` its bytes. What is wrong is in the report. Raises `LockError`,
    `AuthError`, `NetworkError`, `NotFound` if there is no such bucket."""
    began = time.monotonic()
    locked_models = [lock.models[model.name] for model in models]
    markers = _markers(locked_models, mirror)
    readings_of = [
        _readings(locked, marker, mirror, deep=deep) for locked, marker in zip(locked_models, markers, strict=True)
    ]
    readings = list(chain.from_iterable(readings_of))
    mirror.reporter.files = readings
    heads = iter(_at_once([reading.step for reading in readings], mirror))
    versions = []
    for locked, marker, of_model in zip(locked_models, markers, readings_of, strict=True):
        files = tuple(_judged(reading, next(heads)) for reading in of_model)
        versions.append(_checked(locked, marker, files, mirror.place))
    bytes_read = sum(reading.done for reading in readings)
    return MirrorReport(tuple(versions), bytes_read=bytes_read, seconds=time.monotonic() - began)


def _readings(locked: LockedModel, marker: Marker | MdlError | None, mirror: Mirror, *, deep: bool) -> list[Reading]:
    """The files of a model as they are to be looked at. What the lock does not know of a file, the marker says."""
    marked = _marked_files(marker)
    readings = []
    for file in locked.files:
        path = file.path.text
        size = file.size
        sha256 = ""
        if path in marked:
            sha256 = marked[path].sha256
            size = marked[path].size if size is None else size
        if file.digest and file.digest.algorithm == "sha256":
            sha256 = file.digest.hex
        key = mirror.place.key(locked.name, locked.version, path)
        readings.append(Reading(locked.name, path, key, size, sha256, mirror.bucket, deep=deep))
    return readings


def _marked_files(marker: Marker | MdlError | None) -> dict[str, MarkedFile]:
    """The files of a marker by their paths; none without a marker."""
    if not isinstance(marker, Marker):
        return {}
    return {file.path: file for file in marker.files}


def _at_once(calls: Sequence[Callable[[], Found]], mirror: Mirror) -> list[Found | MdlError]:
    """The results of the calls, of which several are made at once. An error that is not about one object is raised; a
    `ProtocolError` is a result."""
    results = list(watched(calls, mirror.connections, mirror.look))
    for result in results:
        if isinstance(result, MdlError) and not isinstance(result, ProtocolError):
            raise result
    return results


def _markers(versions: Sequence[LockedModel | Held], mirror: Mirror) -> list[Marker | MdlError | None]:
    """The marker of each version, or what is wrong with it. Raises as `_at_once`."""
    return _at_once([partial(mirror.marker, one.name, one.version) for one in versions], mirror)


def _judged(reading: Reading, head: S3Object | MdlError | None) -> MirroredFile:
    """What is wrong with one object, by what the bucket said of it and what was read."""
    item = f"{reading.model}/{reading.name}"
    expected = reading.sha256
    file = MirroredFile(reading.name, reading.size, expected or None, "ok")
    if isinstance(head, MdlError):
        return replace(file, status="corrupt", error=head.on(item))
    if head is None:
        return replace(file, status="missing", error=NotFound("it is not in the mirror", item=item, hint=_PUSH))
    hint = f"push it again: mdl mirror push … {reading.model} --verify"
    if reading.expected_size not in (None, head.size):
        why = f"the mirror's object has {head.size} bytes, not {reading.expected_size}"
        return replace(file, status="corrupt", error=DigestMismatch(why, item=item, hint=hint))
    file = replace(file, size=head.size)
    where = "its bytes have"
    actual = reading.actual
    if not actual and head.sha256:
        where = "its metadata has"
        actual = head.sha256.hex
    if not expected or not actual:
        return replace(file, status="unverified")
    if actual != expected:
        why = f"{where} the sha256 {actual}, expected {expected}"
        return replace(file, status="corrupt", error=DigestMismatch(why, item=item, hint=hint))
    return file


def _checked(
    locked: LockedModel, marker: Marker | MdlError | None, files: tuple[MirroredFile, ...], place: MirrorPlace
) -> MirrorVersion:
    found = _version(locked, files, place)
    if isinstance(marker, Marker) and not _tells_of(marker, locked):
        why = "its marker tells of other files than the lock"
        return replace(_marked(found, marker), error=ProtocolError(why, item=locked.name, hint=_PUSH_AGAIN))
    if marker is not None:
        return _marked(found, marker)
    why = "it is not complete in the mirror: it has no marker"
    if all(file.status == "missing" for file in files):
        why = "the mirror does not have it"
        found = _version(locked, (), place)
    return replace(found, error=NotFound(why, item=locked.name, hint=_PUSH))


def _tells_of(marker: Marker, locked: LockedModel) -> bool:
    """Whether a marker names the files of the lock, and nothing else."""
    marked = _marked_files(marker)
    if marked.keys() != {file.path.text for file in locked.files}:
        return False
    for file in locked.files:
        in_mirror = marked[file.path.text]
        if file.size not in (None, in_mirror.size):
            return False
        if file.digest and file.digest.algorithm == "sha256" and file.digest.hex != in_mirror.sha256:
            return False
    return True


def versions(mirror: Mirror, lock: Lock, names: Sequence[str] | None = None) -> list[MirrorVersion]:
    """Every version of a model that has an object in the mirror, by name; only of ``names`` if they are given."""
    held_versions = [held for held in held_by(mirror) if names is None or held.name in names]
    markers = _markers(held_versions, mirror)
    found = []
    for held, marker in zip(held_versions, markers, strict=True):
        locked = lock.models.get(held.name)
        version = MirrorVersion(
            held.name,
            held.version,
            mirror.place.url(held.name, held.version),
            is_locked=locked is not None and locked.version == held.version,
            objects=len(held.keys),
            bytes=held.bytes,
        )
        found.append(_marked(version, marker))
    return sorted(found, key=lambda version: (version.name, not version.is_locked, version.written_at))


def _marked(version: MirrorVersion, marker: Marker | MdlError | None) -> MirrorVersion:
    """The version with what its marker says."""
    if not isinstance(marker, Marker):
        return replace(version, error=marker)
    files = version.files
    if not files:
        files = tuple(MirroredFile(file.path, file.size, file.sha256, "unverified") for file in marker.files)
    return replace(
        version,
        is_complete=True,
        commit=marker.commit,
        license=marker.license,
        written_at=marker.written_at,
        files=files,
    )


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


def held_by(mirror: Mirror, prefix: str | None = None) -> list[Held]:
    """The objects of every version, in one look at all of the mirror, or below a longer ``prefix``. Raises as
    `versions`."""
    held_versions: dict[tuple[str, str], Held] = {}
    for stored in mirror.bucket.list(mirror.place.prefix if prefix is None else prefix):
        mirror.look()
        parts = mirror.place.split(stored.key)
        if parts is None:
            continue
        name, version, path = parts
        held = held_versions.setdefault((name, version), Held(name, version))
        held.keys.append(stored.key)
        held.bytes += stored.size
        if held.modified is None or (stored.modified and stored.modified > held.modified):
            held.modified = stored.modified
        if path == MARKER:
            held.marked = stored.modified
    return list(held_versions.values())


# Pull.


def pull(models: Sequence[Model], lock: Lock, context: Context, mirror: Mirror, *, force: bool = False) -> Report:
    """Fetch locked models from the mirror alone, as `get` does; ``context`` has a resolver that asks it. A model that
    is not complete in the mirror is a `NotFound` in the report. Raises as `get`, and `LockError`."""
    locked_models = [lock.models[model.name] for model in models]
    failed: dict[str, MdlError] = {}
    for locked, marker in zip(locked_models, _markers(locked_models, mirror), strict=True):
        if isinstance(marker, MdlError):
            failed[locked.name] = marker
        elif marker is None:
            why = f"the mirror has no complete version {locked.version} of it"
            failed[locked.name] = NotFound(why, item=locked.name, hint=_PUSH)
    complete = tuple(model for model in models if model.name not in failed)
    report = get(context, GetRequest(complete, force))
    lost = []
    for name, error in failed.items():
        lost.append(ModelReport(name, context.store.folder(name), "missing", error=error))
    return replace(report, models=(*report.models, *lost))
