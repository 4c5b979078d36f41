"""diffusers' example scripts: ``checkpoint-N`` by accelerate's ``save_state``, the finished pipeline or LoRA beside."""

from __future__ import annotations

import re

from mdl.trainers.inference_filter import InferenceFilter
from mdl.trainers.layout import Layout, NumberedFolder, by_step, finished_model, folder_checkpoint, numbered_folders
from mdl.trainers.runs import Checkpoint, Found
from mdl.trainers.tree import Tree, join

_MODEL = re.compile(
    r"model_index\.json|(pytorch_lora_weights|diffusion_pytorch_model|learned_embeds).*\.(safetensors|bin)"
)
_RANDOM = re.compile(r"random_states_[0-9]+\.pkl")
_STATE = re.compile(rf"{_RANDOM.pattern}|{_MODEL.pattern}")
_PARTS = ("unet", "unet_ema", "transformer", "controlnet", "prior", "vae", "text_encoder")


def find(tree: Tree, base: str) -> Found | None:
    folders = numbered_folders(tree, base)
    if any(tree.is_file(join(one.path, "trainer_state.json")) for one in folders):
        return None
    final = finished_model(tree, base, _MODEL.fullmatch, [one.path for one in folders])
    if not final and not any(_is_ours(tree, one.path) for one in folders):
        return None
    keeps_states = any(tree.files_named(one.path, _RANDOM.fullmatch) for one in folders)
    rows = by_step(_checkpoint(tree, one, keeps_states) for one in folders)
    best = next((row for row in rows if row.name == "checkpoint-best"), None)
    newest = [[row for row in rows if row is not best], final]
    return Found.of("diffusers", [*rows, *final], newest=newest, best=best)


def _is_ours(tree: Tree, folder: str) -> bool:
    return bool(tree.files_named(folder, _STATE.fullmatch)) or any(
        tree.is_folder(join(folder, part)) for part in _PARTS
    )


def _checkpoint(tree: Tree, one: NumberedFolder, keeps_states: bool) -> Checkpoint:
    """accelerate writes the random states last: if other checkpoints have them, one without was cut short."""
    wrong = one.why_staging
    if keeps_states and not tree.files_named(one.path, _RANDOM.fullmatch):
        wrong = wrong or "random_states_*.pkl, which is written last, is missing"
    return folder_checkpoint(tree, one.entry, one.step, wrong=wrong)


_FOLDERS = (
    *("unet", "unet_ema", "transformer", "transformer_2", "controlnet", "prior", "decoder", "movq", "vae", "vae_ema"),
    *("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3", "scheduler"),
    *("feature_extractor", "image_encoder", "image_processor", "safety_checker", "adapter"),
)
LAYOUT = Layout(
    ("diffusers",),
    find,
    InferenceFilter(
        keep=(
            *("pytorch_lora_weights*", "learned_embeds*", "diffusion_pytorch_model*", "model*.safetensors*"),
            *("pytorch_model*.bin*", "model_index.json", "config.json", "README.md", "LICENSE*", "adapter_*"),
            *(f"{folder}/*" for folder in _FOLDERS),
        )
    ),
)
