"""Formats: how other programs lay out their models, so that `mdl import` finds them. Each module here knows one. Pure.

A new format is one module with a function ``recognize(folder) -> list[FoundModel] | None``, and one line in `FORMATS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import field

from mdl.hashing import Digest
from mdl.values import value_class

FORMATS = {
    "ollama": "mdl.local.formats.ollama",
    "hf-local-dir": "mdl.local.formats.local_dir",
    "comfyui": "mdl.local.formats.comfyui",
    "plain": "mdl.local.formats.plain",
}
"""The module of each format. The first that recognizes a folder is right; the last takes any folder."""


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


def recognize(folder: Folder) -> tuple[str, list[FoundModel]]:
    """The format of a folder, and the models in it."""
    for name, module in FORMATS.items():
        found: list[FoundModel] | None = importlib.import_module(module).recognize(folder)
        if found is not None:
            return name, found
    raise AssertionError("the plain format takes any folder")


def is_hidden(path: str) -> bool:
    """Whether the path leads through a hidden file or folder, such as ``.git`` or ``.cache``."""
    return any(segment.startswith(".") for segment in path.split("/"))
