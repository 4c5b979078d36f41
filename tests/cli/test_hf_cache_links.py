"""``--layout hf-cache`` in a cache that others may write to: nothing leads mdl out of it, nor makes it hang."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.data import MIB, sha256
from support.hf_cache import Turning, cache_of, listing, repo_of
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.shell import Inside, Ran, Shell

WEIGHTS = Generated(2 * MIB, "one")[0 : 2 * MIB]
FILES = {"config.json": b"{}", "unet/model.bin": WEIGHTS}
ONE = Repo("org/tiny", FILES)
BRANCH = Repo("org/tiny", FILES, branch="feature/x")
LAYOUT = ("--layout", "hf-cache", "--json")
BLOB = f"models--org--tiny/blobs/{sha256(WEIGHTS)}"
SMALL = f"models--org--tiny/blobs/{ONE.stored['config.json'].digest.hex}"
SNAPSHOT = f"models--org--tiny/snapshots/{ONE.commit}"
OF_THE_CACHE = [
    "models--org--tiny",
    "models--org--tiny/blobs",
    "models--org--tiny/snapshots",
    SNAPSHOT,
    "models--org--tiny/refs",
]
"""The cache's own folders, which their user may have on another disk."""
OF_THE_HUB = [f"{SNAPSHOT}/unet", "models--org--tiny/refs/feature"]
"""Folders that the hub has named."""
FOLDERS = [*OF_THE_CACHE, *OF_THE_HUB]
REPOS = [ONE, BRANCH]


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    (tmp_path / "home").mkdir()
    return Shell(tmp_path / "home", hub.url)


@pytest.fixture
def cache(shell: Shell) -> Path:
    return cache_of(shell)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder outside of the cache, with files in it."""
    folder = tmp_path / "outside"
    (folder / "unet").mkdir(parents=True)
    for name in ("main", "x", "config.json", "unet/model.bin", sha256(WEIGHTS)):
        (folder / name).write_text("theirs")
    return folder


def get(shell: Shell, mdl: Inside, *more: str) -> Ran:
    return mdl(shell, "get", "hf:org/tiny", "--revision", "feature/x", *more, *LAYOUT)


def strangers_link(place: Path, target: Path) -> None:
    """Plant a link of another user's."""
    if os.geteuid():
        pytest.skip("NEEDS ROOT: ONLY ROOT CAN MAKE A LINK OF ANOTHER USER'S")
    link(place, target)
    os.lchown(place, 4242, 4242)


def link(place: Path, target: Path | str) -> None:
    """Plant a link in place of whatever is there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


@pytest.mark.parametrize("where", FOLDERS)
@pytest.mark.parametrize("when", ["before", "between"])
def test_a_folder_that_leads_out(shell: Shell, cache: Path, outside: Path, mdl: Inside, where: str, when: str) -> None:
    """Another user's link in place of any folder of the cache, there before the first get or planted after it: 11,
    nothing made."""
    if when == "between":
        assert get(shell, mdl).code == 0
    strangers_link(cache / where, outside)
    before = listing(outside)
    ran = get(shell, mdl)
    assert listing(outside) == before
    assert ran.code == 11, ran.out


@pytest.mark.parametrize("where", OF_THE_HUB)
def test_a_folder_of_the_hubs_is_no_link(shell: Shell, cache: Path, outside: Path, mdl: Inside, where: str) -> None:
    """Where the hub has named the folder, a link is not followed, whoever made it."""
    link(cache / where, outside)
    before = listing(outside)
    assert get(shell, mdl).code == 11
    assert listing(outside) == before


def test_a_strangers_link_is_told_once(shell: Shell, cache: Path, outside: Path, mdl: Inside) -> None:
    """The error says whose link it is, and the hint which variable names another cache."""
    strangers_link(cache / "models--org--tiny", outside)
    ran = mdl(shell, "get", "hf:org/tiny", *LAYOUT[:2])
    assert ran.code == 11
    assert "models--org--tiny is a symbolic link of user 4242" in ran.err
    assert ran.err.count("HF_HUB_CACHE") == 1


@pytest.mark.fault(177)
@pytest.mark.parametrize("where", FOLDERS)
def test_a_folder_that_leads_out_while_it_comes(
    shell: Shell, cache: Path, outside: Path, mdl: Inside, where: str
) -> None:
    """The same link planted while the body comes in, after every look that was taken at the start."""

    class Planting(Turning):
        def __getitem__(self, span: slice) -> bytes:
            if armed and not (cache / where).is_symlink():
                strangers_link(cache / where, outside)
            return super().__getitem__(span)

    armed = False
    repo = Repo("org/tiny", {"unet/model.bin": Planting(WEIGHTS)}, commit=ONE.commit, branch="feature/x")
    assert repo.stored["unet/model.bin"].digest.hex == sha256(WEIGHTS)
    before = listing(outside)
    with LoopbackHub([repo]) as hub:
        armed = True
        get(Shell(shell.home, hub.url), mdl)
    assert (cache / where).is_symlink()
    assert listing(outside) == before


@pytest.mark.fault(117, 177)
@pytest.mark.parametrize("where", ["models--org--tiny", "models--org--tiny/blobs"])
def test_a_folder_exchanged_at_the_last_moment(
    shell: Shell, cache: Path, outside: Path, mdl: Inside, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A link planted between the last look and the rename does not lead out either."""
    really = os.replace

    def replace(source: str, target: str, **more: int) -> None:
        if Path(target).name in (Path(BLOB).name, Path(SMALL).name):
            strangers_link(cache / where, outside)
        really(source, target, **more)

    (outside / "blobs").mkdir()
    before = listing(outside)
    monkeypatch.setattr(os, "replace", replace)
    get(shell, mdl)
    assert (cache / where).is_symlink()
    assert listing(outside) == before


OUT = {
    "absolute": {BLOB: "{outside}/main"},
    "to nothing": {BLOB: "{outside}/new"},
    "relative": {BLOB: "../../../../../../outside/new"},
    "to a folder": {BLOB: "{outside}"},
    "by a second link": {"blobs/ab": "{outside}", BLOB: f"../../blobs/ab/{sha256(WEIGHTS)}"},
}


@pytest.mark.parametrize("links", OUT.values(), ids=list(OUT))
def test_a_blob_that_leads_out(shell: Shell, cache: Path, outside: Path, mdl: Inside, links: dict[str, str]) -> None:
    """A blob's name that is a link out, to what is there or is not, also through the hub's shared store: 11, --force or
    not."""
    for name, target in links.items():
        link(cache / name, target.format(outside=outside))
    before = listing(outside)
    assert (get(shell, mdl).code, get(shell, mdl, "--force").code) == (11, 11)
    assert listing(outside) == before
    assert not (cache / "models--org--tiny" / "refs").exists()


def test_a_repository_that_leads_out_with_a_shared_blob(shell: Shell, cache: Path, outside: Path, mdl: Inside) -> None:
    """Blobs that are links into the shared store do not make a repository folder that leads out a good one."""
    store = cache / "blobs" / "ab"
    store.mkdir(parents=True)
    (outside / "blobs").mkdir()
    for place, data in ((BLOB, WEIGHTS), (SMALL, b"{}")):
        name = place.rpartition("/")[2]
        (store / name).write_bytes(data)
        (outside / "blobs" / name).symlink_to(f"../../blobs/ab/{name}")
    strangers_link(cache / "models--org--tiny", outside)
    before = listing(outside)
    ran = get(shell, mdl)
    assert (listing(outside), ran.code) == (before, 11)


@pytest.mark.parametrize("target", [".", "../blobs", "..", "./x/../..", BLOB.rpartition("/")[2]])
def test_a_blob_that_leads_in_circles(shell: Shell, cache: Path, mdl: Inside, target: str) -> None:
    """A blob that leads to a folder or to itself is refused."""
    link(cache / BLOB, target)
    assert get(shell, mdl).code in (7, 11)


ELSEWHERE = [
    *(SMALL, f"{BLOB}x", f"{SNAPSHOT}/x", "models--org--tiny/refs/x", ".locks/.mdl/x"),
    *(f"blobs/{name}" for name in (".huggingface-shared-blobs", f"ab/{'ab' * 32}.refs")),
]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_blob_that_leads_to_another_place_of_the_cache(shell: Shell, cache: Path, mdl: Inside, target: str) -> None:
    """Only the hub's shared store may have a blob's bytes: elsewhere nothing is written, least of all other blobs."""
    assert get(shell, mdl).code == 0
    link(cache / BLOB, os.path.relpath(cache / target, (cache / BLOB).parent))
    assert get(shell, mdl).code in (7, 11)
    assert (cache / SMALL).read_bytes() == b"{}"
    assert target == SMALL or not (cache / target).exists()


def test_a_pointer_and_a_ref_that_lead_out_are_replaced(shell: Shell, cache: Path, outside: Path, mdl: Inside) -> None:
    """A link under a file's or a branch's own name is replaced by the right one; where it led stays as it was."""
    for name in (f"{SNAPSHOT}/unet/model.bin", f"{SNAPSHOT}/config.json", "models--org--tiny/refs/feature/x"):
        link(cache / name, outside / "main")
    before = listing(outside)
    assert get(shell, mdl).code == 0
    assert listing(outside) == before
    assert (cache / SNAPSHOT / "unet" / "model.bin").read_bytes() == WEIGHTS
    assert (cache / "models--org--tiny" / "refs" / "feature" / "x").read_text() == ONE.commit


NAMES = ["../../../x", "/tmp/x", "a/../../x", "a\\..\\x", "a/%2e%2e/x", ".mdl/x"]
BRANCHES = ["refs/../../x", "..", "a/../../../x", "/x", "a//b", "~x", "con"]
COMMITS = ["../" * 13 + "x", "c" * 39 + "/", "C" * 40, "c" * 64]
REF = "models--org--tiny/refs/feature/x"
IN_THE_WAY = [(name, what) for name in (f"{SNAPSHOT}/config.json", SMALL, REF) for what in ("folder", "FIFO", "file")]


@pytest.mark.parametrize(("name", "what"), IN_THE_WAY)
def test_something_else_in_the_way(shell: Shell, cache: Path, mdl: Inside, name: str, what: str) -> None:
    """A folder, a FIFO or other bytes in place of a ref, a pointer or a blob: told or replaced, never waited for.

    The FIFO's turn is a process of its own: one that waits for a writer can be ended there.
    """
    place = cache / name
    place.parent.mkdir(parents=True)
    if what == "file":
        place.write_bytes(b"\xff\xfe other")
    else:
        (os.mkdir if what == "folder" else os.mkfifo)(place)
    ran = get(shell, Shell.run if what == "FIFO" else mdl)
    assert ran.code in (0, 7, 11), ran.err
    if ran.code == 0:
        assert (cache / SNAPSHOT / "config.json").read_bytes() == b"{}"
        assert (cache / REF).read_bytes() == ONE.commit.encode()


REFUSED = [
    *((Repo("org/tiny", FILES, branch=branch), branch, (2, 11)) for branch in BRANCHES),
    *((Repo("org/tiny", FILES, commit=commit), "main", (2, 6, 11)) for commit in COMMITS),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_name_that_leaves(tmp_path: Path, mdl: Inside, name: str) -> None:
    """A file whose name would leave its folder is refused alone: 11, the other file is there, and nothing is made
    elsewhere. Names that lead nowhere else on this system are kept as they are."""
    is_kept = name in ("a\\..\\x", "a/%2e%2e/x")
    with LoopbackHub([Repo("org/tiny", {name: b"x", "config.json": b"{}"})]) as hub:
        shell = Shell(tmp_path / "home", hub.url)
        shell.home.mkdir()
        assert mdl(shell, "get", "hf:org/tiny", *LAYOUT).code == (0 if is_kept else 11)
    there = [path for path in repo_of(shell).rglob("*") if path.is_symlink()]
    snapshots = repo_of(shell) / "snapshots"
    names = {"/".join(path.relative_to(snapshots).parts[1:]) for path in there}
    assert names == ({"config.json", name} if is_kept else {"config.json"})
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize(("repo", "branch", "codes"), REFUSED, ids=[*BRANCHES, *COMMITS])
def test_names_that_leave(tmp_path: Path, mdl: Inside, repo: Repo, branch: str, codes: tuple[int, ...]) -> None:
    """A branch whose ref would not be in refs, and a commit that is not one, or has no place in the cache: refused
    before anything is fetched, nothing made."""
    with LoopbackHub([repo]) as hub:
        shell = Shell(tmp_path, hub.url)
        assert mdl(shell, "get", "hf:org/tiny", f"--revision={branch}", *LAYOUT).code in codes
        assert hub.sent == 0
    assert not repo_of(shell).exists()
