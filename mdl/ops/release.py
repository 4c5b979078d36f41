"""Unpack and release: check an archive, unpack it, put it into service, and go back to the one before."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from mdl.archive.base import AnyArchive, ArchiveLimits
from mdl.archive.manifest import Manifest
from mdl.archive.releases import ChangeWatch, History, ReleaseDir, make_readonly, new_switch
from mdl.archive.streaming import Progress
from mdl.archive.unpack import (
    check_bytes,
    check_free_space,
    check_target,
    extract,
    model_in_an_archive,
    open_archive,
    publish_folder,
    staged_folder,
)
from mdl.cancel import CancelToken
from mdl.config.places import place_of
from mdl.disk import process
from mdl.disk.mutex import file_lock
from mdl.errors import ProtocolError, UsageError, storage_trouble
from mdl.events import Listener, Noticed, silence
from mdl.paths import shown
from mdl.units import as_text, parse_duration
from mdl.values import value_class

StrPath = str | os.PathLike[str]
_STAGED = "new"
_NAMED = 5
_WHEN_FULL = "free some space; nothing was left behind"
_DEFAULT_LIMITS = ArchiveLimits()
_SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")


@value_class
class ArchiveMember:
    """One file of an archive: its path, its size in bytes as it is and ``packed`` (None if it is packed together with
    the others), and its SHA-256: as the manifest says, or as `verify_archive` read it; None if neither is known."""

    path: str
    size: int
    packed: int | None
    sha256: str | None


@value_class
class UnpackResult:
    """An archive that was unpacked.

    ``path`` is the folder; ``files`` and ``bytes`` count what was unpacked into it, without mdl's manifest.
    ``manifest`` lists the files with their digests, also for an archive that came without one. ``verified`` says what
    the bytes were compared with: ``sha256`` if the archive has mdl's manifest, else ``crc32`` of a zip or tar.gz and
    ``size`` of a plain tar.
    """

    path: Path
    files: int
    bytes: int
    manifest: Manifest = field(repr=False)
    verified: str = "crc32"


@value_class
class ReleaseResult:
    """What is served now.

    ``version`` is its name and ``path`` its folder. ``changed`` is False if it was served already. ``previous`` is the
    version that a rollback returns to, None if there is none. ``manifest`` lists its files (None if it cannot be read),
    ``linked`` of which are hard links to files of the release before. ``removed`` are the old versions that were
    removed.
    """

    version: str
    path: Path
    changed: bool
    previous: str | None
    manifest: Manifest | None = field(default=None, repr=False)
    linked: int = 0
    removed: tuple[str, ...] = ()


def contents(
    archive: StrPath,
    *,
    limits: ArchiveLimits | None = None,
    cancel: CancelToken | None = None,
    on_event: Listener = silence,
) -> list[ArchiveMember]:
    """The files of an archive, by their paths. What the archive says of itself is checked as for `unpack`; the bytes of
    its files are not looked at, and nothing is written. ``cancel`` stops the work from another thread. ``on_event`` is
    told of a file that programs load as it is, such as a torch file.

    Raises `ProtocolError` if it is damaged, `Unsafe` if it holds what must not be unpacked or exceeds ``limits``.
    """
    with open_archive(place_of(archive, "archive"), limits or ArchiveLimits(), _stop_by(cancel)) as opened:
        _tell_of_model(opened, on_event)
        return _members(opened, opened.digests)


def verify_archive(
    archive: StrPath,
    *,
    limits: ArchiveLimits = _DEFAULT_LIMITS,
    cancel: CancelToken | None = None,
    on_event: Listener = silence,
) -> list[ArchiveMember]:
    """Read and check all of an archive as `unpack` does, and write nothing: every byte is unpacked and compared with
    its CRC-32, if the archive has one, and with the manifest if there is one.

    ``archive``, ``limits``, ``cancel`` and ``on_event`` are as for `unpack`.
    Returns the files, by their paths, each with the SHA-256 of what was read.
    Raises what `unpack` raises, but for what concerns the folder to unpack into.
    """
    place = place_of(archive, "archive")
    with open_archive(place, limits, _stop_by(cancel)) as opened:
        _tell_of_model(opened, on_event)
        progress = Progress(on_event, place.name, "check", len(opened.members), opened.size, cancel)
        digests = check_bytes(opened, progress)
        progress.finish(opened.size, "checked", opened.compared_with)
        return _members(opened, digests)


def _members(archive: AnyArchive, digests: Mapping[str, str]) -> list[ArchiveMember]:
    files = sorted((one for one in archive.members if not one.is_folder), key=lambda one: one.path.text)
    return [ArchiveMember(one.path.text, one.size, one.packed, digests.get(one.path.text)) for one in files]


def unpack(
    archive: StrPath,
    to: StrPath | None = None,
    *,
    limits: ArchiveLimits = _DEFAULT_LIMITS,
    cancel: CancelToken | None = None,
    on_event: Listener = silence,
) -> UnpackResult:
    """Unpack an archive into a new folder, all of it or nothing. It is checked in full before the first byte is
    written.

    ``archive`` is a zip, a tar or a tar.gz, mdl's own or any other; its content tells which, not its name. ``to`` is a
    folder that is absent or empty; None means a folder in the current one, called like the archive. ``limits`` says how
    much an archive may hold. ``cancel`` stops the work from another thread. ``on_event`` is called with every event.

    Returns the folder, and how many files and bytes are in it.
    Raises `NotFound` if there is no such archive, `ProtocolError` if it is damaged, `Unsafe` if it holds what must not
    be unpacked or exceeds the limits, `Occupied` if the folder is not empty, `NoSpace`, `StorageError`, `StateError`
    for a manifest of a newer mdl, `Cancelled`, `OSError`.
    """
    archive = place_of(archive, "archive")
    name = archive.name
    suffix = next((one for one in _SUFFIXES if name.endswith(one) and name != one), "")
    default = name.removesuffix(suffix) if suffix else f"{name}.unpacked"
    target = Path(os.path.abspath(default if to is None else place_of(to, "to")))
    with open_archive(archive, limits, _stop_by(cancel)) as opened:
        _tell_of_model(opened, on_event)
        check_target(target)
        check_free_space(opened, target.parent)
        with storage_trouble(target, _WHEN_FULL), staged_folder(target) as staged:
            progress = Progress(on_event, name, "unpack", len(opened.members), opened.size, cancel)
            manifest, _ = extract(opened, staged, progress)
            publish_folder(staged, target)
        progress.finish(manifest.size, "unpacked", opened.compared_with)
        return UnpackResult(target, len(manifest.files), manifest.size, manifest, opened.compared_with)


def release(
    archive: StrPath,
    folder: StrPath,
    *,
    keep: int = 3,
    check: str | Sequence[str] | None = None,
    limits: ArchiveLimits = _DEFAULT_LIMITS,
    lock_wait: float | str = 600.0,
    cancel: CancelToken | None = None,
    on_event: Listener = silence,
) -> ReleaseResult:
    """Put an archive into service: unpack it beside the other releases of ``folder``, check it, switch ``current``.

    ``keep`` complete releases stay, with the new one; the previous one always does. ``check`` is a command of the
    user's, a line or its words, that must end with 0 before the switch; it runs in the new folder, which is also
    ``MDL_RELEASE_PATH``, is started without a shell, writes to stderr and may change nothing in the release. A relative
    program is one of the release. ``limits`` says how much an
    archive may hold. ``lock_wait`` is how long to wait, in seconds or as "10m", for another mdl that works on the same
    folder. ``cancel`` stops the work, and the check, from another thread. ``on_event`` is called with every event.

    Returns the version that is served, its folder, and what changed.
    Raises what `unpack` raises, `ProtocolError` also if the check fails or changes the release, `Occupied` if
    ``current`` is not a release, `Busy` if the other mdl takes too long, `StateError` if the history cannot be read,
    `StorageError` if the folder cannot be written, `UsageError` if the check cannot be run.
    """
    if keep < 1:
        raise UsageError(f"{keep} is not a number of releases to keep", item="keep", hint="keep at least 1")
    wait = parse_duration(as_text(lock_wait), "lock_wait", least=0)
    releases = ReleaseDir(Path(os.path.abspath(place_of(folder, "folder"))))
    releases.check_place()
    words = process.split_command(check, "--check") if isinstance(check, str) else list(check or ())
    if check is not None and not words:
        raise UsageError("it is empty", item="check")
    is_of_release = bool(words) and "/" in words[0] and not words[0].startswith("/")
    if words and not is_of_release and not shutil.which(words[0]):
        raise _no_program(words[0], "can be executed", "name a program that is there and that you may execute")
    opening = open_archive(place_of(archive, "archive"), limits, _stop_by(cancel))
    with opening as opened, storage_trouble(releases.folder, _WHEN_FULL):
        _tell_of_model(opened, on_event)
        if is_of_release and os.path.normpath(words[0]) not in _programs(opened):
            hint = "the check runs in the new folder: name a program of your own by its absolute path"
            raise _no_program(words[0], "in the archive can be executed", hint)
        known = opened.manifest.version if opened.manifest else ""
        if not releases.has(known):
            check_free_space(opened, releases.folder)
        releases.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(releases.folder / ".mdl", "releases", wait, _waiting(on_event), cancel):
            releases.prepare()
            return _Release(releases, releases.history(), keep, words, cancel, on_event).run(opened, known)


def _no_program(name: str, where: str, hint: str) -> UsageError:
    what = f"the check cannot be run: no such program {where}"
    return UsageError(what, item=name, hint=f"nothing was unpacked; {hint}")


def _programs(archive: AnyArchive) -> set[str]:
    """The paths of the files in an archive that may be executed."""
    return {member.path.text for member in archive.members if member.executable and not member.is_folder}


def rollback(
    folder: StrPath,
    *,
    to: str = "",
    lock_wait: float | str = 600.0,
    cancel: CancelToken | None = None,
    on_event: Listener = silence,
) -> ReleaseResult:
    """Serve the release that was served before, or any other that is here; one switch, no network.

    ``folder`` is the folder of the releases. ``to`` is a version, or a part of its name that no other has; without it
    the release served before is meant. ``lock_wait`` is how long to wait, in seconds or as "10m", for another mdl
    that works on it; ``cancel`` ends that wait from another thread. ``on_event`` is called with every event.

    Returns the version that is served now, its folder, and the one that the next rollback would return to.
    Raises `NotFound` if there is no such release, `ProtocolError` if a file of it is missing, `UsageError` if several
    match, `Busy`, `Occupied`, `StorageError`, `StateError` if the history cannot be read, `Cancelled`.
    """
    wait = parse_duration(as_text(lock_wait), "lock_wait", least=0)
    releases = ReleaseDir(Path(os.path.abspath(place_of(folder, "folder"))))
    if not releases.releases.is_dir():
        releases.check_used(History())
    lock = file_lock(releases.folder / ".mdl", "releases", wait, _waiting(on_event), cancel)
    with storage_trouble(releases.folder, _WHEN_FULL), lock:
        releases.prepare()
        history = releases.history()
        version = releases.chosen(history, to) if to else releases.rollback_target(history)
        if version == history.active:
            return _result(releases, history, changed=False)
        releases.quick_check(version)
        after = history.rolled_back(new_switch(history.active, version, "rollback"))
        if version in history.served:
            releases.record(after)
            releases.switch_to(after.active)
            releases.record(replace(after, unless_switched=()))
        else:  # forward again: if mdl is killed in between, the link tells what is served
            releases.serve_release(replace(after, unless_switched=()))
        return _result(releases, after, changed=True)


@value_class
class _Release:
    """One archive on its way into service, while the folder of the releases is locked."""

    releases: ReleaseDir
    history: History
    keep: int
    check: list[str]
    cancel: CancelToken | None
    on_event: Listener

    def run(self, archive: AnyArchive, known: str) -> ReleaseResult:
        """``known`` is the version that the archive's manifest claims, or ''."""
        if not self.releases.has(known):
            return self._release_new(archive)
        progress = self._progress(archive, "check")
        check_bytes(archive, progress)  # a manifest alone proves nothing
        progress.finish(archive.size, "kept", archive.compared_with)
        return self._serve(known)

    def _progress(self, archive: AnyArchive, verb: str) -> Progress:
        return Progress(self.on_event, archive.path.name, verb, len(archive.members), archive.size, self.cancel)

    def _release_new(self, archive: AnyArchive) -> ReleaseResult:
        releases = self.releases
        with staged_folder(releases.path_of(_STAGED)) as staged:
            progress = self._progress(archive, "unpack")
            copies = releases.copies_in(self.history.active, self._stop)
            manifest, linked = extract(archive, staged, progress, copies, to_serve=True)
            progress.finish(manifest.size, "unpacked", archive.compared_with)
            if releases.has(manifest.version):
                return self._serve(manifest.version)
            make_readonly(staged, manifest)
            self._check(staged, manifest.version, manifest)
            publish_folder(staged, releases.path_of(manifest.version))
        return self._switch(manifest.version, linked)

    def _serve(self, version: str) -> ReleaseResult:
        """Serve a release that is here already."""
        manifest = self.releases.full_check(version, self._stop)
        if self.history.active == version:
            history = self.history
            if history != self.releases.recorded():  # mdl was killed before it recorded that
                history = history.kept(self.keep, self.releases.here())
            self.releases.prune(history)
            return _result(self.releases, history, changed=False)
        self._check(self.releases.path_of(version), version, manifest)
        return self._switch(version)

    def _switch(self, version: str, linked: int = 0) -> ReleaseResult:
        after = self.history.released(version, new_switch(self.history.active, version, "release"))
        after = after.kept(self.keep, self.releases.here())
        self.releases.serve_release(after)
        if version in self.history.withdrawn:
            self.on_event(Noticed(message=f"{version} was rolled back from before, and is served again now"))
        removed = self.releases.prune(after)
        return _result(self.releases, after, changed=True, linked=linked, removed=removed)

    def _stop(self, _done: int) -> None:
        if self.cancel:
            self.cancel.check()

    def _check(self, path: Path, version: str, manifest: Manifest) -> None:
        """Run the user's own check. Raises `ProtocolError` unless it ends with 0 and changes nothing."""
        if not self.check:
            return
        watch = ChangeWatch(path, manifest)
        facts = {"MDL_RELEASE_PATH": str(path), "MDL_RELEASE_VERSION": version}
        code = process.run_program(self.check, facts, folder=path, cancel=self.cancel)
        if code:
            what = f"the check ended with {code}: {shlex.join(self.check)}"
            hint = "nothing was switched; the check runs in the new folder, so programs and files of your own need an"
            hint += " absolute path"
            raise ProtocolError(what, item=version, hint=hint)
        changed = watch.changed()
        if changed:
            what = f"the check changed the release: {', '.join(map(shown, changed[:_NAMED]))}"
            raise ProtocolError(what, item=version, hint="let it write elsewhere; nothing was switched")


def _result(
    releases: ReleaseDir, history: History, *, changed: bool, linked: int = 0, removed: tuple[str, ...] = ()
) -> ReleaseResult:
    version = history.active
    path = releases.path_of(version)
    manifest = releases.manifest(version)
    return ReleaseResult(version, path, changed, history.previous or None, manifest, linked, removed)


def _stop_by(cancel: CancelToken | None) -> Callable[[int], None]:
    """Raises `Cancelled` once the work is cancelled, whenever some bytes were read."""

    def check(_count: int) -> None:
        if cancel:
            cancel.check()

    return check


def _tell_of_model(archive: AnyArchive, on_event: Listener) -> None:
    """Say of a file that programs load as it is what it is."""
    if archive.manifest:
        return
    names = {member.path.text for member in archive.members if not member.is_folder}
    model = model_in_an_archive(archive.path.name, names)
    if model:
        what = f"{archive.path.name} is {model}: programs load it as it is; unpacking takes it apart"
        on_event(Noticed(archive.path.name, message=what))


def _waiting(on_event: Listener) -> Callable[[str], None]:
    return lambda holder: on_event(Noticed(message=f"waiting for {holder}"))
