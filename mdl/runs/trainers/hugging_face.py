"""HF Trainer, what is built on it, and diffusers."""

from __future__ import annotations

import re
from dataclasses import replace

from mdl.bounds import LONGEST_FILE_NAME
from mdl.paths import shown
from mdl.runs.checkpoint import Checkpoint, Found, checked, parse_count
from mdl.runs.choice import latest_of
from mdl.runs.completeness import RESUME
from mdl.runs.layout import CONFIGS, VOCABULARY, Layout
from mdl.runs.names import NameSays
from mdl.runs.patterns import DEEPSPEED_LATEST, Pattern, finished_model, named_in, no_record
from mdl.runs.tree import IsName, Tree, join

ADAPTER_CONFIG = "adapter_config.json"


# HF Trainer: folders ``checkpoint-N``, and the finished model beside them. HF Trainer and what is built on it (PEFT,
# axolotl, LLaMA-Factory) write ``trainer_state.json`` last, so a checkpoint without it was never finished, unless no
# checkpoint of the run has one, as in a copy that was stripped of them.

_TRAINER_STATE = "trainer_state.json"
_HF_STAGING = r"tmp-checkpoint-[0-9]+.*|checkpoint-[0-9]+\.tmp"


def _recorded_epoch(tree: Tree, folder: str) -> NameSays:
    """The epoch in a checkpoint's own record, if it was saved at the end of one."""
    return NameSays(epoch=parse_count(tree.json(join(folder, _TRAINER_STATE)).get("epoch")))


_HF_CHECKPOINTS = Pattern(
    rf"checkpoint-((?P<step>[0-9]+)|best|last)|{_HF_STAGING}",
    best="checkpoint-best",
    last=("checkpoint-last",),
    staging=_HF_STAGING,
    kinds=("folder",),
    record=_recorded_epoch,
    written_last=_TRAINER_STATE,
)


_PADDLE_MODEL = re.compile(r"((lora|prefix)_)?model_state\b.*\.pdparams")
_HF_MODEL = re.compile(
    r"(model|pytorch_model|adapter_model|tf_model|flax_model)\b.*\.(safetensors|bin|h5|msgpack)"
    rf"|{_PADDLE_MODEL.pattern}"
)
_CONFIGURED = (("config.json", _HF_MODEL), (ADAPTER_CONFIG, _HF_MODEL), ("model_config.json", _PADDLE_MODEL))
"""Configurations, each with the weights beside which it counts."""


def _find_hf_run(tree: Tree, base: str) -> Found | None:
    checkpoints = _HF_CHECKPOINTS.checkpoints(tree, base, base)
    if not checkpoints:
        return None
    for at, checkpoint in enumerate(checkpoints):
        tag = named_in(tree, join(checkpoint.base, "latest"), DEEPSPEED_LATEST)
        if checkpoint.complete and tag and not tree.is_folder(join(checkpoint.base, tag)):
            checkpoints[at] = replace(checkpoint, complete=False, note=f"{tag}, which 'latest' names, is missing")
    return _hf_found(tree, base, checkpoints)


def _find_hf_model(tree: Tree, base: str) -> Found | None:
    """A finished model alone: weights beside their configuration."""
    for config, weights in _CONFIGURED:
        if tree.is_file(join(base, config)) and tree.files_named(base, weights.fullmatch):
            return _hf_found(tree, base, [])
    return None


def _hf_found(tree: Tree, base: str, checkpoints: list[Checkpoint]) -> Found:
    """These checkpoints; axolotl's ``merged`` folder; and the model in the run's own folder."""
    merged = join(base, "merged")
    finished: list[Checkpoint] = []
    if tree.files_named(merged, _HF_MODEL.fullmatch):
        finished.append(checked(tree, Checkpoint("merged", merged, tree.below(merged), is_derived=True)))
    finished += finished_model(tree, base, _HF_MODEL.pattern, [*checkpoints, *finished])
    latest, _ = latest_of([*checkpoints, *finished])
    found = Found((*checkpoints, *finished), _recorded_best(tree, latest, base))
    folders = [base, *(checkpoint.base for checkpoint in checkpoints)]
    if any(tree.is_file(join(folder, ADAPTER_CONFIG)) for folder in folders):
        return replace(found, layout="peft")
    return found


def _recorded_best(tree: Tree, latest: Checkpoint | None, base: str) -> str:
    """The name of the best checkpoint in the newest checkpoint's state file, else in the run's own; else ""."""
    folders = [base]
    if latest:
        folders.insert(0, latest.base)
    for folder in folders:
        state = tree.json(join(folder, _TRAINER_STATE))
        step = parse_count(state.get("best_global_step"))
        if step:
            return f"checkpoint-{step}"
        path = state.get("best_model_checkpoint")
        name = re.split(r"[/\\]", path.rstrip("/\\"))[-1] if isinstance(path, str) else ""
        if 0 < len(name) <= LONGEST_FILE_NAME:
            return name
    return ""


def base_model_note(tree: Tree, folder: str) -> str:
    """Names the model that the adapter in ``folder`` was trained on, without which it cannot be used; "" if there is no
    adapter."""
    config = tree.json(join(folder, ADAPTER_CONFIG))
    if not config:
        return ""
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        return f"an adapter: it needs its base model, which {ADAPTER_CONFIG} does not name"
    is_path = name.startswith(("/", ".", "~", "\\")) or name[1:2] == ":"
    where = ", a folder of the machine that it was trained on" if is_path else ""
    return f"an adapter: it needs its base model, {shown(name[:LONGEST_FILE_NAME])}{where}"


_HF_LOGS = ("trainer_log.jsonl", "running_log.txt", "*_results.json", "training_*.png", "runs/*")
HF_RUN = Layout(
    "hf-trainer",
    _find_hf_run,
    trainers="HF Trainer (also PEFT, axolotl, LLaMA-Factory, PaddleNLP, DeepSpeed, FSDP)",
    above=(*CONFIGS, *VOCABULARY),
    keep=(
        *("model*.safetensors", "model*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.bin.index.json"),
        *("tf_model*.h5*", "flax_model*.msgpack*", "adapter_*", "*/adapter_*", "config.json", "generation_config.json"),
        *("*model_state*.pdparams", "model_config.json", "lora_config.json", "prefix_config.json"),
        *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model"),
        *("chat_template*", "*processor_config.json", "*.py", "*.yaml", "*.yml", "README.md", "LICENSE*"),
    ),
    drop=(*RESUME, *((glob, "a log") for glob in _HF_LOGS), ("last_run_prepared/*", "prepared data")),
)
HF_MODEL = replace(HF_RUN, find=_find_hf_model, trainers="")


# diffusers: its example scripts use accelerate's ``save_state``, which writes the random states last.

_PIPELINE = r"model_index\.json|(pytorch_lora_weights|diffusion_pytorch_model|learned_embeds).*\.(safetensors|bin)"
_DIFFUSERS_SAVED = rf"random_states_[0-9]+\.pkl|unet|unet_ema|transformer|controlnet|prior|vae|text_encoder|{_PIPELINE}"


def _diffusers_place(tree: Tree, base: str, is_saved: IsName) -> list[str]:
    """The folder, if it or a checkpoint in it holds what diffusers saves, and no checkpoint is HF Trainer's."""
    is_own = bool(tree.files_named(base, re.compile(_PIPELINE).fullmatch))
    for folder in tree.subfolders(base):
        if not is_saved(folder.name):
            continue
        names = tree.names(folder.path)
        if _TRAINER_STATE in names:
            return []
        is_own = is_own or any(re.fullmatch(_DIFFUSERS_SAVED, name) for name in names)
    return [base] if is_own else []


_EMBEDDINGS = Pattern(
    r"learned_embeds(-steps-(?P<step>[0-9]+))?\.(safetensors|bin)",
    last=(r"learned_embeds\..+",),
    requires=r"learned_embeds-steps-[0-9]+\.(safetensors|bin)",
)


def _find_embeddings(tree: Tree, base: str) -> Found | None:
    """The embeddings alone; with a full pipeline beside them, that is the model."""
    if tree.is_file(join(base, "model_index.json")):
        return None
    return _EMBEDDINGS.find(tree, base)


TEXTUAL_INVERSION = Layout(
    "textual-inversion",
    _find_embeddings,
    trainers="diffusers' textual inversion",
    keep=("learned_embeds*",),
    ends_with_model=True,
)
DIFFUSERS = Layout(
    "diffusers",
    trainers="diffusers",
    find=replace(
        _HF_CHECKPOINTS,
        written_last="random_states_*.pkl",
        final=_PIPELINE,
        final_alone=True,
        record=no_record,
        places=_diffusers_place,
    ).find,
    keep=(
        *("pytorch_lora_weights*", "learned_embeds*", "diffusion_pytorch_model*", "model*.safetensors*"),
        *("pytorch_model*.bin*", "model_index.json", "config.json", "README.md", "LICENSE*", "adapter_*"),
        *("unet/*", "unet_ema/*", "transformer/*", "transformer_2/*", "controlnet/*", "prior/*", "decoder/*"),
        *("movq/*", "vae/*", "vae_ema/*", "text_encoder/*", "text_encoder_2/*", "text_encoder_3/*", "tokenizer/*"),
        *("tokenizer_2/*", "tokenizer_3/*", "scheduler/*", "feature_extractor/*", "image_encoder/*"),
        *("image_processor/*", "safety_checker/*", "adapter/*"),
    ),
)
