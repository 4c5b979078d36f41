"""Commands: what a command file registers, and a run of one: whatever it raises becomes an exit code."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from mdl.cli.flags import Common
from mdl.cli.session import Session
from mdl.config.settings import settings_table
from mdl.console.reporter import BROKEN_PIPE
from mdl.errors import Cancelled, Problem, as_problem
from mdl.values import value_class

Body = TypeVar("Body", bound=Callable[..., int])
_NO_SETTINGS = ("MDL_HOOK_", "MDL_RELEASE_", "MDL_ACTION_", "MDL_JOB", "MDL_LONG", "MDL_SERVE_TOKEN")
"""How the variables begin that mdl sets for hooks, checks and its own background, that its GitHub action sets, that its
tests read, and that have a secret."""


@value_class
class Registered:
    """A command. ``group_help`` is the help of a command that has others below it."""

    name: str
    body: Callable[..., int]
    checks_config: bool
    asks: bool
    group_help: str
    examples: Sequence[str]


REGISTERED: dict[str, Registered] = {}
"""Every command of the modules that were imported so far, by its name; ``jobs show`` is one below ``jobs``."""


def command(
    name: str, *examples: str, checks_config: bool = False, asks: bool = False, group_help: str = ""
) -> Callable[[Body], Body]:
    """Make ``body(session, ...) -> exit code`` the command ``name``.

    A parameter whose type is a dataclass becomes one flag a field, and its value is that dataclass; one of
    ``Annotated[Settings, names]`` becomes a flag for each of these settings, and its value is a dictionary. A body that
    ``checks_config`` reads the settings itself; any other does not begin if they are wrong. The help shows ``--yes``
    only for one that ``asks``. ``examples`` are command lines, each with what it does behind two spaces and a ``#``.
    """

    def note(body: Body) -> Body:
        REGISTERED[name] = Registered(name, body, checks_config, asks, group_help, examples)
        return body

    return note


def run(
    registered: Registered,
    common: Common,
    arguments: Mapping[str, Any],
    words: tuple[str, ...],
    variables_of_flags: Callable[[], set[str]],
) -> int:
    """Run a command with its ``arguments``; ``words`` are how it could be typed again. Returns its exit code.
    ``variables_of_flags`` tells from which variables flags are read, if there is one that is no setting."""

    def begin(session: Session) -> int:
        _warn_of_unknown_variables(session, variables_of_flags)
        if not registered.checks_config:
            session.check_config()
        return registered.body(session, **arguments)

    return guarded(registered.name.split()[0], common, begin, words)


def guarded(name: str, common: Common, body: Callable[[Session], int], words: tuple[str, ...] = ()) -> int:
    """Run ``body`` and turn whatever it raises into a message, a hint and an exit code."""
    session = Session(name, common, os.environ, words)
    try:
        code = body(session)
    except BrokenPipeError as error:
        code = exit_code_of(error)
    except (Exception, KeyboardInterrupt, Cancelled) as error:
        code = report(session, as_problem(error))
    session.console.close_json()
    return session.console.stdout_trouble() or code


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of mdl if this ends a command."""
    return BROKEN_PIPE if isinstance(error, BrokenPipeError) else as_problem(error).exit_code


def report(session: Session, error: Problem) -> int:
    """Show the error, as a document too if one was asked for; returns its exit code."""
    console = session.console
    if session.common.verbose:
        console.debug("".join(traceback.format_exception(error)))
    session.error(error)
    return session.show({}, error=error)


@contextlib.contextmanager
def all_or_nothing(left: str = "nothing was written") -> Iterator[None]:
    """Give the error of a block that is stopped a hint that says what is ``left`` of it."""
    try:
        yield
    except (KeyboardInterrupt, Cancelled) as error:
        stopped = error if isinstance(error, Cancelled) else Cancelled()
        raise stopped.but(hint=left) from None


def _warn_of_unknown_variables(session: Session, variables_of_flags: Callable[[], set[str]]) -> None:
    """Warn of a variable ``MDL_…`` that means nothing: it is probably misspelt."""
    known = {setting.variable_name for setting in settings_table().values()}
    unknown = set()
    for name in session.environ:
        if name.startswith("MDL_") and not name.startswith(_NO_SETTINGS):
            unknown.add(name)
    unknown -= known
    if not unknown:
        return
    known |= variables_of_flags()
    for name in sorted(unknown - known):
        meant = "'mdl config' lists the settings"
        for near in get_close_matches(name, known, 1, 0.8):
            meant = f"did you mean {near}?"
        session.console.warn(f"the variable {name} means nothing to mdl; {meant}")
