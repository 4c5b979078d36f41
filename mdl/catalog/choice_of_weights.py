"""Choice of weights: which files of a repository are fetched if it has the same weights in several formats. Pure.

Only names are looked at. A file is left out if it is certain, by the names that the frameworks give, that a complete
set of safetensors beside it holds the same weights; what is not certain stays. (ADR 76)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Generic, TypeVar

from mdl.errors import UsageError
from mdl.files import RefusedFile, RemoteFile
from mdl.formatting import human_bytes, listed
from mdl.sources.gguf import Quantisation, quantisations_of
from mdl.sources.hub_origin import HubOrigin
from mdl.values import value_class
from mdl.weights.known_formats import is_weights, kind_of, stem_of

File = TypeVar("File", bound=RemoteFile | RefusedFile)

_SAFETENSORS = "safetensors"
_GGUF = "GGUF"
_MAIN_STEMS = frozenset({"model", "diffusion_pytorch_model"})
"""How transformers, sentence-transformers and diffusers call the safetensors of a folder's model."""
_STEMS_OF_FRAMEWORKS = frozenset(
    {
        *_MAIN_STEMS,
        *("pytorch_model", "tf_model", "flax_model", "rust_model", "openvino_model", "diffusion_flax_model"),
        *("model.ckpt", "bert_model.ckpt", "tf_model.ckpt"),
    }
)
"""How frameworks call the weights of a folder's model."""
_CONSOLIDATED = r"consolidated(\.\d+)?"
"""The same weights in the layout of whoever trained them."""
_EXPORTED = r"openvino_.+|((en|de)coder_)?(with_past_)?(model|decoder)([._-].+)?"
"""Stems of ONNX and OpenVINO files that Optimum exports."""
_EXPORTS = frozenset({"ONNX", "ONNX data", "TensorFlow Lite", "Core ML"})
"""Kinds of files that are only ever made from weights in another format."""
_NAMES_OF_FORMATS = frozenset(
    ["onnx", "openvino", "original", "metal", "coreml", "tf", "tensorflow", "tflite", "flax", "jax", "rust", "gguf"],
)
"""Folders beside the model that hold it in another format."""
_PIPELINE = "model_index.json"
"""The file that marks a pipeline of diffusers, whose parts are the folders beside it."""
_SHARD = r"-(\d{5}-of-\d{5})"
_PRECISION = r"(?i)\.((?:b|bfloat|f|fp|float)(?:8|16|32|64)|int8|int4|[48]bit)(?=$|-)"
_INDEX = r"(?i)(?P<weights>.+)\.index(?P<precision>\.[^.]+)?\.json"
_CHECKPOINT_PART = r"(?i)(?P<stem>.+\.ckpt)\.(data-\d{5}-of-\d{5}|index|meta)"


class SeveralQuantisations(UsageError):
    """A repository has a model in several ``quantisations``, and the user did not say which one to fetch."""

    quantisations: tuple[Quantisation, ...] = ()


@value_class
class Chosen(Generic[File]):
    """The ``files`` of a listing that are fetched, and those that are ``left_out``, because they are the same weights
    in other formats. ``quantisations`` are several GGUF models of which only the user can say which one is meant; none
    if nothing is to be asked. Everything keeps the order of the listing."""

    files: tuple[File, ...]
    left_out: tuple[File, ...] = ()
    quantisations: tuple[Quantisation, ...] = ()


def choose(listing: Iterable[File]) -> Chosen[File]:
    """Choose a set of weights out of the files of a repository, with all that is no weights.

    In each folder a complete set of safetensors replaces the same weights in other formats and precisions. A set is
    complete if all the shards are there that the numbers in their names promise. Where none is complete, nothing is
    left out.
    """
    files = list(listing)
    redundant = _redundant_paths([str(file.path) for file in files])
    chosen: list[File] = []
    left_out: list[File] = []
    for file in files:
        if str(file.path) in redundant:
            left_out.append(file)
        else:
            chosen.append(file)
    quantisations = quantisations_of(chosen)
    if len(quantisations) == 1:
        quantisations = []  # nothing is to be asked
    return Chosen(tuple(chosen), tuple(left_out), tuple(quantisations))


def several(quantisations: Sequence[Quantisation], origin: HubOrigin, *, is_of_catalog: bool) -> SeveralQuantisations:
    """The error of a repository of which one quantisation must be named, with their sizes and how to name one."""
    names = listed([f"{quantisation.name} {human_bytes(quantisation.size)}" for quantisation in quantisations])
    example = replace(origin.whole, quant=quantisations[0].name)
    if is_of_catalog:
        hint = f'name one in its entry, as in source = "{example}"; include = ["*"] there means all of them'
    else:
        hint = f"name one: mdl get {example}; --all downloads all"
    reason = f"{len(quantisations)} quantisations of one model: {names}"
    error = SeveralQuantisations(reason, item=origin.label, hint=hint)
    error.quantisations = tuple(quantisations)
    return error


@value_class
class _Name:
    """The name of a file of weights, in parts. ``stem`` is without precision, shard and suffix; ``kind`` is that of the
    table of weights. The index of a set in shards has their stem and kind, and ``is_index``."""

    stem: str
    precision: str
    kind: str
    is_index: bool = False
    shard: int = 0
    shards: int = 0

    @property
    def is_consolidated(self) -> bool:
        """Return whether it is the name of the same weights in the layout of whoever trained them."""
        return re.fullmatch(_CONSOLIDATED, self.stem) is not None

    @property
    def is_of_model(self) -> bool:
        """Return whether a framework gives this name to the weights of a folder's model."""
        return self.stem in _STEMS_OF_FRAMEWORKS or self.is_consolidated

    @property
    def is_exported(self) -> bool:
        """Return whether an exporter gives this name to what it makes of the weights of a folder's model."""
        is_export = self.kind in _EXPORTS or self.stem.startswith("openvino_")
        return is_export and re.fullmatch(_EXPORTED, self.stem) is not None


def _read_name(path: str) -> _Name | None:
    """None if the file holds no weights, and is no index of a set of weights in shards."""
    name = path.rpartition("/")[2]
    checkpoint = re.fullmatch(_CHECKPOINT_PART, name)
    if checkpoint:
        return _Name(checkpoint["stem"], "", "TensorFlow")
    index = re.fullmatch(_INDEX, name)
    weights = index["weights"] if index else name
    kind = kind_of(weights)
    if kind is None or not is_weights(weights):
        return None
    stem, numbers = _cut_out(_SHARD, stem_of(weights))
    stem, precision = _cut_out(_PRECISION, stem)
    if index and index["precision"]:
        precision = index["precision"].removeprefix(".")
    shard, _, shards = numbers.partition("-of-")
    return _Name(stem, precision.lower(), kind.name, index is not None, int(shard or 0), int(shards or 0))


def _cut_out(pattern: str, stem: str) -> tuple[str, str]:
    """The stem without what the pattern finds in it, and the group of that; '' if it finds nothing."""
    part = re.search(pattern, stem)
    if not part:
        return stem, ""
    return re.sub(pattern, "", stem), part[1]


class _Folder:
    """The paths of the files directly in one folder: of all of them, and of those with weights, with what their names
    say."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.weights: dict[str, _Name] = {}

    @cached_property
    def complete(self) -> set[tuple[str, str]]:
        """Stem and precision of each complete set of safetensors. Shards are counted from 1, by some from 0 on."""
        numbers: dict[tuple[str, str, int], set[int]] = {}
        for name in self.weights.values():
            if name.kind == _SAFETENSORS and not name.is_index:
                numbers.setdefault((name.stem, name.precision, name.shards), set()).add(name.shard)
        complete: set[tuple[str, str]] = set()
        for (stem, precision, shards), present in numbers.items():
            if sum(1 <= number <= shards for number in present) == shards:
                complete.add((stem, precision))
        return complete

    def has_model(self, precision: str = "") -> bool:
        """Return whether the safetensors of the folder's model are complete in this precision; '' is the usual one."""
        return any((stem, precision) in self.complete for stem in _MAIN_STEMS)

    def holds(self, name: _Name) -> bool:
        """Return whether a complete set of safetensors in it holds the weights of the file of this name."""
        has_usual = (name.stem, "") in self.complete
        if name.kind == _SAFETENSORS and not name.is_consolidated:
            return has_usual and name.precision != ""
        if name.is_of_model:
            return self.has_model() or self.has_model(name.precision)
        if name.is_exported or name.kind == _GGUF:
            return self.has_model()
        return has_usual or (name.stem, name.precision) in self.complete

    def redundant_paths(self) -> set[str]:
        """The paths of the files that hold the same weights as a complete set of safetensors in it."""
        redundant = {path for path, name in self.weights.items() if self.holds(name)}
        graphs = {f"{stem_of(path)}.xml" for path in redundant}  # OpenVINO's, of the weights in the .bin of this name
        return redundant | graphs.intersection(self.paths)


def _redundant_paths(paths: Iterable[str]) -> set[str]:
    """The paths of the files of a listing that hold the same weights as a complete set of safetensors."""
    folders = _folders(paths)
    redundant: set[str] = set()
    if not any(folder.complete for folder in folders.values()):
        return redundant
    roots = _folders_named_after_formats(folders) | _exported_parts(folders)
    for path, folder in folders.items():
        if not roots.isdisjoint(_folders_above(path)):
            redundant.update(folder.paths)
        else:
            redundant |= folder.redundant_paths()
    return redundant


def _folders(paths: Iterable[str]) -> dict[str, _Folder]:
    """The folders of a listing by their paths; '' is the repository itself."""
    folders = {"": _Folder()}
    for path in paths:
        folder = folders.setdefault(path.rpartition("/")[0], _Folder())
        folder.paths.append(path)
        name = _read_name(path)
        if name is not None:
            folder.weights[path] = name
    return folders


def _folders_named_after_formats(folders: Mapping[str, _Folder]) -> set[str]:
    """The folders with weights whose names say that they hold the model of the folder they are in in another format."""
    with_model = {path for path, folder in folders.items() if folder.has_model()}
    roots: set[str] = set()
    for path, folder in folders.items():
        if not folder.weights:
            continue
        parts = path.split("/")
        for depth, part in enumerate(parts):
            if part.lower() in _NAMES_OF_FORMATS and "/".join(parts[:depth]) in with_model:
                roots.add("/".join(parts[: depth + 1]))
                break
    return roots


def _exported_parts(folders: Mapping[str, _Folder]) -> set[str]:
    """The parts of a diffusers pipeline that exist as an export alone, as ``vae_decoder``, if all other parts have
    their model."""
    exported: set[str] = set()
    if _PIPELINE not in folders[""].paths:
        return exported
    for path, folder in folders.items():
        is_part = path != "" and "/" not in path
        if not is_part or not folder.weights:
            continue
        if all(name.is_exported for name in folder.weights.values()):
            exported.add(path)
        elif not folder.has_model():
            return set()
    return exported


def _folders_above(path: str) -> list[str]:
    """The path of a folder itself, and those of the folders that it is in."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
