"""The hub's listings: one commit, every file with size and digest. Every answer is hostile until it is read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cases import each
from support.catalogs import NEVER_KEPT, ODD_NAMES
from support.scripted_hub import COMMIT, GIT, HUB, LATER, ORIGIN, PINNED, REVISION, SHA, World, entry, large, tree_url

from mdl.bounds import LARGEST_ANSWER, LARGEST_LIST
from mdl.errors import LockError, MdlError, NotFound, ProtocolError
from mdl.files import role_of
from mdl.net.client import HttpClient
from mdl.net.pagination import paged
from mdl.sources import hub as hub_module
from mdl.sources.hub_origin import HubOrigin


def refused(here: World, kind: type[MdlError], code: int, match: str = ".", origin: HubOrigin = PINNED) -> MdlError:
    """The error of this kind and exit code that ends the resolution. No listing is kept."""
    with pytest.raises(kind, match=match) as caught:
        here.hub.resolve(origin)
    assert caught.value.exit_code == code
    assert here.hub.known(origin) is None
    return caught.value


@pytest.mark.fault(67, 68, 72)
def test_branch_becomes_a_commit_once(here: World) -> None:
    """The branch is asked for once; the listing and every URL are at its commit."""
    here.revision()
    here.tree(large(), entry(), {"type": "directory", "path": "sub", "oid": GIT, "size": 0})
    config, model = here.hub.resolve(ORIGIN)
    assert here.asked == [REVISION, tree_url()]
    assert (config.path.text, config.size, str(config.digest)) == ("config.json", 10, f"git-sha1:{GIT}")
    assert (model.path.text, model.size, str(model.digest)) == ("model.safetensors", 1000, f"sha256:{SHA}")
    assert model.url == f"{HUB}/org/repo/resolve/{COMMIT}/model.safetensors"
    assert {config.commit, model.commit} == {COMMIT}
    assert (config.role, model.role) == ("config", "weights")


def test_two_repositories_at_once(here: World) -> None:
    """Another thread may list another repository between any two steps of this one: each has its own files."""
    other = HubOrigin("org/other", revision=LATER)
    steps: list[int] = []

    class Interrupted(HubOrigin):
        @property
        def whole(self) -> HubOrigin:
            steps.append(len(steps))
            if steps[-1] == interrupted:
                here.hub.resolve(other)
            return super().whole

    here.tree(entry("mine.json"))
    here.mock.add_response(url=tree_url(LATER, repo="models/org/other"), json=[entry("its.json")])
    origin = Interrupted("org/repo", revision=COMMIT)
    interrupted = -1
    while interrupted < len(steps):
        interrupted += 1
        steps.clear()
        assert [file.path.text for file in here.hub.resolve(origin)] == ["mine.json"]
        assert [file.path.text for file in here.hub.resolve(origin)] == ["mine.json"]
    assert interrupted > 2


def test_commit_is_listed_once(here: World) -> None:
    """Of a commit only the listing is asked for, and only once: then it is known without any client."""
    here.tree(large())
    first = here.hub.resolve(PINNED)
    assert first[0].commit == COMMIT
    assert here.hub.resolve(PINNED) == here.hub.known(PINNED) == here.offline.resolve(PINNED) == first
    assert here.asked == [tree_url()]


@pytest.mark.parametrize(
    ("answer", "access"),
    [
        ({"json": {"private": False, "gated": False}}, "public"),
        ({"json": {"private": False, "gated": "manual"}}, "gated"),
        ({"json": {"private": True, "gated": False}}, "private"),
        ({"json": []}, "unknown"),
        ({"status_code": 404}, "unknown"),
        ({"status_code": 503}, "unknown"),
    ],
)
def test_who_may_have_a_file_of_a_commit(here: World, answer: dict[str, Any], access: str) -> None:
    """A listing does not tell, so the hub is asked once beside it; a hub that does not answer has said nothing."""
    url = f"{HUB}/api/models/org/repo/revision/{COMMIT}?expand=gated&expand=private"
    here.mock.reset()
    here.mock.add_response(url=url, **answer)
    here.tree(large())
    assert here.hub.resolve(PINNED)[0].access == access
    assert here.offline.resolve(PINNED)[0].access == access


@pytest.mark.parametrize(
    ("facts", "access"),
    [
        ({"private": False, "gated": False}, "public"),
        ({"private": False, "gated": "auto"}, "gated"),
        ({"private": True, "gated": False}, "private"),
        ({"private": False}, "unknown"),
        ({"private": None, "gated": None}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_who_may_have_a_file(here: World, facts: dict[str, Any], access: str) -> None:
    """It is as the hub says, also when the commit is taken from the kept listing; if the hub says nothing, it is
    unknown, although no token is sent."""
    here.mock.add_response(url=REVISION, json={"sha": COMMIT, **facts})
    here.tree(large())
    assert here.hub.resolve(ORIGIN)[0].access == access
    here.next_run()
    file = here.hub.file(replace(PINNED, subpath="model.safetensors"), here.hub.resolve(PINNED)[0].path)
    assert (here.hub.resolve(PINNED)[0].access, file.access) == (access, access)


@pytest.mark.parametrize(
    ("told", "licence"),
    [
        ({"cardData": {"license": "mit"}, "tags": ["license:other"]}, "mit"),
        ({"cardData": {"license": ["a", "b"]}, "tags": ["pytorch", 7, "license:other"]}, "other"),
        ({"cardData": "mit", "tags": 7}, None),
        ({"tags": {"license:mit": 1}}, None),
        ({}, None),
    ],
)
def test_the_licence_of_a_repository(here: World, told: dict[str, Any], licence: str | None) -> None:
    """It is that of the card, else that of the tags; tags of any other form than a list name none."""
    asked = f"{REVISION}&expand=cardData&expand=tags"
    here.mock.add_response(url=asked, json={"sha": COMMIT, **told})
    assert here.hub.facts(ORIGIN).license == licence


@pytest.mark.fault(67)
def test_branch_is_asked_again(here: World) -> None:
    """A branch is asked for in each run, as it may move; its kept listing is only for use offline."""
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
    """Without a client and without a kept listing it is 8."""
    assert here.offline.known(ORIGIN) is None
    with pytest.raises(LockError) as caught:
        here.offline.resolve(ORIGIN)
    assert (caught.value.exit_code, caught.value.item) == (8, str(ORIGIN))


def test_pages(here: World) -> None:
    """A Link to the next page, absolute or relative and among others, is followed until there is none."""
    second, third = tree_url(more="&cursor=a"), tree_url(more="&cursor=b")
    links = [f'<{HUB}/x>; rel="prev", <{second}>; rel="next"', f"<{third.removeprefix(HUB)}>; rel=next"]
    here.tree(entry("a.json"), headers={"Link": links[0]})
    here.mock.add_response(url=second, json=[entry("b.json")], headers={"Link": links[1]})
    here.mock.add_response(url=third, json=[entry("c.json")], headers={"Link": f'<{HUB}/y>; rel="prev"'})
    assert [file.path.text for file in here.hub.resolve(PINNED)] == ["a.json", "b.json", "c.json"]
    assert here.asked == [tree_url(), second, third]


@pytest.mark.parametrize("other", ["https://hub.example", "http://huggingface.co"])
def test_a_mirror_that_repeats_the_hubs_link(here: World, other: str) -> None:
    """The next page of the same list is asked for where the first one was; the other host is not asked."""
    second = tree_url(more="&cursor=a")
    here.tree(entry("a.json"), headers={"Link": f'<{other}{second.removeprefix(HUB)}>; rel="next"'})
    here.mock.add_response(url=second, json=[entry("b.json")])
    assert [file.path.text for file in here.hub.resolve(PINNED)] == ["a.json", "b.json"]
    assert here.asked == [tree_url(), second]


@pytest.mark.fault(75, 76)
@pytest.mark.parametrize(
    ("target", "codes"),
    [
        *((f"{origin}/x", [11]) for origin in ("https://evil.org", "//evil.org", "https://hf.co")),
        *((f"{origin}/x", [11]) for origin in ("http://huggingface.co", "https://huggingface.co:8443")),
        *((f"https://huggingface.co:{port}/", [6, 11]) for port in ("x", "99999", "-1")),
        *((target, [6, 11]) for target in ("http://[::1", "//[", "https://\u2100.example/")),
        (tree_url(), [6]),
    ],
)
def test_bad_next_page(here: World, target: str, codes: list[int]) -> None:
    """A listing that continues at another origin, at no URL, or at itself is refused, and nothing more is asked."""
    here.tree(entry(), headers=[("Link", f'<{target}>; rel="next"'.encode())])
    with pytest.raises(MdlError) as caught:
        here.hub.resolve(PINNED)
    assert caught.value.exit_code in codes
    assert ("circles" in caught.value.message) == (target == tree_url())
    assert here.asked == [tree_url()]
    assert here.hub.known(PINNED) is None


@pytest.mark.fault(273)
@pytest.mark.parametrize(("bound", "words"), [(("most_items", 5), "5 files"), (("most_pages", 3), "3 pages")])
def test_endless_listing(here: World, monkeypatch: pytest.MonkeyPatch, bound: tuple[str, int], words: str) -> None:
    """A listing of too many pages, or of too many files and folders in all, is 6, and nothing more is asked."""
    monkeypatch.setitem(paged.__kwdefaults__, *bound)
    for number in range(3):
        items = [entry(f"{number}.json"), {"type": "directory", "path": "x", "oid": "0"}]
        links = {"Link": f'<{tree_url(more=f"&cursor={number + 1}")}>; rel="next"'}
        here.mock.add_response(url=tree_url(more=f"&cursor={number}" * bool(number)), json=items, headers=links)
    refused(here, ProtocolError, 6, f"more than {words}")
    assert len(here.asked) == 3


@pytest.mark.parametrize("items", [[], ["a.json", "b.json"]])
def test_a_listing_that_brings_nothing_new(here: World, items: list[str]) -> None:
    """A page that is empty, or the same as the one before, and names a next page is 6 at once."""
    for number in range(1 if not items else 2):
        links = {"Link": f'<{tree_url(more=f"&cursor={number + 1}")}>; rel="next"'}
        rows = [entry(name) for name in items]
        here.mock.add_response(url=tree_url(more=f"&cursor={number}" * bool(number)), json=rows, headers=links)
    refused(here, ProtocolError, 6, "has nothing new")


@pytest.mark.fault(74)
def test_renamed_repository(here: World) -> None:
    """The redirect of a renamed repository is followed, and further pages are relative to where it led."""
    moved = tree_url(repo="models/new/name")
    here.mock.add_response(url=tree_url(), status_code=307, headers={"Location": moved.removeprefix(HUB)})
    here.mock.add_response(url=moved, json=[entry("a.json")], headers={"Link": '<?cursor=x>; rel="next"'})
    here.mock.add_response(url=moved.split("?")[0] + "?cursor=x", json=[entry("b.json")])
    files = here.hub.resolve(PINNED)
    assert [file.url for file in files] == [f"{HUB}/org/repo/resolve/{COMMIT}/{n}.json" for n in "ab"]


def names_of(here: World, origin: HubOrigin = PINNED) -> tuple[list[str], list[str]]:
    """The paths of the files, and the names of those that are refused."""
    return (
        [file.path.text for file in here.hub.resolve(origin)],
        [file.path for file in here.hub.refused(origin)],
    )


@pytest.mark.fault(77, 78)
@pytest.mark.parametrize("name", [name for names in NEVER_KEPT.values() for name in names])
def test_a_name_that_cannot_be_kept(here: World, name: str) -> None:
    """It is refused alone, with a reason, and is no part of the files; the next run knows it from the kept listing."""
    here.mock.add_response(url=tree_url(), content=json.dumps([large(), entry(name), entry()]).encode())
    good = ["config.json", "model.safetensors"]
    assert names_of(here) == (good, [name])
    [file] = here.hub.refused(PINNED)
    assert (file.why != "", file.size, file.error.exit_code) == (True, 10, 11)
    assert str(file.error).isprintable()
    here.next_run()
    assert names_of(here) == (good, [name])
    assert len(here.asked) == 1


@pytest.mark.parametrize(
    "names",
    [
        *([name] for names in ODD_NAMES.values() for name in names),
        *(["A.json", "a.json"], ["README.md", "readme.md"], ["e\u0301.json", "\u00e9.json"]),
    ],
)
def test_odd_names(here: World, names: list[str]) -> None:
    """A name that only another system would refuse is taken as it is; whether two are one, the disk will say."""
    here.tree(*map(entry, names))
    assert names_of(here) == (sorted(names), [])
    here.next_run()
    assert names_of(here) == (sorted(names), [])


def test_one_file_twice(here: World) -> None:
    """A hub that names a file twice and says the same of it has one file; if it says two things, both are told of."""
    here.tree(entry("a.json"), entry("b.json"), entry("a.json"), entry("b.json", 11))
    assert names_of(here) == (["a.json", "b.json", "b.json"], [])


def test_a_part_with_a_refused_name(here: World) -> None:
    """What is not below the path that was asked for is not told; a path with nothing else is no missing path."""
    here.tree(entry("good/a.json"), entry("bad/a\nb"), entry("bad/../c"))
    assert names_of(here, replace(PINNED, subpath="good")) == (["good/a.json"], [])
    assert names_of(here, replace(PINNED, subpath="bad")) == ([], ["bad/a\nb", "bad/../c"])


@pytest.mark.fault(79)
@pytest.mark.parametrize(
    "oid",
    ["", "../..", "ab" * 31 + "a", "ab" * 32 + "a", "AB" * 32, "sha256:sha256:" + SHA, SHA + "\n", "g" * 64, None, 5],
)
def test_hostile_digest(here: World, oid: Any) -> None:
    """A large file's digest must be 64 lower-case hex digits, with or without one ``sha256:``."""
    here.tree(entry("m.bin", lfs={"oid": oid, "size": 10}))
    refused(here, ProtocolError, 6)


@pytest.mark.fault(72, 79)
@pytest.mark.parametrize(
    ("item", "digest"),
    [
        *(
            (entry(size=7, lfs=lfs), f"sha256:{SHA}")
            for lfs in ({"oid": f"sha256:{SHA}", "size": 7}, {"sha256": SHA, "size": 7}, {"oid": SHA})
        ),
        *((entry(size=7, oid=oid), "None") for oid in ("opaque", "ab" * 32, None, "../../x")),
    ],
)
def test_digest(here: World, item: dict[str, Any], digest: str) -> None:
    """A large file's sha256 is read in each form that hubs send. An id of a small file that is no git blob id is no
    digest."""
    here.tree(item)
    (file,) = here.hub.resolve(PINNED)
    assert (str(file.digest), file.size) == (digest, 7)


@pytest.mark.fault(76)
@pytest.mark.parametrize(
    "page",
    [
        *({}, {"error": "x"}, "text", 7, None, [[]], ["a"], [None], [{}], [entry(None)], [entry(5)], [entry(["a"])]),
        *([entry(size={})], [entry(size=-1)], [entry(size="10")], [entry(size=1.5)], [entry(size=True)]),
        [entry(lfs={"oid": SHA, "size": "10"})],
    ],
)
def test_listing_of_wrong_types(here: World, page: Any) -> None:
    """A listing that is not a list of files with names and sizes is 6."""
    here.mock.add_response(url=tree_url(), json=page)
    assert refused(here, ProtocolError, 6).item


@pytest.mark.fault(76, 77)
@pytest.mark.parametrize(
    ("item", "code"),
    [
        *((f'"path":"a.json","size":{size}', 6) for size in ("NaN", "1e400", "-Infinity", "9" * 5000)),
        ('"type":["file"],"path":{"a":1},"size":1', 6),
    ],
    ids=["NaN", "infinite", "minus", "5000 digits", "an object"],
)
def test_json_beyond_the_types(here: World, item: str, code: int) -> None:
    """Impossible numbers and types are refused."""
    here.mock.add_response(url=tree_url(), content=f'[{{"type":"file","oid":"x",{item}}}]'.encode())
    refused(here, MdlError, code)


def test_last_key_counts(here: World) -> None:
    """The last of two equal keys counts, as in every JSON parser, so that the checked name is the one that is used."""
    here.mock.add_response(url=tree_url(), content=b'[{"path":"../b","path":"a.bin","size":-1,"size":1,"oid":"x"}]')
    assert names_of(here) == (["a.bin"], [])
    here.next_run()
    later = replace(PINNED, revision=LATER)
    here.mock.add_response(url=tree_url(LATER), content=b'[{"path":"a.bin","path":"../b","size":1,"oid":"x"}]')
    assert names_of(here, later) == ([], ["../b"])


@pytest.mark.fault(76)
@pytest.mark.parametrize("commit", [None, 5, "", "main", "C" * 40, "c" * 39, "../" + "c" * 37, ["c" * 40]])
def test_hostile_commit(here: World, commit: Any) -> None:
    """What a branch becomes must be a commit's full id."""
    here.revision(commit)
    refused(here, ProtocolError, 6, "names no commit", ORIGIN)


@pytest.mark.fault(76)
@pytest.mark.parametrize("body", [b"<html>portal</html>", b'[{"path": "a', b"", b"\xff\xfe", b"[" * 50_000, b"NaN x"])
def test_no_json(here: World, body: bytes) -> None:
    """HTML, cut or absurdly nested JSON is 6 with the repository's name, and is not asked for again."""
    here.mock.add_response(url=tree_url(), content=body, headers={"Content-Type": "application/json"})
    assert refused(here, ProtocolError, 6, "JSON").item == str(PINNED)
    assert len(here.asked) == 1


@pytest.mark.fault(76)
def test_answer_is_bounded(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is read up to a limit far above that of other answers, and no further; the server is not blamed. One item
    of it has the limit of other answers."""
    monkeypatch.setitem(HttpClient.json_lists.__kwdefaults__, "most", 10_000)
    here.mock.add_response(url=tree_url(), content=b"[" + b" " * 10_000 + b"]")
    error = refused(here, ProtocolError, 6, "over 10,000 bytes")
    assert "/resolve/" in str(error.hint)
    monkeypatch.setitem(HttpClient.json_lists.__kwdefaults__, "most", LARGEST_LIST)
    here.next_run()
    here.mock.add_response(url=tree_url(), content=b'["' + b"x" * (2 * LARGEST_ANSWER) + b'"]')
    refused(here, ProtocolError, 6, "JSON")


@pytest.mark.parametrize(
    ("subpath", "files"),
    [("unet", ["unet/a.json", "unet/deep/b.json"]), ("unet2/c.json", ["unet2/c.json"]), ("unet/a.jso", [])],
)
def test_part_of_a_repository(here: World, subpath: str, files: list[str]) -> None:
    """A path narrows to that file, or to that folder and not to one whose name begins with it. The hint for a path that
    does not exist names a similar one."""
    here.tree(*map(entry, ("unet/a.json", "unet/deep/b.json", "unet2/c.json", "unet.json")))
    origin = replace(PINNED, subpath=subpath)
    if files:
        assert [file.path.text for file in here.hub.resolve(origin)] == files
        return
    with pytest.raises(NotFound, match=r"unet/a\.jso is not there") as caught:
        here.hub.resolve(origin)
    assert "unet/a.json" in str(caught.value.hint)


def test_a_repository_that_many_models_share(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of all its files is worked out once, and what a caller does with the list is its own affair."""
    here.tree(entry("a.json"), entry("b.json"))
    made, make = list[str](), hub_module.role_of
    monkeypatch.setattr(hub_module, "role_of", lambda path: made.append(path) or make(path))
    for _ in range(20):
        here.hub.resolve(PINNED).clear()
        assert [file.path.text for file in here.hub.known(PINNED) or ()] == ["a.json", "b.json"]
    assert made == ["a.json", "b.json"]


def test_empty_repository(here: World) -> None:
    """A repository without files is 3 and called empty."""
    here.tree()
    with pytest.raises(NotFound, match="empty"):
        here.hub.resolve(PINNED)


def test_dataset(here: World) -> None:
    """A dataset is listed and fetched under its own prefix."""
    here.mock.add_response(url=tree_url(repo="datasets/org/repo"), json=[entry("data.parquet")])
    (file,) = here.hub.resolve(HubOrigin("org/repo", "dataset", COMMIT))
    assert file.url == f"{HUB}/datasets/org/repo/resolve/{COMMIT}/data.parquet"


def test_listing_that_cannot_be_kept(here: World, tmp_path: Path) -> None:
    """If the listing cannot be written, the files are resolved all the same."""
    (tmp_path / "listings").write_text("a file in the way")
    here.tree(entry())
    assert len(here.hub.resolve(PINNED)) == 1


@each(
    ("name", "role"),
    [
        *(("a/model-00001-of-2.safetensors", "weights"), ("m.GGUF", "weights"), ("vocab.txt", "vocab")),
        *(("tokenizer.json", "vocab"), ("config.json", "config"), ("x.yaml", "config"), ("README.md", "other")),
    ],
)
def test_role(name: str, role: str) -> None:
    """A file's name tells what it is for."""
    assert role_of(name) == role
