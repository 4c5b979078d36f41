"""``mdl clean``: shows first, removes exactly that with --yes, and never what may be wanted or is not mdl's."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.catalogs import entry_of
from support.data import DATA
from support.faults.bodies import short_body
from support.faulty_server import FaultyServer
from support.hf_cache import listing
from support.loopback_hub import LoopbackHub, Repo
from support.partials import dead_owner, left_behind
from support.shell import Inside, Ran, Shell, done, machine, settings, write_catalog

from mdl import crc_json
from mdl.disk.process import ProcessId
from mdl.downloader.receipts import RECORD, Receipts, new_receipt
from mdl.downloader.store import Store
from mdl.files import RemoteFile, Stamp
from mdl.hashing import Fingerprint
from mdl.paths import RelPath, record_name
from mdl.sources import hub_listing

OLD = Repo("org/tiny", {"config.json": b"1", "unet/old.bin": b"o" * 5000, "model.bin": b"m" * 5000}, lfs_threshold=1000)
NEW = Repo("org/tiny", {"config.json": b"2", "model.bin": b"m" * 5000}, lfs_threshold=1000)
CATALOG = 'schema = 1\n[models.tiny]\nsource = "hf:org/tiny"\n'
REPOS = [OLD]


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> Shell:
    """A machine that has the model tiny."""
    shell = machine(tmp_path / "home", CATALOG, hub.url)
    done(mdl(shell, "get", "tiny"))
    return shell


@pytest.fixture
def moved(shell: Shell, hub: LoopbackHub, mdl: Inside) -> Path:
    """A file that the branch lost. It is superseded once the model was fetched anew, and not before."""
    hub.publish(NEW)
    assert kinds(shell, mdl) == {}
    done(mdl(shell, "get", "tiny"))
    return shell.models / "tiny" / "unet" / "old.bin"


def items(ran: Ran) -> dict[str, tuple[str, str]]:
    """What was found, by path: the kind and what became of it."""
    return {one["path"]: (one["kind"], one["action"]) for one in done(ran).document["items"]}


def kinds(shell: Shell, mdl: Inside) -> dict[str, tuple[str, str]]:
    """What clean would remove, by the path in the models folder."""
    return {os.path.relpath(path, shell.models): facts for path, facts in items(mdl(shell, "clean", "--json")).items()}


def record_of(shell: Shell, model: str = "tiny") -> Path:
    """The record of a model's receipts."""
    return shell.models / ".mdl" / "receipts" / record_name(model) / RECORD


def every_kind(shell: Shell, superseded: Path) -> dict[str, str]:
    """One of each kind of what can go, by its path in the models folder, and what each is."""
    own, model = shell.models / ".mdl", shell.models / "tiny"
    _publish_and_lose(shell, "gone.bin")
    with record_of(shell).open("ab") as record:
        record.write(b"00000000 {torn}\n" + crc_json.dumps({"mdl-receipt": 9}))
    staged = [own / "stage" / f".a.{dead_owner()}.mdl-tmp", model / f".b.{dead_owner()}.mdl-tmp"]
    side = own / "side" / f"{'a' * 16}.{dead_owner()}"
    for path in (*staged, side / "deep" / "data"):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"x" * 5000)
    found = {left_behind(own / "partials", dead_owner()): "partial", superseded: "superseded"}
    found[record_of(shell)] = "receipt"
    found |= dict.fromkeys([*staged, side], "leftover")
    return {str(path.relative_to(shell.models)): kind for path, kind in found.items()}


def _publish_and_lose(shell: Shell, name: str) -> None:
    """A receipt of a file that the user removed."""
    store = Store(shell.models)
    old = next(one for one in store.receipts.of_model("tiny") if one.path.text == "model.bin")
    file = shell.models / "tiny" / name
    file.write_bytes(b"m" * 5000)
    remote = RemoteFile(RelPath.parse(name), old.url, 5000, old.digest)
    store.receipts.put(new_receipt("tiny", remote, Fingerprint(old.digest, 5000), "sha256", Stamp.of(file.lstat())))
    file.unlink()


def test_shown_and_nothing_else(shell: Shell, moved: Path, mdl: Inside) -> None:
    """Without --yes every kind is shown as what would go, with its bytes and why; no file, link or time changes."""
    expected = every_kind(shell, moved)
    before = listing(shell.models)
    ran = done(mdl(shell, "clean", "--json"))
    assert {os.path.relpath(path, shell.models): facts for path, facts in items(ran).items()} == {
        path: (kind, "would delete") for path, kind in expected.items()
    }
    rows = ran.document["items"]
    assert ran.document["bytes"] == sum(row["bytes"] for row in rows)
    assert all(row["bytes"] > 0 and row["why"] for row in rows)
    text = done(mdl(shell, "clean"))
    assert text.out.splitlines()[0].split()[:6] == ["ACTION", "WHAT", "MODEL", "FILE", "SIZE", "AGE"]
    assert {row["kind"] for row in rows} <= set(text.out.split())
    in_full = done(mdl(shell, "clean", "-v"))
    assert all(path in in_full.err for path in expected)
    assert "--yes deletes it" in text.err
    assert listing(shell.models) == before


@pytest.mark.parametrize("words", [("clean", "--yes"), ("-y", "clean")])
def test_exactly_what_was_shown_goes(shell: Shell, moved: Path, mdl: Inside, words: tuple[str, ...]) -> None:
    """With --yes what was shown is gone, with all that is in it and the folder that is empty then, and nothing else;
    then there is nothing to clean."""
    expected = every_kind(shell, moved)
    before = listing(shell.models)
    assert set(items(mdl(shell, *words, "--json")).values()) == {(kind, "deleted") for kind in expected.values()}
    gone = [path for path, kind in expected.items() if kind != "receipt"]  # the record of the others stays
    left = {p for p in before if not any(p == path or p.startswith(f"{path}/") for path in gone)} - {"tiny/unet"}
    after = listing(shell.models)
    assert set(after) == left
    assert {p: f for p, f in after.items() if p.endswith((".bin", ".json"))} == {
        p: f for p, f in before.items() if p in left and p.endswith((".bin", ".json"))
    }
    ran = done(mdl(shell, "clean", "--json"))
    assert (ran.document["items"], ran.document["bytes"]) == ([], 0)
    assert "nothing to clean" in done(mdl(shell, "clean")).err
    assert done(mdl(shell, "get", "tiny", "--json")).document["models"][0]["status"] == "present"


def test_to_another_folder(shell: Shell, moved: Path, mdl: Inside) -> None:
    """--to DIR looks at DIR and leaves the usual models folder alone; a folder that is not there is not made."""
    every_kind(shell, moved)
    before = listing(shell.models)
    other = shell.home / "other"
    left = left_behind(other / ".mdl" / "partials", dead_owner())
    assert items(mdl(shell, "clean", "--to", str(other), "--yes", "--json")) == {str(left): ("partial", "deleted")}
    assert items(mdl(shell, "clean", "--to", str(shell.home / "none"), "--yes", "--json")) == {}
    assert not (shell.home / "none").exists()
    assert (listing(shell.models), left.exists()) == (before, False)


def test_superseded_by_the_lock(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """If a lock covers the model it says what belongs to it: what the branch lost stays until it is upgraded."""
    done(mdl(shell, "lock"))
    hub.publish(NEW)
    done(mdl(shell, "get", "tiny"))
    assert kinds(shell, mdl) == {}
    done(mdl(shell, "lock", "--upgrade", "tiny"))
    done(mdl(shell, "get", "tiny"))
    assert kinds(shell, mdl) == {"tiny/unet/old.bin": ("superseded", "would delete")}


@pytest.mark.usefixtures("moved")
def test_of_a_model_that_is_not_known(shell: Shell, mdl: Inside) -> None:
    """Of a model that the catalog does not have, or whose catalog cannot be read, nothing is superseded."""
    for text in ("schema = 1\n", "schema = \n"):
        write_catalog(shell, text)
        assert kinds(shell, mdl) == {}


@pytest.mark.parametrize("change", ["bytes", "time", "inode", "link", "folder"])
def test_what_was_touched_stays(shell: Shell, moved: Path, mdl: Inside, change: str) -> None:
    """A superseded file that the user changed, touched, exchanged or replaced since belongs to the user, and stays."""
    file = moved
    if change == "bytes":
        file.write_bytes(b"mine")
    elif change == "time":
        os.utime(file, ns=(5, 5))
    elif change == "inode":
        (file.parent / "new").write_bytes(file.read_bytes())
        os.utime(file.parent / "new", ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
        (file.parent / "new").rename(file)
    else:
        file.rename(file.with_name("kept"))
        file.symlink_to("kept") if change == "link" else file.mkdir()
    before = listing(shell.models)
    assert items(mdl(shell, "clean", "--yes", "--json")) == {}
    assert listing(shell.models) == before


def test_a_strangers_file_stays(shell: Shell, moved: Path, mdl: Inside) -> None:
    """Files that mdl did not bring stay: in a model's folder, beside it, and hidden ones that look like mdl's."""
    hidden = [f".x.{ProcessId.current()}.mdl-tmp", ".x.mdl-tmp", "x.mdl-tmp"]
    names = ["notes.txt", *(f"tiny/{name}" for name in ("mine.bin", "unet/mine.bin", *hidden))]
    for name in names:
        (shell.models / name).write_bytes(b"mine")
    assert list(kinds(shell, mdl)) == ["tiny/unet/old.bin"]
    done(mdl(shell, "clean", "--yes"))
    assert all((shell.models / name).exists() for name in names)
    assert not moved.exists()


@pytest.mark.parametrize("how", ["get", "verify"])
def test_a_file_that_was_adopted_stays(tmp_path: Path, hub: LoopbackHub, mdl: Inside, how: str) -> None:
    """A file that was there before mdl, and had the right bytes, was never mdl's: it stays when the branch loses it."""
    shell = machine(tmp_path / "mine", CATALOG, hub.url)
    mine = shell.models / "tiny" / "unet" / "old.bin"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"o" * 5000)
    mdl(shell, how, "tiny")
    done(mdl(shell, "get", "tiny"))
    hub.publish(NEW)
    done(mdl(shell, "get", "tiny"))
    done(mdl(shell, "clean", "--yes"))
    assert mine.exists()


def test_what_was_asked_for_by_revision_stays(shell: Shell, moved: Path, hub: LoopbackHub, mdl: Inside) -> None:
    """What --revision brought last is not superseded by what the catalog's own revision has."""
    hub.publish(Repo(OLD.id, OLD.files, branch="dev", lfs_threshold=1000))
    done(mdl(shell, "get", "tiny", "--revision", "dev"))
    done(mdl(shell, "clean", "--yes"))
    assert moved.exists()


def other_project(shell: Shell, text: str) -> Shell:
    """Another project of the same user's, with a catalog of its own and the same models folder."""
    return machine(shell.home.parent / "other", text, shell.endpoint, MDL_HOME=str(shell.models))


@pytest.mark.fault(260)
def test_what_another_catalog_brought_stays(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """Two catalogs have a model of one name and one models folder: what one does not have is not superseded for the
    other's sake, whichever fetched last."""
    hub.publish(Repo(OLD.id, OLD.files | {"more.bin": b"x" * 5000}, lfs_threshold=1000))
    other = other_project(shell, CATALOG + 'include = ["more.bin", "unet/old.bin"]\n')
    done(mdl(other, "get", "tiny"))
    hub.publish(NEW)
    done(mdl(shell, "get", "tiny"))
    done(mdl(shell, "clean", "--yes"))
    assert (shell.models / "tiny" / "unet" / "old.bin").exists()
    assert (shell.models / "tiny" / "more.bin").exists()


@pytest.mark.fault(260)
def test_another_repository_of_that_name(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """A catalog of the same path, as two containers have, whose model comes from another repository takes nothing."""
    hub.publish(Repo("org/else", {"other.bin": b"e" * 5000}, lfs_threshold=1000))
    write_catalog(shell, CATALOG.replace("org/tiny", "org/else"))
    done(mdl(shell, "get", "tiny"))
    done(mdl(shell, "clean", "--yes"))
    assert (shell.models / "tiny" / "unet" / "old.bin").exists()
    assert (shell.models / "tiny" / "other.bin").exists()


@pytest.mark.fault(260)
def test_what_both_keep_belongs_to_both(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """What this catalog brought and another one kept is not superseded when this one's entry drops it."""
    other = other_project(shell, CATALOG)
    done(mdl(other, "get", "tiny"))
    hub.publish(NEW)
    done(mdl(shell, "get", "tiny"))
    assert kinds(shell, mdl) == {}


def test_what_models_share_is_read_once(
    tmp_path: Path, hub: LoopbackHub, mdl: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of models may be files of one repository: clean reads its listing once, and rm never lists all models.
    Else both would take the square of their number."""
    names = ["config.json", "unet/old.bin", "model.bin"]
    models = [f'[models.m{number}]\nsource = "hf:org/tiny/{name}"\n' for number, name in enumerate(names)]
    shell = machine(tmp_path / "other", "schema = 1\n" + "".join(models), hub.url)
    done(mdl(shell, "get", "m0", "m1", "m2"))
    read_kept, reads = hub_listing.read_kept, list[Path]()
    monkeypatch.setattr(hub_listing, "read_kept", lambda path, *rest: reads.append(path) or read_kept(path, *rest))
    assert items(mdl(shell, "clean", "--json")) == {}
    assert len(reads) == 1
    monkeypatch.setattr(Receipts, "models", lambda _self: pytest.fail("all models were listed"))
    done(mdl(shell, "rm", "m0", "m1", "m2", "--yes"))


def test_what_has_another_name_frees_nothing(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """A file that the branch moved, hard-linked to where it is now, frees nothing."""
    settings(shell, '[stores]\nlink = "hard"\n')
    hub.publish(
        replace(OLD, files={"config.json": b"1", "moved.bin": b"o" * 5000, "model.bin": b"m" * 5000}, commit="")
    )
    done(mdl(shell, "get", "tiny"))
    [row] = done(mdl(shell, "clean", "--json")).document["items"]
    assert (row["kind"], row["action"], row["bytes"]) == ("superseded", "would delete", 0)
    assert "another name" in row["why"]


def test_a_file_that_became_a_folder(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> None:
    """A file stands where the new revision has a folder, and a folder where it has a file: clean removes what is not
    of the model any more, with the folders that this leaves empty, and then there is room."""
    hub.publish(Repo("org/tiny", {"config.json": b"1", "w": b"one", "d/x.bin": b"xxxx", "d/e/y.bin": b"yyyy"}))
    shell = machine(tmp_path / "home", CATALOG, hub.url)
    done(mdl(shell, "get", "tiny"))
    (shell.models / "tiny" / "mine").mkdir()
    hub.publish(Repo("org/tiny", {"config.json": b"2", "w/model.bin": b"two", "d": b"now a file"}))
    done(mdl(shell, "get", "tiny"), 7)
    assert len(kinds(shell, mdl)) == 3
    done(mdl(shell, "clean", "--yes"))
    done(mdl(shell, "get", "tiny"))
    assert {path.name for path in (shell.models / "tiny").iterdir()} == {"config.json", "w", "d", "mine"}
    done(mdl(shell, "verify", "tiny"))


def test_whose_it_is(tmp_path: Path, server: FaultyServer, mdl: Inside) -> None:
    """An unfinished download is named by its model and its file, with the time of its last byte."""
    machine_of_one = machine(tmp_path / "one", "schema = 1\n" + entry_of("one", f"{server.url}/f", DATA))
    server.handler = short_body(DATA, len(DATA) // 2)
    done(machine_of_one.run("get", "one", "--retries", "1"), 5)
    [row] = done(mdl(machine_of_one, "clean", "--json")).document["items"]
    assert (row["kind"], row["model"], row["file"]) == ("partial", "one", "f.bin")
    assert row["modified_at"].endswith("Z")
    assert "would delete partial one f.bin" in " ".join(done(mdl(machine_of_one, "clean")).out.split())
