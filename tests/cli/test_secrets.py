"""Secrets, wherever they come from: in nothing that mdl says, keeps or starts, and sent to their own origin alone."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench, pinned
from support.catalogs import catalog_of
from support.data import DATA, SMALL
from support.faulty_server import Answer, FaultyServer, Handler, Request, json_reply
from support.jobs import program, records_of, state_of
from support.polling import until
from support.shell import ExitCode, Shell, machine, settings

from mdl.catalog.lock import Lock
from mdl.catalog.lock_file import write_lock
from mdl.errors import MdlError, UsageError
from mdl.net.allowlist import AllowList, OriginToken, origin_of
from mdl.net.client import HttpClient
from mdl.sources.hub_endpoint import Endpoint

TOKEN, SIGNATURE, PASSWORD = "canary.token-1", "canary/signature+2", "canary-password-3"
ENVIRON = {
    "HF_TOKEN": TOKEN,
    "AWS_SECRET_ACCESS_KEY": "canary/aws+key=4",
    "AWS_SESSION_TOKEN": "canary-aws-session-5",
    "RUNPOD_API_KEY": "canary_runpod_6",
}
USUAL = {"host", "user-agent", "accept", "accept-encoding", "connection", "range", "if-range"}
"""Header names that any server may see."""


def leaks(home: Path, *said: str) -> list[str]:
    """The outputs, names and files below ``home`` that hold a canary. The user's own files do not count, nor does the
    lock, which repeats the catalog's addresses."""
    found = [text for text in said if "canary" in text]
    for path in home.rglob("*"):
        is_own = path.name in ("catalog.toml", "mdl.lock", "token", ".netrc")
        if "canary" in path.name or (path.is_file() and not is_own and b"canary" in path.read_bytes()):
            found.append(str(path))
    return found


def echo(status: int) -> Handler:
    """Refuses, and repeats in every place it can all that it was sent, and all that it could know."""

    def handler(request: Request, number: int) -> Answer:
        heard = " ".join(f"{name}: {value}" for name, value in request.headers)
        words = f"you, {heard}, asked for {request.origin}{request.target} with {' '.join(ENVIRON.values())}"
        hostile = ("X-Request-Id", TOKEN), ("ETag", f'"{TOKEN}"')
        return json_reply({"error": words}, *hostile, status=status)

    return handler


def header_names(*servers: FaultyServer) -> set[str]:
    """What headers the servers were sent, in lower case."""
    return {name.lower() for server in servers for request in server.requests for name, _ in request.headers}


COMMANDS = (
    "get one -v --retries 1",
    "get one --json --progress json -v",
    "get hf:o/r -v",
    "prefetch one --metrics m.prom --ready-file ready.json",
    "lock",
    "show one",
    "list --json",
    "config",
    "jobs --json",
)


@pytest.mark.fault(167, 171)
def test_a_server_that_repeats_everything(
    exit_code: ExitCode, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Token, keys and signed queries are in no output, traceback, log, record, receipt, metrics file or file name."""
    with (
        FaultyServer(echo(403)) as hub,
        FaultyServer(faults.redirects(f"{hub.url}/f?X-Amz-Signature={SIGNATURE}")) as cdn,
    ):
        url = f"{cdn.url}/f.bin?token={SIGNATURE}"
        shell = machine(tmp_path, catalog_of(one=url), hub.url, **ENVIRON)
        for words in (*COMMANDS, f"get {cdn.url}/d/g.bin?sig={SIGNATURE} -v"):
            assert exit_code(shell, *words.split()) in (0, 3, 4), words
            assert leaks(tmp_path, *capfd.readouterr()) == [], words
        for how in ("show", "log"):
            exit_code(shell, "jobs", how, records_of(shell).all()[-1].id)
        assert leaks(tmp_path, *capfd.readouterr()) == []
        headers = {one for server in (hub, cdn) for request in server.requests for one in request.headers}
    assert not [value for name, value in headers if "canary" in value and name != "Authorization"]


@pytest.mark.fault(412)
@pytest.mark.parametrize("name", ["gpu", "box", "store", "studio"])
def test_a_remote_that_repeats_everything(
    exit_code: ExitCode, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """The keys of remotes and buckets are in no output, log or record, though the remote repeats all that it hears."""
    with FaultyServer(echo(403)) as server:
        shell = machine(tmp_path, "schema = 1", server.url, AWS_ACCESS_KEY_ID="canary-id-7", **ENVIRON)
        tables = {
            "gpu": f'kind = "runpod"\nbase_url = "{server.url}/v2/e"',
            "box": f'kind = "trainer"\nurl = "{server.url}"\napi_key_env = "RUNPOD_API_KEY"',
            "store": f'kind = "bucket"\nurl = "s3://training"\nendpoint_url = "{server.url}"',
            "studio": f'kind = "api"\nurl = "{server.url}/r"\napi_key_env = "RUNPOD_API_KEY"',
        }
        settings(shell, "".join(f"[remotes.{one}]\n{text}\n" for one, text in tables.items()))
        for words in (
            "fetch {} p1 -v",
            "fetch {} p1 --json --progress json",
            "remote check {} -vv",
            "remote status {} p1",
        ):
            assert exit_code(shell, *words.format(name).split()) == 4, words
            assert leaks(tmp_path, *capfd.readouterr()) == [], words
        assert server.requests


@pytest.mark.fault(171)
def test_a_token_file_in_the_background(tmp_path: Path) -> None:
    """The token of the token file is kept out of the logs of a detached job as well, although the server repeats it."""
    with FaultyServer(echo(403)) as hub:
        keys = {name: value for name, value in ENVIRON.items() if name != "HF_TOKEN"}
        shell = machine(tmp_path, "schema = 1", hub.url, HF_TOKEN_PATH=str(tmp_path / "token"), **keys)
        (tmp_path / "token").write_text(TOKEN)
        ran = shell.run("get", "hf:o/r", "--detach")
        until(lambda: records_of(shell).find(ran.out.strip()).status == "failed")
        until(lambda: "ended" in (state_of(shell) / "downloads.log").read_text())
        assert any(request.header("authorization") for request in hub.requests)
    assert leaks(tmp_path, ran.out, ran.err) == []


REPEATED = "denied to {user}:{password}", "Proxy-Authorization: Basic {basic}", "({basic})"


@pytest.mark.fault(91, 171)
@pytest.mark.parametrize("words", REPEATED)
def test_a_proxy_that_repeats_its_password(
    exit_code: ExitCode, tmp_path: Path, capfd: pytest.CaptureFixture[str], words: str
) -> None:
    """The password of a proxy variable is a secret like any other, also as it is sent, in base64."""
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    said = words.format(user="me", password=PASSWORD, basic=basic)
    with FaultyServer(faults.answers(407, body=said.encode())) as proxy:
        address = f"http://me:{PASSWORD}@127.0.0.1:{proxy.port}"
        shell = machine(tmp_path, catalog_of(one="http://files.example/f"), HTTP_PROXY=address, ALL_PROXY=address)
        assert exit_code(shell, "get", "one", "-v") == 4
        assert {one.header("proxy-authorization") for one in proxy.requests} == {f"Basic {basic}"}
    logs = (state_of(shell) / "downloads.log").read_text()
    assert leaks(tmp_path, *capfd.readouterr()) == []
    assert basic not in logs


@pytest.mark.fault(47, 174)
@pytest.mark.parametrize("status", faults.REDIRECTS)
def test_what_another_origin_gets(bench: Bench, status: int) -> None:
    """By every kind of redirect: nothing but what any server gets; no Authorization, Cookie, Referer or X- header."""
    set_cookie = ("Set-Cookie", "canary=1; Path=/; Domain=127.0.0.1")
    with FaultyServer(faults.honest(SMALL)) as other:
        away = faults.redirects(f"{other.url}/x", status=status)
        with FaultyServer(faults.with_headers(away, set_cookie)) as home:
            bearer = OriginToken(origin_of(home.url), TOKEN)
            runs = [bench.run(pinned(f"{home.url}/{name}", SMALL, path=name), bearer=bearer) for name in "ab"]
        assert header_names(other) <= USUAL
        assert not [value for request in other.requests for _, value in request.headers if "canary" in value]
        assert header_names(home) <= USUAL | {"authorization"}
    assert [run.code for run in runs] == [0, 0]


@pytest.mark.fault(91)
def test_what_lies_behind_a_proxy_does_not_get_its_password(exit_code: ExitCode, tmp_path: Path) -> None:
    """A redirect from behind a proxy to a host that NO_PROXY exempts takes no Proxy-Authorization there."""
    with (
        FaultyServer(faults.honest(DATA)) as origin,
        FaultyServer(faults.redirects(f"http://localhost:{origin.port}/f")) as proxy,
    ):
        address = f"http://me:{PASSWORD}@127.0.0.1:{proxy.port}"
        allow = {"MDL_ALLOW_HOSTS": "localhost", "HTTP_PROXY": address, "NO_PROXY": "localhost"}
        shell = machine(tmp_path, catalog_of(one="http://files.example/f"), **allow)
        assert exit_code(shell, "get", "one") == 0
        assert proxy.requests
        assert header_names(origin) <= USUAL


@pytest.mark.fault(173)
@pytest.mark.parametrize("where", ["home", "NETRC"])
def test_netrc_is_not_read(exit_code: ExitCode, tmp_path: Path, where: str) -> None:
    """Neither ~/.netrc nor $NETRC lends its passwords, to no host, on no hop."""
    with FaultyServer(faults.honest(DATA)) as other, FaultyServer(faults.redirects(f"{other.url}/x")) as home:
        extra = {"NETRC": str(tmp_path / ".netrc")} if where == "NETRC" else {}
        shell = machine(tmp_path, catalog_of(one=f"{home.url}/f"), **extra)
        logins = f"machine 127.0.0.1 login me password {PASSWORD}\ndefault login d password {PASSWORD}"
        (tmp_path / ".netrc").write_text(logins)
        (tmp_path / ".netrc").chmod(0o600)
        assert exit_code(shell, "get", "one") == 0
        assert header_names(home, other) <= USUAL


@pytest.mark.fault(176)
@pytest.mark.parametrize("char", ["\r", "\n", "\r\nX-Injected: 1\r\n", "\0", "\x7f", "é"])
def test_nothing_splits_a_request(bench: Bench, char: str) -> None:
    """CR, LF, NUL and what is no ASCII in token, header, path or Location: refused, or sent as one harmless word."""
    with pytest.raises(UsageError) as caught:
        Endpoint.from_environ({"HF_TOKEN": f"canary{char}token"}).check_token()
    assert "canary" not in str(vars(caught.value))
    with FaultyServer(faults.honest(SMALL)) as server, HttpClient(AllowList.of(["127.0.0.1"])) as http:
        for url, headers in ((f"{server.url}/a{char}b", {}), (f"{server.url}/c", {"If-Range": f"x{char}y"})):
            with suppress(MdlError, ValueError), http.open("GET", url, headers):
                pass
        server.handler = faults.redirects(f"/d{char}e")
        with suppress(MdlError), http.open("GET", f"{server.url}/f"):
            pass
        asked = server.requests
    assert not [one for one in asked if one.header("x-injected") or " " in one.target or not one.target.isprintable()]
    assert header_names(server) <= USUAL


@pytest.mark.fault(81, 171)
@pytest.mark.parametrize(
    "form", ["http://me:{0}@127.0.0.1:9", "http://127.0.0.1:9/?token={0}", "http://127.0.0.1:9/#{0}"]
)
def test_a_secret_in_the_endpoint(
    exit_code: ExitCode, tmp_path: Path, capfd: pytest.CaptureFixture[str], form: str
) -> None:
    """A secret in HF_ENDPOINT is refused (2) without a word of it, and no record holds it."""
    shell = machine(tmp_path, catalog_of(one="http://127.0.0.1:9/f"), form.format(PASSWORD))
    assert [exit_code(shell, *words.split()) for words in ("get one -v", "doctor")] == [2, 2]
    assert leaks(tmp_path, *capfd.readouterr()) == []


def modes(folder: Path) -> dict[str, str]:
    found = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder)): f"{stat.S_IMODE(path.lstat().st_mode):o}" for path in found}


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Every user may read and write new files, unless a mode forbids it."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.fault(141, 172, 178)
@pytest.mark.usefixtures("open_umask")
def test_what_is_kept_is_kept_private(exit_code: ExitCode, tmp_path: Path) -> None:
    """Receipts, listings, locks, logs and records are 0600, their folders 0700, whatever the umask: partials too."""
    with FaultyServer(faults.first(1, faults.cut(faults.honest(DATA), 2**20), faults.honest(DATA))) as server:
        shell = machine(tmp_path, catalog_of(one=f"{server.url}/f"))
        assert exit_code(shell, "get", "one", "--retries", "1") == 5
        found = {**modes(shell.models / ".mdl"), **modes(state_of(shell))}
        assert any(name.endswith("/journal") for name in found)
        assert exit_code(shell, "get", "one") == 0
    found |= {**modes(shell.models / ".mdl"), **modes(state_of(shell))}
    suffixes = (".job", ".log", ".lock", ".receipts", ".json", "/journal", ".gitignore")
    files = {name: mode for name, mode in found.items() if name.endswith(suffixes)}
    folders = {name: mode for name, mode in found.items() if not name.endswith((*suffixes, "/data"))}
    assert (set(files.values()), set(folders.values())) == ({"600"}, {"700"}), found
    assert len({name.rpartition(".")[2] for name in files}) > 3


@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize("words", ["init", "config set connections 8", "add tiny hf:org/tiny", "lock"])
def test_nobody_else_writes_the_settings(
    exit_code: ExitCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """They name programs that mdl starts: whatever the umask, the user's config folder and those above it are made for
    the user alone. A catalog elsewhere is in a folder that is as the umask says."""
    home = tmp_path / "home"
    home.mkdir()
    if words == "lock":
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
        write_lock(home / ".config/mdl/mdl.lock", Lock())
    else:
        assert exit_code(Shell(home), *words.split()) == 0
    assert (modes(home / ".config")["."], modes(home / ".config")["mdl"]) == ("700", "700")
    assert exit_code(Shell(home), "init", str(home / "team/catalog.toml")) == 0
    assert modes(home / "team") == {".": "777", "catalog.toml": "666"}


@pytest.mark.fault(171)
def test_a_hook_is_told_no_secret(exit_code: ExitCode, tmp_path: Path) -> None:
    """Neither a hook's words nor the facts it is given hold a secret."""
    with FaultyServer(echo(403)) as hub:
        shell = machine(tmp_path, f'schema = 1\n[models.m]\nsource = "{hub.url}/x/f.bin?sig={SIGNATURE}"', **ENVIRON)
        settings(shell, f'[hooks]\non_failure = "{program(tmp_path)} a"')
        assert exit_code(shell, "get", "m") == 4
    assert "403" in (tmp_path / "told").read_text()
    assert leaks(tmp_path) == []
