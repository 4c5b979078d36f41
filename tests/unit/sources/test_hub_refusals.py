"""The hub's refusals and its hard times: which code, whose words, how long to wait; and what a probe asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_httpx import HTTPXMock
from support.scripted_hub import (
    AT_ONCE,
    COMMIT,
    HUB,
    LATER,
    ORIGIN,
    PINNED,
    REVISION,
    SHA,
    World,
    entry,
    large,
    tree_url,
    world,
)

from mdl.catalog.model import CatalogFile, Model
from mdl.errors import AuthError, Cancelled, MdlError, NetworkError, NotFound, ProtocolError
from mdl.events import Retrying
from mdl.files import RemoteFile
from mdl.paths import RelPath
from mdl.sources.hub_origin import HubOrigin

TOKEN = "hf_secretsecret"


@pytest.fixture
def trusted(tmp_path: Path, httpx_mock: HTTPXMock, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The same with a token."""
    with world(tmp_path, httpx_mock, monkeypatch, TOKEN) as made:
        yield made


@pytest.mark.fault(56, 69, 70)
@pytest.mark.parametrize(
    ("status", "code", "words", "exit_code", "hint"),
    [
        (401, "", "Invalid username or password.", 4, "does not say which"),
        (401, "RepoNotFound", "Repository not found", 4, "set HF_TOKEN"),
        (401, "GatedRepo", "Access to model org/repo is restricted", 4, f"{HUB}/org/repo"),
        (403, "GatedRepo", "Your request is awaiting a review", 4, f"{HUB}/org/repo"),
        (403, "", "Access to this resource is disabled.", 4, ""),
        (404, "RepoNotFound", "Repository not found", 3, "name"),
        (404, "RevisionNotFound", "Invalid rev id: main", 3, "revision"),
        (410, "", "Gone", 3, ""),
        (400, "", "Bad request", 5, ""),
        (451, "", "Unavailable for legal reasons", 5, ""),
    ],
)
def test_refusal_is_told_at_once(here: World, status: int, code: str, words: str, exit_code: int, hint: str) -> None:
    """Each refusal has its exit code, the hub's own words, a hint and the repository's name, and is not retried."""
    headers = {"X-Error-Code": code, "X-Error-Message": words}
    here.mock.add_response(url=REVISION, status_code=status, headers=headers)
    with pytest.raises(MdlError) as caught:
        here.hub.resolve(ORIGIN)
    error = caught.value
    assert (error.exit_code, error.item) == (exit_code, "hf:org/repo")
    assert words in error.message
    assert hint in str(error.hint)
    assert len(here.asked) == 1
    assert not here.told


@pytest.mark.parametrize(
    "body", [{"error": "gone fishing"}, {"error": ["gone fishing"]}, {"errors": [{"message": "gone fishing"}]}]
)
def test_words_in_the_body_are_told(here: World, body: dict[str, Any]) -> None:
    """Where the hub says it in JSON, it is told as well."""
    here.mock.add_response(url=REVISION, status_code=404, json=body)
    with pytest.raises(NotFound, match="gone fishing"):
        here.hub.resolve(ORIGIN)


@pytest.mark.fault(80)
def test_wrong_token_is_called_so(trusted: World) -> None:
    """A token that the hub does not know is named as the trouble, and never shown."""
    words = "Invalid credentials in Authorization header"
    trusted.mock.add_response(url=REVISION, status_code=401, headers={"X-Error-Message": words})
    with pytest.raises(AuthError) as caught:
        trusted.hub.resolve(ORIGIN)
    assert "wrong or has expired" in str(caught.value.hint)
    assert TOKEN not in str(caught.value.to_dict())


@pytest.mark.fault(47)
def test_token_goes_to_the_hub_alone(trusted: World) -> None:
    """The token is sent to the hub's own origin, page after page, and to no host it redirects to."""
    away = "https://cdn-lfs.hf.co/tree"
    trusted.revision()
    trusted.tree(entry(), headers={"Link": f'<{tree_url(more="&cursor=a")}>; rel="next"'})
    trusted.mock.add_response(url=tree_url(more="&cursor=a"), status_code=307, headers={"Location": away})
    trusted.mock.add_response(url=away, json=[])
    trusted.hub.resolve(ORIGIN)
    sent = [(request.url.host, request.headers.get("authorization")) for request in trusted.mock.get_requests()]
    assert sent == [("huggingface.co", f"Bearer {TOKEN}")] * 3 + [("cdn-lfs.hf.co", None)]


@pytest.mark.fault(48)
def test_token_does_not_come_back(trusted: World) -> None:
    """A redirect that leads away and back to the hub does not bring the token back."""
    away, back = "https://cdn-lfs.hf.co/tree", f"{HUB}/back"
    trusted.mock.add_response(url=tree_url(), status_code=307, headers={"Location": away})
    trusted.mock.add_response(url=away, status_code=307, headers={"Location": back})
    trusted.mock.add_response(url=back, json=[entry()])
    trusted.hub.resolve(PINNED)
    sent = [request.headers.get("authorization") for request in trusted.mock.get_requests()]
    assert sent == [f"Bearer {TOKEN}", None, None]


@pytest.mark.fault(58)
@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"RateLimit": '"api";r=0;t=55'}, 56.0),
        ({"RateLimit": '"api";r=9;t=55'}, 0.0),
        ({}, 0.0),
    ],
)
def test_rate_limit_is_waited_out(here: World, headers: dict[str, str], wait: float) -> None:
    """A 429 is tried again after the wait it asks for, and the wait is told."""
    here.mock.add_response(url=tree_url(), status_code=429, headers=headers)
    here.tree(entry())
    assert len(here.hub.resolve(PINNED)) == 1
    assert sum(here.waits) == wait
    (event,) = here.told
    assert isinstance(event, Retrying)
    assert (event.model, event.attempt, event.delay) == (str(PINNED), 1, wait)
    assert "429" in event.why


@pytest.mark.fault(58)
def test_rate_limit_beyond_patience(here: World) -> None:
    """A wait of more than ten minutes is not sat out: code 5 at once, with the wait."""
    here.mock.add_response(url=tree_url(), status_code=429, headers={"Retry-After": "3600"})
    with pytest.raises(NetworkError, match="3600 s"):
        here.hub.resolve(PINNED)
    assert (len(here.asked), here.waits) == (1, [])


@pytest.mark.fault(57, 82)
@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_hard_times_pass(here: World, status: int) -> None:
    """Trouble that passes within the tries costs nothing but the tries."""
    for _ in range(AT_ONCE.tries - 1):
        here.mock.add_response(url=tree_url(), status_code=status)
    here.tree(entry())
    assert len(here.hub.resolve(PINNED)) == 1
    assert len(here.told) == AT_ONCE.tries - 1


@pytest.mark.fault(57, 82)
def test_hard_times_that_do_not_pass(here: World) -> None:
    """After the last try it is code 5 with the server's words and the repository's name."""
    here.mock.add_response(url=tree_url(), status_code=503, text="maintenance", is_reusable=True)
    with pytest.raises(NetworkError, match="maintenance") as caught:
        here.hub.resolve(PINNED)
    assert (caught.value.exit_code, caught.value.item) == (5, str(PINNED))
    assert len(here.asked) == AT_ONCE.tries


@pytest.mark.parametrize(
    "trouble", [httpx.ConnectError("refused"), httpx.ReadTimeout("silent"), httpx.ReadError("reset")]
)
def test_broken_wire_is_tried_again(here: World, trouble: Exception) -> None:
    """A connection that fails, falls silent or breaks is tried again."""
    here.mock.add_exception(trouble, url=tree_url())
    here.tree(entry())
    assert len(here.hub.resolve(PINNED)) == 1


def test_cancel_asks_nobody(here: World) -> None:
    """Once cancelled, nothing is asked any more."""
    here.http.cancel.set()
    with pytest.raises(Cancelled):
        here.hub.resolve(PINNED)
    assert here.asked == []


def _named(*names: str) -> Model:
    files = tuple(CatalogFile(RelPath.parse(name), f"hf:org/repo@main/{name}") for name in names)
    return Model("model", files=files)


def _moving(here: World) -> None:
    """A branch that moves between two questions."""
    for commit in (COMMIT, LATER):
        here.mock.add_response(url=REVISION, json={"sha": commit}, is_optional=True)
        here.mock.add_response(url=tree_url(commit), json=[large("a.bin"), entry("b.json")], is_optional=True)
    here.mock.add_response(url=tree_url(), json=[large("a.bin"), entry("b.json")], is_optional=True)


@pytest.mark.fault(68)
@pytest.mark.parametrize("kind", ["files", "sources"])
def test_one_model_is_of_one_commit(here: World, kind: str) -> None:
    """All files a model takes from one branch are of one commit, though the branch moves meanwhile."""
    _moving(here)
    parts = (HubOrigin("org/repo", subpath="a.bin"), HubOrigin("org/repo", subpath="b.json"))
    model = _named("a.bin", "b.json") if kind == "files" else Model("model", sources=parts)
    files = here.sources.resolve(model)
    assert {file.commit for file in files} == {COMMIT}
    assert here.asked.count(REVISION) == 1


@pytest.mark.fault(72)
def test_named_file_of_the_hub_gets_its_digest(here: World) -> None:
    """A hub file that the catalog names without a digest has the hub's, under the catalog's own path."""
    here.revision()
    here.tree(large("a.bin"))
    file = CatalogFile(RelPath.parse("mine/x.bin"), f"{HUB}/org/repo/blob/main/a.bin", role="weights")
    (found,) = here.sources.resolve(Model("model", files=(file,)))
    assert (found.path.text, str(found.digest), found.commit) == ("mine/x.bin", f"sha256:{SHA}", COMMIT)


def test_pattern_that_names_nothing(here: World) -> None:
    """An include that matches no file is code 3, with what there is."""
    here.tree(entry())
    model = Model("model", sources=(PINNED,), include=("config.json", "*.gguf"))
    with pytest.raises(NotFound, match=r"\*\.gguf") as caught:
        here.sources.resolve(model)
    assert "config.json" in str(caught.value.hint)


URL = "https://huggingface.co/x/resolve/main/m.bin"
REMOTE = RemoteFile(RelPath.parse("m.bin"), URL)


@pytest.mark.parametrize(
    ("status", "headers", "size", "validator"),
    [
        (206, {"Content-Range": "bytes 0-0/77", "ETag": '"a"'}, 77, '"a"'),
        (206, {"Content-Range": "bytes 0-0/*", "ETag": 'W/"a"'}, None, None),
        (206, {}, None, None),
        (200, {"Content-Length": "0"}, 0, None),
        (200, {"Content-Encoding": "gzip"}, None, None),
        (416, {"Content-Range": "bytes */0"}, 0, None),
    ],
)
def test_probe_asks_for_one_byte(
    here: World, status: int, headers: dict[str, str], size: int | None, validator: str | None
) -> None:
    """The answer to a request for the first byte tells size and validator, or that nothing is known."""
    here.mock.add_response(url=URL, status_code=status, headers=headers)
    [found] = here.sources.probe_all([REMOTE])
    assert (found.size, found.validator, found.probed) == (size, validator, True)
    assert here.mock.get_requests()[0].headers["range"] == "bytes=0-0"


@pytest.mark.fault(71)
def test_probe_reads_the_hub_on_the_way(here: World) -> None:
    """Digest, size and commit are the hub's own word on its redirect, not the body host's."""
    linked = {"X-Linked-Etag": f'"{SHA}"', "X-Linked-Size": "1000", "X-Repo-Commit": COMMIT}
    away = {"Location": "https://cdn-lfs.hf.co/m?sig=1"}
    here.mock.add_response(url=URL, status_code=302, headers={**linked, **away})
    here.mock.add_response(url=away["Location"], status_code=206, headers={"Content-Range": "bytes 0-0/1000"})
    [found] = here.sources.probe_all([REMOTE])
    assert (str(found.digest), found.size, found.commit, found.url) == (f"sha256:{SHA}", 1000, COMMIT, URL)


@pytest.mark.parametrize("text", [b"\xb2", b"9" * 5000])
def test_probe_survives_a_size_that_is_none(here: World, text: bytes) -> None:
    """A size that is no number is unknown, or a lie of the server's, never a fault of mdl's."""
    away = [(b"Location", b"https://cdn-lfs.hf.co/m"), (b"X-Linked-Size", text)]
    here.mock.add_response(url=URL, status_code=302, headers=httpx.Headers(away))
    here.mock.add_response(url="https://cdn-lfs.hf.co/m", status_code=206, headers={"Content-Range": "bytes 0-0/*"})
    [found] = here.sources.probe_all([REMOTE])
    assert isinstance(found, ProtocolError) or found.size is None
