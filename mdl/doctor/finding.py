"""Finding: one thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass

from mdl.errors import (
    AuthError,
    LockError,
    MdlError,
    NetworkError,
    NotFound,
    ProtocolError,
    StateError,
    StorageError,
    TlsError,
    Unsafe,
    UsageError,
)

_NAMED = (UsageError, NotFound, AuthError, NetworkError, ProtocolError, StorageError, LockError, Unsafe, StateError)
_KINDS: dict[int, type[MdlError]] = {kind.exit_code: kind for kind in (*_NAMED, TlsError)}


@dataclass(frozen=True)
class Finding:
    """Where it is not ok ``advice`` says what to do, and ``exit_code`` is what it amounts to."""

    name: str
    ok: bool
    detail: str
    advice: str = ""
    exit_code: int = 0

    @classmethod
    def of(cls, name: str, error: MdlError, advice: str = "") -> Finding:
        """An error as a finding, with better ``advice`` than its own if there is any."""
        item = f"{error.item}: " if error.item and error.item not in error.message else ""
        return cls(name, False, item + error.message, advice or error.advice or "", error.exit_code)

    def error(self) -> MdlError:
        """What is not ok, as an error again."""
        return _KINDS.get(self.exit_code, MdlError)(self.detail, item=self.name, hint=self.advice or None)
