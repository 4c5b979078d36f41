"""Which files of a run are its logs. Pure."""

from __future__ import annotations

import re

_LOGS = re.compile(
    r".+\.log(\.\d+)?|(.+_)?log\.txt|trainer_log\.jsonl|progress\.json|log_history\.json"
    r"|events\.out\.tfevents\..+|metrics\.(csv|jsonl?)|loss\.(csv|jsonl?)"
)
_STATE = re.compile(
    r"trainer_state\.json|train_state\.json|results\.csv|learnable_snr\.json|(all|train|eval|test|predict)_results\.json|hparams\.yaml|args\.yaml"
)


def is_log(name: str) -> bool:
    """Worth having in a zip of the logs: what was written while training, and what sums it up."""
    return is_only_log(name) or _STATE.fullmatch(name) is not None


def is_only_log(name: str) -> bool:
    """A log and nothing else: a model does without it."""
    return _LOGS.fullmatch(name) is not None
