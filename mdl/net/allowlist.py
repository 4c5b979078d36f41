"""The allow-list: which hosts mdl may contact, on every hop, and which origin gets a token. Pure.

Patterns are ``host``, ``host:port`` or ``*.suffix``. A pattern without a port allows any port.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import field
from urllib.parse import SplitResult, urlsplit

from mdl.errors import Unsafe, UsageError
from mdl.values import value_class

HUB_HOSTS = ("huggingface.co", "*.huggingface.co", "*.hf.co", "hf.co")
"""The hub and the hosts that serve its files. The hub's documentation advises to allow these suffixes."""
DEFAULT_PORTS = {"http": 80, "https": 443}

_PATTERN = r"(\*\.)?[a-z0-9_-][a-z0-9._-]*(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?"
_HOST_NAME = r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|[0-9a-f:.]+"
_ODD_ADDRESS = r"(^|\.)(\d+|0x[0-9a-f]*)\Z|^\Z"
"""No host, and also spellings of an address that parsers read differently: ``127.1``, ``0x7f.1``, ``2130706433``."""
_SIGN_IN_HOST = r"(?:(?:log[-_]?in|sign[-_]?in|sso|idp|captive)[.-]|auth\.)"
_SIGN_IN_PATH = r"/(?:log[-_]?in|sign[-_]?in|sso|saml2?|oauth2?|auth)(?:[/.]|\Z)"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "fec0::/10", "3fff::/20", "5f00::/16")
)
"""IPv4-compatible and IPv4-translated addresses, local NAT64, site-local, documentation, SRv6 (RFC 4291, 2765, 8215,
3879, 9637, 9602). Not every version of Python knows all of them."""


@functools.lru_cache
def host_of(url: str) -> str:
    """Return the host of a URL in lower case; "" if it has none."""
    return _host_of_server(_before_path(url))


def port_of(url: str) -> int:
    """Return the port of a URL, by default that of its scheme; 0 if neither is known. Raises `ValueError`."""
    parts = urlsplit(_before_path(url))
    return parts.port or DEFAULT_PORTS.get(parts.scheme, 0)


@functools.lru_cache
def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL. The port is always written out."""
    return _origin_of_server(_before_path(url))


def _before_path(url: str) -> str:
    """Return what stands before the path of a URL. All URLs of one server share it, so what it says is kept."""
    return "/".join(url.split("/", 3)[:3])


@functools.lru_cache
def _host_of_server(url: str) -> str:
    return (urlsplit(url).hostname or "").rstrip(".").lower()


@functools.lru_cache
def _origin_of_server(url: str) -> str:
    return f"{urlsplit(url).scheme}://{_host_of_server(url)}:{port_of(url)}"


def has_sign_in_path(url: str) -> bool:
    """Return whether the path of a URL looks like that of a page to sign in at, of a network or of a host."""
    return re.search(_SIGN_IN_PATH, urlsplit(url).path, re.I) is not None


def _is_sign_in(url: str) -> bool:
    """Return whether the host or the path of a URL looks like those of a page to sign in at."""
    return re.match(_SIGN_IN_HOST, host_of(url)) is not None or has_sign_in_path(url)


def bracketed(host: str) -> str:
    """Return a host as it stands in a URL and in a pattern."""
    return f"[{host}]" if ":" in host else host


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that ``host`` is; None if it is a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


@functools.lru_cache(maxsize=1024)
def is_private(address: str) -> bool:
    """Return whether an IP address is not a public one: loopback, link-local, private, multicast, also inside a mapped,
    NAT64, 6to4 or Teredo address (RFC 4291, 6052, 3056, 4380)."""
    parsed = address_of(address.partition("%")[0])
    if parsed is None:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if any(parsed in network for network in _NEVER_PUBLIC):
            return True
        parsed = _ipv4_in(parsed) or parsed
    return parsed.is_multicast or not parsed.is_global


def _ipv4_in(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address carries; None if it carries none."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour


@value_class
class OriginToken:
    """A token and the one origin that may receive it; ``source`` is the variable or file that it was read from.
    ``problem`` is raised where it would be sent: what is set is no token."""

    origin: str
    token: str = field(repr=False)
    source: str = "the key"
    problem: UsageError | None = field(default=None, repr=False, compare=False)


def is_public(host: str) -> bool:
    """Return whether a host is a public address, or has a name that is known beyond its own network: one with a dot."""
    return not is_private(host) and host.rpartition(".")[2] != "localhost" and bool(re.search(r"[.:]", host))


@value_class
class AllowList:
    """The hosts that may be contacted.

    ``named`` patterns come from the user, the catalog or the endpoint setting. ``trusted`` patterns are those of them
    that come from the user's own settings: any host may redirect there, also to a private address. The hub's hosts are
    always allowed.
    """

    named: frozenset[str]
    trusted: frozenset[str] = frozenset()
    _passed: set[tuple[str, str]] = field(default_factory=set, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, patterns: Iterable[str], trusted: Iterable[str] = ()) -> AllowList:
        """Return a list of these patterns. Raises `UsageError`, which names a bad one."""
        allowed = _parse_patterns(trusted)
        return cls(_parse_patterns(patterns) | allowed, trusted=allowed)

    def is_named(self, host: str, port: int) -> bool:
        """Return whether exactly this host was named. Such a host may be on a private network."""
        return _contains(self.named, host, port)

    def is_trusted(self, host: str, port: int) -> bool:
        """Return whether the user's own settings name exactly this host. A public host may redirect there even if it is
        private."""
        return _contains(self.trusted, host, port)

    def allows(self, host: str, port: int) -> bool:
        """Return whether this host may be contacted at all."""
        if self.is_named(host, port) or is_hub_host(host):
            return True
        suffixes = _suffixes(self.named)
        return host.endswith(suffixes) or f"{host}:{port}".endswith(suffixes)

    def check(self, url: str) -> SplitResult:
        """Return the parts of an allowed URL. Raises `Unsafe`, which names the host, for any other URL."""
        parts = urlsplit(url)
        host = host_of(url)
        place = (parts.scheme, parts.netloc)
        if place in self._passed:
            return parts
        if parts.scheme not in DEFAULT_PORTS:
            raise Unsafe(f"refused: scheme {parts.scheme or 'none'!r} is not http or https", item=host or None)
        if "@" in parts.netloc:
            raise Unsafe("refused: a URL with a user name or password in it", item=host)
        if re.search(_ODD_ADDRESS, host) and address_of(host) is None:
            raise Unsafe(f"refused: {host!r} is an odd spelling of an address", item=host)
        if not re.fullmatch(_HOST_NAME, host):
            raise Unsafe(f"refused: {host!r} is not a host name", item=host)
        if not self.allows(host, port_of(url)):
            hint = f"if you trust it: MDL_ALLOW_HOSTS={bracketed(host)}"
            if _is_sign_in(url):
                hint = f"it wants a sign-in: sign in to the network, or to the host that led there, first; {hint}"
            raise Unsafe(f"refused: the host {host} is not on the allow-list", item=host, hint=hint)
        self._passed.add(place)
        return parts


def is_hub_host(host: str) -> bool:
    """Return whether ``host`` is one of the hub's own."""
    return host in HUB_HOSTS or host.endswith(_suffixes(HUB_HOSTS))


def _suffixes(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the ends of host names that the patterns allow."""
    return tuple(pattern[1:] for pattern in patterns if pattern.startswith("*."))


def _parse_patterns(patterns: Iterable[str]) -> frozenset[str]:
    parsed = set[str]()
    for pattern in patterns:
        pattern = pattern.strip().lower()
        if not pattern:
            continue
        if not re.fullmatch(_PATTERN, pattern):
            hint = "MDL_ALLOW_HOSTS, or allow_hosts in config.toml, takes them with commas in between"
            raise UsageError("not a host, host:port or *.suffix", item=pattern, hint=hint)
        parsed.add(re.sub(r"\.(?=:|\Z)", "", pattern))  # the dot at the end of a complete name
    return frozenset(parsed)


def _contains(patterns: frozenset[str], host: str, port: int) -> bool:
    return not {host, bracketed(host), f"{bracketed(host)}:{port}"}.isdisjoint(patterns)
