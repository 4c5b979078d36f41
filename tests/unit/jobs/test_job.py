"""What a job was asked for, and whether another job has brought it."""

from __future__ import annotations

import json
from dataclasses import replace

from support.cases import each

from mdl.catalog.model import Model
from mdl.jobs.job import Invocation, Job, Wanted, can_be_resumed, head_facts, job_of, state_facts, wanted_of
from mdl.sources.hub_origin import HubOrigin
from mdl.sources.url_origin import UrlOrigin

ALL = Wanted("o--big", "/models/o--big", ("hf:o/big",))
FILE = replace(ALL, parts=("a.bin",))
JOB = Job("0101-abcd", "get", ("o--big",), "owner", "host", Invocation(("get", "o/big")), "2026-01-01T00:00:00.000Z")


def test_what_a_command_asks_for() -> None:
    """Files, quantisation, revision and globs of the command line are told apart; no query of a URL is kept."""
    whole = HubOrigin("o/big")
    model = Model("o--big", sources=(whole,))
    assert wanted_of(model, "/models/o--big") == ALL
    named = Model("o--big", sources=(replace(whole, subpath="b.bin"), replace(whole, subpath="a.bin")))
    assert wanted_of(named, "/models/o--big").parts == ("a.bin", "b.bin")
    assert wanted_of(Model("m", sources=(replace(whole, quant="Q8_0"),)), "/m").parts == (":Q8_0",)
    assert wanted_of(Model("m", sources=(replace(whole, revision="v2"),)), "/m").sources == ("hf:o/big@v2",)
    assert wanted_of(model, "/m", ["*.json"], ["*.bin"]).globs == ("+*.json", "-*.bin")
    by_url = wanted_of(Model("m", sources=(UrlOrigin("https://host/f.bin?key=S3CRET"),)), "/m")
    assert "S3CRET" not in repr(by_url)


@each(
    ("status", "exit_code", "expected"),
    [
        ("paused", 75, True),
        ("dead", None, True),
        ("cancelled", 130, True),
        ("cancelled", 143, True),
        ("failed", 2, False),
        ("failed", 3, False),
        ("failed", 4, False),
        ("failed", 5, False),
        ("failed", 11, False),
        ("done", 0, False),
    ],
)
def test_what_can_be_resumed_without_an_id(status: str, exit_code: int | None, expected: bool) -> None:
    """What was interrupted; what failed by itself would fail again."""
    assert can_be_resumed(replace(JOB, status=status, exit_code=exit_code)) is expected


def test_a_record_tells_what_was_asked_for() -> None:
    """It is read back as it was written; a damaged one is no record of a job."""
    job = replace(JOB, wanted=(FILE, replace(ALL, globs=("+*.json",))))
    facts = json.loads(json.dumps(head_facts(job) | state_facts(job, "")))
    assert job_of(facts) == job
    facts["wanted"][0]["folder"] = 7
    assert job_of(facts) is None
    del facts["wanted"]
    assert job_of(facts) is None
