"""The endpoint: which hub is asked, and with whose token, by the environment that the hub's own tools read."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cases import each

from mdl.errors import UsageError
from mdl.sources import HUB_HOSTS, page_hosts
from mdl.sources.hub_endpoint import DEFAULT, Endpoint, token_path
from mdl.sources.hub_origin import HubOrigin
from mdl.units import is_true

TOKEN = "hf_secretsecret"


@pytest.mark.fault(46, 81)
@each(
    ("text", "url", "origin"),
    [
        ("", DEFAULT, f"{DEFAULT}:443"),
        ("https://mirror.org/", "https://mirror.org", "https://mirror.org:443"),
        ("HTTPS://mirror.org", "https://mirror.org", "https://mirror.org:443"),
        ("https://mirror.org:8443/", "https://mirror.org:8443", "https://mirror.org:8443"),
        ("https://mirror.org/hf/", "https://mirror.org/hf", "https://mirror.org:443"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://localhost:8000/", "http://localhost:8000", "http://localhost:8000"),
        ("http://10.0.0.7", "http://10.0.0.7", "http://10.0.0.7:80"),
        ("http://[::1]:8000", "http://[::1]:8000", "http://::1:8000"),
        ("http://head:8400", "http://head:8400", "http://head:8400"),
    ],
)
def test_endpoint(text: str, url: str, origin: str) -> None:
    """HF_ENDPOINT is used without its trailing slash, plain http only on a private network. The token belongs to its
    origin, and no repr shows it."""
    endpoint = Endpoint.from_environ({"HF_ENDPOINT": text, "HF_TOKEN": TOKEN})
    assert endpoint.url == url
    assert endpoint.origin_token is not None
    assert (endpoint.origin_token.origin, endpoint.origin_token.token) == (origin, TOKEN)
    assert TOKEN not in repr(endpoint) + repr(endpoint.origin_token)


def test_nothing_set() -> None:
    """Without any variable it is the public hub, without a token."""
    endpoint = Endpoint.from_environ({})
    assert (endpoint.url, endpoint.token, endpoint.origin_token) == (DEFAULT, None, None)


@pytest.mark.fault(81)
@each(
    "text",
    [
        *("mirror.org", "ftp://mirror.org", "https://", "https:///x", "http://mirror.org", "http://8.8.8.8"),
        *("https://me:pw@mirror.org", "https://mirror.org?x=1", "file:///etc", "http://127.0.0.1.evil.org"),
        *("http://head.example.org:8400", "http://[2001:4860::1]"),
        *("https://mirror.org:99999", "https://mirror.org:x", "https://[::1", "https://:pw@mirror.org"),
    ],
)
def test_unusable_endpoint(text: str) -> None:
    """An endpoint that is no hub's URL, or to which a token would be sent in the clear, is 2; the error names the
    variable and does not quote a password."""
    with pytest.raises(UsageError) as caught:
        Endpoint.from_environ({"HF_ENDPOINT": text, "HF_TOKEN": TOKEN})
    assert (caught.value.exit_code, caught.value.item) == (2, "HF_ENDPOINT")
    assert "https://" in str(caught.value.hint)
    assert "pw" not in caught.value.message.split()


@pytest.mark.fault(81)
@each("endpoint", [DEFAULT, "https://mirror.org/hf"])
@each(("repo_type", "page"), [("model", ""), ("dataset", "datasets/"), ("space", "spaces/")])
def test_urls(endpoint: str, repo_type: str, page: str) -> None:
    """URLs begin with the endpoint, also with one below a path; revisions and paths are quoted."""
    origin = HubOrigin("o/r", repo_type)
    assert origin.file_url(endpoint, "a/b", "x/م#?.bin") == f"{endpoint}/{page}o/r/resolve/a%2Fb/x/%D9%85%23%3F.bin"
    assert origin.api_url(endpoint, "tree", "a/b") == f"{endpoint}/api/{repo_type}s/o/r/tree/a%2Fb"


def test_page_hosts() -> None:
    """A pasted page of the hub or of the endpoint is the hub's; an endpoint counts with its port."""
    assert page_hosts(Endpoint("http://localhost:8000")) == (*HUB_HOSTS, "localhost:8000")


@pytest.mark.fault(80)
@pytest.mark.parametrize(
    ("variables", "token", "place"),
    [
        ({"HUGGING_FACE_HUB_TOKEN": "second", "HF_TOKEN": " first\n"}, "first", "HF_TOKEN"),
        ({"HUGGING_FACE_HUB_TOKEN": "second", "HF_TOKEN": " "}, "second", "HUGGING_FACE_HUB_TOKEN"),
        ({}, "from_home", "{home}/.cache/huggingface/token"),
        ({"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, None, "HF_HUB_DISABLE_IMPLICIT_TOKEN is set"),
    ],
)
def test_token_order(tmp_path: Path, variables: dict[str, str], token: str | None, place: str) -> None:
    """HF_TOKEN comes before HUGGING_FACE_HUB_TOKEN and the file of the hub's login; an empty one does not count. The
    place of the token is told, also if a variable switches it off."""
    folder = tmp_path / ".cache" / "huggingface"
    folder.mkdir(parents=True)
    (folder / "token").write_text("from_home\n")
    found = Endpoint.from_environ({"HOME": str(tmp_path), **variables})
    assert (found.token, found.token_from) == (token, place.format(home=tmp_path))


@each(
    ("variables", "path"),
    [
        ({"XDG_CACHE_HOME": "/x", "HF_HOME": "/f", "HF_TOKEN_PATH": "/t"}, "/t"),
        ({"XDG_CACHE_HOME": "/x", "HF_HOME": "/f"}, "/f/token"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/token"),
        ({}, "/h/.cache/huggingface/token"),
        ({"HOME": ""}, "None"),
        ({"HF_TOKEN_PATH": "~/tok"}, "/h/tok"),
        ({"HF_HOME": "~/hf"}, "/h/hf/token"),
        ({"HF_TOKEN_PATH": "$HOME/tok"}, "/h/tok"),
    ],
)
def test_token_path(variables: dict[str, str], path: str) -> None:
    """The token file is named by HF_TOKEN_PATH, else in HF_HOME, else in the cache folder. ``~`` and variables are
    expanded as by the hub's own client."""
    assert str(token_path({"HOME": "/h", **variables})) == path


@pytest.mark.fault(80)
@pytest.mark.parametrize("name", ["absent", "empty", "binary", "."])
def test_unreadable_token_file(tmp_path: Path, name: str) -> None:
    """A missing, empty or binary token file, or a folder, means no token and no failure."""
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert Endpoint.from_environ({"HF_TOKEN_PATH": str(tmp_path / name)}).token is None


@pytest.mark.fault(80)
@pytest.mark.parametrize("text", ["hf_a\nX-Evil: 1", "hf_a b", "hf_é", "hf_a\x00", "hf_a\x7f", "hf_\u200b"])
def test_token_that_cannot_be_sent(text: str, tmp_path: Path) -> None:
    """A token with a newline, blank or non-ASCII character is 2. The error names its place and does not show it."""
    (tmp_path / "token").write_text(text)
    path = str(tmp_path / "token")
    for environ, item in (({"HF_TOKEN": text}, "HF_TOKEN"), ({"HF_TOKEN_PATH": path}, path)):
        with pytest.raises(UsageError) as caught:
            Endpoint.from_environ(environ).check_token()
        assert caught.value.item == item
        assert "hf_" not in caught.value.message


@each(
    ("text", "meant"),
    [
        *((text, True) for text in ("1", "ON", "yes", "True", " 1 ")),
        *((text, False) for text in ("0", "no", "", None)),
    ],
)
def test_is_true(text: str | None, meant: bool) -> None:
    """A flag is set by the same values as for the hub's own client."""
    assert is_true(text) == meant


AROUND = ["{}", " {}", "{}\r\n", '"{}"', "'{}'", "\ufeff{}\n", ' "{}" \n', "\t{}\u00a0"]
"""How editors, shells and .env files leave a short text."""


@pytest.mark.parametrize("form", AROUND)
def test_what_stands_around_a_short_text(tmp_path: Path, form: str) -> None:
    """Blanks, line ends, a byte-order mark and quotes are no part of a URL, path or token."""
    place = tmp_path / "token"
    place.write_text(form.format("hf_file"), "utf-8")
    found = Endpoint.from_environ(
        {"HF_ENDPOINT": form.format("HTTP://127.0.0.1:8000/hub/"), "HF_TOKEN": form.format("hf_x")}
    )
    assert (found.url, found.token) == ("http://127.0.0.1:8000/hub", "hf_x")
    found = Endpoint.from_environ({"HF_TOKEN_PATH": form.format(place)})
    assert (found.token, found.token_from) == ("hf_file", str(place))
    assert token_path({"HF_HOME": form.format(tmp_path)}) == place


@pytest.mark.parametrize("text", ["hf_a", "hf_a\r\n", '"hf_a"'])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le-bom", "utf-8-sig"])
def test_a_token_file_of_another_system(tmp_path: Path, text: str, encoding: str) -> None:
    """PowerShell's redirection writes UTF-16, and Notepad a byte-order mark."""
    data = b"\xff\xfe" + text.encode("utf-16-le") if encoding == "utf-16-le-bom" else text.encode(encoding)
    (tmp_path / "token").write_bytes(data)
    assert Endpoint.from_environ({"HF_HOME": str(tmp_path)}).token == "hf_a"


def test_a_token_file_that_is_no_text(tmp_path: Path) -> None:
    """It is 2 and names the file, unless another token is used."""
    (tmp_path / "token").write_bytes(b"\x80\x81")
    with pytest.raises(UsageError, match="token is no text"):
        Endpoint.from_environ({"HF_HOME": str(tmp_path)}).check_token()
    assert Endpoint.from_environ({"HF_HOME": str(tmp_path), "HF_TOKEN": "hf_x"}).token == "hf_x"


@each("url", ["ht tp://h", "http://h h/", "http://h\tx", "h", '"', "http://h/\u202e"])
def test_an_endpoint_that_cannot_be_read(url: str) -> None:
    """It is 2 and names the variable, never 11."""
    with pytest.raises(UsageError) as caught:
        Endpoint.from_environ({"HF_ENDPOINT": url})
    assert (caught.value.exit_code, caught.value.item) == (2, "HF_ENDPOINT")
