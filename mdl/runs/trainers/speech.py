"""Trainers of voices, and of speech recognition and translation."""

from __future__ import annotations

import re
from dataclasses import replace

from mdl.runs.checkpoint import Found, parse_count
from mdl.runs.completeness import RESUME
from mdl.runs.layout import DISCRIMINATOR, OPTIMIZER_INSIDE, Layout
from mdl.runs.names import NameSays
from mdl.runs.patterns import PIECE, Pattern, matching
from mdl.runs.tree import Tree, join

# Voices


_COQUI_BESIDE = ("config.json", "*speaker*", "*language_ids*", "vocab*")
_COQUI = Pattern(
    r"(checkpoint_|best_model_)(?P<step>[0-9]+)\.pth|best_model\.pth",
    best=r"best_model.*",
    requires=r"config\.json",
    beside=_COQUI_BESIDE,
)


def _find_coqui(tree: Tree, base: str) -> Found | None:
    """The checkpoints. Coqui leaves every best that it had: the one with the highest number is the best, and the one
    without a number is a copy of it."""
    found = _COQUI.find(tree, base)
    if found is None:
        return None
    newest = None
    for checkpoint in found.checkpoints:  # in the order of their steps
        if checkpoint.says_best and checkpoint.complete and checkpoint.step is not None:
            newest = checkpoint
    checkpoints = []
    for checkpoint in found.checkpoints:
        if checkpoint.says_best and checkpoint.step is None:
            note = checkpoint.note or "a copy of the best model"
            checkpoint = replace(checkpoint, note=note, is_derived=newest is not None)
        if newest is not None:
            checkpoint = replace(checkpoint, says_best=checkpoint is newest)
        checkpoints.append(checkpoint)
    return Found(tuple(checkpoints))


COQUI = Layout(
    "coqui",
    _find_coqui,
    trainers="Coqui TTS",
    keep=("checkpoint_*.pth", "best_model*.pth", *_COQUI_BESIDE),
    drop=(),
    notes=(("checkpoint_*.pth", OPTIMIZER_INSIDE), ("best_model*.pth", OPTIMIZER_INSIDE)),
)
VITS = Layout(
    "vits",
    Pattern(
        r"(G|D|DUR|WD|MPD|MSD)_(?P<name>(?P<step>[0-9]+))\.pth",
        requires=r"G_[0-9]+\.pth",
        beside=("config*", "*.yaml", "*.yml", "*.json", "added_*.index"),
    ).find,
    trainers="VITS and its family: so-vits-svc, Bert-VITS2, RVC, GPT-SoVITS",
    keep=("G_*.pth", "config*", "*.json", "*.yaml", "*.yml", "*.index"),
    drop=(
        ("D_*.pth", DISCRIMINATOR),
        ("DUR_*.pth", DISCRIMINATOR),
        ("WD_*.pth", DISCRIMINATOR),
        ("M?D_*.pth", DISCRIMINATOR),
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
    marks=r"(g|do)_[0-9]{8}",
    keep=("g_*", "config*"),
    drop=(("do_*", "the discriminator and the optimizers"),),
)
F5_TTS = Layout(
    "f5-tts",
    Pattern(
        r"model_(?P<step>[0-9]+)\.(pt|safetensors)|model_(best|last)\.(pt|safetensors)",
        best=r"model_best\..+",
        requires=r"model_last\.(pt|safetensors)",
        last=(r"model_last\..+",),
        beside=("vocab.txt", "*.yaml", "config*"),
    ).find,
    trainers="F5-TTS",
    keep=("*.pt", "*.safetensors", "vocab.txt", "*.yaml", "config*"),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
)
_STYLETTS2 = Pattern(
    r"epoch_(1st|2nd)_(?P<epoch>[0-9]+)\.pth|first_stage\.pth",
    derived=r"first_stage\.pth",
    requires=r"epoch_(1st|2nd)_[0-9]+\.pth",
    beside=("config*", "*.yml"),
)


def _find_styletts2(tree: Tree, base: str) -> Found | None:
    """The checkpoints. The second stage starts from the model of the first one, and counts its epochs from 0 again."""
    pattern = _STYLETTS2
    if tree.files_named(base, re.compile(r"epoch_2nd_[0-9]+\.pth").fullmatch):
        pattern = replace(pattern, derived=r"first_stage\.pth|epoch_1st_.+")
    return pattern.find(tree, base)


STYLETTS2 = Layout(
    "styletts2",
    _find_styletts2,
    trainers="StyleTTS 2",
    keep=("*.pth", "config*", "*.yml"),
    notes=(("*.pth", OPTIMIZER_INSIDE),),
)
_PARALLEL_WAVEGAN = r"checkpoint-(?P<step>[0-9]+)steps\.pkl"
PARALLEL_WAVEGAN = Layout(
    "parallel-wavegan",
    Pattern(_PARALLEL_WAVEGAN, weights=r"checkpoint-[0-9]+steps\.pkl", beside=("config*", "stats.*")).find,
    trainers="ParallelWaveGAN",
    marks=r"checkpoint-[0-9]+steps\.pkl",
    keep=("*.pkl", "config*", "stats.*"),
    notes=(("*.pkl", OPTIMIZER_INSIDE),),
)
_WITHOUT_SUFFIX = r"(checkpoint|waveglow)_[0-9]+"
WITHOUT_SUFFIX = Layout(
    "without-suffix",
    Pattern(r"(checkpoint|waveglow)_(?P<step>[0-9]+)", weights=_WITHOUT_SUFFIX, beside=("config*",)).find,
    trainers="Tacotron 2, WaveGlow and Flax",
    marks=_WITHOUT_SUFFIX,
    keep=("checkpoint_*", "waveglow_*", "config*"),
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
    marks=_ESPNET1,
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
FAIRSEQ = Layout(
    "fairseq",
    Pattern(
        rf"({_FAIRSEQ_NAME}|checkpoint_(best|last)|checkpoint\.best_.+?){PIECE}?\.pt",
        requires=rf"({_FAIRSEQ_NAME}|checkpoint_last|checkpoint\.best_.+?){PIECE}?\.pt",
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
