"""Proxies: which one a URL is requested through, and that no message quotes its password."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import each
from support.faulty_server import FaultyServer, reply
from support.long import examples
from support.relay import PROXY_VARIABLES

from mdl.errors import Unsafe
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.proxies import Proxy, ProxySettings, proxy_for, read_proxy

EXEMPT = {
    "*": ["http://h.example", "https://10.0.0.1", "http://[::1]"],
    "hub.example": ["http://hub.example", "https://cdn.hub.example:8443", "http://HUB.example", "http://hub.example."],
    "HUB.Example.": ["http://hub.example"],
    ".hub.example": ["http://cdn.hub.example", "http://a.b.hub.example:81"],
    "*.hub.example": ["http://cdn.hub.example"],
    "hub.example:443": ["https://hub.example", "http://hub.example:443", "https://cdn.hub.example:443"],
    "hub.example:80": ["http://hub.example"],
    "*.hub.example:8443": ["https://cdn.hub.example:8443"],
    "*:8080": ["http://any.example:8080"],
    "localhost": ["http://localhost:9"],
    "10.0.0.0/8": ["http://10.1.2.3", "https://10.255.0.1:8443"],
    "10.9.9.9/8": ["http://10.1.2.3"],
    "10.0.0.0/255.0.0.0": ["http://10.1.2.3"],
    "10.0.0.0/8:8443": ["https://10.1.2.3:8443"],
    "10.0.0.7": ["http://10.0.0.7", "https://10.0.0.7:99"],
    "10.0.0.7:443": ["https://10.0.0.7"],
    "::1": ["http://[::1]", "http://[0:0::1]:80"],
    "[::1]": ["http://[::1]:9"],
    "[::1]:8080": ["http://[::1]:8080"],
    "fd00::/8": ["https://[fd12::1]"],
    "[fd00::]/8": ["https://[fd12::1]"],
    "[fd00::/8]:443": ["https://[fd12::1]"],
    "fd00::/8:443": ["https://[fd12::1]"],
}
NOT_EXEMPT = {
    "hub.example": ["http://ahub.example", "http://hub.example.org", "http://example"],
    ".hub.example": ["http://ahub.example", "http://hub.example"],
    "*.hub.example": ["http://ahub.example"],
    "hub.example:443": ["http://hub.example", "https://hub.example:8443"],
    "hub.example:80": ["https://hub.example"],
    "*:8080": ["http://any.example"],
    "10.0.0.0/8": ["http://11.0.0.1", "http://10.example", "http://[fd00::1]"],
    "10.0.0.0/8:8443": ["https://10.1.2.3"],
    "fd00::/8": ["http://10.0.0.1", "http://[fe80::1]"],
    "https://hub.example": ["http://hub.example", "https://hub.example"],
    **{
        unreadable: ["http://hub.example", "http://10.0.0.1", "http://[::1]"]
        for unreadable in ("10.0.0.0/99", "hub.example:x", "[::1", "/", ":80", ".", "*.", "10.0.0.0/8/8", "://", "[]")
    },
}


@pytest.mark.fault(90)
@each("entry", EXEMPT)
def test_what_no_proxy_exempts(entry: str) -> None:
    """A name with its subdomains, a suffix, an address or a block, with the port that is really used; blanks, case and
    entries that cannot be read do not count."""
    environ = {"ALL_PROXY": "p:1", "NO_PROXY": f"10.0.0.0/99, {entry.upper()} ,[::"}
    for url in EXEMPT[entry]:
        assert proxy_for(f"{url}/x", environ) is None, url
    blanks = ProxySettings.of({"all_proxy": "p:1", "no_proxy": f"a.example b.example {entry}"})
    assert blanks.exemption(EXEMPT[entry][0]) == entry


@pytest.mark.fault(90)
@each("entry", NOT_EXEMPT)
def test_what_no_proxy_does_not_exempt(entry: str) -> None:
    """Another host, port, scheme or block goes through the proxy; so does all, if nobody can read the entry."""
    for url in NOT_EXEMPT[entry]:
        assert proxy_for(f"{url}/x", {"all_proxy": "p:1", "no_proxy": entry}) is not None, url


@pytest.mark.fault(90)
@settings(max_examples=examples(200), deadline=None)
@given(entry=st.text(max_size=30), host=st.sampled_from(("hub.example", "10.0.0.1", "[::1]", "[fe80::1%25eth0]")))
def test_no_entry_raises(entry: str, host: str) -> None:
    """Whatever NO_PROXY holds, a URL has a proxy or none."""
    assert proxy_for(f"https://{host}/x", {"https_proxy": "p:1", "no_proxy": entry}) in (
        None,
        Proxy("http://p:1", "https_proxy"),
    )


@pytest.mark.fault(89)
@each(
    ("environ", "url", "variable"),
    [
        ({"HTTP_PROXY": "p:1", "HTTPS_PROXY": "q:2", "ALL_PROXY": "r:3"}, "http://h", "HTTP_PROXY"),
        ({"HTTP_PROXY": "p:1", "HTTPS_PROXY": "q:2", "ALL_PROXY": "r:3"}, "https://h", "HTTPS_PROXY"),
        ({"HTTP_PROXY": "p:1", "ALL_PROXY": "r:3"}, "https://h", "ALL_PROXY"),
        ({"HTTPS_PROXY": "p:1", "https_proxy": "q:2"}, "https://h", "https_proxy"),
        ({"HTTPS_PROXY": "p:1", "https_proxy": ""}, "https://h", None),
        ({"HTTP_PROXY": "p:1", "REQUEST_METHOD": "GET"}, "http://h", None),
        ({"HTTPS_PROXY": " p:1\n"}, "https://h", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "ftp://p", "ALL_PROXY": "r:3"}, "https://h", "ALL_PROXY"),
        ({"HTTPS_PROXY": "p:1", "ALL_PROXY": "odd://p"}, "https://h", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "p:1"}, "http://h", None),
        ({}, "http://h", None),
    ],
)
def test_which_variable_names_it(environ: dict[str, str], url: str, variable: str | None) -> None:
    """That of the URL's scheme, else ALL_PROXY; small letters win; one that cannot be used counts as not set."""
    found = proxy_for(url, environ)
    assert (found.variable if found else None) == variable


@pytest.mark.fault(89)
@settings(max_examples=examples(300), deadline=None)
@given(value=st.text(st.sampled_from("htps:/@[]%.a1 \t\n?#5\\é"), max_size=24) | st.text(max_size=20))
def test_what_is_read_as_a_proxy_is_one_for_httpx(value: str) -> None:
    """A value is refused when the variables are read, or httpx takes it."""
    found = proxy_for("https://h", {"ALL_PROXY": f"http://{value}"})
    if found is not None:
        httpx.HTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), proxy=httpx.Proxy(found.url)).close()


@pytest.mark.fault(89)
@pytest.mark.parametrize("value", ["socks://p:1", "SOCKS://p:1", "socks5h://p:1"])
def test_a_proxy_as_gnome_writes_it(value: str) -> None:
    """``socks://`` is a SOCKS5 proxy that also looks names up."""
    found = proxy_for("https://h", {"ALL_PROXY": value})
    assert found == Proxy("socks5h://p:1", "ALL_PROXY")
    assert found.is_socks


@pytest.mark.fault(89)
@each(
    ("proxy", "as_shown"),
    [
        ("http://me:pw@proxy:3128/", "http://proxy:3128"),
        ("me:p@ss@proxy", "http://proxy"),
        ("socks5://me:p:w@[::1]:1080", "socks5://[::1]:1080"),
        *((url, None) for url in ("http://me:pa/ss@proxy:1", "ftp://me:pw@proxy")),
        *((f"http://me:{word}@proxy:1", None) for word in ("p@ss/w", "12/ss", "12?ss", "12#ss")),
        *((url, None) for url in ("http://", "http://[::1", "http://h:x")),
    ],
)
def test_proxy_is_shown_without_its_secret(proxy: str, as_shown: str | None) -> None:
    """Scheme, host and port are shown, never user and password. A text that is no proxy's URL is not quoted."""
    if as_shown:
        assert Proxy(read_proxy(proxy), "").shown == as_shown
        return
    with pytest.raises(ValueError) as caught:
        read_proxy(proxy)
    assert not any(word in str(caught.value) for word in ("ss@", "pw", "me:"))


@pytest.mark.fault(89)
@each("value", ["http://me:passw0rd/x@proxy:1", "odd://me:passw0rd@proxy:1", "http://:passw0rd@", "://passw0rd"])
@each("variable", ["HTTPS_PROXY", "all_proxy"])
def test_a_variable_that_cannot_be_used_is_a_warning(value: str, variable: str) -> None:
    """It names the variable and what works, never the value, and the run goes on."""
    warnings: list[str] = []
    with HttpClient(AllowList.of(["hub.example"]), environ={variable: value}, warn=warnings.append) as http:
        assert http.proxy_for("https://hub.example/f") is None
    assert len(warnings) == 1
    assert variable in warnings[0]
    assert "passw0rd" not in warnings[0]
    assert "socks5h" in warnings[0] or not value.startswith("odd")


@pytest.mark.parametrize("variable", ["https_proxy", "all_proxy"])
def test_proxy_of_other_urls_allows_nothing(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A public name that leads to a private address is refused if it is requested directly, whatever other proxy is
    set. Behind a proxy the proxy's address counts, which the user has set."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    real = socket.getaddrinfo

    def everywhere(_: str, *others: Any, **more: Any) -> Any:
        return real("127.0.0.1", *others, **more)

    with FaultyServer(lambda request, _: reply(200, b"secret")) as server:
        monkeypatch.setenv(variable, server.url)
        monkeypatch.setattr(socket, "getaddrinfo", everywhere)
        url = f"http://cdn.example:{server.port}/"
        with HttpClient(AllowList.of(["*.example"])) as http:
            if variable == "all_proxy":
                with http.open("GET", url) as opened:
                    assert opened.status == 200
                return
            with pytest.raises(Unsafe, match="private address"), http.open("GET", url):
                pass
