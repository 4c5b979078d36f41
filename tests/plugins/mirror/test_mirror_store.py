"""Mirrors in a real object store (SeaweedFS with three volume servers, each object on two of them): signatures are
checked, mdl is killed in the middle of a push, and so is a volume server, of a push and of a pull."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.data import MIB, noise
from support.long import LONG
from support.mirrors import MirrorStore, marker_of, mirror_machine, version_of
from support.polling import until
from support.seaweed import SECRET_KEY, Seaweed, seaweed, weed
from support.shell import Shell, done, ended, started, with_environ

from mdl import Client
from mdl.events import Event, Progressed
from mdl.plugins import mirror
from mdl.plugins.mirror.marker import part_size

pytestmark = [
    pytest.mark.skipif(weed() is None, reason="SeaweedFS is not installed (the test extra has it)"),
    pytest.mark.skipif(not LONG, reason="takes a minute (MDL_LONG=1)"),
]
SIZE = 270 * MIB
PART = part_size(SIZE)
WORKERS = 2


def whole() -> bytes:
    """The large file."""
    block = noise(10 * MIB, seed=18)
    return block * (SIZE // len(block))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """Master, three volume servers, filer and S3; replication 001."""
    with seaweed(tmp_path_factory.mktemp("weed"), volumes=3) as found:
        yield found


@pytest.fixture
def store(cluster: Seaweed) -> MirrorStore:
    return MirrorStore.at(cluster.environ)


@pytest.fixture
def shell(tmp_path: Path, store: MirrorStore) -> Shell:
    """A machine with the locked model ``one``."""
    return locked_machine(tmp_path, store, {"big.bin": b"not very big"})


@pytest.fixture
def large(tmp_path: Path, store: MirrorStore) -> Shell:
    """The same with a file of five parts, and a small one."""
    return locked_machine(tmp_path, store, {"big.bin": whole(), "sub/a b'+ü.json": b'{"a": 1}'})


def locked_machine(folder: Path, store: MirrorStore, files: Mapping[str, bytes]) -> Shell:
    shell = mirror_machine(folder / "home", store, {"one": files}, MDL_RETRIES="30")
    done(shell.run("lock"))
    return shell


def is_whole(store: MirrorStore, shell: Shell) -> bool:
    """Every byte of the large object is right, and the marker tells of it."""
    version = version_of(shell)
    return store.read(f"one/{version}/big.bin") == whole() and len(marker_of(store, "one", version)["files"]) == 2


def parts_of(store: MirrorStore) -> list[int]:
    """The sizes of the parts of the uploads that were begun."""
    found = []
    for one in store.api.list_multipart_uploads(Bucket=store.bucket).get("Uploads", []):
        place = {"Bucket": store.bucket, "Key": one["Key"], "UploadId": one["UploadId"]}
        found += [part["Size"] for part in store.api.list_parts(**place).get("Parts", [])]
    return found


@pytest.mark.fault(576)
def test_a_wrong_secret(store: MirrorStore, shell: Shell) -> None:
    """The store's own words, 4, before anything is sent; the secret is shown nowhere."""
    wrong = with_environ(shell, AWS_SECRET_ACCESS_KEY="a-wrong-canary-secret")
    for verb in ("push", "pull", "check", "list", "clean"):
        ran = done(wrong.run("mirror", verb, store.url), 4)
        assert "SignatureDoesNotMatch" in ran.err
        assert "canary" not in ran.out + ran.err
        assert SECRET_KEY not in ran.out + ran.err
    assert store.objects() == set()


def test_no_such_bucket_is_made(cluster: Seaweed, shell: Shell) -> None:
    """A push to a bucket that is not there is 3, also with a store that would make one."""
    assert "NoSuchBucket" in done(shell.run("mirror", "push", "s3://not-there/m"), 3).err
    store = replace(MirrorStore(cluster.environ, "not-there"))
    assert "not-there" not in {one["Name"] for one in store.api.list_buckets()["Buckets"]}


def has_parts(store: MirrorStore, count: int, process: subprocess.Popen[str]) -> bool:
    return len(parts_of(store)) >= count or process.poll() is not None


@pytest.mark.fault(574)
def test_a_push_killed_again_and_again(store: MirrorStore, large: Shell) -> None:
    """Each run goes on with the parts that are there; what all of them send together is the file, and at most one part
    a worker more for each kill."""
    words = ("mirror", "push", store.url, "--connections", str(WORKERS), "--limit-rate", "100Mi")
    kills = 2
    for kill in range(1, kills + 1):
        with started(large, *words) as process:
            until(partial(has_parts, store, 2 * kill - 1, process))
            assert process.poll() is None
            process.kill()
            process.wait()
    there = sum(parts_of(store))
    assert there >= (2 * kills - 1) * PART
    ran = done(large.run(*words, "--json"))
    [file] = [one for one in ran.document["models"][0]["files"] if one["path"] == "big.bin"]
    assert file["resumed_at"] >= there  # the store may have taken one more that was on its way
    assert ran.document["bytes_sent"] <= SIZE - there + 100
    assert is_whole(store, large)
    assert parts_of(store) == []


@pytest.mark.fault(564)
def test_two_processes_push_at_once(store: MirrorStore, large: Shell) -> None:
    """Both end with 0, whichever completes what they share, and every byte is right."""
    words = ("mirror", "push", store.url, "--limit-rate", "200Mi")
    with started(large, *words) as one, started(large, *words) as other:
        ended(one, 0)
        ended(other, 0)
    assert is_whole(store, large)
    assert parts_of(store) == []


@pytest.mark.fault(575)
def test_a_volume_server_dies_during_a_push(cluster: Seaweed, store: MirrorStore, large: Shell) -> None:
    """What was sent stays, what follows goes elsewhere; in the end every byte is right and read back."""
    with dying(cluster, large) as (client, watch, killed):
        report = mirror.push(client, store.url, read_back=True, on_event=watch)
    report.raise_for_errors()
    assert killed
    assert killed[0] < SIZE
    assert is_whole(store, large)


@pytest.mark.fault(575)
def test_a_volume_server_dies_during_a_pull(cluster: Seaweed, store: MirrorStore, large: Shell, tmp_path: Path) -> None:
    """The other copies are read; what came before is kept, and the bytes are those of the lock."""
    done(large.run("mirror", "push", store.url))
    with dying(cluster, large, home=tmp_path / "new") as (client, watch, killed):
        report = mirror.pull(client, store.url, on_event=watch)
    report.raise_for_errors()
    assert killed
    assert killed[0] < SIZE
    assert (tmp_path / "new/one/big.bin").read_bytes() == whole()
    assert report.bytes_discarded == 0


@contextmanager
def dying(
    cluster: Seaweed, shell: Shell, home: Path | None = None
) -> Iterator[tuple[Client, Callable[[Event], None], list[int]]]:
    """A client, a listener that kills a volume server once a part of the bytes are there, and how many these were."""
    killed: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, Progressed) and event.bytes_done > PART + MIB and not killed:
            killed.append(event.bytes_done)
            cluster.kill_volume(0)

    settings = {"catalog": shell.home / "catalog.toml", "home": home or shell.models, "limit_rate": "100Mi"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shell.environ.items():
            patch.setenv(name, value)
        try:
            yield Client(**settings, retries=30, connections=4), watch, killed  # type: ignore[arg-type]
        finally:
            if killed:
                cluster.start_volume(0)


@pytest.mark.fault(573)
def test_a_young_upload_stays(store: MirrorStore, shell: Shell) -> None:
    """An upload that another push may be at work on is no waste; once it is old enough it is aborted."""
    key = f"m/one/{version_of(shell)}/big.bin"
    store.api.create_multipart_upload(Bucket=store.bucket, Key=key)
    [kept] = done(shell.run("mirror", "clean", store.url, "--yes", "--json")).document["items"]
    assert (kept["kind"], kept["action"]) == ("upload", "kept")
    [gone] = done(shell.run("mirror", "clean", store.url, "--older-than", "0s", "--yes", "--json")).document["items"]
    assert (gone["kind"], gone["action"]) == ("upload", "deleted")
    assert store.uploads() == []
