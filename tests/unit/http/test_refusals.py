"""The server's own words, and which error a refusal is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdl.errors import AuthError, MdlError, NetworkError, NotFound
from mdl.http.refusals import error_for_status, impostor, request_id, safe_excerpt, server_message

calm = settings(deadline=None)
URL = "https://huggingface.co/org/repo/resolve/main/model.bin?X-Amz-Signature=secret"
API = "https://huggingface.co/api/models/org/repo/tree/main?recursive=true"


def refused(
    status: int, code: str = "", words: str = "", *, url: str = URL, token: bool = False, **more: str
) -> MdlError:
    """A refusal with the hub's own headers."""
    headers = {"x-error-code": code, "x-error-message": words, **{k.replace("_", "-"): v for k, v in more.items()}}
    return error_for_status(status, headers, b"", url, token_sent=token)


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("application/json", b'{"error": "no such thing"}', "no such thing"),
        ("application/json", b'{"error": ["first", "second"]}', "first"),
        ("application/json", b'{"errors": [{"message": "deep"}]}', "deep"),
        ("application/json", b'{"error": {"message": "deep"}}', "deep"),
        ("application/json", b'{"error_description": "why"}', "why"),
        ("text/plain", b'{"error": "said as text"}', "said as text"),
        ("application/json", b'{"error": 5}', ""),
        ("application/json", b"[1, 2]", ""),
        (
            "application/xml",
            b"<Error><Code>X</Code><Message>Request has expired</Message></Error>",
            "Request has expired",
        ),
        ("text/html", b"<html><head><title>\n 502 Bad\n Gateway </title>", "502 Bad Gateway"),
        ("text/html", b"<html><h1 class=x>Oops</h1>", "Oops"),
        ("text/html", b"<html><p>nothing to say</p>", ""),
        ("text/plain", b"one line\nand another", "one line"),
        ("", b"\xff\xfe", "\ufffd\ufffd"),
        ("", b"", ""),
    ],
)
def test_words_are_found(kind: str, body: bytes, words: str) -> None:
    """JSON, XML, an HTML title or plain text: what the server said comes out as one line."""
    assert server_message({"content-type": kind}, body) == words


def test_header_speaks_before_the_body() -> None:
    """The hub's own X-Error-Message is what it said."""
    assert server_message({"x-error-message": "in short"}, b'{"error": "at length"}') == "in short"


@calm
@given(st.binary(max_size=200), st.sampled_from(["application/json", "text/html", ""]))
def test_words_are_one_short_harmless_line(body: bytes, kind: str) -> None:
    """Whatever a server says fits one line of a terminal and commands it nothing."""
    words = server_message({"content-type": kind}, body * 40)
    assert len(words) <= 300
    assert not any(ord(char) < 32 or ord(char) == 127 or char in "\u202e\u200b\u2028" for char in words)


@pytest.mark.fault(241)
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Cannot GET /f.bin?a=1&amp;auth=x here", "Cannot GET /f.bin?… here"),
        ("no /f.bin%3Fauth%3Dx", "no /f.bin?…"),
        ("no f.bin?secret", "no f.bin?…"),
        ("no &quot;/f?&#x61;uth=x&quot; &lt;here&gt;", 'no "/f?… <here>'),
        ("who?! are you? yes", "who?! are you? yes"),
        ("no https://me:pw@h/f;x#y", "no https://h/f?…"),
    ],
)
def test_a_query_is_not_quoted(said: str, shown: str) -> None:
    """A word with a query is cut there, whatever it is; other words are quoted as they are meant."""
    assert safe_excerpt(said) == shown


def test_no_part_of_a_secret_is_quoted() -> None:
    """Secrets are taken out before a text is cut to its length."""
    assert "s3cr3t" not in safe_excerpt("x" * 290 + " s3cr3t-and-so-on", ["s3cr3t-and-so-on"])
    assert "s3cr3t" not in request_id({"x-request-id": "x" * 90 + " s3cr3t-and-so-on"}, ["s3cr3t-and-so-on"])


def test_deep_json_is_survived() -> None:
    """JSON nested beyond all reason is no fault of mdl's."""
    assert isinstance(server_message({"content-type": "application/json"}, b"[" * 60_000), str)


@pytest.mark.fault(56, 57)
@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        *((401, AuthError, 4), (403, AuthError, 4), (407, AuthError, 4), (404, NotFound, 3), (410, NotFound, 3)),
        *((400, NetworkError, 5), (405, NetworkError, 5), (418, NetworkError, 5), (451, NetworkError, 5)),
        *((408, NetworkError, 5), (425, NetworkError, 5), (429, NetworkError, 5), (500, NetworkError, 5)),
        *((501, NetworkError, 5), (503, NetworkError, 5), (504, NetworkError, 5), (599, NetworkError, 5)),
    ],
)
def test_status_means_an_exit_code(status: int, kind: type[MdlError], code: int) -> None:
    """401 and 403 are 4, 404 and 410 are 3, every other refusal is 5; the number is said, and what to do."""
    error = refused(status)
    assert (type(error), error.exit_code) == (kind, code)
    assert str(status) in error.message
    assert error.hint


@pytest.mark.fault(57)
@pytest.mark.parametrize(
    ("status", "final"),
    [(400, True), (405, True), (451, True), (501, True), *((n, False) for n in (408, 425, 429, 500, 502, 503, 504))],
)
def test_only_what_may_pass_is_tried_again(status: int, final: bool) -> None:
    """A status that may pass by itself is retried; any other is not."""
    error = refused(status)
    assert isinstance(error, NetworkError)
    assert error.final == final


def test_wish_is_carried() -> None:
    """A 429 carries the server's wish, from Retry-After or an exhausted RateLimit."""
    for headers, wish in (({"retry_after": "7"}, 7.0), ({"ratelimit": '"api";r=0;t=55'}, 56.0)):
        error = refused(429, **headers)
        assert isinstance(error, NetworkError)
        assert (error.retry_after, error.final) == (wish, False)


@pytest.mark.fault(58)
def test_wish_beyond_patience_ends_it() -> None:
    """A server that asks for more than ten minutes is given up on, in its own words."""
    error = refused(503, words="come back tomorrow", retry_after="86400")
    assert isinstance(error, NetworkError)
    assert error.final
    assert "86400 s" in error.message
    assert "come back tomorrow" in error.message


@pytest.mark.fault(69)
@pytest.mark.parametrize("url", [URL, API, "https://huggingface.co/api/models/org/repo/revision/main"])
def test_gated_names_the_page(url: str) -> None:
    """A gated repository is 4, and the hint names the page where its licence is accepted."""
    error = refused(403, "GatedRepo", "Access to model org/repo is restricted", url=url)
    assert error.exit_code == 4
    assert "https://huggingface.co/org/repo " in f"{error.hint} "
    assert "HF_TOKEN" in str(error.hint)
    assert "token's account" in str(refused(403, "GatedRepo", url=url, token=True).hint)


@pytest.mark.fault(69)
def test_gated_dataset_names_its_page() -> None:
    """A dataset's page keeps its ``datasets/``."""
    error = refused(401, "GatedRepo", url="https://huggingface.co/api/datasets/org/data/tree/main")
    assert "https://huggingface.co/datasets/org/data " in f"{error.hint} "


@pytest.mark.fault(70)
def test_401_says_that_absent_and_private_cannot_be_told_apart() -> None:
    """A 401 without a token may mean absent, private or gated, and the text says so."""
    for token in (False, True):
        hint = str(refused(401, "RepoNotFound", token=token).hint)
        assert "does not say which" in hint


@pytest.mark.fault(80)
def test_wrong_token_is_named() -> None:
    """A token the hub does not know is called wrong or expired."""
    error = refused(401, words="Invalid credentials in Authorization header", token=True)
    assert "HF_TOKEN is wrong or has expired" in str(error.hint)


@pytest.mark.fault(61)
@pytest.mark.parametrize(
    "words",
    [
        "Request is not yet valid",
        "The difference between the request time and the current time is too large.",
        "RequestTimeTooSkewed",
    ],
)
def test_a_clock_that_is_wrong_is_named(words: str) -> None:
    """A refusal for the sake of the time is the clock's trouble: the hint says so."""
    error = refused(403, words=words)
    assert words in error.message
    assert "clock" in str(error.hint)


@pytest.mark.parametrize(
    ("code", "hint"), [("RevisionNotFound", "revision"), ("EntryNotFound", "file's path"), ("RepoNotFound", "name")]
)
def test_404_says_what_to_check(code: str, hint: str) -> None:
    """The hub's code tells which part of the name is wrong."""
    assert hint in str(refused(404, code).hint)


@pytest.mark.fault(54, 59)
def test_no_query_in_any_message() -> None:
    """A signed URL lends host and path to a message, never its query."""
    for status in (400, 401, 403, 404, 407, 429, 500):
        for code in ("", "GatedRepo"):
            for url in (URL, "https://huggingface.co/org/repo?X-Amz-Signature=secret"):
                assert "secret" not in json.dumps(refused(status, code, url=url).to_dict())


def test_request_id_is_told() -> None:
    """The server's request id stands in the message, cut and harmless."""
    assert "(request abc-1)" in refused(500, x_request_id="abc-1").message
    assert request_id({"x-amz-request-id": "Z" * 500 + "\x1b"}) == "Z" * 100
    assert request_id({}) == ""


def test_unknown_status_has_no_phrase() -> None:
    """A status nobody knows is told by its number."""
    assert refused(599).message == "huggingface.co answered 599"


@pytest.mark.fault(38, 39)
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<!DOCTYPE html>\n<html><head><title>Log\x1b[31m in</title>", "web page, 'Log"),
        (b"  <HTML><body>", "web page"),
        (b"<!-- ours --><head></head>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git-lfs pointer"),
    ],
)
def test_what_came_in_a_files_place(body: bytes, words: str) -> None:
    """A page is told by its title, made harmless, a pointer as one; each with what to do."""
    found = impostor(body)
    assert found
    assert words in found[0]
    assert "\x1b" not in found[0]
    assert found[1]


@pytest.mark.parametrize("body", [b"", b"\x00\x01<b>", b"{}", b"<?xml version='1.0'?><a/>", bytes(5000) + b"<html>"])
def test_what_is_no_page(body: bytes) -> None:
    """Other bytes are just other bytes."""
    assert impostor(body) is None
