"""``--layout hf-cache``: what mdl writes there the real huggingface_hub reads offline, and the other way round."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.data import MIB, sha256
from support.hubs import Hf, Hub, Turning, actions, cache_of, main_of, offline, repo_of, scanned
from support.loopback_hub import Generated, Repo
from support.shell import Inside, Shell, done

WEIGHTS = Generated(2 * MIB, "one")[0 : 2 * MIB]
LATER = Generated(2 * MIB, "two")[0 : 2 * MIB]
FILES = {"config.json": b"{}", "unet/deep/model.bin": WEIGHTS, "unet/deep/same.bin": WEIGHTS}
ONE = Repo("org/tiny", FILES)
TWO = Repo("org/tiny", {"config.json": b'{"a": 2}', "unet/deep/model.bin": WEIGHTS, "new.bin": LATER})
DATA = Repo("org/rows", {"train/rows.csv": b"a,b\n1,2\n"}, repo_type="dataset")
LAYOUT = ("--layout", "hf-cache", "--json")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub([ONE, DATA]) as hub:
        yield hub


@pytest.fixture
def shell(tmp_path: Path, hub: Hub) -> Shell:
    return Shell(tmp_path, hub.url)


def test_the_hubs_client_reads_it_offline(shell: Shell, hub: Hub, mdl: Inside, hf: Hf) -> None:
    """By branch, by commit and file by file; each blob once; the folder that mdl tells is the snapshot."""
    ran = done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    assert offline(hf, shell) == offline(hf, shell, ONE.commit) == FILES
    words = {"repo_id": "org/tiny", "filename": "unet/deep/model.bin", "cache_dir": cache_of(shell)}
    assert Path(hf("file", local_files_only=True, **words)).read_bytes() == WEIGHTS
    assert Path(ran.document["models"][0]["path"]) == repo_of(shell) / "snapshots" / ONE.commit
    assert sorted(os.listdir(repo_of(shell) / "blobs")) == sorted([sha256(WEIGHTS), ONE.stored["config.json"].blob_id])
    facts = {"refs": {"main": ONE.commit}, "files": {ONE.commit: sorted(FILES)}}
    assert scanned(hf, shell) == {"model/org/tiny": facts}
    assert hf("verify", endpoint=hub.url, repo_id="org/tiny", cache_dir=cache_of(shell)) == [3, 0, [], []]
    assert hub.sent == len(WEIGHTS) + 2


def test_as_its_users_run_it(shell: Shell) -> None:
    """Three processes of their own: mdl, a program with HF_HUB_OFFLINE=1, and the hf command."""
    done(shell.run("get", "hf:org/tiny", *LAYOUT))
    code = "import huggingface_hub as hub; print(hub.snapshot_download('org/tiny'))"
    tool = "from huggingface_hub.cli.hf import main; main()"
    found = []
    for words in ([code], [tool, "cache", "ls", "--format", "json"]):
        environ = shell.environ | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
        ran = subprocess.run([sys.executable, "-c", *words], env=environ, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert "warning" not in ran.stderr.lower()
        found.append(ran.stdout)
    assert Path(found[0].strip()).samefile(repo_of(shell) / "snapshots" / ONE.commit)
    assert "model/org/tiny" in found[1]


def test_a_dataset(shell: Shell, hub: Hub, mdl: Inside, hf: Hf) -> None:
    """A dataset stands where the hub's client looks for datasets."""
    done(mdl(shell, "get", "hf:datasets/org/rows", *LAYOUT))
    found = offline(hf, shell, repo_id="org/rows", repo_type="dataset")
    assert found == {"train/rows.csv": b"a,b\n1,2\n"}
    assert list(scanned(hf, shell)) == ["dataset/org/rows"]


@pytest.mark.parametrize("branch", ["feature/x", "refs/pr/7"])
def test_other_branches_and_refs(shell: Shell, hub: Hub, mdl: Inside, hf: Hf, branch: str) -> None:
    """A branch with a slash and a pull request are found by their names, and main is not said to be there."""
    hub.publish(Repo("org/tiny", FILES, branch=branch))
    done(mdl(shell, "get", "hf:org/tiny", "--revision", branch, *LAYOUT))
    assert offline(hf, shell, branch) == FILES
    assert scanned(hf, shell)["model/org/tiny"]["refs"] == {branch: ONE.commit}


def test_what_hf_brought_is_kept(shell: Shell, hub: Hub, mdl: Inside, hf: Hf) -> None:
    """Over a cache that the hub's client filled no body byte is asked for, and every file is held to its digest."""
    hf("snapshot", repo_id="org/tiny", cache_dir=cache_of(shell), endpoint=hub.url)
    before, sent = scanned(hf, shell), hub.sent
    ran = done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    assert set(actions(ran).values()) == {"kept"}
    assert (hub.sent, scanned(hf, shell)) == (sent, before)
    row = ran.document["models"][0]["files"][1]
    assert (row["sha256"], row["verified"]) == (sha256(WEIGHTS), "sha256")


def test_hf_goes_on_with_what_mdl_brought(shell: Shell, hub: Hub, mdl: Inside, hf: Hf) -> None:
    """The hub's client fetches of a later revision only what is new; mdl then keeps all of that, and the ref."""
    done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    hub.publish(TWO)
    sent = hub.sent
    hf("snapshot", repo_id="org/tiny", cache_dir=cache_of(shell), endpoint=hub.url)
    new = hub.sent - sent
    assert len(LATER) <= new < len(LATER) + 1000
    assert set(actions(done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))).values()) == {"kept"}
    assert hub.sent == sent + new
    assert (main_of(shell), offline(hf, shell, ONE.commit)) == (TWO.commit, FILES)
    assert offline(hf, shell) == TWO.files


def test_mdl_goes_on_with_a_later_revision(shell: Shell, hub: Hub, mdl: Inside, hf: Hf) -> None:
    """mdl fetches of a later revision only what is new, moves the branch, and leaves the snapshot of before."""
    hf("snapshot", repo_id="org/tiny", cache_dir=cache_of(shell), endpoint=hub.url)
    hub.publish(TWO)
    sent = hub.sent
    done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    assert hub.sent - sent == len(LATER) + 8
    assert (offline(hf, shell), offline(hf, shell, ONE.commit)) == (TWO.files, FILES)
    assert set(scanned(hf, shell)["model/org/tiny"]["files"]) == {ONE.commit, TWO.commit}


def test_a_blob_that_hf_shares_is_kept(shell: Shell, hub: Hub, mdl: Inside, hf: Hf) -> None:
    """A blob that is a link into the store that hf shares between repositories is the file, and stays a link."""
    hf("snapshot", repo_id="org/tiny", cache_dir=cache_of(shell), endpoint=hub.url)
    blob = repo_of(shell) / "blobs" / sha256(WEIGHTS)
    assert hf("share", cache_dir=cache_of(shell), blob=blob, size=len(WEIGHTS))
    sent = hub.sent
    assert set(actions(done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))).values()) == {"kept"}
    assert (hub.sent, blob.is_symlink(), offline(hf, shell)) == (sent, True, FILES)
    done(mdl(shell, "verify", "hf:org/tiny", *LAYOUT))


def test_the_branch_moves_only_when_all_is_there(tmp_path: Path, mdl: Inside, hf: Hf) -> None:
    """Where one file fails the branch stays where it was, also of another repository of the same model."""
    bad = Turning(LATER)
    moved = Repo("org/tiny", {**FILES, "bad.bin": bad})
    catalog = 'schema = 1\n[models.m]\nsource = ["hf:org/tiny", "hf:datasets/org/rows"]\n'
    (tmp_path / "catalog.toml").write_text(catalog)
    with Hub([ONE, DATA]) as hub:
        shell = Shell(tmp_path, hub.url)
        done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
        hub.publish(moved)
        assert moved.stored["bad.bin"].sha256
        bad.turn()
        done(mdl(shell, "get", "m", *LAYOUT), 6)
        assert main_of(shell) == ONE.commit
        assert not (cache_of(shell) / "datasets--org--rows" / "refs").exists()
        bad.turn()
        ran = done(mdl(shell, "get", "m", *LAYOUT))
    assert Path(ran.document["models"][0]["path"]) == cache_of(shell)
    assert {name: list(facts["refs"]) for name, facts in scanned(hf, shell).items()} == {
        "model/org/tiny": ["main"],
        "dataset/org/rows": ["main"],
    }


def test_a_commit_by_itself(shell: Shell, hub: Hub, mdl: Inside) -> None:
    """A commit asked for by itself becomes main where none is known, and moves none that is."""
    done(mdl(shell, "get", f"hf:org/tiny@{ONE.commit}", *LAYOUT))
    assert main_of(shell) == ONE.commit
    hub.publish(TWO)
    done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    done(mdl(shell, "get", f"hf:org/tiny@{ONE.commit}", *LAYOUT))
    assert main_of(shell) == TWO.commit


def test_offline_does_not_move_the_branch_back(shell: Shell, hub: Hub, mdl: Inside, hf: Hf) -> None:
    """What mdl knew of the branch before the hub's client moved it is no reason to move it back."""
    done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    hub.publish(TWO)
    hf("snapshot", repo_id="org/tiny", cache_dir=cache_of(shell), endpoint=hub.url)
    done(mdl(shell, "get", "hf:org/tiny", "--offline", *LAYOUT))
    assert main_of(shell) == TWO.commit
