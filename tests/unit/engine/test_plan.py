"""The plan: what stands under a final name, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdl.engine.plan import Plan, Wanted
from mdl.errors import MdlError, NoSpace, Occupied, Unsafe
from mdl.files import HubFile, Kind, LocalFile, Receipt, RemoteFile, Stamp
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
    """A file under the final name, with what hashing it told where it was hashed."""
    return LocalFile("file", stamp, by, Fingerprint(hashed, stamp.size) if hashed else None, partial)


def decided(local: LocalFile, wanted: RemoteFile | None = None, *, force: bool = False) -> tuple[str, str, bool]:
    """Where the file went, why, and whether it is adopted."""
    plan = Plan.of([Wanted("model", wanted or remote(), local)], force=force)
    (where,) = [name for name in ("keep", "fetch", "refuse") if getattr(plan, name)]
    (item,) = getattr(plan, where)
    assert plan.items == (item,)
    return where, item.reason, item.adopt


ABSENT = LocalFile()
HUB = HubFile("org/repo", "model", "c" * 40, "m.bin")
NO_DIGEST = remote(digest=None, validator='"a"')
TABLE: dict[str, tuple[LocalFile, RemoteFile, str, bool]] = {
    "nothing there": (ABSENT, remote(), "fetch", False),
    "a part of it there": (LocalFile(partial=40), remote(), "fetch", False),
    "own receipt, untouched": (there(by=receipt()), remote(), "keep", False),
    "own receipt, untouched, size unknown": (there(by=receipt()), remote(size=None), "keep", False),
    "own receipt, touched, right bytes": (there(RIGHT, stamp=TOUCHED, by=receipt()), remote(), "keep", True),
    "own receipt, edited": (there(WRONG, stamp=TOUCHED, by=receipt()), remote(), "refuse", False),
    "own receipt, another size now": (there(stamp=Stamp(99, 6, 7), by=receipt()), remote(), "refuse", False),
    "own receipt, touched, bytes as they came, newer there": (
        there(OLD, stamp=TOUCHED, by=receipt(digest=OLD)),
        remote(),
        "fetch",
        False,
    ),
    "own receipt, distrusted, right bytes": (there(RIGHT, by=receipt(suspect=True)), remote(), "keep", True),
    "own receipt, distrusted, damaged": (there(WRONG, by=receipt(suspect=True)), remote(), "fetch", False),
    "own receipt of an older version": (there(by=receipt(digest=OLD)), remote(), "fetch", False),
    "own receipt of another algorithm, right": (there(GIT, by=receipt()), remote(digest=GIT), "keep", True),
    "own receipt, newer one is larger": (there(by=receipt()), remote(size=101), "fetch", False),
    "no receipt, right bytes": (there(RIGHT), remote(), "keep", True),
    "no receipt, other bytes": (there(WRONG), remote(), "refuse", False),
    "no receipt, other size": (there(stamp=Stamp(99, 5, 7)), remote(), "refuse", False),
    "no receipt, nothing to tell by": (there(), remote(digest=None), "refuse", False),
    "no digest, same validator": (there(by=receipt(validator='"a"')), NO_DIGEST, "keep", False),
    "no digest, no validator": (there(by=receipt()), remote(digest=None), "keep", False),
    "no digest, another validator": (there(by=receipt(validator='"b"')), NO_DIGEST, "fetch", False),
    "no digest, another size": (there(by=receipt()), remote(digest=None, size=101), "fetch", False),
    "no digest, touched, bytes as they came": (
        there(RIGHT, stamp=TOUCHED, by=receipt(validator='"a"')),
        NO_DIGEST,
        "keep",
        True,
    ),
    "no digest, touched, bytes as they came, newer there": (
        there(RIGHT, stamp=TOUCHED, by=receipt(validator='"b"')),
        NO_DIGEST,
        "fetch",
        False,
    ),
    "no digest, edited": (there(WRONG, stamp=TOUCHED, by=receipt()), remote(digest=None), "refuse", False),
    "no digest, another URL": (there(by=receipt()), remote(digest=None, url="https://h/v2/m.bin"), "fetch", False),
    "no digest, another URL with the same validator": (
        there(by=receipt(validator='"a"')),
        remote(digest=None, url="https://h/v2/m.bin", validator='"a"'),
        "fetch",
        False,
    ),
    "no digest, another query": (there(by=receipt()), remote(digest=None, url="https://h/m.bin?v=2"), "fetch", False),
    "no digest, touched, another URL": (
        there(RIGHT, stamp=TOUCHED, by=receipt()),
        remote(digest=None, url="https://h/v2/m.bin"),
        "fetch",
        False,
    ),
    "no digest, signed anew": (
        there(by=receipt()),
        remote(digest=None, url="https://h/m.bin?X-Amz-Date=2&X-Amz-Signature=b"),
        "keep",
        False,
    ),
    "no digest, now first a mirror": (
        there(by=receipt()),
        remote(digest=None, url="https://n/m.bin", mirrors=("https://h/m.bin",)),
        "keep",
        False,
    ),
    "no digest, another commit": (
        there(by=receipt(commit="c" * 40)),
        remote(digest=None, commit="d" * 40),
        "fetch",
        False,
    ),
    "no digest, the same commit from another endpoint": (
        there(by=receipt(hub=HUB)),
        remote(digest=None, url="https://n/m.bin", hub=HUB),
        "keep",
        False,
    ),
    "a folder": (LocalFile("folder", why="it is a folder"), remote(), "refuse", False),
    "a link": (LocalFile("link", why="it is a link"), remote(), "refuse", False),
    "a device": (LocalFile("special", why="it is a device"), remote(), "refuse", False),
}


@pytest.mark.parametrize("row", TABLE)
def test_what_stands_there_decides(row: str) -> None:
    """Untouched is kept, right is adopted, mdl's own older or damaged is fetched, a stranger's is refused."""
    local, wanted, where, adopt = TABLE[row]
    assert (decided(local, wanted)[0], decided(local, wanted)[2]) == (where, adopt)
    for item in Plan.of([Wanted("model", wanted, local)]).refuse:
        assert isinstance(item.refused, MdlError)
        assert item.refused.exit_code in (7, 11)


@pytest.mark.parametrize("row", [row for row in TABLE if TABLE[row][0].kind == "file"])
def test_force_fetches_whatever_file_is_there(row: str) -> None:
    """With --force every file is fetched anew, a stranger's too."""
    local, wanted, _, _ = TABLE[row]
    assert decided(local, wanted, force=True) == ("fetch", "forced", False)


@pytest.mark.parametrize("kind", ["folder", "link", "special"])
@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_file_is_refused_with_force_too(kind: Kind, force: bool) -> None:
    """A folder is 7 and a link or device 11, by name and reason, and --force changes neither."""
    plan = Plan.of([Wanted("model", remote(), LocalFile(kind, why="stands there"))], force=force)
    (item,) = plan.refuse
    assert isinstance(item.refused, Occupied if kind == "folder" else Unsafe)
    assert item.refused.exit_code == (7 if kind == "folder" else 11)
    assert item.refused.item == PATH.text
    assert "stands there" in item.refused.message


@pytest.mark.fault(247)
def test_a_refusal_says_the_way_out() -> None:
    """A stranger's file is code 7, and the hint says --force. So is a file changed since mdl wrote it: the message says
    since when, the hint what replaces it, and a repair does."""
    edited = there(WRONG, stamp=Stamp(100, 86_400 * 10**9, 7), by=receipt())
    first, second = Plan.of([Wanted("m", remote(), there(WRONG)), Wanted("m", remote(), edited)]).refuse
    for item, words in ((first, ["--force"]), (second, ["--force", "verify --repair"])):
        assert item.refused is not None
        assert (item.refused.exit_code, item.refused.item) == (7, PATH.text)
        assert all(word in str(item.refused.hint) for word in words)
    assert "changed after mdl wrote it, last on 1970-01-02 at 00:00:00 UTC" in str(second.refused)
    assert [one.reason for one in Plan.of([second.wanted], repair=True).fetch] == ["damaged here"]


def test_reasons_tell_cases_apart() -> None:
    """A newer file there, a damaged one here, one that is partly here and one that is missing are called so."""
    assert decided(there(by=receipt(digest=OLD)))[1] == "a newer one is there"
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
    st.sampled_from([local for local, _, _, _ in TABLE.values()]),
)


@calm
@given(st.lists(_LOCAL, max_size=8), st.booleans())
def test_every_file_is_in_exactly_one_place(locals_: list[LocalFile], force: bool) -> None:
    """Whatever stands there, each wanted file is kept, fetched or refused, and the bytes of it add up."""
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
    assert all(text in caught.value.message for text in ("needs 160", "159 are free", "1 short"))
    assert caught.value.hint
