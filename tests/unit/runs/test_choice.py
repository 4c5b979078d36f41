"""Which checkpoint is the latest and which the best: only equal axes are compared, and nothing else counts."""

from __future__ import annotations

import os
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import each
from support.long import examples
from support.runs import put, write

from mdl.errors import NotFound
from mdl.runs import find_run
from mdl.runs.checkpoint import Checkpoint
from mdl.runs.choice import UNRECORDED, best_of, called, latest_of, newer_incomplete
from mdl.runs.names import what_name_says
from mdl.runs.run import Run

# What a name says

NAMES: dict[str, tuple[int | None, int | None]] = {
    "loss=0.9-epoch=1": (None, 1),
    "0.45-epoch=3": (None, 3),
    "val_loss=0.31-epoch=7-step=180": (180, 7),
    "epoch=1-step=180-val_loss=0.31": (180, 1),
    "model-wer=0.20-cer=0.05-epoch=2": (None, 2),
    "epoch%3D1-step%3D20": (20, 1),
    "10epoch": (None, 10),
    "3_epochs": (None, 3),
    "rl_model_10000_steps": (10000, None),
    "checkpoint-500": (500, None),
    "global_step100": (100, None),
    "iteration_30000": (30000, None),
    "epoch_3_step_900": (900, 3),
    "name_e20_s4000": (4000, 20),
    "name-e15": (None, 15),
    "ep1-ba100": (100, 1),
    "ck-ep10-gs02000": (2000, 10),
    "model_0001999": (1999, None),
    "seed_3": (None, None),
    "seed3_epoch_10": (None, 10),
    "fold_2": (None, None),
    "rank0": (None, None),
    "part-2": (None, None),
    "run_7": (None, None),
    "version_3": (None, None),
    "resnet50": (None, None),
    "acc0.95": (None, None),
    "model-00001-of-00002": (None, None),
    "step-00001-of-00002": (None, None),
    "epoch_" + "9" * 30: (None, None),
    "model_v2": (None, None),
    "step_500": (500, None),
    "step_10k": (10_000, None),
    "iter-1.5M": (1_500_000, None),
    "200k_steps": (200_000, None),
    "steps=12,500": (12_500, None),
    "step-1e4": (None, None),
    "checkpoint-7b": (None, None),
    "ckpt_100m": (None, None),
    "checkpoint-512px-step3": (3, None),
    "checkpoint_10steps": (10, None),
}


@each(("name", "numbers"), NAMES.items())
def test_a_number_counts_only_what_its_word_says(name: str, numbers: tuple[int | None, int | None]) -> None:
    """Steps and epochs are told by the word beside the number; metrics and other counts are none."""
    says = what_name_says(name)
    assert (says.step, says.epoch) == numbers


def test_best_last_and_averages_are_said_by_whole_words() -> None:
    """A part of another word says nothing."""
    assert [
        what_name_says(name).is_best for name in ("model_best", "best-wer", "bestiary", "valid.acc.ave_10best")
    ] == [*(True, True, False, False)]
    assert [what_name_says(name).is_last for name in ("last", "model_final", "latest-rank0", "finalist", "blast")] == [
        *(True, True, True, False, False)
    ]
    assert [what_name_says(name).is_derived for name in ("avg_10", "epoch-30-avg-9", "valid.acc.ave", "average")] == [
        True
    ] * 4


# Of these files: the latest, the best ("" if nobody can say)

CHOICES: dict[str, tuple[str, str, str]] = {
    "a metric before the epoch": (
        "loss=0.9-epoch=1.ckpt loss=0.7-epoch=2.ckpt loss=0.4-epoch=3.ckpt",
        "loss=0.4-epoch=3.ckpt",
        "",
    ),
    "a metric alone": ("loss=0.9.ckpt loss=0.4.ckpt last.txt", "", ""),
    "a metric that grows": ("epoch=1-acc=0.9.ckpt epoch=2-acc=0.1.ckpt", "epoch=2-acc=0.1.ckpt", ""),
    "an epoch and a step": ("epoch_3.pt step_900.pt", "", ""),
    "steps that count within an epoch": ("epoch_1_step_500.pt epoch_2_step_100.pt", "epoch_2_step_100.pt", ""),
    "steps of several epochs": ("epoch_1_step_9.pt epoch_2_step_3.pt epoch_2_step_4.pt", "epoch_2_step_4.pt", ""),
    "steps that count all": ("epoch_1_step_500.pt epoch_2_step_900.pt epoch_2_step_700.pt", "epoch_2_step_900.pt", ""),
    "epochs in all, steps in some": ("epoch_3_step_900.pt epoch_4.pt", "epoch_4.pt", ""),
    "two best by two metrics": ("best_wer.pt best_loss.pt epoch_1.pt", "epoch_1.pt", ""),
    "one best": ("best_wer.pt epoch_1.pt epoch_2.pt", "epoch_2.pt", "best_wer.pt"),
    "only bests": ("best_wer.pt best_loss.pt", "", ""),
    "a best with a number": ("best_epoch_7.pt epoch_5.pt", "best_epoch_7.pt", "best_epoch_7.pt"),
    "a best of the same epoch": ("best_map_epoch_7.pt epoch_7.pt epoch_6.pt", "epoch_7.pt", "best_map_epoch_7.pt"),
    "one alone": ("odd-name.ckpt epoch=x.txt last.json", "final", ""),
    "several last files: latest counts": ("last.pt latest.pt final.pt epoch_9.pt", "latest.pt", ""),
    "several last files without latest": ("last.pt final.pt epoch_9.pt", "", ""),
    "Lightning's last files": ("last.ckpt last-v9.ckpt last-v10.ckpt epoch=0-step=9.ckpt", "last-v10.ckpt", ""),
    "Lightning's second file of a name": ("epoch=1-step=9.ckpt epoch=1-step=9-v1.ckpt", "epoch=1-step=9-v1.ckpt", ""),
    "an average": ("epoch-1.pt epoch-2.pt epoch-9-avg-3.pt", "epoch-2.pt", ""),
    "a converted copy": ("step-900.pt step-1000.pt step-1000-hf.pt model_0002000_merged.pt", "step-1000.pt", ""),
    "trainings of converted models": ("bert-hf_epoch1.pt gpt-hf_epoch2.pt", "", ""),
    "several seeds": ("seed_1_epoch_5.pt seed_2_epoch_9.pt", "", ""),
    "the same step twice": ("a_step_5.pt b_step_5.pt", "", ""),
    "numbers that nobody explains": ("net_10.pt net_20.pt", "", ""),
    "quoted by a browser": ("epoch%3D1-step%3D20.ckpt epoch%3D2-step%3D40.ckpt", "epoch%3D2-step%3D40.ckpt", ""),
    "as people count": ("epoch_9.pt epoch_10.pt", "epoch_10.pt", ""),
    "iterations of two kinds of words": ("iter_100.pt step_90.pt", "iter_100.pt", ""),
}


def run_of(folder: Path, files: str, seed: int = 0) -> Run:
    """The run of these files, written in an order and with times that a seed gives."""
    names = files.split()
    shuffled = random.Random(seed)
    shuffled.shuffle(names)
    for name in names:
        place = put(folder / name)
        moment = shuffled.randrange(1_000_000_000, 2_000_000_000)
        os.utime(place, (moment, moment))
    return find_run(folder)


@pytest.mark.parametrize(("files", "latest", "best"), CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_choices(tmp_path: Path, files: str, latest: str, best: str, seed: int) -> None:
    """Whatever the order and the times: the same is the latest and the best; and where nobody can say, it is 3 with the
    candidates, and nothing is marked."""
    run = run_of(tmp_path, files, seed)
    for name, wanted, row, note in (
        ("latest", latest, run.latest, run.latest_note),
        ("best", best, run.best, run.best_note),
    ):
        assert (row.name if row else "") == wanted, note
        assert bool(note) == (not wanted)
        if wanted:
            assert run.checkpoint(name).name == wanted
            continue
        with pytest.raises(NotFound) as caught:
            run.checkpoint(name)
        assert caught.value.exit_code == 3
        assert "--checkpoint" in (caught.value.hint or "")
        named = [row.name for row in run.checkpoints if row.name in caught.value.message]
        assert len(named) > 1 or name == "best"


ROWS = st.lists(
    st.builds(
        Checkpoint,
        name=st.integers(0, 10**6).map(lambda number: f"c{number}"),
        base=st.just(""),
        entries=st.just(()),
        step=st.none() | st.integers(0, 5),
        epoch=st.none() | st.integers(0, 3),
        complete=st.booleans(),
        last=st.none() | st.integers(0, 1),
        says_best=st.booleans(),
        is_derived=st.booleans(),
        is_recorded=st.booleans(),
        place=st.integers(0, 1),
    ),
    max_size=7,
    unique_by=lambda row: row.name,
)


@given(ROWS, st.randoms(use_true_random=False))
@settings(max_examples=examples(300), deadline=None)
def test_the_order_of_the_candidates_does_not_matter(rows: list[Checkpoint], shuffled: random.Random) -> None:
    """The latest and the best are the same however the candidates are listed; they are complete, and where there is
    none it is said why. One whole checkpoint alone is the latest."""
    latest, latest_note = latest_of(rows)
    best, best_note = best_of(rows, "")
    others = rows[:]
    shuffled.shuffle(others)
    assert latest_of(others)[0] == latest
    assert best_of(others, "")[0] == best
    whole = [row for row in rows if row.complete]
    assert bool(latest) != bool(latest_note) or not rows
    assert bool(best) != bool(best_note)
    assert latest in (None, *whole)
    assert best in (None, *whole)
    assert len(whole) != 1 or latest == whole[0]


@given(ROWS)
@settings(max_examples=examples(300), deadline=None)
def test_only_equal_axes_are_compared(rows: list[Checkpoint]) -> None:
    """Without a record or a last file, the latest of several has the highest count on the axes that all of them have:
    the epoch with the step in it, else the step, else the epoch; where no axis is common to all, nobody guesses."""
    steps = [
        replace(row, complete=True, is_recorded=False, last=None, place=0, says_best=False, is_derived=False)
        for row in rows
    ]
    latest, why = latest_of(steps)
    if len(steps) < 2:
        return
    for axes in (("epoch", "step"), ("step",), ("epoch",)):
        counts = [[getattr(row, axis) for axis in axes] for row in steps]
        if not any(None in count for count in counts):
            newest = [row for row, count in zip(steps, counts, strict=True) if count == max(counts)]
            assert latest in (None, *newest)
            assert latest is not None or len(newest) > 1
            return
    assert latest is None
    assert why


WORDS = st.sampled_from(["loss", "acc", "wer", "lr"])
METRICS = st.lists(st.tuples(WORDS, st.floats(0, 9).map(lambda number: f"{number:.3f}")), max_size=3)


@given(st.lists(METRICS, min_size=2, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=examples(60), deadline=None)
def test_no_metric_decides(metrics: list[list[tuple[str, str]]], shuffled: random.Random) -> None:
    """Whichever metrics stand before and behind it, the epoch decides."""
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for epoch, values in enumerate(metrics, start=8):
            words = [f"{word}={value}" for word, value in values]
            at = shuffled.randrange(len(words) + 1)
            names.append("-".join([*words[:at], f"epoch={epoch}", *words[at:]]) + ".ckpt")
        run = run_of(Path(folder), " ".join(names), shuffled.randrange(100))
        assert run.latest
        assert run.latest.name == names[-1], run.latest_note


@pytest.mark.parametrize("training", ["", "a-hf-"])
def test_a_newer_one_that_was_cut_is_passed_over(tmp_path: Path, training: str) -> None:
    """The latest is the newest whole one; what would be newer is named, whatever the training is called."""
    write(tmp_path, f"{training}epoch_{{1,2,3}}.pt best.pt")
    os.truncate(tmp_path / f"{training}epoch_3.pt", 100)
    os.truncate(tmp_path / "best.pt", 100)
    run = find_run(tmp_path)
    assert run.latest
    assert run.latest.name == f"{training}epoch_2.pt"
    assert [row.name for row in run.incomplete_after(run.latest)] == [f"{training}epoch_3.pt"]
    assert run.best_note == "best.pt is not complete"
    by_name = [run.checkpoint(name).name for name in ("2", f"{training}epoch_1")]
    assert by_name == [f"{training}epoch_2.pt", f"{training}epoch_1.pt"]


def test_a_number_never_takes_another_number(tmp_path: Path) -> None:
    """1000 is not 11000, a step is looked for before an epoch, and two that fit are named."""
    run = find_run(write(tmp_path, "a-step=1000-epoch=2.ckpt a-step=11000-epoch=3.ckpt a-step=2-epoch=1.ckpt"))
    assert run.checkpoint("1000").step == 1000
    assert run.checkpoint("2").step == 2
    assert run.checkpoint("3").epoch == 3
    with pytest.raises(NotFound):
        run.checkpoint("100")


def row(name: str, **facts: Any) -> Checkpoint:
    return Checkpoint(name, name, (), **facts)


CUT, WHOLE, BEST = row("a", complete=False), row("b", place=1), row("best", says_best=True)


@each(
    ("rows", "recorded", "name", "words"),
    [
        ([CUT, WHOLE, BEST], "b", "b", ""),
        ([WHOLE, BEST], "a", None, "a is recorded as best and does not exist any more"),
        ([CUT, BEST], "a", None, "is not complete"),
        ([WHOLE, BEST], "", "best", ""),
        ([CUT, WHOLE], "", None, UNRECORDED),
    ],
)
def test_the_record_goes_before_the_names(rows: list[Checkpoint], recorded: str, name: str | None, words: str) -> None:
    """The best is the one that was recorded as such, and no other in its place; else the one that its name calls so."""
    best, note = best_of(rows, recorded)
    assert (best.name if best else None) == name
    assert words in note


@each(
    ("rows", "words"),
    [
        ([row("a"), row("b")], "no name and no record says which"),
        ([row("a"), row("b", step=1)], "only some have a step or an epoch"),
        ([row("a", epoch=1), row("b", step=1)], "steps and epochs do not compare"),
    ],
)
def test_why_none_is_the_latest(rows: list[Checkpoint], words: str) -> None:
    """The reason tells apart what nothing counts, what is counted in part, and what is counted by different things."""
    latest, note = latest_of(rows)
    assert latest is None
    assert words in note


def test_what_is_newer_and_incomplete() -> None:
    """Only a step of the training that is not complete is named beside an older choice: neither a complete one, nor
    an average."""
    chosen = row("step-1", step=1)
    cut = row("step-3", step=3, complete=False)
    average = row("average", is_derived=True, complete=False)
    rows = [chosen, row("step-2", step=2), cut, average]
    assert newer_incomplete(rows, chosen) == (cut,)
    assert newer_incomplete(rows, cut) == ()
    assert newer_incomplete([average, row("final")], row("mean", is_derived=True)) == ()


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([row("best", step=5, says_best=True), row("ckpt", step=5)], ["ckpt"]),
        ([row("mean", step=5, is_derived=True), row("ckpt", step=5)], ["ckpt"]),
        ([row("best", step=5, says_best=True), row("late", epoch=5)], ["best"]),
        ([row("best", epoch=5, says_best=True), row("late", epoch=5)], ["late"]),
        ([row("5", step=7), row("ckpt", step=5)], ["5"]),
        ([row("5.pt", step=7), row("ckpt", step=5)], ["5.pt"]),
        ([row("a", step=5), row("b", step=5)], ["a", "b"]),
        ([row("a", step=6)], []),
    ],
)
def test_what_a_number_names(rows: list[Checkpoint], names: list[str]) -> None:
    """A name fits better than a step, a step better than an epoch, and a step of the training better than a copy."""
    assert [checkpoint.name for checkpoint in called(rows, "5")] == names
