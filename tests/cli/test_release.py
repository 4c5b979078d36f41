"""Releases: an archive put into service in one switch, and the way back; nothing half, nothing foreign touched."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from support.releases import Site, files_of, zipped
from support.shell import Inside, Ran, Shell, with_environ
from support.weights import whole_file

from mdl.archive.manifest import NAME, Manifest
from mdl.disk import publish
from mdl.errors import DigestMismatch, Occupied, ProtocolError
from mdl.events import Event, Noticed
from mdl.ops.release import releases, rollback


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def released(mdl: Inside, shell: Shell) -> Callable[..., Ran]:
    """``mdl unpack LETTER.zip --to srv --release``."""

    def run(letter: str, *words: str) -> Ran:
        zipped(shell.home / f"{letter}.zip", files_of(letter))
        return mdl(shell, "unpack", f"{letter}.zip", "--to", "srv", "--release", *words)

    return run


def test_layout_and_streams(site: Site, released: Callable[..., Ran]) -> None:
    """releases/<version>, a relative link, releases.json; the release's folder is the one line on stdout."""
    ran = released("a")
    version = os.readlink(site.folder / "current").removeprefix("releases/")
    assert (ran.code, ran.out) == (0, f"{site.folder}/releases/{version}\n"), ran.err
    place = Path(ran.out.strip())
    assert {str(one.relative_to(place)) for one in place.rglob("*") if one.is_file()} == {*files_of("a"), NAME}
    assert all((place / name).read_bytes() == data for name, data in files_of("a").items())
    record = site.record
    assert (record["schema"], record["active"], record["releases"]) == ("mdl.releases/1", version, [version])
    assert {name.name for name in site.folder.iterdir()} == {".mdl", "current", "releases", "releases.json"}


@pytest.mark.parametrize("manifest", [True, False], ids=["mdl's", "foreign"])
def test_files_are_read_only_and_linked(site: Site, tmp_path: Path, manifest: bool) -> None:
    """No file of a release has a write bit; a manifest with right digests is in it, also of a foreign zip. A file that
    did not change is one inode with that of the release before; what changed is another."""
    first = site.release("a").path
    done = site.release(zipped(tmp_path / "x.zip", files_of("b"), manifest=manifest))
    writable = {one.name: one.stat().st_mode & 0o222 for one in done.path.rglob("*") if one.is_file()}
    assert writable == {"config.json": 0, "model.bin": 0, "vocab.txt": 0, NAME: 0}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files_of("b").items()}
    assert {one.path: one.sha256 for one in Manifest.from_json((done.path / NAME).read_bytes()).files} == digests
    assert (done.linked, site.served) == (1, "b")
    assert (done.path / "config.json").samefile(first / "config.json")
    assert not (done.path / "model.bin").samefile(first / "model.bin")
    assert (first / "model.bin").read_bytes() == files_of("a")["model.bin"]


def test_the_version_comes_from_the_content(site: Site, tmp_path: Path) -> None:
    """step-1500-<12 hex>: other times, order or packer keep the hex part; one other byte or name changes it."""
    first = site.release(zipped(tmp_path / "1.zip", files_of("a"), step=1500)).version
    step, hexes = first.rsplit("-", 1)
    assert (step, len(hexes), int(hexes, 16) >= 0) == ("step-1500", 12, True)
    again = site.release(zipped(tmp_path / "2.zip", files_of("a"), step=1500, year=2001))
    assert (again.version, again.changed) == (first, False)
    foreign = site.release(zipped(tmp_path / "3.zip", files_of("a"), manifest=False, year=2001))
    assert foreign.version == f"model-{hexes}"
    if shutil.which("zip"):
        zipfile.ZipFile(tmp_path / "3.zip").extractall(tmp_path / "tree")
        subprocess.run(["zip", "-qr", str(tmp_path / "y.zip"), "."], cwd=tmp_path / "tree", check=True)
        done = site.release(tmp_path / "y.zip")
        assert (done.path, done.changed) == (foreign.path, False)
    for other in ({"config.json": b'{"layers": 3}\n'}, {"more": b""}):
        assert hexes not in site.release(zipped(tmp_path / "4.zip", files_of("a") | other, step=1500)).version


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
    """--keep 1 keeps the active and the previous one, also if the previous is the oldest of all."""
    for letter in "abca":
        site.release(letter, keep=9)
    assert (site.release("d", keep=1).previous, site.letters) == (site.record["previous"], "ad")
    assert (site.back().changed, site.served) == (True, "a")


def test_the_document(site: Site, shell: Shell, released: Callable[..., Ran]) -> None:
    """unpack --release --json tells path, size, files, sha256 and what changed. The same archive again: exit 0, changed
    false, and not one inode, time or mode is another."""
    first = released("a", "--json").document["release"]
    assert first == {"version": site.record["active"], "changed": True, "previous": None, "linked": 0, "removed": []}
    document = released("b", "--json").document
    version = site.record["active"]
    assert (document["schema"], document["ok"], document["exit_code"]) == ("mdl.unpack/1", True, 0)
    assert document["path"] == f"{site.folder}/releases/{version}"
    assert (document["files"], document["bytes"]) == (3, sum(map(len, files_of("b").values())))
    assert document["sha256"] == hashlib.sha256((shell.home / "b.zip").read_bytes()).hexdigest()
    assert document["release"] == first | {"version": version, "previous": first["version"], "linked": 1}
    before, ran = site.facts(), released("b", "--json")
    assert (ran.code, ran.document["release"]["changed"], site.facts(), len(before)) == (0, False, before, 15)


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


def test_the_check_sees_the_release_before_it_is_served(site: Site, shell: Shell, released: Callable[..., Ran]) -> None:
    """The check runs in the new folder, with its words as given and no shell; what it prints goes to stderr. It may use
    mdl."""
    ran = released("a", "--check", spy(site, 0, "'two words' * '$HOME' '>out'"), "--json")
    assert (ran.code, "spy speaks" in ran.err) == (0, True), ran.err
    seen, version = json.loads(Path(f"{site.folder}.spy").read_text()), ran.document["release"]["version"]
    assert seen["argv"] == ["two words", "*", "$HOME", ">out"]
    assert (seen["version"], seen["current"], seen["cwd"]) == (version, False, seen["release"])
    assert Path(seen["release"]).parent == site.folder / "releases"
    assert {"config.json", "model.bin", "text"} <= set(seen["files"])
    ran = released("b", "--check", shlex.join(shell.command("unpack", str(shell.home / "a.zip"), "--list")))
    assert (ran.code, site.served) == (0, "b"), ran.err


def test_what_the_check_says_is_told_as_all_else_is(site: Site, released: Callable[..., Ran]) -> None:
    """Each of its lines is a line that stays, between progress bars too, or an object for a program; the last one is in
    the error, so that a quiet run says why."""
    ran = released("a", "--check", spy(site, 3), "--progress", "json")
    assert [one["error"]["message"] for one in ran.events if one["status"] == "notice"] == ["spy speaks"]
    assert (ran.code, ran.events[-1]["event"]) == (6, "failed")
    assert released("a", "--check", spy(site, 3), "--quiet").err.partition("\n")[0].endswith("/srv 3: spy speaks")


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("printf '1%%\\r2%%\\r'; printf '3%%\\r\\n\\n'; echo a >&2; printf b", ["3%", "a", "b"]),
        ("echo a; echo b > /dev/stderr; echo c", ["b", "c"]),
        ("seq 101", ["the check printed more; its last 100 lines:", *map(str, range(2, 102))]),
        ("yes 1 | head -n 99; seq 200000 200200 | tr '\\n' x; seq 300000 | tr -d '\\n'", None),
        (":", []),
    ],
)
def test_which_lines_of_the_check_are_told(site: Site, tmp_path: Path, script: str, lines: list[str] | None) -> None:
    """The last hundred of its lines, each as a terminal shows it at the end, and no more than 64 KiB."""
    said: list[Event] = []
    site.release("a", check=["sh", "-c", script], on_event=said.append)
    told = [event.message for event in said if isinstance(event, Noticed)]
    if lines is None:
        assert (told[0], len(told[1])) == ("the check printed more; its last 1 line:", 2**16)
    else:
        assert told == lines


def test_what_the_check_leaves_running_lives(released: Callable[..., Ran], tmp_path: Path) -> None:
    """A service that the check starts may write after the check has ended, and is not waited for."""
    go, told = tmp_path / "go", tmp_path / "told"
    os.mkfifo(go)
    os.mkfifo(told)
    service = f"trap '' PIPE; cat {go}; echo late; echo $? > {told}"
    script = tmp_path / "start.sh"
    script.write_text(f"echo early; ({service}) &\n")
    ran = released("a", "--check", f"sh {script}")
    assert (ran.code, "early" in ran.err) == (0, True), ran.err
    go.write_text("")
    assert told.read_text() == "0\n"


@pytest.mark.parametrize(("check", "code"), [("", 6), ("false", 6), ("no-such-command-anywhere", 2), ("'unclosed", 2)])
def test_a_check_that_fails_switches_nothing(site: Site, released: Callable[..., Ran], check: str, code: int) -> None:
    """A check that fails is 6, one that cannot be run 2; current stays and nothing of the new one is left."""
    site.release("a")
    before = {name: facts[:3] for name, facts in site.facts().items()}
    ran = released("b", "--check", check or spy(site, 3), "--json")
    assert (ran.code, ran.document["path"], site.served, site.letters) == (code, None, "a", "a"), ran.err
    assert {name: facts[:3] for name, facts in site.facts().items()} == before
    assert (released("b", "--check", spy(site, 0)).code, site.served) == (0, "b")


@pytest.mark.parametrize("more", ["; exit 3", "&& true", "| cat", "> out", "$HOME", "`id`", "$(id)", ""])
def test_a_check_that_needs_a_shell_is_refused(site: Site, released: Callable[..., Ran], more: str) -> None:
    """What only a shell understands is a usage error (2), never a word that is passed on in silence; so is a check of
    nothing but blanks."""
    ran = released("a", "--check", spy(site, 0, more) if more else " ")
    assert (ran.code, (site.folder / "current").exists()) == (2, False)
    assert ("shell" in ran.err) == bool(more)


def test_rollback_goes_the_way_back(site: Site, mdl: Inside, shell: Shell) -> None:
    """a, b, c, then rollback twice: b, then a, with history and document; a third time, and never released: 3."""
    assert mdl(shell, "rollback", "srv").code == 3
    done = [site.release(letter) for letter in "abc"]
    ran = mdl(shell, "rollback", "srv", "--json")
    assert (ran.code, site.served, ran.document["schema"]) == (0, "b", "mdl.rollback/1"), ran.err
    served = ran.document["release"]
    assert (served["version"], served["previous"]) == (done[1].version, done[0].version)
    ran = mdl(shell, "rollback", "srv")
    assert (ran.code, ran.out, site.served) == (0, f"{done[0].path}\n", "a")
    assert f"{done[0].version} is served now, as {site.folder / 'current'}" in ran.err
    assert [one["why"] for one in site.record["switches"]] == ["release"] * 3 + ["rollback"] * 2
    before, ran = site.facts(), mdl(shell, "rollback", "srv", "--json")
    assert (ran.code, ran.document["error"]["code"], site.facts()) == (3, "NOTFOUND", before)
    assert "--to VERSION" in ran.document["error"]["hint"]


def test_released_again_after_a_rollback(site: Site, released: Callable[..., Ran]) -> None:
    """A version that was rolled back from is marked; released again it serves, and stderr says so."""
    first, second = site.release("a"), site.release("b")
    site.back()
    assert site.record["withdrawn"] == [second.version]
    ran = released("b")
    assert (ran.code, site.served, site.record["withdrawn"]) == (0, "b", [])
    assert f"{second.version} was rolled back from before" in ran.err
    assert site.record["previous"] == first.version


def test_what_was_rolled_back_from_and_fails_its_check_again(site: Site, released: Callable[..., Ran]) -> None:
    """That it is served again is said of a release only once it is."""
    site.release("a"), site.release("b")
    site.back()
    ran = released("b", "--check", "false")
    assert (ran.code, site.served, "served again" in ran.err) == (6, "a", False)


def test_a_check_that_is_not_there(site: Site, released: Callable[..., Ran]) -> None:
    """A program that cannot be run is 2 before anything is unpacked, or even made."""
    (site.folder.parent / "no-right").write_text("#!/bin/sh\n")
    mine = site.folder.parent / "mine"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    for check in ("./not-there", "not-there-either", str(site.folder.parent / "no-right"), "./mine", "../../../mine"):
        ran = released("a", "--check", check)
        assert (ran.code, site.folder.exists(), "nothing was unpacked" in ran.err) == (2, False, True), ran.err


def test_a_check_that_is_in_the_release(site: Site, mdl: Inside, shell: Shell) -> None:
    """The check runs in the new folder: a file is found by its name there, and ./smoke-test is one of the archive; if
    the release is here already, too. Nothing of the folder in which mdl runs is found."""
    tree = {"a.bin": b"weights", "smoke-test": b"#!/bin/sh\ntest -s a.bin && test $MDL_RELEASE_PATH = $PWD\n"}
    with zipfile.ZipFile(shell.home / "m.zip", "w") as archive:
        for name, data in tree.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o100755 if name == "smoke-test" else 0o100644) << 16
            archive.writestr(info, data)
    (shell.home / "here").write_text("not of the release")
    words = ("unpack", "m.zip", "--to", "svc", "--release", "--check")
    for check, code in (("test -f here", 6), ("test -f a.bin", 0), ("./smoke-test", 0), ("sh smoke-test", 0)):
        ran = mdl(shell, *words, check)
        assert (ran.code, "runs in the new folder" in ran.err) == (code, bool(code)), ran.err
    zipped(shell.home / "other.zip", files_of("b"))
    assert mdl(shell, "unpack", "other.zip", "--to", "svc", "--release").code == 0
    assert mdl(shell, *words, "./smoke-test").code == 0


def test_the_releases_of_a_folder(site: Site, mdl: Inside, shell: Shell) -> None:
    """mdl releases tells which releases there are, which is served, when they came, and with --history every switch;
    a damaged one is incomplete; a folder without any is 3."""
    assert mdl(shell, "releases", "srv", "--json").code == 3
    done = [site.release(letter) for letter in "abc"]
    site.back()
    found = mdl(shell, "releases", "srv", "--json").document
    states = ["previous", "current", "withdrawn"]
    assert [(one["version"], one["state"]) for one in found["versions"]] == [
        (one.version, state) for one, state in zip(done, states, strict=True)
    ]
    assert (found["current"], found["switches"]) == (done[1].version, site.record["switches"])
    assert {one["bytes"] for one in found["versions"]} == {sum(map(len, files_of("a").values()))}
    (done[2].path / "model.bin").unlink()
    newest, *others = mdl(shell, "releases", "srv").out.splitlines()[1:]
    assert newest.split()[:3] == [done[2].version, "withdrawn,", "incomplete"]
    assert [line.split()[:2] for line in others] == [[done[1].version, "current"], [done[0].version, "previous"]]
    lines = mdl(shell, "releases", "srv", "--history").out.splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["rollback", "release", "release", "release"]


def test_rollback_to_any_release(site: Site, mdl: Inside, shell: Shell) -> None:
    """--to goes back several releases, or forward to one that was rolled back from; a part of the name is enough. A
    later rollback goes back from there. What is not there is 3, with what is; ambiguous 2; incomplete 6."""
    done = [site.release(letter, keep=9) for letter in "abcd"]

    def back(to: str) -> Ran:
        return mdl(shell, "rollback", "srv", "--to", to)

    part = done[1].version[-6:]
    assert (back(part).out, site.served) == (f"{done[1].path}\n", "b")
    assert (site.record["previous"], site.record["withdrawn"]) == (done[0].version, [done[2].version, done[3].version])
    assert (back(done[3].version).code, site.served, site.record["previous"]) == (0, "d", done[1].version)
    assert (site.back().version, site.served) == (done[1].version, "b")
    before = site.facts()
    assert (back(part).code, site.facts()) == (0, before)
    ran = back("no-such-one")
    assert (ran.code, all(one.version in ran.err for one in done)) == (3, True)
    assert (back("model-").code, back("").code) == (2, 2)
    (done[0].path / "model.bin").unlink()
    assert (back(done[0].version).code, site.facts().keys() - before.keys()) == (6, set())
    assert (site.served, site.record["active"]) == ("b", done[1].version)


@pytest.mark.parametrize("letter", ["a", "d"])
def test_killed_between_record_and_link_of_a_rollback(site: Site, monkeypatch: pytest.MonkeyPatch, letter: str) -> None:
    """If mdl is killed in the middle of a rollback to a release further back or forward, what the link leads to is
    what is served, and the same command once more goes there."""
    done = {one: site.release(one, keep=9) for one in "abcd"}
    site.back()  # c is served
    monkeypatch.setattr(publish, "switch_link" if letter == "a" else "publish", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        rollback(site.folder, to=done[letter].version)
    monkeypatch.undo()
    assert releases(site.folder).current == done[site.served].version
    assert rollback(site.folder, to=done[letter].version).version == done[letter].version
    assert (site.served, releases(site.folder).current) == (letter, done[letter].version)


@pytest.mark.parametrize("words", ["--release", "--check true --to x", "--to x --release --keep 0"])
def test_usage(mdl: Inside, shell: Shell, words: str) -> None:
    """--release without --to, --check without --release and --keep 0 are 2; nothing is written."""
    zipped(shell.home / "a.zip", files_of("a"))
    assert mdl(with_environ(shell, MDL_LOG_FILE=""), "unpack", "a.zip", *words.split()).code == 2
    assert [one.name for one in shell.home.iterdir()] == ["a.zip"]


def test_no_secret_gets_out(site: Site, shell: Shell) -> None:
    """A token of the environment is in no stream and no file, also if the check fails and all is told."""
    token = "hf_" + "s3cret" * 6
    shell = with_environ(shell, HF_TOKEN=token, AWS_SECRET_ACCESS_KEY=token)
    for letter in "ab":
        zipped(shell.home / f"{letter}.zip", files_of(letter))
    words = ("--to", "srv", "--release", "-v")
    runs = [
        shell.run("unpack", "a.zip", *words, "--json"),
        shell.run("unpack", "b.zip", *words, "--check", spy(site, 1)),
        shell.run("rollback", "x", "-v"),
    ]
    assert [one.code for one in runs] == [0, 6, 3]
    written = b"".join(one.read_bytes() for one in site.folder.rglob("*") if one.is_file())
    assert (b"mdl.releases/1" in written, token.encode() in written) == (True, False)
    assert token not in "".join(one.out + one.err for one in runs)


@pytest.mark.parametrize("inside", ["current", "releases", "current/text/new"])
def test_no_release_in_a_release(site: Site, tmp_path: Path, inside: str) -> None:
    """What is inside a release would be removed with it: 7, the folder that was meant is named, nothing is written."""
    site.release("a")
    before = site.facts()
    with pytest.raises(Occupied, match="inside the releases of") as caught:
        Site(site.folder / inside).release(zipped(tmp_path / "b.zip", files_of("b")))
    assert (caught.value.exit_code, site.facts()) == (7, before)
    assert str(site.folder) in str(caught.value.hint)


# What a release is compared with: its archive's bytes, also if it is here already, and what a check did to it.


def forged(path: Path, letter: str, other: str) -> Path:
    """The manifest of one letter's release with the bytes of another's."""
    with zipfile.ZipFile(zipped(path.with_suffix(".true"), files_of(letter))) as archive:
        manifest = archive.read(NAME)
    with zipfile.ZipFile(zipped(path, files_of(other), manifest=False), "a") as archive:
        archive.writestr(NAME, manifest)
    return path


@pytest.mark.fault(285)
@pytest.mark.parametrize("served", ["a", "ab"], ids=["served", "here, not served"])
def test_a_manifest_alone_is_no_release(site: Site, tmp_path: Path, served: str) -> None:
    """An archive with the manifest of a release that is here and with other bytes is 6, and nothing is changed; so is
    one flipped bit."""
    for letter in served:
        site.release(letter)
    before, damaged = site.facts(), zipped(tmp_path / "y.zip", files_of("a"))
    with pytest.raises(DigestMismatch, match="sha256") as caught:
        site.release(forged(tmp_path / "x.zip", "a", "c"))
    assert (caught.value.exit_code, site.served, site.facts()) == (6, served[-1], before)
    assert "x.zip" in str(caught.value.item)
    with zipfile.ZipFile(damaged) as opened:
        at = opened.getinfo("model.bin").header_offset + 30 + len("model.bin") + 4
    data = bytearray(damaged.read_bytes())
    data[at] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(ProtocolError):
        site.release(damaged)
    assert site.facts() == before


@pytest.mark.parametrize("letters", ["a", "ab"], ids=["served", "here, not served"])
@pytest.mark.parametrize("damage", ["gone", "other bytes"])
def test_a_damaged_release_is_not_called_served(site: Site, letters: str, damage: str) -> None:
    """A release of which a file is gone, or has other bytes, is 6 by name when its archive is released again, also if
    it is what is served; once it was removed, the same archive serves it."""
    paths = [site.release(letter).path for letter in letters]
    file = paths[0] / "model.bin"
    file.unlink()
    if damage == "other bytes":
        file.write_bytes(b"b" * 30_000)
    with pytest.raises(ProtocolError, match="damaged or gone") as caught:
        site.release("a")
    assert (caught.value.exit_code, caught.value.item) == (6, f"{paths[0].name}/model.bin")
    shutil.rmtree(paths[0])
    site.release("a")
    assert (site.served, site.record["active"]) == ("a", paths[0].name)


FACTS = "import os, stat; p = os.environ['MDL_RELEASE_PATH']; f = p + '/model.bin'; s = os.stat(f); "
BACK = "os.chmod(f, stat.S_IMODE(s.st_mode)); os.utime(f, ns=(s.st_atime_ns, s.st_mtime_ns))"
WRITE = "os.chmod(f, 0o644); open(f, 'r+b').write(b'!'); "
CHANGES = {
    "model.bin": {
        "appends": "os.chmod(f, 0o644); open(f, 'ab').write(b'!')",
        "rewrites, mode and mtime put back": WRITE + BACK,
        "rewrites by a map": "import mmap; os.chmod(f, 0o644); m = mmap.mmap(os.open(f, os.O_RDWR), 1); m[0] = 33;"
        "m.close(); " + BACK,
        "rewrites by another name": "os.link(f, p + '/../x'); f = p + '/../x'; " + WRITE + BACK + "; os.remove(f)",
        "replaces by equal bytes": "open(f + '2', 'wb').write(open(f, 'rb').read()); os.replace(f + '2', f); " + BACK,
        "leaves a link to it": "os.rename(f, p + '/../x'); os.symlink(p + '/../x', f)",
        "chmod": "os.chmod(f, 0o755)",
        "touches": "os.utime(f, ns=(1, 1))",
        "removes": "os.remove(f)",
    },
    NAME: {"rewrites the manifest": f"f = p + '/{NAME}'; s = os.stat(f); " + WRITE.replace("'!'", "' '") + BACK},
    "new": {
        "adds a folder": "os.mkdir(p + '/new')",
        "adds a link": "os.symlink('model.bin', p + '/new')",
        "adds a FIFO": "os.mkfifo(p + '/new')",
    },
    "text": {"chmods a folder": "os.chmod(p + '/text', 0o777)"},
}
HARMLESS = {
    "nothing": "pass",
    "reads": "open(f, 'rb').read()",
    "a link made and removed": "os.link(f, f + '2'); os.remove(f + '2')",
    "a mode put back": "os.chmod(f, 0o600); " + BACK,
    "a file made and removed": "open(p + '/new', 'w').close(); os.remove(p + '/new')",
}
CASES = [pytest.param(name, script, id=what) for name, tricks in CHANGES.items() for what, script in tricks.items()]


@pytest.mark.fault(286)
@pytest.mark.parametrize("letters", ["b", "ab"], ids=["new", "here already"])
@pytest.mark.parametrize(("name", "script"), CASES)
def test_a_check_that_changes_anything_is_noticed(site: Site, letters: str, name: str, script: str) -> None:
    """Whatever a check adds, changes or touches: 6, it is named, and what was served is served."""
    for letter in letters:
        site.release(letter)
    with pytest.raises(ProtocolError, match=f"changed the release: .*{name}"):
        site.release("a", check=[sys.executable, "-c", FACTS + script])
    assert site.served == "b"


@pytest.mark.fault(286)
@pytest.mark.parametrize("script", HARMLESS.values(), ids=HARMLESS)
def test_a_check_that_leaves_all_as_it_was(site: Site, script: str) -> None:
    """A check that reads, or that puts everything back, is no reason to refuse a release."""
    assert site.release("a", check=[sys.executable, "-c", FACTS + script]).changed
    assert site.served == "a"


@pytest.mark.parametrize("name", ["m.pt", "deep/m.safetensors", "m.h5", "m.keras", "m.gguf", "m.nemo"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_cut_model_is_never_served(mdl: Inside, shell: Shell, name: str, compression: int) -> None:
    """A file of weights that lacks its end is damage: not released, not unpacked, and --test finds it too."""
    data = whole_file(name)
    for archive, content, code in (("whole.zip", data, 0), ("cut.zip", data[:-600], 6)):
        with zipfile.ZipFile(shell.home / archive, "w", compression) as opened:
            opened.writestr(name, content)
        assert mdl(shell, "unpack", archive, "--test").code == code
        ran = mdl(shell, "unpack", archive, "--to", "srv", "--release")
        assert (ran.code, name in ran.err) == (code, code == 6), ran.err
        assert mdl(shell, "unpack", archive, "--to", f"out-{archive}").code == code
    assert (shell.home / "srv" / "current" / name).read_bytes() == data


INDEX = json.dumps({"weight_map": {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}})
SHARD = whole_file("m.safetensors")
LACKING = {
    "a shard": {"m.safetensors.index.json": INDEX, "m-00001-of-00002.safetensors": SHARD},
    "all shards, in a folder": {"deep/m.safetensors.index.json": INDEX, "config.json": "{}"},
    "the index": {"m-00001-of-00002.safetensors": SHARD, "config.json": "{}"},
    "a part": {"m-00001-of-00002.gguf": whole_file("m.gguf")},
    "any file": {},
    "any file but a list": {NAME: Manifest(()).to_json()},
}


@pytest.mark.parametrize("files", LACKING.values(), ids=LACKING)
def test_a_model_that_lacks_a_part_is_never_served(
    mdl: Inside, site: Site, shell: Shell, files: dict[str, str | bytes]
) -> None:
    """Each file may be whole: without all shards, an index or any file there is no model. What is served stays."""
    before = site.release("a")
    with zipfile.ZipFile(shell.home / "lacking.zip", "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    ran = mdl(shell, "unpack", "lacking.zip", "--to", "srv", "--release")
    assert (ran.code, "nothing was switched" in ran.err) == (6, True), ran.err
    assert (site.served, [one.version for one in releases(site.folder).versions]) == ("a", [before.version])


@pytest.mark.parametrize("folder", ["", "deep/"])
def test_an_index_of_a_format_that_is_not_here(mdl: Inside, site: Site, shell: Shell, folder: str) -> None:
    """A download of one format of several has the indexes of all: those of the others name nothing that is lacking."""
    with zipfile.ZipFile(shell.home / "a.zip", "w") as opened:
        opened.writestr(f"{folder}model.safetensors", SHARD)
        opened.writestr(
            f"{folder}pytorch_model.bin.index.json", json.dumps({"weight_map": {"a": "pytorch_model-1.bin"}})
        )
    ran = mdl(shell, "unpack", "a.zip", "--to", "srv", "--release")
    assert ran.code == 0, ran.err
    assert (site.folder / "current" / folder / "model.safetensors").read_bytes() == SHARD


@pytest.mark.parametrize("whole", [(), ("--all",)])
def test_what_was_packed_incomplete_is_served(mdl: Inside, site: Site, shell: Shell, whole: tuple[str, ...]) -> None:
    """Whoever packed it said so."""
    run = shell.home / "run"
    run.mkdir()
    for name, content in LACKING["a shard"].items():
        (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert mdl(shell, "pack", "run").code == 6
    assert mdl(shell, "pack", "run", *whole, "--allow-incomplete").code == 0
    assert mdl(shell, "unpack", "model_run.zip", "--to", "srv", "--release").code == 0
    assert (site.folder / "current" / "m-00001-of-00002.safetensors").read_bytes() == SHARD


@pytest.mark.parametrize("target", [None, "releases/model-000000000000"], ids=["gone", "to nothing"])
@pytest.mark.parametrize("again", ["release", "rollback"])
def test_a_link_that_leads_to_no_release(mdl: Inside, site: Site, shell: Shell, target: str | None, again: str) -> None:
    """Then none is served, whatever was recorded: the list says so, and the same command as before serves it again."""
    first = site.release("a")
    newest = site.release("b")
    (site.folder / "current").unlink()
    if target:
        (site.folder / "current").symlink_to(target)
    ran = mdl(shell, "releases", "srv", "--json")
    assert (ran.code, ran.document["current"]) == (0, None)
    assert {one["state"] for one in ran.document["versions"]} == {"previous", "kept"}
    assert "mdl rollback" in mdl(shell, "releases", "srv").err
    done = site.release("b") if again == "release" else rollback(site.folder, to=newest.version)
    assert (done.changed, done.version, done.previous, site.served) == (True, newest.version, first.version, "b")
    assert releases(site.folder).current == newest.version


def test_what_only_has_the_name_of_weights_is_unpacked_but_not_served(mdl: Inside, shell: Shell) -> None:
    """mdl copies what is in an archive; what it serves must be what its name says."""
    with zipfile.ZipFile(shell.home / "a.zip", "w") as opened:
        opened.writestr("m.safetensors", b"just some text, no tensors")
    assert mdl(shell, "unpack", "a.zip", "--to", "out").code == 0
    assert mdl(shell, "unpack", "a.zip", "--to", "srv", "--release").code == 6
    assert not (shell.home / "srv" / "current").exists()
