"""What a bucket answers to each request, in order and out of order, and what becomes of each answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.cases import each
from support.faults import Answer, Handler, always, answers, first, redirects, reply
from support.faulty_server import FaultyServer, Request
from support.networks import network_of

from mdl.bounds import LARGEST_ANSWER
from mdl.errors import AuthError, LockError, MdlError, NetworkError, NotFound, ProtocolError, UsageError
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.policy import Limits, RetryPolicy
from mdl.net.throttle import Throttle
from mdl.sources import SourceContext
from mdl.sources.hub_endpoint import Endpoint
from mdl.sources.object_store import Bucket, PartedUpload, UploadedPart
from mdl.sources.s3_client import Access, refusal
from mdl.units import NO_RATE_LIMIT

pytest.importorskip("boto3")
Make = Callable[..., Bucket]
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "the-secret"}


@pytest.fixture
def served() -> Iterator[Make]:
    """The bucket ``training`` of a server with this handler."""
    servers: list[FaultyServer] = []
    clients: list[HttpClient] = []

    def make(handler: Handler, keys: Mapping[str, str] = KEYS, presigns: bool | None = None, **options: Any) -> Bucket:
        server = FaultyServer(handler)
        server.__enter__()
        http = HttpClient(
            AllowList.of(["127.0.0.1"]), limits=Limits(connect=2, stall=5, policy=RetryPolicy(2, first=0.01)), **options
        )
        servers.append(server)
        clients.append(http)
        context = SourceContext(Endpoint(server.url, None, ""), Path("/nonexistent"), network_of(http), environ=keys)
        return Bucket("training", Access(server.url, "eu-west-3", presigns), context)

    yield make
    for http in clients:
        http.close()
    for server in servers:
        server.__exit__(None, None, None)


def error(status: int, code: str, words: str = "In its words.") -> Answer:
    return reply(status, f"<Error><Code>{code}</Code><Message>{words}</Message></Error>".encode())


ELSEWHERE = reply(301, b"<Error/>", ("x-amz-bucket-region", "eu-west-3"))
"""S3 redirects to another region without a URL."""


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (error(403, "SignatureDoesNotMatch"), AuthError, "SignatureDoesNotMatch: In its words."),
        (error(403, "RequestTimeTooSkewed"), AuthError, "RequestTimeTooSkewed"),
        pytest.param(
            error(400, "ExpiredToken"), AuthError, "ExpiredToken: In its words.", marks=pytest.mark.fault(473)
        ),
        pytest.param(ELSEWHERE, UsageError, "in another region: eu-west-3", marks=pytest.mark.fault(472)),
        (error(404, "NoSuchBucket"), NotFound, "NoSuchBucket"),
        (error(400, "AuthorizationHeaderMalformed", "expecting 'eu-west-1'"), UsageError, "expecting 'eu-west-1'"),
        (error(400, "EntityTooSmall"), NetworkError, "In its words."),
        (error(400, "BadDigest"), NetworkError, "BadDigest"),
        (error(503, "SlowDown"), NetworkError, "In its words."),
        (reply(500, b"<html>no</html>"), NetworkError, "500"),
    ],
)
def test_refusals(served: Make, answer: Answer, kind: type[MdlError], says: str) -> None:
    """Each refusal is the error that it means, in the store's words, and tells no secret."""
    with pytest.raises(kind, match=says) as caught:
        served(always(answer)).put("k", b"data")
    assert "the-secret" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize("answer", [error(503, "SlowDown"), error(400, "BadDigest"), reply(500, b"")])
def test_what_may_pass_is_asked_again(served: Make, answer: Answer) -> None:
    """A body that was damaged on its way, and a store that is busy: the same body is sent once more, whole."""
    bodies: list[bytes] = []

    def then(request: Request, number: int) -> Answer:
        bodies.append(request.body)
        return reply(200, b"", ("ETag", '"e"'))

    bucket = served(first(1, always(answer), then))
    assert bucket.send_part(PartedUpload("k", "id"), 3, b"data") == UploadedPart(3, 4, '"e"')
    assert bodies == [b"data"]


def test_a_redirect_is_not_followed(served: Make) -> None:
    """Nobody else gets the signature, with a body or without one."""
    asked: list[str] = []

    def elsewhere(request: Request, number: int) -> Answer:
        asked.append(request.path)
        return reply(200)

    with FaultyServer(elsewhere) as other:
        bucket = served(redirects(f"{other.url}/x", status=307))
        for call in (lambda: bucket.put("k", b"data"), lambda: bucket.head("k")):
            with pytest.raises(NetworkError, match="redirects"):
                call()
    assert asked == []


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><ListPartsResult><Part>&b;</Part></ListPartsResult>'


BOMBS = [
    BOMB,
    BOMB.decode().encode("utf-16"),
    f"<?xml version='1.0' encoding='utf-16'?>{BOMB.decode()}".encode("utf-16-le"),
    b"<?xml version='1.0' encoding='cp037'?>" + BOMB.decode().encode("cp037"),
    b"<?xml version='1.0' encoding='utf-7'?>" + BOMB,
    b"<?xml version='1.0' encoding='none-such'?>" + BOMB,
]


@pytest.mark.parametrize("body", [b"", b"<a", b"{}", *BOMBS])
def test_answers_that_are_no_plain_xml(served: Make, body: bytes) -> None:
    """They are refused, 6, and what a document type could define is never expanded."""
    with pytest.raises(ProtocolError, match="XML"):
        served(always(reply(200, body))).parts(PartedUpload("k", "id"))


def test_a_refusal_that_is_a_bomb(served: Make) -> None:
    """Nor is it in a refusal, of which its status is told."""
    with pytest.raises(NetworkError, match="400"):
        served(always(reply(400, BOMB))).parts(PartedUpload("k", "id"))


def test_an_answer_without_an_end(served: Make) -> None:
    """Of an answer no more is read than a page of S3 can have."""
    with pytest.raises(ProtocolError, match=f"an answer of over {LARGEST_ANSWER:,} bytes"):
        served(always(reply(200, b"<a>" + b" " * LARGEST_ANSWER))).uploads("k")


def late_error(code: str, tag: str = "<Error>") -> Answer:
    text = f"<?xml version='1.0'?>\n  {tag}<Code>{code}</Code><Message>Try again</Message></Error>"
    return reply(200, text.encode())


@pytest.mark.fault(467)
@pytest.mark.parametrize(
    ("answer", "says", "asked"),
    [
        (late_error("InternalError"), "InternalError: Try again", 2),
        (late_error("SlowDown", "<Error xmlns='urn:x'>"), "SlowDown: Try again", 2),
        (late_error("InvalidPart"), "InvalidPart: Try again", 1),
    ],
)
def test_an_error_in_an_answer_that_began_well(served: Make, answer: Answer, says: str, asked: int) -> None:
    """A store says 200 at once and may tell only later that it could not put the parts together. What may pass is asked
    again; the error names the object."""
    requests: list[Request] = []

    def handle(request: Request, number: int) -> Answer:
        requests.append(request)
        return answer

    with pytest.raises(NetworkError, match=says) as caught:
        served(handle).complete(PartedUpload("k", "id"), [UploadedPart(1, 1, '"e"')])
    assert (len(requests), caught.value.item) == (asked, "s3://training/k")
    served(first(1, always(late_error("InternalError")), always(reply(200, b"<Fine/>")))).complete(
        PartedUpload("k", "id"), [UploadedPart(1, 1, '"e"')]
    )


def test_an_upload_that_is_gone_is_aborted_in_peace(served: Make) -> None:
    """Somebody else was faster: that is no error."""
    served(answers(404)).abort(PartedUpload("k", "id"))


def test_lists_come_page_by_page(served: Make) -> None:
    """All pages of uploads and parts are read."""

    def pages(request: Request, number: int) -> Answer:
        if "uploadId" in request.target:
            name, marker, item = (
                "Parts",
                "part-number-marker=1",
                "<Part><PartNumber>{0}</PartNumber><Size>5</Size></Part>",
            )
            more = "<NextPartNumberMarker>1</NextPartNumberMarker>"
        else:
            name, marker, item = "Uploads", "&key-marker=k", "<Upload><Key>k/{0}</Key><UploadId>{0}</UploadId></Upload>"
            more = "<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>1</NextUploadIdMarker>"
        page = 2 if marker in request.target else 1
        is_more = "true" if page == 1 else "false"
        text = f"<{name}><IsTruncated>{is_more}</IsTruncated>{more}{item.format(page)}</{name}>"
        return reply(200, text.encode())

    bucket = served(pages)
    assert [part.number for part in bucket.parts(PartedUpload("k", "id"))] == [1, 2]
    assert [upload.key for upload in bucket.uploads("k")] == ["k/1", "k/2"]
    assert bucket.uploads("other") == []


def upload_page(number: int, *uploads: int, marker: str | None = None) -> Answer:
    """A page of uploads that names a next one."""
    rows = "".join(f"<Upload><Key>k/{one}</Key><UploadId>{one}</UploadId></Upload>" for one in uploads)
    more = f"<IsTruncated>true</IsTruncated><NextKeyMarker>{marker or f'k{number}'}</NextKeyMarker>"
    return reply(200, f"<ListMultipartUploadsResult>{more}{rows}</ListMultipartUploadsResult>".encode())


@pytest.mark.parametrize(
    ("page", "most", "words"),
    [
        (lambda number: upload_page(number, 1), 2, "has nothing new"),
        (lambda number: upload_page(number), 1, "has nothing new"),
        (lambda number: upload_page(number, number, marker="k"), 2, "in circles"),
    ],
)
def test_lists_that_do_not_end(served: Make, page: Callable[[int], Answer], most: int, words: str) -> None:
    """A list that does not come to an end is 6 after few requests, naming the bucket."""
    asked: list[Request] = []

    def handle(request: Request, number: int) -> Answer:
        asked.append(request)
        return page(len(asked))

    with pytest.raises(ProtocolError, match=words) as caught:
        served(handle).uploads("k")
    assert "s3://training/k" in str(caught.value)
    assert len(asked) <= most


@pytest.mark.fault(471)
def test_without_keys_nothing_is_signed(served: Make) -> None:
    """A public bucket can be read; if it refuses, or something is to be written, the error tells how to get keys."""
    asked: list[str | None] = []

    def public(request: Request, number: int) -> Answer:
        asked.append(request.header("authorization"))
        return reply(200, b"data") if request.path.endswith("/open") else reply(403)

    keyless = served(public, {})
    assert b"".join(bytes(block) for block in keyless.blocks("open")) == b"data"
    assert asked == [None]
    for call in (keyless.require_keys, lambda: keyless.head("closed"), lambda: keyless.read("closed", 9)):
        with pytest.raises(AuthError, match="no keys") as caught:
            call()
        assert "AWS_ACCESS_KEY_ID" in str(caught.value.hint)
    served(public).require_keys()


@each(
    ("status", "code", "kind", "is_final"),
    [
        (404, "NoSuchBucket", NotFound, True),
        (404, "NoSuchKey", NotFound, True),
        (500, "NoSuchUpload", NotFound, True),
        (404, "404", NotFound, True),
        (403, "AccessDenied", AuthError, True),
        (403, "InvalidAccessKeyId", AuthError, True),
        (403, "SignatureDoesNotMatch", AuthError, True),
        (403, "RequestTimeTooSkewed", AuthError, True),
        (400, "ExpiredToken", AuthError, True),
        (400, "InvalidToken", AuthError, True),
        (403, "403", AuthError, True),
        (401, "Unauthorized", AuthError, True),
        (301, "PermanentRedirect", UsageError, True),
        (400, "AuthorizationHeaderMalformed", UsageError, True),
        (400, "IllegalLocationConstraintException", UsageError, True),
        (503, "SlowDown", NetworkError, False),
        (500, "InternalError", NetworkError, False),
        (400, "RequestTimeout", NetworkError, False),
        (400, "BadDigest", NetworkError, False),
        (502, "502", NetworkError, False),
        (503, "XMinioServerNotInitialized", NetworkError, False),
        (400, "EntityTooSmall", NetworkError, True),
        (200, "InvalidPart", NetworkError, True),
        (200, "InternalError", NetworkError, False),
        (501, "NotImplemented", NetworkError, True),
        (418, "", NetworkError, True),
    ],
)
def test_what_each_code_means(status: int, code: str, kind: type[MdlError], is_final: bool) -> None:
    """Each has its class, and so its exit code; only what may pass is tried again; what to do is said."""
    found = refusal(status, code, "In its words.", {}, "s3://training/k")
    assert type(found) is kind
    assert getattr(found, "final", True) == is_final
    assert (found.item, bool(found.advice)) == ("s3://training/k", True)


def test_a_store_that_asks_to_wait(served: Make) -> None:
    """Its Retry-After is heeded; a day is not waited for."""
    later = reply(503, b"<Error><Code>SlowDown</Code></Error>", ("Retry-After", "86400"))
    with pytest.raises(NetworkError, match="SlowDown; it asks to wait 86400 s") as caught:
        served(always(later)).put("k", b"data")
    assert caught.value.final


@pytest.mark.parametrize(("status", "made"), [(200, True), (412, False), (409, False), (501, True)])
def test_an_object_that_must_not_be_there(served: Make, status: int, made: bool) -> None:
    """An object is written if there is none of its name; a store that knows no conditions writes it in any case."""
    codes = {412: "PreconditionFailed", 409: "ConditionalRequestConflict", 501: "NotImplemented"}
    asked: list[str | None] = []

    def handle(request: Request, number: int) -> Answer:
        asked.append(request.header("if-none-match"))
        return error(status, codes[status]) if request.header("if-none-match") and status != 200 else reply(200)

    assert served(handle).create("k", b"data") == made
    assert asked[0] == "*"


def test_what_goes_with_an_object(served: Make) -> None:
    """Its metadata, its length, and a signature that is over its bytes; nothing that makes a store wait or tells of
    this machine. No checksum is added that not every store knows."""
    asked: list[Request] = []

    def handle(request: Request, number: int) -> Answer:
        asked.append(request)
        return reply(200)

    sent: list[int] = []
    served(handle).put("a b/é", b"data", {"sha256": "0" * 64}, sent.append)
    [put] = asked
    assert (put.method, put.path, put.body) == ("PUT", "/training/a%20b/%C3%A9", b"data")
    assert put.header("x-amz-content-sha256") == hashlib.sha256(b"data").hexdigest()
    assert put.header("x-amz-meta-sha256") == "0" * 64
    assert str(put.header("user-agent")).startswith("mdl/")
    names = {name.lower() for name, _ in put.headers}
    assert not {"expect", "transfer-encoding", "content-encoding", "x-amz-sdk-checksum-algorithm"} & names
    assert sum(sent) == 4


def test_a_body_that_is_sent_again_counts_once(served: Make) -> None:
    """What went in vain is taken off again, so that the progress is right."""
    sent: list[int] = []
    bucket = served(first(1, always(error(503, "SlowDown")), always(reply(200))))
    bucket.put("k", bytes(3 * 2**18), {}, sent.append)
    assert sum(sent) == 3 * 2**18
    assert sum(count for count in sent if count > 0) == 6 * 2**18


def test_an_upload_keeps_to_the_rate(served: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of a body is paid for."""
    paid: list[int] = []
    throttle = Throttle(NO_RATE_LIMIT)
    monkeypatch.setattr(throttle, "take", lambda count, cancel: paid.append(count))
    served(always(reply(200)), throttle=throttle).put("k", bytes(2**20))
    assert sum(paid) == 2**20


def test_a_large_object_is_no_small_one(served: Make) -> None:
    """What is read whole has a bound."""
    with pytest.raises(ProtocolError, match="over 9 bytes"):
        served(always(reply(200, b"0123456789"))).read("k", 9)


@pytest.mark.parametrize("presigns", [True, False])
def test_the_words_of_a_refused_read(served: Make, presigns: bool) -> None:
    """They are the store's own, with its code, and no part of a signature."""
    answer = error(403, "SignatureDoesNotMatch", "with ?X-Amz-Signature=0123abcd of AKID the-secret")
    bucket = served(always(answer), presigns=presigns)
    with pytest.raises(AuthError, match="SignatureDoesNotMatch") as caught:
        bucket.read("k", 9)
    assert not {"0123abcd", "the-secret"} & set(re.split(r"\W+", f"{caught.value} {caught.value.hint}"))


def test_a_bucket_that_takes_no_signed_urls(served: Make) -> None:
    """The signature is in headers of the request, which go with no redirect; each request is signed anew."""
    asked: list[Request] = []

    def handle(request: Request, number: int) -> Answer:
        asked.append(request)
        return reply(200, b"data")

    bucket = served(handle, presigns=False)
    http = bucket.http
    http.follower.locate = lambda url: bucket.locate(url.rpartition("/")[2])
    with http.open("GET", "s3://training/k", {"Range": "bytes=1-2"}) as opened:
        assert opened.location is None
        assert http.read(opened, 9) == b"data"
    [get] = asked
    assert (get.query, get.header("range")) == ("", "bytes=1-2")
    assert str(get.header("authorization")).startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    with FaultyServer(always(reply(200))) as other:
        moved = served(redirects(f"{other.url}/k"), presigns=False)
        moved.http.follower.locate = lambda url: moved.locate("k")
        with moved.http.open("GET", "s3://training/k"):
            pass
        assert [request.header("authorization") for request in other.requests] == [None]


def test_offline_nobody_is_asked() -> None:
    """Not even for credentials: an error says so first."""
    context = SourceContext(Endpoint("http://h", None, ""), Path("/nonexistent"), None, environ=KEYS)
    with pytest.raises(LockError, match="offline"):
        next(Bucket("training", Access("http://127.0.0.1:9"), context).list(""))
