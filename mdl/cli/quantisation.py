"""The question which quantisation of a repository is meant, asked on a terminal before anything is fetched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
    chosen = {model.name: model for model in models}
    for model in models:
        if model.name not in choices:
            continue
        name = _ask(session, model, choices[model.name])
        if not name:
            continue
        narrowed = model.of_quantisation(name)
        chosen[model.name] = narrowed
        if not model.is_of_catalog:
            _write_into_words(session, client, model, narrowed)
    return list(chosen.values())


def _ask(session: Session, model: Model, choices: Sequence[Quantisation]) -> str:
    """The name that the user chooses; '' for none."""
    memory = memory_size()
    console = session.console
    console.note(f"{model.target} has {len(choices)} quantisations of one model:")
    width = max(len(choice.name) for choice in choices)
    names = {"": ""}
    """The name that each answer means."""
    for number, choice in enumerate(choices, 1):
        names[choice.name.casefold()] = choice.name
        names[str(number)] = choice.name
        line = f"  {number:>2}  {choice.name:<{width}}  {human_bytes(choice.size):>8}"
        if memory is not None and choice.size is not None:
            line += "  fits into memory" if choice.size < memory else "  does not fit into memory"
        console.note(line)
    question = "Which one?"
    if memory is not None:
        question += f" (this machine has {human_bytes(memory)} of memory)"
    question += f" [1-{len(choices)}, a name, or nothing]"
    while True:
        answer = (session.ask(question, "nothing was downloaded") or "").casefold()
        if answer in names:
            return names[answer]


def _write_into_words(session: Session, client: Client, model: Model, narrowed: Model) -> None:
    """Have the job that is recorded ask for the quantisation that was chosen, so that it can be resumed."""
    words = list(session.words)
    for at, word in enumerate(words):
        if word.startswith("-"):
            continue
        with suppress(MdlError):  # a word that names no model
            meant = [(target.name, target.sources) for target in client.models([word])]
            if meant == [(model.name, model.sources)]:
                words[at] = str(narrowed.sources[0])
    session.words = tuple(words)


def memory_size() -> int | None:
    """The bytes of memory of this machine, or of the container that mdl runs in; None if nothing tells."""
    sizes = []
    with suppress(ValueError, OSError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(ValueError, OSError):  # it may be the word max, which is no limit
        sizes.append(int(_MEMORY_OF_CONTAINER.read_text()))
    return min(sizes, default=None)
