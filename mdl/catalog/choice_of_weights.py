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
    files = tuple(listing)
    redundant = _redundant_files(_folders(files))
    chosen = tuple(file for file in files if str(file.path) not in redundant)
    left_out = tuple(file for file in files if str(file.path) in redundant)
    quantisations = quantisations_of(chosen)
    return Chosen(chosen, left_out, tuple(quantisations) if len(quantisations) > 1 else ())


def several(quantisations: Sequence[Quantisation], origin: HubOrigin, *, is_of_catalog: bool) -> SeveralQuantisations:
    """The error of a repository of which one quantisation must be named, with their sizes and how to name one."""
    names = listed([f"{quantisation.name} {human_bytes(quantisation.size)}" for quantisation in quantisations])
    example = replace(origin.whole, quant=quantisations[0].name)
    if is_of_catalog:
        hint = f'name one in its entry, as in source = "{example}"; --all downloads all'
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
    def is_of_model(self) -> bool:
        """Whether a framework gives this name to the weights of a folder's model."""
        return self.stem in _STEMS_OF_FRAMEWORKS or re.fullmatch(_CONSOLIDATED, self.stem) is not None

    @property
    def is_exported(self) -> bool:
        """Whether an exporter gives this name to what it makes of the weights of a folder's model."""
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


class _Folder(Generic[File]):
    """The files directly in one folder: all of them, and those of weights with what their names say."""

    def __init__(self) -> None:
        self.files: list[File] = []
        self.weights: list[tuple[File, _Name]] = []

    @cached_property
    def complete(self) -> set[tuple[str, str]]:
        """Stem and precision of each complete set of safetensors. Shards are counted from 1, by some from 0 on."""
        complete: set[tuple[str, str]] = set()
        shards: dict[tuple[str, str, int], set[int]] = {}
        for _, name in self.weights:
            if name.kind != _SAFETENSORS or name.is_index:
                continue
            if name.shards == 0:
                complete.add((name.stem, name.precision))
                continue
            present = shards.setdefault((name.stem, name.precision, name.shards), set())
            present.add(name.shard)
            if len(present) >= name.shards and present.issuperset(range(1, name.shards + 1)):
                complete.add((name.stem, name.precision))
        return complete

    @property
    def precisions_of_model(self) -> set[str]:
        """The precisions in which the safetensors of the folder's model are complete; '' is the usual one."""
        return {precision for stem, precision in self.complete if stem in _MAIN_STEMS}

    @property
    def has_model(self) -> bool:
        """Whether the safetensors of the folder's model are complete in the usual precision."""
        return "" in self.precisions_of_model


def _folders(files: Iterable[File]) -> dict[str, _Folder[File]]:
    """The folders of a listing by their paths; '' is the repository itself."""
    folders: dict[str, _Folder[File]] = {"": _Folder()}
    for file in files:
        path = str(file.path)
        folder = folders.setdefault(path.rpartition("/")[0], _Folder())
        folder.files.append(file)
        name = _read_name(path)
        if name is not None:
            folder.weights.append((file, name))
    return folders


def _redundant_files(folders: Mapping[str, _Folder[File]]) -> set[str]:
    """The paths of the files that hold the same weights as a complete set of safetensors."""
    redundant: set[str] = set()
    if not any(folder.complete for folder in folders.values()):
        return redundant
    roots = _folders_named_after_formats(folders) | _exported_parts(folders)
    for path, folder in folders.items():
        if _is_in(path, roots):
            redundant.update(str(file.path) for file in folder.files)
        else:
            redundant.update(_redundant_in(folder))
    return redundant


def _redundant_in(folder: _Folder[File]) -> set[str]:
    """The paths of the files of a folder that hold the same weights as a complete set of safetensors in it."""
    redundant: set[str] = set()
    graphs: set[str] = set()
    for file, name in folder.weights:
        if _is_redundant(name, folder):
            path = str(file.path)
            redundant.add(path)
            graphs.add(f"{stem_of(path)}.xml")  # OpenVINO's, of the weights in the .bin of the same name
    redundant.update(str(file.path) for file in folder.files if str(file.path) in graphs)
    return redundant


def _is_redundant(name: _Name, folder: _Folder[File]) -> bool:
    """Whether a complete set of safetensors in the folder holds the weights of the file of this name."""
    usual = (name.stem, "")
    precisions = folder.precisions_of_model
    if name.kind == _SAFETENSORS and not re.fullmatch(_CONSOLIDATED, name.stem):
        return name.precision != "" and usual in folder.complete
    if name.is_of_model:
        return "" in precisions or name.precision in precisions
    if name.is_exported or name.kind == _GGUF:
        return "" in precisions
    return usual in folder.complete or (name.stem, name.precision) in folder.complete


def _folders_named_after_formats(folders: Mapping[str, _Folder[File]]) -> set[str]:
    """The folders with weights whose names say that they hold the model of the folder they are in in another format."""
    roots: set[str] = set()
    for path, folder in folders.items():
        if not folder.weights:
            continue
        parts = path.split("/")
        for depth, part in enumerate(parts):
            parent = folders.get("/".join(parts[:depth]))
            if part.lower() in _NAMES_OF_FORMATS and parent is not None and parent.has_model:
                roots.add("/".join(parts[: depth + 1]))
                break
    return roots


def _exported_parts(folders: Mapping[str, _Folder[File]]) -> set[str]:
    """The parts of a diffusers pipeline that exist as an export alone, as ``vae_decoder``, if all other parts have
    their model."""
    if _PIPELINE not in [str(file.path) for file in folders[""].files]:
        return set()
    exported: set[str] = set()
    for path, folder in folders.items():
        if path == "" or "/" in path or not folder.weights:
            continue
        if all(name.is_exported for _, name in folder.weights):
            exported.add(path)
        elif not folder.has_model:
            return set()
    return exported


def _is_in(path: str, roots: set[str]) -> bool:
    """Whether a folder is one of the roots, or below one."""
    parts = path.split("/")
    return any("/".join(parts[:depth]) in roots for depth in range(1, len(parts) + 1))
