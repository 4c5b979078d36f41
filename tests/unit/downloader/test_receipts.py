"""Receipts: what mdl recorded of a file is read back as it was, or not at all."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdl import crc_json
from mdl.disk import publish
from mdl.disk.mutex import try_lock
from mdl.disk.pool import start_threads
from mdl.downloader.receipts import RECORD, Receipts, file_key
from mdl.errors import StateError
from mdl.files import HubFile, LocalFile, Receipt, Stamp
from mdl.hashing import Digest
from mdl.paths import RelPath

LONG = os.environ.get("MDL_LONG") == "1"
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
    hub=HubFile("org/repo", "dataset", "c" * 40, "sub/m.bin", "feature/x", "https://hub"),
    access="gated",
    vouched_by="hub",
)


@pytest.fixture
def receipts(tmp_path: Path) -> Receipts:
    """The full one is in it."""
    receipts = Receipts(tmp_path)
    receipts.put(FULL)
    return receipts


@pytest.fixture
def place(tmp_path: Path, receipts: Receipts) -> Path:
    (place,) = tmp_path.rglob("*.receipts")
    return place


def test_receipt_is_read_back(receipts: Receipts, tmp_path: Path) -> None:
    """What was written is read back, also by another process."""
    assert receipts.get(FULL.model, PATH) == FULL
    assert receipts.get("other", PATH) is None
    assert Receipts(tmp_path).get(FULL.model, PATH) == FULL
    assert receipts.get(FULL.model, RelPath.parse("sub/other.bin")) is None


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"url": "https://user:secret@h/m.bin?X-Amz-Signature=secret#part", "asked": "1" * 16},
        {
            "validator": None,
            "commit": None,
            "prefixes": (),
            "hub": None,
            "access": "unknown",
            "vouched_by": "first use",
        },
        {"suspect": True, "adopted": True, "catalog": "/c.toml", "replaced": Stamp(1, -2, 2**63)},
        {"verified": "none", "digest": Digest("git-sha1", "0" * 40), "access": "public", "vouched_by": "folder"},
    ],
)
def test_what_is_held_is_what_was_written(receipts: Receipts, tmp_path: Path, facts: dict[str, Any]) -> None:
    """A process that wrote a receipt has the one that every other process reads."""
    other = replace(FULL, path=RelPath.parse("other.bin"), **facts)
    receipts.put(other)
    assert receipts.of_model(FULL.model) == Receipts(tmp_path).of_model(FULL.model)
    assert receipts.get(FULL.model, other.path) == Receipts(tmp_path).get(FULL.model, other.path) is not None


def test_a_line_of_another_process_counts(receipts: Receipts, place: Path, tmp_path: Path) -> None:
    """What another process appended after this one's own line is the last one."""
    assert receipts.get(FULL.model, PATH) == FULL
    Receipts(tmp_path).put(newer := replace(FULL, suspect=True))
    assert receipts.get(FULL.model, PATH) == newer
    receipts.put(FULL)
    assert receipts.get(FULL.model, PATH) == FULL


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
def test_an_impossible_fact(place: Path, key: str, value: object) -> None:
    """A receipt whose checksum is right and that has one impossible fact is not read: no path of it leads anywhere."""
    (line,) = place.read_bytes().splitlines()
    place.write_bytes(crc_json.dumps(crc_json.loads(line) | {key: value}))
    read = Receipts(place.parents[1])
    assert read.get(FULL.model, PATH) is None
    assert read.of_model(FULL.model) == []


def test_no_query_is_written(receipts: Receipts, place: Path) -> None:
    """A signed URL's query never reaches the disk, and no other user may read or write a receipt."""
    receipts.put(replace(FULL, url="https://h/m.bin?X-Amz-Signature=secret"))
    assert b"secret" not in place.read_bytes()
    assert place.stat().st_mode & 0o077 == 0
    assert receipts.get(FULL.model, PATH) == FULL


@pytest.mark.fault(146, 147)
def test_damage_is_not_believed(receipts: Receipts, place: Path) -> None:
    """With any one bit flipped, or cut anywhere, the receipt says the same, less, or nothing: never anything else."""
    whole = place.read_bytes()
    for cut in range(0, len(whole), 7):
        place.write_bytes(whole[:cut])
        assert receipts.get(FULL.model, PATH) is None
    for bit in range(0, len(whole) * 8, 1 if LONG else 7):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        place.write_bytes(damaged)
        assert Receipts(place.parents[1]).get(FULL.model, PATH) in (None, FULL)


@pytest.mark.fault(146)
def test_a_torn_line_costs_only_itself(receipts: Receipts, place: Path) -> None:
    """After a line that a killed process wrote half, the next one is whole, and those before it stay."""
    with place.open("ab") as file:
        file.write(b"00000000 {")
    receipts.put(other := replace(FULL, path=RelPath.parse("other")))
    for found in (receipts, Receipts(place.parents[1])):
        assert found.of_model(FULL.model) == [other, FULL]
        assert found.useless(FULL.model) == (place, len(b"00000000 {"), 0)


@pytest.mark.fault(146)
def test_a_line_longer_than_any_receipt(receipts: Receipts, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read in pieces, which say nothing; what comes after it counts, and what is appended later too."""
    monkeypatch.setattr("mdl.downloader.receipts.LARGEST_RECORD", longest := 1000)
    junk = b"{" * (10 * longest + 5)
    with place.open("ab") as file:
        file.write(junk + b"\n")
    receipts.put(other := replace(FULL, path=RelPath.parse("other")))
    fresh = Receipts(place.parents[1])
    for found in (receipts, fresh):
        assert found.of_model(FULL.model) == [other, FULL]
        assert found.useless(FULL.model) == (place, len(junk), 0)
    receipts.put(late := replace(FULL, path=RelPath.parse("third")))
    assert fresh.of_model(FULL.model) == [other, FULL, late]


def test_what_another_process_wrote(receipts: Receipts, place: Path) -> None:
    """What another process appended, took back or wrote anew is seen at once."""
    other = Receipts(place.parents[1])
    other.put(new := replace(FULL, suspect=True))
    assert receipts.get(FULL.model, PATH) == new
    other.forget(FULL.model, PATH)
    assert receipts.get(FULL.model, PATH) is None
    for _ in range(100):
        other.put(FULL)
    assert receipts.get(FULL.model, PATH) == FULL


def test_a_new_record_with_the_inode_of_the_old_one(receipts: Receipts, place: Path) -> None:
    """A record that begins anew is read anew, even if the file system gave it the old one's inode and it is longer."""
    others = [replace(FULL, path=RelPath.parse(name)) for name in ("a", "b")]
    elsewhere = Receipts(place.parents[1] / "elsewhere")
    elsewhere.put(*others)
    with place.open("rb+") as record:
        record.write((elsewhere.place(FULL.model) / RECORD).read_bytes())
    assert receipts.of_model(FULL.model) == others


def test_lines_of_no_use_go(receipts: Receipts, place: Path) -> None:
    """However often a receipt is written, the record stays a small multiple of what it says; without one it goes."""
    size = place.stat().st_size
    for _ in range(200):
        receipts.put(FULL)
        assert place.stat().st_size < 40 * size
    receipts.forget(FULL.model, PATH)
    assert receipts.of_model(FULL.model) == []
    assert receipts.useless(FULL.model) == (place, 0, 0)


def test_a_record_is_locked_while_it_is_written_anew(
    receipts: Receipts, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can append to a record that another process is about to replace."""
    held, real = list[bool | None](), publish.write_file

    def write(path: Path, data: bytes) -> None:
        with place.open("rb") as file:
            held.append(try_lock(file.fileno(), patience=0.0))
        real(path, data)

    monkeypatch.setattr(publish, "write_file", write)
    with place.open("ab") as file:
        file.write(b"damaged\n")
    receipts.forget(FULL.model, tidy=True)
    assert (held, receipts.get(FULL.model, PATH)) == ([False], FULL)


def test_what_is_appended_to_a_record_that_was_replaced(place: Path) -> None:
    """A line goes into the record that has the name when its lock is free, not into the one that had it before."""
    with place.open("rb") as before:
        assert try_lock(before.fileno())
        (thread,) = start_threads("appending", [lambda: Receipts(place.parents[1]).put(replace(FULL, suspect=True))])
        new = place.with_name("new")
        new.write_bytes(place.read_bytes())
        new.chmod(0o600)
        new.replace(place)
    thread.join()
    assert Receipts(place.parents[1]).get(FULL.model, PATH) == replace(FULL, suspect=True)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans())))
def test_the_last_line_of_a_file_counts(told: list[tuple[str, bool, bool]]) -> None:
    """Whatever is written and taken back, in any order and by any process, the last word on a file counts."""
    with tempfile.TemporaryDirectory() as folder:
        processes, expected = (Receipts(Path(folder)), Receipts(Path(folder))), dict[str, Receipt]()
        for name, is_put, by_other in told:
            receipt, receipts = replace(FULL, path=RelPath.parse(name)), processes[by_other]
            if is_put:
                receipts.put(receipt)
                expected[name] = receipt
            else:
                receipts.forget(FULL.model, receipt.path)
                expected.pop(name, None)
        for receipts in (*processes, Receipts(Path(folder))):
            assert receipts.of_model(FULL.model) == [expected[name] for name in sorted(expected)]


@pytest.mark.fault(150)
def test_newer_receipt_is_not_read(receipts: Receipts, place: Path) -> None:
    """A receipt of a newer mdl is refused by name as code 12."""
    place.write_bytes(crc_json.dumps({"mdl-receipt": 3}))
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


def test_which_models_may_have_receipts(receipts: Receipts, tmp_path: Path) -> None:
    """One model is asked for as all of them are listed, by its name as it is, not as it is written in a folder. What a
    killed process left empty counts as none."""
    names = ["job", "job%", "job%/1", "job/2/3", "jobs"]
    for name in names:
        receipts.put(replace(FULL, model=name))
    (tmp_path / "empty").mkdir()
    assert receipts.models() == sorted([FULL.model, *names])
    others = ["nobody", "empty", "job/1", "job%2F1", "x" * 300]
    assert [name for name in (*names, *others) if receipts.may_have(name)] == names


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
    """A key is 16 hex digits, whatever the path's length, and another path has another."""
    key = file_key(model, RelPath(path))
    assert len(key) == 16
    assert set(key) <= set("0123456789abcdef")
    assert key != file_key(model, RelPath(path + "x"))
    assert key != file_key(model + "x", RelPath(path))
    assert len(file_key("m", RelPath("x" * 1000))) == 16
