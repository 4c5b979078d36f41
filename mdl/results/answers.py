"""Answers: what the answer of a job holds: files, links that are no files, and the worker's own words. Pure.

The forms are those of serverless handlers and of ordinary HTTP APIs: ``{"type": "file_data", "filename", "data",
"size", "content_type"}`` with base64 in ``data``; ``{"type": "url" | "redirect", "url", "filename", "size"}``;
``{"download_items": [{"filename", "url", "size", "type"}]}``; a text that is a URL, a ``data:`` URL, or JSON; and any
of them in lists or under other keys (``output``, ``result``, ``images``, ``lora`` …). What keys mean is the table of
`mdl.results.answer_keys`; here an answer is walked through once, and what each text in it is, `_add` decides.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any
from urllib.parse import urljoin

from mdl.bounds import MOST_JOBS
from mdl.errors import MdlError, NotFound, ProtocolError, Unsafe
from mdl.formatting import listed
from mdl.net.allowlist import HUB_HOSTS
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
    is_input,
    is_output,
    is_said_to_be_base64,
    key_of_text,
    may_hold_an_answer,
    path_of,
    told_name,
    told_place,
)
from mdl.results.answer_names import kept_apart, name_of_data, name_of_link
from mdl.results.outputs import (
    ASK_FOR_URL,
    NoDownload,
    Output,
    error_in,
    is_web_url,
    json_in,
    safe_name,
    told_digest,
    told_kind,
    told_size_in,
    words_in,
)
from mdl.sources.hub_origin import parse_page, parse_reference
from mdl.values import value_class
from mdl.weights.known_formats import holds_no_text, is_weights

_DEEPEST = 8
_NAMED = 10
"""How many keys a message names."""
_DEEPEST_NAMED = 2
"""How many levels of keys it names."""
_LONGEST_PLACE = 200
_DATA_URL = re.compile(r"data:(?P<kind>[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.IGNORECASE)
_IN_A_STORE = re.compile(r"(?:s3|gs|az|abfss?|oss|hdfs)://[^\s?#]+")
"""The address of a file in an object store, which only those with a key of it can fetch."""
_ON_ITS_DISK = re.compile(r"/(?:[^\s/]+/)+[^\s/]+")
"""A path of the machine that worked on the job."""
_NO_FILE = "no file"
_ASKED_WITH = "what the job was asked with"
_NO_WEB_ADDRESS = "no web address"
_UNNAMED = RelPath.parse("file")


@value_class
class _File:
    """One file of an answer. ``is_named``: the answer names it beside its link. ``place`` is the path that is told of
    it, with slashes; "" if none is."""

    output: Output
    is_named: bool
    place: str


@value_class
class Ignored:
    """A link in an answer that is not fetched, and ``why``: its ``key``, and its ``place``, which is host and path
    without a query."""

    key: str
    place: str
    why: str = _NO_FILE

    def __str__(self) -> str:
        return f"{self.key or 'a text'} ({self.place[:_LONGEST_PLACE]})"


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
            hint = "'mdl remote status' shows its status"
            if any(link.place.startswith("s3://") for link in self.ignored):
                hint = f"'mdl get s3://…' fetches from a bucket, with the keys of it; {hint}"
            if self._on_the_hub():
                hint = f"'mdl get REF' fetches what is on the hub; {hint}"
            raise NotFound(self._why_nothing(secrets), item=job, hint=hint)
        errors = [output.error for output in self.outputs if output.error]
        if len(errors) == len(self.outputs):
            raise errors[0].on(job)

    def _why_nothing(self, secrets: Iterable[str]) -> str:
        words = error_in(self.words, secrets)
        if words:
            return f"its answer names no file; the worker says: {words}"
        why = "its answer names no file"
        stored = [str(link) for link in self.ignored if link.why == _NO_WEB_ADDRESS]
        if stored:
            why = f"{why} that has a web address, but {listed(stored, most=_NAMED)}"
        on_the_hub = self._on_the_hub()
        if on_the_hub:
            why = f"{why}, but {listed(on_the_hub, most=_NAMED)} on the hub"
        if not self.keys:
            return why
        named = listed([shown(key)[:60] for key in self.keys], most=_NAMED)
        return f"{why}; its keys are {named}"

    def _on_the_hub(self) -> list[str]:
        """Return the references of what the answer names on the hub, each whole: one that is cut would be another."""
        references = [_repository_at(link.place) for link in self.ignored if link.why == _NO_FILE]
        return [shown(reference) for reference in references if 0 < len(reference) <= _LONGEST_PLACE]

    def notes(self, secrets: Iterable[str] = ()) -> list[str]:
        """Return what a user should know though there are files."""
        notes = []
        for why in dict.fromkeys(link.why for link in self.ignored):
            links = [str(link) for link in self.ignored if link.why == why]
            notes.append(f"not fetched, {why}: {listed(links, most=_NAMED)}")
        words = error_in(self.words, secrets)
        if words:
            notes.append(f"the worker says: {words}")
        return notes


def _repository_at(place: str) -> str:
    """Return the reference of what a page of the hub shows, or a reference itself; '' if a text is neither."""
    with contextlib.suppress(MdlError):
        if place.startswith("hf:"):
            return str(parse_reference(place))
        return str(parse_page(place, HUB_HOSTS) or "")
    return ""


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
    outputs = kept_apart(_in_their_folders(_each_once(reader.files)))
    refuse_twins(output.path for output in outputs)
    words = _failure_in(reader.objects)
    if not words and not outputs:
        words = next(filter(None, map(words_in, reader.objects or [answer])), "")
    return Judged(tuple(outputs), tuple(dict.fromkeys(reader.ignored)), words, tuple(reader.keys))


# The walk


@value_class
class _Told:
    """One text of an answer, and what is told of it. ``keys`` are those on the way to it, the innermost last, "" for an
    item of a list. ``facts`` is the object that describes the file which the text is or links to, empty if none does;
    ``name`` and ``kind`` are what it says of the file: its name and its media type."""

    text: str = field(repr=False)
    keys: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    name: str = ""
    kind: str = ""

    @property
    def key(self) -> str:
        """The innermost key."""
        return next((key for key in reversed(self.keys) if key), "")


class _Reader:
    """Walks through one answer. It collects the ``files``; the ``ignored`` links; all ``objects``, the outer ones
    first; and the ``keys`` of the answer, two levels deep."""

    def __init__(self, job: str, base: str) -> None:
        self._job = job
        self._base = base
        self.files: list[_File] = []
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
        told = _Told(text.strip(), keys)
        if self._add(told):
            return
        is_on_its_disk = _ON_ITS_DISK.fullmatch(told.text) is not None and is_weights(told.text)
        if is_on_its_disk or _IN_A_STORE.fullmatch(told.text):
            self._ignore(told, shown(told.text), _NO_WEB_ADDRESS)
        elif told.text.startswith("hf:") and _repository_at(told.text):
            self._ignore(told, shown(told.text), _NO_FILE)
        elif may_hold_an_answer(told.key):
            self.read(json_in(told.text), (), depth + 1)

    def _read_object(self, facts: Mapping[str, Any], keys: tuple[str, ...], depth: int) -> None:
        self.objects.append(facts)
        self._note_keys(facts, keys)
        done = {key for key, repeated in REPEATS.items() if facts.get(repeated)}
        file_key = _file_key(facts)
        if file_key:
            self._add(_Told(facts[file_key], (*keys, file_key), facts, told_name(facts), told_kind(facts)))
            done |= {file_key, *LINKS, *NAMES, *PATHS}
        for key, value in facts.items():
            if key not in done:
                self.read(value, (*keys, key), depth + 1)

    def _note_keys(self, facts: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        around = list(filter(None, keys))
        if len(around) < _DEEPEST_NAMED:
            self.keys.update(dict.fromkeys(".".join((*around, key)) for key in facts))

    def _add(self, told: _Told) -> bool:
        """Add the file that a text is or links to, unless the job was asked with it. False if it is none: a text that
        no object describes is a file only if it says so itself, or its key does."""
        if is_web_url(told.text):
            self._add_link(told)
        elif is_input(told.keys):
            return True
        elif _DATA_URL.match(told.text):
            self._add_base64(told)
        elif told.key in LINKS:
            if not _is_place(told.text):
                return False
            self._add_link(told)
        elif _is_base64(told):
            self._add_base64(told)
        elif told.facts:
            self._add_text(told)
        else:
            return False
        return True

    def _add_link(self, told: _Told) -> None:
        url = told.text
        if self._base and url.startswith("/"):
            with contextlib.suppress(ValueError):  # it stays a text that is no URL
                url = urljoin(self._base, url)
        place = shown(bare_url(url))
        is_url = is_web_url(url)
        is_named = is_file_name(told.name) and not is_input(told.keys)
        if not is_output(url, told.keys) and not is_named:
            if is_url:
                self._ignore(told, place, _ASKED_WITH if is_input(told.keys) else _NO_FILE)
            return
        if is_url and "/resolve/" not in url and _repository_at(url):
            self._ignore(told, place, _NO_FILE)
            return
        if is_url:
            output = Output(_UNNAMED, url, content_type=told.kind)
            self._put(told, name_of_link(url, told.facts, told.keys), output)
            return
        message = f"{place[:80]!r} is not a URL, so it cannot be downloaded"
        error = NoDownload(message, item=self._job, hint=ASK_FOR_URL)
        self._put(told, told.name or path_of(url), Output(_UNNAMED, error=error))

    def _ignore(self, told: _Told, place: str, why: str) -> None:
        key = ".".join(filter(None, told.keys))
        self.ignored.append(Ignored(shown(key)[:60], place, why))

    def _add_base64(self, told: _Told) -> None:
        kind = told.kind
        text = told.text
        head = _DATA_URL.match(text)
        if head:
            kind = kind or (head["kind"] or "").lower()
            text = text[head.end() :]
        output = Output(_UNNAMED, data=b"", content_type=kind)
        try:
            output = replace(output, data=_decoded(text))
        except (ValueError, binascii.Error) as wrong:
            error = ProtocolError(f"the data is not base64: {wrong}", hint=ASK_FOR_URL)
            output = replace(output, error=error)
        self._put(told, told.name or name_of_data(output.data or b"", kind, told.keys, self._job), output)

    def _add_text(self, told: _Told) -> None:
        output = Output(_UNNAMED, data=told.text.encode("utf-8", "replace"), content_type=told.kind)
        if holds_no_text(told.name):
            hint = 'have the worker add "encoding": "base64" to the file'
            error = ProtocolError("the answer has a text where such a file holds none", hint=hint)
            output = replace(output, error=error)
        self._put(told, told.name, output)

    def _put(self, told: _Told, name: str, output: Output) -> None:
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
        self.files.append(_File(output, bool(told.name), told_place(told.facts)))


# What one text is


def _is_base64(told: _Told) -> bool:
    """Tell whether the key of a text, or a field beside it, says that it is base64."""
    if told.text and BASE64_KEY.fullmatch(told.key):
        return True
    if not told.facts:
        return False
    return told.key in BASE64 or is_said_to_be_base64(told.facts)


def _file_key(facts: Mapping[str, Any]) -> str:
    """Return the key of the text that is, or links to, the file which an object describes; '' if it describes none."""
    texts = {key: value for key, value in facts.items() if isinstance(value, str)}
    link = key_of_text(texts, LINKS)
    if _is_place(texts.get(link, "")):
        return link
    if is_said_to_be_base64(texts):
        for key in TEXTS:
            if key in texts:  # also an empty one: a file of no bytes
                return key
    coded = [key for key in texts if BASE64_KEY.fullmatch(key)]
    if len(coded) > 1:
        return ""  # each is a file of its own
    if coded:
        return coded[0]
    name = told_name(texts)
    if is_file_name(name) or key_of_text(texts, FILE_NAMES):
        return key_of_text(texts, (*BASE64, CONTENT))
    if name:
        return key_of_text(texts, BASE64)
    return ""


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
        message = f"the answer has {size} bytes of the file, and says that it has {told}"
        raise ProtocolError(message, hint=ASK_FOR_URL)
    return size


def _failure_in(objects: Iterable[Mapping[str, Any]]) -> str:
    """Return what a worker says where it says that something failed; '' if it says that nowhere."""
    for facts in objects:
        status = first_text(facts, STATUSES).lower()
        if status in FAILED or any(facts.get(key) is False for key in FAILURES):
            return words_in(facts) or "it failed, and does not say why"
    return ""


def _each_once(files: Iterable[_File]) -> list[_File]:
    """Return the files, those of one link once: under the name that the answer says, if it says one."""
    by_link: dict[object, _File] = {}
    for file in files:
        link = file.output.url or file.output
        first = by_link.setdefault(link, file)
        if file.is_named and not first.is_named:
            by_link[link] = file
    return list(by_link.values())


def _in_their_folders(files: Sequence[_File]) -> list[Output]:
    """Return the files in the folders that their paths tell, below the one that all these paths are in: the parts of a
    model that is a folder have such names as ``unet/config.json``. A path that is no safe one tells no folder."""
    folders = [posixpath.dirname(file.place) for file in files if file.place]
    shared = posixpath.commonpath(folders) if folders else ""
    outputs = []
    for file in files:
        output = file.output
        place = file.place.removeprefix(f"{shared}/")
        if "/" in place and posixpath.basename(place) == output.path.text:
            with contextlib.suppress(Unsafe):
                output = replace(output, path=RelPath.parse(place))
        outputs.append(output)
    return outputs
