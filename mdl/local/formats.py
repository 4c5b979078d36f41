"""Formats: how other programs lay out their models, so that `mdl import` finds them. Pure.

A new format is a function ``folder -> list of FoundModel, or None`` and one line in `FORMATS` at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field

from mdl.bounds import parse_json
from mdl.errors import MdlError
from mdl.hashing import Digest
from mdl.sources.hub_origin import is_pinned
from mdl.values import value_class


@value_class
class FoundFile:
    """A file in a folder of another program: ``at`` this path below the folder, to be ``path`` in its model, ``size``
    in bytes. ``digest`` and ``commit`` are what that program wrote down about it. If the file is ``named_by_digest``,
    other bytes are damage; else somebody may have edited it."""

    at: str
    path: str
    size: int
    digest: Digest | None = None
    commit: str | None = None
    named_by_digest: bool = False


@value_class
class FoundModel:
    """Files that belong together, and what they are called if no catalog knows them."""

    name: str
    files: tuple[FoundFile, ...]


@value_class
class Folder:
    """The folder ``name`` as it was read: the sizes in bytes of its ``files`` by their paths, and ``read``, which
    returns the text of a small one, or '' if that cannot be read."""

    name: str
    files: Mapping[str, int]
    read: Callable[[str], str] = field(default=lambda _path: "")

    def below(self, prefix: str) -> dict[str, str]:
        """The paths that begin with ``prefix``, by what follows it."""
        return {path.removeprefix(prefix): path for path in self.files if path.startswith(prefix)}


def is_hidden(path: str) -> bool:
    """Return whether the path leads through a hidden file or folder, such as ``.git`` or ``.cache``."""
    return path.startswith(".") or "/." in path


# Ollama: manifests name the layers of a model, which are blobs named by their sha256. A manifest is JSON at
# ``manifests/<registry>/<namespace>/<model>/<tag>`` with ``layers``: ``mediaType``, ``digest``, ``size``. The weights
# are GGUF files. https://github.com/ollama/ollama/blob/main/docs/import.md

_LAYERS = {
    "application/vnd.ollama.image.model": "",
    "application/vnd.ollama.image.projector": "-projector",
    "application/vnd.ollama.image.adapter": "-adapter",
}
"""The ending of a model's name for the file of each kind of layer."""


def of_ollama(folder: Folder) -> list[FoundModel] | None:
    """Return the models of Ollama's store in ``folder``, or in ``models/`` below it."""
    for head in ("", "models/"):
        manifests = folder.below(f"{head}manifests/")
        blobs = folder.below(f"{head}blobs/")
        if manifests and blobs:
            return _ollama_models(folder, manifests, blobs)
    return None


def _ollama_models(folder: Folder, manifests: Mapping[str, str], blobs: Mapping[str, str]) -> list[FoundModel]:
    """The models of these manifests, as far as their blobs are here; none of a manifest that is damaged."""
    models: list[FoundModel] = []
    for manifest in sorted(manifests):
        name = _name_in_ollama(manifest)
        files: dict[str, FoundFile] = {}
        for media_type, digest in _layers(folder.read(manifests[manifest])):
            place = blobs.get(f"sha256-{digest.hex}")
            if place is None:
                continue
            path = f"{name}{_LAYERS[media_type]}.gguf"
            if path in files:
                path = f"{name}{_LAYERS[media_type]}-{len(files) + 1}.gguf"
            files[path] = FoundFile(place, path, folder.files[place], digest, named_by_digest=True)
        if files:
            models.append(FoundModel(name, tuple(files.values())))
    return models


def _name_in_ollama(manifest: str) -> str:
    """``registry.ollama.ai/library/llama3/8b`` is ``llama3-8b``; another namespace stands in front."""
    *place, model, tag = manifest.split("/")
    name = model if tag == "latest" else f"{model}-{tag}"
    if place and place[-1] != "library":
        return f"{place[-1]}--{name}"
    return name


def _layers(manifest: str) -> list[tuple[str, Digest]]:
    """The media type and digest of each layer with weights; none if the manifest is damaged."""
    layers: list[tuple[str, Digest]] = []
    try:
        for layer in parse_json(manifest)["layers"]:
            if layer["mediaType"] in _LAYERS:
                layers.append((layer["mediaType"], Digest.parse(*layer["digest"].split(":"))))
    except (ValueError, KeyError, TypeError, AttributeError, MdlError):
        return []
    return layers


# ``hf download --local-dir``: beside the files is what the hub said of each.
# ``.cache/huggingface/download/<path>.metadata`` has three lines: the commit, the ETag (sha256 or git blob id) and the
# time. The repository is not written down.
# https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub/_local_folder.py

_NOTES = ".cache/huggingface/download/"


def of_local_dir(folder: Folder) -> list[FoundModel] | None:
    """Return a model for the folder itself, or for each folder in it that the hub's client made."""
    heads: set[str] = set()
    for path in folder.files:
        head, mark, note = path.partition(_NOTES)
        if mark and note.endswith(".metadata") and head.count("/") <= 1:
            heads.add(head)
    if not heads:
        return None
    if "" in heads:
        heads = {""}
    models: list[FoundModel] = []
    for head in sorted(heads):
        files: list[FoundFile] = []
        for path in folder.below(head):
            if not is_hidden(path):
                files.append(_noted_file(folder, head, path))
        models.append(FoundModel(head.rstrip("/") or folder.name, tuple(files)))
    return models


def _noted_file(folder: Folder, head: str, path: str) -> FoundFile:
    """A file with what the hub's client noted of it."""
    at = head + path
    lines = folder.read(f"{head}{_NOTES}{path}.metadata").splitlines()
    commit, etag, *_ = [*lines, "", ""]
    noted_commit = commit.strip()
    return FoundFile(
        at,
        path,
        folder.files[at],
        Digest.of_etag(etag.strip()),
        noted_commit if is_pinned(noted_commit) else None,
    )


# ComfyUI's ``models``: folders by kind, in which most files are models by themselves.
# https://github.com/comfyanonymous/ComfyUI/blob/master/folder_paths.py

_NAMES = """
    audio_encoders checkpoints clip clip_vision controlnet diffusers diffusion_models embeddings gligen hypernetworks
    latent_upscale_models loras model_patches photomaker style_models text_encoders unet upscale_models vae vae_approx
"""
_KINDS = frozenset(_NAMES.split())
_WEIGHTS = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".pkl")
_ENOUGH = 3
"""So many folders of these names make it ComfyUI's, ``checkpoints`` among them or not. One is enough in a folder called
``models`` that has weights nowhere else: a new ComfyUI has few models."""


def of_comfyui(folder: Folder) -> list[FoundModel] | None:
    """Return the models of ``folder``, or of ``models/`` in it."""
    for head in ("", "models/"):
        paths = sorted(folder.below(head))
        kinds: set[str] = set()
        places_of_weights: set[str] = set()
        for path in paths:
            top, slash, _ = path.partition("/")
            if slash and not is_hidden(path):
                kinds.add(top)
            if path.lower().endswith(_WEIGHTS):
                places_of_weights.add(top)
        has_enough = len(kinds & _KINDS) >= _ENOUGH
        is_called_models = head == "models/" or folder.name == "models"
        has_its_weights_only = bool(places_of_weights) and places_of_weights <= _KINDS
        if has_enough or (is_called_models and has_its_weights_only):
            return _comfyui_models(folder, head, paths)
    return None


def _comfyui_models(folder: Folder, head: str, paths: list[str]) -> list[FoundModel]:
    """A file ``loras/sdxl/x.safetensors`` is the model ``loras--sdxl--x``; a folder below ``diffusers`` is one."""
    files: dict[str, list[FoundFile]] = {}
    for path in paths:
        if "/" not in path or is_hidden(path):
            continue
        kind, *folders, name = path.split("/")
        if kind == "diffusers" and folders:
            model = f"{kind}--{folders[0]}"
            name = "/".join([*folders[1:], name])
        elif kind in _KINDS and name.lower().endswith(_WEIGHTS):
            model = "--".join([kind, *folders, name.rpartition(".")[0]])
        else:
            continue
        at = head + path
        files.setdefault(model, []).append(FoundFile(at, name, folder.files[at]))
    return [FoundModel(model, tuple(of_model)) for model, of_model in files.items()]


def of_any(folder: Folder) -> list[FoundModel]:
    """Return one model with the folder's name, or none if there is no file; hidden files are left out."""
    files: list[FoundFile] = []
    for path, size in folder.files.items():
        if not is_hidden(path):
            files.append(FoundFile(path, path, size))
    if not files:
        return []
    return [FoundModel(folder.name, tuple(files))]


FORMATS: Mapping[str, Callable[[Folder], list[FoundModel] | None]] = {
    "ollama": of_ollama,
    "hf-local-dir": of_local_dir,
    "comfyui": of_comfyui,
    "plain": of_any,
}
"""The first format that recognizes a folder is right; the last takes any folder."""


def recognize(folder: Folder) -> tuple[str, list[FoundModel]]:
    """Return the format of a folder, and the models in it."""
    for name, models_in in FORMATS.items():
        models = models_in(folder)
        if models is not None:
            return name, models
    raise AssertionError("the plain format takes any folder")
