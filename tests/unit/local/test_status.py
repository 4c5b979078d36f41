"""The status of a file and of a model, from what is on this disk alone; and the one judgement of a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support.cases import each

from mdl.downloader.store import Store
from mdl.files import LocalFile, Receipt, RemoteFile, Stamp, Voucher, is_verified
from mdl.hashing import Digest, Fingerprint
from mdl.local.from_receipts import MeantFiles
from mdl.local.status import expected_file, file_status, joint_status, judge, status_of_files
from mdl.paths import RelPath

PATH = RelPath.parse("m.bin")
SHA, OTHER, GIT = Digest("sha256", "ab" * 32), Digest("sha256", "cd" * 32), Digest("git-sha1", "ab" * 20)
STAMP = Stamp(100, 1, 2)


def remote(
    digest: Digest | None = SHA, size: int | None = 100, url: str = "https://h/m.bin", by: Voucher = "hub"
) -> RemoteFile:
    return RemoteFile(PATH, url, size, digest, vouched_by=by)


def local(
    verified: str | None, digest: Digest = SHA, stamp: Stamp = STAMP, partial: int = 0, by: Voucher = "hub"
) -> LocalFile:
    """A file there, with a receipt unless ``verified`` is None."""
    receipt = Receipt("m", PATH, STAMP, digest, verified, "https://h/m.bin", vouched_by=by) if verified else None
    return LocalFile("file", stamp, receipt, partial=partial)


@each(
    ("here", "there", "status", "present"),
    [
        (LocalFile(), remote(), "missing", 0),
        (LocalFile(partial=7), remote(), "partial", 7),
        (LocalFile("link", why="it is a link"), remote(), "missing", 0),
        (local("sha256"), remote(), "present", 100),
        (local("sha256"), remote(size=None), "present", 100),
        (local("sha256"), remote(size=101), "missing", 0),
        (local("sha256"), remote(OTHER), "missing", 0),
        (local("sha256", partial=7), remote(OTHER), "partial", 7),
        (local("sha256", stamp=Stamp(100, 9, 2)), remote(), "unverified", 100),
        (local("sha256", stamp=Stamp(7, 9, 2)), remote(), "unverified", 7),
        (local("git-sha1", GIT), remote(SHA), "present", 100),
        (local("size"), remote(None), "unverified", 100),
        (local("none"), remote(None), "unverified", 100),
        (local("none"), remote(None, url="https://h/other"), "missing", 0),
        (local("none"), remote(SHA), "present", 100),
        (local("sha256", by="folder"), remote(), "present", 100),
        (local("sha256", by="folder"), remote(by="folder"), "unverified", 100),
        (local("sha256", by="folder"), remote(None), "unverified", 100),
        (local("git-sha1", GIT, by="folder"), remote(SHA), "unverified", 100),
        (local("sha256"), remote(by="folder"), "present", 100),
        (local(None), remote(), "unverified", 100),
        (local(None), remote(size=99), "missing", 0),
    ],
)
def test_status_of_a_file(here: LocalFile, there: RemoteFile, status: str, present: int) -> None:
    """Present if a receipt vouches for this very file and its bytes are known to be right, unverified if they are not
    or if it was touched since, else partial or missing."""
    found = file_status(here, there)
    assert (found.remote, found.status, found.bytes_present) == (there, status, present)


@each(
    ("statuses", "is_complete", "joint"),
    [
        ([], True, "missing"),
        (["missing", "missing"], True, "missing"),
        (["present", "missing"], True, "partial"),
        (["partial"], True, "partial"),
        (["present"], False, "partial"),
        (["missing"], False, "missing"),
        (["present", "unverified"], True, "unverified"),
        (["present", "present"], True, "present"),
    ],
)
def test_status_of_a_model(statuses: list[str], is_complete: bool, joint: str) -> None:
    """A model is as present as its worst file, and partial if further files may be missing."""
    assert joint_status(statuses, is_complete=is_complete) == joint


def test_a_model_by_the_files_that_are_meant(tmp_path: Path) -> None:
    """What is optional counts if something of it is here; a file that cannot lie beside another one is missing; how
    many files there are is not known if there may be others."""
    store = Store(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").write_bytes(b"x")
    files = [RemoteFile(RelPath.parse(path), f"https://h/{path}", 1) for path in ("a", "a/b", "c", "d")]
    optional = {files[0].path, files[3].path}
    status = status_of_files("m", MeantFiles(files, optional), store)
    rows = [(row.remote.path.text, row.status) for row in status.rows]
    assert rows == [("a", "unverified"), ("a/b", "missing"), ("c", "missing")]
    assert (status.status, status.files, status.files_present, status.bytes) == ("partial", 3, 1, 3)
    known_in_part = status_of_files("m", MeantFiles(files[:1], is_complete=False), store)
    assert (known_in_part.status, known_in_part.files, known_in_part.bytes) == ("partial", None, None)


def test_only_a_published_digest_verifies() -> None:
    """A size is no proof."""
    assert [is_verified(one) for one in ("sha256", "git-sha1", "size", "none")] == [True, True, False, False]


VOUCHERS: list[Voucher] = ["hub", "catalog", "lock", "url", "first use", "folder"]


@given(
    published=st.sampled_from([None, SHA, OTHER]),
    size=st.sampled_from([None, 100, 101]),
    by=st.sampled_from([voucher for voucher in VOUCHERS if voucher != "folder"]),
    verified=st.sampled_from(["sha256", "size", "none"]),
    receipt_by=st.sampled_from(VOUCHERS),
    url=st.sampled_from(["https://h/m.bin", "https://h/other"]),
)
def test_reading_confirms_what_the_receipt_says(
    published: Digest | None, size: int | None, by: Voucher, verified: str, receipt_by: Voucher, url: str
) -> None:
    """Of an untouched file `list`, which reads nothing, and `verify`, which reads the bytes, say the same; and no file
    that is not at its source is right after it was read."""
    there = remote(published, size, url, by)
    here = local(verified, by=receipt_by)
    read = replace(here, fingerprint=Fingerprint(SHA, 100))
    before = judge(here, there)
    after = judge(read, expected_file(there, here.receipt))
    if before in ("present", "unverified"):
        assert after == before
    else:
        assert after != "present"


def test_what_is_not_there_or_in_the_way() -> None:
    """A name without a file is missing however its receipt looks, and a link or folder in its place is corrupt."""
    receipt = local("sha256").receipt
    assert judge(LocalFile(receipt=receipt), remote()) == "missing"
    assert judge(LocalFile(receipt=receipt, partial=7), remote()) == "partial"
    assert judge(LocalFile("link", receipt=receipt), remote()) == "corrupt"
    damaged = replace(local("sha256"), fingerprint=Fingerprint(OTHER, 100))
    edited = replace(local("sha256", stamp=Stamp(100, 9, 2)), fingerprint=Fingerprint(OTHER, 100))
    assert (judge(damaged, remote()), judge(edited, remote())) == ("corrupt", "changed")


def test_another_version_is_missing_when_it_was_read_too() -> None:
    """What mdl wrote is not corrupt because catalog or lock have another version by now; what only a folder brought
    is, and so is what has the digest of neither."""
    for digest in (SHA, GIT):
        older = replace(local(digest.algorithm, digest), fingerprint=Fingerprint(SHA, 100), own_digest=digest)
        assert judge(older, remote(OTHER)) == "missing"
    forged = replace(local("none", by="folder"), fingerprint=Fingerprint(SHA, 100))
    assert judge(forged, remote(OTHER)) == "corrupt"
    unread = replace(local("git-sha1", GIT), fingerprint=Fingerprint(SHA, 100))
    assert judge(unread, remote(OTHER)) == "corrupt"
