"""The tests' hub answers as the hub does: over plain HTTP, and for the hub's own client."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
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
TINY = Repo("demo/tiny", FILES, renamed_from=("old/tiny", "tiny"))
SHA256 = hex_digest(WEIGHTS, "sha256")
GIT_SHA1 = hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
TOKEN = "hf_demo"
LFS = "/demo/tiny/resolve/main/model.safetensors"
SMALL = "/demo/tiny/resolve/main/config.json"

Ask = Callable[..., httpx.Response]


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    repos = [
        TINY,
        Repo("gpt2", {"a.txt": b"bare"}),
        Repo("demo/tiny", {"a.txt": b"pull request"}, branch="refs/pr/1"),
        Repo("demo/words", {"data/w.csv": b"a,b\n"}, "dataset"),
        Repo("demo/gated", {"model.bin": b"g" * 10}, gated=True, lfs_threshold=1),
        Repo("demo/private", {"model.bin": b"p" * 10}, private=True),
    ]
    with LoopbackHub(repos, token=TOKEN) as serving:
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
    assert f"{target.scheme}://{target.netloc}" == hub.cdn_url != hub.url
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
    """416 behind the end, 200 for several ranges or another If-Range, 400 for a token, 403 in XML if forged."""
    link = ask(LFS).headers["location"]
    behind = ask(link, headers={"Range": f"bytes={len(WEIGHTS)}-"})
    assert (behind.status_code, behind.headers["content-range"]) == (416, f"bytes */{len(WEIGHTS)}")
    assert ask(link, "HEAD", headers={"Range": "bytes=0-1,5-6"}).status_code == 200
    assert ask(link, "HEAD", headers={"Range": "bytes=5-6", "If-Range": '"other"'}).status_code == 200
    assert ask(link, headers={"Authorization": "Bearer x"}).status_code == 400
    forged = ask(link.replace("Expires=", "Expires=9"))
    assert (forged.status_code, forged.headers["content-type"]) == (403, "application/xml")
    assert b"<Code>AccessDenied</Code>" in forged.content


def test_links_expire() -> None:
    """A link ends with its time or when told; a fresh one serves any range."""
    now = [1000.0]
    with (
        LoopbackHub([TINY], link_seconds=60, clock=lambda: now[0]) as hub,
        httpx.Client(base_url=hub.url, trust_env=False) as client,
    ):
        link = client.get(LFS).headers["location"]
        assert "Expires=1060&" in link
        assert client.head(link).status_code == 200
        now[0] = 1060.0
        assert (client.get(link).status_code, b"expired" in client.get(link).content) == (403, True)
        link = client.get(LFS).headers["location"]
        assert client.get(link, headers={"Range": "bytes=7-9"}).content == WEIGHTS[7:10]
        hub.expire_links()
        assert client.get(link).status_code == 403


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


def test_small_file_ranges_and_gzip(ask: Ask) -> None:
    """A small text file can be had in ranges, and gzipped without a length by who takes gzip."""
    there = ask(SMALL).headers["location"]
    assert ask(there, headers={"Range": "bytes=2-5"}).content == CONFIG[2:6]
    coded = ask(there, headers={"Accept-Encoding": "gzip"})
    assert (coded.headers["content-encoding"], coded.content) == ("gzip", CONFIG)
    assert "content-length" not in coded.headers


def test_names_and_revisions(ask: Ask) -> None:
    """Odd file names, bare ids, commits, quoted and plain slash revisions, datasets and empty files resolve."""
    for path, body in {
        "/demo/tiny/resolve/main/onnx/a%20b%23c%2Bd%25.bin": b"odd name",
        f"/demo/tiny/resolve/{TINY.commit}/onnx/deep/x.txt": b"x" * 3000,
        "/demo/tiny/resolve/main/empty": b"",
        "/demo/tiny/resolve/refs%2Fpr%2F1/a.txt": b"pull request",
        "/demo/tiny/resolve/refs/pr/1/a.txt": b"pull request",
        "/gpt2/resolve/main/a.txt": b"bare",
        "/datasets/demo/words/resolve/main/data/w.csv": b"a,b\n",
    }.items():
        assert ask(path, follow_redirects=True).content == body
    assert ask("/demo/tiny/raw/main/model.safetensors").content.startswith(b"version https://git-lfs")


def bearer(token: str) -> dict[str, dict[str, str]]:
    return {"headers": {"Authorization": f"Bearer {token}"}}


@pytest.mark.parametrize(
    ("path", "token", "status", "code"),
    [
        ("/no/such/resolve/main/f", None, 404, "RepoNotFound"),
        ("/api/models/no/such", None, 404, "RepoNotFound"),
        ("/demo/tiny/resolve/nope/config.json", None, 404, "RevisionNotFound"),
        ("/api/models/demo/tiny/revision/nope", None, 404, "RevisionNotFound"),
        ("/demo/tiny/resolve/main/nope", None, 404, "EntryNotFound"),
        ("/api/models/demo/tiny/tree/main/nope", None, 404, "EntryNotFound"),
        ("/demo/private/resolve/main/model.bin", None, 401, "RepoNotFound"),
        ("/api/models/demo/private", None, 401, "RepoNotFound"),
        ("/demo/private/resolve/main/model.bin", "hf_other", 401, None),
        ("/demo/private/resolve/main/model.bin", TOKEN, 307, None),
        ("/old/tiny/resolve/main/config.json", None, 307, None),
        ("/api/models/old/tiny/tree/main?recursive=true", None, 307, None),
        ("/demo/gated/resolve/main/model.bin", None, 401, "GatedRepo"),
        ("/demo/gated/resolve/main/model.bin", TOKEN, 302, None),
        ("/api/models/demo/gated", None, 200, None),
        ("/api/agent-harnesses", None, 404, None),
        ("/api/models/demo/tiny/tree/main?cursor=x", None, 400, None),
    ],
)
def test_refusals(ask: Ask, path: str, token: str | None, status: int, code: str | None) -> None:
    """What is absent, private, gated or renamed gets the hub's status and X-Error-Code."""
    got = ask(path, **(bearer(token) if token else {}))
    assert (got.status_code, got.headers.get("x-error-code")) == (status, code)
    if code == "EntryNotFound" and "resolve" in path:
        assert got.headers["x-repo-commit"] == TINY.commit


def test_branch_that_moves(hub: LoopbackHub, ask: Ask) -> None:
    """Publishing moves the branch; the old commit stays reachable by its hash."""
    new = Repo("demo/tiny", {"config.json": b"new"})
    hub.publish(new)
    assert ask(SMALL, follow_redirects=True).content == b"new"
    assert ask(SMALL, "HEAD").headers["x-repo-commit"] == new.commit
    assert ask(SMALL.replace("main", TINY.commit), follow_redirects=True).content == CONFIG


def test_records(hub: LoopbackHub, ask: Ask) -> None:
    """Every request of both origins is recorded with headers, status and the bytes sent."""
    ask(ask(LFS, **bearer(TOKEN)).headers["location"], headers={"Range": "bytes=10-19"})
    first, second = hub.requests
    assert (first.origin, first.method, first.path, first.status) == ("hub", "GET", LFS, 302)
    assert first.headers["authorization"] == f"Bearer {TOKEN}"
    assert (second.origin, second.status, second.body_bytes_sent) == ("cdn", 206, 10)
    assert "authorization" not in second.headers


def test_pace() -> None:
    """A throttled connection takes at least the time its pace asks for."""
    with LoopbackHub([TINY], bytes_per_second=1_000_000) as hub, httpx.Client(trust_env=False) as client:
        link = client.get(hub.url + LFS).headers["location"]
        began = time.monotonic()
        assert len(client.get(link, headers={"Range": "bytes=0-199999"}).content) == 200_000
        assert time.monotonic() - began >= 0.15


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


# The hub's own client


@pytest.fixture
def environment(tmp_path: Path) -> Callable[[LoopbackHub], dict[str, str]]:
    """An environment in which the hub's client knows this hub only, and nothing of this machine's user."""

    def of(hub: LoopbackHub) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
        flags = ("DISABLE_XET", "DISABLE_TELEMETRY", "DISABLE_UPDATE_CHECK", "DISABLE_PROGRESS_BARS")
        settings = {f"HF_HUB_{flag}": "1" for flag in flags}
        home = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
        return {**kept, **settings, **home, "HF_ENDPOINT": hub.url, "NO_PROXY": "*"}

    return of


def run(code: str, *arguments: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


HF = "import sys; from huggingface_hub.cli.hf import main; sys.exit(main())"


def test_hf_download(tmp_path: Path, environment: Callable[[LoopbackHub], dict[str, str]]) -> None:
    """`hf download` fetches a whole repository, under its old name too; the token never gets to the CDN."""
    with LoopbackHub([TINY], token=TOKEN, page_size=3) as hub:
        env = {**environment(hub), "HF_TOKEN": TOKEN}
        for name in ("demo/tiny", "old/tiny"):
            run(HF, "download", name, "--local-dir", str(tmp_path / name), env=env)
        requests = hub.requests
    for name in ("demo/tiny", "old/tiny"):
        for path, content in FILES.items():
            assert (tmp_path / name / path).read_bytes() == content[0 : len(content)]
    cdn = [request for request in requests if request.origin == "cdn"]
    assert [(request.method, request.status) for request in cdn] == [("GET", 200)] * 2
    assert not [request for request in cdn if "authorization" in request.headers]
    assert [request for request in requests if request.headers.get("authorization") == f"Bearer {TOKEN}"]


CLIENT = """
import json, sys
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.errors import RemoteEntryNotFoundError
api = HfApi()
tree = {f.path: f for f in api.list_repo_tree("demo/tiny", recursive=True)}
large = tree["model.safetensors"]
info = api.repo_info("demo/words", repo_type="dataset", files_metadata=True)
found = api.get_paths_info("demo/tiny", ["config.json", "nope"])
refs = api.list_repo_refs("demo/tiny", include_pull_requests=True)
errors = []
for name, rev, path, wanted in json.loads(sys.argv[1]):
    try:
        api.hf_hub_download(name, path, revision=rev)
    except Exception as error:
        errors.append(type(error).__name__)
print(json.dumps({
    "paths": sorted(tree), "sha256": large.lfs.sha256, "size": large.size, "blob": tree["config.json"].blob_id,
    "dataset": [info.sha, [s.rfilename for s in info.siblings]], "found": [f.path for f in found],
    "branches": [b.target_commit for b in refs.branches], "prs": [p.ref for p in refs.pull_requests],
    "errors": errors,
}))
"""


def test_hub_client_api(hub: LoopbackHub, environment: Callable[[LoopbackHub], dict[str, str]]) -> None:
    """The hub's client reads tree, info, paths and refs, and raises the error each refusal is meant to be."""
    wrong = [
        ("no/such", "main", "f", "RepositoryNotFoundError"),
        ("demo/tiny", "nope", "config.json", "RevisionNotFoundError"),
        ("demo/tiny", "main", "nope", "RemoteEntryNotFoundError"),
        ("demo/private", "main", "model.bin", "RepositoryNotFoundError"),
        ("demo/gated", "main", "model.bin", "GatedRepoError"),
    ]
    told = json.loads(run(CLIENT, json.dumps(wrong), env=environment(hub)))
    assert told["errors"] == [name for *_, name in wrong]
    assert told["paths"] == sorted([*FILES, "onnx", "onnx/deep"])
    assert (told["sha256"], told["size"], told["blob"]) == (SHA256, len(WEIGHTS), GIT_SHA1)
    assert told["dataset"][1] == ["data/w.csv"]
    assert (told["found"], told["branches"], told["prs"]) == (["config.json"], [TINY.commit], ["refs/pr/1"])
