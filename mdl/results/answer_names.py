"""Answer names: what the files of an answer are called, and how files of one name are kept apart. Pure."""

from __future__ import annotations

import mimetypes
from collections import defaultdict
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
from mdl.results.outputs import Output
from mdl.weights.end_records import ZIP_MEMBER
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
    if is_file_name(title):
        return title
    if title and not is_file_name(path.rpartition("/")[2]):
        return title
    named_key = next(filter(is_named_like_a_file, keys[-1:]), "")
    return named_key or path


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
    if beginning.startswith(ZIP_MEMBER):
        return ".pt" if _TORCH_RECORD in beginning[:512] else ".zip"
    for suffix in _KINDS:
        row = kind_of(f"x{suffix}")
        if row and row.can_begin_with(beginning, len(data)):
            return suffix
    return mimetypes.guess_extension(kind) or ".bin"


def kept_apart(outputs: Sequence[Output]) -> list[Output]:
    """Return the files, those of one name behind each other and each in a folder of its own."""
    groups: defaultdict[str, list[Output]] = defaultdict(list)
    for output in outputs:
        groups[output.path.folded].append(output)
    apart = []
    for group in groups.values():
        if len(group) == 1:
            apart += group
            continue
        for output, folder in zip(group, _folders_of(group), strict=True):
            apart.append(replace(output, path=RelPath.parse(f"{folder}/{output.path}")))
    return apart


def _folders_of(group: Sequence[Output]) -> Sequence[str]:
    """Return the folder of each of several files of one name: the shortest ends of the paths of their links that differ
    in all of them, so that one knows which is which; numbers if only their queries differ."""
    paths = [path_of(output.url).strip("/").split("/") for output in group]
    ends = [[parts[-1] for parts in paths]]  # what the answer gave a name may differ in the last part of its link
    for count in range(2, max(map(len, paths)) + 1):
        ends.append(["/".join(parts[-count:-1]) for parts in paths])
    for folders in ends:
        if len({folder.casefold() for folder in folders}) == len(group) and all(map(_is_safe, folders)):
            return folders
    return [str(number) for number in range(1, len(group) + 1)]


def _is_safe(folder: str) -> bool:
    try:
        RelPath.parse(folder)
    except MdlError:
        return False
    return True
