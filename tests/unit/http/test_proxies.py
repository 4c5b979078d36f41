"""Proxies: which one a URL is requested through, and that no message quotes its password."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest
from httpx._utils import URLPattern, get_environment_proxies
from hypothesis import given, settings
from hypothesis import strategies as st
from support.faulty_server import FaultyServer, reply
from support.long import examples
from support.relay import PROXY_VARIABLES

from mdl.errors import Unsafe, UsageError
from mdl.http.allowlist import AllowList
from mdl.http.client import HttpClient
from mdl.http.transport import proxy_of, without_userinfo

HOSTS = ("hub.example", "cdn.hub.example", "ahub.example", "10.0.0.7", "localhost", "example", "HUB.example")
ENTRIES = (
    *HOSTS,
    *(".hub.example", ".example", "*.example", "*", "10.0.0.0/8", "10.0.0.7/32", "::1", "hub.example:8080"),
    *("http://hub.example", "https://hub.example", "all://hub.example", "https://hub.example:443", "hub.example:443"),
    *("https://*.example", "all://*hub.example:8080", "10.0.0.7:8080", "", " hub.example "),
)
URLS = st.builds(
    "{}://{}{}/x".format,
    st.sampled_from(("http", "https")),
    st.sampled_from((*HOSTS, "[::1]")),
    st.sampled_from(("", ":80", ":443", ":8080")),
)


@pytest.mark.fault(89, 90)
@settings(max_examples=examples(100), deadline=None)
@given(
    url=URLS,
    proxies=st.dictionaries(st.sampled_from(("http", "https", "all")), st.sampled_from(("http://p:1", "q:2"))),
    entries=st.lists(st.sampled_from(ENTRIES), max_size=3),
)
def test_choice_is_that_of_httpx(url: str, proxies: dict[str, str], entries: list[str]) -> None:
    """Whatever the variables say, a URL is requested directly or through the proxy that httpx would choose."""
    found = dict(proxies) | ({"no": ",".join(entries)} if entries else {})
    with pytest.MonkeyPatch.context() as patch:
        for name in PROXY_VARIABLES:
            patch.delenv(name, raising=False)
        for scheme, value in found.items():
            patch.setenv(f"{scheme}_proxy", value)
        chosen = sorted((URLPattern(pattern), proxy) for pattern, proxy in get_environment_proxies().items())
    wanted = next((proxy for pattern, proxy in chosen if pattern.matches(httpx.URL(url))), None)
    assert proxy_of(url, found) == wanted


@pytest.mark.fault(89)
@pytest.mark.parametrize(
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
        assert without_userinfo(proxy) == as_shown
        return
    with pytest.raises(ValueError) as caught:
        without_userinfo(proxy)
    assert not any(word in str(caught.value) for word in ("ss@", "pw", "me"))


@pytest.mark.fault(89)
def test_password_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a proxy variable that is no URL does not quote its value."""
    monkeypatch.setenv("https_proxy", "http://me:passw0rd/x@proxy:1")
    with pytest.raises(UsageError) as caught:
        HttpClient(AllowList.of(["hub.example"]))
    assert "passw0rd" not in f"{caught.value.message}{caught.value.hint}"


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
