"""Where a redirect may not lead: to plain http, to a private address under whatever name, past the allow-list."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pytest_httpx import HTTPXMock
from support import faults
from support.bench import Bench, pinned
from support.data import noise, sha256
from support.faulty_server import Answer, FaultyServer, Handler, Request, reply
from support.shell import Shell

from mdl.cancel import CancelToken
from mdl.catalog.model import CatalogFile, Model
from mdl.config import Config
from mdl.errors import MdlError, Unsafe
from mdl.http.allowlist import HUB_HOSTS, AllowList, is_private
from mdl.http.client import HttpClient
from mdl.paths import RelPath
from mdl.workspace import Workspace

DATA = noise(50_000)
HUB = "https://huggingface.co/f"
PRIVATE = ("127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0")


linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on the loopback")


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the names of ``*.example`` and ``*.hf.co`` are resolved to, one answer a question; the last one stays."""
    real, answers = socket.getaddrinfo, dict[str, list[str]]()

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        known = answers.get(str(host))
        return real((known.pop(0) if len(known) > 1 else known[0]) if known else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return answers


@pytest.mark.fault(50, 51)
@pytest.mark.parametrize("status", faults.REDIRECTS)
@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_behind_a_hub_host(
    bench: Bench, resolver: dict[str, list[str]], status: int, address: str
) -> None:
    """A host that only a suffix allows and whose name leads to this machine is refused before a byte is sent to it."""
    with FaultyServer(faults.honest(DATA)) as server:
        resolver |= {"start.example": ["127.0.0.1"], "cdn.hf.co": [address]}
        server.handler = faults.moved(DATA, f"http://cdn.hf.co:{server.port}/moved", status=status)
        hosts = AllowList(frozenset({"start.example"}))
        run = bench.run(pinned(f"http://start.example:{server.port}/f", DATA), hosts=hosts, stall=2.0)
        assert {request.path for request in server.requests} == {"/f"}
    assert (run.code, bench.final.exists()) == (11, False)


@pytest.mark.fault(51)
def test_a_name_that_is_bound_anew(bench: Bench, resolver: dict[str, list[str]]) -> None:
    """A name that leads elsewhere at the second question is judged by where the second connection leads."""
    with FaultyServer(faults.honest(DATA)) as server:
        resolver |= {"start.example": ["127.0.0.1"], "cdn.hf.co": ["127.0.0.2", "127.0.0.1"]}
        server.handler = faults.moved(DATA, f"http://cdn.hf.co:{server.port}/moved")
        hosts = AllowList(frozenset({"start.example"}))
        run = bench.run(pinned(f"http://start.example:{server.port}/f", DATA), hosts=hosts, stall=2.0)
        assert {request.path for request in server.requests} == {"/f"}
    assert run.code == 11


@pytest.mark.fault(175)
def test_a_connection_that_was_allowed_before(bench: Bench, resolver: dict[str, list[str]]) -> None:
    """That a private server may redirect to a private host opens no way there for a public one."""
    with FaultyServer(faults.honest(DATA)) as server:
        resolver |= {"start.example": ["127.0.0.1"], "cdn.hf.co": ["127.0.0.1"]}
        server.handler = faults.moved(DATA, f"http://cdn.hf.co:{server.port}/moved")
        with HttpClient(AllowList(frozenset({"start.example", "127.0.0.1"})), connections=1) as http:
            with http.open("GET", f"{server.url}/f") as opened:
                opened.response.read()
            with pytest.raises(Unsafe), http.open("GET", f"http://start.example:{server.port}/f"):
                pass


PUBLIC = "127.0.0.2"
"""An address of this machine that the tests below take for a public one."""


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(address: str) -> bool:
        return address != PUBLIC and is_private(address)

    monkeypatch.setattr("mdl.http.connection.is_private", judged)
    monkeypatch.setattr("mdl.http.client.is_private", judged)


NAMED = [AllowList.of(["start.example"]), AllowList.of([], ["start.example"])]


@linux
@pytest.mark.fault(234)
@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("named", NAMED, ids=["catalog", "settings"])
def test_a_named_host_that_turns_private(resolver: dict[str, list[str]], named: AllowList) -> None:
    """A host that was at a public address is not asked at a private one later, whoever named it."""
    resolver["start.example"] = [PUBLIC, "127.0.0.1"]
    gone = faults.with_headers(faults.honest(b"[]"), ("Connection", "close"))
    with FaultyServer(gone, address=PUBLIC) as outside, FaultyServer(faults.honest(b"[]"), port=outside.port) as inside:
        with HttpClient(named) as http:
            assert http.get_json(f"http://start.example:{outside.port}/1")[0] == []
            with pytest.raises(Unsafe, match="led to a public one before"):
                http.get_json(f"http://start.example:{outside.port}/2")
        assert inside.requests == []


@linux
@pytest.mark.fault(234)
@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("named", NAMED, ids=["catalog", "settings"])
def test_a_redirect_to_its_own_name(resolver: dict[str, list[str]], named: AllowList) -> None:
    """A public host does not lead to a private one by sending to another port of its own name."""
    resolver["start.example"] = [PUBLIC, "127.0.0.1"]
    with FaultyServer(faults.honest(b"[]")) as inside:
        away = faults.redirects(f"http://start.example:{inside.port}/x")
        with (
            FaultyServer(away, address=PUBLIC) as outside,
            HttpClient(named) as http,
            pytest.raises(Unsafe, match="private address"),
        ):
            http.get_json(f"http://start.example:{outside.port}/1")
        assert inside.requests == []


@linux
@pytest.mark.fault(235)
@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("target", ["127.0.0.1", "localhost", "nas.example"])
@pytest.mark.parametrize("trusted", [True, False])
def test_from_a_public_host_to_a_private_one(resolver: dict[str, list[str]], target: str, trusted: bool) -> None:
    """A public host leads to a private one that the catalog names only if the user's settings allow that."""
    resolver |= {"start.example": [PUBLIC], "nas.example": ["127.0.0.1"]}
    named = AllowList.of(["start.example"], [target]) if trusted else AllowList.of(["start.example", target])
    with FaultyServer(faults.honest(b"[]")) as inside:
        away = faults.redirects(f"http://{target}:{inside.port}/x")
        with FaultyServer(away, address=PUBLIC) as outside, HttpClient(named) as http:
            assert http.get_json(f"http://{target}:{inside.port}/by-itself")[0] == []
            if trusted:
                assert http.get_json(f"http://start.example:{outside.port}/1")[0] == []
            else:
                with pytest.raises(Unsafe, match="private address") as caught:
                    http.get_json(f"http://start.example:{outside.port}/1")
                assert "MDL_ALLOW_HOSTS" in str(caught.value.hint)
        assert len(inside.requests) == (2 if trusted else 1)


@linux
@pytest.mark.fault(234, 235)
@pytest.mark.usefixtures("public")
def test_a_private_mirror_of_a_public_file(bench: Bench, resolver: dict[str, list[str]]) -> None:
    """A mirror on a private network, named in the catalog, is asked where the public host fails."""
    resolver |= {"start.example": [PUBLIC], "mirror.example": ["127.0.0.1"]}
    with FaultyServer(faults.answers(404), address=PUBLIC) as outside, FaultyServer(faults.honest(DATA)) as mirror:
        file = pinned(
            f"http://start.example:{outside.port}/f", DATA, mirrors=[f"http://mirror.example:{mirror.port}/f"]
        )
        run = bench.run(file, hosts=AllowList.of(["start.example", "mirror.example"]))
    assert run.code == 0


@linux
@pytest.mark.fault(235)
@pytest.mark.usefixtures("public")
def test_a_mirror_that_leads_to_loopback(bench: Bench, resolver: dict[str, list[str]]) -> None:
    """A public mirror that redirects to this machine is refused: 11, and nothing is asked there."""
    resolver |= {"start.example": ["127.0.0.1"], "mirror.example": [PUBLIC]}
    with FaultyServer(faults.answers(404)) as first:
        away = faults.redirects(f"http://start.example:{first.port}/secret")
        with FaultyServer(away, address=PUBLIC) as mirror:
            url = f"http://start.example:{first.port}/f"
            file = pinned(url, DATA, mirrors=[f"http://mirror.example:{mirror.port}/f"])
            bench.run(file, hosts=AllowList.of(["start.example", "mirror.example"]))
        assert {request.path for request in first.requests} == {"/f"}


DOWN = (
    "http://cdn.hf.co/x",
    "HTTP://cdn.hf.co/x",
    "Http://cdn.hf.co/x",
    "hTTp://huggingface.co/f",
    "HTTP:/x",
    "http:x",
)


@pytest.mark.fault(46)
@pytest.mark.parametrize("status", [301, 307])
@pytest.mark.parametrize("location", DOWN)
def test_https_never_becomes_http(httpx_mock: HTTPXMock, location: str, status: int) -> None:
    """However the scheme is written, a redirect from https to http is refused, and nobody is asked over http."""
    httpx_mock.add_response(url=HUB, status_code=status, headers={"Location": location})
    httpx_mock.add_response(url=httpx.URL("http://cdn.hf.co/x"), is_optional=True)
    httpx_mock.add_response(url=httpx.URL("http://huggingface.co/f"), is_optional=True)
    with HttpClient(AllowList.of([])) as http, pytest.raises(MdlError) as caught, http.open("GET", HUB):
        pass
    assert caught.value.exit_code in (6, 11)
    assert [str(request.url) for request in httpx_mock.get_requests()] == [HUB]


UNREADABLE_ERRNOS = [
    "https://hf.co\\.evil.org/",
    "https://evil.org%2f.hf.co/",
    "https://hf.co\t.evil.org",
    "https://evil\uff0eorg.hf.co/",
]
UNREADABLE_ERRNOS += [
    "https://evil.org\u2044.hf.co/",
    "https://hf\u3002co/",
    "https://HF.co:443/",
    "https://[::1].hf.co/",
    "https://hf.co:/",
]


def asks_nobody_else(text: str) -> None:
    """What passes the check is a host on the list also as httpx reads it, who asks in the end; or httpx refuses it."""
    hosts = AllowList.of([])
    try:
        hosts.check(text)
        asked = httpx.URL(text)
    except (MdlError, ValueError, httpx.InvalidURL):
        return
    assert hosts.allows(asked.raw_host.decode().rstrip("."), asked.port or 443), asked


@pytest.mark.parametrize("text", UNREADABLE_ERRNOS)
def test_odd_spellings_of_a_host(text: str) -> None:
    """Two parsers never read two hosts out of one address: the one that is checked is the one that is asked."""
    asks_nobody_else(text)


HOSTS = st.sampled_from([*HUB_HOSTS[::3], ".hf.co", "evil.org", "@", ":443", "[::1]", "127.0.0.1", "%2e", "%00"])


@settings(deadline=None, max_examples=60)
@given(st.lists(HOSTS | st.sampled_from("./\\?#@:%\t\n \u3002\uff0e\uff0f\u2100\u00ad\u200d"), max_size=5).map("".join))
@example("evil.org\u3002hf.co")
def test_no_address_has_two_hosts(rest: str) -> None:
    """The same for whatever else may follow the scheme."""
    asks_nobody_else(f"https://{rest}")


def elsewhere(port: int) -> Handler:
    """A hub that sends who wants its one file to a host that nobody named."""
    commit, digest, size = "c" * 40, sha256(DATA), len(DATA)
    tree = [{"type": "file", "path": "m.bin", "size": size, "oid": "1" * 40, "lfs": {"oid": digest, "size": size}}]
    facts = {"X-Repo-Commit": commit, "X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(size), "ETag": f'"{digest}"'}
    away = faults.with_headers(faults.redirects(f"http://localhost:{port}/m.bin"), *facts.items())

    def handler(request: Request, number: int) -> Answer:
        if "/api/" not in request.path:
            return away(request, number)
        return reply(200, json.dumps({"sha": commit} if "/revision/" in request.path else tree).encode())

    return handler


def test_the_hubs_own_client_stays_with_the_hub(tmp_path: Path) -> None:
    """Also with --via hub nobody is asked who is not on the allow-list: 11, by name."""
    with FaultyServer(faults.honest(DATA)) as other, FaultyServer(elsewhere(other.port)) as hub:
        shell = Shell(tmp_path, hub.url, {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"})
        ran = shell.run("get", "hf:org/tiny", "--via", "hub")
        assert other.requests == []
    assert (ran.code, "localhost" in ran.err) == (11, True), ran.err


@pytest.mark.fault(235)
def test_only_settings_are_trusted(tmp_path: Path) -> None:
    """MDL_ALLOW_HOSTS may name a host to which a public one leads on a private network; the catalog and HF_ENDPOINT
    name hosts to be asked by themselves."""
    files = (CatalogFile(RelPath.parse("f"), "http://nas.example/f"),)
    environ = {"HOME": str(tmp_path), "MDL_ALLOW_HOSTS": "cache.example:8080", "HF_ENDPOINT": "https://hub.example"}
    allowed = Workspace(Config({}, environ), CancelToken(), print).hosts([Model("m", files=files)], ["box.example"])
    assert all(allowed.is_named(host, 80) for host in ("nas.example", "hub.example", "box.example"))
    assert not any(
        allowed.is_trusted(host, 80) for host in ("nas.example", "hub.example", "box.example", "cache.example")
    )
    assert allowed.is_named("cache.example", 8080)
    assert allowed.is_trusted("cache.example", 8080)
