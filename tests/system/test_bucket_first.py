"""An endpoint whose workers write to a bucket: the bucket is asked first, for it costs nothing and knows every worker's
processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faulty_server import FaultyServer, reply
from support.job_store import PREFIX, JobStore
from support.remotes import World, world
from support.runpod_api import KEY, Answer, Endpoint, runpod_endpoint

from mdl.errors import MdlError, NetworkError, NotFinished, NotFound, UsageError
from mdl.results.base import JobOrigin

pytest.importorskip("boto3")
ENVIRON = {"RUNPOD_API_KEY": KEY, "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret-canary"}


@pytest.fixture
def store(s3_url: str) -> JobStore:
    return JobStore.at(s3_url)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    with runpod_endpoint(tmp_path / "workers") as found:
        yield found


@pytest.fixture
def gpu(store: JobStore, endpoint: Endpoint) -> Iterator[World]:
    with world(tables(store, endpoint), ENVIRON) as made:
        yield made


def tables(store: JobStore, endpoint: Endpoint) -> dict[str, dict[str, str]]:
    return {
        "gpu": {"kind": "runpod", "base_url": endpoint.base_url, "bucket": "store"},
        "store": {"kind": "bucket", "url": f"s3://{store.bucket}/{PREFIX}", "endpoint_url": store.url},
    }


def record(status: str, **more: str) -> bytes:
    return json.dumps({"status": status, "created_at": 1_700_000_000, **more}).encode()


def test_no_worker_is_asked(gpu: World, endpoint: Endpoint, store: JobStore, tmp_path: Path) -> None:
    """Jobs, status and files come from the bucket, without one request to the endpoint; pictures stay behind."""
    store.put("processes/j1.json", record("completed"))
    store.put("processes/j2.json", record("running"))
    store.put("results/j1/lora/a.bin", b"\0\0eight")
    store.put("results/j1/samples/x.png", b"png")
    remote = gpu.open()
    assert {job.id: job.status for job in remote.jobs()} == {"j1": "done", "j2": "running"}
    assert (remote.status("j1").status, remote.status("j1").bytes) == ("done", 10)
    report = gpu.fetch(tmp_path / "home", JobOrigin("gpu", "j1"))
    assert report.exit_code == 0, report.error
    assert [path.read_bytes() for path in (tmp_path / "home" / "m0").rglob("*.*")] == [b"\0\0eight"]
    assert endpoint.api.asked == []


@pytest.mark.parametrize(
    ("job", "objects", "error", "words"),
    [
        ("j1", {"processes/j1.json": record("running")}, NotFinished, "still running"),
        ("j1", {"processes/j1.json": record("failed", error="CUDA")}, NotFound, "failed: CUDA"),
        ("j1", {"results/j1/lora/a.bin": b"x"}, NotFound, "no log is among"),
    ],
)
def test_what_the_bucket_knows_is_not_asked_again(
    gpu: World,
    endpoint: Endpoint,
    store: JobStore,
    job: str,
    objects: dict[str, bytes],
    error: type[MdlError],
    words: str,
) -> None:
    """A job of which the bucket says that it has no result yet, or no log, starts no worker."""
    for key, data in objects.items():
        store.put(key, data)
    with pytest.raises(error, match=words):
        gpu.open().files(JobOrigin("gpu", job, logs=True))
    assert endpoint.api.asked == []


@pytest.mark.fault(401)
def test_what_the_bucket_does_not_know(gpu: World, endpoint: Endpoint, store: JobStore) -> None:
    """A job that is not in the bucket is asked for at the workers; the message names both, with how often."""
    store.put("other", b"")
    endpoint.api.functions = [lambda given: {"error": "Process not found"}]
    for ask in (gpu.open().status, lambda job: gpu.open().files(JobOrigin("gpu", job))):
        with pytest.raises(NotFound, match=r"asked: the bucket once, workers \d times"):
            ask("j9")
    endpoint.api.functions = [lambda given: {"id": "j9", "status": "running"}]
    assert gpu.open().status("j9").status == "running"


def test_cancel_that_no_worker_can(gpu: World, endpoint: Endpoint, store: JobStore) -> None:
    """If no worker knows a process that the bucket has, the message says what the bucket says of it."""
    store.put("processes/j1.json", record("completed"))
    endpoint.api.functions = [lambda given: {"error": "Process not found or cannot be cancelled"}]
    with pytest.raises(UsageError, match="the bucket says that it is done"):
        gpu.open().cancel("j1")
    assert len(endpoint.api.asked) == 3


@pytest.mark.parametrize("has_bucket", [True, False])
@pytest.mark.parametrize("is_well", [True, False])
def test_check_tells_endpoint_and_bucket_apart(
    store: JobStore, endpoint: Endpoint, has_bucket: bool, is_well: bool
) -> None:
    """The endpoint and the bucket each have their rows: the failure of one is not that of the other, and keeps its own
    exit code."""
    store = store if has_bucket else JobStore(store.url, "none-such")
    if not is_well:
        endpoint.api.script("health", *[Answer(500, b"<title>handler crashed</title>")] * 3)
    with world(tables(store, endpoint), ENVIRON) as made:
        rows = {row.name: row for row in made.open().check()}
    assert (rows["endpoint"].ok, rows["bucket"].ok) == (is_well, has_bucket)
    assert (rows["bucket"].error.exit_code if rows["bucket"].error else 0) == (0 if has_bucket else 3)
    assert (rows["endpoint"].error.exit_code if rows["endpoint"].error else 0) == (0 if is_well else 5)


def test_a_bucket_that_may_not_be_read(endpoint: Endpoint) -> None:
    """With credentials that the bucket refuses the workers are asked; if they know nothing, the message has the
    bucket's words. With a bucket that is out of order no worker is paid for instead."""
    answer = reply(403, b"<Error><Code>AccessDenied</Code><Message>not yours</Message></Error>")
    with (
        FaultyServer(lambda request, number: answer) as server,
        world(tables(JobStore(server.url, "training"), endpoint), ENVIRON) as made,
    ):
        remote = made.open()
        endpoint.api.functions = [lambda given: {"id": "j1", "status": "running"}]
        assert remote.status("j1").status == "running"
        endpoint.api.functions = [lambda given: {"error": "Process not found"}]
        with pytest.raises(NotFound, match=r"asked: the bucket \(AccessDenied: not yours\) once, workers 3 times"):
            remote.status("j1")
        asked = len(endpoint.api.asked)
        answer = reply(400, b"<Error><Code>InvalidRequest</Code><Message>out of order</Message></Error>")
        with pytest.raises(NetworkError, match="out of order"):
            remote.status("j1")
        assert len(endpoint.api.asked) == asked
