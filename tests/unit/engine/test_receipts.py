"""Receipts: what mdl recorded of a file is read back as it was, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdl import crc_json
from mdl.engine.receipts import Receipts, file_key
from mdl.errors import StateError
from mdl.files import HubFile, LocalFile, Receipt, Stamp
from mdl.hashing import Digest
from mdl.paths import RelPath

PATH = RelPath.parse("sub/مدل.bin")
FULL = Receipt(
    model="org/model",
    path=PATH,
    stamp=Stamp(100, 1_700_000_000_123_456_789, 42),
    digest=Digest("sha256", "ab" * 32),
    verified="sha256",
    url="https://h/m.bin",
    validator='"a"',
    commit="c" * 40,
    prefixes=("01" * 32, "02" * 32),
    hub=HubFile("org/repo", "dataset", "c" * 40, "sub/m.bin", "feature/x"),
)


@pytest.fixture
def receipts(tmp_path: Path) -> Receipts:
    """The full one is in it."""
    receipts = Receipts(tmp_path)
    receipts.put(FULL)
    return receipts


@pytest.fixture
def place(tmp_path: Path, receipts: Receipts) -> Path:
    (place,) = tmp_path.rglob("*.receipt")
    return place


def test_receipt_is_read_back(receipts: Receipts) -> None:
    """What was written is read back, the prefix digests only if they are asked for."""
    assert receipts.get(FULL.model, PATH) == FULL
    assert receipts.get(FULL.model, PATH) == replace(FULL, prefixes=())
    assert receipts.get("other", PATH) is None
    assert receipts.get(FULL.model, RelPath.parse("sub/other.bin")) is None


WRONG = {
    "model": ["", 1, "../x", "\ud800"],
    "path": ["../../etc/passwd", "/etc/passwd"],
    "digest": ["sha256:" + "AB" * 32, "md5:" + "ab" * 16, 5],
    "stamp": [[1, 2], [1, 2, "3"], [1, 2, True], [1.0, 2, 3], {}, None],
    "url": [None, 1],
    "verified": [None, ["sha256"]],
    "validator": [1, []],
    "commit": [1, {}],
    "suspect": [0, "no", None],
    "hub": [[], "org/repo", ["org/repo", "model", "c" * 40, "../x", ""], ["org/repo", "x", "c" * 40, "x", ""]],
}


@pytest.mark.fault(151)
@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_an_impossible_fact(receipts: Receipts, place: Path, key: str, value: object) -> None:
    """A receipt whose checksum is right and that has one impossible fact is not read: no path of it leads anywhere."""
    first, second = place.read_bytes().splitlines()
    place.write_bytes(crc_json.dumps(crc_json.loads(first) | {key: value}) + second + b"\n")
    assert receipts.get(FULL.model, PATH) is None
    assert receipts.of_model(FULL.model) == []


def test_a_receipt_of_an_earlier_version(receipts: Receipts, place: Path) -> None:
    """Facts that an earlier mdl did not write are taken as not known."""
    facts = crc_json.loads(place.read_bytes().splitlines()[0])
    old = {key: value for key, value in facts.items() if key not in ("asked", "adopted", "hub", "catalog")}
    place.write_bytes(crc_json.dumps(old))
    assert receipts.get(FULL.model, PATH) == replace(FULL, prefixes=(), hub=None)


def test_no_query_is_written(receipts: Receipts, place: Path) -> None:
    """A signed URL's query never reaches the disk, and no other user may read or write a receipt."""
    receipts.put(replace(FULL, url="https://h/m.bin?X-Amz-Signature=secret"))
    assert b"secret" not in place.read_bytes()
    assert place.stat().st_mode & 0o077 == 0
    assert receipts.get(FULL.model, PATH) == replace(FULL, prefixes=())


@pytest.mark.fault(146, 147)
def test_damage_is_not_believed(receipts: Receipts, place: Path) -> None:
    """With any one bit flipped, or cut anywhere, the receipt says the same, less, or nothing: never anything else."""
    whole = place.read_bytes()
    first = whole.index(b"\n")
    for cut in range(0, len(whole), 7):
        place.write_bytes(whole[:cut])
        found = receipts.get(FULL.model, PATH)
        assert found is None if cut < first else found in (FULL, replace(FULL, prefixes=()))
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        place.write_bytes(damaged)
        assert receipts.get(FULL.model, PATH) in (None, FULL, replace(FULL, prefixes=()))


@pytest.mark.fault(150)
def test_newer_receipt_is_not_read(receipts: Receipts, place: Path) -> None:
    """A receipt of a newer mdl is refused by name as code 12."""
    place.write_bytes(crc_json.dumps({"mdl-receipt": 2}))
    with pytest.raises(StateError) as caught:
        receipts.get(FULL.model, PATH)
    assert (caught.value.exit_code, caught.value.item) == (12, str(place))


def test_receipts_of_a_model_are_its_own(receipts: Receipts) -> None:
    """A model's receipts come by path, without those of another model, also of one whose name begins alike."""
    for model, name in (("org/a", "z"), ("org/a", "b"), ("org", "c"), ("org/ab", "d")):
        receipts.put(replace(FULL, model=model, path=RelPath.parse(name)))
    assert [found.path.text for found in receipts.of_model("org/a")] == ["b", "z"]
    assert [found.path.text for found in receipts.of_model("org")] == ["c"]
    assert receipts.of_model("nobody") == []


def test_distrusted_receipt_settles_nothing(receipts: Receipts) -> None:
    """A distrusted receipt keeps its facts and no longer vouches for the file."""
    receipts.distrust(FULL.model, PATH)
    receipts.distrust(FULL.model, RelPath.parse("never-seen"))
    found = receipts.get(FULL.model, PATH)
    assert found == replace(FULL, suspect=True)
    assert LocalFile("file", FULL.stamp, FULL).untouched
    assert not LocalFile("file", FULL.stamp, found).untouched


@settings(deadline=None)
@given(st.text("ab/\0é", max_size=6), st.text("ab/é", min_size=1, max_size=6))
def test_key_is_a_name_of_one_file(model: str, path: str) -> None:
    """A key is 32 hex digits, whatever the path's length, and another path has another."""
    key = file_key(model, RelPath(path))
    assert len(key) == 32
    assert set(key) <= set("0123456789abcdef")
    assert key != file_key(model, RelPath(path + "x"))
    assert key != file_key(model + "x", RelPath(path))
    assert len(file_key("m", RelPath("x" * 1000))) == 32
