"""``mdl serve``: whatever is asked for, files are answered as ever. Lists and zips have few places of their own, and
clients that do nothing hold none; pages of other sites make nothing work; without a token only the offered is told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from support.data import MIB, noise
from support.loopback_hub import LoopbackHub, Repo
from support.polling import until
from support.runs import put
from support.serving import client_of, connected, raw, served
from support.shell import Inside, Shell, done, machine
from support.weights import safetensors_of

from mdl.plugins.serve import connection, runs, work
from mdl.plugins.serve import server as serve
from mdl.plugins.serve.connection import Clients
from mdl.plugins.serve.runs import TrainedRuns
from mdl.plugins.serve.server import Serving

TOKEN = "0123456789abcdef0123"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
CONFIG = b'{"a": 1}'
FILE = "/org/open/resolve/main/config.json"
JOBS = "/api/training/jobs"
ZIP = "/api/training/one/download/model"
HELD = Repo("org/held", {"config.json": b"held", "w.bin": b"w" * 999})
ZIP_BYTES = 24 * MIB


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A machine with an open repository, one that was gated after it came, and two runs."""
    home = tmp_path_factory.mktemp("head")
    with LoopbackHub([Repo("org/open", {"config.json": CONFIG}), HELD]) as hub:
        catalog = 'schema = 1\n[models.open]\nsource = "hf:org/open"\n[models.never]\nsource = "hf:org/never"\n'
        shell = machine(home, catalog, hub.url)
        client_of(shell).download(["open", "hf:org/held"]).raise_for_errors()
        hub.publish(Repo(HELD.id, HELD.files, gated=True))
        client_of(shell).download("hf:org/held").raise_for_errors()
    put(home / "runs/one/config.json", {})
    put(home / "runs/one/model.safetensors", safetensors_of(noise(ZIP_BYTES, 3), ZIP_BYTES))
    for number in range(6):
        put(home / f"runs/r{number}/model.safetensors", {})
    return shell


@pytest.fixture
def server(shell: Shell) -> Iterator[Serving]:
    with served(shell, runs=(shell.home / "runs",)) as server:
        yield server


class Gate:
    """Work that begins, counts itself, and goes on once it is let."""

    def __init__(self, then: Callable[..., Any]) -> None:
        self._then, self.begun, self.ended = then, list[str](), list[str]()
        self.open = threading.Event()

    def __call__(self, found: TrainedRuns, check: work.Check, name: str = "") -> Any:
        self.begun.append(name)
        try:
            while not self.open.wait(0.01):
                check()
            return self._then(found, check, name) if name else self._then(found, check)
        finally:
            self.ended.append(name)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """The lists of runs, and the facts of one, take until the gate is opened."""
    of_all, of_one = TrainedRuns.all, TrainedRuns.one
    gate = Gate(lambda found, check, name="": of_one(found, check, name) if name else of_all(found, check))
    monkeypatch.setattr(TrainedRuns, "all", lambda found, check: gate(found, check))
    monkeypatch.setattr(TrainedRuns, "one", lambda found, check, name: gate(found, check, name))
    yield gate
    gate.open.set()


def test_a_list_is_made_once_for_all_who_wait(server: Serving, http: httpx.Client, gate: Gate) -> None:
    """Sixty clients ask for a list that takes long: it is made once, and files are sent meanwhile."""

    def ask(_number: int) -> list[str]:
        rows = httpx.get(server.url + JOBS, timeout=60, trust_env=False).json()["jobs"]
        return [row["job_id"] for row in rows]

    with ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(ask, number) for number in range(60)]
        until(lambda: server.traffic.running == 60)
        assert http.get(server.url + FILE).content == CONFIG
        assert http.get(f"{server.url}/api/models/org/open").json()["id"] == "org/open"
        gate.open.set()
        answers = [one.result() for one in asked]
    assert answers == [["one", "r0", "r1", "r2", "r3", "r4", "r5"]] * 60
    assert gate.begun == [""]
    assert len(http.get(server.url + JOBS).json()["jobs"]) == 7  # as it was a moment ago
    assert gate.begun == [""]


def test_a_full_pool_says_so_at_once(gate: Gate, server: Serving, http: httpx.Client) -> None:
    """If as much is being done as can be, more is 503 with a time to come back; what is offered as files is not."""
    with ThreadPoolExecutor(work.AT_ONCE) as pool:
        names = [f"r{number}" for number in range(work.AT_ONCE)]
        asked = [pool.submit(httpx.get, f"{server.url}{JOBS}/{name}", timeout=60, trust_env=False) for name in names]
        until(lambda: sorted(gate.begun) == names)
        for path in (f"{JOBS}/r5", f"{JOBS}/one/checkpoints", ZIP, "/api/training/one/download/logs"):
            full = http.get(server.url + path)
            assert (full.status_code, int(full.headers["retry-after"]) > 0) == (503, True), path
        assert http.get(server.url + FILE).content == CONFIG
        assert http.get(f"{server.url}/metrics").status_code == 200
        gate.open.set()
        assert [one.result().json()["job_id"] for one in asked] == names
    assert http.get(f"{server.url}{JOBS}/r5").status_code == 200


def test_work_for_nobody_is_given_up(server: Serving, gate: Gate) -> None:
    """Work goes on as long as one of its clients waits, and ends when the last one has left."""
    with connected(server.url, f"GET {JOBS} HTTP/1.1\r\nHost: localhost\r\n\r\n") as last:
        with connected(server.url, f"GET {JOBS} HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            until(lambda: server.traffic.running == 2 and gate.begun == [""])
        until(lambda: server.traffic.running == 1)
        assert (gate.begun, gate.ended) == ([""], [])
        last.close()
    until(lambda: gate.ended == [""])
    until(lambda: server.traffic.running == 0)


@pytest.mark.parametrize(
    ("seconds", "kept"), [(0.0, 1.0), (0.1, 1.0), (4.0, 20.0)], ids=["at once", "quick", "four seconds"]
)
def test_how_long_an_answer_is_good(seconds: float, kept: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In proportion to what it cost, and a second at least."""
    import asyncio

    now = [100.0]
    monkeypatch.setattr(work.time, "monotonic", lambda: now[0])
    made: list[int] = []

    class Client:
        gone: asyncio.Future[None]

    async def look() -> None:
        client: Any = Client()
        client.gone = asyncio.get_running_loop().create_future()
        found = work.Work()

        def make(_check: work.Check) -> int:
            now[0] += seconds
            made.append(1)
            return len(made)

        async def asked() -> int:
            return int(json.loads(await found.answer("key", make, client)))

        assert await asked() == 1
        now[0] += kept * 0.9
        assert await asked() == 1
        now[0] += kept * 0.2
        assert await asked() == 2

    asyncio.run(look())


def deaf(server: Serving, target: str) -> socket.socket:
    """A client that asks, and takes nothing."""
    parts = urlsplit(server.url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((parts.hostname, parts.port))
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return sock


@pytest.fixture
def table_of_runs(monkeypatch: pytest.MonkeyPatch) -> list[TrainedRuns]:
    """Those that servers have from now on."""
    found: list[TrainedRuns] = []
    made = TrainedRuns.__init__

    def noted(self: TrainedRuns, folders: Any) -> None:
        found.append(self)
        made(self, folders)

    monkeypatch.setattr(TrainedRuns, "__init__", noted)
    return found


def test_clients_that_take_nothing_hold_nothing(
    table_of_runs: list[TrainedRuns], server: Serving, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many clients as there are places for packing ask for a zip and take nothing: another one gets it whole. If
    there are too many even so, the one goes that has taken nothing for longest."""
    [of_server] = table_of_runs
    with ExitStack() as stack:
        for count in range(1, runs.AT_ONCE + 1):
            stack.enter_context(deaf(server, ZIP))
            until(lambda count=count: sum(one.waits_since is not None for one in of_server.on_their_way) == count)
        got = http.get(server.url + ZIP)
        assert (got.status_code, len(got.content) > ZIP_BYTES) == (200, True)
        monkeypatch.setattr(runs, "MOST_OPEN", runs.AT_ONCE)
        monkeypatch.setattr(runs, "IDLE_SECONDS", 3600.0)
        assert http.get(server.url + ZIP).status_code == 503
        monkeypatch.setattr(runs, "IDLE_SECONDS", 0.0)
        first = of_server.on_their_way[0]
        assert http.get(server.url + ZIP).status_code == 200
        until(lambda: first not in of_server.on_their_way)
    until(lambda: not of_server.on_their_way)
    assert not of_server.packing.locked()


def test_who_takes_nothing_of_a_zip_is_closed(
    table_of_runs: list[TrainedRuns], server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sooner than with a file, for a thread waits for it."""
    assert runs.STALL_SECONDS < connection.STALL_SECONDS
    monkeypatch.setattr(runs, "STALL_SECONDS", 0.05)
    with deaf(server, ZIP):
        until(lambda: server.traffic.running == 1)
        until(lambda: server.traffic.running == 0)
    assert not table_of_runs[0].on_their_way


@pytest.mark.parametrize("token", [None, TOKEN])
def test_idle_connections_give_way(
    token: str | None, shell: Shell, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many connections one client opens and leaves idle, a request of another one is answered."""
    monkeypatch.setattr(serve, "MOST_CLIENTS", 16)
    with served(shell, token=token) as server, ExitStack() as stack:
        for _ in range(3 * 16):
            stack.enter_context(connected(server.url))
            assert http.get(server.url + FILE, headers=BEARER).content == CONFIG


@pytest.mark.parametrize(("token", "status"), [(None, 503), (TOKEN, 200)])
def test_beyond_all_connections(
    token: str | None, status: int, shell: Shell, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    """If all connections are being answered, only who has the token is answered too."""
    monkeypatch.setattr(serve, "MOST_CLIENTS", 4)
    bearer = f"Authorization: Bearer {TOKEN}\r\n"
    with served(shell, token=token, runs=(shell.home / "runs",)) as server, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(
                connected(server.url, f"GET {JOBS} HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n"),
            )
        until(lambda: server.traffic.running == 2)
        answer = raw(server.url, FILE, bearer.strip())
        assert int(answer.split()[1]) == status
        gate.open.set()


class Place:
    """A connection, as far as its count goes."""

    def __init__(self, address: str) -> None:
        self.address, self.is_cut = address, False

    def abort(self) -> None:
        self.is_cut = True


def test_shares_of_connections() -> None:
    """One address has half of the connections; a new one takes the place of the oldest idle one of the same address, or
    of the largest crowd, and never that of one that is being answered."""
    clients: Any = Clients(8)
    crowd = [Place("a") for _ in range(6)]
    assert all(clients.add(one) for one in crowd)
    assert [one.is_cut for one in crowd] == [True, True, False, False, False, False]
    for one in crowd[2:]:
        clients.set_busy(one)
    beyond = Place("a")
    assert not clients.add(beyond)
    others = [Place("b"), Place("c"), Place("c"), Place("c")]
    assert all(clients.add(one) for one in others)
    assert beyond.is_cut or others[1].is_cut
    assert not any(one.is_cut for one in crowd[2:])
    clients.set_idle(crowd[2])
    clients.remove(crowd[3])
    assert clients.add(Place("a"))
    assert not crowd[2].is_cut
    for one in (*crowd, *others, beyond):
        clients.remove(one)
        clients.remove(one)


SITES = [
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}, False),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "strange"}, False),
    ({"Origin": "http://evil.example"}, False),
    ({"Origin": "null"}, False),
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({}, True),
]


@pytest.mark.parametrize(("headers", "is_answered"), SITES)
@pytest.mark.parametrize("token", [None, TOKEN])
def test_pages_of_other_sites(
    token: str | None, headers: dict[str, str], is_answered: bool, shell: Shell, http: httpx.Client
) -> None:
    """A page of another site, with which a browser sends the token too, makes nothing work; the own page does, and
    programs do. Bytes of files it may have a browser ask for, but cannot read."""
    sent = headers | (BEARER if token else {})
    with served(shell, token=token, runs=(shell.home / "runs",)) as server:
        for path in (JOBS, f"{JOBS}/one", f"{JOBS}/one/checkpoints", ZIP, "/api/status", "/api/models/org/open"):
            answer = http.get(server.url + path, headers=sent)
            assert answer.status_code == (200 if is_answered else 403), path
            assert not [name for name in answer.headers if name.startswith("access-control")]
        own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
        assert http.get(server.url + JOBS, headers=sent | own).status_code == 200
        assert http.get(server.url + FILE, headers=sent).content == CONFIG
        assert http.get(server.url, headers=sent).status_code == 200


def test_what_is_told_without_a_token(shell: Shell, http: httpx.Client, tmp_path: Path) -> None:
    """Without a token nothing tells of a gated repository, in whichever document; who has the token sees all."""
    with served(shell, runs=(shell.home / "runs",), releases=(tmp_path / "org--held",)) as server:
        told = http.get(f"{server.url}/api/status")
        texts = [told.text, http.get(f"{server.url}/metrics").text, http.get(server.url).text]
    found = told.json()
    assert not [text for text in texts if "org/held" in text or "org--held" in text or HELD.commit in text]
    assert [row["name"] for row in found["models"]] == ["open"]
    assert (found["bytes"], [row["id"] for row in found["repositories"]]) == (len(CONFIG), ["org/open"])
    assert len(found["problems"]) == 1
    with served(shell, token=TOKEN) as server:
        found = http.get(f"{server.url}/api/status", headers=BEARER).json()
        refused = http.get(f"{server.url}/org/held/resolve/main/w.bin", headers=BEARER)
    assert {row["name"] for row in found["models"]} == {"open", "never", "org--held"}
    assert {row["title"] for row in found["models"]} >= {"org/held"}
    assert {row["id"]: row["is_served"] for row in found["repositories"]} == {"org/open": True, "org/held": False}
    assert refused.status_code == 403


def test_jobs_of_what_is_not_offered(
    tmp_path: Path, http: httpx.Client, mdl: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a token only jobs of models are told of which everything here is offered, whatever they were called."""
    with LoopbackHub([Repo("org/open", {"config.json": CONFIG}), replace(HELD, gated=False)]) as hub:
        shell = machine(tmp_path, endpoint=hub.url)
        done(mdl(shell, "get", "org/open"))
        done(mdl(shell, "get", "hf:org/held"))
        hub.publish(replace(HELD, gated=True))
        done(mdl(shell, "get", "hf:org/held"))
        assert mdl(shell, "get", "org/nothing").code == 3
    monkeypatch.setenv("HOME", str(tmp_path))
    with served(shell) as server:
        jobs = http.get(f"{server.url}/api/status").json()["jobs"]
    assert {name for job in jobs for name in job["models"]} == {"org--open"}
    with served(shell, token=TOKEN) as server:
        jobs = http.get(f"{server.url}/api/status", headers=BEARER).json()["jobs"]
    assert {name for job in jobs for name in job["models"]} >= {"org--open", "org--held"}


def test_wrong_tokens_are_counted(shell: Shell, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is counted, and the thirtieth of one address is told once; a request without a token is none."""
    from mdl.plugins.serve.options import ServeOptions
    from mdl.redact import Secrets

    warned: list[str] = []
    options = ServeOptions(port=0, token=TOKEN)
    with serve.serving(lambda: client_of(shell), options, secrets=Secrets([TOKEN]), warn=warned.append) as server:
        for number in range(70):
            wrong = {"Authorization": f"Bearer wrong{number}"}
            assert http.get(server.url + FILE, headers=wrong).status_code == 401
            assert http.get(server.url + FILE).status_code == 401
        assert http.get(server.url + FILE, headers=BEARER).status_code == 200
        lines = http.get(f"{server.url}/metrics", headers=BEARER).text.splitlines()
    assert "mdl_serve_wrong_tokens_total 70" in lines
    assert len(warned) == 1
    assert "30 wrong tokens came from 127.0.0.1" in warned[0]
