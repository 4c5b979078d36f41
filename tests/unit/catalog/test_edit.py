"""add and remove: the catalog edited, and every other line left as it is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shell import Inside, Shell, done, ended, started

from mdl.catalog.reader import parse_catalog
from mdl.config.places import SHIPPED, find_catalogs
from mdl.disk.mutex import folder_lock
from mdl.errors import Busy, CatalogError, NotFound, StorageError, UsageError
from mdl.ops.edit_catalog import EMPTY, with_model, without_model

HERE = Path("catalog.toml")
TEXT = """\
# mine
schema = 1

# first
[models.a] # why
source = "hf:x/y" # yes
include = [
  "a.bin", # one
  "b.bin"]
[[models.a.files]]
path = "c.bin"
url = "https://host/c.bin"

# other
[models.other]
source = "hf:o/o"
see = ["a", "third"]
[models.third]
source = "hf:t/t"
# groups
[groups]
# every night
nightly = ["a", "other"] # at three
"""


def test_what_is_added_is_at_the_end() -> None:
    """The old text is the head of the new one, byte for byte, and the new entry says what was asked."""
    text = with_model(TEXT, HERE, "b.c", {"title": 'a "b"', "tags": ["x"], "source": "hf:n/n", "license": ""})
    assert text.startswith(TEXT.rstrip())
    assert tomllib.loads(text)["models"]["b.c"] == {"title": 'a "b"', "tags": ["x"], "source": "hf:n/n"}


NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}[a-z0-9]", fullmatch=True).filter(lambda name: ".." not in name)


@given(NAMES, st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=30))
def test_added_and_removed_is_as_before(name: str, title: str) -> None:
    """Removing what was added leaves the catalog as it was, to the last byte."""
    try:
        text = with_model(TEXT, HERE, name, {"title": title, "source": "hf:n/n"})
    except (CatalogError, UsageError):
        return
    assert without_model(text, HERE, name) == TEXT


def test_removed_is_gone_everywhere_and_comments_stay() -> None:
    """The model leaves groups and see; every comment on a line of its own stays, and the rest is untouched."""
    text = without_model(TEXT, HERE, "a")
    catalog = parse_catalog(text, HERE)
    assert list(catalog.models) == ["other", "third"]
    assert (catalog.groups["nightly"], catalog.models["other"].see) == (("other",), ("third",))
    for comment in ("# mine", "# first", "# other", "# groups", "# every night", "# at three"):
        assert comment in text
    assert 'source = "hf:o/o"\n' in text
    assert "c.bin" not in text


def test_what_cannot_be_removed_or_added() -> None:
    """A group and an unknown name cannot be removed, nor can a name that is taken or not safe be added."""
    for name, kind in (("nightly", UsageError), ("nobody", NotFound)):
        with pytest.raises(kind):
            without_model(TEXT, HERE, name)
    for name in ("a", "../x", "", "nightly"):
        with pytest.raises((UsageError, CatalogError)):
            with_model(TEXT, HERE, name, {"source": "hf:n/n"})


def test_a_catalog_of_ones_own(tmp_path: Path, mdl: Inside) -> None:
    """If --catalog names a new file, add begins a catalog there; list shows the model; remove takes it out again."""
    shell, book = Shell(tmp_path), tmp_path / "mine.toml"
    catalog = ("--catalog", str(book))
    ran = mdl(shell, "add", "bert", "hf:org/bert", "--kind", "model", "--tag", "nlp", "--include", "*.json", *catalog)
    assert (ran.code, ran.out) == (0, f"{book}\n"), ran.err
    assert book.read_text().startswith(EMPTY)
    listed = mdl(shell, "list", "--json", *catalog).document["models"]
    assert [(one["name"], one["tags"], one["source"]) for one in listed] == [("bert", ["nlp"], "hf:org/bert")]
    assert mdl(shell, "remove", "bert", *catalog).code == 0
    assert book.read_text().rstrip() == EMPTY.rstrip()


@pytest.mark.fault(258)
def test_twelve_at_once(tmp_path: Path) -> None:
    """Twelve commands that add a model each to one new catalog all end with 0, and all models are in it."""
    shell, book = Shell(tmp_path), tmp_path / "deep" / "mine.toml"
    names = [f"model{number}" for number in range(12)]
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(started(shell, "add", name, f"hf:org/{name}", "--catalog", str(book))) for name in names
        ]
        for process in running:
            ended(process, 0)
    assert sorted(parse_catalog(book.read_text(), book).models) == sorted(names)
    assert os.listdir(book.parent) == [book.name]


@pytest.mark.fault(258)
@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks here"])
def test_what_an_editor_saves_meanwhile(
    tmp_path: Path, mdl: Inside, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """What another program writes between the reading and the renaming stays; the new model is added to that."""
    book = tmp_path / "mine.toml"
    book.write_text(TEXT)
    really = with_model

    def slow(text: str, *rest: Any, **more: Any) -> str:
        if text == TEXT:
            book.write_text(f"{TEXT}# saved meanwhile\n")
        return really(text, *rest, **more)

    def refused(*_: object) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr("mdl.ops.edit_catalog.with_model", slow)
    if not locks:
        monkeypatch.setattr(fcntl, "flock", refused)
    done(mdl(Shell(tmp_path), "add", "bert", "hf:org/bert", "--catalog", str(book)))
    assert "# saved meanwhile" in book.read_text()
    assert "bert" in parse_catalog(book.read_text(), book).models


@pytest.mark.fault(258)
def test_an_edit_that_never_ends(tmp_path: Path) -> None:
    """If another program holds the folder's lock for too long, the edit ends with 9."""
    with folder_lock(tmp_path), pytest.raises(Busy) as caught, folder_lock(tmp_path, 0.05):
        pass
    assert caught.value.item == str(tmp_path)


@pytest.mark.fault(261)
@pytest.mark.parametrize(
    "text",
    [
        'schema = 1\nmodels = { a = { source = "hf:x/y" }, b = { source = "hf:x/z" } } # mine\n',
        'schema = 1\nmodels.a.source = "hf:x/y"\nmodels.b.source = "hf:x/z"\nmodels.b.kind = "lora"\n',
        'schema = 1\n[models]\na = { source = "hf:x/y" }\nb = { source = "hf:x/z" }\n',
        'schema = 1\n[models]\na.source = "hf:x/y"\nb.source = "hf:x/z"\n[groups]\nall = ["a", "b"]\n',
        'schema = 1\nmodels = { b = { source = "hf:x/z" }, a = { source = "hf:x/y" } }\n[groups]\nall = ["a", "b"]\n',
    ],
)
def test_removed_however_it_is_written(text: str) -> None:
    """A model in a table of one line, or made of dotted keys, is really taken out, and the others stay."""
    assert sorted(parse_catalog(text, HERE).models) == ["a", "b"]
    left = without_model(text, HERE, "b")
    assert list(parse_catalog(left, HERE).models) == ["a"]
    assert ("# mine" in left) == ("# mine" in text)
    assert all("b" not in members for members in parse_catalog(left, HERE).groups.values())


@pytest.mark.fault(262)
@pytest.mark.parametrize("trouble", [errno.EIO, errno.EACCES])
def test_a_catalog_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: int) -> None:
    """An error on ./catalog.toml is told, and no other catalog is used in its place."""
    really = os.lstat

    def failing(path: Any, **more: Any) -> os.stat_result:
        if str(path) == str(tmp_path / "catalog.toml"):
            raise OSError(trouble, os.strerror(trouble), str(path))
        return really(path, **more)

    monkeypatch.setattr(os, "lstat", failing)
    with pytest.raises(StorageError) as caught:
        find_catalogs((), {}, tmp_path, tmp_path / "config")
    assert caught.value.item == str(tmp_path / "catalog.toml")
    deeper = tmp_path / "deeper"
    if trouble == errno.EACCES:
        assert find_catalogs((), {}, deeper, tmp_path / "config")[0] == (SHIPPED,)
    else:
        with pytest.raises(StorageError):
            find_catalogs((), {}, deeper, tmp_path / "config")
