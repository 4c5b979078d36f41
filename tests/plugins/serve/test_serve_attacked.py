"""``mdl serve`` under attack: files that change while they are sent, clients that take nothing, and crowds."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message
from support.data import MIB, noise
from support.loopback_hub import LoopbackHub, Repo
from support.polling import until
from support.serving import client_of, raw, served
from support.shell import Shell, machine

from mdl.plugins.serve import work
from mdl.plugins.serve.connection import Connection
from mdl.plugins.serve.responses import Refusal, body_of
from mdl.plugins.serve.server import Serving
from mdl.plugins.serve.status import StatusPage
from mdl.sources.hub_protocol import paths_info

BIG = noise(16 * MIB, 7)
SMALL = b"{}"
CATALOG = '[models.big]\nsource = "hf:org/big"\n'


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A machine with a file that no buffer of a connection holds."""
    with LoopbackHub([Repo("org/big", {"model.bin": BIG, "config.json": SMALL})]) as hub:
        shell = machine(tmp_path_factory.mktemp("head"), f"schema = 1\n{CATALOG}", hub.url)
        client_of(shell).download("big").raise_for_errors()
    return shell


@pytest.fixture(scope="module")
def server(shell: Shell) -> Iterator[Serving]:
    with served(shell) as server:
        yield server


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Those that the server has from now on."""
    found: list[Connection] = []
    made = Connection.connection_made

    def noted(self: Connection, transport: Any) -> None:
        found.append(self)
        made(self, transport)

    monkeypatch.setattr(Connection, "connection_made", noted)
    return found


def slow_client(server: Serving, target: str, times: int = 1) -> socket.socket:
    """A client that asks, and takes nothing yet. Its own buffer is small."""
    parts = urlsplit(server.url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    sock.settimeout(30)
    sock.connect((parts.hostname, parts.port))
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * times)
    return sock


def taken(sock: socket.socket, count: int) -> bytes:
    """So many bytes, or what comes until the connection ends."""
    found = bytearray()
    try:
        while len(found) < count and (piece := sock.recv(min(2**16, count - len(found)))):
            found += piece
    except ConnectionResetError:
        pass
    return bytes(found)


def written_to(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"x" * len(BIG))
    other.replace(path)


@pytest.mark.fault(493)
@pytest.mark.parametrize(
    ("change", "is_whole"),
    [
        (written_to, False),
        (lambda path: os.truncate(path, 15 * MIB), False),
        (replaced, True),
        (Path.unlink, True),
        (lambda path: None, True),
    ],
    ids=["written", "truncated", "replaced", "removed", "untouched"],
)
def test_a_file_that_changes_while_it_is_sent(tmp_path: Path, change: Callable[[Path], None], is_whole: bool) -> None:
    """Whoever has a whole answer has the bytes of its ETag: if a file is written to, its connection is cut before."""
    with LoopbackHub([Repo("org/big", {"model.bin": BIG})]) as hub:
        shell = machine(tmp_path, endpoint=hub.url)
        client_of(shell).download("hf:org/big").raise_for_errors()
    with served(shell) as server, slow_client(server, "/org/big/resolve/main/model.bin") as client:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += taken(client, 1)
        assert f'etag: "{hashlib.sha256(BIG).hexdigest()}"'.encode() in head
        change(shell.models / "org--big" / "model.bin")
        found = taken(client, len(BIG))
        assert found == BIG if is_whole else len(found) < len(BIG)
        until(lambda: server.traffic.files_open == 0)


@pytest.mark.fault(494)
@pytest.mark.parametrize(("target", "times"), [("/", 1500), ("/org/big/resolve/main/model.bin", 1)])
def test_slow_and_deaf_clients(server: Serving, connections: list[Connection], target: str, times: int) -> None:
    """While a client takes nothing its time runs. One that has taken 64 KiB of its answer when the server looks keeps
    its connection, however slow it is; if it has taken less, it loses it."""
    with slow_client(server, target, times) as client:
        until(lambda: bool(connections) and connections[0].flow is not None)
        [one] = connections
        until(lambda: (one.flow.write_paused or one._sending is not None) and one._deadline is not None)
        if times == 1:
            began = one._still_untaken()
            assert len(taken(client, MIB)) == MIB
            until(lambda: one._still_untaken() <= began - 2**16)
        look(one, 2**16)
        assert not one.is_closing
        until(lambda: one._deadline is not None)
        look(one, 2**16 - 1)
        until(lambda: one.is_closing)
        assert len(taken(client, 2**30)) < len(BIG)
    until(lambda: server.traffic.running == 0)


def look(connection: Connection, count: int) -> None:
    """As if the time were over, in which the client has taken so many bytes."""
    seen = threading.Event()

    def now() -> None:
        connection._untaken = connection._still_untaken() + count
        connection._look()
        seen.set()

    connection.loop.call_soon_threadsafe(now)
    assert seen.wait(30)


def test_small_answers_do_not_wait(server: Serving, http: httpx.Client, connections: list[Connection]) -> None:
    """The kernel sends the end of an answer at once; else each small file takes 40 ms more."""
    assert http.get(f"{server.url}/org/big/resolve/main/config.json").content == SMALL
    sock = connections[0].transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.fault(495)
def test_requests_that_a_proxy_reads_otherwise(server: Serving) -> None:
    """Two lengths are refused, and nothing behind them is a request. A Host that only begins as loopback is another."""
    smuggled = "0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ask = "POST /api/models/org/big/paths-info/main HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), 10) as sock:
        sock.sendall(f"{ask}Transfer-Encoding: chunked\r\n\r\n{smuggled}".encode())
        found = taken(sock, 2**20)
    assert (found.count(b"HTTP/1.1"), found[:12]) == (1, b"HTTP/1.1 400")
    hosts = {
        "[::1]": b"200",
        "[::1]:80": b"200",
        "LOCALHOST": b"200",
        "[::1].evil.example": b"421",
        "localhost@a": b"421",
    }
    for host, expected in hosts.items():
        with socket.create_connection((parts.hostname, parts.port), 10) as sock:
            sock.sendall(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            assert taken(sock, 2**20)[9:12] == expected, host


@pytest.mark.fault(496)
def test_a_status_page_that_takes_long(server: Serving, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the document is made anew everybody else is given the old one, and nobody waits."""
    monkeypatch.setattr(work, "KEPT_SECONDS", 0.0)
    monkeypatch.setattr(work, "SHARE", 0.0)
    first = http.get(f"{server.url}/api/status").json()
    begun, done = threading.Event(), threading.Event()

    def served_anew(_page: StatusPage) -> list[dict[str, Any]]:
        begun.set()
        assert done.wait(60)
        return [{"id": "new"}]

    monkeypatch.setattr(StatusPage, "served_repositories", served_anew)
    with ThreadPoolExecutor(1) as pool:
        newest = pool.submit(http.get, f"{server.url}/api/status")
        assert begun.wait(30)
        assert http.get(f"{server.url}/api/status").json() == first
        done.set()
        assert newest.result().json()["repositories"] == [{"id": "new"}]


@pytest.mark.fault(497)
@pytest.mark.parametrize("target", ["/", "/api/status", "/org/big/resolve/main/config.json", "/api/models/org/none"])
def test_other_sites(server: Serving, target: str) -> None:
    """No page of another site may embed an answer, read it, or have its type guessed."""
    head = raw(server.url, target, "Origin: http://evil.example").partition(b"\r\n\r\n")[0].lower().splitlines()
    assert head.count(b"cross-origin-resource-policy: same-origin") == 1
    assert head.count(b"x-content-type-options: nosniff") == 1
    assert not [line for line in head if line.startswith(b"access-control")]


@pytest.mark.fault(498)
def test_many_paths() -> None:
    """However many paths are asked for, the listing is looked through once."""

    class Files(dict[str, Any]):
        looked = 0

        def __iter__(self) -> Iterator[str]:
            self.looked += 1
            return super().__iter__()

    files = Files({f"data/{number}/x": None for number in range(100)})
    found = paths_info(files, ["data", "data/5", "dat", "data/", *map(str, range(1000))])
    assert [(one["type"], one["path"]) for one in found] == [("directory", "data"), ("directory", "data/5")]
    assert files.looked == 1


def test_all_that_can_be_asked_of_branches(server: Serving, http: httpx.Client) -> None:
    """The hub's client may ask for pull requests too: there are none."""
    assert http.get(f"{server.url}/api/models/org/big/refs?include_prs=1").json()["pullRequests"] == []


def test_a_client_that_hangs_up_before_its_body_has_come() -> None:
    """That is a refusal that nobody reads, and no fault of the server's that its operator is warned of."""

    async def hang_up() -> Message:
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "method": "POST", "headers": []}, hang_up)
    with pytest.raises(Refusal, match="cut"):
        asyncio.run(body_of(request))
