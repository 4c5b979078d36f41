"""Other frameworks, each with a way of its own to save a model: Keras, TensorFlow, orbax, spaCy and more."""

from __future__ import annotations

import re
from dataclasses import replace

from mdl.runs.layout import ANY_FILE, OPTIMIZER_INSIDE, Layout
from mdl.runs.names import model_files, what_name_says
from mdl.runs.patterns import Pattern, matching
from mdl.runs.tree import Entry, IsName, Tree, join
from mdl.weights.end_records import zip_names
from mdl.weights.known_formats import ORBAX_STAGING, stem_of

_KERAS_EPOCH = r"((?<![A-Za-z0-9.])|(?<=[^0-9]\.)|(?<=ep)|(?<=epoch))(?P<epoch>[0-9]+)(?!\.?[0-9])"
"""A whole number in a name that the user chose, the last one; ``0.34`` is a metric, ``resnet50`` a model."""
KERAS = Layout(
    "keras",
    Pattern(
        rf".*{_KERAS_EPOCH}.*\.(keras|h5|hdf5)|.+\.(keras|weights\.h5)",
        best=r"(?i)(.*[^a-z])?best([^a-z].*)?",
        last=(r"(?i)(.*[^a-z])?(last|latest|final)([^a-z].*)?",),
    ).find,
    trainers="Keras",
    keep=("*.keras", "*.h5", "*.hdf5"),
    drop=(),
    notes=(
        ("*.keras", "contains optimizer state; saving it again without needs Keras"),
        ("*.weights.h5", "is weights alone; the code that builds the model is needed"),
    ),
)
TENSORFLOW = Layout(
    "tensorflow",
    Pattern(
        r"(?P<name>(.*[-_.])?(?P<step>[0-9]+)(\.ckpt)?|.+)\.(index|meta|data-[0-9]{5}-of-[0-9]{5})",
        holds=matching(r".+\.data-[0-9]{5}-of-[0-9]{5}"),
        newest_in=("checkpoint", r'^model_checkpoint_path:\s*"(?:[^"]*/)?([^"/]+)"'),
    ).find,
    trainers="TensorFlow",
    keep=(
        *("saved_model.pb", "keras_metadata.pb", "fingerprint.pb", "variables/*", "assets/*", "assets.extra/*"),
        *("*.index", "*.data-*", "*.meta"),
    ),
    drop=(),
    notes=(("*.index", "may hold the optimizer's variables too; the code that builds the model is needed"),),
)
_GRAPH = r"saved_model\.pb"
SAVED_MODEL = replace(
    TENSORFLOW,
    find=Pattern(r"(?P<step>[0-9]+)", kinds=("folder",), holds=matching(_GRAPH), final=_GRAPH, final_alone=True).find,
)
"""TensorFlow's finished models; those in numbered folders are versions, as TensorFlow Serving counts them."""


def _is_orbax(tree: Tree, entry: Entry) -> bool:
    """Tell whether a folder, or one directly in it, has a marker of orbax."""
    markers = {"_CHECKPOINT_METADATA", "manifest.ocdbt"}
    if ORBAX_STAGING.fullmatch(entry.name):
        return True
    folders = [entry, *tree.subfolders(entry.path)]
    return any(not markers.isdisjoint(tree.names(folder.path)) for folder in folders)


ORBAX = Layout(
    "orbax",
    Pattern(
        rf"{ORBAX_STAGING.pattern}|(?!ocdbt\.process_)(?:.*[-_])?(?P<step>[0-9]+)",  # each process has its part there
        kinds=("folder",),
        staging=ORBAX_STAGING.pattern,
        holds=matching(r"_CHECKPOINT_METADATA|manifest\.ocdbt|default/|state/|params/|items/"),
        requires=r"(?:.*[-_])?[0-9]+(\.orbax-checkpoint-tmp.*)?",
        is_saved=_is_orbax,
        weights=r".+",
    ).find,
    trainers="orbax and Flax",
    marks=r"manifest\.ocdbt|_CHECKPOINT_METADATA",
    keep=ANY_FILE,
)
SPACY = Layout(
    "spacy",
    Pattern(
        r"model-(best|last)",
        kinds=("folder",),
        holds=matching(r"config\.cfg"),
        best="model-best",
        last=("model-last",),
        weights="model",
    ).find,
    trainers="spaCy",
    marks=r"model|config\.cfg",
    keep=ANY_FILE,
)


def _is_policy(tree: Tree, entry: Entry) -> bool:
    """Tell whether a zip is one of stable-baselines3, by the names in its directory."""
    with tree.opened(entry) as file:
        names = zip_names(file, entry.stamp.size) if file else frozenset()
    return {"data", "policy.pth"} <= names


STABLE_BASELINES = Layout(
    "stable-baselines3",
    Pattern(
        r"(.*_)?(?P<step>[0-9]+)_steps\.zip|.+\.zip",
        best=r"best_model\.zip",
        last=(r"(?!.*_steps\.zip|best_model\.zip).+\.zip", r".*(last|latest|final).*\.zip"),
        is_saved=_is_policy,
        weights=r".+\.zip",
        beside=("*vecnormalize*.pkl", "vec_normalize*.pkl"),
    ).find,
    trainers="stable-baselines3",
    marks=r".+\.zip",
    keep=("*.zip", "*vec*normalize*.pkl"),
)


def _fastai_models(tree: Tree, base: str, _is_saved: IsName) -> list[str]:
    """The folder of the callbacks; none beside numbered checkpoints: any program may write an ``export.pkl``."""
    if any(what_name_says(stem_of(file.name)).is_counted for file in model_files(tree, base)):
        return []
    return [join(base, "models")]


FASTAI = Layout(
    "fastai",
    Pattern(
        r"(.+)_(?P<epoch>[0-9]+)\.pth|.+\.pth",
        best=r"(?i).*best.*",
        requires=r"export\.pkl",
        final=r"export\.pkl",
        final_alone=True,
        weights=r"export\.pkl",
        places=_fastai_models,
        run_in=lambda name: re.sub(r"_[0-9]+\.pth$", "", name) if re.search(r"_[0-9]+\.pth$", name) else None,
    ).find,
    trainers="fastai",
    marks=r"export\.pkl",
    keep=("export.pkl", "*.pth"),
    notes=(("*.pth", OPTIMIZER_INSIDE),),
)
"""``Learner.export`` writes the finished model, callbacks write into ``models``."""
PADDLE = Layout(
    "paddle",
    Pattern(
        r"(?P<name>(iter_)?(epoch_)?(?P<epoch>[0-9]+)|latest|best_accuracy|best_model|model_final)"
        r"\.(pdparams|pdopt|pdema|pdstates|states)",
        best=r"best_.+",
        last=("latest", "model_final"),
        holds=matching(r".+\.pdparams"),
        requires=r".+\.pdopt",
        beside=("*.yml", "*.yaml"),
    ).find,
    trainers="PaddleDetection, PaddleClas and PaddleOCR",
    keep=("*.pdparams", "*.yml", "*.yaml"),
    drop=(
        ("*.pdopt", "optimizer state"),
        ("*.pdema", "the weights without their average, which only the training needs"),
        ("*states", "the trainer's own record"),
    ),
)
ALLENNLP = Layout(
    "allennlp",
    Pattern(
        r"model_state_epoch_(?P<epoch>[0-9]+)\.th|best\.th|weights\.th",
        best=r"best\.th",
        requires=r"(model|training)_state_epoch_[0-9]+\.th",
        beside=("config.json", "vocabulary"),
    ).find,
    trainers="AllenNLP",
    keep=("*.th", "config.json", "vocabulary/*"),
)
AUDIOCRAFT = Layout(
    "audiocraft",
    Pattern(
        r"checkpoint(_(?P<epoch>[0-9]+))?\.th|best\.th",
        best=r"best\.th",
        last=(r"checkpoint\.th",),
    ).find,
    trainers="AudioCraft and Demucs",
    keep=("*.th", "*.yaml"),
    notes=(("*.th", OPTIMIZER_INSIDE),),
)
