"""GGUF: which files of a repository are one quantisation, by their names. Pure.

Names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md ("GGUF Naming Convention"). A quantisation is in the
file's name (``model-Q8_0.gguf``, ``model.i1-Q4_K_M.gguf``, ``Qwen3-UD-Q4_K_XL-00001-of-00002.gguf``), or is the folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from mdl.errors import NotFound, UsageError
from mdl.files import RefusedFile, RemoteFile
from mdl.paths import names_for_a_hint
from mdl.units import total_size
from mdl.values import value_class

File = TypeVar("File")
_FILE = r"(?P<stem>.+?)(-(?P<shard>\d{5})-of-(?P<shards>\d{5}))?\.gguf(\.part(?P<part>\d+)of(?P<parts>\d+))?"
_QUANT = (
    r"(?i)(?:^|(?<=[-._/]))"
    r"((?:UD-|i1-)?(?:I?Q\d+(?:_[0-9A-Z]+)*|TQ\d_\d|B?F16|FP?(?:8|16|32)|(?:MX|NV)FP4(?:_MOE)?))"
    r"(?=[-./]|$)"
)
_PREFIX = r"(?i)(UD|i1)-"
_NO_MODEL = r"(?i)(.*/)?(mmproj|imatrix)"
"""Files that belong to a model in any quantisation, and are quantised in their own way."""


def of_quantisation(files: Iterable[RemoteFile], wanted: str, item: str) -> list[RemoteFile]:
    """The files of the one model that is quantised as ``wanted``, in whatever case it is written: one, or its shards.

    Raises `NotFound` with what there is, if there is none or a shard is missing; `UsageError` if there are several.
    """
    models = _by_name(files, _path_of)
    if not models:
        raise NotFound("the repository has no GGUF file", item=item, hint="leave out the colon and what follows it")
    quantisations = {name.quantisation for name in models}
    meant = _meant_by(wanted, quantisations)
    chosen = [name for name in models if name.quantisation in meant]
    if not chosen:
        available = names_for_a_hint(sorted(quantisations - {""}), 30) or "none in any file's name"
        raise NotFound(f"no file is quantised as {wanted}", item=item, hint=f"available: {available}")
    if len(chosen) > 1:
        paths = names_for_a_hint(sorted(models[name][0].path.text for name in chosen), 30)
        raise UsageError(f"several models are quantised as {wanted}", item=item, hint=f"name one of its files: {paths}")
    [name] = chosen
    shards = models[name]
    if len(shards) != name.shards:
        reason = f"{len(shards)} of {name.shards} parts exist"
        raise NotFound(reason, item=item, hint="name the files that you want")
    return shards


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
    for name, shards in _by_name(files, _path_of).items():
        if name.quantisation:
            sizes.setdefault(name.quantisation, []).extend(file.size for file in shards)
    quantisations = [Quantisation(name, len(shards), total_size(shards)) for name, shards in sizes.items()]
    return sorted(quantisations, key=lambda quantisation: (quantisation.size or 0, quantisation.name))


def quantised_as(paths: Iterable[str], wanted: str) -> set[str]:
    """Choose the paths that are files of this quantisation, in whatever case it is written; of its shards those
    that are there."""
    models = _by_name(paths, str)
    meant = _meant_by(wanted, {name.quantisation for name in models})
    chosen: set[str] = set()
    for name, shards in models.items():
        if name.quantisation in meant:
            chosen.update(shards)
    return chosen


@value_class
class _Name:
    """The name of a file of a model, in parts. The shards of one model have the same: its ``stem``, its
    ``quantisation`` ('' if the name has none), and how many ``shards`` there are."""

    stem: str
    quantisation: str
    shards: int


def _by_name(files: Iterable[File], path_of: Callable[[File], str]) -> dict[_Name, list[File]]:
    """The models in GGUF that are among some files, each with its shards."""
    models: dict[_Name, list[File]] = {}
    for file in files:
        name = _read_name(path_of(file))
        if name is not None:
            models.setdefault(name, []).append(file)
    return models


def _path_of(file: RemoteFile | RefusedFile) -> str:
    return str(file.path)


def _read_name(path: str) -> _Name | None:
    """The name of a file of a model in GGUF; None for any other file. The quantisation is the last one that the file's
    own name has, else that of its folder."""
    if re.match(_NO_MODEL, path):
        return None
    parts = re.fullmatch(_FILE, path)
    if parts is None:
        return None
    folder, _, name = parts["stem"].rpartition("/")
    quantisations = re.findall(_QUANT, name) or re.findall(_QUANT, folder) or [""]
    return _Name(parts["stem"], quantisations[-1], int(parts["shards"] or parts["parts"] or 1))


def _meant_by(wanted: str, names: set[str]) -> set[str]:
    """The names of quantisations that are ``wanted`` in any case; if there are none, those that are so without their
    prefix."""
    folded = wanted.casefold()
    same = {name for name in names if name.casefold() == folded}
    if same:
        return same
    return {name for name in names if re.sub(_PREFIX, "", name).casefold() == folded}
