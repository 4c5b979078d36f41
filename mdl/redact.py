"""Redact: what must never be read in an output, a log or a journal is taken out of a text. Pure.

Of a URL its scheme, host and path stay, and of its query those few parameters that are known to be harmless: see
`open_url`, the one way in which a URL leaves mdl. A list of secret names would always lack one (ADR 51). Taken out as
well are values known to be secret, bearer tokens and hub tokens. Redaction is for sentences and values: a document
that a program reads is made of open URLs, and printed as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from mdl.errors import MdlError

MARK = "***"

_NAMES = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RUNPOD_API_KEY"),
    "MDL_SERVE_TOKEN",
)
_SHORTEST = 4

# Kept as text: `re` compiles and remembers a pattern when it is first needed, not when mdl starts.
_USERINFO = r"(?i)([a-z][a-z0-9+.-]{0,19}://)[^\s/?#]*@"
_URL = r"(?i)[a-z][a-z0-9+.-]{0,19}://\S+"
_SIGNS = "[?#;]"
"""What ends the path of a URL."""
_BEYOND_PLACE = frozenset("@?#;")
"""One of these is in every URL that says more than a place."""
_CLOSING = ")]}>'\",.;:!?"
"""What ends a sentence, not the URL in it."""
_PLAIN = r"(?i)true|false|none|null|main|host|https?|inline|attachment|(aws|goog)4-[a-z0-9-]+|[0-9.]{1,9}"
"""Values of a query that are no secret, long as they are."""
_SWITCHES = ("download", "dl", "raw", "inline", "recursive")
_VERSIONS = ("revision", "ref", "branch", "tag", "version", "versionid")
_FILE_NAMES = ("filename", "filepath", "path")
_KINDS = ("type", "format", "size", "fp")
_HARMLESS = (
    dict.fromkeys(_SWITCHES, r"|0|1|true|false|yes|no")
    | dict.fromkeys(_VERSIONS, r"[\w./+-]{0,128}")
    | dict.fromkeys(_FILE_NAMES, r"[\w ./,+()\[\]~-]{0,255}")
    | dict.fromkeys(_KINDS, r"[\w.-]{0,32}")
    | {"expand": "true|false|sha|gated|private|lastModified|cardData|tags"}
)
"""The parameters of a URL that are no secret, by their names in small letters, each with the values that it may have.
Under the same name a server may take something else: ``download`` a token, ``path`` a URL with a query of its own."""
_PARAMETER = (
    r"(?i)((?:^|[\s?&;#,(\"'>])[\w.-]{0,64}"
    r"(?:signature|sig|token|credential|secret|password|passwd|policy|key|key-id)=)[^\s&\"'<>]+"
)
_AUTHORIZATION = r"(?i)(authorization[\"']?\s*[:=]\s*[\"']?(?:[a-z]+ +)?)[^\s\"',]+"
_BEARER = r"(?i)\b(bearer\s+)[a-z0-9._~+/=-]+"
_HUB_TOKEN = r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{15,}"


class Requested(str):
    """A text that the user asked mdl to print as it is, such as a list of URLs: the one that is not redacted."""


class Secrets:
    """The few values that are known to be secret. Values too short to be one are ignored."""

    def __init__(self, values: Iterable[str | None] = ()) -> None:
        self._values: set[str] = set()
        self._urls: set[str] = set()
        self.add_all(values)

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
        plain = unquote_to_bytes(password.encode(errors="surrogateescape"))
        self.add(password)
        self.add(plain.decode(errors="replace"))
        self.add(b64encode(unquote_to_bytes(user.encode(errors="surrogateescape")) + b":" + plain).decode())

    def add(self, value: str | None) -> None:
        """Keep ``value`` out of every output from now on."""
        from urllib.parse import quote

        if value is None:
            return
        value = value.strip()
        if len(value) >= _SHORTEST:
            self._values |= {value, quote(value, safe="")}

    def add_all(self, values: Iterable[str | None]) -> None:
        """Keep all of these out of every output from now on."""
        for value in values:
            self.add(value)

    def add_query(self, url: str) -> None:
        """Keep what stands behind the path of a URL out of what its server says: the whole of it and each value.

        What is in the URL's host or path as well is no secret.
        """
        self._urls.add(url)  # taken apart when a server has said something, which most never do

    def __iter__(self) -> Iterator[str]:
        """Longest first, so that a secret that holds another goes as a whole."""
        values = self._values.union(*map(_values_behind, self._urls))
        return iter(sorted(values, key=len, reverse=True))


def _values_behind(url: str) -> Iterator[str]:
    """What stands behind the path of a URL, in every form in which a server may repeat it."""
    from html import escape
    from urllib.parse import quote, unquote, unquote_plus

    if open_url(url) == url:
        return
    bare = bare_url(url)
    query = _behind_path(url)[1:]
    for text in dict.fromkeys((query, unquote(query), unquote_plus(query))):
        values = {text}
        for part in (*text.split("&"), *re.split(f"{_SIGNS}|&", text)):
            if not _is_harmless(part):
                name, _, value = part.partition("=")
                values.add(value or name)
        for value in values:
            if len(value) >= _SHORTEST and value not in bare and not re.fullmatch(_PLAIN, value):
                yield from (value, quote(value, safe=""), escape(value))


def open_url(url: str, mark: str = "") -> str:
    """A URL as it may leave this machine: without user and password, and without what stands behind the path, but for
    harmless parameters and a digest. ``mark`` stands in the place of what was taken out there.

    References that are no URL (``hf:org/repo@main``) stay as they are.
    """
    if "://" not in url:
        return url
    behind = _behind_path(url)
    before, _, fragment = behind.partition("#")
    parts = [part for part in before.partition("?")[2].split("&") if _is_harmless(part)]
    digest = ""
    if re.fullmatch(r"sha256=[0-9A-Fa-f]{64}", fragment):
        digest = f"#{fragment}"
    if mark and _joined(parts, digest) != behind:
        parts.append(mark)
    return bare_url(url) + _joined(parts, digest)


def _behind_path(url: str) -> str:
    """What stands behind the path of a URL, with the sign that begins it: parameters, query and fragment."""
    sign = re.search(_SIGNS, url)
    return url[sign.start() :] if sign else ""


def _joined(parameters: list[str], fragment: str) -> str:
    if not parameters:
        return fragment
    return f"?{'&'.join(parameters)}{fragment}"


def _is_harmless(parameter: str) -> bool:
    """Whether a parameter of a query, as it stands in the URL, is on the list, and has a value as it should."""
    from urllib.parse import unquote

    name, _, value = parameter.partition("=")
    pattern = _HARMLESS.get(name.lower())
    plain = unquote(value)
    return pattern is not None and bool(re.fullmatch(pattern, plain, re.I)) and not re.search(_HUB_TOKEN, plain)


def bare_url(url: str) -> str:
    """The place that a URL names: scheme, host and path, without user, password, parameters, query and fragment."""
    if _BEYOND_PLACE.isdisjoint(url):
        return url
    scheme = re.match("(?!hf:)[A-Za-z][A-Za-z0-9+.-]*:/*", url)
    if not scheme:
        return _without_query_and_parameters(url)
    behind = url[scheme.end() :]
    host, slash, path = _without_query_and_parameters(behind).partition("/")
    if not re.fullmatch(r"(.*@)?([^:@]*|\[[^@]*\])(:[0-9]*)?", host):
        # a password with a slash or ? in it
        host, slash, path = _without_query_and_parameters(behind.rpartition("@")[2]).partition("/")
    return scheme[0] + host.rpartition("@")[2] + slash + path


def _without_query_and_parameters(place: str) -> str:
    return re.sub(";[^/]*", "", re.split("[?#]", place, maxsplit=1)[0])


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """A sentence without secrets: for messages, which may quote anything."""
    text = redact_value(text, secrets)
    if "?" in text:
        text = re.sub(r"\S+", lambda word: _without_query(word[0]), text)
    if "=" in text:
        text = re.sub(_PARAMETER, r"\1…", text)
    folded = text.casefold()
    if "authorization" in folded:
        text = re.sub(_AUTHORIZATION, rf"\1{MARK}", text)
    if "bearer" in folded:
        text = re.sub(_BEARER, rf"\1{MARK}", text)
    return re.sub(_HUB_TOKEN, MARK, text) if "hf_" in text else text


def redact_value(text: str, secrets: Iterable[str] = ()) -> str:
    """A name, path or URL without secrets: only what is certain to be one, as a program may use the rest."""
    for secret in secrets:
        text = text.replace(secret, MARK)
    if "://" in text:
        text = re.sub(_USERINFO, r"\1", text)
        text = re.sub(_URL, lambda word: _marked(word[0]), text)
    return text


def redact_error(error: BaseException, secrets: Secrets) -> None:
    """Take the secrets out of what an error and its causes say, before it is shown."""
    known = tuple(secrets)
    seen = set[int]()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        cause.args = tuple(redact_value(value, known) if isinstance(value, str) else value for value in cause.args)
        if isinstance(cause, MdlError):
            cause.message = redact_value(cause.message, known)
        cause = cause.__cause__ or cause.__context__


def has_secret(url: str) -> bool:
    """Whether a URL holds what may be a secret: a password, or a parameter that is not known to be harmless."""
    return open_url(url) != url or bool(re.search(_HUB_TOKEN, url))


def _without_query(word: str) -> str:
    """A path without the query behind it, as a server repeats a request; any other word as it is."""
    request = word.rstrip(_CLOSING)
    path, _, query = request.partition("?")
    if "/" not in path or not query:
        return word
    parts = [part for part in query.split("&") if part == "…" or _is_harmless(part)]
    if "&".join(parts) != query:
        parts.append("…")
    return f"{path}?{'&'.join(parts)}{word[len(request) :]}"


def _marked(word: str) -> str:
    """The URL that a word begins with, open, with a mark in the place of what was taken out."""
    url = word.rstrip(_CLOSING)
    return open_url(url, mark="…") + word[len(url) :]
