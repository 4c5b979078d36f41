"""Signatures: AWS's own published examples, and what AWS's own library signs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.http.sigv4 import EMPTY, Keys, query_text, signed_headers

SUITE = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
S3 = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
BUCKET = "https://examplebucket.s3.amazonaws.com"
WELCOME = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"


@pytest.mark.parametrize(
    ("method", "url", "headers", "signature"),
    [
        (
            "GET",
            "https://example.amazonaws.com/",
            {},
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "POST",
            "https://example.amazonaws.com/",
            {},
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "GET",
            "https://example.amazonaws.com/?Param1=value1&Param2=value2",
            {},
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "POST",
            "https://example.amazonaws.com/",
            {"My-Header1": "value1"},
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        ),
    ],
    ids=["get-vanilla", "post-vanilla", "get-vanilla-query-order-key-case", "post-header-key-sort"],
)
def test_the_published_suite(method: str, url: str, headers: dict[str, str], signature: str) -> None:
    """The cases of AWS's Signature Version 4 test suite have the signatures that it lists."""
    now = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
    found = signed_headers(method, url, headers, "", SUITE, "us-east-1", now, "service")
    assert found["Authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize(
    ("method", "url", "headers", "body", "signature"),
    [
        (
            "GET",
            f"{BUCKET}/test.txt",
            {"range": "bytes=0-9"},
            EMPTY,
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            f"{BUCKET}/test%24file.text",
            {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            WELCOME,
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            f"{BUCKET}/?{query_text({'lifecycle': ''})}",
            {},
            EMPTY,
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            f"{BUCKET}/?{query_text({'prefix': 'J', 'max-keys': '2'})}",
            {},
            EMPTY,
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
    ids=["get", "put", "lifecycle", "list"],
)
def test_the_examples_of_s3(method: str, url: str, headers: dict[str, str], body: str, signature: str) -> None:
    """The examples in S3's own reference have the signatures that it prints."""
    now = datetime(2013, 5, 24, tzinfo=UTC)
    found = signed_headers(method, url, headers, body, S3, "us-east-1", now)
    assert found["Authorization"].endswith(f"Signature={signature}")


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)


@given(key=KEYS, query=st.dictionaries(KEYS, KEYS, max_size=3), token=st.sampled_from(["", "session/token+x=="]))
def test_any_key_is_signed_as_the_library_of_aws_does(key: str, query: dict[str, str], token: str) -> None:
    """Whatever stands in a key and a query, with temporary keys or not, the signature is botocore's."""
    auth: Any = pytest.importorskip("botocore.auth")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    url = f"http://127.0.0.1:8333/bucket/{quote('a/' + key)}" + (f"?{query_text(query)}" if query else "")
    theirs = AWSRequest("PUT", url, headers={"x-amz-meta-sha256": "0f"})
    signer = auth.S3SigV4Auth(Credentials(S3.key_id, S3.secret, token or None), "s3", "eu-west-3")
    signer.add_auth(theirs)
    stamp = theirs.headers["X-Amz-Date"]
    now = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    keys = Keys(S3.key_id, S3.secret, token)
    ours = signed_headers("PUT", url, {"x-amz-meta-sha256": "0f"}, EMPTY, keys, "eu-west-3", now)
    assert ours["Authorization"] == theirs.headers["Authorization"]


def test_no_secret_is_shown() -> None:
    """Neither the secret nor the session token is in what keys look like."""
    assert repr(Keys("AKID", "the-secret", "the-token")) == "Keys(key_id='AKID')"


@pytest.mark.fault(478)
@pytest.mark.parametrize(
    ("named", "sent"),
    [("https://h:443", "https://h"), ("http://h:80", "http://h"), ("https://[::1]:443", "https://[::1]")],
)
def test_the_default_port_is_not_signed(named: str, sent: str) -> None:
    """httpx leaves it out of the header Host, and another signature would be refused; any other port is signed."""
    when = datetime(2026, 1, 1, tzinfo=UTC)
    of = [signed_headers("GET", f"{url}/k", {}, EMPTY, S3, "us-east-1", when) for url in (named, sent, f"{sent}:9000")]
    assert of[0] == of[1]
    assert of[0] != of[2]
    assert httpx.Request("GET", f"{named}/k").headers["host"] == sent.partition("//")[2]
