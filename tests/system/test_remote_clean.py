"""``mdl remote clean``: shows first, deletes exactly that, and never what may be needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.job_store import PREFIX, JobStore
from support.shell import Inside, Ran, Shell, beside, done, machine, settings

from mdl.errors import AuthError, Cancelled
from mdl.results.bucket import BucketRemote
from mdl.sources.object_store import Bucket

pytest.importorskip("boto3")
Clean = Callable[..., Ran]


@pytest.fixture
def store(tmp_path: Path, s3_url: str) -> JobStore:
    """A bucket with two jobs that are old, and one of each that must be kept; one name begins as an old one's."""
    store = JobStore.at(s3_url)
    store.job("old", days=40)
    store.job("older", "failed", 50)
    store.job("old2", days=3)
    store.job("runs", "running", 90)
    store.job("waits", "queued", 90)
    store.job("timeless", days=None)
    store.job("updated", days=90, updated_at="2999-01-01T00:00:00Z")
    store.put("processes/torn.json", b'{"status": "completed", "created_at": "20')
    store.put("results/orphan/lora/a.safetensors", b"w")
    return store


@pytest.fixture
def shell(tmp_path: Path, store: JobStore) -> Shell:
    shell = machine(tmp_path / "home", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
    settings(shell, f'{store.table}[remotes.gpu]\nkind = "runpod"\nendpoint = "x"\nbucket = "store"\n')
    return shell


@pytest.fixture
def clean(mdl: Inside, shell: Shell) -> Clean:
    """``clean("--yes", 9)``: words after those that every call has, and the exit code that it must end with."""

    def run(words: str = "", code: int = 0, name: str = "store") -> Ran:
        return done(mdl(shell, "remote", "clean", name, "--older-than", "30d", *words.split()), code)

    return run


def actions(ran: Ran) -> dict[str, str]:
    return {job["id"]: job["action"] for job in ran.document["jobs"]}


KEPT = dict.fromkeys(("old2", "runs", "waits", "timeless", "updated", "torn"), "kept")
OLD = ("old", "older")


def test_it_shows_first(store: JobStore, clean: Clean) -> None:
    """Without --yes every job is shown with what would be done and why, and not one object changes."""
    before = store.objects()
    assert actions(clean("--json")) == KEPT | dict.fromkeys(OLD, "would delete")
    ran = clean()
    assert "old       1.0 kB  would delete  done 40 days ago\n" in ran.out
    assert "torn           ?  kept          its status is not known: the record of this job is not JSON\n" in ran.out
    assert ran.err == "would delete jobs: 2, 2.0 kB; --yes does\n"
    assert store.objects() == before


@pytest.mark.parametrize("name", ["store", "gpu"])
def test_it_deletes_what_it_showed(store: JobStore, clean: Clean, name: str) -> None:
    """With --yes the old ones go, results and records, and nothing else; an endpoint's bucket is cleaned without asking
    the endpoint. Results without a record stay. A second time there is nothing to do."""
    kept = {key for key in store.objects() if not {"old", "old.json", "older", "older.json"} & set(key.split("/"))}
    ran = clean("--yes --json", name=name)
    assert actions(ran) == KEPT | dict.fromkeys(OLD, "deleted")
    assert store.objects() == kept
    assert "results/orphan/lora/a.safetensors" in kept
    assert clean("--yes", name=name).err == "deleted jobs: 0, 0 B\n"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('kind = "runpod"\nendpoint = "x"', "this remote names none"),
        ('kind = "trainer"\nurl = "http://127.0.0.1:9"', "this remote names none"),
    ],
)
def test_only_a_bucket_is_cleaned(shell: Shell, clean: Clean, table: str, words: str) -> None:
    """A remote without a bucket is 2, and is not asked."""
    settings(shell, f"[remotes.store]\n{table}\n")
    assert words in clean("--yes", 2).err


def test_a_job_that_changes_meanwhile_is_kept(store: JobStore, clean: Clean, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is restarted after it was shown, and before it is deleted, is kept, and that is said."""
    real = BucketRemote.jobs

    def jobs(remote: BucketRemote) -> object:
        found = real(remote)
        store.job("old", "running", 40)
        return found

    monkeypatch.setattr(BucketRemote, "jobs", jobs)
    ran = clean("--yes")
    assert "old: kept, it changed meanwhile\nolder: deleted\n" in ran.err
    assert "old" in store.jobs()


def test_a_failure_hinders_no_other(store: JobStore, clean: Clean, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose results cannot be deleted keeps its record, so that the next time it is tried again; the others go,
    and the exit code is that of the failure."""
    break_deleting(monkeypatch, "results/old/samples/1.png", AuthError("AccessDenied", item="s3://b/1.png"))
    ran = clean("--yes --json", 4)
    assert actions(ran) == KEPT | {"old": "kept", "older": "deleted"}
    assert ran.document["error"]["item"].startswith("store: ")
    assert {"old"} <= store.jobs()
    assert not any("results/old/lora" in key for key in store.objects())


def break_deleting(monkeypatch: pytest.MonkeyPatch, key: str, error: BaseException) -> None:
    """Deleting this object raises."""
    real = Bucket.delete

    def delete(bucket: Bucket, keys: list[str]) -> None:
        for one in keys:
            if one == f"{PREFIX}/{key}":
                raise error
            real(bucket, [one])

    monkeypatch.setattr(Bucket, "delete", delete)


def test_an_interrupted_clean_is_repeated(store: JobStore, clean: Clean, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle of a job it has deleted results and no record: the next one finds the job, and ends it."""
    with monkeypatch.context() as patch:
        break_deleting(patch, "processes/old.json", Cancelled())
        ran = clean("--yes --json", 130)
    assert "run it again to continue" in ran.document["error"]["hint"]
    assert ("old" in store.jobs(), any("results/old/" in key for key in store.objects())) == (True, False)
    assert actions(clean("--yes --json"))["old"] == "deleted"


def test_one_cleaner_on_this_machine(store: JobStore, shell: Shell, clean: Clean) -> None:
    """While another process of this user cleans, a second one ends with 9 and says which process that is."""
    script = (
        "import sys, mdl\n"
        "def wait(found): print(len(found), flush=True); sys.stdin.read()\n"
        "list(mdl.Client().clean_remote('store', older_than='30d', remove=True, on_found=wait))"
    )
    with beside(shell, sys.executable, "-c", script, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "8\n"
        ran = clean("--yes --json", 9)
        assert f"another mdl (process {process.pid}, since" in ran.document["error"]["message"]
        assert actions(clean("--json"))["old"] == "would delete"
        process.communicate("")
        assert process.returncode == 0
    assert not store.jobs() & set(OLD)


def test_two_machines_clean_at_once(store: JobStore, clean: Clean, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs that the other one deletes first are kept by this one's words; nothing else is deleted, and both end
    well."""
    real = BucketRemote.delete

    def delete(remote: BucketRemote, job: str) -> None:
        for one in OLD:
            real(remote, one)
        real(remote, job)

    kept = store.objects() - {
        key for key in store.objects() if {"old", "old.json", "older", "older.json"} & {*key.split("/")}
    }
    monkeypatch.setattr(BucketRemote, "delete", delete)
    ran = clean("--yes --json")
    assert sorted(actions(ran)[name] for name in OLD) == ["deleted", "kept"]
    assert "it was deleted by another process" in {job["why"] for job in ran.document["jobs"]}
    assert store.objects() == kept
