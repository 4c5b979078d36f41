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
    """A secret that the user asked mdl to print, such as a signed link: the one text that is not redacted."""


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

        value = (value or "").strip()
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
    behind = re.search("[?#;]", url)
    query = url[behind.end() :] if behind else ""
    for text in dict.fromkeys((query, unquote(query), unquote_plus(query))):
        parts = [part for part in (*text.split("&"), *re.split("[?#;&]", text)) if not _is_harmless(part)]
        values = (part.partition("=")[2] or part.strip("=") for part in parts)
        for value in {text, *values}:
            if len(value) >= _SHORTEST and value not in bare and not re.fullmatch(_PLAIN, value):
                yield from (value, quote(value, safe=""), escape(value))


def open_url(url: str, mark: str = "") -> str:
    """A URL as it may leave this machine: without user and password, and without what stands behind the path, but for
    harmless parameters and a digest. ``mark`` stands in the place of what was taken out there.

    References that are no URL (``hf:org/repo@main``) stay as they are.
    """
    if "://" not in url or not any(sign in url for sign in "@?#;"):
        return url
    before, _, fragment = url.partition("#")
    place, _, query = before.partition("?")
    kept = [part for part in query.split("&") if part and _is_harmless(part)]
    digest = f"#{fragment}" if re.fullmatch(r"sha256=[0-9A-Fa-f]{64}", fragment) else ""
    is_cut = kept != [part for part in query.split("&") if part] or ";" in place or bool(fragment and not digest)
    if is_cut and mark:
        kept.append(mark)
    return bare_url(url) + ("?" if kept else "") + "&".join(kept) + digest


def _is_harmless(parameter: str) -> bool:
    """Whether a parameter of a query, as it stands in the URL, is on the list, and has a value as it should."""
    from urllib.parse import unquote

    name, _, value = parameter.partition("=")
    pattern = _HARMLESS.get(name.lower())
    plain = unquote(value)
    return pattern is not None and bool(re.fullmatch(pattern, plain, re.I)) and not re.search(_HUB_TOKEN, plain)


def bare_url(url: str) -> str:
    """The place that a URL names: scheme, host and path, without user, password, parameters, query and fragment."""
    if not any(mark in url for mark in "@?#;"):
        return url
    place = re.sub(";[^/]*", "", re.split("[?#]", url, maxsplit=1)[0])
    scheme = re.match("(?!hf:)[A-Za-z][A-Za-z0-9+.-]*:/*", place)
    start = scheme.end() if scheme else 0
    host, slash, path = place[start:].partition("/")
    if scheme and not re.fullmatch(r"(.*@)?([^:@]*|\[[^@]*\])(:[0-9]*)?", host):
        rest = re.split("[?#]", url[start:].rpartition("@")[2], maxsplit=1)[0]  # a password with a slash or ? in it
        host, slash, path = re.sub(";[^/]*", "", rest).partition("/")
    return place[:start] + (host.rpartition("@")[2] if scheme else host) + slash + path


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
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        one.args = tuple(redact_value(text, known) if isinstance(text, str) else text for text in one.args)
        if isinstance(one, MdlError):
            one.message = redact_value(one.message, known)
        one = one.__cause__ or one.__context__


def has_secret(url: str) -> bool:
    """Whether a URL holds what may be a secret: a password, or a parameter that is not known to be harmless."""
    return open_url(url) != url or bool(re.search(_HUB_TOKEN, url))


def _without_query(word: str) -> str:
    """A path without the query behind it, as a server repeats a request; any other word as it is."""
    bare = word.rstrip(_CLOSING)
    path, _, query = bare.partition("?")
    if "/" not in path or not query:
        return word
    parts = query.split("&")
    kept = [part for part in parts if part == "…" or _is_harmless(part)]
    cut = "" if kept == parts else "…"
    return f"{path}?{'&'.join(filter(None, (*kept, cut)))}{word[len(bare) :]}"


def _marked(word: str) -> str:
    """The URL that a word begins with, open, with a mark in the place of what was taken out."""
    url = word.rstrip(_CLOSING)
    return open_url(url, mark="…") + word[len(url) :]
