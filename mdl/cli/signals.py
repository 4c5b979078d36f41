"""Signals: what ends or suspends this process in an orderly way. A handler sets a flag, and wakes the threads that
sleep.

A command that looks at the flag itself, as a download does, says so by `Signals.poll`: from then on a signal raises
nothing. Before, and in every other command, the handler raises the reason as well, once. If Python swallows it (in a
``__del__``, or in a callback of the garbage collector), a timer brings it back as soon as that is over.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Protocol

from mdl.cancel import CancelToken
from mdl.errors import Cancelled, DeadlineReached, Paused

_SOON = 0.001
"""Seconds until an exception that was swallowed is raised again."""


def _reason(number: int) -> Cancelled:
    match number:
        case signal.SIGINT:
            return Cancelled()
        case signal.SIGUSR1:
            return Paused("paused")
        case signal.SIGALRM:
            return DeadlineReached("the time limit or window is over")
    return Cancelled("terminated", terminated=True)


_HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM)


class _Swallowed(Protocol):
    exc_value: BaseException | None
    exc_traceback: TracebackType | None


class Signals:
    """The signals of one run of mdl, and the flag that they set."""

    def __init__(self) -> None:
        self.cancel = CancelToken()
        self.before_suspend: Callable[[], None] = lambda: None
        """Gives the terminal back to the shell before Ctrl-Z suspends the process."""
        self._was_raised = False

    def listen(self) -> None:
        """Handle them from now on. One that is ignored stays so, as under ``nohup``."""
        for number in _HEARD:
            with contextlib.suppress(ValueError, OSError):  # not the main thread
                if number == signal.SIGALRM or signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self.hear)
        with contextlib.suppress(ValueError, OSError):
            if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
                signal.signal(signal.SIGTSTP, self.suspend)
        sys.unraisablehook = self._swallowed

    def poll(self) -> None:
        """From now on the flag is looked at, and nothing is raised by a signal. Raises what one was sent for before."""
        self.cancel.is_polled = True
        self.cancel.check()

    def rest(self) -> None:
        """The run is over: a signal changes nothing any more."""
        self.cancel.is_polled = True

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """The handler of them all."""
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends it at once
        if number != signal.SIGALRM or not self.cancel.is_set():
            self.cancel.set(_reason(number))
        if not self.cancel.is_polled and not self._was_raised:
            self._was_raised = True
            self.cancel.check()

    def suspend(self, number: int, _frame: FrameType | None) -> None:
        """The handler of Ctrl-Z."""
        self.before_suspend()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # the process is suspended here, until SIGCONT
        signal.signal(number, self.suspend)

    def _swallowed(self, trouble: _Swallowed) -> None:
        """Python ignores an exception that no code could catch."""
        if isinstance(trouble.exc_value, Cancelled):
            self._was_raised = False
            signal.setitimer(signal.ITIMER_REAL, _SOON)
        else:
            sys.__unraisablehook__(trouble)  # type: ignore[arg-type]


_current = Signals()


def listen() -> None:
    """Begin a run of mdl: whatever stopped an earlier one in this process is forgotten."""
    global _current
    _current = Signals()
    _current.listen()


def the_signals() -> Signals:
    """Return the signals of this run."""
    return _current
