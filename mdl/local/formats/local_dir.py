"""Folders of ``hf download --local-dir``: beside the files is what the hub said of each.

``.cache/huggingface/download/<path>.metadata`` has three lines: the commit, the ETag (sha256 or git blob id) and the
time. The repository is not written down. A folder of several such folders is read as well.
https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub/_local_folder.py
"""

from __future__ import annotations

from mdl.hashing import Digest
from mdl.local.formats import Folder, FoundFile, FoundModel, is_hidden
from mdl.sources.hub_origin import is_pinned

_CACHE = ".cache/huggingface/download/"
_ENDING = ".metadata"


def recognize(folder: Folder) -> list[FoundModel] | None:
    """A model for the folder itself, or for each folder in it that the hub's client made."""
    heads = {path.partition(_CACHE)[0] for path in folder.files if _CACHE in path and path.endswith(_ENDING)}
    tops = sorted(head for head in heads if head.count("/") <= 1)
    if not tops:
        return None
    return [_model(folder, head) for head in ([""] if "" in tops else tops)]


def _model(folder: Folder, head: str) -> FoundModel:
    files = []
    for path, at in folder.below(head).items():
        if not is_hidden(path):
            commit, etag, *_ = [*folder.read(f"{head}{_CACHE}{path}{_ENDING}").splitlines(), "", ""]
            known = commit.strip() if is_pinned(commit.strip()) else None
            files.append(FoundFile(at, path, folder.files[at], Digest.of_etag(etag.strip()), known))
    return FoundModel(head.rstrip("/") or folder.name, tuple(files))
