"""Refusals: why a request gets no answer: a status, the hub's code for it, and a message for its user. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mdl.errors import AuthError, Busy, NotFinished, NotFound, Occupied, Problem, Unsafe, UsageError
from mdl.sources.hub_protocol import refusal_headers

_STATUSES: tuple[tuple[type[Problem], int], ...] = (
    (NotFound, 404),
    (Unsafe, 400),
    (UsageError, 400),
    (AuthError, 403),
    (Busy, 409),
    (Occupied, 409),
    (NotFinished, 409),
)


class Refusal(Exception):
    """Ends the search for an answer. ``code`` is what the hub's clients read: ``RepoNotFound``, ``EntryNotFound``."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {**refusal_headers(code, message), **(headers or {})}

    @classmethod
    def of(cls, error: Problem) -> Refusal:
        """What a client is told of an error: what failed, and what there is instead."""
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
        hint = f" ({error.hint})" if error.hint and status != 500 else ""
        return cls(status, "", f"{error.message}{hint}")
