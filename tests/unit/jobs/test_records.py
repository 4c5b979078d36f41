"""Job records: what is written down comes back, damage is told and never believed, nobody is taken for another."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import each
from support.jobs import file_of, put_job
from support.partials import dead_owner

from mdl.console.state import State
from mdl.disk import filesystem_type, mutex
from mdl.disk.mutex import HeldFile
from mdl.disk.process import ProcessId, hostname
from mdl.errors import NotFound, StateError, UsageError
from mdl.events import Ended, Event, Finished, Planned, Progressed
from mdl.jobs import job as job_file
from mdl.jobs import processes
from mdl.jobs.job import Invocation, Job, head_facts, line_of, state_facts
from mdl.jobs.records import Records
from mdl.jobs.run import Tracker
from mdl.redact import Secrets

AGAIN = Invocation(("get", "--to=models", "--", "one"), "/some where", {"MDL_HOME": "/m"})
SELF, STARTED = str(ProcessId.current()), "2026-01-02T03:04:05.678Z"
JOB = Job("0102-abcd", "get", ("one",), SELF, hostname(), AGAIN, STARTED, "/logs/0102-abcd.log")
DONE = replace(JOB, status="done", bytes_done=7, bytes_total=7, finished_at="2026-01-02T03:05:00.000Z", exit_code=0)
MONTH = 30 * 86400.0
TEXTS = st.text(st.characters(codec=None, min_codepoint=1, max_codepoint=0x10FFFF), max_size=12)


class Told(Records):
    """Records that remember which damage they told of."""

    def __init__(self, folder: Path) -> None:
        self.told: dict[str, str] = {}
        super().__init__(folder, lambda path, why: self.told.__setitem__(path.name, why))


@pytest.fixture
def records(tmp_path: Path) -> Told:
    return Told(tmp_path / "jobs")


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with mdl."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def tracked(file: Any, **options: Any) -> Tracker:
    """A tracker of `JOB` whose state takes in each event before, as in a session."""
    state = State(lambda: 0.0)

    class Told(Tracker):
        def __call__(self, event: Event) -> None:
            state.take(event)
            super().__call__(event)

    return Told(JOB, file, state, Secrets(), lambda error: pytest.fail(str(error)), **options)


def place(records: Records, name: str = JOB.id) -> Path:
    return records.folder / f"{name}.job"


def owner(pid: int | str = "", born: int | str = "", machine: str = "", space: str = "") -> str:
    """The name of this process, with parts of it exchanged."""
    own = str(ProcessId.current()).split("-")
    return "-".join(str(new or old) for new, old in zip((machine, pid, born, space), own, strict=True))


UNSEEN = (owner(machine="0" * 12), owner(space="1"))
"""A process of another machine or boot, and one in another container of this machine."""


@given(words=st.lists(TEXTS), folder=TEXTS, variables=st.dictionaries(TEXTS, TEXTS, max_size=3), file=TEXTS)
def test_a_record_comes_back_as_it_was(words: list[str], folder: str, variables: dict[str, str], file: str) -> None:
    """Whatever the words, folders and names are, also where they are no Unicode: what is written is what is read."""
    job = replace(
        JOB, again=Invocation(tuple(words), folder, variables, withheld=True), file=file, error={"message": file}
    )
    with tempfile.TemporaryDirectory() as folder_of_records:
        records = Records(Path(folder_of_records))
        put_job(records, job)
        assert place(records).read_bytes().isascii()
        assert records.find(JOB.id) == job


@pytest.mark.parametrize("wrong", [{"kind": 7}, {"models": "one"}, {"again": [7]}, {"error": []}, {"is_planned": 1}])
def test_a_record_of_a_wrong_type_is_damaged(records: Told, wrong: dict[str, object]) -> None:
    """What is no job, though its checksum is right, is damage."""
    put_job(records, DONE)
    place(records).write_bytes(file_of(DONE, **wrong))
    assert records.all() == []
    assert "damaged" in records.told[f"{JOB.id}.job"]


@each(
    ("done", "total", "percent"),
    [(0, None, None), (5, 0, None), (0, 10, 0.0), (1, 3, 33.3), (10, 10, 100.0), (11, 10, 100.0)],
)
def test_percent(done: int, total: int | None, percent: float | None) -> None:
    """How much of the bytes is done, one digit after the point; None if the total is not known, never more than all."""
    assert replace(DONE, bytes_done=done, bytes_total=total).percent == percent


def test_ids_are_nobody_elses(records: Told) -> None:
    """Many who ask for an id at once get different ones, each with a file that only the user can read."""
    with ThreadPoolExecutor(8) as pool:
        found = [job.id for job in pool.map(lambda _: records.create(JOB), range(320))]
    assert len(set(found)) == 320
    assert all(re.fullmatch(r"[0-9]{4}-[2-9a-z]{4}", name) for name in found)
    assert {place(records, name).stat().st_mode & 0o777 for name in found} == {0o600}
    assert {job.id for job in records.all()} == set(found)
    assert (records.told, {job.log for job in records.all()}) == ({}, {str(place(records, name)) for name in found})


def test_found_by_how_its_id_begins(records: Told) -> None:
    """A whole id, or a beginning that only one has; several are told, a whole id wins over longer ones; none is 3.
    A prefetch of a whole large catalog has a record like any other."""
    names = ["0102-abcd", "0102-abcde", "0102-xyzw", "0203-abcd"]
    many = tuple(f"organisation/model-number-{n}" for n in range(5000))
    for name in names:
        put_job(records, replace(DONE, id=name, models=many))
    assert records.find("0203").models == many
    assert [records.find(name).id for name in (*names, "0203", "0102-x")] == [*names, "0203-abcd", "0102-xyzw"]
    with pytest.raises(UsageError) as several:
        records.find("0102-")
    assert (several.value.item, several.value.hint) == ("0102-", "0102-abcd, 0102-abcde, 0102-xyzw")
    for odd in ("", "0102-abcdef", "*", ".", "../jobs/0203-abcd", "0203-abcd.job", "0203-ABCD", "\0", "0" * 2**20):
        with pytest.raises(NotFound):
            records.find(odd)


@pytest.mark.fault(146, 147, 150)
def test_damage_is_told_and_never_believed(records: Told) -> None:
    """With any one bit wrong, or cut anywhere, a record is told by its name, or it is still the very same."""
    put_job(records, DONE)
    right = place(records).read_bytes()

    def look(why: str) -> bool:
        found = records.all()
        assert found in ([DONE], []), why
        assert found or records.told.pop(place(records).name), why
        return bool(found)

    with place(records).open("rb+", buffering=0) as file:
        for at, bit in itertools.product(range(len(right)), range(8)):
            os.pwrite(file.fileno(), bytes([right[at] ^ 1 << bit]), at)
            assert not look(f"bit {bit} of byte {at}") or right[at : at + 1] == b"\n"
            os.pwrite(file.fileno(), right[at : at + 1], at)
        for length in range(len(right) - 1, -1, -1):
            file.truncate(length)
            os.utime(place(records), (1.0, 1.0))  # an empty file that is new is about to be written
            assert not look(f"cut at {length}") or length == len(right) - 1  # a line without its end
    with pytest.raises(StateError, match="damaged") as caught:
        records.find(JOB.id)
    assert caught.value.item == str(place(records))


def test_found_by_any_part_of_its_id(records: Told) -> None:
    """A part that one id alone has finds it, wherever it stands. Several are 2, with the candidates; of many the first
    are named."""
    for name in ("0102-abcd", "0102-xyzw", "0203-abce", "0304-k02x", "2305-pppp", "0506-q23q"):
        put_job(records, replace(DONE, id=name))
    parts = {"xyz": "0102-xyzw", "bcd": "0102-abcd", "-k": "0304-k02x", "03-": "0203-abce"}
    parts |= {"0203": "0203-abce", "020": "0203-abce", "q23": "0506-q23q"}
    for part, name in parts.items():
        assert records.find(part).id == name
    with pytest.raises(UsageError) as several:
        records.find("abc")
    assert (several.value.exit_code, several.value.hint) == (2, "0102-abcd, 0203-abce")
    with pytest.raises(UsageError, match="2 jobs match"):
        records.find("23")
    for letter in "efghjkmnpqr":
        put_job(records, replace(DONE, id=f"0405-aaa{letter}"))
    with pytest.raises(UsageError, match="11 jobs match") as many:
        records.find("0405")
    assert (many.value.hint or "").endswith("0405-aaaq and 1 more")
    for none in ("zz", ""):
        with pytest.raises(NotFound):
            records.find(none)


def test_one_damaged_record_hides_no_other(records: Told) -> None:
    """What is damaged, from a newer mdl, a link or a folder is named; all the others are listed."""
    put_job(records, DONE)
    names = ["empty", "newer", "link", "folder", "facts"]
    places = {name: place(records, name) for name in names}
    places["empty"].touch()
    os.utime(places["empty"], (1.0, 1.0))
    records.folder.joinpath("new.job").touch()  # it is about to be written
    places["newer"].write_bytes(file_of(DONE).replace(b'{"mdl-job":2', b'{"mdl-job":3'))
    places["newer"].write_text(line_of({"mdl-job": 3, "shape": "another"}))
    places["link"].symlink_to(place(records))
    places["folder"].mkdir()
    places["facts"].write_text(line_of({"mdl-job": 1, "id": "facts"}))
    (records.folder / f".x.{ProcessId.current()}.mdl-tmp").write_bytes(b"half")
    assert records.all() == [DONE]
    assert set(records.told) == {f"{name}.job" for name in names}
    assert "newer" in records.told["newer.job"]
    for name in names:
        with pytest.raises(StateError) as caught:
            records.find(name)
        assert caught.value.exit_code == 12


def test_a_record_that_is_removed_stays_away(records: Told) -> None:
    """A job whose file is removed while it runs goes on, and is not listed any more."""
    put_job(records, JOB)
    tell = tracked(records.open(JOB.id))
    place(records).unlink()
    tell(Planned(bytes_total=5, bytes_kept=1))
    assert records.all() == []
    assert list(records.folder.iterdir()) == []


class Kept:
    """In the place of a job's file: the states that were written."""

    def __init__(self) -> None:
        self.states: list[Job] = []

    def add_state(self, job: Job) -> None:
        self.states.append(job)


def test_figures_are_written_twice_a_second() -> None:
    """However often it is told, a state is written at the start, at the end, and every half second between."""
    now = 0.0
    kept = Kept()
    tell = tracked(kept, clock=lambda: now)
    tell(Planned(bytes_total=1000))
    for step in range(1000):
        now = step / 100
        tell(Progressed(bytes_done=step, bytes_total=1000, bytes_per_second=100.04))
    tell(Ended())
    written = kept.states
    assert 19 <= len(written) <= 23
    assert [job.bytes_done for job in written] == sorted(job.bytes_done for job in written)
    assert (written[5].bytes_per_second, written[-1].bytes_per_second) == (100.0, None)
    assert (written[-1].status, written[-1].exit_code) == ("done", 0)


@pytest.mark.no_cover
def test_a_long_job_writes_less_often() -> None:
    """A day of figures is a few megabytes at most, and a reader still has figures that are a few seconds old."""
    now = 0.0
    kept = Kept()
    tell = tracked(kept, clock=lambda: now)
    for second in range(86400):
        now = float(second)
        tell(Progressed(bytes_done=second, bytes_total=86400))
    before = [job.bytes_done for job in kept.states]
    assert len(before) * len(line_of(state_facts(kept.states[-1], ""))) < 12_000_000
    assert max(later - earlier for earlier, later in itertools.pairwise(before)) <= 6


@pytest.mark.parametrize(
    ("name", "machine", "status"),
    [
        (SELF, hostname(), "running"),
        (owner(born=1), hostname(), "dead"),
        (owner(pid=2**22 + 1), hostname(), "dead"),
        (UNSEEN[0], "elsewhere", "running"),
        (UNSEEN[1], hostname(), "running"),
        (owner(pid="x"), hostname(), "running"),
        ("", "elsewhere", "running"),
    ],
    ids=["this process", "its id used again", "no such process", "another host", "a container", "no id", "nothing"],
)
def test_whether_it_runs_is_asked_of_its_process(records: Told, name: str, machine: str, status: str) -> None:
    """Another start or process is dead and has no speed; what cannot be known from here is as it said just now. A job
    that ended stays what it is, whatever process has its id now."""
    for ended in ("done", "failed", "cancelled", "paused"):
        put_job(records, replace(DONE, status=ended, owner=name, host=machine))
        assert records.find(JOB.id).status == ended
    put_job(records, replace(JOB, owner=name, host=machine, bytes_per_second=5.0, eta_seconds=1.0))
    found = records.find(JOB.id)
    assert (found.status, found.bytes_per_second) == (status, None if status == "dead" else 5.0)
    assert records.all() == [found]


def ends_when_looked_for(monkeypatch: pytest.MonkeyPatch, records: Told, last: Job, look: int = 1) -> None:
    """Have the process of a job write its last state and end, just before it is looked for the ``look``-th time."""
    looks = itertools.count(1)

    def is_alive(_process: ProcessId) -> bool:
        number = next(looks)
        if number == look:
            put_job(records, last)
        return number < look

    monkeypatch.setattr(ProcessId, "is_alive", is_alive)


@pytest.mark.parametrize("status", ["paused", "cancelled", "failed", "done"])
def test_a_job_that_ends_while_it_is_read(records: Told, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    """A process that ended after its record was read has not died: what it wrote last counts, and a paused job is not
    cleaned away."""
    put_job(records, JOB)
    last = replace(DONE, status=status)
    ends_when_looked_for(monkeypatch, records, last)
    assert records.find(JOB.id) == last
    put_job(records, JOB)
    ends_when_looked_for(monkeypatch, records, last)
    assert records.all() == [last]
    put_job(records, JOB)
    ends_when_looked_for(monkeypatch, records, last)
    assert records.clean(-1.0) == ([] if status == "paused" else [last])


@pytest.mark.parametrize("look", range(1, 7))
def test_a_job_that_ends_while_it_is_paused(
    records: Told, stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    """Whenever its process ends, a job that was paused is told as paused."""
    running = replace(JOB, owner=owner(pid=stranger.pid))
    put_job(records, running)
    ends_when_looked_for(monkeypatch, records, replace(running, status="paused"), look)
    assert processes.pause(running, records).status == "paused"


def quiet(records: Told, seconds: float, *names: str) -> None:
    """Have nothing of these jobs been touched for so long."""
    then = time.time() - seconds
    for name in names or (JOB.id,):
        for path in records.folder.glob(f"{name}.*"):
            os.utime(path, (then, then))


@pytest.mark.fault(266)
@pytest.mark.parametrize("name", UNSEEN, ids=["another machine", "a container"])
@pytest.mark.parametrize(("is_local", "seconds"), [(True, 5.0), (False, 700.0)])
def test_a_job_that_cannot_be_seen(
    records: Told, monkeypatch: pytest.MonkeyPatch, name: str, is_local: bool, seconds: float
) -> None:
    """It runs as long as its pulse is locked, or was touched in the last ten minutes if locks may lie; then it is dead,
    and can be cancelled and cleaned."""
    monkeypatch.setattr("mdl.disk.mutex.LOCAL", {filesystem_type(records.folder.parent)} if is_local else set())
    put_job(records, replace(JOB, owner=name))
    pulse = records.pulse(JOB.id)
    assert records.find(JOB.id).status == "running"
    quiet(records, 1e6)
    assert records.find(JOB.id).status == "running"
    with pytest.raises(UsageError, match="cannot signal it from here"):
        processes.cancel(records.find(JOB.id), records)
    pulse.stop()
    (records.folder / f"{JOB.id}.pulse").touch()  # as a kill leaves it
    quiet(records, 0.1)
    with monkeypatch.context() as patch:
        patch.setattr(mutex, "FRESH_SECONDS", 60.0)  # a busy machine stands still for two seconds now and then
        assert records.find(JOB.id).status == "running"
    quiet(records, seconds)
    assert records.find(JOB.id).status == "dead"
    with pytest.raises(UsageError, match="dead"):
        processes.pause(records.find(JOB.id), records)
    assert processes.cancel(records.find(JOB.id), records).status == "cancelled"
    assert [job.id for job in records.clean(-1.0)] == [JOB.id]
    assert list(records.folder.iterdir()) == []


def test_a_job_without_a_pulse(records: Told) -> None:
    """If it cannot be seen, it is dead ten minutes after its last sign."""
    put_job(records, replace(JOB, owner=UNSEEN[0]))
    for seconds, status in ((300, "running"), (700, "dead")):
        quiet(records, seconds)
        assert records.find(JOB.id).status == status


@pytest.mark.fault(266)
def test_a_pulse_is_touched(records: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """A touch shows that the job lives, one that comes too soon costs nothing, and nothing is left after."""
    put_job(records, JOB)
    records.pulse(JOB.id).stop()
    pulse = HeldFile(records.folder / f"{JOB.id}.pulse")
    quiet(records, 1e6)
    for pause, is_old in ((60.0, True), (0.0, False)):
        monkeypatch.setattr(mutex, "TOUCH_SECONDS", pause)
        pulse.touch()
        assert (time.time() - (records.folder / f"{JOB.id}.pulse").stat().st_mtime > 1e5) == is_old
    pulse.stop()
    assert [path.name for path in records.folder.iterdir()] == [f"{JOB.id}.job"]


@pytest.mark.fault(132)
@pytest.mark.parametrize("where", ["here", "elsewhere", "container"])
def test_no_stranger_is_ever_signalled(records: Told, stranger: subprocess.Popen[bytes], where: str) -> None:
    """pause and cancel of a job whose process id another process has now, or has here, leave that one alone."""
    born = re.split(r"\) ", Path(f"/proc/{stranger.pid}/stat").read_text())[1].split()[19]
    parts = {"here": (1,), "elsewhere": (born, "0" * 12), "container": (born, "", "1")}[where]
    host = "elsewhere" if where == "elsewhere" else hostname()
    put_job(records, replace(JOB, owner=owner(stranger.pid, *parts), host=host))
    stale = replace(records.find(JOB.id), status="running")
    for job in (records.find(JOB.id), stale):  # as it is, and as it was a moment ago
        with pytest.raises(UsageError):
            processes.pause(job, records)
    if where == "here":
        assert processes.cancel(stale, records).status == "cancelled"
        assert records.find(JOB.id).exit_code == 143
    assert stranger.poll() is None


def test_a_cancel_follows_the_job_to_its_new_process(records: Told, stranger: subprocess.Popen[bytes]) -> None:
    """A job that was paused when 'cancel' looked, and is resumed before it writes: the new process is stopped."""
    put_job(records, replace(JOB, status="paused"))
    seen = records.find(JOB.id)
    born = re.split(r"\) ", Path(f"/proc/{stranger.pid}/stat").read_text())[1].split()[19]
    put_job(records, replace(JOB, owner=owner(stranger.pid, born)))
    assert processes.cancel(seen, records).status == "cancelled"
    assert stranger.poll() == -signal.SIGTERM
    assert records.find(JOB.id).status == "cancelled"


def test_one_of_many_takes_a_job_over(records: Told) -> None:
    """Of processes that saw the same record one writes it; the others are told that it has changed."""
    put_job(records, replace(JOB, status="paused"))
    stamp = records.find(JOB.id).stamp
    with ThreadPoolExecutor(8) as pool:
        takers = [replace(JOB, owner=owner(number)) for number in range(100, 108)]
        won = list(pool.map(lambda job: records.replace(job, stamp), takers))
    assert won.count(True) == 1
    assert records.find(JOB.id).owner == takers[won.index(True)].owner


@pytest.mark.fault(158)
def test_cleaned_by_age(records: Told) -> None:
    """What is over or dead and old enough goes; what is paused, runs, is young or a newer mdl's stays."""
    old, statuses = time.time() - MONTH - 60, ("done", "failed", "cancelled", "dead", "paused", "running")
    for status, age in itertools.product(statuses, ("old", "new")):
        name = f"{age}-{status}"
        gone = {"owner": dead_owner(), "status": "running"} if status == "dead" else {"status": status}
        put_job(records, replace(DONE, id=name, **gone))
        if age == "old":
            os.utime(place(records, name), (old, old))
    place(records, "newer").write_text(line_of({"mdl-job": 3}))
    os.utime(place(records, "newer"), (old, old))
    removed = records.clean(MONTH)
    assert place(records, "newer").exists()
    assert {job.id for job in removed} == {"old-done", "old-failed", "old-cancelled", "old-dead"}
    left = {job.id for job in records.all()}
    assert left == {"old-paused", "old-running", *(f"new-{status}" for status in statuses)}
    assert {job.id for job in records.clean(0.0)} == {"new-done", "new-failed", "new-cancelled", "new-dead"}


@pytest.mark.parametrize("what", ["a pulse", "a damaged record", "an empty one"])
def test_nothing_of_an_old_job_stays(records: Told, what: str) -> None:
    """Once all jobs are over and old, nothing of them is left in the folder."""
    put_job(records, DONE)
    if what == "a pulse":
        (records.folder / f"{JOB.id}.pulse").touch()
    elif what == "a damaged record":
        place(records).write_bytes(b"no record")
    elif what == "an empty one":
        place(records).write_bytes(b"")
    for path in records.folder.iterdir():
        os.utime(path, (1.0, 1.0))
    records.clean(MONTH)
    assert list(records.folder.iterdir()) == []


@pytest.mark.fault(158)
def test_each_of_a_thousand_jobs_is_read_once(records: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of 1,000 old jobs opens each file once, parses its first line and its last state, and asks after no
    process, however many events are in between."""
    records.folder.mkdir()
    for number in range(1_000):
        name = f"0103-{number:05}"
        head, state, _ = file_of(replace(DONE, id=name)).split(b"\n")
        event = line_of({"event": "finished", "time": "", "model": "m", "file": "f" * 100}).encode()
        place(records, name).write_bytes(b"\n".join([head, state, *[event] * 20, state, *[event] * 3, b""]))
    counted = [Mock(wraps=one) for one in (os.open, job_file.parse_json, ProcessId.is_alive)]
    for name, one in zip(
        ("os.open", "mdl.jobs.job.parse_json", "mdl.disk.process.ProcessId.is_alive"), counted, strict=True
    ):
        monkeypatch.setattr(name, one)
    assert len(records.all()) == 1_000
    assert [one.call_count for one in counted] == [1_000, 2_000, 0]


def test_the_last_state_is_found_before_many_events(records: Told) -> None:
    """However many events came after it, the last state is read; a torn or damaged line is passed over."""
    put_job(records, JOB)
    event = Finished("m", "f" * 200, 1)
    with contextlib.closing(records.open(JOB.id)) as file:
        file.add_state(DONE)
        file.append(*[job_file.event_facts(event)] * 5000)
    assert records.find(JOB.id) == DONE
    with place(records).open("ab") as raw:
        raw.write(line_of(state_facts(replace(DONE, status="failed"), ""))[:-5].encode())
    assert records.find(JOB.id) == DONE


@given(
    kept=st.lists(st.sampled_from(["paused", "running", "failed"]), min_size=1, max_size=4),
    cut=st.integers(0, 5000),
    noise=st.binary(max_size=40),
)
def test_a_file_that_ends_anywhere(kept: list[str], cut: int, noise: bytes) -> None:
    """Wherever a file ends, and whatever other programs wrote into it, a job is what one of its whole lines says, the
    last one; or it is named as damaged."""
    with tempfile.TemporaryDirectory() as folder:
        records = Told(Path(folder))
        head = line_of(head_facts(DONE)).encode()
        states = [line_of(state_facts(replace(DONE, status=status), "")).encode() for status in kept]
        data = b"\n".join([head, *(part for state in states for part in (noise, state)), b""])[: len(head) + cut]
        place(records).write_bytes(data)
        status_of = dict(zip(states, kept, strict=True))
        whole = [status_of[line] for line in data.split(b"\n") if line in status_of]
        found = [job.status.replace("dead", "running") for job in records.all()]
        assert found == whole[-1:] or (not whole and set(records.told) == {place(records).name})


def test_a_list_never_sees_half_a_record(records: Told) -> None:
    """While another process writes a record over and over, a reader always finds it, whole and never older."""
    put_job(records, JOB)
    write = (
        "import sys; from dataclasses import replace; from pathlib import Path; from mdl.jobs.records import Records\n"
        "records = Records(Path(sys.argv[1])); job = records.all()[0]\n"
        "file = records.open(job.id)\n"
        "for n in range(400): file.add_state(replace(job, bytes_done=n, file='x' * (n * 37 % 5000)))"
    )
    seen: list[int] = []
    with subprocess.Popen([sys.executable, "-c", write, str(records.folder)]) as writer:
        while writer.poll() is None:
            assert [job.id for job in records.all()] == [JOB.id]
            seen.append(records.find(JOB.id).bytes_done)
    assert (writer.returncode, records.told) == (0, {})
    assert seen == sorted(seen)
    assert [entry.name for entry in records.folder.iterdir()] == [f"{JOB.id}.job"]


@pytest.mark.parametrize(
    ("facts", "silent", "why"),
    [
        ({"bytes_per_second": 9.0}, 0, ""),
        ({"bytes_per_second": 0.0}, 0, "no bytes arrive"),
        ({"bytes_per_second": None}, 0, ""),
        ({"bytes_per_second": 0.0, "bytes_done": 7}, 0, ""),
        ({"bytes_per_second": 9.0}, 25, ""),
        ({"bytes_per_second": 9.0}, 300, "no sign of life for 5m 00s"),
    ],
)
def test_why_a_job_stalls(records: Told, facts: dict[str, float | None], silent: float, why: str) -> None:
    """A running job stalls if its pulse is silent, or if no byte comes though some came and some are missing; not
    while it has all of them and checks these."""
    job = replace(JOB, bytes_total=7, **facts)  # type: ignore[arg-type]
    put_job(records, job)
    pulse = records.pulse(job.id)
    before = time.time() - silent
    os.utime(records.folder / f"{job.id}.pulse", (before, before))
    assert records.why_stalled(job) == why
    pulse.stop()


def test_no_speed_before_the_first_byte(records: Told) -> None:
    """Until the first byte comes no speed is recorded, and a speed of 0 afterwards."""
    put_job(records, JOB)
    tell = tracked(records.open(JOB.id), clock=itertools.count().__next__)
    found = []
    for speed in (0.0, 5.0, 0.0):
        tell(Progressed(bytes_total=7, bytes_per_second=speed))
        found.append(tell.job.bytes_per_second)
    assert found == [None, 5.0, 0.0]
