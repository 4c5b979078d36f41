"""Answer names: what the files of an answer are called, and how files of one name are kept apart. Pure."""

from __future__ import annotations

import mimetypes
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mdl.bounds import LONGEST_TEXT
from mdl.errors import MdlError
from mdl.paths import RelPath
from mdl.results.answer_keys import (
    BASE64,
    BASE64_KEY,
    CONTENT,
    FILE_NAMES,
    first_text,
    is_file_name,
    is_named_like_a_file,
    key_meaning,
    path_of,
    told_name,
)
from mdl.results.outputs import Output, checked_path
from mdl.weights.known_formats import kind_of

_NAMELESS = (*BASE64, CONTENT)
"""Keys that say nothing about the file under them."""
_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"GIF8", ".gif"),
    (8, b"WEBP", ".webp"),
    (0, b"%PDF-", ".pdf"),
    (0, b"OggS", ".ogg"),
    (0, b"fLaC", ".flac"),
    (0, b"ID3", ".mp3"),
    (0, b"\xff\xfb", ".mp3"),
    (8, b"WAVE", ".wav"),
    (8, b"AVI ", ".avi"),
    (4, b"ftyp", ".mp4"),
    (0, b"\x1aE\xdf\xa3", ".webm"),
    (0, b"\x1f\x8b", ".gz"),
)
"""Where in a file the bytes are that tell its format, the bytes, and the suffix."""
_ZIP = b"PK\x03\x04"
_TORCH_RECORD = b"/data.pkl"
"""The name of the first member of a zip that torch wrote."""
_KINDS = (".safetensors", ".gguf", ".h5", ".tar")
"""Suffixes of kinds in the table of weights that are told by their beginning."""


def name_of_link(url: str, facts: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return the name of the file behind a link: what the answer calls it, else the last part of its path. A ``name``
    without a suffix is a title if the path has a name with a suffix."""
    file_name = first_text(facts, FILE_NAMES)
    if file_name:
        return file_name
    title = told_name(facts)
    path = path_of(url)
    if title and (is_file_name(title) or not is_file_name(path.rpartition("/")[2])):
        return title
    if keys and is_named_like_a_file(keys[-1]):
        return keys[-1]
    return path


def name_of_data(data: bytes, kind: str, keys: Sequence[str], job: str) -> str:
    """Return the name of a file that the answer does not name: the innermost key that says something, else the job,
    with the suffix that the bytes tell."""
    stem = job
    for key in reversed(keys):
        coded = BASE64_KEY.fullmatch(key)
        words = (coded["stem"] or "").strip("-_. ") if coded else key
        if words and words not in _NAMELESS and key_meaning(words) not in ("place", "hyperlink"):
            stem = words
            break
    return stem + _suffix_of(data, kind)


def _suffix_of(data: bytes, kind: str) -> str:
    """Return the suffix that the first bytes tell, else the one of the media type, else ``.bin``."""
    beginning = data[:LONGEST_TEXT]
    for at, magic, suffix in _MAGICS:
        if beginning.startswith(magic, at):
            return suffix
    if beginning.startswith(_ZIP):
        return ".pt" if _TORCH_RECORD in beginning[:512] else ".zip"
    for suffix in _KINDS:
        row = kind_of(f"x{suffix}")
        if data and row and row.can_begin_with(beginning, len(data)):
            return suffix
    return mimetypes.guess_extension(kind) or ".bin"


def kept_apart(outputs: Sequence[Output]) -> list[Output]:
    """Return the files, those of one name behind each other and in folders: the shortest ends of the paths of their
    links that differ, or numbers where the paths do not differ either."""
    groups: defaultdict[str, list[Output]] = defaultdict(list)
    for output in outputs:
        groups[output.path.folded].append(output)
    apart = []
    for group in groups.values():
        if len(group) == 1:
            apart += group
            continue
        for output, folder in zip(group, _folders_of(group), strict=True):
            apart.append(replace(output, path=checked_path(f"{folder}/{output.path}".strip("/"))))
    return apart


def _folders_of(group: Sequence[Output]) -> list[str]:
    """Return the folder of each of several files of one name; '' for the one whose path ends before the others
    differ."""
    paths = [list(filter(None, path_of(output.url).split("/"))) for output in group]
    last_parts = {path[-1].casefold() for path in paths if path}
    if len(last_parts) == 1:
        paths = [path[:-1] for path in paths]
    ends = _differing_ends(paths)
    times = Counter(end.casefold() for end in ends)
    folders = []
    for number, (output, end) in enumerate(zip(group, ends, strict=True), 1):
        is_name = output.url and times[end.casefold()] == 1 and _is_safe(end)
        folders.append(end if is_name else str(number))
    return folders


def _differing_ends(paths: Sequence[Sequence[str]]) -> list[str]:
    """Return the ends of paths, of as few parts as tell apart all paths that differ."""
    longest = max(map(len, paths))
    different = len(set(map(tuple, paths)))
    ends = [""] * len(paths)
    for count in range(1, longest + 1):
        ends = ["/".join(path[-count:]) for path in paths]
        if len(set(ends)) == different:
            break
    return ends


def _is_safe(folder: str) -> bool:
    try:
        RelPath.parse(folder or "top")
    except MdlError:
        return False
    return True
