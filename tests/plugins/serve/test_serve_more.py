"""``mdl serve``: trained runs for ``mdl fetch``, the status page's facts, and how the server ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.data import MIB, noise
from support.loopback_hub import LoopbackHub, Repo
from support.polling import until
from support.releases import Site
from support.runs import put
from support.serving import TOKEN, served
from support.shell import Inside, Shell, done, ended, machine, settings, started, with_environ

from mdl.errors import MdlError
from mdl.files import Stamp
from mdl.plugins.serve import runs as serve_runs
from mdl.plugins.serve.server import Serving
from mdl.runs.tree import Tree

WEIGHTS = noise(2 * MIB, 5)


def make_runs(folder: Path) -> Path:
    """Two runs: one has checkpoints, the other one still runs; and a link to a folder outside."""
    for step in (500, 1000):
        put(folder / f"tts/checkpoint-{step}/model.safetensors", {})
        put(folder / f"tts/checkpoint-{step}/config.json", {"step": step})
        put(folder / f"tts/checkpoint-{step}/trainer_state.json", {"global_step": step})
    put(folder / "tts/checkpoint-1000/optimizer.pt", WEIGHTS)
    put(folder / "tts/training.log", "loss 0.1\n")
    put(folder / "going/progress.json", {"status": "running"})
    put(folder / "going/model.safetensors", {})
    put(folder.parent / "outside/model.safetensors", {})
    (folder / "link").symlink_to(folder.parent / "outside")
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serving]:
    """A server of trained runs, on the machine ``head``."""
    with served(machine(tmp_path / "head"), runs=(make_runs(tmp_path / "runs"),)) as server:
        yield server


@pytest.fixture
def box(tmp_path: Path, server: Serving) -> Shell:
    """Another machine, with that server as the remote ``box``."""
    shell = machine(tmp_path / "box")
    settings(shell, f'[remotes.box]\nkind = "trainer"\nurl = "{server.url}"\n')
    return shell


def test_mdl_fetch_of_another_machine(mdl: Inside, box: Shell) -> None:
    """A checkpoint of a run and its logs come by `mdl fetch`; a run that is not over is 14, an unknown one 3."""
    done(mdl(box, "fetch", "box", "tts", "--checkpoint", "latest"))
    done(mdl(box, "fetch", "box", "tts", "--logs"))
    assert (box.models / "box/tts_latest/optimizer.pt").read_bytes() == WEIGHTS
    assert json.loads((box.models / "box/tts_latest/config.json").read_bytes()) == {"step": 1000}
    assert (box.models / "box/tts_logs/training.log").read_text() == "loss 0.1\n"
    jobs = done(mdl(box, "remote", "jobs", "box", "--json")).document["jobs"]
    assert {job["id"]: job["status"] for job in jobs} == {"tts": "done", "going": "running"}
    assert "still running" in done(mdl(box, "fetch", "box", "going"), 14).err
    assert "there is no run nope" in done(mdl(box, "fetch", "box", "nope"), 3).err
    assert "checkpoint-500" in done(mdl(box, "fetch", "box", "tts", "--checkpoint", "7"), 3).err
    done(mdl(box, "fetch", "box", "link"), 3)


@pytest.mark.fault(548)
def test_a_run_that_cannot_be_read_to_its_end(
    mdl: Inside, box: Shell, monkeypatch: pytest.MonkeyPatch, server: Serving, http: httpx.Client
) -> None:
    """If packing fails in the middle the connection is cut, and `mdl fetch` publishes nothing; before the first byte
    the error is told in words. Packed whole, the same run comes."""
    write, url = serve_runs.write_pack, f"{server.url}/api/training/tts/download/model?checkpoint=checkpoint-1000"

    def torn(plan: Any, **words: Any) -> None:
        os.write(plan.output, b"PK\x03\x04" + bytes(2**20))
        raise MdlError("weights changed while they were read")

    def nothing(plan: Any, **words: Any) -> None:
        raise MdlError("weights cannot be read")

    monkeypatch.setattr(serve_runs, "write_pack", torn)
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(url)
    done(mdl(box, "fetch", "box", "tts", "--checkpoint", "1000", "--retries", "1"), 5)
    assert not (box.models / "box/tts_1000").exists()
    monkeypatch.setattr(serve_runs, "write_pack", nothing)
    refused = http.get(url)
    assert (refused.status_code, refused.json()) == (500, {"error": "weights cannot be read"})
    monkeypatch.setattr(serve_runs, "write_pack", write)
    done(mdl(box, "fetch", "box", "tts", "--checkpoint", "1000"))


def test_a_file_dated_after_the_year_9999(server: Serving, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems keep such a time. A run with one has no time, and is listed like every other."""
    scan = Tree.scan

    def far(folder: Path) -> Tree:
        tree = scan(folder)
        return replace(tree, entries=tuple(replace(one, stamp=Stamp(1, 3 * 10**20, 1)) for one in tree.entries))

    monkeypatch.setattr(Tree, "scan", far)
    jobs = http.get(f"{server.url}/api/training/jobs").json()["jobs"]
    assert {job["job_id"]: job["updated_at"] for job in jobs} == {"tts": None, "going": None}
    assert len(http.get(f"{server.url}/api/status").json()["runs"]) == 2


def test_names_of_zips(server: Serving, http: httpx.Client) -> None:
    """A zip is called as `mdl pack` calls it, for a HEAD too; of a checkpoint's name nothing may climb."""
    base = f"{server.url}/api/training"
    found = http.head(f"{base}/tts/download/model", params={"checkpoint": "500"}).headers
    assert 'attachment; filename="model_tts_checkpoint-500.zip"' in found["content-disposition"]
    assert 'filename="logs_tts.zip"' in http.head(f"{base}/tts/download/logs").headers["content-disposition"]
    rows = http.get(f"{base}/jobs/tts/checkpoints").json()["checkpoints"]
    assert [(one["name"], one["step"], one["is_latest"]) for one in rows] == [
        ("checkpoint-500", 500, False),
        ("checkpoint-1000", 1000, True),
    ]
    for name in ("../outside", "..", "a/b", "a\\b", "C:", "\0"):
        refused = http.get(f"{base}/tts/download/model", params={"checkpoint": name})
        assert (refused.status_code, "refused" in refused.json()["error"]) == (400, True), name


def test_names_that_are_no_utf_8(tmp_path: Path, http: httpx.Client) -> None:
    """A checkpoint whose name is no UTF-8 is listed with the others, escaped as on a terminal, in valid JSON."""
    runs = make_runs(tmp_path / "runs")
    odd = os.fsdecode(b"checkpoint-\xff")
    put(runs / "tts" / odd / "model.safetensors", {})
    put(runs / "tts" / odd / "trainer_state.json", {})
    (runs / os.fsdecode(b"run-\xfe")).mkdir()
    with served(machine(tmp_path / "head"), runs=(runs,)) as server:
        base = f"{server.url}/api/training"
        answer = http.get(f"{base}/jobs/tts/checkpoints")
        names = [row["name"] for row in answer.json()["checkpoints"]]
        assert ("checkpoint-\\udcff" in names, "checkpoint-1000" in names) == (True, True)
        assert [row["job_id"] for row in http.get(f"{base}/jobs").json()["jobs"]] == ["going", "tts"]
        for path in ("/api/status", "/metrics", "/", "/api/training/jobs/tts"):
            assert http.get(server.url + path).status_code == 200, path
        for asked in ("checkpoint-%FF", "checkpoint-%5Cudcff"):
            assert http.get(f"{base}/tts/download/model?checkpoint={asked}").status_code in (400, 404)


def test_status_of_the_page(tmp_path: Path, http: httpx.Client, monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    """The page's facts: models by what is here of them, repositories, runs, releases; what cannot be read is told. The
    page itself may run nothing but its own script."""
    monkeypatch.setenv("HOME", str(tmp_path))
    catalog = 'schema = 1\n[models.tiny]\nsource = "hf:org/tiny"\n[models.none]\nsource = "hf:org/none"\n'
    with LoopbackHub([Repo("org/tiny", {"a.txt": b"1"})]) as hub:
        head = machine(tmp_path / "head", catalog, hub.url)
        done(head.run("get", "tiny"))
    folders = {"runs": (make_runs(tmp_path / "runs"),), "releases": (tmp_path / "nothing",)}
    with served(head, token=TOKEN, **folders) as server:
        page = http.get(server.url, auth=("any", TOKEN))
        found = http.get(f"{server.url}/api/status", auth=("any", TOKEN)).json()
    assert {one["name"]: one["status"] for one in found["models"]} == {"tiny": "present", "none": "missing"}
    assert [(one["id"], one["is_served"]) for one in found["repositories"]] == [("org/tiny", True)]
    assert [one["job_id"] for one in found["runs"]] == ["going", "tts"]
    assert len(found["problems"]) == 1
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in page.text.replace("http-equiv", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_how_it_ends(tmp_path: Path, number: signal.Signals, code: int, http: httpx.Client) -> None:
    """A signal ends it in order: the ready file goes, the log has a line for each request, the document counts them."""
    shell, log = machine(tmp_path), tmp_path / "log.jsonl"
    words = ("serve", "--port", "0", "--ready-file", "ready", "--log-file", str(log), "--json")
    with started(with_environ(shell, MDL_SERVE_TOKEN=TOKEN), *words) as process:
        until(lambda: (shell.home / "ready").exists())
        url = (shell.home / "ready").read_text().strip()
        assert http.get(f"{url}/x/{TOKEN}?key={TOKEN}", auth=("any", TOKEN)).status_code == 404
        process.send_signal(number)
        ran = ended(process, code)
    assert not (shell.home / "ready").exists()
    assert (ran.document["url"], ran.document["requests"], ran.document["exit_code"]) == (url, 1, code)
    [line] = [json.loads(text) for text in log.read_text().splitlines()]
    assert (line["method"], line["path"], line["status"], line["client"]) == ("GET", "/x/***", 404, "127.0.0.1")
    assert TOKEN not in log.read_text() + ran.out + ran.err
    assert "means nothing" not in ran.err
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.fault(550)
def test_what_it_refuses_to_begin(mdl: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host without a token, a weak token, a port that is taken, a folder that is not there, and a mdl without
    the extra: each is 2 with a hint what to do."""
    shell = machine(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = {
            ("--host", "0.0.0.0"): "needs a token",
            ("--host", "192.0.2.1", "--token-env", "GOOD"): "cannot listen",
            ("--host", "[zz::]", "--port", "1", "--token-env", "GOOD"): "mdl: [zz::]:1: cannot listen",
            ("--gated",): "only to clients that send a token",
            ("--token-env", "NONE"): "the variable of the token is not set",
            ("--token-env", "WEAK"): "at least 16",
            ("--port", port): f"127.0.0.1:{port}: cannot listen: Address already in use\n",
            ("--runs", "nowhere"): "no such folder",
        }
        for words, expected in refused.items():
            ran = done(mdl(with_environ(shell, WEAK="short", GOOD=TOKEN), "serve", *words), 2)
            assert expected in ran.err, words
            assert "hint" in ran.err or "--runs" in words
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "'starlette>=" in done(mdl(shell, "serve"), 2).err
