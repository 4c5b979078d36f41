"""Selection: what of a run goes into an archive. Every path is checked, and what is left out has a reason."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from mdl.archive.manifest import NAME, Manifest, Skipped, is_step
from mdl.errors import NotFound, ProtocolError, StorageError, Unsafe
from mdl.paths import RelPath, matches, refuse_twin_folders, refuse_twins, shown
from mdl.trainers import inference_files
from mdl.trainers.completeness import truncated_safetensors, why_incomplete
from mdl.trainers.runs import FINAL, Checkpoint, Run
from mdl.trainers.tree import Entry, Tree

_NAMED = 5
"""How many of several names a message gives."""
_INCOMPLETE = "wait until the trainer has written it, or pack it as it is with --allow-incomplete"
_LOGS = re.compile(
    r".+\.log(\.\d+)?|(.+_)?log\.txt|trainer_log\.jsonl|progress\.json|log_history\.json"
    r"|events\.out\.tfevents\..+|metrics\.(csv|jsonl?)|loss\.(csv|jsonl?)"
)
_STATE = re.compile(
    r"trainer_state\.json|train_state\.json|results\.csv|learnable_snr\.json|(all|train|eval|test|predict)_results\.json|hparams\.yaml|args\.yaml"
)


def is_only_log(name: str) -> bool:
    """Whether a file of this name is a log and nothing else, so that a model does not need it."""
    return _LOGS.fullmatch(name) is not None


def _is_log(name: str) -> bool:
    """Whether a file belongs into a zip of the logs: what was written while training, and what sums it up."""
    return is_only_log(name) or _STATE.fullmatch(name) is not None


@dataclass(frozen=True)
class PackOptions:
    """What of a run is packed. Globs are matched with the names in the archive; ``allow_incomplete`` also packs a
    checkpoint of which bytes are missing."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    inference_only: bool = False
    logs: bool = False
    allow_incomplete: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """One name in the archive, and the file for it; None for an empty folder."""

    path: RelPath
    entry: Entry | None


@dataclass(frozen=True)
class Selection:
    """What is packed. ``manifest`` says where the members come from; its files are known only after they were read.
    ``bytes`` is the size of all members, uncompressed."""

    tree: Tree
    members: tuple[Member, ...]
    manifest: Manifest
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    bytes: int = field(default=0)

    @classmethod
    def of(
        cls,
        run: Run,
        checkpoint: Checkpoint | None,
        options: PackOptions,
        own: Collection[str] = (),
        passed_over: Iterable[Checkpoint] = (),
    ) -> Selection:
        """Choose the members.

        ``own`` are real paths of archives of this run, which are never packed. ``passed_over`` are the incomplete
        checkpoints that are newer than ``checkpoint``. Raises `NotFound` if nothing is left, `Unsafe` for a path or a
        link, `StorageError` for files that cannot be read, `ProtocolError` for an incomplete checkpoint.
        """
        return _Selecting(run, checkpoint, options, own, passed_over).select()


class _Selecting:
    """One selection in the making."""

    def __init__(
        self,
        run: Run,
        checkpoint: Checkpoint | None,
        options: PackOptions,
        own: Collection[str],
        passed_over: Iterable[Checkpoint],
    ) -> None:
        self._run, self._checkpoint, self._options, self._own = run, checkpoint, options, own
        self._tree, self._item = run.tree, str(run.tree.root)
        self._notes: list[str] = []
        self._escaping: list[tuple[str, Entry]] = []
        self._unreadable: list[Entry] = []
        self._without_logs = not options.logs and (checkpoint is None or checkpoint.name == FINAL)
        taken = checkpoint.name if checkpoint else "the model"
        self._skipped = [
            Skipped(shown(one.name), shown(f"not complete{f': {one.note}' if one.note else ''}; {taken} is taken"))
            for one in passed_over
        ]

    def select(self) -> Selection:
        self._refuse_incomplete()
        base, entries = self._candidates()
        head = f"{base}/" if base else ""
        found = (self._member(entry, entry.path.removeprefix(head)) for entry in entries)
        members = sorted(filter(None, found), key=lambda member: member.path.text)
        self._refuse_unreadable_and_escaping()
        if not any(member.entry for member in members):
            raise self._nothing()
        _refuse_collisions(members)
        checkpoint = self._checkpoint
        manifest = Manifest(
            files=(),
            run=self._run.name,
            checkpoint=checkpoint.name if checkpoint else "",
            step=checkpoint.step if checkpoint and is_step(checkpoint.step) else None,
            layout=self._run.layout,
            inference_only=self._options.inference_only,
            incomplete=self._check_truncated(members),
        )
        total = sum(member.entry.stamp.size for member in members if member.entry)
        return Selection(self._tree, tuple(members), manifest, tuple(self._skipped), tuple(self._notes), total)

    def _refuse_incomplete(self) -> None:
        """Refuse a checkpoint that lacks bytes; if only its trainer's last mark is missing, note that."""
        checkpoint = self._checkpoint
        if checkpoint is None or checkpoint.complete:
            return
        why = why_incomplete(self._tree, checkpoint.entries)
        if why and not self._options.allow_incomplete:
            raise ProtocolError(f"this checkpoint is not complete: {why}", item=checkpoint.name, hint=_INCOMPLETE)
        self._notes.append(f"{checkpoint.name} is not complete: {why or checkpoint.note}")

    def _check_truncated(self, members: list[Member]) -> tuple[str, ...]:
        """The safetensors files that lack bytes, and so cannot be loaded; they are refused unless that is allowed."""
        truncated = {
            member.path.text: why
            for member in members
            if member.entry and (why := truncated_safetensors(self._tree, member.entry))
        }
        if truncated and not self._options.allow_incomplete:
            listed = "; ".join(f"{shown(name)}: {why}" for name, why in list(truncated.items())[:_NAMED])
            raise ProtocolError(f"not complete: {listed}", item=self._item, hint=_INCOMPLETE)
        return tuple(truncated)

    def _candidates(self) -> tuple[str, list[Entry]]:
        """The folder that names are relative to, and the entries below it that may be packed."""
        tree, checkpoint = self._tree, self._checkpoint
        if self._options.logs:
            unseen = [entry for entry in tree.entries if entry.kind == "unreadable"]
            return "", [entry for entry in tree.entries if entry.kind != "folder" and _is_log(entry.name)] + unseen
        if self._options.inference_only:
            return self._for_inference(checkpoint or self._run.finished())
        if checkpoint:
            return checkpoint.base, list(checkpoint.entries)
        return self._run.model_base, list(tree.below(self._run.model_base))

    def _for_inference(self, checkpoint: Checkpoint) -> tuple[str, list[Entry]]:
        files = inference_files(self._tree, checkpoint)
        self._skipped += [Skipped(checkpoint.relative(entry), why) for entry, why in files.drop]
        unknown = [checkpoint.relative(entry) for entry in files.unknown if entry.kind == "file"]
        self._notes += files.notes
        if unknown:
            more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
            self._notes.append(f"packed, though not known to be needed: {', '.join(unknown[:_NAMED])}{more}")
        return checkpoint.base, [*files.keep, *files.unknown]

    def _member(self, entry: Entry, name: str) -> Member | None:
        """The member that an entry becomes; None if it is left out."""
        options, kind = self._options, entry.kind
        if self._is_unwanted(entry, name):
            return None
        if kind == "escapes":
            self._escaping.append((name, entry))
            return None
        if kind == "folder":
            is_empty = not options.include and not options.inference_only and not self._tree.children(entry.path)
            return Member(RelPath.parse(name), None) if is_empty else None
        why = self._why_skipped(entry, name)
        if why:
            self._skipped.append(Skipped(shown(name), why))
            return None
        if kind == "unreadable" or not os.access(self._tree.root / entry.real, os.R_OK, follow_symlinks=False):
            self._unreadable.append(entry)
            return None
        return Member(RelPath.parse(name), entry)

    def _is_unwanted(self, entry: Entry, name: str) -> bool:
        """Whether it is an archive of this run, or the user did not ask for it. An entry that may hold something
        wanted is not unwanted."""
        options, names = self._options, (name,) if entry.kind == "file" else (name, f"{name}/")
        if any(matches(one, options.exclude) for one in names) or str(self._tree.root / entry.real) in self._own:
            return True
        if entry.kind in ("excluded", "unreadable") or not options.include:
            return False
        return not any(matches(one, options.include) for one in names)

    def _why_skipped(self, entry: Entry, name: str) -> str:
        if entry.kind == "special" or (entry.kind == "excluded" and name not in self._options.include):
            return entry.why
        if name == NAME:
            return "the archive has a manifest of its own"
        return "a log; --logs packs these" if self._without_logs and is_only_log(entry.name) else ""

    def _refuse_unreadable_and_escaping(self) -> None:
        if self._unreadable:
            listed = "\n".join(f"{shown(one.path)}: {one.why or 'not readable'}" for one in self._unreadable)
            count = len(self._unreadable)
            what = f"{count} {'entry' if count == 1 else 'entries'} cannot be read\n{listed}"
            raise StorageError(what, item=self._item, hint="make them readable, or leave them out with --exclude")
        if self._escaping:
            listed = "; ".join(f"{shown(name)} is {shown(one.why)}" for name, one in self._escaping[:_NAMED])
            hint = "leave it out with --exclude, or put the file itself there"
            raise Unsafe(f"a link leaves the run: {listed}", item=self._item, hint=hint)

    def _nothing(self) -> NotFound:
        what, hint = "there is no model in this run", "'mdl checkpoints' shows what there is"
        if self._options.logs:
            what, hint = "there is no log in this run", "logs are *.log, progress.json, event files …"
        elif self._options.include or self._options.exclude:
            what, hint = "no file is left by --include and --exclude", "-n shows what is packed"
        return NotFound(what, item=self._item, hint=hint)


def _refuse_collisions(members: list[Member]) -> None:
    """What is packed can be unpacked on every file system, together with the manifest. Raises `Unsafe`."""
    files = [*(member.path for member in members if member.entry), RelPath(NAME)]
    refuse_twins(files)
    refuse_twin_folders(files, [member.path for member in members if not member.entry])
