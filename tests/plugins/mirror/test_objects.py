"""What a bucket answers to mdl's own requests, in order and out of order, and what becomes of each answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.faults import Answer, Handler, always, answers, first, redirects, reply
from support.faulty_server import FaultyServer, Request
from support.networks import network_of

from mdl.bounds import MOST_PAGES
from mdl.errors import AuthError, MdlError, NetworkError, NotFound, ProtocolError, UsageError
from mdl.http.allowlist import AllowList
from mdl.http.client import HttpClient, Timeouts
from mdl.http.policy import RetryPolicy
from mdl.plugins.mirror.objects import Bytes, Objects, PartedUpload, UploadedPart
from mdl.sources import Context
from mdl.sources.endpoint import Endpoint
from mdl.sources.object_store import Access, Bucket

pytest.importorskip("obstore")
Make = Callable[[Handler], Objects]


@pytest.fixture
def served() -> Iterator[Make]:
    """The bucket ``training`` of a server with this handler."""
    servers: list[FaultyServer] = []
    clients: list[HttpClient] = []

    def make(handler: Handler) -> Objects:
        server = FaultyServer(handler)
        server.__enter__()
        http = HttpClient(AllowList.of(["127.0.0.1"]), timeouts=Timeouts(2, 5), policy=RetryPolicy(2, first=0.01))
        servers.append(server)
        clients.append(http)
        context = Context(Endpoint(server.url, None, ""), Path("/nonexistent"), network_of(http))
        return Objects(Bucket("training", Access("eu-west-3", server.url, "AKID", "the-secret"), context), http)

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
        pytest.param(ELSEWHERE, UsageError, "in the region eu-west-3", marks=pytest.mark.fault(472)),
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
        served(always(answer)).put("k", Bytes(b"data"), {})
    assert "the-secret" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize("answer", [error(503, "SlowDown"), error(400, "BadDigest"), reply(500, b"")])
def test_what_may_pass_is_asked_again(served: Make, answer: Answer) -> None:
    """A body that was damaged on its way, and a store that is busy: the same body is sent once more, whole."""
    bodies: list[bytes] = []

    def then(request: Request, number: int) -> Answer:
        bodies.append(request.body)
        return reply(200, b"", ("ETag", '"e"'))

    objects = served(first(1, always(answer), then))
    assert objects.send_part(PartedUpload("k", "id"), 3, Bytes(b"data")) == UploadedPart(3, 4, '"e"')
    assert bodies == [b"data"]


def test_a_redirect_is_not_followed(served: Make) -> None:
    """Nobody else gets the signature, with a body or without one."""
    asked: list[str] = []

    def elsewhere(request: Request, number: int) -> Answer:
        asked.append(request.path)
        return reply(200)

    with FaultyServer(elsewhere) as other:
        objects = served(redirects(f"{other.url}/x", status=307))
        for call in (lambda: objects.put("k", Bytes(b"data"), {}), lambda: objects.head("k")):
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
            name, marker, item = "Uploads", "?key-marker=k", "<Upload><Key>k/{0}</Key><UploadId>{0}</UploadId></Upload>"
            more = "<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>1</NextUploadIdMarker>"
        page = 2 if marker in request.target else 1
        is_more = "true" if page == 1 else "false"
        text = f"<{name}><IsTruncated>{is_more}</IsTruncated>{more}{item.format(page)}</{name}>"
        return reply(200, text.encode())

    objects = served(pages)
    assert [part.number for part in objects.parts(PartedUpload("k", "id"))] == [1, 2]
    assert [upload.key for upload in objects.uploads("k")] == ["k/1", "k/2"]
    assert objects.uploads("other") == []


def upload_page(number: int, *uploads: int, marker: str | None = None) -> Answer:
    """A page of uploads that names a next one."""
    rows = "".join(f"<Upload><Key>k/{one}</Key><UploadId>{one}</UploadId></Upload>" for one in uploads)
    more = f"<IsTruncated>true</IsTruncated><NextKeyMarker>{marker or f'k{number}'}</NextKeyMarker>"
    return reply(200, f"<ListMultipartUploadsResult>{more}{rows}</ListMultipartUploadsResult>".encode())


@pytest.mark.parametrize(
    ("page", "most", "words"),
    [
        (lambda number: upload_page(number, number), MOST_PAGES, "more than 1,000 pages"),
        (lambda number: upload_page(number, 1), 2, "brings nothing new"),
        (lambda number: upload_page(number), 1, "brings nothing new"),
        (lambda number: upload_page(number, number, marker="k"), 2, "in circles"),
        (lambda number: upload_page(number, *range(10_001)), 1, "more than 10,000 entries"),
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

    signed = served(public)
    keyless = Objects(replace_access(signed.bucket, Access("us-east-1", signed.bucket.access.endpoint)), signed.http)
    assert b"".join(bytes(block) for block in keyless.read("open")) == b"data"
    assert asked == [None]
    for call in (keyless.require_keys, lambda: keyless.head("closed")):
        with pytest.raises(AuthError, match="no keys") as caught:
            call()
        assert "AWS_ACCESS_KEY_ID" in str(caught.value.hint)
    signed.require_keys()


def replace_access(bucket: Bucket, access: Access) -> Bucket:
    return Bucket(bucket.name, access, bucket._context)
