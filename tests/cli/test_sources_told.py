"""Where things come from, as events, log lines and jobs tell it: the kind of the model and the id of its source."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.data import SMALL
from support.faults import honest, routes
from support.faulty_server import FaultyServer
from support.jobs import log_of, parsed, secrets_in
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Shell, machine

SECRET = "5ignature"
REPOS = [Repo("org/a", {"a.bin": SMALL}), Repo("org/data", {"d.bin": b"d"}, repo_type="dataset")]
HANDLER = routes({"/f.bin": honest(SMALL)})


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub, server: FaultyServer) -> Shell:
    """``voice`` is one repository, ``mixed`` has a file of the hub and one of another server."""
    catalog = f"""schema = 1
[models.voice]
kind = "tts"
source = "hf:org/a@main"
[models.mixed]
kind = "vae"
[[models.mixed.files]]
path = "of-hub.bin"
url = "{hub.url}/org/a/resolve/main/a.bin"
[[models.mixed.files]]
path = "of-server.bin"
url = "{server.url}/f.bin"
"""
    return machine(tmp_path / "home", catalog, hub.url)


WORDS = {
    "voice": ("voice", "tts", {"a.bin": "hf:org/a"}, "hf:org/a"),
    "mixed": ("mixed", "vae", {"of-hub.bin": "hf:org/a", "of-server.bin": "{url}/f.bin"}, None),
    "a reference": ("hf:org/a@main/a.bin", "model", {"a.bin": "hf:org/a"}, "hf:org/a"),
    "a data set": ("hf:datasets/org/data", "dataset", {"d.bin": "hf:datasets/org/data"}, "hf:datasets/org/data"),
    "a signed URL": ("{url}/f.bin?sig=" + SECRET, "model", {"f.bin": "{url}/f.bin"}, "{url}/f.bin"),
}


@pytest.mark.parametrize(("target", "kind", "files", "whole"), WORDS.values(), ids=WORDS)
def test_events_logs_and_jobs(
    mdl: Inside, shell: Shell, server: FaultyServer, target: str, kind: str, files: dict[str, str], whole: str | None
) -> None:
    """Each line of progress about a file, and each line of the log, names the source of that very file; the job that
    of all of it, or null. No query of a URL is in any of them."""

    def at(text: str | None) -> str | None:
        return text and text.format(url=server.url)

    events = mdl(shell, "get", str(at(target)), "--progress", "json").events
    told = {(event["file"], event["kind"], event["repo"]) for event in events if event["file"]}
    assert told == {(file, kind, at(repo)) for file, repo in files.items()}
    assert {(event["kind"], event["repo"]) for event in events if not event["model"]} == {(None, None)}
    lines = [line for line in parsed(log_of(shell)) if "file" in line]
    assert {(line["file"], line["kind"], line["repo"]) for line in lines} == told
    [job] = mdl(shell, "jobs", "--json").document["jobs"]
    assert (job["kind"], job["repo"], job["percent"]) == (kind, at(whole), 100.0)
    shown = mdl(shell, "jobs", "show", job["id"]).out
    assert (f"kind:      {kind}" in shown, whole is None or f"source:    {at(whole)}" in shown) == (True, True)
    assert "(100 %)" in shown
    assert secrets_in(shell.home, SECRET) == set()


def test_several_models_have_no_common_source(mdl: Inside, shell: Shell) -> None:
    """A job of models of several kinds and sources has null for both; each event still has its own."""
    events = mdl(shell, "get", "voice", "hf:datasets/org/data", "--progress", "json").events
    assert {event["repo"] for event in events if event["file"]} == {"hf:org/a", "hf:datasets/org/data"}
    [job] = mdl(shell, "jobs", "--json").document["jobs"]
    assert (job["kind"], job["repo"]) == (None, None)


def test_what_cannot_be_resolved_names_its_source(mdl: Inside, shell: Shell) -> None:
    """A failure of a whole model has kind and source too."""
    events = mdl(shell, "get", "hf:org/none", "--progress", "json").events
    [failed] = [event for event in events if event["status"] == "file-failed"]
    assert (failed["model"], failed["kind"], failed["repo"]) == ("org--none", "model", "hf:org/none")
