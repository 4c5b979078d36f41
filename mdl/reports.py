"""Reports: how an operation went, as values: file by file, model by model. Pure.

Sizes are in bytes, times in seconds. A report keeps the errors themselves; only the console makes text of them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from mdl.errors import MdlError, NoSpace, joint_error, whole_error
from mdl.formatting import as_written, counted, elsewhere, human_bytes, listed
from mdl.notebook import Tabular, error_note, html_table
from mdl.paths import shown
from mdl.values import small_value_class, value_class

_NAMED = 3
"""How many of many files, or of many reasons, a message names."""
_ACTIONS = {"planned": "fetch", "kept": "keep", "failed": "refuse"}
"""What a plan does with a file whose bytes are not elsewhere on this disk."""


@small_value_class
class FileReport(Tabular):
    """How one file went.

    ``action`` is ``fetched``, ``kept``, ``linked``, ``failed`` or ``planned``; ``verified`` says what its bytes were
    compared with: ``sha256``, ``git-sha1``, ``size`` or ``none``. ``resumed_at`` bytes were here before. A planned file
    may be ``elsewhere`` on this disk; ``way`` says how its bytes come from there: ``clone``, ``link`` or ``copy``.
    ``commit`` is that of its source, if the source has commits. ``runs_code`` says whether the file can run code when
    it is loaded, as far as its name and first bytes show it; None if it is not here, and its name does not tell.
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
    runs_code: bool | None = None


@small_value_class
class LeftOutFile:
    """A file of a repository that is not fetched, because its weights are those of another file in another format.
    ``size`` is in bytes; None if it is not known."""

    path: str
    size: int | None = None


@value_class
class ModelReport(Tabular):
    """How one model went. ``path`` is its folder; ``status`` is ``present``, ``partial``, ``missing`` or
    ``unverified``; ``error`` is set if the model failed before any of its files, or one of its sources did. ``file`` is
    the path of the one file that was asked for, if it was exactly one. ``left_out`` are files that are not fetched,
    because they are the same weights in other formats."""

    name: str
    path: Path
    status: str
    files: tuple[FileReport, ...] = ()
    error: MdlError | None = None
    file: Path | None = None
    left_out: tuple[LeftOutFile, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Neither the model nor one of its files failed."""
        return not self.error and not any(file.error for file in self.files)


class BaseReport(Tabular):
    """How an operation went, which may have failed in part."""

    @property
    def error(self) -> MdlError | None:
        """The one error that sums up all failures, of their class if they share an exit code; None if all is well."""
        raise NotImplementedError

    @property
    def exit_code(self) -> int:
        """What the command ends with for it."""
        return self.error.exit_code if self.error else 0

    def raise_for_errors(self) -> None:
        """Raises `error` if anything failed."""
        error = self.error
        if error:
            raise error


class ModelsReport(BaseReport):
    """A report of several ``models``, each of which, or single files of it, may have failed. A model has a ``name``, an
    ``error`` and ``files``; a file has a ``path`` and an ``error``."""

    models: tuple[Any, ...]

    @property
    def failed(self) -> list[Failure]:
        """What failed: first the models, then the files."""
        return failures_of(self.models)

    @property
    def failures(self) -> list[tuple[str, MdlError]]:
        """What failed, as ``model`` or ``model/file``, and why: first the models, then the files."""
        return [(failure.item, failure.error) for failure in self.failed]

    @property
    def summaries(self) -> list[FailureSummary]:
        """What failed, one summary for each model and reason."""
        return summed_up(self.failed)


class TargetsReport(BaseReport):
    """A report of the ``models`` that were named, each with an ``error`` if it failed. ``errors`` are of targets that
    are not here at all."""

    models: tuple[Any, ...]
    errors: tuple[MdlError, ...]

    @property
    def all_errors(self) -> list[MdlError]:
        """The errors of targets that are not here, then those of models."""
        return [*self.errors, *(model.error for model in self.models if model.error)]

    @property
    def error(self) -> MdlError | None:
        """The one error that sums up all failures; None if all is well."""
        return joint_error(self.all_errors)


@value_class
class Report(ModelsReport):
    """How a download went: bytes from the network, bytes that were here before, bytes thrown away, seconds. ``labels``
    are the names of models as people write them."""

    models: tuple[ModelReport, ...] = ()
    bytes_fetched: int = 0
    bytes_kept: int = 0
    bytes_discarded: int = 0
    seconds: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def error(self) -> MdlError | None:
        """The one error that sums up all failures, of their class if they share an exit code; None if all is well.

        It has the single errors as ``errors``.
        """
        return error_of(self.failed, sum(len(model.files) + bool(model.error) or 1 for model in self.models))

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each model, and the error if there is one."""
        rows = []
        for model in self.models:
            size = human_bytes(sum(file.size or 0 for file in model.files))
            name = as_written(model.name, self.labels)
            rows.append((name, model.status, f"{len(model.files):,}", size, str(model.path)))
        return html_table(("Model", "Status", "Files", "Size", "Folder"), rows, error_note(self))


@value_class
class PlanReport(Report):
    """What a download would do: nothing was written. Of ``bytes_total``, ``bytes_to_fetch`` come from the network and
    ``bytes_elsewhere`` are elsewhere on this disk, ``bytes_to_copy`` of which need room; ``bytes_free`` is what the
    disk has, None if it does not tell."""

    bytes_to_fetch: int = 0
    bytes_free: int | None = 0
    bytes_total: int = 0
    bytes_elsewhere: int = 0
    bytes_to_copy: int = 0

    @property
    def rows(self) -> list[tuple[str, str, str, str]]:
        """A row for each file: what is done, its size, how much of it is here, and its path below its model's name."""
        rows = []
        for model in self.models:
            name = as_written(model.name, self.labels)
            for file in model.files:
                action = file.way or _ACTIONS.get(file.action, "-")
                here = file.size if file.action == "kept" else file.resumed_at
                cells = (action, human_bytes(file.size), human_bytes(here) if here else "")
                rows.append((*cells, f"{name}/{file.path}"))
        return rows

    @property
    def summary(self) -> str:
        """What is fetched, what comes from this disk, and how much is free."""
        near = f"{elsewhere(self.bytes_elsewhere, self.bytes_to_copy)}; " if self.bytes_elsewhere else ""
        free = "free space not known"
        if self.bytes_free is not None:
            free = f"{human_bytes(self.bytes_free)} free on the disk"
        return f"{human_bytes(self.bytes_to_fetch)} to fetch; {near}{free}"

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each file, and the error or the sum."""
        return html_table(("Action", "Size", "Here", "File"), self.rows, error_note(self) or self.summary)

    @property
    def error(self) -> MdlError | None:
        return no_space(self.bytes_to_fetch, self.bytes_to_copy, self.bytes_free) or super().error


@value_class
class Failure:
    """What failed: a model as a whole, or the file at ``path`` of it. The model has ``count`` files."""

    model: str
    error: MdlError
    path: str = ""
    count: int = 0

    @property
    def item(self) -> str:
        """``model``, or ``model/file``."""
        return f"{self.model}/{self.path}" if self.path else self.model


@value_class
class FailureSummary:
    """What failed of one model for one reason: the model as a whole, or the files at ``paths`` of its ``count``."""

    model: str
    reason: str
    paths: tuple[str, ...] = ()
    count: int = 0
    hint: str | None = None

    @property
    def item(self) -> str:
        """What the message is about: the model, or its one file that failed."""
        return f"{self.model}/{self.paths[0]}" if len(self.paths) == 1 else self.model

    @property
    def message(self) -> str:
        """The reason, with the number and some names if several files failed for it. The names are sorted, so that
        the text does not depend on which file failed first."""
        if len(self.paths) < 2:
            return self.reason
        failed = f"{len(self.paths):,} of {counted(self.count, 'file')}" if self.count else f"{len(self.paths):,} files"
        return f"{failed}: {self.reason} ({listed(sorted(map(shown, self.paths)), most=_NAMED)})"


def failures_of(models: Sequence[Any]) -> list[Failure]:
    """What failed: first the models, then the files. A model has a ``name``, an ``error`` and ``files``; a file has a
    ``path`` and an ``error``."""
    lost = [Failure(model.name, model.error) for model in models if model.error]
    files = []
    for model in models:
        for file in model.files:
            if file.error:
                files.append(Failure(model.name, file.error, str(file.path), len(model.files)))
    return lost + files


def summed_up(failures: Sequence[Failure]) -> list[FailureSummary]:
    """One summary for each model and reason, in the order in which they come first."""
    alike: dict[tuple[str, bool, str], list[Failure]] = {}
    for failure in failures:
        alike.setdefault((failure.model, bool(failure.path), failure.error.message), []).append(failure)
    summaries = []
    for (model, _, reason), group in alike.items():
        paths = tuple(failure.path for failure in group if failure.path)
        first = group[0]
        summaries.append(FailureSummary(model, reason, paths, first.count, first.error.advice))
    return summaries


def error_of(failures: Sequence[Failure], total: int) -> MdlError | None:
    """The one error that stands for ``failures`` among ``total`` items, with their reasons; None if there is none."""
    if not failures:
        return None
    if len(failures) == 1:
        [failure] = failures
        only = copy.copy(failure.error).on(failure.item)
        only.__cause__ = failure.error.__cause__
        return only
    errors = [failure.error for failure in failures]
    summaries = summed_up(failures)
    if len(summaries) == 1:
        [summary] = summaries
        return whole_error(summary.message, errors).on(summary.item)
    messages = [f"{summary.item}: {summary.message}" for summary in summaries]
    reasons = listed(messages, "; ", most=_NAMED, noun="reasons")
    return whole_error(f"{len(failures):,} of {total:,} failed: {reasons}", errors)


def no_space(to_fetch: int, to_copy: int, free: int | None) -> NoSpace | None:
    """The error of a plan that needs more bytes than are ``free``; None if it fits, or if nobody knows."""
    need = to_fetch + to_copy
    if free is None or need <= free:
        return None
    copied = f" ({human_bytes(to_copy)} of it for copies from elsewhere on this machine)" if to_copy else ""
    short = f"{human_bytes(free)} are free: {human_bytes(need - free)} short"
    return NoSpace(
        f"the plan needs {human_bytes(need)}{copied} and {short}",
        hint="free some space, choose another folder with --to, or narrow with --include",
    )
