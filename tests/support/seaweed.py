"""A real S3-compatible object store on loopback: SeaweedFS, one process a server.

It checks signatures, their expiry and checksums, which other stand-ins do not. A volume server can be killed while a
download runs: with two of them, each object has a copy on the other one.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx

from support.polling import until

ACCESS_KEY, SECRET_KEY = "AKIDOFTHETESTS", "secret-key-of-the-tests"
_LARGEST = 55_000
"""SeaweedFS takes a port's number plus 10,000 for its other protocol."""


class Seaweed:
    """Credentials, address and processes of a running store. Each of ``volumes`` starts a volume server."""

    def __init__(self, url: str, volumes: Sequence[Callable[[], subprocess.Popen[bytes]]]) -> None:
        self.url, self._volumes = url, volumes
        self._running = [start() for start in volumes]
        self.environ = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL_S3": url,
            "AWS_REGION": "us-east-1",
        }

    def kill_volume(self, index: int) -> None:
        """End one volume server as a power cut would."""
        self._running[index].kill()
        self._running[index].wait()

    def start_volume(self, index: int) -> None:
        """Start a volume server that was ended."""
        self._running[index] = self._volumes[index]()


def _free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and neither does anybody on the one 10,000 above it."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            if port >= _LARGEST:
                port = 20_000 + port % (_LARGEST - 20_000)
            try:
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


def weed() -> str | None:
    """The program, if it is installed."""
    return shutil.which("weed", path=os.pathsep.join([str(Path(os.sys.executable).parent), os.environ.get("PATH", "")]))


@contextmanager
def seaweed(folder: Path, volumes: int = 1) -> Iterator[Seaweed]:
    """A store with so many volume servers; with more than one, every object has a copy on two of them."""
    program = weed()
    assert program is not None
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    master, filer, s3 = (_free_port() for _ in range(3))
    both = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    with ExitStack() as stack:

        def start(name: str, *words: str) -> subprocess.Popen[bytes]:
            place = folder / name
            place.mkdir(exist_ok=True)
            log = stack.enter_context((folder / f"{name}.log").open("ab"))
            process = subprocess.Popen(
                [program, "-logtostderr", *words], cwd=place, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        replication = "001" if volumes > 1 else "000"
        start(
            "master",
            "master",
            *both,
            f"-port={master}",
            "-mdir=.",
            "-telemetry=false",
            f"-defaultReplication={replication}",
            "-volumeSizeLimitMB=256",
        )
        url = f"http://127.0.0.1:{s3}"
        starts = [
            partial(
                start,
                f"volume{index}",
                "volume",
                *both,
                f"-port={_free_port()}",
                "-dir=.",
                "-max=20",
                f"-master=127.0.0.1:{master}",
                "-minFreeSpacePercent=0",
            )
            for index in range(volumes)
        ]
        store = Seaweed(url, starts)
        start(
            "filer",
            "filer",
            *both,
            f"-port={filer}",
            f"-master=127.0.0.1:{master}",
            f"-localSocket={folder}/f.sock",
            "-s3",
            f"-s3.port={s3}",
            "-s3.ip.bind=127.0.0.1",
            "-s3.config=../s3.json",
            f"-s3.localSocket={folder}/s3.sock",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.iam=false",
        )

        def is_up() -> bool:
            try:
                nodes = httpx.get(f"http://127.0.0.1:{master}/dir/status").json()["Topology"]
                return httpx.get(f"{url}/status").status_code < 500 and nodes["Max"] >= 20 * volumes
            except (httpx.HTTPError, KeyError, ValueError):
                return False

        until(is_up)
        yield store
