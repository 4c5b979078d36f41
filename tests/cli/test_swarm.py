"""mdl get --swarm and mdl lock --swarm: real libtorrent, several processes on one machine, and peers that lie."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.data import MIB, flip, noise
from support.faults import honest
from support.faulty_server import Answer, FaultyServer, Handler, Request
from support.locks import lock_of, models_of
from support.long import LONG, only_long
from support.loopback_hub import LoopbackHub, Repo
from support.polling import until
from support.shell import Ran, Shell, done, ended, machine, started, with_environ
from support.swarms import accepted, addresses, locked, node, seed, torrent_of

from mdl.engine.store import Store

needs_libtorrent = pytest.mark.skipif(
    importlib.util.find_spec("libtorrent") is None, reason="LIBTORRENT IS NOT HERE: no swarm is tried"
)
DATA = noise(32 * MIB + 7, 5)
LINK_SECONDS = 0.2
"""How long the origin takes for a piece: longer than two nodes on one machine take to tell what they have."""
Ok = Callable[..., Ran]
HANDLER = honest(DATA)


@pytest.fixture
def torrent(tmp_path: Path) -> tuple[bytes, str]:
    return torrent_of(DATA, tmp_path / "made")


def asked(server: FaultyServer, who: str = "") -> int:
    """The bytes that were asked of the origin, by one node or by all."""
    spans = [one.range(len(DATA)) for one in server.requests if one.path.startswith(f"/{who}")]
    return sum(stop - start for start, stop in filter(None, spans))


def bytes_here(shell: Shell) -> bytes:
    return (shell.models / "one" / "f.bin").read_bytes()


def leftovers(shell: Shell) -> list[Path]:
    return [path for path in (shell.models / ".mdl").rglob("*") if path.suffix == ".torrent" or path.name == "data"]


def once_all_are_connected(peers: list[str]) -> Handler:
    """An origin at the end of a link, which answers as soon as each of these nodes has a connection to every other,
    however slowly they start: a node that is alone for two seconds asks for all by itself."""
    together = threading.Event()

    def answer(request: Request, number: int) -> Answer:
        if not together.is_set():
            pairs = len(peers) * (len(peers) - 1) // 2
            until(lambda: accepted(peers) >= pairs, "not all of them are connected")
            together.set()
        whole = honest(DATA)(request, number)
        return replace(whole, body=itertools.chain([LINK_SECONDS], whole.pieces()))

    return answer


@needs_libtorrent
def test_three_machines_fetch_it_once(tmp_path: Path, server: FaultyServer, torrent: tuple[bytes, str]) -> None:
    """Three nodes that name each other take less than two copies from the origin, where three downloads take three:
    one, and what was asked for twice before they saw each other. Every node has the right bytes, a receipt, and nothing
    left over."""
    named = addresses(3)
    server.handler, peers = once_all_are_connected(named), ",".join(named)
    nodes = [node(tmp_path / str(n), f"{server.url}/{n}", DATA, *torrent) for n in range(3)]
    words = ("get", "one", "--swarm", "--peers", peers, "--json")
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(started(one, *words)) for one in nodes]
        documents = [ended(process, 0).document for process in running]
    assert [bytes_here(one) == DATA for one in nodes] == [True] * 3
    assert asked(server) < 2 * len(DATA)
    assert sum(document["bytes_from_peers"] > 0 for document in documents) >= 2
    for one, document in zip(nodes, documents, strict=True):
        assert document["models"][0]["files"][0]["verified"] == "sha256"
        assert document["bytes_fetched"] >= len(DATA)
        assert leftovers(one) == []
    before = len(server.requests)
    assert done(nodes[0].run("get", "one", "--swarm")).out
    assert len(server.requests) == before  # what is here is kept, and nobody is waited for


@needs_libtorrent
@only_long("three machines of which one is killed: ten seconds")
@pytest.mark.fault(519)
def test_the_feeder_is_killed(tmp_path: Path, server: FaultyServer, torrent: tuple[bytes, str]) -> None:
    """The node that asks the origin dies in the middle: another goes on, all is right, and the origin sends what the
    dead one had not passed on yet once more. The dead one goes on with what it had."""
    named = addresses(3)
    server.handler, peers = once_all_are_connected(named), ",".join(named)
    nodes = [node(tmp_path / str(n), f"{server.url}/{n}", DATA, *torrent) for n in range(3)]
    words = ("get", "one", "--swarm", "--peers", peers, "--limit-rate", "8M")
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(started(one, *words)) for one in nodes]
        until(lambda: asked(server) >= len(DATA) // 2, "nobody fed")
        feeder = max(range(3), key=lambda n: asked(server, str(n)))
        running[feeder].kill()
        for n, process in enumerate(running):
            if n != feeder:
                ended(process, 0)
    assert all(bytes_here(one) == DATA for n, one in enumerate(nodes) if n != feeder)
    assert asked(server) < 2.5 * len(DATA)
    before = asked(server)
    done(nodes[feeder].run("get", "one"))
    assert bytes_here(nodes[feeder]) == DATA
    assert asked(server) - before <= len(DATA)


@needs_libtorrent
@only_long("a peer that sends other bytes: some seconds")
@pytest.mark.fault(520)
def test_a_torrent_of_other_bytes_is_found_out_by_the_sha256(tmp_path: Path, server: FaultyServer) -> None:
    """The lock's info hash is that of other bytes: libtorrent takes them, mdl does not, and fetches the right ones."""
    other = noise(len(DATA), 6)
    torrent, info_hash = torrent_of(other, tmp_path / "made")
    shell = node(tmp_path / "home", f"{server.url}/f", DATA, torrent, info_hash)
    theirs, mine = addresses(2)
    with seed(theirs, torrent, locked(DATA, info_hash), tmp_path / "made" / "f.bin"):
        ran = done(shell.run("get", "one", "--swarm", "--peers", f"{theirs},{mine}", "--json"))
    assert ran.document["bytes_from_peers"] >= len(other)  # the control: libtorrent found nothing wrong
    assert ran.document["bytes_discarded"] >= len(other)
    assert bytes_here(shell) == DATA


@needs_libtorrent
@only_long("a peer that sends wrong bytes: some seconds")
@pytest.mark.fault(520)
def test_a_peer_that_sends_wrong_bytes(tmp_path: Path, server: FaultyServer, torrent: tuple[bytes, str]) -> None:
    """Flipped bits in a peer's file: those pieces come from the origin, and nothing wrong gets the final name."""
    shell = node(tmp_path / "home", f"{server.url}/f", DATA, *torrent)
    theirs, mine = addresses(2)
    flip(tmp_path / "made" / "f.bin", 5 * MIB, 21 * MIB)
    with seed(theirs, torrent[0], locked(DATA, torrent[1]), tmp_path / "made" / "f.bin") as share:
        ran = done(shell.run("get", "one", "--swarm", "--peers", f"{theirs},{mine}", "--stall", "4s"))
        assert share.look().sent  # the control: it was asked
    assert bytes_here(shell) == DATA
    assert 0 < asked(server) <= 2 * len(DATA), ran.err


@needs_libtorrent
@only_long("a stall: some seconds")
@pytest.mark.fault(523)
def test_a_peer_that_sends_nothing(tmp_path: Path, server: FaultyServer, torrent: tuple[bytes, str]) -> None:
    """A peer that says that it has all and sends none of it: after the stall one note, and HTTP does the rest."""
    shell = node(tmp_path / "home", f"{server.url}/f", DATA, *torrent)
    theirs, mine = addresses(2)
    made = tmp_path / "made" / "f.bin"
    model = locked(DATA, torrent[1])
    with seed(theirs, torrent[0], model, made, upload_rate_limit=1, local_upload_rate_limit=1):
        ran = done(shell.run("get", "one", "--swarm", "--peers", f"{theirs},{mine}", "--stall", "1s"))
    assert ran.err.count("no byte came for 1 s: the rest comes over HTTP") == 1
    assert bytes_here(shell) == DATA


@needs_libtorrent
@only_long("a node that waits for peers: some seconds")
@pytest.mark.fault(523)
def test_an_origin_that_refuses_ends_the_swarm(tmp_path: Path, torrent: tuple[bytes, str]) -> None:
    """Alone and with an origin that has no such file: the swarm is over at once, and the error is the usual one."""

    def refuse(_request: Request, _number: int) -> Answer:
        return Answer(404, [("Content-Length", "0")], [])

    with FaultyServer(refuse) as server:
        shell = node(tmp_path / "home", f"{server.url}/f", DATA, *torrent)
        ran = done(shell.run("get", "one", "--swarm", "--peers", addresses(1)[0]), 3)
    assert "the rest comes over HTTP" in ran.err


@needs_libtorrent
@pytest.mark.fault(522)
def test_a_stale_torrent_is_refused(tmp_path: Path, server: FaultyServer, torrent: tuple[bytes, str]) -> None:
    """The torrent beside the lock is another than the lock names: 6 before anybody is asked. Without a torrent the
    model comes over HTTP, and a note says so."""
    shell = node(tmp_path / "home", f"{server.url}/f", DATA, torrent[0], "0" * 64)
    ran = done(shell.run("get", "one", "--swarm"), 6)
    assert "another than the lock names" in ran.err
    assert "mdl lock --swarm one" in ran.err
    assert server.requests == []
    (shell.home / "mdl.swarm" / "one.torrent").unlink()
    assert "it has no torrent" in done(shell.run("get", "one", "--swarm")).err
    assert bytes_here(shell) == DATA


@needs_libtorrent
@pytest.mark.fault(524)
def test_a_gated_model_is_not_passed_on(tmp_path: Path, server: FaultyServer, torrent: tuple[bytes, str]) -> None:
    """A model that the lock calls gated takes part in no swarm without the flag: 4, and nobody is asked."""
    shell = node(tmp_path / "home", f"{server.url}/f", DATA, *torrent, swarm_gated=True)
    ran = done(shell.run("get", "one", "--swarm"), 4)
    assert "'mdl get --swarm --gated'" in ran.err
    assert server.requests == []
    if not LONG:
        return
    done(shell.run("get", "one", "--swarm", "--gated", "--peers", addresses(1)[0], "--stall", "1s"))
    assert bytes_here(shell) == DATA


@needs_libtorrent
@only_long("a slow download: some seconds")
@pytest.mark.fault(525)
def test_ctrl_c_in_the_swarm(tmp_path: Path, server: FaultyServer, torrent: tuple[bytes, str]) -> None:
    """Stopped while pieces come: 130, and the next download has what came and was written down."""
    shell = node(tmp_path / "home", f"{server.url}/f", DATA, *torrent)
    words = ("get", "one", "--swarm", "--peers", addresses(1)[0], "--limit-rate", "6M")

    def claimed() -> bool:
        journals = list((shell.models / ".mdl" / "partials").glob("*/journal"))
        return bool(journals) and len(journals[0].read_bytes().splitlines()) > 1

    with started(shell, *words) as process:
        until(claimed, "no piece was claimed")
        process.send_signal(signal.SIGINT)
        ended(process, 130)
    before = asked(server)
    ran = done(shell.run("get", "one", "--json"))
    assert ran.document["bytes_kept"] >= 4 * MIB
    assert asked(server) - before <= len(DATA) - 4 * MIB
    assert bytes_here(shell) == DATA


@needs_libtorrent
@only_long("a slow peer: some seconds")
@pytest.mark.fault(525)
def test_it_is_passed_on_after_it_was_published(
    tmp_path: Path, server: FaultyServer, torrent: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow peer still gets pieces of a file that has its final name; Ctrl-C ends that, and all ends with 0."""
    monkeypatch.setattr("mdl.swarm.session.secrets.token_hex", lambda _count: "z" * 20)  # the peer does not feed
    shell = node(tmp_path / "home", f"{server.url}/f", DATA, *torrent)
    theirs, mine = addresses(2)
    empty, slow = tmp_path / "empty", {"download_rate_limit": 10**6, "local_download_rate_limit": 10**6}
    empty.touch()
    with (
        seed(theirs, torrent[0], locked(DATA, torrent[1]), empty, is_empty=True, **slow) as share,
        started(shell, "get", "one", "--swarm", "--peers", f"{theirs},{mine}", "--json") as process,
    ):
        until(lambda: share.look() and (shell.models / "one" / "f.bin").exists(), "nothing was published")
        before = share.look().done
        until(lambda: share.look().done >= before + 2 * MIB, "nothing was passed on")
        process.send_signal(signal.SIGINT)
        assert ended(process, 0).document["ok"]
    assert bytes_here(shell) == DATA


def test_lock_makes_the_torrent_and_drops_it(tmp_path: Path, server: FaultyServer, ok: Ok) -> None:
    """The lock has the info hash of what is here; the same again changes nothing; other bytes of a file drop it."""
    shell = machine(tmp_path / "home", catalog_of(DATA, one=f"{server.url}/f"))
    missing = ok(shell, "lock --swarm one", 3)
    assert "'mdl get one' first" in missing.err
    ok(shell, "get one")
    document = ok(shell, "lock --swarm one --json").document
    expected = torrent_of(DATA, tmp_path / "made")
    assert (shell.home / "mdl.swarm" / "one.torrent").read_bytes() == expected[0]
    assert models_of(shell)["one"].swarm == document["models"][0]["swarm"] == expected[1]
    text = lock_of(shell).read_bytes()
    ok(shell, "lock --swarm one; lock; lock --upgrade one; lock --check")
    assert lock_of(shell).read_bytes() == text
    (shell.home / "catalog.toml").write_text(catalog_of(noise(len(DATA), 6), one=f"{server.url}/f"))
    changed = ok(shell, "lock")
    assert "no torrent for the swarm any more" in changed.err
    assert models_of(shell)["one"].swarm == ""


@needs_libtorrent
@only_long("two downloads of a repository: some seconds")
@pytest.mark.fault(524)
def test_models_of_a_hub(tmp_path: Path) -> None:
    """A repository that the hub calls open gets a torrent, which serves both layouts; a restricted one is refused."""
    big, catalog = noise(17 * MIB, 9), 'schema = 1\n[models.one]\nsource = "hf:org/{}"\n'
    files = {"config.json": b"{}", "model.bin": big}
    with LoopbackHub([Repo("org/open", files)]) as hub:
        shell = machine(tmp_path / "open", catalog.format("open"), hub.url)
        done(shell.run("get", "one"))
        receipts = Store(shell.models).receipts
        told = receipts.of_model("one")
        receipts.put(*(replace(one, access="restricted") for one in told))
        assert "gated or private" in done(shell.run("lock", "--swarm", "one"), 4).err
        receipts.put(*told)
        done(shell.run("lock", "--swarm", "one"))
        other = with_environ(shell, MDL_HOME=str(tmp_path / "cache"), MDL_LAYOUT="hf-cache", MDL_STORES_LINK="none")
        ran = done(other.run("get", "one", "--swarm", "--peers", addresses(1)[0]))
        assert "17.8 MB from the origin" in ran.err
        [found] = Path(ran.out.strip()).rglob("model.bin")
        assert found.is_symlink()  # as in the hub's own cache
        assert found.read_bytes() == big


@pytest.mark.fault(524)
def test_lock_passes_nothing_on_that_needs_a_login(tmp_path: Path, server: FaultyServer, ok: Ok) -> None:
    """A model of a host that gets a credential is not known to be open: 4; with the flag the lock says so."""
    shell = machine(tmp_path / "home", catalog_of(DATA, one=f"{server.url}/f"), KEY="k3y")
    place = shell.home / ".config" / "mdl" / "config.toml"
    place.parent.mkdir(parents=True)
    place.write_text(f'[hosts."{server.url.removeprefix("http://")}"]\ntoken_env = "KEY"\n')
    refused = ok(shell, "get one; lock --swarm one", 4)
    assert "'mdl lock --swarm --gated'" in refused.err
    assert not (shell.home / "mdl.swarm").exists()
    ok(shell, "lock --swarm --gated one")
    assert models_of(shell)["one"].swarm_gated


def test_what_is_said_wrongly(tmp_path: Path, ok: Ok, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 and what to do: flags without --swarm, peers that are no addresses, no names, no libtorrent."""
    shell = machine(tmp_path / "home", catalog_of(DATA, one="https://h/f"))
    wrong = {
        "get one --peers 10.0.0.1:1": "belongs to --swarm",
        "get one --gated": "belongs to --swarm",
        "get one --swarm --peers 10.0.0.1": "is not HOST:PORT",
        "get one --swarm --peers http://h:1": "is not HOST:PORT",
        "lock --swarm": "takes the names of models",
        "lock --swarm --check one": "takes the names of models",
    }
    for words, told in wrong.items():
        assert told in ok(shell, words, 2).err, words
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "libtorrent" else found(name))
    assert "pip install 'mdl[swarm]'" in ok(shell, "get one --swarm", 2).err
