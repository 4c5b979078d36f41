"""What one benchmark found: tables, claims, and how mdl did beside the others. `all` keeps it, `page` draws it."""

from __future__ import annotations

from typing import TypedDict


class Table(TypedDict):
    """As it was printed. ``caption`` tells what was measured, and how often."""

    head: list[str]
    rows: list[list[str]]
    caption: str


class Claim(TypedDict):
    """A sentence with its figure, and whether it is true."""

    text: str
    holds: bool


class Peer(TypedDict):
    """Another program that did the same work.

    ``seconds`` is the median of its rounds. ``times`` is how many times as fast as it mdl is, the median of the rounds'
    ratios. ``alike``: it hashes or syncs what it wrote, as mdl does.
    """

    name: str
    seconds: float
    times: float
    alike: bool


class Comparison(TypedDict):
    """One work, mdl's median ``seconds`` for it, and the others'."""

    work: str
    seconds: float
    peers: list[Peer]


class Finding(TypedDict):
    """What a benchmark writes down itself. ``skipped`` tells why it could not run here, or is ''."""

    skipped: str
    tables: list[Table]
    claims: list[Claim]
    comparisons: list[Comparison]


class Record(Finding):
    """One run of one benchmark."""

    command: str
    day: str
    machine: str
    versions: str
    seconds: float
    code: int
