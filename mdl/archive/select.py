"""Selection: what of a run goes into an archive. Every path is checked, and what is left out has a reason."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, field, replace
from functools import partial

from mdl.archive.manifest import NAME, Manifest, Skipped
from mdl.archive.secret_scan import HeldSecret, held_secret
from mdl.errors import NotFound, ProtocolError, StorageError, Unsafe, UsageError
from mdl.formatting import counted, human_bytes, listed
from mdl.paths import RelPath, matches, matching, refuse_twin_folders, refuse_twins, shown
from mdl.runs import companions_of, inference_files
from mdl.runs.checkpoint import FINAL, MODEL_FOLDER, Checkpoint
from mdl.runs.completeness import (
    RESUME_GLOBS,
    is_index,
    is_model,
    why_cut_without_suffix,
    why_incomplete,
    why_parts_are_missing,
)
from mdl.runs.layout import CONFIGS, VOCABULARY, Companions
from mdl.runs.run import Run
from mdl.runs.trainers.hugging_face import ADAPTER_CONFIG, base_model_note
from mdl.runs.tree import Entry, Tree, is_in, join
from mdl.values import small_value_class, value_class
from mdl.weights.end_records import read_at
from mdl.weights.junk import is_log

_NAMED = 5
"""How many of several names a message gives."""
_BESIDE_FINISHED = "a checkpoint beside the finished model"
_BESIDE_FOLDER = f"a checkpoint beside {MODEL_FOLDER}/"
COUNTED = (_BESIDE_FINISHED, _BESIDE_FOLDER)
"""Why a checkpoint is left out; a note counts these."""
_DATA = {
    **dict.fromkeys(("wav", "flac", "mp3", "ogg", "opus", "m4a", "aac", "aiff", "wma"), "recording"),
    **dict.fromkeys(("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"), "picture"),
    **dict.fromkeys(("mp4", "mkv", "webm", "avi", "mov"), "video"),
    **dict.fromkeys(("csv", "tsv", "parquet", "arrow", "feather", "jsonl", "tfrecord", "lmdb"), "table"),
}
"""What a file of a data set is, by its suffix."""
_NEEDED = (*CONFIGS, *VOCABULARY)
_INCOMPLETE = "wait until the trainer has written it, or pack it as it is with --allow-incomplete"
_SUMMARY = re.compile(
    r"trainer_state\.json|train_state\.json|results\.csv|learnable_snr\.json|hparams\.yaml|args\.yaml"
    r"|(all|train|eval|test|predict)_results\.json"
)
"""What sums up a training, and is packed with its logs."""
_MAY_HOLD_MORE = ("excluded", "unreadable")
"""Kinds of entries that may be folders, in which something is that was asked for."""


@value_class
class PackRules:
    """Which files of a run or a checkpoint are packed.

    ``include`` and ``exclude`` are globs for the names in the archive. An ``include`` that is the very name of a file
    that would be left out adds that file; any other narrows what is packed. ``inference_only`` leaves out what only a
    resumed training reads; ``logs`` packs the logs and nothing else. ``allow_incomplete`` also packs a checkpoint that
    lacks bytes; ``whole_run`` packs the checkpoints beside the finished model too; ``allow_secrets`` packs a file that
    holds a secret if ``include`` has its name.
    """

    _: KW_ONLY
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    inference_only: bool = False
    logs: bool = False
    allow_incomplete: bool = False
    whole_run: bool = False
    allow_secrets: bool = False

    @property
    def are_of_files(self) -> bool:
        """Whether files are asked for, whatever they are, and not a model."""
        return self.logs or self.whole_run or len(self.include) > 0


@small_value_class
class Member:
    """One name in the archive, and the file, or the empty folder, for it."""

    path: RelPath
    entry: Entry

    @property
    def is_folder(self) -> bool:
        return self.entry.kind == "folder"

    @property
    def size(self) -> int:
        """Its size in bytes, uncompressed."""
        return self.entry.stamp.size


@value_class
class Selection:
    """What is packed. ``manifest`` says where the members come from; its files are known only after they were read.
    ``bytes`` is the size of all members, uncompressed."""

    tree: Tree
    members: tuple[Member, ...]
    manifest: Manifest
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    bytes: int = field(default=0)

    @property
    def file_count(self) -> int:
        """How many members are files; the others are empty folders."""
        return sum(not member.is_folder for member in self.members)


def select(
    run: Run,
    checkpoint: Checkpoint | None,
    rules: PackRules,
    own: Collection[str] = (),
    passed_over: Iterable[Checkpoint] = (),
    output: str = "",
) -> Selection:
    """Choose what goes into the archive of a checkpoint, or of the run's model if that is None.

    ``own`` are real paths of archives of this run, and ``output`` is the one that is to be written: none of them is
    packed, and the others are noted. ``passed_over`` are the incomplete
    checkpoints that are newer than ``checkpoint``. Raises `NotFound` if nothing is left, `Unsafe` for a path or a
    link, `StorageError` for files that cannot be read, `ProtocolError` for an incomplete checkpoint.
    """
    is_of_model = checkpoint is None and not rules.are_of_files
    if is_of_model:
        run.check_recognised()
    added = _left_out_by_name(run, checkpoint, rules)
    if rules.allow_secrets and not added:
        what = "--allow-secrets packs a file that is left out because it holds a secret, and none is named"
        raise UsageError(what, hint="name each with --include NAME")
    narrowing = [pattern for pattern in rules.include if pattern not in added]
    rules = replace(rules, include=narrowing)
    selecting = _Selecting(run.tree, rules, added, own, output)
    manifest = Manifest((), run=run.name, layout=run.layout, inference_only=rules.inference_only)
    if checkpoint:
        manifest = replace(manifest, checkpoint=checkpoint.name, step=checkpoint.step)
        for newer in passed_over:
            selecting.pass_over(newer, checkpoint)
        selecting.check_complete(checkpoint)
    if is_of_model:
        for packed in [run.finished_or_only] if run.finished_or_only else run.model_checkpoints:
            if selecting.asks_for(packed, packed.base if rules.inference_only else run.model_base):
                selecting.check_parts(packed)
    selecting.add_all(_scope_of(run, checkpoint, rules))
    selecting.check_all()
    if rules.whole_run and not (run.is_recognised and run.checkpoints):
        selecting.note_unrecognised()
    return selecting.selection(manifest)


# What may be packed


@value_class
class _Scope:
    """What may be packed: the ``entries``, whose names in the archive are relative to ``base``, and the ``companions``
    of the checkpoint that they are. ``with_logs``: logs are packed too. ``skipped`` is what was left out already, by
    name and reason, and ``notes`` tell a user about that."""

    base: str
    entries: Sequence[Entry]
    companions: Companions = Companions()
    with_logs: bool = False
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def name_of(self, entry: Entry) -> str:
        """The name of an entry in the archive."""
        return entry.path.removeprefix(f"{self.base}/")

    def why_left_out(self, name: str, entry: Entry) -> str:
        """Return why a file that was asked for is left out all the same; "" if it is not."""
        if entry.kind in ("folder", "escapes"):
            return ""
        if entry.kind in ("special", "excluded"):
            return entry.why
        if name == NAME:
            return "the archive gets a new manifest"
        if is_log(entry.name) and not self.with_logs:
            return "a log; --logs packs these"
        return ""


def _scope_of(run: Run, checkpoint: Checkpoint | None, rules: PackRules) -> _Scope:
    if rules.logs:
        return _Scope("", [entry for entry in run.tree.entries if _may_be_log(entry)], with_logs=True)
    if rules.inference_only:
        return _inference_scope(run, checkpoint)
    if checkpoint:
        companions = companions_of(run.tree, checkpoint)
        return _Scope(checkpoint.base, checkpoint.entries, companions, with_logs=checkpoint.name != FINAL)
    if rules.whole_run:
        return _Scope("", run.tree.below(), with_logs=True)
    everything = _Scope(run.model_base, run.tree.below(run.model_base))
    if rules.include:
        return everything
    if run.model_base and run.finished_or_only:
        everything = replace(everything, companions=companions_of(run.tree, run.finished_or_only))
    return _model_scope(run, everything)


def _may_be_log(entry: Entry) -> bool:
    """Tell whether an entry is a log, or sums one up; an unreadable folder may hold logs."""
    if entry.kind == "folder":
        return False
    return entry.kind == "unreadable" or is_log(entry.name) or _SUMMARY.fullmatch(entry.name) is not None


def _inference_scope(run: Run, named: Checkpoint | None) -> _Scope:
    """What inference needs of a checkpoint, or of the finished model if none is named."""
    checkpoint = named or run.finished()
    files = inference_files(run.tree, checkpoint)
    skipped = tuple((checkpoint.relative(entry), why) for entry, why in files.drop)
    notes = files.notes
    with_logs = checkpoint.name != FINAL
    unknown = []
    for entry in files.unknown:
        if entry.kind == "file" and (with_logs or not is_log(entry.name)):
            unknown.append(checkpoint.relative(entry))
    if unknown:
        notes = (*notes, f"packed, though not known to be needed: {listed(unknown, most=_NAMED)}")
    return _Scope(
        checkpoint.base,
        [*files.keep, *files.unknown],
        companions_of(run.tree, checkpoint),
        with_logs=with_logs,
        skipped=skipped,
        notes=notes,
    )


def _model_scope(run: Run, everything: _Scope) -> _Scope:
    """The run's model without what lies beside it; all there is if there are only checkpoints."""
    beside = run.beside_model
    notes = []
    if beside.checkpoints:
        size = human_bytes(sum(checkpoint.bytes for checkpoint in beside.checkpoints))
        count = counted(len(beside.checkpoints), "checkpoint")
        notes.append(f"left out: {count}, {size}; --all packs them, --checkpoint NAME one")
    if beside.runs:
        runs = listed([f"{shown(path)} ({counted(count, 'checkpoint')})" for path, count in beside.runs], most=_NAMED)
        pack = shlex.join(["mdl", "pack", shown(str(run.tree.root / beside.runs[0][0]))])
        notes.append(f"left out: {runs}; --all packs the folder as it is, {pack} that run")
    if run.finished_or_only is None and len(run.model_checkpoints) > 1:
        count = counted(len(run.model_checkpoints), "checkpoint")
        hint = "--checkpoint NAME packs one"
        if run.latest in run.model_checkpoints:
            hint = f"--checkpoint {run.latest.name} packs the latest alone"
        notes.append(f"no finished model: all {count} are packed; {hint}")
    names = [*(checkpoint.name for checkpoint in beside.checkpoints), *(path for path, _ in beside.runs)]
    why = _BESIDE_FINISHED if run.finished_or_only else _BESIDE_FOLDER
    skipped = [(name, why) for name in names]
    if run.model_base:
        told = {run.model_base, *beside.paths}
        for entry in run.tree.entries:
            if entry.kind == "file" and is_model(entry, entry.path) and not is_in(entry.path, told):
                skipped.append((entry.path, f"weights beside {shown(run.model_base)}/; --all packs them"))
    return replace(
        everything,
        entries=[entry for entry in everything.entries if not is_in(entry.path, beside.paths)],
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def _left_out_by_name(run: Run, checkpoint: Checkpoint | None, rules: PackRules) -> dict[str, Entry]:
    """Return the patterns of ``include`` that are the very name of a file that would be left out without them, each
    with that file. A name is looked for below what is packed first, then below the run's folder."""
    left_out: dict[str, Entry] = {}
    if not rules.include:
        return left_out
    scope = _scope_of(run, checkpoint, replace(rules, include=()))
    usual = {entry.path for entry in (*scope.entries, *scope.companions.along)}
    for name in rules.include:
        entry = run.tree.find(join(scope.base, name)) or run.tree.find(name)
        if entry is None or entry.kind not in ("file", "excluded", "unreadable"):
            continue
        is_packed = entry.path in usual and entry.kind == "file" and not scope.why_left_out(name, entry)
        if not is_packed or _secret_of(run.tree, entry):
            left_out[name] = entry
    return left_out


def _secret_of(tree: Tree, entry: Entry) -> HeldSecret | None:
    """Return the secret that a file holds; None if none is seen, or if the file cannot be read any more, which is left
    to the writer. Weights that are no pickle are not looked at."""
    kind = entry.weights_kind
    is_model = False
    if kind and not matches(entry.name, RESUME_GLOBS):
        if kind.loaded_with != "torch":
            return None
        is_model = True
    with suppress(OSError), tree.opened(entry, strict=False) as file:
        if file:
            size = os.fstat(file.fileno()).st_size
            return held_secret(partial(read_at, file), size, is_model=is_model)
    return None


# What becomes of it


class _Selecting:
    """One selection in the making. ``added`` are the files that are packed though they would be left out, by name."""

    def __init__(
        self, tree: Tree, rules: PackRules, added: Mapping[str, Entry], own: Collection[str], output: str
    ) -> None:
        self._tree = tree
        self._rules = rules
        self._added = added
        self._narrowing = rules.include or ["*"]
        self._packs_empty_folders = not rules.include and not rules.inference_only
        self._item = str(tree.root)
        root = os.path.join(self._item, "")
        self._own = {path.removeprefix(root) for path in own}
        self._output = output.removeprefix(root)
        self._members: dict[str, Member] = {}
        self._skipped: list[Skipped] = []
        self._notes: list[str] = []
        self._escaping: list[str] = []
        self._unreadable: list[str] = []

    def selection(self, manifest: Manifest) -> Selection:
        """Return what was chosen. ``manifest`` says where it comes from. Raises `ProtocolError` for truncated files."""
        members = sorted(self._members.values(), key=lambda member: member.path.text)
        manifest = replace(manifest, incomplete=self._truncated(members))
        size = sum(member.size for member in members)
        return Selection(self._tree, tuple(members), manifest, tuple(self._skipped), tuple(self._notes), size)

    def _skip(self, name: str, why: str) -> None:
        self._skipped.append(Skipped(shown(name), why))

    def pass_over(self, newer: Checkpoint, taken: Checkpoint) -> None:
        """List an incomplete checkpoint that is newer than the one that is ``taken``."""
        self._skip(newer.name, shown(f"not complete: {newer.note}; {taken.name} is taken"))

    def check_complete(self, checkpoint: Checkpoint) -> None:
        """Refuse a checkpoint that lacks bytes; if only a trainer's last mark is missing, note that. Raises
        `ProtocolError`."""
        if not checkpoint.complete:
            why = why_incomplete(self._tree, checkpoint.entries) or self._why_cut(checkpoint)
            self._refuse_incomplete(checkpoint, "this checkpoint", why)

    def asks_for(self, packed: Checkpoint, base: str) -> bool:
        """Tell whether the globs leave any of a checkpoint's weights in, or any of its files if it has no weights. The
        names in the archive are relative to ``base``."""
        scope = _Scope(base, [entry for entry in packed.files if packed.is_of_model(entry)] or packed.files)
        return any(self._is_asked_for(scope.name_of(entry), entry) for entry in scope.entries)

    def check_parts(self, packed: Checkpoint) -> None:
        """Refuse a model, or one of the checkpoints that are packed together, that lacks one of its shards, or is cut
        though its suffix does not tell that it is one; if anything else is missing, note that. Raises
        `ProtocolError`."""
        missing = why_parts_are_missing(self._tree, packed.entries)
        if not missing and not packed.complete:
            missing = self._why_cut(packed)
        if missing or not packed.complete:
            what = "the model" if packed.is_finished else "this checkpoint"
            self._refuse_incomplete(packed, what, missing)

    def _why_cut(self, checkpoint: Checkpoint) -> str:
        return why_cut_without_suffix(self._tree, filter(checkpoint.is_weights, checkpoint.entries))

    def _refuse_incomplete(self, packed: Checkpoint, what: str, why: str) -> None:
        """Raise `ProtocolError` if there is a reason ``why`` it lacks bytes and that is not allowed; else note it."""
        if why and not self._rules.allow_incomplete:
            raise ProtocolError(f"{what} is not complete: {why}", item=packed.name, hint=_INCOMPLETE)
        self._notes.append(f"{packed.name} is not complete: {why or packed.note}")

    def add_all(self, scope: _Scope) -> None:
        """Add what of a scope is wanted, what is added by name, and the companions."""
        self._notes += scope.notes
        for name, why in scope.skipped:
            self._skip(name, why)
        for name, entry in self._added.items():
            self._add_by_name(name, entry)
        for entry in scope.entries:
            name = scope.name_of(entry)
            if name not in self._added:
                self._add(name, entry, scope)
        self._add_companions(scope)

    def _add_companions(self, scope: _Scope) -> None:
        """Add what belongs to the checkpoint and lies beside or above it: by its own name, or by its path below the
        run where that name is taken. Other forms of the checkpoint are left out."""
        in_scope = {entry.path for entry in scope.entries}
        for entry in scope.companions.exports:
            name = scope.name_of(entry)
            if name not in self._added and entry.path not in in_scope:
                way = f"--include {shown(name)} adds it" if entry.kind == "file" else "--all packs the complete folder"
                self._skip(name, f"beside the weights, and of the same name; {way}")
        there = {member.entry.path for member in self._members.values()}
        for entry in scope.companions.along:
            if entry.path not in there:
                name = entry.path if RelPath(entry.name).folded in self._members else entry.name
                self._add(name, entry, scope)

    # One entry

    def _add(self, name: str, entry: Entry, scope: _Scope) -> None:
        """Make an entry a member; or note why it is left out, or why nothing can be packed as long as it is there."""
        if entry.real == self._output or not self._is_asked_for(name, entry):
            return
        why = scope.why_left_out(name, entry)
        if entry.real in self._own:  # no part of the manifest: the same files make the same archive
            self._notes.append(f"left out: {shown(name)}, an archive that mdl made of this run")
        elif why:
            self._skip(name, why)
        elif entry.kind == "escapes":
            self._escaping.append(f"{shown(name)} is {shown(entry.why)}")
        elif entry.kind != "folder":
            self._put_readable(name, entry)
        elif self._packs_empty_folders and not self._tree.children(entry.path):
            self._put(name, entry)

    def _is_asked_for(self, name: str, entry: Entry) -> bool:
        """Tell whether the globs leave an entry in."""
        names = {name}
        if entry.kind != "file":
            names.add(f"{name}/")
        if matching(names, self._rules.exclude):
            return False
        return entry.kind in _MAY_HOLD_MORE or bool(matching(names, self._narrowing))

    def _add_by_name(self, name: str, entry: Entry) -> None:
        """Add a file that would be left out, for ``include`` has its very name."""
        if name == NAME:
            self._skip(name, "the archive gets a new manifest")
        elif entry.is_excluded_folder:
            self._skip(name, f"{entry.why}, and a folder: only files can be added")
        elif not matches(name, self._rules.exclude):
            self._put_readable(name, entry)

    def _put_readable(self, name: str, entry: Entry) -> None:
        place = os.path.join(self._item, entry.real)
        if entry.kind == "unreadable" or not os.access(place, os.R_OK, follow_symlinks=False):
            self._unreadable.append(f"{shown(entry.path)}: {entry.why or 'not readable'}")
        else:
            self._put(name, entry)

    def _put(self, name: str, entry: Entry) -> None:
        member = Member(RelPath.parse(name), entry)
        key = member.path.folded
        if key in self._members:
            refuse_twins([self._members[key].path, member.path])
        self._members[key] = member

    # All of them

    def check_all(self) -> None:
        """Leave out what holds a secret, and tell what else a user should know of the members.

        Raises `StorageError` for what cannot be read, `Unsafe` for links and names, `NotFound` if nothing is left.
        """
        if self._unreadable:
            message = "\n".join([f"{counted(len(self._unreadable), 'path')} cannot be read", *self._unreadable])
            raise StorageError(message, item=self._item, hint="make them readable, or leave them out with --exclude")
        if self._escaping:
            hint = "leave it out with --exclude, or put the file itself there"
            links = listed(self._escaping, "; ", most=_NAMED)
            raise Unsafe(f"a link leaves the run: {links}", item=self._item, hint=hint)
        files = []
        folders = []
        for key, member in sorted(self._members.items()):
            if member.is_folder:
                folders.append(member.path)
            elif self._may_be_packed(member):
                files.append(member)
            else:
                del self._members[key]
        if not files:
            raise self._nothing()
        paths = [RelPath(NAME), *(member.path for member in files)]
        refuse_twins(paths)
        refuse_twin_folders(paths, folders)
        self._notes += [*_base_model_notes(self._tree, files), *_data_notes(files)]

    def note_unrecognised(self) -> None:
        """Say that all of a folder is packed in which no model is recognised."""
        files = [member.entry for member in self._members.values() if not member.is_folder]
        weights = sum(file.is_weights for file in files)
        count = counted(len(files), "file")
        self._notes.append(f"no model is recognised: all {count} are packed, {weights:,} of them weights")

    def _may_be_packed(self, member: Member) -> bool:
        """Tell whether a file holds no secret, or is packed all the same; then that is noted. Weights are no place for
        secrets, and no model is one without them: they are packed."""
        held = _secret_of(self._tree, member.entry)
        if held is None:
            return True
        name = member.path.text
        holds = f"holds what looks like {held.kind}"
        if held.is_in_weights:
            self._notes.append(f"{shown(name)} {holds}, and is packed, for it is weights")
            return True
        if self._rules.allow_secrets and name in self._added:
            self._notes.append(f"{shown(name)} {holds}, and is packed, as --allow-secrets says")
            return True
        if matches(member.path.name, _NEEDED):
            holds += "; the model may not load without it"
        self._skip(name, f"{holds}; --include {shown(name)} --allow-secrets packs it")
        return False

    def _truncated(self, members: list[Member]) -> tuple[str, ...]:
        """The files of weights that are not whole, or of which other parts are missing, and so cannot be loaded. The
        first are refused unless that is allowed."""
        truncated = {}
        for member in members:
            lacks = self._tree.contents(member.entry).lacks
            if lacks:
                truncated[member.path.text] = f"{shown(member.path.text)}: {lacks}"
        if truncated and not self._rules.allow_incomplete:
            cut = listed(list(truncated.values()), "; ", most=_NAMED)
            raise ProtocolError(f"not complete: {cut}", item=self._item, hint=_INCOMPLETE)
        incomplete = set(truncated)
        if self._rules.allow_incomplete and why_parts_are_missing(self._tree, [member.entry for member in members]):
            incomplete.update(
                member.path.text for member in members if member.entry.is_weights or is_index(member.entry)
            )
        return tuple(sorted(incomplete))

    def _nothing(self) -> NotFound:
        message = "there is no model in this run"
        hint = "'mdl checkpoints' shows what there is"
        if self._rules.logs:
            message = "there is no log in this run"
            hint = "logs are *.log, progress.json, event files …"
        elif self._rules.include or self._rules.exclude:
            message = "no file is left by --include and --exclude"
            hint = "-n shows what is packed; --all takes from the complete folder"
        return NotFound(message, item=self._item, hint=hint)


# Notes


def _base_model_notes(tree: Tree, members: Iterable[Member]) -> list[str]:
    """Return which model each adapter needs."""
    notes: dict[str, None] = {}
    for member in members:
        if member.path.name == ADAPTER_CONFIG:
            folder = member.entry.folder
            notes[base_model_note(tree, folder)] = None
    notes.pop("", None)
    return list(notes)


def _data_notes(members: Iterable[Member]) -> list[str]:
    """Return which data sets are packed as well, and what leaves them out."""
    counts = Counter[str]()
    globs = set()
    folders = set()
    size = 0
    for member in members:
        top, slash, _ = member.path.text.partition("/")
        suffix = member.path.name.rpartition(".")[2].lower()
        kind = _DATA.get(suffix)
        if kind and slash:
            counts[kind] += 1
            folders.add(shown(top))
            globs.add(shlex.quote(shown(f"{top}/*.{suffix}")))
            size += member.size
    if not counts:
        return []
    what = " and ".join(counted(count, kind) for kind, count in sorted(counts.items()))
    flags = " ".join(f"--exclude {glob}" for glob in sorted(globs)[:_NAMED])
    where = listed(sorted(folders), most=_NAMED)
    return [f"packed too: {what}, {human_bytes(size)}, in {where}; {flags} leaves them out"]
