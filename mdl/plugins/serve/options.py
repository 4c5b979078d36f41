"""Options: what is served, where and to whom; and the token that clients must send."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mdl.errors import UsageError
from mdl.units import as_meant, is_sendable
from mdl.values import value_class

TOKEN_VARIABLE = "MDL_SERVE_TOKEN"
_SHORTEST_TOKEN = 16


@value_class
class ServeOptions:
    """What is served, where and to whom.

    ``token`` is what a client must send, None for none. ``gated``: repositories that are not known to be open are
    served too, to clients that send the token; `UsageError` if there is none. ``runs`` are folders that hold trained
    runs, ``releases`` folders of releases. ``ready_file`` exists while the server answers; ``log_file`` is the request
    log.
    """

    host: str = "127.0.0.1"
    port: int = 8400
    token: str | None = None
    gated: bool = False
    runs: tuple[Path, ...] = ()
    releases: tuple[Path, ...] = ()
    ready_file: Path | None = None
    log_file: Path | None = None

    def __post_init__(self) -> None:
        if self.gated and self.token is None:
            why = "gated and private repositories are served only to clients that send a token"
            raise UsageError(why, item="--gated", hint=f"--token-env NAME, or set {TOKEN_VARIABLE}")


def token_of(environ: Mapping[str, str], named: str | None) -> str | None:
    """The token in the variable ``named``, or in ``MDL_SERVE_TOKEN``; None if no variable is named and that one is not
    set. Raises `UsageError` for one that is missing, too short, or cannot be sent."""
    variable = named or TOKEN_VARIABLE
    token = as_meant(environ.get(variable, ""))
    if not token and named is None:
        return None
    hint = f"'openssl rand -hex 24' makes a good one for {variable}"
    if not token:
        raise UsageError("the variable of the token is not set", item=variable, hint=hint)
    if len(token) < _SHORTEST_TOKEN or not is_sendable(token):
        why = f"a token has at least {_SHORTEST_TOKEN} letters and digits, and no blank"
        raise UsageError(why, item=variable, hint=hint)
    return token
