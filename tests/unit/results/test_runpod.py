"""RunPod Serverless: questions to an endpoint and its workers, what is answered, and what is never sent twice."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support import faults
from support.data import noise
from support.faulty_server import Answer as Reply
from support.faulty_server import FaultyServer, Request, reply
from support.job_store import JobStore
from support.long import only_long
from support.polling import until
from support.remotes import World, world
from support.runpod_api import KEY, MIB, Answer, Endpoint, Job, RunpodApi, runpod_endpoint, wait_for_workers

from mdl.errors import AuthError, Cancelled, MdlError, NetworkError, NotFinished, NotFound, ProtocolError, UsageError
from mdl.results import runpod
from mdl.results.base import JobOrigin, JobSource

QUEUED = "0f5c6b1e-1111-4222-8333-444455556666-u1"
"""An id of the endpoint's own queue."""
DATA = noise(5000)
FILE: dict[str, Any] = {
    "type": "file_data",
    "filename": "a.bin",
    "data": base64.b64encode(DATA).decode(),
    "size": len(DATA),
}
UNKNOWN = {"error": "Process not found"}
ENVIRON = {"RUNPOD_API_KEY": KEY}


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """An endpoint without workers, whose questions are polled for without a wait."""
    monkeypatch.setattr(runpod, "POLLS", (0.0,))
    with runpod_endpoint(tmp_path) as found:
        yield found


@pytest.fixture
def api(endpoint: Endpoint) -> RunpodApi:
    return endpoint.api


def settings(endpoint: Endpoint, **more: str) -> dict[str, str]:
    return {"kind": "runpod", "base_url": endpoint.base_url, **more}


@pytest.fixture
def gpu(endpoint: Endpoint) -> Iterator[World]:
    with world({"gpu": settings(endpoint)}, ENVIRON) as made:
        yield made


def worker(**answers: Any) -> Callable[[dict[str, Any]], Any]:
    """A worker that has these answers by the type of a question: values, or functions of the input."""

    def function(given: dict[str, Any]) -> Any:
        kind = given["type"]
        if kind not in answers:
            return {"error": f"unknown type or field: {kind!r}"}
        found = answers[kind]
        return found(given) if callable(found) else found

    return function


def queued(api: RunpodApi, status: str, **facts: Any) -> None:
    """One job of the endpoint's own queue."""
    job = api.jobs[QUEUED] = Job(QUEUED, {}, 20 * MIB, status, **facts)
    job.has_output = "output" in facts


def links(*urls: str, **more: Any) -> dict[str, Any]:
    items = [{"filename": url.partition("?")[0].rpartition("/")[2], "url": url, "type": "lora", **more} for url in urls]
    return {"download_items": items, "zip_url": None, "total_files": len(items)}


def all_of(error: MdlError) -> str:
    return f"{error} {error.hint}"


# What the queue says of a job.


@pytest.mark.parametrize(
    ("word", "error", "status", "words"),
    [
        ("IN_QUEUE", None, "queued", None),
        ("IN_PROGRESS", None, "running", None),
        ("RUNNING", None, "running", None),
        ("WAITING_FOR_THE_MOON", None, "running", "its remote says 'WAITING_FOR_THE_MOON', which mdl does not know"),
        ("COMPLETED", None, "done", None),
        ("CANCELLED", None, "cancelled", None),
        ("TIMED_OUT", None, "failed", "it ran longer than the endpoint allows (TIMED_OUT)"),
        ("FAILED", "CUDA out of memory", "failed", "CUDA out of memory"),
        ("FAILED", '{"error_message": "disk full", "error_traceback": "File"}', "failed", "disk full"),
        ("FAILED", "<html><title>502: Bad gateway</title>", "failed", "502: Bad gateway"),
        ("FAILED", f"key {KEY} at https://b.example/x?X-Amz-Signature=CANARY", "failed", "key *** at https://b.ex"),
    ],
)
def test_words_of_the_queue(
    gpu: World, api: RunpodApi, word: str, error: str | None, status: str, words: str | None
) -> None:
    """Each state of the queue has its status; an unknown one counts as running, and is told. Of an error only its
    message is told."""
    queued(api, word, error=error)
    found = gpu.open().status(QUEUED)
    assert found.status == status
    assert (found.error or "").startswith(words or "")
    assert bool(found.error) == bool(words)
    assert "CANARY" not in str(found)
    assert KEY not in str(found)
    assert api.operations() == ["status"]


@pytest.mark.parametrize(
    ("output", "path", "is_link"),
    [
        (FILE, "a.bin", False),
        ([FILE], "a.bin", False),
        ({"type": "redirect", "url": "http://127.0.0.1/x/b?sig=s", "filename": "../b.bin", "size": 3}, "b.bin", True),
        ("http://127.0.0.1/x/c.bin", "c.bin", True),
        ({"images": [{"filename": "d.png", "type": "s3_url", "data": "http://127.0.0.1/d"}]}, "d.png", True),
    ],
)
def test_results_of_the_queue(gpu: World, api: RunpodApi, output: Any, path: str, is_link: bool) -> None:
    """The result of a queue's job is a file, in whatever form it is told; its key goes to the endpoint alone."""
    queued(api, "COMPLETED", output=output)
    remote = gpu.open()
    [file] = remote.files(JobOrigin("gpu", QUEUED))
    assert (file.path.text, file.url) == (path, f"job://gpu/{QUEUED}/{path}")
    located = remote.locate(file.url)
    assert hasattr(located, "url") == is_link
    assert not is_link or not located.authorized
    assert is_link or located.response({}).read() == DATA
    assert api.operations() == ["status"]


@pytest.mark.fault(400, 402)
@pytest.mark.parametrize(
    ("status", "facts", "error", "words"),
    [
        ("COMPLETED", {}, ProtocolError, "larger than 20 MiB, or is lost.*presigned URLs.*bucket"),
        ("COMPLETED", {"output": None}, ProtocolError, "larger than 20 MiB, or is lost"),
        (
            "COMPLETED",
            {"output": FILE | {"data": str(FILE["data"])[:9]}},
            ProtocolError,
            "not base64: its end is missing",
        ),
        ("COMPLETED", {"output": FILE | {"data": str(FILE["data"])[:8]}}, ProtocolError, "has 6 bytes.*says.*5000"),
        ("COMPLETED", {"output": FILE | {"size": 4999}}, ProtocolError, "has 5000 bytes.*says.*4999"),
        ("COMPLETED", {"output": FILE | {"data": "%%%%"}}, ProtocolError, "not base64"),
        ("COMPLETED", {"output": {"url": f"/download/{QUEUED}"}}, ProtocolError, "is not a URL.*presigned"),
        ("COMPLETED", {"output": {"loss": 0.1}}, NotFound, "names no file"),
        ("IN_PROGRESS", {"output": FILE}, NotFinished, "still running.*--wait"),
        ("IN_QUEUE", {}, NotFinished, "still queued"),
        ("FAILED", {"error": "CUDA out of memory"}, NotFound, "failed: CUDA out of memory"),
        ("CANCELLED", {}, NotFound, "was cancelled"),
    ],
)
def test_no_result(
    gpu: World, api: RunpodApi, status: str, facts: dict[str, Any], error: type[MdlError], words: str
) -> None:
    """A result that is cut, lies, or is not there is an error that says what to do; progress is not a result."""
    queued(api, status, **facts)
    with pytest.raises(error) as caught:
        gpu.open().files(JobOrigin("gpu", QUEUED))
    is_without_output = status == "COMPLETED" and facts.get("output") is None
    assert api.operations() == (["status", "stream"] if is_without_output else ["status"])
    assert re.search(words, all_of(caught.value))
    assert caught.value.item


@pytest.mark.parametrize(
    "pieces",
    [[FILE], [{"step": 1}, None, FILE], [{"output": FILE}], [json.dumps(FILE)], list(json.dumps(FILE))],
    ids=["a file", "news before it", "nested", "a text", "a text in pieces"],
)
@pytest.mark.parametrize("facts", [{}, {"output": None}, {"output": []}])
def test_a_result_that_is_in_the_stream_alone(
    gpu: World, api: RunpodApi, pieces: list[Any], facts: dict[str, Any]
) -> None:
    """What a generator yields is not among the output of its job: its stream is asked before a result is lost."""
    queued(api, "COMPLETED", pieces=pieces, **facts)
    remote = gpu.open()
    [file] = remote.files(JobOrigin("gpu", QUEUED))
    assert remote.locate(file.url).response({}).read() == DATA
    assert set(api.operations()) == {"status", "stream"}


# Workers that do not see each other.


@pytest.mark.fault(401)
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_another_worker_knows(gpu: World, api: RunpodApi, turns: int) -> None:
    """A worker that does not know a process is no proof: the next one is asked, three in all."""
    record = {"id": "p1", "status": "running", "created_at": 1_700_000_000}
    strangers = [worker(process_status=UNKNOWN)] * (turns - 1)
    api.functions = [*strangers, worker(process_status=record)]
    assert gpu.open().status("p1").status == "running"
    assert len(api.asked) == turns


@pytest.mark.fault(401)
@pytest.mark.parametrize(
    ("job", "answer", "places"),
    [
        ("p1", UNKNOWN, "workers 3 times; the last answer: Process not found"),
        ("p1", {"status": "not_found"}, "workers 3 times"),
        (QUEUED, UNKNOWN, r"the endpoint's queue \(it keeps a result for 30 minutes at most\) once, workers 3"),
    ],
)
def test_nobody_knows(gpu: World, api: RunpodApi, job: str, answer: dict[str, str], places: str) -> None:
    """The message names every place that was asked, and how often; the hint names the bucket that would know more."""
    api.functions = [worker(process_status=answer)]
    with pytest.raises(NotFound, match=places) as caught:
        gpu.open().status(job)
    assert caught.value.item == job
    assert "bucket in [remotes.gpu]" in str(caught.value.hint)


def test_a_failed_process_is_no_failed_question(gpu: World, api: RunpodApi) -> None:
    """The SDK takes ``error`` out of a record and calls the question failed; it is the process that failed, even if
    its error reads like one that no worker knows."""
    api.functions = [worker(process_status={"id": "p1", "status": "failed", "error": "process data not found"})]
    found = gpu.open().status("p1")
    assert (found.status, found.error) == ("failed", "process data not found")


def test_list_of_processes(gpu: World, api: RunpodApi) -> None:
    """Without a bucket the jobs are those that a worker knows, the newest first."""
    rows = [{"id": "old", "status": "completed", "created_at": 1}, {"process_id": "new", "created_at": 9}]
    api.functions = [worker(processes={"processes": rows})]
    assert [(job.id, job.status) for job in gpu.open().jobs()] == [("new", "running"), ("old", "done")]


# The files of a process.


def test_files_as_links(gpu: World, api: RunpodApi) -> None:
    """The worker is asked for links to all files at once; what is of another process by its path is left out, and a
    worker that leaves the process out is no proof that there is none."""
    base = "http://127.0.0.1/b/results"
    answer = links(f"{base}/p1/lora/a.bin?s=1", f"{base}/p1/samples/x.png", f"{base}/p2/lora/a.bin")
    api.functions = [worker(bulk_download=links()), worker(bulk_download=answer)]
    assert [file.path.text for file in gpu.open().files(JobOrigin("gpu", "p1"))] == ["a.bin"]
    assert len(api.asked) == 2
    everything = gpu.open().files(JobOrigin("gpu", "p1", everything=True))
    assert [file.path.text for file in everything] == ["a.bin", "x.png"]


KEYS = {"files": [{"key": "results/p1/lora/a.bin", "size": 5000}, {"key": "results/p1/samples/x.png", "size": 9}]}


@pytest.mark.parametrize("bulk", [links("/download/p1"), {"error": "unknown type: bulk_download"}])
def test_files_by_key(gpu: World, api: RunpodApi, bulk: Any) -> None:
    """A worker without a bucket has no links: its files are listed, and those that are wanted asked for one by one,
    when they are fetched."""
    asked: list[str] = []

    def download(given: dict[str, Any]) -> Any:
        asked.append(given["s3_key"])
        return FILE

    api.functions = [worker(bulk_download=bulk, list_files=KEYS, download=download)]
    remote = gpu.open()
    [file] = remote.files(JobOrigin("gpu", "p1"))
    assert (file.path.text, file.size, asked) == ("lora/a.bin", 5000, [])
    bodies = {remote.locate(file.url).response({}).read() for _ in range(3)}
    assert (bodies, asked) == ({DATA}, ["results/p1/lora/a.bin"])


@pytest.mark.parametrize("data", [b"", DATA, noise(3 * MIB)], ids=len)
def test_the_one_file_of_a_worker(gpu: World, api: RunpodApi, tmp_path: Path, data: bytes) -> None:
    """A worker that neither lists nor links gives its one file, of any size, in its answer; it is asked for it once."""
    answer = FILE | {"data": base64.b64encode(data).decode(), "size": len(data)}
    api.functions = [worker(download=answer)]
    report = gpu.fetch(tmp_path, JobOrigin("gpu", "p1"))
    assert report.exit_code == 0, report.error
    assert (tmp_path / "m0" / "a.bin").read_bytes() == data
    assert [json.loads(one.body)["input"]["type"] for one in api.asked] == ["bulk_download", "list_files", "download"]


def test_a_process_that_is_not_over(gpu: World, api: RunpodApi) -> None:
    """A worker that says that a process is not completed is believed."""
    unfinished = {"error": "Process not completed"}
    api.functions = [worker(bulk_download=links(), list_files={"files": []}, download=unfinished)]
    with pytest.raises(NotFinished, match="Process not completed"):
        gpu.open().files(JobOrigin("gpu", "p1"))


def test_files_of_an_unknown_process(gpu: World, api: RunpodApi) -> None:
    """What every worker leaves out of its answer is not found; the message says how often workers were asked."""
    api.functions = [worker(bulk_download=links(), list_files=UNKNOWN)]
    with pytest.raises(NotFound, match="workers 6 times"):
        gpu.open().files(JobOrigin("gpu", "p1"))
    assert len(api.asked) == 6


# Trouble.


HTML = b"<!DOCTYPE html><html><head><title>api.runpod.ai | 502: Bad gateway</title></head><body>x</body></html>"
LARGE = b"bad request: body: exceeded max body size of 10MiB"


@pytest.mark.fault(403, 404, 405)
@pytest.mark.parametrize(
    ("answers", "error", "words", "requests"),
    [
        ([Answer(401, b"Unauthorized")], AuthError, "401.*RUNPOD_API_KEY.*it is set", 1),
        ([Answer(400, LARGE)], ProtocolError, "max body size of 10MiB.*20 MiB.*presigned", 1),
        ([Answer(413, b"")], ProtocolError, "413.*20 MiB.*presigned", 1),
        ([Answer(502, LARGE)], ProtocolError, "max body size of 10MiB.*presigned", 1),
        ([Answer(502, HTML, {"Content-Type": "text/html"})] * 3, NetworkError, "502.*api.runpod.ai . 502: Bad gat", 3),
        ([Answer(500, {"error": "boom"})] * 3, NetworkError, "500.*boom", 3),
        ([Answer(429, b"")] * 3, NetworkError, "429", 3),
        ([Answer(429, b"", {"Retry-After": "7"})] * 3, NetworkError, "429", 3),
        ([Answer(429, b"", {"Retry-After": "5000"})], NetworkError, "429.*asks to wait 5000 s", 1),
        ([Answer(400, {"error": "no input"})], NetworkError, "400.*no input", 1),
        ([Answer(404, {"error": "endpoint not found"})], NotFound, "404.*endpoint not found.*config.toml", 1),
        ([Answer(200, b"not JSON")], ProtocolError, "JSON", 1),
        ([Answer(200, b"[]")], ProtocolError, "not a JSON object", 1),
        ([Answer(0, b"")] * 3, NetworkError, "dropped the connection", 3),
    ],
)
def test_trouble(
    gpu: World, api: RunpodApi, answers: list[Answer], error: type[MdlError], words: str, requests: int
) -> None:
    """Every refusal has its class, the server's own words and what to do; only what may pass is asked again."""
    api.functions = [worker(process_status={"status": "completed"})]
    api.script("runsync", *answers)
    with pytest.raises(MdlError) as caught:
        gpu.open().status("p1")
    assert isinstance(caught.value, error)
    assert len(api.asked) == requests
    assert re.search(words, all_of(caught.value))
    assert KEY not in all_of(caught.value)


@pytest.mark.fault(403)
@pytest.mark.parametrize(("headers", "wait"), [({}, None), ({"Retry-After": "7"}, 7.0)])
def test_too_many_requests(gpu: World, api: RunpodApi, headers: dict[str, str], wait: float | None) -> None:
    """429 is asked again, after the time that the server asks to wait if it asks for one."""
    api.functions = [worker(process_status={"status": "completed"})]
    api.script("runsync", Answer(429, b"", headers))
    assert gpu.open().status("p1").status == "done"
    assert (gpu.waits[0], len(api.asked)) == (wait, 2)


@pytest.mark.fault(404, 405)
@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ("CUDA out of memory", NetworkError, "the worker says: CUDA out of memory"),
        ('{"error_message": "disk full", "error_traceback": "TRACE"}', NetworkError, "disk full"),
        ("<html><head><title>504 Gateway Time-out</title></head></html>", NetworkError, "says: 504 Gateway Time-out$"),
        ("Payload Too Large: result is 30 MB", ProtocolError, "Too Large.*20 MiB.*presigned"),
        (f"bad key {KEY}", NetworkError, r"bad key \*\*\*"),
    ],
)
def test_errors_of_a_worker(gpu: World, api: RunpodApi, error: str, kind: type[MdlError], words: str) -> None:
    """A worker's error is told in its own words: a text, the message in a JSON text, the title of a page."""
    api.functions = [worker(process_status={"error": error})]
    with pytest.raises(kind) as caught:
        gpu.open().status("p1")
    text = all_of(caught.value) if kind is ProtocolError else caught.value.message
    assert re.search(words, text)
    assert "TRACE" not in text
    assert len(api.asked) == 1


@pytest.mark.fault(407)
@pytest.mark.parametrize("environ", [{}, {"MY_KEY": "wrong"}])
def test_no_key_or_a_wrong_one(endpoint: Endpoint, environ: dict[str, str]) -> None:
    """The message names the variable, and says whether it is set."""
    with world({"gpu": settings(endpoint, api_key_env="MY_KEY")}, environ) as made, pytest.raises(AuthError) as caught:
        made.open().health()
    said = "it is set" if environ else "it is not set"
    assert str(caught.value.hint).startswith("set MY_KEY to a valid key") is True
    assert said in str(caught.value.hint)
    assert "wrong" not in all_of(caught.value)


@pytest.mark.parametrize("key", ["rpa_one\nrpa_two", "rpa_é", "rpa one"])
def test_a_key_that_cannot_be_sent(endpoint: Endpoint, key: str) -> None:
    """A key that cannot stand in a header is refused by the name of its variable; no part of it is told."""
    gpu = world({"gpu": settings(endpoint, api_key_env="MY_KEY")}, {"MY_KEY": key})
    with gpu as made, pytest.raises(UsageError, match="MY_KEY") as caught:
        made.open()
    assert "rpa" not in all_of(caught.value)


# What is asked again, and what is not.


PENDING = Answer(200, {"id": f"sync-{QUEUED}", "status": "IN_QUEUE"})


def test_waiting_for_a_worker(gpu: World, api: RunpodApi) -> None:
    """A question that no worker has taken in time is polled for, through states that are not final."""
    output = {"status": "completed"}
    states = ("IN_QUEUE", "IN_PROGRESS", "SOMETHING_NEW")
    api.script("runsync", PENDING)
    api.script("status", *(Answer(200, {"id": "x", "status": state, "output": "50 %"}) for state in states))
    api.script("status", Answer(200, {"id": "x", "status": "COMPLETED", "output": output}))
    assert gpu.open().status("p1").status == "done"
    assert api.operations() == ["runsync", *["status"] * 4]
    [wait] = parse_qs(urlsplit(api.asked[0].path).query)["wait"]
    assert 1.0 <= float(wait) / 1000 < gpu.http.stall  # or the connection would be given up before the answer


def test_no_worker_answers(gpu: World, api: RunpodApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that no worker takes is given up, and cancelled so that it costs nothing later; it is not repeated."""
    monkeypatch.setattr(runpod, "POLL_SECONDS", -1.0)
    api.script("runsync", PENDING)
    with pytest.raises(NetworkError, match="no worker answered") as caught:
        gpu.open().status("p1")
    assert "mdl remote check gpu" in str(caught.value.hint)
    assert [one.path.partition("?")[0].rpartition("/v2/abc123/")[2] for one in api.asked] == [
        "runsync",
        f"cancel/sync-{QUEUED}",
    ]


@pytest.mark.fault(406)
@pytest.mark.parametrize("forgotten", [1, 2])
def test_an_answer_that_expired(gpu: World, api: RunpodApi, forgotten: int) -> None:
    """A question whose answer the queue has forgotten is asked once more, by /run, whose answer is kept for longer."""
    api.functions = [worker(process_status={"status": "completed"})]
    for operation in ("runsync", "run")[:forgotten]:
        api.script(operation, PENDING)
    if forgotten == 1:
        assert gpu.open().status("p1").status == "done"
    else:
        with pytest.raises(ProtocolError, match="no longer has the request"):
            gpu.open().status("p1")
    assert api.operations() == ["runsync", "status", "run", "status"]


@pytest.mark.fault(409)
@pytest.mark.parametrize(
    ("job", "operation", "answers", "sent"),
    [
        ("p1", "runsync", [Answer(0, b"")], ["runsync"]),
        ("p1", "runsync", [Answer(502, HTML)], ["runsync"]),
        ("p1", "runsync", [Answer(429, b"", {"Retry-After": "1"})], ["runsync"]),
        ("p1", "runsync", [PENDING], ["runsync", "status"]),
        (QUEUED, "cancel", [Answer(0, b"")], ["cancel"]),
        (QUEUED, "cancel", [Answer(500, b"")], ["cancel"]),
    ],
)
def test_nothing_is_cancelled_twice(
    gpu: World, api: RunpodApi, job: str, operation: str, answers: list[Answer], sent: list[str]
) -> None:
    """If the connection dies after a cancel was read, or its answer is lost, it is not sent again; the hint says how
    to find out. A read that is lost in the same way is repeated, which is the control."""
    api.functions = [worker(cancel={"message": "Process cancelled"}, process_status={"status": "running"})]
    api.script(operation, *answers)
    with pytest.raises(NetworkError) as caught:
        gpu.open().cancel(job)
    assert api.operations() == sent
    assert f"may have been carried out: 'mdl remote status gpu {job}'" in str(caught.value.hint)
    api.script("runsync", *answers)
    assert gpu.open().status("p1").status == "running"
    asked = [one for one in api.operations()[len(sent) :] if one in ("runsync", "run")]
    assert len(asked) > 1


@pytest.mark.fault(408)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"message": "Process cancelled"}, ""),
        ({"success": True}, ""),
        ({"status": "cancelled"}, ""),
        ({"success": False, "message": "Process is completed"}, "Process is completed"),
        ({"status": "completed", "message": "too late"}, "too late"),
        ({"status": "error", "message": "no"}, "no"),
        ({"error": "Process cannot be cancelled"}, "Process cannot be cancelled"),
        ({"status": "success", "message": "Process cancelled"}, ""),
        ({"status": "stopped"}, ""),
        ({"status": "running"}, "running"),
        ({}, "it does not say why"),
    ],
)
def test_cancel_by_a_worker(gpu: World, api: RunpodApi, answer: dict[str, Any], words: str) -> None:
    """Only an answer that says so is a cancelled process; any other is an error in the worker's words."""
    api.functions = [worker(cancel=UNKNOWN), worker(cancel=answer)]
    if words:
        with pytest.raises(MdlError, match=words):
            gpu.open().cancel("p1")
    else:
        assert gpu.open().cancel("p1").status == "cancelled"
    assert len(api.asked) == 2


def test_cancel_of_what_no_worker_knows(gpu: World, api: RunpodApi) -> None:
    """A worker that does not know the process did nothing, so another one is asked; then it is not found."""
    api.functions = [worker(cancel={"error": "Process not found or cannot be cancelled"})]
    with pytest.raises(NotFound, match=r"workers 3 times; .*cannot be cancelled"):
        gpu.open().cancel("p1")
    assert len(api.asked) == 3


@pytest.mark.fault(408)
@pytest.mark.parametrize(("status", "words"), [("IN_QUEUE", ""), ("COMPLETED", "not cancelled: completed")])
def test_cancel_by_the_queue(gpu: World, api: RunpodApi, status: str, words: str) -> None:
    """An id of the queue is cancelled there; what is over already is said not to be cancelled."""
    queued(api, status)
    if words:
        api.jobs[QUEUED].done.set()
        with pytest.raises(UsageError, match=words):
            gpu.open().cancel(QUEUED)
    else:
        assert gpu.open().cancel(QUEUED).status == "cancelled"
    assert api.operations() == ["cancel"]


def test_an_id_that_leads_elsewhere(gpu: World, api: RunpodApi) -> None:
    """An id with a slash or dots is refused before anything is asked."""
    remote = gpu.open()
    for job in ("../health", "a/b", "..", ""):
        for ask in (remote.status, remote.cancel, lambda job: remote.files(JobOrigin("gpu", job))):
            with pytest.raises(MdlError):
                ask(job)
    assert api.asked == []


@pytest.mark.parametrize("is_polling", [True, False])
def test_a_stop_while_waiting(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, is_polling: bool) -> None:
    """A stop ends the wait for a worker at once: while its answer is waited for, and between two polls."""
    monkeypatch.setattr(runpod, "POLLS", (600.0,))
    if is_polling:
        endpoint.api.script("runsync", PENDING)
    with world({"gpu": settings(endpoint)}, ENVIRON, stall=60.0) as made, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(made.open().status, "p1")
        until(lambda: endpoint.api.asked)
        made.http.cancel.set()
        with pytest.raises(Cancelled):
            asking.result(15)  # /runsync waits for 55 seconds, and 600 are between two polls


# Health.


@pytest.mark.parametrize(
    ("workers", "ok", "detail"),
    [
        ({"idle": 2, "running": 1, "throttled": 0}, True, "2 idle, 1 running"),
        ({"idle": 0, "throttled": 3}, False, "3 throttled"),
        ({"unhealthy": 1, "ready": 1}, True, "1 ready, 1 unhealthy"),
        ({}, True, "none now"),
        (None, True, "none now"),
        ({"idle": 1, "huge": 10**90}, True, "1 idle"),
    ],
)
def test_check(gpu: World, api: RunpodApi, workers: Any, ok: bool, detail: str) -> None:
    """A check tells of the endpoint's workers and queue; none at all have been scaled away, none that can work is a
    failure. No worker is asked, so one whose own health check crashes does no harm."""
    jobs = {"completed": 5, "failed": 1, "inProgress": 0, "inQueue": 2, "retried": 0}
    api.script("health", *[Answer(200, {"jobs": jobs, "workers": workers})] * 2)
    rows = {row.name: row for row in gpu.open().check()}
    assert (rows["workers"].ok, rows["workers"].detail) == (ok, detail)
    assert rows["workers"].error is None if ok else rows["workers"].error.exit_code == 5
    assert rows["queue"].detail == "2 waiting, 0 running"
    numbers = gpu.open().metrics()
    assert (numbers["jobs_in_queue"], numbers["jobs_failed"]) == (2.0, 1.0)
    counted = {state: count for state, count in (workers or {}).items() if count < 10**90}
    assert [numbers[f"workers_{state}"] for state in counted] == [float(n) for n in counted.values()]
    assert api.operations() == ["health", "health"]


@pytest.mark.parametrize(("status", "code"), [(401, 4), (404, 3), (500, 5)])
def test_check_of_an_endpoint_that_fails(gpu: World, api: RunpodApi, status: int, code: int) -> None:
    """An endpoint that fails is a row that keeps its error."""
    api.script("health", *[Answer(status, b"<title>no</title>")] * 3)
    [row] = gpu.open().check()
    assert (row.name, row.ok, row.error.exit_code if row.error else 0) == ("endpoint", False, code)
    assert str(status) in row.detail


# Whole fetches.


class Bucket:
    """What signed links lead to: one file, for requests with the newest token; older ones have expired."""

    def __init__(self, data: bytes) -> None:
        self.data, self.tokens, self.drop_at = data, 0, 0
        self.requests: list[Request] = []

    def link(self, server: FaultyServer) -> str:
        self.tokens += 1
        return f"{server.url}/b/results/p1/lora/a.bin?X-Amz-Signature=CANARY{self.tokens}"

    def __call__(self, request: Request, number: int) -> Reply:
        self.requests.append(request)
        if not request.query.endswith(f"CANARY{self.tokens}"):
            return reply(403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
        if self.drop_at and request.header("range") != "bytes=0-0":
            at, self.drop_at = self.drop_at, 0
            self.tokens += 1  # and the link is no longer good
            return faults.short_body(self.data, at, end="close")(request, number)
        return faults.honest(self.data)(request, number)


@pytest.mark.fault(410)
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("drop_at", [0, 900_000])
def test_fetch_by_a_link(gpu: World, api: RunpodApi, tmp_path: Path, told: bool, drop_at: int) -> None:
    """The link of the plan is used for the download, and a new one asked for only if it fails: then the download goes
    on at the same byte. The bucket gets no key and no HEAD; no link is in any file, message or receipt."""
    data = noise(3 * MIB)
    bucket = Bucket(data)
    with FaultyServer(bucket) as server:
        size = {"size": len(data)} if told else {}
        api.functions = [worker(bulk_download=lambda given: links(bucket.link(server), **size))]
        bucket.drop_at = drop_at
        report = gpu.fetch(tmp_path / "home", JobOrigin("gpu", "p1"))
    assert (report.exit_code, report.bytes_fetched) == (0, len(data)), report.error
    assert (tmp_path / "home" / "m0" / "a.bin").read_bytes() == data
    assert api.operations() == ["runsync"] * (2 if drop_at else 1)
    assert {request.method for request in bucket.requests} == {"GET"}
    assert not any(request.header("authorization") for request in bucket.requests)
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file() and b"CANARY" in path.read_bytes()]


@pytest.mark.parametrize(("status", "code"), [(403, 4), (404, 3)])
def test_a_link_that_always_fails(gpu: World, api: RunpodApi, tmp_path: Path, status: int, code: int) -> None:
    """A new link is asked for a few times and no more; the error has the bucket's words, no signature, and a hint that
    is of the file, not of the hub."""
    refusal = reply(status, b"<Error><Code>X</Code><Message>it is gone</Message></Error>")
    with FaultyServer(lambda request, number: refusal) as server:
        url = f"{server.url}/b/results/p1/a.safetensors?X-Amz-Signature=CANARY"
        api.functions = [worker(bulk_download=links(url, size=2 * MIB))]
        report = gpu.fetch(tmp_path / "home", JobOrigin("gpu", "p1"))
    assert report.error is not None
    assert (report.exit_code, report.error.hint) == (
        code,
        "look whether the file is still there, and whether the keys for it may read it",
    )
    assert f"{status}" in report.error.message
    assert "it is gone" in report.error.message
    assert "CANARY" not in all_of(report.error)
    assert len(api.asked) == 3


@pytest.mark.fault(411)
def test_a_link_to_another_host(gpu: World, api: RunpodApi, tmp_path: Path) -> None:
    """A link to a host that nobody allowed is refused by name."""
    api.functions = [worker(bulk_download=links("http://elsewhere.example/results/p1/a.safetensors?s=CANARY", size=9))]
    report = gpu.fetch(tmp_path / "home", JobOrigin("gpu", "p1"))
    assert report.exit_code == 11
    assert "elsewhere.example is not on the allow-list" in str(report.error)
    assert "redirects" not in str(report.error)


def test_bulk(gpu: World, api: RunpodApi, tmp_path: Path) -> None:
    """Many jobs at once: each has its own folder and its own outcome."""

    def download(given: dict[str, Any]) -> Any:
        name = given["process_id"]
        return UNKNOWN if name == "p2" else FILE | {"filename": f"{name}.bin"}

    api.functions = [worker(download=download)]
    report = gpu.fetch(tmp_path / "home", *(JobOrigin("gpu", name) for name in ("p1", "p2", "p3")))
    assert [model.error.exit_code if model.error else 0 for model in report.models] == [0, 3, 0]
    assert sorted(path.name for path in (tmp_path / "home").glob("m*/*")) == ["p1.bin", "p3.bin"]


def test_large_answers_are_not_all_held(
    gpu: World, api: RunpodApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of answers that carry their files only so many are held; a file whose answer was let go is asked for again."""
    monkeypatch.setattr("mdl.results.links.LARGEST_DOCUMENT", 12_000)
    origins = [JobOrigin("gpu", f"p{number}") for number in range(6)]
    api.functions = [worker(download=lambda given: FILE | {"filename": f"{given['process_id']}.bin"})]
    report = gpu.fetch(tmp_path / "home", *origins)
    assert report.exit_code == 0
    assert len(list((tmp_path / "home").glob("m*/*.bin"))) == 6
    remote = gpu.open()
    urls = [file.url for origin in origins for file in remote.files(origin)]
    asked = len(api.asked)
    assert remote.locate(urls[0]).response({}).read() == DATA
    again = len(api.asked)
    assert again > asked
    assert remote.locate(urls[-1]).response({}).read() == DATA
    assert len(api.asked) == again


@pytest.mark.fault(410)
@pytest.mark.parametrize(
    ("lives", "later", "questions"), [(3600, 3500, 1), (3600, 3550, 2), (30, 10, 1), (30, 20, 2), (30, 40, 2)]
)
def test_a_link_that_expires_soon(
    gpu: World, api: RunpodApi, monkeypatch: pytest.MonkeyPatch, lives: int, later: int, questions: int
) -> None:
    """A link that expires within a minute is not handed out, if it ever had more: the worker is asked for another."""
    signed, now = 1_800_000_000, 1_800_000_000.0
    monkeypatch.setattr("mdl.results.links.time", SimpleNamespace(time=lambda: now))
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(signed))
    query = f"X-Amz-Date={stamp}&X-Amz-Expires={lives}&X-Amz-Signature=s"
    api.functions = [worker(bulk_download=links(f"http://127.0.0.1/results/p1/a.bin?{query}", size=9))]
    remote = gpu.open()
    [file] = remote.files(JobOrigin("gpu", "p1"))
    now = float(signed + later)
    remote.locate(file.url)
    assert len(api.asked) == questions


def test_one_remote_for_all_threads(gpu: World, api: RunpodApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of threads that want a remote at the same moment one opens it: two would each ask for what the other knows."""
    opened: list[object] = []
    both = threading.Barrier(2)

    def slow(*_: object) -> object:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        opened.append(object())
        return opened[-1]

    monkeypatch.setattr("mdl.results.base.open_remote", slow)
    source = JobSource(gpu.context)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(source.remote, ("gpu", "gpu")))
    assert len(opened) == 1


# The real SDK's workers.


REAL = only_long("workers of the real SDK")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Two workers of the real SDK, which share no memory, and take the jobs in turns."""
    pytest.importorskip("runpod")
    with runpod_endpoint(tmp_path_factory.mktemp("workers"), 2) as found:
        wait_for_workers(found)
        yield found


@pytest.fixture
def real_gpu(real: Endpoint) -> Iterator[World]:
    real.api.asked.clear()
    with world({"gpu": settings(real)}, ENVIRON, stall=30.0) as made:
        yield made


def train(world: World, name: str, status: str = "completed", **files: int) -> None:
    """One of the two workers knows the process from now on."""
    found = {path.replace("__", "/"): size for path, size in files.items()}
    given = {"type": "train", "process_id": name, "status": status, "files": found}
    assert world.open().call(given)["process_id"] == name


@REAL
@pytest.mark.fault(401)
def test_real_workers_tell_and_cancel(real_gpu: World) -> None:
    """Whichever of two workers answers first: the status is found, a running process is cancelled once, and a
    completed one is not; an unknown one is told with how often workers were asked."""
    remote = real_gpu.open()
    train(real_gpu, "running", "running", a=1)
    assert remote.status("running").status == "running"
    assert remote.cancel("running").status == "cancelled"
    with pytest.raises(UsageError, match="Process is cancelled"):
        remote.cancel("running")
    with pytest.raises(NotFound, match="workers 3 times; the last answer: Process not found"):
        remote.status("nobody")


@REAL
def test_real_workers_hand_over_files(real_gpu: World, tmp_path: Path) -> None:
    """Without a bucket the files come inline, one by one, from the worker that has them, with their right bytes."""
    from support.runpod_handler import pattern

    train(real_gpu, "p1", lora__a_safetensors=400_000, lora__b_bin=7, samples__x_png=5)
    report = real_gpu.fetch(tmp_path, JobOrigin("gpu", "p1"))
    assert report.exit_code == 0, report.error
    names = {path.relative_to(tmp_path / "m0").as_posix(): path.read_bytes() for path in tmp_path.glob("m0/*/*")}
    assert names == {name: pattern(name, size) for name, size in (("lora/a_safetensors", 400_000), ("lora/b_bin", 7))}


@REAL
@pytest.mark.fault(400)
def test_real_workers_result_too_large(real_gpu: World) -> None:
    """A file that is too large for an answer is told as such: the endpoint completes the job without an output."""
    train(real_gpu, "large", big=16 * MIB)
    remote = real_gpu.open()
    [file] = remote.files(JobOrigin("gpu", "large"))
    with pytest.raises(ProtocolError, match="larger than 20 MiB") as caught:
        remote.locate(file.url)
    assert "presigned URLs" in str(caught.value.hint)


@REAL
def test_a_real_worker_with_a_bucket(s3_url: str, tmp_path: Path) -> None:
    """A worker that writes to a bucket answers with signed links: it is asked once for the plan and the download, and
    neither the link nor a key is in anything that is kept."""
    pytest.importorskip("boto3")
    from support.runpod_handler import pattern

    store = JobStore.at(s3_url)
    keys = {"S3_BUCKET": store.bucket, "S3_ENDPOINT": s3_url, "S3_KEY": "a", "S3_SECRET": "secret-canary"}
    with (
        runpod_endpoint(tmp_path / "workers", 1, keys) as endpoint,
        world({"gpu": settings(endpoint)}, ENVIRON, stall=30.0) as made,
    ):
        train(made, "p1", lora__a_bin=3 * MIB, samples__x_png=5)
        report = made.fetch(tmp_path / "home", JobOrigin("gpu", "p1"))
    assert report.exit_code == 0, report.error
    assert (tmp_path / "home" / "m0" / "a_bin").read_bytes() == pattern("lora/a_bin", 3 * MIB)
    assert endpoint.api.operations() == ["runsync", "runsync"]
    kept = [path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not [text for text in kept if b"X-Amz" in text or b"canary" in text or KEY.encode() in text]
