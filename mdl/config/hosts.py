"""Host tables: the tables ``[hosts."HOST"]`` of ``config.toml``, read strictly: the credentials that they name, and the
certificates for TLS."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mdl.config.places import expanded
from mdl.config.remotes import is_variable
from mdl.errors import UsageError
from mdl.net.allowlist import host_of
from mdl.net.credentials import NETRC, HostCredential, HostTls
from mdl.toml.table import Table
from mdl.units import as_meant, is_sendable
from mdl.values import value_class

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

        def file(name: str) -> Path | None:
            return folder / expanded(name, f'[hosts."{self.place}"]') if name else None

        password = environ.get(self.key_password_variable, "")
        return HostTls(self.place, file(self.cert), file(self.key), file(self.ca), password, self.key_password_variable)

    def credential(self, environ: Mapping[str, str], login: Callable[[str], str]) -> HostCredential:
        """What is sent to the host now; ``login`` looks a host up in ``~/.netrc``. If it cannot be sent, its problem
        says so, and does not contain it."""
        source = self.variable or NETRC
        secret = ""
        problem = None
        try:
            secret = as_meant(environ.get(self.variable, "")) or self._login(login)
            if secret:
                self._check(secret, source)
        except UsageError as error:
            problem = error
        return HostCredential(self.place, source, self.send, secret, problem)

    def _login(self, login: Callable[[str], str]) -> str:
        """What ``~/.netrc`` has for the host, if it is to be looked at."""
        return "" if self.variable else login(host_of(f"//{self.place}"))

    def _check(self, secret: str, source: str) -> None:
        """Raises `UsageError` for a secret that cannot be sent as it should be."""
        if self.send == "basic":
            if ":" not in secret:
                hint = f'[hosts."{self.place}"] sends it as basic authentication'
                raise UsageError("it is not user:password", item=source, hint=hint)
        elif not is_sendable(secret):
            raise UsageError("it has characters that cannot be sent", item=source, hint="set it again, in one word")


def read_hosts(tables: Table) -> dict[str, HostSettings]:
    """The hosts of the table ``[hosts]``, by their names. Every mistake is noted in the file of ``tables``."""
    hosts: dict[str, HostSettings] = {}
    for name, table in tables.named_tables():
        place = name.lower()
        if not _is_place(place):
            table.wrong("must be a host, such as civitai.com, or host:port; without https:// and without a path")
        elif place in hosts:
            table.wrong("the host occurs twice")
        hosts[place] = _read_host(place, table)
    return hosts


def _is_place(text: str) -> bool:
    """Whether a text is ``host`` or ``host:port``."""
    if not _PLACE.fullmatch(text):
        return False
    try:
        return urlsplit(f"//{text}").port != 0
    except ValueError:
        return False


def _token_variable(table: Table, key: str) -> str:
    return _variable(table, key, "must be the name of a variable, such as CIVITAI_TOKEN; the token itself")


def _password_variable(table: Table, key: str) -> str:
    return _variable(table, key, "must be the name of a variable, such as CLIENT_KEY_PASSWORD; the password")


def _variable(table: Table, key: str, words: str) -> str:
    variable = table.string(key)
    if variable and not is_variable(variable):
        table.wrong(f"{words} does not belong in this file", key)
    return variable


def _send(table: Table, key: str) -> str:
    """How the credential is sent: a token as ``bearer``, what ~/.netrc has as ``basic``."""
    send = table.string(key, "bearer" if table.data.get("token_env") else "basic")
    if not _SEND.fullmatch(send):
        table.wrong('must be "bearer", "basic", "query:NAME" or "header:NAME"', key)
    elif _OF_THE_REQUEST.fullmatch(send):
        table.wrong("mdl itself sets this header", key)
    elif table.data.get("netrc") and send != "basic":
        table.wrong(f'what {NETRC} has is sent as "basic"', key)
    return send


_KEYS: dict[str, Callable[[Table, str], Any]] = {
    "token_env": _token_variable,
    "send": _send,
    "netrc": Table.switch,
    "cert": Table.string,
    "key": Table.string,
    "key_password_env": _password_variable,
    "ca": Table.string,
}
"""The keys of a host, and how the value of each is read."""


def _read_host(place: str, table: Table) -> HostSettings:
    values = table.read(_KEYS)
    if values["token_env"] and values["netrc"]:
        table.wrong("a host has token_env or netrc, not both", "netrc")
    for name in ("key", "key_password_env"):
        if values[name] and not values["cert"]:
            table.wrong("needs cert beside it: the file of the certificate", name)
    if not values["netrc"] and table.lacks("token_env", "cert", "ca"):
        table.wrong('has no credential: write token_env = "VARIABLE", netrc = true, or cert and key of a certificate')
    return HostSettings(
        place,
        values["token_env"],
        values["send"],
        bool(values["netrc"]),
        values["cert"],
        values["key"],
        values["key_password_env"],
        values["ca"],
    )


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
