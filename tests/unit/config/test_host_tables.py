"""``[hosts."HOST"]`` of config.toml: what is right, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cases import each

from mdl.config.hosts import HostSettings, netrc_login, read_hosts
from mdl.errors import UsageError
from mdl.net.credentials import NETRC
from mdl.toml import parse_toml
from mdl.toml.table import Problems, Table

SECRET = "canary-token"


def read(text: str) -> dict[str, HostSettings]:
    problems = Problems("config.toml", UsageError)
    found = read_hosts(Table(parse_toml(text), (), problems.file(Path("config.toml"), text)).table("hosts"))
    problems.check()
    return found


RIGHT = {
    '"civitai.com"]\ntoken_env = "CIVITAI_TOKEN"': HostSettings("civitai.com", "CIVITAI_TOKEN"),
    '"Files.Example:8443"]\ntoken_env = "T"\nsend = "query:api_token"': HostSettings(
        "files.example:8443", "T", "query:api_token"
    ),
    '"[::1]:80"]\ntoken_env = "T"\nsend = "header:PRIVATE-TOKEN"': HostSettings(
        "[::1]:80", "T", "header:PRIVATE-TOKEN"
    ),
    "nexus]\nnetrc = true": HostSettings("nexus", "", "basic", netrc=True),
    'nexus]\ntoken_env = "T"\nsend = "basic"\nx-note = 1': HostSettings("nexus", "T", "basic"),
}


@pytest.mark.parametrize("text", RIGHT)
def test_a_host_is_read(text: str) -> None:
    """Each documented form of a host, and the ways to send its credential."""
    assert list(read(f"[hosts.{text}").values()) == [RIGHT[text]]


@each(
    ("text", "why"),
    [
        ('"https://civitai.com"]\ntoken_env = "T"', "must be a host"),
        ('"civitai.com/api"]\ntoken_env = "T"', "must be a host"),
        ('"*.civitai.com"]\ntoken_env = "T"', "must be a host"),
        ('"h:0"]\ntoken_env = "T"', "must be a host"),
        ('"h:99999"]\ntoken_env = "T"', "must be a host"),
        ('h]\ntoken_env = "T"\n[hosts.H]\ntoken_env = "T"', "occurs twice"),
        ("h]", "has no credential"),
        ("h]\nnetrc = false", "has no credential"),
        ('h]\ntokenenv = "T"', "did you mean token_env"),
        ('h]\ntoken_env = "T"\nnetrc = true', "not both"),
        ("h]\nnetrc = 1", "must be true or false"),
        ('h]\nnetrc = true\nsend = "bearer"', "is sent as"),
        (f'h]\ntoken_env = "{SECRET}"', "name of a variable"),
        *(
            (f'h]\ntoken_env = "T"\nsend = "{send}"', "must be")
            for send in ("cookie", "query", "query:", "query:a&b", "header:", "header:a b", "header:a: b")
        ),
        *(
            (f'h]\ntoken_env = "T"\nsend = "header:{name}"', "mdl itself")
            for name in ("Host", "range", "Content-Length", "connection", "Proxy-Authorization")
        ),
    ],
)
def test_a_mistake_is_told(text: str, why: str) -> None:
    """Every mistake is a usage error (2) with its line, and what may be the token itself is not repeated."""
    with pytest.raises(UsageError, match=why) as caught:
        read(f"[hosts.{text}")
    assert "config.toml:" in caught.value.message
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    ("send", "secret", "why"),
    [
        ("bearer", "a\nX-Injected: 1", "cannot be sent"),
        ("query:t", "a b", "cannot be sent"),
        ("header:X-Key", "ключ", "cannot be sent"),
        ("basic", "password-alone", "not user:password"),
    ],
)
def test_a_secret_that_cannot_be_sent(send: str, secret: str, why: str) -> None:
    """It is refused (2) under the name of its variable, and the message does not have it."""
    with pytest.raises(UsageError, match=why) as caught:
        HostSettings("h", "TOKEN", send).credential({"TOKEN": secret}, str).check()
    assert caught.value.item == "TOKEN"
    assert secret not in f"{caught.value.message} {caught.value.hint}"


def test_netrc(tmp_path: Path) -> None:
    """A host that the file names has its login; ``default`` is for no host, and a missing file is no mistake."""
    assert netrc_login(str(tmp_path), "nexus") == ""
    (tmp_path / ".netrc").write_text("machine nexus login me password pw\ndefault login d password canary\n")
    assert netrc_login(str(tmp_path), "nexus") == "me:pw"
    assert netrc_login(str(tmp_path), "other") == ""
    assert HostSettings("other").credential({}, lambda host: netrc_login(str(tmp_path), host)).source == NETRC


def test_a_broken_netrc(tmp_path: Path) -> None:
    """A file that is no netrc is a usage error (2) with the line, and without a word of it."""
    (tmp_path / ".netrc").write_text("machine nexus login me password canary\ncanary canary\n")
    with pytest.raises(UsageError, match="line 2") as caught:
        netrc_login(str(tmp_path), "nexus")
    assert "canary" not in str(vars(caught.value))
