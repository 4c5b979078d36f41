"""search: the hub's own search, with what it takes to choose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faults import reply
from support.faulty_server import FaultyServer
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Shell, done

REPOS = (
    Repo("org/whisper-fa", {"model.bin": b"w" * 5000}),
    Repo("org/whisper-en", {"model.bin": b"w" * 7000}, gated=True),
    Repo("org/whisper-own", {"model.bin": b"w"}, private=True),
    Repo("org/words", {"data.json": b"{}"}, "dataset"),
)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with LoopbackHub(list(REPOS)) as hub:
        yield Shell(tmp_path, hub.url)


def test_what_is_found_can_be_fetched(shell: Shell, mdl: Inside) -> None:
    """A search names the repositories with size, licence and access, and what it names is what get takes."""
    found = done(mdl(shell, "search", "whisper", "--json")).document["repos"]
    assert [(one["repo"], one["access"], one["bytes"]) for one in found] == [
        ("hf:org/whisper-fa", "open", 5000),
        ("hf:org/whisper-en", "gated", 7000),
    ]
    ran = done(mdl(shell, "search", "WHISPER", "fa"))
    assert ran.out.splitlines()[1].split() == ["org/whisper-fa", "5.0", "kB", "0", "-", "open", "2026-01-01"]
    assert "mdl add NAME hf:REPOSITORY" in ran.err
    done(mdl(shell, "get", ran.out.split()[6]))
    datasets = done(mdl(shell, "search", "words", "--kind", "dataset", "--json")).document["repos"]
    assert [one["repo"] for one in datasets] == ["hf:datasets/org/words"]
    assert len(done(mdl(shell, "search", "whisper", "--limit", "1", "--json")).document["repos"]) == 1


def test_nothing_found(shell: Shell, mdl: Inside) -> None:
    """That nothing fits is no failure; an empty text, a wrong number and no network are."""
    ran = done(mdl(shell, "search", "nothing-like-it"))
    assert "no such repository" in ran.err
    codes = [mdl(shell, "search", *words).code for words in ([""], ["x", "--limit", "0"], ["x", "--offline"])]
    assert codes == [2, 2, 8]


@pytest.mark.parametrize("body", [b"{}", b"[1]", b'[{"id": 7}]', b"<html>"])
def test_an_answer_that_is_none(tmp_path: Path, mdl: Inside, body: bytes) -> None:
    """An answer of another form is a server that lies; what mdl could not fetch by its name is passed over."""
    with FaultyServer(lambda request, number: reply(200, body)) as server:
        assert mdl(Shell(tmp_path, server.url), "search", "x", "--patience", "1s").code == 6
    odd = b'[{"id": "../up"}, {"id": "org/name@main"}, {"id": "datasets/org/x"},'
    odd += b'{"id": "org/name", "tags": 5, "likes": -1, "lastModified": "soon"}]'
    with FaultyServer(lambda request, number: reply(200, odd)) as server:
        [one] = done(mdl(Shell(tmp_path, server.url), "search", "x", "--json")).document["repos"]
    assert (one["repo"], one["license"], one["likes"], one["modified_at"]) == ("hf:org/name", None, None, None)


@pytest.mark.fault(464)
@pytest.mark.parametrize(
    "facts",
    [
        '"usedStorage": 1' + "0" * 40,
        '"downloads": 1' + "0" * 90,
        '"lastModified": "٢٠٢٤-٠١-٠١T00:00:00Z"',
    ],
    ids=["bytes", "downloads", "digits"],
)
def test_facts_that_cannot_be(tmp_path: Path, mdl: Inside, facts: str) -> None:
    """They are unknown, in the table and in the document."""
    answer = f'[{{"id": "org/name", {facts}}}]'.encode()
    with FaultyServer(lambda request, number: reply(200, answer)) as server:
        shell = Shell(tmp_path, server.url)
        assert done(mdl(shell, "search", "x")).out.splitlines()[1].split() == ["org/name", "?", "?", "-", "open", "-"]
        [one] = done(mdl(shell, "search", "x", "--json")).document["repos"]
    assert (one["bytes"], one["downloads"], one["modified_at"]) == (None, None, None)


@pytest.mark.fault(464)
@pytest.mark.parametrize("facts", ['"usedStorage": 1' + "0" * 400, '"downloads": 1' + "0" * 5000])
def test_an_answer_that_is_no_json(tmp_path: Path, mdl: Inside, facts: str) -> None:
    """A number that nobody means seriously is none: the answer is refused before it is converted."""
    answer = f'[{{"id": "org/name", {facts}}}]'.encode()
    with FaultyServer(lambda request, number: reply(200, answer)) as server:
        done(mdl(Shell(tmp_path, server.url), "search", "x"), 6)


@pytest.mark.fault(464)
def test_a_text_that_is_none(shell: Shell, mdl: Inside) -> None:
    """A byte that is no text in the shell's encoding is asked for as a question mark."""
    assert "no such repository" in done(mdl(shell, "search", "whisper\udcff")).err
