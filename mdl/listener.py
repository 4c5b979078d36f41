"""Listener: a callable that is told of events. A module that only passes one on imports this, and not `mdl.events`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from mdl.values import value_class


@value_class
class Event:
    """The base of all; ``model`` and ``file`` name the item, if there is one. ``kind`` is the model's, and ``repo`` the
    id of what the item comes from: ``hf:org/name``, a URL without its query, ``s3://bucket/prefix``; '' if it is not
    known, or if there are several. ``time`` is set if it is told later than it happened: ISO 8601 in UTC."""

    model: str = ""
    file: str = ""
    kind: str = field(default="", kw_only=True)
    repo: str = field(default="", kw_only=True)
    time: str = field(default="", kw_only=True)


Listener = Callable[[Event], None]


def silence(_event: Event) -> None:
    """The listener that does nothing."""
