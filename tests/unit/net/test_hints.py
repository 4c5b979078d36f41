"""Hints: each names the one thing to change, by what the answer and the environment show."""

from __future__ import annotations

import pytest
from support.cases import each

from mdl.errors import AuthError, NetworkError, Unsafe, UsageError, online_hint
from mdl.net.connection_errors import not_http_hint
from mdl.net.follower import loop_hint, redirect_target
from mdl.net.http_errors import Asker, error_for_status
from mdl.net.proxies import Proxy

URL = "https://models.example/f.bin"
PROXY = Proxy("http://me:pw@proxy.corp:3128", "HTTPS_PROXY")
BARE = Proxy("http://proxy.corp:3128", "all_proxy")
JUST_A_MOMENT = b"<html><head><title>Just a moment...</title></head></html>"


@each(
    ("status", "headers", "body", "guard"),
    [
        (403, {"cf-mitigated": "challenge"}, JUST_A_MOMENT, "Cloudflare"),
        (503, {"server": "cloudflare"}, JUST_A_MOMENT, "Cloudflare"),
        (403, {"cf-mitigated": "challenge"}, b"", "Cloudflare"),
        (403, {"x-amzn-waf-action": "captcha"}, b"", "AWS WAF"),
        (403, {"x-datadome": "protected"}, b"", "DataDome"),
        (403, {"server": "nginx"}, b"<title>Verify you are human</title>", "a guard before it"),
    ],
)
def test_a_guard_that_wants_a_browser(status: int, headers: dict[str, str], body: bytes, guard: str) -> None:
    """It is 4 and final, and no token is asked for."""
    error = error_for_status(status, headers, body, URL)
    assert isinstance(error, AuthError)
    assert error.hint == (
        f"models.example ({guard}) wants a browser: download it there, then mdl import, or take another source"
    )


@pytest.mark.parametrize("headers", [{"server": "cloudflare"}, {"cf-ray": "1"}, {"cf-mitigated": "block"}, {}])
def test_a_refusal_behind_a_guard_is_still_a_refusal(headers: dict[str, str]) -> None:
    """A server behind Cloudflare that wants a token wants a token."""
    hint = error_for_status(403, headers, b"who are you?", URL).hint
    assert "token_env" in str(hint)
    assert "browser" not in str(hint)


@each(
    ("proxy", "offers", "words"),
    [
        (PROXY, 'Basic realm="a, b"', "check the user name and password of HTTPS_PROXY"),
        (PROXY, 'Negotiate, NTLM, Basic realm="x"', "check the user name and password of HTTPS_PROXY"),
        (PROXY, "", "check the user name and password of HTTPS_PROXY"),
        (BARE, 'Basic realm="x"', "write user name and password into all_proxy"),
        (PROXY, "Negotiate, NTLM", "takes Negotiate, NTLM alone"),
        (BARE, 'Digest realm="x", nonce="y"', "a password in all_proxy cannot help"),
        (None, "", "the proxy variable"),
    ],
)
def test_a_proxy_that_wants_a_login(proxy: Proxy | None, offers: str, words: str) -> None:
    """The hint depends on the ways that the proxy offers, and on whether a password was sent."""
    headers = {"proxy-authenticate": offers} if offers else {}
    error = error_for_status(407, headers, b"", "http://models.example/f", Asker(proxy=proxy))
    assert words in str(error.hint)
    assert "me:pw" not in str(error.hint)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("models.example", "if models.example needs no proxy, add it to NO_PROXY"),
        ("10.0.0.7", "NO_PROXY=10.0.0.7 has it asked directly"),
        ("nexus", "NO_PROXY=nexus has it asked directly"),
        ("localhost", "NO_PROXY=localhost has it asked directly"),
    ],
)
def test_a_proxy_that_cannot(host: str, words: str) -> None:
    """A host of the own network is sent past the proxy; of any other the variable is named first."""
    for status, kind in ((502, NetworkError), (504, NetworkError), (403, AuthError)):
        squid = {"x-squid-error": "ERR_DNS_FAIL 0", "server": "squid/6"}
        error = error_for_status(status, squid, b"", f"http://{host}/f", Asker(proxy=PROXY))
        assert isinstance(error, kind)
        assert words in str(error.hint)
        assert error.message.startswith(f"the proxy http://proxy.corp:3128 for {host} answered {status}")
    assert "proxy" not in error_for_status(502, {}, b"", f"http://{host}/f", Asker(proxy=PROXY)).message


@pytest.mark.parametrize(
    ("hops", "words"),
    [
        ([{":url": URL, "set-cookie": "s=1"}, {":url": URL}], "the answers set a cookie"),
        ([{":url": URL}, {":url": "https://b.example/"}, {":url": URL}], "a setting of models.example and b.example"),
        ([{":url": URL}, {":url": "https://b.example/"}], "give the URL at which the redirects end"),
    ],
)
def test_redirects_without_end(hops: list[dict[str, str]], words: str) -> None:
    """What the answers asked for in vain is told."""
    assert words in loop_hint(hops)


@pytest.mark.parametrize(
    ("target", "words"),
    [("http://models.example/f", "X-Forwarded-Proto"), ("http://cdn.example/f", "ask its owner for an https URL")],
)
def test_a_redirect_to_plain_http(target: str, words: str) -> None:
    """It is told whose setting that is."""
    with pytest.raises(Unsafe) as caught:
        redirect_target({"location": target}, URL)
    hint = str(caught.value.hint)
    assert words in hint
    assert "setting of models.example" in hint


def test_a_bucket_in_another_region() -> None:
    """AWS_REGION does nothing for a URL that names its host: that has the region in it."""
    with pytest.raises(UsageError, match="another region: eu-west-3") as caught:
        redirect_target({"x-amz-bucket-region": "eu-west-3"}, "https://bucket.s3.amazonaws.com/f")
    assert "in an https URL write s3.REGION.amazonaws.com" in str(caught.value.hint)
    assert "for s3:// set AWS_REGION" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("begins", "words"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x46", "speaks TLS on this port"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH server"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "HTTP/2 alone"),
        (b"220 ftp.example ready\r\n", "no web server"),
    ],
)
def test_a_server_that_speaks_something_else(begins: bytes, words: str) -> None:
    """What it speaks is told as far as its first bytes show it."""
    assert words in not_http_hint(f"illegal status line: {bytearray(begins)}", "http://models.example/")


@pytest.mark.parametrize("words", ["illegal header line", "bad Content-Length", "conflicting Content-Length headers"])
def test_a_web_server_whose_headers_are_wrong(words: str) -> None:
    """It is one: nobody is sent to look for another port."""
    hint = not_http_hint(words, "http://models.example/")
    assert "take another source" in hint
    assert "port" not in hint


@pytest.mark.parametrize(
    ("offline_by", "words"),
    [
        ("--offline", "run it again without --offline"),
        ("HF_HUB_OFFLINE", "without HF_HUB_OFFLINE: it keeps mdl offline"),
        ("[defaults] offline", "write false for [defaults] offline into config.toml"),
        ("", "run it again online"),
    ],
)
def test_what_keeps_mdl_offline(offline_by: str, words: str) -> None:
    """The flag, variable or setting is named."""
    assert words in online_hint(offline_by)
