"""Names that say what they are, whatever trainer chose them: ``best_model``, ``epoch_10``, ``step-500``, ``last.pt``.

A trainer's own layout comes first; these names are for the folders and files that no layout knows.
"""

from __future__ import annotations

import re

from mdl.runs.axes import what_name_says
from mdl.runs.tree import Entry, Tree, join
from mdl.weights.table import is_weights

_LONGEST_NAME = 255
_OF_TRAINING = re.compile(
    r"(?:.*[-_.])?(?:optimi[sz]er|optim|scheduler|scaler|rng_state|random_states|sampler|training_args)[-_.0-9].*"
)


def holds_model(name: str) -> bool:
    """Whether a file of this name is a model's, or declares one."""
    return name == "model_index.json" or (is_weights(name) and not _OF_TRAINING.fullmatch(name))


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
    named = [folder for folder in tree.subfolders(base) if what_name_says(folder.name).is_checkpoint]
    return [
        folder
        for folder in named
        if folder.name != own and any(child.is_file and holds_model(child.name) for child in tree.children(folder.path))
    ]
