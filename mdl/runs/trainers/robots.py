"""Trainers of robots, and of other agents that learn by reinforcement."""

from __future__ import annotations

import re
from functools import partial

from mdl.runs.checkpoint import Checkpoint, Found
from mdl.runs.layout import CONFIGS, OPTIMIZER_INSIDE, Layout
from mdl.runs.patterns import Pattern, find_or_itself, finished_model, matching
from mdl.runs.tree import IsName, Tree, join

LEROBOT = Layout(
    "lerobot",
    partial(
        find_or_itself,
        Pattern(
            r"(?P<step>[0-9]+)|last",
            last=("last",),
            kinds=("folder",),
            holds=matching(r"pretrained_model/"),
        ),
        ("pretrained_model/train_config.json",),
    ),
    trainers="LeRobot",
    keep=("pretrained_model/*",),
    drop=(("training_state/*", "the state of the training"),),
)


def _rsl_rl_place(tree: Tree, base: str, _is_saved: IsName) -> list[str]:
    """The folder, if the records are in it that this trainer writes."""
    return [base] if tree.is_folder(join(base, "params")) or tree.is_folder(join(base, "git")) else []


RSL_RL = Layout(
    "rsl-rl",
    Pattern(r"model_(?P<step>[0-9]+)\.pt", places=_rsl_rl_place).find,
    trainers="RSL-RL",
    keep=("*.pt", "*.yaml"),
    above=(*CONFIGS, "params/*.yaml"),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
)
RL_GAMES = Layout(
    "rl-games",
    Pattern(
        r"last_.+_ep_(?P<epoch>[0-9]+)_rew_.*\.pth|.+\.pth",
        requires=r"last_.+_ep_[0-9]+_rew_.*\.pth",
        best=r"(?!last_.+_ep_).+",
    ).find,
    trainers="rl_games",
    keep=("*.pth", "*.yaml"),
    notes=(("*.pth", OPTIMIZER_INSIDE),),
)
"""The file that is called like the experiment alone has the best reward."""
SKRL = Layout(
    "skrl",
    Pattern(
        r"agent_(?P<step>[0-9]+)\.pt|best_agent\.pt",
        best=r"best_agent\.pt",
        requires=r"best_agent\.pt",
    ).find,
    trainers="skrl",
    keep=("*.pt", "*.yaml"),
    above=(*CONFIGS, "params/*.yaml"),
)

_ML_AGENTS = Pattern(
    r"(?P<name>.+-(?P<step>[0-9]+))\.(onnx|pt)|checkpoint\.pt",
    derived=r"checkpoint\.pt",
    run_in=lambda name: re.sub(r"-[0-9]+$", "", name),
)


def _find_ml_agents(tree: Tree, base: str) -> Found | None:
    """The checkpoints of each behavior, in a folder that is called like it; the finished model is beside that. A copy
    of the newest state, with which the training goes on, is called ``checkpoint.pt``."""
    checkpoints: list[Checkpoint] = []
    for folder in tree.subfolders(base):
        numbered = re.compile(rf"{re.escape(folder.name)}-[0-9]+\.(onnx|pt)")
        if tree.is_file(join(folder.path, "checkpoint.pt")) and tree.files_named(folder.path, numbered.fullmatch):
            checkpoints += _ML_AGENTS.checkpoints(tree, folder.path, folder.path)
    if not checkpoints:
        return None
    return Found((*checkpoints, *finished_model(tree, base, r".+\.onnx", checkpoints)))


ML_AGENTS = Layout(
    "ml-agents",
    _find_ml_agents,
    trainers="Unity ML-Agents",
    keep=("*.onnx", "*.pt", "configuration.yaml"),
    above=("configuration.yaml",),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
)
