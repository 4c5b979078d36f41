"""Report session: one download as its listeners see it, from its first event to exactly one last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from types import TracebackType
from typing import Protocol

from mdl.cancel import CancelToken
from mdl.console.remarks import Remark, Remarks
from mdl.console.state import State
from mdl.describe import ended_by, item_of
from mdl.errors import Cancelled, DeadlineReached, MdlError
from mdl.events import Ended, Event, Failed, Listener


class Printer(Protocol):
    """Shows one download. It reads the `State` of the session, which has taken in each event before it is shown."""

    def show(self, event: Event, remarks: Sequence[Remark]) -> None:
        """Show the event; ``remarks`` deserve lines that stay. Returns at once, whatever the reader does."""

    def close(self) -> None:
        """Show everything that still waits, and leave the terminal as it was."""


class ReportSession:
    """A context manager that is a listener itself. If it is left without an `Ended`, it adds one: finished, or failed
    if there was an exception or a `Failed` event.

    Each event goes into ``state``, which changes only while ``lock`` is held, then with its ``remarks`` to the
    ``printer``, then to ``others``. If a time limit or a stop ends it, ``cancel`` is set: a reader that takes nothing
    must not prolong it.
    """

    def __init__(
        self,
        state: State,
        remarks: Remarks,
        lock: Lock,
        printer: Printer,
        others: Sequence[Listener],
        on_close: Callable[[], None],
        cancel: CancelToken,
    ) -> None:
        self.end: Ended | None = None
        self.state = state
        self._remarks = remarks
        self._lock = lock
        self._printer = printer
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
        with self._lock:
            self.state.take(event)
        self._printer.show(event, self._remarks.of(event))
        for listener in self._others:
            listener(event)
        if self.end and not self._cancel.is_set():
            if self.end.status == "paused":
                self._cancel.set(DeadlineReached(self.end.message or "paused"))
            elif self.end.status == "cancelled":
                self._cancel.set(Cancelled())

    def end_with(self, error: MdlError | None) -> None:
        """End with ``error``, if there is one."""
        if error:
            self(ended_by(error))

    def leave(self, error: Cancelled) -> None:
        """Have ``error`` end the watching alone: the watched job goes on, so nothing is said of its end."""
        self.end = ended_by(error)

    @property
    def is_well(self) -> bool:
        """True if there was neither an end nor a failure."""
        return self.end is None and self._failure is None

    def release_terminal(self) -> None:
        """Put bars away, before the last event, so that another program can use the terminal."""
        try:
            self._printer.close()
        finally:
            self._on_close()

    def __enter__(self) -> ReportSession:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        failure = self._failure
        if error:
            end = ended_by(error)
        elif failure:
            end = Ended(
                status="failed",
                code=failure.code,
                message=failure.message,
                hint=failure.hint,
                item=item_of(failure),
                exit_code=None,
            )
        else:
            end = Ended()
        try:
            self(end)
        finally:
            self.release_terminal()
