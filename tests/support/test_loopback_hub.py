"""The loopback hub answers as the hub does. tests/cli/test_hf_cache.py shows that the hub's own client can use it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from mdl.demo.repositories import blocks, digest_of
from support import faults
from support.generated import BLOCK, Generated
from support.loopback_hub import LoopbackHub, Repo, at_path

WEIGHTS = Generated(3 * BLOCK + 12345, "weights")
CONFIG = b'{"hidden_size": 312}\n'
FILES = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "onnx/a b#c+d%.bin": b"odd name",
    "onnx/deep/x.txt": b"x" * 3000,
    "empty": b"",
}
TINY = Repo("demo/tiny", FILES)
SHA256 = digest_of(WEIGHTS, "sha256").hex
GIT_SHA1 = hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
LFS = "/demo/tiny/resolve/main/model.safetensors"
SMALL = "/demo/tiny/resolve/main/config.json"

Ask = Callable[..., httpx.Response]
REPOS = [
    TINY,
    Repo("demo/gated", {"model.bin": b"g" * 10}, gated=True, lfs_threshold=1),
    Repo("demo/private", {"model.bin": b"p" * 10}, private=True),
]


@pytest.fixture
def ask(hub: LoopbackHub) -> Iterator[Ask]:
    """GET (or another method) a path of the hub, or a whole URL; identity encoding unless said."""
    with httpx.Client(trust_env=False, headers={"Accept-Encoding": "identity"}) as client:

        def asking(target: str, method: str = "GET", **options: object) -> httpx.Response:
            url = target if target.startswith("http") else hub.url + target
            return client.request(method, url, **options)  # type: ignore[arg-type]

        yield asking


def test_generated_content_is_one_content() -> None:
    """Any slice of generated content is that part of the whole; seeds and blocks differ."""
    whole = WEIGHTS[0 : len(WEIGHTS)]
    assert len(whole) == len(WEIGHTS)
    for start, stop in [(0, 0), (0, 1), (5, 40), (31, 33), (BLOCK - 1, BLOCK + 1), (BLOCK, 2 * BLOCK + 7), (3, None)]:
        assert WEIGHTS[start:stop] == whole[start:stop]
    assert b"".join(blocks(WEIGHTS, 100, 2 * BLOCK, 65536)) == whole[100 : 2 * BLOCK]
    assert len({whole[at : at + BLOCK] for at in range(0, len(whole), BLOCK)}) == 4
    assert Generated(len(WEIGHTS), "weights")[0:100] == whole[:100] != Generated(len(WEIGHTS), "other")[0:100]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_lfs_file(hub: LoopbackHub, ask: Ask, method: str) -> None:
    """Resolve tells commit, sha256 and size of an LFS file and redirects to a signed URL of the other origin."""
    got = ask(LFS, method)
    assert (got.status_code, got.headers["x-repo-commit"]) == (302, TINY.commit)
    assert (got.headers["x-linked-etag"], got.headers["x-linked-size"]) == (f'"{SHA256}"', str(len(WEIGHTS)))
    assert got.headers["content-length"] != str(len(WEIGHTS))
    target = urlsplit(got.headers["location"])
    assert f"{target.scheme}://{target.netloc}" != hub.url
    assert "Expires=" in target.query
    assert "Signature=" in target.query


def test_cdn(hub: LoopbackHub, ask: Ask) -> None:
    """The CDN sends the bytes and ranges of them, with an ETag of its own and none of the hub's headers. It refuses a
    token with 400, and a forged or expired link with 403 in XML."""
    link = ask(LFS).headers["location"]
    got = ask(link)
    assert (got.status_code, hashlib.sha256(got.content).hexdigest()) == (200, SHA256)
    assert len(got.headers["etag"].strip('"')) == 32
    assert not [name for name in got.headers if name.startswith("x-")]
    part = ask(link, headers={"Range": "bytes=1048570-1048585"})
    assert (part.status_code, part.content) == (206, WEIGHTS[1048570:1048586])
    assert ask(link, headers={"Authorization": "Bearer x"}).status_code == 400
    forged = ask(link.replace("Expires=", "Expires=9"))
    assert (forged.status_code, forged.headers["content-type"]) == (403, "application/xml")
    hub.expire_links()
    assert (ask(link).status_code, ask(ask(LFS).headers["location"]).status_code) == (403, 200)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_small_file(hub: LoopbackHub, ask: Ask, method: str) -> None:
    """A small file is a relative 307 to resolve-cache and then itself; both name commit, git blob id and size."""
    hop = ask(SMALL, method)
    assert hop.status_code == 307
    assert hop.headers["location"].startswith(f"/api/resolve-cache/models/demo/tiny/{TINY.commit}/config.json?%2Fdemo")
    got = ask(hop.headers["location"], method)
    assert (got.status_code, got.content) == (200, CONFIG if method == "GET" else b"")
    for answer in (hop, got):
        assert answer.headers["x-repo-commit"] == TINY.commit
        assert answer.headers["etag"] == answer.headers["x-linked-etag"] == f'"{GIT_SHA1}"'
        assert answer.headers["x-linked-size"] == str(len(CONFIG))
    assert {request.origin for request in hub.requests} == {"hub"}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/no/such/resolve/main/f", 404, "RepoNotFound"),
        ("/api/models/no/such", 404, "RepoNotFound"),
        ("/demo/tiny/resolve/nope/config.json", 404, "RevisionNotFound"),
        ("/demo/tiny/resolve/main/nope", 404, "EntryNotFound"),
        ("/api/models/demo/tiny/tree/main/nope", 404, "EntryNotFound"),
        ("/api/models/demo/private", 401, "RepoNotFound"),
        ("/demo/gated/resolve/main/model.bin", 401, "GatedRepo"),
        ("/api/models/demo/gated", 200, None),
        ("/api/agent-harnesses", 404, None),
    ],
)
def test_refusals(ask: Ask, path: str, status: int, code: str | None) -> None:
    """What is absent, private or gated gets the hub's status and X-Error-Code."""
    got = ask(path)
    assert (got.status_code, got.headers.get("x-error-code")) == (status, code)


def test_branch_that_moves(hub: LoopbackHub, ask: Ask) -> None:
    """Publishing moves the branch; the old commit stays reachable by its hash."""
    new = Repo("demo/tiny", {"config.json": b"new"})
    hub.publish(new)
    assert ask(SMALL, follow_redirects=True).content == b"new"
    assert ask(SMALL, "HEAD").headers["x-repo-commit"] == new.commit
    assert ask(SMALL.replace("main", TINY.commit), follow_redirects=True).content == CONFIG


def test_a_listing_in_pages(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page names the next one by a link, until there is none; together they are the listing."""
    url = "/api/models/demo/tiny/tree/main?recursive=true"
    everything = ask(url).json()
    monkeypatch.setattr(LoopbackHub, "page_size", 3)
    pages = []
    while url:
        page = ask(url)
        pages.append(page.json())
        url = page.links.get("next", {}).get("url", "")
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [item for page in pages for item in page] == everything


def test_paths_and_branches(ask: Ask) -> None:
    """Named paths are described without a listing; the branches are at their newest commits."""
    named = ask("/api/models/demo/tiny/paths-info/main", "POST", data={"paths": ["onnx", "config.json", "none"]})
    assert [(item["type"], item["path"]) for item in named.json()] == [("directory", "onnx"), ("file", "config.json")]
    assert [branch["targetCommit"] for branch in ask("/api/models/demo/tiny/refs").json()["branches"]] == [TINY.commit]


def test_a_script_answers_in_the_place_of_the_hub(hub: LoopbackHub, ask: Ask) -> None:
    """What a script answers is sent, and all else as ever; it may spoil an ordinary answer."""
    spoilt = faults.with_headers(hub.ordinary, ("X-Repo-Commit", "f" * 40))
    hub.script = at_path("/resolve/main/config.json", spoilt)
    assert ask(SMALL).headers["x-repo-commit"] == "f" * 40
    assert ask(LFS).headers["x-repo-commit"] == TINY.commit
