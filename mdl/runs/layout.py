"""Layout: how one trainer names what it saves, which of it inference needs, and what else belongs to a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from mdl.errors import NotFound
from mdl.paths import matches, matching
from mdl.runs.checkpoint import Checkpoint, Found
from mdl.runs.completeness import RESUME, missing_shards
from mdl.runs.tree import Entry, Tree, folders_above, join
from mdl.values import value_class
from mdl.weights.junk import is_log
from mdl.weights.known_formats import stem_of

ANY_FILE = ("*",)
DISCRIMINATOR = "the discriminator, which only the training needs"
OPTIMIZER_INSIDE = "contains optimizer state; stripping it needs torch"
_DEEPSPEED = "only DeepSpeed's sharded state: nothing in it can be loaded until its shards are merged"
_FSDP = "only weights sharded by FSDP: nothing in it can be loaded until they are merged"
_DISTRIBUTED = "only a distributed checkpoint of torch: nothing in it can be loaded until its shards are merged"
_TO_TORCH = "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch`"
_TO_HUGGING_FACE = "`python -m verl.model_merger merge --backend fsdp --local_dir actor --target_dir merged`"
_UNMERGED = (
    (("zero_pp_rank_*", "bf16_zero_pp_rank_*"), _DEEPSPEED, "`python zero_to_fp32.py . .` in the folder above it"),
    (("global_step*/*", "*zero_pp_rank_*"), _DEEPSPEED, "`python zero_to_fp32.py . .` in it"),
    (("meta.pt",), _FSDP, "`python -m lightning.pytorch.utilities.consolidate_checkpoint` on it"),
    (("pytorch_model_fsdp_*",), _FSDP, "`accelerate merge-weights pytorch_model_fsdp_0 merged` in it"),
    (("*.distcp",), _DISTRIBUTED, f"{_TO_TORCH} with its folder and the name of a new file"),
    (("*model_world_size_*",), _FSDP, f"{_TO_HUGGING_FACE} in it"),
)
"""If nothing that can be loaded is left: globs of dropped names, what they show, and what merges the shards."""
ADAPTER = "adapter_"
"""How the files of an adapter begin, which no other model needs."""
CONFIGS = (
    *("config.*", "*[_-]config.*", "hparams.*", "hyperparams.*", "hyper_parameters.*", "hyperparameters.*"),
    *("args.*", "model_args.*", "params.*", "train_opt.*", "opt.*", ".hydra/config.yaml", "pipeline.config"),
)
"""What trainers call the settings that a model is built from."""
VOCABULARY = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model"),
    "chat_template*",
)


@value_class
class InferenceFiles:
    """``keep`` are known to be needed, ``drop`` known not to be, each with its reason; ``unknown`` are kept and
    reported."""

    keep: tuple[Entry, ...]
    drop: tuple[tuple[Entry, str], ...]
    unknown: tuple[Entry, ...]
    notes: tuple[str, ...]


@value_class
class Layout:
    """How one trainer names what it saves. ``trainers`` says whose layout it is, in the words of the documentation.

    ``find`` looks into a folder and answers None if it is not of this layout. ``ends_with_model``: the trainer writes
    the finished model as one file, the last and latest.

    For inference, globs are matched with names below the checkpoint's base; ``*`` crosses ``/``. A name that matches
    ``drop`` (with its reason) is dropped even if it matches ``keep``. ``notes`` are a glob each, and what to say of a
    kept file that matches it.

    ``above`` are globs of what the model is loaded with; what of it a checkpoint does not have is looked for in its
    folder and in those above, up to the run's own. ``marks`` matches the names of files by which a run in a folder
    below is found, where no suffix says that they hold weights.
    """

    name: str
    find: Callable[[Tree, str], Found | None]
    keep: tuple[str, ...]
    drop: tuple[tuple[str, str], ...] = RESUME
    notes: tuple[tuple[str, str], ...] = ()
    ends_with_model: bool = False
    trainers: str = ""
    above: tuple[str, ...] = CONFIGS
    marks: str = r"(?!)"

    def inference_files(self, tree: Tree, checkpoint: Checkpoint) -> InferenceFiles:
        """Split the checkpoint's files.

        Raises `NotFound` if nothing that can be loaded would be left, or if a shard that an index names is missing.
        """
        keep: list[Entry] = []
        drop: list[tuple[Entry, str]] = []
        unknown: list[Entry] = []
        notes: list[str] = []
        for entry in checkpoint.entries:
            if entry.kind == "folder":
                continue
            name = checkpoint.relative(entry)
            reason = _said_of(name, self.drop)
            if reason:
                drop.append((entry, reason))
                continue
            if not matches(name, self.keep):
                unknown.append(entry)
                continue
            keep.append(entry)
            note = _said_of(name, self.notes)
            if note and entry.kind != "excluded":
                notes.append(f"{name} {note}")
        left = [*keep, *unknown]
        if not any(map(checkpoint.is_weights, left)):
            raise _nothing_left(checkpoint, drop)
        missing = missing_shards(tree, left)
        if missing:
            hint = "name another checkpoint; 'mdl checkpoints' lists them"
            raise NotFound(missing, item=checkpoint.name, hint=hint)
        return InferenceFiles(tuple(keep), tuple(drop), tuple(unknown), tuple(notes))


def _said_of(name: str, rows: tuple[tuple[str, str], ...]) -> str:
    """Return what the first row whose glob matches a name says; "" if none does."""
    for glob, words in rows:
        if fnmatchcase(name, glob):
            return words
    return ""


def _nothing_left(checkpoint: Checkpoint, drop: list[tuple[Entry, str]]) -> NotFound:
    """The error for a checkpoint of which nothing that can be loaded is left."""
    dropped = [checkpoint.relative(entry) for entry, _ in drop]
    for globs, shards, command in _UNMERGED:
        if any(matches(name, globs) for name in dropped):
            return NotFound(shards, item=checkpoint.name, hint=f"run {command} first")
    hint = "pack it without --inference-only, or name another checkpoint"
    return NotFound("it holds nothing that can be loaded", item=checkpoint.name, hint=hint)


# What lies beside a checkpoint

_SETTINGS = re.compile(r".+\.(json|ya?ml|toml|cfg|ini|txt|names|labels)", re.IGNORECASE)
_EXPORT_FOLDER = re.compile(r".+(_model|\.mlpackage|\.mlmodelc|_saved_model|_openvino_model)")


@value_class
class Companions:
    """``along`` goes into the archive with a checkpoint; ``exports`` are other forms of it, which do not."""

    along: tuple[Entry, ...] = ()
    exports: tuple[Entry, ...] = ()


def companions(tree: Tree, checkpoint: Checkpoint, layout: Layout) -> Companions:
    """Return what lies beside and above a checkpoint and belongs to it."""
    own = {entry.path for entry in checkpoint.entries}
    names = {entry.name for entry in checkpoint.entries}
    is_adapter = bool(matching(names, [f"{ADAPTER}*"]))
    beside: list[Entry] = []
    exports: dict[str, Entry] = {}
    for pattern in layout.above:
        if not matching(names, [pattern]):
            beside += _nearest(tree, checkpoint.base, pattern)
    for entry in _of_the_same_stem(tree, checkpoint):
        if _is_settings(entry):
            beside.append(entry)
        elif entry.path not in own:
            exports[entry.path] = entry
    along: dict[str, Entry] = {}
    for entry in beside:
        if entry.path in own or is_log(entry.name):
            continue
        if is_adapter or not entry.name.startswith(ADAPTER):
            along[entry.path] = entry
    return Companions(tuple(along.values()), tuple(exports.values()))


def _is_settings(entry: Entry) -> bool:
    return entry.kind == "file" and _SETTINGS.fullmatch(entry.name) is not None


def _nearest(tree: Tree, base: str, pattern: str) -> list[Entry]:
    """The files that a pattern matches in ``base``, or else in the nearest folder above it. A pattern with a slash
    names one file below such a folder."""
    inner, _, name = pattern.rpartition("/")
    for folder in (base, *folders_above(base)):
        files = []
        for child in tree.children(join(folder, inner) if inner else folder):
            if child.kind == "file" and matches(child.name, [name]) and not child.is_weights:
                files.append(child)
        if files:
            return files
    return []


def _of_the_same_stem(tree: Tree, checkpoint: Checkpoint) -> Iterator[Entry]:
    """Return what lies beside the weights of a checkpoint and is called like them, but for the suffix."""
    for weights in filter(checkpoint.is_weights, checkpoint.entries):
        stem = stem_of(weights.name)
        for child in tree.children(weights.folder):
            is_file = child.kind == "file" and child.name.startswith(f"{stem}.")
            is_form = child.kind == "folder" and child.name.startswith((f"{stem}.", f"{stem}_"))
            if is_file or (is_form and _EXPORT_FOLDER.fullmatch(child.name)):
                yield child
