"""Writes the tables of figures in many-machines.md, beside this file: what many machines cost, from a few assumptions.

python docs/scale.py           # write them
python docs/scale.py --check   # write nothing; exit with 1 if they are not up to date
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).with_name("many-machines.md")
_TABLE = re.compile(r"(?<=<!-- )(assumptions|hub|ways|store)(: [^>]* -->\n\n).*?(?=\n<!-- end -->)", re.DOTALL)
NODES = (1, 100, 10_000)


@dataclass(frozen=True)
class Assumptions:
    """Bytes, seconds, bytes per second and dollars."""

    model: int = 70 * 10**9
    files: int = 40
    window: int = 300
    resolves: int = 3000
    api_calls: int = 500
    api_calls_per_node: int = 2
    link: float = 10e9 / 8
    folder: float = 20e9
    part: int = 64 * 2**20
    gets_per_second: int = 5500
    dollars_per_get: float = 0.0004 / 1000
    dollars_per_byte_month: float = 0.023 / 10**9
    dollars_per_byte_between_regions: float = 0.02 / 10**9

    @property
    def copy(self) -> float:
        """Seconds for one copy over one link."""
        return self.model / self.link

    @property
    def parts(self) -> int:
        """Requests for one copy from an object store, files taken as equally large."""
        return self.files * math.ceil(self.model / self.files / self.part)

    def waiting(self, requests: int, quota: int) -> int:
        """Seconds until so many requests have been let through: the first window need not be waited for."""
        return (math.ceil(requests / quota) - 1) * self.window

    def from_the_hub(self, nodes: int) -> float:
        """Seconds until all nodes are ready, each from the hub over a link of its own. The last ones may have to wait
        for all of their links."""
        return self.copy + self.waiting(nodes * self.files, self.resolves)

    def from_one_server(self, nodes: int) -> float:
        """Seconds until one server with one link has served all nodes, once it has its own copy."""
        return self.copy * (1 + nodes)

    def from_a_folder(self, nodes: int) -> float:
        """Seconds until one node has filled a shared folder and all nodes have read it."""
        return self.copy + max(self.copy, nodes * self.model / self.folder)

    def from_a_store(self, nodes: int) -> float:
        """Seconds until one node has brought the model to an object store and all nodes have it from there."""
        return 2 * self.copy + max(self.copy, nodes * self.parts / self.gets_per_second)

    def from_node_to_node(self, nodes: int) -> float:
        """Seconds until the model has gone from node to node: all pass on what they have while more comes."""
        return self.copy * (1 if nodes == 1 else 2)


A = Assumptions()


def tables() -> dict[str, str]:
    """The tables of the page, by the word in its marks."""
    return {"assumptions": _assumptions(), "hub": _hub(), "ways": _ways(), "store": _store()}


def _assumptions() -> str:
    rows = [
        ("A model", f"{_bytes(A.model)} in {A.files} files"),
        ("The hub, without a token", f"{A.resolves:,} file links and {A.api_calls:,} API calls in {_time(A.window)}"),
        ("Requests of one node", f"{A.files} file links; {A.api_calls_per_node} API calls without a lock, none with"),
        ("A link of a node or server", f"10 Gbit/s: one copy in {_time(A.copy)}"),
        ("A shared file system, all nodes together", f"{_bytes(A.folder)}/s"),
        ("An object store, one prefix", f"{A.gets_per_second:,} GETs a second; {A.parts:,} GETs of 64 MiB a copy"),
        ("Its prices", "$0.0004 for 1,000 GETs, $0.023 a GB and month, $0.02 a GB between regions"),
    ]
    return _table(("what", "assumed"), rows)


def _hub() -> str:
    rows = []
    for nodes in NODES:
        links, calls = nodes * A.files, nodes * A.api_calls_per_node
        wait, more = A.waiting(links, A.resolves), A.waiting(calls, A.api_calls)
        rows.append((f"{nodes:,}", _bytes(nodes * A.model), f"{links:,}", _time(wait), f"{calls:,}", _time(more)))
    head = ("nodes", "from the hub", "file links", "waiting for them", "API calls", "waiting for them")
    return _table(head, rows)


def _ways() -> str:
    ways = [
        ("each from the hub", A.from_the_hub, True),
        ("one server, `mdl serve`", A.from_one_server, False),
        ("a shared folder", A.from_a_folder, False),
        ("an object store, `mdl mirror`", A.from_a_store, False),
        ("node to node: sbcast, Dragonfly", A.from_node_to_node, False),
    ]
    rows = []
    for name, seconds, is_each in ways:
        served = "nodes × " + _bytes(A.model) if is_each else _bytes(A.model)
        rows.append((name, served, *(_time(seconds(nodes)) for nodes in NODES)))
    return _table(("way", "the hub serves", *(f"{nodes:,} ready after" for nodes in NODES)), rows)


def _store() -> str:
    rows = []
    for nodes in NODES:
        gets, size = nodes * A.parts, nodes * A.model
        money = (gets * A.dollars_per_get, size * A.dollars_per_byte_between_regions)
        rows.append((f"{nodes:,}", _bytes(size), f"{gets:,}", _time(gets / A.gets_per_second), *map(_dollars, money)))
    head = ("nodes", "from the store", "GETs", "at one prefix's rate", "their price", "from another region")
    return _table(head, rows) + f"\nTo keep it: {_dollars(A.model * A.dollars_per_byte_month)} a month.\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _bytes(count: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"


def _time(seconds: float) -> str:
    for unit, size, least in (("days", 86400, 1.0), ("h", 3600, 1.0), ("min", 60, 1.5)):
        if seconds >= least * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.1f} s" if 0 < seconds < 1 else f"{seconds:.0f} s" if seconds else "none"


def _dollars(amount: float) -> str:
    return f"${amount:,.0f}" if amount >= 100 else f"${amount:.4f}" if amount < 0.01 else f"${amount:.2f}"


def page(text: str) -> str:
    """The page ``text`` with its tables as they should be."""
    found = tables()
    return _TABLE.sub(lambda match: match[1] + match[2] + found[match[1]], text)


def main(words: list[str]) -> int:
    before = PAGE.read_text("utf-8")
    after = page(before)
    if words != ["--check"]:
        PAGE.write_text(after, "utf-8")
        return 0
    if after != before:
        sys.stdout.write(f"{PAGE} is not up to date: python docs/scale.py\n")
    return int(after != before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
