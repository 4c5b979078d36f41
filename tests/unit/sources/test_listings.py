"""Kept listings: what a repository held, read back as it was or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.cases import each
from support.long import examples
from support.scripted_hub import COMMIT, HUB, LATER, ORIGIN, PINNED, SHA

from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.sources import hub_listing
from mdl.sources.hub_listing import Entry, Listing, Listings
from mdl.sources.hub_origin import is_pinned

LISTING = Listing(
    COMMIT,
    (Entry(RelPath.parse("config.json"), 10, None), Entry(RelPath.parse("sub/مدل.bin"), 1000, Digest("sha256", SHA))),
)


@pytest.fixture
def listings(tmp_path: Path) -> Listings:
    made = Listings(tmp_path)
    made.put(HUB, PINNED, LISTING)
    return made


def test_listing_is_read_back(listings: Listings) -> None:
    """What was kept is read back."""
    assert listings.get(HUB, PINNED) == LISTING


def test_listing_belongs_to_one_hub_and_revision(listings: Listings) -> None:
    """A listing of one hub, repository, type or revision is not taken for another's; None is the branch main."""
    others = [replace(PINNED, revision=LATER), replace(PINNED, repo="org/r"), replace(PINNED, repo_type="dataset")]
    assert all(listings.get(HUB, origin) is None for origin in (*others, ORIGIN))
    assert listings.get("https://mirror.org", PINNED) is None
    listings.put(HUB, ORIGIN, LISTING)
    assert listings.get(HUB, replace(ORIGIN, revision="main")) == LISTING
    assert listings.get(HUB, replace(PINNED, subpath="sub")) == LISTING


@pytest.mark.fault(151)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"mdl-listing":1', '"mdl-listing":2'),
        ("config.json", "../x"),
        (SHA, SHA.upper()),
        ("sha256:", "md5:"),
        ("1000", "null"),
        ('"commit"', '"other"'),
        ("]]}", "]]"),
    ],
)
def test_damaged_listing_is_none(listings: Listings, tmp_path: Path, old: str, new: str) -> None:
    """A kept listing that is cut, of another version, or holds what cannot be counts as none."""
    (place,) = tmp_path.iterdir()
    whole = place.read_text()
    assert old in whole
    place.write_text(whole.replace(old, new))
    assert listings.get(HUB, PINNED) is None


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"\xff\xfe", b"{}"])
def test_another_file_is_no_listing(listings: Listings, tmp_path: Path, text: bytes) -> None:
    """A file that is no listing at all counts as none."""
    (place,) = tmp_path.iterdir()
    place.write_bytes(text)
    assert listings.get(HUB, PINNED) is None


@pytest.mark.fault(147)
@pytest.mark.usefixtures("listings")
def test_no_flipped_bit_is_believed(tmp_path: Path) -> None:
    """With any one bit flipped a kept listing says the same or nothing."""
    (place,) = tmp_path.iterdir()
    whole = place.read_bytes()
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        place.write_bytes(damaged)
        assert Listings(tmp_path).get(HUB, PINNED) in (None, LISTING)


@each(
    ("revision", "pinned"),
    [
        *(("c" * 40, True), ("0123456789abcdef" * 4, True), ("c" * 39, False), ("c" * 41, False), ("C" * 40, False)),
        *(("main", False), ("", False), (None, False), ("g" * 40, False), ("refs/pr/1", False)),
    ],
)
def test_only_a_full_commit_is_pinned(revision: str | None, pinned: bool) -> None:
    """A full commit id always means the same files; a branch, a tag or a short id does not."""
    assert is_pinned(revision) == pinned


def test_listing_is_read_once(listings: Listings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalog may name thousands of files of one repository. What this process puts there is read anew."""
    reads, read = list[Path](), hub_listing.read_kept
    monkeypatch.setattr(hub_listing, "read_kept", lambda path, *rest: reads.append(path) or read(path, *rest))
    for number in range(50):
        assert listings.get(HUB, replace(PINNED, subpath=f"{number}.bin")) == LISTING
    assert len(reads) == 1
    newer = replace(LISTING, entries=LISTING.entries[:1])
    listings.put(HUB, PINNED, newer)
    assert listings.get(HUB, PINNED) == newer


@settings(max_examples=examples(200))
@given(st.lists(st.text("ab/", min_size=1, max_size=6), max_size=8), st.text("ab/", max_size=4))
def test_what_is_below_a_path(texts: list[str], path: str) -> None:
    """The file of that name, or else all that is in the folder of that name: no path that only begins with it."""
    listing = Listing(COMMIT, tuple(Entry(RelPath(text), 1, None) for text in dict.fromkeys(texts)))
    is_clash = any(one.path.text == path for one in listing.entries) and any(
        one.path.text.startswith(f"{path}/") for one in listing.entries
    )
    assume(not is_clash)  # a listing in which a file is a folder is refused
    expected = [one for one in listing.entries if not path or f"{one.path.text}/".startswith(f"{path}/")]
    assert list(listing.below(path)) == expected
