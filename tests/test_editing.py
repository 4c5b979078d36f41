"""add and remove: the catalog edited, and every other line left as it is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shell import Shell

from mdl.catalog.edit import EMPTY, with_model, without_model
from mdl.catalog.read import parse_catalog
from mdl.errors import CatalogError, NotFound, UsageError

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
    """Removing what was added leaves the catalog as it was, but for empty lines at its end."""
    try:
        text = with_model(TEXT, HERE, name, {"title": title, "source": "hf:n/n"})
    except (CatalogError, UsageError):
        return
    assert without_model(text, HERE, name).rstrip() == TEXT.rstrip()


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


@pytest.mark.parametrize(
    ("name", "kind"), [("nightly", UsageError), ("nobody", NotFound)], ids=["a group", "not there"]
)
def test_what_cannot_be_removed(name: str, kind: type[Exception]) -> None:
    """A group and an unknown name are refused, each as what it is."""
    with pytest.raises(kind):
        without_model(TEXT, HERE, name)


@pytest.mark.parametrize("name", ["a", "../x", "", "nightly"])
def test_what_cannot_be_added(name: str) -> None:
    """A name that is taken or not safe is refused, and nothing is written."""
    with pytest.raises((UsageError, CatalogError)):
        with_model(TEXT, HERE, name, {"source": "hf:n/n"})


def test_a_catalog_of_ones_own(tmp_path: Path) -> None:
    """add begins a catalog where --catalog names a new file; list shows it; remove takes it out again."""
    shell = Shell(tmp_path)
    book = tmp_path / "mine.toml"
    words = ("add", "bert", "hf:org/bert", "--kind", "model", "--tag", "nlp", "--include", "*.json")
    ran = shell.run(*words, "--catalog", str(book))
    assert (ran.code, ran.out) == (0, f"{book}\n"), ran.err
    assert book.read_text().startswith(EMPTY)
    listed = shell.run("list", "--catalog", str(book), "--json").document["models"]
    assert [(one["name"], one["tags"], one["source"]) for one in listed] == [("bert", ["nlp"], "hf:org/bert")]
    assert shell.run("remove", "bert", "--catalog", str(book)).code == 0
    assert book.read_text().rstrip() == EMPTY.rstrip()
