"""Remote tables: the tables ``[remotes.NAME]`` of ``config.toml``, read strictly. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from mdl.errors import Unsafe, UsageError
from mdl.net.allowlist import AllowList, OriginToken, host_of, is_public, origin_of
from mdl.paths import RelPath, shown
from mdl.toml.problems import did_you_mean
from mdl.toml.table import Table
from mdl.units import as_meant
from mdl.values import value_class

KINDS = {
    "api": "mdl.results.server",
    "bucket": "mdl.results.bucket",
    "runpod": "mdl.results.runpod",
    "trainer": "mdl.results.server",
}
"""The module of each kind. It is imported when the first remote of that kind is opened."""
_KEYS: dict[str, dict[str, type]] = {
    "api": {"url": str, "status_url": str, "api_key_env": str, "bucket": str},
    "bucket": {"url": str, "endpoint_url": str, "region": str, "presign": bool},
    "runpod": {"endpoint": str, "base_url": str, "api_key_env": str, "bucket": str},
    "trainer": {"url": str, "api_key_env": str},
}
_COMMON: dict[str, type] = {"kind": str, "allow_hosts": list}
_NEEDED = {"api": ("url",), "bucket": ("url",), "runpod": ("endpoint", "base_url"), "trainer": ("url",)}
"""Keys of which one must be there."""
RUNPOD = "https://api.runpod.ai/v2"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
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
        if self.kind == "runpod":
            return (self.get("base_url") or f"{RUNPOD}/{quote(self.get('endpoint'), safe='')}").rstrip("/")
        return self.get("url").rstrip("/")

    @property
    def key_variable(self) -> str:
        """The variable that has its key; '' if it needs none."""
        return self.get("api_key_env") or ("RUNPOD_API_KEY" if self.kind == "runpod" else "")

    def token(self, environ: Mapping[str, str]) -> OriginToken | None:
        """Its key, for its own origin; None if there is none."""
        key = as_meant(environ.get(self.key_variable, "")) if self.key_variable else ""
        return OriginToken(origin_of(self.address), key, self.key_variable) if key else None


def read_remotes(tables: Table) -> dict[str, RemoteSettings]:
    """The remotes of the table ``[remotes]``, by their names. Every mistake is noted in the file of ``tables``."""
    found: dict[str, RemoteSettings] = {}
    names: dict[str, str] = {}
    for name, table in tables.named_tables():
        _check_name(name, table, names)
        found[name] = RemoteSettings(name, _check_table(table), table.data)
    buckets = [name for name, remote in found.items() if remote.kind == "bucket"]
    for name, remote in found.items():
        if remote.get("bucket") and remote.get("bucket") not in buckets:
            guess = did_you_mean(tables.file.problems.guess(remote.get("bucket"), buckets))
            tables.table(name).wrong(f"there is no remote of kind bucket with this name{guess}", "bucket")
    return found


def _check_name(name: str, table: Table, names: dict[str, str]) -> None:
    """A remote's name is part of a folder's name and of ``job://NAME/JOB``. ``names`` are those before it."""
    if not _NAME.fullmatch(name):
        table.wrong("the name of a remote has letters, digits, '-', '_' and '.', and begins with a letter or a digit")
    elif (path := table.attempt(RelPath.parse, name)) and (other := names.setdefault(path.folded, name)) != name:
        table.wrong(f"the name differs from {other} only in case, and their folders could be one")


def _check_table(table: Table) -> str:
    """Note what is wrong with one remote; returns its kind, '' for an unknown one."""
    kind = table.string("kind")
    kinds = f"; the kinds are {', '.join(KINDS)}"
    if kind not in KINDS:
        table.allow(*_COMMON, *(key for keys in _KEYS.values() for key in keys))
        if kind:
            guess = did_you_mean(table.file.problems.guess(kind, KINDS))
            table.wrong(f"unknown kind{guess or kinds}", "kind")
        elif table.lacks("kind"):
            table.wrong(f"has no kind{kinds}")
        return ""
    known = _COMMON | _KEYS[kind]
    has_key = kind == "runpod" or "api_key_env" in table.data
    table.allow(*known)
    for key, expected in known.items():
        if expected is bool:
            table.switch(key)
        elif expected is list:
            for where, pattern in table.strings(key):
                table.attempt(lambda text: AllowList.of([text]), pattern, *where)
        elif (text := table.string(key)) and (why := _why_wrong(kind, key, text, has_key=has_key)):
            table.wrong(why, key)
    if table.lacks(*_NEEDED[kind]) and not table.data.keys() & _NEEDED[kind]:
        table.wrong(f"has no {' and no '.join(_NEEDED[kind])}")
    return kind


def _why_wrong(kind: str, key: str, text: str, *, has_key: bool) -> str:
    """Why ``text`` cannot stand under this key of a remote that ``has_key``, or has none; '' if it can. A text that may
    be a secret is not repeated."""
    if key == "api_key_env" and not is_variable(text):
        return "must be the name of a variable, such as RUNPOD_API_KEY; the key itself does not belong in this file"
    if key == "endpoint" and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text):
        return "must be the endpoint's id, such as abc123; a whole URL is a base_url"
    if not key.endswith("url"):
        return ""
    if (kind, key) == ("bucket", "url"):
        return _why_no_url(text, ("s3",)) or _why_no_bucket(text.removeprefix("s3://"))
    why = _why_no_url(text, ("https", "http"))
    if not why and has_key and text.startswith("http:") and is_public(host_of(text)):
        return "would send the key in clear text to a public host; write https://"
    return why


def _why_no_url(text: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(text)
        is_sound = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", text)
    except ValueError:
        is_sound = False
    if not is_sound:
        return f"must be a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    if "@" in parts.netloc:
        return "must have no user name and no password in it; keys are read from variables"
    return "must have no query and no fragment" if re.search(r"[?#]", text) else ""


def _why_no_bucket(text: str) -> str:
    bucket, _, prefix = text.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", bucket):
        return "must be s3://bucket or s3://bucket/prefix"
    try:
        if prefix.strip("/"):
            RelPath.parse(unquote(prefix.strip("/")))
    except Unsafe as error:
        return error.message
    return ""


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
    near = get_close_matches(name, remotes, 1)
    hint = f"did you mean {near[0]}?" if near else "'mdl remote list' shows what there is; config.toml has them"
    raise UsageError("no such remote", item=shown(name)[:100], hint=hint)
