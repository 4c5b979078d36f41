"""The allow-list: which hosts may be contacted, how an address may be written, and which addresses are private."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import each

from mdl.errors import Unsafe, UsageError
from mdl.net.allowlist import AllowList, OriginToken, host_of, is_private, origin_of


@each(
    "url",
    [
        *("https://huggingface.co/x", "https://cdn-lfs.huggingface.co/x", "https://us.aws.cdn.hf.co/x"),
        *("https://HuggingFace.CO/x", "https://huggingface.co./x", "https://huggingface.co:443/x", "https://hf.co"),
        *("http://huggingface.co/x",),
    ],
)
def test_hub_is_allowed(url: str) -> None:
    """The hub and every host below its names are allowed without being named."""
    AllowList.of([]).check(url)


@pytest.mark.fault(47, 50)
@each(
    "url",
    [
        *("https://example.com/x", "https://huggingface.co.example.com/x", "https://evilhf.co/x", "https://co/x"),
        *("https://xhuggingface.co/x", "https://example.com/huggingface.co", "https://example.com?.hf.co"),
        *("https://example.com#.hf.co", "https://127.0.0.1/x", "http://[::1]/x", "https://169.254.169.254/x"),
    ],
)
def test_other_host_is_refused(url: str) -> None:
    """A host that is not on the list is refused with 11; the error names it and says how to allow it."""
    with pytest.raises(Unsafe, match="not on the allow-list") as caught:
        AllowList.of([]).check(url)
    assert (caught.value.exit_code, caught.value.item) == (11, host_of(url))
    _, variable, advised = str(caught.value.hint).partition("MDL_ALLOW_HOSTS=")
    assert variable
    AllowList.of([advised]).check(url)


@pytest.mark.fault(49, 50, 54)
@each(
    ("url", "words"),
    [
        *((url, "scheme") for url in ("ftp://huggingface.co/x", "file:///etc/passwd", "gopher://hf.co/", "data:,x")),
        ("//hf.co/", "scheme"),
        *((f"https://{user}@hf.co/", "user name or password") for user in ("me:secret", "me", ":secret", "a\\")),
        *((f"http://{host}/x", "refused") for host in ("[::1%25.hf.co]", "[::1%.hf.co]", "[fe80::1%25eth0.hf.co]")),
        *((f"http://evil.org{more}.hf.co/x", "refused") for more in ("%2f", "\\", "%00", ";")),
        *((f"http://{host}/x", "refused") for host in ("..hf.co", ".hf.co")),
    ],
)
def test_unusable_url_is_refused(url: str, words: str) -> None:
    """Another scheme, a user or password (which the error does not repeat), an address with a zone, and text that is no
    host name are refused, also below an allowed name: a proxy may read them in another way."""
    with pytest.raises(Unsafe, match=words) as caught:
        AllowList.of(["huggingface.co"]).check(url)
    assert "secret" not in f"{caught.value.message}{caught.value.item}{caught.value.hint}"


@pytest.mark.fault(50)
@each(
    "host",
    [
        *("127.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1.5", "1.2.3", "256.1.1.1", "0x", ""),
        *("10.0.0.0x1", "example.123", "127.0.0.01"),
    ],
)
def test_odd_address_is_refused(host: str) -> None:
    """A text that parsers read as different addresses is refused, even if it was named."""
    with pytest.raises(Unsafe, match="odd spelling"):
        AllowList(frozenset({host})).check(f"http://{host}/x")


@each("host", ["127.0.0.1", "::1", "example.com", "a1", "x.1a", "0x.com", "1.2.3.4", "xn--p1ai"])
def test_usual_address_passes(host: str) -> None:
    """An ordinary name or address is not odd."""
    AllowList(frozenset({host})).check(f"http://[{host}]/x" if ":" in host else f"http://{host}/x")


@each(
    ("pattern", "allowed", "refused"),
    [
        ("mirror.org", ["https://mirror.org/", "http://mirror.org:8080/"], ["https://a.mirror.org/"]),
        ("mirror.org:8080", ["http://mirror.org:8080/"], ["http://mirror.org/", "https://mirror.org:8081/"]),
        ("mirror.org:443", ["https://mirror.org/"], ["http://mirror.org/"]),
        ("*.mirror.org", ["https://a.mirror.org/", "https://a.b.mirror.org:8/"], ["https://mirror.org/"]),
        ("*.mirror.org:8080", ["http://a.mirror.org:8080/"], ["https://a.mirror.org/", "http://a.mirror.org:808/"]),
        ("Mirror.ORG", ["https://mirror.org/"], ["https://mirror.or/"]),
        ("127.0.0.1", ["http://127.0.0.1:9/"], ["http://127.0.0.2/", "http://[::ffff:127.0.0.1]/"]),
        ("mirror.org.", ["https://mirror.org/"], ["https://a.mirror.org/"]),
        ("mirror.org.:8080", ["http://mirror.org:8080/"], ["https://mirror.org/"]),
        ("[::1]", ["http://[::1]:9/"], ["http://[::2]/"]),
        ("[::1]:9", ["http://[::1]:9/"], ["http://[::1]:8/"]),
    ],
)
def test_pattern(pattern: str, allowed: list[str], refused: list[str]) -> None:
    """A host, a host with a port and a suffix each allow what they say and no more."""
    hosts = AllowList.of([f" {pattern} ", ""])
    for url in allowed:
        hosts.check(url)
    for url in refused:
        with pytest.raises(Unsafe):
            hosts.check(url)


@each(
    "pattern",
    [
        "*",
        "*.",
        ".mirror.org",
        "a*.org",
        "https://mirror.org",
        "mirror.org/x",
        "a b",
        "mirror.org:",
        "mirror.org:x",
        "ho\nst",
        "::1",
    ],
)
def test_bad_pattern(pattern: str) -> None:
    """A text that is no pattern is a usage error that names it."""
    with pytest.raises(UsageError) as caught:
        AllowList.of(["good.org", pattern])
    assert (caught.value.exit_code, caught.value.item) == (2, pattern.strip())


@pytest.mark.fault(50)
@each(
    ("host", "port", "named"),
    [
        *(("box", 1, True), ("fd00::1", 80, True), ("nas", 8080, True), ("nas", 80, False), ("a.lab", 80, False)),
        ("huggingface.co", 443, False),
    ],
)
def test_named_host(host: str, port: int, named: bool) -> None:
    """Only a host that was itself named may be on a private network, not one that a suffix allows."""
    assert AllowList.of(["box", "*.lab", "[fd00::1]", "nas:8080"]).is_named(host, port) == named


@pytest.mark.fault(50, 236)
@each(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::8", "::ffff:127.0.0.1"),
        *("::ffff:10.0.0.1", "[::1]"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::"),
        *("fec0::1", "ff02::1", "ff0e::1", "224.0.0.1", "239.255.255.250", "::127.0.0.1", "::10.0.0.1"),
        *("::ffff:0:127.0.0.1", "::ffff:0:10.0.0.1", "::ffff:0:8.8.8.8", "64:ff9b:1::7f00:1", "64:ff9b:1::808:808"),
        *("3fff::1", "5f00::1", "::ffff:224.0.0.1", "64:ff9b::e000:1"),
    ],
)
def test_private_address(address: str) -> None:
    """Loopback, link-local, private, unspecified and multicast addresses are private, also as IPv4 inside IPv6: mapped,
    translated, NAT64, 6to4."""
    assert is_private(address)


@each("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "huggingface.co", "", "127.1"])
def test_public_address_or_name(address: str) -> None:
    """A public address is not private; a name is no address."""
    assert not is_private(address)


@pytest.mark.fault(47)
@each(
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
def test_origin(one: str, other: str, same: bool) -> None:
    """Two URLs have one origin if scheme, host and port are the same, however they are written."""
    assert (origin_of(one) == origin_of(other)) == same


def test_token_is_not_shown() -> None:
    """The repr of an OriginToken does not have its token."""
    assert "secret" not in repr(OriginToken("https://hf.co:443", "hf_secret"))


@settings(deadline=None)
@given(st.text("abc.:/@[]%\\#?*-0x17 \n", max_size=20))
def test_check_allows_no_other_host(rest: str) -> None:
    """Whatever follows the scheme, only a host that is on the list passes."""
    hosts = AllowList.of(["a.b"])
    try:
        parts = hosts.check(f"https://{rest}")
    except (Unsafe, ValueError):
        return
    assert (parts.hostname or "").rstrip(".") == "a.b"


@given(
    st.text("abc.:/@[]%\\#?*-0x17 \n\t", max_size=20),
    st.sampled_from(["", "http://", "https://", "hf:", "//", "http:/\t/"]),
)
def test_the_host_is_that_of_the_whole_url(rest: str, start: str) -> None:
    """What comes after the host, however it is written, changes neither the host nor the origin that mdl reads."""
    url = start + rest
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip(".").lower(), parts.port
    except ValueError:
        return
    assert host_of(url) == host
    assert origin_of(url) == f"{parts.scheme}://{host}:{port or {'http': 80, 'https': 443}.get(parts.scheme, 0)}"


@pytest.mark.parametrize(
    ("url", "is_said"),
    [
        ("http://captive.hotel.example/welcome?orig=1", True),
        ("https://auth.example/x", True),
        ("https://login.example.com/common/oauth2/v2.0/authorize", True),
        ("https://git.example/users/sign_in", True),
        ("https://cdn.example/logins.bin", False),
        ("https://cdn.example/x?next=/login", False),
        ("https://logincdn.example/x", False),
        ("https://portal.nersc.gov/x", False),
        ("https://account.blob.core.windows.net/x", False),
        ("https://auth-models.s3.amazonaws.com/x", False),
    ],
)
def test_where_one_has_to_sign_in(url: str, is_said: bool) -> None:
    """A captive portal and a single sign-on lead to a host of their own: to allow that one does not help."""
    with pytest.raises(Unsafe) as caught:
        AllowList.of(["files.example"]).check(url)
    assert ("wants a sign-in" in str(caught.value.hint)) == is_said
