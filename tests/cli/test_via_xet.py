"""``--via xet``: the real hf_xet puts the files together, from a storage on loopback, under mdl's own engine."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.data import MIB, flip, sha256
from support.faulty_server import Answer, FaultyServer, Request, reply
from support.jobs import secrets_in
from support.long import only_long
from support.polling import until
from support.relay import relaying, secured
from support.shell import Ran, Shell, done, ended, machine, started, with_environ
from support.xet_store import LITTLE, NAME, PART, TOKEN, XetServer, XetStore, flipped, xet_hub

Mdl = Callable[..., Ran]
HALF = 16 * MIB
"""Where the engine's second request for the file begins."""


def data_of(store: XetStore, name: str = NAME) -> bytes:
    return (store.folder / name).read_bytes()


def got(shell: Shell) -> bytes:
    return (shell.models / "demo--tiny" / NAME).read_bytes()


def machine_of(home: Path, hub: Any, **more: str) -> Shell:
    return machine(home, endpoint=hub.url, **more)


def from_the_cdn(hub: Any) -> bool:
    return any(one.origin == "cdn" for one in hub.requests)


def of_xorbs(request: Request) -> bool:
    return request.path.startswith("/xorb/")


def notices(ran: Ran) -> list[str]:
    """What was said about Xet."""
    return [line for line in ran.err.splitlines() if "Xet" in line]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where hf_xet's processes have their folders. After each test neither a folder nor a process is left."""
    place = tmp_path / "t"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    yield place
    until(lambda: not list(place.iterdir()), "a folder of hf_xet is left")
    until(lambda: not workers(place), "a process of hf_xet is left")


def workers(folder: Path) -> set[str]:
    """The processes of hf_xet that have their folders in this one."""
    found = set()
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in place.read_bytes():
                found.add(place.parent.name)
    return found


@pytest.mark.parametrize(
    ("flags", "variables", "is_xet"), [(("--via", "xet"), {}, True), ((), {"MDL_VIA": "xet"}, True), ((), {}, False)]
)
def test_which_way_the_bytes_come(
    tmp_path: Path, xet_store: XetStore, mdl: Mdl, flags: tuple[str, ...], variables: dict[str, str], is_xet: bool
) -> None:
    """With --via xet, or MDL_VIA=xet, no byte of the file comes from the CDN; without it none comes from Xet. In both
    cases it is verified by its sha256, and its URL is the hub's."""
    with xet_hub(xet_store) as (hub, storage):
        shell = machine_of(tmp_path, hub, HF_TOKEN="hf_of_the_hub_alone", **variables)
        ran = done(mdl(shell, "get", "hf:demo/tiny", "--json", "--progress", "json", *flags))
        asked = {one.path.partition("?")[0].partition("/resolve/")[0] for one in hub.requests}
    file = next(one for one in ran.document["models"][0]["files"] if one["path"] == NAME)
    assert (file["verified"], file["action"]) == ("sha256", "fetched")
    assert "/resolve/" in file["url"]
    assert got(shell) == data_of(xet_store)
    assert (from_the_cdn(hub), bool(storage.requests)) == (not is_xet, is_xet)
    assert {event["method"] for event in ran.events} == {"xet" if is_xet else "http"}
    assert any("xet-read-token" in path for path in asked) == is_xet
    assert notices(ran) == []


def test_who_gets_which_secret(tmp_path: Path, xet_store: XetStore, mdl: Mdl) -> None:
    """The storage's API gets the read token, a signed URL of a xorb no token at all, and neither the hub's. No secret
    is kept or shown, and hf_xet keeps nothing in the user's folders."""
    hubs = "hf_of_the_hub_alone"
    with xet_hub(xet_store) as (hub, storage):
        shell = machine_of(tmp_path / "home", hub, HF_TOKEN=hubs)
        ran = done(mdl(shell, "get", "hf:demo/tiny", "--via", "xet", "-v", "--log-file", str(tmp_path / "log")))
        tokens = {of_xorbs(one): one.header("authorization") for one in storage.requests}
    assert tokens == {True: None, False: f"Bearer {TOKEN}"}
    assert {one.headers.get("authorization") for one in hub.requests} == {f"Bearer {hubs}"}
    assert not secrets_in(tmp_path, TOKEN, hubs, "of-the-xorb")
    assert not [secret for secret in (TOKEN, hubs, "of-the-xorb") if secret in ran.out + ran.err]
    assert not list(tmp_path.rglob("*xet*"))


def test_the_read_token_follows_no_redirect(tmp_path: Path, xet_store: XetStore, mdl: Mdl) -> None:
    """A storage that redirects does not take the token with it: where it leads to gets none."""

    def lead(request: Request, answer: Answer) -> Answer:
        return answer if of_xorbs(request) else reply(307, b"", ("Location", other.url + request.path))

    with FaultyServer(lambda _request, _number: reply(404)) as other, xet_hub(xet_store, lead) as (hub, storage):
        done(mdl(machine_of(tmp_path, hub), "get", "hf:demo/tiny", "--via", "xet"))
        assert {one.header("authorization") for one in storage.requests} == {f"Bearer {TOKEN}"}
        assert {one.header("authorization") for one in other.requests} == {None}


# What Xet does not give comes over HTTP.


def broken_api(status: int) -> Callable[[Request, Answer], Answer]:
    return lambda request, answer: answer if of_xorbs(request) else reply(status, b"no")


def broken_xorbs(status: int) -> Callable[[Request, Answer], Answer]:
    return lambda request, answer: reply(status, b"no") if of_xorbs(request) else answer


def nonsense(text: bytes) -> Callable[[Request, Answer], Answer]:
    return lambda request, answer: answer if of_xorbs(request) else reply(200, text)


@pytest.mark.parametrize(
    ("change", "answer", "words"),
    [
        (broken_api(403), {}, "answered 403"),
        (broken_api(503), {}, "503"),
        (broken_api(401), {}, "refuses the token"),
        (broken_xorbs(404), {}, "answered 404"),
        (nonsense(b"<html>"), {}, "did not answer in JSON"),
        (nonsense(b'{"fetch_info": {"x": [{"url": 1}]}}'), {}, "did not answer as Xet's storage does"),
        (nonsense(b'{"fetch_info": {"x": [{"url": "file:///etc/passwd"}]}}'), {}, "redirects to a file: URL"),
        (nonsense(b"{}"), {}, "hf_xet"),
        (nonsense(b'{"offset_into_first_range":0,"terms":[],"xorbs":{}}'), {}, "gave only 0 of"),
        (None, {"casUrl": "https://cas.example"}, "cas.example is not on the allow-list"),
        (None, {"casUrl": "local:///etc"}, "redirects to a local: URL"),
        (None, {"casUrl": "s3://bucket"}, "redirects to a s3: URL"),
        (None, {"casUrl": None}, "gave no read token"),
        (None, {"accessToken": "a\nb"}, "cannot be used"),
        (None, {"exp": "soon"}, "gave no read token"),
    ],
)
def test_a_storage_that_is_of_no_use(
    tmp_path: Path,
    xet_store: XetStore,
    mdl: Mdl,
    change: Callable[[Request, Answer], Answer] | None,
    answer: dict[str, Any],
    words: str,
) -> None:
    """A storage that refuses, answers wrongly or may not be asked costs one notice that says why: the file comes over
    HTTP. No host is asked that is not on the allow-list."""
    with xet_hub(xet_store, change, lambda right: right | answer, PART) as (hub, _):
        shell = machine_of(tmp_path, hub)
        ran = done(mdl(shell, "get", "hf:demo/tiny", "--via", "xet"))
    assert from_the_cdn(hub)
    assert got(shell) == data_of(xet_store, PART)
    assert [words in line for line in notices(ran) if "come over HTTP" in line] == [True], ran.err


def test_a_xorb_elsewhere(tmp_path: Path, xet_store: XetStore, mdl: Mdl) -> None:
    """The URLs in the storage's answers are held to the allow-list too; the control allows the host."""
    for allowed in ("", "localhost"):
        with xet_hub(xet_store) as (hub, storage):
            storage.xorbs_at = storage.url.replace("127.0.0.1", "localhost")
            shell = machine_of(tmp_path / f"home{allowed}", hub, MDL_ALLOW_HOSTS=allowed)
            ran = done(mdl(shell, "get", "hf:demo/tiny", "--via", "xet"))
        told = ["localhost is not on the allow-list" in line for line in notices(ran)]
        assert (from_the_cdn(hub), told) == ((False, []) if allowed else (True, [True]))


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_storage_behind_tls(tmp_path: Path, xet_store: XetStore, mdl: Mdl, ca: trustme.CA, is_trusted: bool) -> None:
    """The user's own certificates hold for the storage too, and for its xorbs. Without them it is not trusted."""
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    place = [""]
    with (
        xet_hub(xet_store, None, lambda right: right | {"casUrl": place[0]}) as (hub, storage),
        relaying(storage.port, secured(ca.issue_cert("localhost"))) as relay,
    ):
        place[0] = storage.xorbs_at = f"https://localhost:{relay.port}"
        trust = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")} if is_trusted else {}
        shell = machine_of(tmp_path, hub, MDL_ALLOW_HOSTS="localhost", **trust)
        ran = done(mdl(shell, "get", "hf:demo/tiny", "--via", "xet"))
    assert got(shell) == data_of(xet_store)
    assert from_the_cdn(hub) == (not is_trusted)
    assert ["certificate" in line for line in notices(ran)] == ([] if is_trusted else [True])


def test_without_what_it_takes(tmp_path: Path, xet_store: XetStore, mdl: Mdl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hf_xet, or with one that does not start, and with --frozen, which asks no API, the file comes over HTTP
    and one line says so. A file that is not on Xet does too."""
    with xet_hub(xet_store) as (hub, storage):
        shell = machine_of(tmp_path, hub)
        with monkeypatch.context() as patch:
            patch.setattr("mdl.sources.xet.importlib.util.find_spec", lambda _name: None)
            ran = done(mdl(shell, "get", "hf:demo/tiny", "--via", "xet"))
        assert ["hf_xet is not installed" in line for line in notices(ran)] == [True]
        ran = done(mdl(shell, "get", "hf:demo/tiny", "--via", "xet", "--frozen"), 8)  # it is in no lock
        assert ["--frozen asks no hub API" in line for line in notices(ran)] == [True]
        (tmp_path / "old").mkdir()
        (tmp_path / "old" / "hf_xet.py").write_text("raise ImportError('of another time')")
        old = with_environ(shell, PYTHONPATH=str(tmp_path / "old"))
        ran = done(mdl(old, "get", "hf:demo/tiny", "--via", "xet", "--force"))
        assert [line for line in notices(ran) if "of another time" in line] == []  # no variable leads to its modules
        with monkeypatch.context() as patch:
            (tmp_path / ("long" * 25)).mkdir()
            patch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 25)))
            ran = done(mdl(shell, "get", "hf:demo/tiny", "--via", "xet", "--force"))
        assert ["does not start: AF_UNIX path too long" in line for line in notices(ran)] == [True]
        hub.put_on_xet({sha256(data_of(xet_store)): ""}, dict)
        ran = done(mdl(shell, "get", "hf:demo/tiny", "--via", "xet", "--force"))
        assert ["is not on Xet" in line for line in notices(ran)] == [True]
        assert storage.requests == []


# What the engine promises holds over Xet too.


@pytest.mark.parametrize("name", [NAME, PART, LITTLE])
def test_wrong_bytes(tmp_path: Path, xet_store: XetStore, mdl: Mdl, name: str) -> None:
    """hf_xet passes on a flipped bit of a xorb without a word. The file's sha256 finds it: the bytes are discarded and
    come anew over HTTP, whether the file came in one request or in several."""
    seen = []

    def wrong(request: Request, answer: Answer) -> Answer:
        seen.append(request)
        return flipped(answer, 5000) if of_xorbs(request) else answer

    with xet_hub(xet_store, wrong, name=name) as (hub, _):
        shell = machine_of(tmp_path, hub)
        ran = done(mdl(shell, "get", "hf:demo/tiny", "--via", "xet", "--json"))
    assert seen
    assert from_the_cdn(hub)
    assert ran.document["bytes_discarded"] == len(data_of(xet_store, name))
    assert got(shell) == data_of(xet_store, name)


def test_a_repair(tmp_path: Path, xet_store: XetStore, mdl: Mdl) -> None:
    """A repair fetches the bad block alone, over Xet."""
    with xet_hub(xet_store) as (hub, storage):
        shell = machine_of(tmp_path, hub)
        done(mdl(shell, "get", "hf:demo/tiny"))
        flip(shell.models / "demo--tiny" / NAME, 20 * MIB)
        ran = done(mdl(shell, "verify", "--repair", "--via", "xet"))
        asked = {one.range(24 * MIB) for one in storage.requests if not of_xorbs(one)}
    assert asked == {(HALF, 24 * MIB)}
    assert (got(shell) == data_of(xet_store), notices(ran)) == (True, [])


def test_a_token_that_ends(tmp_path: Path, xet_store: XetStore, mdl: Mdl) -> None:
    """If the storage does not take a token any more, the hub is asked for another one, and the file comes over Xet."""
    given = iter(["first-token-1", "second-token-2"])
    with xet_hub(xet_store, None, lambda right: right | {"accessToken": next(given)}) as (hub, storage):
        storage.tokens = {"first-token-1"}

        def end(request: Request, answer: Answer) -> Answer:
            if of_xorbs(request):
                storage.tokens = {"second-token-2"}
            return answer

        storage.change = end
        shell = machine_of(tmp_path, hub)
        ran = done(mdl(shell, "get", "hf:demo/tiny", "--via", "xet", "--connections", "1"))
        used = {one.header("authorization") for one in storage.requests if not of_xorbs(one)}
    assert used == {"Bearer first-token-1", "Bearer second-token-2"}
    assert (from_the_cdn(hub), notices(ran)) == (False, [])
    assert got(shell) == data_of(xet_store)


def late_hang(times: int) -> Callable[[Request, Answer], Answer]:
    """So many answers fall silent in the middle of a xorb, once the second half of the file has been asked for."""
    late: list[Request] = []
    hung: list[Request] = []

    def change(request: Request, answer: Answer) -> Answer:
        late.extend([request] if is_late(request) else [])
        if not of_xorbs(request) or not late or len(hung) >= times:
            return answer
        hung.append(request)
        return replace(answer, body=_first(answer), end="hang")

    return change


def is_late(request: Request) -> bool:
    """Whether the storage is asked how to put the second half of the file together."""
    return not of_xorbs(request) and (request.range(2**40) or (0, 0))[0] >= HALF


def _first(answer: Answer) -> Iterator[Any]:
    yield next(iter(answer.pieces()))


@pytest.mark.parametrize(("times", "is_over"), [(1, False), (99, True)])
def test_silence(tmp_path: Path, xet_store: XetStore, mdl: Mdl, times: int, is_over: bool) -> None:
    """A stream that falls silent is cut after --stall and asked again; if it is silent from then on, the rest of the
    file comes over HTTP. What came before is kept."""
    with xet_hub(xet_store, late_hang(times)) as (hub, _):
        shell = machine_of(tmp_path, hub)
        words = ("--via", "xet", "--stall", "1s", "--connections", "1", "--json")
        ran = done(mdl(shell, "get", "hf:demo/tiny", *words))
    assert from_the_cdn(hub) == is_over
    assert len(notices(ran)) == (2 if is_over else 1), ran.err
    assert (got(shell) == data_of(xet_store), ran.document["bytes_discarded"]) == (True, 0)


def is_in_the_middle(shell: Shell, storage: XetServer) -> bool:
    """The first half of the file is claimed, and its second half has been asked for."""
    told = "".join(path.read_text(errors="replace") for path in shell.models.glob(".mdl/partials/*/journal"))
    return any(map(is_late, storage.requests)) and f",{HALF}]" in told


@only_long("kills of mdl")
@pytest.mark.parametrize("via", ["xet", "http"])
def test_killed_and_resumed(tmp_path: Path, folder: Path, xet_store: XetStore, via: str) -> None:
    """After a kill in the middle of the file the next run goes on there, over Xet or over HTTP. The process of hf_xet
    ends with the killed one, and leaves nothing."""
    with xet_hub(xet_store, late_hang(1)) as (hub, storage):
        shell = machine_of(tmp_path, hub, TMPDIR=str(folder))
        with started(shell, "get", "hf:demo/tiny", "--via", "xet", "--connections", "1") as process:
            until(lambda: is_in_the_middle(shell, storage), "it does not come to the middle")
            process.send_signal(signal.SIGKILL)
            process.communicate()
        until(lambda: not workers(folder) and not list(folder.iterdir()), "hf_xet goes on without mdl")
        ran = done(shell.run("get", "hf:demo/tiny", "--via", via, "--json", "--stall", "2s"))
    file = next(one for one in ran.document["models"][0]["files"] if one["path"] == NAME)
    assert (file["resumed_at"], ran.document["bytes_fetched"]) == (HALF, 8 * MIB)
    assert (got(shell) == data_of(xet_store), from_the_cdn(hub)) == (True, via == "http")


@only_long("signals to mdl")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopped(tmp_path: Path, folder: Path, xet_store: XetStore, how: signal.Signals) -> None:
    """A stop does not wait for a silent storage, and no process of hf_xet is left."""
    with xet_hub(xet_store, late_hang(99)) as (hub, storage):
        shell = machine_of(tmp_path, hub, TMPDIR=str(folder))
        with started(shell, "get", "hf:demo/tiny", "--via", "xet", "--connections", "1") as process:
            until(lambda: is_in_the_middle(shell, storage), "it does not come to the middle")
            began = time.monotonic()
            process.send_signal(how)
            ended(process, 130 if how == signal.SIGINT else 143)
            seconds = time.monotonic() - began
    assert seconds < 5.0
    assert (workers(folder), list(folder.iterdir())) == (set(), [])


@only_long("signals to hf_xet")
@pytest.mark.parametrize(
    ("how", "stall", "words"),
    [(signal.SIGKILL, "60s", "hf_xet has ended"), (signal.SIGSTOP, "1s", "no byte for 1 s")],
)
def test_hf_xet_fails(
    tmp_path: Path, folder: Path, xet_store: XetStore, how: signal.Signals, stall: str, words: str
) -> None:
    """If the process of hf_xet ends by itself or hangs, the rest of the file comes over HTTP."""
    with xet_hub(xet_store, late_hang(99)) as (hub, storage):
        shell = machine_of(tmp_path, hub, TMPDIR=str(folder))
        flags = ("--via", "xet", "--connections", "1", "--stall", stall)
        with started(shell, "get", "hf:demo/tiny", *flags) as process:
            until(lambda: is_in_the_middle(shell, storage), "it does not come to the middle")
            for child in Path(f"/proc/{process.pid}/task").glob("*/children"):
                for pid in child.read_text().split():
                    os.kill(int(pid), how)
            ran = ended(process, 0)
    assert (from_the_cdn(hub), got(shell) == data_of(xet_store)) == (True, True)
    assert [words in line for line in notices(ran) if "come over HTTP" in line] == [True], ran.err


@pytest.mark.parametrize("route", ["{other}", "http://[", "https://a.example:x", "//b.example"])
def test_the_hub_names_another_place(tmp_path: Path, xet_store: XetStore, mdl: Mdl, route: str) -> None:
    """A route to the read token on another host, or none that is a URL, is not asked."""
    with FaultyServer(lambda _request, _number: reply(200, b"{}")) as other, xet_hub(xet_store) as (hub, _):
        shell = machine_of(tmp_path, hub)
        hub.put_on_xet({}, dict, route.format(other=other.url))
        ran = done(mdl(shell, "get", "hf:demo/tiny", "--via", "xet"))
        assert other.requests == []
    assert ["names no usable hash" in line for line in notices(ran)] == [True]
