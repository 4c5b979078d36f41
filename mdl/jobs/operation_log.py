"""The downloads log of pack, unpack, release and rollback, which are not jobs: when each began, its events, its end.

A failure is there as the user sees it, also one that came before the first event.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mdl.config.places import working_folder
from mdl.console.reporter import BROKEN_PIPE
from mdl.describe import ended_by
from mdl.events import Ended, Event, Noticed
from mdl.jobs.log import Log, LogListener, LogSource, no_log

if TYPE_CHECKING:
    from mdl.console import Console


class OperationLog:
    """A listener that writes what happens to the downloads log."""

    def __init__(self, listener: LogListener) -> None:
        self._listener = listener

    def __call__(self, event: Event) -> None:
        """Write what happened. An end that the console's session tells is not written: `operation_log` writes it."""
        if not isinstance(event, Ended):
            self._listener(event)

    def note(self, item: str, message: str) -> None:
        """Write a line about ``item`` that the log alone has."""
        self._listener(Noticed(item, message=message))


@contextlib.contextmanager
def operation_log(
    console: Console, command: str, typed: str, path: Path | None, *, is_own: bool
) -> Iterator[OperationLog]:
    """Log one operation to ``path``, or nowhere if that is None; whatever is raised in the block is how it ended.

    ``command`` is the name of the command and ``typed`` the whole of it; ``is_own`` as for `Log`. A log that cannot be
    written is one warning.
    """

    def trouble(place: Path | None, error: OSError) -> None:
        if place is not None:
            console.warn(no_log(place, error))

    logs: list[Log] = []
    if path is not None:
        try:
            logs.append(Log(path, is_own=is_own))
        except OSError as error:
            trouble(path, error)
    listener = LogListener(logs, console.secrets, LogSource("", os.getpid(), command), trouble)
    log = OperationLog(listener)
    end = Ended()
    log.note("", f"begun in {working_folder()}: mdl {typed}")
    try:
        yield log
    except BaseException as error:
        end = ended_by(error)
        if isinstance(error, BrokenPipeError):
            end = replace(end, exit_code=BROKEN_PIPE)
        raise
    finally:
        listener(end)
        listener.close()
