"""``[hosts."HOST"]``: files behind a login, the secret in no output, and hints that fit the host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import faults
from support.catalogs import catalog_of
from support.data import SMALL
from support.faulty_server import Answer, FaultyServer, Request, reply
from support.jobs import records_of
from support.shell import ExitCode, Inside, Shell, machine, settings, with_environ

TOKEN = "canary-of-the-host-1"
PASSWORD = "canary-password-2"
BASIC = "bWU6Y2FuYXJ5LXBhc3N3b3JkLTI="
WANTED = "The creator of this asset requires you to be logged in to download it"


def private(request: Request, number: int) -> Answer:
    """Serves a file to whom it knows by any of the ways, and repeats to others what it was sent."""
    known = (f"Bearer {TOKEN}", f"Basic {BASIC}")
    if request.header("authorization") in known or TOKEN in (request.header("x-key"), request.query[-len(TOKEN) :]):
        return faults.honest(SMALL)(request, number)
    heard = " ".join(f"{name}: {value}" for name, value in request.headers)
    body = json.dumps({"error": "Unauthorized", "message": WANTED, "heard": f"{heard} {TOKEN}"})
    return reply(401, body.encode(), ("Content-Type", "application/json"))


@pytest.fixture
def host() -> Iterator[FaultyServer]:
    with FaultyServer(private) as server:
        yield server


def place_of(server: FaultyServer) -> str:
    return server.url.removeprefix("http://")


WAYS = ("", 'send = "bearer"', 'send = "query:token"', 'send = "header:X-Key"', 'send = "basic"', "netrc = true")


@pytest.mark.fault(171)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
def test_a_login(
    tmp_path: Path,
    exit_code: ExitCode,
    capfd: pytest.CaptureFixture[str],
    host: FaultyServer,
    way: str,
    *,
    right: bool,
) -> None:
    """By each way the file comes (0); the wrong secret is 4. In no case is it in an output, log, record or receipt."""
    shell, secret = machine(tmp_path / "home", catalog_of(SMALL, one=f"{host.url}/f")), TOKEN
    if "netrc" in way or "basic" in way:
        secret = f"me:{PASSWORD}"
        (shell.home / ".netrc").write_text(
            f"machine 127.0.0.1 login me password {PASSWORD if right else 'canary-no'}\n"
        )
    variable = "" if "netrc" in way else 'token_env = "FILES_TOKEN"\n'
    settings(shell, f'[hosts."{place_of(host)}"]\n{variable}{way}\n')
    shell = with_environ(shell, FILES_TOKEN=secret if right else f"{secret}-no")
    code = exit_code(shell, "get", "one", "-v")
    assert code == (0 if right else 4)
    exit_code(shell, "jobs", "log", records_of(shell).all()[-1].id)
    said = "".join(capfd.readouterr())
    kept = [
        path.read_text(errors="replace") for path in shell.home.rglob("*") if path.is_file() and path.name != ".netrc"
    ]
    assert not [text for text in (said, *kept) if "canary" in text or BASIC in text]
    if not right:
        assert WANTED in said


@pytest.mark.fault(47)
def test_a_signed_redirect(tmp_path: Path, mdl: Inside) -> None:
    """The host's redirect to a signed URL elsewhere is followed without the token."""
    with FaultyServer(faults.honest(SMALL)) as files:
        away = faults.redirects(f"{files.url}/x?X-Amz-Signature=s", status=307)
        with FaultyServer(away) as home:
            shell = machine(tmp_path / "home", catalog_of(SMALL, one=f"{home.url}/f"))
            settings(shell, f'[hosts."{place_of(home)}"]\ntoken_env = "FILES_TOKEN"\nsend = "query:token"\n')
            assert mdl(with_environ(shell, FILES_TOKEN=TOKEN), "get", "one").code == 0
            assert {request.query for request in home.requests} == {f"token={TOKEN}"}
        assert {request.query for request in files.requests} == {"X-Amz-Signature=s"}


@pytest.mark.parametrize(
    ("status", "table", "value", "words"),
    [
        (401, False, "", ["[hosts.", "token_env"]),
        (403, False, "", ["[hosts.", "token_env"]),
        (404, False, "", ["check the URL", "[hosts."]),
        (403, True, "", ["FILES_TOKEN", "set it"]),
        (403, True, TOKEN, ["FILES_TOKEN was sent"]),
        (404, True, TOKEN, ["check the URL", "FILES_TOKEN was sent"]),
    ],
)
def test_the_hint_fits_the_host(
    tmp_path: Path, mdl: Inside, status: int, table: bool, value: str, words: list[str]
) -> None:
    """An ordinary host that refuses is never answered with HF_TOKEN: the hint says how its credential is written down,
    that its variable is empty, or that it was sent. The item is the URL, and the status is not told twice."""
    with FaultyServer(faults.answers(status)) as server:
        shell = machine(tmp_path / "home")
        if table:
            settings(shell, f'[hosts."{place_of(server)}"]\ntoken_env = "FILES_TOKEN"\n')
        ran = mdl(
            with_environ(shell, FILES_TOKEN=value, HF_TOKEN="hf_hub"), "get", f"{server.url}/sub/x.gguf", "--json"
        )
        error = ran.document["error"]
    assert all(word in error["hint"] for word in words), error["hint"]
    assert "HF_TOKEN" not in error["hint"]
    assert error["item"] == f"{server.url}/sub/x.gguf"
    assert error["message"].count(str(status)) == 1


@pytest.mark.parametrize(("token", "words"), [("hf_one", "a token was sent (HF_TOKEN)"), ("", "needs HF_TOKEN")])
def test_the_hint_of_the_hub(tmp_path: Path, mdl: Inside, token: str, words: str) -> None:
    """The hub that knows no such repository: whether a token was sent is said."""
    with FaultyServer(faults.answers(404, ("X-Error-Code", "RepoNotFound"))) as hub:
        ran = mdl(machine(tmp_path / "home", endpoint=hub.url, HF_TOKEN=token), "get", "hf:org/repo")
    assert ran.code == 3
    assert words in ran.err


def test_doctor_names_the_hosts(tmp_path: Path, mdl: Inside) -> None:
    """One line says which hosts have a credential, and whether it is set, without a request and without the secret."""
    shell = machine(tmp_path / "home")
    (shell.home / ".netrc").write_text(f"machine nexus login me password {PASSWORD}\n")
    settings(
        shell,
        '[hosts."civitai.com"]\ntoken_env = "CIVITAI_TOKEN"\n'
        '[hosts."git.example"]\ntoken_env = "GIT_TOKEN"\nsend = "header:PRIVATE-TOKEN"\n'
        "[hosts.nexus]\nnetrc = true\n[hosts.other]\nnetrc = true\n",
    )
    ran = mdl(with_environ(shell, CIVITAI_TOKEN=TOKEN), "doctor", "--offline", "--json")
    (found,) = [check for check in ran.document["checks"] if check["name"] == "host credentials"]
    assert found["detail"] == (
        "civitai.com: CIVITAI_TOKEN is set; git.example: GIT_TOKEN is not set; "
        "nexus: ~/.netrc has a login; other: ~/.netrc has no login"
    )
    assert "canary" not in ran.out + ran.err


@pytest.mark.parametrize("words", ["get one", "doctor --offline", "list"])
def test_a_mistake_in_the_settings(shell: Shell, mdl: Inside, words: str) -> None:
    """A wrong table is a usage error (2) with its line, as any other mistake of config.toml."""
    settings(shell, '[hosts."https://h"]\ntoken_env = "T"\n')
    ran = mdl(shell, *words.split())
    assert ran.code == 2
    assert "config.toml:1" in ran.out + ran.err
