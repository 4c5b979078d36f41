"""Patterns: how trainers name what they save, as rows of regular expressions. A trainer that needs more than this has a
module of its own; the rows are in `mdl.trainers.table`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from mdl.paths import matches
from mdl.trainers.axes import NameSays, plain_name, what_name_says
from mdl.trainers.checkpoint import Checkpoint, Found, checkpoint, finished_model, parse_count
from mdl.trainers.named import named_folders, own_state
from mdl.trainers.tree import FILES, Entry, IsName, Kind, Tree, join, natural_key
from mdl.values import value_class
from mdl.weights import stem_of

NO_NAME = "(?!)"
Place = tuple[str, str]
"""A folder that holds checkpoints, and the folder that the names of their members begin in."""
_LONGEST_RECORD = 2**16


def named_in(tree: Tree, path: str, pattern: str) -> str:
    """The name that a pattern finds in the first 64 KiB of a file; "" if it finds none."""
    text = tree.head(path, _LONGEST_RECORD).decode("utf-8", "replace")
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""


def here(_tree: Tree, base: str, _is_saved: IsName) -> list[Place]:
    return [(base, base)]


def matching(pattern: str) -> IsName:
    """Says whether a pattern matches a whole name."""
    return re.compile(pattern).fullmatch


def no_record(_tree: Tree, _folder: str) -> NameSays:
    return NameSays()


@value_class
class _Save:
    """What was saved under one name: its ``entries``, which ``pieces`` they are, and the ``names`` in it: those in its
    folder, those of folders with a slash, or else its own."""

    entries: Sequence[Entry]
    pieces: frozenset[str]
    names: Sequence[str]


@value_class
class Pattern:
    """What one trainer calls its checkpoints, as regular expressions that match a whole name.

    The groups ``step`` and ``epoch`` of ``saved`` are its numbers; without such groups the words of the name tell,
    unless there are no counts in it. Files with the same group ``name`` are one checkpoint, which is called so.

    So are the pieces of a checkpoint, of which each process writes one: files whose names differ in the group ``piece``
    alone, or that lie under one name in several folders called ``pieces_in``. All must be there, except of the
    checkpoints called ``partial``.

    A checkpoint counts only if ``holds`` is true of one of its files, or of a name in its folder; the name of a folder
    there ends with a slash. ``weights`` are files that hold weights though their suffix does not tell. ``requires`` is
    a name that must be in the folder, or else it is not this trainer's.

    ``best`` and ``derived`` are names of the best, and of averages and the like; ``last`` those of the trainer's last
    file, the oldest first. If the trainer leaves every best that it had, ``keeps_bests``, the one with the highest
    number is the best. ``final`` matches a file of the finished model, which lies beside the checkpoints, or
    ``final_alone``. ``places`` are the folders to look in, the oldest first. ``beside`` are globs of files that belong
    to every checkpoint that is not a folder.

    ``staging`` matches folders that are not complete yet. A name without its suffix and with ``unfinished`` behind it
    marks a checkpoint that is still being written. If any checkpoint has a file that the glob ``written_last``
    matches, one with a number and without that file was cut short. ``newest_in`` gives a file that names the latest,
    and a pattern for the name, or the number, in it. ``record`` reads numbers from the trainer's own record in a
    checkpoint's folder. ``order`` tells apart what has the same step or epoch.
    """

    saved: str
    best: str = NO_NAME
    last: tuple[str, ...] = ()
    derived: str = NO_NAME
    staging: str = NO_NAME
    final: str = NO_NAME
    final_alone: bool = False
    keeps_bests: bool = False
    kinds: tuple[Kind, ...] = FILES
    holds: IsName = lambda _name: True
    weights: str = NO_NAME
    requires: str = ""
    counts_in_name: bool = True
    written_last: str = ""
    unfinished: str = ""
    pieces_in: str = NO_NAME
    partial: str = NO_NAME
    places: Callable[[Tree, str, IsName], list[Place]] = here
    order: Callable[[str], int] = lambda _name: 0
    beside: tuple[str, ...] = ()
    newest_in: tuple[str, str] = ("", NO_NAME)
    record: Callable[[Tree, str], NameSays] = no_record
    is_saved: Callable[[Tree, Entry], bool] = lambda _tree, _entry: True
    unnumbered_note: str = ""

    def find(self, tree: Tree, base: str) -> Found | None:
        """The checkpoints in ``base``; None if it holds none."""
        if self.requires and not any(re.fullmatch(self.requires, child.name) for child in tree.children(base)):
            return None
        rows: list[Checkpoint] = []
        places = self.places(tree, base, self._match)
        for number, (folder, place) in enumerate(places):
            saved = self.checkpoints(tree, folder, place)
            rows += [replace(row, place=number) for row in saved]
        rows = self._with_recorded(tree, base, rows)
        finals: list[Checkpoint] = []
        if places and self.final != NO_NAME:
            finals = finished_model(tree, base, self.final, rows, named_folders(tree, base))
        is_found = rows or (finals and self.final_alone)
        return Found((*rows, *finals)) if is_found else None

    def _with_recorded(self, tree: Tree, base: str, rows: list[Checkpoint]) -> list[Checkpoint]:
        """The rows, the one that the trainer's own file names as the latest marked as recorded. What is newer than
        that one was perhaps still being written."""
        file, pattern = self.newest_in
        name = named_in(tree, join(base, file), pattern)
        number = parse_count(name)
        recorded = [row for row in rows if name and row.name == name]
        if not recorded and number is not None:
            recorded = [row for row in rows if row.step == number]
        if len(recorded) != 1 or not recorded[0].complete:
            return rows
        [newest] = recorded
        note = f"newer than the one '{file}' names, so perhaps not finished"
        marked = []
        for row in rows:
            is_newer = row.step is not None and newest.step is not None and row.step > newest.step
            note_of_row = row.note or (note if is_newer else "")
            marked.append(replace(row, is_recorded=row is newest, note=note_of_row))
        return marked

    def checkpoints(self, tree: Tree, folder: str, place: str) -> list[Checkpoint]:
        """The checkpoints in ``folder``: those with a number first, in their order; then the best, the others, the
        last. The names of their members begin in ``place``."""
        saves = self._saves(tree, folder)
        if not saves:
            return []
        beside = [child for child in tree.children(place) if matches(child.name, self.beside)]
        marked = {name for name, save in saves.items() if any(matches(one, [self.written_last]) for one in save.names)}
        all_pieces = {entry.name for entry in self._piece_folders(tree, folder)}
        for save in saves.values():
            all_pieces |= save.pieces
        rows = []
        for name, save in saves.items():
            if not any(map(self.holds, save.names)):
                continue
            says = self._says(tree, name, save.entries[0])
            missing = all_pieces - save.pieces if save.pieces else set()
            wrong = ""
            if re.fullmatch(self.staging, name):
                wrong = "a staging folder, which the trainer renames when it is complete"
            elif self.unfinished and tree.get(join(folder, stem_of(name) + self.unfinished)):
                wrong = f"{stem_of(name)}{self.unfinished} says that it was still being written"
            elif marked and name not in marked and says.is_counted:
                wrong = f"{self.written_last}, which is written last, is missing"
            elif missing and not re.fullmatch(self.partial, name):
                wrong = f"the part of {min(missing, key=natural_key).strip('-_.')} is missing"
            rows.append(self._row(tree, name, save, beside, says, place, wrong))
        return sorted(self._with_one_best(rows), key=_display_order(rows))

    def _piece_folders(self, tree: Tree, folder: str) -> list[Entry]:
        return [child for child in tree.subfolders(folder) if re.fullmatch(self.pieces_in, child.name)]

    def _saves(self, tree: Tree, folder: str) -> dict[str, _Save]:
        """The files and folders of each checkpoint, by its name."""
        found: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
        own = own_state(tree, folder)
        places = {folder: "", **{child.path: child.name for child in self._piece_folders(tree, folder)}}
        for place, piece in places.items():
            for entry in tree.children(place):
                match = self._match(entry.name)
                if match is None or entry.kind not in self.kinds or entry.name == own or not self.is_saved(tree, entry):
                    continue
                found[_shared_name(match) or entry.name].append((piece or _group(match, "piece"), entry))
        saves = {}
        for name, parts in found.items():
            entries = [entry for _, entry in parts]
            names = [child.name + "/" * (child.kind == "folder") for child in tree.children(entries[0].path) or entries]
            own_name = entries[0].name if len(entries) == 1 and parts[0][0] else name
            saves[own_name] = _Save(entries, frozenset(piece for piece, _ in parts if piece), names)
        return saves

    def _match(self, name: str) -> re.Match[str] | None:
        return re.fullmatch(self.saved, plain_name(name))

    def _row(
        self, tree: Tree, name: str, save: _Save, beside: list[Entry], says: NameSays, place: str, wrong: str
    ) -> Checkpoint:
        folder = save.entries[0]
        is_folder = len(save.entries) == 1 and folder.kind == "folder"
        members = [*beside]
        for entry in save.entries:
            members += tree.with_contents(entry)
        row = checkpoint(
            tree,
            name,
            folder.path if is_folder else place,
            tree.below(folder.path) if is_folder else members,
            step=says.step,
            epoch=says.epoch,
            wrong=wrong,
            note="" if says.is_counted else self.unnumbered_note,
            weights=self.weights,
        )
        lasts = [at for at, last in enumerate(self.last) if re.fullmatch(last, name)]
        return replace(
            row,
            last=lasts[-1] + self.order(name) if lasts else None,
            says_best=re.fullmatch(self.best, name) is not None,
            is_derived=says.is_derived or re.fullmatch(self.derived, name) is not None,
            others=says.others,
            order=self.order(name),
        )

    def _with_one_best(self, rows: list[Checkpoint]) -> list[Checkpoint]:
        """Of a trainer that leaves every best that it had, only the newest says so; the others are copies."""
        numbered = [row for row in rows if row.says_best and row.complete and row.step is not None]
        if not self.keeps_bests or not numbered:
            return rows
        newest = max(numbered, key=lambda row: row.step or 0)
        return [
            replace(row, says_best=row is newest, is_derived=row.is_derived or (row.says_best and not row.is_counted))
            for row in rows
        ]

    def _says(self, tree: Tree, name: str, entry: Entry) -> NameSays:
        """What the trainer's record says of a checkpoint; else its name, or the name of the file that it links to."""
        recorded = self.record(tree, entry.path)
        says = [self._said_by(path.rpartition("/")[2]) for path in (entry.path, entry.real)]
        counted = next((one for one in says if one.is_counted), says[0])
        step = counted.step if recorded.step is None else recorded.step
        epoch = counted.epoch if recorded.epoch is None else recorded.epoch
        return replace(counted, step=step, epoch=epoch, is_derived=says[0].is_derived)

    def _said_by(self, name: str) -> NameSays:
        match = self._match(name)
        if match is None:
            return NameSays()
        says = what_name_says(stem_of(name))
        groups = {axis: digits for axis, digits in match.groupdict().items() if axis in ("step", "epoch")}
        if not self.counts_in_name:
            return replace(says, step=None, epoch=None)
        if not groups:
            return says
        return replace(says, step=parse_count(groups.get("step")), epoch=parse_count(groups.get("epoch")))


def _group(match: re.Match[str] | None, group: str) -> str:
    """What a group matched; "" if it, or anything at all, did not."""
    return (match.groupdict().get(group) or "") if match else ""


def _shared_name(match: re.Match[str]) -> str:
    """What the checkpoint is called that several files are: by their group ``name``, else as they are without their
    ``piece``; "" if a name has neither."""
    if _group(match, "piece"):
        return match.string[: match.start("piece")] + match.string[match.end("piece") :]
    return _group(match, "name")


def _display_order(rows: Sequence[Checkpoint]) -> Callable[[Checkpoint], tuple[object, ...]]:
    """A sort key: those with numbers by these, as far as they compare; then the best, the others, the last."""
    numbered = [row for row in rows if row.is_counted and row.last is None]
    by_epoch = any(row.step is None for row in numbered) and all(row.epoch is not None for row in numbered)

    def key(row: Checkpoint) -> tuple[object, ...]:
        group = 0
        if row.last is not None:
            group = 3
        elif not row.is_counted:
            group = 1 if row.says_best else 2
            group = 4 if row.is_derived else group
        epoch = row.epoch or 0
        step = row.step or 0
        numbers = (epoch, row.step is None, step) if by_epoch else (step, False, epoch)
        return group, row.last or 0, numbers, row.order, natural_key(stem_of(row.name)), row.name

    return key
