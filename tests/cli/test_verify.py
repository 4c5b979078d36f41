"""What `mdl verify` compares: a file with catalog and lock, or as it came; never with what a look at the hub found."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from support import faults
from support.data import spoil
from support.loopback_hub import LoopbackHub, Repo, at_path
from support.shell import Ran, Run, Shell, machine

OLD = Repo("o/m", {"config.json": b'{"v":1}', "model.safetensors": b"s" * 1000, "old.txt": b"o"})
NEW = replace(OLD, files={"config.json": b'{"v":2}', "model.safetensors": b"s" * 1000, "new.txt": b"n"}, commit="")
QUANTS = Repo("o/q", {"README.md": b"r", "m-F16.gguf": b"GGUF" + b"f" * 90, "m-Q8_0.gguf": b"GGUF" + b"8" * 50})
REPOS = [OLD, QUANTS]
CATALOG = 'schema = 1\n[models.mine]\nsource = "hf:o/m"\n'


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return machine(tmp_path / "home", CATALOG, hub.url)


def statuses(ran: Ran) -> dict[str, str]:
    return {file["path"]: file["status"] for model in ran.document["models"] for file in model["files"]}


ALL_OK = dict.fromkeys(OLD.files, "ok")


@pytest.mark.parametrize(("target", "folder"), [("mine", "mine"), ("o/m", "o--m")])
@pytest.mark.parametrize("look", ["show --remote", "get -n"])
def test_a_look_at_the_hub_makes_no_file_wrong(
    run: Run, shell: Shell, hub: LoopbackHub, look: str, target: str, folder: str
) -> None:
    """A branch that moved is known after a look. The files are those that came, also for `path` and a repair, and
    whatever the model is called."""
    run(f"get {target}")
    hub.publish(NEW)
    run(f"{look} {target}")
    for words in ("verify", f"verify {target}", f"verify {folder}", f"verify {target} --repair", "verify --strict"):
        assert statuses(run(f"{words} --json")) == ALL_OK
        run(f"path {target}")
    place = shell.models / folder / "config.json"
    spoil(place, b'{"v":9}')
    assert statuses(run(f"verify {target} --json", 6)) == {**ALL_OK, "config.json": "corrupt"}
    assert statuses(run(f"verify {target} --repair --json")) == ALL_OK
    assert place.read_bytes() == OLD.files["config.json"]
    (shell.models / folder / "old.txt").unlink()
    assert statuses(run(f"verify {target} --json", 3)) == {**ALL_OK, "old.txt": "missing"}


def test_a_look_makes_nothing_wrong_in_the_hubs_cache(run: Run, shell: Shell, hub: LoopbackHub) -> None:
    """There a file has its name at the commit at which it came, also if the newer one has the same bytes; after a get
    it has one at that commit too, and is missing without."""
    at = "--layout hf-cache --json"
    run(f"get mine {at}")
    run(f"get o/m {at}")
    hub.publish(NEW)
    run(f"get -n mine {at}")
    run(f"get -n o/m {at}")
    for words in ("verify", "verify mine", "verify o/m", "verify mine --repair"):
        assert statuses(run(f"{words} {at}")) == ALL_OK
    [model] = run(f"get mine {at}").document["models"]
    assert statuses(run(f"verify mine {at}")) == dict.fromkeys(NEW.files, "ok")
    (Path(model["path"]) / "model.safetensors").unlink()
    assert statuses(run(f"verify mine {at}", 3))["model.safetensors"] == "missing"


@pytest.mark.parametrize("target", ["mine", "o/m"])
@pytest.mark.parametrize("layout", ["plain", "hf-cache"])
@pytest.mark.parametrize(("is_update", "repair"), [(True, "verify"), (False, "verify"), (False, "verify {}")])
def test_what_a_stopped_download_wanted_is_of_one_version(
    run: Run, hub: LoopbackHub, layout: str, target: str, is_update: bool, repair: str
) -> None:
    """An update that was stopped half way is no whole model, though the older version of the rest is here: a repair
    brings the rest. If the branch moved after the first download stopped, it brings all that was wanted anew."""
    new = replace(NEW, files={**NEW.files, "model.safetensors": b"S" * 1000}, commit="")
    at = f"--layout {layout}"
    if is_update:
        run(f"get {target} {at}")
        hub.publish(new)
    hub.script = at_path("/model.safetensors", faults.answers(403))
    run(f"get {target} {at}", 4)
    hub.script = None
    if not is_update:
        hub.publish(new)
        run(f"show --remote {target} {at}")
    for words in ("verify", f"verify {target}"):
        assert statuses(run(f"{words} {at} --json", 3))["model.safetensors"] == "missing"
    assert run(f"path {target} {at}", 3).out == ""
    repaired = statuses(run(f"{repair.format(target)} {at} --repair --json"))
    place = Path(run(f"path {target} {at}").out.strip())
    for path in ("config.json", "model.safetensors"):
        assert (repaired[path], (place / path).read_bytes()) == ("ok", new.files[path])
    if target == "mine":  # all that its entry means belongs to it
        assert (repaired["new.txt"], (place / "new.txt").read_bytes()) == ("ok", b"n")


@pytest.mark.parametrize("layout", ["plain", "hf-cache"])
@pytest.mark.parametrize("look", ["get -n mine", "lock"])
def test_a_look_takes_no_path_away(run: Run, hub: LoopbackHub, layout: str, look: str) -> None:
    """Also if every file of the model has another version by now."""
    at = f"--layout {layout}"
    run(f"get mine {at} --include config.json")
    place = run(f"path mine {at}").out
    hub.publish(NEW)
    run(f"{look} {at if 'get' in look else ''}")
    assert run(f"path mine {at}").out == place
    assert Path(run(f"path mine --file {at}").out.strip()).read_bytes() == OLD.files["config.json"]


def test_the_lock_decides(run: Run, shell: Shell, hub: LoopbackHub) -> None:
    """An older version than that of the lock is not here, as for list; nothing is wrong with it, so `path` has it, and
    a repair brings what the lock says."""
    run("get mine")
    hub.publish(NEW)
    run("lock")
    wrong = {"config.json": "missing", "model.safetensors": "ok", "new.txt": "missing"}
    assert statuses(run("verify --json", 3)) == wrong
    run("path mine")
    assert statuses(run("verify --repair --json")) == dict.fromkeys(NEW.files, "ok")


def test_what_a_revision_brought_is_of_the_model_after_a_repair_too(run: Run, shell: Shell, hub: LoopbackHub) -> None:
    """Also if the receipt that was written last is that of an older file, which was lost and came again."""
    run("get mine")
    new = replace(NEW, branch="dev", commit="")
    hub.publish(new)
    run("get mine --revision dev")
    run("show mine --remote")
    (shell.models / "mine" / "old.txt").unlink()
    run("verify mine --repair")
    run("clean --yes")
    assert statuses(run("verify mine --json"))["new.txt"] == "ok"
    (shell.models / "mine" / "new.txt").unlink()
    assert statuses(run("verify mine --json", 3))["new.txt"] == "missing"


def test_a_commit_in_the_catalog_decides(run: Run, shell: Shell, hub: LoopbackHub) -> None:
    """What an entry names by its commit is not here in another version, nor is a file that came with that commit."""
    run("get mine")
    new = replace(OLD, files={**OLD.files, "config.json": b'{"v":2}', "new.txt": b"n"}, commit="")
    hub.publish(new)
    (shell.home / "catalog.toml").write_text(CATALOG.replace("hf:o/m", f"hf:o/m@{new.commit}"))
    run("get -n mine")
    wrong = {**ALL_OK, "config.json": "missing", "new.txt": "missing"}
    assert statuses(run("verify --json", 3)) == wrong
    run("path mine")


@pytest.mark.parametrize(("words", "files"), [("o/q:Q8_0", {"m-Q8_0.gguf"}), ("o/m config.json", {"config.json"})])
def test_a_part_is_all_that_was_wanted(run: Run, shell: Shell, words: str, files: set[str]) -> None:
    """However the model is called, a part of it that was asked for as such is whole; another part is not here."""
    run(f"get {words}")
    name = words[:3]
    for spelling in ("verify", f"verify {name}", f"verify hf:{name}", f"verify {name.replace('/', '--')}"):
        assert statuses(run(f"{spelling} --json")) == dict.fromkeys(files, "ok")
    other = {"o/q": "o/q:F16", "o/m": "hf:o/m@main/old.txt"}[name]
    assert "ok" not in statuses(run(f"verify {other} --json", 3)).values()


def test_a_strangers_file_of_the_repository_is_read(run: Run, shell: Shell) -> None:
    """What somebody else put beside a part, under the name of a file of the repository, is compared with that one."""
    run("get o/m config.json")
    (shell.models / "o--m" / "old.txt").write_bytes(b"x")
    assert statuses(run("verify o/m --json", 6)) == {"config.json": "ok", "old.txt": "corrupt"}


def test_what_is_right_again_is_here_again(run: Run, shell: Shell) -> None:
    """A file that was read wrongly once, by a bad cable, is trusted once it was read rightly."""
    run("get o/m")
    place = shell.models / "o--m" / "config.json"
    spoil(place, b'{"v":9}')
    run("verify", 6)
    assert "only partly on this disk: 2 of 3 files" in run("path o/m", 3).err
    spoil(place, b'{"v":1}')
    run("verify")
    run("path o/m")
    [row] = run("list --local --json").document["models"]
    assert (row["status"], row["files_present"]) == ("present", 3)


def test_what_is_right_again_by_another_digest_is_here_again(run: Run, shell: Shell, hub: LoopbackHub) -> None:
    """The catalog may know another digest of a file than the one with which it came."""
    run("get mine --include config.json")
    data = OLD.files["config.json"]
    pinned = f'[[models.mine.files]]\nid = "c"\npath = "config.json"\nurl = "hf:o/m@{OLD.commit}/config.json"\n'
    text = f'schema = 1\n[models.mine]\n{pinned}sha256 = "{sha256(data).hexdigest()}"\n'
    (shell.home / "catalog.toml").write_text(text)
    place = shell.models / "mine" / "config.json"
    spoil(place, b'{"v":9}')
    run("verify mine", 6)
    run("path mine", 3)
    spoil(place, data)
    run("verify mine")
    run("path mine")


def test_what_the_hubs_cache_has_is_told(run: Run, shell: Shell) -> None:
    """What is in Hugging Face's cache alone is not here, as for rm; the hint names the command that reads it."""
    run("get o/m --layout hf-cache")
    assert run("verify o/m", 3).err.endswith(
        "mdl: o/m: not on this disk\n  hint: Hugging Face's cache has it: mdl verify hf:o/m --layout hf-cache\n"
    )
    run("verify hf:o/m --layout hf-cache")
    assert "hint: mdl get hf:o/q" in run("verify o/q", 3).err


def test_a_repair_sums_up_why_files_cannot_be_fetched(run: Run, shell: Shell, tmp_path: Path) -> None:
    """Of a model that was imported and is gone one line says why, with the number of files, and one what to do."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.bin").write_bytes(bytes([number]) * 100)
    run(f"import {folder}")
    for place in (shell.models / "theirs").iterdir():
        place.unlink()
    told = run("verify --repair", 3)
    why = "it was imported: nothing says where it can be fetched (0.bin, 1.bin, 10.bin and 27 more)"
    assert told.err.splitlines()[:2] == [
        f"mdl: theirs: 30 of 30 files: {why}",
        "  hint: import it again: mdl import DIR",
    ]
    assert len(told.err.splitlines()) == 3
    assert len(told.out.splitlines()) == 31


def test_a_repair_names_a_repository_as_people_do(run: Run, shell: Shell) -> None:
    """Also if no name was given, so that receipts alone say what a folder is of."""
    run("get o/m")
    for path in OLD.files:
        (shell.models / "o--m" / path).unlink()
    assert run("verify --repair --offline", 8).err.startswith("mdl: o/m: ")
    refused = run("verify --repair --retries 1 --patience 1s", 5, HTTP_PROXY="http://127.0.0.1:1")
    assert refused.err.startswith("mdl: o/m: 3 of 3 files: no connection to the proxy"), refused.err
