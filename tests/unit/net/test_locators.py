"""A stable URL of another scheme: what stands for it, who is sent the key, and what a body answers to a range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import faults
from support.data import SMALL
from support.faults import Answer, Request, honest
from support.faulty_server import FaultyServer

from mdl.errors import AuthError, MdlError, NetworkError, NotFound
from mdl.net.allowlist import AllowList, OriginToken, origin_of
from mdl.net.client import HttpClient
from mdl.net.locators import Body, Link, Part
from mdl.net.policy import Limits


@pytest.fixture
def http(server: FaultyServer) -> Iterator[HttpClient]:
    tokens = [OriginToken(origin_of(server.url), "the-key")]
    with HttpClient(AllowList.of(["127.0.0.1"]), tokens=tokens) as client:
        yield client


def body_of(http: HttpClient, url: str, headers: dict[str, str] | None = None) -> bytes:
    with http.open("GET", url, headers) as opened:
        return b"".join(bytes(block) for block in http.body(opened))


def test_a_link_is_followed_as_a_redirect_is(http: HttpClient, server: FaultyServer) -> None:
    """The bytes come from the link, which is remembered; the key of its origin is not sent unless the link says so."""
    http.follower.locate = lambda url: Link(f"{server.url}/{url.rpartition('/')[2]}?X-Amz-Signature=1")
    with http.open("GET", "job://gpu/p1/f") as opened:
        assert opened.location == f"{server.url}/f?X-Amz-Signature=1"
        assert b"".join(bytes(block) for block in http.body(opened)) == SMALL
    http.follower.locate = lambda url: Link(f"{server.url}/f", authorized=True)
    with http.open("GET", "job://gpu/p1/f") as opened:
        assert opened.location is None  # so the locator is asked again, and the key is sent again
    sent = [request.header("authorization") for request in server.requests]
    assert sent == [None, "Bearer the-key"]


def test_a_link_to_a_strange_host_is_refused(http: HttpClient, server: FaultyServer) -> None:
    """A worker's answer cannot lead mdl to a host that nobody allowed."""
    http.follower.locate = lambda url: Link("http://10.1.2.3/f")
    with pytest.raises(MdlError, match=r"10\.1\.2\.3 is not on the allow-list"), http.open("GET", "job://gpu/p1/f"):
        pass
    assert server.requests == []


def test_an_error_of_a_locator_is_the_error_of_the_request(http: HttpClient) -> None:
    """What the remote says reaches the caller."""

    def locate(url: str) -> Link:
        raise NotFound("no such job", item="p1")

    http.follower.locate = locate
    with pytest.raises(NotFound, match="no such job"), http.open("GET", "job://gpu/p1/f"):
        pass


def test_patience_is_for_the_first_byte_alone() -> None:
    """A server that zips first may be silent for longer than a stall; without patience that is one."""
    limits = Limits(stall=0.25)

    def late(request: Request, number: int) -> Answer:
        answer = honest(SMALL)(request, number)
        return replace(answer, status=None, headers=(), body=[0.5, answer.head(), *answer.pieces()])

    with FaultyServer(late) as server, HttpClient(AllowList.of(["127.0.0.1"]), limits=limits) as http:
        http.follower.locate = lambda url: Link(f"{server.url}/f", patience=100, authorized=True)
        assert body_of(http, "job://box/j1/f") == SMALL
        http.follower.locate = lambda url: Link(f"{server.url}/f")
        with pytest.raises(NetworkError):
            body_of(http, "job://box/j1/f")


@pytest.mark.parametrize("is_fresh", [False, True])
@pytest.mark.parametrize("status", [403, 404])
def test_whether_a_refused_link_is_made_anew(http: HttpClient, status: int, is_fresh: bool) -> None:
    """A 403 may mean that the link has expired, if only on its way: the caller asks the locator again. What is not
    there by a link that was signed just now will not be there by the next one."""
    with FaultyServer(faults.answers(status, body=b"Request has expired")) as server:
        http.follower.locate = lambda url: Link(f"{server.url}/f", is_fresh=is_fresh)
        with pytest.raises(AuthError if status == 403 else NotFound) as caught, http.open("GET", "s3://b/f"):
            pass
        assert caught.value.redirected == (status == 403 or not is_fresh)


@given(data=st.binary(max_size=50), start=st.integers(0, 60), length=st.none() | st.integers(1, 60))
def test_a_body_answers_as_a_server_does(data: bytes, start: int, length: int | None) -> None:
    """A range of a body is the 206 of RFC 9110, one behind its end the 416, and no range the 200."""
    body = Body.of(data, "image/png")
    whole = body.response({})
    assert (whole.status_code, whole.read(), whole.headers["content-length"]) == (200, data, str(len(data)))
    last = "" if length is None else str(start + length - 1)
    part = body.response({"Range": f"bytes={start}-{last}"})
    expected = data[start:] if length is None else data[start : start + length]
    if start >= len(data):
        assert (part.status_code, part.headers["content-range"]) == (416, f"bytes */{len(data)}")
    else:
        assert (part.status_code, part.read()) == (206, expected)
        assert part.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{len(data)}"
        assert part.headers["content-type"] == "image/png"


def test_a_body_comes_without_a_connection(http: HttpClient, tmp_path: Path) -> None:
    """What is at hand is read as any answer is, block by block."""
    blocks = [bytes([n]) * 100_000 for n in range(20)]
    http.follower.locate = lambda url: Body(lambda start, stop: Part(2_000_000, iter(blocks), {"ETag": '"1"'}))
    assert body_of(http, "s3://b/f") == b"".join(blocks)


def test_a_post_is_sent_once_and_follows_nothing(http: HttpClient, server: FaultyServer) -> None:
    """What is not idempotent is not repeated, neither by a redirect nor after a lost answer."""
    with FaultyServer(faults.redirects(f"{server.url}/f")) as first:
        with pytest.raises(NetworkError, match="redirects, and a POST is not sent on") as caught:
            http.json("POST", f"{first.url}/run", {"input": 1})
        assert f"{server.url}/f" in str(caught.value.hint)
        assert (len(first.requests), len(server.requests)) == (1, 0)
