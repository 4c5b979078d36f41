"""Hubs that know less than the hub, and what they say of a token."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
from support.data import files_below
from support.faulty_server import Answer, FaultyServer, Request, reply
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, done, machine, with_environ

REPO = Repo("org/repo", {"config.json": b"{}", "sub/model.safetensors": b"w" * 2000, "x.txt": b"x"}, lfs_threshold=100)


@pytest.mark.parametrize("lacks", [{"expand"}, {"tree"}, {"tree", "expand"}], ids=sorted)
@pytest.mark.parametrize("at", ["", f"@{REPO.commit}"], ids=["branch", "commit"])
def test_everything_is_fetched_and_verified(mdl: Inside, tmp_path: Path, lacks: Collection[str], at: str) -> None:
    """What is missing is asked for in a simpler way: siblings name the files, their own answers say size and digest."""
    with LoopbackHub([REPO], lacks=lacks) as hub:
        shell = machine(tmp_path, endpoint=hub.url)
        ran = done(mdl(shell, "get", f"org/repo{at}", "--json"))
        rows = ran.document["models"][0]["files"]
        assert files_below(shell.models / "org--repo") == dict(REPO.files)
        assert {row["verified"] for row in rows} <= {"sha256", "git-sha1"}
        asked = len(hub.requests)
        done(mdl(shell, "get", f"org/repo@{REPO.commit}", "--offline"))
        done(mdl(shell, "get", "org/repo", "config.json"))
        assert len(hub.requests) - asked <= 3


def test_named_files_need_no_list(mdl: Inside, tmp_path: Path) -> None:
    """A hub that lists nothing gives a file that is named; for the whole it is 3, with the URL and what to write."""
    with LoopbackHub([REPO], lacks={"tree", "siblings"}) as hub:
        shell = machine(tmp_path, endpoint=hub.url)
        done(mdl(shell, "get", "org/repo", "config.json", "sub/model.safetensors"))
        assert files_below(shell.models / "org--repo").keys() == {"config.json", "sub/model.safetensors"}
        done(mdl(shell, "get", "org/repo", "none.json"), 3)
        ran = done(mdl(shell, "get", "org/repo"), 3)
        assert f"this hub lists no files at {hub.url}/api/models/org/repo/tree/" in ran.err
        assert "mdl get org/repo FILE" in ran.err


@pytest.mark.parametrize("status", [400, 405, 422, 501])
def test_lists_that_are_refused_in_another_way(mdl: Inside, tmp_path: Path, status: int) -> None:
    """Not every hub without lists answers 404."""

    def refuse_lists(request: Request, number: int) -> Answer | None:
        return reply(status, b"") if "/tree/" in request.path else None

    with LoopbackHub([REPO], script=refuse_lists) as hub:
        shell = machine(tmp_path, endpoint=hub.url)
        done(mdl(shell, "get", "org/repo"))
        assert files_below(shell.models / "org--repo") == dict(REPO.files)


@pytest.mark.parametrize("lacks", [{"tree"}, {"tree", "siblings"}], ids=["names", "nothing"])
def test_the_caches_layout_without_lists(mdl: Inside, tmp_path: Path, lacks: Collection[str]) -> None:
    """The digests by which it names files are asked for, one by one."""
    with LoopbackHub([REPO], lacks=lacks) as hub:
        shell = machine(tmp_path, endpoint=hub.url)
        done(mdl(shell, "get", "org/repo", "config.json", "sub/model.safetensors", "--layout", "hf-cache"))
        done(mdl(shell, "get", f"org/repo@{REPO.commit}", "x.txt", "--layout", "hf-cache"))


def test_files_of_a_server_without_the_api(mdl: Inside, tmp_path: Path) -> None:
    """A server that has the files alone gives those that are named, and they tell the commit; for all of them, and for
    one that is not there, it is 3."""

    def refuse_api(request: Request, number: int) -> Answer | None:
        return reply(404, b"") if request.path.startswith("/api/models/") else None

    with LoopbackHub([REPO], script=refuse_api) as hub:
        shell = machine(tmp_path, endpoint=hub.url)
        done(mdl(shell, "get", "org/repo", "config.json", "sub/model.safetensors"))
        assert files_below(shell.models / "org--repo").keys() == {"config.json", "sub/model.safetensors"}
        done(mdl(shell, "get", "org/repo", "none.json"), 3)
        done(mdl(shell, "get", "org/repo"), 3)


def test_a_repository_that_is_not_there(mdl: Inside, tmp_path: Path) -> None:
    """What the hub itself calls missing is not asked for in another way."""
    with LoopbackHub([REPO]) as hub:
        done(mdl(machine(tmp_path, endpoint=hub.url), "get", "org/none"), 3)
        assert len(hub.requests) == 1


def test_a_commit_that_is_none(mdl: Inside, tmp_path: Path) -> None:
    """It is 6, and the hint says how a commit is named."""
    with FaultyServer(lambda request, number: reply(200, b'{"sha": "main"}')) as server:
        ran = done(mdl(machine(tmp_path, endpoint=server.url), "get", "org/repo"), 6)
        assert "org/repo@COMMIT" in ran.err


# --- tokens ------------------------------------------------------------------------------------------------


REFUSALS = [
    (401, "Invalid username or password.", "without it this repository is open"),
    (401, "Invalid credentials in Authorization header", "without it this repository is open"),
    (401, "Your access token has expired", "without it this repository is open"),
    (403, "Please enable access to public gated repositories in your fine-grained token settings.", "token's settings"),
    (403, "The token lacks the required permission scope", "token's settings"),
]


@pytest.mark.parametrize(("status", "words", "hint"), REFUSALS, ids=[words for _, words, _ in REFUSALS])
def test_a_token_that_is_refused(mdl: Inside, tmp_path: Path, status: int, words: str, hint: str) -> None:
    """It is 4 in the hub's words; mdl asks once without the token, fetches nothing so, and says whether that helps."""

    def refuse_token(request: Request, number: int) -> Answer | None:
        return reply(status, b"{}", ("X-Error-Message", words)) if request.header("authorization") else None

    with LoopbackHub([REPO], script=refuse_token) as hub:
        shell = with_environ(machine(tmp_path, endpoint=hub.url), HF_TOKEN='"hf_old"')
        ran = done(mdl(shell, "get", "org/repo"), 4)
        assert words.rstrip(".") in ran.err
        assert hint in ran.err
        assert "HF_TOKEN" in ran.err
        sent = [request.headers.get("authorization", "") for request in hub.requests]
        assert sent[0] == "Bearer hf_old"
        assert sent.count("") <= 1
        assert not (shell.models / "org--repo").exists()


def test_a_refusal_without_help(mdl: Inside, tmp_path: Path) -> None:
    """If it is refused without the token too, nothing is said of an open repository."""
    with FaultyServer(lambda request, number: reply(401, b"{}", ("X-Error-Message", "Invalid token"))) as server:
        shell = with_environ(machine(tmp_path, endpoint=server.url), HF_TOKEN="hf_old")
        ran = done(mdl(shell, "get", "org/repo"), 4)
        assert "make a new one" in ran.err
        assert "open" not in ran.err


def test_an_endpoint_that_leads_on_takes_no_token_along(mdl: Inside, tmp_path: Path) -> None:
    """A private repository behind an address that redirects to the hub itself: the hint says what to set, for HF_TOKEN
    is set already. A branch that is not there is told as such."""
    private = replace(REPO, id="org/private", private=True, token="hf_right")
    with LoopbackHub([private, REPO]) as hub:
        lead_on = FaultyServer(lambda request, number: reply(308, b"", ("Location", f"{hub.url}{request.target}")))
        with lead_on as server:
            shell = with_environ(
                machine(tmp_path, endpoint=server.url), HF_TOKEN="hf_right", MDL_ALLOW_HOSTS="127.0.0.1"
            )
            ran = done(mdl(shell, "get", "org/private"), 4)
            assert f"HF_ENDPOINT leads on to {hub.url}, and no token goes along: set HF_ENDPOINT to that" in ran.err
            assert "set HF_TOKEN" not in ran.err
            assert "check the revision" in done(mdl(shell, "get", "org/repo@none"), 3).err
            done(mdl(shell, "get", "org/repo"))


def test_a_list_that_tells_no_sizes_and_has_other_things(mdl: Inside, tmp_path: Path) -> None:
    """A size that is not told is asked for with the file; a repository that is linked in another one is no file."""

    def tell_no_sizes(request: Request, number: int) -> Answer | None:
        if "/tree/" not in request.path:
            return None
        items = [{"type": "file", "path": path, "size": None, "oid": ""} for path in REPO.files]
        linked = [{"type": kind, "path": kind, "oid": "e" * 40} for kind in ("submodule", "commit")]
        return reply(200, json.dumps([*items, *linked]).encode(), ("Content-Type", "application/json"))

    with LoopbackHub([REPO], script=tell_no_sizes) as hub:
        shell = machine(tmp_path, endpoint=hub.url)
        done(mdl(shell, "get", "org/repo"))
        assert files_below(shell.models / "org--repo") == dict(REPO.files)


def test_a_hub_that_words_a_refusal_as_an_answer(mdl: Inside, tmp_path: Path) -> None:
    """ModelScope answers 200 for what is not there: its own words are told."""
    body = b'{"Code": 10010205001, "Message": "Repo not exist", "Success": false}'
    with FaultyServer(lambda request, number: reply(200, body, ("Content-Type", "application/json"))) as server:
        ran = done(mdl(machine(tmp_path, endpoint=server.url), "get", "org/repo"), 6)
    assert "the hub names no commit for this revision: Repo not exist" in ran.err
