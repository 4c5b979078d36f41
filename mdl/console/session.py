"""Report session: one download as its listeners see it, from its first event to exactly one last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

from mdl.cancel import CancelToken
from mdl.describe import ended_by, item_of
from mdl.errors import Cancelled, DeadlineReached, MdlError
from mdl.events import Ended, Event, Failed, Listener


class Renderer(Protocol):
    """A listener that shows events, and has something to put away in the end."""

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None:
        """Show what is still to be shown, and leave the terminal as it was."""


class ReportSession:
    """A context manager that is a listener itself. If it is left without an `Ended`, it adds one: finished, or
    failed if there was an exception or a `Failed` event.

    ``others`` get the same events after ``renderer``. If a time limit or a stop ends it, ``cancel`` is set: a
    reader that takes nothing must not prolong it."""

    def __init__(
        self, renderer: Renderer, others: Sequence[Listener], on_close: Callable[[], None], cancel: CancelToken
    ) -> None:
        self.end: Ended | None = None
        self._renderer = renderer
        self._others = others
        self._on_close = on_close
        self._cancel = cancel
        self._failure: Failed | None = None

    def __call__(self, event: Event) -> None:
        """Pass ``event`` on; after the last one, nothing."""
        if self.end:
            return
        if isinstance(event, Ended):
            self.end = event
        if isinstance(event, Failed):
            self._failure = event
        self._renderer(event)
        for listener in self._others:
            listener(event)
        if self.end and self.end.status in ("cancelled", "paused") and not self._cancel.is_set():
            is_paused = self.end.status == "paused"
            self._cancel.set(DeadlineReached("its time is over") if is_paused else Cancelled())

    def end_with(self, error: MdlError | None) -> None:
        """Tell that ``error`` is how it ended, if there is one."""
        if error:
            self(ended_by(error))

    def leave(self, error: Cancelled) -> None:
        """Have ``error`` end the watching alone: what was watched goes on, so nothing is said of its end."""
        self.end = ended_by(error)

    @property
    def is_well(self) -> bool:
        """There was neither an end nor a failure."""
        return self.end is None and self._failure is None

    def release_terminal(self) -> None:
        """Put bars away, before the last event, so that another program can use the terminal."""
        try:
            self._renderer.close()
        finally:
            self._on_close()

    def __enter__(self) -> ReportSession:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        end = Ended()
        told = self._failure
        if error:
            end = ended_by(error)
        elif told:
            code = told.code
            message = told.message
            hint = told.hint
            end = Ended(status="failed", code=code, message=message, hint=hint, item=item_of(told), exit_code=None)
        try:
            self(end)
        finally:
            self.release_terminal()
