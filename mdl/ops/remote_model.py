"""Remote model: what a model is at its source, asked just now: files, sizes, licence, who may have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mdl.catalog.choice_of_weights import SeveralQuantisations
from mdl.catalog.model import Model
from mdl.context import Context
from mdl.errors import MdlError
from mdl.files import RemoteFile
from mdl.local.from_receipts import MeantFiles
from mdl.local.status import ModelStatus, status_of_files
from mdl.reports import LeftOutFile
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.sources import RepoFacts
    from mdl.sources.gguf import Quantisation


@value_class
class RemoteModel:
    """A model at its source. ``status`` has its files there, and what of them is on this disk; ``facts`` is None if it
    does not come from a repository of a hub. ``left_out`` are the same weights in other formats."""

    status: ModelStatus
    facts: RepoFacts | None
    left_out: tuple[LeftOutFile, ...] = ()


def quantisations(models: Sequence[Model], context: Context) -> dict[str, Sequence[Quantisation]]:
    """The models, by their names, of which only the user can say which quantisation is meant. Repositories are asked,
    and what else is wrong with them is left for others to find."""
    repositories = []
    for model in models:
        is_one_source = len(model.sources) == 1 and not model.files
        if is_one_source and model.sources[0].is_model_repository:
            repositories.append(model)
    found: dict[str, Sequence[Quantisation]] = {}
    for model, answer in zip(repositories, context.resolver.resolve_all(repositories), strict=True):
        if isinstance(answer, SeveralQuantisations):
            found[model.name] = answer.quantisations
    return found


def ask(model: Model, context: Context) -> RemoteModel:
    """Ask the sources of ``model``. Raises `NotFound`, `AuthError`, `NetworkError`, `ProtocolError`, `LockError`."""
    files: list[RemoteFile] = []
    resolved = context.resolver.resolve(model)
    for file in context.resolver.probe_all(resolved.files):
        if isinstance(file, MdlError):
            raise file
        files.append(file)
    hubs = [origin for origin in model.sources if origin.repository]
    facts = context.resolver.source(hubs[0]).facts(hubs[0]) if hubs else None
    status = status_of_files(model.name, MeantFiles(files), context.store)
    left_out = tuple(LeftOutFile(str(file.path), file.size) for file in resolved.left_out)
    return RemoteModel(status, facts, left_out)
