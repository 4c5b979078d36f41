"""Host tables: the tables ``[hosts."HOST"]`` of ``config.toml``, read strictly: the credentials that they name, and the
certificates for TLS."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from mdl.config.places import expanded
from mdl.config.remotes import is_variable
from mdl.errors import UsageError
from mdl.net.allowlist import host_of
from mdl.net.credentials import NETRC, HostCredential, HostTls
from mdl.toml.table import Table
from mdl.units import as_meant
from mdl.values import value_class

_KEYS = ("token_env", "send", "netrc", "cert", "key", "key_password_env", "ca")
_PLACE = re.compile(r"([a-z0-9]([a-z0-9_.-]*[a-z0-9])?|\[[0-9a-f:]+\])(:[1-9][0-9]{0,4})?", re.IGNORECASE)
_SEND = re.compile(r"bearer|basic|query:[A-Za-z0-9_.-]+|header:[A-Za-z0-9_-]+")
_OF_THE_REQUEST = re.compile(
    r"header:(host|content-.*|transfer-encoding|connection|te|upgrade|(if-)?range|accept-encoding|proxy-.*)", re.I
)
"""Headers that say how a request and its answer are read."""


@value_class
class HostSettings:
    """One table ``[hosts."HOST"]``, checked. ``variable`` has the credential; if it is '', ``~/.netrc`` has it, if
    ``netrc`` says so. ``cert``, ``key`` and ``ca`` are files as they are written there; ``key_password_variable`` has
    the password of the key."""

    place: str
    variable: str = ""
    send: str = "bearer"
    netrc: bool = False
    cert: str = ""
    key: str = ""
    key_password_variable: str = ""
    ca: str = ""

    @property
    def has_credential(self) -> bool:
        """Whether something is sent to the host that proves who asks, other than a certificate."""
        return bool(self.variable) or self.netrc

    def tls(self, environ: Mapping[str, str], folder: Path) -> HostTls | None:
        """What the table says of TLS; None if that is nothing. Files are below ``folder``, unless they are absolute.
        Raises `UsageError` for one below the home of nobody."""
        if not self.cert and not self.ca:
            return None
        cert, key, ca = (
            folder / expanded(name, f'[hosts."{self.place}"]') if name else None
            for name in (self.cert, self.key, self.ca)
        )
        password = environ.get(self.key_password_variable, "") if self.key_password_variable else ""
        return HostTls(self.place, cert, key, ca, password, self.key_password_variable)

    def credential(self, environ: Mapping[str, str], login: Callable[[str], str]) -> HostCredential:
        """What is sent to the host now; ``login`` looks a host up in ``~/.netrc``. Raises `UsageError` if it cannot be
        sent. The message does not contain it."""
        source = self.variable or NETRC
        secret = as_meant(environ.get(self.variable, "")) if self.variable else login(host_of(f"//{self.place}"))
        is_basic = self.send == "basic"
        if secret and not is_basic and not (secret.isascii() and secret.isprintable() and " " not in secret):
            raise UsageError("it has characters that cannot be sent", item=source, hint="set it anew, in one word")
        if secret and is_basic and ":" not in secret:
            raise UsageError(
                "it is not user:password", item=source, hint=f'[hosts."{self.place}"] sends it as basic authentication'
            )
        return HostCredential(self.place, source, self.send, secret)


def read_hosts(tables: Table) -> dict[str, HostSettings]:
    """The hosts of the table ``[hosts]``, by their names. Every mistake is noted in the file of ``tables``."""
    found: dict[str, HostSettings] = {}
    for name, table in tables.named_tables():
        place = name.lower()
        if not _PLACE.fullmatch(place) or not _has_port_or_none(place):
            table.wrong("must be a host, such as civitai.com, or host:port; without https:// and without a path")
        elif place in found:
            table.wrong("the host is there twice")
        found[place] = _read_host(place, table)
    return found


def _has_port_or_none(place: str) -> bool:
    try:
        return urlsplit(f"//{place}").port != 0
    except ValueError:
        return False


def _read_host(place: str, table: Table) -> HostSettings:
    table.allow(*_KEYS)
    variable = table.string("token_env")
    netrc = table.switch("netrc")
    send = table.string("send", "bearer" if variable else "basic")
    if variable and not is_variable(variable):
        why = "must be the name of a variable, such as CIVITAI_TOKEN; the token itself does not belong in this file"
        table.wrong(why, "token_env")
    if variable and netrc:
        table.wrong("a host has token_env or netrc, not both", "netrc")
    cert, key, ca, key_password = (table.string(name) for name in ("cert", "key", "ca", "key_password_env"))
    if key_password and not is_variable(key_password):
        why = "must be the name of a variable, such as CLIENT_KEY_PASSWORD; the password does not belong in this file"
        table.wrong(why, "key_password_env")
    for name, needed in (("key", key), ("key_password_env", key_password)):
        if needed and not cert:
            table.wrong("needs cert beside it: the file of the certificate", name)
    if not netrc and table.lacks("token_env", "cert", "ca"):
        table.wrong('has no credential: write token_env = "VARIABLE", netrc = true, or cert and key of a certificate')
    if not _SEND.fullmatch(send):
        table.wrong('must be "bearer", "basic", "query:NAME" or "header:NAME"', "send")
    elif _OF_THE_REQUEST.fullmatch(send):
        table.wrong("mdl itself sets this header", "send")
    elif netrc and send != "basic":
        table.wrong(f'what {NETRC} has is sent as "basic"', "send")
    return HostSettings(place, variable, send, bool(netrc), cert, key, key_password, ca)


def netrc_login(home: str, host: str) -> str:
    """``user:password`` of a host in the user's ``~/.netrc``; '' if it has no entry of exactly this host. Raises
    `UsageError` if the file cannot be read."""
    import netrc

    path = Path(home, ".netrc")
    if not home or not path.is_file():
        return ""
    try:
        found = netrc.netrc(str(path)).hosts.get(host)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"it cannot be read: {getattr(error, 'strerror', 'not text')}", item=NETRC) from None
    except netrc.NetrcParseError as error:
        raise UsageError(f"it cannot be read (line {error.lineno})", item=NETRC) from None
    return f"{found[0]}:{found[2]}" if found else ""
