"""Selection: what of a run goes into an archive. Every path is checked, and what is left out has a reason."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

from mdl.archive.held_secrets import HeldSecret, held_secret
from mdl.archive.manifest import NAME, Manifest, Skipped, is_step
from mdl.errors import NotFound, ProtocolError, StorageError, Unsafe, UsageError
from mdl.formatting import counted, human_bytes, listed
from mdl.paths import RelPath, matching, refuse_twin_folders, refuse_twins, shown
from mdl.runs import companions_of, inference_files
from mdl.runs.checkpoint import FINAL, Checkpoint
from mdl.runs.completeness import why_cut, why_incomplete, why_parts_are_missing
from mdl.runs.known_layouts import ADAPTER_CONFIG, base_model_note
from mdl.runs.run import Run
from mdl.runs.tree import Entry, Tree, folders_above, join
from mdl.values import small_value_class, value_class
from mdl.weights.junk import is_log
from mdl.weights.known_formats import is_weights

_NAMED = 5
"""How many of several names a message gives."""
A_CHECKPOINT = "a checkpoint beside the finished model"
"""Why it is left out; a note counts these."""
_DATA_SUFFIXES = {
    "recording": "wav flac mp3 ogg opus m4a aac aiff wma",
    "picture": "png jpg jpeg webp bmp gif tif tiff",
    "video": "mp4 mkv webm avi mov",
    "table": "csv tsv parquet arrow feather jsonl tfrecord lmdb",
}
_DATA = {suffix: kind for kind, suffixes in _DATA_SUFFIXES.items() for suffix in suffixes.split()}
"""What a file of a data set is, by its suffix."""
_NEEDED = re.compile(
    r".*(config|tokenizer|vocab|merges|special_tokens|added_tokens|hparams|processor|chat_template).*"
    r"|args\.ya?ml|.+\.(py|model|index\.json)|model_index\.json"
)
"""Names of small files that a model is loaded with."""
_INCOMPLETE = "wait until the trainer has written it, or pack it as it is with --allow-incomplete"
_SUMMARY = re.compile(
    r"trainer_state\.json|train_state\.json|results\.csv|learnable_snr\.json|(all|train|eval|test|predict)_results\.json|hparams\.yaml|args\.yaml"
)


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


def select(
    run: Run,
    checkpoint: Checkpoint | None,
    rules: PackRules,
    own: Collection[str] = (),
    passed_over: Iterable[Checkpoint] = (),
) -> Selection:
    """Choose what goes into the archive of a checkpoint, or of the run's model if that is None.

    ``own`` are real paths of archives of this run, which are never packed. ``passed_over`` are the incomplete
    checkpoints that are newer than ``checkpoint``. Raises `NotFound` if nothing is left, `Unsafe` for a path or a
    link, `StorageError` for files that cannot be read, `ProtocolError` for an incomplete checkpoint.
    """
    if checkpoint is None and not rules.are_of_files:
        run.check_recognised()
    taken = checkpoint.name if checkpoint else "the model"
    skipped = []
    for newer in passed_over:
        state = f"not complete: {newer.note}" if newer.note else "not complete"
        skipped.append(Skipped(shown(newer.name), shown(f"{state}; {taken} is taken")))
    selecting = _Selecting(run, checkpoint, rules, own, skipped)
    added = selecting.left_out_by_name() if rules.include else frozenset()
    if rules.allow_secrets and not added:
        what = "--allow-secrets packs a file that is left out because it holds a secret, and none is named"
        raise UsageError(what, hint="name each with --include NAME")
    narrowing = [pattern for pattern in rules.include if pattern not in added]
    selecting = _Selecting(run, checkpoint, replace(rules, include=narrowing), own, skipped, added)
    return selecting.select()


def _below(base: str, path: str) -> str:
    """The path of something in ``base``, as it is named in the archive."""
    return path.removeprefix(f"{base}/") if base else path


def _may_be_log(entry: Entry) -> bool:
    """Tell whether an entry is a log, or sums one up; an unreadable folder may hold logs."""
    if entry.kind in ("folder", "unreadable"):
        return entry.kind == "unreadable"
    return is_log(entry.name) or _SUMMARY.fullmatch(entry.name) is not None


@dataclass
class _Selecting:
    """One selection in the making. ``added`` are the names of files that are packed though they would be left out."""

    run: Run
    checkpoint: Checkpoint | None
    rules: PackRules
    own: Collection[str]
    skipped: list[Skipped]
    added: Collection[str] = ()
    notes: list[str] = field(default_factory=list)
    escaping: list[tuple[str, Entry]] = field(default_factory=list)
    unreadable: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tree = self.run.tree
        self.item = str(self.run.tree.root)
        self.root = os.path.join(self.item, "")
        self.own = {path.removeprefix(self.root) for path in self.own}
        is_finished_model = self.checkpoint is None or self.checkpoint.name == FINAL
        self.without_logs = is_finished_model and not self.rules.logs and not self.rules.whole_run

    def select(self) -> Selection:
        self._refuse_incomplete()
        base, entries = self._candidates()
        beside = self._companions(base)
        members = self._members(base, [*entries, *self._added_entries(base, entries)])
        members += self._beside(members, beside)
        members.sort(key=lambda member: member.path.text)
        self._refuse_unreadable_and_escaping()
        folders = [member for member in members if member.is_folder]
        files = self._without_secrets([member for member in members if not member.is_folder])
        self._note_base_models(files)
        self._note_data(files)
        if not files:
            raise self._nothing()
        members = sorted([*files, *folders], key=lambda member: member.path.text)
        paths = [RelPath(NAME), *(member.path for member in files)]
        refuse_twins(paths)
        refuse_twin_folders(paths, [member.path for member in folders])
        if self.rules.whole_run and not (self.run.is_recognised and self.run.checkpoints):
            weights = sum(is_weights(member.path.name) for member in files)
            count = counted(len(files), "file")
            self.notes.append(f"no model is recognised: all {count} are packed, {weights:,} of them weights")
        manifest = self._manifest(self._check_truncated(files))
        size = sum(member.size for member in files)
        return Selection(self.tree, tuple(members), manifest, tuple(self.skipped), tuple(self.notes), size)

    def _manifest(self, incomplete: tuple[str, ...]) -> Manifest:
        """The manifest, whose files are known once they were read."""
        checkpoint = self.checkpoint
        step = checkpoint.step if checkpoint else None
        return Manifest(
            files=(),
            run=self.run.name,
            checkpoint=checkpoint.name if checkpoint else "",
            step=step if is_step(step) else None,
            layout=self.run.layout,
            inference_only=self.rules.inference_only,
            incomplete=incomplete,
        )

    def left_out_by_name(self) -> frozenset[str]:
        """The patterns of ``include`` that are the very name of a file that would be left out without them."""
        usual = _Selecting(self.run, self.checkpoint, replace(self.rules, include=()), self.own, [])
        base, entries = usual._candidates()
        packed = {member.path.text: member.entry for member in usual._members(base, entries)}
        left_out = set()
        for name in self.rules.include:
            entry = self.tree.find(join(base, name))
            if entry is None or entry.kind not in ("file", "excluded", "unreadable"):
                continue
            if name not in packed or held_secret(self.tree, packed[name]):
                left_out.add(name)
        return frozenset(left_out)

    def _added_entries(self, base: str, entries: Iterable[Entry]) -> list[Entry]:
        """Return what is packed by name besides these entries."""
        there = {entry.path for entry in entries}
        paths = [join(base, name) for name in sorted(self.added)]
        added = [self.tree.find(path) for path in paths if path not in there]
        return list(filter(None, added))

    def _members(self, base: str, entries: Iterable[Entry]) -> list[Member]:
        """The members that these entries become, sorted by name."""
        members = [self._member(entry, _below(base, entry.path)) for entry in entries]
        return sorted(filter(None, members), key=lambda member: member.path.text)

    def _without_secrets(self, members: list[Member]) -> list[Member]:
        """The members without those that hold a secret, which are listed; unless they are named, and that is allowed.
        Weights are no place for secrets, and no model is one without them: they stay, and are named."""
        kept = []
        for member in members:
            held = held_secret(self.tree, member.entry)
            if held is None or self._is_packed_with(member, held):
                kept.append(member)
        return kept

    def _is_packed_with(self, member: Member, held: HeldSecret) -> bool:
        """Tell whether a member is packed though it holds a secret, and note or list it."""
        name = member.path.text
        holds = f"holds what looks like {held.kind}"
        if held.is_in_weights:
            self.notes.append(f"{shown(name)} {holds}, and is packed, for it is weights")
            return True
        if self.rules.allow_secrets and name in self.added:
            self.notes.append(f"{shown(name)} {holds}, and is packed, as --allow-secrets says")
            return True
        needed = "; the model may not load without it" if _NEEDED.fullmatch(member.path.name) else ""
        way = f"--include {shown(name)} --allow-secrets packs it"
        self.skipped.append(Skipped(shown(name), f"{holds}{needed}; {way}"))
        return False

    def _companions(self, base: str) -> tuple[Entry, ...]:
        """Return what belongs to the checkpoint and lies beside or above it. Other forms of it are listed as left
        out."""
        if self.checkpoint is None or self.rules.logs:
            return ()  # all of a folder is packed, or a choice of it by name
        companions = companions_of(self.tree, self.checkpoint)
        for entry in companions.exports:
            name = _below(base, entry.path)
            if name not in self.added:
                way = f"--include {shown(name)} adds it" if entry.kind == "file" else "--all packs the whole folder"
                self.skipped.append(Skipped(shown(name), f"beside the weights, and of the same name; {way}"))
        return companions.along

    def _beside(self, members: Iterable[Member], beside: Iterable[Entry]) -> list[Member]:
        """The members that these entries become: by their own names, or by their paths below the run where a name is
        taken."""
        taken = {member.path.folded for member in members}
        there = {member.entry.path for member in members}
        more = []
        for entry in beside:
            if entry.path in there:
                continue
            name = entry.path if RelPath(entry.name).folded in taken else entry.name
            member = self._member(entry, name)
            if member is not None:
                taken.add(member.path.folded)
                more.append(member)
        return more

    def _note_base_models(self, members: Iterable[Member]) -> None:
        """Say of each adapter which model it needs."""
        notes: dict[str, None] = {}
        for member in members:
            if member.path.name == ADAPTER_CONFIG:
                folder = member.entry.path.rpartition("/")[0]
                notes[base_model_note(self.tree, folder)] = None
        self.notes += filter(None, notes)

    def _note_data(self, members: Iterable[Member]) -> None:
        """Say which data sets are packed as well, and what leaves them out."""
        counts = Counter[str]()
        globs: dict[str, None] = {}
        folders: dict[str, None] = {}
        size = 0
        for member in members:
            top, slash, _ = member.path.text.partition("/")
            suffix = member.path.name.rpartition(".")[2].lower()
            if suffix not in _DATA or not slash:
                continue
            counts[_DATA[suffix]] += 1
            folders[top] = None
            globs[f"{top}/*.{suffix}"] = None
            size += member.size
        if not counts:
            return
        what = " and ".join(counted(count, kind) for kind, count in sorted(counts.items()))
        flags = " ".join(f"--exclude {shlex.quote(shown(glob))}" for glob in sorted(globs)[:_NAMED])
        where = listed([shown(folder) for folder in sorted(folders)], most=_NAMED)
        self.notes.append(f"packed as well: {what}, {human_bytes(size)}, in {where}; {flags} leaves them out")

    def _refuse_incomplete(self) -> None:
        """Refuse a checkpoint that lacks bytes, and a model that lacks one of its shards; if only a trainer's last mark
        is missing, note that."""
        checkpoint = self.checkpoint
        model = self._model()
        missing = why_parts_are_missing(self.tree, model.entries) if model else ""
        if model and missing:
            self._refuse(model, "the model", missing)
        elif checkpoint and not checkpoint.complete:
            self._refuse(checkpoint, "this checkpoint", why_incomplete(self.tree, checkpoint.entries))

    def _refuse(self, checkpoint: Checkpoint, what: str, why: str) -> None:
        """Raise `ProtocolError` if there is a reason ``why`` it lacks bytes and that is not allowed; else note it."""
        if why and not self.rules.allow_incomplete:
            raise ProtocolError(f"{what} is not complete: {why}", item=checkpoint.name, hint=_INCOMPLETE)
        self.notes.append(f"{checkpoint.name} is not complete: {why or checkpoint.note}")

    def _model(self) -> Checkpoint | None:
        """Return what is packed as the run's model if no checkpoint was named; None if not a model is asked for but
        what is there, as of a folder that no trainer's layout fits."""
        rows = self.run.checkpoints
        if self.checkpoint or self.rules.are_of_files or not self.run.is_recognised:
            return None
        has_model = len(rows) == 1 or (len(rows) > 1 and rows[-1].is_finished)
        return rows[-1] if has_model else None

    def _check_truncated(self, members: list[Member]) -> tuple[str, ...]:
        """The files of weights that are not whole, and so cannot be loaded; they are refused unless that is allowed."""
        truncated = {}
        for member in members:
            reason = why_cut(self.tree, member.entry)
            if reason:
                truncated[member.path.text] = reason
        if truncated and not self.rules.allow_incomplete:
            cut = listed([f"{shown(name)}: {reason}" for name, reason in truncated.items()], "; ", most=_NAMED)
            raise ProtocolError(f"not complete: {cut}", item=self.item, hint=_INCOMPLETE)
        return tuple(truncated)

    def _candidates(self) -> tuple[str, list[Entry]]:
        """The folder that names are relative to, and the entries below it that may be packed."""
        if self.rules.logs:
            return "", [entry for entry in self.tree.entries if _may_be_log(entry)]
        if self.rules.inference_only:
            return self._for_inference(self.checkpoint or self.run.finished())
        if self.checkpoint:
            return self.checkpoint.base, list(self.checkpoint.entries)
        return self.run.model_base, self._whole_model()

    def _for_inference(self, checkpoint: Checkpoint) -> tuple[str, list[Entry]]:
        """As `_candidates`, of what inference needs of a checkpoint."""
        files = inference_files(self.tree, checkpoint)
        self.skipped += [Skipped(checkpoint.relative(entry), why) for entry, why in files.drop]
        self.notes += files.notes
        unknown = [checkpoint.relative(entry) for entry in files.unknown if entry.kind == "file"]
        if unknown:
            self.notes.append(f"packed, though not known to be needed: {listed(unknown, most=_NAMED)}")
        return checkpoint.base, [*files.keep, *files.unknown]

    def _whole_model(self) -> list[Entry]:
        """Return what is packed if no checkpoint was named: the finished model; all there is if it has none, if all was
        asked for, or if globs choose."""
        run = self.run
        everything = list(self.tree.below(run.model_base))
        if self.rules.whole_run or self.rules.include:
            return everything
        model = run.model_beside_checkpoints
        if model is None:
            if len(run.checkpoints) > 1 and not run.model_base and run.latest:
                count = counted(len(run.checkpoints), "checkpoint")
                hint = f"--checkpoint {run.latest.name} packs the latest alone"
                self.notes.append(f"no finished model: all {count} are packed; {hint}")
            return everything
        others = run.checkpoints_outside(model)
        if not others:
            return everything
        theirs: set[str] = set()
        for row in others:
            self.skipped.append(Skipped(shown(row.name), A_CHECKPOINT))
            theirs |= row.paths
        theirs -= {"", *(entry.path for entry in model.entries)}
        count = counted(len(others), "checkpoint")
        size = human_bytes(sum(row.bytes for row in others))
        self.notes.append(f"left out: {count}, {size}; --all packs them, --checkpoint NAME one")
        return [entry for entry in self.tree.entries if theirs.isdisjoint((entry.path, *folders_above(entry.path)))]

    def _member(self, entry: Entry, name: str) -> Member | None:
        """The member that an entry becomes; None if it is left out."""
        kind = entry.kind
        if self._is_unwanted(entry, name):
            return None
        if kind == "escapes":
            self.escaping.append((name, entry))
            return None
        if kind == "folder":
            is_wanted = not self.rules.include and not self.rules.inference_only
            is_empty = not self.tree.children(entry.path)
            return Member(RelPath.parse(name), entry) if is_wanted and is_empty else None
        reason = self._why_left_out(entry, name)
        if reason:
            self.skipped.append(Skipped(shown(name), reason))
            return None
        if kind == "unreadable" or not os.access(self.root + entry.real, os.R_OK, follow_symlinks=False):
            self.unreadable.append(entry)
            return None
        return Member(RelPath.parse(name), entry)

    def _why_left_out(self, entry: Entry, name: str) -> str:
        """Return why a file that was asked for is left out all the same; "" if it is not."""
        if entry.kind == "special":
            return entry.why
        if entry.is_excluded_folder and name in self.added:
            return f"{entry.why}, and a folder: only files can be added"
        if name == NAME:
            return "the archive gets a new manifest"
        if name in self.added:
            return ""
        if entry.kind == "excluded":
            return entry.why
        if self.without_logs and is_log(entry.name):
            return "a log; --logs packs these"
        return ""

    def _is_unwanted(self, entry: Entry, name: str) -> bool:
        """Tell whether it is an archive of this run, or the user did not ask for it. An entry that may hold something
        wanted is not unwanted."""
        include = self.rules.include
        exclude = self.rules.exclude
        names = {name}
        if entry.kind != "file":
            names.add(f"{name}/")
        if entry.real in self.own or matching(names, exclude):
            return True
        if entry.kind in ("excluded", "unreadable") or not include or name in self.added:
            return False
        return not matching(names, include)

    def _refuse_unreadable_and_escaping(self) -> None:
        if self.unreadable:
            rows = [f"{shown(entry.path)}: {entry.why or 'not readable'}" for entry in self.unreadable]
            count = "1 entry" if len(rows) == 1 else f"{len(rows)} entries"
            message = "\n".join([f"{count} cannot be read", *rows])
            raise StorageError(message, item=self.item, hint="make them readable, or leave them out with --exclude")
        if self.escaping:
            links = [f"{shown(name)} is {shown(entry.why)}" for name, entry in self.escaping]
            hint = "leave it out with --exclude, or put the file itself there"
            raise Unsafe(f"a link leaves the run: {listed(links, '; ', most=_NAMED)}", item=self.item, hint=hint)

    def _nothing(self) -> NotFound:
        message = "there is no model in this run"
        hint = "'mdl checkpoints' shows what there is"
        if self.rules.logs:
            message = "there is no log in this run"
            hint = "logs are *.log, progress.json, event files …"
        elif self.rules.include or self.rules.exclude:
            message = "no file is left by --include and --exclude"
            hint = "-n shows what is packed"
        return NotFound(message, item=self.item, hint=hint)
