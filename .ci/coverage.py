"""Say how much of mdl the test suite ran; fail if it took less than 90 % of the branches.

It reads the data of a run with ``--cov``: of the default suite and of the plug-ins' tests. Only what ran in the test
processes themselves counts; mdl in child processes is not measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

LEAST = 90.0
"""Per cent of all branches."""
SHOWN = 12


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "coverage.json")
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", str(place)], check=True)
        found = json.loads(place.read_bytes())
    for name, row in sorted(found["files"].items(), key=lambda item: item[1]["summary"]["percent_covered"])[:SHOWN]:
        sys.stdout.write(f"{row['summary']['percent_covered']:6.1f} %  {name}\n")
    branches = found["totals"]["percent_branches_covered"]
    sys.stdout.write(
        f"{found['totals']['percent_statements_covered']:.1f} % of the statements, {branches:.1f} % of the branches"
        + "\n"
    )
    return 0 if branches >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
