"""One bound for each kind of thing from outside, in `mdl.bounds`: what looks like a limit anywhere else says why.

A limit on what comes from a file, a server or another program belongs into `mdl.bounds`. What an algorithm is tuned by,
what a foreign format fixes, and how much of its own mdl shows or keeps, may stand beside the code that it is of.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import mdl

ROOT = Path(mdl.__file__).parent
LOOKS_LIKE_A_LIMIT = re.compile(r"(^|_)(MOST|LARGEST|LONGEST|MAX|DEEPEST|LIMIT)(_|$)")

TUNING = """
    LARGEST LONGEST_RETRY_AFTER MAX_OVERHEAD MOST_BEGUN NO_LIMIT NO_RATE_LIMIT _LATE_AT_MOST _LONGEST_PART
    _LONGEST_POLL_SECONDS _LONGEST_RISE_SECONDS _LONGEST_WAIT _LONGEST_WRITE_SECONDS _MOST _MOST_ADDRESSES
    _MOST_AT_ONCE _MOST_BLOCKS _MOST_CLAIMS _MOST_CLIENTS _MOST_FILES _MOST_KEPT _MOST_LINES _MOST_MEMORY _MOST_OPEN
    _MOST_OPERATIONS _MOST_OVERLOOKED _MOST_SECONDS _MOST_SKIPPED _MOST_WORKERS _STATE_LIMIT
"""
"""What an algorithm is tuned by: seconds, threads, how much it does at once or keeps of its own."""

FORMATS = """
    LONGEST_HEADER LONGEST_ZIP_END MOST _DEEPEST _DEEPEST_ERROR _DEEPEST_NAMED _LARGEST_MAP _LONGEST _LONGEST_COUNT
    _LONGEST_FIRST _LONGEST_FIRST_LINE _LONGEST_HEAD _LONGEST_HOST _LONGEST_LINE _LONGEST_NAME _LONGEST_POINTER
    _LONGEST_SUPERBLOCK _LONGEST_VARIABLE _MAX_REDIRECTS _MOST _MOST_COUNTED _MOST_DIMENSIONS _MOST_DOTS _MOST_LINKS
    _MOST_NESTED _MOST_PARTS _MOST_PIECES
"""
"""What a format or a program of others fixes, or how far into one kind of it mdl looks."""

SHOWN = """
    _LONGEST_BESIDE_TEXT _LONGEST_WORD _MOST _MOST_JOBS _MOST_LATE _MOST_LINES _MOST_MODELS _MOST_OF_FILES _MOST_OWN
    _MOST_ROWS _MOST_ROWS_DRAWN _MOST_RUNS _MOST_SHOWN _MOST_TWINS
"""
"""How much of what mdl knows it shows at once."""

ALLOWED = {*TUNING.split(), *FORMATS.split(), *SHOWN.split()}


def limits() -> dict[str, str]:
    """The constants of all modules but `mdl.bounds` that are called as limits are, and the module of each."""
    found: dict[str, str] = {}
    for path in ROOT.rglob("*.py"):
        if path == ROOT / "bounds.py":
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if isinstance(node, ast.AnnAssign):
                targets = [node.target]
            for target in targets:
                if isinstance(target, ast.Name) and LOOKS_LIKE_A_LIMIT.search(target.id):
                    found[target.id] = path.relative_to(ROOT).as_posix()
    return found


def test_no_limit_outside_of_bounds() -> None:
    """A limit on what comes from outside is in `mdl.bounds`; whatever else looks like one is of a listed kind."""
    assert {name: place for name, place in limits().items() if name not in ALLOWED} == {}
