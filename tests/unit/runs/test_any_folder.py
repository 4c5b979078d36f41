"""Properties of every layout, tried with folders of random files and contents."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import each
from support.long import examples
from support.runs import put

import mdl
from mdl.errors import NotFound
from mdl.runs import LAYOUTS, find_run, inference_files, recognise
from mdl.runs.checkpoint import parse_count
from mdl.runs.tree import Entry, Tree, natural_key

FOLDERS = """
    checkpoint-5/ checkpoint-10/ checkpoint-best/ tmp-checkpoint-7/ global_step5/ checkpoints/
    lightning_logs/version_1/checkpoints/ weights/ runs/detect/train2/weights/ mp_rank_00/ model/ merged/
    pytorch_model_fsdp_0/ dog_000000500/ a-000001-state/ variables/ unet/ checkpoint-5/global_step5/ best_model/
    epoch_3/ checkpoints/epoch_10/ model/best/
"""
FILES = """
    model.safetensors model-00001-of-00002.safetensors model.safetensors.index.json config.json trainer_state.json
    adapter_config.json adapter_model.safetensors optimizer.pt latest last.ckpt epoch=1-step=5.ckpt a-last.ckpt
    a-last-unfinished a.nemo best.pt last.pt epoch3.pt __0_0.distcp checkpoint_5.pth best_model.pth best_model_7.pth
    checkpoint_last.pt checkpoint3.pt checkpoint ckpt-1.index ckpt-1.data-00000-of-00002 saved_model.pb m.05.keras
    best.keras a-000001.safetensors a-step00000010.ckpt a.safetensors dog_000000500.safetensors random_states_0.pkl
    model_index.json zero_pp_rank_0_mp_rank_00_model_states.pt train_state.json q-00001-of-00003.gguf
    pytorch_model_fsdp.bin epoch_7.pt model_best.pth
"""
CONTENTS = [
    *(b"", b"{", b"[]", b"null", b"\x00" * 20, b"global_step5", b'{"weight_map": {"a": "model.safetensors", "b": 5}}'),
    *(b'{"best_global_step": 5}', b'{"best_model_checkpoint": "/x/checkpoint-10"}', b'{"current_step": []}'),
    *(b"\x02\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]", b"\xff" * 9, b'model_checkpoint_path: "ckpt-1"'),
    b'\x2c\0\0\0\0\0\0\0{"__metadata__": {"ss_steps": "7", "a": "b"}}',
    b'\x2e\0\0\0\0\0\0\0{"__metadata__": {"training_info": "[[[[[[["}} ',
]
PATHS = st.builds(str.__add__, st.sampled_from(["", *FOLDERS.split()]), st.sampled_from(FILES.split()))


@given(st.dictionaries(PATHS, st.sampled_from(CONTENTS), max_size=12))
@settings(max_examples=examples(300), deadline=None)
def test_any_folder(files: dict[str, bytes]) -> None:
    """Nothing raises. At most one row is the latest and one the best, and they are complete; if none is the latest it
    is said why. For inference every file is kept, dropped or unknown, once, or the whole is refused. The same holds
    for a whole run with its inner folders."""
    with tempfile.TemporaryDirectory() as folder:
        for path, content in files.items():
            put(Path(folder, path), content)
        tree, run = Tree.scan(Path(folder)), find_run(Path(folder))
        for found in (recognise(tree), recognise(tree, "model"), run):
            rows = found.checkpoints
            latest = [row for row in rows if row.latest]
            assert len(latest) == (1 if rows and not found.latest_note else 0)
            assert all(row.complete for row in latest)
            assert len([row for row in rows if row.best]) == (0 if found.best_note else 1)
            assert all(row.complete for row in rows if row.best)
            assert len({row.name for row in rows}) == len(rows)
            assert all(row.note for row in rows if not row.complete)
            for row in rows:
                assert all(entry.path.startswith(row.base) for entry in row.entries)
                with contextlib.suppress(NotFound):
                    files = inference_files(tree, row)
                    parts = (*files.keep, *(entry for entry, _ in files.drop), *files.unknown)
                    assert sorted(one.path for one in parts) == sorted(
                        e.path for e in row.entries if e.kind != "folder"
                    )


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_natural_order(one: int, other: int) -> None:
    """Names with numbers are ordered by these."""
    assert (natural_key(f"checkpoint-{one}.x") < natural_key(f"checkpoint-{other}.x")) == (one < other)


@each("value", [True, -1, 1.5, None, [], {}, "", "1e3", "٣", " 5", "9" * 5000, 10**30])
def test_no_count(value: object) -> None:
    """Only a whole number is a count of steps."""
    assert parse_count(value) is None


def test_every_name_has_one_filter() -> None:
    """Layouts of one name have the same globs, so that it does not matter which of them found a checkpoint."""
    filters = {(layout.name, layout.keep, layout.drop, layout.notes) for layout in LAYOUTS}
    assert len(filters) == len({layout.name for layout in LAYOUTS})


NAMES = st.sampled_from([*"abA", "a0", "a-b", "a.b", "a b", "ä"])


@given(st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), max_size=12))
@settings(max_examples=examples(200), deadline=None)
def test_tree_is_in_order(paths: list[str]) -> None:
    """A tree lists what the disk has, sorted by the parts of each path; and below a folder, what starts with its name
    and a slash."""
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            Path(folder, path).mkdir(parents=True, exist_ok=True)
            put(Path(folder, path, "file"), b"")
        tree = Tree.scan(Path(folder))
        there = [str(one.relative_to(folder)) for one in Path(folder).rglob("*")]
        assert [one.path for one in tree.entries] == sorted(there, key=lambda path: path.split("/"))
        assert tree.below() == tree.entries
        for entry in tree.entries:
            inside = [one for one in tree.entries if one.path.startswith(f"{entry.path}/")]
            assert list(tree.below(entry.path)) == (inside if entry.kind == "folder" else [entry])
            assert tree.below(f"{entry.path}x/y") == ()


def test_the_documentation_lists_the_table() -> None:
    """docs/trained-runs.md names the trainers of every layout, in the order of the table."""
    page = (Path(mdl.__file__).parents[1] / "docs" / "trained-runs.md").read_text()
    listed = " ".join(page.split("mdl recognises ", 1)[1].split("\n\n")[0].split())
    trainers = dict.fromkeys(layout.trainers for layout in LAYOUTS if layout.trainers)
    assert listed == "; ".join([*trainers, "and any folder with exactly one set of weights."])


def test_many_weights_in_folders_are_looked_at_once_or_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that no layout fits, with many files in each of its folders, takes work in proportion to its files."""
    opened: Counter[str] = Counter()
    tree_open = Tree.open

    def count(tree: Tree, entry: Entry, *, strict: bool = True) -> tuple[int, int]:
        opened[entry.path] += 1
        return tree_open(tree, entry, strict=strict)

    monkeypatch.setattr(Tree, "open", count)
    for number in range(80):
        file = tmp_path / f"part{number % 2}" / f"{number:02}.bin"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(100))
    find_run(tmp_path)
    assert max(opened.values()) <= 2
