"""Names that say what they are, whatever trainer chose them: ``best_model``, ``epoch_10``, ``step-500``, ``last.pt``.

A trainer's own layout comes first; these names are for the folders and files that no layout knows.
"""

from __future__ import annotations

import re

from mdl.trainers.tree import Entry, Tree, join
from mdl.weights import WEIGHT_SUFFIXES

_BEFORE, _AFTER = r"(?:.*[-_.=])?", r"(?:[-_.=].*)?"
_COUNTED = r"(?:global_?)?steps?|iter(?:ation)?s?|checkpoint|ckpt|model(?=[-_][0-9]{5})"
_STEP = rf"{_BEFORE}(?:{_COUNTED})[-_=]?(?P<step>[0-9]+)(?!-of-){_AFTER}"
_EPOCH = rf"{_BEFORE}(?:epochs?|ep)[-_=]?(?P<epoch>[0-9]+)(?!-of-){_AFTER}"
BEST = rf"(?i:{_BEFORE}best{_AFTER})"
LAST = rf"(?i:{_BEFORE}(?:last|latest|final){_AFTER})"
NAMED = rf"(?i:{_STEP}|{_EPOCH})|{BEST}|{LAST}"
"""A checkpoint's whole name; the group ``step`` or ``epoch`` is its number."""
_LONGEST_NAME = 255
_OF_TRAINING = r"(?:.*[-_.])?(?:optimi[sz]er|scheduler|scaler|rng_state|random_states|sampler|training_args)[-_.0-9].*"
WEIGHTS = rf"(?i:.+(?:{'|'.join(map(re.escape, WEIGHT_SUFFIXES))}))"
HOLDS = rf"(?!{_OF_TRAINING})(?:{WEIGHTS}|.+\.data-[0-9]{{5}}-of-[0-9]{{5}})|model_index\.json"
"""The name of a file in it that is a model's."""


def own_state(tree: Tree, base: str) -> str:
    """The name of the folder with DeepSpeed's state in a checkpoint of HF Trainer, which is a part of that: ``latest``
    in it names the folder. '' if ``base`` is no such checkpoint."""
    if not (tree.is_file(join(base, "trainer_state.json")) and tree.is_file(join(base, "latest"))):
        return ""
    name = tree.head(join(base, "latest"), _LONGEST_NAME).decode("utf-8", "replace").strip()
    return name if name and tree.is_folder(join(base, name)) else ""


def named_folders(tree: Tree, base: str) -> list[Entry]:
    """The folders in ``base`` that are named like checkpoints and hold a model."""
    own = own_state(tree, base)
    return [
        folder
        for folder in tree.subfolders(base)
        if re.fullmatch(NAMED, folder.name)
        and folder.name != own
        and any(child.is_file and re.fullmatch(HOLDS, child.name) for child in tree.children(folder.path))
    ]
