"""A training server: its routes, its jobs and checkpoints, and the URL of a zip that says which job it is of."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.cases import each
from support.faulty_server import Answer, FaultyServer, Request, json_reply, reply
from support.polling import until
from support.remotes import KEY_CANARY, World, world
from support.trainer import training_server

from mdl.errors import AuthError, Cancelled, MdlError, NetworkError, NotFound, ProtocolError, Unsafe, UsageError
from mdl.results.base import JobOrigin
from mdl.results.job_server import Trainer, routes_in

ENVIRON = {"BOX_KEY": KEY_CANARY}


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The folder of a real FastAPI server's runs, and its URL."""
    with training_server(tmp_path) as url:
        yield tmp_path, url


@pytest.fixture
def box(runs: tuple[Path, str]) -> Iterator[World]:
    with world({"box": {"kind": "trainer", "url": runs[1]}}) as made:
        yield made


@pytest.fixture
def job(runs: tuple[Path, str]) -> Callable[..., str]:
    """Makes the job ``j1``, with checkpoints of these steps, or changes its facts; returns its id."""

    def make(*steps: int, **facts: Any) -> str:
        folder = runs[0] / "j1"
        for step in steps:
            (folder / f"checkpoint-{step}").mkdir(parents=True, exist_ok=True)
            (folder / f"checkpoint-{step}" / "model.bin").write_bytes(b"x" * step)
        folder.mkdir(exist_ok=True)
        (folder / "job.json").write_text(json.dumps(facts))
        return "j1"

    return make


class Script:
    """A server with these answers by method and path: JSON, or an answer as it is. What was asked is kept."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[Request] = []

    def __call__(self, request: Request, number: int) -> Answer:
        self.asked.append(request)
        found = self.answers.get(f"{request.method} {request.path}")
        if found is None:
            return json_reply({"detail": "Not Found"}, status=404)
        if isinstance(found, Answer):
            return found
        status, value = found if isinstance(found, tuple) else (200, found)
        return json_reply(value, status=status)

    def paths(self) -> list[str]:
        return [request.path for request in self.asked if request.path != "/openapi.json"]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def scripted(script: Script) -> Iterator[World]:
    with FaultyServer(script) as server, world(_box(server), ENVIRON) as made:
        yield made


def _box(server: FaultyServer, **more: str) -> dict[str, dict[str, str]]:
    return {"box": {"kind": "trainer", "url": server.url, "api_key_env": "BOX_KEY", **more}}


# Routes.


def paths(*gets: str, posts: tuple[str, ...] = ()) -> dict[str, Any]:
    return {path: {"get": {}} for path in gets} | {path: {"post": {}} for path in posts}


@each(
    ("described", "routes"),
    [
        (paths(), {}),
        (paths("/jobs", "/jobs/{id}", "/jobs/{id}/checkpoints"), {"jobs": "/jobs", "job": "/jobs/{}"}),
        (
            paths("/v1/{run}/download", posts=("/v1/{run}/cancel",)),
            {"model": "/v1/{}/download", "cancel": "/v1/{}/cancel"},
        ),
        (paths("/x/{a}/download/model", "/x/{a}/model"), {"model": "/x/{}/download/model"}),
        (paths("/x/{a}/download/logs", "/x/{a}/logs"), {"logs": "/x/{}/download/logs"}),
        (paths("/jobs/{a}/{b}", "/checkpoints", "/filesystem/checkpoints/{a}"), {}),
        ({"/jobs": None, 3: {}}, {}),
    ],
)
def test_routes_of_a_description(described: dict[str, Any], routes: dict[str, str]) -> None:
    """A route is known by its method and the shape of its path, whatever its parameter is called."""
    found = routes_in(described)
    assert {route: found.get(route) for route in routes} == routes
    assert bool(found) == bool(routes)


@each("head", ["http://other", "@other", ".other", "1", "/a?b=", "/a#", "/a b"])
def test_a_route_that_is_no_path(head: str) -> None:
    """What would change the host, the port or the query of the server's URL is no route of it."""
    assert routes_in({f"{head}/{{id}}/download/model": {"get": {}}, "/jobs" + "/jobs" * 999: {"get": {}}}) == {}


def test_routes_of_a_real_server(box: World, job: Callable[..., str]) -> None:
    """A FastAPI server describes its routes, and they are used; a check says where its models are."""
    name = job(5)
    remote = box.open("box")
    assert remote.status(name).status == "done"  # at /api/training/status/ID, which is not the usual place
    rows = {row.name: row.detail for row in remote.check()}
    assert rows["routes"] == "models are at /api/training/{job}/download/model"
    assert re.fullmatch(r"[1-9]\d* known, \d+ not over", rows["jobs"])
    assert box.open("box").metrics() == {}


@pytest.mark.parametrize("description", [(404, {}), (500, {}), (401, {}), (200, ["x"]), (200, {"paths": 3})])
def test_a_server_that_does_not_describe_itself(scripted: World, script: Script, description: tuple[int, Any]) -> None:
    """Without a description the usual routes are asked."""
    script.answers = {
        "GET /openapi.json": description,
        "GET /api/training/jobs": {"jobs": {"j1": {"status": "running"}, "j2": {"status": "stopped"}}},
    }
    assert {one.id: one.status for one in scripted.open("box").jobs()} == {"j1": "running", "j2": "cancelled"}


@pytest.mark.parametrize(
    ("answer", "jobs"),
    [
        ([{"id": "a", "created_at": 1}, {"job_id": "b", "created_at": 2}], ["b", "a"]),
        ({"running_jobs": [{"job_id": "a"}], "queued_jobs": [{"job_id": "b"}], "total": 2}, ["a", "b"]),
        ({"jobs": [{"job_id": "a"}], "running_jobs": [{"job_id": "a"}]}, ["a"]),
        ({"success": True, "data": {"jobs": [{"id": "a"}], "total": 1}}, ["a"]),
        ({"items": [{"id": "a"}, {"id": "b"}], "total": 2, "page": 1}, ["a", "b"]),
        ({"runs": [{"run_id": "a"}]}, ["a"]),
        ({"data": [{"uuid": "a"}]}, ["a"]),
        ({"jobs": None}, []),
        ({"jobs": None, "data": {"jobs": [{"id": "a"}]}}, ["a"]),
        ({"running_jobs": None, "queued_jobs": [{"id": "a"}]}, ["a"]),
        ({"running_jobs": None}, []),
        ({"success": True, "data": None}, []),
        ({"success": True, "data": {"jobs": None, "total": 0}}, []),
        ({}, []),
        ({"data": {"data": [{"id": "a"}]}}, ["a"]),
        ({"data": {"data": {"data": [{"id": "a"}]}}}, None),
        ({"message": "see /docs"}, None),
        ("soon", None),
    ],
)
def test_lists_of_jobs(scripted: World, script: Script, answer: Any, jobs: list[str] | None) -> None:
    """Jobs come in one list, in several, or by their names, each once; anything else is a server that lies."""
    script.answers["GET /api/training/jobs"] = answer
    if jobs is None:
        with pytest.raises(ProtocolError):
            scripted.open("box").jobs()
    else:
        assert [one.id for one in scripted.open("box").jobs()] == jobs


@each("following", ["?page=2", "/api/training/jobs?page=2", "{url}/api/training/jobs?page=2"])
def test_jobs_on_several_pages(following: str) -> None:
    """The page that an answer names is asked too, if it is one of the same server; one that is named again is an
    error."""

    def serve(request: Request, number: int) -> Answer:
        if request.path != "/api/training/jobs":
            return json_reply({}, status=404)
        if request.query:
            return json_reply({"items": [{"id": "b"}], "next": "https://other.example/jobs?page=3"})
        return json_reply({"items": [{"id": "a"}], "next": following.replace("{url}", server.url)})

    with FaultyServer(serve) as server, world({"box": {"kind": "trainer", "url": server.url}}) as made:
        assert [job.id for job in made.open("box").jobs()] == ["a", "b"]
    with (
        FaultyServer(lambda request, number: json_reply({"items": [{"id": "a"}], "next": "?page=1"})) as server,
        world({"box": {"kind": "trainer", "url": server.url}}) as made,
        pytest.raises(ProtocolError, match=r"nothing new|circles"),
    ):
        made.open("box").jobs()


def test_a_page_without_jobs_is_the_last(script: Script, scripted: World) -> None:
    """Whatever next page it names: a server that names one always has no other end."""
    script.answers["GET /api/training/jobs"] = {"jobs": [], "next": "/jobs?cursor=x"}
    assert scripted.open("box").jobs() == []


@each("following", ["http://[x", "//[x", "http://h:ab/", "http://h:999999/"])
def test_a_next_page_without_a_usable_address(scripted: World, script: Script, following: str) -> None:
    script.answers["GET /api/training/jobs"] = {"jobs": [{"id": "a"}], "next": following}
    assert [job.id for job in scripted.open("box").jobs()] == ["a"]


# Checkpoints.

ROWS = [
    {"path": "runs/j1/checkpoint-500", "step": 500, "size_bytes": 9},
    {"name": "checkpoint-1000", "step": 1000, "is_latest": True},
    {"name": "final", "step": None},
]


@pytest.mark.parametrize(
    ("asked", "best", "found"),
    [
        ("checkpoint-500", None, "checkpoint-500"),
        ("500", None, "checkpoint-500"),
        ("final", None, "final"),
        ("latest", None, "checkpoint-1000"),
        ("best", "checkpoint-500", "checkpoint-500"),
        ("best", "/out/j1/checkpoint-500/", "checkpoint-500"),
        ("best", {"name": "final"}, "final"),
    ],
)
def test_which_checkpoint(scripted: World, script: Script, asked: str, best: Any, found: str) -> None:
    """A checkpoint is meant by its name, its step, or as the latest or the best one; it is in the URL of the zip."""
    script.answers = {
        "GET /api/training/jobs/j1": {"status": "completed"},
        "GET /api/training/jobs/j1/checkpoints": {"checkpoints": ROWS, "best_checkpoint": best},
    }
    remote = scripted.open("box")
    [file] = remote.files(JobOrigin("box", "j1", asked))
    assert (file.path.text, file.size, file.probed) == (f"model_j1_{found}.zip", None, True)
    link = remote.locate(file.url)
    assert link.url.endswith(f"/api/training/j1/download/model?checkpoint={found}")
    assert (link.patience, link.authorized) == (900.0, True)


@pytest.mark.parametrize(
    ("rows", "latest"),
    [
        ([{"name": "c-9", "step": 9}, {"name": "c-10", "step": 10}], "c-10"),
        ([{"name": "c-9", "step": "9"}, {"name": "c-10", "global_step": 10}], "c-10"),
        ([{"name": "c-9", "step": 9}, {"name": "final"}], "c-9"),
        ([{"name": "c-9", "step": 9}, {"name": "c-10"}], None),
        ([{"name": "a", "step": 9}, {"name": "b", "step": 9}], None),
        (["first", "second"], None),
        ([], None),
    ],
)
def test_the_latest_without_a_mark(scripted: World, script: Script, rows: list[Any], latest: str | None) -> None:
    """If the server marks none as the latest, the steps tell; what they cannot tell is not found, and never the first
    of the list."""
    script.answers = {"GET /api/training/jobs/j1": {}, "GET /api/training/jobs/j1/checkpoints": {"checkpoints": rows}}
    remote = scripted.open("box")
    if latest is None:
        with pytest.raises(NotFound, match=r"which checkpoint is the latest|several checkpoints"):
            remote.files(JobOrigin("box", "j1", "latest"))
    else:
        [file] = remote.files(JobOrigin("box", "j1", "latest"))
        assert file.path.text == f"model_j1_{latest}.zip"


@pytest.mark.parametrize(
    ("asked", "words"),
    [("900", "has no checkpoint '900'"), ("best", "does not say which checkpoint is the best")],
)
def test_no_such_checkpoint(scripted: World, script: Script, asked: str, words: str) -> None:
    """What the server does not list is not found, and it is said what there is; nothing is guessed for the best."""
    script.answers["GET /api/training/jobs/j1/checkpoints"] = {"checkpoints": ROWS}
    with pytest.raises(NotFound, match=words) as caught:
        scripted.open("box").files(JobOrigin("box", "j1", asked))
    assert caught.value.hint == "available: checkpoint-500, checkpoint-1000, final"


@pytest.mark.parametrize("name", ["..", "../j2", "a/b", "a\\b", "/etc", "C:x", "x\0", ""])
def test_unsafe_names(scripted: World, script: Script, name: str) -> None:
    """A job or a checkpoint whose name leads elsewhere is refused before anything is asked."""
    remote = scripted.open("box")
    calls: list[Callable[[], Any]] = [lambda: remote.status(name), lambda: remote.cancel(name)]
    calls += [lambda: remote.files(JobOrigin("box", name)), lambda: remote.checkpoints(name)]
    calls += [lambda: remote.files(JobOrigin("box", "j1", name))] if name else []
    for call in calls:
        with pytest.raises((Unsafe, UsageError)):
            call()
    assert script.asked == []


# The zip.


def test_its_url_says_whether_the_job_changed(box: World, job: Callable[..., str]) -> None:
    """The URL of a zip stays the same while the job does, and differs if its status, its time or the checkpoint
    changed; what differs is none of what the server is asked for."""
    name = job(5, status="running", updated_at="2026-01-01T00:00:00Z")
    remote: Trainer = box.open("box")

    def url(checkpoint: str = "") -> str:
        [file] = remote.files(JobOrigin("box", name, checkpoint))
        return file.url

    first, first_of_one = url(), url("5")
    assert (url(), url("5")) == (first, first_of_one)
    job(status="completed", updated_at="2026-01-01T00:00:00Z")
    assert url() != first
    job(status="running", updated_at="2026-01-01T00:00:01Z")
    assert url() != first
    job(status="running", updated_at="2026-01-01T00:00:00Z")
    assert (url(), url("5")) == (first, first_of_one)
    job(5, 6, status="running", updated_at="2026-01-01T00:00:00Z")
    assert url("5") != first_of_one  # it is no longer the latest
    assert remote.locate(first).url.endswith(f"/api/training/{name}/download/model")
    [logs] = remote.files(JobOrigin("box", name, logs=True))
    assert logs.path.text == f"logs_{name}.zip"
    link = remote.locate(logs.url)
    assert link.url.endswith(f"/api/training/{name}/download/logs")
    assert (link.patience, link.authorized) == (900.0, True)


def test_the_key_goes_to_the_server_alone(scripted: World, script: Script) -> None:
    """The key is sent with every question and with the request for the zip, and not to where that leads."""
    with FaultyServer(lambda request, number: reply(200, b"PK\x05\x06" + bytes(18))) as other:
        script.answers = {
            "GET /api/training/jobs/j1": {"status": "completed"},
            "GET /api/training/j1/download/model": reply(302, b"", ("Location", f"{other.url}/x")),
        }
        remote = scripted.open("box")
        [file] = remote.files(JobOrigin("box", "j1"))
        scripted.http.follower.locate = remote.locate
        with scripted.http.open("GET", file.url) as opened:
            assert opened.status == 200
        assert [request.header("authorization") for request in other.requests] == [None]
    assert {request.header("authorization") for request in script.asked} == {f"Bearer {KEY_CANARY}"}


# Trouble.


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (404, {"detail": "Job j1 not found"}, NotFound, "Job j1 not found.*URL of .remotes.box"),
        (422, {"detail": [{"loc": ["path"], "msg": "value is not a valid uuid"}]}, NetworkError, "not a valid uuid"),
        (400, {"detail": f"bad key {KEY_CANARY}"}, NetworkError, r"bad key \*\*\*"),
        (401, {"detail": "Not authenticated"}, AuthError, "Not authenticated.*BOX_KEY.*it is set"),
        (500, {"detail": "CUDA is gone"}, NetworkError, "CUDA is gone"),
    ],
)
def test_the_words_of_the_server(
    scripted: World, script: Script, status: int, body: Any, error: type[MdlError], words: str
) -> None:
    """A refusal is told in the server's own words, as a text or as FastAPI's list."""
    script.answers["GET /api/training/jobs/j1"] = (status, body)
    with pytest.raises(error) as caught:
        scripted.open("box").status("j1")
    assert re.search(words, f"{caught.value} {caught.value.hint}")
    assert caught.value.item == "j1"
    assert len(script.paths()) == (3 if status == 500 else 1)


@pytest.mark.fault(408, 409)
@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ({"success": True, "message": "Job cancelled"}, None, ""),
        ({"status": "stopped"}, None, ""),
        ({"status": "cancelling"}, None, ""),
        ((200, None), None, ""),
        ({"success": False, "message": "Job is already completed"}, UsageError, "Job is already completed"),
        ({"status": "completed"}, UsageError, "not cancelled.*completed"),
        ({"status": "running"}, UsageError, "not cancelled.*running"),
        ((400, {"detail": "Job is already failed"}), UsageError, "Job is already failed"),
        ((404, {"detail": "Job not found"}), NotFound, "Job not found"),
        (
            reply(502, b"<title>Bad gateway</title>"),
            NetworkError,
            "may have been carried out: 'mdl remote status box j1",
        ),
        (Answer(None, (), b"", end="close"), NetworkError, "may have been carried out: 'mdl remote status box j1"),
    ],
)
def test_cancel(scripted: World, script: Script, answer: Any, error: type[MdlError] | None, words: str) -> None:
    """A cancel is asked once. The answer is checked; if it is lost, the hint says how to find out."""
    script.answers["POST /api/training/cancel/j1"] = answer
    remote = scripted.open("box")
    if error is None:
        assert remote.cancel("j1").status == "cancelled"
    else:
        with pytest.raises(error) as caught:
            remote.cancel("j1")
        assert re.search(words, f"{caught.value} {caught.value.hint}")
    assert script.paths() == ["/api/training/cancel/j1"]


def test_cancel_on_a_real_server(box: World, job: Callable[..., str]) -> None:
    """A running job is cancelled, and then no more."""
    name = job(status="running")
    remote = box.open("box")
    assert remote.cancel(name).status == "cancelled"
    assert remote.status(name).status == "cancelled"
    with pytest.raises(UsageError, match="Job is already cancelled"):
        remote.cancel(name)


def test_check_of_a_server_that_fails() -> None:
    """A server that nobody answers at is a row that keeps its error."""
    with world({"box": {"kind": "trainer", "url": "http://127.0.0.1:9"}}) as made:
        [row] = made.open("box").check()
    assert (row.name, row.ok, row.error.exit_code if row.error else 0) == ("server", False, 5)


def test_a_stop_while_the_server_packs(scripted: World, script: Script) -> None:
    """A stop ends the wait for the first byte of a zip at once, long before the server's 15 minutes are over."""
    packing = threading.Event()
    script.answers = {
        "GET /api/training/jobs/j1": {"status": "completed"},
        "GET /api/training/j1/download/model": Answer(None, (), [packing]),
    }
    remote = scripted.open("box")
    [file] = remote.files(JobOrigin("box", "j1"))
    scripted.http.follower.locate = remote.locate

    def ask() -> None:
        with scripted.http.open("GET", file.url):
            pass

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        until(lambda: "/api/training/j1/download/model" in script.paths())
        scripted.http.cancel.set()
        with pytest.raises(Cancelled):
            asking.result(15)  # and not only after 15 minutes
