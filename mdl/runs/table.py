"""The table of layouts: one row for each way in which trainers lay out what they save.

A row tells which names are checkpoints, which of them is the last and which the best, what belongs beside them, and
what inference needs. The list in docs/trained-runs.md is held against it.
"""

from __future__ import annotations

import re
from dataclasses import replace

from mdl.runs import hugging_face, lightning, lora
from mdl.runs.axes import NameSays, what_name_says
from mdl.runs.checkpoint import FINAL, Checkpoint, Found, checkpoint, parse_count
from mdl.runs.completeness import RESUME
from mdl.runs.layout import OPTIMIZER_INSIDE, Layout
from mdl.runs.named import holds_model, named_folders
from mdl.runs.patterns import Pattern, Place, matching
from mdl.runs.tree import FILES, Entry, IsName, Tree, join
from mdl.weights.end_records import zip_names
from mdl.weights.table import ORBAX_STAGING, WEIGHT_SUFFIXES, folder_kind_of, is_weights, stem_of

_ANY = ("*",)


# Voices


def _coqui_place(tree: Tree, base: str, is_saved: IsName) -> list[Place]:
    """A configuration lies beside the checkpoints."""
    is_run = tree.is_file(join(base, "config.json")) and tree.files_named(base, is_saved)
    return [(base, base)] if is_run else []


_COQUI_BESIDE = ("config.json", "*speaker*", "*language_ids*", "vocab*")
COQUI = Layout(
    "coqui",
    Pattern(
        r"(checkpoint_|best_model_)(?P<step>[0-9]+)\.pth|best_model\.pth",
        best=r"best_model.*",
        keeps_bests=True,
        places=_coqui_place,
        beside=_COQUI_BESIDE,
        unnumbered_note="a copy of the best model",
    ).find,
    trainers="Coqui TTS",
    keep=("checkpoint_*.pth", "best_model*.pth", *_COQUI_BESIDE),
    drop=(),
    notes=(("checkpoint_*.pth", OPTIMIZER_INSIDE), ("best_model*.pth", OPTIMIZER_INSIDE)),
)
_DISCRIMINATOR = "the discriminator, which only the training needs"
VITS = Layout(
    "vits",
    Pattern(
        r"(G|D|DUR|WD|MPD|MSD)_(?P<name>(?P<step>[0-9]+))\.pth",
        requires=r"G_[0-9]+\.pth",
        beside=("config*", "*.yaml", "*.yml", "*.json"),
    ).find,
    trainers="VITS and its family: so-vits-svc, Bert-VITS2, RVC, GPT-SoVITS",
    keep=("G_*.pth", "config*", "*.json", "*.yaml", "*.yml"),
    drop=(
        ("D_*.pth", _DISCRIMINATOR),
        ("DUR_*.pth", _DISCRIMINATOR),
        ("WD_*.pth", _DISCRIMINATOR),
        ("M?D_*.pth", _DISCRIMINATOR),
    ),
    notes=(("G_*.pth", OPTIMIZER_INSIDE),),
)
HIFIGAN = Layout(
    "hifi-gan",
    Pattern(
        r"(g|do)_(?P<name>(?P<step>[0-9]{8}))",
        requires=r"g_[0-9]{8}",
        weights=r"(g|do)_[0-9]{8}",
        beside=("config*",),
    ).find,
    trainers="HiFi-GAN",
    keep=("g_*", "config*"),
    drop=(("do_*", "the discriminator and the optimizers"),),
)
F5_TTS = Layout(
    "f5-tts",
    Pattern(
        r"model_(?P<step>[0-9]+)\.(pt|safetensors)|model_last\.(pt|safetensors)",
        requires=r"model_last\.(pt|safetensors)",
        last=(r"model_last\..+",),
        beside=("vocab.txt", "*.yaml", "config*"),
    ).find,
    trainers="F5-TTS",
    keep=("*.pt", "*.safetensors", "vocab.txt", "*.yaml", "config*"),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
)


# Speech recognition and translation

ESPNET = Layout(
    "espnet",
    Pattern(
        r"(?P<epoch>[0-9]+)epoch\.pth|(valid|train)\..+\.ave.*\.pth|(valid|train)\..+\.best\.pth|latest\.pth",
        best=r"(valid|train)\..+\.best\.pth",
        derived=r".+\.ave(_.+)?\.pth",
        last=(r"latest\.pth",),
        requires=r"[0-9]+epoch\.pth|(valid|train)\..+\.(best|ave.*)\.pth",
        beside=("config.yaml", "*.npz", "tokens*", "*.model"),
    ).find,
    trainers="ESPnet",
    keep=("*.pth", "config.yaml", "*.npz", "tokens*", "*.model"),
)
_ESPNET1 = r"snapshot\.(ep\.[0-9]+|iter\.[0-9]+)|model\.(acc|loss|cer|wer|last[0-9]+\.avg|val[0-9]+\.avg)\.best"
ESPNET1 = Layout(
    "espnet1",
    Pattern(
        r"snapshot\.(ep\.(?P<epoch>[0-9]+)|iter\.(?P<step>[0-9]+))|model\..+\.best",
        best=r"model\.(acc|loss|cer|wer)\.best",
        derived=r"model\..+\.avg\.best",
        requires=r"snapshot\.(ep|iter)\.[0-9]+|model\.(acc|loss)\.best",
        weights=_ESPNET1,
        beside=("model.json",),
    ).find,
    trainers="ESPnet 1",
    keep=("model.*", "snapshot.*"),
)
WENET = Layout(
    "wenet",
    Pattern(
        r"(epoch_)?(?P<epoch>[0-9]+)\.pt|step_(?P<step>[0-9]+)\.pt|avg_?[0-9]+\.pt|init\.pt|final\.pt",
        derived=r"(avg.*|init)\.pt",
        last=(r"final\.pt",),
        requires=r"(epoch_)?[0-9]+\.yaml|avg_?[0-9]+\.pt",
        beside=("train.yaml", "*.yaml", "units.txt", "global_cmvn", "*.model"),
    ).find,
    trainers="WeNet",
    keep=("*.pt", "*.yaml", "units.txt", "global_cmvn", "*.model"),
)
_FAIRSEQ_NAME = r"checkpoint(?:_(?=[0-9]+_))?(?P<epoch>[0-9]+)(?:_(?P<step>[0-9]+))?"
_PIECE = r"(?P<piece>([-_.](([a-z]+_)?rank|shard|model_part)[-_]?[0-9]+)+)"
"""What a trainer appends that has each process write its own piece: ``-rank0``, ``-model_part-1-shard0``."""
FAIRSEQ = Layout(
    "fairseq",
    Pattern(
        rf"({_FAIRSEQ_NAME}|checkpoint_(best|last)|checkpoint\.best_.+?){_PIECE}?\.pt",
        best=r"checkpoint_best\.pt",
        last=(r"checkpoint_last\.pt",),
        order=lambda name: int(
            re.fullmatch(r"checkpoint[0-9]+\.pt", name) is not None
        ),  # an epoch's end, after its updates
        beside=("dict.*.txt",),
    ).find,
    trainers="fairseq",
    keep=("*.pt", "dict.*.txt"),
    drop=(),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
)


def _speechbrain_record(tree: Tree, folder: str) -> NameSays:
    """The epoch that the training's own counter has."""
    text = tree.head(join(folder, "counter.ckpt"), 64).decode("utf-8", "replace").strip()
    return NameSays(epoch=parse_count(text))


SPEECHBRAIN = Layout(
    "speechbrain",
    Pattern(
        r"CKPT\+(?P<step>).+",  # the numbers in the name are a date
        kinds=("folder",),
        holds=matching(r"CKPT\.yaml"),
        record=_speechbrain_record,
    ).find,
    trainers="SpeechBrain",
    keep=("*.ckpt", "CKPT.yaml", "*.yaml"),
    drop=(("optimizer*.ckpt", "optimizer state"), ("dataloader*.ckpt", "the state of the data"), *RESUME),
)


# Pictures


def _ultralytics_place(tree: Tree, base: str, is_saved: IsName) -> list[Place]:
    """The folder ``weights`` of an experiment, or that folder itself."""
    weights = join(base, "weights")
    if tree.is_folder(weights) and tree.files_named(weights, is_saved):
        return [(weights, base)]
    has_both = tree.is_file(join(base, "best.pt")) and tree.is_file(join(base, "last.pt"))
    return [(base, base)] if has_both else []


ULTRALYTICS = Layout(
    "ultralytics",
    Pattern(
        r"best\.pt|last\.pt|epoch(?P<epoch>[0-9]+)\.pt",
        best=r"best\.pt",
        last=(r"last\.pt",),
        places=_ultralytics_place,
        beside=("args.yaml", "results.csv"),
    ).find,
    trainers="Ultralytics and YOLOv5",
    keep=("*.pt", "args.yaml", "results.csv"),
    drop=(),
    notes=(("*.pt", "contains optimizer state unless the training came to its end; stripping it needs torch"),),
)
DARKNET = Layout(
    "darknet",
    Pattern(
        r".+_((?P<step>[0-9]+)|last|best|final)\.weights",
        best=r".+_best\.weights",
        last=(r".+_last\.weights", r".+_final\.weights"),
        beside=("*.cfg", "*.names", "*.data"),
    ).find,
    trainers="Darknet",
    keep=("*.weights", "*.cfg", "*.names", "*.data"),
)
CYCLEGAN = Layout(
    "cyclegan",
    Pattern(
        r"(?P<name>(?P<epoch>[0-9]+)|latest)_net_.+\.pth",
        last=(r"latest",),
        beside=("train_opt.txt",),
    ).find,
    trainers="CycleGAN and pix2pix",
    keep=("*.pth", "*.txt"),
)
BASICSR = Layout(
    "basicsr",
    Pattern(
        r"net_[a-z]+_(?P<name>(?P<step>[0-9]+)|latest)\.pth",
        requires=r"net_g_([0-9]+|latest)\.pth",
        last=(r"latest",),
    ).find,
    trainers="BasicSR and ESRGAN",
    keep=("net_g*.pth", "*.yml"),
    drop=(("net_d_*.pth", _DISCRIMINATOR),),
)
_STYLEGAN = r"network-snapshot-[0-9]+\.pkl"
STYLEGAN = Layout(
    "stylegan",
    Pattern(
        r"network-snapshot-(?P<step>[0-9]+)\.pkl",
        weights=_STYLEGAN,
        beside=("training_options.json",),
    ).find,
    trainers="StyleGAN",
    keep=("*.pkl", "training_options.json"),
)


NNUNET = Layout(
    "nnunet",
    Pattern(
        r"checkpoint_(best|latest|final)\.pth",
        best=r"checkpoint_best\.pth",
        last=(r"checkpoint_latest\.pth", r"checkpoint_final\.pth"),
        requires=r"plans\.json",
        pieces_in=r"fold_([0-9]+|all)",
        partial=r"checkpoint_latest\.pth",
        beside=("plans.json", "dataset.json", "dataset_fingerprint.json"),
    ).find,
    trainers="nnU-Net",
    keep=("fold_*/*.pth", "*.json"),
    notes=(("*.pth", OPTIMIZER_INSIDE),),
)
"""A checkpoint is the files of one name in all folds. The latest is deleted at the end of a fold."""


# Large models in shards

DEEPSPEED = Layout(
    "deepspeed",
    Pattern(
        r".*?(?P<step>[0-9]+)|.+",
        kinds=("folder",),
        holds=matching(r".*_(model|optim)_states\.pt"),
        final=r"(model|pytorch_model)\b.*\.(safetensors|bin)",
        newest_in=("latest", hugging_face.DEEPSPEED_LATEST),
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


# Adapters for pictures and small machines

MLX = Layout(
    "mlx",
    Pattern(
        r"(?P<step>[0-9]{7})_adapters\.(safetensors|npz)|adapters\.(safetensors|npz)",
        last=(r"adapters\..+",),
        beside=("adapter_config.json",),
    ).find,
    trainers="mlx-lm",
    keep=("*adapters.*", "adapter_config.json"),
    drop=(),
)
ONE_TRAINER = Layout(
    "onetrainer",
    Pattern(
        r".*-(save|backup)-(?P<step>[0-9]+)-(?P<epoch>[0-9]+)-[0-9]+(\.(safetensors|ckpt))?",
        kinds=(*FILES, "folder"),
    ).find,
    trainers="OneTrainer",
    keep=("*.safetensors", "*.ckpt", "*/*", "*.json"),
    drop=(("optimizer/*", "optimizer state"), ("ema/*", "the state of the average")),
)


# Other frameworks

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
    """Whether a folder, or one directly in it, has a marker of orbax."""
    markers = {"_CHECKPOINT_METADATA", "manifest.ocdbt"}
    inside = tree.children(entry.path)
    deeper = [child for folder in inside if folder.kind == "folder" for child in tree.children(folder.path)]
    return ORBAX_STAGING.fullmatch(entry.name) is not None or any(child.name in markers for child in [*inside, *deeper])


ORBAX = Layout(
    "orbax",
    Pattern(
        rf"{ORBAX_STAGING.pattern}|(?:.*[-_])?(?P<step>[0-9]+)",
        kinds=("folder",),
        staging=ORBAX_STAGING.pattern,
        holds=matching(r"_CHECKPOINT_METADATA|manifest\.ocdbt|default/|state/|params/|items/"),
        requires=r"(?:.*[-_])?[0-9]+(\.orbax-checkpoint-tmp.*)?",
        is_saved=_is_orbax,
        weights=r".+",
    ).find,
    trainers="orbax and Flax",
    keep=_ANY,
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
    keep=_ANY,
)


def _is_policy(tree: Tree, entry: Entry) -> bool:
    """Whether a zip is one of stable-baselines3, by the names in its directory."""
    with tree.opened(entry) as file:
        names = zip_names(file, entry.stamp.size) if file else frozenset()
    return {"data", "policy.pth"} <= names


STABLE_BASELINES = Layout(
    "stable-baselines3",
    Pattern(
        r"(.*_)?(?P<step>[0-9]+)_steps\.zip|.+\.zip",
        best=r"best_model\.zip",
        last=(r".*(last|latest|final).*\.zip",),
        is_saved=_is_policy,
        weights=r".+\.zip",
        beside=("*vecnormalize*.pkl", "vec_normalize*.pkl"),
    ).find,
    trainers="stable-baselines3",
    keep=("*.zip", "*vec*normalize*.pkl"),
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


# Folders and files of no trainer that is known


def _find_marked(tree: Tree, base: str) -> Found | None:
    """A folder that a format's own marker declares to be one model."""
    kind = folder_kind_of([child.name for child in tree.children(base)])
    if kind is None:
        return None
    row = checkpoint(tree, FINAL, base, tree.below(base), weights=kind.weights)
    return Found((replace(row, weights=r".+"),))  # what its program loads, that alone knows


def find_weights(tree: Tree, base: str) -> Found:
    """All that is in a folder, as one model, if there are weights in it."""
    entries = list(tree.below(base))
    has_weights = any(entry.is_file and is_weights(entry.name) for entry in entries)
    return Found((checkpoint(tree, FINAL, base, entries),) if has_weights else ())


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
MARKED = Layout("model", _find_marked, trainers="spaCy, MLflow and diffusers models", keep=_ANY)


def _says_checkpoint(_tree: Tree, entry: Entry) -> bool:
    """Whether a name says that it is a checkpoint, and is no file of the training alone."""
    is_model = entry.kind == "folder" or holds_model(entry.name)
    return is_model and what_name_says(stem_of(entry.name)).is_checkpoint


_NAMED = Pattern(
    rf".+?{_PIECE}\.[a-z.]+|.+",
    best=r"(?i)(.*[-_.=+])?best([-_.=+].*)?",
    last=(r"(?i)(.*[-_.=+])?(last|latest|final)([-_.=+].*)?",),
    kinds=(*FILES, "folder"),
    is_saved=_says_checkpoint,
    holds=holds_model,
    newest_in=("last_checkpoint", r"\A\s*(?:[^\n]*[/\\])?([^/\\\n]+?)\s*\Z"),
    beside=(
        *("config*", "*config.json", "*.yaml", "*.yml", "vocab*", "tokenizer*", "special_tokens_map.json"),
        *("merges.txt", "*.model", "*label*", "*speaker*", "README.md"),
    ),
)


def _find_named(tree: Tree, base: str) -> Found | None:
    """The checkpoints by their names, and the other weights beside them as the finished model. One file without a
    number, beside other weights, is a part of one model, however it is called."""
    found = _NAMED.find(tree, base)
    if found is None:
        return None
    rows = list(found.checkpoints)
    of_rows: dict[str, Entry] = {}
    taken: set[str] = {folder.path for folder in named_folders(tree, base)}
    for row in rows:
        taken.add(row.base)
        of_rows.update({entry.path: entry for entry in row.entries})
    others = []
    for child in tree.children(base):
        if child.is_file and holds_model(child.name) and child.path not in of_rows:
            others.append(child)
    if not others:
        return found
    if len(rows) == 1 and not rows[0].is_counted and rows[0].base == base:
        return None
    taken.update(path for path, entry in of_rows.items() if holds_model(entry.name))  # the others belong to all
    final = checkpoint(tree, FINAL, base, tree.all_but(base, taken))
    return replace(found, checkpoints=(*rows, final))


NAMED_LAYOUT = replace(PLAIN, name="named", find=_find_named, trainers="names like `epoch_10` or `step-500`")
"""Folders and files of no known trainer whose names say that they are checkpoints."""


def find_folders(tree: Tree, base: str, *, of_any_name: bool) -> tuple[Checkpoint, ...]:
    """The folders in ``base`` that hold weights: those named like checkpoints, or all of them."""
    pattern = replace(_NAMED, kinds=("folder",))
    if of_any_name:
        pattern = replace(pattern, is_saved=lambda _tree, _entry: True)
    return tuple(pattern.checkpoints(tree, base, base))


LAYOUTS: tuple[Layout, ...] = (
    hugging_face.DIFFUSERS,
    hugging_face.HF_RUN,
    lightning.NEMO,
    SPEECHBRAIN,
    NNUNET,
    lightning.LIGHTNING,
    ULTRALYTICS,
    COQUI,
    VITS,
    HIFIGAN,
    F5_TTS,
    ESPNET,
    ESPNET1,
    FAIRSEQ,
    MLX,
    hugging_face.HF_MODEL,
    MEGATRON,
    DEEPSPEED,
    FSDP,
    ONE_TRAINER,
    lora.AI_TOOLKIT,
    lora.KOHYA,
    TENSORFLOW,
    SAVED_MODEL,
    ORBAX,
    SPACY,
    KERAS,
    DARKNET,
    CYCLEGAN,
    BASICSR,
    STYLEGAN,
    STABLE_BASELINES,
    ALLENNLP,
    AUDIOCRAFT,
    WENET,
    MARKED,
    NAMED_LAYOUT,
    PLAIN,
)
"""The first layout that recognises a folder has it, so those with the most telling names come first."""
