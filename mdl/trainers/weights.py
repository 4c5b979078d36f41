"""What looks like weights by its name, and what a trainer keeps only to go on with the training. Pure."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

_WEIGHTS = re.compile(
    r".+\.(safetensors|bin|pt|pth|ckpt|gguf|ggml|onnx|h5|hdf5|keras|msgpack|nemo|tflite|pb|npz|distcp)"
    r"|.+\.data-[0-9]{5}-of-[0-9]{5}",
    re.IGNORECASE,
)

RESUME: tuple[tuple[str, str], ...] = (
    ("optimizer*.pt", "optimizer state"),
    ("optimizer*.bin", "optimizer state"),
    ("optimizer_[0-9]*/*", "optimizer state"),
    ("scheduler*.pt", "scheduler state"),
    ("scheduler*.bin", "scheduler state"),
    ("scaler*.pt", "gradient scaler state"),
    ("rng_state*.pth", "random number state"),
    ("random_states_*.pkl", "random number state"),
    ("sampler*.bin", "sampler state"),
    ("custom_checkpoint_*.pkl", "state of the script's own objects"),
    ("training_args.bin", "a pickle of the trainer's settings"),
    ("trainer_state.json", "the trainer's own record"),
    ("global_step*/*", "DeepSpeed's training state"),
    ("*zero_pp_rank_*", "DeepSpeed's sharded training state"),
    ("latest", "names DeepSpeed's training state"),
    ("zero_to_fp32.py", "merges DeepSpeed's training state"),
    ("pytorch_model_fsdp_[0-9]*/*", "weights sharded by FSDP"),
    ("pytorch_model_fsdp_rank*.bin", "weights sharded by FSDP"),
    ("*.distcp", "a distributed shard"),
    ("*.tmp", "half-written"),
)
"""Globs of what only a resumed training reads, with a short why; ``*`` crosses ``/``."""


def is_weights(name: str) -> bool:
    """Whether a file of this name may hold weights."""
    return _WEIGHTS.fullmatch(name) is not None


def why_resume(name: str) -> str | None:
    """Why inference does not need the file of this name, below its checkpoint; None where it may."""
    return next((why for glob, why in RESUME if fnmatchcase(name, glob)), None)
