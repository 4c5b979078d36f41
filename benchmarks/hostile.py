"""The hostile corpus, all of it: what mdl accepts and must not, what it refuses and must not.

The claims for mdl: no hostile archive accepted, no harmless one refused, nothing written where one was refused.
Beside it, as a control, Python's own zipfile.extractall on the same bytes.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runs import claim, machine, table

_TESTS = Path(__file__).parent.parent / "tests"


@dataclass
class Tally:
    """What came of one group of archives; ``wrong`` says in words what must not have."""

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    renamed: int = 0
    outside: int = 0
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)


def hostile_by_mdl(corpus: Any, cases: Sequence[Any], place: Path) -> Tally:
    tally = Tally()
    for number, case in enumerate(cases):
        tally.tried += 1
        try:
            outcome = corpus.try_out(place / str(number), case.build(), case.limits)
        except Exception as error:  # whatever it is, it is none of mdl's own
            tally.wrong.append(f"F{case.row} {case.name}: {type(error).__name__}: {error}")
            continue
        tally.slowest = max(tally.slowest, outcome.seconds)
        tally.accepted += outcome.code == 0
        tally.refused += outcome.code != 0
        tally.outside += bool(outcome.code and outcome.traces)
        if outcome.code not in case.codes:
            tally.wrong.append(f"F{case.row} {case.name}: exit code {outcome.code}, not {sorted(case.codes)}")
        elif outcome.traces:
            tally.wrong.append(f"F{case.row} {case.name}: left {sorted(outcome.traces)}")
    return tally


def hostile_by_zipfile(corpus: Any, cases: Sequence[Any], place: Path) -> Tally:
    tally = Tally()
    for number, case in enumerate(cases):
        result = corpus.control(place / str(number), case.build())
        tally.tried += 1
        tally.accepted += result.accepted
        tally.refused += not result.accepted
        tally.renamed += result.renamed
        tally.outside += result.outside
    return tally


def harmless_by_mdl(corpus: Any, archives: Sequence[Any], place: Path, whole: Callable[[Any], Any]) -> Tally:
    tally = Tally()
    for number, one in enumerate(archives):
        source, archive, out = (place / str(number) / name for name in ("source", "archive.zip", "out"))
        source.mkdir(parents=True)
        one.make(source, archive)
        tally.tried += 1
        try:
            corpus.unpack(archive, out, limits=corpus.USUAL)
        except Exception as error:  # whatever it is, it must not be
            tally.refused += 1
            tally.wrong.append(f"{one.name}: {type(error).__name__}: {error}")
            continue
        tally.accepted += 1
        if corpus.tree(out) != whole(one.tree):
            tally.wrong.append(f"{one.name}: unpacked otherwise than it was packed")
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, help="where to unpack; in memory is quickest [/dev/shm or the usual]")
    args = parser.parse_args()
    sys.path.insert(0, str(_TESTS))
    corpus = importlib.import_module("support.hostile_archives")
    honest = importlib.import_module("support.accepted_archives")
    memory = Path("/dev/shm")
    light = [case for case in corpus.CORPUS if not case.heavy]
    archives = [one for one in honest.ACCEPTED if one.is_here]
    with tempfile.TemporaryDirectory(dir=args.dir or (memory if memory.is_dir() else None)) as folder:
        place = Path(folder)
        groups = {"tricks alone": corpus.ALONE, "cut, or no zip": corpus.CUTS, "two tricks": corpus.PAIRS}
        mdl = {name: hostile_by_mdl(corpus, cases, place / f"mdl {name}") for name, cases in groups.items()}
        ok = harmless_by_mdl(corpus, archives, place / "harmless", honest.whole)
        control = hostile_by_zipfile(corpus, light, place / "control")
    rows = [(f"mdl, {name}", one.tried, one.accepted, "-", one.outside, "-") for name, one in mdl.items()]
    rows.append(("mdl, harmless", ok.tried, "-", ok.refused, "-", "-"))
    rows.append(("zipfile, hostile", control.tried, control.accepted, "-", control.outside, control.renamed))
    head = ("case", "archives", "wrongly accepted", "wrongly refused", "left or wrote outside", "silently renamed")
    table(head, [tuple(map(str, row)) for row in rows])
    slowest = max(one.slowest for one in mdl.values())
    print(f"\nslowest refusal {slowest * 1000:.0f} ms; {len(corpus.CORPUS) - len(light)} bombs left out of the control")
    print(machine())
    wrong = [line for one in (*mdl.values(), ok) for line in one.wrong]
    print(*(f"  {line}" for line in wrong), sep="\n")
    tried, accepted = sum(one.tried for one in mdl.values()), sum(one.accepted for one in mdl.values())
    holds = [
        claim(f"{accepted} of {tried} hostile archives accepted", accepted == 0),
        claim(f"{ok.refused} of {ok.tried} harmless archives refused", ok.refused == 0),
        claim(f"{len(wrong)} outcomes other than they must be", not wrong),
        claim(f"zipfile accepts {control.accepted} of {control.tried}: the corpus bites", control.accepted > 0),
    ]
    return 0 if all(holds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
