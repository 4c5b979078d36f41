"""Answers: what the answer of a job holds: files, things that are no files, and the worker's own words. Pure.

The forms are those of serverless handlers and of ordinary HTTP APIs: ``{"type": "file_data", "filename", "data",
"size", "content_type"}`` with base64 in ``data``; ``{"type": "url" | "redirect", "url", "filename", "size"}``;
``{"download_items": [{"filename", "url", "size", "type"}]}``; a text that is a URL, a ``data:`` URL, or JSON; and any
of them in lists or under other keys (``output``, ``result``, ``images``, ``lora`` …).
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urljoin

from mdl.bounds import LONGEST_TEXT, parse_json
from mdl.errors import MdlError, NotFound, ProtocolError
from mdl.formatting import listed
from mdl.paths import RelPath, refuse_twins, shown
from mdl.redact import bare_url
from mdl.results.answer_words import is_file_name, is_named_like_a_file, is_output, key_meaning, path_of
from mdl.results.outputs import (
    ASK_FOR_URL,
    NAME_KEYS,
    NoDownload,
    Output,
    checked_path,
    error_in,
    first_text,
    is_web_url,
    key_of_text,
    safe_name,
    told_digest,
    told_kind,
    told_size_in,
)
from mdl.values import value_class
from mdl.weights.table import holds_no_text, kind_of

_DEEPEST = 8
_DEEPEST_WORDS = 3
_MOST = 100_000
_NAMED = 10
"""How many keys a message names."""
_LINKS = ("url", "download_url", "presigned_url", "file_url", "href", "link")
"""Keys whose text is a link, even if it is not a whole URL."""
_FILE_NAMES = NAME_KEYS[:2]
"""Keys whose text can only be the name of a file, and no title."""
_BASE64 = ("data", "base64", "file_data")
"""Keys whose text is base64, beside those that end in base64 or b64."""
_TEXTS = (*_BASE64, "content", "body", "blob", "bytes", "payload", "value", "file", "image", "audio", "video")
"""Keys whose text is what the field ``encoding`` or ``type`` beside them says."""
_NO_NAMES = (*_BASE64, "content")
"""Keys that say nothing about what is under them."""
_BASE64_KEY = re.compile(r"(?i)(?:(?P<stem>.*?)[-_.]?)?(?:base64|b64)")
_DATA_URL = re.compile(r"data:(?P<kind>[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.IGNORECASE)
_ENCODINGS = ("encoding", "content_encoding", "content_transfer_encoding", "transfer_encoding", "type", "format")
_ANSWERS = frozenset({"answer", "body", "response", "payload", "return", "returned"})
"""Keys under which a gateway has the worker's answer as a text, beside those that say an output."""
_MERE_PLACES = ("place", "hyperlink")
_FAILED = re.compile(r"(?i)error|errored|failed|failure|fail")
_SAYING = ("error", "error_message", "reason", "detail", "message", "errors", "exception", "msg", "stderr")


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
        """Raises `NotFound` if there is no file, in the worker's own words or with the keys that there are; the first
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
        """What a user should know though there are files."""
        notes = []
        if self.ignored:
            links = listed([str(link) for link in self.ignored], most=_NAMED)
            notes.append(f"not fetched, no file: {links}")
        words = error_in(self.words, secrets)
        if words:
            notes.append(f"the worker says: {words}")
        return notes


def judge(answer: Any, job: str, base: str = "") -> Judged:
    """Every file that ``answer`` names or contains, each under its own name, made safe; a file that cannot be had
    carries its error. With the URL ``base`` that the answer came from, links may be relative to it.

    Raises `Unsafe` if two files have one name in the end.
    """
    reader = _Reader(job, base)
    value = _json_in(answer) if isinstance(answer, str) else answer
    reader.read(value, ())
    if not reader.found and isinstance(value, list) and all(isinstance(piece, str) for piece in value):
        reader.read(_json_in("".join(value)), ())  # a generator yielded one text in pieces
    outputs = _apart(_each_once(reader.found))
    refuse_twins(output.path for output in outputs)
    words = _failure_in(value)
    if not words and not outputs:
        words = _words_in(value)
    return Judged(tuple(outputs), tuple(dict.fromkeys(reader.ignored)), words, _keys_of(value))


@value_class
class _Found:
    """One file as it stands in the answer. ``is_named``: the answer says its name, beside its link."""

    output: Output
    is_named: bool = False


class _Reader:
    """Walks through one answer, and collects what is ``found`` and what is ``ignored``."""

    def __init__(self, job: str, base: str) -> None:
        self._job = job
        self._base = base
        self._is_in_text = False
        self.found: list[_Found] = []
        self.ignored: list[Ignored] = []

    def read(self, value: Any, keys: tuple[str, ...]) -> None:
        """Read a value that is under these keys, the innermost last."""
        if len(keys) > _DEEPEST or len(self.found) >= _MOST:
            return
        if isinstance(value, str):
            self._read_text(value, keys)
        elif isinstance(value, list):
            for item in value[:_MOST]:
                self.read(item, (*keys, ""))
        elif isinstance(value, dict):
            self._read_object(value, keys)

    def _read_text(self, text: str, keys: tuple[str, ...]) -> None:
        key = _innermost(keys)
        if _DATA_URL.match(text) or (text and _BASE64_KEY.fullmatch(key)):
            self._add_base64(text, {}, keys)
        elif is_web_url(text) or (key in _LINKS and _is_place(text)):
            self._read_link(text, {}, keys)
        elif not self._is_in_text and _says_json(keys, text):
            inner = _json_in(text)
            if not isinstance(inner, str):
                self._is_in_text = True
                self.read(inner, ())
                self._is_in_text = False

    def _read_object(self, value: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        own = self._read_file(value, keys)
        for name, inner in value.items():
            is_archive_of_all = name == "zip_url" and value.get("download_items")
            if name not in own and not is_archive_of_all:
                self.read(inner, (*keys, str(name)))

    def _read_file(self, value: Mapping[str, Any], keys: tuple[str, ...]) -> set[str]:
        """Read the one file that an object describes, if it describes one. Returns its keys that were read with it."""
        link = first_text(value, _LINKS)
        content_key = _content_key(value)
        if content_key and is_web_url(value[content_key]):
            link = link or value[content_key]
            content_key = ""
        if link and (is_web_url(link) or _is_place(link)):
            link_key = next(key for key in value if value[key] == link)
            self._read_link(link, value, (*keys, str(link_key)))
            return {link_key, *_LINKS, *NAME_KEYS}
        if content_key:
            content_keys = (*keys, content_key)
            if _is_base64(value, content_key):
                self._add_base64(value[content_key], value, content_keys)
            else:
                self._add_text(value[content_key], value)
            return {content_key, *_LINKS, *NAME_KEYS}
        return set()

    def _read_link(self, text: str, facts: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        url = urljoin(self._base, text) if self._base and text.startswith("/") else text
        if not is_output(url, keys) and not is_file_name(first_text(facts, NAME_KEYS)):
            if is_web_url(url):
                place = shown(bare_url(url))[:200]
                self.ignored.append(Ignored(shown(_telling_key(keys))[:60], place))
            return
        if is_web_url(url):
            name = _name_of_link(url, facts, keys)
            output = Output(RelPath.parse("file"), url, None, content_type=told_kind(facts), digest=told_digest(facts))
            self._add(name, output, facts)
        else:
            why = f"{shown(bare_url(url))[:80]!r} is not a URL, so it cannot be downloaded"
            error = NoDownload(why, item=self._job, hint=ASK_FOR_URL)
            name = first_text(facts, NAME_KEYS) or path_of(url)
            self._add(name, Output(RelPath.parse("file"), error=error), facts)

    def _add_base64(self, text: str, facts: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        head = _DATA_URL.match(text)
        kind = told_kind(facts)
        if head:
            kind = kind or (head["kind"] or "").lower()
            text = text[head.end() :]
        data = b""
        error = None
        try:
            data = _decoded(text)
        except (ValueError, binascii.Error) as wrong:
            error = ProtocolError(f"the data is not base64: {wrong}", hint=ASK_FOR_URL)
        name = first_text(facts, NAME_KEYS) or self._stem(keys) + _suffix(data, kind)
        self._add_data(name, data, kind, facts, error)

    def _add_text(self, text: str, facts: Mapping[str, Any]) -> None:
        name = first_text(facts, NAME_KEYS)
        error = None
        if holds_no_text(name) or (mimetypes.guess_type(name)[0] or "").startswith(("image/", "audio/", "video/")):
            hint = 'have the worker add "encoding": "base64" to the file'
            error = ProtocolError("the answer has a text where such a file holds none", hint=hint)
        self._add_data(name, text.encode("utf-8", "replace"), told_kind(facts), facts, error)

    def _add_data(
        self, name: str, data: bytes, kind: str, facts: Mapping[str, Any], error: ProtocolError | None
    ) -> None:
        output = Output(RelPath.parse("file"), "", data, len(data), kind, digest=told_digest(facts))
        self._add(name, replace(output, error=error, data=None) if error else output, facts)

    def _add(self, name: str, output: Output, facts: Mapping[str, Any]) -> None:
        """Add a file with its name and the size that is told. What is wrong with these is its error."""
        path = RelPath.parse(f"{len(self.found) + 1}")
        error = output.error
        try:
            path = safe_name(name)
            size = told_size_in(facts)
            if output.data is not None and size not in (None, len(output.data)):
                why = f"the answer has {len(output.data)} bytes of the file, and says that it has {size}"
                raise ProtocolError(why, hint=ASK_FOR_URL)
            output = replace(output, size=size if output.data is None else len(output.data))
        except MdlError as wrong:
            error = error or wrong
        if error:
            if isinstance(error, ProtocolError):
                error = error.but(final=True)  # the same answer would come again
            output = replace(output, error=error.on(path.text), data=None, url="", size=None)
        self.found.append(_Found(replace(output, path=path), bool(first_text(facts, NAME_KEYS))))

    def _stem(self, keys: Sequence[str]) -> str:
        """What a file without a name is called: the key of its data, without the word for base64, else the key around
        it, else the job."""
        for key in reversed(keys):
            coded = _BASE64_KEY.fullmatch(key)
            stem = (coded["stem"] or "").strip("-_. ") if coded else key
            is_name = stem and not stem.isdigit() and stem not in _NO_NAMES
            if is_name and key_meaning(stem) not in _MERE_PLACES:
                return stem
        return self._job


# What the fields of an answer say


def _name_of_link(url: str, facts: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The name of the file behind a link: what the answer calls it, else the last part of its path. A ``name`` without
    a suffix is a title if the path has a name with one."""
    told = first_text(facts, _FILE_NAMES)
    if told:
        return told
    title = first_text(facts, NAME_KEYS)
    if title and (is_file_name(title) or not is_file_name(path_of(url).rpartition("/")[2])):
        return title
    if keys and is_named_like_a_file(keys[-1]):
        return keys[-1]
    return path_of(url)


def _content_key(value: Mapping[str, Any]) -> str:
    """The key of the text that is the content of a file which an object describes; '' if it describes none."""
    if value.get("type") == "file_data" and isinstance(value.get("data"), str):
        return "data"
    coded = [key for key in value if _BASE64_KEY.fullmatch(key) and key_of_text(value, [key])]
    if len(coded) == 1:
        return coded[0]
    if coded:
        return ""
    if _is_said_to_be_base64(value):
        return key_of_text(value, _TEXTS)
    name = first_text(value, NAME_KEYS)
    if not name:
        return ""
    found = key_of_text(value, (*_BASE64, "content"))
    if found == "content" and not is_file_name(name) and not first_text(value, _FILE_NAMES):
        return ""
    return found


def _is_base64(value: Mapping[str, Any], key: str) -> bool:
    """Whether a field says that the text under ``key`` is base64."""
    if key in _BASE64 or _is_said_to_be_base64(value):
        return True
    return _BASE64_KEY.fullmatch(key) is not None or _DATA_URL.match(value[key]) is not None


def _is_said_to_be_base64(value: Mapping[str, Any]) -> bool:
    for key in _ENCODINGS:
        word = value.get(key)
        if isinstance(word, str) and word.lower() in ("base64", "b64"):
            return True
    return False


def _decoded(text: str) -> bytes:
    """The bytes of a base64 text. Blanks and missing padding are forgiven; any other letter, and a length that no text
    has, is not. Raises ``ValueError``."""
    packed = "".join(text.split()).rstrip("=")
    if len(packed) % 4 == 1:
        raise ValueError("its end is missing")
    return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)


_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF8", ".gif"),
    (b"%PDF-", ".pdf"),
    (b"OggS", ".ogg"),
    (b"fLaC", ".flac"),
    (b"ID3", ".mp3"),
    (b"\xff\xfb", ".mp3"),
    (b"\x1aE\xdf\xa3", ".webm"),
    (b"\x1f\x8b", ".gz"),
)
_WEIGHTS = (".safetensors", ".gguf", ".h5", ".tar")


def _suffix(data: bytes, kind: str) -> str:
    """The suffix that the first bytes tell, else the media type, else ``.bin``."""
    beginning = data[:65536]
    for magic, suffix in _SIGNATURES:
        if beginning.startswith(magic):
            return suffix
    if beginning[:4] == b"RIFF":
        return {b"WAVE": ".wav", b"WEBP": ".webp", b"AVI ": ".avi"}.get(beginning[8:12], ".bin")
    if beginning[4:8] == b"ftyp":
        return ".mp4"
    if beginning.startswith(b"PK\x03\x04"):
        return ".pt" if b"/data.pkl" in beginning[:512] else ".zip"
    for suffix in _WEIGHTS:
        row = kind_of(f"x{suffix}")
        if data and row is not None and row.can_begin_with(beginning, len(data)):
            return suffix
    return mimetypes.guess_extension(kind) or ".bin"


def _is_place(text: str) -> bool:
    """Whether a text under a key for links can be one: a scheme, or a path."""
    return bool(text) and not re.search(r"\s", text) and ("/" in text or ":" in text)


def _says_json(keys: tuple[str, ...], text: str) -> bool:
    """Whether a text under these keys may be an answer in JSON."""
    key = _innermost(keys)
    is_answer = not key or key.lower() in _ANSWERS or key_meaning(key) == "output"
    return is_answer and text.lstrip()[:1] in ("{", "[")


def _json_in(text: str) -> Any:
    """What a text holds as JSON, if that is an object or a list, else the text."""
    stripped = text.strip()
    if stripped[:1] not in ("{", "["):
        return stripped if is_web_url(stripped) else text
    try:
        return parse_json(stripped, allow_nan=True)
    except ValueError:
        return text


def _innermost(keys: Sequence[str]) -> str:
    return next((key for key in reversed(keys) if key), "")


def _telling_key(keys: Sequence[str]) -> str:
    """The key by which a user finds a link: its own, and those around it that are only words for a place."""
    named = [key for key in keys if key]
    telling = 0
    for at, key in enumerate(named):
        if key_meaning(key) not in _MERE_PLACES and not key.isdigit():
            telling = at
    return ".".join(named[telling:])


def _keys_of(value: Any) -> tuple[str, ...]:
    """The keys of an answer, those of objects in it behind a point."""
    keys: list[str] = []
    rows = value if isinstance(value, list) else [value]
    for row in rows[:_NAMED]:
        if not isinstance(row, dict):
            continue
        for key, inner in row.items():
            keys.append(str(key))
            if isinstance(inner, dict):
                keys += [f"{key}.{name}" for name in inner]
    return tuple(dict.fromkeys(keys))


# The worker's own words


def _failure_in(value: Any) -> str:
    """What a worker says where it says that something failed; '' if it says that nowhere."""
    for facts in _objects_in(value):
        is_failure = any(facts.get(key) is False for key in ("ok", "success", "succeeded"))
        status = facts.get("status", facts.get("state"))
        if is_failure or (isinstance(status, str) and _FAILED.fullmatch(status)):
            return _words_in(facts) or "it failed, and does not say why"
    return ""


def _words_in(value: Any) -> str:
    """The first text under a key for words of an error, wherever it is nested."""
    for facts in _objects_in(value):
        words = _said_in(facts)
        if words:
            return words
    return ""


def _said_in(facts: Mapping[str, Any], depth: int = 0) -> str:
    """The text under a key for words of an error in one object, or in an object or list that is there in its place."""
    for key in _SAYING:
        said = facts.get(key)
        if isinstance(said, list) and said:
            said = said[0]
        words = ""
        if isinstance(said, str):
            words = said.strip()[:LONGEST_TEXT]
        elif isinstance(said, dict) and depth < _DEEPEST_WORDS:
            words = _said_in(said, depth + 1)
        if words:
            return words
    return ""


def _objects_in(value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The objects in a value, the outer ones before those in them."""
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value[:_MOST]:
            yield from _objects_in(inner, depth + 1)


# Files of one name


def _each_once(found: Sequence[_Found]) -> list[Output]:
    """The files, those of one link once: under the name that the answer says, if it says one."""
    by_link: dict[object, _Found] = {}
    for file in found:
        link = file.output.url or file.output
        known = by_link.get(link)
        if known is None or (file.is_named and not known.is_named):
            by_link[link] = file
    return [file.output for file in by_link.values()]


def _apart(outputs: Sequence[Output]) -> list[Output]:
    """The files, those of one name in folders: the shortest ends of the paths of their links that differ. Where these
    do not differ either, the folders are numbers."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for at, output in enumerate(outputs):
        groups[output.path.folded].append(at)
    apart = list(outputs)
    for places in groups.values():
        if len(places) == 1:
            continue
        folders = _folders_of([outputs[at] for at in places])
        for at, folder in zip(places, folders, strict=True):
            name = outputs[at].path.text
            apart[at] = replace(outputs[at], path=checked_path(f"{folder}/{name}" if folder else name))
    return apart


def _folders_of(group: Sequence[Output]) -> list[str]:
    """The folder of each of several files of one name."""
    paths = [[part for part in path_of(output.url).split("/") if part] for output in group]
    ends = {path[-1].casefold() for path in paths if path}
    if len(ends) == 1:
        paths = [path[:-1] for path in paths]
    longest = max(len(path) for path in paths)
    differing = len({tuple(path) for path in paths})
    count = 1
    while count < longest and len({tuple(path[-count:]) for path in paths}) < differing:
        count += 1
    folders = ["/".join(path[-count:]) for path in paths]
    times = Counter(folder.casefold() for folder in folders)
    named = []
    for number, (folder, output) in enumerate(zip(folders, group, strict=True), 1):
        is_name = output.url and times[folder.casefold()] == 1 and _is_safe(folder)
        named.append(folder if is_name else str(number))
    return named


def _is_safe(folder: str) -> bool:
    try:
        return not folder or bool(RelPath.parse(folder))
    except MdlError:
        return False
