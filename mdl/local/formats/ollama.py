"""Ollama's store: manifests name the layers of a model, which are blobs named by their sha256.

``manifests/<registry>/<namespace>/<model>/<tag>`` is JSON with ``layers``: ``mediaType``, ``digest``, ``size``. The
weights are GGUF files. https://github.com/ollama/ollama/blob/main/docs/import.md
"""

from __future__ import annotations

from mdl.bounds import parse_json
from mdl.errors import MdlError
from mdl.hashing import Digest
from mdl.local.formats import Folder, FoundFile, FoundModel

_LAYERS = {
    "application/vnd.ollama.image.model": "",
    "application/vnd.ollama.image.projector": "-projector",
    "application/vnd.ollama.image.adapter": "-adapter",
}
"""What is added to a model's name for the file of each kind of layer."""


def recognize(folder: Folder) -> list[FoundModel] | None:
    """The models of the store in ``folder``, or in ``models/`` below it."""
    for head in ("", "models/"):
        manifests = folder.below(f"{head}manifests/")
        if manifests and folder.below(f"{head}blobs/"):
            models = (_model(folder, head, name, manifests[name]) for name in sorted(manifests))
            return [model for model in models if model.files]
    return None


def _model(folder: Folder, head: str, name: str, manifest: str) -> FoundModel:
    """The model of one manifest; without files if the manifest is damaged, or names none that is here."""
    name = _name(name)
    files = dict[str, FoundFile]()
    try:
        layers = [(one["mediaType"], one["digest"]) for one in parse_json(folder.read(manifest))["layers"]]
        named = [(kind, Digest.parse(*text.split(":"))) for kind, text in layers if kind in _LAYERS]
    except (ValueError, KeyError, TypeError, AttributeError, MdlError):
        named = []
    for kind, digest in named:
        blobs = (f"{head}blobs/sha256{mark}{digest.hex}" for mark in "-:")
        at = next((blob for blob in blobs if blob in folder.files), None)
        path = name + _LAYERS[kind]
        if at is not None:
            path += f"-{len(files) + 1}" if f"{path}.gguf" in files else ""
            files[f"{path}.gguf"] = FoundFile(at, f"{path}.gguf", folder.files[at], digest, named_by_digest=True)
    return FoundModel(name, tuple(files.values()))


def _name(manifest: str) -> str:
    """``registry.ollama.ai/library/llama3/8b`` is ``llama3-8b``; another namespace stands in front."""
    *place, model, tag = manifest.split("/")
    owner = [place[-1]] if place and place[-1] != "library" else []
    return "--".join([*owner, model if tag == "latest" else f"{model}-{tag}"])
