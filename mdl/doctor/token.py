"""Token: where it comes from, who can read it, and what the hub says of it. Never the token itself."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from mdl.doctor.finding import Finding
from mdl.errors import AuthError, MdlError, NotFound, UsageError
from mdl.http.allowlist import host_of
from mdl.http.client import Http
from mdl.paths import shown
from mdl.sources.endpoint import Endpoint, token_path, token_places

_MOST_SCOPES = 3
_LONGEST = 100


def token_file(endpoint: Endpoint) -> list[Finding]:
    """The token's file, where others can read it."""
    path = token_path(os.environ)
    if endpoint.token is None or path is None or endpoint.token_from != str(path) or not _is_open_to_others(path):
        return []
    return [Finding("token file", False, f"others can read {path}", f"chmod 600 {path}", UsageError.exit_code)]


def _is_open_to_others(path: Path) -> bool:
    """Others may read it, and no folder on the way keeps them out."""
    with contextlib.suppress(OSError, RuntimeError):
        path = path.resolve()
        return bool(path.stat().st_mode & 0o044) and all(above.stat().st_mode & 0o011 for above in path.parents)
    return False


def token(endpoint: Endpoint, http: Http | None) -> Finding:
    """Whose token it is and what it may do, as the hub tells it. Without ``http`` the hub is not asked."""
    if endpoint.token is None:
        detail = f"none ({endpoint.token_from}); private and gated repositories will refuse"
        return Finding("token", True, detail)
    host = host_of(endpoint.url)
    others = [place for place in token_places(os.environ) if place != endpoint.token_from]
    source = f"from {endpoint.token_from}" + (f" (and not from {' or '.join(others)})" if others else "")
    source += f", for {host} only"
    if http is None:
        return Finding("token", True, f"{source}; {host} was not asked whether it is valid")
    try:
        data, _, _ = http.get_json(f"{endpoint.url}/api/whoami-v2")
    except NotFound:
        return Finding("token", True, f"{source}; {host} does not tell whether it is valid")
    except MdlError as error:
        if not isinstance(error, AuthError) or error.redirected:
            return Finding("token", True, f"{source}; whether it is valid could not be asked: {error.message}")
        advice = f"put a new one into {endpoint.token_from}; they are made at {endpoint.url}/settings/tokens"
        return Finding("token", False, f"{source}: {error.message}", advice, error.exit_code)
    told = _identity(data)
    return Finding("token", True, f"{source}; valid: {told}" if told else f"{source}; {host} does not tell whose it is")


def _identity(data: Any) -> str:
    """``user alice; token 'ci', role read`` out of the hub's answer, as much of it as is there."""
    name = _text(data, "name")
    if not name:
        return ""
    access = _under(data, "auth", "accessToken")
    title, role = _text(access, "displayName"), _text(access, "role")
    words = [f"{_text(data, 'type') or 'user'} {name}"]
    words += [f"token {title!r}"] if title else []
    words += [f"role {role}"] if role else []
    return "; ".join([", ".join(words), *_scopes(_under(access, "fineGrained"))])


def _scopes(grained: Any) -> list[str]:
    """What a fine-grained token may do, and where."""
    if not isinstance(grained, dict):
        return []
    may = grained.get("canReadGatedRepos")
    scopes = ["gated repositories: " + ("yes" if may else "no")] if isinstance(may, bool) else []
    found = [("everywhere", _listed(grained.get("global")))]
    for scoped in grained.get("scoped") or [] if isinstance(grained.get("scoped"), list) else []:
        entity = _under(scoped, "entity")
        where = f"{_text(entity, 'type')} {_text(entity, 'name') or _text(entity, '_id')}".strip()
        found.append((where or "somewhere", _listed(_under(scoped, "permissions"))))
    given = [f"{where}: {permissions}" for where, permissions in found if permissions]
    more = [f"{len(given) - _MOST_SCOPES} scopes more"] if len(given) > _MOST_SCOPES else []
    return [*scopes, *given[:_MOST_SCOPES], *more]


def _under(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _text(data: Any, key: str) -> str:
    """What the server calls it, in one harmless line."""
    value = _under(data, key)
    return shown(" ".join(value.split()))[:_LONGEST] if isinstance(value, str) else ""


def _listed(value: Any) -> str:
    return ", ".join(_text({"": one}, "") for one in value if isinstance(one, str)) if isinstance(value, list) else ""
