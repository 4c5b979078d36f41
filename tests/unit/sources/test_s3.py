"""Buckets: what a reference names, whose credentials are used, what a listing becomes, and what errors mean."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.cases import each
from support.faults import Answer, always, choose, first, redirects, reply, stall_before_headers
from support.faulty_server import FaultyServer, Request
from support.moto_store import s3_api
from support.networks import network_of
from support.polling import until

from mdl.config.remotes import RemoteSettings
from mdl.errors import (
    AuthError,
    Cancelled,
    MdlError,
    NetworkError,
    NotFound,
    ProtocolError,
    TlsError,
    Unsafe,
    UsageError,
)
from mdl.extras import to_install
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.policy import Limits, RetryPolicy
from mdl.sources import SourceContext, parse
from mdl.sources.hub_endpoint import Endpoint
from mdl.sources.object_store import Bucket
from mdl.sources.s3 import S3Origin, S3Source
from mdl.sources.s3_client import Access

pytest.importorskip("boto3")
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "the-secret"}
NO_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}


LISTING = b"""<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>training</Name>
<KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated><Contents><Key>a.bin</Key>
<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"x"</ETag><Size>1</Size></Contents></ListBucketResult>"""
SLOW = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


OPEN: list[HttpClient] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """The clients of a test are closed after it."""
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def moto(s3_url: str) -> str:
    """The store of all tests; `put` empties it."""
    return s3_url


@pytest.fixture
def bucket(moto: str) -> Callable[..., S3Source]:
    """A source of the bucket ``training``, made anew with these objects."""

    def make(objects: dict[str, bytes], **environ: str) -> S3Source:
        source = source_at(moto, **environ)
        put(moto, objects)
        return source

    return make


def source_at(url: str, policy: RetryPolicy = RetryPolicy(), **environ: str) -> S3Source:  # noqa: B008 - frozen
    http = HttpClient(AllowList.of(["127.0.0.1"]), limits=Limits(connect=2, stall=5, policy=policy))
    found = SourceContext(
        Endpoint(url, None, ""),
        Path("/nonexistent"),
        network_of(http),
        environ=KEYS | {"AWS_ENDPOINT_URL_S3": url} | environ,
    )
    OPEN.append(http)
    source = S3Source(found)
    http.follower.locate = source.locate
    return source


def test_the_remotes_endpoint_is_the_one_that_is_asked(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint of a remote wins against the variables, in boto3 as well, which reads them by itself."""
    put(moto, {"a.bin": b"a"})
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    table = {"url": "s3://training", "endpoint_url": moto}
    source = source_at("http://127.0.0.1:9")
    remotes = {"store": RemoteSettings("store", "bucket", table)}
    source = S3Source(replace(source.context, remotes=remotes))
    assert [str(file.path) for file in source.resolve(S3Origin("training"))] == ["a.bin"]
    assert source.locate("s3://training/a.bin").url.startswith(f"{moto}/training/a.bin?")


def put(url: str, objects: dict[str, bytes]) -> None:
    import httpx

    httpx.post(f"{url}/moto-api/reset").raise_for_status()
    api = s3_api(url)
    api.create_bucket(Bucket="training")
    for key, data in objects.items():
        api.put_object(Bucket="training", Key=key, Body=data)


LONG = f"{'k' * 100}/{'k' * 100}"


@each(
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


@each(
    ("text", "error"),
    [
        ("s3:training", UsageError),
        ("s3://a", UsageError),
        ("s3://user:key@training/x", UsageError),
        ("s3://training/x?versionId=1", UsageError),
        ("s3://training/../x", Unsafe),
    ],
)
def test_no_reference(text: str, error: type[MdlError]) -> None:
    """What names no bucket, or a path that is not safe, is refused before anything is contacted."""
    with pytest.raises(error):
        parse(text)


def bucket_of(access: Access, **environ: str) -> Bucket:
    """A bucket that asks nobody."""
    return Bucket(
        "training", access, SourceContext(Endpoint("http://h", None, ""), Path("/nonexistent"), environ=environ)
    )


def signer(source: S3Source) -> str:
    """Who signs for the bucket: the id of the key and the region in its signature."""
    link = source.bucket("training").locate("a.bin").url
    return link.partition("X-Amz-Credential=")[2].partition("%2Fs3%2F")[0].replace("%2F", " ")


def profiles(folder: Path, **files: str) -> str:
    """A home folder with these files in ``.aws``."""
    (folder / ".aws").mkdir()
    for name, text in files.items():
        (folder / ".aws" / name).write_text(text)
    return str(folder)


def test_access_comes_from_remote_then_environment_then_profile(tmp_path: Path) -> None:
    """Endpoint and region: the remote of this bucket, the variables, ``~/.aws``, AWS itself."""
    config = "[profile work]\nregion = eu-west-3\nendpoint_url = https://filed.example\n"
    config += "[profile own]\nservices = own\n[services own]\ns3 =\n  endpoint_url = https://own.example\n"
    home = {"HOME": profiles(tmp_path, config=config), "AWS_PROFILE": "work"}
    assert bucket_of(Access.of("training", home, {}), **home).url == "https://filed.example"
    assert bucket_of(Access(), **{**home, "AWS_PROFILE": "own"}).url == "https://own.example"
    named = {**home, "AWS_ENDPOINT_URL": "https://named.example", "AWS_REGION": "eu-north-1"}
    assert Access.of("training", named, {}) == Access("https://named.example", "eu-north-1")
    table = {"url": "s3://training/prefix", "endpoint_url": "https://remote.example/", "region": "auto"}
    remotes = {"store": RemoteSettings("store", "bucket", table)}
    assert Access.of("training", named, remotes) == Access("https://remote.example", "auto")
    assert Access.of("other", named, remotes).endpoint == "https://named.example"
    assert bucket_of(Access()).url == "https://s3.us-east-1.amazonaws.com"
    assert bucket_of(Access(region="cn-north-1")).url == "https://s3.cn-north-1.amazonaws.com.cn"


@each("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
@each("text", ["localhost:9000", "https://user:pass@minio:9000", "http://minio:9000/?x=1"])
def test_an_endpoint_that_is_no_url(variable: str, text: str) -> None:
    """The variable is named, and what it holds is not shown."""
    with pytest.raises(UsageError) as caught:
        Access.of("training", {variable: text}, {})
    assert caught.value.item == variable
    assert "http://HOST:PORT" in str(caught.value.hint)
    assert text not in str(caught.value)


@pytest.mark.fault(478)
@each(("scheme", "port"), [("http", 80), ("https", 443)])
def test_an_endpoint_with_the_default_port(scheme: str, port: int) -> None:
    """What is signed is the header Host as it is sent: without the port."""
    links = []
    while len({link.partition("X-Amz-Date=")[2][:16] for link in links}) != 1:  # until both are of one second
        sources = [source_at(f"{scheme}://h.example{more}") for more in ("", f":{port}")]
        links = [source.bucket("training").locate("a.bin").url for source in sources]
    assert len({link.partition("X-Amz-Signature=")[2] for link in links}) == 1


PLAIN = "[work]\naws_access_key_id = FILED\naws_secret_access_key = filed%secret\n"


@pytest.mark.parametrize(
    ("config", "credentials", "environ", "expected"),
    [
        ("", PLAIN, {"AWS_PROFILE": "work"}, "FILED"),
        ("", PLAIN, {"AWS_PROFILE": "work", **KEYS}, "AKID"),
        ("[profile work]\ncredential_process = {} PROCESS\n", "", {"AWS_PROFILE": "work"}, "PROCESS"),
        ("[default]\naws_access_key_id = DEFAULT\naws_secret_access_key = d\n", "", {}, "DEFAULT"),
        ("", PLAIN, {}, ""),
    ],
    ids=["a profile", "the variables win", "a program", "the default profile", "nobody"],
)
def test_whose_credentials_sign(
    tmp_path: Path, config: str, credentials: str, environ: dict[str, str], expected: str
) -> None:
    """The chain that users of AWS know: variables, profiles, a program. Without any, nothing is signed."""
    program = tmp_path / "program"
    facts = {"Version": 1, "AccessKeyId": "PROCESS", "SecretAccessKey": "s", "SessionToken": "t"}
    program.write_text(f"#!{sys.executable}\nprint({json.dumps(json.dumps(facts))})\n")
    program.chmod(0o700)
    home = profiles(tmp_path, config=config.format(program), credentials=credentials)
    source = source_at("http://127.0.0.1:9", **{**NO_KEYS, "HOME": home, "AWS_REGION": "eu-west-3", **environ})
    assert re.sub(" [0-9]{8} ", " ", signer(source)) == (f"{expected} eu-west-3" if expected else "")


def test_the_role_of_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service of a cluster that gives a pod its credentials is asked, with the pod's token."""
    facts = {"AccessKeyId": "POD", "SecretAccessKey": "s", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}
    with FaultyServer(always(reply(200, json.dumps(facts).encode()))) as pod:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{pod.url}/v1/credentials")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of-the-pod")
        assert signer(source_at("http://127.0.0.1:9", **NO_KEYS)).startswith("POD ")
        assert [request.header("authorization") for request in pod.requests] == ["of-the-pod"]


ROLE = "[profile work]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = base\nregion = eu-west-3\n"
ROLE += "[profile base]\naws_access_key_id = BASE\naws_secret_access_key = s\n"


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], FaultyServer]]:
    """Who gives the credentials of roles: a server with this answer."""
    with ExitStack() as stack:

        def make(answer: Answer) -> FaultyServer:
            server = stack.enter_context(FaultyServer(always(answer)))
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
            return server

        yield make


def role_until(moment: datetime) -> Answer:
    """The credentials of a role that end at this moment."""
    facts = "<AccessKeyId>ROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
    facts += f"<Expiration>{moment:%Y-%m-%dT%H:%M:%SZ}</Expiration>"
    answer = f"<AssumeRoleResult><Credentials>{facts}</Credentials></AssumeRoleResult>"
    return reply(200, f"<AssumeRoleResponse>{answer}</AssumeRoleResponse>".encode())


@pytest.mark.parametrize("minutes", [60, 5], ids=["good for long", "soon over"])
def test_the_role_of_a_profile(tmp_path: Path, sts: Callable[[Answer], FaultyServer], minutes: int) -> None:
    """Its credentials sign; they are made anew before they end."""
    server = sts(role_until(datetime.now(UTC) + timedelta(minutes=minutes)))
    environ = {**NO_KEYS, "HOME": profiles(tmp_path, config=ROLE), "AWS_PROFILE": "work"}
    source = source_at("http://127.0.0.1:9", **environ)
    assert {signer(source).split()[0] for _ in range(2)} == {"ROLE"}
    assert b"AssumeRole" in server.requests[0].body
    assert (len(server.requests) > 1) == (minutes == 5)


def test_a_role_that_is_refused(tmp_path: Path, sts: Callable[[Answer], FaultyServer]) -> None:
    """4, in the words of the one who refuses it."""
    said = b"<Error><Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error>"
    sts(reply(403, b"<ErrorResponse>" + said + b"</ErrorResponse>"))
    environ = {**NO_KEYS, "HOME": profiles(tmp_path, config=ROLE), "AWS_PROFILE": "work"}
    with pytest.raises(AuthError, match="not authorized to perform"):
        source_at("http://127.0.0.1:9", **environ).resolve(S3Origin("training"))


@pytest.mark.parametrize(
    ("disabled", "keys", "expected"),
    [("false", NO_KEYS, "MACHINE"), ("true", NO_KEYS, ""), ("false", KEYS, "AKID")],
    ids=["the last one asked", "not to be asked", "not needed"],
)
def test_the_role_of_a_machine(
    monkeypatch: pytest.MonkeyPatch, disabled: str, keys: dict[str, str], expected: str
) -> None:
    """The machine's metadata service is asked only if nobody else has credentials, and if that is not forbidden."""
    facts = {"Code": "Success", "AccessKeyId": "MACHINE", "SecretAccessKey": "s", "Token": "t"}
    facts |= {"Expiration": "2999-01-01T00:00:00Z", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC"}

    def handle(request: Request, number: int) -> Answer:
        if request.path.endswith("/api/token"):
            return reply(200, b"token")
        return reply(200, b"role" if request.path.endswith("/") else json.dumps(facts).encode())

    with FaultyServer(handle) as machine:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", machine.url)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", disabled)
        assert signer(source_at("http://127.0.0.1:9", **keys)).partition(" ")[0] == expected
        assert bool(machine.requests) == (expected == "MACHINE")


@pytest.mark.parametrize(
    ("config", "environ", "kind", "words"),
    [
        ("", {"AWS_PROFILE": "nobody"}, UsageError, "nobody"),
        ("[profile", {"AWS_PROFILE": "work"}, UsageError, "config"),
        ("[profile work]\ncredential_process = /no/such/program\n", {"AWS_PROFILE": "work"}, AuthError, "program"),
        ("[profile work]\ncredential_process = false\n", {"AWS_PROFILE": "work"}, AuthError, "custom-process"),
        ("[profile work]\nrole_arn = a\nsource_profile = x\n", {"AWS_PROFILE": "work"}, UsageError, "x"),
        ("", {"AWS_ACCESS_KEY_ID": "AKID"}, AuthError, "AWS_SECRET_ACCESS_KEY"),
        ("", {"AWS_REGION": "not/a/region"}, UsageError, "region"),
    ],
)
def test_credentials_that_cannot_be_had(
    tmp_path: Path, config: str, environ: dict[str, str], kind: type[MdlError], words: str
) -> None:
    """A wrong setting is 2, a refusal of the one who gives them 4, in the words of the one who says so."""
    environ = {**NO_KEYS, "HOME": profiles(tmp_path, config=config), **environ}
    with pytest.raises(kind, match=words) as caught:
        source_at("http://127.0.0.1:9", **environ).resolve(S3Origin("training"))
    assert caught.value.hint


@each("name", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"])
def test_what_cannot_be_sent(name: str) -> None:
    """A key that cannot stand in a header is refused by its variable; the line break behind one does no harm."""
    with pytest.raises(UsageError) as caught:
        source_at("http://127.0.0.1:9", **{name: "the-\nsecret"}).bucket("training").locate("a")
    assert caught.value.item == name
    assert "the-" not in caught.value.message
    source_at("http://127.0.0.1:9", **{name: "eu-west-3\r\n"}).bucket("training").locate("a")


def test_profiles_that_are_no_file(tmp_path: Path) -> None:
    """A named pipe in the place of the profiles is not waited for."""
    os.mkfifo(tmp_path / "config")
    pipe = str(tmp_path / "config")
    source = source_at("http://127.0.0.1:9", AWS_CONFIG_FILE=pipe, AWS_SHARED_CREDENTIALS_FILE=pipe)
    assert signer(source).startswith("AKID ")


def test_certificates_that_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file of certificates that has none is named before a bucket is asked; over plain http it is not used."""
    (tmp_path / "ca.pem").write_text("none")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(TlsError, match="no CA certificates"):
        source_at("https://127.0.0.1:9", SSL_CERT_FILE=str(tmp_path / "ca.pem")).resolve(S3Origin("training"))
    with FaultyServer(always(reply(200, LISTING))) as server:
        source = source_at(server.url, SSL_CERT_FILE=str(tmp_path / "ca.pem"))
        assert [file.path.text for file in source.resolve(S3Origin("training"))] == ["a.bin"]


def test_network_volume_takes_no_signed_urls(tmp_path: Path) -> None:
    """RunPod's volumes refuse them, by its documentation; a remote may say so of any bucket."""
    assert not bucket_of(Access.of("vol", {"AWS_ENDPOINT_URL": "https://s3api-eu-ro-1.runpod.io"}, {})).presigns
    config = "[default]\nendpoint_url = https://s3api-eu-ro-1.runpod.io\n"
    assert not bucket_of(Access(), HOME=profiles(tmp_path, config=config)).presigns
    assert bucket_of(Access.of("vol", {}, {})).presigns
    settings = {"v": RemoteSettings("v", "bucket", {"url": "s3://vol", "presign": False})}
    assert not bucket_of(Access.of("vol", {}, settings)).presigns


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
    http = source.context.http
    assert http is not None
    with http.open("GET", "s3://training/p/a%20b.bin", {"Range": "bytes=2-4"}) as opened:
        assert (opened.status, b"".join(bytes(block) for block in http.body(opened))) == (206, b"234")
        assert opened.location is not None
        assert "X-Amz-Signature=" in opened.location


def test_nothing_there(bucket: Callable[..., S3Source]) -> None:
    """A prefix without objects is not found; the bucket's own words say that it is not there."""
    source = bucket({"q/a": b""})
    with pytest.raises(NotFound, match="training"):
        source.resolve(S3Origin("training", "nothing"))
    with pytest.raises(NotFound, match="NoSuchBucket"):
        source.resolve(S3Origin("elsewhere"))


def test_keys_that_cannot_be_kept(bucket: Callable[..., S3Source]) -> None:
    """A key that leaves the folder, or is no path on this disk, is refused alone and by name; any other is kept as it
    is, and located."""
    refused = ["../evil", "Icon\r", "logs//events.out", "/w"]
    kept = ["w.safetensors", "~$notes.docx", "an end.", "a\u200cb.png"]
    source = bucket({f"p/{name}": b"x" for name in (*refused, *kept)})
    origin = S3Origin("training", "p")
    files = source.resolve(origin)
    assert {file.path.text for file in files} == set(kept)
    assert {file.path for file in source.refused(origin)} == set(refused)
    http = source.context.http
    assert http is not None
    for file in files:
        with http.open("GET", file.url) as opened:
            assert opened.status == 200


def a_page(keys: Sequence[str], token: str) -> Answer:
    """A page of a listing that names a next one."""
    rows = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00Z</LastModified><Size>1</Size></Contents>"
        for key in keys
    )
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
    return reply(200, f"<ListBucketResult>{more}{rows}</ListBucketResult>".encode())


@each(
    ("page", "words"),
    [
        (lambda number: a_page(["a"], str(number)), "has nothing new"),
        (lambda number: a_page([f"a{number}"], "7"), "in circles"),
    ],
)
def test_a_listing_without_an_end(page: Callable[[int], Answer], words: str) -> None:
    """A bucket that always says that more follows is left after a number of pages that has a bound."""
    asked: list[Request] = []

    def handle(request: Request, number: int) -> Answer:
        asked.append(request)
        return page(len(asked))

    with FaultyServer(handle) as server, pytest.raises(ProtocolError, match=words) as caught:
        source_at(server.url).resolve(S3Origin("training"))
    assert "s3://training" in str(caught.value)
    assert len(asked) <= 2


def test_a_bucket_that_keeps_old_versions_has_empty_pages() -> None:
    """A page without an object may stand before one that has some."""
    pages = first(1, always(a_page([], "2")), always(reply(200, LISTING)))
    with FaultyServer(pages) as server:
        assert [file.path.text for file in source_at(server.url).resolve(S3Origin("training"))] == ["a.bin"]


def test_a_listing_that_is_none() -> None:
    """What is no list is 6, and not an empty bucket; so is a list with a number beyond every file, or with a time that
    is none."""
    bodies = [b"", b"{}", b"<ListBucketResult>", b"<html><body>Log in</body></html>"]
    bodies += [LISTING.replace(b"<Size>1", b"<Size>" + size) for size in (b"9" * 5000, b"-1")]
    bodies += [LISTING.replace(b"2026-01-01T00:00:00.000Z", b"soon")]
    with FaultyServer(lambda request, number: reply(200, bodies[request.nth])) as server:
        source = source_at(server.url)
        for number in range(len(bodies)):
            with pytest.raises(ProtocolError) as caught:
                source.resolve(S3Origin("training"))
            assert number > 3 or "does this endpoint speak S3" in str(caught.value.hint)
            assert len(server.requests) == number + 1


def test_an_entry_without_a_key() -> None:
    """It is the name of no file, and is refused."""
    body = re.sub("<Key>[^<]*</Key>", "<Key></Key>", LISTING.decode())
    with FaultyServer(always(reply(200, body.encode()))) as server:
        source = source_at(server.url)
        assert source.resolve(S3Origin("training")) == []
        assert [file.path for file in source.refused(S3Origin("training"))] == [""]


def test_a_bucket_that_redirects() -> None:
    """A bucket cannot send mdl to another host: no request, and no session token, goes there."""
    once = RetryPolicy(tries=1, first=0.01, longest=0.02)
    with FaultyServer(always(reply(200, LISTING))) as other:
        away = redirects(other.url.replace("127.0.0.1", "localhost"))
        with FaultyServer(away) as server, pytest.raises(NetworkError, match="redirects"):
            source_at(server.url, once, AWS_SESSION_TOKEN="the-session-token").resolve(S3Origin("training"))
        assert other.requests == []


MALFORMED = reply(
    400,
    b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is wrong; expecting 'eu-west-3'"
    b"</Message><Region>eu-west-3</Region></Error>",
    ("x-amz-bucket-region", "eu-west-3"),
)


@each("answer", [MALFORMED, reply(301, b"<Error/>", ("x-amz-bucket-region", "eu-west-3"))], ids=["400", "301"])
def test_a_bucket_of_another_region(answer: Answer) -> None:
    """2, naming the setting. No second region is tried: a signed link would be refused there."""
    with FaultyServer(always(answer)) as server, pytest.raises(UsageError, match="in another region") as caught:
        source_at(server.url).resolve(S3Origin("training"))
    assert "AWS_REGION" in str(caught.value.hint)
    assert len(server.requests) == 1


def test_deletes_are_of_one_object_each() -> None:
    """A store that has no DeleteObjects can be cleaned, as RunPod's network volumes."""
    with FaultyServer(lambda request, number: reply(204 if request.method == "DELETE" else 405)) as server:
        source_at(server.url).bucket("training").delete(["a", "b"])
        assert [request.target for request in server.requests] == ["/training/a", "/training/b"]


def test_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear line says what is missing and how to install it. A mirror that is never asked does not need it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="boto3, which is not installed") as caught:
        source_at("http://127.0.0.1:9").resolve(S3Origin("training"))
    assert caught.value.hint == to_install("s3")
    assert source_at("", AWS_ENDPOINT_URL_S3="").hosts(S3Origin("training")) == ()


@pytest.mark.parametrize("who", ["the bucket", "the one who gives credentials"])
def test_a_cancel_does_not_wait(tmp_path: Path, who: str) -> None:
    """Neither for a bucket that does not answer, nor for a program that boto3 waits for."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    home = profiles(tmp_path, config=f"[profile slow]\ncredential_process = cat {gate}\n")
    slow = {**NO_KEYS, "AWS_PROFILE": "slow", "HOME": home} if who != "the bucket" else {}
    with FaultyServer(stall_before_headers()) as server, ThreadPoolExecutor(1) as pool:
        source = source_at(server.url, **slow)
        asking = pool.submit(source.resolve, S3Origin("training"))
        if slow:
            with gate.open("w"):  # opens once the program reads
                source.context.http.cancel.set()  # type: ignore[union-attr]
                assert isinstance(asking.exception(), Cancelled)
        else:
            until(lambda: bool(server.requests))
            source.context.http.cancel.set()  # type: ignore[union-attr]
            assert isinstance(asking.exception(), Cancelled)


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
