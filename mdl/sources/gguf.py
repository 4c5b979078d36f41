"""GGUF: which files of a repository are one quantisation, by their names. Pure.

Names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md ("GGUF Naming Convention"). A quantisation is in the
file's name (``model-Q8_0.gguf``, ``model.i1-Q4_K_M.gguf``, ``Qwen3-UD-Q4_K_XL-00001-of-00002.gguf``), or is the folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

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
    models: dict[tuple[str, str], list[RemoteFile]] = {}
    for file in files:
        parts = _parts_of(file.path.text)
        if parts:
            models.setdefault((_quantisation_of(parts["stem"]), parts["stem"]), []).append(file)
    if not models:
        raise NotFound("the repository has no GGUF file", item=item, hint="leave out the colon and what follows it")
    names = {name for name, _ in models}
    meant = _meant_by(wanted, names)
    chosen = [shards for (name, _), shards in models.items() if name in meant]
    if not chosen:
        there = names_for_a_hint(sorted(names - {""}), 30) or "none in any file's name"
        raise NotFound(f"no file is quantised as {wanted}", item=item, hint=f"available: {there}")
    if len(chosen) > 1:
        paths = names_for_a_hint(sorted(shards[0].path.text for shards in chosen), 30)
        raise UsageError(f"several models are quantised as {wanted}", item=item, hint=f"name one of its files: {paths}")
    _check_complete(chosen[0], item)
    return chosen[0]


@value_class
class Quantisation:
    """A quantisation of a repository's model: its ``name``, and how many files and bytes it has with all its shards.
    ``size`` is None if the size of one of them is not known."""

    name: str
    files: int
    size: int | None


def quantisations_of(files: Iterable[RemoteFile | RefusedFile]) -> list[Quantisation]:
    """The quantisations that the files of a repository are in, the smallest first."""
    sizes: dict[str, list[int | None]] = {}
    for file in files:
        parts = _parts_of(str(file.path))
        name = _quantisation_of(parts["stem"]) if parts else ""
        if name:
            sizes.setdefault(name, []).append(file.size)
    quantisations = []
    for name, sizes_of_shards in sizes.items():
        known = [size for size in sizes_of_shards if size is not None]
        total = sum(known) if len(known) == len(sizes_of_shards) else None
        quantisations.append(Quantisation(name, len(sizes_of_shards), total))
    return sorted(quantisations, key=lambda quantisation: (quantisation.size or 0, quantisation.name))


def quantised_as(paths: Iterable[str], wanted: str) -> set[str]:
    """Choose the paths that are files of this quantisation, in whatever case it is written; of its shards those
    that are there."""
    names = {}
    for path in paths:
        parts = _parts_of(path)
        if parts:
            names[path] = _quantisation_of(parts["stem"])
    meant = _meant_by(wanted, set(names.values()))
    return {path for path, name in names.items() if name in meant}


def _parts_of(path: str) -> re.Match[str] | None:
    """The parts of the name of a file of a model in GGUF; None for any other file."""
    return None if _NO_MODEL.match(path) else _FILE.fullmatch(path)


def _quantisation_of(stem: str) -> str:
    """The last one that the file's own name has, else that of its folder; '' if there is none."""
    folder, _, name = stem.rpartition("/")
    names = _QUANT.findall(name) or _QUANT.findall(folder)
    return str(names[-1]) if names else ""


def _meant_by(wanted: str, names: set[str]) -> set[str]:
    """The names of quantisations that are ``wanted`` in any case; if there are none, those that are so without their
    prefix."""
    folded = wanted.casefold()
    same = {name for name in names if name.casefold() == folded}
    return same or {name for name in names if _PREFIX.sub("", name).casefold() == folded}


def _check_complete(shards: list[RemoteFile], item: str) -> None:
    """Raises `NotFound` if there are fewer files than their names say."""
    counts = set()
    for shard in shards:
        parts = _parts_of(shard.path.text)
        if parts:
            counts.add(int(parts["shards"] or parts["parts"] or 1))
    if counts != {len(shards)}:
        wanted = " or ".join(map(str, sorted(counts)))
        raise NotFound(f"{len(shards)} of {wanted} parts are there", item=item, hint="name the files that you want")
