"""Patterns: trainers whose names tell all there is to know. A table.

A row says which names are checkpoints, which number in a name is the step, which checkpoint is the best and which the
last, and what lies beside. A trainer that needs more than this has a module of its own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from math import inf
from typing import Any

from mdl.paths import matches
from mdl.trainers.completeness import RESUME
from mdl.trainers.layout import Layout
from mdl.trainers.named import BEST, HOLDS, LAST, NAMED, own_state
from mdl.trainers.runs import FINAL, Checkpoint, Found, checkpoint, finished_model, parse_count, step_and_name
from mdl.trainers.tree import FILES, Entry, IsName, Kind, Tree, join
from mdl.values import value_class
from mdl.weights import is_weights

OPTIMIZER_INSIDE = "contains optimizer state; stripping it needs torch"
COUNTS_EPOCHS = "its number counts epochs"
_NO_NAME = "(?!)"
Place = tuple[str, str]
"""A folder that holds checkpoints, and the folder that the names of their members begin in."""


def named_in(tree: Tree, path: str, pattern: str) -> str:
    """The name that a pattern finds in the first 64 KiB of a file; "" if it finds none."""
    found = re.search(pattern, tree.head(path, 2**16).decode("utf-8", "replace"), re.MULTILINE)
    return found[1] if found else ""


def _here(_tree: Tree, base: str, _is_saved: IsName) -> list[Place]:
    return [(base, base)]


def _here_or_in_only_run(tree: Tree, base: str, is_saved: IsName) -> list[Place]:
    """Coqui: the folder itself, or the only ``{run}-{date}`` in it; a configuration lies beside the checkpoints."""

    def is_run(folder: str) -> bool:
        return tree.is_file(join(folder, "config.json")) and bool(tree.files_named(folder, is_saved))

    if is_run(base):
        return [(base, base)]
    inner = [child.path for child in tree.subfolders(base) if is_run(child.path)]
    return [(inner[0], inner[0])] if len(inner) == 1 else []


def _experiments(tree: Tree, base: str, is_saved: IsName) -> list[Place]:
    """Ultralytics: every ``weights`` folder below, the experiment with the highest number last (``train10``)."""
    if tree.is_file(join(base, "best.pt")) and tree.is_file(join(base, "last.pt")):
        return [(base, base)]
    folders = [folder for folder in tree.folders_named(base, "weights") if tree.files_named(folder, is_saved)]
    return [(folder, folder.rpartition("/")[0]) for folder in folders]


@value_class
class Pattern:
    """What one trainer calls its checkpoints, as regular expressions that match a whole name.

    The group ``step`` or ``epoch`` of ``saved`` is the number; files with the same group ``name`` are one checkpoint.
    A checkpoint counts only if ``holds`` matches one of its files, or a name in its folder; the name of a folder there
    ends with a slash. ``final`` matches a file of the finished model, which lies beside the checkpoints, or
    ``final_alone``. ``places`` are the folders to look in, the oldest first. ``beside`` are globs of files that belong
    to every checkpoint that is not a folder.

    ``staging`` matches folders that are not complete yet. If any checkpoint has a file that the glob ``written_last``
    matches, one with a number and without that file was cut short.

    The latest is the one that a file names, if ``newest_in`` gives that file and a pattern for the name in it.
    Otherwise it is the newest complete one of these, in the newest place that has any: the last, those with a number
    in the order of ``age``, the others, the best.
    """

    saved: str
    best: str = _NO_NAME
    last: str = _NO_NAME
    staging: str = _NO_NAME
    final: str = _NO_NAME
    final_alone: bool = False
    kinds: tuple[Kind, ...] = FILES
    holds: str = ".+"
    written_last: str = ""
    places: Callable[[Tree, str, IsName], list[Place]] = _here
    age: Callable[[Checkpoint], Any] = step_and_name
    beside: tuple[str, ...] = ()
    newest_in: tuple[str, str] = ("", _NO_NAME)
    unnumbered_note: str = ""

    def find(self, tree: Tree, base: str) -> Found | None:
        """The checkpoints in ``base``; None if it holds none."""
        rows: list[Checkpoint] = []
        by_age: list[Checkpoint] = []
        best = None
        file, pattern = self.newest_in
        newest = named_in(tree, join(base, file), pattern)
        places = self.places(tree, base, re.compile(self.saved).fullmatch)
        for folder, place in places:
            saved = self.checkpoints(tree, folder, place)
            if step := next((row.step for row in saved if row.name == newest), None):
                note = f"newer than the one '{file}' names, so perhaps not finished"
                saved = [replace(row, note=row.note or note) if (row.step or 0) > step else row for row in saved]
            bests, others, numbered, lasts = ([row for row in saved if self._rank(row) == rank] for rank in range(4))
            rows += [*numbered, *bests, *others, *lasts]
            by_age += [*bests, *others, *numbered, *lasts]
            named = [row for row in numbered if re.fullmatch(self.best, row.name)] or (bests if len(bests) == 1 else [])
            best = named[-1] if named else None
        finals = finished_model(tree, base, self.final, rows) if places and self.final != _NO_NAME else []
        by_age = [*finals, *by_age, *(row for row in rows if row.name == newest)]
        is_found = rows or (finals and self.final_alone)
        return Found.of([*rows, *finals], by_age=by_age, best=best) if is_found else None

    def _rank(self, row: Checkpoint) -> int:
        if re.fullmatch(self.last, row.name):
            return 3
        if row.step is not None:
            return 2
        return 0 if re.fullmatch(self.best, row.name) else 1

    def checkpoints(self, tree: Tree, folder: str, place: str) -> list[Checkpoint]:
        """The checkpoints in ``folder`` in the order of ``age``; the names of their members begin in ``place``."""
        saves: dict[str, list[Entry]] = defaultdict(list)
        named, kinds, own = re.compile(self.saved).fullmatch, self.kinds, own_state(tree, folder)
        for entry in tree.children(folder):
            if entry.kind in kinds and entry.name != own and (match := named(entry.name)):
                saves[match.groupdict().get("name") or entry.name].append(entry)
        if not saves:
            return []
        beside = [one for one in tree.children(place) if matches(one.name, self.beside)]
        inside = {name: tree.children(parts[0].path) or parts for name, parts in saves.items()}
        last = self.written_last
        marked = {name for name in saves if last and any(fnmatchcase(one.name, last) for one in inside[name])}
        is_held, rows = re.compile(self.holds).fullmatch, []
        for name, parts in saves.items():
            (step, note), wrong = self._step(parts[0]), ""
            if not any(is_held(one.name + "/" * (one.kind == "folder")) for one in inside[name]):
                continue
            if re.fullmatch(self.staging, name):
                wrong = "a staging folder, which the trainer renames when it is complete"
            elif marked and name not in marked and step is not None:
                wrong = f"{last}, which is written last, is missing"
            is_folder = parts[0].kind == "folder"
            base = parts[0].path if is_folder else place
            entries = [*([] if is_folder else beside), *(one for part in parts for one in tree.below(part.path))]
            rows.append(checkpoint(tree, name, base, entries, step, wrong=wrong, note=note))
        return sorted(rows, key=self.age)

    def _step(self, entry: Entry) -> tuple[int | None, str]:
        """The number in its name, or in the name of the file that it links to; and what to say of it."""
        for path in (entry.path, entry.real):
            name = re.fullmatch(self.saved, path.rpartition("/")[2])
            groups = name.groupdict() if name else {}
            if groups.get("step"):
                return parse_count(groups["step"]), ""
            if groups.get("epoch"):
                return parse_count(groups["epoch"]), COUNTS_EPOCHS
        return None, self.unnumbered_note


_COQUI_BESIDE = ("config.json", "*speaker*", "*language_ids*", "vocab*")
COQUI = Layout(
    "coqui",
    Pattern(
        r"(checkpoint_|best_model_)(?P<step>[0-9]+)\.pth|best_model\.pth",
        best=r"best_model.*",
        places=_here_or_in_only_run,
        beside=_COQUI_BESIDE,
        unnumbered_note="a copy of the best model",
    ).find,
    keep=("checkpoint_*.pth", "best_model*.pth", *_COQUI_BESIDE),
    drop=(),
    notes=(("checkpoint_*.pth", OPTIMIZER_INSIDE), ("best_model*.pth", OPTIMIZER_INSIDE)),
)


def _epochs_after_their_updates(row: Checkpoint) -> tuple[float, ...]:
    """fairseq: the checkpoint of a whole epoch comes after those of all updates in it."""
    return *map(int, re.findall("[0-9]+", row.name)), inf, inf


FAIRSEQ = Layout(
    "fairseq",
    Pattern(
        r"checkpoint(?P<epoch>[0-9]+)\.pt|checkpoint_[0-9]+_(?P<step>[0-9]+)\.pt|checkpoint_(best|last)\.pt",
        best=r"checkpoint_best\.pt",
        last=r"checkpoint_last\.pt",
        age=_epochs_after_their_updates,
        beside=("dict.*.txt",),
    ).find,
    keep=("*.pt", "dict.*.txt"),
    drop=(),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
)

ULTRALYTICS = Layout(
    "ultralytics",
    Pattern(
        r"(best|last|epoch(?P<epoch>[0-9]+))\.pt",
        best=r"best\.pt",
        last=r"last\.pt",
        places=_experiments,
        beside=("args.yaml", "results.csv"),
    ).find,
    keep=("*.pt", "args.yaml", "results.csv"),
    drop=(),
    notes=(("*.pt", "contains optimizer state unless the training came to its end; stripping it needs torch"),),
)


_KERAS_EPOCH = r"((?<![A-Za-z0-9.])|(?<=[^0-9]\.)|(?<=ep)|(?<=epoch))(?P<epoch>[0-9]+)(?!\.?[0-9])"
"""A whole number in a name that the user chose, the last one; ``0.34`` is a metric, ``resnet50`` a model."""
KERAS = Layout(
    "keras",
    Pattern(rf"(.*{_KERAS_EPOCH}.*|.+)\.(keras|weights\.h5)", best=r"(?i)(.*[^a-z])?best([^a-z].*)?").find,
    keep=("*.keras", "*.h5"),
    drop=(),
    notes=(
        ("*.keras", "contains optimizer state; saving it again without needs Keras"),
        ("*.weights.h5", "is weights alone; the code that builds the model is needed"),
    ),
)


DEEPSPEED_LATEST = r"\A\s*([\w.=-]{1,200})\s*\Z"
DEEPSPEED = Layout(
    "deepspeed",
    Pattern(
        r".*?(?P<step>[0-9]+)|.+",
        kinds=("folder",),
        holds=r".*_(model|optim)_states\.pt",
        final=r"(model|pytorch_model)\b.*\.(safetensors|bin)",
        newest_in=("latest", DEEPSPEED_LATEST),
    ).find,
    keep=("mp_rank_*_model_states.pt", "model*.safetensors*", "pytorch_model*.bin*", "config.json", "tokenizer*"),
    drop=(*RESUME, ("*_optim_states.pt", "optimizer state")),
    notes=(("mp_rank_*_model_states.pt", "is a pickle of the model and the training; reading it needs torch"),),
)

FSDP = Layout(
    "fsdp",
    Pattern(
        r".*?(?P<step>[0-9]+)|.+",
        kinds=("folder",),
        holds=r"pytorch_model_fsdp(_[0-9]+/|(_rank[0-9]+)?(_[0-9]+)?\.bin)",
    ).find,
    keep=(
        *("pytorch_model_fsdp.bin", "pytorch_model_fsdp_[0-9].bin", "model*.safetensors*", "pytorch_model*.bin*"),
        *("config.json", "generation_config.json", "tokenizer*"),
    ),
)
"""Folders of accelerate's, with full weights in one file or with shards that must be merged before use."""

TENSORFLOW = Layout(
    "tensorflow",
    Pattern(
        r"(?P<name>(.*[-_.])?(?P<step>[0-9]+)(\.ckpt)?|.+)\.(index|meta|data-[0-9]{5}-of-[0-9]{5})",
        holds=r".+\.data-[0-9]{5}-of-[0-9]{5}",
        newest_in=("checkpoint", r'^model_checkpoint_path:\s*"(?:[^"]*/)?([^"/]+)"'),
    ).find,
    keep=(
        *("saved_model.pb", "keras_metadata.pb", "fingerprint.pb", "variables/*", "assets/*", "assets.extra/*"),
        *("*.index", "*.data-*", "*.meta"),
    ),
    drop=(),
    notes=(("*.index", "may hold the optimizer's variables too; the code that builds the model is needed"),),
)
_GRAPH = r"saved_model\.pb"
SAVED_MODEL = replace(
    TENSORFLOW,
    find=Pattern(
        r"(.*[-_.])?(?P<step>[0-9]+)|.+", kinds=("folder",), holds=_GRAPH, final=_GRAPH, final_alone=True
    ).find,
)
"""TensorFlow's finished models; those in numbered folders are versions, as TensorFlow Serving counts them."""


_NAMED = Pattern(
    NAMED,
    best=BEST,
    last=LAST,
    kinds=(*FILES, "folder"),
    holds=HOLDS,
    final=rf"(?!(?:{NAMED.replace('?P<step>', '').replace('?P<epoch>', '')})$)(?:{HOLDS})",
    beside=(
        *("config*", "*config.json", "*.yaml", "*.yml", "vocab*", "tokenizer*", "special_tokens_map.json"),
        *("merges.txt", "*.model", "*label*", "*speaker*", "README.md"),
    ),
)


def _find_named(tree: Tree, base: str) -> Found | None:
    """One file without a number, beside other weights, is a part of one model, however it is called."""
    found = _NAMED.find(tree, base)
    named = [row for row in found.checkpoints if row.name != FINAL] if found else []
    is_alone = len(named) == 1 and named[0].step is None and named[0].base == base
    return None if found and is_alone and len(found.checkpoints) > 1 else found


def find_folders(tree: Tree, base: str, *, of_any_name: bool) -> Found:
    """The folders in ``base`` that hold weights: those named like checkpoints, or all of them."""
    saved = f"{NAMED}|.+" if of_any_name else NAMED
    return replace(_NAMED, saved=saved, kinds=("folder",), final=_NO_NAME).find(tree, base) or Found(())


def _find_weights(tree: Tree, base: str) -> Found:
    entries = list(tree.below(base))
    has_weights = any(entry.is_file and is_weights(entry.name) for entry in entries)
    return Found.of([checkpoint(tree, FINAL, base, entries)] if has_weights else [])


PLAIN = Layout(
    "plain",
    _find_weights,
    keep=(
        *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.onnx", "*.h5", "*.keras", "*.msgpack"),
        *("*.nemo", "*.tflite", "*.pb", "*.npz"),
        *("*.json", "*.txt", "*.model", "*.yaml", "*.yml", "*.md", "*.py"),
    ),
    notes=tuple(
        (glob, "may contain optimizer state; stripping it needs torch") for glob in ("*.pt", "*.pth", "*.ckpt")
    ),
)
"""A folder of weights whose names fit no trainer: one checkpoint, all that is in it."""
NAMED_LAYOUT = replace(PLAIN, name="named", find=_find_named)
"""Folders and files of no known trainer whose names say that they are checkpoints."""
