"""Answers: what the answer of a job holds: files, links that are no files, and the worker's own words. Pure.

The forms are those of serverless handlers and of ordinary HTTP APIs: ``{"type": "file_data", "filename", "data",
"size", "content_type"}`` with base64 in ``data``; ``{"type": "url" | "redirect", "url", "filename", "size"}``;
``{"download_items": [{"filename", "url", "size", "type"}]}``; a text that is a URL, a ``data:`` URL, or JSON; and any
of them in lists or under other keys (``output``, ``result``, ``images``, ``lora`` …). What keys mean is the table of
`mdl.results.answer_keys`; here an answer is walked through once, and each text in it is read by `_form_of`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from typing import Any, Literal
from urllib.parse import urljoin

from mdl.bounds import MOST_JOBS, parse_json
from mdl.errors import MdlError, NotFound, ProtocolError
from mdl.formatting import listed
from mdl.paths import RelPath, refuse_twins, shown
from mdl.redact import bare_url
from mdl.results.answer_keys import (
    BASE64,
    BASE64_KEY,
    CONTENT,
    FAILED,
    FAILURES,
    FILE_NAMES,
    LINKS,
    NAMES,
    PATHS,
    REPEATS,
    STATUSES,
    TEXTS,
    first_text,
    is_file_name,
    is_output,
    is_said_to_be_base64,
    key_of_text,
    may_hold_an_answer,
    path_of,
    told_name,
)
from mdl.results.answer_names import kept_apart, name_of_data, name_of_link
from mdl.results.outputs import (
    ASK_FOR_URL,
    NoDownload,
    Output,
    error_in,
    is_web_url,
    safe_name,
    told_digest,
    told_kind,
    told_size_in,
    words_in,
)
from mdl.values import value_class
from mdl.weights.known_formats import holds_no_text

_DEEPEST = 8
_NAMED = 10
"""How many keys a message names."""
_DEEPEST_NAMED = 2
"""How many levels of keys it names."""
_DATA_URL = re.compile(r"data:(?P<kind>[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.IGNORECASE)
Form = Literal["link", "base64", "text", "nothing"]
_UNNAMED = RelPath.parse("file")


@value_class
class Ignored:
    """A link in an answer that is no file: its ``key``, and its ``place``, which is host and path without a query."""

    key: str
    place: str

    def __str__(self) -> str:
        return f"{self.key or 'a text'} ({self.place})"


@value_class
class Judged:
    """What an answer holds. ``words`` are the worker's own, where it says that something failed, or where no file is
    there; they may hold secrets. ``keys`` are those of the answer."""

    outputs: tuple[Output, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    words: str = ""
    keys: tuple[str, ...] = ()

    def raise_for_nothing(self, job: str, secrets: Iterable[str] = ()) -> None:
        """Raise `NotFound` if there is no file, in the worker's own words or with the keys that there are; the first
        file's error if none can be had."""
        if not self.outputs:
            raise NotFound(self._why_nothing(secrets), item=job, hint="'mdl remote status' shows its status")
        errors = [output.error for output in self.outputs]
        if errors[0] is not None and None not in errors:
            raise errors[0].on(job)

    def _why_nothing(self, secrets: Iterable[str]) -> str:
        words = error_in(self.words, secrets)
        if words:
            return f"its answer names no file; the worker says: {words}"
        if not self.keys:
            return "its answer names no file"
        named = listed([shown(key)[:60] for key in self.keys], most=_NAMED)
        return f"its answer names no file; its keys are {named}"

    def notes(self, secrets: Iterable[str] = ()) -> list[str]:
        """Return what a user should know though there are files."""
        notes = []
        if self.ignored:
            links = listed([str(link) for link in self.ignored], most=_NAMED)
            notes.append(f"not fetched, no file: {links}")
        words = error_in(self.words, secrets)
        if words:
            notes.append(f"the worker says: {words}")
        return notes


def judge(answer: Any, job: str, base: str = "") -> Judged:
    """Return every file that ``answer`` names or contains, each under its own name, made safe; a file that cannot be
    had carries its error. With the URL ``base`` that the answer came from, links may be relative to it.

    Raises `Unsafe` if two files have one name in the end.
    """
    reader = _Reader(job, base)
    reader.read(answer)
    is_text_in_pieces = isinstance(answer, list) and all(isinstance(piece, str) for piece in answer)
    if is_text_in_pieces and not reader.files:
        reader.read("".join(answer))  # a generator yielded one text in pieces
    outputs = kept_apart(_each_once(reader.files))
    refuse_twins(output.path for output in outputs)
    words = _failure_in(reader.objects)
    if not words and not outputs:
        words = next(filter(None, map(words_in, reader.objects)), "")
    return Judged(tuple(outputs), tuple(dict.fromkeys(reader.ignored)), words, tuple(reader.keys))


# The walk


@value_class
class _Field:
    """One text of an answer. ``keys`` are those on the way to it, the innermost last, "" for an item of a list.
    ``facts`` is the object that describes the file which the text is or links to; it is empty if none does."""

    text: str = field(repr=False)
    keys: tuple[str, ...]
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def key(self) -> str:
        """The innermost key."""
        return next((key for key in reversed(self.keys) if key), "")


class _Reader:
    """Walks through one answer. It collects the ``files``, each with whether the answer names it beside its link; the
    ``ignored`` links; all ``objects``, the outer ones first; and the ``keys`` of the answer, two levels deep."""

    def __init__(self, job: str, base: str) -> None:
        self._job = job
        self._base = base
        self.files: list[tuple[Output, bool]] = []
        self.ignored: list[Ignored] = []
        self.objects: list[Mapping[str, Any]] = []
        self.keys: dict[str, None] = {}

    def read(self, value: Any, keys: tuple[str, ...] = (), depth: int = 0) -> None:
        """Read a value that is under these keys, and so deep in the answer."""
        if depth > _DEEPEST or len(self.files) >= MOST_JOBS:
            return
        if isinstance(value, str):
            self._read_text(value, keys, depth)
        elif isinstance(value, list):
            for item in value:
                self.read(item, (*keys, ""), depth + 1)
        elif isinstance(value, dict):
            self._read_object(value, keys, depth)

    def _read_text(self, text: str, keys: tuple[str, ...], depth: int) -> None:
        bare = _Field(text.strip(), keys, {})
        form = _form_of(bare)
        if form != "nothing":
            self._add(bare, form)
        elif may_hold_an_answer(bare.key):
            self.read(_json_in(text), (), depth + 1)

    def _read_object(self, facts: Mapping[str, Any], keys: tuple[str, ...], depth: int) -> None:
        self.objects.append(facts)
        self._note_keys(facts, keys)
        done: set[str] = set()
        file_key = _file_key(facts)
        if file_key:
            described = _Field(facts[file_key], (*keys, file_key), facts)
            self._add(described, _form_of(described))
            done = {file_key, *LINKS, *NAMES, *PATHS}
        for key, repeated in REPEATS.items():
            if facts.get(repeated):
                done.add(key)
        for key, value in facts.items():
            if key not in done:
                self.read(value, (*keys, key), depth + 1)

    def _note_keys(self, facts: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        around = [key for key in keys if key]
        if len(around) < _DEEPEST_NAMED:
            self.keys.update(dict.fromkeys(".".join((*around, key)) for key in facts))

    def _add(self, told: _Field, form: Form) -> None:
        """Add the file that a text is or links to."""
        if form == "link":
            self._add_link(told)
        elif form == "base64":
            self._add_base64(told)
        elif form == "text":
            self._add_text(told)

    def _add_link(self, told: _Field) -> None:
        url = told.text
        if self._base and url.startswith("/"):
            url = urljoin(self._base, url)
        title = told_name(told.facts)
        is_file = is_output(url, told.keys) or is_file_name(title)
        if is_file and is_web_url(url):
            name = name_of_link(url, told.facts, told.keys)
            self._put(told, name, Output(_UNNAMED, url, content_type=told_kind(told.facts)))
        elif is_file:
            why = f"{shown(bare_url(url))[:80]!r} is not a URL, so it cannot be downloaded"
            error = NoDownload(why, item=self._job, hint=ASK_FOR_URL)
            self._put(told, title or path_of(url), Output(_UNNAMED, error=error))
        elif is_web_url(url):
            key = ".".join(key for key in told.keys if key)
            self.ignored.append(Ignored(shown(key)[:60], shown(bare_url(url))[:200]))

    def _add_base64(self, told: _Field) -> None:
        kind = told_kind(told.facts)
        text = told.text
        head = _DATA_URL.match(text)
        if head:
            kind = kind or (head["kind"] or "").lower()
            text = text[head.end() :]
        data = b""
        error = None
        try:
            data = _decoded(text)
        except (ValueError, binascii.Error) as wrong:
            error = ProtocolError(f"the data is not base64: {wrong}", hint=ASK_FOR_URL)
        name = told_name(told.facts) or name_of_data(data, kind, told.keys, self._job)
        self._put(told, name, Output(_UNNAMED, data=data, content_type=kind, error=error))

    def _add_text(self, told: _Field) -> None:
        name = told_name(told.facts)
        error = None
        if holds_no_text(name):
            hint = 'have the worker add "encoding": "base64" to the file'
            error = ProtocolError("the answer has a text where such a file holds none", hint=hint)
        data = told.text.encode("utf-8", "replace")
        self._put(told, name, Output(_UNNAMED, data=data, content_type=told_kind(told.facts), error=error))

    def _put(self, told: _Field, name: str, output: Output) -> None:
        """Add a file under its name. What is wrong with the name, the size or the content is the error of this file
        alone."""
        path = RelPath.parse(str(len(self.files) + 1))
        try:
            path = safe_name(name)
            if output.error:
                raise output.error
            size = _size_of(output, told_size_in(told.facts))
            output = replace(output, path=path, size=size, digest=told_digest(told.facts))
        except MdlError as error:
            if isinstance(error, ProtocolError):
                error = error.but(final=True)  # the same answer would come again
            output = Output(path, error=error.on(path.text))
        self.files.append((output, bool(told_name(told.facts))))


# What one text is


def _form_of(told: _Field) -> Form:
    """Return what a text is. A text that no object describes is a file only if it says so itself, or its key does."""
    if is_web_url(told.text):
        return "link"
    if _DATA_URL.match(told.text):
        return "base64"
    if told.key in LINKS:
        return "link" if _is_place(told.text) else "nothing"
    if told.text and BASE64_KEY.fullmatch(told.key):
        return "base64"
    if not told.facts:
        return "nothing"
    is_base64 = told.key in BASE64 or is_said_to_be_base64(told.facts)
    return "base64" if is_base64 else "text"


def _file_key(facts: Mapping[str, Any]) -> str:
    """Return the key of the text that is, or links to, the file which an object describes; '' if it describes none."""
    link = key_of_text(facts, LINKS)
    if link and _is_place(facts[link]):
        return link
    if is_said_to_be_base64(facts):
        for key in TEXTS:
            if isinstance(facts.get(key), str):  # also an empty one: a file of no bytes
                return key
    coded = [key for key in facts if BASE64_KEY.fullmatch(key) and isinstance(facts[key], str)]
    if coded:
        return coded[0] if len(coded) == 1 else ""  # several are a file each
    name = told_name(facts)
    if not name:
        return ""
    is_certain = is_file_name(name) or bool(first_text(facts, FILE_NAMES))
    return key_of_text(facts, (*BASE64, CONTENT) if is_certain else BASE64)


def _is_place(text: str) -> bool:
    """Tell whether a text under a key for links can be a link: a scheme, or a path."""
    return re.fullmatch(r"\S*[/:]\S*", text) is not None


def _decoded(text: str) -> bytes:
    """Return the bytes of a base64 text. Blanks and missing padding are forgiven; any other letter, and a length that
    no text has, is not. Raises ``ValueError``."""
    packed = "".join(text.split()).rstrip("=")
    if len(packed) % 4 == 1:
        raise ValueError("its end is missing")
    return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)


def _size_of(output: Output, told: int | None) -> int | None:
    """Return the size of a file: of its bytes if they are here, else as it was told. Raises `ProtocolError` if the two
    differ."""
    if output.data is None:
        return told
    size = len(output.data)
    if told not in (None, size):
        why = f"the answer has {size} bytes of the file, and says that it has {told}"
        raise ProtocolError(why, hint=ASK_FOR_URL)
    return size


def _json_in(text: str) -> Any:
    """Return the object or the list that a text holds as JSON; None if it holds none."""
    stripped = text.strip()
    if not stripped.startswith(("{", "[")):
        return None
    try:
        return parse_json(stripped, allow_nan=True)
    except ValueError:
        return None


def _failure_in(objects: Iterable[Mapping[str, Any]]) -> str:
    """Return what a worker says where it says that something failed; '' if it says that nowhere."""
    for facts in objects:
        status = first_text(facts, STATUSES).lower()
        if status in FAILED or any(facts.get(key) is False for key in FAILURES):
            return words_in(facts) or "it failed, and does not say why"
    return ""


def _each_once(files: Iterable[tuple[Output, bool]]) -> list[Output]:
    """Return the files, those of one link once: under the name that the answer says, if it says one."""
    by_link: dict[object, Output] = {}
    named: set[object] = set()
    for output, is_named in files:
        link = output.url or output
        by_link.setdefault(link, output)
        if is_named and link not in named:
            by_link[link] = output
            named.add(link)
    return list(by_link.values())
