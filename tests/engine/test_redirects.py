"""The engine against redirects, hop by hop (faults, group C)."""

from __future__ import annotations

import pytest
from support import faults
from support.bench import Bench, loose, pinned
from support.data import MIB, noise
from support.faulty_server import FaultyServer

from mdl.net.allowlist import OriginToken, origin_of

DATA, TINY = noise(4 * MIB), noise(50_000, 1)
SIZE = len(DATA)
TOKEN = "hf_not_for_others"


@pytest.mark.fault(45)
def test_redirect_loop(bench: Bench) -> None:
    """A redirect loop ends at once, after ten hops, with the host's name: 5 (C45)."""
    run = bench.fetch(faults.loop(), DATA)
    assert (run.code, run.retries, len(run.requests)) == (5, 0, 11)
    assert "127.0.0.1" in run.error["message"]


@pytest.mark.fault(45)
@pytest.mark.parametrize(("hops", "code"), [(10, 0), (11, 5)])
def test_chain(bench: Bench, hops: int, code: int) -> None:
    """Ten redirects are followed, the eleventh is not (C45)."""
    assert bench.fetch(faults.chain(DATA, hops), DATA).code == code


def secrets(server: FaultyServer) -> set[str]:
    """The headers of the requests that a server saw and that could identify a user."""
    telling = {"authorization", "cookie", "proxy-authorization", "referer", "x-token"}
    return {name.lower() for request in server.requests for name, _ in request.headers} & telling


@pytest.mark.fault(47)
def test_token_stays_at_its_origin(bench: Bench) -> None:
    """The token goes to its own origin and not to another port; no cookie, no Referer goes anywhere (C47)."""
    with FaultyServer(faults.honest(DATA)) as other:
        away = faults.with_headers(faults.redirects(other.url + "/x"), ("Set-Cookie", "a=b; Path=/"))
        with FaultyServer(away) as home:
            bearer = OriginToken(origin_of(home.url), TOKEN)
            run = bench.run(pinned(home.url + "/f", DATA), bearer=bearer)
            again = bench.run(pinned(home.url + "/g", TINY, path="g"), bearer=bearer)
            sent = {request.header("authorization") for request in home.requests}
            assert secrets(home) == {"authorization"}
        assert secrets(other) == set()
    assert (run.code, again.code, sent) == (0, 6, {f"Bearer {TOKEN}"})


def tokens(server: FaultyServer) -> dict[str, set[str | None]]:
    """With which authorization each path was requested."""
    given: dict[str, set[str | None]] = {}
    for request in server.requests:
        given.setdefault(request.path, set()).add(request.header("authorization"))
    return given


@pytest.mark.fault(48, 229)
@pytest.mark.parametrize("how", ["segments", "cut", "loose"])
def test_there_and_back_again(bench: Bench, how: str) -> None:
    """A redirect that left the token's origin and comes back does not get the token, also in later requests for that
    place (C48)."""
    bench.segments(MIB)
    with FaultyServer(faults.honest(DATA)) as away, FaultyServer(faults.honest(DATA)) as home:
        there = faults.first(1, faults.cut(faults.honest(DATA), MIB // 2), faults.honest(DATA))
        home.handler = faults.routes({"/back": there if how == "cut" else faults.honest(DATA)})
        home.handler = faults.choose(lambda r: r.path == "/f", faults.redirects(away.url + "/x"), home.handler)
        away.handler = faults.redirects(home.url + "/back")
        url = home.url + "/f"
        file = loose(url) if how == "loose" else pinned(url, DATA)
        run = bench.run(file, bearer=OriginToken(origin_of(home.url), TOKEN))
        assert secrets(away) == set()
        assert sum(request.path == "/back" for request in home.requests) > (how != "loose")
        assert (run.code, tokens(home)) == (0, {"/f": {f"Bearer {TOKEN}"}, "/back": {None}})


@pytest.mark.fault(229)
@pytest.mark.parametrize("hops", [1, 2])
def test_a_stranger_that_leads_to_the_hub(bench: Bench, hops: int) -> None:
    """A stranger's URL that leads to a path of the hub gets nothing that only the token could have."""
    bench.segments(MIB)
    with FaultyServer(faults.honest(DATA)) as hub, FaultyServer(faults.redirects(hub.url + "/private")) as stranger:
        if hops == 2:
            stranger.handler = faults.choose(lambda r: r.path == "/2", stranger.handler, faults.redirects("/2"))
        run = bench.run(pinned(stranger.url + "/f", DATA), bearer=OriginToken(origin_of(hub.url), TOKEN))
        assert len(hub.requests) > 1
        assert secrets(hub) == secrets(stranger) == set()
    assert run.code == 0


@pytest.mark.fault(229)
def test_a_place_at_home(bench: Bench) -> None:
    """If the hub sends to another path of its own, the token goes there as well, in every request."""
    bench.segments(MIB)
    with FaultyServer(faults.moved(DATA)) as home:
        run = bench.run(pinned(home.url + "/f", DATA), bearer=OriginToken(origin_of(home.url), TOKEN))
        assert set().union(*tokens(home).values()) == {f"Bearer {TOKEN}"}
        assert (run.code, len(home.requests) > 2) == (0, True)


HARMLESS = ("line feed", "no host")
"""They name no other host: the first is a header when it arrives, a URL without a host means this host."""


@pytest.mark.fault(49, 50, 52, 54)
@pytest.mark.parametrize("name", faults.HOSTILE_LOCATIONS)
def test_hostile_locations(bench: Bench, name: str) -> None:
    """A redirect to another scheme, with userinfo, to an odd or foreign address is refused, and nothing is requested
    there (C49, C50, C52, C54)."""
    run = bench.fetch(faults.moved(DATA, faults.HOSTILE_LOCATIONS[name]), DATA)
    if name in HARMLESS:
        assert run.code in (0, 6, 11)
        return
    assert run.code == (6 if name == "empty" else 11)
    assert {request.path for request in run.requests} == {"/f"}
    assert "secret" not in str([run.report, run.events])
    assert not bench.final.exists()


@pytest.mark.fault(47)
@pytest.mark.parametrize("hop", [1, 2])
def test_allow_list_holds_on_each_hop(bench: Bench, hop: int) -> None:
    """A host that is not on the allow-list is refused on any hop, by name, before it is contacted (C47)."""
    with FaultyServer(faults.honest(DATA)) as server:
        foreign = server.url.replace("127.0.0.1", "localhost")
        last = faults.redirects(foreign + "/x")
        server.handler = last if hop == 1 else faults.choose(lambda r: r.path == "/2", last, faults.redirects("/2"))
        run = bench.run(pinned(server.url + "/f", DATA))
        assert (run.code, run.error["code"], len(server.requests)) == (11, "UNSAFE", hop)
        assert run.error["message"] == "it redirects, which is refused: the host localhost is not on the allow-list"
        assert run.error["item"] == f"{server.url}/f"
        assert "MDL_ALLOW_HOSTS=localhost" in run.error["hint"]
        start = bench.run(pinned(foreign + "/f", DATA, path="g"))
        assert (start.code, len(server.requests)) == (11, hop)


@pytest.mark.fault(52)
@pytest.mark.parametrize("name", faults.ODD_LOCATIONS)
def test_odd_locations(bench: Bench, name: str) -> None:
    """Every legal way to write a Location is understood (C52)."""
    with FaultyServer(faults.moved(DATA, faults.ODD_LOCATIONS[name])) as server:
        assert bench.run(pinned(server.url + "/file", DATA)).code == 0
    assert bench.has(DATA)


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    ("location", "code", "then"),
    [
        ("?q=1", 0, "/f?q=1"),
        (";x", 0, "/;x"),
        ("/\u00e9".encode(), 0, "/%C3%A9"),
        ("/a%20b", 0, "/a%20b"),
        ("#there", 5, "/f"),
        ("/a b", 0, "/a%20b"),
        ("/a\tb", 6, None),
        ("\t/moved", 0, "/moved"),
        ("http:////127.0.0.1/moved", 0, "//127.0.0.1/moved"),
        ("////127.0.0.1/moved", 11, None),
        ("http://[::1", 11, None),
        ("http://127.0.0.1:99999/moved", 11, None),
    ],
)
def test_locations_by_the_letter(bench: Bench, location: str | bytes, code: int, then: str | None) -> None:
    """What RFC 3986 allows is joined, a blank is read as browsers and curl read it, all else is refused, and no other
    host is contacted."""
    away = faults.redirects(location)
    run = bench.fetch(faults.choose(lambda r: r.target == "/f", away, faults.honest(TINY)), TINY, retries=1)
    assert (run.code, {request.target for request in run.requests} - {"/f"}) == (code, {then} - {None, "/f"})


@pytest.mark.fault(52)
@pytest.mark.parametrize(("second", "code"), [("/moved", 0), ("/other", 6)])
def test_two_locations(bench: Bench, second: str, code: int) -> None:
    """A Location that is said twice is one; of two that differ neither is followed, nor both in one."""
    twice = faults.with_headers(faults.redirects("/"), ("Location", "/moved"), ("Location", second))
    run = bench.fetch(faults.choose(lambda r: r.target == "/f", twice, faults.honest(TINY)), TINY, retries=1)
    then = set() if code else {"/moved"}
    assert (run.code, {request.target for request in run.requests} - {"/f"}) == (code, then)


@pytest.mark.fault(53)
def test_body_of_a_redirect(bench: Bench) -> None:
    """The body of a redirect, however large, is not read (C53)."""
    heavy = faults.choose(lambda r: r.path == "/moved", faults.honest(TINY), faults.heavy_redirect())
    run = bench.fetch(heavy, TINY)
    assert run.code == 0
    assert run.requests[0].sent < 64 * MIB


@pytest.mark.fault(55)
@pytest.mark.parametrize("status", faults.REDIRECTS)
def test_range_survives_redirects(bench: Bench, status: int) -> None:
    """The Range of a resume is kept over every kind of redirect (C55)."""
    run = bench.fetch(faults.moved(DATA, status=status), DATA, half=True)
    asked = {request.header("range") for request in run.requests}
    assert (run.code, run.report.bytes_fetched, asked) == (0, SIZE // 2, {f"bytes={SIZE // 2}-{SIZE - 1}"})
