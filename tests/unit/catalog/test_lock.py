"""The lock as text and as values: what is written is read back, what is damaged is refused, what moved is told."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import each
from support.long import some

from mdl.bounds import LARGEST_NUMBER
from mdl.catalog.lock import Lock, LockedFile, LockedModel, entry_of, words_of_changes
from mdl.catalog.lock_file import lock_text, parse_lock, read_lock, write_lock
from mdl.catalog.model import CatalogFile, Model
from mdl.catalog.resolver import Resolver
from mdl.errors import LockError, MdlError, StateError, Unsafe
from mdl.files import HubFile, RemoteFile
from mdl.hashing import Digest
from mdl.paths import RelPath, refuse_twins
from mdl.reports import LeftOutFile
from mdl.sources import SourceContext
from mdl.sources.hub_endpoint import DEFAULT, Endpoint
from mdl.sources.hub_listing import Entry, Listing, Listings
from mdl.sources.hub_origin import HubOrigin, parse_reference

COMMIT, LATER = "c" * 40, "d" * 40
SHA, OTHER, GIT = Digest("sha256", "ab" * 32), Digest("sha256", "cd" * 32), Digest("git-sha1", "12" * 20)


def is_path(text: str) -> bool:
    try:
        return bool(RelPath.parse(text))
    except MdlError:
        return False


def have_no_twins(files: list[LockedFile]) -> bool:
    """No two files that are one on some file system, and no file that is another's folder."""
    try:
        refuse_twins(file.path for file in files)
    except Unsafe:
        return False
    return True


ODD = st.text(st.sampled_from("a/\"'\\\x7f\x00\n\r\t\u2028 é😀#=[]") | st.characters(exclude_categories=["Cs"]))
PATHS = st.text("aB9/.-_ '\"%@#=?&+[]{}é\u0301中😀", min_size=1, max_size=20).filter(is_path).map(RelPath.parse)
SIZES, DIGESTS = st.none() | st.integers(0, LARGEST_NUMBER), st.sampled_from([None, SHA, OTHER, GIT])
SOURCES = ODD.map(lambda text: f"https://{text}")
MIRRORS = st.lists(SOURCES, max_size=2).map(tuple)
FILES = st.builds(LockedFile, PATHS, SOURCES, SIZES, DIGESTS, st.booleans(), MIRRORS, ODD)
FILE_LISTS = st.lists(FILES, max_size=3, unique_by=lambda file: file.path).filter(have_no_twins)
SORTED = FILE_LISTS.map(lambda files: tuple(sorted(files, key=lambda file: file.path)))
LEFT_OUT = st.lists(st.builds(LeftOutFile, ODD, SIZES), max_size=2, unique_by=lambda file: file.path).map(tuple)
MODELS = st.lists(st.builds(LockedModel, PATHS.map(str), ODD, SORTED, LEFT_OUT), max_size=3)
LOCKS = MODELS.map(lambda models: Lock({model.name: model for model in models}))


def file(path: str = "a.bin", source: str = f"hf:org/repo@{COMMIT}/a.bin", **more: Any) -> LockedFile:
    return LockedFile(RelPath.parse(path), source, **{"size": 10, "digest": SHA, **more})


def of(*files: LockedFile, entry: str = "e") -> Lock:
    return Lock({"m": LockedModel("m", entry, files)})


TWO_FILES = (file(), file("b.bin", "https://h/b", tofu=True, mirrors=("https://i/b",)))
DATA = (file("c.json", f"hf:datasets/org/d@{COMMIT}/c.json", digest=GIT),)
WHOLE = Lock({"a": LockedModel("a", "1" * 16, TWO_FILES), "z": LockedModel("z", "2" * 16, DATA)})


@given(LOCKS, st.randoms(use_true_random=False))
def test_what_is_written_is_read_back(lock: Lock, random: Random) -> None:
    """Whatever names, texts and digests a lock has, its TOML is TOML and reads back as the same lock. Models and files
    in any order are written sorted, so that two machines write the same bytes."""
    text = lock_text(lock)
    names = random.sample(list(lock.models), len(lock.models))
    mixed = {n: replace(lock.models[n], files=tuple(random.sample(f := lock.models[n].files, len(f)))) for n in names}
    assert lock_text(Lock(mixed)) == text
    assert next(iter(tomllib.loads(text))) == "version"
    assert parse_lock(text) == lock
    assert parse_lock(text.replace("\n", "\r\n")) == lock


LOCKED = f"""\
# Written by 'mdl lock'; edit the catalog instead.
version = 2

[[model]]
name = "a"
source = "hf:org/repo@{COMMIT}"
left_out = [
  {{ path = "onnx/model.onnx", size = 7 }},
  {{ path = "pytorch_model.bin" }},
]
files = [
  {{ path = "a.bin", size = 10, sha256 = "{SHA.hex}", role = "other" }},
  {{ path = "b.bin", size = 10, sha256 = "{SHA.hex}", source = "https://h/b", mirrors = ["https://i/b"], \
role = "other", tofu = true }},
]
entry = "1111111111111111"

[[model]]
name = "z"
source = "hf:datasets/org/d@{COMMIT}"
files = [
  {{ path = "c.json", size = 10, git-sha1 = "{GIT.hex}", role = "other" }},
]
entry = "2222222222222222"
"""


def test_the_text_can_be_reviewed() -> None:
    """A lock starts with its version. Models come by name, each with its repository and commit once, and files by path,
    a line each, which has what does not follow from its model and its path."""
    left_out = (LeftOutFile("pytorch_model.bin"), LeftOutFile("onnx/model.onnx", 7))
    lock = WHOLE.with_model(replace(WHOLE.models["a"], left_out=left_out))
    assert lock_text(lock) == LOCKED
    assert parse_lock(LOCKED) == lock


def test_one_changed_file_is_one_changed_line() -> None:
    """Of two locks that differ in the bytes of one file, one line differs; a file that is new is one line more."""
    files = [file(f"{number}.json", f"hf:org/repo@{COMMIT}/{number}.json") for number in range(400)]
    before = lock_text(of(*files)).splitlines()
    after = lock_text(of(*files[:7], replace(files[7], digest=OTHER), *files[8:])).splitlines()
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1
    assert set(lock_text(of(*files, file("x", "https://h/x"))).splitlines()) - set(before) == {
        f'  {{ path = "x", size = 10, sha256 = "{SHA.hex}", source = "https://h/x" }},'
    }
    assert len(before) == 400 + 9


def test_no_damage_is_anything_but_a_state_error() -> None:
    """Cut anywhere, or with any one byte replaced, a lock is read or is a StateError (12): never another exception.
    Every model that a cut lock still has is whole: no file and no digest is missing."""
    text = lock_text(WHOLE)
    refused = 0
    for at in (tried := some(range(len(text)), 4)):
        for odd in ("", *'\0"[9\n='):
            try:
                lock = parse_lock(text[:at] + odd + text[at + 1 :] if odd else text[:at])
            except StateError:
                refused += 1
                continue
            assert odd or all(lock.models[name] == WHOLE.models[name] for name in lock.models), text[:at][-80:]
    assert refused > 3.5 * len(tried)


def test_a_newer_lock_asks_for_a_newer_mdl() -> None:
    """A lock of a newer format is a StateError that says so, whatever else it holds."""
    with pytest.raises(StateError, match="version 3") as caught:
        parse_lock("version = 3\nmodel = 7\n")
    assert "newer mdl" in str(caught.value.hint)


HEAD = 'version = 2\n[[model]]\nname = "m"\n'
ENTRY = 'entry = "e"\n'
FILES = f'{HEAD}{ENTRY}source = "https://h"\nfiles = '
BROKEN = ["", "version = 0", "version = '2'", "[version]", "<<<<<<<"]
BROKEN += ["version = 2\nversion = 2"]
BROKEN += [f"version = 2\n{text}" for text in ("model = 5", "model = [5]", "[[model]]")]
BROKEN += [f"version = 2\n[[model]]\n{text}" for text in ("name = 'm'", "entry = 'e'", "files = []")]
BROKEN += [f"version = 2\n[[model]]\nname = {name}\n{ENTRY}files = []" for name in ("5", "'../x'", "''")]
BROKEN += [
    HEAD + text
    for text in (
        "files = []",
        ENTRY,
        f"{ENTRY}files = 1",
        "entry = 1\nfiles = []",
        f"{ENTRY}files = []\nsource = 1",
        *(f"{ENTRY}files = []\nleft_out = {text}" for text in ("1", "[1]", '[{ path = "a", size = -1 }]')),
        f'{ENTRY}files = [{{ path = "a" }}]',
    )
]
BROKEN += [f"{FILES}[{text}]" for text in ("1", "{}", "{ path = 1 }", '{ path = "../x" }', '{ path = "" }')]
BROKEN += [
    f'{FILES}[{{ path = "a", {text} }}]'
    for text in (
        *("size = -1", "size = '5'", "size = true", "size = 1.5", "size = 1e999"),
        *("mirrors = 5", 'mirrors = ["b"]', "role = 1", 'source = "b"', "source = 5"),
        *("sha256 = 5", "sha256 = 'ab'", f"sha256 = '{SHA.hex.upper()}'"),
        f"sha256 = '{SHA.hex}', git-sha1 = '{GIT.hex}'",
    )
]
DOUBTFUL = {
    FILES + "[{ path = 'a', mirrors = 'https://h/x' }]": "a text is read as one mirror a letter",
    FILES + "[{ path = 'a', mirrors = [5] }]": "numbers become texts",
    FILES + "[{ path = 'a', tofu = 'yes' }]": "read as false",
    FILES + "[{ path = 'a', bundled = 1 }]": "read as true",
    "version = true": "True == 1",
    f"{HEAD}{ENTRY}files = []\n[[model]]\nname = 'm'\n{ENTRY}files = []": "of two blocks of one model the last wins",
    "version = 2\nx = " + "9" * 5000: "a plain ValueError of tomllib: exit 1",
    "version = 2\nx = " + "[" * 100_000: "RecursionError: exit 1",
}


@each("text", [*BROKEN, *DOUBTFUL])
def test_what_is_no_lock_is_a_state_error(text: str) -> None:
    """A missing or twice-written part, a wrong type, a hostile name or a merge's leftover is a StateError (12)."""
    with pytest.raises(StateError):
        parse_lock(text)


def test_a_broken_lock_names_its_file(tmp_path: Path) -> None:
    """Where there is no lock there is None; bytes that are no text are a StateError that names the file."""
    path = tmp_path / "mdl.lock"
    assert read_lock(path, path) is None
    write_lock(path, WHOLE)
    assert read_lock(path, path) == WHOLE
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(StateError) as caught:
        read_lock(path, path)
    assert caught.value.item == str(path)


NAMED = CatalogFile(RelPath("x"), "https://h/x", ("https://i/x",), 5, SHA)
MODEL_M = Model("m", sources=(HubOrigin("org/repo"),), include=("*.bin",), files=(NAMED,))
ORIGINS = [HubOrigin("org/repo", revision="main"), HubOrigin("org/repo", "dataset"), HubOrigin("org/other")]
ORIGINS += [HubOrigin("org/repo", subpath="a")]
OTHERS: list[dict[str, Any]] = [{"url": "https://h/y"}, {"size": 6}, {"digest": OTHER}]
OTHERS += [{"digest": None}, {"mirrors": ()}, {"path": RelPath("y")}]
CHANGES: list[dict[str, Any]] = [{"sources": (origin,)} for origin in ORIGINS]
CHANGES += [{"files": (replace(NAMED, **other),)} for other in OTHERS]
CHANGES += [{"files": ()}, {"files": (NAMED, replace(NAMED, path=RelPath("y")))}, {"sources": ()}]
CHANGES += [{"include": ()}, {"include": (), "exclude": ("*.bin",)}, {"sources": (*MODEL_M.sources, ORIGINS[2])}]


@each("change", CHANGES)
def test_another_entry_needs_another_lock(change: dict[str, Any]) -> None:
    """Whatever decides which files an entry means changes its mark, and the lock no longer covers it."""
    changed = replace(MODEL_M, **change)
    assert entry_of(changed) != entry_of(MODEL_M)
    lock = of(file(), entry=entry_of(MODEL_M))
    assert (lock.covers(MODEL_M), lock.covers(changed), lock.covers(replace(MODEL_M, name="n"))) == (True, False, False)


def test_words_about_a_model_are_not_locked() -> None:
    """Title, tags, licence, notes and where the entry stands change nothing of what is locked."""
    told = replace(MODEL_M, title="T", kind="k", license="mit", tags=("a",), note="n", homepage="h", origin="c:9")
    assert entry_of(told) == entry_of(MODEL_M)


def test_pin_leaves_nothing_to_resolve() -> None:
    """A pinned model has its locked files and nothing else; uncovered it is 8, but for a changed entry with stale."""
    lock = of(file(), file("b", "https://h/b", digest=None, mirrors=("https://i/b",), role="config"), entry="old")
    with pytest.raises(LockError, match="has changed"):
        lock.pin(MODEL_M)
    with pytest.raises(LockError, match="not in the lock"):
        lock.pin(Model("n"), stale=True)
    pinned = lock.pin(replace(MODEL_M, title="T"), stale=True)
    assert (pinned.title, pinned.sources, pinned.include, pinned.exclude) == ("T", (), (), ())
    assert pinned.files == (
        CatalogFile(RelPath("a.bin"), f"hf:org/repo@{COMMIT}/a.bin", (), 10, SHA, vouched_by="lock"),
        CatalogFile(RelPath("b"), "https://h/b", ("https://i/b",), 10, None, role="config", vouched_by="lock"),
    )
    assert lock.urls(["m", "none"]) == [f"hf:org/repo@{COMMIT}/a.bin", "https://h/b", "https://i/b"]


AFTER = file(source=f"hf:org/repo@{LATER}/a.bin", digest=GIT)


@each(
    ("before", "after", "lines"),
    [
        (of(file()), of(file()), []),
        (Lock(), of(file(digest=GIT)), [f"locked m at {COMMIT[:7]}, 1 file, 10 B"]),
        (of(file()), Lock(), ["took m out of the lock: it is not in the catalog any more"]),
        (of(file(bundled=True)), of(file()), ["m: its source says what only a bundle said"]),
        (of(file()), of(file(), entry="f"), ["m: its entry has changed"]),
        (of(file()), of(file("b")), ["m: a.bin was removed", "m: b is new"]),
        (of(file()), of(file(digest=OTHER)), ["m: a.bin has other bytes"]),
        (of(file()), of(AFTER), [f"m: moved from {COMMIT} to {LATER}", "m: a.bin has other bytes"]),
        (of(file(source="https://h/a")), of(file(source="https://i/a")), ["m: its files come from elsewhere"]),
    ],
)
def test_differences_say_what_moved(before: Lock, after: Lock, lines: list[str]) -> None:
    """What another lock says differently is told a line each, by name; nothing where nothing differs."""
    assert words_of_changes(before, after) == lines


@given(PATHS, st.sampled_from(["model", "dataset", "space"]), st.sampled_from(["org/repo", "gpt2", "O.r_g/d-1"]))
def test_a_hub_file_is_found_again(path: RelPath, repo_type: str, repo: str) -> None:
    """A locked hub file reads back as its repository, commit and path, and is asked for at the very same URL."""
    endpoint, origin = Endpoint(), HubOrigin(repo, repo_type, COMMIT, path.text)
    url = origin.file_url(endpoint.url, COMMIT, path.text)
    remote = RemoteFile(path, url, 10, GIT, COMMIT, hub=HubFile(repo, repo_type, COMMIT, path.text, endpoint=DEFAULT))
    locked = LockedFile.of(remote)
    assert parse_reference(locked.source) == origin
    pinned = stated(of(locked).pin(Model("m"), stale=True).files[0], endpoint)
    assert (pinned.url, pinned.commit, pinned.hub, pinned.digest) == (url, COMMIT, remote.hub, GIT)


def test_the_commit_of_a_hub_file_is_known() -> None:
    """The commit is told from the source, whatever is in the path; a URL has none."""
    sources = [f"https://h/x@{COMMIT}/y", *(f"hf:org/repo@{COMMIT}/{path}" for path in ("a b/c%20d", "logo@2x.png"))]
    assert [file(source=source).revision for source in sources] == ["", COMMIT, COMMIT]


def test_mirrors_and_endpoint() -> None:
    """A hub file's mirrors are locked with it; the HF_ENDPOINT in use is not, also if a mirror is a file of the hub."""
    for url, mirror in (("hf:org/repo@main/a.bin", "https://i/a.bin"), ("https://h/a.bin", "hf:org/repo@main/a.bin")):
        named = CatalogFile(RelPath("a.bin"), url, (mirror,), 10, SHA)
        endpoints = (Endpoint(at) for at in ("https://one", "https://two"))
        here, there = (LockedFile.of(stated(named, endpoint), mirrors=named.mirrors) for endpoint in endpoints)
        assert here == there
        assert here.mirrors == named.mirrors


def stated(file: CatalogFile, endpoint: Endpoint) -> RemoteFile:
    """The file as the catalog has it."""
    return Resolver(SourceContext(endpoint, Path("unused"))).stated(file)


def test_a_hub_file_with_a_hash_is_locked_at_its_commit(tmp_path: Path) -> None:
    """A file that the catalog names on a branch is locked at the commit and with its size, its hash given or not."""
    listings, origin = Listings(tmp_path), HubOrigin("org/repo", revision="main")
    listings.put(Endpoint().url, origin, Listing(COMMIT, (Entry(RelPath("a.bin"), 10, SHA),)))
    named = CatalogFile(RelPath("a.bin"), "hf:org/repo@main/a.bin", digest=SHA)
    [found] = Resolver(SourceContext(Endpoint(), tmp_path), exact=True).resolve(Model("m", files=(named,))).files
    assert (LockedFile.of(found).revision, found.size) == (COMMIT, 10)
