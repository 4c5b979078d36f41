"""URLs: the one place that decides which of them mdl takes: those that everybody reads alike; which
parts of one identify the resource and which only sign it and change each time; and when it expires. Pure.

What programs read in two ways leads somewhere else than it was checked for: odd spellings of addresses, a user name
that looks like a host, a backslash, letters beyond ASCII. (ADR 103)
"""

from __future__ import annotations

import hashlib
import math
import re
from datetime import UTC, datetime
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import SplitResult, parse_qs, parse_qsl, urlsplit

from mdl.bounds import parse_number
from mdl.errors import UsageError
from mdl.paths import shown
from mdl.redact import bare_url

_PLACE = re.compile(r"(\[[^\[\]]*\])?(:[0-9]*)?|[^\[\]]*")
"""A host or an address in brackets, and a port."""
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_LONGEST_HOST = 253


class OtherScheme(UsageError):
    """A URL has another scheme than http and https, or none."""


class _BadUrl(Exception):
    """A URL cannot be used; ``hint`` says what to do about it."""

    def __init__(self, reason: str, hint: str | None = None, kind: type[UsageError] = UsageError) -> None:
        super().__init__(reason)
        self.hint = hint
        self.kind = kind

    def as_error(self, item: str) -> UsageError:
        return self.kind(f"not a usable URL: {self}", item=item, hint=self.hint)


def split_url(url: str) -> SplitResult | None:
    """The parts of ``url``; None if it has none."""
    try:
        return urlsplit(url)
    except ValueError:
        return None


def shown_url(url: str) -> str:
    """``url`` for a message: bare, and nothing a terminal would obey."""
    return shown(bare_url(url))[:200]


def check_url(url: str) -> str:
    """``url`` if it is an absolute http(s) URL that everybody reads alike; its scheme comes back in lower case.

    Raises `UsageError`. The message never repeats the URL, which may hold a secret.
    """
    try:
        parts = _checked_parts(url)
    except _BadUrl as error:
        raise error.as_error(shown_url(url)) from None
    return parts.scheme + url[len(parts.scheme) :]


def check_server_url(url: str) -> str:
    """As `check_url`, for the URL below which a server has everything: without a query and a fragment, and without a
    slash at its end."""
    url = check_url(url)
    if "?" in url or "#" in url:
        raise UsageError("not the URL of a server: it has a query or a fragment", item=shown_url(url))
    return url.rstrip("/")


def _checked_parts(url: str) -> SplitResult:
    """The parts of a URL. Raises `_BadUrl`."""
    if " " in url or not url.isprintable():
        raise _BadUrl("a blank, control or invisible character", "percent-encode it")
    if "\\" in url:
        raise _BadUrl("a backslash", "percent-encode it")
    parts = split_url(url)
    if parts is None:
        raise _BadUrl("malformed host")
    if "@" in parts.netloc:
        raise _BadUrl("a user name or password", "never put secrets in URLs; a token comes from the environment")
    if parts.scheme not in ("http", "https"):
        raise _BadUrl("only http:// and https://", "write https://host/path", OtherScheme)
    if not parts.hostname:
        raise _BadUrl("no host", "write https://host/path")
    if not _PLACE.fullmatch(parts.netloc):
        raise _BadUrl("something beside the bracketed address", "write https://[address]:port/path")
    _check_port(parts)
    if parts.netloc.startswith("["):
        _check_address(parts.hostname)
    else:
        _check_host(parts.hostname)
    return parts


def _check_port(parts: SplitResult) -> None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise _BadUrl("a port must be 1 to 65535")


def _check_address(host: str) -> None:
    """An address in brackets, in its usual spelling. Raises `_BadUrl`."""
    try:
        address = IPv6Address(host)
    except AddressValueError:
        raise _BadUrl("not an IPv6 address") from None
    if address.scope_id:
        raise _BadUrl("an address with a zone")
    if address.ipv4_mapped:
        raise _BadUrl("an odd spelling of an address", f"write {address.ipv4_mapped}")
    if str(address) != host:
        raise _BadUrl("an odd spelling of an address", f"write [{address}]")


def _check_host(host: str) -> None:
    """A host name, or an IPv4 address in its usual spelling. Raises `_BadUrl`."""
    if not host.isascii():
        raise _BadUrl("a host name beyond ASCII", "write its xn-- form")
    labels = host.removesuffix(".").split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise _BadUrl("not a host name")
    if len(host) > _LONGEST_HOST:
        raise _BadUrl("not a host name")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            IPv4Address(host)
        except AddressValueError:
            hint = "write it as four decimal numbers, such as 127.0.0.1"
            raise _BadUrl("an odd spelling of an address", hint) from None


_SIGNING_PARAMETERS = {
    "x-amz-signature": r"x-amz-.*",
    "x-goog-signature": r"x-goog-.*",
    "signature": r"signature|expires|policy|key-pair-id|(aws|oss)?accesskeyid|googleaccessid|(x-amz-)?security-token",
    "sig": r"sig|s[evtrps]|s[pk]r|srt|sip|sdd|sk[tesv]|s[ksa]oid|sktid|suoid|scid",
    "q-signature": r"q-.*",
}
"""For each parameter that carries a signature, the parameters that belong to it: S3, Google Cloud Storage, CloudFront
and older S3, Azure, Tencent. Without the signature they are parameters like any other."""
_DELIVERY_PARAMETERS = {("download", value) for value in ("", "1", "true")}
"""Parameters that say how the bytes are sent, not which bytes."""


def identifying_parameters(url: str) -> list[tuple[str, str]]:
    """The parameters of a URL's path and query, in order, without those that only sign the URL."""
    path, _, query = url.partition("#")[0].partition("?")
    if not query and ";" not in path:
        return []
    pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    names = {name.lower() for name, _ in pairs}
    signing = "|".join(pattern for signature, pattern in _SIGNING_PARAMETERS.items() if signature in names)
    return [(";", text) for text in re.findall(";([^;/]*)", path)] + [
        (name, value)
        for name, value in pairs
        if not re.fullmatch(signing, name.lower()) and (name.lower(), value.lower()) not in _DELIVERY_PARAMETERS
    ]


def query_hash(url: str) -> str:
    """`identifying_parameters` as 16 hex digits, because they may hold a secret; "" if there are none."""
    found = identifying_parameters(url)
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16] if found else ""


def url_identity(url: str) -> str:
    """A text that stays the same when a URL is signed again, and differs if the URL asks for something else."""
    found = query_hash(url)
    return f"{bare_url(url)}?{found}" if found else bare_url(url)


def expires_at(url: str) -> float:
    """The moment, in seconds since 1970, at which a signed URL expires, as its own query tells; infinite if it does not
    tell.

    CloudFront and S3 (version 2) sign with ``Expires``, S3 and Google Cloud Storage with a date and seconds
    (``X-Amz-…``, ``X-Goog-…``), Azure with the moment ``se``.
    """
    query = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
    try:
        if "Expires" in query:
            return parse_number(query["Expires"])
        if "se" in query and "sig" in query:
            moment = datetime.fromisoformat(query["se"])
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        for maker in ("X-Amz", "X-Goog"):
            if f"{maker}-Date" in query and re.fullmatch(r"\d{1,7}", query.get(f"{maker}-Expires", "")):
                signed = datetime.strptime(query[f"{maker}-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return signed.timestamp() + float(query[f"{maker}-Expires"])
    except (ValueError, OverflowError):
        pass
    return math.inf
