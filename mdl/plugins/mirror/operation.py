"""mirror: what the lock holds, put into an object store, looked at there, and fetched from it."""

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
from mdl.catalog.mirror_layout import MARKER, MarkedFile, Marker, MirrorPlace
from mdl.catalog.model import Model
from mdl.context import Context
from mdl.disk.pool import in_thread
from mdl.downloader.store import Store
from mdl.errors import Cancelled, DigestMismatch, LockError, MdlError, NetworkError, NotFound, ProtocolError, UsageError
from mdl.events import Planned
from mdl.files import RemoteFile
from mdl.formatting import utc_now
from mdl.ops.get import GetRequest, get
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
        corrupt = [failure for failure in failed if isinstance(failure.error, ProtocolError)]
        total = sum(len(model.files) or 1 for model in self.models)
        is_check = all(isinstance(failure.error, ProtocolError | NotFound) for failure in failed)
        return error_of(corrupt if corrupt and is_check else failed, total)


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
    files = [one for plan in plans for one in plan.files]
    total = sum(one.size for one in files)
    counts = tuple((plan.model.name, len(plan.files)) for plan in plans)
    mirror.reporter.tell(Planned(models=counts, files=len(files), bytes_total=total, bytes_to_fetch=total, verb="push"))
    mirror.reporter.files = files
    most = workers(mirror.connections, mirror.bucket.http.throttle.rate)
    try:
        with contextlib.closing(Sender(mirror.bucket, most, mirror.reporter.post, reads_back=read_back)) as sender:
            in_thread(partial(sender.send, files), mirror.look)
        mirror.reporter.look(now=True)
    except Cancelled as stopped:
        hint = "the parts that were sent are kept; run the same command again to go on"
        raise stopped.but(hint=hint) from stopped.__cause__
    found = tuple(_pushed(plan, mirror) for plan in plans)
    kept = sum(one.size if one.action == "kept" else one.resumed_at for one in files)
    return MirrorReport(found, sum(one.bytes_sent for one in files), kept, seconds=time.monotonic() - began)


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
        hint = f"'mdl get {name}' brings it, and the lock then has the digest of what came"
        raise LockError("the lock has no digest of it", item=item, hint=hint)
    if not remote.is_vouched_for:
        hint = f"online, 'mdl lock {name}' asks its source; if you trust the bundle, take 'bundled' out of the lock"
        raise LockError("only a bundle says which bytes are right", item=item, hint=hint)
    if remote.path.folded == MARKER:
        raise UsageError("a mirror has a file of its own with that name", item=item)
    local = store.quick_check(name, remote)
    if local.kind != "file" or local.stamp is None:
        raise NotFound(local.why or "not on this disk", item=item, hint=f"mdl get {name}")
    size = remote.size
    key = mirror.place.key(name, locked.version, path)
    size = local.stamp.size if size is None else size
    return Sending(name, path, store.final_path(name, remote), size, remote.digest, key=key)


def _pushed(plan: _Plan, mirror: Mirror) -> MirrorVersion:
    """How the push of one model went; if every file is there, its marker is written now."""
    files = tuple(
        MirroredFile(one.name, one.size, one.sha256 or None, one.action, one.error, one.resumed_at)
        for one in plan.files
    )
    found = replace(_version(plan.locked, files, mirror.place), license=plan.model.license)
    if plan.error or any(file.error for file in files):
        return replace(found, error=plan.error)
    try:
        return _marked(found, _mark(plan, files, mirror))
    except MdlError as error:
        return replace(found, error=error.on(found.name))


def _version(locked: LockedModel, files: tuple[MirroredFile, ...], place: MirrorPlace) -> MirrorVersion:
    """What is known of a locked version by its ``files``."""
    url = place.url(locked.name, locked.version)
    size = sum(file.size for file in files)
    found = MirrorVersion(locked.name, locked.version, url, is_locked=True, objects=len(files), bytes=size)
    return replace(found, files=files)


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

    if found := mirror.bucket.http.retry(mirror.bucket.url, write, mirror.reporter.on_retry):
        return found
    mirror.bucket.put(key, marker.to_json())  # the version says which files it has: a marker of others is wrong
    return marker


# Check and list.


def check(models: Sequence[Model], lock: Lock, mirror: Mirror, *, deep: bool = False) -> MirrorReport:
    """Compare what the mirror has of the locked ``models`` with the lock and with its marker: the size and the sha256
    in the metadata of every object, and with ``deep`` its bytes. What is wrong is in the report. Raises `LockError`,
    `AuthError`, `NetworkError`, `NotFound` if there is no such bucket."""
    began = time.monotonic()
    locked = [lock.models[model.name] for model in models]
    markers = _markers(locked, mirror)
    rows = [_readings(one, marker, mirror, deep=deep) for one, marker in zip(locked, markers, strict=True)]
    readings = [reading for row in rows for reading in row]
    mirror.reporter.files = readings
    heads = iter(_at_once([reading.step for reading in readings], mirror))
    found = [
        _checked(one, marker, tuple(_judged(reading, next(heads)) for reading in row), mirror.place)
        for one, marker, row in zip(locked, markers, rows, strict=True)
    ]
    read = sum(reading.done for reading in readings)
    return MirrorReport(tuple(found), bytes_read=read, seconds=time.monotonic() - began)


def _readings(locked: LockedModel, marker: Marker | MdlError | None, mirror: Mirror, *, deep: bool) -> list[Reading]:
    """The files of a model as they are to be looked at. What the lock does not know of one, the marker says."""
    marked = {file.path: file for file in marker.files} if isinstance(marker, Marker) else {}
    found = []
    for file in locked.files:
        path = file.path.text
        told = marked.get(file.path.text)
        digest = file.digest
        sha256 = told.sha256 if told else ""
        if digest and digest.algorithm == "sha256":
            sha256 = digest.hex
        size = told.size if file.size is None and told else file.size
        key = mirror.place.key(locked.name, locked.version, path)
        found.append(Reading(locked.name, path, key, size, sha256, mirror.bucket, deep=deep))
    return found


def _at_once(calls: Sequence[Callable[[], Found]], mirror: Mirror) -> list[Found | MdlError]:
    """The results of the calls, of which several are made at once. An error that is not about one object is raised; a
    `ProtocolError` is a result."""
    found = list(watched(calls, mirror.connections, mirror.look))
    for one in found:
        if isinstance(one, MdlError) and not isinstance(one, ProtocolError):
            raise one
    return found


def _markers(versions: Sequence[LockedModel | Held], mirror: Mirror) -> list[Marker | MdlError | None]:
    """The marker of each version, or what is wrong with it. Raises as `_at_once`."""
    return _at_once([partial(mirror.marker, one.name, one.version) for one in versions], mirror)


def _judged(reading: Reading, head: S3Object | MdlError | None) -> MirroredFile:
    """What is wrong with one object, by what the bucket told of it and what was read."""
    item = f"{reading.model}/{reading.name}"
    expected = reading.sha256
    result = MirroredFile(reading.name, reading.size, expected or None, "ok")
    hint = f"push it again: mdl mirror push … {reading.model} --verify"
    if isinstance(head, MdlError):
        return replace(result, status="corrupt", error=head.on(item))
    if head is None:
        return replace(result, status="missing", error=NotFound("it is not in the mirror", item=item, hint=_PUSH))
    if reading.expected_size not in (None, head.size):
        why = f"the mirror's object has {head.size} bytes, not {reading.expected_size}"
        return replace(result, status="corrupt", error=DigestMismatch(why, item=item, hint=hint))
    result = replace(result, size=head.size)
    actual = reading.actual or (head.sha256.hex if head.sha256 else "")
    if expected and actual not in ("", expected):
        what = "its bytes have" if reading.actual else "its metadata tells"
        why = f"{what} the sha256 {actual}, expected {expected}"
        return replace(result, status="corrupt", error=DigestMismatch(why, item=item, hint=hint))
    return result if expected and actual else replace(result, status="unverified")


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
    marked = {file.path: file for file in marker.files}
    return marked.keys() == {file.path.text for file in locked.files} and all(
        file.size in (None, marked[file.path.text].size)
        and (
            file.digest is None or file.digest.algorithm != "sha256" or file.digest.hex == marked[file.path.text].sha256
        )
        for file in locked.files
    )


def versions(mirror: Mirror, lock: Lock, names: Sequence[str] | None = None) -> list[MirrorVersion]:
    """Every version of a model that has an object in the mirror, by name; only of ``names`` if they are given."""
    held = [one for one in held_by(mirror) if names is None or one.name in names]
    markers = _markers(held, mirror)
    found = []
    for one, marker in zip(held, markers, strict=True):
        locked = lock.models.get(one.name)
        url = mirror.place.url(one.name, one.version)
        is_locked = locked is not None and locked.version == one.version
        version = MirrorVersion(one.name, one.version, url, is_locked=is_locked, objects=len(one.keys), bytes=one.bytes)
        found.append(_marked(version, marker))
    return sorted(found, key=lambda one: (one.name, not one.is_locked, one.written_at))


def _marked(version: MirrorVersion, marker: Marker | MdlError | None) -> MirrorVersion:
    """The version with what its marker says."""
    if not isinstance(marker, Marker):
        return replace(version, error=marker)
    files = version.files or tuple(MirroredFile(one.path, one.size, one.sha256, "unverified") for one in marker.files)
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
    """The objects of every version, in one look at the whole mirror, or below a longer ``prefix``. Raises as
    `versions`."""
    found: dict[tuple[str, str], Held] = {}
    for one in mirror.bucket.list(mirror.place.prefix if prefix is None else prefix):
        mirror.look()
        if (parts := mirror.place.split(one.key)) is None:
            continue
        name, version, path = parts
        held = found.setdefault((name, version), Held(name, version))
        held.keys.append(one.key)
        held.bytes += one.size
        held.modified = max((time for time in (held.modified, one.modified) if time), default=None)
        held.marked = one.modified if path == MARKER else held.marked
    return list(found.values())


# Pull.


def pull(models: Sequence[Model], lock: Lock, context: Context, mirror: Mirror, *, force: bool = False) -> Report:
    """Fetch locked models from the mirror alone, as `get` does; ``context`` has a resolver that asks it. A model that
    is not complete in the mirror is a `NotFound` in the report. Raises as `get`, and `LockError`."""
    locked = [lock.models[model.name] for model in models]
    markers = _markers(locked, mirror)
    failed: dict[str, MdlError] = {}
    for one, marker in zip(locked, markers, strict=True):
        if not isinstance(marker, Marker):
            why = NotFound(f"the mirror has no complete version {one.version} of it", item=one.name, hint=_PUSH)
            failed[one.name] = marker or why
    report = get(context, GetRequest(tuple(model for model in models if model.name not in failed), force))
    lost = [ModelReport(name, context.store.folder(name), "missing", error=error) for name, error in failed.items()]
    return replace(report, models=(*report.models, *lost))
