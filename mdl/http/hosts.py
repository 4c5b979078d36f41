"""The allow-list: which hosts mdl may speak to, on every hop, and which one gets a token. Pure.

Patterns are ``host``, ``host:port`` or ``*.suffix``; without a port, any port.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from mdl.errors import Unsafe, UsageError

HUB_HOSTS = ("huggingface.co", "*.huggingface.co", "*.hf.co", "hf.co")
"""The hub and the hosts it hands bodies out from; its own advice is to allow by these suffixes."""

_PATTERN = re.compile(r"(\*\.)?[a-z0-9._-]+(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?")


def host_of(url: str) -> str:
    """The lower-case host of a URL, '' when it has none."""
    return (urlsplit(url).hostname or "").rstrip(".").lower()


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, the port always written out."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{host_of(url)}:{port}"


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def is_private(address: str) -> bool:
    """Loopback, link-local, private, multicast or otherwise not a public address; also as IPv4 inside IPv6."""
    found = address_of(address.split("%")[0])
    if found is None:
        return False
    if any(found in network for network in _NEVER_PUBLIC):
        return True
    found = _inner(found) or found
    return found.is_multicast or not found.is_global


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "fec0::/10", "3fff::/20", "5f00::/16")
)
"""IPv4-compatible and IPv4-translated addresses, local NAT64, site-local, documentation, SRv6 (RFC 4291, 2765, 8215,
3879, 9637, 9602). Not every Python knows all of them."""


def _inner(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address inside a mapped, NAT64, 6to4 or Teredo one (RFC 4291, 6052, 3056, 4380)."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def refuse_odd_address(host: str) -> None:
    """Refuse spellings of an address that parsers read differently: ``127.1``, ``0x7f.1``, ``2130706433``."""
    last = host.rsplit(".", 1)[-1]
    if (re.fullmatch(r"\d+|0x[0-9a-f]*", last) and address_of(host) is None) or not host:
        raise Unsafe(f"refused: {host or 'no host'} is an odd spelling of an address", item=host)


@dataclass(frozen=True)
class Bearer:
    """A token and the one origin it belongs to."""

    origin: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class Hosts:
    """An allow-list. ``named`` patterns were written by the user, the catalog or the endpoint setting; ``trusted`` are
    those of them that the user's own settings allow, whatever leads there."""

    named: frozenset[str]
    general: tuple[str, ...] = HUB_HOSTS
    trusted: frozenset[str] = frozenset()

    @classmethod
    def of(cls, patterns: Iterable[str], trusted: Iterable[str] = ()) -> Hosts:
        """Check and collect patterns. Raises `UsageError` naming a bad one."""
        allowed = _checked(trusted)
        return cls(_checked(patterns) | allowed, trusted=allowed)

    def names(self, host: str, port: int) -> bool:
        """True if exactly this host was named: such a host may be on a private network."""
        return _is_in(self.named, host, port)

    def trusts(self, host: str, port: int) -> bool:
        """True if the user's own settings allow exactly this host: a public host may lead there, if it is private."""
        return _is_in(self.trusted, host, port)

    def allows(self, host: str, port: int) -> bool:
        if self.names(host, port):
            return True
        suffixes = (p[1:] for p in (*self.general, *self.named) if p.startswith("*."))
        return host in self.general or f"{host}:{port}".endswith(
            tuple(s if ":" in s else f"{s}:{port}" for s in suffixes)
        )

    def check(self, url: str) -> SplitResult:
        """The parts of an allowed URL. Raises `Unsafe`, by name, for any other."""
        parts = urlsplit(url)
        host = host_of(url)
        if parts.scheme not in ("http", "https"):
            raise Unsafe(f"refused: scheme {parts.scheme or 'none'!r} is not http or https", item=host or None)
        if parts.username is not None or parts.password is not None:
            raise Unsafe("refused: a URL with a user name or password in it", item=host)
        refuse_odd_address(host)
        if not re.fullmatch(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|[0-9a-f:.]+", host):
            raise Unsafe(f"refused: {host!r} is no name of a host", item=host or None)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if not self.allows(host, port):
            raise Unsafe(
                f"refused: the host {host} is not on the allow-list",
                item=host,
                hint=f"if you trust it: MDL_ALLOW_HOSTS={host}",
            )
        return parts


def _checked(patterns: Iterable[str]) -> frozenset[str]:
    found = set()
    for pattern in map(str.strip, patterns):
        if pattern and not _PATTERN.fullmatch(pattern.lower()):
            raise UsageError("not a host, host:port or *.suffix", item=pattern)
        found.add(pattern.lower())
    return frozenset(found - {""})


def _is_in(patterns: frozenset[str], host: str, port: int) -> bool:
    bare = f"[{host}]" if ":" in host else host
    return not {host, bare, f"{bare}:{port}"}.isdisjoint(patterns)
