"""diffusers' example scripts: ``checkpoint-N`` by accelerate's ``save_state``, the finished pipeline or LoRA beside."""

from __future__ import annotations

import re

from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.layout import Found, Layout, join, newest, ordered, rest, saved
from mdl.trainers.numbered import Numbered, holds, numbered_folders
from mdl.trainers.sieve import Sieve
from mdl.trainers.tree import Tree

_MODEL = re.compile(
    r"model_index\.json|(pytorch_lora_weights|diffusion_pytorch_model|learned_embeds).*\.(safetensors|bin)"
)
_RANDOM = re.compile(r"random_states_[0-9]+\.pkl")
_STATE = re.compile(rf"{_RANDOM.pattern}|{_MODEL.pattern}")
_PARTS = ("unet", "unet_ema", "transformer", "controlnet", "prior", "vae", "text_encoder")


def find(tree: Tree, base: str) -> Found | None:
    folders = numbered_folders(tree, base)
    if any(tree.is_file(join(one.folder.path, "trainer_state.json")) for one in folders):
        return None
    finished = holds(tree, base, _MODEL.fullmatch)
    if not finished and not any(_is_ours(tree, one.folder.path) for one in folders):
        return None
    states = any(holds(tree, one.folder.path, _RANDOM.fullmatch) for one in folders)
    rows = ordered(_checkpoint(tree, one, states) for one in folders)
    taken = [one.folder.path for one in folders]
    final = [saved(tree, "final", base, rest(tree, base, taken))] if finished else []
    best = next((row for row in rows if row.name == "checkpoint-best"), None)
    latest = newest([row for row in rows if row is not best], final, rows)
    return Found.of("diffusers", [*rows, *final], latest=latest, best=best)


def _is_ours(tree: Tree, folder: str) -> bool:
    return holds(tree, folder, _STATE.fullmatch) or any(tree.is_folder(join(folder, part)) for part in _PARTS)


def _checkpoint(tree: Tree, one: Numbered, states: bool) -> Checkpoint:
    """accelerate writes the random states last; one that lacks them where others have them was cut short."""
    path, wrong = one.folder.path, ""
    if one.is_staging:
        wrong = "a staging folder, which the trainer renames when it is whole"
    elif states and not holds(tree, path, _RANDOM.fullmatch):
        wrong = "random_states_*.pkl, which is written last, is missing"
    return saved(tree, one.folder.name, path, tree.below(path), one.step, wrong=wrong)


_FOLDERS = (
    *("unet", "unet_ema", "transformer", "transformer_2", "controlnet", "prior", "decoder", "movq", "vae", "vae_ema"),
    *("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3", "scheduler"),
    *("feature_extractor", "image_encoder", "image_processor", "safety_checker", "adapter"),
)
LAYOUT = Layout(
    ("diffusers",),
    find,
    Sieve(
        keep=(
            *("pytorch_lora_weights*", "learned_embeds*", "diffusion_pytorch_model*", "model*.safetensors*"),
            *("pytorch_model*.bin*", "model_index.json", "config.json", "README.md", "LICENSE*", "adapter_*"),
            *(f"{folder}/*" for folder in _FOLDERS),
        )
    ),
)
