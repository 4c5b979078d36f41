"""Credentials of hosts: each goes to its own host, with the URL that was named, and nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import each
from support.faulty_server import Answer, FaultyServer, Request, reply
from support.long import examples

from mdl.errors import MdlError
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.credentials import HostAccess, HostCredential

SECRET = "canary-user:canary-word"
SENT = {
    "bearer": ("authorization", f"Bearer {SECRET}"),
    "basic": ("authorization", f"Basic {base64.b64encode(SECRET.encode()).decode()}"),
    "header:PRIVATE-TOKEN": ("private-token", SECRET),
}


@pytest.mark.parametrize("send", SENT)
def test_how_it_is_sent(send: str) -> None:
    """As a bearer token, a user and a password, or a header of its own."""
    name, value = SENT[send]
    found = HostCredential("h", "V", send, SECRET)
    assert {key.lower(): text for key, text in found.headers().items()} == {name: value}
    assert found.url("https://h/f?x=1") == "https://h/f?x=1"


def test_how_a_query_has_it() -> None:
    """As a parameter, which does not replace the one that the URL has already."""
    found = HostCredential("h", "V", "query:token", "a/b+c&d")
    assert found.headers() == {}
    assert found.url("https://h/f") == "https://h/f?token=a%2Fb%2Bc%26d"
    assert found.url("https://h/f?x=1") == "https://h/f?x=1&token=a%2Fb%2Bc%26d"
    assert found.url("https://h/f?token=mine") == "https://h/f?token=mine"


@each(
    ("place", "url", "may"),
    [
        ("h.example", "https://h.example/f", True),
        ("h.example", "https://H.EXAMPLE.:443/f", True),
        ("h.example:8443", "https://h.example:8443/f", True),
        ("127.0.0.1", "http://127.0.0.1/f", True),
        ("localhost:8000", "http://localhost:8000/f", True),
        ("[::1]:8000", "http://[::1]:8000/f", True),
        ("h.example", "http://h.example/f", False),
        ("h.example", "https://h.example:8443/f", False),
        ("h.example:8443", "https://h.example/f", False),
        ("h.example", "https://www.h.example/f", False),
        ("h.example", "https://h.example.evil/f", False),
        ("h.example", "https://evil/h.example", False),
        ("192.168.0.2", "http://192.168.0.2/f", False),
    ],
)
def test_where_it_may_go(place: str, url: str, *, may: bool) -> None:
    """To exactly this host and port, over https, or to this machine itself; through no proxy that can read it."""
    found = HostCredential(place, "V", "bearer", SECRET)
    assert found.may_go_to(url) is may
    assert found.may_go_to(url, through_proxy=True) is (may and url.startswith("https"))
    assert not HostCredential(place, "V").may_go_to(url)


def test_it_is_not_shown() -> None:
    """No text of the value has it."""
    assert "canary" not in repr(HostCredential("h", "V", "basic", SECRET))


class Sites:
    """Two servers under three names, which redirect along a chain of these: ``/0`` leads to the second link of it."""

    NAMES = ("own", "alias", "other")

    def __init__(self, first: FaultyServer, second: FaultyServer) -> None:
        self.places = {
            "own": f"127.0.0.1:{first.port}",
            "alias": f"localhost:{first.port}",
            "other": f"127.0.0.1:{second.port}",
        }
        self.chain: tuple[str, ...] = ()
        self.heard: list[tuple[str, bool]] = []
        """Who was asked, under which name, and whether the request had the secret anywhere."""
        first.handler = second.handler = self.answer

    def url(self, link: int) -> str:
        return f"http://{self.places[self.chain[link]]}/{link}"

    def answer(self, request: Request, number: int) -> Answer:
        text = f"{request.target} {request.headers}"
        has_secret = any(form in text for form in ("canary", SENT["basic"][1]))
        self.heard.append((str(request.header("host")), has_secret))
        following = int(request.path.strip("/")) + 1
        if following == len(self.chain):
            return reply(200, b"there")
        status = (301, 302, 303, 307, 308)[following % 5]
        return reply(status, b"", ("Location", self.url(following)))

    def leaks(self, chain: tuple[str, ...], send: str) -> list[int]:
        """The numbers of the requests that were wrong: only the first has the secret, if it is for the host itself."""
        self.chain, self.heard = chain, []
        own = HostCredential(self.places["own"], "V", send, SECRET)
        hosts = AllowList.of(["127.0.0.1", "localhost"])
        with HttpClient(hosts, credentials=[own]) as http, http.open("GET", self.url(0)) as opened:
            assert "canary" not in opened.url
        assert len(self.heard) == len(chain)
        return [
            number
            for number, (host, has_secret) in enumerate(self.heard)
            if has_secret != (number == 0 and host == self.places["own"])
        ]


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    with FaultyServer(_nothing) as first, FaultyServer(_nothing) as second:
        yield Sites(first, second)


def _nothing(_request: Request, _number: int) -> Answer:
    return reply(500, b"")


CHAINS = st.lists(st.sampled_from(Sites.NAMES), min_size=1, max_size=5).map(tuple)


@pytest.mark.fault(47, 174)
def test_it_follows_no_redirect(sites: Sites) -> None:
    """Along every chain of redirects, also one that leads back, the secret goes with the first request alone, and only
    if that is for its own host."""

    @given(CHAINS, st.sampled_from(["bearer", "basic", "query:token", "header:X-Key"]))
    def holds(chain: tuple[str, ...], send: str) -> None:
        assert sites.leaks(chain, send) == []

    settings(max_examples=examples(60), deadline=None)(holds)()


@pytest.mark.parametrize("rule", ["is_named", "is_for"])
def test_the_rule_is_needed(sites: Sites, monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """The control: without the rule about redirects, or that about the host, the same check finds the leak."""
    if rule == "is_named":
        proof = HostAccess.proof
        monkeypatch.setattr(HostAccess, "proof", lambda *a, **k: proof(*a, **{**k, "is_named": True}))
    else:
        monkeypatch.setattr(HostCredential, "is_for", lambda _self, _url: True)
    chain = ("own", "other", "own") if rule == "is_named" else ("other", "own")
    assert sites.leaks(chain, "bearer")


def test_where_a_redirect_led_is_asked_without_it(sites: Sites) -> None:
    """A URL that is only known because the user's URL led there gets nothing, though it is of the same host."""
    sites.chain, sites.heard = ("own", "own"), []
    own = HostCredential(sites.places["own"], "V", "bearer", SECRET)
    hosts = AllowList.of(["127.0.0.1"])
    with HttpClient(hosts, credentials=[own]) as http, http.open("GET", sites.url(1), start=sites.url(0)):
        pass
    assert sites.heard == [(sites.places["own"], False)]


def test_a_proxy_that_can_read_it(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to this machine through a proxy without TLS goes without the secret; the hint of a refusal says so."""
    with FaultyServer(lambda _request, _number: reply(401, b"")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        own = HostCredential(sites.places["own"], "V", "bearer", SECRET)
        with (
            HttpClient(AllowList.of(["127.0.0.1"]), credentials=[own]) as http,
            pytest.raises(MdlError) as caught,
            http.open("GET", f"http://{sites.places['own']}/0"),
        ):
            pass
        assert "V was not sent" in str(caught.value.hint)
        assert not [text for request in proxy.requests for _, text in request.headers if "canary" in text]
