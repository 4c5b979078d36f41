"""One file of the hub over HTTP, over Xet (--via xet) and by huggingface_hub (--via hub, which uses Xet too).

The real hf_xet uploads a file, and a storage on loopback serves it by Xet's protocol. What is measured is the time, and
the memory of mdl and of the process of hf_xet together: the resident pages of both, every 10 ms, at their peak. The
claim: --via xet takes at most 400 MiB. The servers are written in Python, so the times say nothing about a real hub.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import harness as bench
from support.loopback_hub import LoopbackHub, Repo
from support.xet_store import NAME, FileBytes, XetServer, XetStore

_MOST = 400 * 2**20
_WAYS = ("http", "xet", "hub")
_TICK = 0.01


def tree(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from tree(int(child))


def resident(pid: int) -> int:
    """Bytes of memory that a process and its children have now."""
    pages = 0
    try:
        for one in tree(pid):
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
    except OSError:
        return 0  # one has ended just now
    return pages * os.sysconf("SC_PAGESIZE")


def measured(argv: list[str], env: dict[str, str]) -> tuple[float, int]:
    """Seconds and the peak of the memory, in bytes."""
    began, peak, null = time.monotonic(), 0, subprocess.DEVNULL
    with subprocess.Popen(argv, env=env, stdin=null, stdout=null, stderr=null) as process:
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(_TICK)
    if process.returncode:
        raise SystemExit(f"FAILED: exit code {process.returncode}: {' '.join(argv)}")
    return time.monotonic() - began, peak


@contextmanager
def served(place: Path, size: int) -> Iterator[tuple[LoopbackHub, XetServer]]:
    """A hub with one random file that is on Xet."""
    sample = bench.random_file(place / NAME, size)
    store = XetStore.uploaded(place, [sample.path])
    with XetServer(store) as server, LoopbackHub([Repo("bench/one", {NAME: FileBytes(sample.path)})]) as hub:
        hub.put_on_xet({sample.sha256: store.files[NAME]}, server.read_token)
        yield hub, server


def main() -> int:
    args = bench.flags(__doc__, size="512M", rounds=3).parse_args()
    runs: dict[str, list[tuple[float, int]]] = {way: [] for way in _WAYS}
    with bench.folder(args.dir) as place, served(place, args.size) as (hub, server):
        env = {**bench.environment(place / "home"), "HF_ENDPOINT": hub.url}
        for _ in range(args.rounds):
            for way in _WAYS:
                asked = len(server.requests)
                words = ("get", "hf:bench/one", "--via", way, "--to", str(place / "models"), "--progress", "none")
                runs[way].append(measured(bench.mdl(*words), env))
                if (way == "http") != (len(server.requests) == asked):
                    raise SystemExit(f"FAILED: --via {way} came another way")
                shutil.rmtree(place / "models")
    rows = [
        (way, f"{statistics.median(one[0] for one in found):.1f}", f"{max(one[1] for one in found) / 2**20:.0f}")
        for way, found in runs.items()
    ]
    what = f"One file of {bench.shown(args.size)} from a hub; {args.rounds} alternating rounds"
    bench.table(("--via", "median wall s", "most MiB"), rows, what)
    worst = max(one[1] for one in runs["xet"])
    bench.claim(f"--via xet takes {worst / 2**20:.0f} MiB at most, which is not over 400 MiB", worst <= _MOST)
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
