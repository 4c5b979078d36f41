"""The doctor finds each thing that may be wrong, shows no secret, and says what to do."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from pathlib import Path

import pytest
import trustme
from support.faulty_server import Answer, FaultyServer, Request, json_reply, reply
from support.shell import Shell

from mdl.doctor import CheckResult, network
from mdl.doctor.machine import models_folder, state_folder
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.policy import Limits
from mdl.sources.hub_endpoint import Endpoint

TOKEN, PASSWORD = "hf_" + "s3cr3t" * 5, "passw0rd"
ALICE = {"type": "user", "name": "alice", "auth": {"accessToken": {"displayName": "ci", "role": "read"}}}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
OTHERS = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HOME",
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the tester's own settings counts."""
    for name in (*PROXIES, *map(str.lower, PROXIES), *OTHERS, "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def a_hub(who: Answer, models: Answer | None = None) -> Callable[[Request, int], Answer]:
    """A hub that answers the doctor's two questions."""
    return lambda request, _: who if "whoami" in request.path else models or json_reply([])


def result(check: Callable[..., str | None], *given: object) -> CheckResult:
    """What a check finds; a failure has advice and an exit code."""
    found = CheckResult.of(check.__name__, lambda: check(*given))
    assert found is not None
    assert found.ok or found.advice
    return found


def exit_code(found: CheckResult) -> int:
    """What the command would end with for this check alone."""
    return found.error.exit_code if found.error else 0


def at_hub(endpoint: Endpoint, connect: Callable[[], HttpClient] | None) -> dict[str, CheckResult]:
    """What the three checks of the hub find, in their order."""
    with contextlib.ExitStack() as closing:
        hub = network.Hub(endpoint, connect, closing)
        return {check.__name__: result(check, hub) for check in (network.endpoint, network.clock, network.token)}


def asked(url: str) -> dict[str, CheckResult]:
    """What the doctor finds at a hub, asked with the token; it shows no secret."""
    endpoint, hosts = Endpoint(url, TOKEN, "HF_TOKEN"), AllowList.of(["127.0.0.1", "hub.example"])
    found = at_hub(
        endpoint, lambda: HttpClient(hosts, tokens=[endpoint.origin_token], limits=Limits(connect=2, stall=2))
    )
    assert TOKEN not in str(found)
    assert PASSWORD not in str(found)
    return found


# The token


def test_a_valid_token_is_told_by_its_owner() -> None:
    """The hub is asked with the token; name, title and role are told."""
    with FaultyServer(a_hub(json_reply(ALICE))) as server:
        found = asked(server.url)["token"]
    assert [request.header("authorization") for request in server.requests] == [f"Bearer {TOKEN}"] * 2
    assert found.ok
    assert found.detail == "from HF_TOKEN, for 127.0.0.1 only; valid: user alice, token 'ci', role read"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_fails(status: int) -> None:
    """If the hub does not accept the token, that is 4, in the hub's words; the endpoint itself is fine."""
    no = json_reply({"error": "Invalid credentials in Authorization header"}, status=status)
    with FaultyServer(a_hub(no, no)) as server:
        found = asked(server.url)
    assert (found["endpoint"].ok, found["token"].ok, exit_code(found["token"])) == (True, False, 4)
    assert "Invalid credentials" in found["token"].detail
    assert f"{server.url}/settings/tokens" in (found["token"].advice or "")


@pytest.mark.parametrize(
    "who",
    [
        *(json_reply({}, status=status) for status in (404, 429, 500)),
        *map(json_reply, ([], 7, None, {}, {"name": 3})),
        *(json_reply({"name": name, "auth": []}) for name in ("a\x1b[31m\nb", "a" * 5000)),
        json_reply({"name": "a", "auth": {"accessToken": {"displayName": 3, "role": []}}}),
    ],
)
def test_a_hub_that_cannot_tell_is_no_failure(who: Answer) -> None:
    """A mirror without that question, a busy hub, a nonsensical answer: one harmless line, and no failure."""
    with FaultyServer(a_hub(who)) as server:
        found = asked(server.url)["token"]
    assert found.ok
    assert found.detail.isprintable()
    assert len(found.detail) < 400
    assert who.status == 200 or "valid:" not in found.detail


def test_a_mirror_that_redirects_elsewhere_sends_no_token_there() -> None:
    """A question redirected to another origin is asked there without the token, and its answer proves nothing."""
    with FaultyServer(a_hub(json_reply({"error": "who are you?"}, status=401))) as other:
        elsewhere = reply(302, b"", ("Location", f"{other.url}/api/whoami-v2"))
        with FaultyServer(a_hub(elsewhere)) as server:
            assert asked(server.url)["token"].ok
    assert [request.header("authorization") for request in other.requests] == [None]


def test_sources_of_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The place of the token in use is named, and so are the places that it hides; neither token is shown."""
    path = tmp_path / "token"
    path.write_text("hf_other")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_TOKEN_PATH", str(path))
    found = at_hub(Endpoint.from_environ(os.environ), None)
    assert found["token"].detail.startswith(f"from HF_TOKEN ({path} is ignored), for huggingface.co only")
    assert "hf_other" not in str(found)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    found = at_hub(Endpoint.from_environ(os.environ), None)
    assert found["token"].detail.startswith("HF_HUB_DISABLE_IMPLICIT_TOKEN is set; private")


@pytest.mark.parametrize(("content", "ok"), [(None, False), (b"\xff\xfe", False), (b"", True)])
def test_a_token_file_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, ok: bool
) -> None:
    """It is told, for the hub is asked without a token then; a file that is absent or empty is as good as none."""
    path = tmp_path / "token"
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(path))
    network.token_file(Endpoint.from_environ(os.environ))
    path.mkdir() if content is None else path.write_bytes(content)
    found = CheckResult.of("token file", lambda: network.token_file(Endpoint.from_environ(os.environ)))
    assert (found is None) == ok, found
    assert ok or (found and str(path) in found.detail)


def test_a_token_file_that_others_can_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It fails while others can read it; a folder that keeps them out is enough."""
    folder = tmp_path / "keys"
    folder.mkdir()
    path = folder / "token"
    path.write_text(TOKEN)
    for above in (at for at in folder.parents if at.stat().st_uid == os.getuid() and at.name):
        above.chmod(above.stat().st_mode | 0o011)
    monkeypatch.setenv("HF_TOKEN_PATH", str(path))
    endpoint = Endpoint.from_environ(os.environ)
    for folder_mode, mode, ok in ((0o711, 0o644, False), (0o700, 0o644, True), (0o711, 0o600, True)):
        folder.chmod(folder_mode)
        path.chmod(mode)
        if ok:
            network.token_file(endpoint)
        else:
            assert result(network.token_file, endpoint).advice == f"chmod 600 {path}"


# The endpoint and the clock


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (reply(503, b"we are being repaired"), 5, "being repaired"),
        (reply(429, b"slow down"), 5, "slow down"),
        (reply(200, b"<html>Please sign in</html>", ("Content-Type", "text/html")), 6, "not that of a hub"),
        (Answer(200, [("Content-Length", "5")], b"[", "close"), 5, "ended after"),
    ],
)
def test_an_endpoint_that_does_not_serve(answer: Answer, code: int, words: str) -> None:
    """A server in trouble fails, and so does another program that answers in its place; neither gets the token."""
    with FaultyServer(a_hub(json_reply(ALICE), answer)) as server:
        found = asked(server.url)
    assert (found["endpoint"].ok, exit_code(found["endpoint"])) == (False, code)
    assert words in found["endpoint"].detail
    assert "not checked" in found["token"].detail
    assert len(server.requests) == 1


def _answer_without_tls(listener: socket.socket) -> None:
    with listener.accept()[0] as client:
        client.recv(100)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_no_server_or_one_without_tls() -> None:
    """A port on which no program listens is 5, TLS with a server that does not speak it 13."""
    assert exit_code(asked("http://127.0.0.1:9")["endpoint"]) == 5
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=_answer_without_tls, args=(listener,))
        answering.start()
        found = asked(f"https://127.0.0.1:{listener.getsockname()[1]}")["endpoint"]
        answering.join()
    assert exit_code(found) == 13
    assert "SSL_CERT_FILE" in (found.advice or "")


@pytest.mark.parametrize(
    ("date", "age", "words"),
    [
        *((0, "", "within"), (-600, "600", "within"), (0, "9" * 30, "within")),
        *((-600, "", "but the endpoint has"), (7200, "", "but the endpoint has")),
        *((None, "", "has no time"), ("yesterday", "", "has no time")),
        ("Mon, 01 Jan 99999 00:00:00 GMT", "", "has no time"),
    ],
)
def test_the_clock(date: int | str | None, age: str, words: str) -> None:
    """The clock is compared with the answer's Date, plus its Age; a difference of two minutes is accepted."""
    text = formatdate(time.time() + date, usegmt=True) if isinstance(date, int) else date
    sent = [(name, value) for name, value in (("Date", text), ("Age", age)) if value]
    with FaultyServer(a_hub(json_reply({}, status=404), json_reply([], *sent))) as server:
        found = asked(server.url)["clock"]
    assert found.ok == (words != "but the endpoint has")
    assert words in found.detail


# Proxy and certificates


def test_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoint and token are asked through the proxy, which is shown without its password; so is its refusal."""
    with FaultyServer(a_hub(json_reply(ALICE))) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url.replace("//", f"//me:{PASSWORD}@"))
        found = asked("http://hub.example")["endpoint"]
        assert found.ok
        assert found.detail.endswith(f"through {server.url}")
        assert network.proxy("http://hub.example") == f"{server.url} for hub.example, from HTTP_PROXY"
        assert {request.header("host") for request in server.requests} == {"hub.example"}
        server.handler = a_hub(json_reply(ALICE), reply(407, b"who are you?"))
        refused = asked("http://hub.example")["endpoint"]
    assert (refused.ok, exit_code(refused)) == (False, 4)


@pytest.mark.parametrize(
    ("environ", "ok", "words"),
    [
        ({}, True, "none set"),
        ({"HTTP_PROXY": "http://p:1"}, True, "none for hub.example, because no proxy is set for https"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a, .example"}, True, "none for hub.example, because NO_PROXY"),
        ({"ALL_PROXY": f"me:{PASSWORD}@p:1"}, True, "http://p:1 for hub.example, from ALL_PROXY"),
        ({"HTTPS_PROXY": f"http://me:{PASSWORD}/x@p:1"}, False, "HTTPS_PROXY is not used: it is not the URL of a"),
        ({"HTTPS_PROXY": f"ftp://me:{PASSWORD}@p"}, False, "HTTPS_PROXY is not used: its scheme is none of http,"),
        ({"ALL_PROXY": f"odd://me:{PASSWORD}@p"}, False, "ALL_PROXY is not used: its scheme is none of http,"),
        ({"HTTPS_PROXY": "p:1", "ALL_PROXY": "socks://q:2/"}, True, "http://p:1 for hub.example, from HTTPS_PROXY"),
        (
            {"HTTPS_PROXY": "p:1", "ALL_PROXY": "odd://q"},
            True,
            "http://p:1 for hub.example, from HTTPS_PROXY; ALL_PROXY is",
        ),
    ],
)
def test_the_proxy_that_would_be_used(
    monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str], ok: bool, words: str
) -> None:
    """The proxy for the endpoint without its user, or why there is none. What is no URL fails if it were used."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = result(network.proxy, "https://hub.example")
    assert found.ok == ok
    assert found.detail.startswith(words)
    assert PASSWORD not in str(found)


def test_certificates_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A CA file in PEM form is fine, also beside an empty folder; without any, the system's are."""
    assert network.certificates().startswith("those of ")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/x.pem")
    assert "REQUESTS_CA_BUNDLE is ignored; mdl reads SSL_CERT_FILE" in network.certificates()
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", f'"{tmp_path / "ca.pem"}"')  # as docker --env-file takes it
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}\r")
    assert network.certificates() == f"those in {tmp_path / 'ca.pem'} (SSL_CERT_FILE) and {tmp_path} (SSL_CERT_DIR)"


@pytest.mark.parametrize(
    ("name", "content"),
    [("SSL_CERT_FILE", None), ("SSL_CERT_FILE", b"\x30\x82garbage"), ("SSL_CERT_DIR", None), ("SSL_CERT_DIR", b"")],
)
def test_unusable_certificates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, content: bytes | None
) -> None:
    """A place that is missing, holds no certificate, or none under a name that OpenSSL looks for: 13, and its name."""
    place = tmp_path / "place"
    if content:
        place.write_bytes(content)
    elif content is not None:
        place.mkdir()
    monkeypatch.setenv(name, str(place))
    found = result(network.certificates)
    assert (found.ok, exit_code(found)) == (False, 13)
    assert str(place) in found.detail
    assert "unset" in (found.advice or "")


# The disk


def checked(folder: Path) -> CheckResult:
    """What is found of a models folder. The check leaves nothing there."""
    before = [sorted(place.iterdir()) for place in (folder, folder.parent) if place.is_dir()]
    found = result(models_folder, lambda: folder)
    assert exit_code(found) in (0, 7)
    assert [sorted(place.iterdir()) for place in (folder, folder.parent) if place.is_dir()] == before
    return found


def test_a_sound_folder(tmp_path: Path) -> None:
    """Free space is told of a folder that exists, and of one that does not yet."""
    assert checked(tmp_path).detail.startswith(f"{tmp_path}: ")
    found = checked(tmp_path / "models")
    assert found.ok
    assert "(does not exist yet)" in found.detail
    assert "GB free" in found.detail


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """A file in its place or on its way, a link to nowhere, a file system that takes no file: 7, and why."""
    file, nowhere = tmp_path / "file", tmp_path / "nowhere"
    file.write_bytes(b"")
    nowhere.symlink_to(tmp_path / "gone" / "x")
    for place in (file, file / "models", nowhere, Path("/proc/models")):
        found = result(models_folder, lambda at=place: at)
        assert (found.ok, exit_code(found)) == (False, 7), place
        assert str(place) in found.detail
        assert not result(state_folder, lambda at=place: at).ok
    assert result(state_folder, lambda: tmp_path).ok


@pytest.mark.parametrize(("is_link", "code"), [(False, 7), (True, 11)])
def test_a_folder_of_mdls_own_that_no_download_takes(tmp_path: Path, is_link: bool, code: int) -> None:
    """A file or a link in the place of ``.mdl`` stops every download, and so it is named."""
    own, elsewhere = tmp_path / "models" / ".mdl", tmp_path / "elsewhere"
    own.parent.mkdir()
    elsewhere.mkdir()
    own.symlink_to(elsewhere) if is_link else own.touch()
    found = result(models_folder, lambda: own.parent)
    assert (found.ok, exit_code(found)) == (False, code), found
    assert str(own) in found.detail


@pytest.mark.parametrize(("field", "words"), [("f_bavail", "0.0 GB free"), ("f_favail", "room for 0 files")])
def test_nothing_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: str, words: str) -> None:
    """No byte or no inode free is 7."""
    real = os.statvfs(tmp_path)
    names = ("f_blocks", "f_bavail", "f_frsize", "f_files", "f_favail")
    facts = {name: getattr(real, name) or 1 for name in names} | {field: 0}
    monkeypatch.setattr(os, "statvfs", lambda _: type("Space", (), facts)())
    found = checked(tmp_path)
    assert not found.ok
    assert words in found.detail


@pytest.mark.fault(178)
def test_a_folder_of_another_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A ``.mdl`` that this user cannot write is named: 7. (Root can write every folder, so the answer is made up.)"""
    (tmp_path / ".mdl").mkdir()
    assert checked(tmp_path).ok
    monkeypatch.setattr(os, "access", lambda path, _mode: path != tmp_path / ".mdl")
    found = checked(tmp_path)
    assert (exit_code(found), found.detail) == (7, f"{tmp_path / '.mdl'} cannot be written by this user")


def test_an_interrupted_probe_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk that refuses the probe is 7 in its own words; an interruption passes. Neither leaves a byte."""

    def fail_with(trouble: BaseException) -> None:
        def fails(_: int) -> None:
            raise trouble

        monkeypatch.setattr(os, "fsync", fails)

    fail_with(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert checked(tmp_path).detail == f"{tmp_path}: Disk quota exceeded"
    fail_with(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        checked(tmp_path)
    assert list(tmp_path.iterdir()) == []


# The command


def test_no_secret_in_any_output(tmp_path: Path) -> None:
    """A hub that repeats the token in its refusal does not get it shown; exit code 4, with advice."""
    with FaultyServer(a_hub(json_reply({"error": f"bad token {TOKEN}\x1b[31m"}, status=401))) as server:
        shell = Shell(tmp_path, server.url, {"HF_TOKEN": TOKEN, "HTTPS_PROXY": f"http://me:{PASSWORD}@127.0.0.1:9"})
        for words in ((), ("--json",)):
            ran = shell.run("doctor", *words)
            assert ran.code == 4, ran.out
            assert not any(secret in ran.out + ran.err for secret in (TOKEN, PASSWORD, "\x1b"))
    (failed,) = (check for check in ran.document["checks"] if not check["ok"])
    assert failed["name"] == "token"
    assert failed["advice"].startswith("create a new token at ")


def test_every_check_runs_whatever_fails(tmp_path: Path) -> None:
    """A broken catalog, lock and endpoint are a line each, with the joint code 10; mistakes keep their lines."""
    shell = Shell(tmp_path, "ftp://hub.example")
    (tmp_path / "catalog.toml").write_text('schema = 1\n[models.a]\nsorce = "x"\n[models.b]\nsorce = "x"\n')
    (tmp_path / "mdl.lock").write_text("version = 99\n")
    ran = shell.run("doctor")
    assert ran.code == 10, ran.out
    lines = ran.out.splitlines()
    failed = [line.split(":")[0] for line in lines if line.startswith("FAIL")]
    assert failed == ["FAIL  catalog", "FAIL  lock", "FAIL  endpoint"]
    assert any(line.startswith("      ") and "catalog.toml:3" in line for line in lines)
    assert "ok    versions" in ran.out
    ran = shell.run("doctor", "--json", "--progress", "json")
    last = json.loads(ran.err.splitlines()[-1])
    codes = (ran.code, ran.document["error"]["code"], last["event"], last["error"]["code"])
    assert codes == (10, "PARTIAL", "failed", "PARTIAL")
    (tmp_path / "mdl.lock").unlink()
    (tmp_path / "catalog.toml").write_text("schema = 1\n")
    ran = shell.run("doctor", "--json")
    assert (ran.code, ran.document["error"]["code"], ran.document["error"]["item"]) == (2, "USAGE", "endpoint")


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """Interrupted while the endpoint is silent it ends with 130, and with what it has found so far."""
    reached = threading.Event()

    def silent(_request: Request, _: int) -> Answer:
        reached.set()
        return Answer(200, end="hang")

    with FaultyServer(silent) as server:
        shell = Shell(tmp_path, server.url)
        with subprocess.Popen(
            shell.command("doctor", "--json"), env=shell.environ, cwd=tmp_path, stdout=-1, stderr=-1
        ) as process:
            assert reached.wait(20)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate()
    assert process.returncode == 130
    assert "models folder" in {check["name"] for check in json.loads(out)["checks"]}
    assert not [path for path in tmp_path.rglob("*") if "doctor" in path.name]
