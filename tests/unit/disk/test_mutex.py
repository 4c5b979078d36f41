"""Mutexes in trouble: a signal handler's exception ends the call; a file that cannot be closed hinders no other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from support.body_writes import CloseFails

from mdl.catalog.model import Model
from mdl.catalog.resolver import Resolver
from mdl.context import Context, model_locks
from mdl.disk.mutex import file_lock, folder_lock, is_locked
from mdl.downloader.store import Store
from mdl.errors import Busy
from mdl.paths import record_name
from mdl.sources import SourceContext
from mdl.sources.hub_endpoint import Endpoint


def over(*_: object, **__: object) -> None:
    """What a signal handler may do: its ``TimeoutError`` is an ``OSError`` without a number."""
    raise TimeoutError("my time is over")


def take_file_lock(folder: Path) -> None:
    with file_lock(folder / "locks", "org--tiny", 0, print):
        pytest.fail("it works without the lock")


def take_folder_lock(folder: Path) -> None:
    with folder_lock(folder):
        pytest.fail("it works without the lock")


@pytest.mark.parametrize("take", [take_file_lock, take_folder_lock])
def test_it_comes_while_the_lock_is_asked_for(
    take: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as an answer of the kernel, after which the work would be done without the lock."""
    monkeypatch.setattr("fcntl.flock", over)
    with pytest.raises(TimeoutError, match="my time is over"):
        take(tmp_path)


def test_it_comes_while_another_ones_lease_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as a sign that the other process is dead: its lease stays."""
    (tmp_path / "locks").mkdir(mode=0o700)
    lease = tmp_path / "locks" / f"{record_name('org--tiny')}.who"
    lease.write_text("{}")
    monkeypatch.setattr("mdl.disk.mutex.has_reliable_locks", lambda path: False)
    monkeypatch.setattr("os.utime", over)
    with pytest.raises(TimeoutError, match="my time is over"):
        take_file_lock(tmp_path)
    assert lease.exists()


@pytest.mark.parametrize("kind", ["ext4", "exfat", "vfat", "ntfs3", "fuseblk", "nfs4", "fuse.sshfs"])
def test_the_lease_of_a_killed_process(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hinders nobody on a disk of this machine, also on one that is carried about: the lock is free. Where locks
    may lie it keeps others out for a minute."""
    monkeypatch.setattr("mdl.disk.mutex.filesystem_type", lambda path: kind)
    (tmp_path / "locks").mkdir(mode=0o700)
    lease = tmp_path / "locks" / f"{record_name('org--tiny')}.who"
    lease.write_text("{}")
    is_local = kind not in ("nfs4", "fuse.sshfs")
    with contextlib.nullcontext() if is_local else pytest.raises(Busy):
        file_lock(tmp_path / "locks", "org--tiny", 0, lambda _holder: None).release()
    assert lease.exists() != is_local


@pytest.mark.parametrize("failing", ["who", "lock"])
def test_all_are_released_if_one_cannot_be(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may answer the closing of a lease or a lock with an error: the other models stay locked for nobody."""
    store = Store(tmp_path)
    models = [Model(name) for name in ("a", "b", "c")]
    context = Context(Resolver(SourceContext(Endpoint(), store.listings)), store)
    with pytest.raises(OSError, match="Input/output"), model_locks(models, context):
        locks = sorted(store.locks.glob("*.lock"))
        assert [is_locked(lock) for lock in locks] == [True] * 3
        names = [f"{record_name(model.name)}.{failing}" for model in models]
        monkeypatch.setattr("os.close", CloseFails(*names, *(f"{name} (deleted)" for name in names)))
    monkeypatch.undo()
    assert [is_locked(lock) for lock in locks] == [False] * 3
    assert store.leases == set()
