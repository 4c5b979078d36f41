"""GGUF: which files of a repository are one quantisation, by their names. Pure.

Names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md ("GGUF Naming Convention"). A quantisation is in the
file's name (``model-Q8_0.gguf``, ``model.i1-Q4_K_M.gguf``, ``Qwen3-UD-Q4_K_XL-00001-of-00002.gguf``), or is the folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from mdl.errors import NotFound, UsageError
from mdl.files import RefusedFile, RemoteFile
from mdl.paths import names_for_a_hint
from mdl.values import value_class

_FILE = re.compile(
    r"(?P<stem>.+?)(-(?P<shard>\d{5})-of-(?P<shards>\d{5}))?\.gguf(\.part(?P<part>\d+)of(?P<parts>\d+))?"
)
_QUANT = re.compile(
    r"(?:^|(?<=[-._/]))((?:UD-|i1-)?(?:I?Q\d+(?:_[0-9A-Z]+)*|TQ\d_\d|B?F16|FP?(?:8|16|32)|(?:MX|NV)FP4(?:_MOE)?))(?=[-./]|$)",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"(UD|i1)-", re.IGNORECASE)
_NO_MODEL = re.compile(r"(.*/)?(mmproj|imatrix)", re.IGNORECASE)
"""Files that belong to a model in any quantisation, and are quantised in their own way."""


def of_quantisation(files: Iterable[RemoteFile], wanted: str, item: str) -> list[RemoteFile]:
    """The files of the one model that is quantised as ``wanted``, in whatever case it is written: one, or its shards.

    Raises `NotFound` with what there is, if there is none or a shard is missing; `UsageError` if there are several.
    """
    found: dict[str, dict[str, list[RemoteFile]]] = {}
    for file in files:
        match = _FILE.fullmatch(file.path.text)
        if match and not _NO_MODEL.match(file.path.text):
            found.setdefault(_quantisation_of(match["stem"]), {}).setdefault(match["stem"], []).append(file)
    if not found:
        raise NotFound("the repository has no GGUF file", item=item, hint="leave out the colon and what follows it")
    named = _by_name(found, wanted) or _by_name({_PREFIX.sub("", name): one for name, one in found.items()}, wanted)
    if not named:
        there = names_for_a_hint(sorted(filter(None, found)), 30) or "none in any file's name"
        raise NotFound(f"no file is quantised as {wanted}", item=item, hint=f"available: {there}")
    if len(named) > 1:
        paths = names_for_a_hint(sorted(one[0].path.text for one in named.values()), 30)
        raise UsageError(f"several models are quantised as {wanted}", item=item, hint=f"name one of its files: {paths}")
    [shards] = named.values()
    _check_complete(shards, item)
    return shards


@value_class
class Quantisation:
    """One quantisation of a repository's model: its ``name``, and how many files and bytes it has with all its shards.
    ``size`` is None if the size of one of them is not known."""

    name: str
    files: int
    size: int | None


def quantisations_of(files: Iterable[RemoteFile | RefusedFile]) -> list[Quantisation]:
    """The quantisations that the files of a repository are in, the smallest first."""
    by_name: dict[str, list[RemoteFile | RefusedFile]] = {}
    for file in files:
        path = str(file.path)
        match = _FILE.fullmatch(path)
        if match and not _NO_MODEL.match(path):
            by_name.setdefault(_quantisation_of(match["stem"]), []).append(file)
    by_name.pop("", None)
    found = []
    for name, shards in by_name.items():
        sizes = [shard.size for shard in shards if shard.size is not None]
        found.append(Quantisation(name, len(shards), sum(sizes) if len(sizes) == len(shards) else None))
    return sorted(found, key=lambda one: (one.size or 0, one.name))


def quantised_as(paths: Iterable[str], wanted: str) -> set[str]:
    """Those of these paths that are files of this quantisation, in whatever case it is written; of its shards those
    that are there."""
    found = {}
    for path in paths:
        match = _FILE.fullmatch(path)
        if match and not _NO_MODEL.match(path):
            found[path] = _quantisation_of(match["stem"])
    named = {path for path, name in found.items() if name.casefold() == wanted.casefold()}
    return named or {path for path, name in found.items() if _PREFIX.sub("", name).casefold() == wanted.casefold()}


def _quantisation_of(stem: str) -> str:
    """The last one that the file's own name has, else that of its folder; '' if there is none."""
    folder, _, name = stem.rpartition("/")
    found = _QUANT.findall(name) or _QUANT.findall(folder)
    return str(found[-1]) if found else ""


Named = TypeVar("Named")


def _by_name(found: dict[str, dict[str, Named]], wanted: str) -> dict[str, Named]:
    """What is under this name, and under those that differ from it only in case."""
    fitting = (models for name, models in found.items() if name.casefold() == wanted.casefold())
    return {stem: one for models in fitting for stem, one in models.items()}


def _check_complete(shards: list[RemoteFile], item: str) -> None:
    counts = set()
    for one in shards:
        if match := _FILE.fullmatch(one.path.text):
            counts.add(int(match["shards"] or match["parts"] or 1))
    if counts != {len(shards)}:
        wanted = " or ".join(map(str, sorted(counts)))
        raise NotFound(f"{len(shards)} of {wanted} parts are there", item=item, hint="name the files that you want")
