"""The endpoint: which hub, with whose token, by the environment that the hub's own tools read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdl.errors import UsageError
from mdl.sources import HUB_HOSTS, page_hosts
from mdl.sources.endpoint import DEFAULT, Endpoint, is_true, token_path
from mdl.sources.hub_origin import HubOrigin

TOKEN = "hf_secretsecret"


def test_nothing_set() -> None:
    """Without any variable it is the public hub, without a token."""
    endpoint = Endpoint.from_environ({})
    assert (endpoint.url, endpoint.token, endpoint.origin_token) == (DEFAULT, None, None)


@pytest.mark.fault(46, 81)
@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", DEFAULT),
        ("https://mirror.org/", "https://mirror.org"),
        ("HTTPS://mirror.org", "https://mirror.org"),
        ("https://mirror.org:8443", "https://mirror.org:8443"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://10.0.0.7", "http://10.0.0.7"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_endpoint_is_taken(text: str, url: str) -> None:
    """HF_ENDPOINT without its trailing slash, its scheme in lower case; plain http only to a private network."""
    assert Endpoint.from_environ({"HF_ENDPOINT": text}).url == url


@pytest.mark.fault(81)
@pytest.mark.parametrize(
    "text",
    [
        *("mirror.org", "ftp://mirror.org", "https://", "https:///x", "http://mirror.org", "http://8.8.8.8"),
        *("https://me:pw@mirror.org", "https://mirror.org?x=1", "file:///etc", "http://127.0.0.1.evil.org"),
        *("https://mirror.org:99999", "https://mirror.org:x", "https://[::1", "https://:pw@mirror.org"),
    ],
)
def test_unusable_endpoint_is_a_usage_error(text: str) -> None:
    """What is no hub's URL, or would send a token in the clear, is refused as code 2, by the variable's name."""
    with pytest.raises(UsageError) as caught:
        Endpoint.from_environ({"HF_ENDPOINT": text, "HF_TOKEN": TOKEN})
    assert (caught.value.exit_code, caught.value.item) == (2, "HF_ENDPOINT")
    assert "pw" not in caught.value.message.split()


@pytest.mark.fault(81)
def test_endpoint_with_a_path() -> None:
    """A hub below a path is asked there, for everything; its token belongs to its origin."""
    endpoint = Endpoint.from_environ({"HF_ENDPOINT": "https://mirror.org/hf/", "HF_TOKEN": TOKEN})
    origin = HubOrigin("o/r")
    assert origin.api_url(endpoint.url, "tree", "main") == "https://mirror.org/hf/api/models/o/r/tree/main"
    assert origin.file_url(endpoint.url, "main", "x") == "https://mirror.org/hf/o/r/resolve/main/x"
    assert endpoint.origin_token is not None
    assert endpoint.origin_token.origin == "https://mirror.org:443"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a token file where the hub's own login puts it."""
    place = tmp_path / ".cache" / "huggingface"
    place.mkdir(parents=True)
    (place / "token").write_text("from_home\n")
    return tmp_path


@pytest.mark.fault(80)
def test_token_has_an_order(home: Path, tmp_path: Path) -> None:
    """HF_TOKEN before HUGGING_FACE_HUB_TOKEN before the file; an empty one counts for nothing; the source is told."""
    environ = {"HOME": str(home), "HUGGING_FACE_HUB_TOKEN": "second", "HF_TOKEN": " first\n"}
    found = Endpoint.from_environ(environ)
    assert (found.token, found.token_from) == ("first", "HF_TOKEN")
    found = Endpoint.from_environ({**environ, "HF_TOKEN": " "})
    assert (found.token, found.token_from) == ("second", "HUGGING_FACE_HUB_TOKEN")
    found = Endpoint.from_environ({"HOME": str(home)})
    assert (found.token, found.token_from) == ("from_home", str(tmp_path / ".cache/huggingface/token"))


def test_token_file_has_an_order(home: Path) -> None:
    """HF_TOKEN_PATH, else HF_HOME, else the cache folder, else the home's cache."""
    environ = {"HOME": "/h", "XDG_CACHE_HOME": "/x", "HF_HOME": "/f", "HF_TOKEN_PATH": "/t"}
    assert token_path(environ) == Path("/t")
    del environ["HF_TOKEN_PATH"]
    assert token_path(environ) == Path("/f/token")
    del environ["HF_HOME"]
    assert token_path(environ) == Path("/x/huggingface/token")
    del environ["XDG_CACHE_HOME"]
    assert token_path(environ) == Path("/h/.cache/huggingface/token")
    assert token_path({}) is None


@pytest.mark.parametrize("environ", [{"HF_TOKEN_PATH": "~/tok"}, {"HF_HOME": "~/hf"}, {"HF_TOKEN_PATH": "$HOME/tok"}])
def test_token_file_is_found_where_the_hub_finds_it(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``~`` or a variable in these paths means what it means to the hub's own client."""
    monkeypatch.setenv("HOME", "/h")
    found = token_path({"HOME": "/h", **environ})
    assert str(found).startswith("/h/")


@pytest.mark.fault(80)
def test_unreadable_token_file_is_no_token(tmp_path: Path) -> None:
    """A missing, empty or binary token file, or a folder, means no token and no failure."""
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("absent", "empty", "binary", "."):
        assert Endpoint.from_environ({"HF_TOKEN_PATH": str(tmp_path / name)}).token is None


def test_token_can_be_switched_off() -> None:
    """HF_HUB_DISABLE_IMPLICIT_TOKEN sends no token that nobody asked for, and says why there is none."""
    found = Endpoint.from_environ({"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"})
    assert found.token is None
    assert "HF_HUB_DISABLE_IMPLICIT_TOKEN" in found.token_from


@pytest.mark.fault(80)
@pytest.mark.parametrize("text", ["hf_a\nX-Evil: 1", "hf_a b", "hf_é", "hf_a\x00", "hf_a\x7f", "hf_\u200b"])
def test_token_that_cannot_be_sent_is_refused_unsaid(text: str, tmp_path: Path) -> None:
    """A token with a newline, blank or foreign character is code 2, by where it came from, never shown."""
    (tmp_path / "token").write_text(text)
    for environ, item in (
        ({"HF_TOKEN": text}, "HF_TOKEN"),
        ({"HF_TOKEN_PATH": str(tmp_path / "token")}, str(tmp_path / "token")),
    ):
        with pytest.raises(UsageError) as caught:
            Endpoint.from_environ(environ)
        assert caught.value.item == item
        assert text not in caught.value.message
        assert "hf_" not in caught.value.message


def test_token_belongs_to_the_endpoint() -> None:
    """The bearer's origin is the endpoint's own, port and all, and its text does not hold the token."""
    endpoint = Endpoint.from_environ({"HF_ENDPOINT": "https://mirror.org:8443/", "HF_TOKEN": TOKEN})
    assert endpoint.origin_token is not None
    assert endpoint.origin_token.origin == "https://mirror.org:8443"
    assert TOKEN not in repr(endpoint)
    assert TOKEN not in repr(endpoint.origin_token)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("1", True), ("ON", True), ("yes", True), ("True", True), (" 1 ", True), ("0", False), ("no", False), ("", False)],
)
def test_flag_variable(text: str, meant: bool) -> None:
    """A flag is set by what sets it for the hub's own client."""
    assert is_true(text) == meant
    assert not is_true(None)


@pytest.mark.parametrize(("repo_type", "page"), [("model", ""), ("dataset", "datasets/"), ("space", "spaces/")])
def test_urls_are_quoted(repo_type: str, page: str) -> None:
    """Revisions and paths of any letters are quoted in a URL."""
    origin = HubOrigin("o/r", repo_type)
    assert origin.file_url(DEFAULT, "a/b", "x/م#?.bin") == f"{DEFAULT}/{page}o/r/resolve/a%2Fb/x/%D9%85%23%3F.bin"
    assert origin.api_url(DEFAULT, "tree", "a/b") == f"{DEFAULT}/api/{repo_type}s/o/r/tree/a%2Fb"


def test_pages_of_the_endpoint_are_the_hubs() -> None:
    """A pasted page of the hub or of the endpoint in use is the hub's; an endpoint counts with its port."""
    assert page_hosts(Endpoint("http://localhost:8000")) == (*HUB_HOSTS, "localhost:8000")
