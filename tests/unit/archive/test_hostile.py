"""Strict unpacking: every trick refused with nothing written, everything honest accepted byte for byte."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import hostile_archives as hostile
from support import zip_bytes as zips
from support.accepted_archives import ACCEPTED, CROWDS, Harmless, whole
from support.hostile_archives import ALONE, BASE, CORPUS, CUTS, PAIRS, USUAL, Case, control, try_out, with_manifest
from support.long import LONG, examples, some
from support.packing import memory_of
from support.zip_bytes import DEFLATED, Member, Zip

from mdl.errors import MdlError
from mdl.ops.unpack import unpack, verify_archive
from mdl.paths import is_hidden_character


@pytest.fixture
def shm() -> Iterator[Path]:
    """A folder in memory, if there is one: for very many files."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


def by_kind(cases: Sequence[Case] | Sequence[Harmless]) -> list[Any]:
    """The archives of each kind and row as one parameter of a test, marked with their row of the fault matrix."""
    kinds: dict[tuple[int, str], list[Any]] = {}
    for case in cases:
        kinds.setdefault((case.row, case.kind), []).append(case)
    return [
        pytest.param(kind, id=f"F{row} {name}", marks=[pytest.mark.fault(row)] if row else [])
        for (row, name), kind in kinds.items()
    ]


def mistakes_about(case: Case, folder: Path) -> Iterator[str]:
    """What is wrong in how a hostile archive ended, in words; the folder is its own."""
    outcome = try_out(folder, case.build(), case.limits)
    error = outcome.error
    if error is None:
        yield "it was accepted"
        return
    if outcome.code not in case.codes:
        yield f"exit code {outcome.code}: {error}"
    if outcome.traces:
        yield f"it wrote {sorted(outcome.traces)}"
    if not error.advice or "archive.zip" not in (error.item or ""):
        yield f"an error without advice, or without the archive: {error!r}"
    shown = f"{error.message}{error.item}{error.advice}"
    if len(shown) >= 5000 or any(is_hidden_character(char) for char in shown):
        yield f"an error that is not safe to show: {shown[:5000]!r}"
    with pytest.raises(MdlError) as tested:  # what only tests it says the same
        verify_archive(folder / "far" / "near" / "archive.zip", limits=case.limits)
    same = (error.exit_code, error.message, error.item, error.advice)
    if (tested.value.exit_code, tested.value.message, tested.value.item, tested.value.advice) != same:
        yield f"a test of it says something else: {tested.value!r}"


@pytest.mark.parametrize("cases", by_kind(CORPUS if LONG else [*ALONE, *some(CUTS, 4)]))
def test_hostile_archives_are_refused(shm: Path, cases: list[Case]) -> None:
    """Each with the right exit code, nothing written anywhere, and an error that names the archive and is safe to show.

    Pairs of tricks are tried in the long run.
    """
    mistakes = {}
    for number, case in enumerate(cases):
        folder = shm / str(number)
        mistakes[case.name] = list(mistakes_about(case, folder))
        shutil.rmtree(folder)
    assert [(name, found) for name, found in mistakes.items() if found] == []


def test_corpus_is_large() -> None:
    """Every row of group K that concerns the archive itself is tried, at least 300 pairs are, and no archive twice."""
    assert {case.row for case in ALONE} >= set(range(184, 200))
    assert (len(ALONE) > 400, len(PAIRS) >= 300) == (True, True)
    assert len({case.build() for case in CUTS}) == len(CUTS)
    assert len({(case.build(), case.limits) for case in ALONE}) == len(ALONE)


def test_corpus_bites(shm: Path) -> None:
    """Control: Python's own zipfile accepts many of the same archives, and writes other names than they hold."""
    light = some((case for case in ALONE if not case.heavy), 4)
    results = [control(shm / str(n), case.build()) for n, case in enumerate(light)]
    accepted = [one for one in results if one.accepted]
    renamed = [one for one in accepted if one.renamed]
    print(f"zipfile accepts {len(accepted)} of {len(light)}, {len(renamed)} of them under other names")
    assert (len(accepted) > len(light) / 4, len(renamed) > len(light) / 40) == (True, True)


@pytest.mark.parametrize("kind", by_kind([*ACCEPTED, *(CROWDS if LONG else [])]))
def test_harmless_archives_are_unpacked(shm: Path, kind: list[Harmless]) -> None:
    """What the usual tools make, and every honest oddity, comes out byte for byte."""
    if not kind[0].is_here:
        pytest.skip(f"{kind[0].tool} is not installed")
    for number, harmless in enumerate(kind):
        folder = shm / str(number)
        (folder / "source").mkdir(parents=True)
        harmless.make(folder / "source", folder / "archive.zip")
        done = unpack(folder / "archive.zip", folder / "out", limits=USUAL)
        assert hostile.tree(folder / "out") == whole(harmless.tree), harmless.name
        files = {path: data for path, data in harmless.tree.items() if data is not None and path != "mdl-manifest.json"}
        assert (done.files, done.bytes) == (len(files), sum(map(len, files.values()))), harmless.name
        assert sorted(os.listdir(folder)) == ["archive.zip", "out", "source"], harmless.name
        shutil.rmtree(folder)


SMALL = with_manifest(
    Zip(
        members=(
            Member(name=b"a.bin", data=bytes(range(40))),
            Member(name=b"d/", data=b""),
            Member(name="d/\u00e9.txt".encode(), data=b"text " * 9, method=DEFLATED),
            Member(name=b"d/v.txt", data=b"a\nb\n", method=DEFLATED, descriptor={}),
        )
    )
)
ORIGINAL = {"a.bin": bytes(range(40)), "d": None, "d/\u00e9.txt": b"text " * 9, "d/v.txt": b"a\nb\n"}


def refused_or_same(folder: Path, data: bytes) -> bool:
    """Unpack damaged bytes: True if they were refused; if they were not, they must be the same tree."""
    outcome = try_out(folder, data)
    if outcome.code:
        assert outcome.code in (6, 11, 12)
        assert outcome.traces == frozenset()
        return True
    found = hostile.tree(folder / "far" / "near" / "out")
    found.pop("mdl-manifest.json")
    assert found == ORIGINAL
    return False


def test_every_single_byte_flipped(shm: Path) -> None:
    """Whichever byte of an archive is damaged: refused, or the very same files."""
    data, refused = SMALL.build(), 0
    for at, mask in (tried := some(product(range(len(data)), [0x01, 0x20, 0x80, 0xFF]), 11)):
        flipped = bytearray(data)
        flipped[at] ^= mask
        refused += refused_or_same(shm / f"{at} {mask}", bytes(flipped))
    assert refused > len(tried) * 0.8


RECORDS = {
    "local": (zips.LOCAL, [1, 2**16 - 1, 2**32 - 1, 8, 9]),
    "central": (zips.CENTRAL, [1, 2**16 - 1, 2**31, 2**32 - 1, 8, 9, 0]),
    "descriptor": (zips.DESCRIPTORS[16], [0, 1, 2**31, 2**32 - 1]),
    "end": (zips.END, [0, 1, 2, 2**16 - 2, 2**16 - 1, 2**31, 2**32 - 2, 2**32 - 1]),
    "end64": (zips.END64, [0, 1, 2, 2**16 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]),
    "locator": (zips.LOCATOR, [0, 1, 2, 2**31, 2**32 - 1, 2**63, 2**64 - 1]),
}


def lying(record: str, field: str, value: int) -> Iterator[Zip]:
    """The small archive with one field of one record told otherwise: once for each member that has it."""
    if record in ("end", "end64", "locator"):
        wide = {"end64": {}, "locator": {}} if record != "end" else {}
        yield SMALL.but(**{**wide, record: {field: value}})
        return
    for number, member in enumerate(SMALL.members):
        if record != "descriptor" or member.descriptor is not None:
            one = replace(member, **{record: {field: value}})
            yield SMALL.but(members=(*SMALL.members[:number], one, *SMALL.members[number + 1 :]))


@pytest.mark.parametrize("record", RECORDS)
def test_every_single_field_lies(shm: Path, record: str) -> None:
    """Whichever field of whichever record says something else: refused, or the very same files."""
    layout, values = RECORDS[record]
    refused = tried = 0
    for field, value in some(product(layout.names, values), 9):
        for archive in lying(record, field, value):
            try:
                data = archive.build()
            except struct.error:
                continue  # no room for such a value in this field
            refused += refused_or_same(shm / str(tried), data)
            tried += 1
    assert refused > tried / 4


@pytest.mark.parametrize("cut", [1, 2, 7])
def test_every_single_byte_lost(shm: Path, cut: int) -> None:
    """Whichever bytes are missing, at the end or within: refused, or the very same files."""
    data = SMALL.build()
    places = some(range(0, len(data), cut), 5)
    refused = sum(refused_or_same(shm / str(at), data[:at] + data[at + cut :]) for at in places)
    assert refused == len(places)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A whole archive after a few flips, insertions, losses, repetitions, cuts and overwritten fields."""
    data = bytearray(SMALL.build())
    for _ in range(draw(st.integers(1, 4))):
        at, count = draw(st.integers(0, max(0, len(data) - 1))), draw(st.integers(1, 40))
        match draw(st.sampled_from(["flip", "insert", "lose", "repeat", "cut", "field"])):
            case "flip" if data:
                data[at] ^= draw(st.integers(1, 255))
            case "insert":
                data[at:at] = draw(st.binary(max_size=40))
            case "lose":
                del data[at : at + count]
            case "repeat":
                data[at:at] = data[at : at + count]
            case "cut":
                del data[at:]
            case "field":
                value = draw(st.sampled_from([b"\xff\xff", b"\xff\xff\xff\xff", bytes(4), b"PK\5\6", b"\1\0"]))
                data[at : at + len(value)] = value
    return bytes(data)


@settings(max_examples=examples(600), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=damaged())
def test_random_damage(shm: Path, data: bytes) -> None:
    """However an archive is damaged: an error of mdl's own and nothing written, or the very same files."""
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        refused_or_same(Path(folder), data)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["schema", "run", "checkpoint", "step", "files", "changed", "skipped"]), value=JSONS)
def test_random_manifest(shm: Path, key: str, value: object) -> None:
    """Whatever stands in a manifest's field: accepted, damaged (6) or of a newer mdl (12), nothing else."""
    lie = hostile.manifest(lambda facts: facts.update({key: value}))
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        assert try_out(Path(folder), lie(BASE).build()).code in (0, 6, 12)


HEADERS = {
    "end is infinite": hostile.tensor("1e999"),
    "end is no number": hostile.tensor("NaN"),
    "end has 4300 digits": hostile.tensor("9" * 4300),
    "end has 9999 digits": hostile.tensor("9" * 9999),
    "end is below zero": hostile.tensor("-5"),
    "end is null": hostile.tensor("null"),
    "end is a list": hostile.tensor("[1]"),
    "metadata is null": b'{"__metadata__": null}',
    "metadata nested": b'{"__metadata__": ' + b"[" * 9000,
    "a list": b"[]",
    "a number": b"12",
    "nothing": b"  ",
    "not UTF-8": b'{"\xff": 1}',
    "a lone surrogate": b'{"__metadata__": {"a": "\\ud800"}}',
    "nested without end": b"[" * 100_000,
}


@pytest.mark.fault(180)
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_odd_safetensors_header(tmp_path: Path, header: bytes) -> None:
    """A strange header is either not judged, or damage with a short message: never a fault of mdl's own."""
    archive = hostile.safetensors(header)(BASE)
    outcome = try_out(tmp_path, archive.build())
    assert outcome.code in (0, 6)
    assert len(str(outcome.error)) < 500


FILLING = b"[]," * (5 * 10**6)
HEADER = b'{"__metadata__":{},"w":[' + FILLING + b"[]]}"
SWELLING = {
    "a manifest of 15 MB": (
        [
            *(Member(name=b"%d" % n, data=b"") for n in range(3000)),
            Member(name=b"mdl-manifest.json", data=b"[" + FILLING + b"[]]", method=DEFLATED),
        ],
        (6, 11),
    ),
    "a safetensors header of 15 MB": (
        [Member(name=b"m.safetensors", data=struct.pack("<Q", len(HEADER)) + HEADER, method=DEFLATED)],
        (0, 6, 11),
    ),
}


@pytest.mark.fault(180, 196)
@pytest.mark.parametrize(("members", "codes"), SWELLING.values(), ids=SWELLING)
def test_memory_of_a_header(shm: Path, members: list[Member], codes: tuple[int, ...]) -> None:
    """A manifest or a header that inflates to 15 MB from some kB costs no memory of several times that."""
    (shm / "archive.zip").write_bytes(Zip(members=tuple(members)).build())
    code, _, grown = memory_of("unpack", shm / "archive.zip", shm / "out")
    assert (code in codes, grown < 100) == (True, True), f"exit code {code}, {grown:.0f} MiB"
