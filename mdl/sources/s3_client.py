"""S3 client: asks one bucket of an S3-compatible store by boto3, which no other room knows.

boto3 knows where a user's credentials are (variables, profiles, SSO, the role of a machine or a pod), signs requests
and reads answers. mdl's own HTTP client sends every request to the bucket: so the allow-list, the proxy, the
certificates, the time limits, the rate limit, the retries and a cancel are those of all other requests. boto3 hands its
signed requests over for that in its event ``before-send`` (ADR 59).
"""

from __future__ import annotations

import contextlib
import html
import io
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

from mdl.bounds import LARGEST_ANSWER, LONGEST_QUOTE
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
from mdl.net.allowlist import host_of
from mdl.net.certificates import make_context
from mdl.net.client import HttpClient, OnRetry
from mdl.net.http_errors import request_named, server_trouble
from mdl.net.server_messages import impostor, safe_excerpt
from mdl.paths import shown
from mdl.sources import SourceContext
from mdl.units import as_meant, is_sendable
from mdl.urls import check_server_url
from mdl.values import value_class

REFUSALS = tuple(range(400, 600))
"""The statuses of answers that say no."""
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SPEAKS_S3 = "does this endpoint speak S3?"
_BLOCK = 2**18
"""Bytes of a body that are sent at a time."""
_NOT_SIGNED = ("expect", "transfer-encoding", "user-agent", "content-length")
"""Headers of boto3's requests that its signature leaves out, or that mdl's client sends itself."""
_EXPIRED = (
    AuthError,
    "get new keys (aws sso login, aws sts), and run the same command again: it continues where it stopped",
)
"""Temporary keys are good for some hours, and S3 says 400 when they are not any more."""
_REFUSALS: dict[str, tuple[type[MdlError], str]] = {
    "RequestTimeTooSkewed": (AuthError, "this machine's clock is wrong; set it, and run the same command again"),
    **dict.fromkeys(("ExpiredToken", "TokenRefreshRequired", "RequestExpired"), _EXPIRED),
    "NoSuchBucket": (
        NotFound,
        "check the bucket's name, and its endpoint: AWS_ENDPOINT_URL_S3, or endpoint_url of its remote",
    ),
}
"""The error and the hint for a refusal whose code alone says what to do."""
_OTHER_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException")
_REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AccountProblem")
_ABSENT = ("NoSuchKey", "NoSuchUpload")
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
OnSent = Callable[[int], None]
"""Is told how many bytes of a body were sent; a negative number of bytes has to be sent again."""


def tell_nobody(_count: int) -> None:
    """An `OnSent` that does nothing."""


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
        """Read the remote of this bucket, else the variables ``AWS_…``. Raises `UsageError` for an endpoint that
        is no URL, and a region that cannot be one."""
        remote: Mapping[str, Any] = {}
        for settings in remotes.values():
            if settings.kind == "bucket" and settings.get("url").split("/")[2:3] == [bucket]:
                remote = settings.values
                break
        endpoint = remote.get("endpoint_url") or ""
        endpoint = check_server_url(endpoint) if endpoint else _endpoint_in(environ)
        region = remote.get("region") or _first_of(environ, "AWS_REGION", "AWS_DEFAULT_REGION")
        _check_sendable(region, "AWS_REGION")
        return cls(endpoint, region, remote.get("presign"))


def _endpoint_in(environ: Mapping[str, str]) -> str:
    """The endpoint that a variable names; '' if none does. Raises `UsageError`, naming the variable."""
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        text = _first_of(environ, variable)
        if not text:
            continue
        try:
            return check_server_url(text)
        except UsageError as error:
            hint = "write it as https://HOST or http://HOST:PORT, without a user name, a query or a fragment"
            raise UsageError("it is not the URL of a server", item=variable, hint=hint) from error
    return ""


def _first_of(environ: Mapping[str, str], *variables: str) -> str:
    """The first of the variables that is set; '' if none is."""
    for variable in variables:
        value = as_meant(environ.get(variable, ""))
        if value:
            return value
    return ""


class S3Client:
    """boto3's client for one bucket. Its methods may be called from several threads."""

    def __init__(self, name: str, access: Access, context: SourceContext, on_retry: OnRetry | None) -> None:
        """``on_retry`` hears of each request that is sent again; without it the listener of ``context`` does. Raises
        `UsageError` if boto3 is not installed."""
        self.name = name
        self.access = access
        self.on_retry = on_retry or context.on_retry()
        self.credentials: Any = None
        self._context = context
        self._opening = threading.Lock()
        self._client: Any = None
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
        with self.trouble(""):
            url: str = self._new_client(is_signed=False).meta.endpoint_url
        return check_server_url(url)

    @property
    def host(self) -> str:
        """The host that is asked, as the allow-list takes it. Raises `UsageError`."""
        return host_of(self.url)

    @property
    def http(self) -> HttpClient:
        """mdl's client. Raises `LockError` offline."""
        if self._context.http is None:
            hint = online_hint(self._context.offline_by)
            raise LockError("offline, and buckets are not kept", item=str(self), hint=hint)
        return self._context.http

    def require_keys(self) -> None:
        """Raises `AuthError` if there is nothing to sign with."""
        self.open()
        if self.credentials is None:
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

        environ = self._context.environ
        core = Session()
        home = Path(environ.get("HOME") or "/nonexistent", ".aws")
        for variable, name in (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")):
            place = Path(as_meant(environ.get(variable, "")) or home / name).expanduser()
            core.set_config_variable(f"{name}_file", str(place if place.is_file() else os.devnull))
        for variable, name in (("AWS_PROFILE", "profile"), ("SSL_CERT_FILE", "ca_bundle")):
            value = as_meant(environ.get(variable, ""))
            if value:
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

    def open(self) -> Any:
        """boto3's client, whose credentials are good. To find or renew them may ask the network: SSO, STS, or the
        metadata service of a machine or pod."""
        http = self.http
        with self._opening:
            http.cancel.check()
            if self._client is None:
                if self.url.startswith("https:"):
                    make_context(self._context.environ)  # raises if a file of certificates has none
                with self.trouble("", AuthError):
                    self.credentials = in_thread(self._session.get_credentials, http.cancel.check)
                    client = self._new_client(is_signed=self.credentials is not None)
                client.meta.events.register("request-created.s3", self._refuse_other_region)
                client.meta.events.register("before-send.s3", self._send)
                self._client = client
            if self.credentials is not None:
                self._check_credentials(http)
        return self._client

    def _check_credentials(self, http: HttpClient) -> None:
        """Renew the credentials if they end soon, and see that they can be sent."""
        from botocore.credentials import RefreshableCredentials

        credentials = self.credentials
        with self.trouble("", AuthError):
            if isinstance(credentials, RefreshableCredentials) and credentials.refresh_needed():
                frozen = in_thread(credentials.get_frozen_credentials, http.cancel.check)
            else:
                frozen = credentials.get_frozen_credentials()
        for name, value in zip(_KEYS, frozen[:3], strict=True):
            _check_sendable(value or "", name)

    def signed_url(self, key: str, seconds: int) -> str:
        """A URL by which anybody can read an object for so many seconds."""
        client = self.open()
        with self.trouble(key):
            url: str = client.generate_presigned_url("get_object", {"Bucket": self.name, "Key": key}, seconds)
        return url

    def signed_headers(self, url: str, key: str) -> dict[str, str]:
        """The headers of a GET of an object at this URL."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        client = self.open()
        request = AWSRequest("GET", url)
        with self.trouble(key):
            S3SigV4Auth(self.credentials.get_frozen_credentials(), "s3", client.meta.region_name).add_auth(request)
        return dict(request.headers.items())

    # One request.

    def ask(self, read: Callable[[Mapping[str, Any]], Answer], operation: str, **named: Any) -> Answer:
        """Return what ``read`` makes of the answer to one request, which is sent again while the network or the store
        fails."""

        def request() -> Answer:
            client = self.open()
            with self.trouble(named.get("Key", named.get("Prefix", ""))):
                return read(getattr(client, operation)(Bucket=self.name, **named))

        return self.http.retry(self.url, request, self.on_retry)

    def _refuse_other_region(self, request: Any, **_: Any) -> None:
        """Refuse the second request that boto3 makes after an error that names the bucket's region."""
        if request.context.get("s3_redirect", {}).get("redirected"):
            raise _in_other_region(f"its host is {host_of(request.url)}", item="")

    def _send(self, request: Any, **_: Any) -> Any:
        """Send a request that boto3 has signed: the answer as boto3 takes it. See "before-send" at
        https://docs.aws.amazon.com/botocore/latest/topics/events.html."""
        from botocore.awsrequest import AWSResponse

        http = self.http
        headers = {}
        for name, value in request.headers.items():
            if name.lower() not in _NOT_SIGNED:
                headers[name] = value if isinstance(value, str) else value.decode("latin-1")
        content: bytes | _Blocks = b""  # even an empty body keeps a redirect from being followed
        if request.body:
            body = request.body if isinstance(request.body, Body) else Body(request.body)
            headers["Content-Length"] = str(len(body.getbuffer()))
            content = _Blocks(body, http)
        with http.open(request.method, request.url, headers, allow=REFUSALS, content=content) as opened:
            data = http.read(opened, LARGEST_ANSWER) if request.method != "HEAD" else b""
        if request.method in ("GET", "POST") and opened.status < 300:
            code, words = _error_in(data)
            if code:  # S3 puts the parts together while it answers
                raise self.refusal(opened.status, code, words, opened.headers, item="")
        return AWSResponse(request.url, opened.status, opened.headers, _Raw(data))

    @contextlib.contextmanager
    def trouble(self, key: str, other: type[MdlError] = ProtocolError) -> Iterator[None]:
        """boto3's errors as mdl's own, in the store's words. What boto3 does not know is an ``other``."""
        try:
            yield
        except MdlError as error:
            raise error.on(self.item(key)) from error
        except Exception as error:
            raise self._translated(error, key, other) from error

    def _translated(self, error: Exception, key: str, other: type[MdlError]) -> MdlError:
        from botocore import exceptions

        item = self.item(key)
        if isinstance(error, exceptions.ClientError) and other is not AuthError:
            told = error.response.get("Error", {})
            metadata = error.response.get("ResponseMetadata", {})
            status = metadata.get("HTTPStatusCode", 0)
            headers = metadata.get("HTTPHeaders", {})
            return self.refusal(status, str(told.get("Code", "")), str(told.get("Message", "")), headers, item)
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

    def refusal(self, status: int, code: str, words: str, headers: Mapping[str, str], item: str) -> MdlError:
        """The error of a refusal, in the store's words; they never hold a secret."""
        is_forbidden = status in (401, 403) or code == "AccessDenied"
        if is_forbidden and self.credentials is None:
            return self._without_keys()
        secrets: list[str] = []
        if self.credentials is not None:
            secrets += filter(None, self.credentials.get_frozen_credentials())
        error = refusal(status, code, safe_excerpt(words, secrets), headers, item)
        return error.but(status_code=status, server_code=code)

    def item(self, key: str) -> str:
        """The item of an error about an object."""
        return f"{self}/{shown(key)}" if key else str(self)


def refusal(status: int, code: str, words: str, headers: Mapping[str, str], item: str) -> MdlError:
    """The error of a bucket's refusal, by its own ``code`` (S3's "List of error codes"), else by its HTTP status. An
    answer to a HEAD has no code but the status."""
    told = shown(f"{code}: {words}".strip(": "))[:LONGEST_QUOTE]
    if code in _REFUSALS:
        kind, hint = _REFUSALS[code]
        return kind(told, item=item, hint=hint)
    if code in _OTHER_REGION:
        return _in_other_region(told, item)
    is_named = bool(code) and not code.isdigit()
    if code in _ABSENT or status == 404:
        hint = "check its name; 'mdl remote check NAME' checks a remote"
        return NotFound(told if is_named else "there is no such object", item=item, hint=hint)
    if code in _REFUSED or status in (401, 403):
        hint = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do in this bucket"
        return AuthError(told if is_named else "the bucket refuses these keys", item=item, hint=hint)
    told = (told or f"the store answered {status}") + request_named(headers)
    return server_trouble(told, status, headers, may_pass=code in _PASSING).on(item)


def _in_other_region(told: str, item: str) -> UsageError:
    hint = "set AWS_REGION to the bucket's own; 'aws s3api get-bucket-location' shows it"
    return UsageError(f"the bucket is in another region: {told}", item=item, hint=hint)


def _check_sendable(value: str, variable: str) -> None:
    """Raises `UsageError` if a text from a variable or file cannot stand in a header."""
    if value and not is_sendable(value):
        hint = "set it again without blanks and line breaks"
        raise UsageError("it has a character that cannot be sent", item=variable, hint=hint)


class Body(io.BytesIO):
    """A body as boto3 takes and hashes it. ``on_sent`` is told of its bytes when they are sent."""

    def __init__(self, data: bytes | bytearray, on_sent: OnSent = tell_nobody) -> None:
        super().__init__(data)
        self.on_sent = on_sent
        self.sent = 0


class _Blocks:
    """A body as mdl's client sends it: in blocks, within the rate limit, as often as it takes."""

    def __init__(self, body: Body, http: HttpClient) -> None:
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
    code, words = code_and_words(answer)
    return code or "InternalError", words


class _Declaration(Exception):
    pass


class _PlainXml(ElementTree.TreeBuilder):
    """Refuses a document type before it is read, in whatever encoding."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _Declaration


def code_and_words(answer: bytes) -> tuple[str, str]:
    """The code and the message of an ``<Error>``; each '' if there is none."""
    text = answer.decode("utf-8", "replace")
    return _content(text, "Code"), _content(text, "Message")


def _content(text: str, tag: str) -> str:
    match = re.search(rf"<{tag}>([^<]{{0,400}})</{tag}>", text)
    return html.unescape(match[1]) if match else ""
