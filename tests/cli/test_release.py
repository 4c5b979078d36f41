"""Releases: an archive put into service in one switch, and the way back; nothing half, nothing of another's touched."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from support.releases import Site, files_of, zipped
from support.shell import Ran, Shell

from mdl.archive.manifest import NAME, Manifest

Files = Mapping[str, bytes]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def mdl(shell: Shell, letter: str, *words: str) -> Ran:
    """``mdl unpack LETTER.zip --to srv --release``."""
    archive = zipped(shell.home / f"{letter}.zip", files_of(letter))
    return shell.run("unpack", str(archive), "--to", "srv", "--release", *words)


def test_layout_and_streams(site: Site, shell: Shell) -> None:
    """releases/<version>, a relative link, releases.json; the release's folder is the one line on stdout."""
    ran = mdl(shell, "a")
    version = os.readlink(site.folder / "current").removeprefix("releases/")
    assert (ran.code, ran.out) == (0, f"{site.folder}/releases/{version}\n"), ran.err
    place = Path(ran.out.strip())
    assert {str(one.relative_to(place)) for one in place.rglob("*") if one.is_file()} == {*files_of("a"), NAME}
    assert all((place / name).read_bytes() == data for name, data in files_of("a").items())
    record = site.record
    assert (record["schema"], record["active"], record["releases"]) == ("mdl.releases/1", version, [version])
    assert {name.name for name in site.folder.iterdir()} == {".mdl", "current", "releases", "releases.json"}


@pytest.mark.parametrize("manifest", [True, False], ids=["mdl's", "foreign"])
def test_a_release_is_read_only_and_has_its_manifest(site: Site, tmp_path: Path, manifest: bool) -> None:
    """No file of a release has a write bit; a manifest with right digests is in it, also of a foreign zip."""
    place = site.release(zipped(tmp_path / "x.zip", files_of("a"), manifest=manifest)).path
    writable = {one.name: one.stat().st_mode & 0o222 for one in place.rglob("*") if one.is_file()}
    assert writable == {"config.json": 0, "model.bin": 0, "vocab.txt": 0, NAME: 0}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files_of("a").items()}
    assert {one.path: one.sha256 for one in Manifest.from_json((place / NAME).read_bytes()).files} == digests


def test_the_version_comes_from_the_content(site: Site, tmp_path: Path) -> None:
    """step-1500-<12 hex>: other times, order or packer keep the hex part; one other byte or name changes it."""
    first = site.release(zipped(tmp_path / "1.zip", files_of("a"), step=1500)).version
    step, hexes = first.rsplit("-", 1)
    assert (step, len(hexes), int(hexes, 16) >= 0) == ("step-1500", 12, True)
    again = site.release(zipped(tmp_path / "2.zip", files_of("a"), step=1500, year=2001))
    assert (again.version, again.changed) == (first, False)
    foreign = zipped(tmp_path / "3.zip", files_of("a"), manifest=False, year=2001)
    assert site.release(foreign).version == f"model-{hexes}"
    for other in ({"config.json": b'{"layers": 3}\n'}, {"more": b""}):
        assert hexes not in site.release(zipped(tmp_path / "4.zip", files_of("a") | other, step=1500)).version


@pytest.mark.skipif(not shutil.which("zip"), reason="needs zip")
def test_the_zip_command_gives_the_same_version(site: Site, tmp_path: Path) -> None:
    """What `zip -r` made of the same files is the same release: active already."""
    place = site.release(zipped(tmp_path / "x.zip", files_of("a"), manifest=False)).path
    zipfile.ZipFile(tmp_path / "x.zip").extractall(tmp_path / "tree")
    subprocess.run(["zip", "-qr", str(tmp_path / "y.zip"), "."], cwd=tmp_path / "tree", check=True)
    done = site.release(tmp_path / "y.zip")
    assert (done.path, done.changed, site.letters) == (place, False, "a")


@pytest.mark.parametrize("manifest", [True, False], ids=["mdl's", "foreign"])
def test_unchanged_files_are_linked(site: Site, tmp_path: Path, manifest: bool) -> None:
    """A file that did not change is one inode with that of the release before; what changed is another."""
    first = site.release("a").path
    done = site.release(zipped(tmp_path / "x.zip", files_of("b"), manifest=manifest))
    assert (done.linked, site.served) == (1, "b")
    assert (done.path / "config.json").samefile(first / "config.json")
    assert not (done.path / "model.bin").samefile(first / "model.bin")
    assert (first / "model.bin").read_bytes() == files_of("a")["model.bin"]


def test_keep_goes_by_the_recorded_order(site: Site) -> None:
    """--keep N removes the oldest as recorded, whatever their times and names say."""
    for age, letter in enumerate("abcd"):
        place = site.release(letter, keep=9).path
        os.utime(place, (2_000_000_000 - age, 2_000_000_000 - age))
    assert site.letters == "abcd"
    order = site.record["releases"]
    assert order[:2] != sorted(order)[:2]
    done = site.release("e", keep=3)
    assert (done.removed, site.letters, site.served) == (tuple(order[:2]), "cde", "e")
    assert site.record["releases"] == [*order[2:], done.version]


def test_keep_spares_the_previous(site: Site) -> None:
    """--keep 1 keeps the active and the previous one, also where the previous is the oldest of all."""
    for letter in "abc":
        site.release(letter, keep=9)
    site.release("a", keep=9)
    assert (site.release("d", keep=1).previous, site.letters) == (site.record["previous"], "ad")
    assert (site.back().changed, site.served) == (True, "a")


def test_the_same_again_touches_nothing(site: Site, shell: Shell) -> None:
    """The same archive again: exit 0, changed false, and not one inode, time or mode is another."""
    assert mdl(shell, "a").code == 0
    before, ran = site.facts(), mdl(shell, "a", "--json")
    assert (ran.code, ran.document["release"]["changed"]) == (0, False)
    assert site.facts() == before
    assert len(before) == 9


_SPY = """\
import json, os, sys
print("spy speaks")
facts = {"argv": sys.argv[3:], "cwd": os.getcwd(), "release": os.environ["MDL_RELEASE_PATH"],
         "files": os.listdir(os.environ["MDL_RELEASE_PATH"]),
         "version": os.environ["MDL_RELEASE_VERSION"], "current": os.path.lexists(sys.argv[1] + "/current")}
open(sys.argv[1] + ".spy", "w").write(json.dumps(facts))
sys.exit(int(sys.argv[2]))
"""


def spy(site: Site, code: int, more: str = "") -> str:
    script = site.folder.parent / "spy.py"
    script.write_text(_SPY)
    return f"{shlex.join([sys.executable, str(script), str(site.folder), str(code)])} {more}"


def test_the_check_sees_the_release_before_it_is_served(site: Site, shell: Shell) -> None:
    """The check runs where mdl runs, with its words as given and no shell; what it prints goes to stderr."""
    ran = mdl(shell, "a", "--check", spy(site, 0, "'two words' * '$HOME' '>out'"), "--json")
    assert (ran.code, "spy speaks" in ran.err) == (0, True), ran.err
    seen, version = json.loads(Path(f"{site.folder}.spy").read_text()), ran.document["release"]["version"]
    assert seen["argv"] == ["two words", "*", "$HOME", ">out"]
    assert (seen["version"], seen["current"], seen["cwd"]) == (version, False, str(shell.home))
    assert Path(seen["release"]).parent == site.folder / "releases"
    assert {"config.json", "model.bin", "text"} <= set(seen["files"])


@pytest.mark.parametrize(("check", "code"), [("", 6), ("false", 6), ("no-such-command-anywhere", 2), ("'unclosed", 2)])
def test_a_check_that_fails_switches_nothing(site: Site, shell: Shell, check: str, code: int) -> None:
    """A check that fails is 6, one that cannot be run 2; current stays and nothing of the new one is left."""
    site.release("a")
    before = {name: facts[:3] for name, facts in site.facts().items()}
    ran = mdl(shell, "b", "--check", check or spy(site, 3), "--json")
    assert (ran.code, ran.document["path"], site.served, site.letters) == (code, None, "a", "a"), ran.err
    assert {name: facts[:3] for name, facts in site.facts().items()} == before
    assert mdl(shell, "b", "--check", spy(site, 0)).code == 0
    assert site.served == "b"


@pytest.mark.parametrize("more", ["; exit 3", "&& true", "| cat", "> out", "$HOME", "`id`", "$(id)"])
def test_a_check_that_needs_a_shell_is_refused(site: Site, shell: Shell, more: str) -> None:
    """What only a shell understands is a usage error (2), never a word that is passed on in silence."""
    ran = mdl(shell, "a", "--check", spy(site, 0, more))
    assert (ran.code, (site.folder / "current").exists()) == (2, False)
    assert "shell" in ran.err


def test_an_empty_check_is_a_usage_error(site: Site, shell: Shell) -> None:
    """A check of nothing but blanks cannot be run: 2."""
    assert mdl(shell, "a", "--check", " ").code == 2


def test_a_check_may_use_mdl(site: Site, shell: Shell) -> None:
    """What the check is given does not upset an mdl that the check runs."""
    assert mdl(shell, "b").code == 0
    ran = mdl(shell, "a", "--check", shlex.join(shell.command("unpack", str(shell.home / "b.zip"), "--list")))
    assert (ran.code, site.served) == (0, "a"), ran.err


def test_rollback_goes_the_way_back(site: Site, shell: Shell) -> None:
    """a, b, c, then rollback twice: b, then a, with history and document; a third time, and never released: 3."""
    assert shell.run("rollback", "srv").code == 3
    done = [site.release(letter) for letter in "abc"]
    ran = shell.run("rollback", "srv", "--json")
    assert (ran.code, site.served, ran.document["schema"]) == (0, "b", "mdl.rollback/1"), ran.err
    assert ran.document["release"]["version"] == done[1].version
    assert ran.document["release"]["previous"] == done[0].version
    ran = shell.run("rollback", "srv")
    assert (ran.code, ran.out, site.served) == (0, f"{done[0].path}\n", "a")
    assert [one["why"] for one in site.record["switches"]] == ["release"] * 3 + ["rollback"] * 2
    before, ran = site.facts(), shell.run("rollback", "srv", "--json")
    assert (ran.code, ran.document["error"]["code"], site.facts()) == (3, "NOTFOUND", before)


def test_released_again_after_a_rollback(site: Site, shell: Shell) -> None:
    """What was rolled back from is marked; released again it serves, and it is said on stderr."""
    first, second = site.release("a"), site.release("b")
    site.back()
    ran = mdl(shell, "b")
    assert (ran.code, site.served, site.record["withdrawn"]) == (0, "b", [])
    assert f"{second.version} was rolled back from before" in ran.err
    assert site.record["previous"] == first.version


def test_usage(shell: Shell) -> None:
    """--release without --to, --check without --release and --keep 0 are 2; nothing is written."""
    zipped(shell.home / "a.zip", files_of("a"))
    for words in (["--release"], ["--check", "true", "--to", "x"], ["--to", "x", "--release", "--keep", "0"]):
        assert shell.run("unpack", "a.zip", *words).code == 2, words
    assert [one.name for one in shell.home.iterdir()] == ["a.zip"]


def test_the_document(site: Site, shell: Shell) -> None:
    """unpack --release --json tells path, size, files, sha256 and what changed."""
    first = mdl(shell, "a", "--json").document["release"]
    assert first == {"version": site.record["active"], "changed": True, "previous": None, "linked": 0, "removed": []}
    document = mdl(shell, "b", "--json").document
    version = site.record["active"]
    assert (document["schema"], document["ok"], document["exit_code"]) == ("mdl.unpack/1", True, 0)
    assert document["path"] == f"{site.folder}/releases/{version}"
    assert (document["files"], document["bytes"]) == (3, sum(map(len, files_of("b").values())))
    assert document["sha256"] == hashlib.sha256((shell.home / "b.zip").read_bytes()).hexdigest()
    assert document["release"] == first | {"version": version, "previous": first["version"], "linked": 1}


def test_no_secret_gets_out(site: Site, shell: Shell) -> None:
    """A token of the environment is in no stream and no file, also where the check fails and all is told."""
    token = "hf_" + "s3cret" * 6
    shell = replace(shell, extra={"HF_TOKEN": token, "AWS_SECRET_ACCESS_KEY": token})
    runs = [mdl(shell, "a", "-v", "--json"), mdl(shell, "b", "-v", "--check", spy(site, 1)), shell.run("rollback", "x")]
    assert [one.code for one in runs] == [0, 6, 3]
    written = b"".join(one.read_bytes() for one in site.folder.rglob("*") if one.is_file())
    assert (b"mdl.releases/1" in written, token.encode() in written) == (True, False)
    assert token not in "".join(one.out + one.err for one in runs)
