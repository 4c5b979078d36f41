"""Many records: most are only glimpsed at, and what is seen is what a closer look would tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl import crc_json
from mdl.jobs import records
from mdl.jobs.glimpse import glimpse
from mdl.jobs.job import ENDED, Invocation, Job, facts_of, job_of
from mdl.jobs.records import Records

JOB = Job("0101-abcd", "get", ("one",), "0-1-2", "box", Invocation(), "2026-01-01T00:00:00.000Z", status="done")
TRAPS = st.sampled_from(['","status":"paused",', ',"started_at":"2099"', '{"mdl-job":1,"id":"x",', "\\", '"'])
TEXTS = st.text() | st.lists(TRAPS).map("".join)


@given(TEXTS, TEXTS, st.sampled_from([*ENDED, "paused", "running"]))
def test_a_glimpse_is_true(name: str, error: str, status: str) -> None:
    """Whatever a model or an error is called, the glimpse has the very facts of the record."""
    job = replace(JOB, models=(name,), status=status, error={"message": error}, again=Invocation((name,)))
    seen = glimpse(crc_json.dumps(facts_of(job)).rstrip(b"\n"))
    assert seen is not None
    assert (seen.id, seen.started_at, seen.status) == (job.id, job.started_at, status)


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_damaged_record_has_none(at: int, bits: int) -> None:
    """A record of which a byte is another is looked at more closely, and told of."""
    line = bytearray(crc_json.dumps(facts_of(JOB)).rstrip(b"\n"))
    line[at % len(line)] ^= bits
    assert glimpse(bytes(line)) is None


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The records that were read to the end."""
    found: list[object] = []
    monkeypatch.setattr(records, "job_of", lambda facts: (found.append(facts["id"]), job_of(facts))[1])
    return found


def test_only_what_is_shown_is_read(tmp_path: Path, read: list[object]) -> None:
    """Of many that are over the latest are read; what can go on is found however old, and what is damaged told of."""
    told: list[str] = []
    kept = Records(tmp_path, lambda path, _why: told.append(path.name))
    for number in range(200):
        moment = f"2026-01-01T00:00:00.{number:03}Z"
        kept.put(replace(JOB, id=f"0101-n{number:03}", started_at=moment, status="paused" if number == 7 else "done"))
    (tmp_path / "0101-odd.job").write_text("00000000 {}\n")
    jobs, older = kept.latest(3)
    assert [job.id for job in jobs] == ["0101-n199", "0101-n198", "0101-n197", "0101-n007"]
    assert (older, len(read), told) == (196, 4, ["0101-odd.job"])
    assert [job.id for job in kept.latest(3, ["paused"])[0]] == ["0101-n007"]
    assert kept.latest(1000)[0] == kept.all()
