"""Which hosts may be asked, with which secret and which certificate, through which proxy, and whether at a private
address. Pure.

A token is sent to its own origin only, and not even there once a redirect has left it. The credential of a host, which
the user's settings name, goes to that host alone: over https, or to this machine itself; with the URL that was asked
for and with no redirect, not even with one that leads back.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

from mdl.errors import TlsError, Unsafe, UsageError
from mdl.net.allowlist import (
    DEFAULT_PORTS,
    AllowList,
    OriginToken,
    address_of,
    bracketed,
    host_of,
    is_hub_host,
    is_private,
    origin_of,
    port_of,
)
from mdl.paths import shown
from mdl.redact import Secrets, bare_url
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.net.proxies import Proxy, ProxySettings

NETRC = "~/.netrc"


@value_class
class HostCredential:
    """What one host is sent. ``place`` is ``host`` or ``host:port``; without a port it is the usual one. ``source``
    names the variable that has the ``secret``, or `NETRC`; the secret is '' if that has none. ``send`` is ``bearer``,
    ``basic`` (the secret is then ``user:password``), ``query:NAME`` or ``header:NAME``. ``problem`` is raised where the
    secret would be sent: it cannot be."""

    place: str
    source: str
    send: str = "bearer"
    secret: str = field(default="", repr=False)
    problem: UsageError | None = field(default=None, repr=False, compare=False)

    @property
    def host(self) -> str:
        return host_of(f"//{self.place}")

    def is_for(self, url: str) -> bool:
        """Return whether ``url`` is of this host and port, whatever its scheme."""
        port = urlsplit(f"//{self.place}").port or DEFAULT_PORTS.get(urlsplit(url).scheme)
        return (host_of(url), port_of(url)) == (self.host, port)

    def may_go_to(self, url: str, *, through_proxy: bool = False) -> bool:
        """Return whether a request for ``url`` may take it along. A proxy can read what comes without TLS."""
        is_private = urlsplit(url).scheme == "https" or (is_loopback(host_of(url)) and not through_proxy)
        return (self.secret != "" or self.problem is not None) and self.is_for(url) and is_private

    def check(self) -> None:
        """Raises `UsageError` if the secret cannot be sent."""
        if self.problem:
            raise self.problem.but()

    def headers(self) -> dict[str, str]:
        """Return the headers that carry it; none if the query does."""
        way, _, name = self.send.partition(":")
        match way:
            case "bearer":
                return {"Authorization": f"Bearer {self.secret}"}
            case "basic":
                return {"Authorization": f"Basic {_base64(self.secret)}"}
            case "header":
                return {name: self.secret}
        return {}

    def url(self, url: str) -> str:
        """``url`` as it is asked for. A parameter that the URL has already stays as it is."""
        way, _, name = self.send.partition(":")
        bare, _, query = url.partition("?")
        if way != "query" or name in (key for key, _ in parse_qsl(query, keep_blank_values=True)):
            return url
        return f"{bare}?{query}{'&' if query else ''}{name}={quote(self.secret, safe='')}"

    def values(self) -> Iterator[str]:
        """Every form of it that no output may have."""
        yield self.secret
        if self.send == "basic":
            yield self.secret.partition(":")[2]
            yield _base64(self.secret)


@value_class
class HostTls:
    """What ``[hosts."HOST"]`` says of TLS: the certificate that mdl shows to this host and port, the file of its key if
    that is another one, the ``password`` of the key, and a file or folder of authorities that are trusted there beside
    the usual ones. ``place`` is ``host`` or ``host:port``; ``password_variable`` has the password."""

    place: str
    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    password: str = field(default="", repr=False)
    password_variable: str = ""

    def is_for(self, host: str, port: int) -> bool:
        return (host_of(f"//{self.place}"), port_of(f"https://{self.place}")) == (host, port)


def certificate_wanted(url: str, words: str) -> TlsError:
    """Return the error of a host that wants a client certificate, as it says in ``words``, and got none."""
    hint = f'write into config.toml: [hosts."{place_of(url)}"]  cert = "CERTIFICATE.pem"  key = "KEY.pem"'
    return TlsError(f"{host_of(url)} wants a client certificate: {words}", hint=hint)


def place_of(url: str) -> str:
    """Return the host of an https URL as ``[hosts."HOST"]`` names it: with its port if that is not the usual one."""
    host = bracketed(host_of(url))
    port = port_of(url)
    return host if port == 443 else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether this host is this machine itself."""
    address = address_of(host)
    return address.is_loopback if address else host == "localhost"


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()


# Whom a client may ask.


@value_class
class Proof:
    """What proves who asks: the ``url`` to ask, the ``headers`` to send, and the ``source`` of the secret in them, a
    variable or a file; '' if there is none."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    source: str = ""


class HostAccess:
    """Whom a client may ask. It remembers which hosts were at a public address; for any number of threads."""

    def __init__(
        self,
        hosts: AllowList,
        tokens: Iterable[OriginToken],
        credentials: Iterable[HostCredential],
        proxies: ProxySettings,
    ) -> None:
        self._hosts = hosts
        self._tokens = {token.origin: token for token in tokens if token.token or token.problem}
        self._credentials = tuple(credentials)
        self._proxies = proxies
        self._public: set[str] = set()

    def secrets(self, bearer: str) -> Secrets:
        """Return all that no output may contain, with the ``bearer`` of one request."""
        secrets = Secrets([bearer, *(token.token for token in self._tokens.values())])
        for credential in self._credentials:
            secrets.add_all(credential.values())
        return secrets

    def check(self, url: str, start: str, *, is_redirected: bool) -> None:
        """Raises `Unsafe` if ``url`` may not be asked, to which ``start`` led: by a redirect, or as a locator says."""
        try:
            self._hosts.check(url)
        except Unsafe as error:
            message = f"it redirects, which is {error.message}" if is_redirected else error.message
            item = error.item if url == start else shown(bare_url(start))[:200]
            raise error.but(message=message, item=item) from error

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy that a request for ``url`` goes through."""
        return self._proxies.choose(url)

    def credential_for(self, url: str) -> HostCredential | None:
        """Return what the settings have for the host of ``url``."""
        for credential in self._credentials:
            if credential.is_for(url):
                return credential
        return None

    def proof(self, url: str, proxy: Proxy | None, *, bearer: str, at_home: bool, is_named: bool) -> Proof:
        """Return what proves who asks ``url``, which goes through ``proxy``: the ``bearer`` of this one request, the
        token of its origin as long as no redirect has left that (``at_home``), or the credential of its host if the URL
        ``is_named`` by the user, the catalog or the lock. Raises `UsageError` if what is set for its origin is no
        token."""
        if bearer:
            return Proof(url, {"Authorization": f"Bearer {bearer}"}, "the token")
        token = self._tokens.get(origin_of(url)) if at_home else None
        if token and token.problem:
            raise token.problem.but()
        if token:
            return Proof(url, {"Authorization": f"Bearer {token.token}"}, token.source)
        if is_named:
            for credential in self._credentials:
                if credential.may_go_to(url, through_proxy=proxy is not None):
                    credential.check()
                    return Proof(credential.url(url), credential.headers(), credential.source)
        return Proof(url)

    def was_public(self, url: str) -> bool:
        """Return whether the host of ``url`` was at a public address before."""
        return host_of(url) in self._public

    def note_public(self, url: str) -> None:
        """The host of ``url`` is at a public address."""
        self._public.add(host_of(url))

    def may_be_private(self, url: str, start: str, has_met_public: bool) -> bool:
        """Return whether a request for ``url``, on the way from ``start``, may reach a private address.

        A host that was named may, a host of the hub over https, and any host if ``start`` is private itself; but not
        after a public address was on the way (``has_met_public``), unless the user's own settings trust the host. A
        host that was at a public address before may never. (ADR 156)
        """
        host = host_of(url)
        if host in self._public:
            return False
        if self._hosts.is_trusted(host, port_of(url)):
            return True
        if has_met_public:
            return False
        if is_hub_host(host) and urlsplit(url).scheme == "https":
            return True
        first_host = host_of(start)
        return first_host == "localhost" or is_private(first_host) or self._hosts.is_named(host, port_of(url))
