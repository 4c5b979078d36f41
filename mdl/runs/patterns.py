"""Patterns: two ways in which the names of saved files tell of checkpoints; a row of `mdl.runs.table` has one of them.

A `Pattern` has regular expressions for the names of one trainer. `RunsOfFiles` is for trainers that save one file at a
time under the name of the run, and the finished one without a number.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from mdl.bounds import LARGEST_NOTE, parse_json
from mdl.paths import matches
from mdl.runs.checkpoint import Checkpoint, Found, checkpoint, finished_model, parse_count
from mdl.runs.completeness import header_metadata
from mdl.runs.names import NameSays, named_folders, own_state, plain_name, what_name_says
from mdl.runs.tree import FILES, Entry, IsName, Kind, Tree, join, natural_key
from mdl.values import value_class
from mdl.weights.table import stem_of

NO_NAME = "(?!)"
Place = tuple[str, str]
"""A folder that holds checkpoints, and the folder that the names of their members begin in."""


def named_in(tree: Tree, path: str, pattern: str) -> str:
    """The name that a pattern finds in the first 64 KiB of a file; "" if it finds none."""
    text = tree.head(path, LARGEST_NOTE).decode("utf-8", "replace")
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

    name: str
    entries: Sequence[Entry]
    pieces: frozenset[str]
    names: Sequence[str]

    @classmethod
    def of(cls, tree: Tree, name: str, parts: Sequence[tuple[str, Entry]]) -> _Save:
        """``parts`` are its pieces with what each is called; "" is one that is none. A piece alone has its own name."""
        entries = [entry for _, entry in parts]
        pieces = frozenset(piece for piece, _ in parts if piece)
        names = []
        for child in tree.children(entries[0].path) or entries:
            names.append(f"{child.name}/" if child.kind == "folder" else child.name)
        own_name = entries[0].name if pieces and len(entries) == 1 else name
        return cls(own_name, entries, pieces, names)

    def has(self, glob: str) -> bool:
        """Whether a name in it matches a glob."""
        return any(matches(name, [glob]) for name in self.names)


@value_class
class Pattern:
    """What one trainer calls its checkpoints, as regular expressions that match a whole name.

    The groups ``step`` and ``epoch`` of ``saved`` are its numbers, if they match any; without such groups the words of
    the name tell. Files with the same group ``name`` are one checkpoint, which is called so.

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
        if self.requires and not _first_match(self.requires, tree.children(base)):
            return None
        rows: list[Checkpoint] = []
        places = self.places(tree, base, self._match)
        for number, (folder, place) in enumerate(places):
            for row in self.checkpoints(tree, folder, place):
                rows.append(replace(row, place=number))
        rows = self._with_recorded(tree, base, rows)
        finals: list[Checkpoint] = []
        if places and self.final != NO_NAME:
            finals = finished_model(tree, base, self.final, rows, named_folders(tree, base))
        if rows or (finals and self.final_alone):
            return Found((*rows, *finals))
        return None

    def _with_recorded(self, tree: Tree, base: str, rows: list[Checkpoint]) -> list[Checkpoint]:
        """The rows, the one that the trainer's own file names as the latest marked as recorded. What is newer than
        that one was perhaps still being written."""
        file, pattern = self.newest_in
        name = named_in(tree, join(base, file), pattern)
        if not name:
            return rows
        recorded = [row for row in rows if row.name == name]
        if not recorded:
            number = parse_count(name)
            recorded = [row for row in rows if row.step is not None and row.step == number]
        if len(recorded) != 1 or not recorded[0].complete:
            return rows
        newest = recorded[0]
        marked = []
        for row in rows:
            note = row.note
            if not note and row.has_more_steps_than(newest):
                note = f"newer than the one '{file}' names, so perhaps not finished"
            marked.append(replace(row, is_recorded=row is newest, note=note))
        return marked

    def checkpoints(self, tree: Tree, folder: str, place: str) -> list[Checkpoint]:
        """The checkpoints in ``folder``: those with a number first, in their order; then the best, the others, the
        last. The names of their members begin in ``place``."""
        saves = self._saves(tree, folder)
        if not saves:
            return []
        beside = [child for child in tree.children(place) if matches(child.name, self.beside)]
        are_marked = any(save.has(self.written_last) for save in saves)
        pieces = {entry.name for entry in self._piece_folders(tree, folder)}
        for save in saves:
            pieces |= save.pieces
        rows = []
        for save in saves:
            if not any(map(self.holds, save.names)):
                continue
            says = self._says(tree, save.entries[0])
            is_to_be_marked = are_marked and says.is_counted
            wrong = self._why_unfinished(tree, folder, save, pieces, is_to_be_marked=is_to_be_marked)
            rows.append(self._row(tree, save, beside, says, place, wrong))
        return sorted(self._with_one_best(rows), key=_display_order(rows))

    def _why_unfinished(
        self, tree: Tree, folder: str, save: _Save, pieces: Collection[str], *, is_to_be_marked: bool
    ) -> str:
        """What the trainer's own marks say against a checkpoint; "" if they say nothing. It should have all ``pieces``
        if it has any, and the file that is ``written_last`` if it ``is_to_be_marked``."""
        if re.fullmatch(self.staging, save.name):
            return "a staging folder, which the trainer renames when it is complete"
        mark = stem_of(save.name) + self.unfinished
        if self.unfinished and tree.get(join(folder, mark)):
            return f"{mark} says that it was still being written"
        if is_to_be_marked and not save.has(self.written_last):
            return f"{self.written_last}, which is written last, is missing"
        missing = sorted(set(pieces) - save.pieces, key=natural_key)
        if save.pieces and missing and not re.fullmatch(self.partial, save.name):
            return f"the part of {missing[0].strip('-_.')} is missing"
        return ""

    def _piece_folders(self, tree: Tree, folder: str) -> list[Entry]:
        return [child for child in tree.subfolders(folder) if re.fullmatch(self.pieces_in, child.name)]

    def _saves(self, tree: Tree, folder: str) -> list[_Save]:
        """What was saved in a folder, and in those of its pieces, under each name."""
        own = own_state(tree, folder)
        parts: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
        places = {folder: ""}
        for child in self._piece_folders(tree, folder):
            places[child.path] = child.name
        for place, piece in places.items():
            for entry in tree.children(place):
                match = self._match(entry.name)
                if match is None or entry.kind not in self.kinds or entry.name == own:
                    continue
                if self.is_saved(tree, entry):
                    parts[_shared_name(match) or entry.name].append((piece or _group(match, "piece"), entry))
        return [_Save.of(tree, name, pieces) for name, pieces in parts.items()]

    def _match(self, name: str) -> re.Match[str] | None:
        return re.fullmatch(self.saved, plain_name(name))

    def _row(self, tree: Tree, save: _Save, beside: list[Entry], says: NameSays, place: str, wrong: str) -> Checkpoint:
        first = save.entries[0]
        if len(save.entries) == 1 and first.kind == "folder":
            base = first.path
            members = list(tree.below(base))
        else:
            base = place
            members = list(beside)
            for entry in save.entries:
                members += tree.with_contents(entry)
        row = checkpoint(
            tree,
            save.name,
            base,
            members,
            step=says.step,
            epoch=says.epoch,
            wrong=wrong,
            note="" if says.is_counted else self.unnumbered_note,
            weights=self.weights,
        )
        order = self.order(save.name)
        last = None
        for at, pattern in enumerate(self.last):
            if re.fullmatch(pattern, save.name):
                last = at + order
        return replace(
            row,
            last=last,
            says_best=re.fullmatch(self.best, save.name) is not None,
            is_derived=says.is_derived or re.fullmatch(self.derived, save.name) is not None,
            others=says.others,
            order=order,
        )

    def _with_one_best(self, rows: list[Checkpoint]) -> list[Checkpoint]:
        """Of a trainer that leaves every best that it had, only the newest says so; the others are copies."""
        numbered = [row for row in rows if row.says_best and row.complete and row.step is not None]
        if not self.keeps_bests or not numbered:
            return rows
        newest = max(numbered, key=lambda row: row.step or 0)
        with_one = []
        for row in rows:
            is_copy = row.says_best and not row.is_counted
            with_one.append(replace(row, says_best=row is newest, is_derived=row.is_derived or is_copy))
        return with_one

    def _says(self, tree: Tree, entry: Entry) -> NameSays:
        """What the trainer's record says of a checkpoint; else its name, or the name of the file that it links to."""
        recorded = self.record(tree, entry.path)
        by_name = self._said_by(entry.name)
        says = by_name
        if not says.is_counted:
            target = self._said_by(entry.real.rpartition("/")[2])
            says = replace(target, is_derived=by_name.is_derived) if target.is_counted else by_name
        step = says.step if recorded.step is None else recorded.step
        epoch = says.epoch if recorded.epoch is None else recorded.epoch
        return replace(says, step=step, epoch=epoch)

    def _said_by(self, name: str) -> NameSays:
        match = self._match(name)
        if match is None:
            return NameSays()
        says = what_name_says(stem_of(name))
        groups = match.groupdict()
        if "step" not in groups and "epoch" not in groups:
            return says
        return replace(says, step=parse_count(groups.get("step")), epoch=parse_count(groups.get("epoch")))


def _first_match(pattern: str, entries: Iterable[Entry]) -> Entry | None:
    for entry in entries:
        if re.fullmatch(pattern, entry.name):
            return entry
    return None


def _group(match: re.Match[str], group: str) -> str:
    """What a group matched; "" if it matched nothing, or if there is no such group."""
    return match.groupdict().get(group) or ""


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
        epoch = row.epoch or 0
        step = row.step or 0
        numbers = (epoch, row.step is None, step) if by_epoch else (step, False, epoch)
        return _display_group(row), row.last or 0, numbers, row.order, natural_key(stem_of(row.name)), row.name

    return key


def _display_group(row: Checkpoint) -> int:
    if row.last is not None:
        return 3
    if row.is_counted:
        return 0
    if row.is_derived:
        return 4
    return 1 if row.says_best else 2


# Files under the name of a run

_UNNAMED_RUNS = {"epoch", "at"}
"""The names that sd-scripts gives a run without a name, whose finished model is ``last``."""


@value_class
class RunsOfFiles:
    """What one of these trainers calls its files.

    Groups of ``saved``: ``run``, ``number``, and ``suffix``, without which it is a folder. ``epoch`` matches a number
    that counts epochs. A file without a number is a finished model if its run has files with one, or if there is one
    of the ``keys`` in its header. ``beside`` belongs to every checkpoint, ``to_resume`` to the newest.
    """

    saved: str
    keys: tuple[str, ...]
    epoch: str = "(?!)"
    beside: tuple[str, ...] = ()
    to_resume: tuple[str, ...] = ()

    def find(self, tree: Tree, base: str) -> Found | None:
        """The checkpoints in ``base``; None if it holds none."""
        saves = self._saves(tree, base)
        runs = self._runs(tree, saves)
        numbers = {number for run, number in saves if run in runs}
        newest = "" if "" in numbers else max(numbers, default="")
        rows: list[Checkpoint] = []
        finals: list[Checkpoint] = []
        for (run, number), kept in saves.items():
            if run not in runs:
                continue
            beside = (*self.beside, *self.to_resume) if number == newest else self.beside
            row = self._checkpoint(tree, base, number, kept, beside)
            if number:
                rows.append(row)
            else:
                finals.append(replace(row, last=0))
        rows.sort(key=lambda row: (row.step or 0, row.epoch or 0, natural_key(row.name)))
        finals.sort(key=lambda row: (row.step or 0, row.name))
        return Found((*rows, *finals)) if rows or finals else None

    def _saves(self, tree: Tree, base: str) -> dict[tuple[str, str], list[Entry]]:
        """The files and folders that may be checkpoints, by their run and number; "" is no number."""
        saves: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for entry in tree.children(base):
            name = re.fullmatch(self.saved, entry.name)
            if name is None or entry.name in self.to_resume:
                continue
            is_kind = entry.is_file if name["suffix"] else entry.kind == "folder"
            if is_kind:
                saves[name["run"], name["number"] or ""].append(entry)
        return saves

    def _runs(self, tree: Tree, saves: Mapping[tuple[str, str], list[Entry]]) -> set[str]:
        """The names that are a run's: that of a file with a number, or with a header of this trainer."""
        runs = {run for run, number in saves if number}
        if runs & _UNNAMED_RUNS:
            runs.add("last")
        for (run, _), kept in saves.items():
            for entry in kept:
                header = header_metadata(tree, entry)
                if any(key in header for key in self.keys):
                    runs.add(run)
        return runs

    def _checkpoint(self, tree: Tree, base: str, number: str, kept: list[Entry], beside: tuple[str, ...]) -> Checkpoint:
        """The row is named after the file without CRITIC, LoRA or refiner in its name, which is the shortest."""
        main = min(kept, key=lambda entry: (len(entry.name), entry.name))
        if main.kind == "folder" and len(kept) == 1:
            return checkpoint(tree, main.name, main.path, tree.below(main.path), step=parse_count(number))
        step = _recorded_lora_step(tree, main)
        counts_epochs = re.fullmatch(self.epoch, number) is not None
        epoch = parse_count(number) if counts_epochs else None
        if step is None and not counts_epochs:
            step = parse_count(number)
        paths = [*(_state_folder(entry) for entry in kept), *(join(base, name) for name in beside)]
        entries = [*kept, *filter(None, map(tree.get, paths))]
        members = [part for entry in entries for part in tree.with_contents(entry)]
        return checkpoint(tree, main.name, base, members, step=step, epoch=epoch)


def _state_folder(entry: Entry) -> str:
    """The folder with the state of the training that kohya saves beside a file."""
    return re.sub(r"\.[a-z]+$", "", entry.path) + "-state"


def _recorded_lora_step(tree: Tree, entry: Entry) -> int | None:
    """The count of steps in the header, or in the state saved with the file."""
    header = header_metadata(tree, entry)
    try:
        info = parse_json(header.get("training_info", "{}"), allow_nan=True)
    except ValueError:
        info = {}
    told = info if isinstance(info, dict) else {}
    state = tree.json(join(_state_folder(entry), "train_state.json"))
    for count in (header.get("ss_steps"), told.get("step"), state.get("current_step")):
        step = parse_count(count)
        if step is not None:
            return step
    return None
