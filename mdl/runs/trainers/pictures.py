"""Trainers of detection, classification, segmentation and generation of pictures."""

from __future__ import annotations

from mdl.runs.layout import DISCRIMINATOR, OPTIMIZER_INSIDE, Layout
from mdl.runs.patterns import LAST_CHECKPOINT, Pattern
from mdl.runs.tree import IsName, Tree, join


def _ultralytics_place(tree: Tree, base: str, is_saved: IsName) -> list[str]:
    """The folder ``weights`` of an experiment, or that folder itself."""
    weights = join(base, "weights")
    if tree.files_named(weights, is_saved):
        return [weights]
    if tree.is_file(join(base, "best.pt")) and tree.is_file(join(base, "last.pt")):
        return [base]
    return []


ULTRALYTICS = Layout(
    "ultralytics",
    Pattern(
        r"best(_[0-9]+)?\.pt|last\.pt|init\.pt|epoch_?(?P<epoch>[0-9]+)\.pt",
        best=r"best\.pt",
        derived=r"best_[0-9]+\.pt|init\.pt",
        last=(r"last\.pt",),
        places=_ultralytics_place,
        members_in_base=True,
        beside=("args.yaml", "results.csv"),
    ).find,
    trainers="Ultralytics, YOLOv5 and YOLOv7",
    keep=("*.pt", "args.yaml", "results.csv"),
    drop=(),
    notes=(("*.pt", "contains optimizer state unless the training came to its end; stripping it needs torch"),),
)
MMENGINE = Layout(
    "mmengine",
    Pattern(
        r"(best_.+_)?(epoch|iter)_[0-9]+\.pth|best_.+\.pth|latest\.pth",
        best=r"best_.+",
        last=(r"latest\.pth",),
        requires="last_checkpoint",
        newest_in=LAST_CHECKPOINT,
        beside=("*.py",),
    ).find,
    trainers="mmengine: MMDetection, MMSegmentation and others",
    keep=("*.pth", "*.py"),
    drop=(),
    notes=(("*.pth", OPTIMIZER_INSIDE),),
)
"""The configuration is a Python file beside the checkpoints, called as the user called it."""

RF_DETR = Layout(
    "rf-detr",
    Pattern(
        r"checkpoint_?(?P<epoch>[0-9]+)?\.(pth|ckpt)|checkpoint_best_(ema|regular|total)\.pth|last(_ema)?\.(pth|ckpt)",
        best=r"checkpoint_best_total\.pth",
        derived=r".*_ema\.pth",
        last=(r"checkpoint\.pth", r"last\.(pth|ckpt)"),
        requires=r"checkpoint_best_(total|regular)\.pth",
    ).find,
    trainers="RF-DETR",
    keep=("*.pth", "*.ckpt"),
    notes=(("checkpoint[._0-9]*", OPTIMIZER_INSIDE),),
)
"""At the end the better one of the best and the best average is copied to ``…_total``."""


def _torchvision_place(tree: Tree, base: str, _is_saved: IsName) -> list[str]:
    """The folder, if the last file is in it: without it, nobody knows what the numbers count."""
    return [base] if tree.is_file(join(base, "checkpoint.pth")) else []


TORCHVISION = Layout(
    "torchvision",
    Pattern(
        r"model_(?P<epoch>[0-9]+)\.pth|checkpoint\.pth",
        last=(r"checkpoint\.pth",),
        requires=r"model_[0-9]+\.pth",
        places=_torchvision_place,
    ).find,
    trainers="torchvision's reference scripts",
    keep=("*.pth",),
    notes=(("*.pth", OPTIMIZER_INSIDE),),
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
DCGAN = Layout(
    "dcgan",
    Pattern(r"net(G|D)_epoch_(?P<name>(?P<epoch>[0-9]+))\.pth", requires=r"netG_epoch_[0-9]+\.pth").find,
    trainers="DCGAN",
    keep=("netG_*.pth",),
    drop=(("netD_*.pth", DISCRIMINATOR),),
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
    drop=(("net_d_*.pth", DISCRIMINATOR),),
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
    marks=_STYLEGAN,
    keep=("*.pkl", "training_options.json"),
)
GUIDED_DIFFUSION = Layout(
    "guided-diffusion",
    Pattern(
        r"(model|opt|ema_[0-9.]+_)(?P<name>(?P<step>[0-9]{6,}))\.pt",
        requires=r"model[0-9]{6,}\.pt",
    ).find,
    trainers="guided-diffusion and improved-diffusion",
    keep=("model*.pt", "ema_*.pt"),
    drop=(("opt*.pt", "optimizer state"),),
)
DIT = Layout(
    "dit",
    Pattern(r"(?P<step>[0-9]{7})\.pt").find,
    trainers="DiT and SiT",
    keep=("*.pt",),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
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
