"""Object store: one bucket of an S3-compatible store, by boto3. No other room knows boto3.

boto3 knows where a user's credentials are (variables, profiles, SSO, the role of a machine or a pod), signs requests
and reads answers. mdl's own HTTP client sends every request to the bucket: so the allow-list, the proxy, the
certificates, the time limits, the rate limit, the retries and a cancel are those of all other requests. boto3 hands its
signed requests over for that in its event ``before-send`` (ADR 59). The bytes of an object come over a signed URL by
the engine, like those of any file; a URL is signed when it is needed, and anew once it has expired.

Protocol: https://docs.aws.amazon.com/AmazonS3/latest/API. An ETag with ``-N`` is that of an upload in parts, and no
hash of the file; without it, it may be the hash of the encrypted bytes. So neither is used as a digest of a file: the
``sha256`` in the object's metadata is.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import io
import os
import re
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from mdl.bounds import LARGEST_ANSWER, MOST_ITEMS, MOST_UPLOADS, whole_number
from mdl.config.remotes import RemoteSettings
from mdl.disk.pool import in_thread
from mdl.errors import (
    AuthError,
    LockError,
    MdlError,
    NetworkError,
    NotFound,
    ProtocolError,
    UsageError,
    online_hint,
)
from mdl.extras import require
from mdl.hashing import Digest
from mdl.net.allowlist import host_of
from mdl.net.body import Block
from mdl.net.client import HttpClient, OnRetry
from mdl.net.locators import Link
from mdl.net.pages import paged
from mdl.net.policy import LONGEST_RETRY_AFTER, is_temporary, retry_after
from mdl.net.refusals import impostor, request_id, safe_excerpt
from mdl.net.responses import parse_size, recorded_digest
from mdl.net.trust import make_context
from mdl.paths import shown
from mdl.sources import SourceContext
from mdl.units import as_meant
from mdl.values import value_class

LINK_SECONDS = 3600
"""How long a signed URL is good for. Credentials that end sooner end it too."""
_ITEMS_OF_A_PAGE = 1000
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SPEAKS_S3 = "does this endpoint speak S3?"
_BLOCK = 2**18
"""Bytes of a body that are sent at a time."""
_REFUSALS = tuple(range(400, 600))
_NO_SIGNED_URLS = re.compile(r"(?i)s3api-[a-z0-9-]+\.runpod\.io")
"""RunPod's network volumes (https://docs.runpod.io/storage/s3-api): "presigned URLs: not supported"."""
LISTS_CHECKSUMS = re.compile(r"\.amazonaws\.com(\.cn)?$")
"""Hosts that list the sha256 of each part. AWS does, and there the ETag of a part is no MD5 if the bucket encrypts with
KMS. SeaweedFS takes these checksums and insists on them in the end, but lists none, so that nobody could go on."""
_NOT_SIGNED = ("expect", "transfer-encoding", "user-agent", "content-length")
"""Headers of boto3's requests that its signature leaves out, or that mdl's client sends itself."""

_EXPIRED = ("ExpiredToken", "TokenRefreshRequired", "RequestExpired")
"""Temporary keys are good for some hours, and S3 says 400 when they are not any more."""
_OTHER_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException")
_REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AccountProblem")
_ABSENT = ("NoSuchBucket", "NoSuchKey", "NoSuchUpload")
_PASSING = (
    "InternalError",
    "SlowDown",
    "ServiceUnavailable",
    "OperationAborted",
    "ConditionalRequestConflict",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "IncompleteBody",
    "RequestTimeout",
)
"""Failures that may not happen again: the store is busy, or the body that came is not the one that was signed."""

Answer = TypeVar("Answer")
Item = TypeVar("Item")
Question = TypeVar("Question", bound=Hashable)
OnSent = Callable[[int], None]
"""Is told how many bytes of a body were sent; a negative number of bytes has to be sent again."""


def _tell_nobody(_count: int) -> None:
    pass


@value_class
class Access:
    """Where a bucket is, as the user's settings and variables say. ``endpoint`` and ``region`` are '' if they say
    nothing: then it is what boto3 reads in ``~/.aws``, else AWS itself. ``presigns`` says whether the bucket takes
    signed URLs; None if nothing is said."""

    endpoint: str = ""
    region: str = ""
    presigns: bool | None = None

    @classmethod
    def of(cls, bucket: str, environ: Mapping[str, str], remotes: Mapping[str, RemoteSettings]) -> Access:
        """What the remote of this bucket says, else the variables ``AWS_…``. Raises `UsageError` for an endpoint that
        is no URL, and a region that cannot be one."""
        own = [one for one in remotes.values() if one.kind == "bucket" and one.get("url").split("/")[2:3] == [bucket]]
        remote: Mapping[str, Any] = own[0].values if own else {}

        def first(key: str, *variables: str) -> str:
            values = [str(remote.get(key, "")), *(as_meant(environ.get(name, "")) for name in variables)]
            return next(filter(None, values), "")

        endpoint = first("endpoint_url", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL").rstrip("/")
        _check_endpoint(endpoint)
        region = first("region", "AWS_REGION", "AWS_DEFAULT_REGION")
        _check_sendable(region, "AWS_REGION")
        return cls(endpoint, region, remote.get("presign"))


@value_class
class S3Object:
    """One object; ``key`` is the whole one, ``size`` in bytes. ``modified`` is when it was written, if the store tells
    that. ``sha256`` is what its metadata says, which a listing does not tell."""

    key: str
    size: int
    etag: str | None = None
    modified: datetime | None = None
    sha256: Digest | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it only stands for a folder, as the web pages of stores make one."""
        return self.key.endswith("/") and not self.size


@value_class
class UploadedPart:
    """One part that a bucket has. ``etag`` is the MD5 of its bytes if the store does not encrypt; ``checksum`` is their
    sha256 in base64, if the store keeps that. ``modified`` is when it was written, if the store tells that."""

    number: int
    size: int
    etag: str
    checksum: str = ""
    modified: datetime | None = field(default=None, compare=False)


@value_class
class PartedUpload:
    """An upload in parts that was begun. ``keeps_checksums`` if the store takes and lists a sha256 of each part."""

    key: str
    id: str = field(repr=False)
    keeps_checksums: bool = False
    begun_at: datetime | None = None


class Bucket:
    """One bucket. Its methods ask the network and may be called from several threads.

    They raise `AuthError`, `NotFound` (no such bucket, object or upload), `NetworkError` after all retries,
    `ProtocolError`, `Unsafe`, `UsageError` for settings that boto3 does not understand, `LockError` offline,
    `Cancelled`.
    """

    def __init__(self, name: str, access: Access, context: SourceContext, on_retry: OnRetry | None = None) -> None:
        """``on_retry`` hears of each request that is sent again; without it the listener of ``context`` does. Raises
        `UsageError` if boto3 is not installed."""
        self.name = name
        self.access = access
        self.context = context
        self._on_retry = on_retry or context.on_retry()
        self._opening = threading.Lock()
        self._client: Any = None
        self._credentials: Any = None
        if context.network is not None:
            self._require_boto3()

    def __str__(self) -> str:
        return f"s3://{self.name}"

    # Where the bucket is, and who asks.

    @cached_property
    def url(self) -> str:
        """The endpoint: what stands before the bucket's name. Nobody is asked for it."""
        if self.access.endpoint:
            return self.access.endpoint
        self._require_boto3()
        with self._trouble(""):
            url: str = self._new_client(is_signed=False).meta.endpoint_url
        _check_endpoint(url)
        return url.rstrip("/")

    @property
    def host(self) -> str:
        """The host that is asked, as the allow-list takes it. Raises `UsageError`."""
        return host_of(self.url)

    @property
    def presigns(self) -> bool:
        """Whether the bucket takes signed URLs."""
        if self.access.presigns is not None:
            return self.access.presigns
        return not _NO_SIGNED_URLS.fullmatch(self.host)

    @property
    def lists_checksums(self) -> bool:
        """Whether this store takes and lists a sha256 of each part."""
        return bool(LISTS_CHECKSUMS.search(self.host))

    @property
    def http(self) -> HttpClient:
        """mdl's client. Raises `LockError` offline."""
        if self.context.http is None:
            hint = online_hint(self.context.offline_by)
            raise LockError("offline, and buckets are not kept", item=str(self), hint=hint)
        return self.context.http

    def require_keys(self) -> None:
        """Raises `AuthError` if there is nothing to sign with."""
        self._open()
        if self._credentials is None:
            raise self._without_keys()

    def _without_keys(self) -> AuthError:
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; 'aws configure list' shows them"
        return AuthError("there are no keys to sign with", item=str(self), hint=hint)

    def _require_boto3(self) -> None:
        require("s3", "boto3", "botocore", why="buckets need boto3, which is not installed", item=str(self))

    @cached_property
    def _session(self) -> Any:
        """boto3's session, which has the variables and files of mdl's own environment."""
        import boto3
        from botocore.session import Session

        environ = self.context.environ
        core = Session()
        home = Path(environ.get("HOME") or "/nonexistent", ".aws")
        for variable, name in (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")):
            place = Path(as_meant(environ.get(variable, "")) or home / name).expanduser()
            core.set_config_variable(f"{name}_file", str(place if place.is_file() else os.devnull))
        for variable, name in (("AWS_PROFILE", "profile"), ("SSL_CERT_FILE", "ca_bundle")):
            if value := as_meant(environ.get(variable, "")):
                core.set_config_variable(name, value)
        keys = [as_meant(environ.get(name, "")) for name in _KEYS]
        for name, value in zip(_KEYS, keys, strict=True):
            _check_sendable(value, name)
        if keys[0] and not keys[1]:
            raise AuthError(f"{_KEYS[0]} is set, and {_KEYS[1]} is not", item=str(self), hint=f"set {_KEYS[1]} too")
        if keys[0]:
            core.set_credentials(*keys)
        return boto3.Session(botocore_session=core)

    def _new_client(self, *, is_signed: bool) -> Any:
        """A client of boto3 that signs with the session's credentials, or does not sign."""
        from botocore import UNSIGNED
        from botocore.config import Config

        config = Config(
            signature_version="s3v4" if is_signed else UNSIGNED,
            s3={
                "addressing_style": "path",
                "payload_signing_enabled": True,  # so a store that checks signatures refuses a damaged body
                "us_east_1_regional_endpoint": "regional",
            },
            retries={"total_max_attempts": 1},  # mdl's own policy is around each call
            request_checksum_calculation="when_required",  # not every store knows the checksums of AWS
            response_checksum_validation="when_required",
        )
        region = self.access.region or self._session.region_name or "us-east-1"
        return self._session.client("s3", region, endpoint_url=self.access.endpoint or None, config=config)

    def _open(self) -> Any:
        """boto3's client, whose credentials are good. To find or renew them may ask the network: SSO, STS, or the
        metadata service of a machine or pod."""
        http = self.http
        from botocore.credentials import RefreshableCredentials

        with self._opening:
            http.cancel.check()
            if self._client is None:
                make_context(self.context.environ)  # raises if a file of certificates has none
                with self._trouble("", AuthError):
                    session = self._session
                    self._credentials = in_thread(session.get_credentials, http.cancel.check)
                    client = self._new_client(is_signed=self._credentials is not None)
                client.meta.events.register("request-created.s3", self._refuse_other_region)
                client.meta.events.register("before-send.s3", self._send)
                self._client = client
            credentials = self._credentials
            if credentials is not None:
                with self._trouble("", AuthError):
                    if isinstance(credentials, RefreshableCredentials) and credentials.refresh_needed():
                        found = in_thread(credentials.get_frozen_credentials, http.cancel.check)
                    else:
                        found = credentials.get_frozen_credentials()
                for name, value in zip(_KEYS, found[:3], strict=True):
                    _check_sendable(value or "", name)
        return self._client

    # Objects.

    def list(self, prefix: str) -> Iterator[S3Object]:
        """Every object below ``prefix``, page by page; the empty objects ``folder/`` that stand for folders too."""
        below = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

        def ask(token: str) -> tuple[Sequence[S3Object], str | None]:
            more = {"ContinuationToken": token} if token else {}
            return self._ask(_read_page, "list_objects_v2", Prefix=below, MaxKeys=_ITEMS_OF_A_PAGE, **more)

        what = "the bucket's listing"
        yield from self._paged("", ask, lambda found: found.key, what, below, MOST_ITEMS, may_be_empty=True)

    def head(self, key: str) -> S3Object:
        """One object with its metadata. Raises `NotFound` also if there is no such bucket."""

        def read(answer: Mapping[str, Any]) -> S3Object:
            size = whole_number(answer["ContentLength"])
            digest = recorded_digest(answer["ResponseMetadata"]["HTTPHeaders"])
            return S3Object(key, size, answer.get("ETag"), answer.get("LastModified"), digest)

        return self._ask(read, "head_object", Key=key)

    def read(self, key: str, most: int) -> bytes:
        """A small object. Raises `ProtocolError` if it has more than ``most`` bytes."""

        def read() -> bytes:
            data = bytearray()
            for block in self.blocks(key):
                data += block
                if len(data) > most:
                    raise ProtocolError(f"has over {most} bytes", item=self._item(key))
            return bytes(data)

        return self.http.retry(self.url, read, self._on_retry)

    def blocks(self, key: str) -> Iterator[Block]:
        """The bytes of an object, block by block, asked for once. Each block is valid until the next one is asked."""
        link = self.locate(key)
        http = self.http
        with http.open("GET", link.url, link.headers, allow=_REFUSALS, content=b"") as opened:
            if opened.status >= 400:
                code, words = _code_and_words(http.beginning(opened))
                raise self._refusal(opened.status, code, words, opened.headers, self._item(key))
            yield from http.body(opened, parse_size(opened.headers.get("content-length", "")))

    def locate(self, key: str) -> Link:
        """A URL by which this object can be read for `LINK_SECONDS`; or, if the bucket takes no signed URLs, for some
        minutes with the headers of the link."""
        client = self._open()
        plain = f"{self.url}/{self.name}/{quote(key)}"
        if self._credentials is None:
            return Link(plain, is_fresh=True)
        with self._trouble(key):
            if self.presigns:
                named = {"Bucket": self.name, "Key": key}
                return Link(client.generate_presigned_url("get_object", named, LINK_SECONDS), is_fresh=True)
            from botocore.auth import S3SigV4Auth
            from botocore.awsrequest import AWSRequest

            request = AWSRequest("GET", plain)
            S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", client.meta.region_name).add_auth(request)
            return Link(plain, is_fresh=True, headers=dict(request.headers.items()))

    def put(
        self,
        key: str,
        data: bytes | bytearray,
        metadata: Mapping[str, str] | None = None,
        on_sent: OnSent = _tell_nobody,
    ) -> None:
        """Write an object in place of any of this name."""
        self._ask(_nothing, "put_object", Key=key, Body=_Body(data, on_sent), **_described(metadata or {}))

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object if there is none of this name; False if there is one, or if another program is writing
        it. A bucket that knows no conditions writes it in any case."""
        try:
            self._ask(_nothing, "put_object", Key=key, Body=_Body(data), IfNoneMatch="*", **_described({}))
        except MdlError as error:
            if error.server_code in ("PreconditionFailed", "ConditionalRequestConflict", "412"):
                return False
            if error.server_code != "NotImplemented":
                raise
            self.put(key, data)
        return True

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects. It is not an error if one is not there. Not every store has DeleteObjects: RunPod's network
        volumes do not."""
        for key in keys:
            with contextlib.suppress(NotFound):
                self._ask(_nothing, "delete_object", Key=key)

    # Uploads in parts.

    def begin(self, key: str, metadata: Mapping[str, str]) -> PartedUpload:
        """Begin an upload in parts."""
        more = {"ChecksumAlgorithm": "SHA256"} if self.lists_checksums else {}
        return self._ask(
            lambda answer: PartedUpload(key, answer["UploadId"], self.lists_checksums),
            "create_multipart_upload",
            Key=key,
            **_described(metadata),
            **more,
        )

    def send_part(
        self, upload: PartedUpload, number: int, data: bytes | bytearray, on_sent: OnSent = _tell_nobody
    ) -> UploadedPart:
        """Send part ``number`` (from 1) of an upload, in place of one that is there."""
        checksum = checksum_of(data) if upload.keeps_checksums else ""
        more = {"ChecksumSHA256": checksum} if checksum else {}
        return self._ask(
            lambda answer: UploadedPart(number, len(data), answer.get("ETag", ""), checksum),
            "upload_part",
            Key=upload.key,
            UploadId=upload.id,
            PartNumber=number,
            Body=_Body(data, on_sent),
            **more,
        )

    def complete(self, upload: PartedUpload, parts: Sequence[UploadedPart]) -> None:
        """Make an object of the parts, in place of any of its name."""
        rows = []
        for part in parts:
            row: dict[str, Any] = {"PartNumber": part.number, "ETag": part.etag}
            if part.checksum:
                row["ChecksumSHA256"] = part.checksum
            rows.append(row)
        self._ask(
            _nothing, "complete_multipart_upload", Key=upload.key, UploadId=upload.id, MultipartUpload={"Parts": rows}
        )

    def abort(self, upload: PartedUpload) -> None:
        """Throw an upload away with its parts; it is not an error if it is gone already."""
        with contextlib.suppress(NotFound):
            self._ask(_nothing, "abort_multipart_upload", Key=upload.key, UploadId=upload.id)

    def uploads(self, prefix: str) -> Sequence[PartedUpload]:
        """The uploads that were begun and not ended, of all keys that begin with ``prefix``, without their parts."""

        def ask(markers: tuple[str, str]) -> tuple[Sequence[PartedUpload], tuple[str, str] | None]:
            more = {"KeyMarker": markers[0], "UploadIdMarker": markers[1]} if markers[0] else {}
            return self._ask(_read_uploads, "list_multipart_uploads", Prefix=prefix, **more)

        what = "the bucket's list of uploads"
        found = self._paged(("", ""), ask, lambda one: (one.key, one.id), what, prefix)
        return [one for one in found if one.key.startswith(prefix)]

    def parts(self, upload: PartedUpload) -> Sequence[UploadedPart]:
        """The parts of an upload that the bucket has."""

        def ask(marker: int) -> tuple[Sequence[UploadedPart], int | None]:
            more = {"PartNumberMarker": marker} if marker else {}
            return self._ask(_read_parts, "list_parts", Key=upload.key, UploadId=upload.id, **more)

        what = "the bucket's list of parts"
        return list(self._paged(0, ask, lambda part: part.number, what, upload.key))

    # One request.

    def _ask(self, read: Callable[[Mapping[str, Any]], Answer], operation: str, **named: Any) -> Answer:
        """What ``read`` makes of the answer to one request, which is sent again while the network or the store
        fails."""

        def request() -> Answer:
            client = self._open()
            with self._trouble(named.get("Key", named.get("Prefix", ""))):
                return read(getattr(client, operation)(Bucket=self.name, **named))

        return self.http.retry(self.url, request, self._on_retry)

    def _paged(
        self,
        first: Question,
        ask: Callable[[Question], tuple[Sequence[Item], Question | None]],
        identity: Callable[[Item], Hashable],
        what: str,
        key: str,
        most: int = MOST_UPLOADS,
        *,
        may_be_empty: bool = False,
    ) -> Iterator[Item]:
        try:
            yield from paged(first, ask, identity, what, most_items=most, may_be_empty=may_be_empty)
        except ProtocolError as error:
            raise error.on(self._item(key)) from None

    def _refuse_other_region(self, request: Any, **_: Any) -> None:
        """Refuse the second request that boto3 makes after an error that names the bucket's region."""
        if request.context.get("s3_redirect", {}).get("redirected"):
            raise _in_other_region(f"its host is {host_of(request.url)}", item="")

    def _send(self, request: Any, **_: Any) -> Any:
        """Send a request that boto3 has signed: the answer as boto3 takes it. See "before-send" at
        https://docs.aws.amazon.com/botocore/latest/topics/events.html."""
        from botocore.awsrequest import AWSResponse

        http = self.http
        headers = {name: _text(value) for name, value in request.headers.items() if name.lower() not in _NOT_SIGNED}
        content: bytes | _Blocks = b""  # even an empty body keeps a redirect from being followed
        if request.body:
            body = request.body if isinstance(request.body, _Body) else _Body(request.body)
            headers["Content-Length"] = str(len(body.getbuffer()))
            content = _Blocks(body, http)
        with http.open(request.method, request.url, headers, allow=_REFUSALS, content=content) as opened:
            data = http.read(opened, LARGEST_ANSWER) if request.method != "HEAD" else b""
        if request.method in ("GET", "POST") and opened.status < 300:
            code, words = _error_in(data)
            if code:  # S3 puts the parts together while it answers
                raise self._refusal(opened.status, code, words, opened.headers, item="")
        return AWSResponse(request.url, opened.status, opened.headers, _Raw(data))

    @contextlib.contextmanager
    def _trouble(self, key: str, other: type[MdlError] = ProtocolError) -> Iterator[None]:
        """boto3's errors as mdl's own, in the store's words. What boto3 does not know is an ``other``."""
        try:
            yield
        except MdlError as error:
            raise error.on(self._item(key)) from error
        except Exception as error:
            raise self._translated(error, key, other) from error

    def _translated(self, error: Exception, key: str, other: type[MdlError]) -> MdlError:
        from botocore import exceptions

        item = self._item(key)
        if isinstance(error, exceptions.ClientError) and other is not AuthError:
            told = error.response.get("Error", {})
            metadata = error.response.get("ResponseMetadata", {})
            status = metadata.get("HTTPStatusCode", 0)
            headers = metadata.get("HTTPHeaders", {})
            return self._refusal(status, str(told.get("Code", "")), str(told.get("Message", "")), headers, item)
        words = safe_excerpt(str(error)) or type(error).__name__
        settings_errors = (
            exceptions.ProfileNotFound,
            exceptions.ConfigParseError,
            exceptions.InvalidConfigError,
            exceptions.UnknownCredentialError,
            exceptions.InfiniteLoopConfigError,
            exceptions.InvalidRegionError,
            exceptions.ParamValidationError,
        )
        if isinstance(error, settings_errors):
            return UsageError(words, item=item, hint="see AWS_PROFILE, AWS_REGION and the files in ~/.aws")
        if isinstance(error, (exceptions.HTTPClientError, exceptions.ConnectionError)):
            return NetworkError(f"no credentials: {words}", item=item, hint="check the network and the proxy")
        if isinstance(error, exceptions.BotoCoreError) or other is AuthError:
            hint = "'aws sts get-caller-identity' shows whether they work; 'aws sso login' renews those of SSO"
            return AuthError(f"no credentials: {words}", item=item, hint=hint)
        return other(f"the store's answer is not one of S3: {words}", item=item, hint=_SPEAKS_S3)

    def _refusal(self, status: int, code: str, words: str, headers: Mapping[str, str], item: str) -> MdlError:
        if (status in (401, 403) or code == "AccessDenied") and self._credentials is None:
            return self._without_keys()
        found = self._credentials.get_frozen_credentials() if self._credentials else ("", "", "")
        error = refusal(status, code, safe_excerpt(words, filter(None, found)), headers, item)
        return error.but(status_code=status, server_code=code)

    def _item(self, key: str) -> str:
        return f"{self}/{shown(key)}" if key else str(self)


def refusal(status: int, code: str, words: str, headers: Mapping[str, str], item: str) -> MdlError:
    """What a bucket's refusal means, by its own ``code`` (S3's "List of error codes"), else by its HTTP status. An
    answer to a HEAD has no code but the status."""
    told = shown(f"{code}: {words}".strip(": "))[:300]
    if code == "RequestTimeTooSkewed":
        return AuthError(told, item=item, hint="this machine's clock is wrong; set it, and run the same command again")
    if code in _EXPIRED:
        hint = "get new keys (aws sso login, aws sts), and run the same command again: it continues where it stopped"
        return AuthError(told, item=item, hint=hint)
    if code in _OTHER_REGION:
        return _in_other_region(told, item)
    if code == "NoSuchBucket":
        hint = "check the bucket's name, and its endpoint: AWS_ENDPOINT_URL_S3, or endpoint_url of its remote"
        return NotFound(told, item=item, hint=hint)
    is_named = bool(code) and not code.isdigit()
    if code in _ABSENT or status == 404:
        return NotFound(told if is_named else "there is no such object", item=item, hint="see 'mdl remote check'")
    if code in _REFUSED or status in (401, 403):
        hint = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do in this bucket"
        return AuthError(told if is_named else "the bucket refuses these keys", item=item, hint=hint)
    asked = retry_after(headers)
    ident = request_id(headers)
    told = (told or f"the store answered {status}") + (f" (request {ident})" if ident else "")
    is_final = code not in _PASSING and not is_temporary(status, asked)
    if asked is not None and asked > LONGEST_RETRY_AFTER:
        is_final = True
        told += f"; it asks to wait {asked:.0f} s"
    return NetworkError(told, item=item, retry_after=asked, final=is_final, is_answer=True)


def _in_other_region(told: str, item: str) -> UsageError:
    hint = "set AWS_REGION to the bucket's own; 'aws s3api get-bucket-location' tells it"
    return UsageError(f"the bucket is in another region: {told}", item=item, hint=hint)


def _check_endpoint(url: str) -> None:
    if url and (urlsplit(url).scheme not in ("http", "https") or not host_of(url)):
        raise UsageError("the endpoint is not an http(s) URL", item=shown(url)[:200], hint="see AWS_ENDPOINT_URL")


def _check_sendable(value: str, variable: str) -> None:
    """Raises `UsageError` if a text from a variable or file cannot stand in a header."""
    if not (value.isascii() and value.isprintable()) or " " in value:
        hint = "set it again without blanks and line breaks"
        raise UsageError("it has a character that cannot be sent", item=variable, hint=hint)


# What boto3 makes of an answer, as mdl's own values. They raise `KeyError`, `ValueError`.


def _nothing(_answer: Mapping[str, Any]) -> None:
    return None


def _read_page(answer: Mapping[str, Any]) -> tuple[Sequence[S3Object], str | None]:
    found = [
        S3Object(row["Key"], whole_number(row["Size"]), row.get("ETag"), row["LastModified"])
        for row in answer.get("Contents", ())
    ]
    token = answer.get("NextContinuationToken") or None
    return found, token if answer.get("IsTruncated") else None


def _read_uploads(answer: Mapping[str, Any]) -> tuple[Sequence[PartedUpload], tuple[str, str] | None]:
    found = [
        PartedUpload(row["Key"], row["UploadId"], row.get("ChecksumAlgorithm") == "SHA256", row.get("Initiated"))
        for row in answer.get("Uploads", ())
    ]
    following = (answer.get("NextKeyMarker", ""), answer.get("NextUploadIdMarker", ""))
    return found, following if answer.get("IsTruncated") and following[0] else None


def _read_parts(answer: Mapping[str, Any]) -> tuple[Sequence[UploadedPart], int | None]:
    found = []
    for row in answer.get("Parts", ()):
        size = whole_number(row["Size"])
        checksum = row.get("ChecksumSHA256", "")
        found.append(UploadedPart(row["PartNumber"], size, row.get("ETag", ""), checksum, row.get("LastModified")))
    following = answer.get("NextPartNumberMarker") or None
    return found, following if answer.get("IsTruncated") else None


def _described(metadata: Mapping[str, str]) -> dict[str, Any]:
    return {"Metadata": dict(metadata), "ContentType": "application/octet-stream"}


def checksum_of(data: bytes | bytearray) -> str:
    """The sha256 of a part as S3 writes it: in base64."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


class _Body(io.BytesIO):
    """A body as boto3 takes and hashes it. ``on_sent`` is told of its bytes when they are sent."""

    def __init__(self, data: bytes | bytearray, on_sent: OnSent = _tell_nobody) -> None:
        super().__init__(data)
        self.on_sent = on_sent
        self.sent = 0


class _Blocks:
    """A body as mdl's client sends it: in blocks, within the rate limit, as often as it takes."""

    def __init__(self, body: _Body, http: HttpClient) -> None:
        self._body = body
        self._http = http

    def __iter__(self) -> Iterator[bytes]:
        body = self._body
        http = self._http
        body.on_sent(-body.sent)
        body.sent = 0
        body.seek(0)
        while block := body.read(http.throttle.quantum(_BLOCK)):
            http.throttle.take(len(block), http.cancel)
            http.cancel.check()
            body.sent += len(block)
            body.on_sent(len(block))
            yield block


class _Raw(io.BytesIO):
    """The body of an answer as boto3 reads it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.getvalue()


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


# XML that boto3 is not given, or does not look at.


def _error_in(answer: bytes) -> tuple[str, str]:
    """Code and words of a failure that an answer tells of which began with 200; each '' if it tells of none. Raises
    `ProtocolError` if the answer is not plain XML: no answer of S3 declares anything, and what a document type could
    declare can make a parser work for ever."""
    if page := impostor(answer):
        raise ProtocolError(f"{page[0]}, not XML", hint=_SPEAKS_S3)
    try:
        root = ElementTree.fromstring(answer, ElementTree.XMLParser(target=_PlainXml()))
    except _Declaration as error:
        raise ProtocolError("the store's answer is not plain XML", hint=_SPEAKS_S3) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ProtocolError("the store's answer is not XML", hint=_SPEAKS_S3) from error
    if root.tag.rpartition("}")[2] != "Error":
        return "", ""
    code, words = _code_and_words(answer)
    return code or "InternalError", words


class _Declaration(Exception):
    pass


class _PlainXml(ElementTree.TreeBuilder):
    """Refuses a document type before it is read, in whatever encoding."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _Declaration


def _code_and_words(answer: bytes) -> tuple[str, str]:
    """The code and the message of an ``<Error>``; each '' if there is none."""
    text = answer.decode("utf-8", "replace")
    found = []
    for tag in ("Code", "Message"):
        match = re.search(rf"<{tag}>([^<]{{0,400}})</{tag}>", text)
        found.append(html.unescape(match[1]) if match else "")
    return found[0], found[1]
