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

_PATTERN = re.compile(r"(\*\.)?[a-z0-9._-]+(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?")
_ODD_ADDRESS = re.compile(r"(^|\.)(\d+|0x[0-9a-f]*)\Z")
"""Also spellings of an address that parsers read differently: ``127.1``, ``0x7f.1``, ``2130706433``."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "fec0::/10", "3fff::/20", "5f00::/16")
)
"""IPv4-compatible and IPv4-translated addresses, local NAT64, site-local, documentation, SRv6 (RFC 4291, 2765, 8215,
3879, 9637, 9602). Not every version of Python knows all of them."""


def host_of(url: str) -> str:
    """Return the host of a URL in lower case; "" if it has none."""
    return _host_of(_head_of(url))


def port_of(url: str) -> int:
    """Return the port of a URL, by default that of its scheme; 0 if neither is known. Raises `ValueError`."""
    return _port_of(_head_of(url))


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL. The port is always written out."""
    return _origin_of(_head_of(url))


def _head_of(url: str) -> str:
    """Return the part of a URL before its path. All URLs of one server share it, so the caches below have one entry for
    each server and not one for each file."""
    return "/".join(url.split("/", 3)[:3])


@functools.lru_cache(maxsize=1024)
def _host_of(head: str) -> str:
    return (urlsplit(head).hostname or "").rstrip(".").lower()


@functools.lru_cache(maxsize=1024)
def _port_of(head: str) -> int:
    parts = urlsplit(head)
    return parts.port or DEFAULT_PORTS.get(parts.scheme, 0)


@functools.lru_cache(maxsize=1024)
def _origin_of(head: str) -> str:
    return f"{urlsplit(head).scheme}://{_host_of(head)}:{_port_of(head)}"


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
    found = address_of(address.split("%")[0])
    if found is None:
        return False
    if any(found in network for network in _NEVER_PUBLIC):
        return True
    if found in _NAT64:
        found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    elif isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else found)
    return found.is_multicast or not found.is_global


@value_class
class OriginToken:
    """A token and the one origin that may receive it; ``source`` is the variable or file that it was read from."""

    origin: str
    token: str = field(repr=False)
    source: str = "the key"


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
        if self.is_named(host, port):
            return True
        suffixes = (p[1:] for p in (*HUB_HOSTS, *self.named) if p.startswith("*."))
        with_port = tuple(suffix if ":" in suffix else f"{suffix}:{port}" for suffix in suffixes)
        return host in HUB_HOSTS or f"{host}:{port}".endswith(with_port)

    def check(self, url: str) -> SplitResult:
        """Return the parts of an allowed URL. Raises `Unsafe`, which names the host, for any other URL."""
        parts = urlsplit(url)
        host = host_of(url)
        place = (parts.scheme, parts.netloc)
        if place in self._passed:
            return parts
        if parts.scheme not in DEFAULT_PORTS:
            raise Unsafe(f"refused: scheme {parts.scheme or 'none'!r} is not http or https", item=host or None)
        if parts.username is not None or parts.password is not None:
            raise Unsafe("refused: a URL with a user name or password in it", item=host)
        if not host or (_ODD_ADDRESS.search(host) and address_of(host) is None):
            raise Unsafe(f"refused: {host or 'no host'} is an odd spelling of an address", item=host)
        if not re.fullmatch(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|[0-9a-f:.]+", host):
            raise Unsafe(f"refused: {host!r} is not a host name", item=host or None)
        if not self.allows(host, port_of(url)):
            raise Unsafe(
                f"refused: the host {host} is not on the allow-list",
                item=host,
                hint=f"if you trust it: MDL_ALLOW_HOSTS={bracketed(host)}",
            )
        self._passed.add(place)
        return parts


def _parse_patterns(patterns: Iterable[str]) -> frozenset[str]:
    found = set()
    for pattern in map(str.strip, patterns):
        if pattern and not _PATTERN.fullmatch(pattern.lower()):
            raise UsageError("not a host, host:port or *.suffix", item=pattern)
        found.add(pattern.lower())
    return frozenset(found - {""})


def _contains(patterns: frozenset[str], host: str, port: int) -> bool:
    return not {host, bracketed(host), f"{bracketed(host)}:{port}"}.isdisjoint(patterns)
