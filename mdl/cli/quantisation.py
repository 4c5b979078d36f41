"""The question which quantisation of a repository is meant, asked on a terminal before anything is fetched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdl.cli.session import Session
from mdl.errors import MdlError
from mdl.formatting import human_bytes

if TYPE_CHECKING:
    from mdl import Client, Model, Quantisation

_MEMORY_OF_CONTAINER = Path("/sys/fs/cgroup/memory.max")


def choose_quantisations(
    session: Session, client: Client, models: Sequence[Model], options: Mapping[str, Any], *, in_background: bool
) -> list[Model]:
    """The same models; of those whose repositories have several quantisations, the one that the user chooses.

    Nothing is asked without a terminal, or if ``options`` (those of `Client.get`) name files: the operation then
    reports which quantisations there are. A job that goes on in the background reads its words again, so that a model
    of the catalog is not asked about either: no words name its quantisation. Raises `Cancelled`.
    """
    if options.get("include") or not session.can_ask:
        return list(models)
    asked = [model for model in models if not (in_background and model.is_of_catalog)]
    choices = client.quantisations(asked, **options)
    chosen = []
    for model in models:
        if model.name in choices:
            name = _ask(session, model, choices[model.name])
            if name:
                narrowed = model.of_quantisation(name)
                if not model.is_of_catalog:
                    _write_into_words(session, client, model, narrowed)
                model = narrowed
        chosen.append(model)
    return chosen


def _ask(session: Session, model: Model, choices: Sequence[Quantisation]) -> str:
    """The name that the user chooses; '' for none."""
    memory = memory_size()
    session.console.note(f"{model.target} has {len(choices)} quantisations of one model:")
    width = max(len(one.name) for one in choices)
    for number, one in enumerate(choices, 1):
        size = human_bytes(one.size)
        fits = ""
        if memory is not None and one.size is not None:
            fits = "fits into memory" if one.size < memory else "does not fit into memory"
        session.console.note(f"  {number:>2}  {one.name:<{width}}  {size:>8}  {fits}".rstrip())
    here = f" (this machine has {human_bytes(memory)} of memory)" if memory is not None else ""
    names = {one.name.casefold(): one.name for one in choices}
    names |= {str(number): one.name for number, one in enumerate(choices, 1)}
    while True:
        answer = session.ask(f"Which one?{here} [1-{len(choices)}, a name, or nothing]", "nothing was downloaded")
        answer = (answer or "").casefold()
        if not answer:
            return ""
        if answer in names:
            return names[answer]


def _write_into_words(session: Session, client: Client, model: Model, narrowed: Model) -> None:
    """Have the job that is recorded ask for the quantisation that was chosen, so that it can be resumed."""
    words = []
    for word in session.words:
        try:
            meant = [] if word.startswith("-") else client.models([word])
        except MdlError:
            meant = []
        is_meant = [one.name for one in meant] == [model.name] and meant[0].sources == model.sources
        words.append(str(narrowed.sources[0]) if is_meant else word)
    session.words = tuple(words)


def memory_size() -> int | None:
    """The bytes of memory of this machine, or of the container that mdl runs in; None if nothing tells."""
    sizes = []
    try:
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):
        pass
    try:
        limit = _MEMORY_OF_CONTAINER.read_text().strip()
        if limit.isdecimal():
            sizes.append(int(limit))
    except OSError:
        pass
    return min(sizes, default=None)
