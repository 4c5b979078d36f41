"""A catalog of one's own: begun by init or by add, beside the shipped one, which is never edited."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Shell, done, machine, write_catalog

from mdl.config.places import SHIPPED, SHIPPED_LOCK
from mdl.ops.edit_catalog import BEGINNING

OWN = """\
schema = 1

[models.a]
source = "hf:o/a"

[models.b]
source = "hf:o/b"

# of c
[models.c]
source = "hf:o/c"
see = ["b"]

[groups]
both = ["a", "b"] # two
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A user who has no catalog."""
    (tmp_path / "home").mkdir()
    return Shell(tmp_path / "home")


def own_of(shell: Shell) -> Path:
    return shell.home / ".config" / "mdl" / "catalog.toml"


def extend_shipped(shell: Shell) -> None:
    """Give the user a catalog that extends the shipped one."""
    own_of(shell).parent.mkdir(parents=True)
    own_of(shell).write_text('schema = 1\nextends = ["shipped"]\n')


def names(shell: Shell, mdl: Inside) -> list[str]:
    return [one["name"] for one in done(mdl(shell, "list", "--json")).document["models"]]


def test_add_takes_what_get_takes(shell: Shell, mdl: Inside) -> None:
    """A source may be typed as for `mdl get`; of a wrong one it is said that it is wrong, not that the catalog is."""
    done(mdl(shell, "add", "typed", "org/typed:Q8_0"))
    assert 'source = "hf:org/typed:Q8_0"' in own_of(shell).read_text()
    before = own_of(shell).read_bytes()
    refused = done(mdl(shell, "add", "no", "word"), 2)
    assert "mdl: word: not a reference to a source" in refused.err
    assert "fix the catalog" not in refused.err
    assert own_of(shell).read_bytes() == before


def test_add_begins_a_catalog(shell: Shell, mdl: Inside) -> None:
    """Without a catalog of one's own, add begins one, and says so; a second model goes into the same file, and nothing
    of the shipped ones is in it."""
    before = SHIPPED.read_bytes()
    assert "bert-fa" in names(shell, mdl)
    ran = done(mdl(shell, "add", "whisper", "hf:org/whisper-fa", "--tag", "asr"))
    assert (ran.out, "this catalog is new, and yours" in ran.err) == (f"{own_of(shell)}\n", True)
    assert "just begun" not in done(mdl(shell, "add", "other", "hf:org/other")).err
    assert own_of(shell).read_text().startswith(BEGINNING.rstrip())
    assert (SHIPPED.read_bytes(), names(shell, mdl)) == (before, ["whisper", "other"])
    assert f"catalog:  {own_of(shell)}:" in done(mdl(shell, "show", "whisper")).out
    done(mdl(shell, "show", "bert-fa"), 3)


@pytest.mark.parametrize("link", ["own", "of another clone"])
def test_the_link_of_a_clone_is_not_edited(shell: Shell, mdl: Inside, link: str) -> None:
    """In a clone of mdl, whose catalog.toml is a link to the shipped one, the user's own catalog is used and edited,
    also in a folder below; named, the shipped one is refused."""
    target = SHIPPED
    if link != "own":
        target = shell.home / "mdl" / "catalog" / "shipped.toml"
        target.parent.mkdir(parents=True)
        target.write_bytes(SHIPPED.read_bytes())
    (shell.home / "catalog.toml").symlink_to(target)
    before = target.read_bytes()
    assert done(mdl(shell, "add", "x", "hf:o/x")).out == f"{own_of(shell)}\n"
    assert names(shell, mdl)[0] == "x"
    for words in (("add", "y", "hf:o/y"), ("remove", "bert-fa")):
        assert "is not edited" in done(mdl(shell, *words, "--catalog", "catalog.toml"), 2).err
    assert (target.read_bytes(), SHIPPED_LOCK.parent.joinpath("mdl.lock").exists()) == (before, False)


def test_an_own_entry_wins(shell: Shell, mdl: Inside) -> None:
    """An entry with the name of a shipped one has precedence, and without it the shipped one is there again, also in
    groups; the shipped one itself cannot be removed."""
    extend_shipped(shell)
    ran = done(mdl(shell, "add", "bert-fa", "hf:my/bert", "--group", "mine"))
    assert "source:   hf:my/bert" in done(mdl(shell, "show", "bert-fa")).out
    ran = done(mdl(shell, "remove", "bert-fa"))
    assert "taken out" not in ran.err
    assert "HooshvareLab" in done(mdl(shell, "show", "bert-fa")).out
    assert 'mine = ["bert-fa"]' in own_of(shell).read_text()
    ran = done(mdl(shell, "remove", "bert-fa"), 2)
    assert f"it is in {SHIPPED}, which your catalog extends" in ran.err


def test_groups(shell: Shell, mdl: Inside) -> None:
    """--group puts the model into groups, new ones too; one of the shipped catalog is taken over with its members;
    remove says which groups the model left."""
    extend_shipped(shell)
    done(mdl(shell, "add", "x", "hf:o/x", "--group", "new", "--group", "persian-nlp"))
    text = own_of(shell).read_text()
    assert '\n[groups]\nnew = ["x"]\npersian-nlp = ["bert-fa", ' in text
    done(mdl(shell, "add", "y", "hf:o/y", "--group", "new"))
    assert 'new = ["x", "y"]\n' in own_of(shell).read_text()
    ran = done(mdl(shell, "remove", "x"))
    assert "x was in new, persian-nlp, and was removed from there too" in ran.err
    assert 'new = ["y"]\n' in own_of(shell).read_text()


@pytest.mark.parametrize("name", "abc")
def test_remove_leaves_no_empty_line(tmp_path: Path, mdl: Inside, name: str) -> None:
    """However often a model is added and removed, the catalog has no empty line more; comments stay."""
    shell = machine(tmp_path, OWN)
    done(mdl(shell, "remove", name))
    text = (tmp_path / "catalog.toml").read_text()
    assert ("\n\n\n" in text, "# of c" in text, text.endswith("\n\n")) == (False, True, False)
    write_catalog(shell, OWN)
    for _ in range(3):
        done(mdl(shell, "add", "x", "hf:o/x"))
        done(mdl(shell, "remove", "x"))
    assert (tmp_path / "catalog.toml").read_text() == OWN


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("", ".config/mdl/catalog.toml"),
        (".", "catalog.toml"),
        ("new/folder", "new/folder/catalog.toml"),
        ("t.toml", "t.toml"),
    ],
)
def test_init(shell: Shell, mdl: Inside, words: str, place: str) -> None:
    """init writes a catalog into the user's folder, a folder or a file, with nothing in it; what is there is never
    replaced, also not a link to nothing."""
    path = shell.home / place
    assert done(mdl(shell, "init", *words.split())).out == f"{path}\n"
    done(mdl(shell, "add", "x", "hf:o/x", "--catalog", str(path)))
    listed = done(mdl(shell, "list", "--json", "--catalog", str(path))).document["models"]
    assert [one["name"] for one in listed] == ["x"]
    text = path.read_text()
    ran = done(mdl(shell, "init", *words.split(), "--json"), 7)
    assert (path.read_text(), ran.document["error"]["code"]) == (text, "OCCUPIED")
    path.unlink()
    path.symlink_to("nowhere.toml")
    done(mdl(shell, "init", *words.split()), 7)
    assert path.is_symlink()


def test_init_where_a_file_is(shell: Shell, mdl: Inside) -> None:
    """A file where init needs a folder is 7, and the hint does not speak of permissions."""
    (shell.home / "notes").write_text("mine")
    for place, hint in (("notes", "choose another place"), ("notes/below", "a file is in the way")):
        told = done(mdl(shell, "init", place), 7).err
        assert (hint in told, "permissions" in told) == (True, False)
    assert (shell.home / "notes").read_text() == "mine"


def test_the_example_of_init_is_right(tmp_path: Path, mdl: Inside) -> None:
    """Without its comment signs, the example in a new catalog is a catalog."""
    head, mark, example = BEGINNING.partition("# [models")
    lines = [line.removeprefix("#").removeprefix(" ") for line in f"{mark}{example}".split("\n")]
    shell = machine(tmp_path, head + "\n".join(lines))
    assert names(shell, mdl) == ["my-model"]
    write_catalog(shell, (tmp_path / "catalog.toml").read_text().replace("# extends", "extends"))
    assert names(shell, mdl) == ["my-model"]
    assert "bert-fa" in done(mdl(shell, "list", "bert")).out


def test_init_without_a_home(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the user has no home folder it is 2, and it says what to name."""
    monkeypatch.setattr("mdl.config.places.platformdirs.user_config_dir", lambda name: "~/.config/mdl")
    assert "no home folder" in done(mdl(shell, "init"), 2).err
    assert done(mdl(shell, "init", ".")).out == f"{shell.home}/catalog.toml\n"


TEAM = """\
schema = 1
[models.theirs]
source = "hf:them/theirs"
[models.shared]
source = "hf:them/shared"
"""
MINE = """\
schema = 1
extends = ["team.toml"]
[models.mine]
source = "hf:o/mine"
[groups]
nightly = ["mine", "shared"]
"""


def test_a_command_without_a_name_means_the_own_entries(tmp_path: Path, mdl: Inside) -> None:
    """What a base has counts if it is named, or is in a group of one's own: in every command that takes no name."""
    repos = [Repo(f"{owner}/{name}", {"a.json": name.encode()}) for owner, name in OWNERS]
    with LoopbackHub(repos) as hub:
        shell = machine(tmp_path, MINE, hub.url)
        (tmp_path / "team.toml").write_text(TEAM)
        own = ["mine", "shared"]
        assert sorted(names(shell, mdl)) == own
        rows = done(mdl(shell, "lock", "--json")).document["models"]
        assert sorted(row["name"] for row in rows) == own
        done(mdl(shell, "lock", "--check"))
        planned = done(mdl(shell, "prefetch", "--all", "-n", "--json")).document["models"]
        assert sorted(row["name"] for row in planned) == own
        assert "theirs" not in "".join(request.path for request in hub.requests)
        done(mdl(shell, "get", "mine", "theirs"))
        done(mdl(shell, "lock", "theirs"))
        for words in (("verify",), ("outdated",)):
            found = done(mdl(shell, *words, "--json")).document["models"]
            assert "theirs" not in [row["name"] for row in found], words
            found = done(mdl(shell, *words, "theirs", "--json")).document["models"]
            assert [row["name"] for row in found] == ["theirs"], words
        assert "theirs" not in done(mdl(shell, "export", "--format", "urls")).out
        assert "theirs" in done(mdl(shell, "export", "theirs", "--format", "urls")).out
        assert "theirs" in done(mdl(shell, "list", "theirs")).out


OWNERS = [("them", "theirs"), ("them", "shared"), ("o", "mine")]
