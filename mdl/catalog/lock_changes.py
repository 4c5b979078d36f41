"""Lock changes: the difference between two locks, in words. Pure."""

from __future__ import annotations

from mdl.catalog.lock import Lock, LockedModel
from mdl.formatting import counted, human_bytes, words_of_left_out
from mdl.units import total_size


def words_of_changes(before: Lock, after: Lock) -> list[str]:
    """Describe what it means to write ``after`` in place of ``before``, a line each."""
    lines = []
    for name in before.changed_names(after):
        old = before.models.get(name)
        new = after.models.get(name)
        if new is None:
            lines.append(f"took {name} out of the lock: it is not in the catalog any more")
        elif old is None:
            lines.append(f"locked {name}{_summary(new)}")
        else:
            lines += [f"{name}: {change}" for change in _changes_of_model(old, new)]
    return lines


def _summary(locked: LockedModel) -> str:
    """Commits, number of files and bytes of a model: `` at b732cfb, 5 files, 5.8 MB``."""
    summary = f", {counted(len(locked.files), 'file')}"
    if locked.commits:
        summary = f" at {', '.join(commit[:7] for commit in locked.commits)}{summary}"
    size = total_size(file.size for file in locked.files)
    if size is not None:
        summary += f", {human_bytes(size)}"
    if locked.left_out:
        summary += f"; {words_of_left_out([file.size for file in locked.left_out])}"
    return summary


def _changes_of_model(before: LockedModel, after: LockedModel) -> list[str]:
    """Describe how a locked model changed, a line for each change."""
    changes = []
    if before.entry != after.entry:
        changes.append("its entry has changed")
    if before.commits != after.commits:
        changes.append(f"moved from {_listed(before.commits)} to {_listed(after.commits)}")
    changes += _changes_of_files(before, after)
    return changes or ["its files come from elsewhere"]


def _listed(commits: list[str]) -> str:
    return ", ".join(commits) or "no commit"


def _changes_of_files(before: LockedModel, after: LockedModel) -> list[str]:
    old_files = {file.path.text: file for file in before.files}
    new_files = {file.path.text: file for file in after.files}
    left_out = {file.path for file in after.left_out}
    gone = []
    changed = []
    is_confirmed = False
    for path, old in old_files.items():
        new = new_files.pop(path, None)
        if new is not None:
            if not old.is_same_as(new):
                changed.append(f"{path} has other bytes")
            elif old.bundled and not new.bundled:
                is_confirmed = True
        elif path in left_out:
            gone.append(f"{path} is left out: the same weights in another format")
        else:
            gone.append(f"{path} was removed")
    changes = [*gone, *(f"{path} is new" for path in new_files), *changed]
    if is_confirmed:
        changes.append("its source says what only a bundle said")
    return changes
