"""What a job was asked for, and whether another job has brought it."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st
from support.cases import each

from mdl.config.settings import settings_table
from mdl.events import Failed
from mdl.jobs.job import HOW, Invocation, Job, can_be_resumed, head_facts, job_of, state_facts, without_secrets
from mdl.redact import MARK, redact

JOB = Job("0101-abcd", "get", ("o--big",), "owner", "host", Invocation(("get", "o/big")), "2026-01-01T00:00:00.000Z")


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
    facts = json.loads(json.dumps(head_facts(JOB) | state_facts(JOB, "")))
    assert job_of(facts) == JOB
    assert job_of(facts | {"again": facts["again"] | {"folder": 7}}) is None
    del facts["again"]
    assert job_of(facts) is None


def test_the_flags_that_two_equal_requests_may_differ_in() -> None:
    """Each is a setting with a value, under the heading of speed and hours."""
    settings = [setting for setting in settings_table().values() if setting.panel == "Speed and hours"]
    assert HOW.items() <= {(setting.flag_name, setting.variable_name) for setting in settings if setting.metavar}


def test_equal_requests() -> None:
    """The same words in the same folder under the same variables ask for the same; with a secret they tell less."""
    again = JOB.again
    assert replace(JOB, id="0102-b", status="done").request == JOB.request
    for other in (
        replace(JOB, models=("o--big", "two")),
        replace(JOB, again=replace(again, words=("get", "o/big", "config.json"))),
        replace(JOB, again=replace(again, folder="/elsewhere")),
        replace(JOB, again=replace(again, variables={"MDL_HOME": "/elsewhere"})),
    ):
        assert other.request != JOB.request
    for words, variables in (
        (("get", "o/big", "--limit-rate", "5M"), {}),
        (("get", "--limit-rate=5M", "o/big"), {}),
        (("get", "o/big"), {"MDL_MAX_DURATION": "1h"}),
    ):
        slower = replace(again, words=words, variables={**again.variables, **variables})
        assert replace(JOB, again=slower).request == replace(JOB, again=replace(again, words=("get", "o/big"))).request
    assert replace(JOB, again=replace(again, withheld=True)).request is None


SECRET = "s3cr3t-token"
PIECES = (
    "",
    "a b",
    SECRET,
    "hf_" + "Ab1" * 11,
    "https://host.example/f?sig=abcd",
    "token=",
    "Authorization:",
    "Bearer",
    "x",
)
texts = st.lists(st.sampled_from(PIECES), max_size=4).map(" ".join)


@given(texts, texts, texts, st.none() | texts)
@example("Authorization:", "abcdefgh", "Bearer", "abcdefgh")
def test_no_field_of_an_event_has_a_secret(model: str, file: str, message: str, hint: str | None) -> None:
    """Each is what it would be alone, whatever stands in the others; the event happened at its time, or else now."""
    event = Failed(model, file, message=message, hint=hint)
    written = without_secrets(event, (SECRET,), "now")
    hidden = [text and redact(text, (SECRET,)) for text in (model, file, message, hint)]
    assert [written.model, written.file, written.message, written.hint] == hidden
    assert written.time == "now"
    assert without_secrets(replace(event, time="then"), (SECRET,), "now").time == "then"


def test_a_secret_in_one_field_alone() -> None:
    """It is hidden there."""
    event = without_secrets(Failed("m", f"{SECRET}.bin", message="gone"), (SECRET,), "now")
    assert isinstance(event, Failed)
    assert (event.file, event.message) == (f"{MARK}.bin", "gone")
