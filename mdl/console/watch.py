"""Watch: one download as listeners see it, from its first event to exactly one last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

from mdl.errors import Cancelled, MdlError, Problem
from mdl.events import Ended, Event, Failed, Listener


class Face(Protocol):
    """A listener that has something to put away in the end."""

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None:
        """Put it away."""


class Watch:
    """A context that is a listener itself. Left without an `Ended`, it tells the one that fits.

    ``others`` are told the same after ``face``."""

    def __init__(self, face: Face, on_close: Callable[[], None], others: Sequence[Listener] = ()) -> None:
        self.end: Ended | None = None
        self._face, self._on_close, self._others = face, on_close, others
        self._failure: Failed | None = None

    def __call__(self, event: Event) -> None:
        """Pass ``event`` on; after the last one, nothing."""
        if self.end:
            return
        if isinstance(event, Ended):
            self.end = event
        if isinstance(event, Failed):
            self._failure = event
        self._face(event)
        for listener in self._others:
            listener(event)

    @property
    def is_well(self) -> bool:
        """Neither the end nor a failure was told."""
        return self.end is None and self._failure is None

    def put_away(self) -> None:
        """Leave the terminal to somebody else, before the last event is told."""
        try:
            self._face.close()
        finally:
            self._on_close()

    def ended(self, error: BaseException | None = None) -> None:
        """Tell the last event: all went well, or ``error`` stands for what did not."""
        self(ended_by(error) if error else Ended())

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            self(ended_by(error) if error else self._plain_end())
        finally:
            self.put_away()

    def _plain_end(self) -> Ended:
        if self._failure is None:
            return Ended()
        failure = self._failure
        item = "/".join(part for part in (failure.model, failure.file) if part)
        code, message, hint = failure.code, failure.message, failure.hint
        return Ended(status="failed", code=code, message=message, hint=hint, item=item, exit_code=None)


def ended_by(error: BaseException) -> Ended:
    """The last event that an exception amounts to."""
    if isinstance(error, KeyboardInterrupt):
        error = Cancelled()
    if not isinstance(error, Problem):
        error = MdlError(str(error) or type(error).__name__)
    status = error.status if isinstance(error, Cancelled) else "failed"
    return Ended(
        status=status,
        code=error.code,
        message=error.message,
        hint=error.hint,
        item=error.item,
        exit_code=error.exit_code,
    )
