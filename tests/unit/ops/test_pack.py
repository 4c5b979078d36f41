"""Packing, unpacking and releasing from Python: what the functions take, return and raise; nothing is printed."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from support.packing import MANIFEST, make_run, read_whole

from mdl.cancel import CancelToken
from mdl.errors import Cancelled, NotFound, UsageError
from mdl.events import Event, Finished, Planned, Progressed
from mdl.ops.pack import PackOptions, PackRequest, pack, plan_pack, write_pack
from mdl.ops.release import release, rollback
from mdl.ops.unpack import unpack


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    return make_run(tmp_path)


@pytest.fixture(autouse=True)
def nothing_printed(capfd: pytest.CaptureFixture[str]) -> object:
    """No function prints."""
    yield
    assert capfd.readouterr() == ("", "")


def test_the_result_of_a_pack(run: Path, tmp_path: Path) -> None:
    """Where the archive is, its size and digest, what is in it and what was left out, and why."""
    events: list[Event] = []
    done = pack(str(run), str(tmp_path), checkpoint="latest", inference_only=True, on_event=events.append)
    assert done.path == tmp_path / "model_run_checkpoint-1000.zip"
    assert done.name == done.path.name
    data = done.path.read_bytes()
    assert (done.bytes, done.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert done.files == len(done.manifest.files) == len(set(read_whole(done.path)) - {MANIFEST})
    assert "optimizer.pt" in {one.path for one in done.skipped}
    assert done.changed == ()
    assert (type(events[0]), type(events[-1])) == (Planned, Finished)


def test_a_plan_writes_nothing(run: Path, tmp_path: Path) -> None:
    """The plan knows members, bytes and reasons; the archive is written from it, and only then."""
    before = sorted(tmp_path.iterdir())
    plan = plan_pack(run, tmp_path / "x.zip", exclude=["checkpoint-*"])
    assert (plan.path, plan.name) == (tmp_path / "x.zip", "x.zip")
    assert plan.selection.bytes == sum(one.size for one in plan.selection.members)
    assert sorted(tmp_path.iterdir()) == before
    assert write_pack(plan, digest=False).sha256 is None


def test_a_descriptor_takes_the_same_bytes(run: Path, tmp_path: Path) -> None:
    """An open descriptor, like a pipe's, gets what a file gets, with its digest."""
    read, write = os.pipe()
    os.set_blocking(write, True)
    with os.fdopen(read, "rb") as pipe:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if pack(run, write).path is None else 1)
        os.close(write)
        data = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    assert pack(run, tmp_path / "x.zip").sha256 == hashlib.sha256(data).hexdigest()
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None


def cancelling(cancel: CancelToken) -> Callable[[Event], None]:
    """A listener that cancels the work as soon as it is under way."""
    return lambda event: cancel.set() if isinstance(event, Planned | Progressed) else None


def test_another_thread_can_cancel(run: Path, tmp_path: Path) -> None:
    """Each of the functions ends with `Cancelled`, and leaves nothing."""
    archive = pack(run, tmp_path / "x.zip").path
    assert archive
    before = sorted(tmp_path.iterdir())
    cancels = [CancelToken() for _ in range(3)]
    attempts = (
        lambda: pack(run, tmp_path / "y.zip", cancel=cancels[0], on_event=cancelling(cancels[0])),
        lambda: unpack(archive, tmp_path / "out", cancel=cancels[1], on_event=cancelling(cancels[1])),
        lambda: release(archive, tmp_path / "srv", cancel=cancels[2], on_event=cancelling(cancels[2])),
    )
    for attempt in attempts:
        with pytest.raises(Cancelled):
            attempt()
    assert [one for one in sorted(tmp_path.iterdir()) if one.name != "srv"] == before
    assert list((tmp_path / "srv" / "releases").iterdir()) == []


def test_the_results_of_releases(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version, folder, what changed, what a rollback returns to; the target is named after the archive by itself."""
    archive = pack(run, tmp_path / "x.zip").path
    assert archive
    monkeypatch.chdir(tmp_path)
    unpacked = unpack("x.zip")
    assert (unpacked.path, unpacked.files) == (tmp_path / "x", len(unpacked.manifest.files))
    assert unpacked.bytes == sum(one.size for one in unpacked.manifest.files)
    first = release(archive, "srv", check=[sys.executable, "-c", "pass"])
    assert (first.changed, first.previous, first.path) == (True, None, tmp_path / "srv" / "releases" / first.version)
    assert release(archive, "srv").changed is False
    second = release(pack(run, tmp_path / "y.zip", checkpoint="best").path or "", "srv", keep=1)
    assert (second.changed, second.previous, second.removed) == (True, first.version, ())
    back = rollback("srv")
    assert (back.version, back.changed, back.previous) == (first.version, True, None)
    with pytest.raises(NotFound):
        rollback("srv")


def test_usage_errors(run: Path, tmp_path: Path) -> None:
    """Logs and a checkpoint do not go together, and a check without a command is never no check."""
    with pytest.raises(UsageError):
        plan_pack(run, logs=True, checkpoint="latest")
    archive = pack(run, tmp_path / "x.zip").path
    for check in ("", [], " "):
        with pytest.raises(UsageError):
            release(archive or "", tmp_path / "srv", check=check)
    assert not (tmp_path / "srv").exists()


def test_a_request_is_the_same_as_its_words(run: Path, tmp_path: Path) -> None:
    """A request is packed as its fields are as keywords; both have the same names."""
    request = PackRequest(run, tmp_path / "x.zip", checkpoint="best", exclude="*.json")
    told = pack(run, tmp_path / "y.zip", checkpoint="best", exclude="*.json")
    assert pack(request).sha256 == told.sha256
    assert PackOptions.__optional_keys__ == {field.name for field in fields(PackRequest)} - {"run", "output"}


def test_an_empty_file_beside_a_model_is_packed(run: Path, tmp_path: Path) -> None:
    """A file of no bytes that is only called like weights is no cut one: it hinders no pack of the run."""
    (run / "empty.bin").touch()
    pack(str(run), str(tmp_path / "a.zip"))
    assert read_whole(tmp_path / "a.zip")["empty.bin"] == b""


def test_all_of_a_recognised_run_is_packed_without_a_remark(run: Path, tmp_path: Path) -> None:
    """That no model is recognised is said where that is so, and --all is asked for."""
    plan = plan_pack(run, tmp_path / "run.zip", whole_run=True)
    assert not plan.selection.notes
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    plan = plan_pack(tmp_path / "other", tmp_path / "other.zip", whole_run=True)
    assert [note.split(":")[0] for note in plan.selection.notes] == ["no model is recognised"]
