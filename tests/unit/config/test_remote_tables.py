"""``[remotes.NAME]`` of config.toml: what is right is read, and all that is wrong is told at once, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cases import each

from mdl.config.remotes import RemoteSettings, read_remotes
from mdl.errors import UsageError
from mdl.toml import parse_toml
from mdl.toml.table import Problems, Table

GOOD = """
[remotes]
x-owner = "the team"
[remotes.gpu]
kind        = "runpod"
endpoint    = "abc123"
api_key_env = "GPU_KEY"
bucket      = "store"
x-note      = ["anything", 1]
[remotes.box]
kind = "trainer"
url  = "http://trainer:8000/"
allow_hosts = ["cdn.example", "*.example:8443", "127.0.0.1"]
[remotes.web]
kind       = "api"
url        = "https://h.example/results/{job}"
status_url = "https://h.example/status/{job}"
bucket     = "store"
[remotes.store]
kind         = "bucket"
url          = "s3://training/prefix"
endpoint_url = "http://10.0.0.7:9000"
presign      = false
"""


def read(text: str) -> dict[str, RemoteSettings]:
    """What the text means. Raises `UsageError` with all that is wrong."""
    problems = Problems("config.toml", UsageError)
    found = read_remotes(Table(parse_toml(text), (), problems.file(Path("config.toml"), text)).table("remotes"))
    problems.check()
    return found


def test_what_is_right() -> None:
    """Each kind is read with its address; the user's own keys, hosts of the user's network and plain http to them are
    let through."""
    found = read(GOOD)
    assert {name: (one.kind, one.address, one.key_variable) for name, one in found.items()} == {
        "gpu": ("runpod", "https://api.runpod.ai/v2/abc123", "GPU_KEY"),
        "box": ("trainer", "http://trainer:8000", ""),
        "web": ("api", "https://h.example/results/{job}", ""),
        "store": ("bucket", "s3://training/prefix", ""),
    }
    assert found["store"].values["presign"] is False


BOX = '[remotes.box]\nkind = "trainer"\n'
STORE = '[remotes.store]\nkind = "bucket"\n'
GPU = '[remotes.gpu]\nkind = "runpod"\nendpoint = "a"\n'
NO_URL = "not a usable URL"
NO_KEY = "must be the name of a variable"


@each(
    ("text", "words"),
    [
        ("remotes = 3", "1: remotes: must be a table"),
        ("[remotes]\nbox = 1", "2: remotes.box: must be a table"),
        ("[remotes.box]\nurl = 'http://h'", "1: remotes.box: has no kind; the kinds are api, bucket, runpod"),
        ("[remotes.box]\nkin = 'trainer'", "2: remotes.box.kin: unknown key; did you mean kind?"),
        ("[remotes.box]\nkind = 'traner'", "2: remotes.box.kind: unknown kind; did you mean trainer?"),
        ("[remotes.box]\nkind = 'zzz'", "2: remotes.box.kind: unknown kind; the kinds are api, bucket, runpod"),
        (f"{BOX}", "1: remotes.box: has no url"),
        (f"{BOX}ulr = 'http://h'", "3: remotes.box.ulr: unknown key; did you mean url?"),
        (f"{BOX}url = 3", "3: remotes.box.url: must be text, not a number"),
        (f"{BOX}url = ''", "3: remotes.box.url: is empty"),
        *((f"{BOX}url = '{url}'", NO_URL) for url in ("s3://b", "h:80", "http://", "http://a b", "http://h:x")),
        (f"{BOX}url = 'http://me:pass@h'", "a user name or password"),
        (f"{BOX}url = 'http://h/?token=1'", "it has a query or a fragment"),
        (f"{BOX}url = 'http://h.example'\napi_key_env = 'K'", "3: remotes.box.url: would send the key in clear text"),
        (f"{BOX}url = 'http://[2001:4860::1]'\napi_key_env = 'K'", "would send the key in clear text"),
        (f"{BOX}url = 'http://h'\nallow_hosts = 'h'", "4: remotes.box.allow_hosts: must be a list of texts"),
        (f"{BOX}url = 'http://h'\nallow_hosts = ['h', 'http://h']", "4: remotes.box.allow_hosts[1]: not a host"),
        (f"{STORE}url = 'https://b'", "3: remotes.store.url: must be s3://bucket or s3://bucket/prefix"),
        (f"{STORE}url = 's3://b/x'", "3: remotes.store.url: must be s3://bucket or s3://bucket/prefix"),
        (f"{STORE}url = 's3://bucket:80'", "must be s3://bucket or s3://bucket/prefix"),
        (f"{STORE}url = 's3://bucket/a/%2e%2e/b'", "3: remotes.store.url: path refused"),
        (
            f"{STORE}url = 's3://bb'\nendpoint_url = 's3://bb'",
            f"4: remotes.store.endpoint_url: {NO_URL}: only http:// and https://",
        ),
        (f"{STORE}url = 's3://bb'\npresign = 'no'", "4: remotes.store.presign: must be true or false"),
        ("[remotes.gpu]\nkind = 'runpod'", "1: remotes.gpu: has no endpoint and no base_url"),
        (f"{GPU}bucket = 'store'", "4: remotes.gpu.bucket: there is no remote of kind bucket with this name"),
        (f"{GPU}bucket = 'gpu'", "4: remotes.gpu.bucket: there is no remote of kind bucket with this name"),
        (f"{GPU}bucket = 'stor'\n{STORE}url = 's3://bb'", "did you mean store?"),
        ("[remotes.gpu]\nkind = 'runpod'\nendpoint = 'https://x'", "for a complete URL, use base_url"),
        ('[remotes."a/b"]\nkind = "trainer"\nurl = "http://h"', '1: remotes."a/b": the name of a remote has'),
        ('[remotes.con]\nkind = "trainer"\nurl = "http://h"', "1: remotes.con: path refused: a name that Windows"),
        (
            f"{BOX}url = 'http://h'\n[remotes.BOX]\nkind = 'trainer'\nurl = 'http://h'",
            "4: remotes.BOX: the name differs",
        ),
    ],
)
def test_what_is_wrong(text: str, words: str) -> None:
    """Each mistake is told with its line and key, and what was probably meant."""
    with pytest.raises(UsageError) as caught:
        read(text)
    assert words in caught.value.message
    assert caught.value.message.startswith("config.toml:")


KEYS = (
    "rpa_CANARYCANARY",
    "hf_canary",
    "user_canary",
    "CANARY4LH4ROOYPN2MQHTOIWLFHXZD9FRZN",
    "canary key",
    "sk-canary",
    "CanaryKey",
    "MY_CANARYCANARYCANARYCANARY",
)


@each("key", KEYS)
def test_a_key_in_place_of_a_name(key: str) -> None:
    """What looks like a key, and not like the name of the variable that holds it, is refused and not repeated."""
    with pytest.raises(UsageError, match=NO_KEY) as caught:
        read(f'{GPU}api_key_env = "{key}"')
    assert "canary" not in str(caught.value).lower()


def test_everything_at_once() -> None:
    """All mistakes of all remotes are told, in the order of their lines."""
    with pytest.raises(UsageError) as caught:
        read(f"{GPU}bucket = 'x'\nendpont = 1\n{BOX}url = 1\n")
    assert [line.split(":")[1] for line in caught.value.message.split("\n")[1:]] == ["4", "5", "8"]
    assert caught.value.message.startswith("3 mistakes in config.toml:\n")
