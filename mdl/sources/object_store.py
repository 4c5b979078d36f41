"""Object store: one bucket of an S3-compatible store, by obstore: listed, signed, read, written.

obstore (the extra ``s3``) lists, signs and reads small objects. The files themselves are fetched by mdl's own client,
with a URL that is signed when it is needed and again before it expires; only from a bucket that takes no signed URLs
does obstore bring the bytes.

Protocol: https://docs.aws.amazon.com/AmazonS3/latest/API, sections ListObjectsV2 and "Authenticating requests: using
query parameters". An ETag with ``-N`` is of a multipart upload and no hash of the file; without it, it may be one of
the encrypted bytes. So neither is used as a digest: a ``sha256`` in the object's metadata is.
"""

from __future__ import annotations

import configparser
import contextlib
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from mdl.errors import (
    AuthError,
    LockError,
    MdlError,
    NetworkError,
    NotFound,
    ProtocolError,
    TlsError,
    Unsafe,
    UsageError,
    online_hint,
)
from mdl.extras import require
from mdl.fs.private import read_whole
from mdl.http.allowlist import host_of
from mdl.http.locators import Body, Link, Part
from mdl.http.policy import RetryPolicy
from mdl.http.trust import make_context
from mdl.paths import shown
from mdl.remote_tables import RemoteSettings
from mdl.sources import Context
from mdl.threads import in_thread
from mdl.units import as_meant
from mdl.values import value_class

LINK_SECONDS = 3600
"""How long a signed URL is good for. Credentials that end sooner end it too."""
_MOST_OBJECTS = 1_000_000
_LARGEST_PROFILES = 2**20
_BLOCK = 2**17
"""Bytes of one block of an object that obstore brings. What has come of a block is lost if the connection breaks."""
_SECONDS = 180
"""How long obstore retries a request that fails, at most."""
_MOST_TRIES = 100
"""Of obstore, whose time is limited anyway."""
_PAGE_SECONDS = 600.0
"""How long a bucket may take for the next 1000 objects of a listing. One that has only empty pages, and always says
that more follow, would go on for ever."""
_NOWHERE = "http://127.0.0.1:0"
"""obstore follows a redirect to any host, and sends the session token there. So this is the proxy of all hosts but the
bucket's own: nobody can listen on port 0, and a redirect to another host fails."""
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>(?:\s*<Message>([^<]{0,400}))?")
_STATUS = re.compile(r"status code: (\d{3})")
_EXPIRED = ("ExpiredToken", "TokenRefreshRequired", "RequestExpired")
"""Temporary keys are good for some hours, and S3 says 400 when they are not any more."""
_NO_SIGNED_URLS = re.compile(r"(?i)s3api-[a-z0-9-]+\.runpod\.io")
"""RunPod's network volumes (https://docs.runpod.io/storage/s3-api): "presigned URLs: not supported"."""


@value_class
class Access:
    """Where a bucket is, and who asks for it. ``endpoint`` is '' for AWS itself; without ``key_id`` requests are not
    signed. ``presigns`` is False if the bucket takes no signed URLs."""

    region: str
    endpoint: str = ""
    key_id: str = ""
    secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    presigns: bool = True

    @property
    def url(self) -> str:
        """What stands before the bucket's name."""
        return self.endpoint or f"https://s3.{self.region}.amazonaws.com"

    @classmethod
    def of(cls, bucket: str, environ: Mapping[str, str], remotes: Mapping[str, RemoteSettings]) -> Access:
        """What the remote of this bucket says, else the variables ``AWS_…``, else the files in ``~/.aws``.

        Raises `UsageError` for an endpoint that is no URL.
        """
        own = [one for one in remotes.values() if one.kind == "bucket" and one.get("url").split("/")[2:3] == [bucket]]
        remote = own[0].values if own else {}
        profile = _profile(environ)
        endpoint = str(
            remote.get("endpoint_url")
            or as_meant(environ.get("AWS_ENDPOINT_URL_S3", ""))
            or as_meant(environ.get("AWS_ENDPOINT_URL", ""))
            or profile.get("endpoint_url", "")
        ).rstrip("/")
        if endpoint and (urlsplit(endpoint).scheme not in ("http", "https") or not host_of(endpoint)):
            raise UsageError(
                "the endpoint is not an http(s) URL", item=shown(endpoint)[:200], hint="see AWS_ENDPOINT_URL"
            )
        region = str(
            remote.get("region")
            or as_meant(environ.get("AWS_REGION", ""))
            or as_meant(environ.get("AWS_DEFAULT_REGION", ""))
            or profile.get("region", "us-east-1")
        )
        presigns = bool(remote.get("presign", not _NO_SIGNED_URLS.fullmatch(host_of(endpoint))))
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        keys = [environ.get(name, "") for name in names]
        if not keys[0]:
            keys = [profile.get(name.lower(), "") for name in names]
        keys = [as_meant(key) for key in keys]
        for name, value in zip((*names, "AWS_REGION"), (*keys, region), strict=True):
            if not (value.isascii() and value.isprintable()) or " " in value:
                raise UsageError(
                    "it has a character that cannot be sent",
                    item=name,
                    hint="set it again without blanks and line breaks",
                )
        key_id, secret, token = keys
        return cls(region, endpoint, key_id, secret, token, presigns)


def _profile(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The user's profile in ``~/.aws/config`` and ``~/.aws/credentials``; empty if there is none."""
    home = Path(environ.get("HOME") or "/nonexistent", ".aws")
    name = as_meant(environ.get("AWS_PROFILE", "")) or "default"
    found: dict[str, str] = {}
    for variable, file, section in (
        ("AWS_CONFIG_FILE", "config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ):
        parser = configparser.ConfigParser(interpolation=None)
        with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
            parser.read_string(read_whole(Path(environ.get(variable) or home / file), _LARGEST_PROFILES).decode())
            found |= dict(parser[section]) if section in parser else {}
    return found


@value_class
class S3Object:
    """One object as a listing tells it; ``key`` is the whole one, ``size`` in bytes."""

    key: str
    size: int
    etag: str | None
    modified: datetime

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> S3Object:
        return cls(str(row["path"]), int(row["size"]), row["e_tag"], row["last_modified"])


class Bucket:
    """One bucket. Its methods ask the network and may be called from several threads."""

    def __init__(self, name: str, access: Access, context: Context) -> None:
        """Raises `UsageError` if obstore is not installed."""
        self.name, self.access, self._context = name, access, context
        if context.http is not None:
            require("s3", "obstore", why="buckets need obstore, which is not installed", item=str(self))

    @cached_property
    def _store(self) -> Any:
        """The store of obstore."""
        from obstore.store import S3Store

        access, context = self.access, self._context
        if context.http is None:
            raise LockError("offline, and buckets are not kept", item=str(self), hint=online_hint(context.offline_by))
        settings: dict[str, Any] = {
            "aws_endpoint_url_s3": access.url,  # else a variable of this name would take precedence
            "region": access.region,
            "virtual_hosted_style_request": False,
            "disable_bulk_delete": True,  # not every store has DeleteObjects; RunPod's volumes do not
            "client_options": _client_options(access, context),
            "retry_config": _retry_config(context.http.policy),
        }
        if access.key_id:
            settings |= {"access_key_id": access.key_id, "secret_access_key": access.secret}
            settings |= {"token": access.token} if access.token else {}
        elif not _has_role(context.environ):
            settings["skip_signature"] = True
        return S3Store(self.name, **settings)

    def __str__(self) -> str:
        return f"s3://{self.name}"

    def list(self, prefix: str) -> Iterator[S3Object]:
        """Every object below ``prefix``, page by page; the empty objects that stand for folders too.

        Raises `NotFound` if there is no such bucket, `AuthError`, `NetworkError`, `ProtocolError`, `Unsafe`.
        """
        import obstore

        seen: set[str] = set()
        with self._trouble(prefix):
            pages = obstore.list(self._store, prefix=prefix.strip("/") or None, chunk_size=1000)
        while True:
            with self._trouble(prefix):
                page = self._wait(lambda: next(pages, None), until=time.monotonic() + _PAGE_SECONDS)
            if page is None:
                return
            for row in page:
                key = str(row["path"])
                if key in seen:
                    raise ProtocolError("the bucket's listing repeats itself", item=f"{self}/{shown(key)}")
                seen.add(key)
                if len(seen) > _MOST_OBJECTS:
                    raise ProtocolError(f"the bucket lists over {_MOST_OBJECTS} objects", item=f"{self}/{prefix}")
                yield S3Object.of(row)

    def head(self, key: str) -> S3Object:
        """One object. Raises as `list`, and `NotFound`."""
        with self._trouble(key):
            return S3Object.of(self._wait(lambda: self._store.head(key)))

    def read(self, key: str, most: int) -> bytes:
        """A small object. Raises as `list`, and `ProtocolError` if it has more than ``most`` bytes."""
        with self._trouble(key):
            found = self._wait(lambda: self._store.get(key))
            if found.meta["size"] > most:
                raise ProtocolError(f"has over {most} bytes", item=f"{self}/{shown(key)}")
            return bytes(self._wait(found.bytes))

    def part(self, key: str, start: int, stop: int | None) -> Part:
        """A range of an object, as it comes. Raises as `read`."""
        asked = {"range": {"offset": start} if stop is None else (start, stop)}
        with self._trouble(key):
            try:
                found = self._wait(lambda: self._store.get(key, options=asked if start or stop else None))
            except Exception as error:
                if "416" not in _STATUS.findall(str(error)):
                    raise
                return Part(self.head(key).size, ())
        told = {"ETag": found.meta["e_tag"] or "", "Content-Type": "application/octet-stream"}
        if digest := found.attributes.get("sha256"):
            told["X-Amz-Meta-Sha256"] = str(digest)
        return Part(found.meta["size"], self._blocks(key, found.stream(min_chunk_size=_BLOCK)), told)

    def _blocks(self, key: str, stream: Any) -> Iterator[bytes]:
        while True:
            with self._trouble(key):
                block = self._wait(lambda: next(stream, None))
            if block is None:
                return
            yield bytes(block)

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object if there is none of this name; False if there is one. A bucket that knows no conditions
        writes it in any case. Raises as `list`."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self._trouble(key):
            try:
                self._wait(lambda: obstore.put(self._store, key, data, mode="create"))
            except AlreadyExistsError:
                return False
            except Exception as error:
                if "NotImplemented" not in str(error):
                    raise
                self.write(key, data)
        return True

    def write(self, key: str, data: bytes) -> None:
        """Write a small object in place of any of this name. Raises as `list`."""
        import obstore

        with self._trouble(key):
            self._wait(lambda: obstore.put(self._store, key, data))

    def age(self, key: str) -> float:
        """Seconds since an object was written. Raises as `head`."""
        return time.time() - self.head(key).modified.timestamp()

    def discard(self, key: str) -> None:
        """Delete an object within a second, also while this run is being stopped. A failure is not an error."""
        until = time.monotonic() + 1.0

        def look() -> None:
            if time.monotonic() > until:
                raise NetworkError("the bucket does not answer")

        with contextlib.suppress(MdlError), self._trouble(key):
            in_thread(lambda: self._store.delete(key), look)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects. It is not an error if one is not there. Raises as `list`."""
        for key in keys:
            with self._trouble(key), contextlib.suppress(FileNotFoundError):
                self._wait(lambda key=key: self._store.delete(key))

    def locate(self, key: str) -> Link | Body:
        """A signed URL of an object, or the object itself if the bucket takes no signed URLs."""
        return Link(self.sign(key), is_fresh=True) if self.access.presigns else Body(partial(self.part, key))

    def sign(self, key: str) -> str:
        """A URL by which anybody may read this object for `LINK_SECONDS`."""
        import obstore

        if not self.access.key_id and not _has_role(self._context.environ):
            return f"{self.access.url}/{self.name}/{quote(key)}"
        with self._trouble(key):
            url: str = obstore.sign(self._store, "GET", key, timedelta(seconds=LINK_SECONDS))
        return url

    def _wait(self, call: Any, until: float = math.inf) -> Any:
        http = self._context.http
        assert http is not None

        def look() -> None:
            http.cancel.check()
            if time.monotonic() > until:
                raise NetworkError("the bucket's listing does not come to an end", item=str(self))

        return in_thread(call, look)

    @contextlib.contextmanager
    def _trouble(self, key: str) -> Iterator[None]:
        """obstore's errors as mdl's own, in the bucket's words."""
        item = f"{self}/{shown(key)}" if key else str(self)
        try:
            yield
        except MdlError:
            raise
        except Exception as error:
            if not isinstance(error, FileNotFoundError) and not type(error).__module__.startswith("obstore"):
                raise
            raise s3_error(error, item) from error


def s3_error(error: Exception, item: str) -> MdlError:
    """What an error of obstore means, by the bucket's own code (S3's "List of error codes")."""
    text = str(error).partition("\n\nDebug source")[0]
    coded, status = _CODE.search(text), _STATUS.search(text)
    code, words = (coded[1], coded[2] or "") if coded else ("", "")
    number = int(status[1]) if status else 0
    told = "" if coded else _plain(text)
    if type(error).__name__ == "InvalidPathError":
        return Unsafe(f"the key is not a safe path: {shown(text.partition(': ')[2])[:200]}", item=item)
    kinds = {"PermissionDeniedError": 403, "UnauthenticatedError": 401}
    number = kinds.get(type(error).__name__, number)
    found = refusal(404 if isinstance(error, FileNotFoundError) else number, code, words or told, item)
    return found or _no_connection(str(error), item) or NetworkError(_told(code, words or told), item=item)


def refusal(status: int, code: str, words: str, item: str) -> MdlError | None:
    """What a bucket's refusal means: its HTTP status (0 if that is not known), its own ``code`` and its words. None if
    it may be trouble of the network or the server."""
    told = _told(code, words)
    if code == "RequestTimeTooSkewed":
        return AuthError(told, item=item, hint="this machine's clock is wrong; set it, and run the same command again")
    if code in _EXPIRED:
        hint = "get new keys (aws sso login, aws sts), and run the same command again: it continues where it stopped"
        return AuthError(told, item=item, hint=hint)
    if code in ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"):
        return UsageError(f"the bucket is in another region: {told}", item=item, hint="set AWS_REGION to the one named")
    if status == 404 or code in ("NoSuchBucket", "NoSuchKey"):
        hint = "check the bucket's name, and its endpoint: AWS_ENDPOINT_URL_S3, or endpoint_url of its remote"
        hint = hint if code == "NoSuchBucket" else "see 'mdl remote check'"
        return NotFound(told if code else "there is no such object", item=item, hint=hint)
    if status in (401, 403):
        hint = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do in this bucket"
        return AuthError(told or "the bucket refuses these keys", item=item, hint=hint)
    return None


def _told(code: str, words: str) -> str:
    return shown(f"{code}: {words}".strip(": "))[:300]


def _no_connection(text: str, item: str) -> MdlError | None:
    """Why obstore did not come to ask; only its debugging text has the system's words. None if that is not it."""
    asked = re.search(r"performing [A-Z]+ (\S+)", text)
    host = host_of(asked[1]) if asked else "the bucket"
    if "redirect without LOCATION" in text:  # S3 tells the region in a header, which obstore does not pass on
        hint = "set AWS_REGION to the bucket's own; 'aws s3api get-bucket-location' tells it"
        return UsageError("the bucket is in another region", item=item, hint=hint)
    if f"{_NOWHERE.removeprefix('http://')}," in text:
        return Unsafe(f"refused: {host} redirects to another host", item=item, hint="look at the endpoint_url")
    if found := re.search(r"Invalid(?:Certificate|Message)\(\s*(\w+)", text):
        hint = "check the clock, SSL_CERT_FILE and the proxy; mdl doctor tells more"
        return TlsError(f"{host}: its certificate is not trusted ({found[1]})", item=item, hint=hint)
    if "kind: Connect" in text and (found := re.search(r'(?:message|error): "([^"]{1,200})"', text)):
        hint = "check the network, the host's name and the proxy"
        return NetworkError(f"no connection to {host}: {shown(found[1])}", item=item, hint=hint)
    return None


def _plain(text: str) -> str:
    """The end of obstore's sentence, which tells what happened."""
    return text.rpartition(" - ")[2].strip() or text


def _has_role(environ: Mapping[str, str]) -> bool:
    """Whether the machine's own role gives credentials, which obstore asks for by itself."""
    names = (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    )
    return any(environ.get(name) for name in names)


def _retry_config(policy: RetryPolicy) -> dict[str, Any]:
    """The same tries and waits as for mdl's own requests."""
    waits = {
        "init_backoff": timedelta(seconds=policy.first),
        "max_backoff": timedelta(seconds=policy.longest),
        "base": 2,
    }
    most = _MOST_TRIES if policy.tries is None else policy.tries - 1
    return {"max_retries": most, "retry_timeout": timedelta(seconds=min(_SECONDS, policy.patience)), "backoff": waits}


def _client_options(access: Access, context: Context) -> dict[str, Any]:
    """The same proxy, CA certificates and patience as for mdl's own requests."""
    assert context.http is not None
    url = access.url
    options: dict[str, Any] = {
        "allow_http": url.startswith("http:"),
        "connect_timeout": timedelta(seconds=10),
        "read_timeout": timedelta(seconds=context.http.stall),
        "timeout": timedelta(days=1),
    }
    if proxy := context.http.proxy_for(url):
        options["proxy_url"] = proxy.url
    elif access.key_id or not _has_role(context.environ):  # a role's credentials come from hosts of their own
        options |= {"proxy_url": _NOWHERE, "proxy_excludes": f"{host_of(url)},{urlsplit(url).hostname}"}
    if file := context.environ.get("SSL_CERT_FILE"):
        make_context(context.environ)  # raises if there are no certificates in it
        options["root_certificate"] = Path(file).read_bytes()
    return options
