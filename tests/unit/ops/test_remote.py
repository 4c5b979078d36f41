"""Remotes: which jobs are old, what is deleted and in which order, and what a monitoring system is told."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from support.cases import each

from mdl.errors import AuthError, MdlError, NetworkError, NotFound
from mdl.ops.remote import CleanedJob, RemoteReport, delete, judge, write_metrics
from mdl.results.base import Check, JobStatus, RemoteJob, of_remote

NOW, DAY = 1_800_000_000.0, 86_400.0


def ago(days: float) -> str:
    return datetime.fromtimestamp(NOW - days * DAY, UTC).isoformat().replace("+00:00", "Z")


def job(
    status: JobStatus = "done", created: float | None = 90, updated: float | None = None, error: str = ""
) -> RemoteJob:
    """A job whose record has these times, in days before now."""
    times = [None if days is None else ago(days) for days in (created, updated)]
    return RemoteJob("j", status, *times, bytes=1, error=error or None)


@each(
    ("found", "action", "why"),
    [
        (job(), "would delete", "done 90 days ago"),
        (job(updated=31), "would delete", "done 31 days ago"),
        (job("failed", error="out of memory"), "would delete", "failed 90 days ago"),
        (job("cancelled"), "would delete", "cancelled 90 days ago"),
        (job(created=30), "would delete", "done 30 days ago"),
        (job(created=29.99), "kept", "done 29 days ago"),
        (job(updated=3), "kept", "done 3 days ago"),
        (job(created=-1), "kept", "done just now"),
        (job("running"), "kept", "it is still running"),
        (job("running", error="a warning"), "kept", "it is still running (a warning)"),
        (job("queued"), "kept", "it is still queued"),
        (job(created=None), "kept", "its record has no time"),
        (job("running", created=None, error="no JSON"), "kept", "its status is not known: no JSON"),
    ],
)
def test_which_jobs_are_old(found: RemoteJob, action: str, why: str) -> None:
    """A job may go if it is over and its own record was last changed long enough ago; anything else is kept."""
    assert judge(found, 30 * DAY, NOW) == CleanedJob(found, action, why)  # type: ignore[arg-type]


class Shop:
    """A remote whose answers are given: what a job's status is when it is asked again, or what is raised."""

    def __init__(self, **answers: RemoteJob | MdlError) -> None:
        self.answers, self.deleted = answers, list[str]()

    def status(self, job: str) -> RemoteJob:
        found = self.answers[job]
        if isinstance(found, MdlError):
            raise found
        return found

    def delete(self, job: str) -> None:
        if job == "stuck":
            raise AuthError("may not delete")
        self.deleted.append(job)


def old(name: str, status: JobStatus = "done") -> RemoteJob:
    return RemoteJob(name, status, ago(90), None, 5)


def test_what_is_deleted() -> None:
    """What was found to be old goes, unless its record is another one now; what cannot be deleted hinders no other."""
    shop = Shop(
        gone=NotFound("no such job"),
        again=RemoteJob("again", "running", ago(90), ago(0), 5),
        grown=RemoteJob("grown", "done", ago(90), None, 6),
        stuck=old("stuck"),
        down=NetworkError("503"),
        last=old("last"),
    )
    found = [judge(old(name), 0, NOW) for name in shop.answers] + [judge(old("busy", "running"), 0, NOW)]
    rows = list(delete(shop, found))
    assert {one.job.id: (one.action, one.is_changed, type(one.error)) for one in rows} == {
        "gone": ("kept", True, type(None)),
        "again": ("kept", True, type(None)),
        "grown": ("kept", True, type(None)),
        "stuck": ("kept", False, AuthError),
        "down": ("kept", False, NetworkError),
        "last": ("deleted", False, type(None)),
        "busy": ("kept", False, type(None)),
    }
    assert shop.deleted == ["last"]


@each(
    ("item", "named"),
    [
        (None, "gpu"),
        ("j1", "gpu: j1"),
        ("s3://b", "gpu: s3://b"),
        ("gpu", "gpu"),
        ("gpu: j1", "gpu: j1"),
        ("x/gpu", "x/gpu"),
    ],
)
def test_every_error_names_the_remote(item: str | None, named: str) -> None:
    """The name is added to an item that does not have it."""
    assert of_remote(MdlError("no", item=item), "gpu").item == named


def test_a_report_has_the_code_of_what_failed() -> None:
    """All is well, one part fails, two fail alike, two fail differently; a part that tells no error is 5."""
    well, ill = Check("a", True, "x"), Check("b", False, "none")
    no_key, no_answer = Check("c", False, "y", AuthError("y")), Check("d", False, "z", NetworkError("z"))
    for parts, code in (([well], 0), ([well, ill], 5), ([no_key], 4), ([ill, no_answer], 5), ([no_key, ill], 10)):
        report = RemoteReport("gpu", parts)
        assert (report.error.exit_code if report.error else 0) == code
        assert all(error.item == "gpu" for error in report.errors)


def test_metrics(tmp_path: Path) -> None:
    """The file has what was found, with numbers by their state; names are escaped, and it is replaced as a whole."""
    place = tmp_path / "m.prom"
    place.write_text("old\n")
    numbers = {"workers_idle": 2.0, 'workers_a"b\\': 1.0, "jobs_in_queue": 3.0, "other": 4.0}
    checks = [Check("endpoint", True, "ok"), Check("bucket", False, "gone", NotFound("gone"))]
    write_metrics(place, RemoteReport("gpu", checks, numbers), now=NOW)
    lines = [line for line in place.read_text().split("\n") if not line.startswith("#")]
    assert lines == [
        'mdl_remote_up{remote="gpu"} 0',
        'mdl_remote_last_check_timestamp_seconds{remote="gpu"} 1800000000.0',
        'mdl_remote_exit_code{remote="gpu"} 3',
        'mdl_remote_check_ok{remote="gpu",check="endpoint"} 1',
        'mdl_remote_check_ok{remote="gpu",check="bucket"} 0',
        'mdl_remote_workers{remote="gpu",state="idle"} 2.0',
        'mdl_remote_workers{remote="gpu",state="a\\"b\\\\"} 1.0',
        'mdl_remote_jobs{remote="gpu",state="in_queue"} 3.0',
        "",
    ]
    assert list(tmp_path.iterdir()) == [place]
