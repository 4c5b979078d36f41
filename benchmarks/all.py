"""Every benchmark in turn, beside the programs that are on PATH, and the page that is made of what they found.

    python benchmarks/all.py                 # all of them, an hour or more
    python benchmarks/all.py small pack      # these anew; of the others the last results stay
    python benchmarks/all.py --draw          # none: only the page, from the last results
    python benchmarks/all.py --check         # is the page what the last results give? 1 if it is not

Results are kept in benchmarks/results.json. The page is docs/benchmarks.md, with the chart
docs/pictures/benchmarks.svg; the README's lines between its two marks come from the same results.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import harness as bench
import page
from record import Finding, Record

_HERE = Path(__file__).parent
RESULTS = _HERE / "results.json"
_PROGRAMS = {
    "curl": "curl --version",
    "wget": "wget --version",
    "aria2": "aria2c --version",
    "huggingface_hub": "hf version",
    "nginx": "nginx -v",
    "zip": "zip -v",
    "unzip": "unzip -v",
    "7z": "7z i",
    "bsdtar": "bsdtar --version",
    "openssl": "openssl version",
}
_VERSION = re.compile(r"\d+\.\d+(\.\d+)*")


def versions() -> str:
    """The programs that are here, each with its version."""
    found = []
    for name, words in _PROGRAMS.items():
        program, *more = words.split()
        if path := bench.tool(program) or bench.tool(f"/usr/sbin/{program}"):
            said = subprocess.run([path, *more], capture_output=True, text=True, check=False)
            text = (said.stdout + said.stderr).replace("Copyright (c) 1990-2008", "")
            found.append(f"{name} {match[0]}" if (match := _VERSION.search(text)) else name)
    return ", ".join(found)


def measure(part: page.Part, under: Path | None) -> Record:
    """Run one benchmark to its end, its words on this terminal."""
    words = shlex.split(part.command) + (["--dir", str(under)] if under else [])
    print(f"\n$ python benchmarks/{part.command}", flush=True)
    began = time.monotonic()
    with tempfile.NamedTemporaryFile() as file:
        env = {**os.environ, bench.RECORD: file.name}
        done = subprocess.run([sys.executable, *words], cwd=_HERE, env=env, check=False)
        text = Path(file.name).read_text()
    found: Finding = json.loads(text or '{"skipped": "", "tables": [], "claims": [], "comparisons": []}')
    return {
        "command": f"python benchmarks/{part.command}",
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": bench.machine(),
        "versions": versions(),
        "seconds": time.monotonic() - began,
        "code": done.returncode,
        **found,
    }


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[[], *page.PARTS], help=f"only these: {', '.join(page.PARTS)}")
    parser.add_argument("--dir", type=Path, help="folder on the disk to measure [the system's temporary folder]")
    parser.add_argument("--draw", action="store_true", help="measure nothing: write the page")
    parser.add_argument("--check", action="store_true", help="measure and write nothing: compare the page")
    args = parser.parse_args()
    results: dict[str, Record] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in () if args.draw or args.check else args.part or page.PARTS:
        found = measure(page.PARTS[name], args.dir)
        has_measured = bool(found["tables"] or found["skipped"])
        if found["code"] not in (0, 1, bench.SKIPPED) or not has_measured:  # 1: a claim does not hold; the page tells
            raise SystemExit(f"FAILED: {found['command']}: exit code {found['code']}")
        results[name] = found
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if args.check:
        stale = [path for path, text in page.drawn(results).items() if not path.exists() or path.read_text() != text]
        print("\n".join(f"{path.name} is not what the results give" for path in stale) or "the page is up to date")
        return int(bool(stale))
    for path, text in page.drawn(results).items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
