"""Proxies: which one is asked and which is not, what one refuses, what one that lies may do (faults, group E)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from support import faults
from support.bench import Bench, pinned
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request
from support.relay import BODY, PROXY_VARIABLES, Greeting, relaying, secured, serving, socks5, tunnel

from mdl.errors import AuthError, MdlError, NetworkError, TlsError
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.policy import Limits

DATA, OTHER = noise(4 * MIB), noise(4 * MIB, 1)
NAMES = AllowList.of(["localhost", "files.example", "127.0.0.1", "[::1]"])


@pytest.fixture(scope="module")
def secure(ca: trustme.CA) -> Iterator[str]:
    """The URL of a right server behind TLS."""
    with serving(ca.issue_cert("localhost")) as url:
        yield url


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ca: trustme.CA) -> None:
    """No proxy of the tester's, and trust in the one CA."""
    for name in (*PROXY_VARIABLES, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def asked(url: str) -> int:
    """How many bytes are there. Raises what asking raises."""
    with HttpClient(NAMES, limits=Limits(connect=5.0, stall=20.0)) as http, http.open("GET", url) as opened:
        length = int(opened.headers["content-length"])
        return sum(len(block) for block in http.body(opened, length))


def refused(url: str) -> MdlError:
    with pytest.raises(MdlError) as caught:
        asked(url)
    return caught.value


@pytest.mark.fault(89)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_whichever_variable_names_it(monkeypatch: pytest.MonkeyPatch, secure: str, variable: str, scheme: str) -> None:
    """In capitals or not, for https or for all, with a scheme or without: a file comes through the tunnel, whole."""
    heads: list[str] = []
    with relaying(port_of(secure), tunnel(heads)) as proxy:
        monkeypatch.setenv(variable, f"{scheme}127.0.0.1:{proxy.port}")
        assert asked(f"{secure}/f") == len(BODY)
    assert [head.split()[:2] for head in heads] == [["CONNECT", secure.removeprefix("https://")]]


@pytest.mark.fault(89)
@pytest.mark.parametrize(
    "value", ["odd://proxy", "://", "http://[::1", "http://proxy:port", "http://", "not a proxy", " "]
)
def test_what_is_no_proxy(monkeypatch: pytest.MonkeyPatch, secure: str, value: str) -> None:
    """A value that is no proxy's URL is passed over, whichever variable has it: the file comes without it."""
    for variable in ("HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(variable, value)
    assert asked(f"{secure}/f") == len(BODY)


@pytest.mark.fault(89)
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
@pytest.mark.parametrize("login", [None, ("me", "pa/ss@w:rd")])
def test_through_a_socks_proxy(
    monkeypatch: pytest.MonkeyPatch, ca: trustme.CA, scheme: str, host: str, login: tuple[str, str] | None
) -> None:
    """A file comes through it, by TLS and without; the proxy itself looks the name up."""
    places: list[str] = []
    userinfo = f"{quote(login[0], safe='')}:{quote(login[1], safe='')}@" if login else ""
    with FaultyServer(faults.honest(DATA)) as origin:
        for kind, then in (("http", None), ("https", secured(ca.issue_cert(host.strip("[]"))))):
            greeting = socks5(places, login)

            def greet(client: socket.socket, greeting: Greeting = greeting, then: Greeting | None = then) -> Any:
                inner = greeting(client)
                return then(inner) if inner and then else inner

            with relaying(origin.port, greet) as proxy:
                monkeypatch.setenv("ALL_PROXY", f"{scheme}://{userinfo}127.0.0.1:{proxy.port}")
                assert asked(f"{kind}://{host}:8443/f") == len(DATA)
    assert places == [f"{host.strip('[]')}:8443"] * 2


@pytest.mark.fault(91)
@pytest.mark.parametrize(
    ("greet", "code", "words"),
    [
        (socks5([], ("me", "another")), 4, "proxy"),
        (socks5([], ("me", "secret-1"), reply=2), 5, "not allowed by ruleset"),
        (socks5([], ("me", "secret-1"), reply=99), 5, "proxy"),
        (lambda client: client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), 5, "does not speak SOCKS5"),
        (lambda client: None, 5, "proxy"),
    ],
)
def test_a_socks_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch, greet: Greeting, code: int, words: str) -> None:
    """A wrong password is 4; what it cannot reach, and a server of another protocol, is 5; each names the proxy."""
    with relaying(9, greet) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://me:secret-1@127.0.0.1:{proxy.port}")
        error = refused("http://files.example/f")
    assert (error.exit_code, words in error.message, "proxy" in error.message) == (code, True, True), error
    assert "secret-1" not in f"{error.message}{error.hint}"


@pytest.mark.fault(90)
@pytest.mark.parametrize("exempt", ["10.0.0.0/8,127.0.0.0/8", "127.0.0.1/8", "127.0.0.0/8:{port}", "*:{port}"])
def test_a_block_needs_no_proxy(monkeypatch: pytest.MonkeyPatch, exempt: str) -> None:
    """An address of a block that NO_PROXY names is asked directly, though the proxy is dead."""
    with FaultyServer(faults.honest(DATA)) as origin:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", exempt.format(port=origin.port))
        assert asked(f"http://127.0.0.1:{origin.port}/f") == len(DATA)


@pytest.mark.fault(91)
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("407 Proxy Authentication Required", AuthError),
        ("403 Forbidden", AuthError),
        ("502 Bad Gateway", NetworkError),
        ("503 Service Unavailable", NetworkError),
        (None, NetworkError),
    ],
)
def test_a_tunnel_that_is_refused(
    monkeypatch: pytest.MonkeyPatch, secure: str, answer: str | None, kind: type[MdlError]
) -> None:
    """A wrong password is 4; a proxy that cannot, or hangs up, is 5; the password is not told."""
    heads: list[str] = []
    with relaying(port_of(secure), tunnel(heads, answer)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret-1@127.0.0.1:{proxy.port}")
        error = refused(f"{secure}/f")
    assert isinstance(error, kind), error
    assert "secret-1" not in f"{error.message}{error.hint}"
    assert "proxy" in error.message, error.message
    assert ["roxy-" in head for head in heads] == [True]


@pytest.mark.fault(91)
@pytest.mark.parametrize("status", [407, 502, 503])
def test_a_request_that_a_proxy_refuses(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """The same if the proxy is asked without a tunnel."""
    with FaultyServer(faults.answers(status)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        error = refused("http://files.example/f")
    assert error.exit_code == (4 if status == 407 else 5)
    assert error.message.startswith("the proxy for files.example answered 407" if status == 407 else "files.example ")


@pytest.mark.fault(91)
def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no program listens at the proxy's address, the message names the proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://localhost:9")
    error = refused("http://files.example/f")
    assert (error.exit_code, "localhost" in error.message) == (5, True), error.message


@contextmanager
def reading_along(ca: trustme.CA, heads: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A proxy that ends the tunnel's TLS itself, with a certificate of that CA, and asks this server."""
    with (
        FaultyServer(faults.honest(DATA)) as origin,
        relaying(origin.port, tunnel(heads, then=secured(ca.issue_cert("localhost")))) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret-1@127.0.0.1:{proxy.port}")
        yield origin


@pytest.mark.fault(91)
def test_the_host_in_a_tunnel_gets_no_password(monkeypatch: pytest.MonkeyPatch, ca: trustme.CA) -> None:
    """What is sent inside the tunnel has no word for the proxy."""
    heads: list[str] = []
    with reading_along(ca, heads, monkeypatch) as origin:
        assert asked("https://localhost/f") == len(DATA)
        seen = [name.lower() for request in origin.requests for name, _ in request.headers]
    assert seen
    assert not [name for name in seen if "auth" in name]
    assert "Proxy-Authorization: Basic" in heads[0]


@pytest.mark.fault(91)
def test_an_address_of_ipv6_is_in_brackets(monkeypatch: pytest.MonkeyPatch, ca: trustme.CA) -> None:
    """A proxy can tell its port from it, in a tunnel and without one; the certificate is compared with the address."""
    heads: list[str] = []
    with (
        FaultyServer(faults.honest(DATA)) as origin,
        relaying(origin.port, tunnel(heads, then=secured(ca.issue_cert("::1")))) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("HTTP_PROXY", origin.url)
        assert asked("https://[::1]:8443/f") == asked("http://[::1]:8080/g") == len(DATA)
        targets = [request.target for request in origin.requests]
    assert heads[0].startswith("CONNECT [::1]:8443 HTTP/1.1")
    assert targets == ["/f", "http://[::1]:8080/g"]


@pytest.mark.fault(92)
@pytest.mark.parametrize("is_trusted", [False, True])
def test_a_proxy_that_reads_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_trusted: bool) -> None:
    """A proxy that signs for the host by itself is 13, unless the user trusts its authority."""
    nosy = trustme.CA()
    if is_trusted:
        nosy.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with reading_along(nosy, [], monkeypatch) as origin:
        if is_trusted:
            assert asked("https://localhost/f") == len(DATA)
        else:
            assert isinstance(refused("https://localhost/f"), TlsError)
        assert bool(origin.requests) == is_trusted


@pytest.mark.fault(90)
@pytest.mark.parametrize("exempt", ["localhost", "*", "files.example,localhost"])
def test_each_hop_is_asked_by_its_own_rule(monkeypatch: pytest.MonkeyPatch, exempt: str) -> None:
    """A redirect to a host that NO_PROXY names is followed directly, whoever answered the first request."""
    with (
        FaultyServer(faults.honest(DATA)) as origin,
        FaultyServer(faults.redirects(f"http://localhost:{origin.port}/f")) as proxy,
    ):
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", exempt)
        is_direct = exempt != "localhost"
        first = f"http://localhost:{proxy.port}/" if is_direct else "http://files.example/f"
        assert asked(first) == len(DATA)
        assert [request.target for request in proxy.requests] == ["/" if is_direct else first]
        assert [request.target for request in origin.requests] == ["/f"]


def stale(request: Request, number: int) -> Answer:
    """A cache that has an old version, and asks for the new one only when it is told to."""
    is_told = "no-cache" in (request.header("cache-control") or "")
    return faults.honest(DATA if is_told else OTHER)(request, number)


@pytest.mark.fault(93)
def test_a_cache_with_old_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache on the way that serves an old version, whole or only its rest, never makes a wrong file: 6, aloud."""
    with FaultyServer(stale) as proxy:
        file = pinned("http://files.example/f", DATA)
        monkeypatch.setenv("http_proxy", proxy.url)
        bench.half(file, proxy, DATA, hosts=NAMES)
        proxy.handler = faults.choose(faults.resumes, faults.honest(OTHER), faults.honest(DATA))
        resumed = bench.run(file, hosts=NAMES)
        assert (resumed.code, bench.final.read_bytes() == DATA, resumed.rewound) == (0, True, len(DATA))
        bench.final.unlink()
        proxy.handler = faults.honest(OTHER)
        run = bench.run(file, hosts=NAMES)
    assert (run.code, run.error["code"], bench.final.exists(), run.rewound > 0) == (6, "HASH", False, True)


@pytest.mark.fault(93)
def test_the_second_try_asks_past_caches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the digest tells that the bytes were wrong, the one clean retry asks the origin and not a cache."""
    with FaultyServer(faults.honest(DATA)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        file = pinned("http://files.example/f", DATA)
        bench.half(file, proxy, OTHER, hosts=NAMES)
        proxy.handler = stale
        assert bench.run(file, hosts=NAMES).code == 0


@pytest.mark.fault(89, 91)
@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_proxy_behind_tls(monkeypatch: pytest.MonkeyPatch, ca: trustme.CA, secure: str, is_trusted: bool) -> None:
    """A proxy may itself be reached by TLS: a large file comes through both layers whole, if its certificate is
    trusted like any other."""
    heads: list[str] = []
    outer = secured((ca if is_trusted else trustme.CA()).issue_cert("localhost"))
    with relaying(port_of(secure), lambda client: tunnel(heads)(outer(client))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{proxy.port}")
        if is_trusted:
            assert asked(f"{secure}/f") == len(BODY)
        else:
            assert isinstance(refused(f"{secure}/f"), TlsError)
    assert len(heads) == is_trusted


@pytest.mark.fault(91)
def test_the_ways_in_which_a_tunnel_is_opened(monkeypatch: pytest.MonkeyPatch, secure: str) -> None:
    """The hint tells if no password can help, by what the proxy offers when it refuses a tunnel."""
    answer = "407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM"
    with relaying(port_of(secure), tunnel([], answer)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret-1@127.0.0.1:{proxy.port}")
        error = refused(f"{secure}/f")
    assert error.exit_code == 4
    assert "takes Negotiate, NTLM alone" in str(error.hint)


@pytest.mark.fault(91)
def test_a_dead_proxy_before_a_near_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the host is of the own network, the hint sends it past the proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert "NO_PROXY=localhost" in str(refused("http://localhost:8/f").hint)
    assert "add it to NO_PROXY" in str(refused("http://files.example/f").hint)
