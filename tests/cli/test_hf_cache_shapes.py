"""The shapes that Hugging Face's cache may have: copied without its links, behind its user's own links, on a disk
without links, with files that several repositories share, filled by the hub's own client. Each command sees them."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.data import MIB, sha256, spoil
from support.hf_cache import Hf, actions, cache_of, offline, repo_of, scanned
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.shell import Inside, Ran, Shell, done, write_catalog

WEIGHTS = Generated(5 * MIB, "one")[0 : 5 * MIB]
CONFIG = b'{"layers": 2}'
FILES = {"config.json": CONFIG, "unet/model.bin": WEIGHTS}
ONE = Repo("org/tiny", FILES)
NEXT = Repo("org/tiny", {"config.json": b"{}", "unet/model.bin": WEIGHTS})
TWIN = Repo("org/twin", {"model.bin": WEIGHTS})
REPOS = [ONE, TWIN]
LAYOUT = ("--layout", "hf-cache", "--json")
COMMIT = ONE.commit


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return Shell(tmp_path, hub.url)


def fill(hf: Hf, shell: Shell, repo: str = "org/tiny") -> None:
    """Fill the cache as ``hf download`` does."""
    hf("snapshot", repo_id=repo, cache_dir=cache_of(shell), endpoint=shell.endpoint)


def flatten(shell: Shell) -> None:
    """Copy the cache as an object store, a NAS or ``cp -rL`` does: no links, no blobs, no records of mdl's."""
    cache = cache_of(shell)
    copy = cache.with_name("copy")
    shutil.copytree(cache, copy, symlinks=False)
    shutil.rmtree(cache)
    shutil.rmtree(copy / "models--org--tiny" / "blobs")
    shutil.rmtree(copy / ".locks", ignore_errors=True)
    copy.rename(cache)


def snapshot(shell: Shell, commit: str = COMMIT) -> Path:
    return repo_of(shell) / "snapshots" / commit


def statuses(ran: Ran) -> dict[str, str]:
    return {file["path"]: file["status"] for model in ran.document["models"] for file in model["files"]}


# Copied without links.


@pytest.mark.parametrize("layout", [("--layout", "hf-cache"), ()], ids=["cache", "plain"])
@pytest.mark.parametrize("trees", [True, False])
def test_a_copy_without_links_is_used(
    shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, layout: tuple[str, ...], trees: bool
) -> None:
    """Its files are hashed and kept where they are, or are the source of a plain folder; no body byte is fetched."""
    fill(hf, shell)
    flatten(shell)
    if not trees:
        shutil.rmtree(repo_of(shell) / "trees", ignore_errors=True)
    sent = hub.sent
    planned = done(mdl(shell, "get", "org/tiny", "-n", *layout, "--json")).document
    ran = done(mdl(shell, "get", "org/tiny", *layout, "--json"))
    assert (hub.sent, planned["bytes_to_fetch"]) == (sent, 0)
    assert set(actions(ran).values()) == {"kept" if layout else "linked"}
    if layout:
        assert not (repo_of(shell) / "blobs").exists()
        assert offline(hf, shell) == FILES
        assert set(actions(done(mdl(shell, "get", "org/tiny", *LAYOUT))).values()) == {"kept"}
    assert hub.sent == sent


def test_a_copy_of_another_commit_is_a_source(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf) -> None:
    """What a newer commit has in common with the copied one is taken from it; only the rest is fetched."""
    fill(hf, shell)
    flatten(shell)
    hub.publish(NEXT)
    sent = hub.sent
    done(mdl(shell, "get", "org/tiny", *LAYOUT))
    assert hub.sent - sent == len(b"{}")
    assert (offline(hf, shell), offline(hf, shell, COMMIT)) == (NEXT.files, FILES)


def test_a_wrong_copy_is_not_overwritten(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf) -> None:
    """Other bytes of the same size are a stranger's file: 7, and --force replaces it."""
    fill(hf, shell)
    flatten(shell)
    wrong = snapshot(shell) / "unet" / "model.bin"
    wrong.write_bytes(WEIGHTS[::-1])
    ran = mdl(shell, "get", "org/tiny", *LAYOUT)
    assert (ran.code, wrong.read_bytes() == WEIGHTS[::-1]) == (7, True)
    done(mdl(shell, "get", "org/tiny", "--force", *LAYOUT))
    assert offline(hf, shell) == FILES


def test_other_commands_see_a_copy(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf) -> None:
    """list counts it once, verify reads it, get --offline keeps it, and rm takes all of it."""
    fill(hf, shell)
    flatten(shell)
    (row,) = done(mdl(shell, "list", "--local", *LAYOUT)).document["models"]
    assert (row["files_present"], row["bytes_present"]) == (2, len(CONFIG) + len(WEIGHTS))
    assert statuses(done(mdl(shell, "verify", *LAYOUT))) == dict.fromkeys(FILES, "ok")
    done(mdl(shell, "get", "org/tiny", *LAYOUT))
    assert set(actions(done(mdl(shell, "get", "org/tiny", "--offline", *LAYOUT))).values()) == {"kept"}
    assert statuses(done(mdl(shell, "verify", "hf:org/tiny", *LAYOUT))) == dict.fromkeys(FILES, "ok")
    spoil(snapshot(shell) / "unet" / "model.bin", WEIGHTS[::-1])
    assert mdl(shell, "verify", *LAYOUT).code == 6
    done(mdl(shell, "verify", "--repair", *LAYOUT))
    assert offline(hf, shell) == FILES
    ran = done(mdl(shell, "rm", "hf:org/tiny", "--yes", *LAYOUT))
    assert ran.document["bytes_freed"] >= len(WEIGHTS)
    assert not repo_of(shell).exists()


# Behind its user's own links.

FOLDERS = {
    "repository": ["models--org--tiny"],
    "blobs": ["models--org--tiny/blobs"],
    "snapshots": ["models--org--tiny/snapshots"],
    "one snapshot": [f"models--org--tiny/snapshots/{COMMIT}"],
    "refs": ["models--org--tiny/refs"],
    "all": [
        f"models--org--tiny/snapshots/{COMMIT}",
        *(f"models--org--tiny/{name}" for name in ("blobs", "snapshots", "refs")),
        "models--org--tiny",
    ],
}


def move_away(shell: Shell, where: str) -> None:
    """Move folders of the cache elsewhere, and put links in their places. Links of the snapshot that lead to nothing
    then are made anew."""
    for number, name in enumerate(FOLDERS[where]):
        place = cache_of(shell) / name
        there = shell.home / "elsewhere" / str(number)
        there.parent.mkdir(exist_ok=True)
        place.rename(there)
        place.symlink_to(there)


@pytest.mark.parametrize("where", FOLDERS)
def test_a_cache_behind_links(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, where: str) -> None:
    """What is there is kept, or its names are put right without a body byte; list, verify and rm see it; rm takes the
    bytes and leaves nothing that lists as a model."""
    fill(hf, shell)
    move_away(shell, where)
    sent = hub.sent
    done(mdl(shell, "get", "org/tiny", *LAYOUT))
    assert (hub.sent, offline(hf, shell)) == (sent, FILES)
    (row,) = done(mdl(shell, "list", "--local", *LAYOUT)).document["models"]
    assert (row["status"], row["files_present"], row["bytes_present"]) == ("present", 2, len(CONFIG) + len(WEIGHTS))
    assert statuses(done(mdl(shell, "verify", *LAYOUT))) == dict.fromkeys(FILES, "ok")
    ran = done(mdl(shell, "rm", "hf:org/tiny", "--yes", *LAYOUT))
    assert ran.document["bytes_freed"] >= len(WEIGHTS)
    assert done(mdl(shell, "list", "--local", *LAYOUT)).document["models"] == []
    assert not [path for path in (shell.home / "elsewhere").rglob("*") if path.is_file()]


@pytest.mark.parametrize("where", FOLDERS)
def test_a_cache_behind_links_is_a_source(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, where: str) -> None:
    """The plain layout takes the bytes from there."""
    fill(hf, shell)
    move_away(shell, where)
    sent = hub.sent
    assert set(actions(done(mdl(shell, "get", "org/tiny", "--json"))).values()) == {"linked"}
    assert hub.sent == sent


def test_blobs_behind_a_link_are_listed(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """What hf brought is seen there before mdl has fetched anything."""
    fill(hf, shell)
    blobs = cache_of(shell) / "models--org--tiny" / "blobs"
    blobs.rename(shell.home / "elsewhere")
    blobs.symlink_to(shell.home / "elsewhere")
    (row,) = done(mdl(shell, "list", "--local", *LAYOUT)).document["models"]
    assert (row["files_present"], row["bytes_present"]) == (2, len(CONFIG) + len(WEIGHTS))


def test_what_has_come_since_is_not_unfinished(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """An unfinished download of a file that is whole by now does not make its model a part of one."""
    done(mdl(shell, "get", "org/tiny", *LAYOUT))
    blob = max((cache_of(shell) / "models--org--tiny" / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    blob.with_name(f"{blob.name}.0a1b2c3d.incomplete").write_bytes(WEIGHTS[:100])
    (row,) = done(mdl(shell, "list", "--local", *LAYOUT)).document["models"]
    assert row["status"] == "present"


@pytest.mark.parametrize("where", FOLDERS)
def test_a_new_commit_goes_behind_the_links(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, where: str) -> None:
    """What a newer commit brings is put where the links lead, and programs find it."""
    done(mdl(shell, "get", "org/tiny", *LAYOUT))
    move_away(shell, where)
    hub.publish(NEXT)
    sent = hub.sent
    done(mdl(shell, "get", "org/tiny", *LAYOUT))
    assert hub.sent - sent == len(b"{}")
    assert offline(hf, shell) == NEXT.files
    assert all((cache_of(shell) / name).is_symlink() for name in FOLDERS[where][-1:])


# On a disk without links.


LACKING = pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP])


def take_links_away(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """No file system here has links, hard or symbolic, and each call that syncs or changes modes says that too."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("symlink", "link", "fsync", "fdatasync", "fchmod", "chmod"):
        monkeypatch.setattr(os, name, refuse)


@LACKING
def test_a_disk_without_links(
    shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The bytes lie once, in the snapshot; the hub's client finds them; one line says that the disk has no links; the
    second run fetches nothing, and so does a newer commit for what it has in common."""
    take_links_away(monkeypatch, number)
    ran = done(mdl(shell, "get", "org/tiny", "--layout", "hf-cache"))
    assert ran.err.count("this disk has no links") == 1
    assert offline(hf, shell) == FILES
    assert [path for path in repo_of(shell).rglob("*") if path.is_symlink()] == []
    assert list((repo_of(shell) / "blobs").glob("*")) == []
    assert set(actions(done(mdl(shell, "get", "org/tiny", *LAYOUT))).values()) == {"kept"}
    assert statuses(done(mdl(shell, "verify", *LAYOUT))) == dict.fromkeys(FILES, "ok")
    hub.publish(NEXT)
    assert done(mdl(shell, "get", "org/tiny", *LAYOUT)).document["bytes_fetched"] == len(b"{}")
    assert (offline(hf, shell), offline(hf, shell, COMMIT)) == (NEXT.files, FILES)


@LACKING
def test_blobs_on_a_disk_without_links(
    shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A cache whose blobs came there, and whose links did not, is put right without a body byte."""
    fill(hf, shell)
    shutil.rmtree(snapshot(shell))
    take_links_away(monkeypatch, number)
    sent = hub.sent
    done(mdl(shell, "get", "org/tiny", *LAYOUT))
    assert (hub.sent, offline(hf, shell)) == (sent, FILES)


# Filled by the hub's own client.


def test_verify_reads_what_hf_brought(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """Without a name and with one, online and offline: each file is held to the name of its blob."""
    fill(hf, shell)
    for words in ((), ("hf:org/tiny",), ("org/tiny",), ("--offline",)):
        assert statuses(done(mdl(shell, "verify", *words, *LAYOUT))) == dict.fromkeys(FILES, "ok")
    blob = repo_of(shell) / "blobs" / sha256(WEIGHTS)
    spoil(blob, WEIGHTS[::-1])
    ran = mdl(shell, "verify", *LAYOUT)
    assert (ran.code, statuses(ran)["unet/model.bin"]) == (6, "corrupt")
    blob.unlink()
    ran = mdl(shell, "verify", *LAYOUT)
    assert (ran.code, statuses(ran)["unet/model.bin"]) == (3, "missing")
    done(mdl(shell, "verify", "--repair", *LAYOUT))
    assert offline(hf, shell) == FILES


@pytest.mark.parametrize("named", [(), ("org/tiny",)], ids=["all", "named"])
def test_the_hint_replaces_what_hf_brought(shell: Shell, mdl: Inside, hf: Hf, named: tuple[str, ...]) -> None:
    """A damaged blob of another program is replaced only with --force. The hint says so, and names the model, so that
    what was changed in another one stays."""
    fill(hf, shell)
    done(mdl(shell, "get", "org/twin", "--layout", "hf-cache"))
    own = cache_of(shell) / "models--org--twin" / "snapshots" / TWIN.commit / "model.bin"
    own.unlink()
    own.write_bytes(b"edited")
    spoil(repo_of(shell) / "blobs" / sha256(WEIGHTS), WEIGHTS[::-1])
    ran = done(mdl(shell, "verify", *named, "--layout", "hf-cache"), 6)
    command = re.search("'mdl (verify .*?)' replaces it", ran.err.split("hint:")[-1])
    assert command
    done(mdl(shell, *command[1].split()))
    assert offline(hf, shell) == FILES
    assert own.read_bytes() == b"edited"


@pytest.mark.parametrize("named", [(), ("hf:org/tiny",)], ids=["all", "named"])
@pytest.mark.parametrize("shape", ["as hf left it", "without its list", "copied without links"])
def test_a_cache_does_not_vouch_for_itself(
    shell: Shell, mdl: Inside, hf: Hf, shape: str, named: tuple[str, ...]
) -> None:
    """Offline, and without a listing of the hub that mdl kept, all is unverified: in words, and 6 with --strict. What
    is wrong shows itself all the same, if the cache tells its digest. The hub's listing is kept for the next time."""
    fill(hf, shell)
    if shape == "copied without links":
        flatten(shell)
    if shape != "as hf left it":
        shutil.rmtree(repo_of(shell) / "trees", ignore_errors=True)
    ran = done(mdl(shell, "verify", *named, "--offline", *LAYOUT))
    assert statuses(ran) == dict.fromkeys(FILES, "unverified")
    assert "2 unverified" in done(mdl(shell, "verify", *named, "--offline", "--layout", "hf-cache")).err
    assert mdl(shell, "verify", *named, "--offline", "--strict", *LAYOUT).code == 6
    for words in ((), ("--offline",)):
        ran = done(mdl(shell, "verify", *named, "--strict", *words, *LAYOUT))
        assert statuses(ran) == dict.fromkeys(FILES, "ok")
    spoil(snapshot(shell) / "config.json", CONFIG[::-1])
    ran = mdl(shell, "verify", *named, *LAYOUT)
    assert (ran.code, statuses(ran)["config.json"]) == (6, "corrupt")


@pytest.mark.parametrize("then", ["nothing", "no branch", "get --offline"])
@pytest.mark.parametrize("named", [(), ("org/tiny",)], ids=["all", "named"])
def test_the_listing_of_the_commit_that_is_here_counts(
    shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, named: tuple[str, ...], then: str
) -> None:
    """The hub has moved on since another program filled the cache: what is here is right all the same, also if no
    branch leads to it, and after mdl took it over without asking anybody."""
    fill(hf, shell)
    if then == "no branch":
        (repo_of(shell) / "refs" / "main").unlink()
    if then == "get --offline":
        done(mdl(shell, "get", "org/tiny", "--offline", *LAYOUT))
        assert set(statuses(done(mdl(shell, "verify", *named, "--offline", *LAYOUT))).values()) == {"unverified"}
    hub.publish(NEXT)
    ran = done(mdl(shell, "verify", *named, "--strict", *LAYOUT))
    assert statuses(ran) == dict.fromkeys(FILES, "ok")


@pytest.mark.parametrize(("status", "asked"), [(503, 1), (404, 2)])
def test_a_hub_that_does_not_answer_is_asked_once(
    shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, status: int, asked: int
) -> None:
    """Why files are unverified is told. The next repository is asked about only if the server answered."""
    for repo in ("org/tiny", "org/twin"):
        fill(hf, shell, repo)
    before = len(hub.requests)
    hub.script = faults.answers(status)
    ran = done(mdl(shell, "verify", "--retries", "1", *LAYOUT))
    assert set(statuses(ran).values()) == {"unverified"}
    assert ran.err.count("files that only Hugging Face's cache vouches for are unverified") == asked
    targets = [recorded.request.target for recorded in hub.requests[before:]]
    assert [any(name in target for target in targets) for name in ("org/tiny", "org/twin")] == [True, asked == 2]


@pytest.mark.parametrize("shape", ["as hf left it", "copied without links"])
@pytest.mark.parametrize("named", [(), ("hf:org/tiny",)], ids=["all", "named"])
def test_outdated_knows_what_another_program_brought(
    shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, named: tuple[str, ...], shape: str
) -> None:
    """The name of a blob, or of a commit's folder, says which version is here, whether the hub has another one by now
    or does not answer. A commit to which no branch leads any more is followed by nobody."""
    fill(hf, shell)
    if shape == "copied without links":
        flatten(shell)

    def outdated(code: int = 0) -> dict[str, Any]:
        [row] = done(mdl(shell, "outdated", *named, *LAYOUT), code).document["models"]
        return row

    row = outdated()
    assert (row["state"], row["here"], row["changes"]) == ("current", [COMMIT], [])
    hub.publish(NEXT)
    row = outdated()
    assert (row["state"], row["here"], row["newest"]) == ("outdated", [COMMIT], [NEXT.commit])
    assert {change["path"] for change in row["changes"] if change["bytes_to_fetch"]} == {"config.json"}
    words = done(mdl(shell, "outdated", *named, "--layout", "hf-cache")).err
    assert words.endswith(": mdl update org/tiny --layout hf-cache\n")
    hub.script = faults.answers(404)
    row = outdated(3)
    assert (row["state"], row["here"]) == ("failed", [COMMIT])
    hub.script = None
    (repo_of(shell) / "refs" / "main").unlink()
    if not named:
        row = outdated()
        assert (row["state"], row["here"], row["changes"]) == ("pinned", [COMMIT], [])


@pytest.mark.parametrize("include", [None, ["*.json"]])
def test_the_lock_vouches_for_a_cache(shell: Shell, mdl: Inside, hf: Hf, include: list[str] | None) -> None:
    """What the user's lock names at that commit is verified without a network."""
    entry = 'source = "hf:org/tiny"\n' + (f"include = {json.dumps(include)}\n" if include else "")
    write_catalog(shell, f"schema = 1\n[models.mine]\n{entry}")
    fill(hf, shell)
    done(mdl(shell, "lock"))
    (shell.home / "mdl.lock").rename(shell.home / "kept")
    shutil.rmtree(shell.home / ".cache" / "mdl", ignore_errors=True)
    assert set(statuses(done(mdl(shell, "verify", "mine", "--offline", *LAYOUT))).values()) == {"unverified"}
    (shell.home / "kept").rename(shell.home / "mdl.lock")
    ran = done(mdl(shell, "verify", "mine", "--strict", "--offline", *LAYOUT))
    assert set(statuses(ran).values()) == {"ok"}


def test_all_formats_that_are_here_are_verified(shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf) -> None:
    """The hub's client brings every format, of which mdl would leave some out: each is compared with its digest."""
    files = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "pytorch_model.bin": WEIGHTS[::-1]}
    hub.publish(Repo("org/tiny", files))
    fill(hf, shell)
    for named in ((), ("hf:org/tiny",)):
        assert statuses(done(mdl(shell, "verify", *named, "--strict", *LAYOUT))) == dict.fromkeys(files, "ok")


@pytest.mark.parametrize("shape", ["as hf left it", "copied without links"])
@pytest.mark.parametrize("layout", [LAYOUT, ("--json",)], ids=["cache", "plain"])
def test_offline_uses_what_is_there(
    shell: Shell, hub: LoopbackHub, mdl: Inside, hf: Hf, layout: tuple[str, ...], shape: str
) -> None:
    """A repository that mdl never listed is used offline as the hub's client has noted it, in both layouts; nobody but
    that folder vouches for it, so that it is unverified."""
    fill(hf, shell)
    if shape == "copied without links":
        flatten(shell)
    asked = len(hub.requests)
    for target in ("org/tiny", f"hf:org/tiny@{COMMIT}"):
        ran = done(mdl(shell, "get", target, "--offline", *layout))
        files = ran.document["models"][0]["files"]
        assert {file["action"] for file in files} <= {"kept", "linked"}
        assert {file["verified"] for file in files} == {"none"}
        assert ran.document["models"][0]["status"] == "unverified"
    assert len(hub.requests) == asked
    (repo_of(shell) / "refs" / "main").unlink()
    shutil.rmtree(repo_of(shell) / "trees")
    shutil.rmtree(snapshot(shell))
    assert mdl(shell, "get", "org/twin", "--offline", *layout).code == 8


def test_offline_says_if_nothing_tells_what_is_whole(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """A cache in which a library left one file, and no list, may be a part of the repository: one line says so. With
    the list of the hub's client there is no such line."""
    fill(hf, shell)
    words = "org/tiny: these files are in Hugging Face's cache; nothing there says whether that is all"
    assert words not in done(mdl(shell, "get", "org/tiny", "--offline", *LAYOUT)).err
    shutil.rmtree(repo_of(shell) / "trees")
    (snapshot(shell) / "unet" / "model.bin").unlink()
    ran = done(mdl(shell, "get", "org/tiny", "--offline", "--layout", "hf-cache"))
    assert ran.err.count(words) == 1


def share(hf: Hf, shell: Shell, repo: str) -> None:
    """Have the hub's client keep the weights of a repository in the store that repositories share."""
    blob = cache_of(shell) / f"models--{repo.replace('/', '--')}" / "blobs" / sha256(WEIGHTS)
    assert hf("share", cache_dir=cache_of(shell), blob=blob, size=len(WEIGHTS))


def test_rm_frees_a_shared_blob_with_the_last_repository(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """The shared bytes stay while another repository leads to them, and go with the last one, list and all."""
    for repo in ("org/tiny", "org/twin"):
        fill(hf, shell, repo)
        share(hf, shell, repo)
    shared = cache_of(shell) / "blobs" / "ab" / ("ab" * 32)
    assert shared.is_file()
    assert "2 here (5.2 MB)" in done(mdl(shell, "list", "--local", *LAYOUT[:2])).err
    assert statuses(done(mdl(shell, "verify", *LAYOUT))) == {**dict.fromkeys(FILES, "ok"), "model.bin": "ok"}
    ran = done(mdl(shell, "rm", "hf:org/tiny", "--yes", *LAYOUT)).document
    assert (ran["bytes_freed"], ran["models"][0]["bytes_shared"]) == (len(CONFIG), len(WEIGHTS))
    assert offline(hf, shell, repo_id="org/twin") == TWIN.files
    planned = done(mdl(shell, "rm", "hf:org/twin", *LAYOUT)).document
    ran = done(mdl(shell, "rm", "hf:org/twin", "--yes", *LAYOUT)).document
    assert planned["bytes_freed"] == ran["bytes_freed"] == len(WEIGHTS)
    assert not shared.exists()
    assert not shared.with_name(f"{shared.name}.refs").exists()
    assert scanned(hf, shell) == {}


def test_clean_finds_a_shared_blob_that_nobody_has(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """What another program left in the shared store is shown, and goes with --yes; what a repository has stays."""
    fill(hf, shell)
    share(hf, shell, "org/tiny")
    assert done(mdl(shell, "clean", *LAYOUT)).document["items"] == []
    shutil.rmtree(repo_of(shell))
    (item,) = done(mdl(shell, "clean", *LAYOUT)).document["items"]
    assert (item["kind"], item["bytes"] >= len(WEIGHTS)) == ("shared", True)
    shared = Path(item["path"])
    assert shared.exists()
    done(mdl(shell, "clean", "--yes", *LAYOUT))
    assert not shared.exists()
