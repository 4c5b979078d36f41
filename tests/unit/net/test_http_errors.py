"""Refusals: the server's own words in a message, and which error a status is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import each

from mdl.errors import AuthError, MdlError, NetworkError, NotFound
from mdl.net.credentials import HostCredential
from mdl.net.http_errors import Asker, error_for_status
from mdl.net.server_messages import impostor, request_id, safe_excerpt, server_message

calm = settings(deadline=None)
URL = "https://huggingface.co/org/repo/resolve/main/model.bin?X-Amz-Signature=secret"
API = "https://huggingface.co/api/models/org/repo"


def refused(
    status: int, code: str = "", words: str = "", *, url: str = URL, token: bool = False, **more: str
) -> MdlError:
    """The error for a status with the hub's own headers."""
    headers = {"x-error-code": code, "x-error-message": words, **{k.replace("_", "-"): v for k, v in more.items()}}
    return error_for_status(status, headers, b"", url, Asker("HF_TOKEN" if token else "", is_hub=True))


@each(
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
        ("application/json", b"[" * 60_000, "[" * 300),
        ("application/xml", b"<Error><Code>X</Code><Message>It has expired</Message></Error>", "It has expired"),
        ("text/html", b"<html><head><title>\n 502 Bad\n Gateway </title>", "502 Bad Gateway"),
        ("text/html", b"<html><h1 class=x>Oops</h1>", "Oops"),
        ("text/html", b"<html><p>nothing to say</p>", ""),
        ("text/plain", b"one line\nand another", "one line"),
        ("", b"\xff\xfe", "\ufffd\ufffd"),
        ("", b"", ""),
    ],
)
def test_server_message(kind: str, body: bytes, words: str) -> None:
    """What the server said in JSON, XML, an HTML title or plain text becomes one line."""
    assert server_message({"content-type": kind}, body) == words
    assert server_message({"content-type": kind, "x-error-message": "in short"}, body) == "in short"


@calm
@given(st.binary(max_size=200), st.sampled_from(["application/json", "text/html", ""]))
def test_message_is_one_short_harmless_line(body: bytes, kind: str) -> None:
    """Whatever a server says becomes one line without control characters."""
    words = server_message({"content-type": kind}, body * 40)
    assert len(words) <= 300
    assert not any(ord(char) < 32 or ord(char) == 127 or char in "\u202e\u200b\u2028" for char in words)


@pytest.mark.fault(241)
@each(
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
def test_query_is_not_quoted(said: str, shown: str) -> None:
    """A word with a query is cut there, however it is encoded; other words are quoted decoded."""
    assert safe_excerpt(said) == shown


def test_no_part_of_a_secret_is_quoted() -> None:
    """Secrets are removed before a text is cut to its length."""
    assert "s3cr3t" not in safe_excerpt("x" * 290 + " s3cr3t-and-so-on", ["s3cr3t-and-so-on"])
    assert "s3cr3t" not in request_id({"x-request-id": "x" * 90 + " s3cr3t-and-so-on"}, ["s3cr3t-and-so-on"])


@pytest.mark.fault(56, 57)
@each(
    ("status", "kind", "code", "final"),
    [
        *((status, AuthError, 4, None) for status in (401, 403, 407)),
        *((status, NotFound, 3, None) for status in (404, 410)),
        *((status, NetworkError, 5, True) for status in (400, 405, 418, 451, 501, 599)),
        *((status, NetworkError, 5, False) for status in (408, 425, 429, 500, 502, 503, 504)),
    ],
)
def test_error_for_status(status: int, kind: type[MdlError], code: int, final: bool | None) -> None:
    """401 and 403 are 4, 404 and 410 are 3, every other refusal is 5, and only one that may pass is tried again. The
    message has the number, the hint says what to do."""
    error = refused(status)
    assert (type(error), error.exit_code) == (kind, code)
    assert getattr(error, "final", None) == final
    assert str(status) in error.message
    assert error.hint


@pytest.mark.fault(58)
def test_requested_wait() -> None:
    """The error has the wait that the server asks for. If that is over ten minutes, the request is not repeated."""
    for headers, seconds in (({"retry_after": "7"}, 7.0), ({"ratelimit": '"api";r=0;t=55'}, 56.0)):
        error = refused(429, **headers)
        assert isinstance(error, NetworkError)
        assert (error.retry_after, error.final) == (seconds, False)
    error = refused(503, words="come back tomorrow", retry_after="86400")
    assert isinstance(error, NetworkError)
    assert error.final
    assert "86400 s" in error.message
    assert "come back tomorrow" in error.message


DATASET = "https://huggingface.co/api/datasets/org/data/tree/main"
CLOCKS = (
    "Request is not yet valid",
    "The difference between the request time and the current time is too large.",
    "RequestTimeTooSkewed",
)


@pytest.mark.fault(61, 69, 70, 80)
@each(
    ("error", "hints"),
    [
        *(
            (refused(403, "GatedRepo", url=url), ["https://huggingface.co/org/repo ", "HF_TOKEN"])
            for url in (URL, f"{API}/tree/main?recursive=true", f"{API}/revision/main")
        ),
        (refused(403, "GatedRepo", token=True), ["token's account"]),
        (refused(401, "GatedRepo", url=DATASET), ["https://huggingface.co/datasets/org/data "]),
        (refused(401, "RepoNotFound"), ["does not say which"]),
        (refused(401, "RepoNotFound", token=True), ["does not say which"]),
        (
            refused(401, words="Invalid credentials in Authorization header", token=True),
            ["HF_TOKEN is wrong or has expired"],
        ),
        *((refused(403, words=words), ["clock"]) for words in CLOCKS),
        (refused(404, "RevisionNotFound"), ["revision"]),
        (refused(404, "EntryNotFound"), ["file's path"]),
        (refused(404, "RepoNotFound"), ["name"]),
        *(
            (
                refused(status, "RepoNotFound", url=f"{API}/revision/main", token=token),
                ["a dataset is hf:datasets/OWNER/NAME"],
            )
            for status, token in ((401, False), (404, False), (404, True))
        ),
    ],
)
def test_hint(error: MdlError, hints: list[str]) -> None:
    """The hint names the page where a licence is accepted, that absent and private cannot be told apart, a wrong token,
    a wrong clock, or the part of a name that is wrong; of a model that is not there, how a dataset is named."""
    assert error.exit_code == (3 if "404" in error.message else 4)
    assert all(hint in f"{error.hint} " for hint in hints)


JSON_WORDS = {
    '{"error": "Unauthorized", "message": "You must be logged in"}': "You must be logged in",
    '{"error": "invalid_token", "error_description": "It has expired"}': "It has expired",
    '{"error": "It is gone", "message": "see the docs"}': "It is gone",
    '{"error": "Unauthorized"}': "",
}


@pytest.mark.parametrize("body", JSON_WORDS)
def test_a_sentence_goes_before_a_code(body: str) -> None:
    """Of what an ordinary host says in JSON its sentence is quoted, not the one word before it; and nothing is said
    of HF_TOKEN."""
    error = error_for_status(401, {}, body.encode(), "https://www.files.example/a/f.bin?sig=secret", Asker())
    words = JSON_WORDS[body]
    assert error.message == "www.files.example answered 401 Unauthorized" + (f": {words}" if words else "")
    assert '[hosts."www.files.example"] token_env = "FILES_TOKEN"' in str(error.hint)
    assert "HF_TOKEN" not in str(error.hint)


def test_what_a_redirect_led_to() -> None:
    """A host that the user never named gets no credential, so none is asked for."""
    url = "https://cdn.example/long/path?sig=secret"
    for status, asker in ((403, Asker(is_redirected=True)), (404, Asker(is_located=True))):
        error = error_for_status(status, {}, b"", url, asker)
        assert error.message.startswith(f"cdn.example answered {status}")
        assert "[hosts" not in str(error.hint)


@pytest.mark.fault(54, 59)
def test_no_query_in_any_message() -> None:
    """Of a signed URL a message has host and path, never the query."""
    for status in (400, 401, 403, 404, 407, 429, 500):
        for code in ("", "GatedRepo"):
            for url in (URL, "https://huggingface.co/org/repo?X-Amz-Signature=secret"):
                assert "secret" not in json.dumps(refused(status, code, url=url).to_dict())


def test_message_text() -> None:
    """The message ends with the server's request id, cut and harmless. A status without a name is a number."""
    assert "(request abc-1)" in refused(500, x_request_id="abc-1").message
    assert request_id({"x-amz-request-id": "Z" * 500 + "\x1b"}) == "Z" * 100
    assert request_id({}) == ""
    assert refused(599).message == "huggingface.co answered 599"
    assert CLOCKS[0] in refused(403, words=CLOCKS[0]).message


@pytest.mark.fault(38, 39)
@each(
    ("body", "words"),
    [
        (b"<!DOCTYPE html>\n<html><head><title>Log\x1b[31m in</title>", "web page, 'Log"),
        (b"  <HTML><body>", "web page"),
        (b"<!-- ours --><head></head>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git-lfs pointer"),
        *((body, "") for body in (b"", b"\x00\x01<b>", b"{}", b"<?xml version='1.0'?><a/>", bytes(5000) + b"<html>")),
    ],
)
def test_impostor(body: bytes, words: str) -> None:
    """A web page is named by its title, without control characters, a pointer as one. Other bytes are no impostor."""
    found = impostor(body)
    assert bool(found) == bool(words)
    if found:
        assert words in found[0]
        assert "\x1b" not in found[0]
        assert found[1]


@pytest.mark.fault(473)
def test_temporary_keys_that_have_ended() -> None:
    """S3 says 400 then; it is no trouble of the network, and asking again does not help."""
    body = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
    error = error_for_status(400, {}, body, "https://b.s3.amazonaws.com/k", Asker(is_located=True))
    assert isinstance(error, AuthError)
    assert "The provided token has expired." in error.message
    assert "keys" in str(error.hint)
    assert isinstance(error_for_status(400, {}, b"<Error/>", "https://h/k", Asker(is_located=True)), NetworkError)


def test_a_host_that_wants_a_user_and_a_password() -> None:
    """What Artifactory, Nexus and GitLab offer is written into the table of the host; a bearer token is named then."""
    offer = {"www-authenticate": 'Basic realm="Artifactory Realm", charset="UTF-8"'}
    url = "https://files.example/m.bin"
    hint = str(error_for_status(401, offer, b"", url).hint)
    assert '[hosts."files.example"] token_env = "FILES_TOKEN", and send = "basic"; then set FILES_TOKEN to USER' in hint
    asker = Asker(sent="FILES_TOKEN", credential=HostCredential("files.example", "FILES_TOKEN", secret="s3cret"))
    assert 'send = "basic"' in str(error_for_status(401, offer, b"", url, asker).hint)
    both = {"www-authenticate": 'Bearer realm="x", Basic realm="x"'}
    assert "send =" not in str(error_for_status(401, both, b"", url).hint)


def test_a_host_that_wants_what_a_header_can_carry() -> None:
    """Only ways to sign in that no fixed header serves are called unspoken, and never before a credential that is set
    for the host."""
    url = "https://files.example/m.bin"
    token = {"www-authenticate": 'Token realm="x"'}
    assert "token_env" in str(error_for_status(401, token, b"", url).hint)
    for offer in ("Digest", "NTLM, Negotiate", "AWS4-HMAC-SHA256"):
        assert "does not speak" in str(error_for_status(401, {"www-authenticate": offer}, b"", url).hint)
        asker = Asker(credential=HostCredential("files.example", "FILES_TOKEN"))
        assert "set it" in str(error_for_status(401, {"www-authenticate": offer}, b"", url, asker).hint)
