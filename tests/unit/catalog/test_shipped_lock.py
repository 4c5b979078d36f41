"""The lock that comes with mdl: it agrees with the catalog beside it, and tells offline what is known of its files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Shell

from mdl.catalog.lock import Lock, LockedFile, LockedModel, entry_of
from mdl.catalog.lock_file import lock_text, parse_lock
from mdl.catalog.reader import read_catalog
from mdl.config.places import SHIPPED, SHIPPED_LOCK
from mdl.hashing import Digest
from mdl.paths import RelPath

CATALOG = read_catalog([SHIPPED])
LOCK = parse_lock(SHIPPED_LOCK.read_text("utf-8"))
NAMED = {
    name: model for name, model in CATALOG.models.items() if model.files or not any("*" in one for one in model.include)
}
"""The models of which the catalog names every file."""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A user without a catalog, a lock or a network: the catalog that comes with mdl is in use."""
    return Shell(tmp_path)


def test_it_is_of_this_catalog() -> None:
    """Whatever it has is a model of the catalog, as that is now; the catalog at the head of the repository is the same
    file. An entry that was changed needs another lock."""
    root = Path(__file__).parents[3] / "catalog.toml"
    assert root.read_bytes() == SHIPPED.read_bytes()
    for name, locked in LOCK.models.items():
        assert LOCK.covers(CATALOG.models[name]), f"{name} was changed in shipped.toml and not in shipped.lock"
        assert locked.files
        assert not CATALOG.models[name].gone


def test_it_has_every_model_whose_files_are_named() -> None:
    """Of an entry that names its files one by one, it has these and no others, at the commit that the entry says."""
    wanted = {name: model for name, model in NAMED.items() if (model.include or model.files) and not model.gone}
    assert len(wanted) >= 5
    for name, model in wanted.items():
        paths = {file.path.text for file in model.files} | set(model.include)
        assert {file.path.text for file in LOCK.models[name].files} == paths
        commits = {source.revision for source in model.sources} | {
            commit for url in model.urls for commit in re.findall("/resolve/([0-9a-f]{40})/", url)
        }
        assert {file.revision for file in LOCK.models[name].files} <= commits


def test_it_says_what_the_catalog_says() -> None:
    """A size, digest, mirror or role that the catalog has is in the lock too, and none that contradicts it. No digest
    was trusted on first use."""
    compared = 0
    for name, locked in LOCK.models.items():
        files = {file.path: file for file in locked.files}
        assert not any(file.tofu for file in locked.files)
        for file in CATALOG.models[name].files:
            one = files[file.path]
            assert file.size in (None, one.size)
            assert file.digest in (None, one.digest)
            assert (one.mirrors, one.role) == (file.mirrors, file.role)
            compared += 1
    assert compared >= 4


def test_files_are_known_offline(mdl: Inside, shell: Shell) -> None:
    """Show tells the files of an entry with their URLs although nobody was ever asked; what is not known is null, and
    an entry of which no file is known has none."""
    document = mdl(shell, "show", "bert-fa", "--json").document
    urls = {file["path"]: file["url"] for file in document["files"]}
    commit = CATALOG.models["bert-fa"].sources[0].revision
    assert urls == {
        path: f"{shell.endpoint}/HooshvareLab/bert-fa-base-uncased/resolve/{commit}/{path}"
        for path in ("config.json", "vocab.txt", "pytorch_model.bin")
    }
    assert {file["role"] for file in document["files"]} == {"config", "vocab", "weights"}
    assert {file["path"]: file["size"] for file in document["files"] if file["size"]} == {"config.json": 440}
    rows = {row["name"]: row for row in mdl(shell, "list", "--json").document["models"]}
    assert (rows["z-image-turbo"]["files"], rows["z-image-turbo"]["bytes"]) == (3, 11_193_150_692)
    assert {name for name, row in rows.items() if row["files"] is not None} >= set(LOCK.models)
    unsized = {name for name, locked in LOCK.models.items() if any(file.size is None for file in locked.files)}
    assert {name for name in LOCK.models if rows[name]["bytes"] is None} == unsized
    assert (rows["parsinlu"]["files"], rows["parsinlu"]["bytes"]) == (None, None)


def test_small_files_have_the_sizes_that_the_hub_s_pages_show() -> None:
    """The pages of the hub show the size of a small file to the byte: of these it is known, and of larger ones not."""
    sizes = {one.path.text: one.size for one in LOCK.models["mt5-small-squad-fa"].files}
    assert sizes == {
        "config.json": 609,
        "pytorch_model.bin": None,
        "special_tokens_map.json": 65,
        "spiece.model": None,
        "tokenizer_config.json": 383,
    }


def test_the_user_s_own_lock_wins(mdl: Inside, shell: Shell) -> None:
    """What a lock of the user's says is told, and not what came with mdl."""
    model = CATALOG.models["bert-fa"]
    source = f"{model.sources[0]}/model.bin"
    file = LockedFile(RelPath.parse("model.bin"), source, 7, Digest("sha256", "ab" * 32))
    place = shell.home / ".config" / "mdl" / "mdl.lock"
    place.parent.mkdir(parents=True)
    place.write_text(lock_text(Lock({"bert-fa": LockedModel("bert-fa", entry_of(model), (file,))})))
    [shown] = mdl(shell, "show", "bert-fa", "--json").document["files"]
    assert (shown["path"], shown["size"], shown["sha256"]) == ("model.bin", 7, "ab" * 32)


def test_what_the_hub_says_wins(mdl: Inside, tmp_path: Path) -> None:
    """Once the hub was asked, its sizes are told. In a checkout, as the head of the lock says, 'mdl lock' writes them
    beside the catalog, for every file that the lock names."""
    model = CATALOG.models["bert-fa"]
    files = {"config.json": b"{}", "vocab.txt": b"a\nb\n", "pytorch_model.bin": b"1" * 5000}
    repo = Repo("HooshvareLab/bert-fa-base-uncased", files, commit=str(model.sources[0].revision))
    with LoopbackHub([repo]) as hub:
        shell = Shell(tmp_path, hub.url)
        assert mdl(shell, "get", "bert-fa", "-n").code == 0
        (tmp_path / "mdl" / "catalog").mkdir(parents=True)
        (tmp_path / "mdl" / "catalog" / "shipped.toml").write_bytes(SHIPPED.read_bytes())
        assert "mdl lock --catalog mdl/catalog/shipped.toml &&" in SHIPPED_LOCK.read_text("utf-8")
        assert mdl(shell, "lock", "bert-fa", "--catalog", "mdl/catalog/shipped.toml").code == 0
    fresh = parse_lock((tmp_path / "mdl" / "catalog" / "mdl.lock").read_text()).models["bert-fa"]
    assert fresh.entry == LOCK.models["bert-fa"].entry
    assert [(one.path, one.source, one.role) for one in fresh.files] == [
        (one.path, one.source, one.role) for one in LOCK.models["bert-fa"].files
    ]
    shown = mdl(shell, "show", "bert-fa", "--json").document["files"]
    assert {file["path"]: file["size"] for file in shown} == {name: len(data) for name, data in files.items()}


def test_it_pins_nothing(mdl: Inside, shell: Shell) -> None:
    """It is no lock of the user's: --locked still needs one, and what is here is not compared with it."""
    assert mdl(shell, "get", "bert-fa", "--locked").code == 8
    assert mdl(shell, "verify", "bert-fa").code == 3
