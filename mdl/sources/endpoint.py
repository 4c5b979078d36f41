"""Endpoint: which hub is asked, and with whose token. Read from the environment that Hugging Face's own tools read.

``huggingface_hub.get_token`` is not used: it may contact the network, and importing it costs more than
all of mdl's start. The order is the same: HF_TOKEN, HUGGING_FACE_HUB_TOKEN, the token file.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from urllib.parse import urlsplit

from mdl.bounds import LARGEST_NOTE
from mdl.disk.safe_open import UNREADABLE_ERRNOS, read_whole
from mdl.errors import UsageError
from mdl.net.allowlist import OriginToken, host_of, is_public, origin_of
from mdl.units import as_meant, is_true
from mdl.values import value_class

DEFAULT = "https://huggingface.co"


@value_class
class Endpoint:
    """``url`` without a trailing slash; ``token`` never shown."""

    url: str = DEFAULT
    token: str | None = field(default=None, repr=False)
    token_from: str = "no token set"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Endpoint:
        """HF_ENDPOINT and the token. Raises `UsageError` for an endpoint over plain http on a public host, and
        for a token that cannot be sent."""
        url = (as_meant(environ.get("HF_ENDPOINT", "")) or DEFAULT).rstrip("/")
        try:
            parts = urlsplit(url)
            host = host_of(url)
            sound = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
        except ValueError:
            sound = False
        is_one_word = url.isprintable() and not re.search(r"\s", url)
        if not (sound and is_one_word) or "@" in parts.netloc or parts.query or parts.fragment:
            raise UsageError("HF_ENDPOINT is not an http(s) URL", item="HF_ENDPOINT")
        if parts.scheme == "http" and is_public(host):
            why = f"HF_ENDPOINT is plain http to {host}; a token would be sent in the clear"
            hint = "write https://, or the name of a machine of your own network, which has no dot, or its address"
            raise UsageError(why, item="HF_ENDPOINT", hint=hint)
        token: str | None = None
        source = "HF_HUB_DISABLE_IMPLICIT_TOKEN is set"
        if not is_true(environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN")):
            token, source = next(_tokens(environ), (None, "no token set"))
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise UsageError(f"the token from {source} has a character that cannot be sent", item=source)
        return cls(f"{parts.scheme}{url[len(parts.scheme) :]}", token, source)

    @property
    def origin_token(self) -> OriginToken | None:
        return OriginToken(origin_of(self.url), self.token, self.token_from) if self.token else None


def token_places(environ: Mapping[str, str]) -> list[str]:
    """Every variable and file that has a token; only the first one's is used."""
    found = []
    with contextlib.suppress(UsageError):
        found += [place for _, place in _tokens(environ)]
    return found


def _tokens(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each token and where it stands. Raises `UsageError` if the token file is a pipe, a device, too large for a token,
    or no text; a file that is missing or may not be read has no token."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if text := as_meant(environ.get(name, "")):
            yield text, name
    path = token_path(environ)
    if path is None:
        return
    try:
        if text := as_meant(_decoded(read_whole(path, LARGEST_NOTE))):
            yield text, str(path)
    except OSError as error:
        if error.errno in UNREADABLE_ERRNOS:
            hint = "name the file that holds the token, or set HF_TOKEN"
            raise UsageError(f"cannot read a token from {path}: {error.strerror}", item=str(path), hint=hint) from error
    except UnicodeDecodeError as error:
        hint = "write the token into it again, as plain text, or set HF_TOKEN"
        raise UsageError(f"the token file {path} is no text", item=str(path), hint=hint) from error


def _decoded(data: bytes) -> str:
    """The text of a small file as editors and shells of all systems write one. Raises `UnicodeDecodeError`."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def token_path(environ: Mapping[str, str]) -> Path | None:
    """The hub's token file: HF_TOKEN_PATH, else ``token`` in HF_HOME, else in the cache folder."""
    if named := as_meant(environ.get("HF_TOKEN_PATH", "")):
        return _expanded(named, environ)
    if hub_home := as_meant(environ.get("HF_HOME", "")):
        return _expanded(hub_home, environ) / "token"
    home = environ.get("HOME")
    cache = as_meant(environ.get("XDG_CACHE_HOME", "")) or (f"{home}/.cache" if home else "")
    return _expanded(cache, environ) / "huggingface" / "token" if cache else None


def _expanded(text: str, environ: Mapping[str, str]) -> Path:
    """``~`` and ``$NAME`` as the hub's client expands them."""
    text = re.sub(r"\$(\w+|\{\w+\})", lambda match: environ.get(match[1].strip("{}"), match[0]), text)
    home = environ.get("HOME")
    return Path(home + text[1:]) if home and (text == "~" or text.startswith("~/")) else Path(text)
