"""``mdl rm``: shows first, deletes with --yes what is mdl's and no other's, in both layouts, and finishes what was cut
short."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.data import MIB, noise, sha256
from support.faulty_server import FaultyServer
from support.hf_cache import Hf, HfError, cache_of, listing, offline, repo_of, scanned
from support.loopback_hub import LoopbackHub, Repo
from support.partials import dead_owner, left_behind
from support.shell import Inside, Ran, Shell, done, machine
from support.terminal import typed_into

from mdl import crc_json
from mdl.disk.mutex import file_lock, try_lock
from mdl.disk.process import ProcessId
from mdl.downloader.receipts import file_key
from mdl.paths import RelPath, record_name

WEIGHTS, LATER = noise(2 * MIB, 1), noise(MIB + 5, 2)
FILES = {"config.json": b"{}", "unet/model.bin": WEIGHTS}
ONE = Repo("org/tiny", FILES)
TWO = Repo("org/tiny", {"config.json": b"{}", "new.bin": LATER})
TWIN = Repo("org/twin", {"copy.bin": WEIGHTS})
CATALOG = """schema = 1
[models.tiny]
source = "hf:org/tiny"
[models.part]
source = "hf:org/tiny"
include = ["config.json"]
[models.twin]
source = "hf:org/twin"
[groups]
both = ["tiny", "twin"]
"""
CACHE = ("--layout", "hf-cache")
PARTS = Repo("org/parts", {"a-Q8_0.gguf": WEIGHTS, "a-Q4_K_M.gguf": LATER, "sub/one.bin": b"1", "README.md": b"2"})
REPOS = [ONE, TWIN, PARTS]


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return machine(tmp_path / "home", CATALOG, hub.url)


def rows(ran: Ran) -> dict[str, tuple[str, int, int]]:
    """What became of each model: the action, the bytes that were freed and those that are shared."""
    return {one["name"]: (one["action"], one["bytes_freed"], one["bytes_shared"]) for one in ran.document["models"]}


def kept(ran: Ran) -> dict[str, str]:
    """Why files stay, by name."""
    return {Path(file["path"]).name: file["why"] for one in ran.document["models"] for file in one["kept"]}


def names(folder: Path) -> set[str]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def rm(shell: Shell, mdl: Inside, *words: str, code: int = 0) -> Ran:
    return done(mdl(shell, "rm", *words, "--json"), code)


@pytest.mark.parametrize("name", ["tiny", "hf:org/tiny", "org--tiny"])
def test_shown_first_then_deleted(shell: Shell, mdl: Inside, name: str) -> None:
    """Without --yes nothing changes. With it files, folder and record are gone, the catalog stays, and what was freed
    is what was shown. The same command again is 3, and no other command stumbles."""
    done(mdl(shell, "get", "hf:org/tiny" if "org" in name else name))
    before, size = listing(shell.models), len(WEIGHTS) + 2
    assert list(rows(rm(shell, mdl, name)).values()) == [("would delete", size, 0)]
    told = done(mdl(shell, "rm", name))
    assert "nothing was deleted; --yes deletes it, and frees 2.1 MB" in told.err
    assert listing(shell.models) == before
    assert list(rows(rm(shell, mdl, name, "--yes")).values()) == [("deleted", size, 0)]
    assert [entry.name for entry in shell.models.iterdir()] == [".mdl"]
    assert list((shell.models / ".mdl" / "receipts").iterdir()) == []
    assert rm(shell, mdl, name, "--yes", code=3).document["error"]["code"] == "NOTFOUND"
    done(mdl(shell, "verify"))
    assert done(mdl(shell, "list", "--local", "--json")).document["models"] == []
    done(mdl(shell, "get", "tiny"))


PAGE = "https://huggingface.co/org/parts/blob/main/README.md"


@pytest.mark.parametrize("layout", [(), CACHE])
@pytest.mark.parametrize(
    ("part", "gone"),
    [
        ("org/parts:q8_0", {"a-Q8_0.gguf"}),
        ("hf:org/parts@main/sub", {"sub/one.bin"}),
        (PAGE, {"README.md"}),
        ("org/parts@main", set(PARTS.files)),
        ("org/parts:Q2_K", set()),
        ("hf:org/parts@main/nothing.bin", set()),
        ("org/parts@other", set()),
    ],
)
def test_a_part_of_a_repository(shell: Shell, mdl: Inside, layout: tuple[str, ...], part: str, gone: set[str]) -> None:
    """What narrows `get` narrows `rm` as well: no other file goes, and a part that is not here is 3."""
    done(mdl(shell, "get", "hf:org/parts", "--all", *layout))
    ran = rm(shell, mdl, part, *layout, "--yes", code=0 if gone else 3)
    left = names(cache_of(shell) / "models--org--parts" / "snapshots" if layout else shell.models / "org--parts")
    assert {path.partition("/")[2] if layout else path for path in left} == set(PARTS.files) - gone
    if gone:
        [row] = ran.document["models"]
        assert (row["files"], row["bytes_freed"]) == (len(gone), sum(len(PARTS.files[name]) for name in gone))
        assert (
            done(mdl(shell, "get", "hf:org/parts", "--all", *layout, "--json")).document["bytes_fetched"]
            == row["bytes_freed"]
        )


def test_one_url_of_a_host(shell: Shell, mdl: Inside, server: FaultyServer) -> None:
    """URLs of one folder of a host have one folder here: only the file that is named goes."""
    one, two = f"{server.url}/one.bin", f"{server.url}/two.bin"
    done(mdl(shell, "get", one, two))
    [row] = rm(shell, mdl, one, "--yes").document["models"]
    assert (row["files"], {Path(name).name for name in names(shell.models)} & {"one.bin", "two.bin"}) == (
        1,
        {"two.bin"},
    )
    rm(shell, mdl, one, "--yes", code=3)
    rm(shell, mdl, two, "--yes")
    assert not Path(row["path"]).exists()


def test_what_the_user_made_stays(shell: Shell, mdl: Inside) -> None:
    """A changed file, an added one and a link stay and are named; a file that was only touched goes. --force takes them
    all, and of the link only the link."""
    done(mdl(shell, "get", "tiny"))
    folder, outside = shell.models / "tiny", shell.home / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    (folder / "config.json").write_text('{"mine": 1}')
    (folder / "notes.txt").write_text("mine")
    (folder / "data").symlink_to(outside)
    os.utime(folder / "unet" / "model.bin", ns=(5, 5))
    whys = {"config.json": "changed since mdl wrote it", "notes.txt": "not mdl's", "data": "not mdl's"}
    assert kept(rm(shell, mdl, "tiny")) == whys
    assert kept(rm(shell, mdl, "tiny", "--yes")) == whys
    assert names(folder) == {"config.json", "notes.txt", "data"}
    rm(shell, mdl, "tiny", "--yes", "--force")
    assert not folder.exists()
    assert names(outside) == {"mine.txt"}


@pytest.mark.parametrize("what", ["tiny", "tiny/unet"])
def test_a_link_is_not_followed(shell: Shell, mdl: Inside, what: str) -> None:
    """A folder that the user moved away and linked is not entered, even with --force: only what is in the models folder
    itself goes."""
    done(mdl(shell, "get", "tiny"))
    moved = (shell.models / what).rename(shell.home / "moved")
    (shell.models / what).symlink_to(moved)
    before = names(moved)
    for words in ((), ("--force",)):
        rm(shell, mdl, "tiny", "--yes", *words, code=0 if (shell.models / "tiny").exists() else 3)
    assert names(moved) == before
    assert before


def test_hard_links(shell: Shell, mdl: Inside, hub: LoopbackHub) -> None:
    """Bytes that another model has under a second name stay whole and are not counted; both together are freed."""
    done(mdl(shell, "get", "tiny"))
    done(mdl(shell, "get", "twin"))
    one, other = shell.models / "tiny" / "unet" / "model.bin", shell.models / "twin" / "copy.bin"
    if not one.samefile(other):  # this file system clones
        other.unlink()
        os.link(one, other)
        done(mdl(shell, "get", "twin"))
    both = rm(shell, mdl, "both")
    assert both.document["bytes_freed"] == len(WEIGHTS) + 2
    assert rows(both)["twin"] == ("would delete", len(WEIGHTS), 0)
    assert rows(rm(shell, mdl, "tiny", "--yes")) == {"tiny": ("deleted", 2, len(WEIGHTS))}
    done(mdl(shell, "verify", "twin"))
    assert other.read_bytes() == WEIGHTS
    assert rows(rm(shell, mdl, "twin", "--yes")) == {"twin": ("deleted", len(WEIGHTS), 0)}


@pytest.mark.parametrize("words", [("--yes",), ()])
@pytest.mark.parametrize("layout", ["plain", "hf-cache"])
def test_a_model_that_is_worked_on(shell: Shell, mdl: Inside, words: tuple[str, ...], layout: str) -> None:
    """While another process holds the model's lock it is 9 at once and nothing goes; afterwards it goes."""
    done(mdl(shell, "get", "tiny", "--layout", layout))
    root = shell.models / ".mdl" if layout == "plain" else cache_of(shell) / ".locks" / ".mdl"
    with file_lock(root / "locks", "tiny", 0.0, lambda _holder: None):
        ran = rm(shell, mdl, "tiny", "--layout", layout, *words, code=9)
        assert ran.document["models"][0]["action"] == "kept"
        done(mdl(shell, "verify", "tiny", "--layout", layout))
    rm(shell, mdl, "tiny", "--layout", layout, "--yes")
    assert not any(path.name == "model.bin" for path in root.parents[0].rglob("*"))


def test_the_hubs_client_at_work(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """While Hugging Face's client holds the lock of one of its files, the repository is not touched: 9."""
    hf("snapshot", repo_id="org/tiny", cache_dir=cache_of(shell), endpoint=shell.endpoint)
    lock = next((cache_of(shell) / ".locks" / "models--org--tiny").glob("*.lock"))
    with lock.open("r+b") as held:
        assert try_lock(held.fileno())
        rm(shell, mdl, "hf:org/tiny", "--yes", *CACHE, code=9)
    assert offline(hf, shell) == FILES


@pytest.mark.parametrize("layout", ["plain", "hf-cache"])
def test_what_was_only_begun(shell: Shell, mdl: Inside, layout: str) -> None:
    """A download of which no file is finished is found and removed; while a process is at it, it is 9."""
    where = ("--layout", layout)
    done(mdl(shell, "show", "--remote", "tiny", *where))
    root = shell.models / ".mdl" if layout == "plain" else cache_of(shell) / ".locks" / ".mdl"
    key = file_key("tiny", RelPath("unet/model.bin"))
    partial = left_behind(root / "partials", dead_owner()).rename(root / "partials" / f"{key}.{ProcessId.current()}")
    told = done(mdl(shell, "list", "--local", *where))
    assert "partial" in told.out or "more of unfinished downloads" in told.err
    rm(shell, mdl, "tiny", "--yes", *where, code=9)
    partial = partial.rename(partial.with_name(f"{key}.{dead_owner()}"))
    assert rows(rm(shell, mdl, "tiny", *where))["tiny"][0] == "would delete"
    assert partial.exists()
    rm(shell, mdl, "tiny", "--yes", *where)
    assert not partial.exists()
    rm(shell, mdl, "tiny", "--yes", *where, code=3)


@pytest.mark.parametrize(
    ("words", "code", "left"),
    [
        (("tini",), 3, {"tiny", "twin"}),
        (("tini", "twin"), 3, {"tiny"}),
        (("both",), 0, set[str]()),
        (("other/folder",), 3, {"tiny", "twin"}),
    ],
)
def test_several_and_unknown(shell: Shell, mdl: Inside, words: tuple[str, ...], code: int, left: set[str]) -> None:
    """What is known goes whatever the others are; an unknown name is 3, and the hint says what is near."""
    done(mdl(shell, "get", "both"))
    ran = rm(shell, mdl, *words, "--yes", code=code)
    assert {entry.name for entry in shell.models.iterdir()} == {".mdl", *left}
    if words[0] == "tini":
        assert "tiny" in ran.document["error"]["hint"]


def test_reasons_that_differ(shell: Shell, mdl: Inside) -> None:
    """One unknown, one worked on: 10, and what is left of them is done."""
    done(mdl(shell, "get", "both"))
    with file_lock(shell.models / ".mdl" / "locks", "tiny", 0.0, lambda _holder: None):
        rm(shell, mdl, "tini", "tiny", "twin", "--yes", code=10)
    assert {entry.name for entry in shell.models.iterdir()} == {".mdl", "tiny"}


def test_a_folder_that_is_not_mdls(shell: Shell, mdl: Inside) -> None:
    """What mdl did not bring is not known to rm, also not with --force."""
    (shell.models / "mine").mkdir(parents=True)
    (shell.models / "mine" / "x.bin").write_bytes(b"x")
    rm(shell, mdl, "mine", "--yes", "--force", code=3)
    assert names(shell.models) == {"mine/x.bin"}


# --- Hugging Face's cache ----------------------------------------------------------------------------------


def brought_by_hf(hf: Hf, shell: Shell, repo: str = "org/tiny", **more: str) -> None:
    hf("snapshot", repo_id=repo, cache_dir=cache_of(shell), endpoint=shell.endpoint, **more)


def test_cache_a_whole_repository(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """A reference is the whole repository, whoever brought it. The hub's client finds the others whole, by its own
    check as well, and nothing of this one."""
    brought_by_hf(hf, shell)
    done(mdl(shell, "get", "hf:org/twin", *CACHE))
    hint = rm(shell, mdl, "hf:org/tiny", code=3).document["error"]["hint"]
    assert "mdl rm hf:org/tiny --layout hf-cache" in hint
    assert rows(rm(shell, mdl, "hf:org/tiny", *CACHE)) == {"hf:org/tiny": ("would delete", len(WEIGHTS) + 2, 0)}
    assert offline(hf, shell) == FILES
    rm(shell, mdl, "hf:org/tiny", "--yes", *CACHE)
    with pytest.raises(HfError):
        offline(hf, shell)
    assert not repo_of(shell).exists()
    assert offline(hf, shell, repo_id="org/twin") == TWIN.files
    assert list(scanned(hf, shell)) == ["model/org/twin"]
    words = {"endpoint": shell.endpoint, "repo_id": "org/twin", "cache_dir": cache_of(shell)}
    assert hf("verify", **words) == [1, 0, [], []]


def test_cache_one_revision(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf) -> None:
    """With a revision only its snapshot goes, and of the bytes only those that no other snapshot has."""
    brought_by_hf(hf, shell)
    hub.publish(TWO)
    brought_by_hf(hf, shell)
    assert rows(rm(shell, mdl, f"hf:org/tiny@{ONE.commit}", "--yes", *CACHE)) == {
        f"hf:org/tiny@{ONE.commit}": ("deleted", len(WEIGHTS), 0)
    }
    assert offline(hf, shell) == TWO.files
    assert scanned(hf, shell)["model/org/tiny"]["files"] == {TWO.commit: ["config.json", "new.bin"]}
    rm(shell, mdl, "hf:org/tiny@nosuch", "--yes", *CACHE, code=3)
    rm(shell, mdl, "hf:org/tiny@main", "--yes", *CACHE)
    assert not repo_of(shell).exists()


def test_cache_two_models_of_one_repository(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """What another model has too stays, and is named; the hub's client still reads it."""
    done(mdl(shell, "get", "part", *CACHE))
    done(mdl(shell, "get", "tiny", *CACHE))
    ran = rm(shell, mdl, "tiny", "--yes", *CACHE)
    assert rows(ran) == {"tiny": ("deleted", len(WEIGHTS), 0)}
    assert kept(ran) == {"config.json": "part has it too"}
    assert offline(hf, shell) == {"config.json": b"{}"}
    statuses = {one["name"]: one["status"] for one in mdl(shell, "list", *CACHE, "--json").document["models"]}
    assert (statuses["part"], statuses["tiny"]) == ("present", "partial")
    rm(shell, mdl, "part", "--yes", *CACHE)
    assert not repo_of(shell).exists()


def test_cache_what_another_program_brought(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """What the hub's client had brought before mdl looked stays with it, unless --force is given."""
    hf("file", repo_id="org/tiny", filename="config.json", cache_dir=cache_of(shell), endpoint=shell.endpoint)
    done(mdl(shell, "get", "tiny", *CACHE))
    ran = rm(shell, mdl, "tiny", *CACHE)
    assert (rows(ran)["tiny"][1], kept(ran)) == (len(WEIGHTS), {"config.json": "another program downloaded it"})
    assert rows(rm(shell, mdl, "tiny", "--force", *CACHE))["tiny"][1] == len(WEIGHTS) + 2
    rm(shell, mdl, "tiny", "--yes", *CACHE)
    assert offline(hf, shell) == {"config.json": b"{}"}


def test_cache_shared_store(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """Bytes in the store that the hub's client shares between repositories go with the last of these."""
    brought_by_hf(hf, shell)
    blob = repo_of(shell) / "blobs" / sha256(WEIGHTS)
    assert hf("share", cache_dir=cache_of(shell), blob=blob, size=len(WEIGHTS))
    shared = blob.resolve()
    assert rows(rm(shell, mdl, "hf:org/tiny", "--yes", *CACHE)) == {"hf:org/tiny": ("deleted", 2 + len(WEIGHTS), 0)}
    assert not shared.exists()
    assert not repo_of(shell).exists()


# --- cut short ---------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def killed(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch, number: int, *words: str) -> bool:
    """Whether a command came to its ``number``-th call that removes or renames something, before which it was ended."""
    calls = itertools.count(1)

    def counted(really: Callable[..., object]) -> Callable[..., object]:
        def call(*words: object, **more: object) -> object:
            is_note = str(words[0]).endswith(".who")  # a real kill leaves no lock behind, this one would
            if not is_note and next(calls) == number:
                raise Killed
            return really(*words, **more)

        return call

    def raised(error: BaseException) -> None:
        raise error

    with monkeypatch.context() as patch:
        for name in ("unlink", "replace", "rmdir"):
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr("mdl.cli.command.as_problem", raised)
        try:
            mdl(shell, *words)
        except Killed:
            return True
    return False


@pytest.mark.parametrize(("layout", "name"), [("plain", "tiny"), ("hf-cache", "tiny"), ("hf-cache", "hf:org/tiny")])
def test_cut_short(shell: Shell, mdl: Inside, hf: Hf, monkeypatch: pytest.MonkeyPatch, layout: str, name: str) -> None:
    """Ended before one of its calls, each time a later one: no command stumbles over what is left, the hub's client
    meets a repository that is to go whole or not at all, and the same command finishes it; the other model stays
    right."""
    where, number = ("--layout", layout), 0
    while True:
        number += 1 + number // 2
        for model in ("tiny", "part", "twin"):
            done(mdl(shell, "get", model, *where))
        if not killed(shell, mdl, monkeypatch, number, "rm", name, "--yes", *where):
            break
        for words in ("list --local", "show tiny", "clean"):
            assert mdl(shell, *words.split(), "--json", *where).code in (0, 3)
        if name.startswith("hf:"):
            with contextlib.suppress(HfError):
                assert offline(hf, shell) == FILES
        assert mdl(shell, "rm", name, "--yes", *where).code in (0, 3)
        done(mdl(shell, "verify", *where))
        if layout == "plain":
            assert not (shell.models / "tiny").exists()
            assert (names(shell.models / "part"), names(shell.models / "twin")) == ({"config.json"}, {"copy.bin"})
        else:
            assert not (repo_of(shell) / "blobs" / sha256(WEIGHTS)).exists()
            assert offline(hf, shell, repo_id="org/twin") == TWIN.files
            assert name != "tiny" or offline(hf, shell) == {"config.json": b"{}"}
    assert number > 3


# --- asked, and cleaned ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "is_gone"), [(b"y\n", True), (b"n\n", False), (b"\n", False), (b"\x04", False)])
def test_a_terminal_is_asked(shell: Shell, mdl: Inside, answer: bytes, is_gone: bool) -> None:
    """On a terminal it shows what would go and asks; only a yes deletes, and any answer is 0."""
    done(mdl(shell, "get", "tiny"))
    text, code = typed_into(shell, [answer], "rm", "tiny")
    assert code == 0
    assert "Delete tiny (2 files) and free 2.1 MB? [y/N]" in text
    assert (shell.models / "tiny").exists() is not is_gone
    assert ("2.1 MB freed" in text, "nothing was deleted\r\n" in text) == (is_gone, not is_gone)


def test_an_interrupted_question(shell: Shell, mdl: Inside) -> None:
    """Ctrl-C at the question is 130, and nothing goes; the error has a line of its own, and speaks of no download."""
    done(mdl(shell, "get", "tiny"))
    text, code = typed_into(shell, [b"\x03"], "rm", "tiny")
    assert (code, "\nmdl: interrupted\r\n  hint: nothing was deleted" in text) == (130, True), text
    assert (shell.models / "tiny").exists()


def test_clean_keeps_what_no_catalog_names(shell: Shell, mdl: Inside) -> None:
    """A model that the catalog does not name is no waste: only rm deletes it (ADR 100)."""
    done(mdl(shell, "get", "hf:org/twin"))
    ran = done(mdl(shell, "clean", "--yes"))
    assert names(shell.models / "org--twin") == {"copy.bin"}
    assert "mdl rm NAME" in ran.err
    rm(shell, mdl, "org--twin", "--yes")
    assert not (shell.models / "org--twin").exists()


def test_what_was_imported(shell: Shell, mdl: Inside) -> None:
    """Before files go that mdl cannot fetch again, it says so."""
    (shell.home / "mine").mkdir()
    (shell.home / "mine" / "x.bin").write_bytes(WEIGHTS)
    done(mdl(shell, "import", "mine", "--copy"))
    assert "1 file came from a folder of this machine, and mdl cannot fetch them again" in mdl(shell, "rm", "mine").err
    assert rm(shell, mdl, "mine", "--yes").document["models"][0]["files_imported"] == 1
    assert (shell.home / "mine" / "x.bin").read_bytes() == WEIGHTS
    assert not (shell.models / "mine").exists()


def test_results_of_remote_jobs(shell: Shell, mdl: Inside) -> None:
    """The folder of one model may hold those of others, which stay, also with --force."""
    done(mdl(shell, "get", "tiny"))
    done(mdl(shell, "get", "twin"))
    inner = shell.models / "tiny" / "twin"
    (shell.models / "twin").rename(inner)
    place = shell.models / ".mdl" / "receipts"
    for record in (place / record_name("twin")).iterdir():
        lines = record.read_bytes().splitlines()
        facts = [crc_json.loads(line) | {"model": "tiny/twin"} for line in lines]
        (place / record_name("tiny/twin")).mkdir()
        (place / record_name("tiny/twin") / record.name).write_bytes(b"".join(map(crc_json.dumps, facts)))
        record.unlink()
    rm(shell, mdl, "tiny", "--yes", "--force")
    assert names(shell.models / "tiny") == {"twin/copy.bin"}
    rm(shell, mdl, "tiny/twin", "--yes")
    assert not (shell.models / "tiny").exists()


@pytest.mark.parametrize("typed", ["org/twin", "hf:org/twin", "org--twin"])
def test_a_model_is_called_as_people_write_it(shell: Shell, mdl: Inside, typed: str) -> None:
    """Notes of rm and mv, and errors of path, name a repository that has no other name as org/name, or as it was
    typed; JSON names the folder."""
    done(mdl(shell, "get", "hf:org/twin"))
    (shell.models / "org--twin/mine.txt").write_bytes(b"mine")
    ran = done(mdl(shell, "rm", typed))
    assert f"org/twin: {shell.models / 'org--twin/mine.txt'} stays: not mdl's" in ran.err
    assert "org--twin:" not in ran.err
    moved = done(mdl(shell, "mv", typed, "--to", str(shell.home / "new")))
    assert "org/twin: 1 file" in moved.err
    assert "org--twin:" not in moved.err
    assert "mdl: org/none: nothing of it is on this disk" in done(mdl(shell, "rm", "org/none", "--yes"), 3).err


def test_the_one_file_as_it_was_typed(shell: Shell, mdl: Inside) -> None:
    """The error of a model of several files names it as it was typed, and the hint the repository."""
    done(mdl(shell, "get", "hf:org/tiny"))
    ran = done(mdl(shell, "path", "--file", "org/tiny"), 2)
    assert "mdl: org/tiny: it has 2 files, not one" in ran.err
    assert "hf:org/tiny/PATH; or take the folder: mdl path org/tiny\n" in ran.err


def test_a_group_of_which_not_all_is_here(shell: Shell, mdl: Inside) -> None:
    """The members that are here are deleted, and the others are named."""
    done(mdl(shell, "get", "twin"))
    ran = done(mdl(shell, "rm", "both", "--yes"), 3)
    assert not (shell.models / "twin").exists()
    assert "mdl: tiny: nothing of it is on this disk" in ran.err
