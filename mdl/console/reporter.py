"""Reporter: the `Console`. Data goes to stdout, everything else to stderr, in the form that is asked for.

What needs Rich, JSON or the events is imported when it is first used: most commands need none of it.
"""

from __future__ import annotations

import errno
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from mdl.cancel import CancelToken
from mdl.console.messages import Messages
from mdl.console.streams import NonBlockingStream, hold_standard_descriptors
from mdl.errors import Problem, StorageError, UsageError
from mdl.paths import shown
from mdl.redact import Secrets, redact, redact_value
from mdl.values import value_class

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from threading import Lock

    from mdl.config.settings import Progress
    from mdl.console.json_lines import JsonLines
    from mdl.console.session import Printer, ReportSession
    from mdl.console.state import State
    from mdl.events import Listener

_SHORTEST_IN_A_FILE = 8
"""Characters of a secret that is looked for in the text of a file; a shorter one may stand there by chance."""
_MOST_ROWS_DRAWN = 1000
"""Rows of a table that Rich draws: it takes about 0.3 ms for each (ADR 61)."""
_SHOW_CURSOR = "\x1b[?25h"
BROKEN_PIPE = 141
"""The exit code that a shell reports for a program that the broken pipe signal ended."""


@value_class
class ConsoleOptions:
    """How a command shows its data, progress and messages.

    ``quiet`` leaves data, warnings and errors. ``json_output`` keeps stdout for the one `Console.document`. With
    ``progress="json"`` every line of stderr is a JSON object, also notes, warnings and the error.
    """

    progress: Progress = "auto"
    quiet: bool = False
    verbose: int = 0
    color: bool = True
    json_output: bool = False


class Console:
    """The output of one command. ``is_own``: the streams belong to mdl itself; they do not if mdl is a library in
    another program."""

    def __init__(
        self,
        options: ConsoleOptions | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
        cancel: CancelToken | None = None,
        clock: Callable[[], float] = time.monotonic,
        is_own: bool = True,
    ) -> None:
        options = options or ConsoleOptions()
        environ = os.environ if environ is None else environ
        self._cancel = CancelToken(cancel)
        """Set with the caller's token, and by an operation that was stopped: then a reader is not waited for."""
        if is_own:
            hold_standard_descriptors()

        def opened(stream: IO[str]) -> NonBlockingStream:
            return NonBlockingStream(stream, environ, color=options.color, cancel=self._cancel, is_own=is_own)

        self.stdout = opened(stdout or sys.stdout)
        self.stderr = opened(stderr or sys.stderr)
        self._environ = environ
        self.secrets = Secrets.of(environ)
        self.progress = options.progress
        self.quiet = options.quiet
        self.verbose = options.verbose
        self.json_output = options.json_output
        self._clock = clock
        self._messages = Messages(self.stderr, self.clean)
        self._json: JsonLines | None = None
        self._session: ReportSession | None = None
        self._above: Callable[[str], None] | None = None
        """Set while bars are drawn: writes text above them."""
        self._hide: Callable[[], None] | None = None
        """Set while bars are drawn: takes them away until they are drawn next."""
        self._is_watching = False

    @property
    def is_machine_readable(self) -> bool:
        """True if everything on stderr is a JSON object."""
        return self.progress == "json"

    def watch(self, job: str = "", method: str = "http", others: Sequence[Listener] = ()) -> ReportSession:
        """``with console.watch(job) as tell``: a listener for one download, which shows it as the user wants it.

        ``others`` get the same events. Data is written before or after."""
        from threading import Lock

        from mdl.console.lines import LARGE
        from mdl.console.remarks import Remarks
        from mdl.console.session import ReportSession
        from mdl.console.state import State

        state = State(self._clock)
        large = math.inf if self._has_bars() else LARGE  # where there are bars no file needs a line because it is large
        remarks = Remarks(state, self._clock, large=large, verbose=self.verbose)
        lock = Lock()
        printer = self._printer(state, lock, job, method)
        self._session = ReportSession(state, remarks, lock, printer, others, self._end_session, self._cancel)
        self._is_watching = True
        return self._session

    def only_failures(self) -> None:
        """Be silent while all is well, unless the user asked for more."""
        if self.progress in ("auto", "none") and not self.verbose:
            self.quiet = True

    def data(self, text: str) -> None:
        """Write one line of data to stdout, unchanged, so that a script can use a path as it is.

        Only secrets in URLs are taken out; on a terminal what it would obey is escaped.
        """
        if "://" in text:
            text = redact_value(text, self.secrets)
        self._out(self._for_terminal(text) + "\n")

    def check_file(self, text: str) -> None:
        """Raises `UsageError` if the text of a file that is to be printed as it is holds a secret that is known."""
        if any(len(secret) >= _SHORTEST_IN_A_FILE and secret in text for secret in self.secrets):
            hint = "no URL, name or path of the catalog may hold the value of a token or password"
            raise UsageError("the text would hold a secret of this environment", hint=hint)

    def file(self, text: str) -> None:
        """Write the text of a file that a program reads to stdout, byte for byte; a terminal gets what it would obey
        escaped. What is secret must be out of it: see `check_file`."""
        if text and not text.endswith("\n"):
            text += "\n"
        self._out("\n".join(self._for_terminal(line) for line in text.split("\n")))

    def entry(self, head: str, text: str) -> None:
        """Write a line of data that begins with ``head``, which says what it is about. A terminal gets it broken
        between words, and what follows stands under the beginning of ``text``."""
        lines = [head + text]
        if self.stdout.is_terminal:
            from mdl.formatting import cells, wrap

            lines = wrap(head + shown(text), self.stdout.size[0] - 1, " " * cells(head))
        for line in lines:
            self.data(line)

    def entries(self, facts: Mapping[str, str | None]) -> None:
        """Write each fact that is not empty as an `entry`: ``status:  running``. The texts stand below one another."""
        width = max(map(len, facts)) + 2
        for key, text in facts.items():
            if text:
                self.entry(f"{key + ':':<{width}}", self.clean(text))

    def heading(self, text: str) -> None:
        """Write a heading to stdout, after an empty line; bold on a terminal with colours."""
        text = self.clean(text)
        if self.stdout.has_colors:
            text = f"\x1b[1m{text}\x1b[0m"
        self._out(f"\n{text}\n")

    def hide_bars(self) -> None:
        """Give the terminal back as it was while this process is suspended."""
        if self._hide:
            self._hide()

    def leave_bars(self) -> None:
        """Go on below the bars that another process, which was killed, left on the terminal, and show the cursor."""
        if self.stderr.can_move_cursor:
            self.stderr.write(_SHOW_CURSOR)

    def table(
        self,
        headers: Sequence[str],
        rows: Iterable[Sequence[str | None]],
        *,
        cut: Sequence[str] | None = None,
        drop: Sequence[str] = (),
        below: str = "",
    ) -> None:
        """Write a table to stdout: drawn on a terminal, where the columns ``cut``, ``drop`` and ``below`` give room, as
        `mdl.console.terminal` says. Elsewhere, and if it is very long, it is plain aligned lines that a program can
        split again. A cell in which nothing is known (None or '') is ``-``. A table without rows is nothing."""
        heads = [shown(header) for header in headers]
        body = [self._cells(row) for row in rows]
        if not body:
            return
        if self.stdout.can_move_cursor and len(body) <= _MOST_ROWS_DRAWN:
            from mdl.console.terminal import drawn_table

            self._out(drawn_table(self.stdout, heads, body, cut, drop, below))
        else:
            from mdl.formatting import table

            self._out(table(body, heads))

    def document(
        self,
        command: str,
        payload: Mapping[str, Any],
        exit_code: int = 0,
        error: Problem | None = None,
    ) -> None:
        """Write the one JSON document of ``--json`` on one line; indented on a terminal."""
        from mdl.console.documents import document, json_text

        whole = document(command, payload, exit_code=exit_code, error=error)
        indent = 2 if self.stdout.is_terminal else None
        text = json_text(whole, secrets=self.secrets, ascii_only=not self.stdout.is_unicode, indent=indent)
        self._write_out(f"{text}\n")

    def note(self, text: str, *, always: bool = False) -> None:
        """Write a note to stderr, unless quiet; ``always`` for a note that belongs to a failure."""
        if always or not self.quiet:
            self._say("notice", "", "", text)

    def warn(self, text: str) -> None:
        """Write a warning to stderr about a thing that may cause trouble later."""
        self._say("warning", "mdl: warning:", "warning", text)

    def debug(self, text: str) -> None:
        """Write details to stderr, only if verbose."""
        if self.verbose:
            self._say("debug", "debug:", "debug", text)

    def error(self, error: Problem) -> None:
        """Write the error to stderr: on one line what failed, on which item and why; on the next what to do."""
        if self.is_machine_readable:
            from mdl.describe import ended_by

            self._json_lines().show(ended_by(error))
            end = self._session.end if self._session else None
            if end is None or end.status != "finished":
                return
        if not self._messages.has_said(error):
            self._err(self._messages.error(error.item, error.message, error.advice))

    def close_json(self) -> None:
        """Write the one last JSON object if stderr is JSON lines and no session has written it."""
        if self.is_machine_readable and self._session is None:
            from mdl.events import Ended

            self._json_lines().show(Ended())

    def stdout_trouble(self) -> int:
        """The exit code for a broken stdout: 0 if it is not, 141 if its reader left, 7 if it cannot be written."""
        trouble = self.stdout.trouble
        if not trouble:
            return 0
        return BROKEN_PIPE if trouble == errno.EPIPE else StorageError.exit_code

    def clean(self, text: str) -> str:
        """``text`` without secrets, and with what a terminal would obey escaped."""
        return shown(redact(text, self.secrets))

    def _for_terminal(self, text: str) -> str:
        """``text`` as stdout shows it: a terminal gets what it would obey escaped."""
        return shown(text) if self.stdout.is_terminal else text

    def _cells(self, row: Sequence[str | None]) -> list[str]:
        return [shown(redact_value(cell or "-", self.secrets)) for cell in row]

    def _out(self, text: str) -> None:
        """Write data, unless stdout is for the document alone."""
        if not self.json_output:
            self._write_out(text)

    def _write_out(self, text: str) -> None:
        """Write to stdout. If it breaks, that is reported once. If a stop comes before the reader has taken the text,
        its reason is raised."""
        was_broken = self.stdout_trouble()
        if not self.stdout.write(text):
            self._cancel.check()
        if self.stdout_trouble() == StorageError.exit_code and not was_broken:
            why = os.strerror(self.stdout.trouble)
            self.error(StorageError(why, item="stdout", hint="the output could not be written; send it elsewhere"))

    def _err(self, text: str) -> None:
        """Write to stderr; while a download is watched nothing waits for its reader."""
        if self._above:
            self._above(text)
        elif self._is_watching:
            self.stderr.post(text)
        else:
            self.stderr.write(text)

    def _say(self, status: str, head: str, look: str, text: str) -> None:
        """Write lines to stderr; if all of stderr is JSON, one object, and none after the last."""
        if self.is_machine_readable:
            self._json_lines().remark(status, text)
            return
        first, *more = [self.clean(line) for line in text.rstrip("\n").split("\n")]
        lines = self._messages.line(head, look, f" {first}" if head else first)
        for line in more:
            lines += self._messages.line("", "", line)
        self._err(lines)

    def _json_lines(self) -> JsonLines:
        """The writer of JSON lines: that of the last session, or one for a command that has none."""
        if self._json is None:
            from mdl.console.state import State

            self._json = self._new_json_lines(State(self._clock))
        return self._json

    def _new_json_lines(self, state: State, job: str = "", method: str = "http") -> JsonLines:
        from mdl.console.json_lines import JsonLines

        return JsonLines(self.stderr, state, self.secrets, self._clock, job=job, method=method)

    def _has_bars(self) -> bool:
        """Tell whether a download is shown as bars."""
        if self.quiet or self.progress not in ("auto", "bars"):
            return False
        from mdl.units import is_true

        if self.progress == "auto" and is_true(self._environ.get("HF_HUB_DISABLE_PROGRESS_BARS")):
            return False
        can_draw = self.stderr.can_move_cursor and self.stderr.is_unicode
        return can_draw or self.stderr.is_notebook

    def _printer(self, state: State, lock: Lock, job: str, method: str) -> Printer:
        """Return the printer that shows the download as the user wants it."""
        if self.is_machine_readable:
            self._json = self._new_json_lines(state, job, method)
            return self._json
        from mdl.console.lines import FailuresOnly, Lines

        if self.quiet or self.progress == "none":
            return FailuresOnly(self.stderr, self._messages)
        if self._has_bars():
            from mdl.console.drawing import Drawing

            drawing = Drawing(
                self.stderr,
                state,
                lock,
                self.clean,
                self._messages,
                self._clock,
                self._cancel,
                verbose=self.verbose,
            )
            self._above = drawing.say
            self._hide = drawing.hide
            return drawing
        return Lines(self.stderr, state, self.clean, self._messages, self._clock)

    def _end_session(self) -> None:
        self._above = None
        self._hide = None
        self._is_watching = False


def progress_bars(stream: IO[str] | None = None) -> AbstractContextManager[Listener]:
    """``with progress_bars() as tell``: a listener that shows a download on ``stream`` (stderr without one).

    It draws bars on a terminal and in a notebook, and writes plain lines to anything else. For a script that uses mdl
    as a library: no signal is touched, and a stream that breaks is left as it is.
    """
    return Console(stderr=stream, is_own=False).watch()
