"""One set of weights, at work: what is left out is named with its bytes everywhere, and every command keeps to it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.data import spoil
from support.locks import lock_of, models_of
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Run, Shell, machine

WANTED = {"README.md": b"r", "config.json": b"{}", "model.safetensors": b"s" * 1000}
OTHERS = {"pytorch_model.bin": b"p" * 1001, "tf_model.h5": b"t" * 1002, "onnx/model.onnx": b"\x08" * 997}
REPO = Repo("o/m", {**WANTED, **OTHERS})
MOVED = replace(REPO, files={**REPO.files, "model.safetensors": b"2" * 1000, "tf_model.h5": b"T" * 1002}, commit="")
DATA = Repo("o/data", {**WANTED, **OTHERS}, repo_type="dataset")
REPOS = [REPO, DATA]
CATALOG = 'schema = 1\n[models.m]\nsource = "hf:o/m"\n'
LEFT_OUT = "3 files, 3.0 kB: other formats of the same weights: left out; --all fetches them"
PATHS = [{"path": path, "size": len(OTHERS[path])} for path in sorted(OTHERS)]


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return machine(tmp_path / "home", CATALOG, hub.url)


def here(shell: Shell, name: str = "o--m") -> set[str]:
    folder = shell.models / name
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("target", ["o/m", "hf:o/m@main", "{url}/o/m", "m"])
def test_one_set_is_fetched(run: Run, shell: Shell, hub: LoopbackHub, target: str) -> None:
    """The complete safetensors come, and no byte of the other formats. Plan, output and document name what is left
    out, with its bytes; a second get has nothing to say."""
    asked = target.format(url=hub.url)
    name = "m" if target == "m" else "o--m"
    assert f"{name}: {LEFT_OUT}\n" in run(f"get -n {asked}").err.replace("o/m:", "o--m:")
    [planned] = run(f"get -n {asked} --json").document["models"]
    assert planned["left_out"] == PATHS
    before = hub.sent
    assert f"{name}: {LEFT_OUT}\n" in run(f"get {asked}").err.replace("o/m:", "o--m:")
    assert hub.sent - before == sum(map(len, WANTED.values()))
    assert here(shell, name) == set(WANTED)
    again = run(f"get {asked} --json")
    assert again.document["models"][0]["left_out"] == PATHS
    assert "left out" not in again.err
    assert {row["path"] for row in run(f"verify {name} --json").document["models"][0]["files"]} == set(WANTED)
    assert run(f"list {'' if target == 'm' else '--local'} --json").document["models"][0]["status"] == "present"


def test_what_is_copied_from_this_disk_says_it_too(run: Run, shell: Shell) -> None:
    """A second copy that comes from this disk names what is left out of it."""
    run("get o/m")
    ran = run("get m")
    assert "copied from this disk" in ran.err
    assert f"m: {LEFT_OUT}\n" in ran.err


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ("o/m --all", {*WANTED, *OTHERS}),
        ("o/m --include *.bin --include *.h5", {"pytorch_model.bin", "tf_model.h5"}),
        ("o/m pytorch_model.bin", {"pytorch_model.bin"}),
        ("o/m onnx", {"onnx/model.onnx"}),
        ("o/m --exclude *.safetensors", {"README.md", "config.json", *OTHERS}),
        ("m --all --to models", {*WANTED, *OTHERS}),
    ],
)
def test_who_names_files_gets_them(run: Run, shell: Shell, words: str, files: set[str]) -> None:
    """FILE, --include and --all win, and nothing is said to be left out."""
    ran = run(f"get {words}")
    assert "left out" not in ran.err
    assert here(shell, "m" if words.startswith("m ") else "o--m") == files


def test_a_data_set_comes_as_it_is(run: Run, shell: Shell) -> None:
    """Nothing is left out of a data set, whatever its files are called."""
    run("get hf:datasets/o/data")
    assert here(shell, "datasets--o--data") == {*WANTED, *OTHERS}


def test_a_lock_notes_the_choice(run: Run, shell: Shell, hub: LoopbackHub) -> None:
    """lock names what it leaves out, writes it down, and get, outdated, update and lock --check keep to it. --all
    fetches the files of the locked commit, --locked --all is 8."""
    assert f"; {LEFT_OUT}\n" in run("lock").err
    [row] = run("lock --json").document["models"]
    assert (row["files"], row["left_out"]) == (3, PATHS)
    assert [(file.path, file.size) for file in models_of(shell)["m"].left_out] == [
        (file["path"], file["size"]) for file in PATHS
    ]
    run("get m --locked")
    assert here(shell, "m") == set(WANTED)
    hub.publish(MOVED)
    run("lock --check")
    [row] = run("outdated m --json").document["models"]
    assert [change["path"] for change in row["changes"]] == ["model.safetensors"]
    assert run("get m --locked --all", 8).err.startswith("mdl: m: the lock leaves out files that are asked for\n")
    assert run("get m --all --json").document["models"][0]["files"][-1]["commit"] == REPO.commit
    assert here(shell, "m") == {*WANTED, *OTHERS}
    run("update m")
    assert (shell.models / "m" / "model.safetensors").read_bytes() == b"2" * 1000
    assert (shell.models / "m" / "tf_model.h5").read_bytes() == OTHERS["tf_model.h5"]
    assert len(models_of(shell)["m"].files) == 3


def test_a_lock_of_all_formats_stays_valid(run: Run, shell: Shell) -> None:
    """A lock of an earlier version, which has all formats, pins them all, and nothing is left out of it."""
    run("lock")
    whole = CATALOG + 'include = ["*"]\n'
    (shell.home / "catalog.toml").write_text(whole)
    run("lock")
    assert len(models_of(shell)["m"].files) == 6
    assert "left_out" not in lock_of(shell).read_text()
    run("get m --locked")
    assert here(shell, "m") == {*WANTED, *OTHERS}


@pytest.mark.parametrize("target", ["o/m", "m"])
def test_a_folder_with_all_formats_stays_as_it_is(run: Run, shell: Shell, target: str) -> None:
    """What an earlier get brought stays: nothing is deleted, all of it is verified, and clean calls nothing
    superseded. A file that is lost from it is missing as any other."""
    name = "m" if target == "m" else "o--m"
    run(f"get {target} --all")
    assert "left out" not in run(f"get {target} -n").err
    files = {row["path"]: row["status"] for row in run(f"verify {target} --json").document["models"][0]["files"]}
    assert files == dict.fromkeys({*WANTED, *OTHERS}, "ok")
    assert run("clean --json").document["items"] == []
    run(f"outdated {target} --exit-code")
    (shell.models / name / "tf_model.h5").unlink()
    assert f"missing  {name}/tf_model.h5\n" in run(f"verify {target}", 3).out.replace("o/m/", "o--m/")


@pytest.mark.parametrize("listing", ["kept", "gone"])
def test_a_folder_with_all_formats_stays_under_a_lock(run: Run, shell: Shell, listing: str) -> None:
    """The same with a lock that leaves the other formats out, also if nobody knows any more what the repository
    held."""
    run("lock")
    run("get m --all")
    if listing == "gone":
        shutil.rmtree(shell.models / ".mdl" / "listings")
    assert run("clean --yes --json").document["items"] == []
    assert here(shell, "m") == {*WANTED, *OTHERS}
    spoil(shell.models / "m" / "pytorch_model.bin", b"P" * 1001)
    for words in ("verify m --json", "verify --json", "verify m --locked --json"):
        files = {row["path"]: row["status"] for row in run(words, 6).document["models"][0]["files"]}
        assert files == {**dict.fromkeys({*WANTED, *OTHERS}, "ok"), "pytorch_model.bin": "corrupt"}


def test_update_follows_a_repository_of_which_one_set_is_here(run: Run, shell: Shell, hub: LoopbackHub) -> None:
    """What no catalog names is one set of weights too when it moves, also if its files have other names by then."""
    run("get o/m")
    shards = {f"model-0000{number}-of-00002.safetensors": bytes([number]) * 600 for number in (1, 2)}
    hub.publish(replace(REPO, files={"README.md": b"r", "config.json": b"{}", **shards, **OTHERS}, commit=""))
    run("update o/m")
    assert here(shell) >= {"config.json", *shards}
    assert not here(shell) & set(OTHERS)


def test_the_source_is_shown_as_it_would_be_fetched(run: Run, shell: Shell) -> None:
    """show --remote lists one set and names the rest."""
    assert run("show --remote o/m").err.endswith(f"{LEFT_OUT}\n")
    document = run("show --remote o/m --json").document
    assert ({file["path"] for file in document["files"]}, document["left_out"]) == (set(WANTED), PATHS)


def test_prefetch_with_all(run: Run, shell: Shell) -> None:
    """prefetch --all is the whole catalog, of each model one set; with a name it is all files of that model. It stays
    silent."""
    assert run("prefetch --all").err == ""
    assert here(shell, "m") == set(WANTED)
    run("prefetch m --all")
    assert here(shell, "m") == {*WANTED, *OTHERS}
