"""Redact: what must never be read in an output, a log or a journal is taken out of a text.

Taken out are the user and password of a URL, every URL query string (it may be signed), values known
to be secret, bearer tokens and hub tokens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping

MARK = "***"

_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RUNPOD_API_KEY")
_SHORTEST = 4

# Kept as text: `re` compiles and remembers a pattern when it is first needed, not when mdl starts.
_USERINFO = r"(?i)([a-z][a-z0-9+.-]{0,19}://)[^\s/?#]*@"
_QUERY = r"(?i)([a-z][a-z0-9+.-]{0,19}://[^\s?\"'<>]*)\?[^\s\"'<>]*"
_PARAMETER = (
    r"(?i)((?:^|[\s?&;#,(\"'>])[\w.-]{0,64}"
    r"(?:signature|sig|token|credential|secret|password|passwd|policy|key|key-id)=)[^\s&\"'<>]+"
)
_AUTHORIZATION = r"(?i)(authorization[\"']?\s*[:=]\s*[\"']?(?:[a-z]+ +)?)[^\s\"',]+"
_BEARER = r"(?i)\b(bearer\s+)[a-z0-9._~+/=-]+"
_HUB_TOKEN = r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{15,}"


class Secrets:
    """The few values that are known to be secret. Values too short to be one are ignored."""

    def __init__(self, values: Iterable[str | None] = ()) -> None:
        self._values: set[str] = set()
        for value in values:
            self.add(value)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Secrets:
        """The secrets that mdl itself reads from the environment; of a proxy its password, also as it is sent."""
        found = cls(environ.get(name) for name in _NAMES)
        for name, value in environ.items():
            if name.lower().endswith("_proxy") and "@" in value:
                found._add_login(value.rpartition("@")[0].rpartition("://")[2])
        return found

    def _add_login(self, userinfo: str) -> None:
        """A user and a password as they stand in a URL."""
        from base64 import b64encode
        from urllib.parse import unquote_to_bytes

        user, _, password = userinfo.partition(":")
        if not password:
            return
        plain = unquote_to_bytes(os.fsencode(password))
        self.add(password)
        self.add(plain.decode(errors="replace"))
        self.add(b64encode(unquote_to_bytes(os.fsencode(user)) + b":" + plain).decode())

    def add(self, value: str | None) -> None:
        """Keep ``value`` out of every output from now on."""
        from urllib.parse import quote

        value = (value or "").strip()
        if len(value) >= _SHORTEST:
            self._values |= {value, quote(value, safe="")}

    def __iter__(self) -> Iterator[str]:
        """Longest first, so that a secret that holds another goes as a whole."""
        return iter(sorted(self._values, key=len, reverse=True))


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """A sentence without secrets: for messages, which may quote anything."""
    text = redact_value(text, secrets)
    text = re.sub(_PARAMETER, r"\1…", text)
    text = re.sub(_AUTHORIZATION, rf"\1{MARK}", text)
    text = re.sub(_BEARER, rf"\1{MARK}", text)
    return re.sub(_HUB_TOKEN, MARK, text)


def redact_value(text: str, secrets: Iterable[str] = ()) -> str:
    """A name, path or URL without secrets: only what is certain to be one, as a program may use the rest."""
    for secret in secrets:
        text = text.replace(secret, MARK)
    if "://" in text:
        text = re.sub(_USERINFO, r"\1", text)
        text = re.sub(_QUERY, r"\1?…", text)
    return text
