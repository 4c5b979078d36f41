"""Compares what mdl writes as JSON with the schemas that it ships, which must list every key."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from jsonschema_rs import Draft202012Validator

from mdl import schemas

LAST = {"finished", "failed", "cancelled", "paused"}


def document_of(text: str | bytes) -> dict[str, Any]:
    """The one document that ``text`` is."""
    found: dict[str, Any] = json.loads(text)
    name, version = found["schema"].removeprefix("mdl.").split("/")
    assert (name in schemas.names(), version) == (True, "1"), found["schema"]
    assert mistakes(name, found) == [], found
    return found


def events_of(text: str) -> list[dict[str, Any]]:
    """The lines of ``--progress json``, all of them: the last one, and no other, is an end."""
    found: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    for one in found:
        assert mistakes("event", one) == [], one
    assert [one["event"] in LAST for one in found] == [False] * (len(found) - 1) + [True], text
    return found


def mistakes(name: str, value: Any) -> list[str]:
    """What of ``value`` is not as the schema says."""
    errors = _validator(name).iter_errors(value)
    return [f"{'.'.join(map(str, error.instance_path))}: {error.message}"[:300] for error in errors]


def is_right(name: str, value: Any) -> bool:
    """The same, without looking for more than one mistake."""
    return _validator(name).is_valid(value)


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(closed(schemas.schema(name)))


def closed(schema: Any) -> Any:
    """The same schema, in which an object has no other keys than those that it lists."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(one) for key, one in schema.items()}
    is_object = found.get("type") == "object" and "properties" in found
    return {"additionalProperties": False, **found} if is_object else found
