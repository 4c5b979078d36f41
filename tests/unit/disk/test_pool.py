"""Batches: every item is processed once, by one thread at a time, and nobody waits for nothing. Processors: threads
that are kept together move no other."""

from __future__ import annotations

import os
import threading

import pytest

from mdl.disk.pool import Batches, keep_together, start_threads

MANY, EACH = 8, 200


def test_every_item_is_in_one_batch() -> None:
    """Whatever threads add at once, each item is processed exactly once, and never two batches at the same time."""
    seen, at_work, most = list[tuple[int, int]](), threading.Lock(), list[bool]()

    def process(batch: list[tuple[int, int]]) -> None:
        most.append(at_work.acquire(blocking=False))
        seen.extend(batch)
        at_work.release()

    batches = Batches(process)

    def add(thread: int) -> None:
        for number in range(EACH):
            batches.add((thread, number))

    for thread in start_threads("adding", [lambda number=number: add(number) for number in range(MANY)]):  # type: ignore[misc]
        thread.join()
    assert sorted(seen) == [(thread, number) for thread in range(MANY) for number in range(EACH)]
    assert all(most)


def test_what_comes_meanwhile_is_one_batch() -> None:
    """The first item waits for nobody; what is added while it is processed comes together after it, and whoever adds
    goes on at once."""
    seen, busy, added = list[list[int]](), threading.Event(), threading.Event()

    def process(batch: list[int]) -> None:
        seen.append(batch)
        busy.set()
        assert added.wait(20)

    batches = Batches(process)
    (first,) = start_threads("first", [lambda: batches.add(0)])
    assert busy.wait(20)
    for number in (1, 2, 3):
        batches.add(number)
    added.set()
    first.join()
    assert seen == [[0], [1, 2, 3]]


def test_a_fault_in_a_batch() -> None:
    """A fault reaches the thread that processed the batch, after what was added meanwhile was processed too."""
    seen, batches = list[int](), list[Batches[int]]()

    def process(batch: list[int]) -> None:
        if 0 in batch:
            batches[0].add(1)  # it is busy: this waits for the next batch
            raise ValueError("zero")
        seen.extend(batch)

    batches.append(Batches(process))
    with pytest.raises(ValueError, match="zero"):
        batches[0].add(0)
    batches[0].add(2)
    assert seen == [1, 2]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no processor affinity")
def test_threads_are_kept_together() -> None:
    """They run on one processor, and no other thread is moved; one that has not begun or has ended hinders nothing."""
    before, gate = os.sched_getaffinity(0), threading.Event()
    threads = start_threads("together", [gate.wait, gate.wait])
    keep_together([threading.Thread(), *threads])
    found = [os.sched_getaffinity(thread.native_id or 0) for thread in threads]
    gate.set()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert len(found[0]) == 1
    assert found[0] <= before
    keep_together(threads)
    assert os.sched_getaffinity(0) == before
