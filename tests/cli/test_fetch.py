"""``mdl fetch``: the results of jobs, from a training server and from a bucket, to a folder that is verified."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.data import MIB, files_below, noise, spoil, write_files
from support.moto_store import s3_api
from support.shell import Inside, Shell, done, settings
from support.trainer import training_server
from support.weights import whole_file, zipped

from mdl.cli.signals import the_signals
from mdl.downloader import fetch, open_file
from mdl.errors import Cancelled, NetworkError, NoSpace
from mdl.results.base import RemoteJob
from mdl.results.job_server import Trainer

WEIGHTS = (
    struct.pack("<Q", 65) + b'{"w":{"dtype":"U8","shape":[2097152],"data_offsets":[0,2097152]}}' + noise(2 * MIB, 3)
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a training server's runs, and its URL."""
    folder = tmp_path_factory.mktemp("runs")
    with training_server(folder) as url:
        yield folder, url


class Box:
    """A machine with the remote ``box``, and the jobs there."""

    def __init__(self, shell: Shell, folder: Path) -> None:
        self.shell, self.folder = shell, folder

    def job(self, name: str, files: dict[str, bytes] | None = None, **facts: Any) -> Path:
        """A job with these files; every test has its own, as the server counts what was asked of each."""
        found = {"model.safetensors": WEIGHTS, "config.json": b"{}", "training.log": b"loss 0.1\n"} | (files or {})
        write_files(self.folder / name, found)
        (self.folder / name / "job.json").write_text(json.dumps({"status": "completed", **facts}))
        return self.shell.models / "box" / name


@pytest.fixture
def box(runs: tuple[Path, str], tmp_path: Path) -> Box:
    shell = Shell(tmp_path)
    settings(shell, f'[remotes.box]\nkind = "trainer"\nurl = "{runs[1]}"\n')
    return Box(shell, runs[0])


def test_a_zip_becomes_a_folder(mdl: Inside, box: Box) -> None:
    """The zip of a server is opened and not kept; a second run asks how the job stands, and fetches nothing."""
    folder = box.job("j1", {"checkpoint-500/model.safetensors": WEIGHTS})
    first = done(mdl(box.shell, "fetch", "box", "j1", "--json")).document
    assert first["bytes_fetched"] > 2 * len(WEIGHTS)
    assert first["models"][0]["name"] == "box/j1"
    assert files_below(folder)["checkpoint-500/model.safetensors"] == WEIGHTS
    assert not list(box.shell.models.rglob("*.zip"))
    again = done(mdl(box.shell, "fetch", "box", "j1", "--json")).document
    assert (again["bytes_fetched"], {file["action"] for file in again["models"][0]["files"]}) == (0, {"kept"})
    assert done(mdl(box.shell, "fetch", "box", "j1")).out == f"{folder}\n"


def test_one_checkpoint_and_the_logs(mdl: Inside, box: Box) -> None:
    """A checkpoint is meant by its name, its step or ``latest``, and lies in a folder of its own; so do the logs."""
    folder = box.job("j2", {"checkpoint-500/model.safetensors": WEIGHTS})
    for name in ("500", "checkpoint-500", "latest"):
        done(mdl(box.shell, "fetch", "box", "j2", "--checkpoint", name))
        assert files_below(folder.with_name(f"j2_{name}")) == {"model.safetensors": WEIGHTS}
    done(mdl(box.shell, "fetch", "box", "j2", "--logs"))
    assert files_below(folder.with_name("j2_logs")) == {"training.log": b"loss 0.1\n"}
    missing = done(mdl(box.shell, "fetch", "box", "j2", "--checkpoint", "900"), 3)
    assert "checkpoint-500" in missing.err
    assert done(mdl(box.shell, "fetch", "box", "j2", "--checkpoint", "../j1"), 11).out == ""


def test_a_job_that_is_not_done(mdl: Inside, box: Box) -> None:
    """14 while it runs, unless what is there is wanted; 3 with its own error if it failed, and its logs can be had;
    10 for a mixture."""
    folder = box.job("j3", status="running")
    box.job("j4", status="failed", error_message="CUDA out of memory")
    box.job("j5")
    assert "still running" in done(mdl(box.shell, "fetch", "box", "j3"), 14).err
    assert not folder.exists()
    done(mdl(box.shell, "fetch", "box", "j3", "--allow-running"))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    failed = done(mdl(box.shell, "fetch", "box", "j4"), 3)
    assert ("CUDA out of memory" in failed.err, "again with --logs" in failed.err) == (True, True)
    done(mdl(box.shell, "fetch", "box", "j4", "--logs"))
    assert files_below(folder.with_name("j4_logs")) == {"training.log": b"loss 0.1\n"}
    mixed = done(mdl(box.shell, "fetch", "box", "j4", "j5", "nope", "--json"), 3).document
    assert [(model["name"], model["error"] and model["error"]["code"]) for model in mixed["models"]] == [
        ("box/j4", "NOTFOUND"),
        ("box/j5", None),
        ("box/nope", "NOTFOUND"),
    ]
    assert done(mdl(box.shell, "fetch", "box", "j3", "j4"), 10).out == ""


def test_wait_for_a_job(mdl: Inside, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--wait`` asks again until the job is over, or until its time is up."""
    box.job("j6", status="running")
    done(mdl(box.shell, "fetch", "box", "j6", "--wait", "0.1s"), 14)

    def ends(*_: object) -> None:
        box.job("j6", status="completed")

    monkeypatch.setattr("mdl.cancel.CancelToken.wait", ends)
    done(mdl(box.shell, "fetch", "box", "j6", "--wait"))


@pytest.mark.fault(437)
def test_a_broken_zip_is_fetched_anew(mdl: Inside, box: Box) -> None:
    """A connection that breaks costs the bytes that came; for ever broken, it ends in 5 with nothing published."""
    folder = box.job("j7", faults={"drop_at": MIB, "times": 1})
    assert done(mdl(box.shell, "fetch", "box", "j7", "--json")).document["bytes_discarded"] >= MIB // 2
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    folder = box.job("j8", faults={"drop_at": MIB})
    done(mdl(box.shell, "fetch", "box", "j8", "--retries", "1"), 5)
    assert not folder.exists()


@pytest.mark.fault(438)
def test_a_short_zip_is_found(mdl: Inside, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that ends in good order without the end of the zip is fetched once more; then it is damage."""
    folder = box.job("j9", faults={"short_at": MIB, "times": 1})
    done(mdl(box.shell, "fetch", "box", "j9"))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    folder = box.job("j10", faults={"short_at": MIB})
    assert "without its end record" in done(mdl(box.shell, "fetch", "box", "j10"), 6).err
    assert not folder.exists()
    with monkeypatch.context() as patch:  # the control: without this look, half a zip is a whole file
        patch.setattr(open_file, "check_whole", lambda *_: None)
        assert "without its end record" not in done(mdl(box.shell, "fetch", "box", "j10"), 6).err


@pytest.mark.fault(438)
def test_a_short_safetensors_in_a_whole_zip(mdl: Inside, box: Box) -> None:
    """A file that the server read while it was written is named, and nothing is published."""
    folder = box.job("j11", {"model.safetensors": WEIGHTS[:-1]})
    assert "model.safetensors" in done(mdl(box.shell, "fetch", "box", "j11"), 6).err
    assert not folder.exists()


@pytest.mark.fault(438)
@pytest.mark.parametrize("name", ["model.pt", "model.h5", "model.gguf"])
def test_cut_weights_in_a_whole_zip(mdl: Inside, box: Box, name: str, tmp_path: Path) -> None:
    """A file of any kind that lacks its end is not put into service."""
    box.job("j11", {name: whole_file(name)[:-600]})
    assert name in done(mdl(box.shell, "fetch", "box", "j11", "--release", str(tmp_path / "site")), 6).err
    assert not (tmp_path / "site" / "current").exists()


@pytest.mark.fault(439)
def test_a_job_that_changes_meanwhile(mdl: Inside, box: Box) -> None:
    """The status after the zip must be that before it."""
    folder = box.job("j12", faults={"then_status": "running"})
    assert "changed" in done(mdl(box.shell, "fetch", "box", "j12"), 6).err
    assert not folder.exists()
    done(mdl(box.shell, "fetch", "box", "j12", "--allow-running"))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_newer_result_replaces_mdls_own_alone(mdl: Inside, box: Box) -> None:
    """What mdl wrote gives way to what the job has now; what was edited since, or is a stranger's, does not."""
    folder = box.job("j13", updated_at="2026-11-01T10:00:00")
    done(mdl(box.shell, "fetch", "box", "j13"))
    box.job("j13", {"config.json": b'{"a": 1}', "new.txt": b"new"}, updated_at="2026-11-02T10:00:00")
    (folder / "new.txt").write_text("a stranger's")
    ran = done(mdl(box.shell, "fetch", "box", "j13", "--json"), 7).document
    assert {file["path"]: file["action"] for file in ran["models"][0]["files"]} == {
        "config.json": "fetched",
        "model.safetensors": "kept",
        "new.txt": "failed",
        "training.log": "kept",
    }
    assert (folder / "config.json").read_bytes() == b'{"a": 1}'
    assert (folder / "new.txt").read_text() == "a stranger's"
    done(mdl(box.shell, "fetch", "box", "j13", "--force"))
    assert (folder / "new.txt").read_text() == "new"


def test_into_include_and_keep_archive(mdl: Inside, box: Box, tmp_path: Path) -> None:
    """One job goes into one folder, as much of it as is asked for; the zip may be kept beside it."""
    box.job("j14")
    words = ("fetch", "box", "j14", "--into", str(tmp_path / "here"), "--include", "*.json", "--keep-archive")
    done(mdl(box.shell, *words))
    found = [name for name in files_below(tmp_path / "here") if not name.startswith(".mdl")]
    assert sorted(found) == ["config.json", "model_j14.zip"]
    assert done(mdl(box.shell, "fetch", "box", "j14", "j13", "--into", str(tmp_path / "here")), 2).out == ""


def test_release_and_rollback(mdl: Inside, box: Box, tmp_path: Path) -> None:
    """``--release`` puts the results into service in one step; what was served before can be served again."""
    box.job("j15")
    box.job("j16", {"config.json": b'{"a": 2}'})
    site = tmp_path / "site"
    first = done(mdl(box.shell, "fetch", "box", "j15", "--release", str(site))).out.strip()
    second = done(mdl(box.shell, "fetch", "box", "j16", "--release", str(site), "--json")).document["release"]
    assert (second["changed"], second["previous"]) == (True, Path(first).name)
    assert (site / "current" / "config.json").read_bytes() == b'{"a": 2}'
    same = done(mdl(box.shell, "fetch", "box", "j16", "--release", str(site), "--json")).document
    assert (same["release"]["changed"], same["bytes_fetched"]) == (False, 0)
    done(mdl(box.shell, "rollback", str(site)))
    assert (site / "current" / "config.json").read_bytes() == b"{}"
    done(mdl(box.shell, "fetch", "box", "j15", "j16", "--release", str(site)), 2)
    done(mdl(box.shell, "fetch", "box", "j15", "--check", "true"), 2)


def test_a_release_is_what_the_job_has(mdl: Inside, box: Box, tmp_path: Path) -> None:
    """What an older result left in the folder, and what else lies there, is not put into service; a folder ``model``
    is one among others."""
    site = tmp_path / "site"
    folder = box.job("j21", {"old.txt": b"old", "model/a.txt": b"a"}, updated_at="2026-11-01T10:00:00")
    done(mdl(box.shell, "fetch", "box", "j21"))
    (box.folder / "j21" / "old.txt").unlink()
    (folder / "mine.txt").write_text("a stranger's")
    box.job("j21", updated_at="2026-11-02T10:00:00")
    done(mdl(box.shell, "fetch", "box", "j21", "--release", str(site)))
    served = sorted(files_below(site / "current"))
    assert served == ["config.json", "mdl-manifest.json", "model.safetensors", "model/a.txt"]


def test_a_release_that_fails(mdl: Inside, box: Box, tmp_path: Path) -> None:
    """The document says what was fetched, and why that is not in service; stdout has no folder."""
    folder = box.job("j30")
    words = ("fetch", "box", "j30", "--release", str(tmp_path / "site"), "--check", "false")
    ran = done(mdl(box.shell, *words, "--json"), 6).document
    assert (ran["release"], ran["models"][0]["path"], len(ran["models"][0]["files"])) == (None, str(folder), 3)
    assert "the check ended with 1" in ran["error"]["message"]
    assert done(mdl(box.shell, *words), 6).out == ""


def test_what_cannot_be_stored_is_not_fetched(mdl: Inside, box: Box) -> None:
    """The hub's cache holds no results; that is said before the first byte."""
    box.job("j31")
    ran = done(mdl(box.shell, "fetch", "box", "j31", "--layout", "hf-cache"), 2)
    assert ("started" in ran.err, "hub's cache" in ran.err) == (False, True)


def test_no_file_of_a_zip_is_repaired_alone(mdl: Inside, box: Box) -> None:
    """A file that came in a zip is named with the command that brings it again, which works."""
    folder = box.job("j32")
    done(mdl(box.shell, "fetch", "box", "j32"))
    spoil(folder / "config.json", b"[]")
    assert "'mdl fetch box j32' again, with --force" in done(mdl(box.shell, "verify", "box/j32", "--repair"), 6).err
    done(mdl(box.shell, "fetch", "box", "j32", "--force"))
    done(mdl(box.shell, "verify", "box/j32"))


def test_a_zip_of_zeros(mdl: Inside, box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks like a zip bomb is refused, and taken with ``--max-ratio``; what mdl packs of it itself is no bomb."""
    monkeypatch.setattr("mdl.archive.base.HARMLESS", MIB)
    box.job("j22", {"zeros.bin": bytes(3 * MIB)}, compresslevel=6)
    words = ("fetch", "box", "j22", "--release", str(tmp_path / "site"))
    assert "--max-ratio" in done(mdl(box.shell, *words), 11).err
    done(mdl(box.shell, *words, "--max-ratio", "5000"))


def test_keep_archive_later(mdl: Inside, box: Box) -> None:
    """The zip is fetched again if it is wanted only now, and not once more while it is here."""
    folder = box.job("j23")
    done(mdl(box.shell, "fetch", "box", "j23"))
    words = ("fetch", "box", "j23", "--keep-archive", "--json")
    assert [done(mdl(box.shell, *words)).document["bytes_fetched"] > 0 for _ in range(2)] == [True, False]
    assert (folder.parent / "model_j23.zip").is_file()


def test_every_failure_is_told(mdl: Inside, box: Box) -> None:
    """Each job that fails has its line in the log and its event, with the words of the server; once."""
    box.job("j24", status="failed", error="CUDA out of memory")
    box.job("j25", faults={"short_at": MIB})
    box.job("j26", {"model.safetensors": WEIGHTS[:-1]})
    ran = done(mdl(box.shell, "fetch", "box", "j24", "nope", "j25", "j26", "--progress", "json"), 10)
    failed = [event["error"] for event in ran.events if event["status"] == "file-failed"]
    assert [error["item"] for error in failed] == ["box/j24", "box/nope", "box/j25/model_j25.zip", "box/j26"]
    [log] = box.shell.home.rglob("downloads.log")
    told = [line for line in log.read_text().splitlines() if " ERROR failed " in line]
    assert ["CUDA out of memory" in line for line in told] == [True, False, False, False]


def test_wait_is_for_all(mdl: Inside, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--wait`` is one time for all jobs."""
    box.job("j27", status="running")
    box.job("j28", status="queued")
    now = [0.0]
    monkeypatch.setattr("mdl.ops.fetch.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("mdl.cancel.CancelToken.wait", lambda _, seconds: now.append(now.pop() + seconds))
    done(mdl(box.shell, "fetch", "box", "j27", "j28", "--wait", "10"), 14)
    assert now == [10.0]


def test_a_release_has_what_was_fetched_alone(mdl: Inside, box: Box, tmp_path: Path) -> None:
    """A file of an earlier result, a file of a stranger, and a file that was not asked for are not served."""
    box.job("k21", {"old.safetensors": WEIGHTS}, updated_at="2026-11-01T10:00:00")
    release = ("fetch", "box", "k21", "--release", str(tmp_path / "site"))
    done(mdl(box.shell, *release))
    assert (tmp_path / "site" / "current" / "old.safetensors").exists()
    (box.shell.models / "box" / "k21" / "notes.txt").write_text("a stranger's")
    (box.folder / "k21" / "old.safetensors").unlink()
    box.job("k21", updated_at="2026-11-02T10:00:00")
    done(mdl(box.shell, *release))
    assert set(files_below(tmp_path / "site" / "current")) == {"model.safetensors", "config.json", "mdl-manifest.json"}
    done(mdl(box.shell, *release, "--include", "*.json"))
    assert set(files_below(tmp_path / "site" / "current")) == {"config.json", "mdl-manifest.json"}


def stopped(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def full(*_: Any, **__: Any) -> None:
    raise NoSpace("no room for it")


def sent(*_: Any, **__: Any) -> None:
    the_signals().cancel.set(Cancelled())


@pytest.mark.parametrize(
    ("job", "where", "trouble", "code"),
    [
        ("k22", "mdl.ops.fetch.unpack", full, 7),
        ("k23", "mdl.ops.fetch.unpack", stopped, 130),
        ("k24", "mdl.ops.fetch.adopt_kept", sent, 130),
    ],
)
def test_what_was_fetched_is_kept(
    mdl: Inside, box: Box, monkeypatch: pytest.MonkeyPatch, job: str, where: str, trouble: Any, code: int
) -> None:
    """After a full disk, and after a stop while it is unpacked or published, the server need not zip it again. What is
    there of it meanwhile is known to ``mdl clean``."""
    folder = box.job(job)
    with monkeypatch.context() as patch:
        patch.setattr(where, trouble)
        done(mdl(box.shell, "fetch", "box", job), code)
    assert not folder.exists()
    items = done(mdl(box.shell, "clean", "--json")).document["items"]
    [zipped] = [row["path"] for row in items if "never unpacked" in row["why"]]
    assert zipped.endswith(".zip")
    assert done(mdl(box.shell, "fetch", "box", job, "--json")).document["bytes_fetched"] == 0
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not list(box.shell.models.rglob("*.zip"))


@pytest.mark.fault(440)
def test_max_size(mdl: Inside, box: Box) -> None:
    """A stream without a length is left at the limit; nothing is published."""
    folder = box.job("j17")
    assert "1,000,000 are allowed" in done(mdl(box.shell, "fetch", "box", "j17", "--max-size", "1M"), 11).err
    assert not folder.exists()
    done(mdl(box.shell, "fetch", "box", "j17", "--max-size", "3M"))


def test_the_servers_own_words(mdl: Inside, box: Box) -> None:
    """What the server says is told, on which job, and what to do."""
    box.job("j18", faults={"detail": "Failed to create model archive: disk full", "status_code": 500})
    ran = done(mdl(box.shell, "fetch", "box", "j18", "--retries", "1"), 5)
    assert "Failed to create model archive: disk full" in ran.err
    assert "box/j18" in ran.err


def test_dry_run_jobs_and_offline(mdl: Inside, box: Box) -> None:
    """The plan writes nothing and says what a fetch would: of a zip one row, or what it holds if that is here; 14 for a
    job that still runs. A fetch is a job; offline, what is here is kept, and what is not ends in 8."""
    folder = box.job("j19")
    assert done(mdl(box.shell, "fetch", "box", "j19", "-n", "--json")).document["job"] is None
    assert not folder.exists()
    some = done(mdl(box.shell, "fetch", "box", "j19", "-n", "--json", "--include", "*.json")).document
    assert [file["action"] for file in some["models"][0]["files"]] == ["planned"]
    done(mdl(box.shell, "fetch", "box", "j19", "--offline"), 8)
    ran = done(mdl(box.shell, "fetch", "box", "j19", "--json")).document
    jobs = {job["id"]: job for job in done(mdl(box.shell, "jobs", "--json")).document["jobs"]}
    assert (jobs[ran["job"]]["command"], jobs[ran["job"]]["models"]) == ("fetch", ["box/j19"])
    plan = done(mdl(box.shell, "fetch", "box", "j19", "-n", "--json")).document
    assert {file["action"] for file in plan["models"][0]["files"]} == {"kept"}
    assert (plan["bytes_to_fetch"], plan["bytes_total"]) == (0, plan["bytes_kept"])
    box.job("j29", status="running")
    assert "still running" in done(mdl(box.shell, "fetch", "box", "j29", "j19", "-n"), 14).err
    done(mdl(box.shell, "fetch", "box", "j29", "-n", "--allow-running"))
    assert done(mdl(box.shell, "fetch", "box", "j19", "--offline")).out == f"{folder}\n"
    assert done(mdl(box.shell, "verify", "box/j19")).code == 0


def test_wrong_words(mdl: Inside, box: Box) -> None:
    """What cannot be meant is refused before anything is asked."""
    empty = [("box", "j1", flag, "") for flag in ("--checkpoint", "--into", "--release")]
    for words in (("nobody", "j1"), ("box", "a/b"), ("box", "j1", "--logs", "--checkpoint", "5"), ("box",), *empty):
        assert done(mdl(box.shell, "fetch", *words), 2).out == ""


# A bucket. What needs a store that checks signatures is in tests/system/test_bucket_store.py.


@pytest.fixture
def store(s3_url: str, tmp_path: Path) -> Shell:
    """A machine with the remote ``store``, a bucket with two jobs."""
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "the-secret", "AWS_ENDPOINT_URL_S3": s3_url}
    shell = Shell(tmp_path, extra=keys)
    settings(shell, '[remotes.store]\nkind = "bucket"\nurl = "s3://training/pre"\n')
    api = s3_api(s3_url)
    api.create_bucket(Bucket="training")
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    for key, data, metadata in (
        ("results/p1/lora/a.safetensors", WEIGHTS, {"sha256": digest}),
        ("results/p1/samples/1.png", b"\x89PNG\r\n\x1a\n", {}),
        ("results/p1/logs/training.log", b"log", {}),
        ("results/p2/lora/a.safetensors", WEIGHTS, {"sha256": "0" * 64}),
        ("processes/p1.json", b'{"status": "completed"}', {}),
        ("processes/p2.json", b'{"status": "completed"}', {}),
    ):
        api.put_object(Bucket="training", Key=f"pre/{key}", Body=data, Metadata=metadata)
    return shell


def test_weights_by_default(mdl: Inside, store: Shell) -> None:
    """Pictures and logs stay where they are unless they are asked for; the recorded digest is compared."""
    ran = done(mdl(store, "fetch", "store", "p1", "--json")).document
    [file] = ran["models"][0]["files"]
    assert (file["path"], file["verified"]) == ("lora/a.safetensors", "sha256")
    done(mdl(store, "fetch", "store", "p1", "--include", "*.png"))
    done(mdl(store, "fetch", "store", "p1", "--logs"))
    assert set(files_below(store.models / "store")) == {
        "p1/lora/a.safetensors",
        "p1/samples/1.png",
        "p1_logs/logs/training.log",
    }


@pytest.mark.parametrize("name", ["lora/{}.safetensors", "samples/{}.png"])
@pytest.mark.parametrize("beside", ["plain files", "an archive", "nothing"])
def test_a_name_that_cannot_be_kept(mdl: Inside, store: Shell, name: str, beside: str, tmp_path: Path) -> None:
    """Such a file of a job is refused alone, and only if it is asked for; nothing is released without it."""
    job = f"{beside[-5:]}-{name[:4]}"  # the tests share one store
    api = s3_api(store.extra["AWS_ENDPOINT_URL_S3"])
    long = name.format("x" * 300)
    api.put_object(Bucket="training", Key=f"pre/results/{job}/{long}", Body=WEIGHTS)
    api.put_object(Bucket="training", Key=f"pre/processes/{job}.json", Body=b'{"status": "completed"}')
    others = {"plain files": ("lora/a.safetensors", WEIGHTS), "an archive": ("model.zip", zipped({"w.bin": WEIGHTS}))}
    if beside in others:
        path, data = others[beside]
        api.put_object(Bucket="training", Key=f"pre/results/{job}/{path}", Body=data)
    place = tmp_path / "served"
    ran = done(mdl(store, "fetch", "store", job, "--all", "--release", str(place), "--json"), 11)
    rows = {file["path"]: file["error"] for model in ran.document["models"] for file in model["files"]}
    assert rows.pop(long)["code"] == "UNSAFE"
    assert (list(rows.values()), place.exists()) == ([None] if beside in others else [], False)
    kept = files_below(store.models / "store" / job)
    assert WEIGHTS in kept.values() if beside in others else not kept
    if beside in others:
        assert done(mdl(store, "fetch", "store", job, "--all", "--exclude", "*xx*", "--json")).document["ok"]
        rows = done(mdl(store, "fetch", "store", job, "--all", "-n", "--json"), 11).document["models"][0]["files"]
        assert long in [row["path"] for row in rows]


@pytest.mark.fault(436)
def test_a_recorded_digest_that_does_not_match(mdl: Inside, store: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are not those of the recorded digest are not published."""
    assert "0" * 64 in done(mdl(store, "fetch", "store", "p2", "--retries", "1"), 6).err
    assert not (store.models / "store" / "p2").exists()
    with monkeypatch.context() as patch:  # the control: without it, wrong bytes pass
        patch.setattr(fetch, "recorded_digest", lambda headers: None)
        done(mdl(store, "fetch", "store", "p2"))


@pytest.mark.parametrize("words", [("fetch", "store", "p1"), ("get", "s3://training/pre/results/p1/lora")])
def test_what_came_from_a_bucket_is_repaired(mdl: Inside, store: Shell, words: tuple[str, ...]) -> None:
    """``verify --repair`` signs a new link to what is wrong."""
    folder = Path(done(mdl(store, *words)).out.splitlines()[-1])
    [file] = folder.rglob("a.safetensors")
    spoil(file, bytes(len(WEIGHTS)))
    done(mdl(store, "verify"), 6)
    done(mdl(store, "verify", "--repair"))
    assert file.read_bytes() == WEIGHTS


def test_events_name_the_method(mdl: Inside, store: Shell) -> None:
    """A bucket's files come by ``s3``."""
    ran = done(mdl(store, "fetch", "store", "p1", "--progress", "json"))
    assert {event["method"] for event in ran.events} == {"s3"}


def test_trouble_while_waiting(mdl: Inside, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cannot be reached for a while does not end a long wait, once it has answered; else it does."""
    box.job("j33")
    answers: list[RemoteJob | NetworkError] = []

    def status(_: Trainer, job: str) -> RemoteJob:
        answer = answers.pop(0) if answers else RemoteJob(job, "done")
        if isinstance(answer, NetworkError):
            raise answer
        return answer

    monkeypatch.setattr(Trainer, "status", status)
    monkeypatch.setattr("mdl.cancel.CancelToken.wait", lambda *_: None)
    answers[:] = [RemoteJob("j33", "running"), NetworkError("the server is restarting")]
    assert "waiting on: the server is restarting" in done(mdl(box.shell, "fetch", "box", "j33", "--wait")).err
    answers[:] = [NetworkError("the server is restarting")]
    done(mdl(box.shell, "fetch", "box", "j33", "--wait"), 5)


def test_a_job_that_no_catalog_knows(mdl: Inside, store: Shell) -> None:
    """What was fetched has a path and a status by its name."""
    done(mdl(store, "fetch", "store", "p1"))
    assert done(mdl(store, "path", "store/p1")).out == f"{store.models / 'store' / 'p1'}\n"
    assert done(mdl(store, "show", "store/p1", "--json")).document["model"]["files_present"] == 1
    done(mdl(store, "path", "store/p9"), 3)


def test_cut_weights_of_a_bucket_are_not_served(mdl: Inside, store: Shell, s3_url: str, tmp_path: Path) -> None:
    """What was cut where it was saved comes with the right digest; it is not put into service."""
    whole = whole_file("a.pt")
    api = s3_api(s3_url)
    for name, data in (("whole", whole), ("cut", whole[:-300])):
        api.put_object(Bucket="training", Key=f"pre/results/{name}/lora/a.pt", Body=data)
        api.put_object(Bucket="training", Key=f"pre/processes/{name}.json", Body=b'{"status": "completed"}')
    site = tmp_path / "site"
    assert "a.pt" in done(mdl(store, "fetch", "store", "cut", "--release", str(site)), 6).err
    assert not (site / "current").exists()
    done(mdl(store, "fetch", "store", "whole", "--release", str(site)))
    assert (site / "current" / "lora" / "a.pt").read_bytes() == whole
