"""mdl bundle: models go to a machine without a network as one plain tar, which tar, split, cat and sha256sum handle."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.call_kills import killed_at, tracing_works
from support.data import MIB, flip, noise, sha256
from support.faulty_server import FaultyServer
from support.hf_cache import Hf, listing, offline
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Shell, done, machine, with_environ, write_catalog

import mdl as library
from mdl.archive import streaming
from mdl.downloader.receipts import Receipts
from mdl.downloader.store import Store
from mdl.events import Event, Progressed
from mdl.plugins.bundle import export as exporting
from mdl.plugins.bundle import export_bundle, import_bundle

TOP = "mdl-bundle"
Bundled = list[tuple[tarfile.TarInfo, bytes]]
"""The members of a bundle, each with its bytes."""


def members_of(path: Path) -> Bundled:
    """What is in a bundle."""
    with tarfile.open(path) as tar:
        return [(info, file.read() if (file := tar.extractfile(info)) else b"") for info in tar]


def tar_of(members: Bundled) -> bytes:
    """A tar of these members; sizes are those of their bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def resummed(members: Bundled) -> None:
    """Make the list of digests fit the bytes again."""
    names = {info.name: (at, info) for at, (info, _) in enumerate(members)}
    at, info = names[f"{TOP}/SHA256SUMS"]
    lines = [f"{sha256(data)}  {one.name.removeprefix(TOP + '/')}\n" for one, data in members if one.name != info.name]
    members[at] = (info, "".join(lines).encode())


BIG = noise(3 * MIB + 77, 1)
LONG = "deep/" * 20 + "x" * 120 + ".bin"
TINY = Repo(
    "org/tiny",
    {"config.json": b"{}", "model.bin": BIG, "empty.txt": b"", "a مدل.txt": b"persian", LONG: noise(9000, 2)},
    lfs_threshold=5000,
)
CATALOG = """schema = 1
# the team's own
[models.tiny]
title = "Tiny"
license = "mit"
source = "hf:org/tiny"

[groups]
nightly = ["tiny"]
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub([TINY]) as hub:
        yield hub


@pytest.fixture
def here(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> Shell:
    """A machine with a network, the catalog, its lock and the model."""
    shell = machine(tmp_path / "here", CATALOG, hub.url, HF_TOKEN="hf_" + "x" * 30)
    done(mdl(shell, "lock"))
    done(mdl(shell, "get", "tiny"))
    return shell


@pytest.fixture
def there(tmp_path: Path) -> Shell:
    """A machine without a network, and without a catalog of its own."""
    (tmp_path / "there").mkdir()
    return Shell(tmp_path / "there")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, hub: LoopbackHub) -> Path:
    """A folder with a bundle of the model, and with the same in parts of 1 MiB."""
    shell = machine(tmp_path_factory.mktemp("built") / "home", CATALOG, hub.url, HF_TOKEN="hf_" + "x" * 30)
    (shell.home / "stick").mkdir()
    for words in (["lock"], ["get", "tiny"], _EXPORT, [*_EXPORT[:-1], "stick/tiny.tar", "--split", "1Mi"]):
        done(shell.run(*words))
    return shell.home


_EXPORT = ["bundle", "export", "tiny", "-o", "tiny.tar"]


@pytest.fixture
def bundle(built: Path, tmp_path: Path) -> Path:
    """A bundle of the model."""
    return Path(shutil.copy(built / "tiny.tar", tmp_path))


@pytest.fixture
def parts(built: Path, tmp_path: Path) -> Path:
    """The folder of the same bundle in parts of 1 MiB."""
    return Path(shutil.copytree(built / "stick", tmp_path / "stick"))


def sh(folder: Path, script: str) -> str:
    """What a script of real programs prints, which must say nothing else."""
    folder.mkdir(exist_ok=True)
    ran = subprocess.run(["bash", "-euc", script], cwd=folder, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    return ran.stdout


def is_there(shell: Shell) -> bool:
    """Whether the model is there with the right bytes."""
    found = {str(one.relative_to(shell.models / "tiny")): one for one in (shell.models / "tiny").rglob("*")}
    return all(name in found and found[name].read_bytes() == data for name, data in TINY.files.items())


def models_files(shell: Shell) -> set[str]:
    """What is in the models folder, but for mdl's own."""
    found = (one.relative_to(shell.models) for one in shell.models.rglob("*") if one.is_file())
    return {str(one) for one in found if one.parts[0] != ".mdl"}


def test_tar_and_sha256sum_know_it(bundle: Path, tmp_path: Path) -> None:
    """GNU tar, bsdtar and Python's tarfile unpack it without a warning, sha256sum -c alone checks every file, and the
    README tells what it is, from where, under which licence, and how to import it."""
    sums = "sha256sum -c --strict SHA256SUMS"
    told = sh(tmp_path / "gnu", f"tar -xf {bundle}; cd {TOP}; {sums}")
    assert told.count(": OK\n") == len(TINY.files) + 3
    for program in ("bsdtar", "python3 -m tarfile"):
        if shutil.which(program.split()[0]):
            flag = "-xf" if program == "bsdtar" else "-e"
            assert sh(tmp_path / program[:3], f"{program} {flag} {bundle}; cd {TOP}; {sums}") == told
    files = [one for one in (tmp_path / "gnu" / TOP).rglob("*") if one.is_file()]
    assert len(files) == len(TINY.files) + 4
    readme = (tmp_path / "gnu" / TOP / "README.txt").read_text()
    for words in ("hf:org/tiny", TINY.commit, "mit", "sha256sum -c", "mdl bundle import", "5 files", "3.2 MB"):
        assert words in readme, words


def test_cat_joins_the_parts(bundle: Path, parts: Path, tmp_path: Path) -> None:
    """No part is larger than was asked, the list of their digests is right, and cat makes the same tar of them; tar
    reads them from a pipe, with that list behind them."""
    files = sorted(parts.iterdir())
    assert [one.name for one in files] == [*(f"tiny.tar.00{number}" for number in range(4)), "tiny.tar.sha256sums"]
    assert {one.stat().st_size for one in files[:-2]} == {MIB}
    sh(parts, "sha256sum -c --strict tiny.tar.sha256sums")
    assert b"".join(one.read_bytes() for one in files[:-1]) == bundle.read_bytes()
    for program in ("tar", "bsdtar"):
        if shutil.which(program):
            sh(tmp_path / "piped", f"cat {parts}/tiny.tar.* | {program} -xf -; cd {TOP}; sha256sum -c SHA256SUMS")


def test_the_same_models_make_the_same_bytes(bundle: Path, hub: LoopbackHub, tmp_path: Path, mdl: Inside) -> None:
    """Another machine, another day, another name: the same bytes. A token is nowhere in them."""
    other = machine(tmp_path / "other", "schema = 1\n" + CATALOG.partition("own\n")[2], hub.url)
    done(mdl(other, "get", "tiny"))
    done(mdl(other, "bundle", "export", "nightly", "-o", "other.tar"))
    assert (other.home / "other.tar").read_bytes() == bundle.read_bytes()
    assert b"hf_xxx" not in bundle.read_bytes()


FORMS: dict[str, str] = {
    "tar": "cp {bundle} in.tar; echo in.tar",
    "split by hand": "split -b 1000000 -d -a 3 {bundle} in.tar.; echo in.tar.000",
    "name without number": "cp {parts}/tiny.tar.0* .; echo tiny.tar",
    "any of the parts": "cp {parts}/* .; echo tiny.tar.002",
    "from a Mac": "cp {parts}/* .; cp tiny.tar.sha256sums ._tiny.tar.000; touch .DS_Store; echo tiny.tar.000",
    "list made on Windows": "cp {parts}/* .; sed -i 's/  / */; s/$/\\r/; 1s/^/\ufeff/' *sums; echo tiny.tar.000",
    "packed anew by GNU tar": "tar -xf {bundle}; tar -cf in.tar mdl-bundle; echo in.tar",
    "packed anew by bsdtar": "tar -xf {bundle}; bsdtar -cf in.tar mdl-bundle; echo in.tar",
}


@pytest.mark.fault(507)
@pytest.mark.fault(510)
@pytest.mark.parametrize("form", FORMS)
def test_import_from(form: str, bundle: Path, parts: Path, there: Shell, tmp_path: Path, mdl: Inside) -> None:
    """Whatever form it came in: afterwards the model is in the catalog, locked and here; get --offline fetches nothing,
    and a second import does nothing. Only the bundle says which bytes are right: they are unverified."""
    script = FORMS[form].format(bundle=bundle, parts=parts)
    if "bsdtar" in script and not shutil.which("bsdtar"):
        pytest.skip("bsdtar is not installed")
    place = str(tmp_path / "in" / sh(tmp_path / "in", script).strip())
    ran = done(mdl(there, "bundle", "import", place, "--json", "--progress", "json"))
    first, last = ran.document, ran.events[-1]
    assert (last["event"], last["bytes_done"]) == ("finished", sum(map(len, TINY.files.values())))
    assert {file["action"] for file in first["models"][0]["files"]} == {"imported"}
    assert (first["added"], first["locked"]) == (["tiny"], ["tiny"])
    assert is_there(there)
    receipts = Receipts(there.models / ".mdl" / "receipts")
    told = {(one.access, one.vouched_by, one.hub.endpoint if one.hub else "") for one in receipts.all()}
    assert told == {("unknown", "folder", "")}  # nobody here knows who may have it, nor whether the bundle is right
    assert {file["verified"] for file in first["models"][0]["files"]} == {"none"}
    got = done(mdl(there, "get", "tiny", "--offline", "--locked", "--json")).document
    assert (got["bytes_fetched"], got["models"][0]["status"]) == (0, "unverified")
    assert done(mdl(there, "list", "--json")).document["models"][0]["status"] == "unverified"
    verified = done(mdl(there, "verify", "--json")).document["models"][0]["files"]
    assert {file["status"] for file in verified} == {"unverified"}
    assert mdl(there, "verify", "--strict").code == 6
    before = listing(there.models / "tiny"), listing(there.home / ".config")
    again = done(mdl(there, "bundle", "import", place, "--json")).document
    assert {file["action"] for file in again["models"][0]["files"]} == {"kept"}
    assert (again["added"], again["locked"]) == ([], [])
    assert (listing(there.models / "tiny"), listing(there.home / ".config")) == before


def test_from_cache_to_cache(here: Shell, there: Shell, hf: Hf, tmp_path: Path, mdl: Inside) -> None:
    """With --layout hf-cache a bundle comes out of the hub's cache and goes into one, which the hub's own client reads
    offline."""
    cache, other = tmp_path / "cache", there.home / ".cache/huggingface/hub"
    done(mdl(here, "get", "tiny", "--layout", "hf-cache", "--to", str(cache)))
    done(mdl(here, "bundle", "export", "tiny", "-o", "c.tar", "--layout", "hf-cache", "--to", str(cache)))
    done(mdl(there, "bundle", "import", str(here.home / "c.tar"), "--layout", "hf-cache", "--to", str(other)))
    assert offline(hf, there) == TINY.files
    assert done(mdl(there, "get", "tiny", "--offline", "--layout", "hf-cache", "--to", str(other))).code == 0


@pytest.mark.parametrize("name", ["token", "auth", "t"])
def test_what_nobody_vouches_for_is_told(
    here: Shell, there: Shell, server: FaultyServer, mdl: Inside, name: str
) -> None:
    """A file without a published digest goes along, and both sides and the README say that it is unverified; what a
    URL has that is secret stays at home."""
    entry = f'[models.direct]\n[[models.direct.files]]\npath = "f.dat"\nurl = "{server.url}/f.dat?{name}=geheim123"\n'
    write_catalog(here, CATALOG + entry)
    done(mdl(here, "get", "direct"))
    ran = done(mdl(here, "bundle", "export", "direct", "-o", "d.tar"))
    assert "unverified: direct/f.dat" in ran.err
    [line] = [line for line in ran.err.splitlines() if "left out" in line]
    assert line.endswith(": direct/f.dat")
    told = done(mdl(here, "bundle", "export", "direct", "-o", "d.tar", "--force", "--json"))
    assert (told.document["queries_left_out"], "geheim" in told.out + told.err) == (["direct/f.dat"], False)
    data = (here.home / "d.tar").read_bytes()
    assert (b"no digest is published of f.dat" in data, b"geheim" in data) == (True, False)
    ran = done(mdl(there, "bundle", "import", str(here.home / "d.tar")))
    assert "unverified: direct/f.dat" in ran.err
    found = done(mdl(there, "bundle", "import", str(here.home / "d.tar"), "--json")).document
    assert found["models"][0]["files"][0]["verified"] == "none"
    assert done(mdl(there, "get", "--offline", "direct")).code == 0
    assert mdl(here, "bundle", "import", "d.tar").code == 0  # the same entry, but for the secret


@pytest.mark.parametrize("more", ["/../../x", "/x", "?x=1", "x"])
def test_a_lock_that_leads_elsewhere_on_the_same_host(
    here: Shell, there: Shell, server: FaultyServer, mdl: Inside, more: str
) -> None:
    """The URL in a bundle's lock is the one of its entry, or nothing is imported (11): another path of the same host
    may be somebody else's file."""
    entry = f'[models.direct]\n[[models.direct.files]]\npath = "f.dat"\nurl = "{server.url}/a/f.dat"\n'
    write_catalog(here, CATALOG + entry)
    done(mdl(here, "get", "direct"))
    done(mdl(here, "bundle", "export", "direct", "-o", "d.tar"))
    found = members_of(here.home / "d.tar")
    path = 'path = "f.dat",'
    _edited("mdl.lock", path.encode(), f'{path} source = "{server.url}/a/f.dat{more}",'.encode())(found)
    (here.home / "d.tar").write_bytes(tar_of(found))
    ran = done(mdl(there, "bundle", "import", str(here.home / "d.tar")), 11)
    assert ("does not name" in ran.err, models_files(there)) == (True, set())
    assert not (there.home / ".config").exists()


def test_a_shipped_model_and_another(hub: LoopbackHub, there: Shell, tmp_path: Path, mdl: Inside) -> None:
    """On a machine without a catalog of its own, a bundle with a model of the shipped one and another makes a catalog
    that has both, and says that it is new. What is locked is what came."""
    shipped = "parsinlu-multiple-choice"
    repo = Repo("ParsBench/parsinlu-multiple-choice-alpaca-style", {"a.json": b"[]"}, repo_type="dataset")
    (tmp_path / "here").mkdir()
    with LoopbackHub([TINY, repo]) as hub:
        here = Shell(tmp_path / "here", hub.url)
        done(mdl(here, "get", shipped, "org/tiny"))
        done(mdl(here, "bundle", "export", shipped, "org/tiny", "-o", "both.tar"))
    ran = done(mdl(there, "bundle", "import", str(here.home / "both.tar"), "--json"))
    names = ["org--tiny", shipped]
    assert (sorted(ran.document["added"]), sorted(ran.document["locked"])) == (names, names)
    assert ("this catalog is new, and yours" in ran.err, "org--" in ran.err) == (True, False)
    assert [one["name"] for one in done(mdl(there, "list", "--json")).document["models"]] == names
    assert done(mdl(there, "get", "--locked", "--offline", *names)).code == 0
    assert "is new" not in done(mdl(there, "bundle", "import", str(here.home / "both.tar"))).err


def test_what_the_lock_leaves_out(there: Shell, tmp_path: Path, mdl: Inside) -> None:
    """The lock of a bundle names the formats that are left out, as the lock that it is made from: --locked --all asks
    for files that no lock has (8), there as here."""
    repo = Repo("org/two", {"config.json": b"{}", "model.safetensors": noise(900, 3), "pytorch_model.bin": b"x" * 900})
    with LoopbackHub([repo]) as hub:
        here = machine(tmp_path / "here", 'schema = 1\n[models.two]\nsource = "hf:org/two"\n', hub.url)
        done(mdl(here, "lock"))
        done(mdl(here, "get", "two"))
        done(mdl(here, "bundle", "export", "two", "-o", "two.tar"))
    done(mdl(there, "bundle", "import", str(here.home / "two.tar")))
    for shell in (here, there):
        assert "leaves out" in done(mdl(shell, "get", "--locked", "--all", "--offline", "two"), 8).err


PARTS = Repo("org/parts", {"config.json": b"{}", "w[1].bin": noise(900, 4), "other.bin": noise(900, 5)})
GGUF = Repo(
    "org/gguf", {"README.md": b"#", "m-Q4_0.gguf": b"GGUF" + noise(700, 6), "m-Q8_0.gguf": b"GGUF" + noise(900, 7)}
)


@pytest.mark.parametrize(
    ("words", "target", "fetched"),
    [
        (["org/parts", "--include", "config.json", "--include", "w*"], "org/parts", ["config.json", "w[1].bin"]),
        (["org/parts", "config.json"], "org--parts", ["config.json"]),
        (["org/gguf:Q8_0"], "org/gguf", ["m-Q8_0.gguf"]),
        (["org/parts"], "org/parts", ["config.json", "other.bin", "w[1].bin"]),
    ],
)
def test_what_was_fetched_is_the_model(
    words: list[str], target: str, fetched: list[str], there: Shell, tmp_path: Path, mdl: Inside
) -> None:
    """Of a repository that no catalog has, a bundle has the files that were fetched: all of it, or those that were
    asked for. The other machine has it whole with them, by the name that the import says."""
    with LoopbackHub([PARTS, GGUF]) as hub:
        here = machine(tmp_path / "here", endpoint=hub.url)
        done(mdl(here, "get", *words))
    told = done(mdl(here, "bundle", "export", target, "-o", "x.tar", "--json")).document["models"]
    assert [[file["path"] for file in one["files"]] for one in told] == [fetched]
    ran = done(mdl(there, "bundle", "import", str(here.home / "x.tar")))
    name = ran.err.partition("added ")[2].partition(" (hf:")[0]
    assert name == ("org/parts" if len(fetched) == 3 else told[0]["name"])
    assert done(mdl(there, "list", "--json")).document["models"][0]["files"] == len(fetched)
    done(mdl(there, "get", "--locked", "--offline", name))
    assert "nothing" not in done(mdl(there, "verify", name)).out
    done(mdl(there, "bundle", "export", name, "-o", "y.tar"))


def test_what_was_asked_for_and_is_gone_is_missing(tmp_path: Path, mdl: Inside) -> None:
    """A file that was fetched and deleted, or that the last download left, is no file that nobody asked for: 3. One
    that lies there without a receipt goes along."""
    with LoopbackHub([PARTS]) as hub:
        shell = machine(tmp_path / "here", endpoint=hub.url)
        done(mdl(shell, "get", "org/parts", "--include", "config.json", "--include", "w*"))
    folder = shell.models / "org--parts"
    (folder / "w[1].bin").rename(shell.home / "kept")
    ran = done(mdl(shell, "bundle", "export", "org/parts", "-o", "x.tar"), 3)
    assert ("mdl: org/parts/w[1].bin: " in ran.err, "other.bin" in ran.err, (shell.home / "x.tar").exists()) == (
        True,
        False,
        False,
    )
    (shell.home / "kept").rename(folder / "w[1].bin")
    (folder / "other.bin").write_bytes(PARTS.files["other.bin"])
    told = done(mdl(shell, "bundle", "export", "org/parts", "-o", "x.tar", "--json")).document["models"]
    assert [file["path"] for file in told[0]["files"]] == ["config.json", "other.bin", "w[1].bin"]


def test_gated_is_told(here: Shell, mdl: Inside) -> None:
    """Who exports a model of a gated repository is told that not everybody may have it; the bundle is the same."""
    open_, gated = (Repo("org/held", {"w.bin": b"w"}, gated=is_gated) for is_gated in (False, True))
    with LoopbackHub([open_]) as hub:
        at_hub = with_environ(here, HF_ENDPOINT=hub.url)
        done(mdl(at_hub, "get", "hf:org/held"))
        told = done(mdl(here, "bundle", "export", "hf:org/held", "-o", "open.tar", "--json")).document
        hub.publish(gated)
        done(mdl(at_hub, "get", "hf:org/held"))
    ran = done(mdl(here, "bundle", "export", "hf:org/held", "-o", "gated.tar"))
    assert ("restricted: org/held" in ran.err, told["restricted"]) == (True, [])
    assert (here.home / "gated.tar").read_bytes() == (here.home / "open.tar").read_bytes()


# --- what is not written ------------------------------------------------------------------------------------
@pytest.mark.fault(586)
def test_only_what_is_here_and_right(here: Shell, mdl: Inside) -> None:
    """A missing file is 3, an edited one 7, one of which the disk changed a bit 6: each is named, and nothing is
    written. A name that nobody knows is 3."""
    model = here.models / "tiny/model.bin"
    stamp = model.stat()
    assert "not in the catalog" in done(mdl(here, "bundle", "export", "none", "-o", "x.tar"), 3).err
    flip(model, 2 * MIB)
    os.utime(model, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    ran = done(mdl(here, "bundle", "export", "tiny", "-o", "x.tar", "--split", "1Mi"), 6)
    assert ("tiny/model.bin" in ran.err, "mdl verify tiny --repair" in ran.err) == (True, True)
    model.write_bytes(b"edited")
    assert "tiny/model.bin" in done(mdl(here, "bundle", "export", "tiny", "-o", "x.tar"), 7).err
    model.unlink()
    ran = done(mdl(here, "bundle", "export", "tiny", "-o", "x.tar"), 3)
    assert ("tiny/model.bin" in ran.err, "mdl get tiny" in ran.err) == (True, True)
    assert not [one for one in here.home.iterdir() if "x.tar" in one.name]


def test_where_it_goes(here: Shell, parts: Path, bundle: Path, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's file is not replaced (7) without --force, an earlier bundle is, and parts of a longer one go.
    Without room it is 7 before the first byte; without -o, or with a tiny part, 2."""
    (here.home / "mine.tar").write_text("mine")
    assert "--force" in done(mdl(here, "bundle", "export", "tiny", "-o", "mine.tar"), 7).err
    assert (here.home / "mine.tar").read_text() == "mine"
    done(mdl(here, "bundle", "export", "tiny", "-o", "mine.tar", "--force"))
    assert (here.home / "mine.tar").read_bytes() == bundle.read_bytes()
    place = str(parts / "tiny.tar")
    done(mdl(here, "bundle", "export", "tiny", "-o", place, "--split", "2Mi"))
    assert sorted(one.name for one in parts.iterdir()) == ["tiny.tar.000", "tiny.tar.001", "tiny.tar.sha256sums"]
    sh(parts, "sha256sum -c tiny.tar.sha256sums")
    monkeypatch.setattr(exporting, "free_space", lambda _path: 1000)
    assert "short" in done(mdl(here, "bundle", "export", "tiny", "-o", "new.tar"), 7).err
    assert not (here.home / "new.tar").exists()
    for words in (["-o", "-"], [], ["-o", "n.tar", "--split", "1k"], ["-o", "n.tar", "--split", "x"]):
        done(mdl(here, "bundle", "export", "tiny", *words), 2)


# --- entries --------------------------------------------------------------------------------------------------
@pytest.mark.fault(585)
def test_another_entry_is_not_overwritten(bundle: Path, there: Shell, mdl: Inside) -> None:
    """An entry of the same name from elsewhere is 7 before the first byte; --replace takes the bundle's, and the model
    stays in its groups. A lock of other files is 7 as well. The same entry is no trouble, and stays as it is."""
    own = CATALOG.replace("hf:org/tiny", "hf:org/other")
    write_catalog(there, own)
    ran = done(mdl(there, "bundle", "import", str(bundle)), 7)
    assert ("tiny" in ran.err, "--replace" in ran.err, models_files(there)) == (True, True, set())
    assert (there.home / "catalog.toml").read_text() == own
    done(mdl(there, "bundle", "import", str(bundle), "--replace"))
    text = (there.home / "catalog.toml").read_text()
    assert ("hf:org/tiny" in text, "hf:org/other" in text, 'nightly = ["tiny"]' in text) == (True, False, True)
    assert done(mdl(there, "get", "--offline", "nightly")).code == 0
    lock = there.home / "mdl.lock"
    lock.write_text(lock.read_text().replace(sha256(BIG), sha256(b"other")))
    assert "--replace" in done(mdl(there, "bundle", "import", str(bundle)), 7).err
    done(mdl(there, "bundle", "import", str(bundle), "--replace"))
    assert sha256(BIG) in lock.read_text()
    write_catalog(there, CATALOG)
    done(mdl(there, "bundle", "import", str(bundle)))
    assert (there.home / "catalog.toml").read_text() == CATALOG


def test_what_is_there_already(bundle: Path, there: Shell, mdl: Inside) -> None:
    """A stranger's other file in the way is 7 before the first byte, and stays; the right bytes of whoever put them
    there are adopted, not written again."""
    (there.models / "tiny").mkdir(parents=True)
    (there.models / "tiny/config.json").write_bytes(b"mine")
    ran = done(mdl(there, "bundle", "import", str(bundle)), 7)
    assert ("config.json" in ran.err, models_files(there)) == (True, {"tiny/config.json"})
    (there.models / "tiny/config.json").unlink()
    (there.models / "tiny/model.bin").write_bytes(BIG)
    before = (there.models / "tiny/model.bin").stat().st_ino
    found = done(mdl(there, "bundle", "import", str(bundle), "--json")).document
    actions = {file["path"]: file["action"] for file in found["models"][0]["files"]}
    assert (actions["model.bin"], actions["config.json"]) == ("kept", "imported")
    assert (there.models / "tiny/model.bin").stat().st_ino == before
    assert is_there(there)


# --- damage ---------------------------------------------------------------------------------------------------
def test_a_token_stops_the_search_for_damage(parts: Path, tmp_path: Path) -> None:
    """A token that is given to an import also stops the reading that finds out which part is damaged."""
    flip(parts / "tiny.tar.000", 600)  # in the first file, which is read before any other
    token = library.CancelToken()
    token.set()
    client = library.Client(home=tmp_path / "models", catalog=tmp_path / "catalog.toml")
    with pytest.raises(library.Cancelled):
        import_bundle(client, parts / "tiny.tar.000", cancel=token)


@pytest.mark.fault(581)
@pytest.mark.fault(582)
def test_damage_is_named(parts: Path, there: Shell, mdl: Inside) -> None:
    """A flipped byte, a truncated part and a missing part: each is named, no wrong file is published, and after the
    part was copied again the import goes on with what is there."""
    place, part, last = str(parts / "tiny.tar"), parts / "tiny.tar.001", parts / "tiny.tar.003"
    right = part.read_bytes()
    flip(part, 5)
    ran = done(mdl(there, "bundle", "import", place), 6)
    assert "tiny.tar.001 is damaged" in ran.err
    (parts / "tiny.tar.000").rename(parts / "elsewhere")
    assert "tiny.tar.000: this part" in done(mdl(there, "bundle", "import", place), 3).err
    (parts / "elsewhere").rename(parts / "tiny.tar.000")
    sums = (parts / "tiny.tar.sha256sums").read_bytes()
    (parts / "tiny.tar.sha256sums").write_bytes(sums[1:])
    assert "tiny.tar.sha256sums: it is damaged" in done(mdl(there, "bundle", "import", place), 6).err
    (parts / "tiny.tar.sha256sums").write_bytes(sums)
    assert "tiny/model.bin" not in models_files(there)
    part.write_bytes(right[:-1])
    assert "tiny.tar.001 is damaged" in done(mdl(there, "bundle", "import", place), 6).err
    part.write_bytes(right)
    last.rename(parts / "away")
    assert "tiny.tar.003: this part" in done(mdl(there, "bundle", "import", place), 3).err
    (parts / "tiny.tar.sha256sums").unlink()
    assert "ends too early" in done(mdl(there, "bundle", "import", place), 6).err
    (parts / "away").rename(last)
    found = done(mdl(there, "bundle", "import", place, "--json")).document
    assert {file["action"] for file in found["models"][0]["files"]} <= {"imported", "kept"}
    assert is_there(there)


@pytest.mark.fault(581)
@pytest.mark.parametrize("is_noticed", [True, False])
def test_wrong_bytes(is_noticed: bool, bundle: Path, there: Shell, mdl: Inside) -> None:
    """A byte that changed on the way is 6 and the file is not published. The control: if the list and the lock of the
    bundle say the same of it, it is published."""
    flip(bundle, bundle.read_bytes().index(BIG[:100]) + 2 * MIB)
    if not is_noticed:
        found = members_of(bundle)
        [changed] = [data for info, data in found if info.name.endswith("model.bin")]
        _edited("mdl.lock", sha256(BIG).encode(), sha256(changed).encode())(found)
        bundle.write_bytes(tar_of(found))
    ran = mdl(there, "bundle", "import", str(bundle))
    assert ran.code == (6 if is_noticed else 0)
    assert ("tiny/model.bin" in models_files(there)) is not is_noticed
    assert not is_there(there)


def test_no_room(bundle: Path, there: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is 7 before the first byte is written."""
    monkeypatch.setattr(Store, "free_space", lambda _store: 1000)
    assert "short" in done(mdl(there, "bundle", "import", str(bundle)), 7).err
    assert models_files(there) == set()


# --- hostile bundles --------------------------------------------------------------------------------------------


def _special(kind: bytes, name: str = "models/tiny/model.bin", **facts: str) -> Callable[[Bundled], None]:
    def change(found: Bundled) -> None:
        info = tarfile.TarInfo(f"{TOP}/{name}")
        info.type, info.linkname = kind, facts.get("to", "/etc/passwd")
        info.pax_headers = {key: value for key, value in facts.items() if key != "to"}
        found.insert(4, (info, b""))

    return change


def _extra(name: str, *, listed: bool = False) -> Callable[[Bundled], None]:
    def change(found: Bundled) -> None:
        found.append((tarfile.TarInfo(name), b"evil"))
        if listed:
            resummed(found)

    return change


def _edited(name: str, old: bytes, new: bytes) -> Callable[[Bundled], None]:
    """Text of a bundle that somebody changed, together with its digest."""

    def change(found: Bundled) -> None:
        at, (info, data) = next((at, one) for at, one in enumerate(found) if one[0].name == f"{TOP}/{name}")
        assert old in data
        found[at] = (info, data.replace(old, new))
        resummed(found)

    return change


def _twice(found: Bundled) -> None:
    found.append(found[-1])


def _shorter(found: Bundled) -> None:
    found[:] = [(info, data[:-1] if info.name.endswith("model.bin") else data) for info, data in found]
    resummed(found)


HOSTILE: dict[str, tuple[Callable[[Bundled], None], int]] = {
    "a symbolic link": (_special(tarfile.SYMTYPE), 11),
    "a hard link": (_special(tarfile.LNKTYPE, to=f"{TOP}/README.txt"), 11),
    "a device": (_special(tarfile.CHRTYPE), 11),
    "a pipe": (_special(tarfile.FIFOTYPE), 11),
    "a link in a pax header": (_special(tarfile.REGTYPE, linkpath="/etc/passwd"), 11),
    "a sparse file": (_special(tarfile.REGTYPE, **{"GNU.sparse.major": "1"}), 11),
    "a huge pax header": (_special(tarfile.REGTYPE, comment="x" * 2**17), 11),
    "..": (_extra(f"{TOP}/models/tiny/../../../evil"), 11),
    "an absolute path": (_extra("/tmp/evil"), 11),
    "another folder": (_extra("elsewhere/evil"), 11),
    "a file that is not listed": (_extra(f"{TOP}/models/tiny/evil"), 11),
    "a file of no model": (_extra(f"{TOP}/models/other/evil", listed=True), 11),
    "a twin": (_twice, 11),
    "a twin by case": (_extra(f"{TOP}/models/tiny/MODEL.bin", listed=True), 11),
    "mdl's own folder": (_extra(f"{TOP}/.mdl/receipts/x"), 11),
    "another size": (_shorter, 6),
    "a catalog that reads files": (
        _edited("catalog.toml", b"schema = 1", b'schema = 1\nextends = ["/etc/passwd"]'),
        11,
    ),
    "a model called ..": (_edited("catalog.toml", b"[models.tiny]", b'[models.".."]'), 6),
    "an entry that is not locked": (_edited("catalog.toml", b"org/tiny", b"org/evil"), 6),
    "a lock without a digest": (_edited("mdl.lock", f', sha256 = "{sha256(BIG)}"'.encode(), b""), 6),
    "a path in the lock": (_edited("mdl.lock", b'path = "empty.txt"', b'path = "../empty.txt"'), 6),
    "another repository in the lock": (_edited("mdl.lock", b"hf:org/tiny@", b"hf:org/evil@"), 11),
    "another host in the lock": (
        _edited("mdl.lock", b'path = "model.bin",', b'path = "model.bin", source = "https://evil.example/model.bin",'),
        11,
    ),
    "a mirror in the lock": (
        _edited("mdl.lock", b'path = "model.bin",', b'path = "model.bin", mirrors = ["https://evil.example/x"],'),
        11,
    ),
    "a lock of other bytes": (_edited("mdl.lock", sha256(BIG).encode(), sha256(b"evil").encode()), 6),
}


@pytest.mark.fault(506)
@pytest.mark.fault(583)
@pytest.mark.fault(584)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str, bundle: Path, there: Shell, mdl: Inside) -> None:
    """Each is refused by name; nothing appears outside the models folder, no wrong file inside it, and neither catalog
    nor lock is touched."""
    change, code = HOSTILE[name]
    found = members_of(bundle)
    change(found)
    bundle.write_bytes(tar_of(found))
    before = set(there.home.parent.iterdir())
    ran = done(mdl(there, "bundle", "import", str(bundle)), code)
    assert "hint:" in ran.err
    assert models_files(there) <= {f"tiny/{path}" for path in TINY.files if path != "model.bin"}
    assert not (there.home / ".config").exists()
    assert set(there.home.parent.iterdir()) == before


@pytest.mark.fault(582)
def test_a_plain_tar_is_no_bundle(there: Shell, mdl: Inside, tmp_path: Path) -> None:
    """A zip, a compressed tar, an empty file, a tar of something else and a folder: refused in words."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    for data, code in (
        (b"\x28\xb5\x2f\xfd" + bytes(600), 6),
        (b"PK\x03\x04" * 300, 6),
        (out.getvalue(), 6),
        (b"", 6),
        (tar_of([(tarfile.TarInfo("a"), b"")]), 11),
    ):
        (tmp_path / "x.tar").write_bytes(data)
        assert "hint:" in done(mdl(there, "bundle", "import", str(tmp_path / "x.tar")), code).err
    (tmp_path / "x.tar").write_bytes(out.getvalue() + bytes(600))
    assert "gunzip" in done(mdl(there, "bundle", "import", str(tmp_path / "x.tar")), 6).err
    assert "to a file first" in done(mdl(there, "bundle", "import", "-"), 2).err
    assert "hint:" in done(mdl(there, "bundle", "import", str(tmp_path / "none.tar")), 3).err
    assert "tar -cf" in done(mdl(there, "bundle", "import", str(tmp_path)), 2).err


@pytest.mark.fault(587)
def test_stopped_on_the_way(here: Shell, there: Shell, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop in the middle: an export leaves nothing behind, an import no part of a file; the next one brings all."""
    monkeypatch.setattr(streaming, "BETWEEN", 0.0)

    def client(shell: Shell) -> tuple[library.Client, Callable[[Event], None]]:
        for name, value in shell.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(shell.home)
        stop = library.CancelToken()

        def stop_in_the_middle(event: Event) -> None:
            if isinstance(event, Progressed) and MIB < event.bytes_done < len(BIG):
                stop.set()

        return library.Client(cancel=stop), stop_in_the_middle

    exporter, listener = client(here)
    before = listing(here.home)
    with pytest.raises(library.Cancelled):
        export_bundle(exporter, "tiny", "x.tar", on_event=listener)
    assert {name for name in listing(here.home) if ".mdl/" not in name} == {
        name for name in before if ".mdl/" not in name
    }
    importer, listener = client(there)
    with pytest.raises(library.Cancelled):
        import_bundle(importer, bundle, on_event=listener)
    assert "tiny/model.bin" not in models_files(there)
    assert not [one for one in (there.models / ".mdl").rglob("*") if one.name == "data"]
    import_bundle(library.Client(), bundle)
    assert is_there(there)


@pytest.mark.fault(580)
@pytest.mark.parametrize(("command", "number"), [("export", 4), ("import", 18)])
def test_killed(command: str, number: int, here: Shell, there: Shell, bundle: Path, tmp_path: Path) -> None:
    """SIGKILL before one of its calls that change the disk: nothing stands under the bundle's name; the same command
    again ends with 0, all is right, and nothing is left over. (benchmarks/sweep.py does this at every call.)"""
    if not tracing_works(tmp_path):
        pytest.skip("nothing can be traced and killed at a call here")
    shell, place = (here, here.home / "x.tar") if command == "export" else (there, bundle)
    words = ["bundle", "export", "tiny", "-o", "x.tar"] if command == "export" else ["bundle", "import", str(bundle)]
    ended = killed_at(number, shell.command(*words), shell.environ, shell.home, tmp_path / "log")
    assert (ended.code, ended.calls) == (-signal.SIGKILL, number), (tmp_path / "log").read_text()
    assert place.exists() is (command == "import")
    done(shell.run(*words))
    assert place.read_bytes() == bundle.read_bytes()
    assert is_there(shell)
    assert not [one for one in (shell.home, *shell.home.rglob("*")) if one.name.endswith(".mdl-tmp")]
