"""The tests' hub answers as the hub does. That the hub's own client can use it, tests/cli/test_hf_cache.py shows."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from support.loopback_hub import BLOCK, Generated, LoopbackHub, Repo, blocks, hex_digest

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
SHA256 = hex_digest(WEIGHTS, "sha256")
GIT_SHA1 = hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
LFS = "/demo/tiny/resolve/main/model.safetensors"
SMALL = "/demo/tiny/resolve/main/config.json"

Ask = Callable[..., httpx.Response]


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    repos = [
        TINY,
        Repo("demo/gated", {"model.bin": b"g" * 10}, gated=True, lfs_threshold=1),
        Repo("demo/private", {"model.bin": b"p" * 10}, private=True),
    ]
    with LoopbackHub(repos) as serving:
        yield serving


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
def test_lfs_file_redirects_to_the_cdn(hub: LoopbackHub, ask: Ask, method: str) -> None:
    """Resolve tells commit, sha256 and size of an LFS file and sends to a signed URL of the other origin."""
    got = ask(LFS, method)
    assert (got.status_code, got.headers["x-repo-commit"]) == (302, TINY.commit)
    assert (got.headers["x-linked-etag"], got.headers["x-linked-size"]) == (f'"{SHA256}"', str(len(WEIGHTS)))
    assert got.headers["content-length"] != str(len(WEIGHTS))
    target = urlsplit(got.headers["location"])
    assert f"{target.scheme}://{target.netloc}" != hub.url
    assert "Expires=" in target.query
    assert "Signature=" in target.query


def test_cdn_serves_without_hub_headers(ask: Ask) -> None:
    """The CDN sends the bytes with an ETag of its own and nothing that only the hub knows."""
    got = ask(ask(LFS).headers["location"])
    assert (got.status_code, hashlib.sha256(got.content).hexdigest()) == (200, SHA256)
    assert got.headers["content-length"] == str(len(WEIGHTS))
    assert len(got.headers["etag"].strip('"')) == 32
    assert not [name for name in got.headers if name.startswith("x-")]


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1048570-1048585", 1048570, 1048586),
        ("bytes=3145728-", 3145728, None),
        ("bytes=-9", -9, None),
        ("bytes=3158000-99999999", 3158000, None),
    ],
)
def test_cdn_ranges(ask: Ask, asked: str, start: int, stop: int | None) -> None:
    """Closed, open and suffix ranges, also across blocks and beyond the end, bring exactly their bytes."""
    got = ask(ask(LFS).headers["location"], headers={"Range": asked})
    whole = WEIGHTS[0 : len(WEIGHTS)]
    assert (got.status_code, got.content) == (206, whole[start:stop])
    first = start % len(whole)
    assert got.headers["content-range"] == f"bytes {first}-{first + len(got.content) - 1}/{len(whole)}"


def test_cdn_refuses_what_it_must(hub: LoopbackHub, ask: Ask) -> None:
    """416 behind the end, 200 for several ranges or another If-Range, 400 for a token, 403 in XML if forged or late."""
    link = ask(LFS).headers["location"]
    behind = ask(link, headers={"Range": f"bytes={len(WEIGHTS)}-"})
    assert (behind.status_code, behind.headers["content-range"]) == (416, f"bytes */{len(WEIGHTS)}")
    assert ask(link, "HEAD", headers={"Range": "bytes=0-1,5-6"}).status_code == 200
    assert ask(link, "HEAD", headers={"Range": "bytes=5-6", "If-Range": '"other"'}).status_code == 200
    assert ask(link, headers={"Authorization": "Bearer x"}).status_code == 400
    forged = ask(link.replace("Expires=", "Expires=9"))
    assert (forged.status_code, forged.headers["content-type"]) == (403, "application/xml")
    hub.expire_links()
    assert (ask(link).status_code, ask(ask(LFS).headers["location"]).status_code) == (403, 200)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_small_file_takes_a_hop_on_the_hub(hub: LoopbackHub, ask: Ask, method: str) -> None:
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


def test_stops_under_way() -> None:
    """Leaving the hub cuts a download that would take hours, and a client that does not read."""
    with LoopbackHub([TINY], bytes_per_second=100) as slow, LoopbackHub([TINY]) as fast:
        socks = []
        for hub in (slow, fast):
            link = urlsplit(httpx.get(hub.url + LFS, trust_env=False).headers["location"])
            sock = socket.create_connection(("127.0.0.1", link.port))
            sock.sendall(f"GET {link.path}?{link.query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert sock.recv(10) == b"HTTP/1.1 2"
            socks.append(sock)
    for sock in socks:
        sock.close()
    assert fast.requests[-1].body_bytes_sent <= len(WEIGHTS)
