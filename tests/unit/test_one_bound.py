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
MAY_HAVE_ONE = re.compile(r"^_?[A-Z_]*(MOST|LARGEST|LONGEST|MAX|DEEPEST|LIMIT)", re.MULTILINE)
"""Only such a module is parsed."""

TUNING = """
    LARGEST LATE_AT_MOST LONGEST_PART LONGEST_POLL_SECONDS LONGEST_RETRY_AFTER LONGEST_RISE_SECONDS LONGEST_WAIT
    LONGEST_WRITE_SECONDS MAX_OVERHEAD MOST MOST_ADDRESSES MOST_AT_ONCE MOST_BEGUN MOST_BLOCKS MOST_CLAIMS
    MOST_CLIENTS MOST_FILES MOST_KEPT MOST_LINES MOST_MEMORY MOST_OPEN MOST_OPERATIONS MOST_OVERLOOKED MOST_SECONDS
    MOST_SKIPPED MOST_WORKERS NO_LIMIT NO_RATE_LIMIT STATE_LIMIT
"""
"""What an algorithm is tuned by: seconds, threads, how much it does at once or keeps of its own."""

FORMATS = """
    DEEPEST DEEPEST_ERROR DEEPEST_NAMED LARGEST_MAP LONGEST LONGEST_COUNT LONGEST_FIRST LONGEST_FIRST_LINE
    LONGEST_HEAD LONGEST_HEADER LONGEST_HOST LONGEST_LINE LONGEST_MAGIC LONGEST_NAME LONGEST_PLAIN_ERROR
    LONGEST_POINTER LONGEST_SUPERBLOCK LONGEST_VARIABLE LONGEST_ZIP_END MAX_REDIRECTS MOST MOST_COUNTED MOST_DIMENSIONS
    MOST_DOTS MOST_LINKS MOST_NESTED MOST_PARTS MOST_PIECES
"""
"""What a format or a program of others fixes, or how far into one kind of it mdl looks."""

SHOWN = """
    LONGEST_BESIDE_TEXT LONGEST_PLACE LONGEST_WORD MOST MOST_JOBS MOST_LATE MOST_LINES MOST_MODELS MOST_OF_FILES
    MOST_OWN MOST_ROWS MOST_ROWS_DRAWN MOST_RUNS MOST_SHOWN MOST_TWINS
"""
"""How much of what mdl knows it shows at once."""

ALLOWED = {*TUNING.split(), *FORMATS.split(), *SHOWN.split()}


def limits() -> dict[str, str]:
    """The constants of all modules but `mdl.bounds` that are called as limits are, and the module of each."""
    found: dict[str, str] = {}
    for path in ROOT.rglob("*.py"):
        source = path.read_text("utf-8")
        if path == ROOT / "bounds.py" or not MAY_HAVE_ONE.search(source):
            continue
        for node in ast.parse(source).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if isinstance(node, ast.AnnAssign):
                targets = [node.target]
            for target in targets:
                if isinstance(target, ast.Name) and LOOKS_LIKE_A_LIMIT.search(target.id):
                    found[target.id.lstrip("_")] = path.relative_to(ROOT).as_posix()
    return found


def test_no_limit_outside_of_bounds() -> None:
    """A limit on what comes from outside is in `mdl.bounds`; whatever else looks like one is of a listed kind."""
    assert {name: place for name, place in limits().items() if name not in ALLOWED} == {}
