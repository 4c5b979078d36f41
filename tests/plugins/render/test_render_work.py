"""Work: what a manifest is made from holds no line break, whatever field it is in."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from support.cases import each

from mdl.errors import UsageError
from mdl.plugins.render.work import Work

TEXTS = [field.name for field in fields(Work) if field.name not in ("window", "is_locked", "catalog_text", "lock_text")]


@each("name", TEXTS)
def test_every_field_is_checked(name: str) -> None:
    """Also a field that is added later: a control character is a text that no manifest can have."""
    kind = str(Work.__annotations__[name])
    forms: list[Any] = ["a\nb"]
    if "Sequence" in kind:
        forms = [["a\nb"], ("ok", "a\x1bb")]
    elif "Mapping" in kind:
        forms = [{"A": "a\nb"}, {"A\nB": "b"}]
    for form in forms:
        with pytest.raises(UsageError):
            Work(**{"names": ["m"], name: form}).check()
