"""Trainers of large models, whose checkpoints are in shards."""

from __future__ import annotations

import re
from functools import partial

from mdl.runs.checkpoint import Found
from mdl.runs.completeness import RESUME
from mdl.runs.layout import OPTIMIZER_INSIDE, Layout
from mdl.runs.patterns import DEEPSPEED_LATEST, Pattern, find_or_itself, matching
from mdl.runs.tree import Tree

_DIFFUSION_PIPE = Pattern(
    r"epoch(?P<epoch>[0-9]+)|global_step(?P<step>[0-9]+)",
    kinds=("folder",),
    derived=r"global_step.+",
)


def _find_diffusion_pipe(tree: Tree, base: str) -> Found | None:
    """The models of the epochs. DeepSpeed's folders beside them have the state of the training, though ``latest`` names
    them."""
    has_model = has_state = False
    for folder in tree.subfolders(base):
        if re.fullmatch(r"global_step[0-9]+", folder.name):
            has_state = True
        elif re.fullmatch(r"epoch[0-9]+", folder.name):
            has_model = has_model or bool(tree.files_named(folder.path, re.compile(r".+\.safetensors").fullmatch))
    return _DIFFUSION_PIPE.find(tree, base) if has_model and has_state else None


DIFFUSION_PIPE = Layout(
    "diffusion-pipe",
    _find_diffusion_pipe,
    trainers="diffusion-pipe",
    keep=("*.safetensors", "*.safetensors.index.json", "*config.json", "*.toml"),
)
DEEPSPEED = Layout(
    "deepspeed",
    Pattern(
        r".*?(?P<step>[0-9]+)(\.pth)?|.+",
        kinds=("folder",),
        holds=matching(r".*_(model|optim)_states\.pt"),
        final=r"(model|pytorch_model)\b.*\.(safetensors|bin)",
        newest_in=("latest", DEEPSPEED_LATEST),
    ).find,
    trainers="DeepSpeed",
    keep=("mp_rank_*_model_states.pt", "model*.safetensors*", "pytorch_model*.bin*", "config.json", "tokenizer*"),
    drop=(*RESUME, ("*_optim_states.pt", "optimizer state")),
    notes=(("mp_rank_*_model_states.pt", "is a pickle of the model and the training; reading it needs torch"),),
)
FSDP = Layout(
    "fsdp",
    Pattern(
        r".*?(?P<step>[0-9]+)|.+",
        kinds=("folder",),
        holds=matching(r"pytorch_model_fsdp(_[0-9]+/|(_rank[0-9]+)?(_[0-9]+)?\.bin)"),
    ).find,
    trainers="accelerate's FSDP",
    keep=(
        *("pytorch_model_fsdp.bin", "pytorch_model_fsdp_[0-9].bin", "model*.safetensors*", "pytorch_model*.bin*"),
        *("config.json", "generation_config.json", "tokenizer*"),
    ),
)
"""Folders of accelerate's, with full weights in one file or with shards that must be merged before use."""
MEGATRON = Layout(
    "megatron",
    Pattern(
        r"iter_(?P<step>[0-9]{7,})|release",
        kinds=("folder",),
        holds=matching(r"mp_rank_.+/|__.+\.distcp|model_optim_rng\.pt|common\.pt"),
        newest_in=("latest_checkpointed_iteration.txt", r"\A\s*([0-9]{1,18}|release)\s*\Z"),
    ).find,
    trainers="Megatron-LM",
    keep=("mp_rank_*/*", "*.distcp", "common.pt", ".metadata", "metadata.json"),
    drop=(("*distrib_optim*", "optimizer state"),),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
)


VERL = Layout(
    "verl",
    partial(
        find_or_itself,
        Pattern(
            r"global_step_(?P<step>[0-9]+)",
            kinds=("folder",),
            holds=matching(r"actor/|critic/|.*_world_size_[0-9]+_rank_[0-9]+\.pt"),
            newest_in=("latest_checkpointed_iteration.txt", r"\A\s*([0-9]{1,18})\s*\Z"),
        ),
        ("fsdp_config.json", "actor/fsdp_config.json", "actor/huggingface/config.json"),
    ),
    trainers="verl",
    keep=("*huggingface/*", "*.safetensors*", "*.json"),
    drop=(
        ("critic/*", "the critic, which only the training needs"),
        ("*model_world_size_*", "weights sharded by FSDP"),
        ("*optim_world_size_*", "optimizer state"),
        ("*extra_state_world_size_*", "scheduler and random number state"),
        ("data.pt", "the state of the data"),
        *RESUME,
    ),
)
RWKV = Layout(
    "rwkv",
    Pattern(
        r"rwkv-((?P<epoch>[0-9]+)|init|final)\.pth",
        derived=r"rwkv-init\.pth",
        last=(r"rwkv-final\.pth",),
    ).find,
    trainers="RWKV-LM",
    keep=("rwkv-*.pth",),
)
NANOTRON = Layout(
    "nanotron",
    Pattern(
        r"(?P<step>[0-9]+)",
        kinds=("folder",),
        holds=matching(r"checkpoint_metadata\.json"),
        newest_in=("latest.txt", r"\A\s*([0-9]{1,18})\s*\Z"),
    ).find,
    trainers="nanotron",
    keep=("model/*", "*.json", "*.yaml"),
    drop=(
        ("optimizer/*", "optimizer state"),
        ("lr_scheduler/*", "scheduler state"),
        ("random/*", "random number state"),
    ),
)
