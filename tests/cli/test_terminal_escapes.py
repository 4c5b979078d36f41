"""What a terminal would obey, and what Rich would read as markup: shown harmlessly, whoever says it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import faults
from support.catalogs import catalog_of
from support.faulty_server import Answer, FaultyServer, Handler, Request, reply
from support.jobs import records_of
from support.shell import machine
from support.terminal import EVIL, MARKUP, Told, harmless


def refusing(words: str) -> dict[str, Handler]:
    """Servers that refuse in these words, wherever a server's words are looked for."""
    return {
        "JSON": faults.answers(404, ("Content-Type", "application/json"), body=json.dumps({"error": words}).encode()),
        "page": faults.answers(403, body=f"<title>{words}</title>".encode()),
        "header": faults.answers(404, ("X-Error-Message", words), ("X-Request-Id", "i")),
    }


@pytest.mark.fault(163)
@pytest.mark.parametrize("how", refusing(EVIL))
def test_words_of_a_server(told: Told, tmp_path: Path, how: str) -> None:
    """A refusal in a server's own words, as get tells it, and afterwards the log and the job's record."""
    with FaultyServer(refusing(EVIL)[how]) as server:
        shell = machine(tmp_path, catalog_of(one=f"{server.url}/x/f.bin"), server.url)
        harmless(told(shell, "get", "one", "hf:o/r"))
    job = records_of(shell).all()[0].id
    for words in (("show", job), ("log", job)):
        harmless(told(shell, "jobs", *words))


def whoami(request: Request, number: int) -> Answer:
    """A hub whose answer on a token is hostile in every field."""
    scope = {"entity": {"type": EVIL, "name": EVIL}, "permissions": [EVIL]}
    access = {"displayName": EVIL, "role": EVIL, "fineGrained": {"global": [EVIL], "scoped": [scope]}}
    facts = {"type": EVIL, "name": EVIL, "auth": {"accessToken": access}}
    return reply(200, json.dumps(facts if "whoami" in request.path else []).encode())


def test_whose_token_it_is(told: Told, tmp_path: Path) -> None:
    """doctor tells what the hub says of a token, whatever it says."""
    with FaultyServer(whoami) as server:
        shell = machine(tmp_path, endpoint=server.url, HF_TOKEN="some-token")
        assert "[red]" in harmless(told(shell, "doctor"))


def listing(*names: str) -> Handler:
    """A hub whose one repository has these files, all empty."""
    files = [
        {"type": "file", "path": name, "size": 0, "oid": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"} for name in names
    ]
    commit = {"sha": "c" * 40}

    def handler(request: Request, number: int) -> Answer:
        if "/api/" not in request.path:
            return reply(200, b"")
        return reply(200, json.dumps(commit if "/revision/" in request.path else files).encode())

    return handler


COMMANDS = ("get -n hub", "get hub", "show hub", "verify hub")


@pytest.mark.fault(164)
def test_names_of_a_hub(told: Told, tmp_path: Path) -> None:
    """A listing with a name that a terminal obeys is refused and shown; one that looks like markup is literal."""
    with FaultyServer(listing(EVIL)) as server:
        shell = machine(tmp_path, 'schema = 1\n[models.hub]\nsource = "hf:o/r"', server.url)
        for words in ("get hub", "lock"):
            harmless(told(shell, *words.split()))
        assert not (shell.models / "hub").exists()
        server.handler = listing(MARKUP)
        texts = [harmless(told(shell, *words.split())) for words in COMMANDS]
    assert [MARKUP in text for text in texts] == [True] * 4
    assert (shell.models / "hub" / MARKUP).exists()
