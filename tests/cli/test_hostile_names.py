"""Hostile words and names, from a server, the disk or the command line: shown harmlessly by every command.

A terminal obeys some characters, and Rich reads some words as markup. Each test runs commands on a terminal and in a
pipe, and looks at all that they say.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest
from support import faults
from support.catalogs import catalog_of
from support.data import sha256
from support.faulty_server import Answer, FaultyServer, Handler, Request, reply
from support.jobs import state_of
from support.loopback_hub import LoopbackHub, Repo
from support.packing import make_run
from support.partials import WHO, dead_owner, left_behind
from support.shell import machine, settings
from support.terminal import EVIL, MARKUP, NAME, Told, all_harmless, harmless

from mdl import crc_json
from mdl.downloader.receipts import RECORD
from mdl.paths import record_name

SOMEWHERE = catalog_of(one="http://127.0.0.1:9/f")
QUOTED, MARKUP_QUOTED = json.dumps(EVIL), json.dumps(MARKUP)

# --- what a server says ------------------------------------------------------------------------------------


@pytest.mark.fault(163)
@pytest.mark.parametrize(
    "refusal",
    [
        faults.answers(404, ("Content-Type", "application/json"), body=json.dumps({"error": EVIL}).encode()),
        faults.answers(403, body=f"<title>{EVIL}</title>".encode()),
        faults.answers(404, ("X-Error-Message", EVIL), ("X-Request-Id", "i")),
    ],
    ids=["JSON", "page", "header"],
)
def test_words_of_a_server(told: Told, tmp_path: Path, refusal: Handler) -> None:
    """A refusal in a server's own words, as get tells it, and afterwards the log and the job's record."""
    with FaultyServer(refusal) as server:
        shell = machine(tmp_path, catalog_of(one=f"{server.url}/x/f.bin"), server.url)
        all_harmless(told, shell, "get one hf:o/r")
    [record] = (state_of(shell) / "jobs").glob("*.job")  # it ended before its plan, so no list has it
    job = record.stem
    all_harmless(told, shell, f"jobs show {job}", f"jobs log {job}")


def test_whose_token_it_is(told: Told, tmp_path: Path) -> None:
    """doctor tells what the hub says of a token, although every field of the answer is hostile."""
    scope = {"entity": {"type": EVIL, "name": EVIL}, "permissions": [EVIL]}
    access = {"displayName": EVIL, "role": EVIL, "fineGrained": {"global": [EVIL], "scoped": [scope]}}
    facts = {"type": EVIL, "name": EVIL, "auth": {"accessToken": access}}

    def whoami(request: Request, number: int) -> Answer:
        return reply(200, json.dumps(facts if "whoami" in request.path else []).encode())

    with FaultyServer(whoami) as server:
        shell = machine(tmp_path, endpoint=server.url, HF_TOKEN="some-token")
        assert "[red]" in harmless(told(shell, "doctor"))


@pytest.mark.fault(164)
def test_names_of_a_hub(told: Told, tmp_path: Path) -> None:
    """A name that a terminal obeys is refused and shown; one that looks like markup is literal."""
    with LoopbackHub([Repo("o/r", {EVIL: b""})]) as hub:
        shell = machine(tmp_path, 'schema = 1\n[models.hub]\nsource = "hf:o/r"', hub.url)
        all_harmless(told, shell, "get hub", "lock")
        assert not (shell.models / "hub").exists()
        hub.publish(Repo("o/r", {MARKUP: b""}))
        texts = all_harmless(told, shell, "get -n hub", "get hub", "show hub", "verify -v hub")
    assert [MARKUP in text for text in texts] == [True] * 4
    assert (shell.models / "hub" / MARKUP).exists()


# --- what is on this disk ----------------------------------------------------------------------------------


def test_what_mdl_keeps(told: Told, tmp_path: Path) -> None:
    """Receipts, journals, staged files and locks may be called anything, and may say anything."""
    shell = machine(tmp_path)
    own = shell.models / ".mdl"
    folder = own / "receipts" / record_name(EVIL)
    folder.mkdir(parents=True)
    facts = {"mdl-receipt": 2, "model": EVIL, "path": MARKUP, "stamp": [1, 2, 3], "digest": "sha256:" + "ab" * 32}
    facts |= {"verified": EVIL, "url": EVIL, "validator": EVIL, "commit": EVIL, "suspect": False, "asked": EVIL}
    facts |= {"adopted": False, "prefixes": [], "hub": None, "endpoint": "", "catalog": EVIL, "replaced": None}
    facts |= {"access": "unknown", "vouched_by": "folder"}
    (folder / RECORD).write_bytes(crc_json.dumps(facts) + b"none\n")
    (folder / NAME).write_bytes(b"none")
    (own / "partials").mkdir()
    left = left_behind(own / "partials", dead_owner())
    (left / "journal").write_bytes(crc_json.dumps({"mdl-journal": 1, **vars(WHO), "url": EVIL}))
    (shell.models / NAME).mkdir()
    (shell.models / NAME / f".{NAME}.{dead_owner()}.mdl-tmp").touch()
    all_harmless(told, shell, "clean", "verify", "list", "clean --yes")
    (folder / RECORD).write_bytes(crc_json.dumps(facts) + crc_json.dumps({"mdl-receipt": 99}))
    assert "newer" in all_harmless(told, shell, "verify")[0]


@pytest.mark.fault(163)
def test_settings_and_lock(told: Told, tmp_path: Path) -> None:
    """Mistakes in config.toml, in a lock and in a catalog quote what they are about."""
    shell = machine(tmp_path, SOMEWHERE)
    for text in (f"[{QUOTED}]", f"[defaults]\n{QUOTED} = 1", f"[defaults]\nwindow = {QUOTED}", f"x = {MARKUP_QUOTED}"):
        settings(shell, text)
        all_harmless(told, shell, "get one")
    settings(shell, "")
    (tmp_path / "mdl.lock").write_text(f"version = 2\n[models.{QUOTED}]\nentry = {MARKUP_QUOTED}\n")
    all_harmless(told, shell, "list")


@pytest.mark.parametrize(
    "words",
    [
        (EVIL,),
        ("get", EVIL),
        ("get", f"https://h/{EVIL}"),
        ("get", f"--{EVIL}"),
        ("get", "one", "--limit-rate", EVIL),
        ("jobs", "show", EVIL),
        ("rollback", EVIL),
    ],
    ids=lambda words: " ".join(words).replace(EVIL, "X"),
)
def test_words_of_the_command_line(told: Told, tmp_path: Path, words: tuple[str, ...]) -> None:
    """A refusal that quotes the command line, pasted from who knows where, quotes it harmlessly."""
    harmless(told(machine(tmp_path, SOMEWHERE), *words))


@pytest.mark.fault(164)
def test_a_run_and_its_archive(told: Told, tmp_path: Path) -> None:
    """checkpoints, pack and unpack --list name hostile files; markup in a good name is literal."""
    shell, run = machine(tmp_path), make_run(tmp_path)
    (run / MARKUP).parent.mkdir(parents=True)
    (run / MARKUP).write_bytes(b"weights")
    texts = all_harmless(told, shell, "pack run -n", "pack run", "unpack model_run.zip --list")
    assert all(MARKUP in text for text in (texts[0], texts[2]))
    (run / f"{NAME}.lock").touch()
    (run / f"{NAME}-000500.safetensors").write_bytes(b"x")
    all_harmless(told, shell, "checkpoints run", "pack run")
    (tmp_path / "model_run.zip").rename(tmp_path / f"{NAME}.zip")
    harmless(told(shell, "unpack", f"{NAME}.zip", "--list", "--max-members", "1"))


def test_releases(told: Told, tmp_path: Path) -> None:
    """A history of releases may say anything; a manifest may name its run and checkpoint anything."""
    shell = machine(tmp_path)
    file = {"path": "a.txt", "size": 0, "sha256": sha256(b"")}
    facts = {"schema": "mdl.manifest/1", "run": EVIL, "checkpoint": EVIL, "step": None, "layout": EVIL, "files": [file]}
    facts |= {"inference_only": False, "changed": [EVIL], "skipped": [{"path": EVIL, "why": EVIL}]}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", b"")
        archive.writestr("mdl-manifest.json", json.dumps(facts))
    all_harmless(told, shell, "unpack a.zip --list", "unpack a.zip --to srv --release", "rollback srv")
    history = json.loads((tmp_path / "srv" / "releases.json").read_text())
    for served in ([EVIL, history["active"]], [MARKUP, history["active"]]):
        (tmp_path / "srv" / "releases.json").write_text(json.dumps(history | {"served": served, "releases": served}))
        all_harmless(told, shell, "rollback srv")


def test_places(told: Told, tmp_path: Path) -> None:
    """A command that says what is where shows the names of the user's folders harmlessly."""
    shell = machine(tmp_path / NAME, f'schema = 1\nx-a = "{MARKUP}"\n', XDG_STATE_HOME=str(tmp_path / NAME / "state"))
    assert all("[red]" in text for text in all_harmless(told, shell, "config", "doctor --offline"))
    assert not state_of(shell).exists()


def test_control_an_unguarded_print(told: Told, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The control: a path that is data goes into a pipe as it is, and these tests would see it."""
    text = told(machine(tmp_path / NAME, SOMEWHERE), "config", "path")
    assert ("\x1b" in text) == (request.node.callspec.params["told"] == "pipe")
    assert os.path.isdir(tmp_path / NAME)
