"""A hub that misbehaves over the network: impossible sizes, broken HTTP, offline, netrc (group D)."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench
from support.faulty_server import Answer, FaultyServer, reply
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Shell

from mdl.errors import NoSpace
from mdl.formatting import human_bytes
from mdl.sources.hub_origin import HubOrigin

COMMIT = HubOrigin("org/repo", revision="a" * 40)


@pytest.mark.fault(30, 76)
@pytest.mark.parametrize("size", [2**63 - 1, 2**63, 2**64, 10**30])
def test_impossible_size(bench: Bench, size: int) -> None:
    """A file of a size that no disk has is 7 before the first byte."""
    listing = f'[{{"type":"file","path":"a.bin","size":{size},"oid":"x"}}]'.encode()
    with FaultyServer(lambda request, number: reply(200, listing)) as server, pytest.raises(NoSpace) as caught:
        bench.run(source=COMMIT, hub=server.url)
    assert human_bytes(size) in caught.value.message
    assert not [request for request in server.requests if "/resolve/" in request.target]


LIES = {
    "empty": reply(200, b""),
    "cut": Answer(200, [("Content-Length", "100")], b"[", "close"),
    "two lengths": Answer(200, [("Content-Length", "2"), ("Content-Length", "3")], b"[]", "close"),
    "no head": Answer(None, body=b"[]\n", end="close"),
    "status": Answer("HTTP/1.1 200OK", [("Content-Length", "2")], b"[]", "close"),
    "204": Answer(204),
    "206": reply(206, b"[]", ("Content-Range", "bytes 0-1/2")),
    "304": Answer(304),
    "101": Answer(101, [("Upgrade", "x"), ("Connection", "Upgrade")], b"", "close"),
    "portal": faults.portal()(None, 0),  # type: ignore[arg-type]
}


@pytest.mark.fault(33, 37, 38, 76)
@pytest.mark.parametrize("name", LIES)
def test_broken_api_answer(bench: Bench, name: str) -> None:
    """An API answer that is cut, has another status, or is no HTTP at all is 5 or 6, never an empty listing."""
    with FaultyServer(lambda request, number: LIES[name]) as server:
        run = bench.run(source=COMMIT, hub=server.url, retries=2)
        tries = len(server.requests)
    assert run.code in ((3, 5, 6) if name == "206" else (5, 6))
    assert tries <= 2


@pytest.mark.fault(81)
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_offline_by_the_environment(tmp_path: Path) -> None:
    """With HF_HUB_OFFLINE set no socket is opened; a model that is not on disk is 8."""
    log = tmp_path / "calls"
    strace = ("strace", "-f", "-o", str(log), "-e", "trace=socket,connect")
    with LoopbackHub([Repo("org/tiny", {"a.json": b"{}"})]) as hub:
        shell = Shell(tmp_path, hub.url)
        assert shell.run("get", "hf:org/tiny").code == 0
        offline = replace(shell, extra={"HF_HUB_OFFLINE": "1"})
        assert offline.run("get", "hf:org/tiny", "hf:org/other", prefix=strace).code == 8
    assert log.exists()
    assert not re.search(r"socket\(|connect\(", log.read_text())


@pytest.mark.fault(47)
@pytest.mark.parametrize("how", ["NETRC", "HOME"])
def test_no_netrc(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The logins of a netrc file are sent nowhere."""
    (tmp_path / ".netrc").write_text("default login me password s3cr3t\nmachine 127.0.0.1 login me password s3cr3t\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv(how, str(tmp_path / ".netrc" if how == "NETRC" else tmp_path))
    with FaultyServer(faults.answers(401)) as server:
        run = bench.run(source=COMMIT, hub=server.url)
        sent = [request.header("authorization") for request in server.requests]
    assert (run.code, sent) == (4, [None])
