"""The catalog: what it may say, how its mistakes are told, where it is found, and the one that is shipped."""

from __future__ import annotations

import cProfile
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import each
from support.catalogs import CATALOG_FILE, mistakes, parse

from mdl.catalog.model import CatalogFile
from mdl.catalog.reader import parse_catalog, place_of, read_catalog
from mdl.config.places import SHIPPED, find_catalogs
from mdl.errors import CatalogError, MdlError
from mdl.hashing import Digest
from mdl.paths import RelPath, is_harmful_in_prose
from mdl.sources import HUB_HOSTS
from mdl.sources.hub_origin import HubOrigin, parse_page

SHA = "df1c5baa86d1398c979495a6072dbcee79444fdb884a2445582ba0769c44e9a1"


def mistake(text: str) -> str:
    """The one mistake of a text, without the file's name."""
    [line] = mistakes(text)
    return line.removeprefix("catalog.toml:")


# What a catalog may say.


def test_entry_of_the_contract_is_read() -> None:
    """Every key of a hub entry arrives in the model, the revision in its source."""
    [model] = parse("""
[models."bert-fa"]
title = "BERT base, Persian (uncased)"
kind = "tts"
license = "apache-2.0"
tags = ["persian", "nlp"]
source = "hf:HooshvareLab/bert-fa-base-uncased"
include = ["config.json", "vocab.txt"]
exclude = ["*.h5"]
revision = "a04aa40c97bcdde570ae11986a534542c2995a62"
note = "می\u200cخواهم"
homepage = "https://example.org/x"
x-mine = { anything = [1, true] }
""").models.values()
    assert (model.name, model.kind, model.license, model.tags) == ("bert-fa", "tts", "apache-2.0", ("persian", "nlp"))
    assert model.title == "BERT base, Persian (uncased)"
    revision = "a04aa40c97bcdde570ae11986a534542c2995a62"
    assert model.sources == (HubOrigin("HooshvareLab/bert-fa-base-uncased", revision=revision),)
    assert (model.include, model.exclude) == (("config.json", "vocab.txt"), ("*.h5",))
    assert (model.note, model.homepage) == ("می\u200cخواهم", "https://example.org/x")
    assert model.origin == "catalog.toml"


def test_file_of_the_contract_is_read() -> None:
    """Every key of a file arrives; a path is taken from the URL where none is given."""
    [model] = parse(f"""
[[models.z.files]]
id = "main"
path = "diffusion_models/z.gguf"
role = "weights"
url = "https://example.org/z.gguf"
mirrors = ["https://mirror.example/z.gguf", "hf:org/repo@main/z.gguf"]
size = 0
sha256 = "{SHA}"
[[models.z.files]]
url = "https://example.org/dir/a%20b.bin?x=1"
[[models.z.files]]
url = "hf:org/repo@main/dir/m.gguf"
""").models.values()
    main, named, hub = model.files
    assert main == CatalogFile(
        RelPath("diffusion_models/z.gguf"),
        "https://example.org/z.gguf",
        ("https://mirror.example/z.gguf", "hf:org/repo@main/z.gguf"),
        0,
        Digest("sha256", SHA),
        "main",
        "weights",
    )
    assert named == CatalogFile(RelPath("a b.bin"), "https://example.org/dir/a%20b.bin?x=1")
    assert (hub.path.text, hub.url) == ("m.gguf", "hf:org/repo@main/dir/m.gguf")
    assert model.source_text == "example.org, mirror.example, hf:org/repo@main/z.gguf, hf:org/repo@main/dir/m.gguf"


def test_sources_may_be_many_and_mixed() -> None:
    """A list of sources gives repositories, hub pages and direct files, beside files named one by one."""
    [model] = parse("""
[models.a]
source = [
    "hf:org/repo@v1", "hf:datasets/d", "https://huggingface.co/o/r/tree/main/sub",
    "https://example.org/x/w.bin", "https://huggingface.co/o/r/resolve/main/tree/v.bin",
]
[[models.a.files]]
url = "https://example.org/y/f.bin"
""").models.values()
    assert list(map(str, model.sources)) == ["hf:org/repo@v1", "hf:datasets/d", "hf:o/r@main/sub"]
    assert [file.path.text for file in model.files] == ["w.bin", "v.bin", "f.bin"]


@pytest.mark.parametrize("source", ["hf:o/r", "hf:o/r@refs/pr/1"])
def test_revision_may_repeat_what_the_source_says(source: str) -> None:
    """A revision goes into the single hub source, and may say the same as the source."""
    [model] = parse(f'[models.a]\nsource = "{source}"\nrevision = "refs/pr/1"').models.values()
    assert model.sources == (HubOrigin("o/r", revision="refs/pr/1"),)


@pytest.mark.fault(164)
def test_small_entries() -> None:
    """A gone entry needs no source; prose may be empty; markup in a name is text; x- keys are the user's everywhere,
    but names may begin so; a group is a list of models."""
    catalog = parse("""
x-top = 1
[models.a]
gone = "taken down"
see = ["x-vector"]
[models.x-vector]
source = "hf:o/r"
title = ""
license = " "
note = ""
homepage = ""
[models."x [red] [b]"]
source = "hf:o/r"
[groups]
nightly = ["x-vector"]
none = []
""")
    assert list(catalog.models) == ["a", "x-vector", "x [red] [b]"]
    assert (catalog.models["a"].gone, catalog.models["a"].see) == ("taken down", ("x-vector",))
    [model] = catalog.find("nightly")
    assert (model.name, model.title, model.license, model.note, model.homepage) == ("x-vector", "", "", "", "")
    assert catalog.groups == {"nightly": ("x-vector",), "none": ()}


# How its mistakes are told.


@pytest.mark.fault(160)
def test_one_mistake_is_one_line() -> None:
    """A misspelt key is told with file, line, key and what was meant, and nothing beside it."""
    assert mistakes('\n[models."bert-fa"]\nsorce = "hf:o/r"') == [
        'catalog.toml:4: models."bert-fa".sorce: unknown key; did you mean source?'
    ]


@pytest.mark.fault(160, 167)
def test_every_mistake_is_told_at_once_in_order() -> None:
    """All mistakes of a file come in one error, by line."""
    found = mistakes("""
shema = 1
[models.a]
title = 3
licence = "mit"
tags = "x"
[[models.a.files]]
path = "../x"
sha256 = "abc"
size = "1"
role = "wieghts"
mirrors = ["https://u:hunter2@h/x"]
[groups]
g = ["b"]
""")
    assert [line.split(": ")[0] for line in found] == [
        f"catalog.toml:{n}" for n in (3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15)
    ]
    assert "hunter2" not in "".join(found)


@pytest.mark.fault(160)
@each(
    ("text", "expected"),
    [
        ("modles = 1", "2: modles: unknown key; did you mean models?"),
        ("zzz = 1", "2: zzz: unknown key"),
        ("models = 1", "2: models: must be a table, not a number"),
        ("[[models]]", "2: models: must be a table, not a list"),
        ("[models]\na = 1", "3: models.a: must be a table, not a number"),
        ("groups = []", "2: groups: must be a table, not a list"),
        ('[groups]\ng = "a"', "3: groups.g: must be a list of texts, not text"),
        ("[models.a]", "2: models.a: has no source"),
        ("[models.a]\nsource = []", "2: models.a: has no source"),
        ('[models.a]\ngone = ""', "3: models.a.gone: is empty"),
        ("[models.a]\nsource = true", "3: models.a.source: must be a list of texts, not true or false"),
        ('[models.a]\nsource = ["hf:o/r", 1979-05-27]', "3: models.a.source[1]: must be text, not a date or time"),
        ('[models.a]\nsource = "org/repo"', "3: models.a.source: not a reference to a source"),
        ('[models.a]\nsource = "s3://b?k"', "3: models.a.source: not a bucket"),
        ('[models.a]\nsource = "hf:o/r/../x"', "3: models.a.source: path refused: a segment '..'"),
        ('[models.a]\nsource = "https://h/"', "3: models.a.source: the URL ends in no file name"),
        ('[models.a]\nsource = "https://huggingface.co/o/r/raw/main/x"', "3: models.a.source: /raw/ serves a pointer"),
        ('[models.a]\nsource = "hf:o/r"\nfiles = 1', "4: models.a.files: must be a list of tables"),
        ('[models.a]\nsource = "hf:o/r"\nfiles = [1]', "4: models.a.files[0]: must be a table, not a number"),
        ('[models.a]\nsource = "hf:o/r"\nhomepage = "file:///x"', "4: models.a.homepage: not a usable URL"),
        ('[models.a]\nsource = "hf:o/r"\nsee = ["aa"]', "4: models.a.see: no model is called aa; did you mean a?"),
        ('[models.a]\nsource = "hf:o/r"\nrevision = "a b"', "4: models.a.revision: not a revision"),
        ('[models.a]\nsource = "hf:o/r@x"\nrevision = "y"', "4: models.a.revision: is y, but the source says x"),
        (
            '[models.a]\nsource = ["hf:o/r", "hf:o/s"]\nrevision = "y"',
            "4: models.a.revision: belongs to one hub source",
        ),
        ('[models.a]\nsource = "https://h/x"\nrevision = "y"', "4: models.a.revision: belongs to one hub source"),
        ('[models.a]\nsource = "hf:o/r"\ninclude = [""]', "4: models.a.include[0]: is empty"),
    ],
)
def test_mistake_in_an_entry(text: str, expected: str) -> None:
    """Each mistake in an entry is told once, at its line, in words."""
    assert mistake(text).startswith(expected)


@pytest.mark.fault(160, 161)
@each(
    ("text", "expected"),
    [
        ('path = "x"', "2: models.a.files[0].url: missing"),
        ('ulr = "https://h/x"', "3: models.a.files[0].ulr: unknown key; did you mean url?"),
        ('url = "https://h"', "2: models.a.files[0].path: the URL ends in no file name"),
        ('url = "https://127.1/x"', "3: models.a.files[0].url: not a usable URL: an odd spelling"),
        ('url = "hf:o/r@main"', "3: models.a.files[0].url: names a repository, not a file"),
        ('url = "https://huggingface.co/o/r/blob/main/x"', "3: models.a.files[0].url: is a page to look at"),
        ('url = "https://h/x"\npath = ""', "4: models.a.files[0].path: is empty"),
        ('url = "https://h/x"\npath = "/x"', "4: models.a.files[0].path: path refused: an absolute path"),
        ('url = "https://h/x"\npath = ".mdl/x"', "4: models.a.files[0].path: path refused: a path inside .mdl"),
        ('url = "https://h/x"\nsize = -1', "4: models.a.files[0].size: is not a possible number"),
        ('url = "https://h/x"\nsize = true', "4: models.a.files[0].size: must be a whole number of bytes, not true"),
        ('url = "https://h/x"\nsize = 1.0', "4: models.a.files[0].size: must be a whole number of bytes"),
        (f'url = "https://h/x"\nsha256 = "{SHA.upper()}"', "4: models.a.files[0].sha256: not a sha256"),
        (f'url = "https://h/x"\nsha256 = "{SHA[1:]}"', "4: models.a.files[0].sha256: not a sha256"),
        ('url = "https://h/x"\nrole = "vocabulary"', "4: models.a.files[0].role: must be one of"),
        ('url = "https://h/x"\nmirrors = ["ftp://h/x"]', "4: models.a.files[0].mirrors[0]: not a usable URL"),
    ],
)
def test_mistake_in_a_file(text: str, expected: str) -> None:
    """Each mistake in a file's table is told once, with the file's index."""
    assert mistake("[[models.a.files]]\n" + text).startswith(expected)


@pytest.mark.fault(115, 160)
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ('path = "VAE/x"', 'path = "vae/X"', "two files would be one: VAE/x and vae/X"),
        ('path = "é"', 'path = "e\u0301"', "two files would be one"),
        ('path = "a"', 'path = "a/b"', "a is a file and the folder of a/b"),
        ("", "", "two files would be one: f and f"),
        ('path = "a"\nid = "Main"', 'path = "b"\nid = "main"', "two files have the id main"),
    ],
)
def test_twin_files_of_a_model(first: str, second: str, expected: str) -> None:
    """Two files of one model that would be one on some file system, or share an id, are a mistake."""
    url = '[[models.a.files]]\nurl = "https://h/f"\n'
    assert f": models.a.files: {expected}" in mistake(f"{url}{first}\n{url}{second}")


@pytest.mark.fault(161, 162)
@each("name", ["", ".", "..", "-rf", "a/b", "/a", "~", "_a", "مدل", "a.", "CON", "hf:a", "https:", "a\\u0000"])
def test_name_that_is_no_folder(name: str) -> None:
    """A model's or group's name that cannot be a folder, a command's argument or a name at all is a mistake."""
    assert "name" in mistake(f'[models."{name}"]\nsource = "hf:o/r"')
    assert "name" in mistake(f'[groups]\n"{name}" = []')


@pytest.mark.fault(160)
@pytest.mark.parametrize("other", ["A", "a"])
def test_names_that_differ_by_case_or_kind(other: str) -> None:
    """A group may not bear a model's name, nor one that differs by case."""
    text = mistake(f'[models.a]\nsource = "hf:o/r"\n[groups]\n{other} = []')
    assert text.startswith(f"5: groups.{other}: ")
    assert text.endswith("catalog.toml:2")


def test_group_members_must_be_models() -> None:
    """A group names each of its models once, and no other group."""
    found = mistakes('[models.bert]\nsource = "hf:o/r"\n[groups]\ng = ["bert", "bert"]\nh = ["g"]\ni = ["bret"]')
    assert [line.split(": ", 2)[2] for line in found] == [
        "names bert twice",
        "g is a group; name its models",
        "no model is called bret; did you mean bert?",
    ]


@pytest.mark.fault(163)
@each("key", ["title", "license", "note", "gone", "kind"])
@each("char", ["\\u001b", "\\u202e", "\\u200b", "\\n", "\\u0085"])
def test_control_characters_are_mistakes(key: str, char: str) -> None:
    """A character that a terminal would obey is refused, and shown escaped."""
    text = mistake(f'[models.a]\nsource = "hf:o/r"\n{key} = "a{char}b"')
    assert text.startswith(f"4: models.a.{key}: holds a control or invisible character (\\")
    assert text.isprintable()


@pytest.mark.fault(163)
@given(st.text(max_size=30))
def test_whatever_a_key_is_its_mistake_is_safe_to_print(key: str) -> None:
    """A hostile key neither breaks the reader nor reaches the terminal."""
    escaped = "".join(f"\\U{ord(char):08x}" for char in key if not 0xD800 <= ord(char) < 0xE000)
    for line in mistakes(f'[models."{escaped}"]\nx-a = 1\n"{escaped}" = 1'):
        assert not any(map(is_harmful_in_prose, line))


# The file itself.


@pytest.mark.fault(159, 165)
@each(
    ("text", "expected"),
    [
        ("", "catalog.toml:1: schema: missing; write schema = 1 as the first line"),
        ("shcema = 1", "catalog.toml:1: shcema: unknown key; did you mean schema?"),
        ("schema = true", "catalog.toml:1: schema: must be 1"),
        ("schema = 1.0", "catalog.toml:1: schema: must be 1"),
        ("schema = 0", "catalog.toml:1: schema: must be 1"),
        ("\nschema = 2\nnew = 1", "catalog.toml:2: schema: 2 is newer than this mdl, which reads 1; upgrade mdl"),
        ("schema = 1\na = \n", "catalog.toml:2: not TOML: Invalid value (column 5)"),
        ("schema = 1\n[models.a]\n[models.a]", "catalog.toml:3: not TOML: Cannot declare"),
        ('schema = 1\nx-a = """', "catalog.toml:2: not TOML: "),
        ('schema = 1\nx-a = "\x1b"', "catalog.toml:2: not TOML: Illegal character '\\x1b'"),
        ("x-a = " + "[" * 10_000, "catalog.toml: nested too deeply"),
        ("schema = 1\n" + "a." * 10_000 + "b = 1", "catalog.toml:2: not TOML: a key of over 200 parts"),
        ("schema = 1\n" + "'a '." * 10_000 + "b = 1", "catalog.toml:2: not TOML: a key of over 200 parts"),
        (
            "schema = " + "9" * 10_000,
            "catalog.toml:1: schema: the number 99999999999999999999… (10,000 characters) is too",
        ),
    ],
)
def test_text_that_is_no_catalog(text: str, expected: str) -> None:
    """A text that is no TOML, or no catalog of this version, is one catalog error with its line."""
    with pytest.raises(CatalogError) as caught:
        parse_catalog(text, CATALOG_FILE)
    assert caught.value.message.startswith(expected)
    assert "\n" not in caught.value.message


@pytest.mark.fault(159)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_windows_files_are_read(tmp_path: Path, mark: bytes, newline: bytes) -> None:
    """A byte-order mark and CRLF line ends are no hindrance, and lines are counted right."""
    path = tmp_path / "c.toml"
    path.write_bytes(mark + newline.join([b"schema = 1", b"[models.a]", b'source = "hf:o/r"', b""]))
    assert read_catalog([path]).models["a"].origin == str(path)
    assert place_of("a", path) == f"{path}:2"
    assert place_of("b", path) == ""


@pytest.mark.fault(159, 165)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("schema = 1".encode("utf-16"), "UTF-16"),
        ("schema = 1".encode("utf-16-le"), "NUL byte"),
        (b"schema = 1\n# \xff", "not UTF-8 (line 2)"),
        (b"schema = 1\0", "NUL byte"),
        (64 * 2**20 + 1, "the most that mdl reads here"),
    ],
    ids=str,
)
def test_file_that_is_no_text(tmp_path: Path, data: bytes | int, words: str) -> None:
    """A file of another encoding, or of over 64 MiB, is a catalog error that names the file."""
    path = tmp_path / "c.toml"
    path.write_bytes(data if isinstance(data, bytes) else b"")
    os.truncate(path, data if isinstance(data, int) else len(data))
    with pytest.raises(CatalogError, match=re.escape(f"{path}: ") + ".*" + re.escape(words)):
        read_catalog([path])


@pytest.mark.fault(159)
def test_what_is_no_regular_file(tmp_path: Path) -> None:
    """A folder, a pipe, a device, a missing file and a hidden NUL in a path are told at once, without waiting."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CatalogError) as caught:
        read_catalog([tmp_path, tmp_path / "pipe", Path("/dev/zero"), tmp_path / "none", tmp_path / "a\0b"])
    *lines, nul = caught.value.message.split("\n")[1:]
    assert lines == [
        f"{tmp_path}: a folder, not a file",
        f"{tmp_path}/pipe: not a regular file",
        "/dev/zero: not a regular file",
        f"{tmp_path}/none: no such file",
    ]
    assert nul.startswith(f"{tmp_path}/a\\x00b: ")


def test_several_catalogs_are_one(tmp_path: Path) -> None:
    """Groups and see may name models of another file; the same file twice is one."""
    one, two = tmp_path / "1.toml", tmp_path / "2.toml"
    one.write_text('schema = 1\n[groups]\ng = ["b"]')
    two.write_text('schema = 1\n[models.b]\nsource = "hf:o/r"')
    catalog = read_catalog([one, two, one])
    assert [model.name for model in catalog.find("g")] == ["b"]
    assert catalog.paths == (one, two)


@pytest.mark.fault(160)
def test_name_in_two_catalogs(tmp_path: Path) -> None:
    """A name given by two files is a mistake of the later one that names both places; other mistakes come along."""
    one, two = tmp_path / "1.toml", tmp_path / "2.toml"
    one.write_text('schema = 1\nbad = 1\n[models.a]\nsource = "hf:o/r"')
    two.write_text('schema = 1\n[models.a]\nsource = "hf:o/r"\n[models.A]\nsource = "hf:o/r"')
    with pytest.raises(CatalogError) as caught:
        read_catalog([one, two])
    assert caught.value.message.split("\n") == [
        "3 mistakes in the catalog:",
        f"{one}:2: bad: unknown key",
        f"{two}:2: models.a: the name is taken by {one}:3",
        f"{two}:4: models.A: differs only by case or Unicode form from a at {one}:3",
    ]


@pytest.mark.fault(165)
def test_large_catalog_takes_work_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as many entries, every one with two mistakes, take four times as many calls, not sixteen times; and
    at most half a million names are compared to guess what was meant."""
    compared: list[int] = []
    monkeypatch.setattr("mdl.toml.table.get_close_matches", lambda _, names, *__: compared.append(len(names)) or [])

    def calls(entries: int, name: str) -> int:
        entry = '[models.m{n}]\nsource = "hf:o/r{n}"\ntitel = ""\nsee = ["{name}{n}"]\n'
        profile = cProfile.Profile()
        found = profile.runcall(mistakes, "".join(entry.format(n=n, name=name) for n in range(entries)))
        assert len(found) == 2 * entries
        return sum(entry.callcount for entry in profile.getstats())

    too_long_to_guess = "n" * 100
    assert calls(800, too_long_to_guess) < 5 * calls(200, too_long_to_guess)
    compared.clear()
    assert calls(800, "n")
    assert 0 < sum(compared) <= 500_000 < 800**2


def test_reading_costs_no_heavy_import() -> None:
    """The catalog room loads nothing but the standard library."""
    code = "import sys, mdl.catalog.reader, mdl.config.places; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"httpx", "rich", "typer", "huggingface_hub", "pydantic", "asyncio", "ssl"} & set(loaded)


# Where it is found.


def test_catalog_is_found_in_this_order(tmp_path: Path) -> None:
    """Flag, environment, this folder, one above, the user's, the shipped one; each gives way to the one before."""
    config, work, deep = tmp_path / "config", tmp_path / "work", tmp_path / "work" / "a" / "b"
    for folder in (config, deep):
        folder.mkdir(parents=True)
    environ = {"MDL_CATALOG": f"/x.toml{os.pathsep}{os.pathsep}y.toml"}
    assert find_catalogs([], {}, deep, config) == ((SHIPPED,), "shipped with mdl")
    (config / "catalog.toml").touch()
    assert find_catalogs([], {}, deep, config) == ((config / "catalog.toml",), "in the user's config folder")
    (work / "catalog.toml").touch()
    assert find_catalogs([], {"MDL_CATALOG": ""}, deep, config)[0] == (work / "catalog.toml",)
    (deep / "catalog.toml").symlink_to("gone.toml")
    assert find_catalogs([], {}, deep, config) == ((deep / "catalog.toml",), "in the current folder")
    assert find_catalogs([], environ, deep, config) == ((Path("/x.toml"), Path("y.toml")), "given by MDL_CATALOG")
    assert find_catalogs([Path("z")], environ, deep, config) == ((Path("z"),), "given by --catalog")


@pytest.mark.fault(159)
def test_folder_called_catalog_toml_is_passed_over(tmp_path: Path) -> None:
    """A folder of that name is not taken for the catalog."""
    (tmp_path / "catalog.toml").mkdir()
    assert find_catalogs([], {}, tmp_path, tmp_path)[0] == (SHIPPED,)


# The shipped one.

SHIPPED_CATALOG = read_catalog([SHIPPED])


def test_shipped_catalog_holds_what_is_promised() -> None:
    """Every model and dataset that mdl promises has an entry."""
    repositories = {source.repo for model in SHIPPED_CATALOG.models.values() for source in model.sources}
    assert repositories >= {
        "Kamtera/persian-tts-male-vits",
        "Kamtera/persian-tts-female-vits",
        "HooshvareLab/bert-fa-base-uncased",
        "persiannlp/mt5-small-parsinlu-squad-reading-comprehension",
        "HooshvareLab/pn_summary",
    }
    assert {"parsinlu", "common-voice", "pn-summary", "z-image-turbo"} <= set(SHIPPED_CATALOG.models)
    assert {"persian-tts", "persian-nlp", "datasets"} <= set(SHIPPED_CATALOG.groups)


def test_shipped_catalog_is_pinned() -> None:
    """Files and mirrors on the hub are pinned to a commit and have a sha256; a source that follows a branch says so."""
    models = SHIPPED_CATALOG.models.values()
    files = [file for model in models for file in model.files]
    assert len(files) >= 4
    assert all(file.digest for file in files)
    for url in (url for file in files for url in (file.url, *file.mirrors)):
        page = parse_page(url, HUB_HOSTS)
        assert page is not None
        assert page.subpath
        assert re.fullmatch(r"[0-9a-f]{40}", page.revision or ""), url
    for model in models:
        is_pinned = all(re.fullmatch(r"[0-9a-f]{40}", source.revision or "") for source in model.sources)
        assert is_pinned or "mdl lock" in model.note, model.name


def test_shipped_entries_are_honest() -> None:
    """What is dead points to what lives, and is in no group; non-commercial, gated and pickled things are called so."""
    models = SHIPPED_CATALOG.models
    for model in models.values():
        assert model.title
        assert model.license
        assert not model.gone or (model.see and all(not models[name].gone for name in model.see)), model.name
        assert "-nc-" not in model.license or model.gone or "Non-commercial" in model.note, model.name
        names = [file.path.text for file in model.files] + list(model.include)
        assert not any(name.endswith((".pth", ".bin")) for name in names) or "pickle" in model.note, model.name
    gone = {name for name, model in models.items() if model.gone}
    assert gone == {"parsinlu", "common-voice"}
    assert not gone & {name for members in SHIPPED_CATALOG.groups.values() for name in members}
    assert "gated" in models["z-image-turbo"].note


def test_z_image_turbo_is_one_entry_of_three_repositories() -> None:
    """The three files come from three repositories; the gated one is only a mirror."""
    main, vae, encoder = SHIPPED_CATALOG.models["z-image-turbo"].files
    assert main.url.startswith("https://huggingface.co/leejet/Z-Image-Turbo-GGUF/resolve/c61c0e42")
    assert (main.path.text, main.size) == ("diffusion_models/z_image_turbo-Q8_0.gguf", 6577440704)
    assert (vae.path.text, vae.size) == ("vae/ae.safetensors", 335304388)
    assert "/black-forest-labs/" not in vae.url
    assert "/black-forest-labs/FLUX.1-schnell/resolve/741f7c3c" in vae.mirrors[0]
    assert encoder.url.startswith("https://huggingface.co/unsloth/Qwen3-4B-Instruct-2507-GGUF/resolve/a06e946b")
    assert (encoder.path.text, encoder.size) == ("text_encoders/Qwen3-4B-Instruct-2507-Q8_0.gguf", 4280405600)


def test_repository_catalog_is_the_shipped_one() -> None:
    """The catalog at the head of the repository is a link to the shipped one."""
    link = Path(__file__).parents[3] / "catalog.toml"
    assert os.readlink(link) == "mdl/catalog/shipped.toml"


def test_unknown_name_says_what_is_near() -> None:
    """A look-up is exact, and where nothing matches it names what is near."""
    with pytest.raises(MdlError) as caught:
        SHIPPED_CATALOG.find("bert-af")
    assert caught.value.exit_code == 3
    assert "bert-fa" in (caught.value.hint or "")
