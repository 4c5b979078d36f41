"""Where a redirect may not lead: to plain http, to a private address under any name, past the allow-list."""

from __future__ import annotations

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
from support.data import noise
from support.faulty_server import FaultyServer
from support.long import examples
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Shell

from mdl.cancel import CancelToken
from mdl.catalog.model import CatalogFile, Model
from mdl.config.settings import Config
from mdl.errors import MdlError, Unsafe
from mdl.net.allowlist import HUB_HOSTS, AllowList, is_private
from mdl.net.client import HttpClient
from mdl.net.policy import Limits
from mdl.network_access import NetworkAccess
from mdl.paths import RelPath
from mdl.redact import Secrets

DATA = noise(50_000)
HUB = "https://huggingface.co/f"
Names = dict[str, list[str]]

PUBLIC, PRIVATE = "127.0.0.2", "127.0.0.1"
"""Two addresses of this machine. Tests with the fixture `public` take the first one for a public address."""


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Names:
    """The addresses that a name is resolved to, one for each look-up; the last one stays."""
    real, answers = socket.getaddrinfo, Names()

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        known = answers.get(str(host))
        return real((known.pop(0) if len(known) > 1 else known[0]) if known else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return answers


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has all of 127.0.0.0/8 on the loopback")
    for module in ("connection", "follower", "credentials"):
        monkeypatch.setattr(f"mdl.net.{module}.is_private", lambda one: one != PUBLIC and is_private(one))


BEHIND_A_HUB_HOST = [
    *((status, [place], False) for status in faults.REDIRECTS for place in (PRIVATE, "::ffff:127.0.0.1", "0.0.0.0")),
    (302, [PUBLIC, PRIVATE], False),
    (302, [PRIVATE], True),
]


@pytest.mark.fault(50, 51)
@pytest.mark.parametrize(("status", "addresses", "named"), BEHIND_A_HUB_HOST)
def test_private_address_behind_a_hub_host(
    bench: Bench, resolver: Names, request: pytest.FixtureRequest, status: int, addresses: list[str], named: bool
) -> None:
    """A host that only a suffix allows and whose name leads to this machine, at the first look-up or the second, is
    refused before a byte is sent to it. If it was named itself, the redirect is followed."""
    if PUBLIC in addresses:
        request.getfixturevalue("public")
    with FaultyServer(faults.honest(DATA)) as server:
        resolver |= {"start.example": [PRIVATE], "cdn.hf.co": list(addresses)}
        server.handler = faults.moved(DATA, f"http://cdn.hf.co:{server.port}/moved", status=status)
        hosts = AllowList(frozenset({"start.example", "cdn.hf.co"} if named else {"start.example"}))
        run = bench.run(pinned(f"http://start.example:{server.port}/f", DATA), hosts=hosts, stall=2.0)
        paths = {one.path for one in server.requests}
    assert (run.code, bench.final.exists()) == ((0, True) if named else (11, False))
    assert paths == ({"/f", "/moved"} if named else {"/f"})


@pytest.mark.fault(175)
def test_connection_that_was_allowed_before(resolver: Names) -> None:
    """A connection to a private host that a private server's redirect opened is not used for a public server's one."""
    with FaultyServer(faults.honest(DATA)) as server:
        resolver |= {"start.example": [PRIVATE], "cdn.hf.co": [PRIVATE]}
        server.handler = faults.moved(DATA, f"http://cdn.hf.co:{server.port}/moved")
        with HttpClient(AllowList(frozenset({"start.example", "127.0.0.1"})), limits=Limits(connections=1)) as http:
            with http.open("GET", f"{server.url}/f") as opened:
                opened.response.read()
            with pytest.raises(Unsafe), http.open("GET", f"http://start.example:{server.port}/f"):
                pass


@pytest.mark.fault(234)
@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("by", ["catalog", "settings"])
@pytest.mark.parametrize("redirected", [True, False])
def test_host_that_turns_private(resolver: Names, by: str, redirected: bool) -> None:
    """A host that was at a public address is not asked at a private one later, not even if it was named itself, nor by
    a redirect to another port of its own name."""
    resolver["start.example"] = [PUBLIC, PRIVATE]
    named = AllowList.of(["start.example"]) if by == "catalog" else AllowList.of([], ["start.example"])
    right = faults.honest(b"[]")
    with (
        FaultyServer(faults.with_headers(right, ("Connection", "close")), address=PUBLIC) as outside,
        FaultyServer(right, port=0 if redirected else outside.port) as inside,
        HttpClient(named) as http,
    ):
        url = f"http://start.example:{outside.port}"
        if redirected:
            outside.handler = faults.redirects(f"http://start.example:{inside.port}/x")
        else:
            assert http.json("GET", f"{url}/1")[0] == []
        with pytest.raises(Unsafe, match=r"private address.*, and led to a public one before"):
            http.json("GET", f"{url}/2")
        assert inside.requests == []


@pytest.mark.fault(235)
@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("target", ["127.0.0.1", "localhost", "nas.example"])
@pytest.mark.parametrize("trusted", [True, False])
def test_public_host_to_a_private_one(resolver: Names, target: str, trusted: bool) -> None:
    """A public host leads to a private one that the catalog names only if the user's settings allow that."""
    resolver |= {"start.example": [PUBLIC], "nas.example": [PRIVATE]}
    named = AllowList.of(["start.example"], [target]) if trusted else AllowList.of(["start.example", target])
    with FaultyServer(faults.honest(b"[]")) as inside:
        away = faults.redirects(f"http://{target}:{inside.port}/x")
        with FaultyServer(away, address=PUBLIC) as outside, HttpClient(named) as http:
            assert http.json("GET", f"http://{target}:{inside.port}/by-itself")[0] == []
            if trusted:
                assert http.json("GET", f"http://start.example:{outside.port}/1")[0] == []
            else:
                with pytest.raises(Unsafe, match="private address") as caught:
                    http.json("GET", f"http://start.example:{outside.port}/1")
                assert "MDL_ALLOW_HOSTS" in str(caught.value.hint)
        assert len(inside.requests) == (2 if trusted else 1)


@pytest.mark.fault(234, 235)
@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("inner", ["start.example", "mirror.example"])
def test_private_mirror(bench: Bench, resolver: Names, inner: str) -> None:
    """A mirror on a private network that the catalog names is asked if a public host fails; but a public mirror that
    redirects to this machine is refused, and nothing is asked there."""
    names = ["start.example", "mirror.example"]
    resolver |= {name: [PRIVATE if name == inner else PUBLIC] for name in names}
    first, second = (PRIVATE if name == inner else PUBLIC for name in names)
    with (
        FaultyServer(faults.answers(404), address=first) as start,
        FaultyServer(faults.honest(DATA), address=second) as mirror,
    ):
        if inner == "start.example":
            mirror.handler = faults.redirects(f"http://start.example:{start.port}/secret")
        mirrors = [f"http://mirror.example:{mirror.port}/f"]
        file = pinned(f"http://start.example:{start.port}/f", DATA, mirrors=mirrors)
        run = bench.run(file, hosts=AllowList.of(names))
        assert {request.path for request in start.requests} == {"/f"}
    assert (run.code == 0) == (inner == "mirror.example")


DOWN = (
    "http://cdn.hf.co/x",
    "HTTP://cdn.hf.co/x",
    "Http://cdn.hf.co/x",
    "hTTp://huggingface.co/f",
    "HTTP:/x",
    "http:x",
)


@pytest.mark.fault(46)
@pytest.mark.parametrize("hop", [1, 2])
@pytest.mark.parametrize("location", DOWN)
def test_https_never_becomes_http(httpx_mock: HTTPXMock, location: str, hop: int) -> None:
    """However the scheme is written, a redirect from https to http is refused on any hop, and no host is asked over
    http."""
    urls = [HUB, "https://huggingface.co/second"][:hop]
    for url, target in zip(urls, [*urls[1:], location], strict=True):
        httpx_mock.add_response(url=url, status_code=(301, 307)[hop - 1], headers={"Location": target})
    for url in ("http://cdn.hf.co/x", "http://huggingface.co/f"):
        httpx_mock.add_response(url=httpx.URL(url), is_optional=True)
    with HttpClient(AllowList.of([])) as http, pytest.raises(MdlError) as caught, http.open("GET", HUB):
        pass
    assert caught.value.exit_code in (6, 11)
    assert "//" not in location or "https to http" in str(caught.value)
    assert [str(request.url) for request in httpx_mock.get_requests()] == urls


REST = st.sampled_from([*HUB_HOSTS[::3], ".hf.co", "evil.org", "@", ":443", "[::1]", "127.0.0.1", "%2e", "%00"])


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(REST | st.sampled_from("./\\?#@:%\t\n \u3002\uff0e\uff0f\u2100\u00ad\u200d"), max_size=5).map("".join))
@example("evil.org\u3002hf.co")
@example("hf.co\\.evil.org/")
@example("evil.org%2f.hf.co/")
@example("hf.co\t.evil.org")
@example("evil\uff0eorg.hf.co/")
@example("evil.org\u2044.hf.co/")
@example("hf\u3002co/")
@example("HF.co:443/")
@example("[::1].hf.co/")
@example("hf.co:/")
def test_one_url_has_one_host(rest: str) -> None:
    """The host that passes the check is the host that httpx asks, or httpx refuses the URL."""
    hosts = AllowList.of([])
    try:
        hosts.check(f"https://{rest}")
        asked = httpx.URL(f"https://{rest}")
    except (MdlError, ValueError, httpx.InvalidURL):
        return
    assert hosts.allows(asked.raw_host.decode().rstrip("."), asked.port or 443), asked


def test_hub_client_stays_with_the_hub(tmp_path: Path) -> None:
    """With --via hub, too, no host is asked that is not on the allow-list: 11, and the host is named."""
    repo = Repo("org/tiny", {"m.bin": DATA}, lfs_threshold=1000)
    with FaultyServer(faults.honest(DATA)) as other, LoopbackHub([repo]) as hub:
        hub.body_url = f"http://localhost:{other.port}"
        shell = Shell(tmp_path, hub.url, {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"})
        ran = shell.run("get", "hf:org/tiny", "--via", "hub")
        assert other.requests == []
    assert (ran.code, "localhost" in ran.err) == (11, True), ran.err


@pytest.mark.fault(235)
@pytest.mark.parametrize(
    ("host", "port", "trusted"),
    [
        *(("nas.example", 80, False), ("hub.example", 80, False), ("box.example", 80, False)),
        ("cache.example", 8080, True),
    ],
)
def test_only_settings_are_trusted(tmp_path: Path, host: str, port: int, trusted: bool) -> None:
    """A public host may lead to a private one that MDL_ALLOW_HOSTS names. Hosts that the catalog, HF_ENDPOINT or the
    command name are only asked themselves."""
    files = (CatalogFile(RelPath.parse("f"), "http://nas.example/f"),)
    environ = {"HOME": str(tmp_path), "MDL_ALLOW_HOSTS": "cache.example:8080", "HF_ENDPOINT": "https://hub.example"}
    allowed = NetworkAccess(Config({}, environ), CancelToken(), print, Secrets()).hosts(
        [Model("m", files=files)], more=["box.example"]
    )
    assert allowed.is_named(host, port)
    assert allowed.is_trusted(host, port) == trusted
    assert not allowed.is_trusted(host, 80)
