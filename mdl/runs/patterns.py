"""Patterns: how the names of saved files tell of checkpoints. Each row of `mdl.runs.trainers` has a `Pattern`,
which has regular expressions for the names of one trainer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from mdl.bounds import LARGEST_NOTE
from mdl.paths import matches
from mdl.paths import matching as matching_names
from mdl.runs.checkpoint import FINAL, Checkpoint, Found, checked, parse_count, paths_of
from mdl.runs.choice import called, common_axes
from mdl.runs.completeness import why_cut_without_suffix
from mdl.runs.names import NameSays, named_folders, own_state, plain_name, what_name_says
from mdl.runs.tree import FILES, Entry, IsName, Kind, Tree, join, natural_key
from mdl.values import value_class
from mdl.weights.known_formats import stem_of

NO_NAME = "(?!)"
ANY_NAME = "(?s).*"
PIECE = r"(?P<piece>([-_.](([a-z]+_)?rank|shard|model_part)[-_]?[0-9]+)+)"
"""What a trainer appends that has each process write its own piece: ``-rank0``, ``-model_part-1-shard0``."""
DEEPSPEED_LATEST = r"\A\s*([\w.=-]{1,200})\s*\Z"
LAST_CHECKPOINT = ("last_checkpoint", r"\A\s*(?:[^\n]*[/\\])?([^/\\\n]+?)\s*\Z")
"""The record of mmengine and detectron2."""


def named_in(tree: Tree, path: str, pattern: str) -> str:
    """Return the name that a pattern finds in the first 64 KiB of a file; "" if it finds none."""
    text = tree.head(path, LARGEST_NOTE).decode("utf-8", "replace")
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""


def here(_tree: Tree, base: str, _is_saved: IsName) -> list[str]:
    return [base]


def matching(pattern: str) -> IsName:
    """Return a function that tells whether a pattern matches a whole name."""
    return re.compile(pattern).fullmatch


def no_record(_tree: Tree, _path: str) -> NameSays:
    return NameSays()


class _Save:
    """What was saved under one name: its ``entries``, which ``pieces`` they are, and the ``names`` in it: those in its
    folder, those of folders with a slash, or else its own.

    One of a single file, or of variants, is called like the file with the shortest name, unless it ``has_own_name``.
    """

    def __init__(self, name: str, *, has_own_name: bool) -> None:
        self._name = name
        self._has_own_name = has_own_name
        self.entries: list[Entry] = []
        self.pieces: set[str] = set()
        self.names: list[str] = []

    def add(self, tree: Tree, entry: Entry, piece: str) -> None:
        """Add an entry, which is this ``piece`` of the checkpoint, or none if that is ""."""
        self.entries.append(entry)
        if piece:
            self.pieces.add(piece)
        for child in tree.children(entry.path) or [entry]:
            self.names.append(f"{child.name}/" if child.kind == "folder" else child.name)

    @property
    def name(self) -> str:
        if self._has_own_name or (self.pieces and len(self.entries) > 1):
            return self._name
        return min((entry.name for entry in self.entries), key=lambda file_name: (len(file_name), file_name))

    @property
    def first(self) -> Entry:
        return self.entries[0]

    @property
    def is_folder(self) -> bool:
        return len(self.entries) == 1 and self.first.kind == "folder"

    def has(self, glob: str) -> bool:
        """Tell whether a name in it matches a glob."""
        return len(matching_names(self.names, [glob])) > 0


@value_class
class Pattern:
    """What one trainer calls its checkpoints, as regular expressions that match a whole name.

    The groups ``step`` and ``epoch`` of ``saved`` are its numbers, if they match any; without such groups the words of
    the name tell. Files with the same group ``name`` are one checkpoint, which is called so. So are files whose names
    differ in groups called ``variant…`` alone.

    So are the pieces of a checkpoint, of which each process writes one: files whose names differ in the group ``piece``
    alone, or that lie under one name in several folders called ``pieces_in``. All must be there, except of the
    checkpoints called ``partial``.

    A checkpoint counts only if ``holds`` is true of one of its files, or of a name in its folder; the name of a folder
    there ends with a slash. ``weights`` are files that hold weights though their suffix does not tell. ``requires`` is
    a name that must be in the folder, or else it is not this trainer's.

    ``best`` and ``derived`` are names of the best, and of averages and the like; ``last`` those of the trainer's last
    file, the oldest first. ``final`` matches a file of the finished model, which lies beside the checkpoints, or
    ``final_alone``. ``places`` are the folders to look in, the oldest first; the names of members begin in them, or,
    with ``members_in_base``, in the folder of the run. ``beside`` are globs of files that belong to every checkpoint
    that is not a folder, ``beside_newest`` of those that belong to the newest, if it is none. ``state`` is what a
    trainer appends to the name of a file, without its suffix, for the folder with the state of the training.

    ``staging`` matches folders that are not complete yet. A name without its suffix and with ``unfinished`` behind it
    marks a checkpoint that is still being written. If any checkpoint has a file that the glob ``written_last``
    matches, one with a number and without that file was cut short. ``newest_in`` gives a file that names the latest,
    and a pattern for the name, or the number, in it. ``record`` reads numbers from the trainer's own record in a
    checkpoint's folder or file. ``order`` tells apart what has the same step or epoch. ``run_in`` returns which of
    several trainings in one folder a name tells.
    """

    saved: str
    best: str = NO_NAME
    last: tuple[str, ...] = ()
    derived: str = NO_NAME
    staging: str = NO_NAME
    final: str = NO_NAME
    final_alone: bool = False
    kinds: tuple[Kind, ...] = FILES
    holds: IsName = lambda _name: True
    weights: str = NO_NAME
    requires: str = ANY_NAME
    written_last: str = ""
    unfinished: str = ""
    pieces_in: str = NO_NAME
    partial: str = NO_NAME
    places: Callable[[Tree, str, IsName], list[str]] = here
    members_in_base: bool = False
    order: Callable[[str], int] = lambda _name: 0
    beside: tuple[str, ...] = ()
    beside_newest: tuple[str, ...] = ()
    state: str = ""
    newest_in: tuple[str, str] = ("", NO_NAME)
    record: Callable[[Tree, str], NameSays] = no_record
    run_in: Callable[[str], str | None] = lambda _name: None
    is_saved: Callable[[Tree, Entry], bool] = lambda _tree, _entry: True

    def find(self, tree: Tree, base: str) -> Found | None:
        """Return the checkpoints in ``base``; None if it holds none."""
        is_required = matching(self.requires)
        if not any(is_required(child.name) for child in tree.children(base)):
            return None
        places = self.places(tree, base, self._match)
        if not places:
            return None
        checkpoints: list[Checkpoint] = []
        for number, folder in enumerate(places):
            members = base if self.members_in_base else folder
            checkpoints += self.checkpoints(tree, folder, members, number)
        if not checkpoints and not self.final_alone:
            return None
        checkpoints = self._with_recorded(tree, base, checkpoints)
        finals = finished_model(tree, base, self.final, checkpoints, weights=self.weights)
        if not checkpoints and not finals:
            return None
        return Found((*checkpoints, *finals))

    def _with_recorded(self, tree: Tree, base: str, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
        """Return the checkpoints, the one that the trainer's own file names as the latest as recorded. What is newer
        than that one was perhaps still being written."""
        file, pattern = self.newest_in
        name = named_in(tree, join(base, file), pattern)
        if not name:
            return checkpoints
        recorded = called(checkpoints, name)
        if len(recorded) != 1 or not recorded[0].complete:
            return checkpoints
        newest = recorded[0]
        note = f"newer than the one '{file}' names, so perhaps not finished"
        marked = []
        for checkpoint in checkpoints:
            if checkpoint is newest:
                checkpoint = replace(checkpoint, is_recorded=True)
            elif checkpoint.has_more_steps_than(newest):
                checkpoint = replace(checkpoint, note=checkpoint.note or note)
            marked.append(checkpoint)
        return marked

    def checkpoints(self, tree: Tree, folder: str, members: str, number: int = 0) -> list[Checkpoint]:
        """Return the checkpoints in ``folder``: those with a number first, in their order; then the best, the others,
        the last. The names of their members begin in ``members``; ``number`` is the folder's among the places."""
        piece_folders = [child for child in tree.subfolders(folder) if re.fullmatch(self.pieces_in, child.name)]
        saves = self._saves(tree, folder, piece_folders)
        if not saves:
            return []
        beside = _matching(tree, members, self.beside)
        are_marked = any(save.has(self.written_last) for save in saves)
        pieces = {piece.name for piece in piece_folders}
        pieces = pieces.union(*(save.pieces for save in saves))
        checkpoints = []
        for save in saves:
            if any(map(self.holds, save.names)):
                says = self._says(tree, save.first)
                must_have_mark = are_marked and says.is_counted
                wrong = self._why_unfinished(tree, folder, save, pieces, must_have_mark=must_have_mark)
                checkpoint = self._row(tree, save, says, members, beside)
                checkpoints.append(checked(tree, replace(checkpoint, place=number), wrong))
        checkpoints.sort(key=_display_order(checkpoints))
        if checkpoints and checkpoints[-1].base == members:  # a folder holds all that it needs
            more = _matching(tree, members, self.beside_newest)
            checkpoints[-1] = replace(checkpoints[-1], entries=(*checkpoints[-1].entries, *more))
        return checkpoints

    # What was saved under each name

    def _match(self, name: str) -> re.Match[str] | None:
        return re.fullmatch(self.saved, plain_name(name))

    def _saves(self, tree: Tree, folder: str, piece_folders: list[Entry]) -> list[_Save]:
        """Return what was saved in a folder, and in those of its pieces, under each name."""
        own = own_state(tree, folder)
        places = {folder: ""} | {piece.path: piece.name for piece in piece_folders}
        match_name = re.compile(self.saved).fullmatch
        saves: dict[str, _Save] = {}
        for place, piece in places.items():
            for entry in tree.children(place):
                match = match_name(plain_name(entry.name))
                if match is None or entry.kind not in self.kinds or entry.name == own:
                    continue
                if self.is_saved(tree, entry):
                    name = _shared_name(match) or entry.name
                    save = saves.setdefault(name, _Save(name, has_own_name=bool(_group(match, "name"))))
                    save.add(tree, entry, piece or _group(match, "piece"))
        return list(saves.values())

    def _why_unfinished(
        self, tree: Tree, folder: str, save: _Save, pieces: Collection[str], *, must_have_mark: bool
    ) -> str:
        """Return what the trainer's own marks say against a checkpoint; "" if they say nothing. It should have all
        ``pieces`` if it has any, and the file that is ``written_last`` if it ``must_have_mark``."""
        if re.fullmatch(self.staging, save.name):
            return "a staging folder, which the trainer renames when it is complete"
        mark = stem_of(save.name) + self.unfinished
        if self.unfinished and tree.get(join(folder, mark)):
            return f"{mark} says that it was still being written"
        if must_have_mark and not save.has(self.written_last):
            return f"{self.written_last}, which is written last, is missing"
        cut = why_cut_without_suffix(tree, save.entries)
        if cut:
            return cut
        missing = sorted(set(pieces) - save.pieces, key=natural_key)
        if save.pieces and missing and not re.fullmatch(self.partial, save.name):
            return f"the part of {missing[0].strip('-_.')} is missing"
        return ""

    # The checkpoint that a save is

    def _row(self, tree: Tree, save: _Save, says: NameSays, base: str, beside: list[Entry]) -> Checkpoint:
        """The checkpoint that a save is. A folder holds all that it needs; a file has ``beside`` what belongs to it."""
        if save.is_folder:
            base = save.first.path
            members = tree.below(base)
        else:
            members = (*beside, *self._members(tree, save))
        order = self.order(save.name)
        last = None
        for at, pattern in enumerate(self.last):
            if re.fullmatch(pattern, save.name):
                last = at + order
        return Checkpoint(
            save.name,
            base,
            members,
            says.step,
            epoch=says.epoch,
            last=last,
            says_best=re.fullmatch(self.best, save.name) is not None,
            is_derived=says.is_derived or re.fullmatch(self.derived, save.name) is not None,
            others=says.others,
            run_name=self.run_in(save.name),
            order=order,
            weights=self.weights,
        )

    def _members(self, tree: Tree, save: _Save) -> list[Entry]:
        """Return the files of a save, with those of the folder that has the state of the training."""
        members: dict[Entry, None] = {}
        for entry in save.entries:
            members |= dict.fromkeys(tree.with_contents(entry))
            state = tree.get(stem_of(entry.path) + self.state)
            if self.state and state:
                members |= dict.fromkeys(tree.with_contents(state))
        return list(members)

    def _says(self, tree: Tree, entry: Entry) -> NameSays:
        """Return what the trainer's record says of a checkpoint; else its name, or the name of the file that it links
        to."""
        says = self._said_by(entry.name)
        if not says.is_counted:
            says = says.with_counts_of(self._said_by(entry.real.rpartition("/")[2]))
        return says.with_counts_of(self.record(tree, entry.path))

    def _said_by(self, name: str) -> NameSays:
        match = self._match(name)
        if match is None:
            return NameSays()
        says = what_name_says(stem_of(name))
        groups = match.groupdict()
        if groups.keys().isdisjoint(("step", "epoch")):
            return says
        return replace(says, step=parse_count(groups.get("step")), epoch=parse_count(groups.get("epoch")))


def find_or_itself(pattern: Pattern, marks: tuple[str, ...], tree: Tree, base: str) -> Found | None:
    """The checkpoints in a folder; or the folder itself, if one of the files ``marks`` in it shows that it is one."""
    found = pattern.find(tree, base)
    if found is None and any(tree.is_file(join(base, mark)) for mark in marks):
        return Found((checked(tree, Checkpoint(FINAL, base, tree.below(base))),))
    return found


def finished_model(
    tree: Tree, base: str, model: str, checkpoints: Iterable[Checkpoint], *, weights: str = NO_NAME
) -> list[Checkpoint]:
    """The model that lies in ``base`` beside the ``checkpoints`` and the folders of checkpoints; empty if no file there
    matches ``model``, which may be a marker alone. ``weights`` as those of a `Pattern`."""
    files = tree.files_named(base, matching(model))
    if not files:
        return []
    taken = paths_of(checkpoints) | {folder.path for folder in named_folders(tree, base)}
    final = Checkpoint(FINAL, base, tree.all_but(base, taken), weights=weights)
    return [checked(tree, final, why_cut_without_suffix(tree, files))]


def _matching(tree: Tree, folder: str, globs: tuple[str, ...]) -> list[Entry]:
    """Return what is directly in a folder and matches one of the globs."""
    return [child for child in tree.children(folder) if matches(child.name, globs)]


def _group(match: re.Match[str], group: str) -> str:
    """Return what a group matched; "" if it matched nothing, or if there is no such group."""
    return match.groupdict().get(group) or ""


def _shared_name(match: re.Match[str]) -> str:
    """Return what the checkpoint is called that several files are: by their group ``name``, else as they are without
    their ``piece`` and their variants; "" if a name has none of these."""
    name = _group(match, "name")
    if name:
        return name
    without = match.string
    for group in reversed(list(match.re.groupindex)):
        if group.startswith(("piece", "variant")) and match[group]:
            without = without[: match.start(group)] + without[match.end(group) :]
    return without if without != match.string else ""


def _display_order(checkpoints: Sequence[Checkpoint]) -> Callable[[Checkpoint], tuple[object, ...]]:
    """Return a sort key: those with numbers by these, as far as they compare; then the best, the others, the last."""
    axes = common_axes([checkpoint for checkpoint in checkpoints if checkpoint.is_counted and checkpoint.last is None])

    def key(checkpoint: Checkpoint) -> tuple[object, ...]:
        return (
            _display_group(checkpoint),
            checkpoint.last or 0,
            checkpoint.counts_on(axes),
            checkpoint.order,
            checkpoint.counts_on(["step", "epoch"]),
            natural_key(stem_of(checkpoint.name)),
            checkpoint.name,
        )

    return key


def _display_group(checkpoint: Checkpoint) -> int:
    if checkpoint.last is not None:
        return 3
    if checkpoint.is_counted:
        return 0
    if checkpoint.is_derived:
        return 4
    return 1 if checkpoint.says_best else 2
