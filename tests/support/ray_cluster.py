"""A real Ray of several nodes on loopback. It runs with the Python that has Ray (``RAY_PYTHON``), and is spoken to over
its standard input: a number is a node to kill, and the end is the end.

    $RAY_PYTHON tests/support/ray_cluster.py FOLDER 4
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PYTHON = os.environ.get("RAY_PYTHON", "")
NAMES = ("r1", "r2", "r3", "r4")


def missing() -> str:
    """Why there can be no Ray here; '' if there can."""
    return "" if PYTHON and shutil.which(PYTHON) else "NO RAY HERE: RAY_PYTHON names no Python that has Ray and mdl"


@dataclass(frozen=True)
class RayCluster:
    """A cluster that runs, at an ``address``."""

    folder: Path
    address: str
    process: subprocess.Popen[str]

    def disk(self, name: str) -> Path:
        """The models folder of a node."""
        return self.folder / name

    def kill_node(self, name: str) -> None:
        """End a node as a power cut would."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{NAMES.index(name)}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "killed\n"


@contextmanager
def ray_cluster(folder: Path, **environ: str) -> Iterator[RayCluster]:
    """A cluster whose nodes have this environment, and a models folder each."""
    folder.mkdir()
    with tempfile.TemporaryDirectory(prefix="ray-") as short:  # Ray's sockets have long names
        variables = {"PATH": os.environ["PATH"], "RAY_TMPDIR": short, "RAY_USAGE_STATS_ENABLED": "0", **environ}
        words = [PYTHON, __file__, str(folder)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                words, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            assert process.stdout
            address = process.stdout.readline().strip()
            assert address, (folder / "log").read_text()
            yield RayCluster(folder, address, process)
        finally:
            process.communicate(timeout=60)


def _main(folder: Path) -> None:
    """Run a cluster until the standard input ends."""
    import ray.cluster_utils  # type: ignore[import-not-found]

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cluster = ray.cluster_utils.Cluster()
    memory = 80_000_000
    nodes = [
        cluster.add_node(
            num_cpus=1, node_name=name, object_store_memory=memory, env_vars={"MDL_HOME": str(folder / name)}
        )
        for name in NAMES
    ]
    cluster.wait_for_nodes()
    out.write(f"{cluster.address}\n")
    out.flush()
    for line in sys.stdin:
        cluster.remove_node(nodes[int(line)], allow_graceful=False)
        out.write("killed\n")
        out.flush()
    cluster.shutdown()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
