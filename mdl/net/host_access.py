"""Which hosts may be asked, with which secret, through which proxy, and whether at a private address. Pure.

A token is sent to its own origin only, and not even there once a redirect has left it. The credential of a host goes
with the URL that was named, and with no redirect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field

from mdl.errors import Unsafe
from mdl.net.allowlist import AllowList, OriginToken, host_of, is_private, origin_of, port_of
from mdl.net.credentials import HostCredential
from mdl.net.proxies import Proxy, ProxySettings
from mdl.paths import shown
from mdl.redact import Secrets, bare_url
from mdl.values import value_class


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
        token = self._tokens.get(origin_of(url))
        if at_home and token and token.problem:
            raise token.problem.but()
        if at_home and token:
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

        A host that was named may, and so may any host if ``start`` is private itself; but not after a public address
        was on the way (``has_met_public``), unless the user's own settings trust the host. A host that was at a public
        address before may never.
        """
        host = host_of(url)
        if host in self._public:
            return False
        if self._hosts.is_trusted(host, port_of(url)):
            return True
        if has_met_public:
            return False
        first_host = host_of(start)
        return first_host == "localhost" or is_private(first_host) or self._hosts.is_named(host, port_of(url))
