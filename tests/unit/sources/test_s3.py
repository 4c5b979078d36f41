"""Buckets: what a reference names, whose credentials are used, what a listing becomes, and what errors mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.faults import always, choose, redirects, reply
from support.faulty_server import FaultyServer
from support.moto_store import s3_api
from support.networks import network_of

from mdl.errors import AuthError, MdlError, NetworkError, NotFound, ProtocolError, TlsError, Unsafe, UsageError
from mdl.http.allowlist import AllowList
from mdl.http.client import HttpClient, Timeouts
from mdl.http.policy import RetryPolicy
from mdl.remote_tables import RemoteSettings
from mdl.sources import Context, object_store, parse
from mdl.sources.endpoint import Endpoint
from mdl.sources.object_store import Access, s3_error
from mdl.sources.s3 import S3Origin, S3Source

obstore = pytest.importorskip("obstore")
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "the-secret"}


LISTING = b"""<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>training</Name>
<KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated><Contents><Key>a.bin</Key>
<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"x"</ETag><Size>1</Size></Contents></ListBucketResult>"""
SLOW = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@pytest.fixture
def moto(s3_url: str) -> str:
    """The store of all tests; `put` empties it."""
    return s3_url


@pytest.fixture
def bucket(moto: str, request: pytest.FixtureRequest) -> Callable[..., S3Source]:
    """A source of the bucket ``training``, made anew with these objects."""

    def make(objects: dict[str, bytes], **environ: str) -> S3Source:
        source = source_at(moto, **environ)
        request.addfinalizer(source._context.http.close)  # type: ignore[union-attr]
        put(moto, objects)
        return source

    return make


def source_at(url: str, policy: RetryPolicy = RetryPolicy(), **environ: str) -> S3Source:  # noqa: B008 - frozen
    http = HttpClient(AllowList.of(["127.0.0.1"]), timeouts=Timeouts(2, 5), policy=policy)
    found = Context(
        Endpoint(url, None, ""),
        Path("/nonexistent"),
        network_of(http),
        environ=KEYS | {"AWS_ENDPOINT_URL_S3": url} | environ,
    )
    source = S3Source(found)
    http.locators["s3"] = source.locate
    return source


def test_the_remotes_endpoint_is_the_one_that_is_asked(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint of a remote wins against the variables, in obstore as well, which reads them by itself."""
    put(moto, {"a.bin": b"a"})
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    table = {"url": "s3://training", "endpoint_url": moto}
    source = source_at("http://127.0.0.1:9")
    remotes = {"store": RemoteSettings("store", "bucket", table)}
    source = S3Source(replace(source._context, remotes=remotes))
    assert [str(file.path) for file in source.resolve(S3Origin("training"))] == ["a.bin"]
    assert source.locate("s3://training/a.bin").url.startswith(f"{moto}/training/a.bin?")  # type: ignore[union-attr]


def put(url: str, objects: dict[str, bytes]) -> None:
    import httpx

    httpx.post(f"{url}/moto-api/reset").raise_for_status()
    api = s3_api(url)
    api.create_bucket(Bucket="training")
    for key, data in objects.items():
        api.put_object(Bucket="training", Key=key, Body=data)


LONG = f"{'k' * 100}/{'k' * 100}"


@pytest.mark.parametrize(
    ("text", "origin", "folder"),
    [
        ("s3://training", S3Origin("training"), "training"),
        ("s3://training/a/b.bin", S3Origin("training", "a/b.bin"), "training--a--b.bin"),
        ("s3://training/a%20b/", S3Origin("training", "a b/"), "training--a_b"),
        (f"s3://training/{LONG}", S3Origin("training", LONG), f"training--{'k' * 100}--{'k' * 8}-0e1e033d"),
    ],
)
def test_reference(text: str, origin: S3Origin, folder: str) -> None:
    """A reference names a bucket, a prefix or an object; its text and its folder come back."""
    found = parse(text)
    assert (found, str(found), found.folder) == (origin, text, folder)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("s3:training", UsageError),
        ("s3://", UsageError),
        ("s3://a", UsageError),
        ("s3://user:key@training/x", UsageError),
        ("s3://training/x?versionId=1", UsageError),
        ("s3://training/../x", Unsafe),
        ("s3://training/a/%2e%2e/x", Unsafe),
    ],
)
def test_no_reference(text: str, error: type[MdlError]) -> None:
    """What names no bucket, or a path that is not safe, is refused before anything is contacted."""
    with pytest.raises(error):
        parse(text)


def test_access_comes_from_remote_then_environment_then_profile(tmp_path: Path) -> None:
    """Endpoint and region: the remote of this bucket, the variables, ``~/.aws``. Keys: the variables, ``~/.aws``."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        "[work]\naws_access_key_id = FILED\naws_secret_access_key = filed%secret\n"
    )
    (tmp_path / ".aws/config").write_text("[profile work]\nregion = eu-west-3\nendpoint_url = https://filed.example\n")
    home = {"HOME": str(tmp_path), "AWS_PROFILE": "work"}
    assert Access.of("training", home, {}) == Access("eu-west-3", "https://filed.example", "FILED", "filed%secret")
    named = {**home, **KEYS, "AWS_ENDPOINT_URL": "https://named.example", "AWS_REGION": "eu-north-1"}
    assert Access.of("training", named, {}) == Access("eu-north-1", "https://named.example", "AKID", "the-secret")
    table = {"url": "s3://training/prefix", "endpoint_url": "https://remote.example/", "region": "auto"}
    remotes = {"store": RemoteSettings("store", "bucket", table)}
    assert Access.of("training", named, remotes).url == "https://remote.example"
    assert Access.of("other", named, remotes).url == "https://named.example"
    assert Access.of("training", {}, {}) == Access("us-east-1")
    assert "the-secret" not in repr(Access.of("training", named, {}))


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"])
def test_what_cannot_be_sent(name: str) -> None:
    """A key that cannot stand in a header is refused by its variable; the line break behind one does no harm."""
    with pytest.raises(UsageError) as caught:
        Access.of("training", {**KEYS, name: "the-\nsecret"}, {})
    assert caught.value.item == name
    assert "the-" not in caught.value.message
    assert Access.of("training", {**KEYS, "AWS_SESSION_TOKEN": "token\r\n"}, {}).token == "token"


def test_profiles_that_are_no_file(tmp_path: Path) -> None:
    """A named pipe in the place of the profiles is not waited for."""
    os.mkfifo(tmp_path / "config")
    assert Access.of("training", {"AWS_CONFIG_FILE": str(tmp_path / "config")}, {}) == Access("us-east-1")


def test_certificates_that_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file of certificates that has none is named before a bucket is asked."""
    (tmp_path / "ca.pem").write_text("none")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(TlsError, match="no CA certificates"):
        source_at("http://127.0.0.1:9", SSL_CERT_FILE=str(tmp_path / "ca.pem")).resolve(S3Origin("training"))


def test_network_volume_takes_no_signed_urls() -> None:
    """RunPod's volumes refuse them, by its documentation; a remote may say so of any bucket."""
    assert not Access.of("vol", {"AWS_ENDPOINT_URL": "https://s3api-eu-ro-1.runpod.io"}, {}).presigns
    assert Access.of("vol", {}, {}).presigns
    assert not Access.of(
        "vol", {}, {"v": RemoteSettings("v", "bucket", {"url": "s3://vol", "presign": False})}
    ).presigns


def test_listing_becomes_files(bucket: Callable[..., S3Source]) -> None:
    """Every object below the prefix is a file with its size and ETag, under the rest of its key; folders' own keys
    are left out, and so are the neighbours whose names only begin alike."""
    source = bucket(
        {"p/a b.bin": b"x" * 7, "p/sub/é#.bin": b"yy", "p/sub/": b"", "p/none/": b"", "p/empty": b"", "prefix/z": b"z"}
    )
    files = {file.path.text: file for file in source.resolve(S3Origin("training", "p/"))}
    assert {name: file.size for name, file in files.items()} == {"a b.bin": 7, "sub/é#.bin": 2, "empty": 0}
    assert files["a b.bin"].url == "s3://training/p/a%20b.bin"
    assert str(files["a b.bin"].validator).startswith('"')
    assert parse(files["sub/é#.bin"].url) == S3Origin("training", "p/sub/é#.bin")
    [one] = source.resolve(S3Origin("training", "p/a b.bin"))
    assert (one.path.text, one.size) == ("a b.bin", 7)


def test_listing_of_several_pages() -> None:
    """A listing that is not at its end is asked for the next page."""
    kind = ("Content-Type", "application/xml")
    more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>2</NextContinuationToken>"
    first = LISTING.replace(b"<IsTruncated>false</IsTruncated>", more)
    second = LISTING.replace(b"a.bin", b"b.bin")
    first_page, second_page = always(reply(200, first, kind)), always(reply(200, second, kind))
    pages = choose(lambda request: "continuation-token=2" in request.target, second_page, first_page)
    with FaultyServer(pages) as server:
        found = source_at(server.url).resolve(S3Origin("training"))
    assert [file.path.text for file in found] == ["a.bin", "b.bin"]


def test_signed_url_is_what_the_client_asks(bucket: Callable[..., S3Source]) -> None:
    """An ``s3://`` URL is signed when it is asked, and the answer's location is the signed one."""
    source = bucket({"p/a b.bin": b"0123456789"})
    http = source._context.http
    assert http is not None
    with http.open("GET", "s3://training/p/a%20b.bin", {"Range": "bytes=2-4"}) as opened:
        assert (opened.status, b"".join(bytes(block) for block in http.body(opened))) == (206, b"234")
        assert opened.location is not None
        assert "X-Amz-Signature=" in opened.location


@pytest.mark.parametrize(
    ("key", "error"), [("nothing", NotFound), ("p", Unsafe)], ids=["nothing there", "a key that leaves the folder"]
)
def test_refused_listing(bucket: Callable[..., S3Source], key: str, error: type[MdlError]) -> None:
    """A prefix without objects is not found; a key with ``..`` is refused by name."""
    source = bucket({"p/../evil": b"x", "q/a": b""})
    with pytest.raises(error) as caught:
        source.resolve(S3Origin("training", key))
    assert "training" in str(caught.value)


def test_no_such_bucket(bucket: Callable[..., S3Source]) -> None:
    """The bucket's own words say that it is not there."""
    source = bucket({})
    with pytest.raises(NotFound, match="NoSuchBucket"):
        source.resolve(S3Origin("elsewhere"))


def test_repeated_listing(monkeypatch: pytest.MonkeyPatch, bucket: Callable[..., S3Source]) -> None:
    """A bucket that lists the same page again and again is told from one that has much."""
    source = bucket({"p/a": b""})
    real = list(obstore.list(source.bucket("training")._store))
    monkeypatch.setattr(obstore, "list", lambda *_, **__: iter(real * 2))
    with pytest.raises(ProtocolError, match="repeats itself"):
        source.resolve(S3Origin("training"))


def test_a_listing_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that always says that more follows, and sends none of it, is left after some time."""
    empty = LISTING.partition(b"<Contents>")[0].replace(b"false", b"true")
    page = reply(200, empty + b"<NextContinuationToken>7</NextContinuationToken></ListBucketResult>")
    monkeypatch.setattr(object_store, "_PAGE_SECONDS", 0.0)
    with FaultyServer(lambda request, number: page) as server, pytest.raises(NetworkError, match="to an end"):
        source_at(server.url).resolve(S3Origin("training"))


def test_a_bucket_that_redirects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket cannot send mdl to another host: no request, and no session token, goes there."""
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "the-session-token"}
    once = RetryPolicy(tries=1, first=0.01, longest=0.02)
    with FaultyServer(lambda request, number: reply(200, LISTING)) as other:
        away = redirects(other.url.replace("127.0.0.1", "localhost"))
        with FaultyServer(away) as server:
            with pytest.raises(Unsafe, match="redirects to another host"):
                source_at(server.url, once, **keys).resolve(S3Origin("training"))
            assert other.requests == []
            monkeypatch.setattr(object_store, "_NOWHERE", other.url)  # the control: obstore goes where it is sent
            source_at(server.url, once, **keys).resolve(S3Origin("training"))
            assert {request.header("x-amz-security-token") for request in other.requests} == {"the-session-token"}


def test_deletes_are_of_one_object_each() -> None:
    """A store that has no DeleteObjects can be cleaned, as RunPod's network volumes."""
    with FaultyServer(lambda request, number: reply(204 if request.method == "DELETE" else 405)) as server:
        source_at(server.url).bucket("training").delete(["a", "b"])
        assert [request.target for request in server.requests] == ["/training/a", "/training/b"]


SENDING = "Error performing GET https://h.example/b?list-type=2 in 1ms - HTTP error: error sending request"
CONNECT = "\n\nDebug source:\nHttpError { kind: Connect, source: "


class Generic(Exception):
    __module__ = "obstore.exceptions"


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            "status code: 403 Forbidden: <Error><Code>InvalidAccessKeyId</Code><Message>no such key</Message>",
            AuthError,
            "no such key",
        ),
        ("status code: 403: <Code>RequestTimeTooSkewed</Code><Message>too far</Message>", AuthError, "clock"),
        (
            "status code: 400: <Code>AuthorizationHeaderMalformed</Code><Message>expecting 'eu-1'</Message>",
            UsageError,
            "eu-1",
        ),
        ("status code: 503: <Code>SlowDown</Code><Message>reduce your request rate</Message>", NetworkError, "reduce"),
        (
            "Error performing GET http://x in 1ms, after 5 retries - HTTP error: error sending request",
            NetworkError,
            "error sending",
        ),
        (f'{SENDING}{CONNECT}Os {{ message: "Connection refused" }}', NetworkError, "to h.example: Connection refused"),
        (f'{SENDING}{CONNECT}Custom {{ error: "no such name" }}', NetworkError, "to h.example: no such name"),
        (f"{SENDING}{CONNECT}InvalidCertificate(\n  UnknownIssuer", TlsError, "h.example: its certificate"),
    ],
)
def test_errors(text: str, kind: type[MdlError], words: str) -> None:
    """Each code of the bucket has its class, with the bucket's words and what to do."""
    found = s3_error(Generic(f"Generic S3 error: {text}\n\nDebug source:\nsecret things"), "s3://training")
    assert type(found) is kind
    assert words in f"{found.message} {found.hint}"
    assert "Debug" not in found.message


def test_without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear line says what is missing and how to install it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="obstore, which is not installed") as caught:
        source_at("http://127.0.0.1:9").resolve(S3Origin("training"))
    assert str(caught.value.hint).startswith(f"{sys.executable} -m pip install 'obstore")


@pytest.mark.fault(441)
def test_a_listing_that_is_throttled() -> None:
    """It is asked for again as often as any request of mdl's; then the store's own words are told."""
    kind = ("Content-Type", "application/xml")
    slow = reply(503, SLOW, kind)
    with FaultyServer(lambda request, number: slow if request.nth < 2 else reply(200, LISTING, kind)) as server:
        source = source_at(server.url, policy=RetryPolicy(tries=3, first=0.01, longest=0.02))
        assert [file.path.text for file in source.resolve(S3Origin("training"))] == ["a.bin"]
    with FaultyServer(lambda request, number: slow) as server:
        source = source_at(server.url, policy=RetryPolicy(tries=3, first=0.01, longest=0.02))
        with pytest.raises(NetworkError, match="SlowDown: Please reduce your request rate"):
            source.resolve(S3Origin("training"))
        assert len(server.requests) == 3
