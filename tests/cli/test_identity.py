"""Same name, other thing: what came from one URL, query or commit is never taken for what another one names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cases import each
from support.catalogs import unpinned
from support.data import noise, sha256
from support.faults import choose, honest
from support.faulty_server import FaultyServer
from support.locks import only_file
from support.shell import ExitCode, Inside, Shell, bytes_of, machine, write_catalog

from mdl.catalog.model import Catalog
from mdl.catalog.targets import models_of
from mdl.urls import query_hash, url_identity

FIRST, SECOND = noise(2**20 + 5, 1), noise(2**20 + 5, 2)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    """Two things of one size and one ETag: the second is behind every target that has ``2`` in it."""
    first, second = (honest(data, etag='"same"') for data in (FIRST, SECOND))
    with FaultyServer(choose(lambda request: "2" in request.target, second, first)) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return machine(tmp_path / "home")


CHANGES = [("/v1/f.bin", "/v2/f.bin"), ("/f.bin?v=1", "/f.bin?v=2"), ("/f.bin?token=a", "/f.bin?token=2")]


@pytest.mark.fault(246)
@pytest.mark.parametrize("etag", ['"same"', 'W/"same"', None])
@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_a_catalog_names_another_url(
    shell: Shell, server: FaultyServer, mdl: Inside, exit_code: ExitCode, before: str, after: str, etag: str | None
) -> None:
    """Another URL or query in the catalog, same size and ETag, no digest: its bytes are fetched, and the lock says
    the digest of these; the list does not call the old ones present."""
    first, second = (honest(data, etag=etag) for data in (FIRST, SECOND))
    server.handler = choose(lambda request: "2" in request.target, second, first)
    write_catalog(shell, unpinned(server.url + before))
    assert exit_code(shell, "get", "one") == 0
    write_catalog(shell, unpinned(server.url + after))
    assert mdl(shell, "list", "--json").document["models"][0]["status"] == "missing"
    assert exit_code(shell, "lock") == 0
    assert only_file(shell).digest is None
    assert exit_code(shell, "get", "one") == 0
    assert bytes_of(shell, "one") == {"f.bin": SECOND}
    assert str(only_file(shell).digest) == f"sha256:{sha256(SECOND)}"


@pytest.mark.fault(246)
def test_the_same_url_signed_anew(shell: Shell, server: FaultyServer, exit_code: ExitCode) -> None:
    """A URL that is only signed anew, and one that was a mirror before, are the same thing: nothing is fetched."""
    signed = server.url + "/f.bin?part=1&X-Amz-Date={0}&X-Amz-Signature={0}"
    write_catalog(shell, unpinned(signed.format("a")))
    assert exit_code(shell, "get", "one") == 0
    sent = server.bytes_sent
    write_catalog(shell, unpinned(signed.format("b")))
    assert exit_code(shell, "get", "one") == 0
    write_catalog(shell, unpinned(server.url + "/other.bin") + f'mirrors = ["{signed.format("c")}"]\n')
    assert exit_code(shell, "get", "one") == 0
    assert server.bytes_sent - sent < 10


@pytest.mark.fault(246)
def test_the_identity_of_a_query() -> None:
    """It is neither the query, which may hold a secret, nor that of another one; a signature is not part of it."""
    two, three, bare = (url_identity(f"https://h/f{query}") for query in ("?key=hunter2", "?key=hunter3", ""))
    assert len({two, three, bare}) == 3
    assert "hunter2" not in two
    assert query_hash("https://h/f?a=%ff") != query_hash("https://h/f?a=%fe")
    assert url_identity("https://h/f?x-goog-algorithm=a&X-Goog-Signature=b#part") == "https://h/f"


SIGNED = [
    "X-Amz-Algorithm=A&X-Amz-Credential=c&X-Amz-Expires=9&X-Amz-Signature={}&X-Amz-SignedHeaders=host",
    "GoogleAccessId=a&Expires={0}&Signature={0}",
    "AWSAccessKeyId={0}&Expires={0}&Signature={0}&x-amz-security-token={0}",
    "Policy={0}&Signature={0}&Key-Pair-Id=K",
    "sv=2024-01-01&sr=b&sp=r&st={0}&se={0}&spr=https&skoid=o&sktid=t&skt={0}&ske={0}&sks=b&skv=v&sig={0}",
    "q-sign-algorithm=sha1&q-sign-time={0}&q-signature={0}",
]


@pytest.mark.fault(246)
@each("query", SIGNED)
def test_signatures_say_nothing_of_the_thing(query: str) -> None:
    """What the usual ways of signing add to a query is no part of it; without the signature it is."""
    assert query_hash(f"https://h/f?{query.format('1')}") == query_hash(f"https://h/f?{query.format('2')}") == ""
    bare = "&".join(part for part in query.format("1").split("&") if "ignature=" not in part and "sig=" not in part)
    assert query_hash(f"https://h/f?{bare}")
    assert name_of(f"https://h/f?a=1&{query.format('1')}") == name_of("https://h/f?a=1") != name_of("https://h/f")


@pytest.mark.fault(247)
@pytest.mark.parametrize("size", [13, len(FIRST)])
def test_an_edited_file_stays(shell: Shell, server: FaultyServer, mdl: Inside, exit_code: ExitCode, size: int) -> None:
    """A file changed since mdl wrote it stays as it is, 7, whether or not another revision is there; --force and
    verify --repair --force replace it."""
    edit, place = noise(size, 3), shell.models / "one" / "f.bin"
    write_catalog(shell, unpinned(server.url + "/f.bin"))
    assert exit_code(shell, "get", "one") == 0
    place.write_bytes(edit)
    ran = mdl(shell, "get", "one", "--json")
    error = ran.document["error"]
    assert (ran.code, error["code"], place.read_bytes() == edit) == (7, "OCCUPIED", True)
    assert "changed after mdl wrote it, last on " in error["message"]
    write_catalog(shell, unpinned(server.url + "/2.bin"))
    assert (exit_code(shell, "get", "one"), place.read_bytes() == edit) == (7, True)
    assert (exit_code(shell, "get", "one", "--force"), place.read_bytes() == SECOND) == (0, True)
    place.write_bytes(edit)
    assert (exit_code(shell, "verify", "one", "--repair"), place.read_bytes() == edit) == (0, True)
    assert (exit_code(shell, "verify", "one", "--repair", "--force"), place.read_bytes() == SECOND) == (0, True)


@pytest.mark.fault(247)
@pytest.mark.parametrize("known", ["", f'sha256 = "{sha256(SECOND)}"\n'])
def test_a_file_that_was_only_touched(shell: Shell, server: FaultyServer, exit_code: ExitCode, known: str) -> None:
    """Another mtime over the same bytes is no edit: kept; and a newer revision takes its place, digest or not."""
    place = shell.models / "one" / "f.bin"
    write_catalog(shell, unpinned(server.url + "/f.bin"))
    assert exit_code(shell, "get", "one") == 0
    os.utime(place, ns=(5, 5))
    sent = server.bytes_sent
    assert (exit_code(shell, "get", "one"), server.bytes_sent - sent < 10) == (0, True)
    os.utime(place, ns=(6, 6))
    write_catalog(shell, unpinned(server.url + "/2.bin") + known)
    assert (exit_code(shell, "get", "one"), place.read_bytes() == SECOND) == (0, True)


def name_of(url: str) -> str:
    return models_of([url], Catalog(), ())[0].name


APART = [
    *(("/a/b/", "/a--b/", "/a//b/"), ("/a@b/", "/a_b/", "/a%40b/"), ("/%ff/", "/%fe/")),
    *(
        ("/a/", "/a_/", "/a./", "//a/"),
        ("/a-/b/", "/a/-b/"),
        ("/a/%ff", "/a/%fe"),
        ("/" + "a" * 130 + "/", "/" + "a" * 130 + "@/"),
    ),
    *((f"/x/f?{name}=a", f"/x/f?{name}=b", "/x/f") for name in ("download", "token", "sk", "sp", "expires", "policy")),
    (f"/{'l' * 130}/f?a=1", f"/{'l' * 130}/f?a=2", f"/{'l' * 130}/f"),
]


@pytest.mark.fault(249)
@each("paths", APART)
def test_other_things_have_other_folders(paths: tuple[str, ...]) -> None:
    """Two URLs that their folder's plain name does not tell apart have two folders."""
    names = [name_of("https://h.example" + path + ("f.bin" if path.endswith("/") else "")) for path in paths]
    assert len(set(names)) == len(paths), names


USUAL = {
    "https://h.example/f.bin": "h.example",
    "http://127.0.0.1:8000/a_b/v1.0/f.bin": "127.0.0.1_8000--a_b--v1.0",
    "https://h.example/org/repo/My%20Model%20(v2).bin": "h.example--org--repo",
    "https://h.example/a/f.bin?download=true": "h.example--a",
    "https://h.example/a/f.bin?Expires=1&Signature=x&Key-Pair-Id=k": "h.example--a",
    "https://h.example/a/f.bin?id=1": "h.example--a-cb774a99",
    f"https://h.example/{'a' * 130}/f.bin": f"h.example--{'a' * 109}-5c5075d5",
}


@each("url", USUAL)
def test_usual_folders_keep_their_names(url: str) -> None:
    """The folders of ordinary URLs are called as they always were, so that what is in them is found."""
    assert name_of(url) == USUAL[url]
