"""What a remote's record says of how a job stands: its own words, and what mdl makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from support.cases import each

from mdl.errors import NotFinished
from mdl.results.base import job_of


@each(
    ("word", "status"),
    [
        ("queued", "queued"),
        ("IN_QUEUE", "queued"),
        ("NotStarted", "queued"),
        ("running", "running"),
        ("InProgress", "running"),
        ("in progress", "running"),
        ("JobStatus.RUNNING", "running"),
        ("Completed", "done"),
        ("JOB_STATE_SUCCEEDED", "done"),
        ("timed-out", "failed"),
        ("OUT_OF_MEMORY", "failed"),
        ("JOB_STATE_EXPIRED", "failed"),
        ("user_error", "failed"),
        ("validating_files", "queued"),
        ("Canceled", "cancelled"),
        ("CANCELLED by 1000", "cancelled"),
        ("REVOKED", "cancelled"),
        ("RECEIVED", "queued"),
        ("Succeed", "done"),
        ("PREEMPTED", "failed"),
    ],
)
def test_words_that_are_known(word: str, status: str) -> None:
    """Upper case, blanks and dashes, and the name of an enumeration make no other word of it."""
    assert (job_of({"id": "j", "status": word}).status, job_of({"id": "j", "state": word}).error) == (status, None)


@each(
    ("record", "status"),
    [
        ({"job": {"id": "j", "status": "completed"}}, "done"),
        ({"status": "success", "data": {"status": "running"}}, "running"),
        ({"code": 0, "data": {"state": "FAILED", "error": "disk full"}}, "failed"),
        ({"id": "j", "status": "running", "data": {"status": "done"}}, "running"),
        ({"status": {"phase": "Succeeded", "conditions": []}}, "done"),
        ({"id": "j", "status": {"stage": "ERROR", "message": "disk full"}}, "failed"),
        ({"jobId": "j", "jobStatus": "COMPLETED"}, "done"),
        ({"status": "success", "data": {"weights": "https://h/w.safetensors"}}, "done"),
    ],
)
def test_where_a_status_is(record: Any, status: str) -> None:
    """In the answer, in the record that it has under a key, or in an object; a record's own status comes first."""
    found = job_of(record, "j")
    assert found.status == status
    assert found.error == ("disk full" if status == "failed" else None)


_OOM = "CUDA oom"


@each(
    ("record", "status", "error"),
    [
        ({"status": "failed", "error": _OOM, "result": {"stage": "training"}}, "failed", _OOM),
        ({"status": "failed", "error": _OOM, "result": {"status": "failed"}}, "failed", _OOM),
        ({"status": "failed", "result": {"status": "failed", "error": _OOM}}, "failed", _OOM),
        ({"status": "cancelled", "result": {"status": "running"}}, "cancelled", None),
        ({"status": "running", "result": {"status": "completed"}}, "running", None),
        ({"status": "queued", "data": {"stage": "done"}}, "queued", None),
        ({"status": "completed", "result": {"stage": "final", "url": "https://h/w.safetensors"}}, "done", None),
        ({"status": "completed", "result": {"stage": "training"}}, "done", None),
        ({"status": "completed", "result": {"status": "failed", "error": _OOM}}, "failed", _OOM),
        ({"status": "success", "data": {"stage": "final"}}, "done", None),
        ({"status": "success", "data": {"status": {"phase": "Running"}}}, "running", None),
        ({"status": "ok", "error": _OOM, "data": {"status": "failed"}}, "failed", _OOM),
        ({"status": 200, "data": {"status": "failed", "message": _OOM}}, "failed", _OOM),
        ({"status": "paused", "data": {"stage": "final"}}, "running", "its remote says 'paused'"),
        ({"data": {"status": "paused"}}, "running", "its remote says 'paused'"),
        ({"status": {"phase": "Succeeded", "message": "all good"}}, "done", None),
        ({"status": {"phase": "Running", "message": "epoch 3"}}, "running", None),
        ({"status": {"phase": "Failed", "message": _OOM}}, "failed", _OOM),
        ({"status": {"phase": "Cancelled", "message": "by its owner"}}, "cancelled", "by its owner"),
    ],
)
def test_an_answer_and_a_record_in_it(record: Any, status: str, error: str | None) -> None:
    """The answer's own word counts, unless it may be of the asking and mdl knows that of the record; what either says
    of an error is told."""
    found = job_of({"created_at": 60, **record}, "j")
    assert (found.status, found.created_at) == (status, "1970-01-01T00:01:00Z")
    assert (found.error or "").partition(", which")[0] == (error or "")


@each(
    ("record", "told"),
    [
        ({"status": "paused"}, "its remote says 'paused', which mdl does not know"),
        ({"state": "COMPLETED_WITH_WARNINGS"}, "'COMPLETED_WITH_WARNINGS'"),
        ({"status": "not failed"}, "'not failed'"),
        ({"status": "unknown", "error": "disk full"}, "its remote says 'unknown', which mdl does not know: disk full"),
        ({"status": 3}, "'3'"),
        ({"status": {"phase": 1}}, "mdl does not know"),
        ({"status": "https://b.example/x?X-Amz-Signature=CANARY"}, "mdl does not know"),
        ({"status": "x" * 10_000}, "x" * 60),
        ({}, "its remote does not say its status"),
        ({"status": None, "error": "disk full"}, "its remote does not say its status: disk full"),
        ("a text", "its remote does not say its status"),
    ],
)
def test_words_that_are_unknown(record: Any, told: str) -> None:
    """A word that mdl does not know is never done or failed: the job counts as running, and the word is told."""
    found = job_of(record, "j")
    assert found.status == "running"
    assert found.error is not None
    assert told in found.error
    assert len(found.error) < 200
    assert "CANARY" not in found.error
    with pytest.raises(NotFinished, match=r"still running \(its remote"):
        found.check_is_done()
