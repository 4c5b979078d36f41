"""Remote model: what a model is at its source, asked just now: files, sizes, licence, who may have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdl.catalog.model import Model
from mdl.context import Context
from mdl.errors import MdlError
from mdl.files import RemoteFile
from mdl.local.status import ModelStatus, status_of_files
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.sources.hub import RepoFacts


@value_class
class RemoteModel:
    """A model at its source. ``status`` has its files there, and what of them is on this disk; ``facts`` is None if it
    does not come from a repository of a hub."""

    status: ModelStatus
    facts: RepoFacts | None


def ask(model: Model, tools: Context) -> RemoteModel:
    """Ask the sources of ``model``. Raises `NotFound`, `AuthError`, `NetworkError`, `ProtocolError`, `LockError`."""
    files: list[RemoteFile] = []
    for found in tools.resolver.probe_all(tools.resolver.resolve(model)):
        if isinstance(found, MdlError):
            raise found
        files.append(found)
    hubs = [origin for origin in model.sources if origin.repository]
    facts = getattr(tools.resolver.source(hubs[0]), "facts", None) if hubs else None
    return RemoteModel(status_of_files(model.name, files, tools.store), facts(hubs[0]) if facts else None)
