"""Names: what the name of a file or folder says of its place in a training: a step, an epoch, best, last.

A number counts only if the word beside it says what it counts. A number with a point is a metric. A trainer's own
layout comes first; these names are for the folders and files that no layout knows.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from urllib.parse import unquote

from mdl.bounds import LONGEST_FILE_NAME
from mdl.runs.checkpoint import parse_count
from mdl.runs.tree import Entry, Tree, join
from mdl.values import small_value_class, value_class
from mdl.weights.known_formats import folder_kind_of, stem_of

_STEP_WORD = re.compile(r"(global|time)?steps?|gs|iter(ation)?s?|updates?|kimg|checkpoint|ckpt|chkpnt|snapshot")
_EPOCH_WORD = re.compile(r"epochs?|ep|epo")
_OTHER_WORD = re.compile(r"seed|fold|rank|part|run|exp(eriment)?|trial|version|worker|gpu|node|shard|split|cv|lr")
"""What counts something else than the steps of one training."""
_FILE_WORD = re.compile(r"checkpoint|ckpt|chkpnt|snapshot")
"""What names the file more than it counts: a number with a unit behind it, as in ``ckpt-7b``, is the model's size."""
_TOKEN = re.compile(
    r"(?P<word>[a-z]+)"
    r"|(?P<rounded>(?P<amount>[0-9]{1,9}(?:\.[0-9]{1,9})?)(?P<unit>[km]))(?![a-z0-9])"
    r"|(?P<grouped>[0-9]{1,3}(?:,[0-9]{3})+)(?![0-9])"
    r"|(?P<float>[0-9]+\.[0-9]+(?:e[-+]?[0-9]+)?|[0-9]+e[-+]?[0-9]+)"
    r"|(?P<number>[0-9]+)"
)
_UNITS = {"k": 1_000, "m": 1_000_000}
_SHARD = re.compile(r"[0-9]+-of-[0-9]+")
_SHORT = re.compile(r"(?:^|[-_])e(?P<epoch>[0-9]+)(?:[-_]s(?P<step>[0-9]+))?$")
"""How trainers of voices abbreviate both: ``name_e20_s4000``, ``name-e15``."""
_COMPOSED = re.compile(r"(?:^|[-_])ep(?P<epoch>[0-9]+)-ba(?P<step>[0-9]+)(?:$|[-_])")
_LONG_MODEL = re.compile(r"(?:^|[-_.])model[-_](?P<step>[0-9]{5,18})(?:$|[-_.])")
"""A count that is padded with zeros, or so high that it counts nothing else: ``model_0001999``."""
_BEST = re.compile(r"(?:^|.*[-_.=+])best(?:$|[-_.=+].*)")
_LAST = re.compile(r"(?:^|.*[-_.=+])(?:last|latest|final)(?:$|[-_.=+].*)")
_DERIVED = re.compile(
    r"(?:^|.*[-_.=+])"
    r"(?:avg|ave|averaged?|ema|swa|init|[0-9]+best)"
    r"(?:$|[-_.=+0-9].*)"
)
"""An average, or what the training began with."""
_COPY = re.compile(r"(?<=[-_.=+])(?:merged|hf|gguf|fused|consolidated|unsharded)(?:$|[-_.=+0-9])")
"""A copy that was merged or converted, if it stands behind the count: ``gpt-hf_epoch_2`` names the training."""
_NO_WORD = re.compile(r"[^a-z]+")
_SEPARATORS = ("", "-", "_", "=", ".", " ", ":", "+")


@value_class
class NameSays:
    """What a name says. ``others`` are the words and numbers that count something else, such as ``seed``.

    ``is_derived``: it is an average of others, a copy of one, or what the training began with. ``before_count`` are the
    words before its first count, joined by hyphens; None if it has none.
    """

    step: int | None = None
    epoch: int | None = None
    is_best: bool = False
    is_last: bool = False
    is_derived: bool = False
    others: tuple[tuple[str, int], ...] = ()
    before_count: str | None = None

    @property
    def is_counted(self) -> bool:
        return self.step is not None or self.epoch is not None

    def with_counts_of(self, other: NameSays) -> NameSays:
        """Return the same with the step and the epoch of another, as far as these are known."""
        step = self.step
        epoch = self.epoch
        if other.step is not None:
            step = other.step
        if other.epoch is not None:
            epoch = other.epoch
        return replace(self, step=step, epoch=epoch)

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is the name of a checkpoint, whatever trainer chose it."""
        return self.is_counted or self.is_best or self.is_last


def plain_name(name: str) -> str:
    """The name as the trainer wrote it: a browser that downloads ``epoch=1.ckpt`` may write ``epoch%3D1.ckpt``."""
    return unquote(name) if "%" in name else name  # asked of every name by every pattern


def what_name_says(stem: str) -> NameSays:
    """Return what a checkpoint's name, without its suffix, says."""
    text = _SHARD.sub(" ", plain_name(stem).lower())
    counted: list[tuple[str, int]] = []
    start = end = len(text)
    tokens = _tokens_of(text)
    for at, token in enumerate(tokens):
        number = _count_of(token.match)
        if number is None:
            continue
        what = _what_is_counted(tokens, at)
        counted.append((what, number))
        if what in ("step", "epoch"):
            start = min(start, tokens[at - 1].match.start() if at else 0)
            end = min(end, token.match.end())
    others = [(what, number) for what, number in counted if what not in ("step", "epoch", "")]
    counts = dict(reversed(counted))  # the first of each decides
    short = _COMPOSED.search(text) or _SHORT.search(text) or _LONG_MODEL.search(text)
    if short and "step" not in counts:
        counts = {axis: int(digits) for axis, digits in short.groupdict().items() if digits}
        start, end = short.span()
    return NameSays(
        counts.get("step"),
        counts.get("epoch"),
        _BEST.fullmatch(text) is not None,
        _LAST.fullmatch(text) is not None,
        _DERIVED.fullmatch(text) is not None or _COPY.search(text, end) is not None,
        tuple(sorted(others)),
        _NO_WORD.sub("-", text[:start]).strip("-") if {"step", "epoch"} & counts.keys() else None,
    )


def _what_is_counted(tokens: list[_Token], at: int) -> str:
    """Return what the number at a place among the tokens counts: ``step``, ``epoch``, another word such as ``seed``;
    "" if no word tells."""
    token = tokens[at]
    is_size = _has_unit(token.match) and _FILE_WORD.fullmatch(token.word_before)
    axis = _axis_of(token.word_before)
    if axis and not is_size:
        return axis
    if _OTHER_WORD.fullmatch(token.word_before):
        return token.word_before
    if _counts_next(tokens, at):
        return ""
    return _axis_of(token.word_after)


@small_value_class
class _Token:
    """One word or number of a name, and the words beside it: "" where there is none, or more than one separator."""

    match: re.Match[str]
    word_before: str
    word_after: str


def _tokens_of(text: str) -> list[_Token]:
    matches = list(_TOKEN.finditer(text))
    before = [""]
    after = []
    for left, right in pairwise(matches):
        if text[left.end() : right.start()] in _SEPARATORS:
            before.append(left["word"] or "")
            after.append(right["word"] or "")
        else:
            before.append("")
            after.append("")
    after.append("")
    return [_Token(*token) for token in zip(matches, before, after, strict=False)]


def _count_of(token: re.Match[str]) -> int | None:
    """The whole number that a token writes: ``1500``, ``1,500``, ``1.5k``. None for a word, a metric, and digits that
    are too many for a count."""
    if token["rounded"]:
        return round(float(token["amount"]) * _UNITS[token["unit"]])
    return parse_count((token["number"] or token["grouped"] or "").replace(",", ""))


def _has_unit(token: re.Match[str]) -> bool:
    """Tell whether a letter follows the digits at once."""
    return token["rounded"] is not None or token.string[token.end() : token.end() + 1].isalpha()


def _counts_next(tokens: list[_Token], at: int) -> bool:
    """Tell whether the word behind a number counts the number after it: ``4_epoch_10`` is epoch 10."""
    if at + 2 >= len(tokens):
        return False
    following = tokens[at + 2]
    return bool(following.match["number"]) and following.word_before != ""


def _axis_of(word: str) -> str:
    """Return what a word counts: ``step``, ``epoch``; "" if neither."""
    if _STEP_WORD.fullmatch(word):
        return "step"
    if _EPOCH_WORD.fullmatch(word):
        return "epoch"
    return ""


def run_in(name: str) -> str | None:
    """Return which of several trainings in one folder a checkpoint's name tells; None if it tells none."""
    says = what_name_says(stem_of(name))
    return None if says.is_best or says.is_last or says.is_derived else says.before_count


# Folders and files that no layout knows


_OF_TRAINING = re.compile(
    r"(?:.*[-_.])?(?:optimi[sz]er|optim|scheduler|scaler|rng_state|random_states|sampler|training_args"
    r"|train(?:er|ing)?[-_]state|dataloader|recipe_state)[-_.0-9].*"  # the last one is torchtune's
    r"|state_[0-9]{8}_[0-9]{5}\.bin"  # llm.c's
)


def holds_model(file: Entry) -> bool:
    """Tell whether a file is called like a model's, or like one that declares a model."""
    if file.name == "model_index.json":
        return True
    return file.is_weights and not _OF_TRAINING.fullmatch(file.name)


def model_files(tree: Tree, folder: str) -> list[Entry]:
    """The files directly in a folder that are called like a model's."""
    return [entry for entry in tree.children(folder) if entry.is_file and holds_model(entry)]


def own_state(tree: Tree, base: str) -> str:
    """The name of the folder with DeepSpeed's state in a checkpoint of HF Trainer, which is a part of that: ``latest``
    in it names the folder. '' if ``base`` is no such checkpoint."""
    latest = join(base, "latest")
    if not tree.is_file(join(base, "trainer_state.json")) or not tree.is_file(latest):
        return ""
    name = tree.head(latest, LONGEST_FILE_NAME).decode("utf-8", "replace").strip()
    if name and tree.is_folder(join(base, name)):
        return name
    return ""


def holds_a_model(tree: Tree, folder: Entry) -> bool:
    """Tell whether a folder holds a model: directly in it, as a format's own marker declares or, if its own name is a
    step or an epoch, in folders below it that are no checkpoints themselves."""
    if model_files(tree, folder.path) or folder_kind_of(tree.names(folder.path)):
        return True
    if not what_name_says(folder.name).is_counted:
        return False
    has_model = False
    for entry in tree.below(folder.path):
        if entry.kind == "folder" and what_name_says(entry.name).is_checkpoint:
            return False
        has_model = has_model or (entry.is_file and holds_model(entry))
    return has_model


def named_folders(tree: Tree, base: str) -> list[Entry]:
    """The folders in ``base`` that are named like checkpoints and hold a model."""
    state = own_state(tree, base)
    folders = []
    for folder in tree.subfolders(base):
        if folder.name == state or not what_name_says(folder.name).is_checkpoint:
            continue
        if holds_a_model(tree, folder):
            folders.append(folder)
    return folders
