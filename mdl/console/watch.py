"""Watch: one download as a listener sees it, from its first event to exactly one last."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from mdl.errors import Cancelled, Deadline, MdlError
from mdl.events import Ended, Event, Failed


class Face(Protocol):
    """A listener that has something to put away in the end."""

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None:
        """Put it away."""


class Watch:
    """A context that is a listener itself. Left without an `Ended`, it tells the one that fits."""

    def __init__(self, face: Face, on_close: Callable[[], None]) -> None:
        self.end: Ended | None = None
        self._face, self._on_close = face, on_close
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
            try:
                self._face.close()
            finally:
                self._on_close()

    def _plain_end(self) -> Ended:
        if self._failure is None:
            return Ended()
        failure = self._failure
        item = "/".join(part for part in (failure.model, failure.file) if part)
        return Ended(status="failed", code=failure.code, message=failure.message, hint=failure.hint, item=item)


def ended_by(error: BaseException) -> Ended:
    """The last event that an exception amounts to."""
    if isinstance(error, KeyboardInterrupt):
        error = Cancelled()
    if not isinstance(error, MdlError):
        return Ended(status="failed", code=MdlError.code, message=str(error) or type(error).__name__)
    stopped = "paused" if isinstance(error, Deadline) else "cancelled"
    status = stopped if isinstance(error, Cancelled) else "failed"
    return Ended(status=status, code=error.code, message=error.message, hint=error.hint, item=error.item)
