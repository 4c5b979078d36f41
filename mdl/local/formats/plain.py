"""Any folder is one model with the folder's name; hidden files are left out."""

from __future__ import annotations

from mdl.local.formats import Folder, FoundFile, FoundModel, is_hidden


def recognize(folder: Folder) -> list[FoundModel]:
    """One model, or none if there is no file."""
    files = [FoundFile(path, path, size) for path, size in folder.files.items() if not is_hidden(path)]
    return [FoundModel(folder.name, tuple(files))] if files else []
