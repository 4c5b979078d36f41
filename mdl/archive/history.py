"""History: which releases there are, which were served, and what a rollback returns to. Pure."""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mdl.paths import RelPath

SCHEMA = "mdl.releases/1"
_REMEMBERED = 1000
"""Switches that are kept."""


@dataclass(frozen=True)
class Switch:
    """One change of what is served: when (UTC), from and to which version, and why: ``release`` or ``rollback``."""

    time: str
    before: str
    after: str
    why: str
    by: str = ""


@dataclass(frozen=True)
class History:
    """``releases`` in the order they came; ``served`` the versions that a rollback goes back through, the last active;
    ``withdrawn`` those that were rolled back from; ``switches`` what happened, the last thousand times."""

    releases: tuple[str, ...] = ()
    served: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    switches: tuple[Switch, ...] = field(default=(), repr=False)

    @property
    def active(self) -> str:
        return self.served[-1] if self.served else ""

    @property
    def previous(self) -> str:
        """What a rollback returns to, or ''."""
        return self.served[-2] if len(self.served) > 1 else ""

    def released(self, version: str, switch: Switch) -> History:
        """``version`` is active now."""
        served = (*(one for one in self.served if one != version), version)
        known = self.releases if version in self.releases else (*self.releases, version)
        withdrawn = tuple(one for one in self.withdrawn if one != version)
        return History(known, served, withdrawn, self._with(switch))

    def rolled_back(self, switch: Switch) -> History:
        """The one before is active again, and the one that was active is marked."""
        withdrawn = (*self.withdrawn, self.active)
        return replace(self, served=self.served[:-1], withdrawn=withdrawn, switches=self._with(switch))

    def kept(self, keep: int, here: Container[str]) -> History:
        """Without what is not ``here`` any more, and without the oldest beyond ``keep``; never without the active or
        the previous one."""
        safe = {self.active, self.previous}
        present = [one for one in self.releases if one in here]
        over = max(len(present) - max(keep, 1), 0)
        gone = [one for one in present if one not in safe][:over]

        def left(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(one for one in names if one == self.active or (one in present and one not in gone))

        return replace(self, releases=left(self.releases), served=left(self.served), withdrawn=left(self.withdrawn))

    def _with(self, switch: Switch) -> tuple[Switch, ...]:
        return (*self.switches, switch)[-_REMEMBERED:]


def to_json(history: History, coming: History | None) -> bytes:
    """``coming`` holds as soon as the link says so: written before the switch, so that a crash loses nothing."""
    facts = {"schema": SCHEMA, "active": history.active, "previous": history.previous, **asdict(history)}
    return json.dumps(facts | {"coming": asdict(coming) if coming else None}, indent=1).encode() + b"\n"


def from_json(data: bytes) -> tuple[History, History | None]:
    """Raises `ValueError`, `KeyError`, `TypeError`, `AttributeError`, `Unsafe` for what is no history."""
    facts = json.loads(data)
    if facts["schema"] != SCHEMA:
        raise ValueError(facts["schema"])
    return _history(facts), _history(facts["coming"]) if facts.get("coming") else None


def _history(facts: Any) -> History:
    def names(key: str) -> tuple[str, ...]:
        return tuple(RelPath.parse(name).text for name in facts[key])

    switches = tuple(Switch(**{key: str(value) for key, value in one.items()}) for one in facts["switches"])
    return History(names("releases"), names("served"), names("withdrawn"), switches)
