"""The store: what is where, nothing through links, and only verified bytes under a final name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.data import sha256
from support.partials import dead_owner

from mdl.disk.process import ProcessId
from mdl.downloader.partial import Partial
from mdl.downloader.partial_folders import remove_stale
from mdl.downloader.plan import Plan, Reason, Wanted
from mdl.downloader.receipts import Receipts
from mdl.downloader.store import Ready, Store
from mdl.errors import Busy, Occupied, StorageError, Unsafe
from mdl.files import LocalFile, RemoteFile
from mdl.hashing import Digest, Fingerprint
from mdl.paths import RelPath, record_name

DATA = b"weights" * 100
DIGEST = Digest("sha256", sha256(DATA))
GIT = Digest("git-sha1", hashlib.sha1(b"blob %d\0" % len(DATA) + DATA).hexdigest())
PRINT = Fingerprint(DIGEST, len(DATA))
REMOTE = RemoteFile(RelPath.parse("unet/m.bin"), "https://h/m.bin?sig=x", len(DATA), DIGEST)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def final(store: Store) -> Path:
    """The final path; its folder is there."""
    final = store.final_path("model", REMOTE)
    final.parent.mkdir(parents=True)
    return final


def begun(store: Store, data: bytes = DATA, remote: RemoteFile = REMOTE) -> Partial:
    """A partial with these bytes."""
    partial = store.open_partial("model", remote)
    partial.write(0, data)
    partial.sync()
    return partial


def publish(store: Store) -> Path:
    """Fetch by hand: write a partial, publish it."""
    store.publish(Ready("model", REMOTE, begun(store), PRINT, "sha256"))
    return store.final_path("model", REMOTE)


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing anything fails the test."""

    def read(*_: object) -> int:
        raise AssertionError("the bytes were read")

    monkeypatch.setattr(os, "preadv", read)


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
    """A published file has a receipt that vouches for it, and no partial is left."""
    assert publish(store).read_bytes() == DATA
    found = store.check("model", REMOTE)
    assert (found.kind, found.untouched, found.fingerprint, found.partial) == ("file", True, None, 0)
    assert found.receipt
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
    assert found.receipt
    assert found.fingerprint
    assert (found.untouched, found.fingerprint.digest == DIGEST) == (False, change != "bytes")


def test_deep_check_reads_and_reports(store: Store) -> None:
    """A deep check reads even an untouched file, and says how far it is."""
    publish(store)
    seen: list[int] = []
    assert store.check("model", REMOTE, deep=True, watch=seen.append).fingerprint == PRINT
    assert seen[-1] == len(DATA)


def test_only_what_could_be_right_is_read(store: Store, final: Path, no_reading: None) -> None:
    """A stranger's file of another size, or if no digest is known, is not read at all."""
    final.write_bytes(DATA + b"!")
    assert store.check("model", REMOTE).fingerprint is None
    final.write_bytes(DATA)
    assert store.check("model", replace(REMOTE, digest=None)).fingerprint is None


@pytest.mark.parametrize("digest", [DIGEST, GIT])
def test_strangers_right_bytes_are_found_right(store: Store, final: Path, digest: Digest) -> None:
    """A file without a receipt is hashed in the way its source hashes it."""
    final.write_bytes(DATA)
    found = store.check("model", replace(REMOTE, digest=digest))
    assert found.receipt is None
    assert found.fingerprint
    assert found.fingerprint.digest == digest


def test_models_folder_may_be_a_link(tmp_path: Path) -> None:
    """The models folder and a model's own may be links: their user wants the models elsewhere."""
    for name in ("disk", "far"):
        (tmp_path / name).mkdir()
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "model").symlink_to(tmp_path / "far")
    store = Store(tmp_path / "models")
    publish(store)
    assert (tmp_path / "far" / "unet" / "m.bin").read_bytes() == DATA
    assert store.check("model", REMOTE).untouched


def test_folder_in_the_way_is_occupied(store: Store, final: Path) -> None:
    """A folder under the final name is not replaced, and what was fetched is kept."""
    partial = begun(store)
    final.mkdir()
    with pytest.raises(Occupied) as caught:
        store.publish(Ready("model", REMOTE, partial, PRINT, "sha256"))
    assert caught.value.exit_code == 7
    partial.close()
    assert store.quick_check("model", REMOTE).partial == len(DATA)


def test_partial_bytes_are_seen(store: Store) -> None:
    """A quick check reports what an unfinished download has, which is hidden in .mdl; nothing if it is of another
    file."""
    begun(store, DATA[:70]).close()
    assert os.listdir(store.root) == [".mdl"]
    assert store.quick_check("model", REMOTE).partial == 70
    assert store.quick_check("model", replace(REMOTE, digest=Digest("sha256", "0" * 64))).partial == 0
    assert store.quick_check("other", REMOTE).partial == 0


def test_small_file_is_published_whole(store: Store, final: Path) -> None:
    """A small file gets the mode of a user's own files, and a receipt."""
    store.publish(Ready("model", REMOTE, store.stage(DATA), PRINT, "sha256"))
    assert final.read_bytes() == DATA
    (store.root / "probe").touch()
    assert final.stat().st_mode == (store.root / "probe").stat().st_mode
    assert os.listdir(final.parent) == ["m.bin"]
    assert store.check("model", REMOTE).untouched


def test_publish_taken_over_leaves_no_receipt(store: Store) -> None:
    """If another process took the partial, nothing is published and no receipt is written."""
    partial = begun(store)
    partial.folder.rename(partial.folder.with_name("gone"))
    with pytest.raises(Busy):
        store.publish(Ready("model", REMOTE, partial, PRINT, "sha256"))
    assert store.quick_check("model", REMOTE).receipt is None
    assert not store.final_path("model", REMOTE).exists()


def test_what_killed_processes_left_is_removed(store: Store) -> None:
    """What a killed process staged for a model goes with the next download of it, and so does its partial if the file
    has its final name already. The published file, half a download and what a living process has stay."""
    mine = f".b.{ProcessId.current()}.mdl-tmp"
    folders = [store.own / "stage", store.listings, store.receipts.place("m")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / f".a.{dead_owner()}.mdl-tmp").touch()
        (folder / mine).touch()
    for name in ("a" * 16, "b" * 16):
        folder = store.partials / f"{name}.{dead_owner()}"
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(DATA)
    os.link(store.partials / f"{'a' * 16}.{dead_owner()}" / "data", store.root / "final")
    remove_stale(store.own, ["m"])
    assert [os.listdir(folder) for folder in folders] == [[mine]] * 3
    assert [folder.name[0] for folder in store.partials.iterdir()] == ["b"]
    assert (store.root / "final").read_bytes() == DATA


@pytest.mark.parametrize("name", ["stage", "listings", f"receipts/{record_name('m')}"])
def test_behind_a_link_nothing_is_removed(store: Store, tmp_path: Path, name: str) -> None:
    """A link in place of one of mdl's own folders leads to what is not mdl's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f".a.{dead_owner()}.mdl-tmp").touch()
    (store.own / name).parent.mkdir(parents=True, exist_ok=True)
    (store.own / name).symlink_to(outside)
    remove_stale(store.own, ["m"])
    assert len(os.listdir(outside)) == 1


@pytest.mark.parametrize("trouble", [None, OSError(38, "not here"), OSError(18, "across")])
def test_damaged_file_is_copied_and_left_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch, trouble: OSError | None
) -> None:
    """A repair works on a copy, also if the kernel cannot copy by itself: the damaged file keeps its name and bytes,
    and none of the copy is claimed yet."""

    def refused(*_: object) -> int:
        assert trouble
        raise trouble

    if trouble:
        monkeypatch.setattr(os, "copy_file_range", refused)
    final = publish(store)
    final.write_bytes(damaged := b"X" + DATA[1:-50])
    partial = store.open_for_repair("model", REMOTE)
    partial.sync()
    assert partial.total == partial.unsynced == len(DATA) - 50
    assert os.pread(partial.fd, len(DATA), 0) == damaged + b"\0" * 50
    assert final.read_bytes() == damaged
    partial.close()


def test_unreadable_file_is_named(store: Store, final: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk error while hashing is code 7, with the system's words and the path."""
    final.write_bytes(DATA)

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(StorageError, match="Input/output error") as caught:
        store.check("model", REMOTE)
    assert (caught.value.exit_code, caught.value.item) == (7, str(final))


def give(store: Store, data: bytes = DATA) -> None:
    """Publish bytes of which no digest was known."""
    print_ = Fingerprint(Digest("sha256", sha256(data)), len(data))
    store.publish(Ready("m", replace(REMOTE, digest=None), store.stage(data), print_, "none"))


def on_rename(patch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something before a file gets the name of the published one."""
    real = os.replace

    def replaced(source: object, target: object, **folders: object) -> None:
        if target == REMOTE.path.name:
            act()
        real(source, target, **folders)  # type: ignore[call-overload]

    patch.setattr(os, "replace", replaced)


def test_the_receipt_is_there_before_the_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without a published digest is mdl's own from its first moment, also if mdl is killed in between."""
    seen, final = list[object](), store.final_path("m", REMOTE)
    on_rename(monkeypatch, lambda: seen.append((store.receipts.get("m", REMOTE.path), final.exists())))
    give(store)
    assert seen == [(store.receipts.get("m", REMOTE.path), False)]
    assert store.receipts.get("m", REMOTE.path)


def test_a_name_that_cannot_be_given_leaves_the_old_receipt(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the rename fails the receipt of before is back, or there is none, as before."""

    def refuse() -> None:
        raise OSError(5, "Input/output error")

    for before in (None, DATA):
        if before:
            give(store, before)
        receipt = store.receipts.get("m", REMOTE.path)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input"):
            on_rename(patch, refuse)
            give(store, b"other")
        assert store.receipts.get("m", REMOTE.path) == receipt
        assert (receipt is None) == (before is None)


def small(store: Store, name: str, data: bytes, seen: LocalFile | None = None) -> Ready:
    """A small file that is ready to be published."""
    remote = RemoteFile(RelPath.parse(name), f"https://h/{name}", len(data))
    print_ = Fingerprint(Digest("sha256", sha256(data)), len(data))
    return Ready("m", remote, store.stage(data), print_, "size", seen)


def test_one_error_is_of_one_file(store: Store) -> None:
    """Of several files that are published together only that fails which cannot be; no receipt or staged file of it
    stays."""
    (store.folder("m") / "b").mkdir(parents=True)
    errors = store.publish_all([small(store, name, name.encode()) for name in ("a", "b", "sub/c")])
    assert [type(error) for error in errors] == [type(None), Occupied, type(None)]
    assert [receipt.path.text for receipt in store.receipts.of_model("m")] == ["a", "sub/c"]
    assert (store.folder("m") / "sub/c").read_bytes() == b"sub/c"
    assert os.listdir(store.own / "stage") == []


def test_nothing_is_claimed_before_it_is_on_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes are synced before the receipts, the receipts before the first name, and each folder once, after it."""
    told = list[str]()

    def spy(name: str, say: Callable[..., str]) -> None:
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *what, **where: (told.append(say(*what)), real(*what, **where))[1])

    spy("fsync", lambda fd: "sync " + Path(os.readlink(f"/proc/self/fd/{fd}")).name[-12:])
    spy("replace", lambda _, name, *__: f"name {name}")
    files = [small(store, name, b"x") for name in ("one", "two", "sub/three")]
    assert store.publish_all(files) == [None] * 3
    staged, rest = told[:3], told[3:]
    assert all(step.startswith("sync ") and step.endswith("mdl-tmp") for step in staged)
    assert rest[:5] == ["sync all.receipts", f"sync {record_name('m')[-12:]}", "name one", "name two", "name three"]
    assert sorted(rest[5:]) == ["sync m", "sync sub"]


@pytest.mark.parametrize(("theirs", "error"), [(b"same", type(None)), (b"other", Occupied)])
def test_another_process_is_faster(
    store: Store, monkeypatch: pytest.MonkeyPatch, theirs: bytes, error: type[object]
) -> None:
    """If another process publishes the file between the look and the name, its right bytes are no error; other bytes
    are not replaced."""
    final, real = store.folder("m") / "f", os.link

    def link(*what: object, **where: object) -> None:
        final.write_bytes(theirs)
        monkeypatch.setattr(os, "link", real)
        real(*what, **where)  # type: ignore[arg-type]

    ready = small(store, "f", b"same", LocalFile())
    monkeypatch.setattr(os, "link", link)
    assert [type(found) for found in store.publish_all([ready])] == [error]
    assert final.read_bytes() == theirs


def test_killed_between_a_receipt_and_its_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """If an update is killed once its receipts are written, the old files count as mdl's own, which the next one
    replaces, and not as edited; also after a second kill."""
    give(store, DATA)
    for new in (b"second", b"third"):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="killed"):
            patch.setattr(Receipts, "restore", lambda *_: None)
            on_rename(patch, lambda: (_ for _ in ()).throw(OSError("killed")))
            give(store, new)
        remote = replace(REMOTE, digest=Digest("sha256", sha256(b"last")), size=4)
        found = store.check("m", remote)
        plan = Plan.of([Wanted("m", remote, found)])
        assert (found.is_edited, [item.reason for item in plan.fetch]) == (False, [Reason.OUTDATED])
    (store.folder("m") / REMOTE.path.text).write_bytes(b"my own")
    assert store.check("m", remote).is_edited
