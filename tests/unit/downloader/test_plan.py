"""The plan: what is under a final name decides what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import each

from mdl.downloader.plan import Plan, Wanted
from mdl.errors import MdlError, NoSpace, Occupied, Unsafe
from mdl.files import HalfFile, HubFile, Kind, LocalFile, Receipt, RemoteFile, Stamp
from mdl.hashing import Digest, Fingerprint
from mdl.paths import RelPath

calm = settings(deadline=None)
PATH = RelPath.parse("sub/m.bin")
RIGHT, WRONG, OLD = (Digest("sha256", pair * 32) for pair in ("ab", "cd", "ef"))
GIT = Digest("git-sha1", "ab" * 20)
STAMP, TOUCHED = Stamp(100, 5, 7), Stamp(100, 6, 7)


def remote(**facts: Any) -> RemoteFile:
    return RemoteFile(PATH, **{"url": "https://h/m.bin", "size": 100, "digest": RIGHT, **facts})


def receipt(**facts: Any) -> Receipt:
    usual = {"stamp": STAMP, "digest": RIGHT, "verified": "sha256", "url": "https://h/m.bin"}
    return Receipt("model", PATH, **{**usual, **facts})


def there(
    hashed: Digest | None = None, *, stamp: Stamp = STAMP, by: Receipt | None = None, partial: int = 0
) -> LocalFile:
    """A file under the final name, with its digest if it was hashed."""
    return LocalFile("file", stamp, by, Fingerprint(hashed, stamp.size) if hashed else None, partial)


def decided(local: LocalFile, wanted: RemoteFile | None = None, *, force: bool = False) -> tuple[str, str]:
    """Where the file went and why."""
    plan = Plan.of([Wanted("model", wanted or remote(), local)], force=force)
    (where,) = [name for name in ("keep", "fetch", "refuse") if getattr(plan, name)]
    (item,) = getattr(plan, where)
    assert plan.items == (item,)
    assert (item.reason == "the right bytes were there") == item.adopt
    assert isinstance(item.refused, MdlError) == (where == "refuse")
    return ("adopt" if item.adopt else where), item.reason


ABSENT = LocalFile()
HUB = HubFile("org/repo", "model", "c" * 40, "m.bin")
FULL, TAGGED = there(by=receipt()), there(by=receipt(validator='"a"'))
RETOUCHED = there(RIGHT, stamp=TOUCHED, by=receipt())


def bare(**facts: Any) -> RemoteFile:
    """A file without a digest."""
    return remote(digest=None, **facts)


TABLE: dict[str, tuple[LocalFile, RemoteFile, str]] = {
    "nothing there": (ABSENT, remote(), "fetch"),
    "a part of it there": (LocalFile(partial=40), remote(), "fetch"),
    "own receipt, untouched": (FULL, remote(), "keep"),
    "own receipt, untouched, size unknown": (FULL, remote(size=None), "keep"),
    "own receipt, touched, right bytes": (RETOUCHED, remote(), "adopt"),
    "own receipt, edited": (there(WRONG, stamp=TOUCHED, by=receipt()), remote(), "refuse"),
    "own receipt, another size now": (there(stamp=Stamp(99, 6, 7), by=receipt()), remote(), "refuse"),
    "own receipt, touched, newer": (there(OLD, stamp=TOUCHED, by=receipt(digest=OLD)), remote(), "fetch"),
    "own receipt, distrusted, right bytes": (there(RIGHT, by=receipt(suspect=True)), remote(), "adopt"),
    "own receipt, distrusted, damaged": (there(WRONG, by=receipt(suspect=True)), remote(), "fetch"),
    "own receipt of an older version": (there(by=receipt(digest=OLD)), remote(), "fetch"),
    "own receipt of another algorithm, right": (there(GIT, by=receipt()), remote(digest=GIT), "adopt"),
    "own receipt, newer one is larger": (FULL, remote(size=101), "fetch"),
    "no receipt, right bytes": (there(RIGHT), remote(), "adopt"),
    "no receipt, other bytes": (there(WRONG), remote(), "refuse"),
    "no receipt, a part of it": (there(stamp=Stamp(99, 5, 7)), remote(), "fetch"),
    "no receipt, a part of it, of another user": (
        LocalFile("file", Stamp(99, 5, 7), foreign=True),
        remote(),
        "refuse",
    ),
    "no receipt, with holes": (replace(there(WRONG), written=((0, 40),)), remote(), "fetch"),
    "no receipt, longer": (there(stamp=Stamp(101, 5, 7)), remote(), "refuse"),
    "no receipt, shorter, no digest": (there(stamp=Stamp(99, 5, 7)), bare(), "refuse"),
    "no receipt, nothing to compare with": (there(), bare(), "refuse"),
    "no digest, same validator": (TAGGED, bare(validator='"a"'), "keep"),
    "no digest, no validator": (FULL, bare(), "keep"),
    "no digest, another validator": (TAGGED, bare(validator='"b"'), "fetch"),
    "no digest, another size": (FULL, bare(size=101), "fetch"),
    "no digest, touched": (RETOUCHED, bare(), "adopt"),
    "no digest, touched, same validator": (
        there(RIGHT, stamp=TOUCHED, by=receipt(validator='"a"')),
        bare(validator='"a"'),
        "adopt",
    ),
    "no digest, touched, newer": (
        there(RIGHT, stamp=TOUCHED, by=receipt(validator='"b"')),
        bare(validator='"a"'),
        "fetch",
    ),
    "no digest, edited": (there(WRONG, stamp=TOUCHED, by=receipt()), bare(), "refuse"),
    "no digest, another URL": (FULL, bare(url="https://h/v2/m.bin"), "fetch"),
    "no digest, another URL, same validator": (TAGGED, bare(url="https://h/v2/m.bin", validator='"a"'), "fetch"),
    "no digest, another query": (FULL, bare(url="https://h/m.bin?v=2"), "fetch"),
    "no digest, touched, another URL": (RETOUCHED, bare(url="https://h/v2/m.bin"), "fetch"),
    "no digest, signed anew": (FULL, bare(url="https://h/m.bin?X-Amz-Date=2&X-Amz-Signature=b"), "keep"),
    "no digest, now first a mirror": (FULL, bare(url="https://n/m.bin", mirrors=("https://h/m.bin",)), "keep"),
    "no digest, another commit": (there(by=receipt(commit="c" * 40)), bare(commit="d" * 40), "fetch"),
    "no digest, same commit, another endpoint": (
        there(by=receipt(hub=HUB)),
        bare(url="https://n/m.bin", hub=HUB),
        "keep",
    ),
    "a folder": (LocalFile("folder", why="it is a folder"), remote(), "refuse"),
    "a link": (LocalFile("link", why="it is a link"), remote(), "refuse"),
    "a device": (LocalFile("special", why="it is a device"), remote(), "refuse"),
}


@each("row", TABLE)
def test_what_is_there_decides(row: str) -> None:
    """Untouched is kept, right is adopted, mdl's own older or damaged is fetched, a stranger's is refused; with --force
    every file is fetched anew, a stranger's too."""
    local, wanted, where = TABLE[row]
    assert decided(local, wanted)[0] == where
    assert local.kind != "file" or decided(local, wanted, force=True) == ("fetch", "forced")


@each("kind", ["folder", "link", "special"])
@each("force", [False, True])
def test_what_is_no_file_is_refused_with_force_too(kind: Kind, force: bool) -> None:
    """A folder is 7 and a link or device 11, by name and reason, and --force changes neither."""
    plan = Plan.of([Wanted("model", remote(), LocalFile(kind, why="it is there"))], force=force)
    (item,) = plan.refuse
    assert isinstance(item.refused, Occupied if kind == "folder" else Unsafe)
    assert (item.refused.exit_code, item.refused.item) == (7 if kind == "folder" else 11, f"model/{PATH.text}")
    assert "it is there" in item.refused.message


@pytest.mark.fault(247)
def test_a_refusal_says_the_way_out() -> None:
    """A stranger's file is code 7, and the hint says --force. So is a file changed since mdl wrote it: the message says
    since when, and the hint what replaces it."""
    edited = there(WRONG, stamp=Stamp(100, 86_400 * 10**9, 7), by=receipt())
    first, second = Plan.of([Wanted("m", remote(), there(WRONG)), Wanted("m", remote(), edited)]).refuse
    for item, words in ((first, ["--force"]), (second, ["--force", "verify --repair --force"])):
        assert item.refused is not None
        assert (item.refused.exit_code, item.refused.item) == (7, f"m/{PATH.text}")
        assert all(word in str(item.refused.hint) for word in words)
    assert "changed after mdl wrote it, last on 1970-01-02 at 00:00:00 UTC" in str(second.refused)


def test_reasons_tell_cases_apart() -> None:
    """A newer file there, a damaged one here, one that is partly here and one that is missing are called so."""
    assert decided(there(by=receipt(digest=OLD)))[1] == "the source has a newer one"
    assert decided(there(WRONG, by=receipt(suspect=True)))[1] == "damaged here"
    assert decided(there(WRONG, stamp=TOUCHED, by=receipt()))[1] == "edited"
    assert decided(LocalFile(partial=40))[1] == "partly here"
    assert decided(ABSENT)[1] == "missing"


def _wanted(*locals_: LocalFile, size: int | None = 100) -> list[Wanted]:
    return [Wanted(f"m{n}", remote(size=size), local) for n, local in enumerate(locals_)]


def test_bytes_add_up() -> None:
    """Kept are whole files and what partials have; to fetch is the rest; refused files count for nothing."""
    plan = Plan.of(_wanted(there(by=receipt()), ABSENT, LocalFile(partial=40), there(WRONG)))
    assert (plan.bytes_total, plan.bytes_kept, plan.bytes_to_fetch) == (300, 140, 160)


_LOCAL = st.one_of(
    st.just(ABSENT),
    st.integers(0, 100).map(lambda n: LocalFile(partial=n)),
    st.sampled_from([local for local, _, _ in TABLE.values()]),
)


@calm
@given(st.lists(_LOCAL, max_size=8), st.booleans())
def test_every_file_is_in_exactly_one_place(locals_: list[LocalFile], force: bool) -> None:
    """Whatever is there, each wanted file is kept, fetched or refused, and the bytes of it add up."""
    wanted = _wanted(*locals_)
    plan = Plan.of(wanted, force=force)
    assert sorted(item.wanted.model for item in plan.items) == [one.model for one in wanted]
    assert plan.bytes_kept + plan.bytes_to_fetch == plan.bytes_total
    assert all((item.refused is not None) == (item in plan.refuse) for item in plan.items)


def test_space_is_checked_over_all() -> None:
    """The whole plan must fit: else code 7 before the first byte, with need and have and what is short."""
    plan = Plan.of(_wanted(ABSENT, LocalFile(partial=40), there(by=receipt())))
    plan.check_space(160)
    with pytest.raises(NoSpace) as caught:
        plan.check_space(159)
    assert (caught.value.exit_code, caught.value.code) == (7, "SPACE")
    assert all(text in caught.value.message for text in ("needs 160 B", "159 B are free", "1 B short"))
    assert caught.value.hint


def test_a_size_that_nobody_knows_counts_nothing() -> None:
    """Neither for what is fetched nor for the whole; a part that is larger than its file leaves nothing to fetch."""
    plan = Plan.of([Wanted("model", remote(size=None), ABSENT)])
    assert (plan.bytes_to_fetch, plan.bytes_total) == (0, 0)
    larger = Plan.of([Wanted("model", remote(), LocalFile(partial=200))])
    assert larger.bytes_to_fetch == 0


def test_the_largest_size_is_of_the_whole_plan() -> None:
    """A plan that has just as many bytes as are allowed goes on, one with more is refused; no limit is none."""
    plan = Plan.of([Wanted("model", remote(), ABSENT)])
    plan.check_size(None)
    plan.check_size(100)
    with pytest.raises(Unsafe, match="100 bytes in all"):
        plan.check_size(99)


def test_what_is_copied_takes_space() -> None:
    """Copies of what is elsewhere, of another file of the plan, and of an unfinished file all count; links do not."""
    item = Plan.of([Wanted("model", remote(), ABSENT)]).fetch[0]
    half = HalfFile(Path("m.bin.part"), ((0, 40),))
    copied = replace(item, way="copy")
    plan = Plan(fetch=(replace(item, half=half),), linked=(copied, replace(item, way="link")), repeated=(copied,))
    assert plan.bytes_to_copy == 240
    assert plan.bytes_elsewhere == 300
