"""mdl export: lists of the lock's files, read back by the programs that they are for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.catalogs import entry_of
from support.data import sha256
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Shell, done, machine, write_catalog

from mdl.ops.export import FORMATS

ODD = (
    *("plain.bin", "with a blank.bin", "it's.bin", 'say "hi".bin', "100% & more.bin", "#1+2=3.bin", "<tag>.bin"),
    *("مدل.bin", "e\u0301.bin", "sub folder/inner, file;1.bin", "-o.bin", "$(id).bin", "a\u2003b.bin"),
)
TINY = Repo("org/tiny", {name: f"{name}\n".encode() * 50 for name in ODD}, lfs_threshold=0)
MIXED = Repo("org/mixed", {"config.json": b"{}", "model.bin": b"1" * 5000}, lfs_threshold=1000)
CATALOG = 'schema = 1\n[models."a model"]\nsource = "hf:org/tiny"\n[models.mixed]\nsource = "hf:org/mixed"\n'
METALINK = "{urn:ietf:params:xml:ns:metalink}"
REPOS = [TINY, MIXED]


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> Shell:
    shell = machine(tmp_path / "home", CATALOG, hub.url, HF_TOKEN="hf_" + "x" * 30)
    done(mdl(shell, "lock"))
    return shell


def used(program: str, *words: str, folder: Path, text: str) -> str:
    """What the program says to ``text`` on its standard input."""
    if not (found := shutil.which(program)):
        pytest.skip(f"{program} is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    command = [found, *words]
    ran = subprocess.run(command, cwd=folder, input=text, text=True, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def files_in(folder: Path) -> dict[str, bytes]:
    """What is below a folder, but for mdl's own."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".mdl" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


WANTED = {f"a model/{name}": bytes(data) for name, data in TINY.files.items() if isinstance(data, bytes)}


@pytest.mark.parametrize(("name", "flag"), [("aria2", "-i"), ("metalink", "-M")])
def test_aria2_brings_every_file(shell: Shell, mdl: Inside, tmp_path: Path, name: str, flag: str) -> None:
    """aria2c reads the list and lays every file out as get does, whatever its name, and compares it with its sha256;
    mdl then finds all of it right and fetches nothing."""
    text = done(mdl(shell, "export", "a model", "--format", name)).out
    (tmp_path / "list").write_text(text)
    common = ("-q", "--no-conf", "--check-integrity=true", "--file-allocation=none", "--allow-overwrite=false")
    used("aria2c", *common, flag, str(tmp_path / "list"), folder=shell.models, text="")
    found = files_in(shell.models)
    if name == "metalink":  # aria2 takes the & of an attribute for what XML writes in its place
        found = {path.replace("&#38;", "&"): data for path, data in found.items()}
        (shell.models / "a model/100% &#38; more.bin").replace(shell.models / "a model/100% & more.bin")
    assert found == WANTED
    facts = done(mdl(shell, "get", "a model", "--json")).document
    assert (facts["bytes_fetched"], facts["bytes_kept"]) == (0, sum(map(len, WANTED.values())))


def test_aria2_sees_a_wrong_sum(shell: Shell, mdl: Inside, tmp_path: Path) -> None:
    """The control: with one other digest in the list aria2c refuses what comes."""
    text = done(mdl(shell, "export", "a model", "--format", "aria2")).out
    wrong = sha256(WANTED["a model/plain.bin"])
    assert wrong in text
    (tmp_path / "list").write_text(text.replace(wrong, sha256(b"other")))
    with pytest.raises(AssertionError, match=r"(?i)checksum"):
        used("aria2c", "--no-conf", "-i", str(tmp_path / "list"), folder=shell.models, text="")


def test_sha256sum_checks_what_is_here(shell: Shell, mdl: Inside) -> None:
    """sha256sum finds every file right that get brought, and one that was changed afterwards wrong."""
    done(mdl(shell, "get", "a model"))
    text = done(mdl(shell, "export", "a model", "--format", "sha256sums")).out
    assert used("sha256sum", "--strict", "-c", folder=shell.models, text=text).count(": OK\n") == len(WANTED)
    (shell.models / "a model/plain.bin").unlink()
    (shell.models / "a model/plain.bin").write_bytes(b"other")
    with pytest.raises(AssertionError, match=r"plain.bin: FAILED"):
        used("sha256sum", "--strict", "-c", folder=shell.models, text=text)


def test_metalink_is_as_the_rfc_says(shell: Shell, mdl: Inside, hub: LoopbackHub) -> None:
    """Each file has its name, size, sha256 and a URL at the locked commit, which has no blank in it."""
    found = ElementTree.fromstring(done(mdl(shell, "export", "--format", "metalink")).out)
    rows = {str(one.get("name")): one for one in found.iter(f"{METALINK}file")}
    assert rows.keys() == WANTED.keys() | {"mixed/config.json", "mixed/model.bin"}
    for name, data in WANTED.items():
        facts = {part.tag.removeprefix(METALINK): part.text or "" for part in rows[name]}
        url = facts.pop("url")
        assert facts == {"size": str(len(data)), "hash": sha256(data)}
        assert url.startswith(f"{hub.url}/org/tiny/resolve/{TINY.commit}/")
        assert url.isascii()
        assert not set(' "<>') & set(url)


def test_what_is_left_out_is_told(shell: Shell, mdl: Inside) -> None:
    """A file of which only the git digest is known is in no list of sha256, and a URL with a query, which may hold a
    secret, in no list of URLs; both are told, and the rest is written."""
    ran = done(mdl(shell, "export", "mixed", "--format", "sha256sums"))
    assert ran.out == f"{sha256(b'1' * 5000)}  mixed/model.bin\n"
    assert ran.err == "left out: mixed/config.json: no sha256 of it is known\n"
    signed = entry_of("signed", "http://127.0.0.1:9/f.bin?X-Amz-Signature=abcdef")
    version = entry_of("version", "http://127.0.0.1:10/f.bin?version=2")
    odd = entry_of("odd", "http://127.0.0.1:9/a&b].bin")
    write_catalog(shell, CATALOG + signed + odd + version)
    done(mdl(shell, "lock"))
    for name in FORMATS:
        ran = done(mdl(shell, "export", "signed", "odd", "--format", name))
        assert "abcdef" not in ran.out + ran.err
        assert ("signed/f.bin" in ran.err, "odd/f.bin" in ran.err) == (name != "sha256sums", False)
    assert done(mdl(shell, "export", "version")).out == "http://127.0.0.1:10/f.bin?version=2\n"
    text = done(mdl(shell, "export", "odd", "--format", "metalink")).out
    assert [one.text for one in ElementTree.fromstring(text).iter(f"{METALINK}url")] == ["http://127.0.0.1:9/a&b].bin"]


def test_nothing_to_export(tmp_path: Path, mdl: Inside) -> None:
    """Without a lock, and for a model that it does not cover, it is 8, and the hint says how to lock; an unknown name
    is 3; nothing is written and nobody is asked."""
    shell = machine(tmp_path / "home", CATALOG)
    for words in (["export"], ["export", "mixed"]):
        ran = done(mdl(shell, *words), 8)
        assert (ran.out, "mdl lock" in ran.err) == ("", True)
    assert "a model" in done(mdl(shell, "export", "a mode"), 3).err
    assert not shell.models.exists()
    document = done(mdl(shell, "export", "--json"), 8).document
    assert (document["text"], document["files"]) == ("", [])


def test_the_document_has_the_list(shell: Shell, mdl: Inside, hub: LoopbackHub) -> None:
    """--json holds the same text and its facts; the list of URLs is one a line; a token is nowhere."""
    document = done(mdl(shell, "export", "mixed", "--json")).document
    urls = [f"{hub.url}/org/mixed/resolve/{MIXED.commit}/{name}" for name in ("config.json", "model.bin")]
    assert document["text"] == "".join(f"{url}\n" for url in urls)
    facts = {"model": "mixed", "path": "mixed/model.bin", "url": urls[1], "mirrors": [], "size": 5000}
    assert document["files"][1] == facts | {"sha256": sha256(b"1" * 5000)}
    assert "hf_xxx" not in str(document)
