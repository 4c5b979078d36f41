"""Where a redirect may not lead: to plain http, to a private address under whatever name, past the allow-list."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import faults
import httpx
import pytest
from engine import Bench, noise, pinned, sha256
from faulty import Answer, FaultyServer, Handler, Request, reply
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pytest_httpx import HTTPXMock
from shell import Shell

from mdl.errors import MdlError, Unsafe
from mdl.net.hosts import HUB_HOSTS, Hosts
from mdl.net.http import Http

DATA = noise(50_000)
HUB = "https://huggingface.co/f"
PRIVATE = ("127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


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
        hosts = Hosts(frozenset({"start.example"}))
        run = bench.run(pinned(f"http://start.example:{server.port}/f", DATA), hosts=hosts, stall=2.0)
        assert {request.path for request in server.requests} == {"/f"}
    assert (run.code, bench.final.exists()) == (11, False)


@pytest.mark.fault(51)
def test_a_name_that_is_bound_anew(bench: Bench, resolver: dict[str, list[str]]) -> None:
    """A name that leads elsewhere at the second question is judged by where the second connection leads."""
    with FaultyServer(faults.honest(DATA)) as server:
        resolver |= {"start.example": ["127.0.0.1"], "cdn.hf.co": ["127.0.0.2", "127.0.0.1"]}
        server.handler = faults.moved(DATA, f"http://cdn.hf.co:{server.port}/moved")
        hosts = Hosts(frozenset({"start.example"}))
        run = bench.run(pinned(f"http://start.example:{server.port}/f", DATA), hosts=hosts, stall=2.0)
        assert {request.path for request in server.requests} == {"/f"}
    assert run.code == 11


@pytest.mark.fault(175)
def test_a_connection_that_was_allowed_before(bench: Bench, resolver: dict[str, list[str]]) -> None:
    """That a private server may redirect to a private host opens no way there for a public one."""
    with FaultyServer(faults.honest(DATA)) as server:
        resolver |= {"start.example": ["127.0.0.1"], "cdn.hf.co": ["127.0.0.1"]}
        server.handler = faults.moved(DATA, f"http://cdn.hf.co:{server.port}/moved")
        with Http(Hosts(frozenset({"start.example", "127.0.0.1"})), connections=1) as http:
            with http.open("GET", f"{server.url}/f") as opened:
                opened.response.read()
            with pytest.raises(Unsafe), http.open("GET", f"http://start.example:{server.port}/f"):
                pass


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
    with Http(Hosts.of([])) as http, pytest.raises(MdlError) as caught, http.open("GET", HUB):
        pass
    assert caught.value.exit_code in (6, 11)
    assert [str(request.url) for request in httpx_mock.get_requests()] == [HUB]


ODD = [
    "https://hf.co\\.evil.org/",
    "https://evil.org%2f.hf.co/",
    "https://hf.co\t.evil.org",
    "https://evil\uff0eorg.hf.co/",
]
ODD += [
    "https://evil.org\u2044.hf.co/",
    "https://hf\u3002co/",
    "https://HF.co:443/",
    "https://[::1].hf.co/",
    "https://hf.co:/",
]


def asks_nobody_else(text: str) -> None:
    """What passes the check is a host on the list also as httpx reads it, who asks in the end; or httpx refuses it."""
    hosts = Hosts.of([])
    try:
        hosts.check(text)
        asked = httpx.URL(text)
    except (MdlError, ValueError, httpx.InvalidURL):
        return
    assert hosts.allows(asked.raw_host.decode().rstrip("."), asked.port or 443), asked


@pytest.mark.parametrize("text", ODD)
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
    commit, digest, size = "c" * 40, sha256(DATA).hex, len(DATA)
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
