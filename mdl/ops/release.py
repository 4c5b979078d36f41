"""Release: put an archive into service, go back to the release before, and list what a folder of releases holds."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import IO

from mdl.archive.base import AnyArchive, ArchiveLimits
from mdl.archive.manifest import Manifest
from mdl.archive.releases import ChangeWatch, History, ReleaseDir, Switch, make_readonly, new_switch
from mdl.archive.streaming import Progress
from mdl.archive.unpack import check_bytes, check_free_space, extract, open_archive, publish_folder, staged_folder
from mdl.bounds import LARGEST_NOTE
from mdl.cancel import CancelToken
from mdl.config.places import place_of
from mdl.disk import process
from mdl.disk.mutex import file_lock
from mdl.errors import ProtocolError, UsageError, storage_trouble
from mdl.events import Listener, Noticed, silence
from mdl.formatting import counted
from mdl.net.server_messages import safe_excerpt
from mdl.notebook import Tabular
from mdl.ops.unpack import StrPath, cancelled_by, notice_model
from mdl.paths import shown
from mdl.runs.completeness import why_parts_are_missing, without_other_formats
from mdl.runs.tree import Tree
from mdl.units import as_text, parse_duration
from mdl.values import value_class

_STAGED = "new"
_NAMED = 5
"""How many changed files a message names."""
_LINES_TOLD = 100
"""How many lines of what a check printed are told: each is also a line of the log."""
_WHEN_FULL = "free some space; nothing was left behind"
_DEFAULT_LIMITS = ArchiveLimits()
_LOCK_WAIT = 600.0
"""Seconds to wait for another mdl that works on the same folder."""


@value_class
class ReleaseRequest:
    """Which archive is put into service, and where.

    ``folder`` is that of the releases. ``keep`` complete releases stay, with the new one; the previous one always does.
    ``check`` is a command of the user's, a line or its words, that must end with 0 before the switch; it runs in the
    new folder, which is also ``MDL_RELEASE_PATH``, is started without a shell, and may change nothing in the release;
    once it has ended, each of the last hundred lines that it wrote is a `Noticed`. A relative program is one of the
    release. ``limits`` says how much an archive may hold.
    ``lock_wait`` is how long to wait, in seconds or as "10m", for another mdl that works on the same folder.
    """

    archive: StrPath
    folder: StrPath
    keep: int = 3
    check: str | Sequence[str] | None = None
    limits: ArchiveLimits = _DEFAULT_LIMITS
    lock_wait: float | str = _LOCK_WAIT

    def check_words(self) -> list[str]:
        """The words of the user's check; none if there is no check. Raises `UsageError` if it cannot be run."""
        if self.check is None:
            return []
        words = process.split_command(self.check, "--check") if isinstance(self.check, str) else list(self.check)
        if not words:
            raise UsageError("it is empty", item="check")
        if not _is_of_release(words) and not shutil.which(words[0]):
            raise _no_program(words[0], "can be executed", "name a program that exists and that you may execute")
        return words


@value_class
class ReleaseResult(Tabular):
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


def release(
    archive: ReleaseRequest | StrPath,
    folder: StrPath = "",
    *,
    keep: int = 3,
    check: str | Sequence[str] | None = None,
    limits: ArchiveLimits = _DEFAULT_LIMITS,
    lock_wait: float | str = _LOCK_WAIT,
    cancel: CancelToken | None = None,
    on_event: Listener = silence,
) -> ReleaseResult:
    """Put an archive into service: unpack it beside the other releases of ``folder``, check it, switch ``current``.

    ``archive`` is the path of an archive, or a `ReleaseRequest`, which has all of the following. ``folder`` is that of
    the releases. ``keep`` complete releases stay, with the new one; the previous one always does. ``check`` is a
    command, a line or its words, that is run in the new folder and must end with 0 before the switch. ``limits`` says
    how much the archive may hold. ``lock_wait`` is how long to wait, in seconds or as "10m", for another mdl that works
    on the same folder. ``cancel`` stops the work, and the check, from another thread. ``on_event`` is called with every
    event.

    Returns the version that is served, its folder, and what changed.
    Raises what `unpack` raises, `ProtocolError` also if the check fails or changes the release, `Occupied` if
    ``current`` is not a release, `Busy` if the other mdl takes too long, `StateError` if the history cannot be read,
    `StorageError` if the folder cannot be written, `UsageError` if the check cannot be run.
    """
    if isinstance(archive, ReleaseRequest):
        request = archive
    else:
        request = ReleaseRequest(archive, folder, keep, check, limits, lock_wait)
    if request.keep < 1:
        raise UsageError(f"{request.keep} is not a number of releases to keep", item="keep", hint="keep at least 1")
    wait = parse_duration(as_text(request.lock_wait), "lock_wait", least=0)
    releases = _releases_in(request.folder)
    releases.check_place()
    words = request.check_words()
    opening = open_archive(place_of(request.archive, "archive"), request.limits, cancelled_by(cancel))
    with opening as opened, storage_trouble(releases.folder, _WHEN_FULL):
        notice_model(opened, on_event)
        if _is_of_release(words) and os.path.normpath(words[0]) not in _programs(opened):
            hint = "the check runs in the new folder: name a program of your own by its absolute path"
            raise _no_program(words[0], "in the archive can be executed", hint)
        known = opened.manifest.version if opened.manifest else ""
        if not releases.has(known):
            check_free_space(opened, releases.folder)
        releases.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(releases.folder / ".mdl", "releases", wait, _waiting(on_event), cancel):
            releases.prepare()
            releasing = _Releasing(releases, releases.history(), request.keep, words, cancel, on_event)
            return releasing.run(opened, known)


def _releases_in(folder: StrPath) -> ReleaseDir:
    return ReleaseDir(Path(os.path.abspath(place_of(folder, "folder"))))


def _is_of_release(words: Sequence[str]) -> bool:
    """Tell whether the program of a check is a file of the release itself: it is a relative path."""
    return bool(words) and "/" in words[0] and not words[0].startswith("/")


def _no_program(name: str, where: str, hint: str) -> UsageError:
    message = f"the check cannot be run: no such program {where}"
    return UsageError(message, item=name, hint=f"nothing was unpacked; {hint}")


def _programs(archive: AnyArchive) -> set[str]:
    """The paths of the files in an archive that may be executed."""
    return {member.path.text for member in archive.members if member.executable and not member.is_folder}


def rollback(
    folder: StrPath,
    *,
    to: str = "",
    lock_wait: float | str = _LOCK_WAIT,
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
    releases = _releases_in(folder)
    if not releases.releases.is_dir():
        releases.check_used(History())
    with (
        storage_trouble(releases.folder, _WHEN_FULL),
        file_lock(releases.folder / ".mdl", "releases", wait, _waiting(on_event), cancel),
    ):
        releases.prepare()
        history = releases.history()
        version = releases.chosen(history, to) if to else releases.rollback_target(history)
        if version == releases.served():
            return _result(releases, history, changed=False)
        releases.quick_check(version)
        after = history.rolled_back(new_switch(releases.served(), version, "rollback"))
        if version in history.served:
            releases.record(after)
            releases.switch_to(after.active)
            releases.record(replace(after, unless_switched=()))
        else:  # forward again: if mdl is killed in between, the link tells what is served
            releases.serve_release(replace(after, unless_switched=()))
        return _result(releases, after, changed=True)


@value_class
class _Releasing:
    """One archive on its way into service, while the folder of the releases is locked. ``check`` are the words of the
    user's own check."""

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
        return Progress(self.on_event, archive.path.name, verb, archive.file_count, archive.size, self.cancel)

    def _release_new(self, archive: AnyArchive) -> ReleaseResult:
        releases = self.releases
        with staged_folder(releases.path_of(_STAGED)) as staged:
            progress = self._progress(archive, "unpack")
            copies = releases.copies_in(self.history.active, cancelled_by(self.cancel))
            manifest, linked = extract(archive, staged, progress, copies, to_serve=True)
            progress.finish(manifest.size, "unpacked", archive.compared_with)
            if releases.has(manifest.version):
                return self._serve(manifest.version)
            _check_complete(staged, manifest)
            make_readonly(staged, manifest)
            self._check(staged, manifest.version, manifest)
            publish_folder(staged, releases.path_of(manifest.version))
        return self._switch(manifest.version, linked)

    def _serve(self, version: str) -> ReleaseResult:
        """Serve a release that is here already."""
        manifest = self.releases.full_check(version, cancelled_by(self.cancel))
        if self.releases.served() == version:
            history = self.history
            if history != self.releases.recorded():  # mdl was killed before it recorded that
                history = history.kept(self.keep, self.releases.here())
            self.releases.prune(history)
            return _result(self.releases, history, changed=False)
        self._check(self.releases.path_of(version), version, manifest)
        return self._switch(version)

    def _switch(self, version: str, linked: int = 0) -> ReleaseResult:
        after = self.history.released(version, new_switch(self.releases.served(), version, "release"))
        after = after.kept(self.keep, self.releases.here())
        self.releases.serve_release(after)
        if version in self.history.withdrawn:
            self.on_event(Noticed(message=f"{version} was rolled back from before, and is served again now"))
        removed = self.releases.prune(after)
        return _result(self.releases, after, changed=True, linked=linked, removed=removed)

    def _check(self, path: Path, version: str, manifest: Manifest) -> None:
        """Run the user's own check. Raises `ProtocolError` unless it ends with 0 and changes nothing."""
        if not self.check:
            return
        watch = ChangeWatch(path, manifest)
        facts = {"MDL_RELEASE_PATH": str(path), "MDL_RELEASE_VERSION": version}
        # A file without a name, no pipe: a service that the check starts would die of its first line in a closed pipe.
        with tempfile.TemporaryFile(dir=self.releases.folder / ".mdl") as output:
            fcntl.fcntl(output, fcntl.F_SETFL, os.O_APPEND)  # a script that writes to /dev/stderr begins the file anew
            try:
                code = process.run_program(self.check, facts, folder=path, output=output, cancel=self.cancel)
            finally:
                lines = _last_lines(output)
                for line in lines:
                    self.on_event(Noticed(message=line))
        if code:
            message = f"the check ended with {code}: {shlex.join(self.check)}"
            message += "".join(f": {safe_excerpt(line)}" for line in lines[-1:])
            hint = "nothing was switched; the check runs in the new folder, so programs and files of your own need an"
            hint += " absolute path"
            raise ProtocolError(message, item=version, hint=hint)
        changed = watch.changed()
        if changed:
            message = f"the check changed the release: {', '.join(map(shown, changed[:_NAMED]))}"
            raise ProtocolError(message, item=version, hint="let it write elsewhere; nothing was switched")


def _check_complete(folder: Path, manifest: Manifest) -> None:
    """See that there is a file in a new release, and every part of its weights, unless it was packed incomplete. Raises
    `ProtocolError`."""
    if not manifest.files:
        raise ProtocolError("the archive holds no file", hint="nothing was switched; look at what made the archive")
    if manifest.incomplete:
        return
    tree = Tree.scan(folder)
    why = why_parts_are_missing(tree, without_other_formats(tree, tree.entries))
    if why:
        hint = "nothing was switched; 'mdl pack RUN --allow-incomplete' makes an archive of a folder as it is"
        raise ProtocolError(f"not complete: {why}", item=manifest.version, hint=hint)


def _last_lines(output: IO[bytes]) -> list[str]:
    """The last lines that a program printed to a file, without blank ones; the first says so if there are more. Of a
    line that was written anew, as a progress bar is, it is what a terminal shows at the end."""
    before = max(0, os.fstat(output.fileno()).st_size - LARGEST_NOTE)
    tail = os.pread(output.fileno(), LARGEST_NOTE, before)
    lines = [line.rstrip(b"\r").rpartition(b"\r")[2] for line in tail.split(b"\n")]
    texts = [line.decode(errors="replace") for line in lines if line.strip()]
    if before or len(texts) > _LINES_TOLD:
        texts = texts[-_LINES_TOLD:]
        texts.insert(0, f"the check printed more; its last {counted(len(texts), 'line')}:")
    return texts


def _result(
    releases: ReleaseDir, history: History, *, changed: bool, linked: int = 0, removed: tuple[str, ...] = ()
) -> ReleaseResult:
    version = history.active
    path = releases.path_of(version)
    manifest = releases.manifest(version)
    return ReleaseResult(version, path, changed, history.previous or None, manifest, linked, removed)


def _waiting(on_event: Listener) -> Callable[[str], None]:
    return lambda holder: on_event(Noticed(message=f"waiting for {holder}"))


# What a folder of releases holds


@value_class
class ReleaseVersion(Tabular):
    """One release of a folder.

    ``state`` is ``current`` (served now), ``previous`` (what a rollback returns to), ``withdrawn`` (rolled back from)
    or ``kept``. ``released_at`` is when it came and ``served_at`` when it was last switched to, ISO 8601 in UTC; None
    if the history does not say. ``files`` and ``bytes`` are as its manifest says, None without one. ``is_complete``:
    every file is there, and as long as it was.
    """

    version: str
    path: Path
    state: str
    released_at: str | None
    served_at: str | None
    files: int | None
    bytes: int | None
    is_complete: bool


@value_class
class ReleaseList(Tabular):
    """The releases of a folder in the order they came; ``current`` is served now, '' if none is. ``switches`` are the
    changes of what was served, the last thousand."""

    folder: Path
    current: str
    versions: tuple[ReleaseVersion, ...]
    switches: tuple[Switch, ...] = field(repr=False)


def releases(folder: StrPath) -> ReleaseList:
    """The releases of ``folder``, which of them is served, and what was served when. Nothing is written.

    Raises `NotFound` if nothing was released there, `StateError` if the history cannot be read, `OSError`.
    """
    place = _releases_in(folder)
    if not place.releases.is_dir():
        place.check_used(History())
    history = place.history()
    here = place.here()
    place.check_used(history)
    recorded = [version for version in history.releases if version in here]
    unrecorded = sorted(here.difference(recorded))
    versions = tuple(_version(place, history, version) for version in (*recorded, *unrecorded))
    return ReleaseList(place.folder, place.served(), versions, history.switches)


def _version(place: ReleaseDir, history: History, version: str) -> ReleaseVersion:
    state = "kept"
    if version in history.withdrawn:
        state = "withdrawn"
    elif version == history.previous:
        state = "previous"
    elif version == place.served():
        state = "current"
    served_at = None
    released_at = None
    for switch in history.switches:
        if switch.after == version:
            served_at = switch.time
            if switch.why == "release":
                released_at = released_at or switch.time
    manifest = place.manifest(version)
    return ReleaseVersion(
        version,
        place.path_of(version),
        state,
        released_at=released_at,
        served_at=served_at,
        files=len(manifest.files) if manifest else None,
        bytes=manifest.size if manifest else None,
        is_complete=manifest is not None and not place.first_missing(version, manifest),
    )
