"""Programs of the user's own: a check, a hook. Started from words, never through a shell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping

from mdl.errors import UsageError

_STDERR = 2
"""Where the program's own output goes: stdout is for mdl's data."""


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


def run(words: list[str], facts: Mapping[str, str], *, unheard: bool = False) -> int:
    """Run it to its end with ``facts`` in its environment; tells how it ended. It reads nothing of mdl's, and what it
    says goes to stderr, or nowhere if ``unheard``. Raises `UsageError` where it cannot be run."""
    out, err = (subprocess.DEVNULL, subprocess.DEVNULL) if unheard else (_STDERR, None)
    environ = {**os.environ, **facts}
    try:
        return subprocess.run(
            words, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=False
        ).returncode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"it cannot be run: {why}", item=words[0], hint="name a program that is there") from error
