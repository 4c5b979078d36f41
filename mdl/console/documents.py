"""Documents: values as JSON, without secrets and without characters that a terminal would obey."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mdl.errors import Problem
from mdl.paths import is_harmful_in_prose
from mdl.redact import redact, redact_value


def json_text(value: Any, *, secrets: Iterable[str] = (), ascii_only: bool = True, indent: int | None = None) -> str:
    """``value`` as JSON. Text under a key ``error`` is a sentence and redacted as one, other text as a value.

    An exception of mdl's, as reports hold it, becomes its `Problem.facts`.
    """
    known = tuple(secrets)
    text = json.dumps(_redacted(value, known, redact_value), ensure_ascii=ascii_only, indent=indent, default=str)
    return text if ascii_only else re.sub(_NOT_PLAIN, lambda match: _escaped(match[0]), text)


def error_facts(error: Problem | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """An error as the four facts that a script reads."""
    if isinstance(error, Problem):
        return {"code": error.code, "message": error.message, "hint": error.advice, "item": error.item}
    return None if error is None else dict(error)


def document(command: str, payload: Mapping[str, Any], *, ok: bool, exit_code: int, error: Any) -> dict[str, Any]:
    """The one document of a command: what every command says, then its own."""
    head = {"schema": f"mdl.{command}/1", "ok": ok, "exit_code": exit_code, "error": error_facts(error)}
    return head | {key: value for key, value in payload.items() if key not in head}


_NOT_PLAIN = r"[^\x20-\x7e]"
_Redact = Callable[[str, Iterable[str]], str]


def _redacted(value: Any, secrets: tuple[str, ...], how: _Redact) -> Any:
    if isinstance(value, Problem):
        value, how = value.to_dict(), redact
    elif isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        is_plain = how is redact_value and not secrets and "://" not in value
        return value if is_plain else how(value, secrets)
    if isinstance(value, dict):
        return {
            key: inner
            if inner is None or isinstance(inner, int | float)
            else _redacted(inner, secrets, redact if key == "error" else how)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redacted(inner, secrets, how) for inner in value]
    return value


def _escaped(char: str) -> str:
    """As JSON writes it, also for what JSON would let through but a terminal would obey."""
    return json.dumps(char)[1:-1] if char != "\n" and is_harmful_in_prose(char) else char
