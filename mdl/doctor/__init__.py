"""Doctor: what of this machine's surroundings works, and what to do about what does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mdl.doctor.certificates import certificates
from mdl.doctor.finding import Finding
from mdl.doctor.folder import models_folder, state_folder
from mdl.doctor.hub import hub
from mdl.doctor.pickles import pickles
from mdl.doctor.proxy import proxy
from mdl.doctor.token import token_file
from mdl.doctor.versions import versions
from mdl.errors import MdlError
from mdl.http.client import Http
from mdl.sources.endpoint import Endpoint

__all__ = ["Finding", "Subject", "examine"]


@dataclass(frozen=True)
class Subject:
    """What is looked at. Each is called once, and may raise `MdlError`: that is then what was found.

    ``catalog`` and ``lock`` are told in words; ``connect`` None contacts nobody.
    """

    catalog: Callable[[], str]
    lock: Callable[[], str]
    home: Callable[[], Path]
    state: Callable[[], Path]
    endpoint: Callable[[], Endpoint]
    connect: Callable[[], Http] | None


def examine(subject: Subject) -> Iterator[Finding]:
    """Look at everything, one thing after the other; nothing raises but an interruption."""
    yield versions()
    yield _told("catalog", subject.catalog)
    yield _told("lock", subject.lock)
    yield from models_folder(subject.home)
    yield from pickles(subject.home)
    yield state_folder(subject.state)
    yield certificates()
    try:
        endpoint = subject.endpoint()
    except MdlError as error:
        yield _unset(error)
        return
    yield proxy(endpoint.url)
    yield from token_file(endpoint)
    yield from hub(endpoint, subject.connect)


def _unset(error: MdlError) -> Finding:
    """The endpoint or the token is set to what it cannot be."""
    if error.item == "HF_ENDPOINT":
        return Finding.of("endpoint", error, "set HF_ENDPOINT as https://host, or unset it")
    return Finding.of("token", error, f"put the token alone into {error.item}, with no space or line break in it")


def _told(name: str, tell: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, tell())
    except MdlError as error:
        return Finding.of(name, error)
