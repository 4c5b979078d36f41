"""The layout of a mirror: where a file is, who is asked for a file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.catalog.lock import Lock, LockedFile, LockedModel
from mdl.catalog.lock_file import lock_text, parse_lock
from mdl.catalog.mirror_layout import MirrorPlace, with_mirrors
from mdl.catalog.model import CatalogFile, Model
from mdl.errors import Unsafe, UsageError
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.sources import parse

NAMES = st.text("ab.-_ é%+'", min_size=1, max_size=6).map(lambda text: f"n{text}x")
DIGESTS = st.integers(0, 2**256 - 1).map(lambda number: Digest("sha256", f"{number:064x}"))


@given(prefix=st.lists(NAMES, max_size=2), name=NAMES, path=st.lists(NAMES, min_size=1, max_size=3))
def test_a_key_is_taken_apart_again(prefix: list[str], name: str, path: list[str]) -> None:
    """The name, version and path of a key come back, and its URL is that of an object of the bucket."""
    place = MirrorPlace("bucket", "".join(f"{part}/" for part in prefix))
    key = place.key(name, "0123456789abcdef", "/".join(path))
    assert place.split(key) == (name, "0123456789abcdef", "/".join(path))
    assert MirrorPlace.parse(str(place)) == place
    assert str(parse(place.url(name, "0123456789abcdef", "f.bin"), ())).endswith("/0123456789abcdef/f.bin")


@pytest.mark.parametrize(
    "key", ["m/one/complete.json", "m/one/0123/f", "m/0123456789abcdef/f", "x/one/0123456789abcdef/f"]
)
def test_what_is_no_object_of_a_mirror(key: str) -> None:
    """Objects of others below the same prefix, and all objects beside it, are none of the mirror's."""
    assert MirrorPlace("bucket", "m/").split(key) is None


@pytest.mark.parametrize(
    ("url", "error"), [("https://h/x", UsageError), ("s3://", UsageError), ("s3://b1a/../x", Unsafe)]
)
def test_what_is_no_mirror(url: str, error: type[Exception]) -> None:
    """A mirror is named by a bucket and a safe prefix."""
    with pytest.raises(error):
        MirrorPlace.parse(url)


def locked(name: str, *files: tuple[str, Digest], source: str = "https://host") -> LockedModel:
    return LockedModel(name, "e", tuple(LockedFile(RelPath(path), f"{source}/f", 1, one) for path, one in files))


FILES = st.lists(st.tuples(NAMES, DIGESTS), min_size=1, max_size=4, unique_by=lambda row: row[0].lower())


@given(files=FILES, others=FILES, data=st.data())
def test_the_version_is_that_of_the_bytes_alone(
    files: list[tuple[str, Digest]], others: list[tuple[str, Digest]], data: st.DataObject
) -> None:
    """The order of the files, the name of the model, other models and where files come from change nothing."""
    version = locked("one", *files).version
    shuffled = data.draw(st.permutations(files))
    assert locked("another", *shuffled, source="https://elsewhere").version == version
    lock = Lock({"one": locked("one", *files), "two": locked("two", *others)})
    assert parse_lock(lock_text(lock)).models["one"].version == version


@given(files=FILES, at=st.integers(0, 3), digest=DIGESTS)
def test_other_bytes_are_another_version(files: list[tuple[str, Digest]], at: int, digest: Digest) -> None:
    """One other digest, one other path, one file more or less: another version."""
    version, at = locked("one", *files).version, at % len(files)
    path, before = files[at]
    rest = [row for row in files if row[0] != path]
    changes = [[*rest, (f"{path}.new", before)], rest, [*files, ("zz.new", digest)]]
    changes += [[*rest, (path, digest)]] if digest != before else []
    assert version not in {locked("one", *change).version for change in changes}


def test_who_is_asked_for_a_file() -> None:
    """The mirrors of the settings, the source, the mirrors of the file, those of the entry; or one mirror alone."""
    digest = Digest("sha256", "1" * 64)
    one = locked("one", ("f.bin", digest))
    file = CatalogFile(RelPath("f.bin"), "https://host/f", ("https://other/f",), 1, digest)
    model = Model("one", files=(file,), mirrors=("s3://entry",))
    at = f"one/{one.version}/f.bin"
    [found] = with_mirrors(model, one, ["s3://first/m", "s3://second"]).files
    assert found.places == (
        f"s3://first/m/{at}",
        f"s3://second/{at}",
        "https://host/f",
        "https://other/f",
        f"s3://entry/{at}",
    )
    [alone] = with_mirrors(model, one, ["s3://first/m"], alone=True).files
    assert alone.places == (f"s3://first/m/{at}",)
    assert with_mirrors(Model("one", files=(file,)), one, ()).files == (file,)
