"""lock --swarm: torrents of models whose files are here, beside the lock, and their info hashes in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mdl.catalog.lock import Lock, LockedModel
from mdl.catalog.model import Model
from mdl.errors import NotFound, storage_error
from mdl.events import Verifying
from mdl.files import RemoteFile
from mdl.fs import staging
from mdl.operations.lock import LockReport
from mdl.operations.lock_file import read_lock, update_lock
from mdl.operations.tools import Tools
from mdl.paths import RelPath, record_name
from mdl.swarm import refused
from mdl.swarm.swarm import torrent_path
from mdl.swarm.torrent import covered, make_torrent, piece_length


def add_torrents(
    report: LockReport,
    models: Sequence[Model],
    catalog: Path,
    tools: Tools,
    *,
    gated: bool,
    has_login: Callable[[str], bool],
) -> LockReport:
    """Write the torrent of each model, and its info hash into the lock that ``report`` is of. Returns the report with
    what that changed.

    ``has_login`` says whether a credential is sent with a URL. Raises `AuthError` for a model that is not known to be
    open, unless ``gated``; `NotFound` if a file is not here or there is nothing for a torrent; `StorageError`, `Busy`.
    """
    before = read_lock(report.path, catalog) or Lock()
    after = before
    for model in models:
        locked = before.models[model.name]
        remotes = {one.path: one for one in tools.resolver.known(model) or ()}
        accesses = _accesses(model.name, list(remotes.values()), tools, has_login)
        is_known = all("public" in one and one.isdisjoint(("gated", "private")) for one in accesses)
        if not (is_known or gated):
            raise refused(model.name, "mdl lock --swarm")
        info_hash = _write(torrent_path(report.path, model.name), locked, remotes, tools)
        after = after.with_model(replace(locked, swarm=info_hash, swarm_gated=not is_known))
    update_lock(report.path, catalog, lambda now: now.with_changes(before, after))
    rows = (replace(row, swarm=after.models[row.name].swarm or None if row.locked else None) for row in report.models)
    return replace(report, changes=(*report.changes, *before.told(after)), models=tuple(rows))


def _accesses(
    name: str, remotes: Sequence[RemoteFile], tools: Tools, has_login: Callable[[str], bool]
) -> Iterator[set[str]]:
    """What is known of who may have the files of a model, for each repository or URL that they come from."""
    receipts = {receipt.path: receipt for receipt in tools.store.receipts.of_model(name)}
    found: defaultdict[str, set[str]] = defaultdict(set)
    for remote in remotes:
        if remote.hub:
            receipt = receipts.get(remote.path)
            told = {remote.access, receipt.access if receipt else "unknown"}
            found[f"{remote.hub.repo_type}/{remote.hub.repo}"] |= told
        else:
            is_for_all = remote.url.startswith(("http://", "https://")) and not has_login(remote.url)
            found[remote.url].add("public" if is_for_all else "unknown")
    yield from found.values()


def _write(path: Path, locked: LockedModel, remotes: dict[RelPath, RemoteFile], tools: Tools) -> str:
    """Write the torrent of a model to ``path``; returns its info hash. Raises as `add_torrents`."""
    files: dict[RelPath, Path] = {}
    for one in covered(locked):
        remote = remotes[one.path]
        here = tools.store.check(locked.name, remote)
        is_right = here.untouched and here.receipt is not None and here.receipt.matches(remote)
        if not (is_right or (here.fingerprint and here.fingerprint.digest == one.digest)):
            hint = f"'mdl get {locked.name}' first; a torrent is made of what is here and right"
            raise NotFound(f"{one.path} is not here as the lock has it", item=locked.name, hint=hint)
        files[one.path] = tools.store.final_path(locked.name, remote)
    if not files:
        why = "it has no file of 16 MiB or more with a sha256: there is nothing for a swarm"
        raise NotFound(why, item=locked.name, hint="'mdl get' fetches small files in no time")
    total = sum(one.size or 0 for one in covered(locked))

    def watch(done: int) -> None:
        tools.store.cancel.check()
        tools.on_event(Verifying(locked.name, done=done, total=total))

    try:
        data, info_hash = make_torrent(record_name(locked.name), files, piece_length(total), watch)
        path.parent.mkdir(exist_ok=True)
        staging.write_file(path, data, mode=0o666 & ~staging.umask(), sweep_first=True)
    except OSError as error:
        raise storage_error(error, str(path)) from error
    return info_hash
