"""The allow-list: who may be spoken to, and how an address may be spelt."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdl.errors import Unsafe, UsageError
from mdl.http.allowlist import AllowList, OriginToken, host_of, is_private, origin_of, refuse_odd_address

calm = settings(deadline=None)


@pytest.mark.parametrize(
    "url",
    [
        *("https://huggingface.co/x", "https://cdn-lfs.huggingface.co/x", "https://us.aws.cdn.hf.co/x"),
        *("https://HuggingFace.CO/x", "https://huggingface.co./x", "https://huggingface.co:443/x", "https://hf.co"),
        *("http://huggingface.co/x",),
    ],
)
def test_the_hub_and_its_hosts_are_allowed(url: str) -> None:
    """The hub and every host below its own names are allowed without being named."""
    AllowList.of([]).check(url)


@pytest.mark.fault(47, 50)
@pytest.mark.parametrize(
    "url",
    [
        *("https://example.com/x", "https://huggingface.co.example.com/x", "https://evilhf.co/x", "https://co/x"),
        *("https://xhuggingface.co/x", "https://example.com/huggingface.co", "https://example.com?.hf.co"),
        *("https://example.com#.hf.co", "https://127.0.0.1/x", "http://[::1]/x", "https://169.254.169.254/x"),
    ],
)
def test_any_other_host_is_refused_by_name(url: str) -> None:
    """A host that is not on the list is refused as code 11, by name, with the way to allow it."""
    with pytest.raises(Unsafe, match="not on the allow-list") as caught:
        AllowList.of([]).check(url)
    assert caught.value.exit_code == 11
    assert caught.value.item == host_of(url)
    assert "MDL_ALLOW_HOSTS" in str(caught.value.hint)


@pytest.mark.fault(49)
@pytest.mark.parametrize(
    "url", ["ftp://huggingface.co/x", "file:///etc/passwd", "gopher://hf.co/", "data:,x", "//hf.co/"]
)
def test_another_scheme_is_refused(url: str) -> None:
    """Nothing but http and https is spoken, whatever the host."""
    with pytest.raises(Unsafe, match="scheme"):
        AllowList.of(["huggingface.co"]).check(url)


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    "host",
    [
        *("[::1%25.hf.co]", "[::1%.hf.co]", "[fe80::1%25eth0.hf.co]", "evil.org%2f.hf.co", "evil.org\\.hf.co"),
        *("evil.org%00.hf.co", "evil.org;.hf.co", "..hf.co", ".hf.co"),
    ],
)
def test_what_is_no_name_is_not_below_one(host: str) -> None:
    """An address with a zone, or what is no name, is not below an allowed name; a proxy may read it in its own way."""
    with pytest.raises(Unsafe):
        AllowList.of([]).check(f"http://{host}/x")


@pytest.mark.fault(54)
@pytest.mark.parametrize(
    "url", ["https://me:secret@huggingface.co/", "https://me@hf.co/", "https://:secret@hf.co/", "https://a\\@hf.co/"]
)
def test_user_and_password_are_refused_unsaid(url: str) -> None:
    """A URL with a user or password in it is refused, and the message does not repeat it."""
    with pytest.raises(Unsafe, match="user name or password") as caught:
        AllowList.of([]).check(url)
    assert "secret" not in f"{caught.value.message}{caught.value.item}{caught.value.hint}"


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    "host",
    [
        *("127.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1.5", "1.2.3", "256.1.1.1", "0x", ""),
        *("10.0.0.0x1", "example.123", "127.0.0.01"),
    ],
)
def test_odd_spelling_of_an_address_is_refused(host: str) -> None:
    """What parsers read as different addresses is refused, even where it was named."""
    with pytest.raises(Unsafe, match="odd spelling"):
        refuse_odd_address(host)
    if host:
        with pytest.raises(Unsafe):
            AllowList(frozenset({host})).check(f"http://{host}/x")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "example.com", "a1", "x.1a", "0x.com", "1.2.3.4", "xn--p1ai"])
def test_usual_spelling_is_let_through(host: str) -> None:
    """An ordinary name or address is not odd."""
    refuse_odd_address(host)


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        ("mirror.org", ["https://mirror.org/", "http://mirror.org:8080/"], ["https://a.mirror.org/"]),
        ("mirror.org:8080", ["http://mirror.org:8080/"], ["http://mirror.org/", "https://mirror.org:8081/"]),
        ("mirror.org:443", ["https://mirror.org/"], ["http://mirror.org/"]),
        ("*.mirror.org", ["https://a.mirror.org/", "https://a.b.mirror.org:8/"], ["https://mirror.org/"]),
        ("*.mirror.org:8080", ["http://a.mirror.org:8080/"], ["https://a.mirror.org/", "http://a.mirror.org:808/"]),
        ("Mirror.ORG", ["https://mirror.org/"], ["https://mirror.or/"]),
        ("127.0.0.1", ["http://127.0.0.1:9/"], ["http://127.0.0.2/", "http://[::ffff:127.0.0.1]/"]),
        ("[::1]", ["http://[::1]:9/"], ["http://[::2]/"]),
        ("[::1]:9", ["http://[::1]:9/"], ["http://[::1]:8/"]),
    ],
)
def test_pattern_allows_just_what_it_says(pattern: str, allowed: list[str], refused: list[str]) -> None:
    """A host, a host with a port and a suffix each allow what they say and no more."""
    hosts = AllowList.of([f" {pattern} ", ""])
    for url in allowed:
        hosts.check(url)
    for url in refused:
        with pytest.raises(Unsafe):
            hosts.check(url)


@pytest.mark.parametrize(
    "pattern",
    ["*", "*.", "a*.org", "https://mirror.org", "mirror.org/x", "a b", "mirror.org:", "mirror.org:x", "ho\nst", "::1"],
)
def test_bad_pattern_is_a_usage_error(pattern: str) -> None:
    """What is no pattern is refused by name, before anything is contacted."""
    with pytest.raises(UsageError) as caught:
        AllowList.of(["good.org", pattern])
    assert caught.value.exit_code == 2
    assert caught.value.item == pattern.strip()


@pytest.mark.fault(50)
def test_only_a_named_host_counts_as_named() -> None:
    """A private network is for hosts that were named themselves, not for those a suffix lets through."""
    hosts = AllowList.of(["box", "*.lab", "[fd00::1]", "nas:8080"])
    assert hosts.is_named("box", 1)
    assert hosts.is_named("fd00::1", 80)
    assert hosts.is_named("nas", 8080)
    assert not hosts.is_named("nas", 80)
    assert not hosts.is_named("a.lab", 80)
    assert not hosts.is_named("huggingface.co", 443)


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::8", "::ffff:127.0.0.1"),
        *("::ffff:10.0.0.1", "[::1]"),
    ],
)
def test_private_address_is_known(address: str) -> None:
    """Loopback, link-local, private and unspecified addresses are private, also as IPv4 inside IPv6."""
    assert is_private(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "huggingface.co", "", "127.1"]
)
def test_public_address_or_name_is_not_private(address: str) -> None:
    """A public address is not private; a name is no address."""
    assert not is_private(address)


@pytest.mark.fault(50)
@pytest.mark.parametrize("address", ["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::"])
def test_private_ipv4_inside_a_transition_address_is_private(address: str) -> None:
    """The metadata service or a private net is not reached through a NAT64 or 6to4 address either."""
    assert is_private(address)


@pytest.mark.fault(236)
@pytest.mark.parametrize(
    "address",
    [
        *("fec0::1", "ff02::1", "ff0e::1", "224.0.0.1", "239.255.255.250", "::127.0.0.1", "::10.0.0.1"),
        *("::ffff:0:127.0.0.1", "::ffff:0:10.0.0.1", "::ffff:0:8.8.8.8", "64:ff9b:1::7f00:1", "64:ff9b:1::808:808"),
        *("3fff::1", "5f00::1", "::ffff:224.0.0.1", "64:ff9b::e000:1"),
    ],
)
def test_what_is_no_public_address(address: str) -> None:
    """What is local by its definition, goes to many, or wraps an IPv4 address in a way of the past is not public."""
    assert is_private(address)


@pytest.mark.fault(47)
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://hf.co/a", "https://HF.co:443/b?c", True),
        ("http://hf.co", "http://hf.co.:80/", True),
        ("https://hf.co", "http://hf.co", False),
        ("https://hf.co", "https://hf.co:8443", False),
        ("https://hf.co", "https://cdn.hf.co", False),
        ("http://[::1]:80", "http://[::1]", True),
    ],
)
def test_origin_is_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    """Two URLs have one origin where scheme, host and port are the same, however they are written."""
    assert (origin_of(one) == origin_of(other)) == same


def test_token_is_not_shown() -> None:
    """A OriginToken's text never holds its token."""
    assert "secret" not in repr(OriginToken("https://hf.co:443", "hf_secret"))


@calm
@given(st.text("abc.:/@[]%\\#?*-0x17 \n", max_size=20))
def test_check_allows_no_other_host(rest: str) -> None:
    """Whatever follows the scheme, what passes the check is a host that is on the list."""
    hosts = AllowList.of(["a.b"])
    try:
        parts = hosts.check(f"https://{rest}")
    except (Unsafe, ValueError):
        return
    assert (parts.hostname or "").rstrip(".") == "a.b"
