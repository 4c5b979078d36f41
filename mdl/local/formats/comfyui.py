"""ComfyUI's ``models`` folder: folders by kind, in which most files are models by themselves.

https://github.com/comfyanonymous/ComfyUI/blob/master/folder_paths.py
"""

from __future__ import annotations

from mdl.local.formats import Folder, FoundFile, FoundModel, is_hidden

_NAMES = """
    audio_encoders checkpoints clip clip_vision controlnet diffusers diffusion_models embeddings gligen hypernetworks
    latent_upscale_models loras model_patches photomaker style_models text_encoders unet upscale_models vae vae_approx
"""
_KINDS = frozenset(_NAMES.split())
_WEIGHTS = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".pkl")
_ENOUGH = 3
"""So many folders of these names make it ComfyUI's, ``checkpoints`` among them or not. One is enough in a folder called
``models`` that has weights nowhere else: a new ComfyUI has few models."""


def recognize(folder: Folder) -> list[FoundModel] | None:
    """The models of ``folder``, or of ``models/`` in it. A file ``loras/sdxl/x.safetensors`` is the model
    ``loras--sdxl--x``; a folder below ``diffusers`` is one model."""
    for head in ("", "models/"):
        files = {path: at for path, at in folder.below(head).items() if "/" in path and not is_hidden(path)}
        tops = {path.partition("/")[0] for path in files}
        weights = {path.partition("/")[0] for path in folder.below(head) if path.lower().endswith(_WEIGHTS)}
        is_new = (head or folder.name == "models") and weights and weights <= _KINDS
        if is_new or len(tops & _KINDS) >= _ENOUGH:
            return _models(folder, files)
    return None


def _models(folder: Folder, files: dict[str, str]) -> list[FoundModel]:
    found: dict[str, list[FoundFile]] = {}
    for path, at in sorted(files.items()):
        kind, *folders, name = path.split("/")
        if kind == "diffusers" and folders:
            model = f"{kind}--{folders[0]}"
            inner = "/".join([*folders[1:], name])
        elif kind in _KINDS and name.lower().endswith(_WEIGHTS):
            model = "--".join([kind, *folders, name.rpartition(".")[0]])
            inner = name
        else:
            continue
        found.setdefault(model, []).append(FoundFile(at, inner, folder.files[at]))
    return [FoundModel(name, tuple(files)) for name, files in found.items()]
