"""Programs of the user's own: a check, a hook. Started from words, never through a shell."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Mapping

from mdl.cancel import Cancel
from mdl.errors import UsageError

_STDERR = 2
"""Where the program's own output goes: stdout is for mdl's data."""
_TICK, _GRACE = 0.05, 5.0
"""How often mdl looks whether it is to stop, and how long a program has to end once it was asked to, in seconds."""


def words_of(command: str, what: str) -> list[str]:
    """The words of ``command``. Raises `UsageError` naming ``what`` (a flag), also for what would need a shell."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"it cannot be run: {error}", item=what) from error
    unquoted = shlex.shlex(command, posix=False, punctuation_chars=True)
    unquoted.whitespace_split, unquoted.commenters = True, ""
    needs_shell = any(word and set(word) <= set("();<>|&") for word in unquoted)
    if needs_shell or re.search(r"[$`]", re.sub(r"'[^']*'", "", command)):
        hint = f"write {what} \"sh -c '…'\", or put it into a script"
        raise UsageError("it is started without a shell, and this needs one", item=what, hint=hint)
    if not words:
        raise UsageError("it is empty", item=what, hint="is a variable unset?")
    return words


def run(words: list[str], facts: Mapping[str, str], *, unheard: bool = False, cancel: Cancel | None = None) -> int:
    """Run it to its end with ``facts`` in its environment; tells how it ended. It reads nothing of mdl's, and what it
    says goes to stderr, or nowhere if ``unheard``. A stop ends it too, but no pause, for there is nothing in it that
    could go on later. Raises `UsageError` if it cannot be run, `Cancelled`."""
    cancel = cancel or Cancel()
    out, err = (subprocess.DEVNULL, subprocess.DEVNULL) if unheard else (_STDERR, None)
    with cancel.polled():  # an exception in the middle of the start would leave the program to itself
        _check(cancel)
        try:
            environ = {**os.environ, **facts}
            process = subprocess.Popen(words, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"it cannot be run: {why}", item=words[0], hint="name a program that is there") from error
        try:
            return _waited_for(process, cancel)
        except BaseException:
            _end(process)
            raise


def _waited_for(process: subprocess.Popen[bytes], cancel: Cancel) -> int:
    while True:
        _check(cancel)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_TICK)


def _check(cancel: Cancel) -> None:
    if cancel.reason is not None and cancel.reason.status != "paused":
        cancel.check()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and see to it that it does."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
