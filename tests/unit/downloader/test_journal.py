"""The journal: whatever happens to its bytes, it never claims what was not claimed, nor in a boot that is over."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.cases import each
from support.long import LONG

from mdl import crc_json
from mdl.bounds import LARGEST_DOCUMENT
from mdl.disk.process import this_boot
from mdl.downloader.journal import Identity, Journal, Record, header, load, parse
from mdl.errors import StateError
from mdl.files import RemoteFile
from mdl.hashing import Digest
from mdl.net.ranges import ByteRange, RangeSet
from mdl.paths import RelPath

calm = settings(deadline=None)
SIZE = 1_000_000
WHO = Identity("https://hf.co/o/r/resolve/c/m.bin", SIZE, "sha256:" + "ab" * 32, None, "c" * 40)
CLAIMS = [(0, 4096), (8192, 12288), (4096, 8000), (999_000, SIZE)]


def _ranges(claims: Iterable[tuple[int, int]]) -> RangeSet:
    return RangeSet(ByteRange(start, stop) for start, stop in claims)


def _bytes_of(claims: list[tuple[int, int]]) -> bytes:
    """A journal with these claims: every other one of this boot, the others of what is on the disk."""
    lines = [[start, stop, this_boot()][: 2 + number % 2] for number, (start, stop) in enumerate(claims)]
    return header(WHO) + b"".join(map(crc_json.dumps, lines))


def _parsed(data: bytes) -> Record:
    record = parse(data, "where")
    assert record
    assert record.identity == WHO
    return record


SMALL, TRUTH = _bytes_of(CLAIMS), _ranges(CLAIMS)


def test_whole_journal_is_read_back() -> None:
    """What was claimed is read back, with the identity and the validators noted on the way."""
    record = parse(SMALL + crc_json.dumps({"origin": "https://cdn:443", "validator": '"x"'}), "j")
    assert record == Record(WHO, TRUTH, _ranges(CLAIMS[::2]), {"https://cdn:443": '"x"'})


BOOTS = ("a" * 12, "b" * 12, "")


@calm
@given(st.lists(st.sampled_from(["claim", "sync", "reboot", "fail"]), max_size=20), st.sampled_from(BOOTS))
def test_a_claim_holds_in_its_boot_or_once_it_was_synced(steps: list[str], boot: str) -> None:
    """Whatever happened in whichever order: what was synced is there, what was claimed in this boot is there, and
    nothing else is. Where the system does not number its boots, only what was synced counts."""
    written, on_disk, here, data = RangeSet(), RangeSet(), BOOTS[0], header(WHO)
    for number, step in enumerate(steps):
        claim = ByteRange(10 * number, 10 * number + 5)
        if step == "claim":
            data += crc_json.dumps([claim.start, claim.stop, here])
            written.add(claim.start, claim.stop)
        elif step == "sync":
            length = len(data)
            data += crc_json.dumps([claim.start, claim.stop, here])  # what comes during the sync is not covered by it
            data += crc_json.dumps({"synced": length, "boot": here})
            on_disk, written = RangeSet([*on_disk, *written]), RangeSet([claim])
        elif step == "fail":
            data += crc_json.dumps({"lost": True})
            written = RangeSet()
        else:
            here, written = f"{number:012}", RangeSet()  # the journal goes on as it is; no boot ever comes again
    if boot == BOOTS[0]:
        boot = here
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mdl.downloader.journal.this_boot", lambda: boot)
        record = _parsed(data)
    assert record.on_disk == on_disk
    assert record.have == (RangeSet([*on_disk, *written]) if boot == here else on_disk)


@pytest.mark.fault(146)
def test_cut_after_every_byte() -> None:
    """Cut anywhere, a journal claims the whole lines before the cut and nothing else."""
    for cut in range(len(SMALL)):
        whole = SMALL[:cut].count(b"\n") - 1
        if whole < 0:
            assert parse(SMALL[:cut], "j") is None
        else:
            assert _parsed(SMALL[:cut]).have == _ranges(CLAIMS[:whole])


def _flips(parser: Callable[[bytes], RangeSet | None]) -> int:
    """How many single bit flips of the small journal make ``parser`` claim what was not claimed."""
    wrong = 0
    for bit in range(len(SMALL) * 8):
        damaged = bytearray(SMALL)
        damaged[bit // 8] ^= 1 << bit % 8
        found = parser(bytes(damaged))
        wrong += found is not None and bool(found.without(TRUTH))
    return wrong


def _careful(data: bytes) -> RangeSet | None:
    record = parse(data, "j")
    assert record is None or record.identity == WHO
    return record.have if record else None


def _naive(data: bytes) -> RangeSet | None:
    """A reader that trusts any line it can read: what this one would be without its checks."""
    have = RangeSet()
    for line in data.split(b"\n")[1:]:
        try:
            start, stop = json.loads(line[9:])[:2]
            have.add(start, stop)
        except (ValueError, TypeError):
            continue
    return have


@pytest.mark.fault(147)
def test_no_flipped_bit_makes_a_claim() -> None:
    """With any one bit flipped, a journal claims nothing that was not claimed, under no other identity."""
    assert _flips(_careful) == 0


def test_a_journal_without_checks_would_make_claims() -> None:
    """The control: a reader without the checksum is fooled by many a flip, so the property above has teeth."""
    assert _naive(SMALL) == TRUTH
    assert _flips(_naive) > 10


_CLAIM = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).filter(lambda pair: pair[0] < pair[1])


@pytest.mark.fault(146, 147)
@calm
@given(st.lists(_CLAIM, max_size=12), st.data())
def test_damage_never_adds_a_claim(claims: list[tuple[int, int]], data: st.DataObject) -> None:
    """Cut, overwritten or with a stretch torn out, any journal claims at most what it claimed before."""
    whole = _bytes_of(claims)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    middle = data.draw(st.binary(max_size=20) | st.just(b"\0" * (stop - start)))
    record = parse(whole[:start] + middle + whole[stop:], "j")
    if record is not None:
        assert record.identity == WHO
        assert not record.have.without(_ranges(claims))


@calm
@given(st.lists(_CLAIM, max_size=12))
@example([])
def test_claims_add_up(claims: list[tuple[int, int]]) -> None:
    """An undamaged journal claims exactly the union of its claims, in whatever order they came."""
    assert _parsed(_bytes_of(claims)).have == _ranges(claims)


@pytest.mark.fault(151)
@each(
    "fact",
    [
        *([5, 5], [6, 5], [-1, 5], [0, SIZE + 1], [0, 1.5], [True, 5], [0, "5"], [0], [0, 1, 2], None, 7, "x", {}),
        *([[0, 1]], {"origin": "https://h", "validator": 5}, {"origin": 5, "validator": "a"}),
        *([0, 1, ""], [0, 1, None], [0, 1, "another boot"], [0, 1, "b", 2], {"synced": 10**9}, {"synced": "9"}),
    ],
)
def test_an_impossible_claim_counts_for_nothing(fact: object) -> None:
    """A range that is empty, negative, beyond the file or no range at all is not believed, whatever its checksum. A
    validator that is no text is not either."""
    found = _parsed(header(WHO) + crc_json.dumps(fact) + crc_json.dumps([0, 1]))
    assert (found.have, found.validators) == (_ranges([(0, 1)]), {})


@pytest.mark.fault(150)
def test_newer_journal_is_not_read() -> None:
    """A journal of a newer mdl is refused by name as code 12, not guessed at."""
    with pytest.raises(StateError) as caught:
        parse(crc_json.dumps({"mdl-journal": 2, "more": 1}), "where")
    assert (caught.value.exit_code, caught.value.item) == (12, "where")


@pytest.mark.fault(151)
@each("head", [[], {}, {"mdl-journal": 1}, {"mdl-journal": 1, **vars(WHO), "more": 1}, "x", None, vars(WHO)])
def test_a_strange_header_claims_nothing(head: object) -> None:
    """If the first line is not an identity, or does not say the version, the journal claims nothing."""
    assert parse(crc_json.dumps(head) + crc_json.dumps([0, 1]), "j") is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 99) | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)
)


@pytest.mark.fault(151)
@calm
@given(st.fixed_dictionaries(dict.fromkeys(vars(WHO), _JSON)), _JSON)
@example({**vars(WHO), "size": "10"}, [0, 1])
def test_facts_of_wrong_types_are_survived(head: dict[str, object], fact: object) -> None:
    """A journal whose checksums are right and whose facts make no sense claims nothing, or what it can."""
    record = parse(crc_json.dumps({"mdl-journal": 1, **head}) + crc_json.dumps(fact), "j")
    assert record is None or record.have.total >= 0


NOT_JSON = b"%08x %s" % (zlib.crc32(b"{not json"), b"{not json")


@pytest.mark.fault(151)
@each("line", [b"", b" ", b"00000000", b"zzzzzzzz {}", b"-0000001 {}", b"\xff" * 20, b"1 {}", NOT_JSON])
def test_a_damaged_line_says_nothing(line: bytes) -> None:
    """Only eight hex digits, a blank and the JSON that they check are a line."""
    assert crc_json.loads(line) is None
    assert crc_json.facts_in(line) == {}


@each("fact", [None, 1, "a", [], [{"a": 1}]])
def test_what_is_no_facts(fact: object) -> None:
    """A line that is whole, and has something else than facts by their names, has none."""
    assert crc_json.facts_in(crc_json.dumps(fact).removesuffix(b"\n")) == {}


DIGEST = Digest("sha256", "ab" * 32)


def _identity(**facts: object) -> Identity:
    remote = RemoteFile(RelPath.parse("m.bin"), "https://h/m.bin?sig=secret", 10)
    return Identity.of(replace(remote, **facts))  # type: ignore[arg-type]


def test_identity_has_no_query() -> None:
    """A signed query never reaches the journal."""
    assert _identity().url == "https://h/m.bin"
    assert b"secret" not in header(_identity())


@pytest.mark.fault(149)
@each(
    ("old", "new", "resumed"),
    [
        ({"digest": DIGEST}, {"digest": DIGEST}, True),
        ({"digest": DIGEST}, {"digest": DIGEST, "url": "https://mirror/m.bin", "validator": '"b"'}, True),
        ({"digest": DIGEST, "validator": '"a"'}, {"digest": DIGEST, "commit": "d" * 40}, True),
        ({"digest": DIGEST}, {"digest": Digest("sha256", "cd" * 32)}, False),
        ({"digest": DIGEST}, {"digest": Digest("git-sha1", "ab" * 20)}, False),
        ({"digest": DIGEST, "validator": '"a"'}, {"validator": '"a"'}, False),
        ({"digest": DIGEST}, {"digest": DIGEST, "size": 11}, False),
        ({"validator": '"a"'}, {"validator": '"a"'}, True),
        ({"validator": '"a"', "size": None}, {"validator": '"a"'}, True),
        ({"validator": '"a"'}, {"validator": '"b"'}, False),
        ({"validator": '"a"'}, {"validator": '"a"', "url": "https://other/m.bin"}, False),
        ({"validator": '"a"'}, {"validator": '"a"', "size": 11}, False),
        ({"validator": '"a"'}, {}, False),
        ({}, {"validator": '"a"'}, False),
        ({}, {}, False),
        ({"commit": "c" * 40}, {"commit": "c" * 40}, False),
    ],
)
def test_only_the_same_file_is_resumed(old: dict[str, object], new: dict[str, object], resumed: bool) -> None:
    """The same digest and size, or without digests the same URL, size and strong validator; nothing less."""
    assert _identity(**old).resumable_as(_identity(**new)) == resumed


def _loaded(place: Path) -> Record:
    record = load(place)
    assert record
    return record


def test_a_torn_tail_stays_one_damaged_line(tmp_path: Path) -> None:
    """After a torn line, the next claim stands on a line of its own and is believed."""
    place, more = tmp_path / "journal", ByteRange(500_000, 500_001)
    for cut in range(len(header(WHO)), len(SMALL)):
        place.write_bytes(SMALL[:cut])
        before = _loaded(place).have
        journal = Journal.reopen(place)
        journal.claim([more])
        journal.close()
        have = _loaded(place).have
        assert not have.without(RangeSet([*TRUTH, more]))
        assert not RangeSet([*before, more]).without(have)


def test_create_forgets_what_was_there(tmp_path: Path) -> None:
    """A journal begun anew claims nothing of the old one, and no other user may read it."""
    place = tmp_path / "journal"
    for old in (SMALL, None):
        place.write_bytes(old) if old else place.unlink()
        Journal.create(place, WHO).close()
        assert load(place) == Record(WHO)
    assert place.stat().st_mode & 0o077 == 0


def test_only_a_plain_file_is_a_journal(tmp_path: Path) -> None:
    """A link, a pipe or a folder under the journal's name claims nothing, and is not waited for."""
    real = tmp_path / "real"
    real.write_bytes(SMALL)
    (tmp_path / "link").symlink_to(real)
    os.mkfifo(tmp_path / "pipe")
    assert [load(tmp_path / name) for name in ("link", "pipe", "absent", ".")] == [None] * 4
    assert load(real) is not None
    with pytest.raises(OSError):
        Journal.create(tmp_path / "link", WHO)
    assert real.read_bytes() == SMALL


@pytest.mark.no_cover
@pytest.mark.fault(251)
@pytest.mark.parametrize("order", ["forward", "backward", "by turns"])
def test_many_separate_claims_take_time_in_proportion(tmp_path: Path, order: str) -> None:
    """Very many claims that do not touch are read, and the next one is noted, in seconds and not in hours."""
    count = 100_000 if LONG else 10_000
    claims = [(at, at + 2) for at in range(0, 4 * count, 4)]
    claims = {"forward": claims, "backward": claims[::-1], "by turns": claims[::2] + claims[1::2]}[order]
    place = tmp_path / "journal"
    place.write_bytes(_bytes_of(claims))
    began = time.process_time()
    have = _loaded(place).have
    assert have.total == 2 * count
    more = have.copy()
    more.add(900_000, 900_001)
    assert more.without(have) == [ByteRange(900_000, 900_001)]
    more.remove(900_000, 2**63)
    assert more == have
    assert not LONG or time.process_time() - began < count / 5_000


@pytest.mark.fault(251)
def test_of_an_endless_journal_the_beginning_is_read(tmp_path: Path) -> None:
    """What is behind the bound claims nothing."""
    filler = crc_json.dumps({"origin": "https://h", "validator": "x" * 2**20}) * (LARGEST_DOCUMENT // 2**20)
    claims = [crc_json.dumps([0, 4096]), crc_json.dumps([500_000, 500_001])]
    (tmp_path / "journal").write_bytes(header(WHO) + claims[0] + filler + claims[1])
    assert _loaded(tmp_path / "journal").have == _ranges([(0, 4096)])
