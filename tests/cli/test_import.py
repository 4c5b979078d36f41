"""mdl import: folders of ComfyUI, of the hub's client and of Ollama, and any other, are adopted; the original stays."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.catalogs import entry_of
from support.copies import second_file_system
from support.data import MIB, noise, sha256, write_files
from support.hf_cache import Hf, clones, listing
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Ran, Shell, done, machine, write_catalog

import mdl as library
from mdl.downloader.store import Store, hash_file
from mdl.events import Event, Finished
from mdl.local import import_folder as importing

NOBODY = "http://127.0.0.1:1"
BIG, LORA, VAE = noise(2 * MIB, 1), noise(MIB + 5, 2), noise(MIB, 3)
TINY = Repo("org/tiny", {"config.json": b'{"a": 1}', "model.bin": BIG, "sub/vocab.txt": b"v"}, lfs_threshold=1000)
IMAGE = f"""
[models.image]
[[models.image.files]]
path = "diffusion_models/image.safetensors"
url = "{NOBODY}/image.safetensors"
size = {len(BIG)}
sha256 = "{sha256(BIG)}"
[[models.image.files]]
path = "vae/ae.safetensors"
url = "{NOBODY}/ae.safetensors"
size = {len(VAE)}
sha256 = "{sha256(VAE)}"
"""
CATALOG = f"schema = 1\n{IMAGE}"

Rows = Callable[..., dict[str, Any]]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return machine(tmp_path / "home", CATALOG)


@pytest.fixture
def rows(mdl: Inside) -> Rows:
    """What ``mdl import`` says of each file, by its path below the folder; it must end with ``code``."""

    def run(shell: Shell, *words: str, code: int = 0) -> dict[str, Any]:
        document = done(mdl(shell, "import", *words, "--json"), code).document
        return {row["source"]: row for row in document["files"]}

    return run


def written(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files, of an earlier day."""
    write_files(folder, files)
    for name in files:
        os.utime(folder / name, (1_700_000_000, 1_700_000_000))
    return folder


@pytest.fixture
def comfy(tmp_path: Path) -> Path:
    files = {
        "models/diffusion_models/z image.safetensors": BIG,
        "models/vae/ae.safetensors": VAE,
        "models/loras/sdxl/dream v1.2.safetensors": LORA,
        "models/checkpoints/put_checkpoints_here": b"",
        "models/diffusers/small/unet/model.bin": b"\0" * 100,
        "models/diffusers/small/model_index.json": b"{}",
        "main.py": b"",
    }
    return written(tmp_path / "ComfyUI", files)


def test_comfyui(shell: Shell, comfy: Path, rows: Rows, mdl: Inside) -> None:
    """Files that the catalog knows become its model, under the catalog's names; the others are models by kind and name.
    A get then fetches nothing; the original is as it was, and a second import does nothing."""
    before = {name: facts[:4] for name, facts in listing(comfy).items()}
    found = rows(shell, str(comfy))
    assert {(row["model"], row["path"]) for row in found.values()} == {
        ("image", "diffusion_models/image.safetensors"),
        ("image", "vae/ae.safetensors"),
        ("loras--sdxl--dream v1.2", "dream v1.2.safetensors"),
        ("diffusers--small", "unet/model.bin"),
        ("diffusers--small", "model_index.json"),
    }
    lora = found["models/loras/sdxl/dream v1.2.safetensors"]
    assert (lora["digest"], lora["verified"], lora["of_catalog"]) == (f"sha256:{sha256(LORA)}", "none", False)
    assert found["models/vae/ae.safetensors"]["verified"] == "sha256"
    assert {name: facts[:4] for name, facts in listing(comfy).items()} == before
    facts = done(mdl(shell, "get", "image", "--json")).document
    assert (facts["bytes_fetched"], facts["models"][0]["status"]) == (0, "present")
    here = listing(shell.models)
    again = rows(shell, str(comfy))
    assert {row["action"] for row in again.values()} == {"kept"}
    assert {name: row["model"] for name, row in again.items()} == {name: row["model"] for name, row in found.items()}
    assert listing(shell.models) == here
    document = done(mdl(shell, "import", str(comfy), "--json")).document
    assert {row["path"] for row in document["skipped"]} == {"main.py", "models/checkpoints/put_checkpoints_here"}
    assert done(mdl(shell, "verify")).code == 0


@pytest.mark.parametrize(
    ("name", "files", "models"),
    [
        ("models", ("loras/dream.safetensors", "vae/put_vae_here"), {"loras--dream"}),
        ("models", ("loras/dream.safetensors", "other/more.gguf"), {"models"}),
        ("bert", ("vae/dream.safetensors", "config.json"), {"bert"}),
    ],
)
def test_a_new_comfyui(
    shell: Shell, tmp_path: Path, rows: Rows, name: str, files: tuple[str, ...], models: set[str]
) -> None:
    """One kind of models is enough in a folder called models, unless it has weights elsewhere; any other folder with
    such a name in it is one model."""
    folder = written(tmp_path / name, dict.fromkeys(files, LORA))
    assert {row["model"] for row in rows(shell, str(folder), "-n").values()} == models


def test_a_project(shell: Shell, tmp_path: Path, mdl: Inside) -> None:
    """A catalog and its lock are no files of a model, wherever in the folder they lie; a move leaves them there."""
    own = ("catalog.toml", "sub/mdl.lock", "sub/catalog.toml", "team.toml")
    folder = written(tmp_path / "project", dict.fromkeys([*own, "sub/lora.safetensors"], LORA))
    (folder / "team.toml").write_text("schema = 1\n")
    catalog = ("--catalog", str(folder / "team.toml"))
    document = done(mdl(shell, "import", str(folder), "--move", "--json", *catalog)).document
    assert [row["source"] for row in document["files"]] == ["sub/lora.safetensors"]
    assert {row["path"] for row in document["skipped"]} == set(own)
    assert all((folder / name).is_file() for name in own)


def test_what_is_shared_and_what_is_not(shell: Shell, tmp_path: Path, rows: Rows) -> None:
    """Without a flag a large file shares its bytes with the original and a small one is a copy; --copy shares none;
    --link shares all. No mode is changed."""
    folder = written(tmp_path / "mine", {"big.bin": LORA, "small.txt": b"s"})
    shared = "clone" if clones(tmp_path) else "link"
    plain = rows(shell, str(folder))
    assert {name: row["way"] for name, row in plain.items()} == {
        "big.bin": shared,
        "small.txt": "clone" if shared == "clone" else "copy",
    }
    assert (shell.models / "mine/big.bin").samefile(folder / "big.bin") == (shared == "link")
    copied = rows(shell, str(folder), "--copy", "--to", str(tmp_path / "copies"))
    assert "link" not in {row["way"] for row in copied.values()}
    linked = rows(shell, str(folder), "--link", "--to", str(tmp_path / "links"))
    assert {row["way"] for row in linked.values()} == {"link"}
    assert (folder / "big.bin").stat().st_nlink == 2 + (shared == "link")
    assert (folder / "big.bin").stat().st_mode & 0o200


def test_a_move(shell: Shell, tmp_path: Path, rows: Rows, mdl: Inside) -> None:
    """Only --move takes the original away, by a rename; a refused file stays where it is."""
    folder = written(tmp_path / "mine", {"big.bin": LORA, "sub/small.txt": b"s"})
    inode = (folder / "big.bin").stat().st_ino
    assert {row["way"] for row in rows(shell, str(folder), "--move").values()} == {"move"}
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert ((shell.models / "mine/big.bin").stat().st_ino, (shell.models / "mine/sub/small.txt").read_bytes()) == (
        inode,
        b"s",
    )
    written(folder, {"big.bin": LORA[::-1]})
    assert rows(shell, str(folder), "--move", code=7)["big.bin"]["action"] == "failed"
    assert (folder / "big.bin").read_bytes() == LORA[::-1]
    assert (shell.models / "mine/big.bin").read_bytes() == LORA
    assert rows(shell, str(folder), "--as", "other")["big.bin"]["model"] == "other"
    assert "keep" in done(mdl(shell, "import", str(folder), "--as", "other")).out


@pytest.fixture
def elsewhere(shell: Shell) -> Iterator[Path]:
    with second_file_system(shell) as folder:
        yield folder


def test_another_file_system(shell: Shell, elsewhere: Path, rows: Rows) -> None:
    """From another file system everything is copied; --link says that it cannot, before anything is written; --move
    takes the original away once its copy is published."""
    folder = written(elsewhere / "mine", {"big.bin": LORA, "small.txt": b"s"})
    refused = rows(shell, str(folder), "--link", code=7)
    assert "--copy" in refused["big.bin"]["error"]["hint"]
    assert not (shell.models / "mine").exists()
    assert {row["way"] for row in rows(shell, str(folder)).values()} == {"copy"}
    moved = written(elsewhere / "moved", {"big.bin": LORA, "small.txt": b"s"})
    assert {row["way"] for row in rows(shell, str(moved), "--move").values()} == {"move"}
    assert (list(moved.iterdir()), (shell.models / "moved/big.bin").read_bytes()) == ([], LORA)
    assert (folder / "big.bin").read_bytes() == LORA


def test_a_move_that_was_begun(shell: Shell, tmp_path: Path, rows: Rows) -> None:
    """What an earlier import linked or copied is only taken away from its place; a folder that is in its place stays,
    and so does an original that was changed since."""
    folder = written(tmp_path / "mine", {"big.bin": LORA, "small.txt": b"s", "edited.txt": b"e"})
    rows(shell, str(folder))
    (folder / "edited.txt").write_bytes(b"f")
    found = rows(shell, str(folder), "--move", code=7)
    assert {name: (row["action"], row["way"]) for name, row in found.items()} == {
        "big.bin": ("kept", "move"),
        "small.txt": ("kept", "move"),
        "edited.txt": ("failed", None),
    }
    assert [path.name for path in folder.iterdir()] == ["edited.txt"]
    place = shell.models / "mine"
    assert (place / "big.bin").read_bytes() == LORA
    for action in ("imported", "kept"):
        again = rows(shell, str(place), "--move")
        assert {(row["action"], row["way"]) for row in again.values()} == {(action, None)}
    assert sorted(path.name for path in place.iterdir()) == ["big.bin", "edited.txt", "small.txt"]


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub([TINY]) as hub:
        yield hub


def test_a_local_dir_of_the_hub_s_client(tmp_path: Path, hub: LoopbackHub, hf: Hf, rows: Rows, mdl: Inside) -> None:
    """What ``hf download --local-dir`` left tells commit and ETag: every file belongs to the catalog's model of that
    commit, of which nothing was ever listed. Nobody is asked, and the folder's own word verifies nothing; a get then
    asks the hub, which does, and fetches nothing."""
    local = tmp_path / "tiny-local"
    hf("snapshot", repo_id="org/tiny", local_dir=local, endpoint=hub.url)
    pinned = f'schema = 1\n[models.tiny]\nsource = "hf:org/tiny"\nrevision = "{TINY.commit}"\nexclude = ["sub/*"]\n'
    shell = machine(tmp_path / "home", pinned, hub.url)
    before = len(hub.requests)
    found = rows(shell, str(local))
    assert hub.requests[before:] == []
    facts = {name: (row["model"], row["verified"], row["of_catalog"]) for name, row in found.items()}
    assert facts["model.bin"] == ("tiny", "none", True)
    assert facts["config.json"] == ("tiny", "none", True)
    assert facts["sub/vocab.txt"] == ("tiny-local", "none", False)
    assert done(mdl(shell, "list", "--json")).document["models"][0]["status"] == "unverified"
    sent = hub.sent
    assert done(mdl(shell, "get", "tiny", "--json")).document["models"][0]["status"] == "present"
    assert hub.sent == sent
    row = done(mdl(shell, "outdated", "tiny", "--json")).document["models"][0]
    assert (row["here"], row["state"]) == ([TINY.commit], "pinned")


def test_a_local_dir_that_was_edited(tmp_path: Path, hub: LoopbackHub, hf: Hf, rows: Rows) -> None:
    """A file that is not as the hub sent it is adopted as it is found, and not as the catalog's. A folder of several
    such folders is read as well."""
    local = tmp_path / "all" / "tiny-local"
    hf("snapshot", repo_id="org/tiny", local_dir=local, endpoint=hub.url)
    (local / "config.json").write_text("{}")
    shell = machine(tmp_path / "home", 'schema = 1\n[models.tiny]\nsource = "hf:org/tiny"\n', hub.url)
    found = rows(shell, str(tmp_path / "all"))
    facts = {name: (row["model"], row["verified"]) for name, row in found.items()}
    assert facts["tiny-local/config.json"] == ("tiny-local", "none")
    assert facts["tiny-local/model.bin"] == ("tiny-local", "none")


def ollama(folder: Path, models: dict[str, list[tuple[str, bytes]]]) -> Path:
    """A store of Ollama's: each model's layers by the last word of their media type."""
    for name, layers in models.items():
        rows = []
        for kind, data in layers:
            blob = folder / "blobs" / f"sha256-{sha256(data)}"
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(data)
            media = f"application/vnd.ollama.image.{kind}"
            rows.append({"mediaType": media, "digest": f"sha256:{sha256(data)}", "size": len(data)})
        (folder / "manifests" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "manifests" / name).write_text(json.dumps({"schemaVersion": 2, "layers": rows}))
    return folder


STORE = {
    "registry.ollama.ai/library/llama3/8b": [("model", BIG), ("template", b"t"), ("license", b"l")],
    "registry.ollama.ai/library/llava/latest": [("model", LORA), ("projector", VAE)],
    "hf.co/bartowski/Tiny-GGUF/Q4_K_M": [("model", LORA)],
}


@pytest.mark.parametrize("below", ["", "models"])
def test_ollama(shell: Shell, tmp_path: Path, rows: Rows, below: str) -> None:
    """Each manifest is a model, its GGUF layers named after it; a layer that two models share comes twice. What the
    catalog knows is the catalog's, and verified by it; the store's own names verify nothing."""
    found = rows(
        shell, str(ollama(tmp_path / ".ollama" / below, STORE).parent if below else ollama(tmp_path / "o", STORE))
    )
    store = {(row["model"], row["path"]): row for row in found.values()}
    names = {("image", "diffusion_models/image.safetensors"), ("image", "vae/ae.safetensors")}
    assert names <= store.keys()
    assert {(row["verified"], row["of_catalog"]) for row in store.values()} == {("sha256", True), ("none", False)}
    (shell.models / "llava/llava.gguf").unlink()
    rows(shell, str(tmp_path / ".ollama" if below else tmp_path / "o"))
    assert (shell.models / "llava/llava.gguf").read_bytes() == LORA
    assert (shell.models / "bartowski--Tiny-GGUF-Q4_K_M/bartowski--Tiny-GGUF-Q4_K_M.gguf").read_bytes() == LORA


def test_ollama_moved_and_damaged(shell: Shell, tmp_path: Path, rows: Rows) -> None:
    """A blob that has other bytes than its name says is refused and stays; one that two models share is moved for the
    last of them; a manifest that makes no sense is passed over."""
    folder = ollama(tmp_path / "o", STORE)
    (folder / "manifests/registry.ollama.ai/library/odd").mkdir()
    (folder / "manifests/registry.ollama.ai/library/odd/1").write_text('{"layers": [{"digest": 5}]}')
    damaged = folder / "blobs" / f"sha256-{sha256(BIG)}"
    damaged.write_bytes(BIG[:-1] + b"?")
    document = rows(shell, str(folder), "--move", code=6)
    assert document[f"blobs/sha256-{sha256(BIG)}"]["error"]["code"] == "HASH"
    assert damaged.exists()
    assert not (folder / "blobs" / f"sha256-{sha256(LORA)}").exists()
    for name in ("llava/llava.gguf", "bartowski--Tiny-GGUF-Q4_K_M/bartowski--Tiny-GGUF-Q4_K_M.gguf"):
        assert (shell.models / name).read_bytes() == LORA


def test_small_files_alone_are_nobody_s(shell: Shell, tmp_path: Path, rows: Rows) -> None:
    """A small file that a catalog's model has as well is that model's only if the folder has its large file, or all of
    it: any two models may have the same config.json."""
    small = f'[[models.image.files]]\npath = "config.json"\nurl = "{NOBODY}/c"\nsize = 2\nsha256 = "{sha256(b"{}")}"\n'
    write_catalog(shell, CATALOG + small + entry_of("only", f"{NOBODY}/f", b"whole"))
    mine = written(tmp_path / "mine", {"config.json": b"{}", "other.bin": LORA})
    assert {row["model"] for row in rows(shell, str(mine)).values()} == {"mine"}
    theirs = written(tmp_path / "theirs", {"config.json": b"{}", "image.safetensors": BIG, "g.bin": b"whole"})
    found = rows(shell, str(theirs))
    assert {name: row["model"] for name, row in found.items()} == {
        "config.json": "image",
        "image.safetensors": "image",
        "g.bin": "only",
    }


def test_a_folder_that_is_in_its_place(shell: Shell, rows: Rows, mdl: Inside) -> None:
    """A folder that was put into the models folder by hand gets receipts, and nothing moves."""
    written(shell.models / "image", {"diffusion_models/image.safetensors": BIG, "vae/ae.safetensors": VAE})
    before = {name: facts for name, facts in listing(shell.models).items() if name.startswith("image/")}
    assert {(row["action"], row["way"]) for row in rows(shell, str(shell.models / "image")).values()} == {
        ("imported", None)
    }
    assert {name: facts for name, facts in listing(shell.models).items() if name.startswith("image/")} == before
    [model] = done(mdl(shell, "list", "image", "--json")).document["models"]
    assert model["status"] == "present"


def test_the_plan(shell: Shell, comfy: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """-n reads no file and writes nothing; what has the size of a catalog's file is told as that."""
    monkeypatch.setattr(importing, "hash_file", None)
    found = rows(shell, str(comfy), "-n")
    assert not shell.models.exists()
    assert {row["action"] for row in found.values()} == {"planned"}
    assert found["models/vae/ae.safetensors"]["model"] == "image"
    assert found["models/loras/sdxl/dream v1.2.safetensors"]["digest"] is None


def test_a_file_that_changes_meanwhile(
    shell: Shell, tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is written to while it is hashed, or between that and its linking, is not adopted; the others are."""
    folder = written(tmp_path / "mine", {"a.bin": LORA, "b.bin": VAE, "c.bin": BIG})

    def hashed(path: Path, *words: Any) -> Any:
        found = hash_file(path, *words)
        if path.name == "a.bin":
            path.write_bytes(b"other")
        return found

    def placed(self: Any, hashed: Any, *words: Any) -> Any:
        if hashed.file.at == "b.bin":
            (folder / "b.bin").write_bytes(b"other")
        return place(self, hashed, *words)

    place = importing._Import._place
    monkeypatch.setattr(importing, "hash_file", hashed)
    monkeypatch.setattr(importing._Import, "_place", placed)
    found = rows(shell, str(folder), code=7)
    assert {name: row["action"] for name, row in found.items()} == {
        "a.bin": "failed",
        "b.bin": "failed",
        "c.bin": "imported",
    }
    assert "changed while it was read" in found["b.bin"]["error"]["message"]
    assert not (shell.models / "mine").exists()
    assert (shell.models / "image/diffusion_models/image.safetensors").read_bytes() == BIG


def test_a_stop_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that is stopped goes on after the files that it has: they are not read again."""
    folder = written(tmp_path / "mine", {"a.bin": LORA, "b.bin": VAE, "c.bin": BIG})
    client, token, read = library.Client(home=tmp_path / "models", catalog=[]), library.CancelToken(), list[str]()

    def hashed(path: Path, *words: Any) -> Any:
        read.append(path.name)
        return hash_file(path, *words)

    def listen(event: Event) -> None:
        if isinstance(event, Finished):
            token.set()

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(importing, "hash_file", hashed)
    with pytest.raises(library.Cancelled):
        client.import_folder(folder, on_event=listen, cancel=token)
    assert {file.action for file in client.import_folder(folder).files} == {"kept", "imported"}
    assert sorted(read) == ["a.bin", "a.bin", "b.bin", "c.bin"]


def test_links_and_strangers(shell: Shell, tmp_path: Path, rows: Rows, mdl: Inside) -> None:
    """A link is never followed, hidden files are left out, and a name that mdl refuses is a failure of that file. A
    hub's cache and a models folder of mdl's are refused, as are two ways at once and --as for several models."""
    folder = written(tmp_path / "mine", {"a.bin": b"\0", ".git/config": b"g", "two\nlines.txt": b"c"})
    (tmp_path / "secret").write_text("secret")
    (folder / "link.bin").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    found = rows(shell, str(folder), code=11)
    assert {name: row["action"] for name, row in found.items()} == {"a.bin": "imported", "two\nlines.txt": "failed"}
    assert "rename it" in found["two\nlines.txt"]["error"]["hint"]
    document = done(mdl(shell, "import", str(folder), "-n", "--json")).document
    assert {row["path"] for row in document["skipped"]} == {"link.bin", "up", "pipe"}
    reserved = written(tmp_path / "con", {"a.bin": b"\0"})
    assert "--as NAME" in rows(shell, str(reserved), code=11)["a.bin"]["error"]["hint"]
    cache = written(tmp_path / "hub", {"models--org--tiny/blobs/abc": b"a"})
    for place in (cache, shell.models):
        done(mdl(shell, "import", str(place)), 2)
    done(mdl(shell, "import", str(folder), "--link", "--move"), 2)
    done(mdl(shell, "import", str(folder), "--layout", "hf-cache"), 2)
    done(mdl(shell, "import", str(tmp_path / "none")), 3)
    assert "it is a file" in done(mdl(shell, "import", str(folder / "a.bin")), 2).err
    done(mdl(shell, "import", str(ollama(tmp_path / "o", STORE)), "--as", "one"), 2)


def test_a_disk_that_is_too_small(shell: Shell, tmp_path: Path, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that do not fit are refused before the first is made; a plan says so as well. Links need no room."""
    folder = written(tmp_path / "mine", {"big.bin": LORA})
    monkeypatch.setattr(Store, "free_space", lambda _self: 1000)
    if clones(tmp_path):
        pytest.skip("this file system clones, which needs no room")
    for words in (["-n"], []):
        assert "SPACE" in done(mdl(shell, "import", str(folder), "--copy", "--json", *words), 7).out
    assert not (shell.models / "mine").exists()
    done(mdl(shell, "import", str(folder)))


def test_a_name_of_the_catalog_s(shell: Shell, tmp_path: Path, rows: Rows) -> None:
    """A folder with the name of a catalog's model, and other bytes, does not become that model."""
    folder = written(tmp_path / "image", {"x.bin": LORA})
    found = rows(shell, str(folder), code=7)["x.bin"]
    assert "--as NAME" in found["error"]["hint"]
    assert not (shell.models / "image").exists()
    assert rows(shell, str(folder), "--as", "mine")["x.bin"]["action"] == "imported"


def test_names_of_another_system(shell: Shell, tmp_path: Path, rows: Rows, mdl: Inside) -> None:
    """What lies on this disk can be kept on it, also under a name that Windows would refuse; every command knows it."""
    files = {"model.bin": LORA, "aux.json": b"{}", "~$notes.txt": b"n", "logs/a. ": b"l", "12:30.txt": b"t"}
    folder = written(tmp_path / "mine", files)
    assert {row["action"] for row in rows(shell, str(folder)).values()} == {"imported"}
    assert done(mdl(shell, "verify", "mine", "--json")).document["ok"]
    done(mdl(shell, "mv", "mine", "--to", str(tmp_path / "other")))
    assert {name: (tmp_path / "other/mine" / name).read_bytes() for name in files} == files


def test_as_a_model_of_the_catalog(tmp_path: Path, hub: LoopbackHub, rows: Rows, mdl: Inside) -> None:
    """Of a folder that another program filled each file is compared with the lock: the right ones are imported, also
    small ones alone, and 6 names the others with both digests. A file that the model does not have is 7."""
    shell = machine(tmp_path / "home", 'schema = 1\n[models.tiny]\nsource = "hf:org/tiny"\n', hub.url)
    done(mdl(shell, "lock"))
    files = {"config.json": b'{"a": 1}', "model.bin": BIG[:-1] + b"\0", "sub/vocab.txt": b"v"}
    folder = written(tmp_path / "D", files)
    found = rows(shell, str(folder), "--as", "tiny", code=6)
    assert {name: (row["action"], row["model"]) for name, row in found.items()} == {
        "config.json": ("imported", "tiny"),
        "model.bin": ("failed", "tiny"),
        "sub/vocab.txt": ("imported", "tiny"),
    }
    for digest in (sha256(files["model.bin"]), sha256(BIG)):
        assert digest in found["model.bin"]["error"]["message"]
    (folder / "model.bin").write_bytes(BIG)
    (folder / "notes.txt").write_bytes(b"mine")
    found = rows(shell, str(folder), "--as", "tiny", code=7)
    assert {name for name, row in found.items() if row["action"] == "failed"} == {"notes.txt"}
    assert done(mdl(shell, "get", "tiny", "--json")).document["bytes_fetched"] == 0


def test_as_one_of_two_models_with_the_same_bytes(shell: Shell, tmp_path: Path, rows: Rows) -> None:
    """The name that the user gave decides."""
    write_catalog(shell, CATALOG + entry_of("zwei", f"{NOBODY}/f", BIG))
    folder = written(tmp_path / "D", {"image.safetensors": BIG})
    assert rows(shell, str(folder), "--as", "zwei")["image.safetensors"]["model"] == "zwei"


def test_a_catalog_s_model_that_was_never_listed(
    tmp_path: Path, hub: LoopbackHub, hf: Hf, rows: Rows, mdl: Inside
) -> None:
    """Of a model that follows a branch nothing is known before its source was asked: the hint says how, and then the
    folder is that model."""
    local = tmp_path / "tiny"
    hf("snapshot", repo_id="org/tiny", local_dir=local, endpoint=hub.url)
    shell = machine(tmp_path / "home", 'schema = 1\n[models.tiny]\nsource = "hf:org/tiny"\n', hub.url)
    assert "mdl get -n tiny" in rows(shell, str(local), code=7)["model.bin"]["error"]["hint"]
    done(mdl(shell, "get", "-n", "tiny"))
    assert {row["verified"] for row in rows(shell, str(local)).values()} == {"sha256", "git-sha1"}
    assert done(mdl(shell, "list", "--json")).document["models"][0]["status"] == "present"


def test_on_a_terminal_and_after(shell: Shell, tmp_path: Path, mdl: Inside) -> None:
    """The table has a line a model and the summary counts; show, verify and outdated know an imported model, and a
    repair says why it cannot be fetched."""
    folder = written(tmp_path / "mine", {"big.bin": LORA, "small.txt": b"s"})
    ran: Ran = done(mdl(shell, "import", str(folder)))
    assert "mine" in ran.out
    assert "unverified" in ran.out
    assert "imported from a plain folder: 2 files, 1.0 MB" in ran.err
    assert "here already: 2 files, 1.0 MB\n" in done(mdl(shell, "import", str(folder))).err
    assert "1 model was imported or trained" in done(mdl(shell, "outdated")).err
    [listed] = done(mdl(shell, "list", "--local", "--json")).document["models"]
    assert listed["source"] == f"file://{folder}"
    [row] = done(mdl(shell, "outdated", "mine", "--json")).document["models"]
    assert row["state"] == "unknown"
    done(mdl(shell, "update", "mine"), 3)
    assert done(mdl(shell, "show", "mine", "--json")).document["model"]["files_present"] == 2
    (shell.models / "mine/big.bin").unlink()
    told = done(mdl(shell, "verify", "mine", "--repair"), 3).err
    assert "was imported" in told


@pytest.mark.fault(463)
def test_another_program_s_folder_keeps_its_modes(shell: Shell, tmp_path: Path, rows: Rows) -> None:
    """Folders and files that a group may write to are read, and are as they were."""
    blob = f"blobs/sha256-{sha256(VAE)}"
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{sha256(VAE)}"}
    manifest = "manifests/registry.ollama.ai/library/vae/latest"
    store = written(tmp_path / "ollama", {blob: VAE, manifest: json.dumps({"layers": [layer]}).encode()})
    found = [store, *store.rglob("*")]
    for path in found:
        path.chmod(0o775 if path.is_dir() else 0o664)
    before = [path.stat().st_mode for path in found]
    assert [row["action"] for row in rows(shell, str(store)).values()] == ["imported"]
    assert [path.stat().st_mode for path in found] == before


@pytest.mark.fault(463)
def test_a_folder_whose_name_is_no_text(shell: Shell, tmp_path: Path, rows: Rows, mdl: Inside) -> None:
    """It is imported under a name that is one; without it, 11."""
    folder = written(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")), {"x.bin": b"\0"})
    assert rows(shell, str(folder), "--as", "good")["x.bin"]["action"] == "imported"
    assert "path refused" in done(mdl(shell, "import", str(folder)), 11).err


@pytest.mark.fault(463)
def test_what_goes_while_the_folder_is_read(
    shell: Shell, tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file and a folder that another program removes hinder nothing else; a folder that is all gone is 7."""
    folder = written(tmp_path / "busy", {"stays.bin": b"\0", "part.tmp": b"2", "tmp/x": b"3"})
    walk = os.walk

    def losing(top: Path, **how: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in walk(top, **how):
            (folder / "part.tmp").unlink(missing_ok=True)
            shutil.rmtree(folder / "tmp", ignore_errors=True)
            yield found

    def lost(top: Path, **how: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        shutil.rmtree(folder)
        return walk(top, **how)

    monkeypatch.setattr(importing.os, "walk", losing)
    assert set(rows(shell, str(folder))) == {"stays.bin"}
    monkeypatch.setattr(importing.os, "walk", lost)
    rows(shell, str(folder), code=7)


REFUSAL = b'{"error":"Unauthorized","message":"The creator requires you to be logged in"}'
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
MESSAGES = {
    "dream.safetensors": (REFUSAL, "The creator requires you to be logged in"),
    "sub/old.ckpt": (b"Quota exceeded, try again tomorrow.\n", "Quota exceeded"),
    "model.gguf": (b"<!doctype html><title>Sign in</title>", "a page to sign in at"),
    "large.bin": (b"Blocked by the firewall. " * 90_000, "Blocked by the firewall"),
    "pointer.onnx": (POINTER, "git-lfs pointer"),
}


@pytest.mark.parametrize("flags", [(), ("--move",)], ids=["import", "move"])
def test_what_a_server_said_is_no_model(
    shell: Shell, tmp_path: Path, rows: Rows, mdl: Inside, flags: tuple[str, ...]
) -> None:
    """A refusal that another program kept under a model's name is told as that: 6. The other files come, and the
    original stays."""
    texts = {name: data for name, (data, _) in MESSAGES.items()}
    folder = written(tmp_path / "mine", {**texts, "right.safetensors": LORA, "notes.txt": REFUSAL})
    told = rows(shell, str(folder), *flags, code=6)
    assert {name for name, row in told.items() if row["action"] == "failed"} == set(MESSAGES)
    for name, (data, words) in MESSAGES.items():
        assert words in told[name]["error"]["message"], told[name]
        assert (folder / name).read_bytes() == data
    assert not [path for path in shell.models.rglob("*") if path.name in ("dream.safetensors", "old.ckpt")]
    again = mdl(shell, "import", str(folder))
    assert "download it again" in again.err


def test_a_text_with_its_digest_belongs_there(shell: Shell, tmp_path: Path, rows: Rows) -> None:
    """If the catalog has the digest of a text under such a name, it is imported."""
    file = f'path = "odd.bin"\nurl = "{NOBODY}/odd.bin"\nsize = {len(REFUSAL)}\nsha256 = "{sha256(REFUSAL)}"\n'
    write_catalog(shell, f"schema = 1\n[[models.odd.files]]\n{file}")
    folder = written(tmp_path / "mine", {"odd.bin": REFUSAL, "big.bin": BIG})
    assert rows(shell, str(folder))["odd.bin"]["verified"] == "sha256"


def test_from_a_repository(tmp_path: Path, hub: LoopbackHub, hf: Hf, rows: Rows, mdl: Inside) -> None:
    """--from compares every file with the repository at the commit that the folder names, and records what get would:
    get fetches nothing, verify knows the digests, and outdated sees that the branch moves."""
    local = tmp_path / "D"
    hf("snapshot", repo_id="org/tiny", local_dir=local, endpoint=hub.url)
    (local / "mine.txt").write_bytes(b"mine")
    shell = machine(tmp_path / "home", "schema = 1\n", hub.url)
    planned = rows(shell, str(local), "--from", "hf:org/tiny", "-n")
    assert {row["action"] for row in planned.values()} == {"planned"}
    ran = done(mdl(shell, "import", str(local), "--from", "hf:org/tiny", "--json"))
    facts = {row["source"]: (row["model"], row["verified"], row["action"]) for row in ran.document["files"]}
    assert facts == {
        "config.json": ("org--tiny", "git-sha1", "imported"),
        "model.bin": ("org--tiny", "sha256", "imported"),
        "sub/vocab.txt": ("org--tiny", "git-sha1", "imported"),
    }
    assert [row["path"] for row in ran.document["skipped"]] == ["mine.txt"]
    sent = hub.sent
    [model] = done(mdl(shell, "get", "org/tiny", "--json")).document["models"]
    assert (hub.sent, {file["action"] for file in model["files"]}) == (sent, {"kept"})
    assert done(mdl(shell, "verify", "org/tiny", "--strict", "--json")).document["ok"]
    [row] = done(mdl(shell, "outdated", "org/tiny", "--json")).document["models"]
    assert (row["here"], row["state"]) == ([TINY.commit], "current")
    [listed] = done(mdl(shell, "list", "--local", "--json")).document["models"]
    assert (listed["source"], listed["status"], listed["commits"]) == ("hf:org/tiny@main", "present", [TINY.commit])
    assert rows(shell, str(local), "--from", "hf:org/tiny")["model.bin"]["action"] == "kept"


def test_a_catalog_that_a_repository_has(tmp_path: Path, rows: Rows, mdl: Inside) -> None:
    """A file of the repository is one of the model, whatever its name; one that it has not is mdl's own."""
    repo = Repo("org/cards", {"model.bin": BIG, "catalog.toml": b"a = 1\n", "sub/mdl.lock": b"b"})
    with LoopbackHub([repo]) as hub:
        shell = machine(tmp_path / "home", "schema = 1\n", hub.url)
        local = written(tmp_path / "D", {**repo.files, "mdl.lock": b"mine"})
        ran = done(mdl(shell, "import", str(local), "--from", "hf:org/cards", "--json"))
    assert {row["source"] for row in ran.document["files"]} == set(repo.files)
    assert [row["path"] for row in ran.document["skipped"]] == ["mdl.lock"]
    metadata = ".cache/huggingface/download/catalog.toml.metadata"
    written(local, {metadata: f"{repo.commit}\n{'1' * 40}\n1.0\n".encode()})
    assert set(rows(shell, str(local), "-n", "--as", "other")) == {"model.bin", "catalog.toml"}


def test_from_another_commit(tmp_path: Path, hub: LoopbackHub, rows: Rows) -> None:
    """A plain folder is compared with main, or with the revision that is named; a commit that the folder invents is
    only a hint, and the digests decide."""
    local = written(tmp_path / "D", {"model.bin": BIG, ".cache/huggingface/download/model.bin.metadata": b""})
    (local / ".cache/huggingface/download/model.bin.metadata").write_text(f"{'0' * 40}\n{'1' * 64}\n1.0\n")
    shell = machine(tmp_path / "home", "schema = 1\n", hub.url)
    assert rows(shell, str(local), "--from", "org/tiny")["model.bin"]["verified"] == "sha256"
    [receipt] = Store(shell.models).receipts.of_model("org--tiny")
    assert receipt.hub is not None
    assert (receipt.hub.branch, receipt.hub.revision, receipt.commit) == ("main", TINY.commit, TINY.commit)
    assert (receipt.access, receipt.vouched_by, receipt.hub.endpoint) == ("public", "hub", hub.url)
    other = machine(tmp_path / "other", "schema = 1\n", hub.url)
    rows(other, str(local), "--from", f"hf:org/tiny@{TINY.commit}")
    [receipt] = Store(other.models).receipts.of_model("org--tiny")
    assert receipt.hub is not None
    assert (receipt.hub.branch, receipt.hub.revision) == ("", TINY.commit)


def test_from_a_repository_that_has_other_bytes(tmp_path: Path, hub: LoopbackHub, rows: Rows, mdl: Inside) -> None:
    """A file that differs is named and stays what it is: 6. The others are imported."""
    files = {"model.bin": BIG[:-1] + b"\0", "config.json": b'{"a": 12}', "sub/vocab.txt": b"v"}
    local = written(tmp_path / "D", files)
    shell = machine(tmp_path / "home", "schema = 1\n", hub.url)
    ran = done(mdl(shell, "import", str(local), "--from", "hf:org/tiny", "--move", "--json"), 6)
    assert {row["path"]: row["action"] for row in ran.document["files"]} == {
        "config.json": "failed",
        "model.bin": "failed",
        "sub/vocab.txt": "imported",
    }
    assert ran.err.count("is not the file of hf:org/tiny@") == 2
    assert (local / "model.bin").read_bytes() == files["model.bin"]
    assert not (local / "sub/vocab.txt").exists()
    assert [path.name for path in (shell.models / "org--tiny").rglob("*") if path.is_file()] == ["vocab.txt"]


def test_from_what_cannot_be_asked(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> None:
    """8 offline, 3 for a repository that is not there, 2 for what is no repository and together with --as."""
    local = written(tmp_path / "D", {"model.bin": BIG})
    shell = machine(tmp_path / "home", "schema = 1\n", hub.url)
    for words, code in (
        (["hf:org/tiny", "--offline"], 8),
        (["hf:org/none"], 3),
        (["hf:org/tiny@nosuch"], 3),
        (["hf:org/tiny@main/model.bin"], 2),
        (["https://example.org/x.bin"], 2),
        (["hf:org/tiny", "--as", "m"], 2),
    ):
        ran = done(mdl(shell, "import", str(local), "--from", *words), code)
        assert ran.out == ""
    assert not (shell.models / "org--tiny").exists()
