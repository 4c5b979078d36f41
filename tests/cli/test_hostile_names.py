"""Hostile names that are on this disk already: shown harmlessly by every command that comes upon them."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.jobs import state_of
from support.packing import make_run
from support.partials import WHO, dead_owner, left_behind
from support.shell import machine
from support.terminal import EVIL, MARKUP, NAME, Told, harmless

from mdl import crc_json


def test_what_mdl_keeps(told: Told, tmp_path: Path) -> None:
    """Receipts, journals, staged files and locks may be called anything, and may say anything."""
    shell = machine(tmp_path)
    own = shell.models / ".mdl"
    (own / "receipts" / NAME).mkdir(parents=True)
    facts = {"mdl-receipt": 1, "model": EVIL, "path": MARKUP, "stamp": [1, 2, 3], "digest": "sha256:" + "ab" * 32}
    facts |= {"verified": EVIL, "url": EVIL, "validator": EVIL, "commit": EVIL, "suspect": False}
    (own / "receipts" / NAME / f"{'a' * 32}.receipt").write_bytes(crc_json.dumps(facts) + crc_json.dumps([]))
    (own / "receipts" / NAME / f"{NAME}.receipt").write_bytes(b"none")
    (own / "partials").mkdir()
    left = left_behind(own / "partials", dead_owner())
    (left / "journal").write_bytes(crc_json.dumps({"mdl-journal": 1, **vars(WHO), "url": EVIL}))
    (shell.models / NAME).mkdir()
    (shell.models / NAME / f".{NAME}.{dead_owner()}.mdl-tmp").touch()
    for words in ("clean", "verify", "list", "clean --yes"):
        harmless(told(shell, *words.split()))


def test_a_newer_receipt(told: Told, tmp_path: Path) -> None:
    """An error that names a path of mdl's own names it harmlessly."""
    shell = machine(tmp_path, "schema = 1\n")
    place = shell.models / ".mdl" / "receipts" / NAME / "x.receipt"
    place.parent.mkdir(parents=True)
    place.write_bytes(crc_json.dumps({"mdl-receipt": 99}))
    harmless(told(shell, "verify"))


@pytest.mark.fault(163)
def test_settings_and_lock(told: Told, tmp_path: Path) -> None:
    """Mistakes in config.toml, in a lock and in a catalog quote what they are about."""
    shell = machine(tmp_path, catalog_of(one="http://127.0.0.1:9/f"))
    config = tmp_path / ".config" / "mdl" / "config.toml"
    config.parent.mkdir(parents=True)
    texts = json.dumps(EVIL), json.dumps(MARKUP)
    for text in (f"[{texts[0]}]", f"[defaults]\n{texts[0]} = 1", f"[defaults]\nwindow = {texts[0]}", f"x = {texts[1]}"):
        config.write_text(text)
        harmless(told(shell, "get", "one"))
    config.unlink()
    (tmp_path / "mdl.lock").write_text(f"version = 1\n[models.{texts[0]}]\nentry = {texts[1]}\n")
    harmless(told(shell, "list"))


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
    harmless(told(machine(tmp_path, catalog_of(one="http://127.0.0.1:9/f")), *words))


@pytest.mark.fault(164)
def test_a_run_and_its_archive(told: Told, tmp_path: Path) -> None:
    """checkpoints, pack and unpack --list name hostile files; markup in a good name is literal."""
    shell, run = machine(tmp_path), make_run(tmp_path)
    (run / MARKUP).parent.mkdir(parents=True)
    (run / MARKUP).write_bytes(b"weights")
    texts = [
        harmless(told(shell, *words.split())) for words in ("pack run -n", "pack run", "unpack model_run.zip --list")
    ]
    assert all(MARKUP in text for text in (texts[0], texts[2]))
    (run / f"{NAME}.lock").touch()
    (run / f"{NAME}-000500.safetensors").write_bytes(b"x")
    for words in ("checkpoints run", "pack run"):
        harmless(told(shell, *words.split()))
    (tmp_path / "model_run.zip").rename(tmp_path / f"{NAME}.zip")
    harmless(told(shell, "unpack", f"{NAME}.zip", "--list", "--max-members", "1"))


def test_releases(told: Told, tmp_path: Path) -> None:
    """A history of releases may say anything; a manifest may name its run and checkpoint anything."""
    shell = machine(tmp_path)
    facts = {"schema": "mdl.manifest/1", "run": EVIL, "checkpoint": EVIL, "step": None, "layout": EVIL, "files": []}
    facts |= {"inference_only": False, "changed": [EVIL], "skipped": [{"path": EVIL, "why": EVIL}]}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("mdl-manifest.json", json.dumps(facts))
    for words in ("unpack a.zip --list", "unpack a.zip --to srv --release", "rollback srv"):
        harmless(told(shell, *words.split()))
    history = json.loads((tmp_path / "srv" / "releases.json").read_text())
    for served in ([EVIL, history["active"]], [MARKUP, history["active"]]):
        (tmp_path / "srv" / "releases.json").write_text(json.dumps(history | {"served": served, "releases": served}))
        harmless(told(shell, "rollback", "srv"))


def test_places(told: Told, tmp_path: Path) -> None:
    """Folders that the user named so are told harmlessly where it is said what is where."""
    shell = machine(tmp_path / NAME, f'schema = 1\nx-a = "{MARKUP}"\n', XDG_STATE_HOME=str(tmp_path / NAME / "state"))
    texts = [harmless(told(shell, *words.split())) for words in ("config", "doctor --offline")]
    assert all("[red]" in text for text in texts)
    assert not state_of(shell).exists()


def test_control_an_unguarded_print(told: Told, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The control: a path that is data goes into a pipe as it is, and these tests would see it."""
    (tmp_path / NAME).mkdir()
    text = told(machine(tmp_path, catalog_of(one="http://127.0.0.1:9/f")), "path", "one", "--to", str(tmp_path / NAME))
    is_raw = "\x1b" in text
    assert is_raw == (request.node.callspec.params["told"] == "pipe")
    assert os.path.isdir(tmp_path / NAME)
