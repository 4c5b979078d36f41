"""Reports: how an operation went, as values: file by file, model by model. Pure.

Sizes are in bytes, times in seconds. A report keeps the errors themselves; only the console makes text of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdl.errors import MdlError, NoSpace, whole_error
from mdl.formatting import human_bytes
from mdl.values import small_value_class, value_class


@small_value_class
class FileReport:
    """How one file went.

    ``action`` is ``fetched``, ``kept``, ``linked``, ``failed`` or ``planned``; ``verified`` says what its bytes were
    compared with: ``sha256``, ``git-sha1``, ``size`` or ``none``. ``resumed_at`` bytes were here before. A planned file
    may be ``elsewhere`` on this disk; ``way`` says how its bytes come from there: ``clone``, ``link`` or ``copy``.
    ``commit`` is that of its source, if the source has commits.
    """

    path: str
    size: int | None
    sha256: str | None
    action: str
    verified: str
    resumed_at: int = 0
    url: str = ""
    error: MdlError | None = None
    elsewhere: bool = False
    way: str | None = None
    commit: str | None = None


@value_class
class ModelReport:
    """How one model went. ``path`` is its folder; ``status`` is ``present``, ``partial``, ``missing`` or
    ``unverified``; ``error`` is set if the model failed before any of its files, or one of its sources did."""

    name: str
    path: Path
    status: str
    files: tuple[FileReport, ...] = ()
    error: MdlError | None = None

    @property
    def is_whole(self) -> bool:
        """Neither the model nor one of its files failed."""
        return not self.error and not any(file.error for file in self.files)


class BaseReport:
    """How an operation went, which may have failed in part."""

    @property
    def error(self) -> MdlError | None:
        """The one error that stands for all, of their class if they share an exit code; None if all is well."""
        raise NotImplementedError

    @property
    def exit_code(self) -> int:
        """What the command ends with for it."""
        return self.error.exit_code if self.error else 0

    def raise_for_errors(self) -> None:
        """Raises `error` if anything failed."""
        if error := self.error:
            raise error


@value_class
class Report(BaseReport):
    """How a download went: bytes from the network, bytes that were here before, bytes thrown away, seconds."""

    models: tuple[ModelReport, ...] = ()
    bytes_fetched: int = 0
    bytes_kept: int = 0
    bytes_discarded: int = 0
    seconds: float = 0.0

    @property
    def failures(self) -> list[tuple[str, MdlError]]:
        """What failed, as ``model`` or ``model/file``, and why: first the models, then the files."""
        return failures_of(self.models)

    @property
    def error(self) -> MdlError | None:
        """The one error that stands for all failures, of their class if they share an exit code; None if all is well.

        It has the single errors as ``errors``.
        """
        return error_of(self.failures, sum(len(model.files) + bool(model.error) or 1 for model in self.models))


@value_class
class PlanReport(Report):
    """What a download would do: nothing was written. Of ``bytes_total``, ``bytes_to_fetch`` come from the network and
    ``bytes_elsewhere`` are elsewhere on this disk, ``bytes_to_copy`` of which need room; ``bytes_free`` is what the
    disk has."""

    bytes_to_fetch: int = 0
    bytes_free: int = 0
    bytes_total: int = 0
    bytes_elsewhere: int = 0
    bytes_to_copy: int = 0

    @property
    def error(self) -> MdlError | None:
        return no_space(self.bytes_to_fetch, self.bytes_to_copy, self.bytes_free) or super().error


def failures_of(models: Sequence[Any]) -> list[tuple[str, MdlError]]:
    """The errors of models, by their names, then those of their files, as ``model/file``. A model has a ``name``, an
    ``error`` and ``files``; a file has a ``path`` and an ``error``."""
    found = [(model.name, model.error) for model in models if model.error]
    files = ((model.name, file) for model in models for file in model.files)
    return found + [(f"{name}/{file.path}", file.error) for name, file in files if file.error]


def error_of(failures: Sequence[tuple[str, MdlError]], total: int) -> MdlError | None:
    """The one error that stands for ``failures``, each with its item, among ``total`` items; None if there is none."""
    if not failures:
        return None
    item, first = failures[0]
    if len(failures) == 1:
        only = copy.copy(first).on(item)
        only.__cause__ = first.__cause__
        return only
    reasons = ", ".join(sorted({error.code for _, error in failures}))
    return whole_error(f"{len(failures)} of {total} failed ({reasons})", [error for _, error in failures])


def no_space(to_fetch: int, to_copy: int, free: int) -> NoSpace | None:
    """The error of a plan that needs more bytes than are free; None if it fits."""
    need = to_fetch + to_copy
    if need <= free:
        return None
    copied = f" ({human_bytes(to_copy)} of it for copies from elsewhere on this machine)" if to_copy else ""
    short = f"{human_bytes(free)} are free: {human_bytes(need - free)} short"
    return NoSpace(
        f"the plan needs {human_bytes(need)}{copied} and {short}",
        hint="free some space, choose another folder with --to, or narrow with --include",
    )
