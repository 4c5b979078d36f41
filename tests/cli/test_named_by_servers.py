"""URLs that do not end in a file's name: the server's name for it, in plan, folder, second run and verify; digests."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.catalogs import catalog_of
from support.data import SMALL, sha256
from support.faulty_server import Answer, FaultyServer, Request, reply
from support.jobs import records_of
from support.nginx import has_nginx, nginx
from support.shell import Inside, Ran, Shell, machine

FORMS = {
    'attachment; filename="dreamLora_v12.bin"': "dreamLora_v12.bin",
    "attachment; filename=plain.bin": "plain.bin",
    "attachment; filename=with blank.bin ; size=3": "with blank.bin",
    'inline; filename="a \\"quoted\\" name.bin"': 'a "quoted" name.bin',
    "attachment; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.bin": "naïve €.bin",
    "attachment; filename=\"plain.bin\"; filename*=UTF-8''r%C3%A9al.bin": "réal.bin",
    "attachment; filename*=UTF-8''r%C3%A9al.bin; filename=\"plain.bin\"": "réal.bin",
    "attachment; filename*=iso-8859-1'en'%A3.bin": "£.bin",
    "attachment; filename=\"plain.bin\"; filename*=UTF-8''%FF.bin": "plain.bin",
    'ATTACHMENT; FILENAME="Big.BIN"': "Big.BIN",
    'attachment; filename="../../etc/passwd.bin"': "passwd.bin",
    'attachment; filename="C:\\\\models\\\\x.bin"': "x.bin",
    'attachment; filename="مدل.bin"': "مدل.bin",
    'attachment; filename=""': "12345",
    "attachment": "12345",
    "": "12345",
}
UNSAFE = ('attachment; filename=".."', "attachment; filename=CON", "attachment; filename*=UTF-8''a%00b.bin")
BY_CURL = (*list(FORMS)[:2], 'attachment; filename="../../etc/passwd.bin"', "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """nginx that serves one file below ``/0/12345``, ``/1/12345`` …, under each form of the header."""
    if not has_nginx():
        pytest.skip("nginx is not installed")
    folder, told = tmp_path_factory.mktemp("nginx"), ""
    for number, form in enumerate((*FORMS, *UNSAFE)):
        place = folder / "files" / str(number) / "12345"
        place.parent.mkdir(parents=True)
        place.write_bytes(SMALL)
        text = form.replace("\\", "\\\\").replace("'", "\\'")
        told += f"location /{number}/ {{ add_header Content-Disposition '{text}'; }}\n" if form else ""
    with nginx(folder, told) as url:
        yield url


def url_of(site: str, form: str) -> str:
    return f"{site}/{(*FORMS, *UNSAFE).index(form)}/12345"


def rows(ran: Ran) -> list[tuple[str, str]]:
    """What was done with each file."""
    return [(row["path"], row["action"]) for model in ran.document["models"] for row in model["files"]]


@pytest.mark.fault(42)
@pytest.mark.parametrize("form", FORMS)
def test_the_name_is_the_servers(tmp_path: Path, mdl: Inside, site: str, form: str) -> None:
    """As nginx sends it, in each form of RFC 6266; nothing is ever written outside the model's folder."""
    shell = machine(tmp_path / "home")
    file = Path(mdl(shell, "get", url_of(site, form)).out.removesuffix("\n"))
    assert file.parents[1] == shell.models
    assert [path.name for path in file.parent.iterdir()] == [file.name] == [FORMS[form]]


def test_all_know_the_name(tmp_path: Path, mdl: Inside, site: str) -> None:
    """The plan, the file, a second run, one offline, verify, path and show have the same name."""
    form, name = next(iter(FORMS.items()))
    shell, url = machine(tmp_path / "home"), url_of(site, form)
    assert rows(mdl(shell, "get", "-n", url, "--json")) == [(name, "planned")]
    assert not list(shell.models.glob("[!.]*"))
    assert rows(mdl(shell, "get", url, "--json")) == [(name, "fetched")]
    assert rows(mdl(shell, "get", url, "--json")) == [(name, "kept")]
    assert rows(mdl(shell, "get", url, "--json", "--offline")) == [(name, "kept")]
    (verified,) = mdl(shell, "verify", url, "--json").document["models"]
    assert [file["path"] for file in verified["files"]] == [name]
    assert (Path(mdl(shell, "path", url).out.strip()) / name).read_bytes() == SMALL
    assert mdl(shell, "show", url, "--json").document["model"]["files_present"] == 1


@pytest.mark.parametrize("form", UNSAFE)
def test_an_unsafe_name_is_refused(tmp_path: Path, mdl: Inside, site: str, form: str) -> None:
    """A name that no path may have is 11, with the flag that gives another one; with that flag it comes."""
    shell = machine(tmp_path / "home")
    ran = mdl(shell, "get", url_of(site, form))
    assert (ran.code, "-o NAME" in ran.err) == (11, True)
    assert mdl(shell, "get", url_of(site, form), "-o", "mine.bin", "--into", "here").code == 0
    assert (shell.home / "here" / "mine.bin").read_bytes() == SMALL


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("form", BY_CURL)
def test_as_curl_names_it(tmp_path: Path, mdl: Inside, site: str, form: str) -> None:
    """mdl gives the file the name that 'curl -OJL' gives it."""
    url = url_of(site, form)
    subprocess.run(["curl", "-sSfOJL", url], cwd=tmp_path, check=True)
    names = [path.name for path in tmp_path.iterdir()]
    assert [name for name, _ in rows(mdl(machine(tmp_path / "home"), "get", url, "--json"))] == names


@pytest.mark.parametrize("status", [302, 307])
def test_after_a_redirect(tmp_path: Path, mdl: Inside, status: int) -> None:
    """As Civitai does it: the name comes with the file, from where a redirect led; a link that is signed anew is the
    same file; a redirect's own header names nothing."""
    signed = [f"/x?X-Amz-Signature={number}" for number in range(20)]
    named = ("Content-Disposition", 'attachment; filename="dreamLora_v12.safetensors"')
    header = f'{{"a":{{"dtype":"U8","shape":[{len(SMALL)}],"data_offsets":[0,{len(SMALL)}]}}}}'.encode()
    data = len(header).to_bytes(8, "little") + header + SMALL
    with FaultyServer(faults.with_headers(faults.honest(data), named)) as files:

        def away(_request: Request, number: int) -> Answer:
            wrong = ("Content-Disposition", "attachment; filename=not.this")
            return reply(status, b"", ("Location", files.url + signed[number]), wrong)

        with FaultyServer(away) as home:
            shell, url = machine(tmp_path / "home"), f"{home.url}/api/download/models/12345?type=Model"
            assert rows(mdl(shell, "get", url, "--json")) == [("dreamLora_v12.safetensors", "fetched")]
            assert rows(mdl(shell, "get", url, "--json")) == [("dreamLora_v12.safetensors", "kept")]
    kept = [path.read_text(errors="replace") for path in shell.home.rglob("*") if path.is_file()]
    assert not [text for text in kept if "X-Amz-Signature" in text]


def test_two_of_one_name(tmp_path: Path, mdl: Inside) -> None:
    """Two such URLs whose servers give one name have two folders."""
    named = ("Content-Disposition", "attachment; filename=model.bin")
    with FaultyServer(faults.with_headers(faults.honest(SMALL), named)) as server:
        ran = mdl(machine(tmp_path / "home"), "get", f"{server.url}/d/1", f"{server.url}/d/2")
    assert [Path(line, "model.bin").read_bytes() for line in ran.out.splitlines()] == [SMALL] * 2
    assert len(set(ran.out.splitlines())) == 2


def test_an_unnamed_source_of_a_catalog(tmp_path: Path, mdl: Inside) -> None:
    """A source of a catalog is named as one of the command line, and so in the lock."""
    named = ("Content-Disposition", "attachment; filename=model.bin")
    with FaultyServer(faults.with_headers(faults.honest(SMALL), named)) as server:
        shell = machine(tmp_path / "home", f'schema = 1\n[models.one]\nsource = "{server.url}/d/1"\n')
        assert mdl(shell, "lock").code == 0
        assert rows(mdl(shell, "get", "one", "--locked", "--json")) == [("model.bin", "fetched")]
    assert "model.bin" in (shell.home / "mdl.lock").read_text()


def test_no_name_at_all(tmp_path: Path, mdl: Inside) -> None:
    """A URL that ends in a slash, of which the server tells no name: 2 with the flag; offline, of an unasked URL, 8."""
    with FaultyServer(faults.honest(SMALL)) as server:
        shell = machine(tmp_path / "home")
        ran = mdl(shell, "get", f"{server.url}/sub/")
        assert (ran.code, "-o NAME" in ran.err, f"{server.url}/sub/" in ran.err) == (2, True, True)
        assert mdl(shell, "get", f"{server.url}/sub/", "-o", "x.bin").code == 0
        assert mdl(shell, "get", f"{server.url}/d/1", "--offline").code == 8


GIVEN: dict[str, Any] = {
    "fragment": lambda url, hexa: [f"{url}#sha256={hexa}"],
    "flag": lambda url, hexa: [url, "--sha256", hexa],
    "both": lambda url, hexa: [f"{url}#sha256={hexa}", f"--sha256={hexa.upper()}"],
}


@pytest.mark.parametrize("how", GIVEN)
@pytest.mark.parametrize("path", ["f.bin", "d/1"])
def test_a_digest_is_compared(server: FaultyServer, shell: Shell, mdl: Inside, how: str, path: str) -> None:
    """The right one verifies the file, as any digest of a catalog."""
    ran = mdl(shell, "get", *GIVEN[how](f"{server.url}/{path}", sha256(SMALL)), "--json")
    (row,) = ran.document["models"][0]["files"]
    assert (ran.code, row["verified"], row["sha256"]) == (0, "sha256", sha256(SMALL))


def test_another_digest(server: FaultyServer, shell: Shell, mdl: Inside) -> None:
    """With another one than the file has, nothing is there: 6."""
    ran = mdl(shell, "get", f"{server.url}/d/1#sha256={'a' * 64}", "--json", "--retries", "1")
    assert (ran.code, ran.document["error"]["code"]) == (6, "HASH")
    assert not list(Path(ran.document["models"][0]["path"]).glob("[!.]*"))


def test_a_digest_finds_a_copy(tmp_path: Path, server: FaultyServer, mdl: Inside) -> None:
    """Bytes that are on this disk already are not fetched again for another URL with their digest."""
    shell = machine(tmp_path / "home", catalog_of(SMALL, one=f"{server.url}/f"))
    assert mdl(shell, "get", "one").code == 0
    asked = len(server.requests)
    ran = mdl(shell, "get", f"{server.url}/other.bin#sha256={sha256(SMALL)}", "--json")
    assert rows(ran) == [("other.bin", "linked")]
    assert not [one for one in server.requests[asked:] if one.header("range") != "bytes=0-0"]


def test_a_job_keeps_the_digest(tmp_path: Path) -> None:
    """The record of a job has the digest in its words, so that a resumed one compares it too."""
    with FaultyServer(faults.answers(503)) as server:
        shell = machine(tmp_path / "home", MDL_RETRIES="1")
        url = f"{server.url}/f.bin#sha256={sha256(SMALL)}"
        assert shell.run("get", url).code == 5
        job = records_of(shell).all()[-1]
        assert url in job.again.words
        server.handler = faults.honest(SMALL + b"!")
        assert shell.run("jobs", "resume", job.id).code == 6


IN_QUERY = [
    ("repo?Revision=master&FilePath=unet/model.safetensors", "model.safetensors", False),
    ("download?file=m.gguf&v=1.2", "m.gguf", False),
    ("repo?a=x.json&b=y.json", "repo", True),
    ("repo?token=abc.def12345", "repo", True),
    ("repo?id=7", "repo", True),
    ("m.bin?FilePath=other.safetensors", "m.bin", False),
]


@pytest.mark.parametrize(("tail", "name", "is_told"), IN_QUERY, ids=[tail for tail, _, _ in IN_QUERY])
def test_the_name_is_in_the_query(mdl: Inside, tmp_path: Path, tail: str, name: str, is_told: bool) -> None:
    """If neither path nor server name the file, the one value of the query that does is its name; else a line says what
    it is saved as."""
    with FaultyServer(lambda request, number: reply(200, bytes(100))) as server:
        ran = mdl(machine(tmp_path), "get", f"{server.url}/api/{tail}", "--json")
    [row] = ran.document["models"][0]["files"]
    assert (row["path"], "the URL names no file" in ran.err) == (name, is_told)
