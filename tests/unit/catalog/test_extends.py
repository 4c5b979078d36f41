"""extends: what a catalog has from others, which entry holds, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
from support.faulty_server import Answer, FaultyServer, Request, reply
from support.relay import relaying, secured
from support.shell import Inside, Shell, done, machine, settings, with_environ, write_catalog

from mdl.catalog.extends import MOST
from mdl.catalog.model import Catalog
from mdl.catalog.reader import read_catalog
from mdl.errors import CatalogError

ETAG = '"1"'


def written(folder: Path, **texts: str) -> Path:
    """Catalogs NAME.toml with these texts; the path of the first."""
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(f"schema = 1\n{text}")
    return folder / f"{next(iter(texts))}.toml"


def model(name: str, repo: str) -> str:
    return f'[models.{name}]\nsource = "hf:{repo}"\n'


def mistakes(path: Path) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        read_catalog([path])
    return caught.value.message.removeprefix(str(path.parent) + "/").split("\n")


def sources(catalog: Catalog) -> dict[str, str]:
    return {name: one.source_text for name, one in catalog.models.items()}


def test_own_entries_win_and_later_ones_over_earlier_ones(tmp_path: Path) -> None:
    """What is written in the catalog hides what it extends; of two that it extends the later one hides the earlier;
    groups are there as well, and each model says from which file it is."""
    path = written(
        tmp_path,
        own='extends = ["one.toml", "two.toml"]\n' + model("a", "own/a") + '[groups]\nmine = ["a", "c"]\n',
        one=model("a", "one/a") + model("b", "one/b") + '[groups]\ng = ["a"]\nmine = ["b"]\n',
        two=model("b", "two/b") + model("c", "two/c"),
    )
    catalog = read_catalog([path])
    assert sources(catalog) == {"a": "hf:own/a", "b": "hf:two/b", "c": "hf:two/c"}
    assert next(iter(catalog.models)) == "a"
    assert catalog.groups == {"mine": ("a", "c"), "g": ("a",)}
    origins = {name: Path(one.origin).name for name, one in catalog.models.items()}
    assert origins == {"a": "own.toml", "b": "two.toml", "c": "two.toml"}


def test_the_shipped_catalog_and_paths_from_the_file_that_says_them(tmp_path: Path) -> None:
    """shipped is the catalog of mdl; a path counts from the folder of its file, and a file that two extend counts
    once."""
    (tmp_path / "deep").mkdir()
    written(tmp_path, base='extends = ["shipped"]\n' + model("a", "base/a"))
    written(tmp_path / "deep", team='extends = ["../base.toml"]\n' + model("a", "team/a"))
    path = written(tmp_path, own='extends = ["shipped", "deep/team.toml", "base.toml"]')
    catalog = read_catalog([path])
    assert (sources(catalog)["a"], "bert-fa" in catalog.models) == ("hf:team/a", True)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (
            {"a": 'extends = ["b.toml"]', "b": 'extends = ["a.toml"]'},
            "b.toml:2: extends[0]: a circle: extends itself: ",
        ),
        ({"a": 'extends = ["a.toml"]'}, "a.toml:2: extends[0]: a circle: extends itself: "),
        ({"a": 'extends = ["none.toml"]'}, "a.toml:2: extends[0]: none.toml: no such file"),
        ({"a": 'extends = "b.toml"'}, "a.toml:2: extends: must be a list of texts, not text"),
        ({"a": 'extends = [""]'}, "a.toml:2: extends[0]: is empty"),
        ({"a": 'extends = ["b.toml"]', "b": "[models.x]\n"}, "b.toml:2: models.x: has no source"),
        (
            {"a": 'extends = ["b.toml"]\n[models.A]\nsource="hf:o/r"', "b": model("a", "o/r")},
            "b.toml:2: models.a: differs",
        ),
        *(
            ({"a": f'extends = ["{url}"]'}, 'a.toml:2: extends[0]: must be "shipped", a path, or an https URL')
            for url in ("http://example.org/x", "ftp://h/x", "https://u:p@h/x", "file:///etc/passwd", "hf://x")
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, texts: dict[str, str], words: str) -> None:
    """A circle, a file that is not there, one that is wrong and an address that may not be asked: each is told with
    the file and the line that says it."""
    told = mistakes(written(tmp_path, **texts))
    assert [line for line in told if words in line], told
    if "itself" in words:
        assert "a.toml → " in told[-1]


def test_how_many(tmp_path: Path) -> None:
    """64 may be read in all, in a row or beside each other; the chain is told."""
    for number in range(MOST):
        written(tmp_path, **{f"c{number}": f'extends = ["c{number + 1}.toml"]'})
    written(tmp_path, **{f"c{MOST}": model("x", "o/r")})
    assert sources(read_catalog([tmp_path / "c1.toml"])) == {"x": "hf:o/r"}
    [line] = mistakes(tmp_path / "c0.toml")
    assert (line.count(" → "), f"too many: over {MOST} catalogs" in line) == (MOST, True)
    names = [f"w{number}" for number in range(MOST)]
    written(tmp_path, **dict.fromkeys(names, ""))
    wide = written(tmp_path, wide=f"extends = {json.dumps([f'{name}.toml' for name in names])}")
    assert f"too many: over {MOST} catalogs" in mistakes(wide)[-1]
    written(tmp_path, wide=f"extends = {json.dumps([f'{name}.toml' for name in names[1:]])}")
    assert read_catalog([wide]).models == {}


class Team:
    """A server with one catalog, which answers 304 to its own ETag."""

    def __init__(self, text: str) -> None:
        self.text, self.status = text, 200

    def __call__(self, request: Request, number: int) -> Answer:
        if self.status != 200:
            return reply(self.status)
        if request.header("if-none-match") == ETAG:
            return reply(304, b"", ("ETag", ETAG))
        return reply(200, self.text.encode(), ("ETag", ETAG))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy is never so young that nobody is asked."""
    monkeypatch.setattr("mdl.catalog.extends.FRESH", 0.0)


def own(tmp_path: Path, url: str) -> Shell:
    return machine(tmp_path / "home", f'schema = 1\nextends = ["{url}"]\n')


@pytest.mark.usefixtures("always")
def test_a_team_s_catalog_on_the_web(tmp_path: Path, mdl: Inside) -> None:
    """It is fetched, then asked for by its ETag; offline and while the server fails its copy is used, which is said
    once; show says where the entry is from; what changed is there."""
    team = Team("schema = 1\n" + model("a", "org/a"))
    with FaultyServer(team) as server:
        shell = own(tmp_path, f"{server.url}/team.toml?X-Amz-Signature=canary")
        shown = done(mdl(shell, "show", "a"))
        assert f"catalog:  {server.url}/team.toml" in shown.out
        done(mdl(shell, "list", "*"))
        assert [one.status.split()[1] for one in server.requests] == ["200", "304"]
        assert "hf:org/a" in done(mdl(shell, "show", "a", "--json")).out
        before = len(server.requests)
        done(mdl(with_environ(shell, MDL_OFFLINE="1"), "list", "*"))
        assert len(server.requests) == before
        team.status = 503
        ran = done(mdl(shell, "list", "*"))
        assert ran.err.count("mdl: warning: ") == ran.err.count("the copy of ") == 1
        team.status = 200
        assert "a " in done(mdl(shell, "list", "*")).out
    kept = [path.read_text() for path in (shell.home / ".local/state/mdl/catalogs").iterdir()]
    assert (len(kept), "canary" in "".join(kept) + shown.out) == (1, False)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("words", "asks"), [("lock --check", 0), ("lock", 1)])
def test_a_check_of_the_lock_asks_nobody(tmp_path: Path, mdl: Inside, words: str, asks: int) -> None:
    """It compares the lock with the copy, however old that is; only a catalog that was never fetched is asked for."""
    with FaultyServer(Team("schema = 1\n" + model("a", "org/a"))) as server:
        shell = own(tmp_path, f"{server.url}/team.toml")
        done(mdl(shell, "lock"))
        done(mdl(shell, *words.split()))
        assert len(server.requests) == 1 + asks


def test_it_is_asked_for_now_and_then(tmp_path: Path, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that is minutes old is used without asking, and after a failure nobody is asked again at once."""
    now = 1_800_000_000.0
    monkeypatch.setattr("mdl.catalog.extends.time", SimpleNamespace(time=lambda: now))
    team = Team("schema = 1\n" + model("a", "org/a"))
    with FaultyServer(team) as server:
        shell = own(tmp_path, f"{server.url}/team.toml")
        for minutes, status, requests in ((0, 200, 1), (9, 200, 1), (11, 503, 2), (12, 503, 2), (22, 200, 3)):
            now, team.status = 1_800_000_000.0 + 60 * minutes, status
            done(mdl(shell, "list", "*"))
            assert len(server.requests) == requests, minutes


@pytest.mark.parametrize(
    ("status", "environ", "code"),
    [(503, {"MDL_RETRIES": "1"}, 5), (404, {}, 3), (403, {}, 4), (200, {"MDL_OFFLINE": "1"}, 8)],
)
def test_nothing_is_there_to_use(tmp_path: Path, mdl: Inside, status: int, environ: dict[str, str], code: int) -> None:
    """Without a copy a server that fails or refuses, and --offline, end with their own codes and name the URL."""
    team = Team("schema = 1\n")
    team.status = status
    with FaultyServer(team) as server:
        ran = mdl(with_environ(own(tmp_path, f"{server.url}/team.toml"), **environ), "list", "*")
    assert (ran.code, "team.toml" in ran.err) == (code, True), ran.err


@pytest.mark.usefixtures("always")
def test_what_is_no_catalog_is_told_and_not_kept(tmp_path: Path, mdl: Inside) -> None:
    """What is no TOML is a mistake with its URL and line, a huge answer is one too, and what comes next is read."""
    team = Team("= no")
    with FaultyServer(team) as server:
        shell = own(tmp_path, f"{server.url}/team.toml")
        ran = mdl(shell, "list", "*")
        assert (ran.code, f"{server.url}/team.toml:1: not TOML" in ran.err) == (2, True), ran.err
        team.text = "#" * (16 * 2**20 + 1)
        ran = mdl(shell, "list", "*")
        assert (ran.code, "larger than 16 MiB" in ran.err) == (2, True), ran.err
        team.text = "schema = 1\n" + model("a", "org/a")
        assert "a " in done(mdl(shell, "list", "*")).out


@pytest.mark.fault(462)
@pytest.mark.usefixtures("always")
def test_a_sign_in_page_in_its_place(tmp_path: Path, mdl: Inside) -> None:
    """Without a copy it is 6, with the page's title; else the copy is used, and that is said."""
    team = Team("<html><title>Hotel</title></html>")
    with FaultyServer(team) as server:
        shell = own(tmp_path, f"{server.url}/team.toml")
        assert "what came is a web page, 'Hotel'" in done(mdl(shell, "list", "*"), 6).err
        page, team.text = team.text, "schema = 1\n" + model("a", "org/a")
        done(mdl(shell, "list", "*"))
        server.handler = lambda request, number: reply(200, page.encode())
        ran = done(mdl(shell, "list", "*"))
    assert (re.search("^a ", ran.out, re.MULTILINE) is not None, "the copy of " in ran.err) == (True, True)


@pytest.mark.fault(462)
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
def test_a_validator_that_cannot_be_sent(tmp_path: Path, mdl: Inside, name: str) -> None:
    """A server that tells versions apart by a header beyond ASCII is asked each time without it."""
    with FaultyServer(lambda request, number: reply(200, b"schema = 1\n", (name, '"\xe9"'))) as server:
        shell = own(tmp_path, f"{server.url}/team.toml")
        for _ in range(2):
            done(mdl(shell, "list", "*"))
        asked = [one.header("if-none-match") or one.header("if-modified-since") for one in server.requests]
    assert asked == [None, None]


@pytest.mark.fault(462)
@pytest.mark.parametrize("url", ["https://[", "https://[::1", "https://host:99999/x"])
def test_a_url_that_cannot_be_read(tmp_path: Path, mdl: Inside, url: str) -> None:
    """It is a mistake with its line, in a file and in a catalog on the web."""
    assert "catalog.toml:2: extends[0]: must be" in done(mdl(own(tmp_path, url), "list", "*"), 2).err
    with FaultyServer(Team(f'schema = 1\nextends = ["{url}"]\n')) as server:
        ran = done(mdl(own(tmp_path / "web", f"{server.url}/team.toml"), "list", "*"), 2)
    assert "team.toml:2: extends[0]: must be" in ran.err


def test_only_the_host_that_was_named_is_asked(tmp_path: Path, mdl: Inside) -> None:
    """A catalog on the web leads to its own host only: another one, also by a redirect, is refused, 11, unless the
    user allows it; a path in it is one on its host, and never a file of this disk."""
    other = Team("schema = 1\n" + model("b", "org/b"))
    with FaultyServer(other, address="127.0.0.2") as stranger, FaultyServer(Team("")) as server:
        served = {"/team.toml": f'extends = ["{stranger.url}/x.toml"]', "/near.toml": 'extends = ["/etc/passwd"]'}
        served["/etc/passwd"] = model("c", "org/c")

        def answer(request: Request, number: int) -> Answer:
            if request.path == "/moved.toml":
                return reply(302, b"", ("Location", f"{stranger.url}/x.toml"))
            return reply(200, f"schema = 1\n{served[request.path]}".encode())

        server.handler = answer
        for name in ("team", "moved"):
            shell = own(tmp_path / name, f"{server.url}/{name}.toml")
            ran = mdl(shell, "list", "*")
            assert (ran.code, "127.0.0.2" in ran.err, stranger.requests) == (11, True, []), ran.err
        allowed = with_environ(own(tmp_path / "team", f"{server.url}/team.toml"), MDL_ALLOW_HOSTS="127.0.0.2")
        assert re.search("^b ", done(mdl(allowed, "list", "*")).out, re.MULTILINE), (
            "the control: an allowed host is asked"
        )
        assert re.search("^c ", done(mdl(own(tmp_path, f"{server.url}/near.toml"), "list", "*")).out, re.MULTILINE)


def test_a_catalog_that_wants_a_token(tmp_path: Path, mdl: Inside) -> None:
    """A credential of [hosts] goes to the host of a catalog as to any other; without it, it is 4."""

    def answer(request: Request, number: int) -> Answer:
        if request.header("authorization") != "Bearer canary-1234":
            return reply(401)
        return reply(200, f"schema = 1\n{model('a', 'org/a')}".encode())

    with FaultyServer(answer) as server:
        shell = with_environ(own(tmp_path, f"{server.url}/team.toml"), TEAM_TOKEN="canary-1234")
        assert mdl(shell, "list", "*").code == 4
        settings(shell, f'[hosts."127.0.0.1:{server.port}"]\ntoken_env = "TEAM_TOKEN"\n')
        ran = done(mdl(shell, "list", "*"))
    assert (re.search("^a ", ran.out, re.MULTILINE) is not None, "canary" in ran.out + ran.err) == (True, False)


def test_https_never_becomes_http(tmp_path: Path, mdl: Inside, ca: trustme.CA) -> None:
    """A catalog that came over TLS leads to no plain http, not even on this machine, nor does a redirect."""
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with FaultyServer(Team("schema = 1\n")) as plain:

        def answer(request: Request, number: int) -> Answer:
            if request.path == "/moved.toml":
                return reply(302, b"", ("Location", f"{plain.url}/x.toml"))
            return reply(200, f'schema = 1\nextends = ["{plain.url}/x.toml"]\n'.encode())

        with FaultyServer(answer) as server, relaying(server.port, secured(ca.issue_cert("localhost"))) as relay:
            url = f"https://localhost:{relay.port}"
            trusted = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
            ran = mdl(with_environ(own(tmp_path / "a", f"{url}/team.toml"), **trusted), "list", "*")
            assert (ran.code, f'{url}/team.toml:2: extends[0]: must be "shipped"' in ran.err) == (2, True), ran.err
            assert mdl(with_environ(own(tmp_path / "b", f"{url}/moved.toml"), **trusted), "list", "*").code == 11
        assert plain.requests == []


def test_the_lock_covers_what_is_inherited(tmp_path: Path, mdl: Inside) -> None:
    """The lock beside one's own catalog has the models of those that it extends, once they are named."""
    with FaultyServer(lambda request, number: reply(200, b"[123]", ("ETag", ETAG))) as server:
        shell = machine(tmp_path, 'schema = 1\nextends = ["team.toml"]\n')
        (tmp_path / "team.toml").write_text(f'schema = 1\n[models.a]\nsource = "{server.url}/f.json"\n')
        assert "a" not in done(mdl(shell, "list")).out
        assert "locked" not in done(mdl(shell, "lock")).err.replace("0 locked", "")
        ran = done(mdl(shell, "lock", "a"))
        assert ran.err.startswith("locked a, 1 file, 5 B\n")
        done(mdl(shell, "get", "a", "--locked"))
    assert (ran.out, (tmp_path / "mdl.lock").exists()) == (f"{tmp_path}/mdl.lock\n", True)


@pytest.mark.parametrize("count", [60, 800, 5000])
def test_a_catalog_that_extends_very_many(tmp_path: Path, mdl: Inside, count: int) -> None:
    """2 after a bounded number of requests, with about 20 messages: one file that names too many is wrong before any of
    them is asked for, and that there are too many in all is told once."""
    names = ", ".join(f'"x{number}.toml"' for number in range(count))
    text = f"schema = 1\nextends = [{names}]\n".encode()
    with FaultyServer(lambda request, number: reply(200, text)) as server:
        ran = done(mdl(own(tmp_path, f"{server.url}/a.toml"), "list"), 2)
        assert len(server.requests) <= (64 if count <= 64 else 1)
    assert len(ran.err.splitlines()) < 25
    assert len(ran.err) < 20_000


def test_many_mistakes_are_counted(tmp_path: Path, mdl: Inside) -> None:
    """Of a base the first are told with their lines, and how many more there are; of the own catalog, all."""
    shell = machine(tmp_path, "schema = 1\n" + "".join(f"[models.m{number}]\nwrong = 1\n" for number in range(300)))
    ran = done(mdl(shell, "list"), 2)
    assert ("600 mistakes in the catalog" in ran.err, ran.err.count("catalog.toml:")) == (True, 600)
    (tmp_path / "catalog.toml").rename(tmp_path / "base.toml")
    write_catalog(shell, 'schema = 1\nextends = ["base.toml"]\n')
    ran = done(mdl(shell, "list"), 2)
    assert ("and 580 more" in ran.err, ran.err.count("base.toml:")) == (True, 20)
