"""The engine supervises its workers: no fault of one hangs the transfer or loses what is here."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench, pinned
from support.body_writes import CloseFails
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request
from support.polling import until

from mdl.downloader.connection_scaler import Tuning
from mdl.downloader.download import Download
from mdl.downloader.schedule import Schedule
from mdl.downloader.store import Ready, Store
from mdl.downloader.stream_hasher import StreamHasher
from mdl.errors import StorageError
from mdl.events import Event, Failed, Verifying
from mdl.files import RemoteFile
from mdl.net.throttle import Throttle
from mdl.units import NO_RATE_LIMIT

DATA = noise(4 * MIB)
HANDLER = faults.routes({"/gone": faults.answers(404), "/f": faults.honest(DATA)})


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def name_of(argument: object) -> str:
    """The name of the file that a call is about, if this argument tells it."""
    if isinstance(argument, Ready):
        argument = argument.remote
    if isinstance(argument, RemoteFile):
        return argument.path.text
    return argument.name if isinstance(argument, Download) else ""


@pytest.mark.fault(225)
def test_a_close_that_fails_hangs_nothing(bench: Bench, server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """close(2) fails, as over NFS when a quota is used up: the file's own error is reported, the next file comes."""
    monkeypatch.setattr(os, "close", broken := CloseFails("data", code=errno.EDQUOT))
    files = [pinned(server.url + "/gone", DATA, path="a.bin"), pinned(server.url + "/f", DATA)]
    run = bench.run(*files, connections=1)
    assert (run.code, len(broken.closed)) == (3, 1)
    assert bench.final.read_bytes() == DATA
    assert sum(isinstance(event, Failed) for event in run.events) == 1


@pytest.mark.fault(225)
@pytest.mark.parametrize(("room", "name"), [(Schedule, "request_ended"), (Store, "open_partial"), (Store, "publish")])
def test_a_fault_ends_the_file_alone(
    bench: Bench, server: FaultyServer, monkeypatch: pytest.MonkeyPatch, room: type, name: str
) -> None:
    """A fault of mdl's own while one file is worked on fails that file, with code 1; the others come."""
    right = getattr(room, name)

    def faulty(self: object, *arguments: object) -> object:
        if any(name_of(argument) == "a.bin" for argument in arguments):
            raise RuntimeError("unexpected")
        return right(self, *arguments)

    monkeypatch.setattr(room, name, faulty)
    server.handler = faults.honest(DATA)
    run = bench.run(pinned(server.url + "/a", DATA, path="a.bin"), pinned(server.url + "/f", DATA), connections=2)
    assert {row.path: row.error and row.error.exit_code for row in run.report.models[0].files}["a.bin"] == 1
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(225)
def test_no_worker_left_ends_it(bench: Bench, server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the schedule itself fails, every worker ends, and the run at once, with code 1 and the words of the error."""
    monkeypatch.setattr(Schedule, "next", failing(RuntimeError("unexpected")))
    run = bench.run(pinned(server.url + "/f", DATA))
    assert run.code == 1
    assert "unexpected" in run.error["message"]


@pytest.mark.fault(226)
def test_a_stop_during_the_last_hash_loses_nothing(
    bench: Bench, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop that comes while the last bytes are hashed keeps all that is here: the digest of a part is not used."""
    right, ended = StreamHasher.result, threading.Event()

    def result(self: StreamHasher, tell: Callable[[int], None]) -> object:
        until(lambda: self._stop)
        self.done = min(self.done, 1000)  # as if it had been stopped there
        try:
            return right(self, tell)
        finally:
            ended.set()

    def stop(event: Event) -> None:
        if isinstance(event, Verifying):
            raise KeyboardInterrupt

    monkeypatch.setattr(StreamHasher, "result", result)
    run = bench.run(pinned(server.url + "/f", DATA), tell=stop)
    assert run.report is None
    assert ended.wait(20)
    for thread in threading.enumerate():
        if thread.name.startswith("mdl-worker"):
            thread.join(20)
    assert not bench.final.exists()
    assert bench.claimed == len(DATA)


@pytest.mark.fault(227)
@pytest.mark.parametrize("given", [0, 2, 4])
def test_fewer_threads_than_wanted(
    bench: Bench, server: FaultyServer, monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    """If the system gives fewer threads than asked for, those do, one of them the heartbeat of the lease; without any
    it is 7, with what to raise, not 1."""
    right, left = threading.Thread.start, [given]

    def start(self: threading.Thread) -> None:
        if self.name.startswith("mdl-"):
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        right(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    if not given:
        with pytest.raises(StorageError, match="start a thread") as caught:
            bench.run(pinned(server.url + "/f", DATA))
        assert "ulimit -u" in str(caught.value.hint)
        return
    run = bench.run(pinned(server.url + "/f", DATA), connections=8)
    assert (run.code, bench.final.read_bytes() == DATA) == (0, True)


@pytest.mark.fault(228)
def test_no_descriptor_is_left_behind(bench: Bench, server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty files whose journal cannot be written cost no descriptor: the error stays that of the disk."""
    monkeypatch.setattr(os, "write", failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else pytest.skip("no /proc here")
    run = bench.run(*(pinned(server.url + "/f", DATA, path=f"{n}.bin") for n in range(20)))
    assert (run.code, bench.final.exists()) == (7, False)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


class Looked(Throttle):
    """A rate limit that is reached, or not, and counts how often somebody asks."""

    def __init__(self, is_full: bool) -> None:
        super().__init__(NO_RATE_LIMIT)
        self._is_full, self.looks = is_full, 0

    @property
    def is_full(self) -> bool:
        self.looks += 1
        return self._is_full


@pytest.mark.parametrize("is_full", [True, False])
def test_no_more_connections_while_the_rate_limit_is_reached(bench: Bench, is_full: bool) -> None:
    """They would bring nothing but bytes on their way when mdl is stopped. Without a limit the second one comes."""
    bench.tuning = Tuning(least_segment=MIB, probe_after=0.0, probe_over=0.0, pause=0.0, fast_enough=1e99)
    throttle, second = Looked(is_full), threading.Event()

    def handler(request: Request, number: int) -> Answer:
        if number:
            second.set()
            return faults.honest(DATA)(request, number)
        answer = faults.honest(DATA)(request, number)

        def body() -> Iterator[bytes]:
            whole = b"".join(map(bytes, answer.pieces()))
            yield whole[:1000]
            until(lambda: second.is_set() or (is_full and throttle.looks >= 5))
            yield whole[1000:]

        return Answer(answer.status, answer.headers, body=body())

    run = bench.fetch(handler, DATA, throttle=throttle)
    assert (run.code, bench.has(DATA)) == (0, True)
    assert (max(request.active for request in run.requests) > 1) != is_full
