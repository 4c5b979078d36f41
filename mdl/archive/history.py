"""History: which releases there are, which were served in which order, and what a rollback returns to. Pure."""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import asdict, field, replace

from mdl.bounds import parse_json
from mdl.paths import RelPath
from mdl.values import value_class

SCHEMA = "mdl.releases/1"
_REMEMBERED = 1000
"""How many switches are kept."""


@value_class
class Switch:
    """One change of what is served: when (UTC), from and to which version, ``why`` (``release`` or ``rollback``), and
    by which user and process."""

    time: str
    before: str
    after: str
    why: str
    by: str = ""


@value_class
class History:
    """``releases`` are in the order they came; ``served`` are the versions that a rollback goes back through, the
    active one last; ``switches`` the last thousand changes. ``unless_switched`` is what ``served`` was before the last
    change, if that is a rollback that may not have happened: it is recorded before and after the switch."""

    releases: tuple[str, ...] = ()
    served: tuple[str, ...] = ()
    switches: tuple[Switch, ...] = field(default=(), repr=False)
    unless_switched: tuple[str, ...] = ()

    @property
    def active(self) -> str:
        return self.served[-1] if self.served else ""

    @property
    def previous(self) -> str:
        """The version that a rollback returns to, or ''."""
        return self.served[-2] if len(self.served) > 1 else ""

    @property
    def withdrawn(self) -> tuple[str, ...]:
        """The versions that were rolled back from, and not served again since."""
        switched = {one.after for one in self.switches}
        return tuple(one for one in self.releases if one in switched and one not in self.served)

    def released(self, version: str, switch: Switch) -> History:
        """The history once ``version`` is active."""
        served = (*(one for one in self.served if one != version), version)
        known = self.releases if version in self.releases else (*self.releases, version)
        return History(known, served, self._with(switch))

    def rolled_back(self, switch: Switch) -> History:
        """The history once ``switch.after`` is active again: a version that was served before, or one that was rolled
        back from."""
        version = switch.after
        known = self.releases if version in self.releases else (*self.releases, version)
        at = self.served.index(version) if version in self.served else len(self.served)
        return History(known, (*self.served[:at], version), self._with(switch), unless_switched=self.served)

    def not_rolled_back(self, active: str) -> History | None:
        """The history without its last change, if that is a rollback that did not happen, for ``active`` is served
        still."""
        if self.unless_switched[-1:] != (active,):
            return None
        return History(self.releases, self.unless_switched, self.switches[:-1])

    def kept(self, keep: int, here: Container[str]) -> History:
        """Without the versions that are not ``here`` any more, and without the oldest beyond ``keep``; the active and
        the previous version always stay."""
        safe = {self.active, self.previous}
        present = [one for one in self.releases if one in here]
        over = max(len(present) - max(keep, 1), 0)
        gone = [one for one in present if one not in safe][:over]

        def left(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(one for one in names if one == self.active or (one in present and one not in gone))

        return replace(self, releases=left(self.releases), served=left(self.served))

    def _with(self, switch: Switch) -> tuple[Switch, ...]:
        return (*self.switches, switch)[-_REMEMBERED:]


def to_json(history: History) -> bytes:
    facts = {
        "schema": SCHEMA,
        "active": history.active,
        "previous": history.previous,
        "releases": history.releases,
        "served": history.served,
        "unless_switched": history.unless_switched,
        "withdrawn": history.withdrawn,
        "switches": [asdict(one) for one in history.switches],
    }
    return json.dumps(facts, indent=1).encode() + b"\n"


def from_json(data: bytes) -> History:
    """Raises `ValueError`, `KeyError`, `TypeError`, `AttributeError`, `Unsafe` if this is not a history."""
    facts = parse_json(data)
    if facts["schema"] != SCHEMA:
        raise ValueError(facts["schema"])

    def names(key: str) -> tuple[str, ...]:
        return tuple(RelPath.parse(name).text for name in facts[key])

    switches = tuple(Switch(**{key: str(value) for key, value in one.items()}) for one in facts["switches"])
    before = names("unless_switched") if "unless_switched" in facts else ()  # mdl has not always written it
    return History(names("releases"), names("served"), switches, before)
