"""Answers of guards, buckets, Git hosts and hubs, as people who download models meet them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.data import sha256
from support.faults import honest, short_body
from support.faulty_server import Answer, FaultyServer, Request, reply
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.shell import Inside, done, machine, with_environ

JSON = ("Content-Type", "application/json")
REPO = Repo("org/repo", {"config.json": b"{}", "model.safetensors": Generated(3 * 2**20, "w")[0 : 3 * 2**20]})


def said(code: str, words: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{words}</Message></Error>'.encode()


SIGNED = "?X-Amz-Algorithm=A&X-Amz-Date=20200101T000000Z&X-Amz-Expires=3600&X-Amz-Signature=ab"
REFUSALS: dict[str, tuple[str, Answer, int, str]] = {
    "AWS WAF, a challenge": ("/m.bin", reply(202, b"", ("x-amzn-waf-action", "challenge")), 4, "wants a browser"),
    "AWS WAF, a riddle": ("/m.bin", reply(405, b"", ("x-amzn-waf-action", "captcha")), 4, "wants a browser"),
    "S3, an old link": (f"/m.bin{SIGNED}", reply(403, said("AccessDenied", "Request has expired")), 4, "a new link"),
    "Azure, an old link": (
        "/m.bin?sv=2022&se=2020-01-01T00%3A00%3A00Z&sig=ab",
        reply(403, said("AuthenticationFailed", "Server failed to authenticate the request")),
        4,
        "a new link",
    ),
    "S3, an archived object": (
        "/m.bin",
        reply(403, said("InvalidObjectState", "The operation is not valid for the object's storage class")),
        4,
        "ask it back",
    ),
    "a filter": (
        "/m.bin",
        reply(403, b"<title>Internet Security by Zscaler</title>"),
        4,
        "Zscaler filters this network",
    ),
    "a filter with 200": ("/m.bin", reply(200, b"<html><title>Blocked by FortiGuard</title>"), 6, "FortiGuard filters"),
    "a network that wants a sign-in": ("/m.bin", reply(511, b""), 4, "sign in"),
    "IIS, a login of Windows": (
        "/m.bin",
        reply(401, b"", ("WWW-Authenticate", "Negotiate"), ("WWW-Authenticate", "NTLM")),
        4,
        "takes Negotiate, NTLM alone",
    ),
    "GitHub, a quota": (
        "/m.bin",
        reply(403, b'{"message": "This repository is over its data quota."}', JSON),
        4,
        "no token helps",
    ),
    "Civitai, early access": (
        "/m.bin",
        reply(402, b'{"error": "Payment required", "message": "The model requires early access purchase"}', JSON),
        5,
        "early access purchase",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_says_what_helps(mdl: Inside, tmp_path: Path, name: str) -> None:
    """The hint comes from the answer and the URL; nothing is waited for, and nobody is sent to do what cannot help."""
    path, answer, code, words = REFUSALS[name]
    with FaultyServer(lambda request, number: answer) as server:
        ran = done(mdl(machine(tmp_path), "get", f"{server.url}{path}"), code)
        assert words in ran.err
        assert "token_env" not in ran.err
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_status_without_a_file_makes_no_empty_file(mdl: Inside, tmp_path: Path, status: int) -> None:
    """It is 6, and nothing gets a name."""
    shell = machine(tmp_path)
    with FaultyServer(lambda request, number: reply(status, b"")) as server:
        ran = done(mdl(shell, "get", f"{server.url}/m.bin"), 6)
    assert f"status {status}, which carries no file" in ran.err
    assert not list(shell.models.rglob("m.bin"))


@pytest.mark.parametrize(
    ("status", "kind"), [(206, "application/octet-stream"), (200, "application/octet-stream"), (206, "multipart/x")]
)
def test_a_cut_file_whose_range_says_that_it_is_whole(mdl: Inside, tmp_path: Path, status: int, kind: str) -> None:
    """It is 6: the length contradicts the Content-Range, and of several ranges none is the file."""
    body = bytes(10 if kind == "multipart/x" else 5)
    answer = reply(status, body, ("Content-Range", "bytes 0-9/10"), ("Content-Type", kind))
    shell = machine(tmp_path)
    with FaultyServer(lambda request, number: answer) as server:
        done(mdl(shell, "get", f"{server.url}/m.dat"), 6)
    assert not list(shell.models.rglob("m.dat"))


ERROR = b'{"error": "Unauthorized", "message": "The creator requires you to be logged in"}'


@pytest.mark.parametrize(
    "name",
    ["api/download/models/123", "model", "m.q4_0", "m.model", "m.task", "m.llamafile", "m.dduf", "m.pte"],
)
def test_an_error_under_any_name_is_no_model(mdl: Inside, tmp_path: Path, name: str) -> None:
    """A name that nobody knows, or none, does not make an API's error a file; what may be JSON is let through."""
    shell = machine(tmp_path)
    with FaultyServer(lambda request, number: reply(200, ERROR, JSON)) as server:
        ran = done(mdl(shell, "get", f"{server.url}/{name}"), 6)
        assert "requires you to be logged in" in ran.err
        done(mdl(shell, "get", f"{server.url}/error.json"))


@pytest.mark.parametrize("status", [404, 410])
def test_a_range_that_is_not_found(mdl: Inside, tmp_path: Path, status: int) -> None:
    """A proxy that knows no ranges may call them missing: the whole file is asked for once more."""
    data = REPO.files["model.safetensors"]
    cut_first = short_body(data, 2**20)
    whole = honest(data)

    def refuse_ranges(request: Request, number: int) -> Answer:
        if request.header("range"):
            return reply(status, b"no ranges here")
        return cut_first(request, number) if number == 0 else whole(request, number)

    shell = machine(tmp_path)
    with FaultyServer(refuse_ranges) as server:
        done(mdl(shell, "get", f"{server.url}/m.dat", "--sha256", sha256(data)))
        assert [request.header("range") is None for request in server.requests] == [True, False, True]


# --- tokens ------------------------------------------------------------------------------------------------


OF_TOKENS = [
    (401, "", "", "without it this repository is open"),
    (401, "", "Session expired, please log in again", "without it this repository is open"),
    (400, "", "Invalid authorization header", "without it this repository is open"),
    (403, "", "This IP address is not allowed for this organization", "the server says why"),
    (403, "", "Access to this resource is disabled.", "to nobody any more"),
    (403, "GatedRepo", "Your request to access model org/repo is awaiting a review.", "have not yet answered"),
    (403, "GatedRepo", "Your request to access model org/repo has been rejected.", "have refused the account"),
    (403, "GatedRepo", "Access to model org/repo is restricted.", "accept the licence"),
]


@pytest.mark.parametrize(
    ("status", "code", "words", "hint"), OF_TOKENS, ids=[f"{row[0]} {row[2]}" for row in OF_TOKENS]
)
def test_what_a_hub_says_of_a_token(mdl: Inside, tmp_path: Path, status: int, code: str, words: str, hint: str) -> None:
    """It is 4, and the hint fits the hub's reason."""

    def refuse_token(request: Request, number: int) -> Answer | None:
        headers = (("X-Error-Message", words), ("X-Error-Code", code))
        refusal = reply(status, b"{}", *(header for header in headers if header[1]))
        return refusal if request.header("authorization") else None

    with LoopbackHub([REPO], script=refuse_token) as hub:
        shell = with_environ(machine(tmp_path, endpoint=hub.url), HF_TOKEN="hf_old")
        assert hint in done(mdl(shell, "get", "org/repo"), 4).err


@pytest.mark.parametrize("token", ["<hf_abc>", "`hf_abc`", "HF_TOKEN=hf_abc", "hf_abc,", "a b"])
def test_a_token_that_is_none_stops_who_asks_the_hub_alone(mdl: Inside, tmp_path: Path, token: str) -> None:
    """It is 2 and names the variable where it would be sent; a run that does not ask the hub goes on."""
    with LoopbackHub([REPO]) as hub, FaultyServer(lambda request, number: reply(200, b"bytes")) as server:
        shell = with_environ(machine(tmp_path, endpoint=hub.url), HF_TOKEN=token)
        ran = done(mdl(shell, "get", "org/repo"), 2)
        assert "HF_TOKEN" in ran.err
        assert not hub.requests
        done(mdl(shell, "get", f"{server.url}/m.dat"))
        done(mdl(shell, "list", "--local"))
        done(mdl(shell, "verify"))


def test_a_credential_that_cannot_be_sent_stops_its_host_alone(mdl: Inside, tmp_path: Path) -> None:
    """Another host is asked as ever."""
    with FaultyServer(lambda request, number: reply(200, b"bytes")) as server:
        place = server.url.removeprefix("http://")
        shell = with_environ(machine(tmp_path), KEY="a b")
        config = tmp_path / ".config" / "mdl" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text('[hosts."civitai.com"]\ntoken_env = "KEY"\n')
        done(mdl(shell, "get", f"{server.url}/m.dat"))
        config.write_text(f'[hosts."{place}"]\ntoken_env = "KEY"\n')
        ran = done(mdl(shell, "get", f"{server.url}/n.dat"), 2)
        assert "KEY: it has characters that cannot be sent" in ran.err


def test_a_page_in_the_place_of_a_list(mdl: Inside, tmp_path: Path) -> None:
    """What a network or a filter puts in the place of the hub's answer is named."""
    with FaultyServer(lambda request, number: reply(200, b"<html><title>Blocked by FortiGuard</title>")) as server:
        ran = done(mdl(machine(tmp_path, endpoint=server.url), "get", "org/repo"), 6)
    assert "did not answer in JSON: what came is a web page, 'Blocked by FortiGuard'" in ran.err
    assert "FortiGuard filters this network" in ran.err


def test_a_hub_that_is_not_ready(mdl: Inside, tmp_path: Path) -> None:
    """202 is waited for, also where a list is asked for."""

    def not_yet(request: Request, number: int) -> Answer | None:
        return reply(202, b"{}", ("Retry-After", "0")) if number == 1 else None

    with LoopbackHub([REPO], script=not_yet) as hub:
        done(mdl(machine(tmp_path, endpoint=hub.url), "get", "org/repo"))


def test_the_login_of_a_proxy_is_shown_as_it_is_written(mdl: Inside, tmp_path: Path) -> None:
    """The form that the hint gives is not taken for a secret."""
    with FaultyServer(lambda request, number: reply(407, b"", ("Proxy-Authenticate", 'Basic realm="x"'))) as proxy:
        shell = with_environ(machine(tmp_path), HTTP_PROXY=proxy.url)
        ran = done(mdl(shell, "get", "http://127.0.0.1:9/m.bin"), 4)
    assert "HTTP_PROXY, before the host: USER:PASSWORD@HOST:PORT" in ran.err


def test_a_socks_proxy_that_never_answers(mdl: Inside, tmp_path: Path) -> None:
    """Its handshake has the same time as any answer: without a limit of its own it had hung for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"socks5://127.0.0.1:{silent.getsockname()[1]}"
        shell = with_environ(machine(tmp_path), HTTP_PROXY=proxy)
        ran = done(mdl(shell, "get", "http://files.example/m.bin", "--stall", "0.2s", "--retries", "1"), 5)
    assert f"through the proxy {proxy}) was silent for too long" in ran.err


# --- disks -------------------------------------------------------------------------------------------------


def test_a_folder_whose_disk_is_not_mounted(mdl: Inside, tmp_path: Path) -> None:
    """A link that leads to nothing is named with what it leads to."""
    (tmp_path / "data").symlink_to(tmp_path / "mnt")
    with LoopbackHub([REPO]) as hub:
        shell = machine(tmp_path / "home", endpoint=hub.url)
        ran = done(mdl(shell, "get", "org/repo", "--to", str(tmp_path / "data" / "models")), 7)
    assert f"{tmp_path}/data is a link to {tmp_path}/mnt, which is not there" in ran.err


def test_a_limit_of_the_size_of_files(tmp_path: Path) -> None:
    """The hint names the limit, and sends nobody to another disk."""
    with LoopbackHub([REPO]) as hub:
        shell = machine(tmp_path, endpoint=hub.url)
        ran = shell.run("get", "org/repo", prefix=("prlimit", "--fsize=1000000"))
    assert ran.code == 7
    assert "ulimit -f" in ran.err
