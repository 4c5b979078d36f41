"""The store: what stands where, nothing through links, and only verified bytes under a final name."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.partials import dead_owner

from mdl.engine.adoption import remove_stale
from mdl.engine.plan import Plan, Wanted
from mdl.engine.store import Store
from mdl.errors import Busy, Occupied, StorageError, Unsafe
from mdl.files import RemoteFile
from mdl.fs import staging
from mdl.fs.entries import EntryAt
from mdl.hashing import Digest, Fingerprint
from mdl.paths import RelPath
from mdl.process import ProcessId

DATA = b"weights" * 100
DIGEST = Digest("sha256", hashlib.sha256(DATA).hexdigest())
GIT = Digest("git-sha1", hashlib.sha1(b"blob %d\0" % len(DATA) + DATA).hexdigest())
PRINT = Fingerprint(DIGEST, len(DATA))
REMOTE = RemoteFile(RelPath.parse("unet/m.bin"), "https://h/m.bin?sig=x", len(DATA), DIGEST)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def publish(store: Store, remote: RemoteFile = REMOTE, data: bytes = DATA) -> Path:
    """Fetch by hand: write a partial, publish it."""
    partial = store.open_partial("model", remote)
    partial.write(0, data)
    store.publish("model", remote, partial, replace(PRINT, digest=remote.digest or DIGEST), "sha256")
    return store.final_path("model", remote)


def put(store: Store, data: bytes, path: RelPath = REMOTE.path) -> Path:
    """A stranger's file under the final name."""
    final = store.final_path("model", replace(REMOTE, path=path))
    final.parent.mkdir(parents=True, exist_ok=True)
    final.write_bytes(data)
    return final


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing anything fails the test."""

    def read(*_: object, **__: object) -> None:
        raise AssertionError("the bytes were read")

    monkeypatch.setattr("mdl.engine.store.fingerprint", read)


def test_places(tmp_path: Path) -> None:
    """A model has a folder of its name below the root, or the root itself with --into; mdl's own is .mdl there."""
    assert Store(tmp_path).final_path("org/m", REMOTE) == tmp_path / "org" / "m" / "unet" / "m.bin"
    assert Store(tmp_path, into=True).final_path("org/m", REMOTE) == tmp_path / "unet" / "m.bin"
    assert Store(tmp_path).partials == tmp_path / ".mdl" / "partials"
    with pytest.raises(Unsafe):
        Store(tmp_path).folder("../m")


def test_nothing_there(store: Store) -> None:
    """If nothing is there, not even the folder, the file is absent, the disk's free space is known, and no folder is
    made."""
    assert (store.check("model", REMOTE).kind, store.free_space() > 0) == ("absent", True)
    assert not store.root.exists()


def test_published_file_is_known_without_reading(store: Store, no_reading: None) -> None:
    """A published file stands there with a receipt that vouches for it, and no partial is left."""
    final = publish(store)
    assert final.read_bytes() == DATA
    found = store.check("model", REMOTE)
    assert (found.kind, found.untouched, found.fingerprint, found.partial) == ("file", True, None, 0)
    assert found.receipt is not None
    assert (found.receipt.url, found.receipt.verified) == ("https://h/m.bin", "sha256")
    assert list(store.partials.iterdir()) == []


@pytest.mark.parametrize("change", ["bytes", "mtime", "inode", "distrust"])
def test_receipt_no_longer_vouches(store: Store, change: str) -> None:
    """Another mtime or inode, or a distrusted receipt: the bytes are read again."""
    final = publish(store)
    if change == "bytes":
        final.write_bytes(b"X" + DATA[1:])
    elif change == "inode":
        (final.parent / "twin").write_bytes(DATA)
        (final.parent / "twin").rename(final)
    if change == "distrust":
        store.receipts.distrust("model", REMOTE.path)
    else:
        os.utime(final, ns=(5, 5))
    found = store.check("model", REMOTE)
    assert not found.untouched
    assert found.receipt is not None
    assert found.fingerprint is not None
    assert (found.fingerprint.digest == DIGEST) == (change != "bytes")


def test_deep_look_reads_and_tells(store: Store) -> None:
    """A deep look reads even an untouched file, and says how far it is."""
    publish(store)
    seen: list[int] = []
    found = store.check("model", REMOTE, deep=True, watch=seen.append)
    assert found.fingerprint is not None
    assert found.fingerprint.digest == DIGEST
    assert seen[-1] == len(DATA)


def test_only_what_could_be_right_is_read(store: Store, no_reading: None) -> None:
    """A stranger's file of another size, or with no digest to hold it against, is not read at all."""
    put(store, DATA + b"!")
    assert store.check("model", REMOTE).fingerprint is None
    put(store, DATA)
    assert store.check("model", replace(REMOTE, digest=None)).fingerprint is None


@pytest.mark.parametrize("digest", [DIGEST, GIT])
def test_strangers_right_bytes_are_found_right(store: Store, digest: Digest) -> None:
    """A file without a receipt is hashed in the way its source hashes it."""
    put(store, DATA)
    found = store.check("model", replace(REMOTE, digest=digest))
    assert found.receipt is None
    assert found.fingerprint is not None
    assert found.fingerprint.digest == digest


def test_what_is_in_the_way_is_said(store: Store) -> None:
    """A folder, a pipe, a dangling link, or a file where a folder is needed: each is reported as what it is, and
    where."""
    final = store.final_path("model", REMOTE)
    final.mkdir(parents=True)
    assert store.check("model", REMOTE).kind == "folder"
    final.rmdir()
    os.mkfifo(final)
    found = store.check("model", REMOTE)
    assert (found.kind, str(final) in found.why) == ("special", True)
    final.unlink()
    final.symlink_to("nowhere")
    assert store.check("model", REMOTE).kind == "link"
    final.unlink()
    final.parent.rmdir()
    final.parent.write_bytes(b"")
    found = store.check("model", REMOTE)
    assert (found.kind, "where a folder is needed" in found.why) == ("folder", True)


@pytest.mark.fault(177)
@pytest.mark.parametrize("where", ["unet", "unet/m.bin", "unet/deep"])
def test_link_on_the_way_is_refused(store: Store, tmp_path: Path, where: str) -> None:
    """A link in place of the file or of a folder on the way is unsafe, wherever it leads, and nothing is made there."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "m.bin").write_bytes(DATA)
    remote = replace(REMOTE, path=RelPath.parse("unet/deep/er/m.bin")) if "deep" in where else REMOTE
    link = store.folder("model") / where
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "m.bin" if where.endswith("bin") else outside)
    found = store.check("model", remote)
    assert (found.kind, found.fingerprint) == ("link", None)
    (item,) = Plan.of([Wanted("model", remote, found)]).refuse
    assert item.refused is not None
    assert item.refused.exit_code == 11
    with pytest.raises(Unsafe):
        store.publish("model", remote, b"new", PRINT, "sha256")
    partial = store.open_partial("model", remote)
    with pytest.raises(Unsafe):
        store.publish("model", remote, partial, PRINT, "sha256")
    partial.close()
    assert os.listdir(outside) == ["m.bin"]
    assert (outside / "m.bin").read_bytes() == DATA


def test_models_folder_may_be_a_link(tmp_path: Path) -> None:
    """The models folder and a model's own may be links: whoever made them wanted the models elsewhere."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    store = Store(tmp_path / "models")
    (tmp_path / "far").mkdir()
    (tmp_path / "disk" / "model").symlink_to(tmp_path / "far")
    publish(store)
    assert (tmp_path / "far" / "unet" / "m.bin").read_bytes() == DATA
    assert store.check("model", REMOTE).untouched


def test_folder_in_the_way_is_occupied(store: Store) -> None:
    """A folder under the final name is not replaced, and what was fetched is kept."""
    partial = store.open_partial("model", REMOTE)
    partial.write(0, DATA)
    partial.sync_and_claim()
    store.final_path("model", REMOTE).mkdir(parents=True)
    with pytest.raises(Occupied) as caught:
        store.publish("model", REMOTE, partial, PRINT, "sha256")
    assert caught.value.exit_code == 7
    partial.close()
    assert store.quick_check("model", REMOTE).partial == len(DATA)


def test_partial_bytes_are_seen(store: Store) -> None:
    """A quick check tells what an unfinished download has, which is hidden in .mdl; nothing if it is of another
    file."""
    partial = store.open_partial("model", REMOTE)
    partial.write(0, DATA[:70])
    partial.sync_and_claim()
    partial.close()
    assert os.listdir(store.root) == [".mdl"]
    assert store.quick_check("model", REMOTE).partial == 70
    assert store.quick_check("model", replace(REMOTE, digest=Digest("sha256", "0" * 64))).partial == 0
    assert store.quick_check("other", REMOTE).partial == 0


def test_small_file_is_published_whole(store: Store) -> None:
    """A small file stands there as a user's own files do, with a receipt."""
    store.publish("model", REMOTE, DATA, PRINT, "sha256")
    final = store.final_path("model", REMOTE)
    assert final.read_bytes() == DATA
    probe = store.root / "probe"
    probe.touch()
    assert final.stat().st_mode & 0o777 == probe.stat().st_mode & 0o777 & ~0o111
    assert os.listdir(final.parent) == ["m.bin"]
    assert store.check("model", REMOTE).untouched


def test_publish_taken_over_leaves_no_receipt(store: Store) -> None:
    """Where another process took the partial, nothing is published and nothing vouched for."""
    partial = store.open_partial("model", REMOTE)
    partial.folder.rename(partial.folder.with_name("gone"))
    with pytest.raises(Busy):
        store.publish("model", REMOTE, partial, PRINT, "sha256")
    assert store.quick_check("model", REMOTE).receipt is None
    assert not store.final_path("model", REMOTE).exists()


def test_what_killed_processes_left_is_removed(store: Store) -> None:
    """What a killed process staged for a model goes with the next download of it, and so does its partial if the file
    has its final name already. The published file, half a download and what a living process has stay."""
    mine = f".b.{ProcessId.current()}.mdl-tmp"
    folders = [store.own / "stage", store.listings, store.own / "receipts" / "m"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / f".a.{dead_owner()}.mdl-tmp").touch()
        (folder / mine).touch()
    for name in ("a" * 32, "b" * 32):
        folder = store.partials / f"{name}.{dead_owner()}"
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(DATA)
    os.link(store.partials / f"{'a' * 32}.{dead_owner()}" / "data", store.root / "final")
    remove_stale(store.own, ["m"])
    assert [os.listdir(folder) for folder in folders] == [[mine]] * 3
    assert [folder.name[0] for folder in store.partials.iterdir()] == ["b"]
    assert (store.root / "final").read_bytes() == DATA


def test_damaged_file_is_copied_and_left_alone(store: Store) -> None:
    """A repair works on a copy: the damaged file keeps its name and bytes, and none of the copy is claimed yet."""
    final = publish(store)
    final.write_bytes(b"X" + DATA[1:-50])
    partial = store.open_for_repair("model", REMOTE)
    assert partial.total == len(DATA) - 50
    partial.sync_and_claim()
    assert partial.unclaimed == partial.total
    assert os.pread(partial.fd, 2 * len(DATA), 0) == b"X" + DATA[1:-50] + b"\0" * 50
    assert final.read_bytes() == b"X" + DATA[1:-50]
    partial.close()


@pytest.mark.parametrize("trouble", [OSError(38, "not here"), OSError(18, "across")])
def test_copy_without_the_kernels_help(store: Store, monkeypatch: pytest.MonkeyPatch, trouble: OSError) -> None:
    """Where the kernel cannot copy by itself, the copy is made by hand."""

    def refused(*_: object) -> int:
        raise trouble

    monkeypatch.setattr(os, "copy_file_range", refused)
    publish(store)
    partial = store.open_for_repair("model", REMOTE)
    assert os.pread(partial.fd, 2 * len(DATA), 0) == DATA
    partial.close()


def test_unreadable_file_is_told_by_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk error while hashing is code 7, with the system's words and the path."""
    final = put(store, DATA)

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(StorageError, match="Input/output error") as caught:
        store.check("model", REMOTE)
    assert (caught.value.exit_code, caught.value.item) == (7, str(final))


def give(store: Store, data: bytes = DATA) -> None:
    """Publish bytes that nobody knew a digest of."""
    print_ = Fingerprint(Digest("sha256", hashlib.sha256(data).hexdigest()), len(data))
    store.publish("m", replace(REMOTE, digest=None), data, print_, "none")


def test_the_receipt_is_there_before_the_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without a published digest is mdl's own from its first moment, also for who is killed in between."""
    seen, real = [], staging.publish

    def look(staged: Path, entry: EntryAt) -> os.stat_result | None:
        seen.append((store.receipts.get("m", REMOTE.path), entry.path.exists()))
        return real(staged, entry)

    monkeypatch.setattr(staging, "publish", look)
    give(store)
    assert seen == [(store.receipts.get("m", REMOTE.path), False)]
    assert seen[0][0] is not None


def test_a_name_that_cannot_be_given_leaves_the_old_receipt(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the rename fails the receipt of before is back, or there is none, as before."""

    def refuse(_staged: Path, _spot: EntryAt) -> None:
        raise OSError(5, "Input/output error")

    for before in (None, DATA):
        if before:
            give(store, before)
        receipt = store.receipts.get("m", REMOTE.path)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input"):
            patch.setattr(staging, "publish", refuse)
            give(store, b"other")
        assert store.receipts.get("m", REMOTE.path) == receipt
        assert (receipt is None) == (before is None)
