"""``mdl fetch`` from an endpoint and from an ordinary API: each of many jobs has its own outcome, and no secret is
anywhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.data import MIB, noise
from support.faulty_server import FaultyServer, reply
from support.runpod_api import KEY, Endpoint, runpod_endpoint
from support.shell import Inside, Shell, done, machine, settings

DATA = noise(2 * MIB)
SIGNATURE = "SIGNATURE-CANARY"


@pytest.fixture
def bucket() -> Iterator[FaultyServer]:
    """Serves every path to those who have the signature."""
    right = faults.choose(lambda request: SIGNATURE in request.query, faults.honest(DATA), lambda *_: reply(403, b"no"))
    with FaultyServer(right) as server:
        yield server


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    with runpod_endpoint(tmp_path / "workers") as found:
        yield found


@pytest.fixture
def shell(tmp_path: Path, endpoint: Endpoint) -> Shell:
    shell = machine(tmp_path / "home", RUNPOD_API_KEY=KEY, MDL_RETRIES="2")
    settings(shell, f'[remotes.gpu]\nkind = "runpod"\nbase_url = "{endpoint.base_url}"\n')
    return shell


def answers(bucket: FaultyServer) -> Callable[[dict[str, Any]], Any]:
    """``p1`` is linked, ``p2`` comes inline, ``p3`` still runs, ``p4`` failed with words that hold secrets, the link of
    ``p5`` is refused; no worker knows any other."""
    link = {"url": f"{bucket.url}/results/p1/lora/a.bin?X-Amz-Signature={SIGNATURE}", "filename": "a.bin"}
    wrong = {"url": f"{bucket.url}/results/p5/a.bin?X-Amz-Signature=CANARY-OF-P5", "filename": "a.bin", "size": 9}
    inline = {"type": "file_data", "filename": "b.bin", "data": base64.b64encode(b"inlin\0").decode(), "size": 6}
    status = {"p1": "completed", "p2": "completed", "p3": "running", "p4": "failed", "p5": "completed"}
    words = f"no access with {KEY} to {bucket.url}/x?X-Amz-Signature={SIGNATURE}"

    def worker(given: dict[str, Any]) -> Any:
        name = given.get("process_id") or given["process_ids"][0]
        if given["type"] == "process_status":
            found = {"id": name, "status": status.get(name, "not_found")}
            return found | ({"error": words} if name == "p4" else {})
        if given["type"] == "bulk_download":
            return {"download_items": [one for key, one in (("p1", link), ("p5", wrong)) if key == name]}
        return inline if given["type"] == "download" and name == "p2" else {"error": "unknown type"}

    return worker


@pytest.mark.fault(401, 407)
def test_many_jobs(mdl: Inside, shell: Shell, endpoint: Endpoint, bucket: FaultyServer) -> None:
    """Every job has its folder, its outcome and its own exit code; what cannot be had hinders no other. Neither the key
    nor a signature is in any output, log, receipt or other file."""
    endpoint.api.functions = [answers(bucket)]
    names = ["p1", "p2", "p3", "p4", "p5", "p6"]
    ran = done(mdl(shell, "fetch", "gpu", *names, "--json", "-vv", "--progress", "json"), 10)
    found = {model["name"]: model["error"] for model in ran.document["models"]}
    files = [file["error"] for model in ran.document["models"] for file in model["files"]]
    codes = {name: error["exit_code"] if error else 0 for name, error in found.items()}
    assert codes == {"gpu/p1": 0, "gpu/p2": 0, "gpu/p3": 14, "gpu/p4": 3, "gpu/p5": 0, "gpu/p6": 3}
    assert [error["exit_code"] for error in files if error] == [4]
    assert (shell.models / "gpu" / "p1" / "a.bin").read_bytes() == DATA
    assert (shell.models / "gpu" / "p2" / "b.bin").read_bytes() == b"inlin\0"
    assert "workers 3 times" in found["gpu/p6"]["message"]
    told = ran.out + ran.err + "".join(path.read_text(errors="replace") for path in shell.home.rglob("*.log*"))
    assert "no access with ***" in told
    kept = b"".join(path.read_bytes() for path in shell.home.rglob("*") if path.is_file())
    for secret in (KEY, SIGNATURE, "CANARY-OF-P5"):
        assert secret not in told
        assert secret.encode() not in kept


def test_nothing_is_asked_of_a_worker_twice(
    mdl: Inside, shell: Shell, endpoint: Endpoint, bucket: FaultyServer
) -> None:
    """One job costs two questions: how it stands, and where its files are. What is here already costs no download."""
    endpoint.api.functions = [answers(bucket)]
    assert done(mdl(shell, "fetch", "gpu", "p1")).out == f"{shell.models}/gpu/p1\n"
    asked = [json.loads(one.body)["input"]["type"] for one in endpoint.api.asked]
    assert asked == ["process_status", "bulk_download"]
    sent = bucket.bytes_sent
    again = done(mdl(shell, "fetch", "gpu", "p1", "--json")).document
    assert (again["bytes_fetched"], again["models"][0]["files"][0]["action"]) == (0, "kept")
    assert bucket.bytes_sent <= sent + 1


def test_an_api(mdl: Inside, shell: Shell, bucket: FaultyServer) -> None:
    """An ordinary API whose answer is a URL: one line of config.toml is enough."""
    link = json.dumps({"url": f"{bucket.url}/f.bin?X-Amz-Signature={SIGNATURE}"}).encode()
    with FaultyServer(lambda request, number: reply(200, link, ("Content-Type", "application/json"))) as api:
        settings(shell, f'[remotes.web]\nkind = "api"\nurl = "{api.url}/results/{{job}}"\n')
        ran = done(mdl(shell, "fetch", "web", "j1"))
        assert [request.path for request in api.requests][-1] == "/results/j1"
    assert (shell.models / "web" / "j1" / "f.bin").read_bytes() == DATA
    assert SIGNATURE not in ran.out + ran.err


@pytest.mark.fault(402)
@pytest.mark.parametrize("more", [1, -1])
def test_a_link_to_another_size(mdl: Inside, shell: Shell, endpoint: Endpoint, bucket: FaultyServer, more: int) -> None:
    """The size that a worker tells is all that is known of the file behind its link: another one is refused."""
    link = {"url": f"{bucket.url}/results/p1/a.bin?X-Amz-Signature={SIGNATURE}", "filename": "a.bin"}
    items = {"download_items": [link | {"size": len(DATA) + more}]}
    told = {"process_status": {"id": "p1", "status": "completed"}, "bulk_download": items}
    endpoint.api.functions = [lambda given: told.get(given["type"], {"error": "unknown type"})]
    ran = done(mdl(shell, "fetch", "gpu", "p1"), 6)
    assert f"{len(DATA)} bytes, expected {len(DATA) + more}" in ran.err
    assert not (shell.models / "gpu" / "p1" / "a.bin").exists()


@pytest.mark.fault(411)
def test_what_is_no_file_hinders_nothing(
    mdl: Inside, shell: Shell, endpoint: Endpoint, bucket: FaultyServer, tmp_path: Path
) -> None:
    """The links of an answer that are pages are named and not asked; its files come, and are put into service."""
    link = f"{bucket.url}/f/w.bin?sig={SIGNATURE}"
    more = {"homepage": "https://example.com", "run": {"dashboard": "https://t.example/r/1?token=CANARY"}}
    told = {
        "process_status": {"id": "p1", "status": "completed"},
        "bulk_download": {"error": "unknown type"},
        "list_files": {"error": "unknown type"},
        "download": {"weights": link, "error_message": "", **more},
    }
    endpoint.api.functions = [lambda given: told[given["type"]]]
    ran = done(mdl(shell, "fetch", "gpu", "p1", "--release", str(tmp_path / "served")))
    noted = "not fetched, no file: homepage (https://example.com), run.dashboard (https://t.example/r/1)"
    assert ran.err.count(noted) == 1
    assert "CANARY" not in ran.out + ran.err
    assert sorted(path.name for path in (tmp_path / "served" / "current").iterdir()) == ["mdl-manifest.json", "w.bin"]
    assert "redirects" not in ran.err


@pytest.mark.fault(402)
def test_a_file_that_cannot_be_had_alone(mdl: Inside, shell: Shell, bucket: FaultyServer) -> None:
    """Weights in a text that nobody calls base64 are refused alone, and not at all if they are not wanted."""
    answer = {"files": [{"name": "w.safetensors", "content": "abcd"}, {"name": "note.txt", "content": "abcd"}]}
    body = json.dumps(answer).encode()
    with FaultyServer(lambda request, number: reply(200, body, ("Content-Type", "application/json"))) as api:
        settings(shell, f'[remotes.web]\nkind = "api"\nurl = "{api.url}/results/{{job}}"\n')
        ran = done(mdl(shell, "fetch", "web", "j1"), 6)
        assert '"encoding": "base64"' in ran.err
        assert (shell.models / "web" / "j1" / "note.txt").read_bytes() == b"abcd"
        assert not (shell.models / "web" / "j1" / "w.safetensors").exists()
        done(mdl(shell, "fetch", "web", "j1", "--include", "*.txt"))


def test_the_words_of_a_worker_that_failed(mdl: Inside, shell: Shell) -> None:
    """A job that is done, of which the worker says that it failed, is told in the worker's words."""
    answer = {"status": "COMPLETED", "result": {"ok": False, "reason": {"error": "no space left on device"}}}
    body = json.dumps(answer).encode()
    with FaultyServer(lambda request, number: reply(200, body, ("Content-Type", "application/json"))) as api:
        settings(shell, f'[remotes.web]\nkind = "api"\nurl = "{api.url}/results/{{job}}"\n')
        ran = done(mdl(shell, "fetch", "web", "j1"), 3)
    assert "no space left on device" in ran.err


def test_the_latest_of_what_a_worker_names(mdl: Inside, shell: Shell, bucket: FaultyServer) -> None:
    """Which of the files in an answer is the latest is told as in a run's folder, though no size is known."""
    names = ["loss=0.9-epoch=1.bin", "loss=0.4-epoch=2.bin", "loss=0.7-epoch=3.bin"]
    body = json.dumps({"files": [f"{bucket.url}/f/{name}?sig={SIGNATURE}" for name in names]}).encode()
    with FaultyServer(lambda request, number: reply(200, body, ("Content-Type", "application/json"))) as api:
        settings(shell, f'[remotes.web]\nkind = "api"\nurl = "{api.url}/results/{{job}}"\n')
        done(mdl(shell, "fetch", "web", "j1", "--checkpoint", "latest"))
        assert [path.name for path in (shell.models / "web" / "j1_latest").iterdir()] == [names[2]]


def test_the_latest_of_sharded_checkpoints_that_a_worker_names(mdl: Inside, shell: Shell, bucket: FaultyServer) -> None:
    """The index of a checkpoint is not read through a link that may be good for one download: what it would tell is not
    known, and a checkpoint whose files are all named counts as whole."""
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    steps = {step: {f"checkpoint-{step}/{shard}" for shard in shards} for step in (500, 1000)}
    links = [{"name": name, "url": f"{bucket.url}/{name}?sig={SIGNATURE}"} for step in steps for name in steps[step]]
    body = json.dumps({"files": links}).encode()
    with FaultyServer(lambda request, number: reply(200, body, ("Content-Type", "application/json"))) as api:
        settings(shell, f'[remotes.web]\nkind = "api"\nurl = "{api.url}/results/{{job}}"\n')
        ran = done(mdl(shell, "fetch", "web", "j1", "--checkpoint", "latest", "--dry-run", "--json"))
    assert {file["path"] for file in ran.document["models"][0]["files"]} == steps[1000]


def test_a_pattern_that_names_nothing_fetches_nothing(mdl: Inside, shell: Shell, bucket: FaultyServer) -> None:
    """Weights are not fetched to see whether they are archives with such a member."""
    links = [{"name": name, "url": f"{bucket.url}/{name}?sig={SIGNATURE}"} for name in ("a.pt", "b.ckpt", "c.bin")]
    body = json.dumps({"files": links}).encode()
    with FaultyServer(lambda request, number: reply(200, body, ("Content-Type", "application/json"))) as api:
        settings(shell, f'[remotes.web]\nkind = "api"\nurl = "{api.url}/results/{{job}}"\n')
        ran = done(mdl(shell, "fetch", "web", "j1", "--include", "*.safetensors"), 3)
    assert "nothing matches '*.safetensors'" in ran.err
    assert bucket.requests == []
