"""One store over time: repairs, partials, what a newer mdl wrote, many small files, a cache in another place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.data import MIB
from support.faults import honest
from support.faulty_server import FaultyServer
from support.hubs import Hub, actions
from support.loopback_hub import Generated, Repo
from support.partials import dead_owner
from support.shell import Inside, Shell, done, settings

from mdl import crc_json
from mdl.engine.receipts import file_key
from mdl.engine.store import Store
from mdl.engine.transfer import Result, Transfer
from mdl.errors import Cancelled
from mdl.paths import RelPath

DATA = Generated(3 * MIB, "later")[0 : 3 * MIB]
WRONG = DATA[:-1] + bytes([DATA[-1] ^ 1])
JSON = ("--json", "--retries", "1")
RECEIPT = "engine.receipts._receipt"
"""What is called while a receipt is read."""


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(honest(DATA)) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    """A machine whose catalog has the models one and two: the same bytes under different URLs."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "catalog.toml").write_text(catalog_of(DATA, one=f"{server.url}/one", two=f"{server.url}/two"))
    shell = Shell(home)
    settings(shell, '[stores]\nlink = "hard"\n')
    return shell


def place(shell: Shell, name: str = "one") -> Path:
    return shell.models / name / "f.bin"


@pytest.mark.fault(120)
def test_a_repair_leaves_the_other_name_alone(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """A damaged file with two names is mended under the one that is repaired; the other's bytes are not written to."""
    done(mdl(shell, "get", "one", "two", *JSON))
    if not place(shell).samefile(place(shell, "two")):
        pytest.skip("two clones are two files")
    place(shell).write_bytes(WRONG)
    done(mdl(shell, "verify", "one", "--repair", "--json"))
    assert (place(shell).read_bytes(), place(shell, "two").read_bytes()) == (DATA, WRONG)
    assert mdl(shell, "verify", "two", "--json").code == 6
    assert mdl(shell, "get", "two", *JSON).code == 7
    done(mdl(shell, "verify", "two", "--repair", "--json"))
    assert place(shell, "two").read_bytes() == DATA


def test_no_partial_is_left(shell: Shell, mdl: Inside) -> None:
    """What was half fetched before it was found elsewhere does not stay on the disk beside the whole."""
    done(mdl(shell, "get", "one", *JSON))
    store = Store(shell.models)
    left = store.partials / f"{file_key('two', RelPath.parse('f.bin'))}.{dead_owner()}"
    left.mkdir()
    (left / "data").write_bytes(DATA[:MIB])
    assert actions(done(mdl(shell, "get", "two", *JSON))) == {"two/f.bin": "linked"}
    assert os.listdir(store.partials) == []


def test_a_receipt_of_a_newer_mdl(shell: Shell, mdl: Inside) -> None:
    """What a newer mdl wrote down of another model is no candidate, and does not hinder this one."""
    receipt = shell.models / ".mdl" / "receipts" / "other" / f"{'a' * 32}.receipt"
    receipt.parent.mkdir(parents=True)
    receipt.write_bytes(crc_json.dumps({"mdl-receipt": 2}))
    assert actions(done(mdl(shell, "get", "one", *JSON))) == {"one/f.bin": "fetched"}


def test_many_empty_files(tmp_path: Path, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files without a byte, which every package of Python has many of, are not waited for one by one."""
    rounds: list[int] = []
    really = Transfer.run

    def counted(transfer: Transfer) -> Result:
        result = really(transfer)
        rounds.append(len(result.outcomes))
        return result

    monkeypatch.setattr(Transfer, "run", counted)
    files = {f"p{number}/__init__.py": b"" for number in range(8)}
    with Hub([Repo("org/tiny", files)]) as hub:
        done(mdl(Shell(tmp_path, hub.url), "get", "hf:org/tiny", *JSON))
    assert sum(rounds) == len(files)
    assert len(rounds) < 3


def test_two_repositories_of_a_cache_elsewhere(tmp_path: Path, mdl: Inside) -> None:
    """With --layout hf-cache --to DIR, what one repository in DIR has another one there is not sent again."""
    words = ("--layout", "hf-cache", "--to", str(tmp_path / "cache"), *JSON)
    with Hub([Repo("org/one", {"f.bin": DATA}), Repo("org/two", {"f.bin": DATA})]) as hub:
        shell = Shell(tmp_path, hub.url)
        done(mdl(shell, "get", "hf:org/one", *words))
        ran = done(mdl(shell, "get", "hf:org/two", *words))
        assert (actions(ran), hub.sent) == ({"org--two/f.bin": "linked"}, len(DATA))


def _interrupted(*_: object) -> None:
    raise Cancelled("terminated", terminated=True)


@pytest.mark.parametrize(
    "where", [f"mdl.engine.store.Store.{name}" for name in ("fingerprint", "path_of")] + [f"mdl.{RECEIPT}"]
)
def test_stopped_while_it_looks(
    shell: Shell, server: FaultyServer, mdl: Inside, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A signal while candidates are looked for or hashed ends the get with 143; nothing is fetched or left half."""
    done(mdl(shell, "get", "one", *JSON))
    sent = server.bytes_sent
    monkeypatch.setattr(where, _interrupted)
    assert mdl(shell, "get", "two", *JSON).code == 143
    assert (server.bytes_sent, place(shell, "two").exists()) == (sent, False)
    assert list((shell.models / ".mdl").glob("side/*")) == []
