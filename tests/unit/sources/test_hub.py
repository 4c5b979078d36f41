"""The hub by its answers: one commit, one listing, sizes and digests; every answer is hostile until read."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.scripted_hub import COMMIT, GIT, HUB, LATER, ORIGIN, PINNED, REVISION, SHA, World, entry, large, tree_url

from mdl.errors import LockError, NotFound, ProtocolError, Unsafe
from mdl.events import Noticed
from mdl.sources.hub import role_of
from mdl.sources.hub_origin import HubOrigin


@pytest.mark.fault(67, 68, 72)
def test_branch_becomes_a_commit_once(here: World) -> None:
    """The branch is asked for once; listing and every URL are at its commit."""
    here.revision()
    here.tree(large(), entry(), {"type": "directory", "path": "sub", "oid": GIT, "size": 0})
    config, model = here.hub.resolve(ORIGIN)
    assert here.asked == [REVISION, tree_url()]
    assert (config.path.text, config.size, str(config.digest)) == ("config.json", 10, f"git-sha1:{GIT}")
    assert (model.path.text, model.size, str(model.digest)) == ("model.safetensors", 1000, f"sha256:{SHA}")
    assert model.url == f"{HUB}/org/repo/resolve/{COMMIT}/model.safetensors"
    assert {config.commit, model.commit} == {COMMIT}
    assert (config.role, model.role) == ("config", "weights")


def test_pinned_revision_is_not_asked_for(here: World) -> None:
    """A commit is its own answer: only the listing is asked for."""
    here.tree(large())
    assert here.hub.resolve(PINNED)[0].commit == COMMIT
    assert here.asked == [tree_url()]


def test_pinned_and_kept_contacts_nobody(here: World) -> None:
    """A commit that was listed once is never asked about again, and is known without any client."""
    here.tree(large())
    first = here.hub.resolve(PINNED)
    assert here.hub.resolve(PINNED) == here.hub.known(PINNED) == here.offline.resolve(PINNED) == first
    assert here.asked == [tree_url()]


@pytest.mark.fault(67)
def test_branch_is_asked_again(here: World) -> None:
    """A branch may move from run to run: its kept listing is for reading offline alone; its commit stays pinned."""
    for commit in (COMMIT, LATER):
        here.revision(commit)
        here.tree(large(), commit=commit)
        here.next_run()
        assert here.hub.resolve(ORIGIN)[0].commit == commit
        found = here.hub.known(ORIGIN)
        assert found is not None
        assert found[0].commit == commit
    assert here.offline.resolve(PINNED)[0].commit == COMMIT


def test_offline_and_never_listed(here: World) -> None:
    """Without a client and without a kept listing it is code 8, and nothing is known."""
    assert here.offline.known(ORIGIN) is None
    with pytest.raises(LockError) as caught:
        here.offline.resolve(ORIGIN)
    assert (caught.value.exit_code, caught.value.item) == (8, str(ORIGIN))


def test_listing_goes_on_over_pages(here: World) -> None:
    """Link, absolute or relative and among others, leads on until there is none."""
    second, third = tree_url(more="&cursor=a"), tree_url(more="&cursor=b")
    links = [f'<{HUB}/x>; rel="prev", <{second}>; rel="next"', f"<{third.removeprefix(HUB)}>; rel=next"]
    here.tree(entry("a.json"), headers={"Link": links[0]})
    here.mock.add_response(url=second, json=[entry("b.json")], headers={"Link": links[1]})
    here.mock.add_response(url=third, json=[entry("c.json")], headers={"Link": f'<{HUB}/y>; rel="prev"'})
    assert [file.path.text for file in here.hub.resolve(PINNED)] == ["a.json", "b.json", "c.json"]
    assert here.asked == [tree_url(), second, third]


@pytest.mark.fault(75)
@pytest.mark.parametrize(
    "target",
    [
        "https://evil.org/x",
        "http://huggingface.co/x",
        "https://huggingface.co:8443/x",
        "//evil.org/x",
        "https://hf.co/x",
    ],
)
def test_next_page_elsewhere_is_refused(here: World, target: str) -> None:
    """A listing that goes on at another origin is code 11 and is not followed there."""
    here.tree(entry(), headers={"Link": f'<{target}>; rel="next"'})
    with pytest.raises(Unsafe) as caught:
        here.hub.resolve(PINNED)
    assert caught.value.exit_code == 11
    assert here.asked == [tree_url()]
    assert here.hub.known(PINNED) is None


@pytest.mark.fault(76)
def test_endless_listing_ends(here: World) -> None:
    """A listing that leads to itself is given up as a lie, before anybody is asked again."""
    here.tree(entry(), headers={"Link": f'<{tree_url()}>; rel="next"'})
    with pytest.raises(ProtocolError, match="circles"):
        here.hub.resolve(PINNED)
    assert len(here.asked) == 1


@pytest.mark.fault(74)
def test_renamed_repository_is_followed(here: World) -> None:
    """A renamed repository answers with a redirect, relative or not, and pages go on from where it led."""
    moved = tree_url(repo="models/new/name")
    here.mock.add_response(url=tree_url(), status_code=307, headers={"Location": moved.removeprefix(HUB)})
    here.mock.add_response(url=moved, json=[entry("a.json")], headers={"Link": '<?cursor=x>; rel="next"'})
    here.mock.add_response(url=moved.split("?")[0] + "?cursor=x", json=[entry("b.json")])
    files = here.hub.resolve(PINNED)
    assert [file.url for file in files] == [f"{HUB}/org/repo/resolve/{COMMIT}/{n}.json" for n in "ab"]


HOSTILE = [
    "../x",
    "/x",
    "..\\x",
    "C:x",
    "\\\\srv\\x",
    "a/../../x",
    "x.",
    "x ",
    "a//b",
    "",
    "~/x",
    "CON",
    "a\0b",
    ".mdl/x",
]


@pytest.mark.fault(77)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_refuses_the_whole_set(here: World, name: str) -> None:
    """One unsafe name among good ones: code 11, nothing is resolved, nothing is kept."""
    here.tree(large(), entry(name), entry())
    with pytest.raises(Unsafe) as caught:
        here.hub.resolve(PINNED)
    assert caught.value.exit_code == 11
    assert here.hub.known(PINNED) is None


@pytest.mark.fault(78, 115)
@pytest.mark.parametrize("names", [("a.json", "A.json"), ("é.json", "e\u0301.json"), ("a", "a/b"), ("a", "a")])
def test_twins_are_refused(here: World, names: tuple[str, str]) -> None:
    """Two names that are one on some disk, or a file that is a folder too: code 11, naming both."""
    here.tree(*(entry(name) for name in names))
    with pytest.raises(Unsafe):
        here.hub.resolve(PINNED)


@pytest.mark.fault(79)
@pytest.mark.parametrize(
    "oid",
    ["", "../..", "ab" * 31 + "a", "ab" * 32 + "a", "AB" * 32, "sha256:sha256:" + SHA, SHA + "\n", "g" * 64, None, 5],
)
def test_hostile_digest_is_refused(here: World, oid: Any) -> None:
    """A large file's digest is 64 lower-case hex digits, with or without one ``sha256:``, or the listing is a lie."""
    here.tree(entry("m.bin", lfs={"oid": oid, "size": 10}))
    with pytest.raises(ProtocolError) as caught:
        here.hub.resolve(PINNED)
    assert caught.value.exit_code == 6


@pytest.mark.fault(79)
@pytest.mark.parametrize("lfs", [{"oid": f"sha256:{SHA}", "size": 7}, {"sha256": SHA, "size": 7}, {"oid": SHA}])
def test_digest_is_read_in_each_form(here: World, lfs: dict[str, Any]) -> None:
    """A large file's sha256 is read from each place that hubs put it in, and never the pointer's own id."""
    here.tree(entry("m.bin", 7, lfs=lfs))
    (file,) = here.hub.resolve(PINNED)
    assert (str(file.digest), file.size) == (f"sha256:{SHA}", 7)


@pytest.mark.fault(72, 79)
@pytest.mark.parametrize("oid", ["opaque", "ab" * 32, None, "../../x"])
def test_unknown_id_of_a_small_file_is_no_digest(here: World, oid: Any) -> None:
    """What is not a git blob id is not taken for one: the file's digest is unknown."""
    here.tree(entry(oid=oid))
    assert here.hub.resolve(PINNED)[0].digest is None


@pytest.mark.fault(76)
@pytest.mark.parametrize(
    "page",
    [
        *({}, {"error": "x"}, "text", 7, None, [[]], ["a"], [None], [{}], [entry(None)], [entry(5)], [entry(["a"])]),
        *([entry(size=None)], [entry(size=-1)], [entry(size="10")], [entry(size=1.5)], [entry(size=True)]),
        [entry(lfs={"oid": SHA, "size": "10"})],
    ],
)
def test_listing_of_wrong_types_is_a_lie(here: World, page: Any) -> None:
    """A listing that is not a list of files with names and sizes is code 6 and is not kept."""
    here.mock.add_response(url=tree_url(), json=page)
    with pytest.raises(ProtocolError) as caught:
        here.hub.resolve(PINNED)
    assert caught.value.exit_code == 6
    assert caught.value.item
    assert here.hub.known(PINNED) is None


@pytest.mark.fault(76)
@pytest.mark.parametrize("commit", [None, 5, "", "main", "C" * 40, "c" * 39, "../" + "c" * 37, ["c" * 40]])
def test_commit_that_is_none_is_a_lie(here: World, commit: Any) -> None:
    """What a branch becomes must be a commit's full id."""
    here.revision(commit)
    with pytest.raises(ProtocolError, match="names no commit"):
        here.hub.resolve(ORIGIN)


@pytest.mark.fault(76)
@pytest.mark.parametrize("body", [b"<html>portal</html>", b'[{"path": "a', b"", b"\xff\xfe", b"[" * 50_000, b"NaN x"])
def test_answer_that_is_no_json_is_a_lie(here: World, body: bytes) -> None:
    """HTML, cut or absurdly nested JSON: code 6 on the repository's name, at once."""
    here.mock.add_response(url=tree_url(), content=body, headers={"Content-Type": "application/json"})
    with pytest.raises(ProtocolError, match="JSON") as caught:
        here.hub.resolve(PINNED)
    assert (caught.value.exit_code, caught.value.item) == (6, str(PINNED))
    assert len(here.asked) == 1


@pytest.mark.fault(76)
def test_answer_is_bounded(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API answer is read up to a limit and no further."""
    monkeypatch.setattr("mdl.http.client.MAX_JSON", 1000)
    here.tree(*(entry(f"{n}.json") for n in range(100)))
    with pytest.raises(ProtocolError, match="over 1000 bytes"):
        here.hub.resolve(PINNED)


def test_part_of_a_repository(here: World) -> None:
    """A path narrows to that file, or to that folder and not to one whose name only begins alike."""
    here.tree(*(entry(name) for name in ("unet/a.json", "unet/deep/b.json", "unet2/c.json", "unet.json")))
    below = here.hub.resolve(replace(PINNED, subpath="unet"))
    assert [file.path.text for file in below] == ["unet/a.json", "unet/deep/b.json"]
    (one,) = here.hub.resolve(replace(PINNED, subpath="unet2/c.json"))
    assert one.path.text == "unet2/c.json"
    with pytest.raises(NotFound, match=r"unet/a\.jso is not there") as caught:
        here.hub.resolve(replace(PINNED, subpath="unet/a.jso"))
    assert "unet/a.json" in str(caught.value.hint)


def test_empty_repository(here: World) -> None:
    """A repository without files is code 3 and called empty."""
    here.tree()
    with pytest.raises(NotFound, match="empty"):
        here.hub.resolve(PINNED)


def test_datasets_have_their_own_api(here: World) -> None:
    """A dataset is asked for and fetched under its own prefix."""
    here.mock.add_response(url=tree_url(repo="datasets/org/repo"), json=[entry("data.parquet")])
    (file,) = here.hub.resolve(HubOrigin("org/repo", "dataset", COMMIT))
    assert file.url == f"{HUB}/datasets/org/repo/resolve/{COMMIT}/data.parquet"


def test_listing_that_cannot_be_kept_is_no_failure(here: World, tmp_path: Path) -> None:
    """Where the listing cannot be written, the files are resolved all the same."""
    (tmp_path / "listings").write_text("a file in the way")
    here.tree(entry())
    assert len(here.hub.resolve(PINNED)) == 1


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *(("a/model-00001-of-2.safetensors", "weights"), ("m.GGUF", "weights"), ("vocab.txt", "vocab")),
        *(("tokenizer.json", "vocab"), ("config.json", "config"), ("x.yaml", "config"), ("README.md", "other")),
    ],
)
def test_role_is_told_by_the_name(name: str, role: str) -> None:
    """What a file is for is told by its name."""
    assert role_of(name) == role


def test_cards_and_scripts_are_no_data(here: World) -> None:
    """A dataset of cards and loader scripts has no data; one file of data is data."""
    cards = [entry(name) for name in ("README.md", ".gitattributes", "load.py", "LICENSE", "dataset_infos.json")]
    data = HubOrigin("org/data", "dataset", COMMIT)
    for files, notices in ((cards, 1), ([*cards, entry("data/train.csv")], 0)):
        here.mock.add_response(url=tree_url(repo="datasets/org/data"), json=files)
        here.told.clear()
        shutil.rmtree(here.folder, ignore_errors=True)
        here.next_run()
        here.hub.resolve(data)
        assert [type(event) for event in here.told] == [Noticed] * notices
