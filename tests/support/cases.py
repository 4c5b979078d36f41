"""`each`: many cases of one test that needs nothing of its own for each of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

Test = Callable[..., None]


def each(names: str | Sequence[str], values: Iterable[Any], ids: object = None) -> Callable[[Test], Test]:
    """Written like ``pytest.mark.parametrize``: one test that tries all cases, and names every one that fails.

    A case costs nothing but itself, where a test of pytest costs milliseconds in every worker. It is for tests of a
    function; cases that need a folder or a server each are parameters of pytest.
    """
    keys = names.replace(" ", "").split(",") if isinstance(names, str) else list(names)
    cases = list(values)
    words = list(ids) if isinstance(ids, Iterable) else cases

    def decorate(test: Test) -> Test:
        parameters = inspect.signature(test).parameters

        @functools.wraps(test)
        def all_cases(**others: Any) -> None:
            failures = []
            for case, word in zip(cases, words, strict=True):
                given = {keys[0]: case} if len(keys) == 1 else dict(zip(keys, case, strict=True))
                try:
                    test(**given, **others)
                except (Exception, pytest.fail.Exception) as error:
                    error.add_note(f"in the case {word!r:.300}")
                    failures.append(error)
            if len(failures) == 1:
                raise failures[0]
            if failures:
                raise BaseExceptionGroup(f"{len(failures)} of {len(cases)} cases", failures)

        left = [parameter for name, parameter in parameters.items() if name not in keys]
        all_cases.__signature__ = inspect.Signature(left)  # type: ignore[attr-defined]
        return all_cases

    return decorate
