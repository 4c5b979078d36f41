"""Which secret goes with which URL, and who may be at a private address: without a socket."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdl.errors import Unsafe
from mdl.net.allowlist import AllowList, OriginToken, host_of
from mdl.net.credentials import HostAccess, HostCredential
from mdl.net.proxies import ProxySettings

HUB, FILES, OTHER = "https://hub.example/f", "https://files.example/f", "https://other.example/f"
TOKEN = OriginToken("https://hub.example:443", "hf_token", "HF_TOKEN")
CREDENTIAL = HostCredential("files.example", "FILES_TOKEN", secret="word")


def access(*, named: tuple[str, ...] = (), trusted: tuple[str, ...] = ()) -> HostAccess:
    hosts = AllowList.of(["*.example", *named], trusted)
    return HostAccess(hosts, [TOKEN, OriginToken("https://other.example:443", "")], [CREDENTIAL], ProxySettings({}))


@pytest.mark.fault(47, 174)
@settings(deadline=None)
@given(
    url=st.sampled_from([HUB, FILES, OTHER, HUB.replace("https", "http"), "https://hub.example:444/f"]),
    bearer=st.sampled_from(["", "key"]),
    at_home=st.booleans(),
    is_named=st.booleans(),
)
def test_one_secret_for_one_place(url: str, bearer: str, at_home: bool, is_named: bool) -> None:
    """A bearer goes alone; a token only to its origin, which no redirect has left; a credential only to its host, and
    with a URL that was named. Everything else is asked without any."""
    proof = access().proof(url, None, bearer=bearer, at_home=at_home, is_named=is_named)
    assert proof.url == url
    if bearer:
        expected = "the token"
    elif url == HUB and at_home:
        expected = "HF_TOKEN"
    elif url == FILES and is_named:
        expected = "FILES_TOKEN"
    else:
        expected = ""
    assert proof.source == expected
    assert bool(proof.headers) == bool(expected)


@pytest.mark.parametrize(
    ("named", "trusted", "has_met_public", "may"),
    [
        ((), (), False, False),
        (("host.local",), (), False, True),
        (("host.local",), (), True, False),
        ((), ("host.local",), True, True),
    ],
)
def test_a_private_address(named: tuple[str, ...], trusted: tuple[str, ...], has_met_public: bool, may: bool) -> None:
    """A named host may have one until a public address was on the way, a trusted one always; one that was public, and
    is private now, never."""
    hosts = access(named=named, trusted=trusted)
    assert hosts.may_be_private("http://host.local/f", HUB, has_met_public) == may
    hosts.note_public("http://host.local/g")
    assert not hosts.may_be_private("http://host.local/f", HUB, has_met_public)


@pytest.mark.parametrize(
    ("url", "has_met_public", "may"),
    [
        ("https://cas-bridge.xethub.hf.co/x", False, True),
        ("https://hf.co/x", False, True),
        ("https://cdn-lfs.huggingface.co/x", True, False),
        ("http://cas-bridge.xethub.hf.co/x", False, False),
        ("https://cas-bridge.xethub.hf.co.evil.org/x", False, False),
        ("https://evilhf.co/x", False, False),
    ],
)
def test_where_every_name_has_a_private_address(url: str, has_met_public: bool, may: bool) -> None:
    """A host of the hub may have one over https, for its certificate says who it is: a proxy in fake-IP mode answers
    every name with one. Not if a public address was on the way, and no host with a like name."""
    hosts = access()
    assert hosts.may_be_private(url, HUB, has_met_public) == may
    hosts.note_public(url)
    assert not hosts.may_be_private(url, HUB, has_met_public)


def test_a_refused_hop_names_the_url_that_led_there() -> None:
    """The item is what the user asked for, without its query; the words say that it was a redirect."""
    with pytest.raises(Unsafe, match="it redirects, which is refused") as caught:
        access().check("https://elsewhere.org/x?sig=1", f"{HUB}?sig=2", is_redirected=True)
    assert caught.value.item == HUB
    assert host_of("https://elsewhere.org") in caught.value.message
