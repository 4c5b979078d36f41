"""The cells of docs/comparison.md that are seen by running the programs beside each other: bytes served and exit codes.

    python benchmarks/comparison.py

Nothing here depends on time: a program is killed when 50 MiB were served. Programs that are not on PATH are left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.loopback_hub import Generated, LoopbackHub, Repo

MIB = 2**20
KILL_AT = 50.0
"""MiB that were served when the program is killed."""
PATIENCE = 300.0


class Wrong(Generated):
    """Bytes of which the first one is wrong once ``is_lying``. The hub publishes the digest of the right ones."""

    is_lying = False

    def __getitem__(self, part: slice) -> bytes:
        data = super().__getitem__(part)
        if Wrong.is_lying and part.start == 0:
            return bytes([data[0] ^ 1]) + data[1:]
        return data


@dataclass
class Machine:
    """A home of its own, whose programs know one hub."""

    hub: LoopbackHub
    home: Path

    @property
    def environ(self) -> dict[str, str]:
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "HF_ENDPOINT": self.hub.url, **quiet}

    def served(self) -> float:
        """MiB of files that the hub has sent so far."""
        return sum(request.body_bytes_sent for request in self.hub.requests) / MIB

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [word.replace("HUB", self.hub.url) for word in words],
            env=self.environ,
            cwd=self.home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run(self, *words: str) -> str:
        """What the program ended with, and what was served for it."""
        before = self.served()
        code = self.start(*words).wait(PATIENCE)
        return f"exit {code}, {self.served() - before:.1f} MiB"


def killed(machine: Machine, *words: str) -> str:
    """MiB served before a SIGKILL, and for the same command again."""
    process = machine.start(*words)
    end = time.monotonic() + PATIENCE
    while machine.served() < KILL_AT and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.wait()
    time.sleep(1)  # what was in the buffers of the sockets is counted too
    return f"{machine.served():.1f} MiB, then {machine.run(*words)}"


KILLED = (
    ("mdl", "get", "hf:demo/big", "--connections", "1"),
    ("mdl", "get", "hf:demo/big"),
    ("hf", "download", "demo/big"),
    ("hf", "download", "demo/big", "--local-dir", "big"),
    ("aria2c", "-q", "-c", "HUB/demo/big/resolve/main/big.bin", "-o", "big.bin"),
    ("rclone", "copyurl", "HUB/demo/big/resolve/main/big.bin", "big.bin"),
)
IN_ONE_HOME = (
    ("mdl", "get", "hf:demo/wrong"),
    ("mdl", "get", "hf:demo/one"),
    ("mdl", "get", "hf:demo/two"),
    ("mdl", "get", "--locked", "hf:demo/one"),
    ("hf", "download", "demo/wrong"),
    ("hf", "cache", "verify", "demo/wrong"),
    ("hf", "download", "demo/one"),
    ("hf", "download", "demo/one", "--local-dir", "one"),
    ("hf", "download", "demo/two"),
    ("hf", "download", "demo/none"),
)
"""``demo/one`` and ``demo/two`` have the same 8 MiB under two names."""


def main() -> None:
    same = Generated(8 * MIB, "same")
    wrong = Repo("demo/wrong", {"wrong.bin": Wrong(8 * MIB, "wrong")})
    repos = [Repo("demo/big", {"big.bin": Generated(120 * MIB)}), Repo("demo/one", {"a.bin": same})]
    repos += [Repo("demo/two", {"b.bin": same}), wrong]
    assert wrong.stored["wrong.bin"].digest.hex  # the digest of the right bytes
    Wrong.is_lying = True
    for words in KILLED:
        if shutil.which(words[0]):
            with LoopbackHub(repos, bytes_per_second=10 * MIB) as hub, tempfile.TemporaryDirectory() as home:
                print(f"{' '.join(words)}: {killed(Machine(hub, Path(home)), *words)}", flush=True)
    with LoopbackHub(repos) as hub, tempfile.TemporaryDirectory() as home:
        machine = Machine(hub, Path(home))
        for words in IN_ONE_HOME:
            if shutil.which(words[0]):
                print(f"{' '.join(words)}: {machine.run(*words)}", flush=True)


if __name__ == "__main__":
    main()
