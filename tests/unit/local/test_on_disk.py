"""The one view of the disk: a model's folder, and a repository of the hub's cache."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from mdl.catalog.model import Model
from mdl.disk.own_files import make_private_dir
from mdl.downloader.layouts import HubCache
from mdl.downloader.receipts import file_key
from mdl.downloader.store import Store
from mdl.files import HubFile, Receipt, Stamp
from mdl.hashing import Digest
from mdl.local.delete_plan import of_folder
from mdl.local.on_disk import (
    FileKind,
    foreign_entries,
    model_on_disk,
    partials_of,
    repo_on_disk,
)
from mdl.paths import RelPath
from mdl.sources.hub_origin import HubOrigin

COMMIT, OLDER = "c" * 40, "d" * 40
DIGEST = Digest("sha256", "ab" * 32)


def receipt(model: str, path: str, commit: str = "", *, endpoint: str = "") -> Receipt:
    hub = HubFile("org/m", "model", commit, path, endpoint=endpoint) if commit else None
    return Receipt(model, RelPath(path), Stamp(1, 2, 3), DIGEST, "sha256", f"https://h/{path}", hub=hub)


def write(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


def test_a_models_folder(tmp_path: Path) -> None:
    """It has everything that is no folder, without the models below it, each of one kind; the receipts may be of files
    that are gone; other entries of the models folder are foreign."""
    store = Store(tmp_path)
    store.receipts.put(receipt("a", "gone.bin"), receipt("a/below", "x.bin"))
    write(tmp_path, "a/touched.bin", "a/own.bin", "a/sub/mine.txt", "a/below/x.bin", "b/other.bin")
    own = tmp_path / "a/own.bin"
    store.receipts.put(replace(receipt("a", "own.bin"), stamp=Stamp.of(own.stat())), receipt("a", "touched.bin"))
    (tmp_path / "a/blocked.bin").symlink_to(own)
    store.receipts.put(receipt("a", "blocked.bin"))
    here = model_on_disk(store, "a")
    kinds = {file.path: file.kind for file in (*here.files, *here.nameless())}
    assert kinds == {
        "own.bin": "own",
        "touched.bin": "changed",
        "sub/mine.txt": "stranger",
        "blocked.bin": "blocked",
        "gone.bin": "gone",
    }
    assert {file.path: file.kind for file in model_on_disk(store, "a", reads=True).files}["touched.bin"] == "changed"
    assert set(here.paths) == set(kinds)
    assert list(foreign_entries(store, ["a", "a/below"])) == [tmp_path / "b"]


def test_a_repository_of_the_cache(tmp_path: Path) -> None:
    """A file has the receipts of every model that mdl brought it for; what has none is of another program; a receipt
    whose name is lost is an entry too."""
    store = Store(tmp_path, layout=HubCache)
    repo = tmp_path / "models--org--m"
    write(repo, f"blobs/{DIGEST.hex}", f"snapshots/{COMMIT}/own.bin", f"snapshots/{OLDER}/strange.bin")
    (repo / f"snapshots/{COMMIT}/linked.bin").symlink_to(os.path.relpath(repo / f"blobs/{DIGEST.hex}", repo / "x/y"))
    store.receipts.put(receipt("a", "own.bin", COMMIT), receipt("b", "own.bin", COMMIT), receipt("a", "lost", COMMIT))
    cached = repo_on_disk(store, HubOrigin("org/m"))
    entries = {(entry.commit, entry.path): entry for entry in cached.entries}
    assert {one.model for one in entries[COMMIT, "own.bin"].receipts} == {"a", "b"}
    assert (entries[COMMIT, "lost"].file, len(entries[COMMIT, "lost"].receipts)) == (None, 1)
    assert {file.path for file in cached.strangers} == {"linked.bin", "strange.bin"}


def test_unfinished_downloads(tmp_path: Path) -> None:
    """Those of the files that are asked for, in their order; of a file there may be several."""
    store = Store(tmp_path)
    first, second = (file_key("a", RelPath(path)) for path in ("1", "2"))
    other = file_key("b", RelPath("1"))
    for key, process in ((second, "9"), (first, "7"), (first, "8"), (other, "7")):
        make_private_dir(store.partials / f"{key}.{process}")
    found = [folder.name for folder in partials_of(store, "a", ["1", "2", "3"])]
    assert found == [f"{first}.7", f"{first}.8", f"{second}.9"]


def make(store: Store, path: str, kind: FileKind) -> None:
    """Put a name of this kind into the folder of the model ``a``, and the receipt that it has."""
    place = store.root / "a" / path
    if kind == "blocked":
        place.symlink_to(store.root)
    elif kind != "gone":
        place.write_bytes(b"x")
    if kind == "own":
        store.receipts.put(replace(receipt("a", path), stamp=Stamp.of(place.stat())))
    elif kind in ("changed", "blocked", "gone"):
        store.receipts.put(receipt("a", path))


@given(
    kinds=st.lists(st.sampled_from(["own", "changed", "stranger", "blocked", "gone"]), max_size=6),
    force=st.booleans(),
)
def test_a_deletion_leaves_nothing_out(kinds: list[FileKind], force: bool) -> None:
    """Of every name in a model's folder a deletion says that it goes, or that it stays and why; with force all go. It
    forgets every receipt, and a file as mdl wrote it is never kept."""
    with TemporaryDirectory() as root:
        store = Store(Path(root))
        (store.root / "a").mkdir()
        for number, kind in enumerate(kinds):
            make(store, f"{number}.bin", kind)
        deletion = of_folder(store, Model("a"), force=force)
        going = {path.name for path in deletion.steps}
        kept = {file.path.name for file in deletion.kept}
        named = {f"{number}.bin": kind for number, kind in enumerate(kinds) if kind != "gone"}
        assert going.isdisjoint(kept)
        assert going | kept == set(named)
        assert kept == (set() if force else {name for name, kind in named.items() if kind != "own"})
        assert all(file.why for file in deletion.kept)
        assert len(deletion.forgotten["a"]) == sum(kind != "stranger" for kind in kinds)
