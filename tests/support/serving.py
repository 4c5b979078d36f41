"""`mdl serve` in a thread of this process, with real uvicorn on a free port of 127.0.0.1, and requests as they are."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from mdl import Client
from mdl.config.settings import Config
from mdl.plugins.serve.options import ServeOptions
from mdl.plugins.serve.server import Serving, serving
from mdl.redact import Secrets
from support.hf_cache import cache_of
from support.shell import Shell


def client_of(shell: Shell, **settings: Any) -> Client:
    """The client of that machine, in this process."""
    given = {"catalog": shell.home / "catalog.toml", **settings}
    return Client(config=Config(given, {"HF_HUB_CACHE": str(cache_of(shell)), **shell.environ}, read=dict))


TOKEN = "0123456789abcdef0123"
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}


@contextmanager
def served(shell: Shell, **options: Any) -> Iterator[Serving]:
    """A server of what is on the disk of that machine; ``options`` are those of `ServeOptions`."""

    def client() -> Client:
        return client_of(shell)

    def warn(text: str) -> None:
        raise AssertionError(text)

    secrets = Secrets([options.get("token")])
    with serving(client, ServeOptions(port=0, **options), secrets=secrets, warn=warn) as server:
        yield server


def connected(url: str, text: str = "") -> socket.socket:
    """A connection to the server, which was sent this text."""
    parts = urlsplit(url)
    sock = socket.create_connection((parts.hostname, parts.port), 10)
    sock.sendall(text.encode("latin-1"))
    return sock


def raw(url: str, target: str, *headers: str, method: str = "GET") -> bytes:
    """The whole answer to a request whose target and headers are sent exactly as they are."""
    lines = (f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers, "", "")
    with connected(url, "\r\n".join(lines)) as sock:
        found = b""
        while piece := sock.recv(2**16):
            found += piece
    return found
