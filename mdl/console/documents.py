"""Documents: values as JSON, without secrets, without characters that a terminal would obey, and valid whatever names
are in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from mdl.errors import Problem
from mdl.paths import escape_surrogates, is_harmful_in_prose
from mdl.redact import Requested, redact, redact_value

_Redact = Callable[[str, Iterable[str]], str]


def document(command: str, payload: Mapping[str, Any], *, exit_code: int, error: Problem | None) -> dict[str, Any]:
    """The one document of a command: what every command says, then its own."""
    head = {"schema": f"mdl.{command}/1", "ok": exit_code == 0, "exit_code": exit_code, "error": None}
    if error:
        head["error"] = {"code": error.code, "message": error.message, "hint": error.advice, "item": error.item}
    return head | {key: value for key, value in payload.items() if key not in head}


def json_text(value: Any, *, secrets: Iterable[str] = (), ascii_only: bool = True, indent: int | None = None) -> str:
    """``value`` as JSON. Text under a key ``error`` is a sentence and redacted as one, other text as a value; a
    `Requested` secret stays.

    An exception of mdl's, as reports hold it, becomes its `Problem.to_dict`. A record becomes an object with its
    fields; one that has a text of its own, such as a digest, becomes that text.
    """
    safe = _redacted(value, tuple(secrets), redact_value)
    text = json.dumps(safe, ensure_ascii=ascii_only, indent=indent, default=str)
    if ascii_only:
        return text
    harmful = {char for char in text if is_harmful_in_prose(char)} - {"\n"}
    return text.translate({ord(char): json.dumps(char)[1:-1] for char in harmful})


def _redacted(value: Any, secrets: tuple[str, ...], how: _Redact) -> Any:
    match value:
        case Requested():
            return escape_surrogates(str(value))
        case Problem():
            return _redacted(value.to_dict(), secrets, redact)
        case str() | Path():
            text = escape_surrogates(str(value))
            has_no_secret = how is redact_value and not secrets and "://" not in text
            return text if has_no_secret else how(text, secrets)
        case dict():
            clean = {}
            for key, inner in value.items():
                name = escape_surrogates(str(key))
                clean[name] = _redacted(inner, secrets, redact if key == "error" else how)
            return clean
        case list() | tuple():
            return [_redacted(inner, secrets, how) for inner in value]
    if is_dataclass(value) and type(value).__str__ is object.__str__:
        facts = {field.name: getattr(value, field.name) for field in fields(value)}
        return _redacted(facts, secrets, how)
    return value
