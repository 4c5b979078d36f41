"""The status of a file and of a model, from what is on this disk alone."""

from __future__ import annotations

from support.cases import each

from mdl.files import LocalFile, Receipt, RemoteFile, Stamp, Voucher, is_verified
from mdl.hashing import Digest
from mdl.local.status import file_status, joint_status
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


def test_only_a_published_digest_verifies() -> None:
    """A size is no proof."""
    assert [is_verified(one) for one in ("sha256", "git-sha1", "size", "none")] == [True, True, False, False]
