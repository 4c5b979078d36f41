"""The hub's refusals and outages: which exit code, whose words, how long to wait; and what a probe asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pytest_httpx import HTTPXMock
from support import scripted_hub
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
)

from mdl.catalog.model import CatalogFile, Model
from mdl.errors import Cancelled, MdlError, NetworkError, NotFound, ProtocolError
from mdl.events import Retrying
from mdl.files import RemoteFile
from mdl.paths import RelPath
from mdl.sources.hub_origin import HubOrigin

TOKEN = "hf_secretsecret"


@pytest.fixture
def trusted(tmp_path: Path, httpx_mock: HTTPXMock, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """`here` with a token."""
    with scripted_hub.world(tmp_path, httpx_mock, monkeypatch, TOKEN) as made:
        yield made


@pytest.mark.fault(56, 69, 70, 80)
@pytest.mark.parametrize(
    ("status", "code", "words", "exit_code", "hint"),
    [
        (401, "", "Invalid username or password.", 4, "does not say which"),
        (401, "", "Invalid credentials in Authorization header", 4, "wrong or has expired"),
        (403, "GatedRepo", "Your request is awaiting a review", 4, f"{HUB}/org/repo"),
        (404, "RevisionNotFound", "Invalid rev id: main", 3, "revision"),
        (451, "", "Not to be had in this country", 5, ""),
    ],
)
def test_refusal(trusted: World, status: int, code: str, words: str, exit_code: int, hint: str) -> None:
    """Each refusal has its exit code, the hub's own words, a hint and the repository's name, is not retried, and does
    not show the token. Only a token that is refused is left out for one more question (ADR 96)."""
    headers = {"X-Error-Code": code, "X-Error-Message": words}
    trusted.mock.add_response(url=REVISION, status_code=status, headers=headers, is_reusable=True)
    with pytest.raises(MdlError) as caught:
        trusted.hub.resolve(ORIGIN)
    error = caught.value
    assert (error.exit_code, error.item) == (exit_code, "hf:org/repo")
    assert words in error.message
    assert hint in str(error.hint)
    assert TOKEN not in str(error.to_dict())
    assert (len(trusted.asked), trusted.told) == (2 if status == 401 else 1, [])


@pytest.mark.fault(70)
def test_refusal_without_a_token(here: World) -> None:
    """Without a token the hint says to set one, and the words in a JSON body are quoted."""
    here.mock.add_response(url=REVISION, status_code=401, json={"error": ["gone fishing"]})
    with pytest.raises(MdlError, match="gone fishing") as caught:
        here.hub.resolve(ORIGIN)
    assert "set HF_TOKEN" in str(caught.value.hint)


@pytest.mark.fault(47, 48)
def test_token_goes_to_the_hub_alone(trusted: World) -> None:
    """The token is sent to the hub's own origin, page after page, but to no host that it redirects to, and not to the
    hub again if that host redirects back."""
    away, back = "https://cdn-lfs.hf.co/tree", f"{HUB}/back"
    trusted.revision()
    trusted.tree(entry(), headers={"Link": f'<{tree_url(more="&cursor=a")}>; rel="next"'})
    trusted.mock.add_response(url=tree_url(more="&cursor=a"), status_code=307, headers={"Location": away})
    trusted.mock.add_response(url=away, status_code=307, headers={"Location": back})
    trusted.mock.add_response(url=back, json=[])
    trusted.hub.resolve(ORIGIN)
    sent = [(request.url.host, request.headers.get("authorization")) for request in trusted.mock.get_requests()]
    hub = "huggingface.co"
    assert sent == [(hub, f"Bearer {TOKEN}")] * 3 + [("cdn-lfs.hf.co", None), (hub, None)]


@pytest.mark.fault(58)
@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"RateLimit": '"api";r=0;t=55'}, 56.0),
        ({}, 0.0),
    ],
)
def test_rate_limit(here: World, headers: dict[str, str], wait: float) -> None:
    """After a 429 the request is repeated after the wait that it asks for; an event tells of it."""
    here.mock.add_response(url=tree_url(), status_code=429, headers=headers)
    here.tree(entry())
    assert len(here.hub.resolve(PINNED)) == 1
    assert sum(here.waits) == pytest.approx(wait)
    (event,) = here.told
    assert isinstance(event, Retrying)
    assert (event.model, event.attempt, event.delay) == (str(PINNED), 1, wait)
    assert "429" in event.why


@pytest.mark.fault(58)
def test_rate_limit_too_long(here: World) -> None:
    """If the hub asks to wait more than ten minutes, it is 5 at once, and the message has the time."""
    here.mock.add_response(url=tree_url(), status_code=429, headers={"Retry-After": "3600"})
    with pytest.raises(NetworkError, match="3600 s"):
        here.hub.resolve(PINNED)
    assert (len(here.asked), here.waits) == (1, [])


@pytest.mark.fault(57, 82)
@pytest.mark.parametrize(
    "trouble",
    [
        *(408, 500, 502, 503, 504),
        *(httpx.ConnectError("refused"), httpx.ReadTimeout("silent"), httpx.ReadError("reset")),
    ],
)
def test_outage_that_passes(here: World, trouble: int | Exception) -> None:
    """A busy server or a broken connection that recovers within the tries costs nothing but the tries."""
    for _ in range(AT_ONCE.tries - 1):
        if isinstance(trouble, int):
            here.mock.add_response(url=tree_url(), status_code=trouble)
        else:
            here.mock.add_exception(trouble, url=tree_url())
    here.tree(entry())
    assert len(here.hub.resolve(PINNED)) == 1
    assert len(here.told) == AT_ONCE.tries - 1


@pytest.mark.fault(57, 82)
def test_outage_that_does_not_pass(here: World) -> None:
    """After the last try it is 5 with the server's words and the repository's name."""
    here.mock.add_response(url=tree_url(), status_code=503, text="maintenance", is_reusable=True)
    with pytest.raises(NetworkError, match="maintenance") as caught:
        here.hub.resolve(PINNED)
    assert (caught.value.exit_code, caught.value.item) == (5, str(PINNED))
    assert len(here.asked) == AT_ONCE.tries


def test_cancel_asks_nobody(here: World) -> None:
    """After a cancel nothing is asked."""
    here.http.cancel.set()
    with pytest.raises(Cancelled):
        here.hub.resolve(PINNED)
    assert here.asked == []


PARTS = ("a.bin", "b.json")


@pytest.mark.fault(68)
@pytest.mark.parametrize(
    "model",
    [
        Model("model", files=tuple(CatalogFile(RelPath.parse(name), f"hf:org/repo@main/{name}") for name in PARTS)),
        Model("model", sources=tuple(HubOrigin("org/repo", subpath=name) for name in PARTS)),
    ],
    ids=["files", "sources"],
)
def test_one_model_is_of_one_commit(here: World, model: Model) -> None:
    """All files that a model takes from one branch are of one commit, even if the branch moves meanwhile."""
    for commit in (COMMIT, LATER, COMMIT):
        here.mock.add_response(url=REVISION, json={"sha": commit}, is_optional=True)
        here.tree(large("a.bin"), entry("b.json"), commit=commit, is_optional=True)
    assert {file.commit for file in here.sources.resolve(model).files} == {COMMIT}
    assert here.asked.count(REVISION) == 1


@pytest.mark.fault(72)
def test_named_file_of_the_hub(here: World) -> None:
    """A hub file that the catalog names without a digest gets the hub's digest, and keeps the catalog's path."""
    here.revision()
    here.tree(large("a.bin"))
    file = CatalogFile(RelPath.parse("mine/x.bin"), f"{HUB}/org/repo/blob/main/a.bin", role="weights")
    (found,) = here.sources.resolve(Model("model", files=(file,))).files
    assert (found.path.text, str(found.digest), found.commit) == ("mine/x.bin", f"sha256:{SHA}", COMMIT)


def test_pattern_without_a_match(here: World) -> None:
    """An include that matches no file is 3, and the hint names the files."""
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
        (200, {"Content-Length": "0"}, 0, None),
        (200, {"Content-Encoding": "gzip"}, None, None),
        (416, {"Content-Range": "bytes */0"}, 0, None),
    ],
)
def test_probe_asks_for_one_byte(
    here: World, status: int, headers: dict[str, str], size: int | None, validator: str | None
) -> None:
    """The response to a request for the first byte tells size and validator, or nothing."""
    here.mock.add_response(url=URL, status_code=status, headers=headers)
    [found] = here.sources.probe_all([REMOTE])
    assert (found.size, found.validator, found.probed) == (size, validator, True)
    assert here.mock.get_requests()[0].headers["range"] == "bytes=0-0"


@pytest.mark.parametrize(("status", "headers"), [(206, {}), (416, {}), (403, {}), (400, {})])
def test_probe_is_plain_where_ranges_are_refused(here: World, status: int, headers: dict[str, str]) -> None:
    """A server that does not serve the first byte is asked plainly: once, and its other files only so."""
    here.mock.add_response(url=URL, status_code=status, headers=headers, match_headers={"Range": "bytes=0-0"})
    here.mock.add_response(url=URL, headers={"Content-Length": "77"}, is_reusable=True)
    assert [found.size for found in here.sources.probe_all([REMOTE])] == [77]
    assert [found.size for found in here.sources.probe_all([REMOTE])] == [77]
    assert ["range" in request.headers for request in here.mock.get_requests()] == [True, False, False]


@pytest.mark.fault(71)
def test_probe_reads_the_hub_on_the_way(here: World) -> None:
    """Digest, size and commit come from the hub's redirect, not from the host of the body."""
    linked = {"X-Linked-Etag": f'"{SHA}"', "X-Linked-Size": "1000", "X-Repo-Commit": COMMIT}
    away = {"Location": "https://cdn-lfs.hf.co/m?sig=1"}
    here.mock.add_response(url=URL, status_code=302, headers={**linked, **away})
    here.mock.add_response(url=away["Location"], status_code=206, headers={"Content-Range": "bytes 0-0/1000"})
    [found] = here.sources.probe_all([REMOTE])
    assert (str(found.digest), found.size, found.commit, found.url) == (f"sha256:{SHA}", 1000, COMMIT, URL)


@pytest.mark.parametrize("text", [b"\xb2", b"9" * 5000])
def test_probe_of_an_impossible_size(here: World, text: bytes) -> None:
    """A size that is no number is unknown or an error of the server, never a fault of mdl."""
    away = [(b"Location", b"https://cdn-lfs.hf.co/m"), (b"X-Linked-Size", text)]
    here.mock.add_response(url=URL, status_code=302, headers=httpx.Headers(away))
    here.mock.add_response(url="https://cdn-lfs.hf.co/m", status_code=206, headers={"Content-Range": "bytes 0-0/*"})
    [found] = here.sources.probe_all([REMOTE])
    assert isinstance(found, ProtocolError) or found.size is None
