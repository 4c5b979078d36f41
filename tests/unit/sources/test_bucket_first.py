"""An endpoint whose workers write to a bucket: the bucket is asked first, for it costs nothing and knows every worker's
processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.moto_store import moto_store
from support.remotes import World, world
from support.runpod_api import KEY, Endpoint, runpod_endpoint

from mdl.errors import MdlError, NotFinished, NotFound, UsageError
from mdl.sources.remote import JobOrigin

obstore = pytest.importorskip("obstore")
ENVIRON = {"RUNPOD_API_KEY": KEY, "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret-canary"}


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_store() as url:
        yield url


@pytest.fixture
def put(moto: str) -> Callable[[dict[str, bytes]], None]:
    """Fill the bucket ``training``, made anew."""
    from obstore.store import S3Store

    def fill(objects: dict[str, bytes]) -> None:
        import httpx

        httpx.post(f"{moto}/moto-api/reset").raise_for_status()
        httpx.put(f"{moto}/training").raise_for_status()
        store = S3Store("training", **_access(moto))
        for key, data in objects.items():
            obstore.put(store, key, data)

    return fill


def _access(moto: str) -> dict[str, Any]:
    return {
        "endpoint": moto,
        "access_key_id": "a",
        "secret_access_key": "b",
        "region": "us-east-1",
        "virtual_hosted_style_request": False,
        "client_options": {"allow_http": True},
    }


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    with runpod_endpoint(tmp_path / "workers") as found:
        yield found


@pytest.fixture
def gpu(moto: str, endpoint: Endpoint) -> Iterator[World]:
    tables = {
        "gpu": {"kind": "runpod", "base_url": endpoint.base_url, "bucket": "store"},
        "store": {"kind": "bucket", "url": "s3://training/p", "endpoint_url": moto},
    }
    with world(tables, ENVIRON) as made:
        yield made


def record(status: str, **more: str) -> bytes:
    return json.dumps({"status": status, "created_at": 1_700_000_000, **more}).encode()


def test_no_worker_is_asked(
    gpu: World, endpoint: Endpoint, put: Callable[[dict[str, bytes]], None], tmp_path: Path
) -> None:
    """Jobs, status and files come from the bucket, without one request to the endpoint; pictures stay behind."""
    put(
        {
            "p/processes/j1.json": record("completed"),
            "p/results/j1/lora/a.bin": b"weights",
            "p/results/j1/samples/x.png": b"png",
            "p/processes/j2.json": record("running"),
        }
    )
    remote = gpu.open()
    assert {job.id: job.status for job in remote.jobs()} == {"j1": "done", "j2": "running"}
    assert (remote.status("j1").status, remote.status("j1").bytes) == ("done", 10)
    report = gpu.fetch(tmp_path / "home", JobOrigin("gpu", "j1"))
    assert report.exit_code == 0, report.error
    assert [path.read_bytes() for path in (tmp_path / "home" / "m0").rglob("*.*")] == [b"weights"]
    assert endpoint.api.asked == []


@pytest.mark.parametrize(
    ("job", "objects", "error", "words"),
    [
        ("j1", {"p/processes/j1.json": record("running")}, NotFinished, "still running"),
        ("j1", {"p/processes/j1.json": record("failed", error="CUDA")}, NotFound, "failed: CUDA"),
        ("j1", {"p/results/j1/lora/a.bin": b"x"}, NotFound, "no checkpoint '7' is among"),
    ],
)
def test_what_the_bucket_knows_is_not_asked_again(
    gpu: World,
    endpoint: Endpoint,
    put: Callable[[dict[str, bytes]], None],
    job: str,
    objects: dict[str, bytes],
    error: type[MdlError],
    words: str,
) -> None:
    """A job of which the bucket says that it has no result yet, or not that checkpoint, starts no worker."""
    put(objects)
    with pytest.raises(error, match=words):
        gpu.open().files(JobOrigin("gpu", job, checkpoint="7"))
    assert endpoint.api.asked == []


@pytest.mark.fault(401)
def test_what_the_bucket_does_not_know(gpu: World, endpoint: Endpoint, put: Callable[[dict[str, bytes]], None]) -> None:
    """A job that is not in the bucket is asked for at the workers; the message names both, with how often."""
    put({"p/other": b""})
    endpoint.api.functions = [lambda given: {"error": "Process not found"}]
    for ask in (gpu.open().status, lambda job: gpu.open().files(JobOrigin("gpu", job))):
        with pytest.raises(NotFound, match=r"asked: the bucket once, workers \d times"):
            ask("j9")
    endpoint.api.functions = [lambda given: {"id": "j9", "status": "running"}]
    assert gpu.open().status("j9").status == "running"


def test_cancel_that_no_worker_can(gpu: World, endpoint: Endpoint, put: Callable[[dict[str, bytes]], None]) -> None:
    """If no worker knows a process that the bucket has, the message says what the bucket says of it."""
    put({"p/processes/j1.json": record("completed")})
    endpoint.api.functions = [lambda given: {"error": "Process not found or cannot be cancelled"}]
    with pytest.raises(UsageError, match="the bucket says that it is done"):
        gpu.open().cancel("j1")
    assert len(endpoint.api.asked) == 3


@pytest.mark.parametrize("has_bucket", [True, False])
@pytest.mark.parametrize("is_well", [True, False])
def test_check_tells_endpoint_and_bucket_apart(
    gpu: World, endpoint: Endpoint, put: Callable[[dict[str, bytes]], None], moto: str, has_bucket: bool, is_well: bool
) -> None:
    """The endpoint and the bucket each have their rows: the failure of one is not that of the other, and keeps its own
    exit code."""
    import httpx
    from support.runpod_api import Answer

    put({"p/processes/j1.json": record("completed")})
    if not has_bucket:
        httpx.post(f"{moto}/moto-api/reset").raise_for_status()
    if not is_well:
        endpoint.api.script("health", *[Answer(500, b"<title>handler crashed</title>")] * 3)
    rows = {row.name: row for row in gpu.open().check()}
    assert (rows["endpoint"].ok, rows["bucket"].ok) == (is_well, has_bucket)
    assert (rows["bucket"].error.exit_code if rows["bucket"].error else 0) == (0 if has_bucket else 3)
    assert (rows["endpoint"].error.exit_code if rows["endpoint"].error else 0) == (0 if is_well else 5)
