"""An S3-compatible store that starts in half a second: moto. It accepts every signature, so it shows nothing of
credentials and expiry; `support.seaweed` does."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from support.polling import until


@contextmanager
def moto_store() -> Iterator[str]:
    """The URL of a store without buckets."""
    program = shutil.which("moto_server", path=str(Path(sys.executable).parent))
    assert program is not None
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def is_up() -> bool:
        try:
            return httpx.get(f"{url}/moto-api/").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        until(is_up, "moto does not start")
        yield url
    finally:
        process.kill()
        process.wait()
