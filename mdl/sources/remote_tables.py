"""Remote tables: the tables ``[remotes.NAME]`` of ``config.toml``, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote

from mdl.errors import UsageError
from mdl.http.allowlist import OriginToken, origin_of
from mdl.paths import RelPath, shown

KINDS = {
    "api": "mdl.sources.api",
    "bucket": "mdl.sources.s3",
    "runpod": "mdl.sources.runpod",
    "trainer": "mdl.sources.trainer",
}
"""The module of each kind. It is imported when the first remote of that kind is opened."""
_KEYS: dict[str, dict[str, type]] = {
    "api": {"url": str, "status_url": str, "api_key_env": str, "bucket": str},
    "bucket": {"url": str, "endpoint_url": str, "region": str, "presign": bool},
    "runpod": {"endpoint": str, "base_url": str, "api_key_env": str, "bucket": str},
    "trainer": {"url": str, "api_key_env": str},
}
_COMMON: dict[str, type] = {"kind": str, "allow_hosts": list}
_NEEDED = {"api": ("url",), "bucket": ("url",), "runpod": (), "trainer": ("url",)}
RUNPOD = "https://api.runpod.ai/v2"
_NAME_HINT = "letters, digits, '-', '_' and '.'"


@dataclass(frozen=True)
class RemoteSettings:
    """One table ``[remotes.NAME]``, checked."""

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
        key = environ.get(self.key_variable, "").strip() if self.key_variable else ""
        return OriginToken(origin_of(self.address), key) if key else None


def check_remotes(tables: Mapping[str, Any], path: str) -> dict[str, RemoteSettings]:
    """The tables ``[remotes.NAME]`` of ``path``, checked. Raises `UsageError` for the first mistake, with what is
    near."""
    found = {}
    for name, table in tables.items():
        where = f"[remotes.{name}]"
        if not isinstance(table, dict):
            raise UsageError(f"{where} is not a table", item=path)
        if RelPath.parse(name).text != name or "/" in name:
            raise UsageError(f"{where} is no name for a remote", item=path, hint=_NAME_HINT)
        kind = table.get("kind")
        if kind not in KINDS:
            near = get_close_matches(str(kind), KINDS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"kind is one of {', '.join(KINDS)}"
            raise UsageError(f"{where} has the unknown kind {kind!r}", item=path, hint=hint)
        known = _COMMON | _KEYS[kind]
        for key, value in table.items():
            if key.startswith("x-"):
                continue
            if key not in known:
                near = get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(known)}"
                raise UsageError(f"unknown key {key!r} in {where}", item=path, hint=hint)
            if not isinstance(value, known[key]):
                raise UsageError(f"{where} {key} is not a {_WORDS[known[key]]}", item=path)
        for key in _NEEDED[kind]:
            if not table.get(key):
                raise UsageError(f"{where} has no {key}", item=path)
        found[name] = RemoteSettings(name, kind, table)
    for name, remote in found.items():
        bucket = remote.get("bucket")
        if bucket and (bucket not in found or found[bucket].kind != "bucket"):
            raise UsageError(f"[remotes.{name}] bucket {bucket!r} is no remote of kind bucket", item=path)
    return found


_WORDS = {str: "text", bool: "truth value", list: "list"}


def remote_named(name: str, remotes: Mapping[str, RemoteSettings]) -> RemoteSettings:
    """The remote of that name. Raises `UsageError`, with what is near."""
    if name in remotes:
        return remotes[name]
    near = get_close_matches(name, remotes, 1)
    hint = f"did you mean {near[0]}?" if near else "'mdl remote list' shows what there is; config.toml has them"
    raise UsageError("no such remote", item=shown(name)[:100], hint=hint)
