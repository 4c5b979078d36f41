"""``--layout hf-cache``: what mdl writes there the real huggingface_hub reads offline, and the other way round; locked,
killed, verified, repaired, listed; and what has no place there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.data import MIB, sha256, spoil
from support.descriptors import few_descriptors
from support.hf_cache import Hf, HfError, Turning, actions, cache_of, main_of, offline, repo_of, scanned
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.polling import until
from support.shell import Inside, Shell, child, done, settings, write_catalog

from mdl.downloader.journal import load

WEIGHTS = Generated(2 * MIB, "one")[0 : 2 * MIB]
LATER = Generated(2 * MIB, "two")[0 : 2 * MIB]
FILES = {"config.json": b"{}", "unet/deep/model.bin": WEIGHTS, "unet/deep/same.bin": WEIGHTS}
ONE = Repo("org/tiny", FILES)
TWO = Repo("org/tiny", {"config.json": b'{"a": 2}', "unet/deep/model.bin": WEIGHTS, "new.bin": LATER})
DATA = Repo("org/rows", {"train/rows.csv": b"a,b\n1,2\n"}, repo_type="dataset")
LAYOUT = ("--layout", "hf-cache", "--json")
LOOSE = f'path = "f.bin"\nurl = "http://127.0.0.1:9/f.bin"\nsize = 3\nsha256 = "{sha256(b"abc")}"\n'
"""A file of another server than a hub."""
REPOS = [ONE, DATA]


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    """A machine whose catalog has the model ``m``, and ``loose``, which has no place in the cache."""
    shell = Shell(tmp_path, hub.url)
    catalog = f'schema = 1\n[models.m]\nsource = "hf:org/tiny"\n[[models.loose.files]]\n{LOOSE}'
    return write_catalog(shell, catalog)


def get(shell: Shell, mdl: Inside, *words: str, code: int = 0) -> set[str]:
    """What became of the files of ``m``, or of what ``words`` say."""
    return set(actions(done(mdl(shell, "get", *(words or ("m",)), *LAYOUT), code)).values())


def brought_by_hf(hf: Hf, shell: Shell) -> None:
    hf("snapshot", repo_id="org/tiny", cache_dir=cache_of(shell), endpoint=shell.endpoint)


def test_the_hubs_client_reads_it_offline(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf) -> None:
    """By branch, by commit and file by file; each blob once; the folder that mdl tells is the snapshot."""
    ran = done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    assert offline(hf, shell) == offline(hf, shell, ONE.commit) == FILES
    words = {"repo_id": "org/tiny", "filename": "unet/deep/model.bin", "cache_dir": cache_of(shell)}
    assert Path(hf("file", local_files_only=True, **words)).read_bytes() == WEIGHTS
    assert Path(ran.document["models"][0]["path"]) == repo_of(shell) / "snapshots" / ONE.commit
    assert sorted(os.listdir(repo_of(shell) / "blobs")) == sorted(
        [sha256(WEIGHTS), ONE.stored["config.json"].digest.hex]
    )
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


def test_a_dataset(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """A dataset stands where the hub's client looks for datasets."""
    get(shell, mdl, "hf:datasets/org/rows")
    assert offline(hf, shell, repo_id="org/rows", repo_type="dataset") == DATA.files
    assert list(scanned(hf, shell)) == ["dataset/org/rows"]


def test_a_model_with_many_folders(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """Every name that was lost is given again, though there are more folders than a process may open at once."""
    hub.publish(Repo("org/wide", {f"{number}/part.txt": b"%d" % number for number in range(130)}))
    get(shell, mdl, "org/wide")
    links = sorted(cache_of(shell).glob("models--org--wide/snapshots/*/*/part.txt"))
    for link in links:
        link.unlink()
    with few_descriptors(100):
        get(shell, mdl, "org/wide", "--offline")
    assert len(links) == 130
    assert all(map(Path.exists, links))


@pytest.mark.parametrize("branch", ["feature/x", "refs/pr/7"])
def test_other_branches_and_refs(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, branch: str) -> None:
    """A branch with a slash and a pull request are found by their names, and main is not said to be there."""
    hub.publish(Repo("org/tiny", FILES, branch=branch))
    get(shell, mdl, "hf:org/tiny", "--revision", branch)
    assert offline(hf, shell, branch) == FILES
    assert scanned(hf, shell)["model/org/tiny"]["refs"] == {branch: ONE.commit}


@pytest.mark.parametrize("shares", [False, True])
def test_what_hf_brought_is_kept(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, shares: bool) -> None:
    """Over a cache that the hub's client filled no body byte is asked for, and every file is held to its digest. A blob
    that is a link into the store that hf shares between repositories is the file, and stays a link."""
    brought_by_hf(hf, shell)
    blob = repo_of(shell) / "blobs" / sha256(WEIGHTS)
    assert not shares or hf("share", cache_dir=cache_of(shell), blob=blob, size=len(WEIGHTS))
    before, sent = scanned(hf, shell), hub.sent
    ran = done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    assert set(actions(ran).values()) == {"kept"}
    assert (hub.sent, scanned(hf, shell), blob.is_symlink(), offline(hf, shell)) == (sent, before, shares, FILES)
    row = ran.document["models"][0]["files"][1]
    assert (row["sha256"], row["verified"]) == (sha256(WEIGHTS), "sha256")
    done(mdl(shell, "verify", "hf:org/tiny", *LAYOUT))


def test_hf_goes_on_with_what_mdl_brought(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf) -> None:
    """The hub's client fetches of a later revision only what is new. mdl then keeps all of that, and the ref; what it
    knew of the branch before is no reason to move it back."""
    get(shell, mdl)
    hub.publish(TWO)
    sent = hub.sent
    brought_by_hf(hf, shell)
    new = hub.sent - sent
    assert len(LATER) <= new < len(LATER) + 1000
    get(shell, mdl, "m", "--offline")
    assert main_of(shell) == TWO.commit
    assert get(shell, mdl) == {"kept"}
    assert hub.sent == sent + new
    assert (main_of(shell), offline(hf, shell, ONE.commit), offline(hf, shell)) == (TWO.commit, FILES, TWO.files)


def test_mdl_goes_on_with_a_later_revision(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf) -> None:
    """mdl fetches of a later revision only what is new, moves the branch, and leaves the snapshot of before."""
    brought_by_hf(hf, shell)
    hub.publish(TWO)
    sent = hub.sent
    get(shell, mdl)
    assert hub.sent - sent == len(LATER) + 8
    assert (offline(hf, shell), offline(hf, shell, ONE.commit)) == (TWO.files, FILES)
    assert set(scanned(hf, shell)["model/org/tiny"]["files"]) == {ONE.commit, TWO.commit}


def test_a_newer_commit_without_a_file(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """The folder of the model is the new snapshot. Clean leaves what mdl brought of the older commit, for it may be
    another snapshot's: pruning a cache is for the hub's own tools."""
    get(shell, mdl)
    hub.publish(moved := Repo("org/tiny", {"config.json": b'{"a": 2}'}))
    folder = done(mdl(shell, "get", "m", "--layout", "hf-cache")).out
    assert folder == done(mdl(shell, "path", "m", "--layout", "hf-cache")).out
    assert folder == f"{repo_of(shell) / 'snapshots' / moved.commit}\n"
    assert done(mdl(shell, "clean", *LAYOUT)).document["items"] == []


def test_the_branch_moves_only_when_all_is_there(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf) -> None:
    """If one file fails the branch stays where it was, also of another repository of the same model."""
    bad = Turning(LATER)
    moved = Repo("org/tiny", {**FILES, "bad.bin": bad})
    write_catalog(shell, 'schema = 1\n[models.m]\nsource = ["hf:org/tiny", "hf:datasets/org/rows"]\n')
    get(shell, mdl, "hf:org/tiny")
    hub.publish(moved)
    assert moved.stored["bad.bin"].digest.hex
    bad.turn()
    get(shell, mdl, code=6)
    assert main_of(shell) == ONE.commit
    assert not (cache_of(shell) / "datasets--org--rows" / "refs").exists()
    bad.turn()
    ran = done(mdl(shell, "get", "m", *LAYOUT))
    assert Path(ran.document["models"][0]["path"]) == cache_of(shell)
    assert {name: list(facts["refs"]) for name, facts in scanned(hf, shell).items()} == {
        "model/org/tiny": ["main"],
        "dataset/org/rows": ["main"],
    }


def test_a_repair_that_makes_it_whole(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """If verify --repair brings the last file that was missing, the branch is there as after a get."""
    bad = Turning(WEIGHTS)
    hub.publish(repo := Repo("org/tiny", {"config.json": b"{}", "model.bin": bad}))
    assert repo.stored["model.bin"].digest.hex
    bad.turn()
    get(shell, mdl, code=6)
    bad.turn()
    done(mdl(shell, "verify", "m", "--repair", *LAYOUT))
    assert main_of(shell) == repo.commit


def test_a_commit_by_itself(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """A commit asked for by itself becomes main if none is known, and moves none that is."""
    get(shell, mdl, f"hf:org/tiny@{ONE.commit}")
    assert main_of(shell) == ONE.commit
    hub.publish(TWO)
    get(shell, mdl)
    get(shell, mdl, f"hf:org/tiny@{ONE.commit}")
    assert main_of(shell) == TWO.commit


@pytest.mark.parametrize("branch", ["main", "dev"])
def test_a_locked_catalog(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, branch: str) -> None:
    """The lock brings the same snapshot, and a bare name finds it offline; --frozen contacts nothing and keeps it. The
    branch that the catalog follows is where the lock is, also after an upgrade of the lock."""
    write_catalog(shell, f'schema = 1\n[models.m]\nsource = "hf:org/tiny@{branch}"\n')
    hub.publish(Repo("org/tiny", FILES, branch=branch))
    done(mdl(shell, "lock"))
    get(shell, mdl, "m", "--locked")
    assert offline(hf, shell, branch) == offline(hf, shell, ONE.commit) == FILES
    asked = len(hub.requests)
    assert get(shell, mdl, "m", "--frozen") == {"kept"}
    assert len(hub.requests) == asked
    hub.publish(Repo("org/tiny", TWO.files, branch=branch))
    done(mdl(shell, "lock", "--upgrade", "m"))
    get(shell, mdl, "m", "--locked")
    assert offline(hf, shell, branch) == TWO.files


def test_a_lock_of_an_older_entry(shell: Shell, mdl: Inside) -> None:
    """With --frozen an entry that follows another branch by now does not have that branch moved to the old commit."""
    done(mdl(shell, "lock", "m"))
    write_catalog(shell, (shell.home / "catalog.toml").read_text().replace("hf:org/tiny", "hf:org/tiny@dev"))
    get(shell, mdl, "m", "--frozen")
    assert not (repo_of(shell) / "refs" / "dev").exists()
    assert main_of(shell) == ONE.commit


def test_two_equal_files_from_elsewhere_on_this_disk(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """They are one blob, and both are known to be whole, as the get said: what brought the second is not in its way."""
    hub.publish(Repo("org/tiny", {"a.json": b"{}", "b.json": b"{}", "c/d.json": b"{}"}))
    done(mdl(shell, "get", "hf:org/tiny"))
    assert get(shell, mdl, "hf:org/tiny") == {"linked"}
    [model] = done(mdl(shell, "list", "--local", *LAYOUT)).document["models"]
    assert (model["status"], model["files_present"]) == ("present", 3)


def test_what_is_no_file_of_a_hub_is_refused(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """A model with a file of another server has no place in the cache: 2, and nothing is fetched or made of it."""
    write_catalog(shell, f'schema = 1\n[models.m]\nsource = "hf:org/tiny"\n[[models.m.files]]\n{LOOSE}')
    ran = done(mdl(shell, "get", "m", *LAYOUT), 2)
    assert (ran.document["error"]["item"], hub.sent) == ("f.bin", 0)
    assert [entry.name for entry in cache_of(shell).iterdir()] == [".locks"]


def test_into_has_no_meaning_there(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """--into with --layout hf-cache is a mistake in the call, and nothing is written or asked."""
    assert mdl(shell, "get", "hf:org/tiny", "--into", "x", *LAYOUT).code == 2
    assert (cache_of(shell).exists(), (shell.home / "x").exists(), hub.requests) == (False, False, [])


def test_the_settings_choose_it(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """``[defaults] layout`` means what the flag means, for every command, and the flag wins."""
    settings(shell, '[defaults]\nlayout = "hf-cache"\n')
    folder = done(mdl(shell, "get", "m")).out
    assert offline(hf, shell) == FILES
    assert done(mdl(shell, "list", "--json")).document["models"][0]["status"] == "present"
    assert done(mdl(shell, "path", "m")).out == folder
    done(mdl(shell, "get", "m", "--layout", "plain"))
    assert (shell.models / "m" / "config.json").read_bytes() == b"{}"


def test_carried_by_the_hubs_client(shell: Shell, hub: LoopbackHub, hf: Hf) -> None:
    """--via hub into the cache: brought by the hub's client, verified by mdl, and found there."""
    ran = done(shell.run("get", "hf:org/tiny", "--via", "hub", *LAYOUT))
    assert [row["verified"] for row in ran.document["models"][0]["files"]] == ["git-sha1", "sha256", "sha256"]
    agents = {r.headers.get("user-agent", "") for r in hub.requests if r.origin == "cdn"}
    assert agents
    assert all("hf_hub/" in agent for agent in agents)
    assert offline(hf, shell) == FILES


def test_resumed_after_a_kill(tmp_path: Path, mdl: Inside, hf: Hf) -> None:
    """Killed on the way, nothing of it shows to the hub's client; the next run goes on with what was there."""
    large = Generated(8 * MIB, "large")
    with LoopbackHub([Repo("org/tiny", {"model.bin": large})], bytes_per_second=4 * MIB) as hub:
        shell = Shell(tmp_path, hub.url)
        process = child(tmp_path, "get", "hf:org/tiny", *LAYOUT, HF_ENDPOINT=hub.url)
        partials = cache_of(shell) / ".locks" / ".mdl" / "partials"
        until(lambda: any((record := load(path)) and record.have.total for path in partials.glob("*/journal")))
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert scanned(hf, shell) == {}
        with pytest.raises(HfError, match="LocalEntryNotFound"):
            offline(hf, shell)
        hub.bytes_per_second = None
        ran = done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    here = ran.document["models"][0]["files"][0]["resumed_at"]
    assert here > 0
    assert ran.document["bytes_fetched"] == len(large) - here
    assert offline(hf, shell) == {"model.bin": large[0 : 8 * MIB]}


def test_nothing_half_is_where_hf_looks(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any rename, nothing is left in refs or snapshots that hf would take for one of its own."""
    seen, renamed = list[str](), list[str]()
    really = os.replace

    def replace(source: str, target: str, **more: int) -> None:
        seen.extend(path.name for path in repo_of(shell).rglob("*") if path.name.endswith(".mdl-tmp"))
        really(source, target, **more)
        renamed.append(Path(target).name)

    monkeypatch.setattr(os, "replace", replace)
    get(shell, mdl)
    assert {"main", "config.json", "model.bin", sha256(WEIGHTS)} <= set(renamed)
    assert seen == []


def test_verify_and_repair(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf) -> None:
    """A flipped byte is 6; --repair mends the blob, and the hub's client reads right bytes and finds nothing wrong.
    Without a name every model that mdl brought is read, also one that no catalog knows."""
    get(shell, mdl, "hf:org/tiny")
    ran = done(mdl(shell, "verify", *LAYOUT))
    assert {row["status"] for model in ran.document["models"] for row in model["files"]} == {"ok"}
    blob = repo_of(shell) / "blobs" / sha256(WEIGHTS)
    spoil(blob, b"X" + WEIGHTS[1:])
    assert mdl(shell, "verify", "hf:org/tiny", *LAYOUT).code == 6
    done(mdl(shell, "verify", "hf:org/tiny", "--repair", *LAYOUT))
    assert offline(hf, shell) == FILES
    assert hf("verify", endpoint=hub.url, repo_id="org/tiny", cache_dir=cache_of(shell)) == [3, 0, [], []]


@pytest.mark.parametrize("name", ["config.json", "unet/deep/model.bin"])
@pytest.mark.parametrize("mended_by", ["get", "verify --repair"])
@pytest.mark.parametrize(("damage", "code"), [("gone", 3), ("another link", 6)])
def test_a_pointer_that_is_not_right(
    shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, name: str, mended_by: str, damage: str, code: int
) -> None:
    """A file that is not in the snapshot, or is another one there, is neither ok nor present, for programs read it by
    that name. A get, and a repair, put the name right without a body byte."""
    get(shell, mdl)
    pointer, sent = repo_of(shell) / "snapshots" / ONE.commit / name, hub.sent
    pointer.unlink()
    if damage == "another link":
        pointer.symlink_to(repo_of(shell) / "refs" / "main")
    assert mdl(shell, "verify", "m", *LAYOUT).code == code
    assert statuses(shell, mdl)["m"] == "partial"
    done(mdl(shell, *mended_by.split(), "m", *LAYOUT))
    assert (statuses(shell, mdl)["m"], offline(hf, shell), hub.sent) == ("present", FILES, sent)


def test_a_file_in_place_of_a_pointer(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf) -> None:
    """What an editor puts in place of a link (``sed -i``) is an edit: changed, and only --force replaces it."""
    get(shell, mdl)
    pointer = repo_of(shell) / "snapshots" / ONE.commit / "config.json"
    pointer.unlink()
    pointer.write_bytes(b"other")
    ran = done(mdl(shell, "verify", "m", *LAYOUT))
    assert [row["status"] for row in ran.document["models"][0]["files"]] == ["changed", "ok", "ok"]
    done(mdl(shell, "verify", "m", "--repair", *LAYOUT))
    assert (mdl(shell, "get", "m", *LAYOUT).code, pointer.read_bytes()) == (7, b"other")
    done(mdl(shell, "verify", "m", "--repair", "--force", *LAYOUT))
    assert offline(hf, shell) == FILES
    assert get(shell, mdl) == {"kept"}


def statuses(shell: Shell, mdl: Inside) -> dict[str, str]:
    return {one["name"]: one["status"] for one in done(mdl(shell, "list", *LAYOUT)).document["models"]}


def test_list_and_show(shell: Shell, mdl: Inside) -> None:
    """What is in the cache is present there and missing elsewhere; what has no place in it is no mistake."""
    get(shell, mdl)
    assert statuses(shell, mdl) == {"m": "present", "loose": "missing"}
    shown = done(mdl(shell, "show", "m", *LAYOUT)).document
    assert {row["path"]: row["status"] for row in shown["files"]} == dict.fromkeys(FILES, "present")
    assert shown["model"]["path"] == str(repo_of(shell) / "snapshots" / ONE.commit)
    assert done(mdl(shell, "list", "--json")).document["models"][0]["status"] == "missing"


def test_config_and_doctor_say_which_cache(shell: Shell, mdl: Inside) -> None:
    """``config`` names the hub's cache as the models folder, and what chose it; ``doctor`` looks at its disk."""
    rows = done(mdl(shell, "config", *LAYOUT)).document["places"]
    models = [(row["path"], row["why"]) for row in rows if row["what"] == "models"]
    assert models == [(str(cache_of(shell)), "the hub's cache")]
    there = str(shell.home / "there")
    rows = done(mdl(shell, "config", "--to", there, *LAYOUT)).document["places"]
    assert [row["path"] for row in rows if row["what"] == "models"] == [there]
    cache_of(shell).mkdir(parents=True)
    checks = mdl(shell, "doctor", "--offline", *LAYOUT).document["checks"]
    [found] = [one for one in checks if one["name"] == "models folder"]
    assert str(cache_of(shell)) in found["detail"] + (found["advice"] or "")
