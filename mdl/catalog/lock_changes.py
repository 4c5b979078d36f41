"""Lock changes: the difference between two locks, in words. Pure."""

from __future__ import annotations

from mdl.catalog.lock import Lock, LockedFile, LockedModel
from mdl.formatting import counted, human_bytes, words_of_left_out


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
    summary = ""
    if locked.commits:
        summary += f" at {', '.join(commit[:7] for commit in locked.commits)}"
    summary += f", {counted(len(locked.files), 'file')}"
    sizes = [file.size for file in locked.files if file.size is not None]
    if len(sizes) == len(locked.files):
        summary += f", {human_bytes(sum(sizes))}"
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
    changes = []
    for path in old_files.keys() - new_files.keys():
        if path in left_out:
            changes.append(f"{path} is left out: the same weights in another format")
        else:
            changes.append(f"{path} is gone")
    changes.sort()
    changes += sorted(f"{path} is new" for path in new_files.keys() - old_files.keys())
    is_confirmed = False
    for path in sorted(old_files.keys() & new_files.keys()):
        old = old_files[path]
        new = new_files[path]
        if not old.is_same_as(new):
            changes.append(f"{path} has other bytes")
        elif _is_confirmed(old, new):
            is_confirmed = True
    if is_confirmed:
        changes.append("its source says what only a bundle said")
    return changes


def _is_confirmed(old: LockedFile, new: LockedFile) -> bool:
    """Whether a source now says which bytes a file has that only a bundle named before."""
    return old.bundled and not new.bundled
