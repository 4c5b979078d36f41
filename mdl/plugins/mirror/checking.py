"""mirror check: what a mirror has, compared with the lock and with its markers: sizes and metadata, or every byte."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from mdl.catalog.lock import Lock, LockedModel
from mdl.catalog.model import Model
from mdl.errors import DigestMismatch, MdlError, NotFound, ProtocolError
from mdl.plugins.mirror.operation import (
    PUSH,
    MarkerFound,
    Mirror,
    MirroredFile,
    MirrorReport,
    MirrorVersion,
    version_of,
)
from mdl.plugins.mirror.upload import MovingFile, hash_object
from mdl.sources.object_store import Bucket

_PUSH_AGAIN = "push it again: 'mdl mirror push' compares every file and writes another one"


def check(models: Sequence[Model], lock: Lock, mirror: Mirror, *, deep: bool = False) -> MirrorReport:
    """Compare what the mirror has of the locked ``models`` with the lock and with its marker: the size and the sha256
    in the metadata of every object, and with ``deep`` its bytes. What is wrong is in the report. Raises `LockError`,
    `AuthError`, `NetworkError`, `NotFound` if there is no such bucket."""
    began = time.monotonic()
    locked_models = [lock.models[model.name] for model in models]
    markers = mirror.markers(locked_models)
    readings: list[_Reading] = []
    for locked, looked in zip(locked_models, markers, strict=True):
        readings += _readings(locked, looked, mirror, deep=deep)
    mirror.reporter.files = readings
    judged = iter(mirror.at_once([reading.judge for reading in readings]))
    versions = []
    for locked, looked in zip(locked_models, markers, strict=True):
        files = tuple(next(judged) for _ in locked.files)
        versions.append(_version(locked, looked, files, mirror))
    bytes_read = sum(reading.done for reading in readings)
    return MirrorReport(tuple(versions), bytes_read=bytes_read, seconds=time.monotonic() - began)


def _readings(locked: LockedModel, looked: MarkerFound, mirror: Mirror, *, deep: bool) -> list[_Reading]:
    """The files of a model as they are to be looked at. What the lock does not know of a file, the marker says."""
    marked = looked.files
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
        readings.append(_Reading(locked.name, path, key, size, sha256, mirror.bucket, deep=deep))
    return readings


class _Reading(MovingFile):
    """One object of a mirror that is looked at, and if it is ``deep`` read. ``expected_size`` in bytes and ``sha256``
    are what is expected, if that is known."""

    def __init__(
        self, model: str, name: str, key: str, size: int | None, sha256: str, bucket: Bucket, *, deep: bool
    ) -> None:
        super().__init__(model, name, size or 0)
        self._key = key
        self._expected_size = size
        self._expected = sha256
        self._bucket = bucket
        self._deep = deep

    def judge(self) -> MirroredFile:
        """Ask the bucket, and tell what is wrong with the object. Raises as `Bucket`."""
        actual = ""
        where = "its bytes have"
        try:
            head = self._bucket.head(self._key)
            if self._expected_size not in (None, head.size):
                return self._corrupt(f"the mirror's object has {head.size} bytes, not {self._expected_size}")
            self.size = head.size
            if self._deep:
                self.is_running = True
                actual = hash_object(self._bucket, self._key, self._on_bytes)
                self.is_running = False
        except NotFound:
            return self._judged("missing", NotFound("it is not in the mirror", item=self.item, hint=PUSH))
        except ProtocolError as error:
            return self._judged("corrupt", error.on(self.item))
        if not actual and head.sha256:
            where = "its metadata has"
            actual = head.sha256.hex
        if not self._expected or not actual:
            return self._judged("unverified")
        if actual != self._expected:
            return self._corrupt(f"{where} the sha256 {actual}, expected {self._expected}")
        return self._judged("ok")

    def _on_bytes(self, done: int) -> None:
        self.done = done
        self.bytes_sent = done

    def _judged(self, status: str, error: MdlError | None = None) -> MirroredFile:
        return MirroredFile(self.name, self.size, self._expected or None, status, error)

    def _corrupt(self, why: str) -> MirroredFile:
        hint = f"push it again: mdl mirror push … {self.model} --verify"
        return self._judged("corrupt", DigestMismatch(why, item=self.item, hint=hint))


def _version(
    locked: LockedModel, looked: MarkerFound, files: tuple[MirroredFile, ...], mirror: Mirror
) -> MirrorVersion:
    """A version with what is wrong with it as a whole, if anything is."""
    version = version_of(locked, files, mirror.place, looked.error)
    if looked.error:
        return version
    if looked.marker:
        version = version.with_marker(looked.marker)
        if _tells_of(looked, locked):
            return version
        why = "its marker names other files than the lock"
        return replace(version, error=ProtocolError(why, item=locked.name, hint=_PUSH_AGAIN))
    why = "it is not complete in the mirror: it has no marker"
    if all(file.status == "missing" for file in files):
        why = "the mirror does not have it"
        files = ()
    return version_of(locked, files, mirror.place, NotFound(why, item=locked.name, hint=PUSH))


def _tells_of(looked: MarkerFound, locked: LockedModel) -> bool:
    """Whether a marker names the files of the lock, and nothing else."""
    marked = looked.files
    if marked.keys() != {file.path.text for file in locked.files}:
        return False
    for file in locked.files:
        in_mirror = marked[file.path.text]
        if file.size not in (None, in_mirror.size):
            return False
        if file.digest and file.digest.algorithm == "sha256" and file.digest.hex != in_mirror.sha256:
            return False
    return True
