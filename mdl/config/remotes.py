"""Remote tables: the tables ``[remotes.NAME]`` of ``config.toml``, read strictly. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any
from urllib.parse import quote, unquote

from mdl.errors import UsageError
from mdl.formatting import near_hint
from mdl.net.allowlist import AllowList, OriginToken, host_of, is_public, origin_of
from mdl.paths import RelPath, shown
from mdl.toml.table import Table, did_you_mean
from mdl.units import as_meant
from mdl.urls import check_server_url
from mdl.values import value_class

KINDS = {
    "api": "mdl.results.job_server",
    "bucket": "mdl.results.bucket",
    "runpod": "mdl.results.runpod",
    "trainer": "mdl.results.job_server",
}
"""The module of each kind. It is imported when the first remote of that kind is opened."""
_NEEDED = {"api": ("url",), "bucket": ("url",), "runpod": ("endpoint", "base_url"), "trainer": ("url",)}
"""Keys of which one must be there."""
RUNPOD = "https://api.runpod.ai/v2"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BUCKET_URL = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]{1,254}(?P<prefix>|/[^?#\s]*)")
_KEY_PREFIXES = ("hf", "rpa", "rps", "sk", "pk", "user")
_LONGEST_WORD = 20


@value_class
class RemoteSettings:
    """One table ``[remotes.NAME]``. Its ``values`` have been checked."""

    name: str
    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def get(self, key: str) -> str:
        """The text under ``key``; '' if there is none."""
        return str(self.values.get(key) or "")

    @property
    def address(self) -> str:
        """The URL that stands before every route of it; of a bucket ``s3://…``."""
        url = self.get("url")
        if self.kind == "runpod":
            url = self.get("base_url") or f"{RUNPOD}/{quote(self.get('endpoint'), safe='')}"
        return url.rstrip("/")

    @property
    def key_variable(self) -> str:
        """The variable that has its key; '' if it needs none."""
        default = "RUNPOD_API_KEY" if self.kind == "runpod" else ""
        return self.get("api_key_env") or default

    @property
    def needs_key(self) -> bool:
        """Whether nothing is to be asked without a key: its variable is named, or it is RunPod itself."""
        return bool(self.get("api_key_env")) or (self.kind == "runpod" and not self.get("base_url"))

    def token(self, environ: Mapping[str, str]) -> OriginToken | None:
        """Its key, for its own origin; None if there is none."""
        key = as_meant(environ.get(self.key_variable, ""))
        return OriginToken(origin_of(self.address), key, self.key_variable) if key else None


def read_remotes(tables: Table) -> dict[str, RemoteSettings]:
    """The remotes of the table ``[remotes]``, by their names. Every mistake is noted in the file of ``tables``."""
    remotes: dict[str, RemoteSettings] = {}
    names: dict[str, str] = {}
    for name, table in tables.named_tables():
        _check_name(name, table, names)
        remotes[name] = RemoteSettings(name, _check_table(table), table.data)
    buckets = [name for name, remote in remotes.items() if remote.kind == "bucket"]
    for name, remote in remotes.items():
        bucket = remote.get("bucket")
        if bucket and bucket not in buckets:
            guess = did_you_mean(tables.file.problems.guess(bucket, buckets))
            tables.table(name).wrong(f"there is no remote of kind bucket with this name{guess}", "bucket")
    return remotes


def _check_name(name: str, table: Table, names: dict[str, str]) -> None:
    """A remote's name is part of a folder's name and of ``job://NAME/JOB``. ``names`` are those before it, by what a
    file system that ignores case makes of them."""
    if not _NAME.fullmatch(name):
        table.wrong("the name of a remote has letters, digits, '-', '_' and '.', and begins with a letter or a digit")
        return
    path = table.attempt(RelPath.parse, name)
    if path is None:
        return
    other = names.setdefault(path.folded, name)
    if other != name:
        table.wrong(f"the name differs from {other} only in case, and their folders could be one")


def _check_table(table: Table) -> str:
    """Note what is wrong with one remote; returns its kind, '' for an unknown one."""
    kind = table.string("kind")
    if kind not in KINDS:
        _note_unknown_kind(kind, table)
        return ""
    table.read(_COMMON | _KEYS[kind])
    needed = _NEEDED[kind]
    if table.lacks(*needed) and not table.data.keys() & needed:
        table.wrong(f"has no {' and no '.join(needed)}")
    return kind


def _note_unknown_kind(kind: str, table: Table) -> None:
    """Note that nobody knows the kind of a remote. Its other keys may be those of any kind."""
    known = dict(_COMMON)
    for keys in _KEYS.values():
        known |= keys
    table.allow(*known)
    kinds = f"; the kinds are {', '.join(KINDS)}"
    if kind:
        guess = did_you_mean(table.file.problems.guess(kind, KINDS))
        table.wrong(f"unknown kind{guess or kinds}", "kind")
    elif table.lacks("kind"):
        table.wrong(f"has no kind{kinds}")


# The values of keys. What may be a secret is not repeated in a message.


def _server(table: Table, key: str) -> None:
    """The URL of a server, which is not sent a key in clear text."""
    url = table.string(key)
    if not url:
        return
    sends_key = table.data.get("kind") == "runpod" or "api_key_env" in table.data
    if table.attempt(check_server_url, url, key) and sends_key and url.startswith("http:") and is_public(host_of(url)):
        table.wrong("would send the key in clear text to a public host; write https://", key)


def _bucket(table: Table, key: str) -> None:
    table.parsed(key, _check_bucket)


def _endpoint(table: Table, key: str) -> None:
    endpoint = table.string(key)
    if endpoint and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", endpoint):
        table.wrong("must be the endpoint's id, such as abc123; for a complete URL, use base_url", key)


def _variable(table: Table, key: str) -> None:
    variable = table.string(key)
    if variable and not is_variable(variable):
        why = "must be the name of a variable, such as RUNPOD_API_KEY; the key itself does not belong in this file"
        table.wrong(why, key)


def _hosts(table: Table, key: str) -> None:
    for where, pattern in table.strings(key):
        table.attempt(AllowList.of, [pattern], *where)


_COMMON: dict[str, Callable[[Table, str], object]] = {"kind": Table.string, "allow_hosts": _hosts}
_KEYS: dict[str, dict[str, Callable[[Table, str], object]]] = {
    "api": {"url": _server, "status_url": _server, "api_key_env": _variable, "bucket": Table.string},
    "bucket": {"url": _bucket, "endpoint_url": _server, "region": Table.string, "presign": Table.switch},
    "runpod": {"endpoint": _endpoint, "base_url": _server, "api_key_env": _variable, "bucket": Table.string},
    "trainer": {"url": _server, "api_key_env": _variable},
}
"""The keys of each kind, and how each is checked."""


def _check_bucket(url: str) -> str:
    """Raises `UsageError`, and `Unsafe` for a prefix that is no path."""
    place = _BUCKET_URL.fullmatch(url)
    if not place:
        raise UsageError("must be s3://bucket or s3://bucket/prefix; a bucket's name has 2 characters or more")
    folder = place["prefix"].strip("/")
    if folder:
        RelPath.parse(unquote(folder))
    return url


def is_variable(text: str) -> bool:
    """Whether this is the name of a variable and not the key itself: words of capital or of small letters, none of
    them longer than words are, and not beginning as the keys of services do."""
    words = text.split("_")
    is_name = re.fullmatch(r"[A-Z_][A-Z0-9_]*|[a-z_][a-z0-9_]*", text) is not None
    return is_name and all(len(word) < _LONGEST_WORD for word in words) and words[0] not in _KEY_PREFIXES


def remote_named(name: str, remotes: Mapping[str, RemoteSettings]) -> RemoteSettings:
    """The remote of that name. Raises `UsageError`, with what is near."""
    if name in remotes:
        return remotes[name]
    otherwise = "'mdl remote list' shows what there is; config.toml has them"
    if "/" in name:
        otherwise = f"to download a model: mdl get {shown(name)[:100]}"
    hint = near_hint(name, remotes, otherwise)
    raise UsageError("no such remote", item=shown(name)[:100], hint=hint)
