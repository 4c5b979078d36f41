"""Secrets are taken out of a text, and nothing else."""

from __future__ import annotations

import base64

import pytest
from support.cases import each
from support.long import LONG

from mdl.redact import Secrets, bare_url, has_secret, open_url, redact, redact_value

SECRET = "s3cr3t+value/with=signs"
INNOCENT = [
    "why? because a@b.example said so",
    "https://h.example/org/repo/resolve/main/a.bin",
    "hf_short is a name",
    "x [/] y.bin: 12 % done?",
    "https://h.example/a&b.bin",
    "and/or? = perhaps; https://h.example/a.bin; then more",
    "hf:org/repo@main",
]


@pytest.mark.fault(167, 171)
@each(
    ("text", "clean"),
    [
        ("GET https://user:pass@host.example:8443/a/b failed", "GET https://host.example:8443/a/b failed"),
        ("https://h.example/x?X-Amz-Signature=abc&e=1 gone", "https://h.example/x?… gone"),
        ("<https://h.example/x?sig=1>, 'https://h.example/y?z'", "<https://h.example/x?…>, 'https://h.example/y?…'"),
        ("s3://key:word@bucket/p and HTTPS://a:b@H.example", "s3://bucket/p and HTTPS://H.example"),
        ("https://h.example/x?to=https://u:p@other.example/", "https://h.example/x?…"),
        ("Location: /a/b?X-Amz-Credential=AKIA&Expires=5", "Location: /a/b?…"),
        ("https://h.example/x?name='a'&n=\"b\"&auth=<c>;d is gone", "https://h.example/x?… is gone"),
        ("is it https://h.example/a;sid=1/b#part?", "is it https://h.example/a/b?…?"),
        ("bytearray(b'HTTP/1.1 no /f.bin?auth=abc\\r\\n')", "bytearray(b'HTTP/1.1 no /f.bin?…')"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", "{'authorization': 'Basic ***'}"),
        ("the server said bearer xxx", "the server said bearer ***"),
        ("token hf_abcdefghijKLMN0 is wrong", "token *** is wrong"),
        *((text, text) for text in INNOCENT),
    ],
)
def test_a_sentence(text: str, clean: str) -> None:
    """Userinfo, query strings, authorization values, bearer and hub tokens are taken out; names and plain URLs stay."""
    assert redact(text) == clean


@pytest.mark.fault(171)
def test_known_values_go_wherever_they_stand() -> None:
    """A registered value goes as it is and percent-encoded, the longest first; one of a few letters is ignored, for it
    would eat into ordinary words. The environment's tokens and keys are known at once. Twice is once."""
    secrets = Secrets([SECRET, "s3cr3t", f"  {SECRET}-longer\n", None, "", "a", "1", "mod"])
    text = f"{SECRET}-longer; {SECRET}; s3cr3t%2Bvalue%2Fwith%3Dsigns; s3cr3t; a model at 1"
    assert redact(text, secrets) == "***; ***; ***; ***; a model at 1"
    secrets = Secrets.of({"HF_TOKEN": "token-1", "AWS_SECRET_ACCESS_KEY": "key-22", "HOME": "/home/user"})
    assert redact("token-1 key-22 /home/user", secrets) == "*** *** /home/user"
    once = redact(f"https://a:b@h.example/x?y=1 Bearer abc hf_0123456789 {SECRET}", Secrets([SECRET]))
    assert redact(once, Secrets([SECRET])) == once


def test_values_keep_what_only_looks_like_a_token() -> None:
    """A file name is not taken for a token, but a signed URL and a known value are still redacted."""
    secrets = Secrets([SECRET])
    assert redact_value("hf_checkpoint12345.bin", secrets) == "hf_checkpoint12345.bin"
    assert redact_value("https://u:p@h.example/x?sig=1", secrets) == "https://h.example/x?…"
    assert redact_value(f"a/{SECRET}", secrets) == "a/***"


@pytest.mark.fault(166, 240)
@each(
    ("url", "bare"),
    [
        ("https://h.example:8443/a/b.bin?x=1#y", "https://h.example:8443/a/b.bin"),
        ("HTTPS://h/a;v=1/b;c", "HTTPS://h/a/b"),
        ("https://h#x?y", "https://h"),
        ("https://me:pw@h/a@1/b", "https://h/a@1/b"),
        ("https://me:p@w@h/", "https://h/"),
        ("https://me:p/w@h/a", "https://h/a"),
        ("https://h/a&b.bin", "https://h/a&b.bin"),
        ("https:me:pw@h", "https:h"),
        ("https://[::1]:80/a@b:c/d", "https://[::1]:80/a@b:c/d"),
        ("hf:org/repo@main/a.bin", "hf:org/repo@main/a.bin"),
        ("/a/b?c", "/a/b"),
        ("", ""),
    ],
)
def test_a_bare_url(url: str, bare: str) -> None:
    """Scheme, host, port and path stay as they are; user, password, parameters, query and fragment go."""
    assert bare_url(url) == bare
    assert bare_url(bare) == bare


@pytest.mark.fault(241)
def test_values_of_a_query() -> None:
    """The values of a query are secret in every form in which a server may repeat them; ordinary words are not."""
    secrets = Secrets()
    secrets.add_query(
        "https://h/org/weights.bin?sig=s%2Bcret%3D&to=%2Fx%3Fkey%3Dinner&download=true&ab&f=weights.bin&n=1048"
        "&w=two+words&e=%3Chidden%3E"
    )
    for said in ("s+cret=", "s%2Bcret%3D", "s%252Bcret%253D", "inner", "two words", "&lt;hidden&gt;"):
        assert redact(f"no {said} here", secrets) == "no *** here"
    for said in ("download true ab 1048", "org/weights.bin", "main host sig to", "https://h/org"):
        assert redact(said, secrets) == said


@pytest.mark.no_cover
@pytest.mark.fault(241)
@each("piece", ["a", "?", "&=", ";x", "%3F%26", "/", "/?=", "http://h/;", "://", "?sig", "@"])
def test_long_hostile_text(piece: str) -> None:
    """A long text of a hostile server, and the query that its redirect names, are read before the time limit of a
    test, and cost no more than a few times their size."""
    length = 200_000 if LONG else 100_000
    text = piece * (length // len(piece))
    query = piece * (3 * length // 10 // len(piece))
    secrets = Secrets()
    secrets.add_query(f"https://h/f?{query}")
    redact(query, secrets)
    redact(text)
    redact(f"https://{text}")
    assert sum(map(len, secrets)) < 20 * len(query)


@each("name", ["HTTP_PROXY", "https_proxy", "All_Proxy", "ALL_PROXY"])
@each("form", ["http://me:{0}@proxy:3128", "me:{0}@proxy:3128", "socks5h://me:{0}@[::1]:1080/"])
def test_the_password_of_a_proxy(name: str, form: str) -> None:
    """It is secret in every variable and form: as written, decoded, and as sent."""
    secrets = Secrets.of({name: form.format("p%40ss%2fword"), "NO_PROXY": "a@b"})
    basic = base64.b64encode(b"me:p@ss/word").decode()
    for said in ("p%40ss%2fword", "p%40ss%2Fword", "p@ss/word", basic):
        assert redact(f"denied ({said})", secrets) == "denied (***)"
    assert redact("me at proxy, a@b", secrets) == "me at proxy, a@b"
    assert list(Secrets.of({name: "http://me@proxy", "http_proxy": "http://:@proxy"})) == []


HARMLESS = (
    "revision=main",
    "Revision=master&FilePath=unet/model.safetensors",
    "download=true",
    "download",
    "filename=a%20model.bin",
    "version=2024-01-01",
    "versionId=3HL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY",
    "type=Model&format=SafeTensor&size=full&fp=fp16",
    "ref=refs/pr/1",
)
SECRET_PARAMETERS = (
    *(f"{name}=S3CRET" for name in ("auth", "t", "st", "hdnts", "AWSAccessKeyId", "Expires", "id", "k", "x", "token")),
    *(
        "S3CRET",
        "download=S3CRET",
        "dl=S3CRET",
        "=S3CRET",
        "revision%00=S3CRET",
        "X-Amz-Signature=S3CRET",
        "rEvision[]=S3CRET",
    ),
    *(
        "path=https://h/?a=S3CRET",
        "filename=x%26auth=S3CRET",
        "revision=main;sig=S3CRET",
        "path=me:S3CRET@h",
    ),
    *(
        "filename=x%3Fauth%3DS3CRET",
        f"version={'S3CRET' * 99}",
        "revision=hf_S3CRETS3CRETS3CRET",
        "revision=a%0AS3CRET",
    ),
)


@each("query", HARMLESS)
def test_harmless_parameters_stay(query: str) -> None:
    """They say which version or file is meant. They stay byte for byte, in a URL and in a sentence."""
    url = f"https://h.example/f?{query}"
    assert (open_url(url), has_secret(url), redact(f"{url} is gone")) == (url, False, f"{url} is gone")
    cut = f"https://h.example/f?{query}&auth=S3CRET"
    assert open_url(cut) == url
    assert redact_value(cut) == f"{url}&…"
    assert redact(f"({cut}).") == f"({url}&…)."
    assert redact(redact(f"({cut}).")) == f"({url}&…)."


@each("parameter", SECRET_PARAMETERS)
@each("form", ["https://h.example/f?{0}", "https://h.example/f?revision=main&{0}", "s3://b/k?{0}&download=1"])
def test_any_other_parameter_is_secret(parameter: str, form: str) -> None:
    """Whatever it is called; and a harmless name does not make a token, a nested URL or a second parameter harmless."""
    url = form.format(parameter)
    assert "S3CRET" not in open_url(url)
    assert open_url(open_url(url)) == open_url(url)
    assert has_secret(url)
    for said in (redact(f"no {url} here"), redact_value(url), redact(f"GET /f?{url.partition('?')[2]} failed")):
        assert "S3CRET" not in said


@each(
    ("url", "open_"),
    [
        ("https://me:pw@h/f?x=1", "https://h/f"),
        ("https://me:p?w@h/f", "https://h/f"),
        ("https://h/f#part", "https://h/f"),
        (f"https://h/f?x=1#sha256={'a' * 64}", f"https://h/f#sha256={'a' * 64}"),
        ("https://h/a;v=1/b", "https://h/a/b"),
        ("https://h/f?", "https://h/f"),
        ("hf:org/repo@main", "hf:org/repo@main"),
        ("/a/path#1?2;3@4", "/a/path#1?2;3@4"),
    ],
)
def test_what_else_of_a_url_stays_here(url: str, open_: str) -> None:
    """User, password, path parameters and fragment go, a digest stays; what is no URL is left alone."""
    assert open_url(url) == open_
