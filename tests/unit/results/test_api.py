"""An ordinary HTTP API as a remote: one URL for each job, whose answer names files, has them in it, or is the file."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.data import noise
from support.faulty_server import Answer, FaultyServer, Handler, Request, json_reply, reply
from support.remotes import KEY_CANARY, World, world

from mdl.errors import MdlError, NotFinished, NotFound, Unsafe, UsageError
from mdl.results.base import JobOrigin

DATA = noise(2 * 2**20)
INLINE = {"type": "file_data", "filename": "a.bin", "data": base64.b64encode(DATA[:999]).decode(), "size": 999}


class Host:
    """An API and a bucket on one server. ``answers`` is by path; the key is wanted for every path but ``/bucket``."""

    def __init__(self) -> None:
        self.answers: dict[str, Handler] = {"/bucket/b.bin": faults.honest(DATA)}
        self.asked: list[Request] = []

    def json(self, path: str, value: Any) -> None:
        self.answers[path] = faults.always(json_reply(value))

    def body(self, path: str, body: bytes, **headers: str) -> None:
        told = [(name.replace("_", "-"), value) for name, value in headers.items()]
        right = faults.honest(body, content_type=headers.get("Content_Type", "application/octet-stream"))
        self.answers[path] = faults.with_headers(right, *told)

    def __call__(self, request: Request, number: int) -> Answer:
        self.asked.append(request)
        if not request.path.startswith("/bucket") and request.header("authorization") != f"Bearer {KEY_CANARY}":
            return json_reply({"detail": "Not authenticated"}, status=401)
        found = self.answers.get(request.path)
        return found(request, number) if found else reply(404, b'{"detail": "No such job"}')


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def server(host: Host) -> Iterator[FaultyServer]:
    with FaultyServer(host) as server:
        yield server


def tables(server: FaultyServer, path: str = "/results/{job}", **more: str) -> Mapping[str, Mapping[str, Any]]:
    return {"web": {"kind": "api", "url": server.url + path, "api_key_env": "WEB_KEY", **more}}


@pytest.fixture
def web(server: FaultyServer) -> Iterator[World]:
    with world(tables(server), {"WEB_KEY": KEY_CANARY}) as made:
        yield made


@pytest.mark.parametrize(
    ("answer", "name", "size"),
    [
        ({"url": "{url}/bucket/b.bin?X-Amz-Signature=CANARY"}, "b.bin", len(DATA)),
        ({"url": "{url}/bucket/b.bin", "filename": "../../my model.bin"}, "my model.bin", len(DATA)),
        ("{url}/bucket/b.bin?X-Amz-Signature=CANARY", "b.bin", len(DATA)),
        ({"status": "completed", "result": {"files": [{"download_url": "/own/c.bin"}]}}, "c.bin", len(DATA)),
        (INLINE, "a.bin", 999),
    ],
)
def test_answers_in_json(
    web: World, host: Host, server: FaultyServer, tmp_path: Path, answer: Any, name: str, size: int
) -> None:
    """An answer names the file by a URL, also by one of the API itself, or has it in it. The key goes to the API alone,
    and not to a signed link; nothing keeps the link."""
    host.json("/results/j1", json.loads(json.dumps(answer).replace("{url}", server.url)))
    host.answers["/own/c.bin"] = faults.honest(DATA)
    report = web.fetch(tmp_path / "home", JobOrigin("web", "j1"))
    assert report.exit_code == 0, report.error
    assert (tmp_path / "home" / "m0" / name).read_bytes() == DATA[:size]
    assert [request.path for request in host.asked].count("/results/j1") == 1
    assert not [one for one in host.asked if one.query and one.header("authorization")]
    kept = [path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not [text for text in kept if b"CANARY" in text or KEY_CANARY.encode() in text]


@pytest.mark.fault(411)
@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"Content_Type": "application/zip"}, "j1.zip"),
        ({"Content_Type": "application/zip", "Content_Disposition": 'attachment; filename="run 7.zip"'}, "run 7.zip"),
        ({"Content_Disposition": "attachment; filename*=UTF-8''mod%C3%A8le.bin"}, "modèle.bin"),
        ({"Content_Disposition": 'attachment; filename="../../etc/x.bin"'}, "x.bin"),
        ({"Content_Type": "application/json", "Content_Disposition": "attachment; filename=c.json"}, "c.json"),
        ({"Content_Type": "text/plain"}, "j1.txt"),
    ],
)
def test_the_answer_is_the_file(web: World, host: Host, tmp_path: Path, headers: dict[str, str], name: str) -> None:
    """An answer that is no JSON, or is attached, is the file itself, under the name that the server gives, made safe;
    it is asked for with the key."""
    data = b"PK\x05\x06" + bytes(18) if name.endswith(".zip") else b"{}" + bytes(90)
    host.body("/results/j1", data, **headers)
    report = web.fetch(tmp_path, JobOrigin("web", "j1"))
    assert report.exit_code == 0, report.error
    assert (tmp_path / "m0" / name).read_bytes() == data


def test_a_text_that_is_a_url(web: World, host: Host, server: FaultyServer, tmp_path: Path) -> None:
    """A plain text that is a URL is followed."""
    host.body("/results/j1", f"{server.url}/bucket/b.bin\n".encode(), Content_Type="text/plain; charset=utf-8")
    report = web.fetch(tmp_path, JobOrigin("web", "j1"))
    assert report.exit_code == 0, report.error
    assert (tmp_path / "m0" / "b.bin").read_bytes() == DATA


def test_a_text_that_is_json(web: World, host: Host, server: FaultyServer, tmp_path: Path) -> None:
    """JSON that is sent as plain text is an answer if it names files; else it is the file."""
    host.body("/results/j1", json.dumps({"url": f"{server.url}/bucket/b.bin"}).encode(), Content_Type="text/plain")
    host.body("/results/j2", b'{"loss": 1}', Content_Type="text/plain")
    report = web.fetch(tmp_path, JobOrigin("web", "j1"), JobOrigin("web", "j2"))
    assert report.exit_code == 0, report.error
    assert (tmp_path / "m0" / "b.bin").read_bytes() == DATA
    assert (tmp_path / "m1" / "j2.txt").read_bytes() == b'{"loss": 1}'


@pytest.mark.fault(410)
def test_a_link_that_expires(web: World, host: Host, server: FaultyServer, tmp_path: Path) -> None:
    """When the link is refused in the middle, the API is asked for another one, and the download goes on there."""
    answers = iter("12")
    newest = ""

    def name_one(request: Request, number: int) -> Answer:
        nonlocal newest
        newest = next(answers)
        body = json.dumps({"url": f"{server.url}/bucket/f?sig={newest}", "filename": "f.bin", "size": len(DATA)})
        return reply(200, body.encode(), ("Content-Type", "application/json"))

    def serve(request: Request, number: int) -> Answer:
        nonlocal newest
        if request.query != f"sig={newest}":
            return reply(403, b"expired")
        if newest == "1":
            newest = ""
            return faults.short_body(DATA, 700_000, end="close")(request, number)
        return faults.honest(DATA)(request, number)

    host.answers |= {"/results/j1": name_one, "/bucket/f": serve}
    report = web.fetch(tmp_path, JobOrigin("web", "j1"))
    assert (report.exit_code, report.bytes_fetched) == (0, len(DATA)), report.error


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ({"status": "running"}, NotFinished, "still running"),
        ({"state": "IN_PROGRESS"}, NotFinished, "still running"),
        ({"success": True, "job": {"status": "queued"}}, NotFinished, "still queued"),
        ({"status": "failed", "error": f"no disk for {KEY_CANARY}"}, NotFound, r"failed: no disk for \*\*\*"),
        ({"status": "completed"}, NotFound, "names no file"),
        ({"url": "download/j1"}, MdlError, "is not a URL"),
        ({"url": "https://h.example/x", "filename": ".."}, Unsafe, "names a file"),
        (None, NotFound, "No such job"),
    ],
)
def test_no_file(web: World, host: Host, answer: Any, error: type[MdlError], words: str) -> None:
    """A job that is not done, has failed or names no file is told as that."""
    if answer is not None:
        host.json("/results/j1", answer)
    with pytest.raises(error) as caught:
        web.open("web").files(JobOrigin("web", "j1"))
    assert re.search(words, str(caught.value))
    assert KEY_CANARY not in f"{caught.value} {caught.value.hint}"


def test_status(host: Host, server: FaultyServer) -> None:
    """The status is what the status URL says, else what the answer itself says; a job that has an answer is done."""
    host.json("/state/j1", {"state": "x", "status": "IN_QUEUE"})
    host.json("/results/j1", {"status": "running", "updated_at": "2026-01-01T00:00:00Z"})
    host.json("/results/j2", ["http://h.example/f.bin"])
    with world(tables(server, "/results", status_url=f"{server.url}/state/{{job}}"), {"WEB_KEY": KEY_CANARY}) as made:
        assert made.open("web").status("j1").status == "queued"
    with world(tables(server, "/results"), {"WEB_KEY": KEY_CANARY}) as made:
        remote = made.open("web")
        found = [remote.status(job) for job in ("j1", "j2")]
        assert [(job.status, job.updated_at) for job in found] == [("running", "2026-01-01T00:00:00Z"), ("done", None)]
        with pytest.raises(NotFound, match=r"not found on web; asked: 127\.0\.0\.1 once") as caught:
            remote.status("j3")
        assert (
            caught.value.hint == "check the id of the job, and the URL of [remotes.web] in config.toml"
        )  # no list here
        for ask in (remote.jobs, lambda: remote.cancel("j1")):
            with pytest.raises(UsageError):
                ask()
        with pytest.raises(MdlError):
            remote.status("../health")


@pytest.mark.fault(407)
@pytest.mark.parametrize(("environ", "said"), [({}, "it is not set"), ({"WEB_KEY": "wrong-key"}, "it is set")])
def test_check(web: World, host: Host, server: FaultyServer, environ: dict[str, str], said: str) -> None:
    """An API that answers is well, whatever it says of a job that is not there; a key that it refuses is named."""
    for status in (404, 400, 422):
        host.answers["/results/mdl-check"] = faults.answers(status, body=b"no such id")
        [row] = web.open("web").check()
        assert (row.name, row.ok, row.detail) == ("api", True, "127.0.0.1 answers")
    with world(tables(server), environ) as made:
        [row] = made.open("web").check()
    assert row.error is not None
    assert (row.ok, row.error.exit_code) == (False, 4)
    assert f"WEB_KEY to a valid key of [remotes.web]; {said}" in str(row.error.hint)
    assert "wrong-key" not in f"{row} {row.error.hint}"
