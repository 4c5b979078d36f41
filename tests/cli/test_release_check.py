"""What a release is held against: its archive's bytes, also of one that is here, and what a check did to it."""

from __future__ import annotations

import shlex
import sys
import zipfile
from pathlib import Path

import pytest
from support.releases import Site, files_of, zipped

from mdl.archive.manifest import NAME
from mdl.errors import DigestMismatch, ProtocolError


def forged(path: Path, letter: str, other: str) -> Path:
    """The manifest of one letter's release with the bytes of another's."""
    with zipfile.ZipFile(zipped(path.with_suffix(".true"), files_of(letter))) as archive:
        manifest = archive.read(NAME)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files_of(other).items():
            archive.writestr(name, data)
        archive.writestr(NAME, manifest)
    return path


@pytest.mark.fault(285)
@pytest.mark.parametrize("served", ["a", "ab"], ids=["served", "here, not served"])
def test_a_manifest_alone_is_no_release(site: Site, tmp_path: Path, served: str) -> None:
    """An archive with the manifest of a release that is here and with other bytes is 6, and nothing is changed."""
    for letter in served:
        site.release(letter)
    before = site.facts()
    with pytest.raises(DigestMismatch, match="sha256") as caught:
        site.release(forged(tmp_path / "x.zip", "a", "c"))
    assert (caught.value.exit_code, site.served, site.facts()) == (6, served[-1], before)
    assert "x.zip" in str(caught.value.item)


@pytest.mark.fault(285)
def test_a_damaged_archive_of_what_is_served(site: Site, tmp_path: Path) -> None:
    """One flipped bit in the archive of the served release is 6 as well, not "active already"."""
    site.release("a")
    archive = zipped(tmp_path / "x.zip", {"model.bin": b"a" * 50})
    site.release(archive)
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        at = opened.getinfo("model.bin").header_offset + 30 + len("model.bin")
    data[at] ^= 1
    archive.write_bytes(data)
    with pytest.raises(ProtocolError):
        site.release(archive)


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


def checking(script: str) -> str:
    return shlex.join([sys.executable, "-c", FACTS + script])


@pytest.mark.fault(286)
@pytest.mark.parametrize("again", [False, True], ids=["new", "here already"])
@pytest.mark.parametrize(("name", "script"), CASES)
def test_a_check_that_changes_anything_is_noticed(site: Site, name: str, script: str, again: bool) -> None:
    """Whatever a check adds, changes or touches: 6, it is named, and what was served is served."""
    for letter in "ab" if again else "b":
        site.release(letter)
    with pytest.raises(ProtocolError, match=f"changed the release: .*{name}"):
        site.release("a", check=checking(script))
    assert site.served == "b"


@pytest.mark.fault(286)
@pytest.mark.parametrize("script", HARMLESS.values(), ids=HARMLESS)
def test_a_check_that_leaves_all_as_it_was(site: Site, script: str) -> None:
    """A check that reads, or that puts everything back, is no reason to refuse a release."""
    assert site.release("a", check=checking(script)).changed
    assert site.served == "a"
