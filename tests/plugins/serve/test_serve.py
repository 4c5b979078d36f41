"""``mdl serve``: the hub's protocol, of what is on this disk, for the real clients; only what is verified and open."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from support.data import MIB, files_below, noise
from support.hf_cache import Hf, HfError
from support.loopback_hub import LoopbackHub, Repo
from support.polling import until
from support.serving import TOKEN, WITH_TOKEN, client_of, connected, raw, served
from support.shell import Shell, machine, with_environ

from mdl.plugins.serve import connection, repositories
from mdl.plugins.serve.server import Serving

BIG, CONFIG = noise(3 * MIB, 7), b'{"a": 1}\n'
FILES = {"config.json": CONFIG, "model.bin": BIG, "vae/دست.txt": b"hello\n"}
TINY = Repo("org/tiny", FILES)
OF_CACHE = Repo("org/cached", {"config.json": CONFIG, "w.bin": noise(2 * MIB, 8)}, repo_type="dataset")
PART = Repo("org/part", {f"{n}.txt": b"%d" % n for n in range(5)})
SECRET = Repo("org/secret", {"config.json": b'{"secret": 1}'})
CATALOG = """schema = 1
[models.part]
source = "hf:org/part"
include = ["1.txt", "2.txt"]
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A machine with models in both layouts. One is of a repository that was gated after it was fetched, and that its
    hub says now. Three others were fetched by their commits: one with a token, one without, and the bytes of one were
    taken from the first of them."""
    home = tmp_path_factory.mktemp("head")
    unknown = Repo("org/unknown", {"config.json": b'{"unknown": 1}'})
    copy, pinned = Repo("org/copy", unknown.files), Repo("org/pinned", {"config.json": b'{"pinned": 1}'})
    with LoopbackHub([TINY, OF_CACHE, PART, SECRET, unknown, copy, pinned]) as hub:
        shell = machine(home, CATALOG, hub.url)
        client_of(shell).download(["hf:org/tiny", "part", "hf:org/secret"]).raise_for_errors()
        client_of(shell, layout="hf-cache").download("hf:datasets/org/cached").raise_for_errors()
        hub.publish(Repo("org/secret", SECRET.files, gated=True))
        client_of(shell).download("hf:org/secret").raise_for_errors()
        with_token = with_environ(shell, HF_TOKEN="hf_" + "x" * 20)
        client_of(with_token).download(f"hf:org/unknown@{unknown.commit}").raise_for_errors()
        for repo in (copy, pinned):
            client_of(shell).download(f"hf:{repo.id}@{repo.commit}").raise_for_errors()
    return shell


@pytest.fixture(scope="module")
def server(shell: Shell) -> Iterator[Serving]:
    with served(shell) as server:
        yield server


def test_the_hubs_own_client(server: Serving, hf: Hf, tmp_path: Path) -> None:
    """huggingface_hub takes a snapshot and a single file from it, verifies them by its listing, and gets its own errors
    for what is not here."""
    where = {"endpoint": server.url, "cache_dir": tmp_path / "cache", "token": False}
    found = Path(hf("snapshot", repo_id="org/tiny", **where))
    assert files_below(found) == FILES
    assert found.name == TINY.commit
    one = hf("file", repo_id="org/cached", repo_type="dataset", filename="w.bin", revision=OF_CACHE.commit, **where)
    assert Path(one).read_bytes() == OF_CACHE.files["w.bin"]
    checked = hf("verify", endpoint=server.url, repo_id="org/tiny", cache_dir=tmp_path / "cache")
    assert checked == [3, 0, [], []] or checked == [3, 0, None, None]
    for words, name in (
        ({"repo_id": "org/none", "filename": "x"}, "GatedRepoError"),
        ({"repo_id": "org/tiny", "filename": "nope"}, "EntryNotFoundError"),
        ({"repo_id": "org/tiny", "filename": "config.json", "revision": "v9"}, "RevisionNotFoundError"),
        ({"repo_id": "org/secret", "filename": "config.json"}, "GatedRepoError"),
    ):
        with pytest.raises(HfError, match=name):
            hf("file", **words, **where)


def test_mdl_itself(server: Serving, tmp_path: Path) -> None:
    """mdl fetches from it, and verifies every file."""
    other = machine(tmp_path, endpoint=server.url)
    report = client_of(other).download(["hf:org/tiny", "hf:datasets/org/cached"])
    report.raise_for_errors()
    verified = {file.path: file.verified for model in report.models for file in model.files}
    assert verified["model.bin"] == verified["w.bin"] == "sha256"
    assert verified["vae/دست.txt"] == "git-sha1"
    assert (other.models / "org--tiny" / "model.bin").read_bytes() == BIG


def test_what_a_file_is_sent_with(server: Serving) -> None:
    """The headers are the hub's; a HEAD has the same ones as a GET; the branch is a commit; one range is a part."""
    with httpx.Client(base_url=server.url, verify=False, trust_env=False) as http:
        url = "/org/tiny/resolve/main/model.bin"
        got, head = http.get(url), http.head(url)
        digest = hashlib.sha256(BIG).hexdigest()
        assert (got.status_code, got.content) == (200, BIG)
        assert {**head.headers, "date": ""} == {**got.headers, "date": ""}
        names = ("etag", "x-linked-etag", "x-linked-size", "x-repo-commit", "accept-ranges", "content-length")
        expected = [f'"{digest}"', f'"{digest}"', str(len(BIG)), TINY.commit, "bytes", str(len(BIG))]
        assert [got.headers[name] for name in names] == expected
        part = http.get(url, headers={"Range": "bytes=1000000-1000099"})
        assert (part.status_code, part.content) == (206, BIG[1000000:1000100])
        assert part.headers["content-range"] == f"bytes 1000000-1000099/{len(BIG)}"
        gone = http.get(url, headers={"Range": f"bytes={len(BIG)}-"})
        assert (gone.status_code, gone.headers["content-range"]) == (416, f"bytes */{len(BIG)}")
        known = http.get(url, headers={"If-None-Match": got.headers["etag"]})
        assert (known.status_code, known.content, "content-length" in known.headers) == (304, b"", False)
        small = http.get(f"/org/tiny/resolve/{TINY.commit}/vae/%D8%AF%D8%B3%D8%AA.txt")
        blob = hashlib.sha1(b"blob 6\0hello\n").hexdigest()
        assert (small.content, small.headers["etag"]) == (b"hello\n", f'"{blob}"')


def test_what_the_api_tells(server: Serving) -> None:
    """Listings hold what is here, as the hub words it; that a repository is not here as a whole is a warning."""
    with httpx.Client(base_url=f"{server.url}/api/", verify=False, trust_env=False) as http:
        tree = http.get("models/org/tiny/tree/main", params={"recursive": "true"}).json()
        assert [item["path"] for item in tree] == ["vae", "config.json", "model.bin", "vae/دست.txt"]
        assert (tree[2]["size"], tree[2]["lfs"]["oid"]) == (len(BIG), hashlib.sha256(BIG).hexdigest())
        top = http.get("models/org/tiny/tree/main").json()
        assert [item["path"] for item in top] == ["vae", "config.json", "model.bin"]
        assert http.get("models/org/tiny/tree/main/vae").json()[0]["path"] == "vae/دست.txt"
        info = http.get("datasets/org/cached/revision/main").json()
        assert (info["sha"], info["private"], info["gated"]) == (OF_CACHE.commit, False, False)
        asked = http.post("models/org/tiny/paths-info/main", data={"paths": ["vae", "model.bin", "nope"]}).json()
        assert [item["type"] for item in asked] == ["directory", "file"]
        assert http.get("models/org/tiny/refs").json()["branches"][0]["targetCommit"] == TINY.commit
        part = http.get("models/org/part/tree/main")
        assert [item["path"] for item in part.json()] == ["1.txt", "2.txt"]
        assert "only 2 of the 5 files" in part.headers["x-hf-warning"]
        for path, code in {
            "models/org/a--b": "RepoNotFound",
            "models/org/tiny/tree/v9": "RevisionNotFound",
            "models/org/tiny/tree/main/nope": "EntryNotFound",
        }.items():
            refused = http.get(path)
            assert (refused.status_code, refused.headers["x-error-code"]) == (404, code)


@pytest.mark.fault(541)
def test_gated_and_private(http: httpx.Client, shell: Shell) -> None:
    """Of a repository that is gated, or of which its hub did not say that it is not, nothing is served without
    ``gated``; that its bytes came without a token proves nothing. What is not here is answered in the same way."""
    names = ("org/secret",)
    with served(shell) as careful, served(shell, gated=True, token=TOKEN) as open_handed:
        for name in names:
            for path in (f"/{name}/resolve/main/config.json", f"/api/models/{name}", f"/api/models/{name}/tree/main"):
                refused, absent = http.get(careful.url + path), http.get(careful.url + path.replace(name, "org/none"))
                assert refused.text.replace(name, "org/none") == absent.text
                assert {**refused.headers, "date": ""}.keys() == {**absent.headers, "date": ""}.keys()
                assert absent.status_code == 403
                assert (refused.status_code, refused.headers["x-error-code"]) == (403, "GatedRepo")
                assert b'": 1' not in refused.content
                assert http.get(open_handed.url + path, headers=WITH_TOKEN).status_code == 200
                assert http.get(open_handed.url + path).status_code == 401
        none = f"{open_handed.url}/org/none/resolve/main/config.json"
        assert http.get(none, headers=WITH_TOKEN).status_code == 404
        for name in ("org/unknown", "org/copy", "org/pinned"):  # public, as the hub said of each commit
            [commit] = {row["sha"] for row in [http.get(f"{careful.url}/api/models/{name}").json()]}
            assert http.get(f"{careful.url}/{name}/resolve/{commit}/config.json").status_code == 200


@pytest.mark.fault(542)
def test_only_what_is_verified(http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was changed, or is a link now, is not served, not even before the table is made anew; nor is one
    without a receipt."""
    monkeypatch.setattr(repositories, "LOOK_AGAIN", 3600.0)
    with LoopbackHub([TINY]) as hub:
        here = machine(tmp_path, endpoint=hub.url)
        folder = client_of(here).get("hf:org/tiny")
    (folder / "stranger.bin").write_bytes(b"no receipt")
    with served(here) as server:
        url = f"{server.url}/org/tiny/resolve/main"
        assert http.get(f"{url}/config.json").content == CONFIG
        (folder / "config.json").write_bytes(CONFIG.replace(b"1", b"2"))
        (folder / "model.bin").rename(tmp_path / "elsewhere")
        (folder / "model.bin").symlink_to(tmp_path / "elsewhere")
        for name in ("config.json", "model.bin", "stranger.bin"):
            assert http.get(f"{url}/{name}").status_code == 404, name


HOSTILE = [
    "/org/tiny/resolve/main/../../../../etc/passwd",
    "/org/tiny/resolve/main/..%2f..%2f..%2fetc%2fpasswd",
    "/org/tiny/resolve/main/%2e%2e/%2e%2e/config.json",
    "/org/tiny/resolve/main/config.json%00.txt",
    "/org/tiny/resolve/main//etc/passwd",
    "/org/tiny/resolve/main/.mdl/receipts",
    "/org/tiny/resolve/..%2f..%2f/config.json",
    "/../../org/tiny/resolve/main/config.json",
    "/%2e%2e/resolve/main/config.json",
    "/org/tiny/resolve/main/" + "a/" * 5000,
    "/" + "%2e%2e%2f" * 800,
    "/api/models/..%2f..%2fetc/tree/main",
    "/api/training/..%2f..%2fetc/download/model",
    "/api/training/%2e%2e/download/model",
    "/api/training/jobs/..%2f..",
    "http://127.0.0.1/org/tiny/resolve/main/config.json",
    "*",
    "/org/tiny/resolve/main/config.json\x01",
]


@pytest.mark.fault(543)
@pytest.mark.parametrize("target", HOSTILE, ids=range(len(HOSTILE)))
def test_a_path_leads_nowhere(server: Serving, target: str) -> None:
    """A path that climbs, is coded twice, holds a NUL or is far too long is refused; nothing of the disk is told."""
    answer = raw(server.url, target)
    assert int(answer.split()[1]) in (400, 404, 414), answer[:200]
    assert b"root:" not in answer
    assert CONFIG not in answer


def test_no_listing_and_no_writing(http: httpx.Client, server: Serving) -> None:
    """A folder is not listed, and nothing is written, whatever the method."""
    for path in ("/org/tiny/resolve/main/vae", "/org/tiny/resolve/main/", "/org", "/models"):
        assert http.get(server.url + path).status_code == 404
    for method in ("PUT", "DELETE", "PATCH", "POST"):
        assert http.request(method, f"{server.url}/org/tiny/resolve/main/config.json").status_code == 405


@pytest.mark.fault(544)
def test_the_name_of_another_host(http: httpx.Client, server: Serving) -> None:
    """Without a token only this machine's own names are answered: a page of another site that has its name lead here
    gets nothing."""
    for name in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "169.254.169.254"):
        answer = http.get(f"{server.url}/api/models/org/tiny", headers={"Host": name})
        assert (answer.status_code, b"sha" in answer.content) == (421, False), name
    for name in ("localhost:8400", "127.0.0.1", "[::1]:8400", "127.8.0.1"):
        assert http.get(f"{server.url}/api/models/org/tiny", headers={"Host": name}).status_code == 200, name


@pytest.mark.fault(545)
def test_the_token(http: httpx.Client, shell: Shell) -> None:
    """With a token every address needs it, as programs send it or as the password that a browser asks for."""
    with served(shell, token=TOKEN) as server:
        wrong = {"Authorization": f"Bearer {TOKEN}x"}
        for path in ("/", "/metrics", "/api/status", "/api/models/org/tiny", "/org/tiny/resolve/main/config.json"):
            assert [http.get(server.url + path, headers=sent).status_code for sent in ({}, wrong)] == [401, 401], path
        file = f"{server.url}/org/tiny/resolve/main/config.json"
        assert http.get(file, headers={"Authorization": "Basic !!"}).status_code == 401
        assert http.get(file, auth=(TOKEN, "")).status_code == 401
        assert http.get(file, headers=WITH_TOKEN).content == http.get(file, auth=("any", TOKEN)).content == CONFIG
        assert http.get(file, headers=WITH_TOKEN | {"Host": "head.example"}).status_code == 200  # behind a proxy
        assert "WWW-Authenticate" in http.get(server.url).headers
        of_other_site = WITH_TOKEN | {"Origin": "http://evil.example"}  # the browser has the token
        assert http.get(f"{server.url}/api/models/org/tiny", headers=of_other_site).status_code == 403
        assert (
            http.get(f"{server.url}/api/models/org/tiny", headers=WITH_TOKEN | {"Origin": server.url}).status_code
            == 200
        )


@pytest.mark.fault(546)
def test_slow_clients(http: httpx.Client, server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that never ends its request, byte by byte or not at all, and one that takes nothing of a file, lose
    their connections; others are served meanwhile."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(connection, "STALL_SECONDS", 0.3)
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(server.url, text)) for text in ("", "GET / HTTP/1.1\r\nHost: a\r\nX: ")]
        deaf = stack.enter_context(socket.socket())
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(silent[0].getpeername())
        deaf.sendall(b"GET /org/tiny/resolve/main/model.bin HTTP/1.1\r\nHost: localhost\r\n\r\n" * 9)
        assert http.get(f"{server.url}/org/tiny/resolve/main/config.json").content == CONFIG
        assert all(_ends(one) for one in silent)
        until(lambda: server.traffic.files_open == 0)
        assert _ends(deaf)


def _ends(sock: socket.socket) -> bool:
    """Whether the other side closes the connection."""
    try:
        while sock.recv(2**16):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.fault(547)
def test_200_clients_at_once(server: Serving) -> None:
    """200 clients that hold their connections and read slowly at first all get the right bytes."""
    before = server.traffic.requests[206]

    async def one(everybody: asyncio.Barrier) -> bytes:
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**14)
        writer.write(
            b"GET /org/tiny/resolve/main/model.bin HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-262143\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        await everybody.wait()
        body = await reader.readexactly(2**18)
        writer.close()
        return hashlib.sha256(body).digest()

    async def all_of_them() -> set[bytes]:
        everybody = asyncio.Barrier(200)
        return set(await asyncio.gather(*(one(everybody) for _ in range(200))))

    assert asyncio.run(all_of_them()) == {hashlib.sha256(BIG[: 2**18]).digest()}
    until(lambda: server.traffic.requests[206] == before + 200)


def test_pipelined_requests(server: Serving) -> None:
    """Requests that come in one go are answered one after the other, files too."""
    ask = "GET /org/tiny/resolve/main/{} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(server.url, ask.format("config.json") * 2 + ask.format("vae/%D8%AF%D8%B3%D8%AA.txt")) as sock:
        found = b""
        while not found.endswith(b"hello\n"):
            found += sock.recv(2**16)
    assert found.count(CONFIG) == 2


def test_new_files_appear(http: httpx.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is fetched while it serves is there soon; what is newer at its branch takes the place of the old commit,
    which stays."""
    monkeypatch.setattr(repositories, "LOOK_AGAIN", 0.0)
    with LoopbackHub([Repo("org/new", {"a.txt": b"1", "b.txt": b"same"})]) as hub:
        here = machine(tmp_path / "new", endpoint=hub.url)
        with served(here) as server:
            assert http.get(f"{server.url}/api/models/org/new").status_code == 403
            client_of(here).get("hf:org/new")
            first = http.get(f"{server.url}/api/models/org/new").json()
            newer = Repo("org/new", {"a.txt": b"2", "b.txt": b"same"})
            hub.publish(newer)
            client_of(here).plan("hf:org/new")
            assert http.get(f"{server.url}/api/models/org/new").json()["sha"] == first["sha"]  # seen, but not fetched
            client_of(here).get("hf:org/new")
            second = http.get(f"{server.url}/api/models/org/new").json()
            assert first["sha"] != second["sha"] == newer.commit
            assert [one["rfilename"] for one in second["siblings"]] == ["a.txt", "b.txt"]
            assert http.get(f"{server.url}/org/new/resolve/main/a.txt").content == b"2"
            assert http.get(f"{server.url}/org/new/resolve/{first['sha']}/b.txt").content == b"same"
            assert http.get(f"{server.url}/org/new/resolve/{first['sha']}/a.txt").status_code == 404


def test_metrics(http: httpx.Client, server: Serving) -> None:
    """Prometheus reads requests by status, bytes that were sent, and files that are open."""
    http.get(f"{server.url}/org/tiny/resolve/main/model.bin")
    http.get(f"{server.url}/nothing")
    until(lambda: server.traffic.running == 0)
    lines = http.get(f"{server.url}/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert int(values['mdl_serve_requests_total{status="200"}']) >= 1
    assert int(values['mdl_serve_requests_total{status="404"}']) >= 1
    assert int(values["mdl_serve_sent_bytes_total"]) >= len(BIG)
    assert values["mdl_serve_files_open"] == "0"
    assert "# TYPE mdl_serve_requests_total counter" in lines
