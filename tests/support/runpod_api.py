"""RunPod's documented API on loopback, in front of real workers of the runpod SDK.

A client talks to ``POST /v2/ID/run``, ``/runsync``, ``GET /status/JOB`` and so on; the workers are processes of the
test that take jobs from, and give results to, the same server as they do in production. Two workers take the jobs in
turns and share no memory.

Source of the shapes: RunPod's documentation of endpoint operations, and the SDK (runpod 1.12) for the workers' side.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from support.polling import until

KEY = "rpa_KEY-OF-THE-TESTS"
ENDPOINT = "abc123"
HANDLER = Path(__file__).with_name("runpod_handler.py")
MIB = 2**20
LIMITS = {"run": 10 * MIB, "runsync": 20 * MIB}
"""Bytes that a request may have, and its result."""
_POLL_SECONDS = 20.0


@dataclass
class Answer:
    """One answer. With the status 0 none is given: the connection ends after the request was read."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Job:
    """One request to the endpoint, and what a worker made of it."""

    id: str
    input: dict[str, Any]
    limit: int
    status: str = "IN_QUEUE"
    output: Any = None
    has_output: bool = False
    pieces: list[Any] = field(default_factory=list)
    """What a generator yields, which is given once, in a stream."""
    error: str | None = None
    worker: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def told(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"id": self.id, "status": self.status, "delayTime": 12, "executionTime": 34}
        if self.has_output:
            facts["output"] = self.output
        if self.error is not None:
            facts["error"] = self.error
        return facts | ({"workerId": self.worker} if self.worker else {})


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class RunpodApi:
    """The endpoint's queue. ``asked`` is what clients asked; ``scripted`` answers come first: an answer for each
    operation (``run``, ``runsync``, ``status``, ``stream``, ``cancel``, ``health``), used once, in their order."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.scripted: dict[str, deque[Answer]] = {}
        self.jobs: dict[str, Job] = {}
        self.workers: list[str] = []
        self.functions: list[Callable[[dict[str, Any]], Any]] = []
        """Workers in this process, which are quick: each is a handler that gets an input. They take the jobs in
        turns, if there are any."""
        self._queue: dict[str, deque[Job]] = {}
        self._turns = itertools.count()
        self._changed = threading.Condition()
        self.is_closed = False

    def script(self, operation: str, *answers: Answer) -> None:
        """The next requests for this operation get these answers."""
        self.scripted.setdefault(operation, deque()).extend(answers)

    def expire(self) -> None:
        """Forget every job and result, as RunPod does after its time."""
        with self._changed:
            self.jobs.clear()

    def operations(self) -> list[str]:
        """The operation of each request of a client, in order."""
        return [one.path.partition("?")[0].split("/")[3] for one in self.asked]

    # What clients ask.

    def answer(self, asked: Asked) -> Answer:
        path, _, query = asked.path.partition("?")
        parts = path.strip("/").split("/")
        if parts[0] != "v2":
            return self._answer_worker(parts, asked)
        self.asked.append(asked)
        operation = parts[2] if len(parts) > 2 else ""
        if self.scripted.get(operation):
            return self.scripted[operation].popleft()
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            return Answer(401, b"Unauthorized")
        if parts[1] != ENDPOINT:
            return Answer(404, {"error": "endpoint not found"})
        return self._answer_client(operation, parts[3:], parse_qs(query), asked)

    def _answer_client(self, operation: str, rest: list[str], query: dict[str, list[str]], asked: Asked) -> Answer:
        if asked.method == "POST" and operation in LIMITS:
            if len(asked.body) > LIMITS[operation]:
                size = LIMITS[operation] // MIB
                return Answer(400, f"bad request: body: exceeded max body size of {size}MiB".encode())
            job = self.submit(json.loads(asked.body)["input"], operation)
            if operation == "run":
                return Answer(200, {"id": job.id, "status": "IN_QUEUE"})
            job.done.wait(float(query.get("wait", ["90000"])[0]) / 1000)
            return Answer(200, job.told())
        if operation == "health":
            return Answer(200, self._health())
        job_asked = self.jobs.get(rest[0]) if rest else None
        if job_asked is None:
            return Answer(404, {"error": "job not found"})
        if asked.method == "GET" and operation == "status":
            return Answer(200, job_asked.told())
        if asked.method == "GET" and operation == "stream":
            pieces = [{"output": piece} for piece in job_asked.pieces]
            job_asked.pieces = []
            return Answer(200, {"status": job_asked.status, "stream": pieces})
        if asked.method == "POST" and operation == "cancel":
            if not job_asked.done.is_set():
                job_asked.status = "CANCELLED"
                job_asked.done.set()
            return Answer(200, {"id": job_asked.id, "status": job_asked.status})
        return Answer(404, b"404 page not found")

    def submit(self, given: dict[str, Any], operation: str) -> Job:
        with self._changed:
            name = f"{'sync-' if operation == 'runsync' else ''}{uuid.uuid4()}-u1"
            job = self.jobs[name] = Job(name, given, LIMITS[operation])
            worker = self.workers[next(self._turns) % len(self.workers)] if self.workers else ""
            self._queue.setdefault(worker, deque()).append(job)
            self._changed.notify_all()
        if self.functions:
            self._run(job, self.functions[next(self._turns) % len(self.functions)])
        return job

    def _run(self, job: Job, function: Callable[[dict[str, Any]], Any]) -> None:
        """As the SDK does it: ``error`` is taken out of the handler's answer."""
        output = function(job.input)
        output = dict(output) if isinstance(output, dict) else output
        error = output.pop("error", None) if isinstance(output, dict) else None
        result = {"output": output} | ({"error": error} if error else {})
        self._finish("function", job.id, json.dumps(result).encode())

    def _health(self) -> dict[str, Any]:
        states = [job.status for job in self.jobs.values()]
        counts = {
            "completed": states.count("COMPLETED"),
            "failed": states.count("FAILED"),
            "inProgress": states.count("IN_PROGRESS"),
            "inQueue": states.count("IN_QUEUE"),
            "retried": 0,
        }
        busy = min(counts["inProgress"], len(self.workers))
        workers = {"idle": len(self.workers) - busy, "running": busy, "initializing": 0, "throttled": 0, "unhealthy": 0}
        return {"jobs": counts, "workers": workers}

    # What workers ask: /job-take/ID/WORKER, /job-stop/ID/WORKER, /job-done/ID/WORKER/JOB, /ping/ID/WORKER.

    def _answer_worker(self, parts: list[str], asked: Asked) -> Answer:
        if parts[0] == "job-take":
            return self._take(parts[2])
        if parts[0] == "job-stop":
            with self._changed:
                self._changed.wait_for(lambda: self.is_closed, _POLL_SECONDS)
            return Answer(204, b"")
        if parts[0] == "job-done":
            return self._finish(parts[2], parts[3], asked.body)
        return Answer(200, {})

    def _take(self, worker: str) -> Answer:
        with self._changed:
            waiting = self._queue.setdefault(worker, deque())
            if not self._changed.wait_for(lambda: waiting or self.is_closed, _POLL_SECONDS) or self.is_closed:
                return Answer(204, b"")
            job = waiting.popleft()
            job.status, job.worker = "IN_PROGRESS", worker
        return Answer(200, {"id": job.id, "input": job.input})

    def _finish(self, worker: str, name: str, body: bytes) -> Answer:
        job = self.jobs.get(name)
        if job is None or job.done.is_set():
            return Answer(200, {})
        fits = len(body) <= job.limit
        result = json.loads(body) if fits else {}
        job.error, job.has_output = result.get("error"), "output" in result
        job.output = result.get("output")
        job.status = "FAILED" if job.error is not None else "COMPLETED"
        job.done.set()
        return Answer(200, {}) if fits else Answer(400, b"bad request: body: exceeded max body size")

    def close(self) -> None:
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, api: RunpodApi) -> None:
        self.api = api
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients and workers may leave at any time."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are recorded instead."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.api.answer(Asked(self.command, self.path, headers, body))
        if not answer.status:
            self.close_connection = True
            return
        content = answer.content
        self.send_response(answer.status)
        kind = "text/plain" if isinstance(answer.body, bytes) else "application/json"
        for name, value in {"Content-Type": kind, **answer.headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content)

    do_POST = do_HEAD = do_GET  # noqa: N815


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint. ``base_url`` is what a client puts before ``/run``."""

    api: RunpodApi
    base_url: str
    workers: list[subprocess.Popen[bytes]]


@contextmanager
def runpod_endpoint(folder: Path, workers: int = 0, environ: dict[str, str] | None = None) -> Iterator[Endpoint]:
    """An endpoint with so many real workers, whose handler is `HANDLER` and gets ``environ``."""
    api = RunpodApi()
    server = _Server(api)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    started: list[subprocess.Popen[bytes]] = []
    try:
        for index in range(workers):
            name = f"worker{index}"
            api.workers.append(name)
            started.append(_start_worker(folder, name, url, environ or {}))
        yield Endpoint(api, f"{url}/v2/{ENDPOINT}", started)
    finally:
        api.close()
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the SDK's own child for heartbeats too
            process.wait()
        server.shutdown()
        server.server_close()
        thread.join()


def _start_worker(folder: Path, name: str, url: str, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    settings = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "RUNPOD_WEBHOOK_GET_JOB": f"{url}/job-take/{ENDPOINT}/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{url}/job-done/{ENDPOINT}/$RUNPOD_POD_ID/$ID?gpu=none",
        "RUNPOD_WEBHOOK_PING": f"{url}/ping/{ENDPOINT}/$RUNPOD_POD_ID",
        "RUNPOD_POD_ID": name,
        "RUNPOD_AI_API_KEY": "key-of-the-worker",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        **environ,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.log").open("wb") as log:
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        return subprocess.Popen([sys.executable, str(HANDLER)], env=settings, cwd=folder, process_group=0, **streams)


def wait_for_workers(endpoint: Endpoint) -> None:
    """Until every worker has answered a job."""
    api = endpoint.api
    for _ in api.workers:
        job = api.submit({"type": "health"}, "run")
        until(job.done.is_set)
