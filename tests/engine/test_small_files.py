"""Many small files: few connections, one record, and a file that fails alone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

import pytest
from support import faults
from support.bench import Bench, pinned
from support.data import noise
from support.faulty_server import Answer, FaultyServer, Request

from mdl.downloader import transfer
from mdl.events import Finished

FILES = {f"part{number % 3}/{number:02}.bin": noise(1000 + number, number) for number in range(60)}


def test_connections_are_used_again(bench: Bench) -> None:
    """Each of four workers opens one connection, however many files it fetches; none is asked for twice."""
    with FaultyServer(faults.routes({f"/{path}": faults.honest(data) for path, data in FILES.items()})) as server:
        run = bench.run(
            *(pinned(f"{server.url}/{path}", data, path=path) for path, data in FILES.items()), connections=4
        )
        assert (run.code, len(server.requests), server.connections <= 4) == (0, len(FILES), True)
    folder = bench.store.folder("m")
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES
    assert Counter(type(event) for event in run.events)[Finished] == len(FILES)


def test_one_of_many_fails(bench: Bench) -> None:
    """A file with wrong bytes fails with 6, and one that is missing with 3; the others are published."""
    routes = {f"/{path}": faults.honest(data) for path, data in FILES.items()}
    wrong, missing, *_ = FILES
    routes[f"/{wrong}"] = faults.honest(FILES[wrong][::-1])
    del routes[f"/{missing}"]
    with FaultyServer(faults.routes(routes)) as server:
        files = [pinned(f"{server.url}/{path}", data, path=path) for path, data in FILES.items()]
        run = bench.run(*files, connections=4, retries=1)
    assert run.report is not None
    failed = {row.path: row.error.exit_code for row in run.report.models[0].files if row.error}
    assert (run.code, failed) == (10, {wrong: 6, missing: 3})
    assert [row.path for row in run.report.models[0].files if row.action == "fetched"] == sorted(
        FILES.keys() - failed.keys()
    )
    assert not list(bench.store.own.glob("stage/*"))


def test_the_disk_refuses_one(bench: Bench) -> None:
    """A folder in the place of one file costs only that one, in whatever group it is published."""
    (bench.store.folder("m") / "part0/00.bin").mkdir(parents=True)
    with FaultyServer(faults.routes({f"/{path}": faults.honest(data) for path, data in FILES.items()})) as server:
        run = bench.run(
            *(pinned(f"{server.url}/{path}", data, path=path) for path, data in FILES.items()), connections=4
        )
    assert run.report is not None
    assert [row.path for row in run.report.models[0].files if row.error] == ["part0/00.bin"]
    assert run.code == 7


@pytest.mark.parametrize(("count", "size"), [(0, 0), (12, 2**20), (1, 2**20 + 1)])
def test_workers_are_kept_together_for_tiny_files_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    """If there is as much to hash, or a file that comes in several pieces, the workers use all processors. The last of
    only tiny files comes when they were put together."""
    moved = list[str]()
    are_together = threading.Event()

    def keep_together(threads: Iterable[threading.Thread]) -> None:
        moved.extend(thread.name for thread in threads)
        are_together.set()

    def late(request: Request, number: int) -> Answer:
        are_together.wait()
        return faults.honest(FILES[last])(request, number)

    monkeypatch.setattr(transfer, "keep_together", keep_together)
    served = FILES | {f"{number}.bin": noise(size, number) for number in range(count)}
    routes = {f"/{path}": faults.honest(data) for path, data in served.items()}
    last = [*FILES][-1]
    if not count:
        routes[f"/{last}"] = late
    with FaultyServer(faults.routes(routes)) as server:
        files = [pinned(f"{server.url}/{path}", data, path=path) for path, data in served.items()]
        assert bench.run(*files, connections=4).code == 0
    assert all(name.startswith("mdl-worker-") for name in moved)
    assert bool(moved) is (count == 0)
