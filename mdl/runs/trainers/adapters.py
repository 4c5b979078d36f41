"""LoRAs and other adapters: kohya, ai-toolkit, MLX, OneTrainer."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

from mdl.bounds import parse_json
from mdl.runs.checkpoint import Checkpoint, Found, parse_count
from mdl.runs.layout import Layout
from mdl.runs.names import NameSays, holds_model
from mdl.runs.patterns import Pattern, finished_model
from mdl.runs.tree import FILES, Entry, Tree, join
from mdl.weights.known_formats import stem_of

# LoRAs. kohya: ``{name}-000005``, ``{name}-step00001000``, ``{name}`` when finished, with ``…-state`` folders beside.
# The number in a name counts epochs or steps; ``ss_steps`` in the file's header counts steps. ai-toolkit:
# ``{name}_000000500`` files or folders, ``{name}`` when finished; variants of one step belong together.

_UNNAMED_RUNS = {"epoch", "at"}
"""The names that sd-scripts gives a run without a name, whose finished model is ``last``."""
_KOHYA_STATE = "-state"


def _find_lora(pattern: Pattern, keys: tuple[str, ...], tree: Tree, base: str) -> Found | None:
    """The checkpoints of trainers that call a finished model like its run. A file without a number is one if its run
    has files with a number, or one whose header has one of the ``keys``."""

    match_name = re.compile(pattern.saved).fullmatch

    def match_of(entry: Entry) -> re.Match[str] | None:
        match = match_name(entry.name)
        if match is None or entry.is_file != bool(match["variant_suffix"]):
            return None
        is_model = entry.kind == "folder" or holds_model(entry)
        return match if is_model else None

    runs: set[str] = set()
    for child in tree.children(base):
        match = match_of(child)
        if match is None:
            continue
        numbers = match.groupdict()
        is_numbered = numbers.get("step") or numbers.get("epoch")
        if is_numbered or not tree.contents(child).metadata.keys().isdisjoint(keys):
            runs.add(match["run"])
    if not runs:
        return None
    if runs & _UNNAMED_RUNS:
        runs.add("last")

    def is_saved(_tree: Tree, entry: Entry) -> bool:
        match = match_of(entry)
        return match is not None and match["run"] in runs

    def run_of(name: str) -> str | None:
        match = match_name(name)
        return match["run"] if match and match["run"] not in (*_UNNAMED_RUNS, "last") else None

    return replace(pattern, is_saved=is_saved, run_in=run_of).find(tree, base)


def _lora_record(tree: Tree, path: str) -> NameSays:
    """The count of steps in the header, or in the state saved with the file."""
    entry = tree.get(path)
    header = tree.contents(entry).metadata if entry else {}
    try:
        info = parse_json(header.get("training_info", "{}"), allow_nan=True)
    except ValueError:
        info = {}
    state = tree.json(join(stem_of(path) + _KOHYA_STATE, "train_state.json"))
    counts = [header.get("ss_steps"), state.get("current_step")]
    if isinstance(info, dict):
        counts.insert(1, info.get("step"))
    for step in map(parse_count, counts):
        if step is not None:
            return NameSays(step=step)
    return NameSays()


_KOHYA_NUMBER = r"-(step)?([0-9]{6}|(?<=step)[0-9]{8})"
KOHYA = Layout(
    "kohya",
    partial(
        _find_lora,
        Pattern(
            r"(?P<run>.+?)(-(step)?((?P<epoch>[0-9]{6})|(?<=step)(?P<step>[0-9]{8})))?(?P<variant_suffix>\.(safetensors|ckpt|pt))",
            last=(rf"(?!.*{_KOHYA_NUMBER}\.[a-z]+$).+",),
            record=_lora_record,
            state=_KOHYA_STATE,
        ),
        ("ss_steps", "ss_network_module"),
    ),
    trainers="kohya sd-scripts and musubi-tuner",
    keep=("*.safetensors", "*.ckpt", "*.pt"),
    drop=(("*-state/*", "training state"), ("sample/*", "samples")),
    notes=(("*.ckpt", "is a pickle; reading it needs torch"),),
    ends_with_model=True,
)
AI_TOOLKIT = Layout(
    "ai-toolkit",
    partial(
        _find_lora,
        Pattern(
            r"(?P<variant_critic>CRITIC_)?(?P<run>.+?)(?P<variant_lora>_LoRA)?(_(?P<step>[0-9]{9}))?"
            r"(?P<variant_refiner>_refiner)?(?P<variant_suffix>\.safetensors|\.pt)?",
            last=(r"(?!.*_[0-9]{9}(_refiner)?(\.[a-z]+)?$).+",),
            kinds=(*FILES, "folder"),
            record=_lora_record,
            beside=("config.yaml",),
            beside_newest=("optimizer.pt", "learnable_snr.json"),
        ),
        ("training_info",),
    ),
    trainers="ai-toolkit",
    keep=("*.safetensors", "*.pt", "*/*", "config.yaml", "*.json"),
    drop=(
        ("optimizer.pt", "optimizer state"),
        ("learnable_snr.json", "state of the loss's weighting"),
        ("samples/*", "samples"),
    ),
    ends_with_model=True,
)


# Adapters for pictures and small machines

MLX = Layout(
    "mlx",
    Pattern(
        r"(?P<step>[0-9]{7})_adapters\.(safetensors|npz)|adapters\.(safetensors|npz)",
        last=(r"adapters\..+",),
        beside=("adapter_config.json",),
    ).find,
    trainers="mlx-lm",
    keep=("*adapters.*", "adapter_config.json"),
    drop=(),
)
_ONE_TRAINER = Pattern(
    r".*-(save|backup)-(?P<step>[0-9]+)-(?P<epoch>[0-9]+)-[0-9]+(\.(safetensors|ckpt))?",
    kinds=(*FILES, "folder"),
    order=lambda name: int("-save-" in name),  # of one step, the model before the state of the training
)


def _find_one_trainer(tree: Tree, base: str) -> Found | None:
    """The checkpoints of a workspace: the states of the training in ``backup``, the models in ``save``."""
    checkpoints: list[Checkpoint] = []
    for folder in (base, join(base, "backup"), join(base, "save")):
        checkpoints += _ONE_TRAINER.checkpoints(tree, folder, folder)
    if not checkpoints:
        return None
    return Found((*checkpoints, *finished_model(tree, base, rf"(?!{_ONE_TRAINER.saved}).+\.safetensors", checkpoints)))


ONE_TRAINER = Layout(
    "onetrainer",
    _find_one_trainer,
    trainers="OneTrainer",
    keep=("*.safetensors", "*.ckpt", "*/*", "*.json"),
    drop=(("optimizer/*", "optimizer state"), ("ema/*", "the state of the average")),
)
