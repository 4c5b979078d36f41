"""Selection: what of a run goes into an archive: every path checked, and what is left out with its reason."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mdl.archive.logs import is_log, is_only_log
from mdl.archive.manifest import NAME, Manifest, Skipped, is_step
from mdl.errors import NotFound, ProtocolError, StorageError, Unsafe
from mdl.globs import matches
from mdl.paths import RelPath, refuse_twin_folders, refuse_twins, shown
from mdl.trainers import broken, inference
from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.runs import Run
from mdl.trainers.safetensors import SUFFIX, trouble
from mdl.trainers.tree import Entry, Tree

_NAMED = 5
_INCOMPLETE = "wait until the trainer has written it, or take it all the same with --allow-incomplete"


@dataclass(frozen=True)
class Rules:
    """What of a run is wanted. Globs are held against the names in the archive; ``incomplete`` takes also a checkpoint
    of which bytes are missing."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    inference_only: bool = False
    logs: bool = False
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """One name in the archive, and the file behind it; none for an empty folder."""

    path: RelPath
    entry: Entry | None


@dataclass(frozen=True)
class Selection:
    """``manifest`` says where the members come from; its files are known when they were read."""

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
        rules: Rules,
        own: Iterable[str] = (),
        passed_over: Iterable[Checkpoint] = (),
    ) -> Selection:
        """Choose. ``own`` are real paths of archives that must not swallow themselves; ``passed_over`` the newer
        checkpoints that are not complete, so that ``checkpoint`` was taken.

        Raises `NotFound` where nothing is left, `Unsafe` for a path or a link, `StorageError` for what cannot be read.
        """
        choosing = _Choosing(run, checkpoint, rules, frozenset(own))
        choosing.name_incomplete(passed_over)
        return choosing.choose()


class _Choosing:
    """One selection in the making."""

    def __init__(self, run: Run, checkpoint: Checkpoint | None, rules: Rules, own: frozenset[str]) -> None:
        self._run, self._checkpoint, self._rules, self._own = run, checkpoint, rules, own
        self._skipped: list[Skipped] = []
        self._notes: list[str] = []
        self._leaving: list[tuple[str, Entry]] = []
        self._unreadable: list[Entry] = []
        is_finished = checkpoint is None or checkpoint.name == "final"
        self._without_logs = is_finished and not rules.logs

    def name_incomplete(self, passed_over: Iterable[Checkpoint]) -> None:
        """Say which checkpoints were left out for want of bytes or of their trainer's last word."""
        taken = self._checkpoint.name if self._checkpoint else "the model"
        for one in passed_over:
            why = f"not complete{f': {one.note}' if one.note else ''}; {taken} is taken"
            self._skipped.append(Skipped(shown(one.name), shown(why)))

    def choose(self) -> Selection:
        self._refuse_incomplete()
        base, entries = self._candidates()
        head = f"{base}/" if base else ""
        members = [
            member for entry in entries if (member := self._member(entry, entry.path.removeprefix(head))) is not None
        ]
        self._refuse_bad_ones()
        members.sort(key=lambda member: member.path.text)
        if not any(member.entry for member in members):
            raise self._nothing()
        self._refuse_twins(members)
        cut = self._refuse_cut(members)
        checkpoint = self._checkpoint
        manifest = Manifest(
            files=(),
            run=self._run.name,
            checkpoint=checkpoint.name if checkpoint else "",
            step=checkpoint.step if checkpoint and is_step(checkpoint.step) else None,
            layout=self._run.layout,
            inference_only=self._rules.inference_only,
            incomplete=cut,
        )
        total = sum(member.entry.stamp.size for member in members if member.entry)
        return Selection(self._run.tree, tuple(members), manifest, tuple(self._skipped), tuple(self._notes), total)

    @staticmethod
    def _refuse_twins(members: list[Member]) -> None:
        """What is packed can be unpacked everywhere, and beside the manifest."""
        files = [*(member.path for member in members if member.entry), RelPath(NAME)]
        refuse_twins(files)
        refuse_twin_folders(files, [member.path for member in members if not member.entry])

    def _refuse_cut(self, members: list[Member]) -> tuple[str, ...]:
        """A safetensors file that lacks bytes loads nowhere; whoever wants it all the same must say so. Tells which."""
        tree = self._run.tree
        cut = [
            (member.path.text, why)
            for member in members
            if member.entry and member.path.text.endswith(SUFFIX)
            if (why := trouble(member.entry.stamp.size, lambda n, path=member.entry.path: tree.head(path, n)))  # type: ignore[misc]
        ]
        if cut and not self._rules.incomplete:
            told = "; ".join(f"{shown(name)}: {why}" for name, why in cut[:_NAMED])
            raise ProtocolError(f"not whole: {told}", item=str(tree.root), hint=_INCOMPLETE)
        return tuple(name for name, _ in cut)

    def _refuse_incomplete(self) -> None:
        """A checkpoint that lacks bytes is of no use to anybody; one that only lacks its trainer's last word may be."""
        checkpoint = self._checkpoint
        if checkpoint is None or checkpoint.complete:
            return
        why = broken(self._run.tree, checkpoint.entries)
        if why and not self._rules.incomplete:
            raise ProtocolError(f"this checkpoint is not complete: {why}", item=checkpoint.name, hint=_INCOMPLETE)
        self._notes.append(f"{checkpoint.name} is not complete: {why or checkpoint.note}")

    def _candidates(self) -> tuple[str, list[Entry]]:
        """The folder that names begin under, and what may be packed of it."""
        tree, checkpoint = self._run.tree, self._checkpoint
        if self._rules.logs:
            unseen = [entry for entry in tree.entries if entry.kind == "unreadable"]
            return "", [entry for entry in tree.entries if entry.kind != "folder" and is_log(entry.name)] + unseen
        if self._rules.inference_only:
            return self._for_inference(checkpoint or self._run.finished())
        if checkpoint:
            return checkpoint.base, list(checkpoint.entries)
        return self._run.model_base, list(tree.below(self._run.model_base))

    def _for_inference(self, checkpoint: Checkpoint) -> tuple[str, list[Entry]]:
        found = inference(self._run.tree, checkpoint.layout, checkpoint)
        head = f"{checkpoint.base}/" if checkpoint.base else ""
        self._skipped += [Skipped(entry.path.removeprefix(head), why) for entry, why in found.drop]
        unknown = [entry.path.removeprefix(head) for entry in found.unknown if entry.kind == "file"]
        self._notes += found.notes
        if unknown:
            more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
            self._notes.append(f"packed, though not known to be needed: {', '.join(unknown[:_NAMED])}{more}")
        return checkpoint.base, [*found.keep, *found.unknown]

    def _member(self, entry: Entry, name: str) -> Member | None:
        """The member that an entry becomes; None where it is left out."""
        rules, kind = self._rules, entry.kind
        if self._is_passed_by(entry, name):
            return None
        if kind == "leaves":
            self._leaving.append((name, entry))
            return None
        if kind == "folder":
            is_empty = not rules.include and not rules.inference_only and not self._run.tree.children(entry.path)
            return Member(RelPath.parse(name), None) if is_empty else None
        why = (
            entry.why
            if kind == "odd" or (kind == "left-out" and name not in rules.include)
            else self._own_reason(entry, name)
        )
        if why:
            self._skipped.append(Skipped(shown(name), why))
            return None
        if kind == "unreadable" or not os.access(self._run.tree.root / entry.real, os.R_OK, follow_symlinks=False):
            self._unreadable.append(entry)
            return None
        return Member(RelPath.parse(name), entry)

    def _is_passed_by(self, entry: Entry, name: str) -> bool:
        """What the user did not ask for, and archives of this run. What may hold something wanted is not passed by."""
        rules, names = self._rules, (name,) if entry.kind == "file" else (name, f"{name}/")
        if any(matches(one, rules.exclude) for one in names) or str(self._run.tree.root / entry.real) in self._own:
            return True
        if entry.kind in ("left-out", "unreadable") or not rules.include:
            return False
        return not any(matches(one, rules.include) for one in names)

    def _own_reason(self, entry: Entry, name: str) -> str:
        if name == NAME:
            return "the archive has a manifest of its own"
        if self._without_logs and is_only_log(entry.name):
            return "a log; --logs packs these"
        return ""

    def _refuse_bad_ones(self) -> None:
        if self._unreadable:
            listed = "\n".join(f"{shown(one.path)}: {one.why or 'not readable'}" for one in self._unreadable)
            count = len(self._unreadable)
            raise StorageError(
                f"{count} {'entry' if count == 1 else 'entries'} cannot be read\n{listed}",
                item=str(self._run.tree.root),
                hint="make them readable, or leave them out with --exclude",
            )
        if self._leaving:
            listed = "; ".join(f"{shown(name)} is {shown(one.why)}" for name, one in self._leaving[:_NAMED])
            hint = "leave it out with --exclude, or put the file itself there"
            raise Unsafe(f"a link leaves the run: {listed}", item=str(self._run.tree.root), hint=hint)

    def _nothing(self) -> NotFound:
        item = str(self._run.tree.root)
        if self._rules.logs:
            return NotFound(
                "there is no log in this run", item=item, hint="logs are *.log, progress.json, event files …"
            )
        if self._rules.include or self._rules.exclude:
            return NotFound("no file is left by --include and --exclude", item=item, hint="-n shows what is packed")
        return NotFound("there is no model in this run", item=item, hint="'mdl checkpoints' shows what there is")
