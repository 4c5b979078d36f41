"""Folders and files of no trainer that is known: what a name, a marker or a single set of weights tells."""

from __future__ import annotations

import re
from dataclasses import replace

from mdl.runs.checkpoint import FINAL, Checkpoint, Found, checked, paths_of
from mdl.runs.layout import ANY_FILE, Layout
from mdl.runs.names import holds_a_model, holds_model, model_files, named_folders, run_in, what_name_says
from mdl.runs.patterns import LAST_CHECKPOINT, PIECE, Pattern
from mdl.runs.tree import FILES, Entry, Tree
from mdl.weights.known_formats import WEIGHT_SUFFIXES, folder_kind_of, set_name, stem_of


def _find_marked(tree: Tree, base: str) -> Found | None:
    """A folder that a format's own marker declares to be one model."""
    kind = folder_kind_of(tree.names(base))
    if kind is None:
        return None
    checkpoint = checked(tree, Checkpoint(FINAL, base, tree.below(base), weights=kind.weights))
    return Found((replace(checkpoint, weights=r".+"),))  # what its program loads, that alone knows


_ESTIMATOR = re.compile(
    r".+\.(joblib|skops|cbm|ubj)|xgboost-model"
    r"|(.*[-_.])?(model|pipeline|estimator|classifier|regressor|clf)([-_.].*)?\.(pkl|pickle)",
    re.IGNORECASE,
)
_PREPARES = re.compile(r"(.*[-_.])?(scaler|encoder|vectorizer|imputer|preprocessor|features?)([-_.].*)?", re.IGNORECASE)
"""What transforms the data before an estimator gets them: a part of the model."""


_BOOSTER = re.compile(r"(.*[-_.])?(model|booster|xgb|xgboost|lgb|lgbm|lightgbm)([-_.].*)?(\.(json|txt))", re.IGNORECASE)
_BOOSTERS = {".json": b'{"learner"', ".txt": b"tree\n"}
"""How XGBoost's and LightGBM's own files begin, by their suffixes, which any file may have."""


def _is_estimator(tree: Tree, entry: Entry) -> bool:
    if _PREPARES.fullmatch(entry.name.rpartition(".")[0]):
        return False
    booster = _BOOSTER.fullmatch(entry.name)
    if booster is None:
        return _ESTIMATOR.fullmatch(entry.name) is not None
    beginning = _BOOSTERS[booster[4].lower()]
    return tree.head(entry.path, len(beginning)) == beginning


def _find_estimator(tree: Tree, base: str) -> Found | None:
    """A folder with one saved estimator, and no weights of any other kind."""
    if any(child.is_file and child.is_weights for child in tree.children(base)):
        return None
    saved = [entry for entry in tree.children(base) if entry.is_file and _is_estimator(tree, entry)]
    if len(saved) != 1:
        return None
    weights = re.escape(saved[0].name)
    return Found((checked(tree, Checkpoint(FINAL, base, tree.below(base), weights=weights)),))


def find_weights(tree: Tree, base: str) -> Found:
    """All that is in a folder, as one model, if there are weights in it."""
    entries = tree.below(base)
    if any(entry.is_file and entry.is_weights for entry in entries):
        return Found((checked(tree, Checkpoint(FINAL, base, entries)),))
    return Found(())


_GENERIC_KEEP = (
    *(f"*{suffix}" for suffix in WEIGHT_SUFFIXES),
    "*.json",
    "*.txt",
    "*.model",
    "*.yaml",
    "*.yml",
    "*.md",
    "*.py",
)
PLAIN = Layout(
    "plain",
    find_weights,
    keep=_GENERIC_KEEP,
    notes=tuple(
        (glob, "may contain optimizer state; stripping it needs torch") for glob in ("*.pt", "*.pth", "*.ckpt")
    ),
)
"""A folder of weights whose names fit no trainer: one checkpoint, all that is in it."""
MARKED = Layout(
    "model",
    _find_marked,
    trainers="spaCy, MLflow, RLlib, AutoGluon and diffusers models",
    marks=r"MLmodel|model_index\.json|config\.cfg|rllib_checkpoint\.json|predictor\.pkl",
    keep=ANY_FILE,
)

ESTIMATOR = Layout(
    "estimator",
    _find_estimator,
    trainers="scikit-learn, XGBoost, LightGBM and CatBoost",
    marks=r".+\.(joblib|skops|cbm|ubj)|xgboost-model",
    keep=ANY_FILE,
    drop=(),
)


def _says_checkpoint(tree: Tree, entry: Entry) -> bool:
    """Tell whether a name says that it is a checkpoint, and is no file of the training alone."""
    is_folder = entry.kind == "folder"
    if not is_folder and not holds_model(entry):
        return False
    stem = stem_of(entry.name)
    if not what_name_says(stem).is_checkpoint:
        return stem == "checkpoint" and not is_folder
    return not is_folder or holds_a_model(tree, entry)


_NAMED = Pattern(
    rf".+?{PIECE}\.[a-z.]+|.+",
    best=r"(?i)(.*[-_.=+])?best([-_.=+].*)?",
    last=(r"checkpoint(\.[a-z]+)+", r"(?i)(.*[-_.=+])?(last|latest|final)([-_.=+].*)?"),
    kinds=(*FILES, "folder"),
    is_saved=_says_checkpoint,
    run_in=run_in,
    newest_in=LAST_CHECKPOINT,
    beside=(
        *("config*", "*config.json", "*.yaml", "*.yml", "*vocab*", "tokenizer*", "special_tokens_map.json"),
        *("merges.txt", "*.model", "*label*", "*speaker*", "spk*", "dictionary*", "README.md"),
    ),
)


def _find_named(tree: Tree, base: str) -> Found | None:
    """The checkpoints by their names, and the other weights beside them: the finished model if they are one set, else
    rows of their own. One file without a number, beside other weights, is a part of one model, however it is
    called."""
    found = _NAMED.find(tree, base)
    if found is None:
        return None
    checkpoints = list(found.checkpoints)
    of_checkpoints = paths_of(checkpoints)
    others: dict[str, list[Entry]] = {}
    for file in model_files(tree, base):
        if file.path not in of_checkpoints:
            others.setdefault(set_name(file.name), []).append(file)
    if not others:
        return found
    if len(checkpoints) == 1 and not checkpoints[0].is_counted and checkpoints[0].base == base:
        return None
    if len(others) > 1:
        for files in others.values():
            checkpoint = checked(tree, Checkpoint(files[0].name, base, tuple(files), is_derived=True))
            checkpoints.append(checkpoint)
        return replace(found, checkpoints=tuple(checkpoints))
    taken = {folder.path for folder in named_folders(tree, base)}
    for checkpoint in checkpoints:
        taken.add(checkpoint.base)
        taken.update(entry.path for entry in checkpoint.entries if holds_model(entry))  # the others belong to all
    final = checked(tree, Checkpoint(FINAL, base, tree.all_but(base, taken)))
    return replace(found, checkpoints=(*checkpoints, final))


NAMED_LAYOUT = replace(PLAIN, name="named", find=_find_named, trainers="names like `epoch_10` or `step-500`")
"""Folders and files of no known trainer whose names say that they are checkpoints."""


def find_folders(tree: Tree, base: str, *, of_any_name: bool) -> tuple[Checkpoint, ...]:
    """The folders in ``base`` that hold weights: those named like checkpoints, or all of them."""
    pattern = replace(_NAMED, kinds=("folder",))
    if of_any_name:
        pattern = replace(pattern, is_saved=holds_a_model)
    return tuple(pattern.checkpoints(tree, base, base))
