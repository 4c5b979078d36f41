"""``mdl serve`` beside nginx: one large file on loopback, each server on one core of its own, the client on another.

Measured are the bytes a second that curl takes, and the CPU seconds that the server spends on a GiB, of one client and
of 200 at once. The claim: mdl is at least half as fast as nginx with its sendfile.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import claim, environment, flags, folder, mdl, random_file, shown, skip, table, verdict
from nginx import Nginx

from mdl.downloader.receipts import new_receipt
from mdl.downloader.store import Store
from mdl.files import HubFile, RemoteFile, Stamp
from mdl.hashing import Digest, Fingerprint
from mdl.paths import RelPath

_COMMIT = hashlib.sha1(b"a commit", usedforsecurity=False).hexdigest()
_CLIENTS = 200
_LEAST = 0.5


def stored(home: Path, size: int) -> Path:
    """A file of that size in a models folder, with the receipt that a download leaves."""
    place = home / "org--big" / "model.bin"
    place.parent.mkdir(parents=True)
    sample = random_file(place, size)
    digest, url = Digest("sha256", sample.sha256), "https://huggingface.co/org/big/resolve/main/model.bin"
    hub = HubFile("org/big", "model", _COMMIT, "model.bin", "main", "https://huggingface.co")
    remote = RemoteFile(
        RelPath.parse("model.bin"), url, size, digest, commit=_COMMIT, hub=hub, access="public", vouched_by="hub"
    )
    print_ = Fingerprint(digest, size)
    Store(home).receipts.put(new_receipt("org--big", remote, print_, "sha256", Stamp.of(place.stat())))
    return place


@contextmanager
def serving(home: Path, core: list[str]) -> Iterator[tuple[str, int]]:
    """mdl serve on one core: the URL of the file, and the id of its process."""
    words = [*core, *mdl("serve", "--port", "0", "--to", str(home), "--log-file", "")]
    with subprocess.Popen(
        words, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=home
    ) as process:
        assert process.stdout
        try:
            yield f"{process.stdout.readline().strip()}/org/big/resolve/main/model.bin", process.pid
        finally:
            process.terminate()


def cpu(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def taken(url: str, pid: int, core: list[str], clients: int, size: int) -> tuple[float, float]:
    """Bytes a second in all, and the server's CPU seconds for a GiB, of so many clients that take a part each."""
    part = size // clients
    words = [
        *core,
        "curl",
        "-sS",
        "--fail",
        "--no-progress-meter",
        "--parallel",
        "--parallel-immediate",
        "--parallel-max",
        str(clients),
    ]
    for number in range(clients):
        words += ["-o", "/dev/null", "-r", f"{number * part}-{(number + 1) * part - 1}", url, "--next", "-sS"]
    before, began = cpu(pid), time.perf_counter()
    subprocess.run(words[:-2], check=True)
    seconds = time.perf_counter() - began
    return clients * part / seconds, (cpu(pid) - before) / (clients * part / 2**30)


def main() -> int:
    options = flags(__doc__, size="1G", rounds=5).parse_args()
    if not all(map(shutil.which, ("curl", "taskset"))):
        skip("curl or taskset is not on PATH")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        skip("it takes two cores: one for the server, one for the client")
    mine, others = (["taskset", "-c", str(core)] for core in cores[:2])
    with folder(options.dir) as place:
        home = place / "models"
        path = stored(home, options.size)
        with serving(home, mine) as (url, pid), Nginx(path.parent) as nginx:
            os.sched_setaffinity(nginx.pid, {cores[0]})
            servers = {"mdl serve": (url, pid), "nginx": (nginx.url(path.name), nginx.pid)}
            rows, speeds = [], {}
            for clients in (1, _CLIENTS):
                found: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
                for turn in range(options.rounds + 1):
                    for name in sorted(servers, reverse=bool(turn % 2)):
                        result = taken(*servers[name], others, clients, options.size)
                        found[name] += [result] if turn else []
                for name, results in found.items():
                    speed, cost = (statistics.median(one) for one in zip(*results, strict=True))
                    speeds[name, clients] = speed
                    rows.append((name, str(clients), f"{speed / 2**20:.0f} MiB/s", f"{cost:.3f} s"))
    what = f"A file of {shown(options.size)}, each server on one core; {options.rounds} alternating rounds"
    table(("server", "clients", "speed", "CPU for a GiB"), rows, what)
    for clients in (1, _CLIENTS):
        ratio = speeds["mdl serve", clients] / speeds["nginx", clients]
        claim(f"{clients} at once: {ratio:.2f} of nginx, at least {_LEAST}", ratio >= _LEAST)
    return verdict()


if __name__ == "__main__":
    sys.exit(main())
