"""A real object store (SeaweedFS): links that expire, servers that die, wrong keys and clocks, kills of mdl itself."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.bench import claimed_in
from support.data import MIB, noise
from support.long import only_long
from support.moto_store import s3_api
from support.polling import until
from support.relay import Meter, relaying
from support.seaweed import SECRET_KEY, Seaweed, seaweed, weed
from support.shell import Process, Shell, child, done

import mdl
from mdl import AuthError, Client
from mdl.events import Event, Progressed
from mdl.net.locators import Link
from mdl.sources import object_store

pytestmark = [
    only_long("a SeaweedFS"),
    pytest.mark.skipif(weed() is None, reason="SeaweedFS is not installed (the test extra has it)"),
]
DATA = noise(24 * MIB, seed=15)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A cluster of two volume servers, each with a copy of every object."""
    with seaweed(tmp_path_factory.mktemp("weed"), volumes=2) as found:
        fill(found)
        yield found


def fill(store: Seaweed) -> None:
    """The bucket ``training`` with one file, whose digest is in its metadata."""
    api = s3_api(store.url, store.environ)
    api.create_bucket(Bucket="training")
    api.put_object(Bucket="training", Key="m/model.bin", Body=DATA, Metadata={"sha256": DIGEST})


@pytest.fixture
def environ(store: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """This process has the keys of the store, and a home of its own."""
    found = {**store.environ, "HOME": str(tmp_path)}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def is_right(folder: Path) -> bool:
    return hashlib.sha256((folder / "model.bin").read_bytes()).hexdigest() == DIGEST


@pytest.mark.fault(430)
def test_a_link_that_expires_is_signed_again(
    store: Seaweed, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A request that arrives after its link has expired is refused by the store, and asked with a new link."""
    monkeypatch.setattr(object_store, "LINK_SECONDS", 1)
    links, real = list[Link](), object_store.Bucket.locate

    def locate(bucket: object_store.Bucket, key: str) -> Link:
        """The first link has expired when it is used."""
        link = real(bucket, key)
        links.append(link)
        if len(links) == 1:
            signed = time.strptime(re.search(r"X-Amz-Date=(\w+)", link.url)[1], "%Y%m%dT%H%M%SZ")  # type: ignore[index]
            until(lambda: time.mktime(time.gmtime()) - time.mktime(signed) > 2.5)
        return link

    monkeypatch.setattr(object_store.Bucket, "locate", locate)
    assert is_right(Client(home=tmp_path / "models").get("s3://training/m"))
    assert len({link.url for link in links}) > 1


def port_of(store: Seaweed) -> int:
    return int(store.url.rpartition(":")[2])


@pytest.mark.fault(431)
@pytest.mark.parametrize("presign", [True, False], ids=["links", "headers"])
def test_broken_connections_cost_no_byte_twice(
    store: Seaweed, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, presign: bool
) -> None:
    """Connections that break are gone on with at the byte that was reached, whether links are signed or headers. There
    is one at a time: of several that share the rest of a file, one that has its part is left with bytes on their
    way."""
    meter = Meter(cuts=10, at=2 * MIB)
    with relaying(port_of(store), meter.greet) as relay:
        config = tmp_path / "config" / "mdl"
        config.mkdir(parents=True)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        table = f'[remotes.s]\nkind = "bucket"\nurl = "s3://training/m"\nendpoint_url = "{relay.url}"\n'
        (config / "config.toml").write_text(table + f"presign = {str(presign).lower()}\n")
        found = Client(home=tmp_path / "models", retries=20, connections=1).get("s3://training/m")
    assert is_right(found)
    assert meter.sent < 1.05 * len(DATA)


def has_or_ended(models: Path, count: int, process: Process) -> bool:
    return claimed_in(models) > count or process.poll() is not None


@pytest.mark.fault(432)
def test_mdl_killed_again_and_again(store: Seaweed, environ: dict[str, str], tmp_path: Path) -> None:
    """Each run goes on with what the killed one had synced."""
    words = ("get", "s3://training/m", "--json")
    more = {**store.environ, "MDL_HOME": str(tmp_path / "models")}
    for kill in range(1, 5):
        process = child(tmp_path, *words, "--limit-rate", "24Mi", **more)
        until(partial(has_or_ended, tmp_path / "models", kill * 4 * MIB, process))
        process.kill()
        process.wait()
    ran = done(Shell(tmp_path, extra=more).run(*words))
    [file] = ran.document["models"][0]["files"]
    assert (file["sha256"], file["verified"]) == (DIGEST, "sha256")
    assert file["resumed_at"] > 16 * MIB


@pytest.mark.fault(433)
def test_wrong_keys(store: Seaweed, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wrong secret is the store's own refusal, with what to do, and is never shown."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    with pytest.raises(AuthError, match="SignatureDoesNotMatch") as caught:
        mdl.get("s3://training/m", home=tmp_path / "models")
    assert "AWS_SECRET_ACCESS_KEY" in str(caught.value.hint)
    assert "a-wrong-secret" not in repr(caught.value) + str(caught.value)


@pytest.mark.fault(434)
@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
def test_a_wrong_clock(store: Seaweed, environ: dict[str, str], tmp_path: Path) -> None:
    """A clock that is an hour off makes every signature wrong: the message says that it is the clock."""
    shell = Shell(tmp_path, extra=environ)
    ran = shell.run("get", "s3://training/m", prefix=("faketime", "-f", "+1h"))
    assert ran.code == 4, ran.err
    assert "RequestTimeTooSkewed" in ran.err
    assert "clock" in ran.err
    assert SECRET_KEY not in ran.err


@pytest.mark.fault(435)
def test_a_volume_server_dies_during_a_fetch(store: Seaweed, environ: dict[str, str], tmp_path: Path) -> None:
    """A cluster of two volume servers loses one while mdl fetches: every byte comes, from the other one."""
    killed: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, Progressed) and event.bytes_done > 4 * MIB and not killed:
            killed.append(event.bytes_done)
            store.kill_volume(0)

    try:
        found = Client(home=tmp_path / "models", limit_rate="20Mi", retries=20).get("s3://training/m", on_event=watch)
    finally:
        if killed:
            store.start_volume(0)
    assert killed
    assert killed[0] < len(DATA)
    assert is_right(found)
