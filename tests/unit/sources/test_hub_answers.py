"""The hub's answers at their worst: pages that lead nowhere, names and sizes of no file, no HTTP at all (group D)."""

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
from support.scripted_hub import HUB, PINNED, World, entry, tree_url
from support.shell import Shell

from mdl.errors import MdlError, NoSpace, ProtocolError, Unsafe
from mdl.sources import hub as hub_room
from mdl.sources.hub_origin import HubOrigin

COMMIT = HubOrigin("org/repo", revision="a" * 40)


@pytest.mark.fault(75)
@pytest.mark.parametrize(
    "target",
    [
        *(
            "http://[::1",
            "//[",
            "https://huggingface.co:x/",
            "https://huggingface.co:99999/",
            "https://huggingface.co:-1/",
        ),
        "https://\u2100.example/",
    ],
)
def test_next_page_that_is_no_url(here: World, target: str) -> None:
    """A listing that goes on at what is no URL is refused, 6 or 11, and nobody is asked there."""
    here.tree(entry(), headers=[("Link", f'<{target}>; rel="next"'.encode())])
    with pytest.raises(MdlError) as caught:
        here.hub.resolve(PINNED)
    assert caught.value.exit_code in (6, 11)
    assert here.asked == [tree_url()]


@pytest.mark.fault(273)
@pytest.mark.parametrize(("bound", "words"), [(("_MOST_ITEMS", 5), "5 files"), (("_MOST_PAGES", 3), "3 pages")])
def test_a_listing_that_never_ends(
    here: World, monkeypatch: pytest.MonkeyPatch, bound: tuple[str, int], words: str
) -> None:
    """All pages of a listing have one bound of files and folders, and one of pages: beyond it nobody is asked, 6."""
    monkeypatch.setattr(hub_room, *bound)
    folder = {"type": "directory", "path": "x", "oid": "0"}
    for number in range(3):
        more = f"&cursor={number}" if number else ""
        items = [entry(f"{number}.json"), folder]
        links = {"Link": f'<{tree_url(more=f"&cursor={number + 1}")}>; rel="next"'}
        here.mock.add_response(url=tree_url(more=more), json=items, headers=links)
    with pytest.raises(ProtocolError, match=f"more than {words}"):
        here.hub.resolve(PINNED)
    assert len(here.asked) == 3


@pytest.mark.fault(76, 77)
@pytest.mark.parametrize(
    ("item", "code"),
    [
        ('{"type":"file","path":"a.bin","path":"../b","size":1,"oid":"x"}', 11),
        ('{"type":"file","path":"../b","path":"a.bin","size":-1,"size":1,"oid":"x"}', 0),
        ('{"type":"file","path":"\\ud800.json","size":1,"oid":"x"}', 11),
        ('{"type":"file","path":"a\\u0000.json","size":1,"oid":"x"}', 11),
        ('{"type":"file","path":"a.json","size":NaN,"oid":"x"}', 6),
        ('{"type":"file","path":"a.json","size":1e400,"oid":"x"}', 6),
        ('{"type":"file","path":"a.json","size":-Infinity,"oid":"x"}', 6),
        ('{"type":"file","path":"a.json","size":' + "9" * 5000 + ',"oid":"x"}', 6),
        ('{"type":["file"],"path":{"a":1},"size":1,"oid":"x"}', 6),
    ],
    ids=["twice", "twice the other way", "surrogate", "NUL", "NaN", "infinite", "minus", "5000 digits", "an object"],
)
def test_items_of_no_file(here: World, item: str, code: int) -> None:
    """Keys that come twice, numbers that are none, names that cannot be: the last word counts, or a refusal."""
    here.mock.add_response(url=tree_url(), content=f"[{item}]".encode())
    if code == 0:
        assert [file.path.text for file in here.hub.resolve(PINNED)] == ["a.bin"]
        return
    with pytest.raises(MdlError) as caught:
        here.hub.resolve(PINNED)
    assert caught.value.exit_code == code


@pytest.mark.fault(30, 76)
@pytest.mark.parametrize("size", [2**63 - 1, 2**63, 2**64, 10**30])
def test_sizes_beyond_every_disk(bench: Bench, size: int) -> None:
    """A file of a size that no disk has is 7 before the first byte, listed or announced."""
    listing = f'[{{"type":"file","path":"a.bin","size":{size},"oid":"x"}}]'.encode()
    with FaultyServer(lambda request, number: reply(200, listing)) as server, pytest.raises(NoSpace) as caught:
        bench.run(source=COMMIT, hub=server.url)
    assert str(size) in caught.value.message
    assert len(server.requests) == 1


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
def test_api_answers_that_are_none(bench: Bench, name: str) -> None:
    """An API answer that is cut, of a foreign status or no HTTP at all: 5 or 6, never a listing of nothing."""
    with FaultyServer(lambda request, number: LIES[name]) as server:
        run = bench.run(source=COMMIT, hub=server.url, retries=2)
        tries = len(server.requests)
    assert run.code in ((3, 5, 6) if name == "206" else (5, 6))
    assert tries <= 2


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    "target",
    [
        *("http://huggingface.co/x", "http://cdn-lfs.hf.co/x"),
        *(f"{scheme}://huggingface.co/x" for scheme in ("HTTP", "Http")),
    ],
)
@pytest.mark.parametrize("hop", [1, 2])
def test_https_never_becomes_http(here: World, target: str, hop: int) -> None:
    """A redirect from https to http is refused on any hop, 11, and nobody is asked in the clear."""
    second = f"{HUB}/second"
    here.mock.add_response(url=tree_url(), status_code=307, headers={"Location": target if hop == 1 else second})
    if hop == 2:
        here.mock.add_response(url=second, status_code=302, headers={"Location": target})
    with pytest.raises(Unsafe, match="https to http"):
        here.hub.resolve(PINNED)
    assert here.asked == [tree_url(), second][:hop]


@pytest.mark.fault(81)
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_offline_by_the_environment(tmp_path: Path) -> None:
    """With the hub's own variable set not one socket is made: 0 for what is here, 8 for what is not."""
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
    """What a netrc has of a host is sent nowhere."""
    (tmp_path / ".netrc").write_text("default login me password s3cr3t\nmachine 127.0.0.1 login me password s3cr3t\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv(how, str(tmp_path / ".netrc" if how == "NETRC" else tmp_path))
    with FaultyServer(faults.answers(401)) as server:
        run = bench.run(source=COMMIT, hub=server.url)
        sent = [request.header("authorization") for request in server.requests]
    assert (run.code, sent) == (4, [None])
