"""Import report: how an import went, file by file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mdl.errors import MdlError, whole_error
from mdl.reports import BaseReport, no_space
from mdl.values import value_class


@value_class
class ImportedFile:
    """The result of one file. ``source`` is its path below the folder. ``action`` is ``imported``, ``kept``, ``failed``
    or ``planned``; ``way`` is how its bytes came: ``clone``, ``link``, ``copy`` or ``move``, and None if they are in
    their place already. ``verified`` is as in a `FileReport`: ``none`` if no digest is published of it. In a plan
    nothing is hashed: ``model`` and ``path`` are then those of a catalog's file of the same size, if there is one."""

    source: str
    model: str
    path: str
    size: int
    digest: str | None = None
    verified: str = "none"
    action: str = "planned"
    way: str | None = None
    of_catalog: bool = False
    error: MdlError | None = None


@value_class
class ImportReport(BaseReport):
    """The result of an import: the ``format`` that was recognized, each file, and what was ``left_out`` and why."""

    folder: Path
    format: str
    files: tuple[ImportedFile, ...]
    left_out: Mapping[str, str]
    bytes_to_copy: int = 0
    bytes_free: int | None = 0

    @property
    def all_errors(self) -> list[MdlError]:
        """The errors of files; without any, that there is no room for what is planned."""
        failed = [file.error for file in self.files if file.error]
        no_room = no_space(0, self.bytes_to_copy, self.bytes_free)
        if no_room is not None and not failed:
            return [no_room]
        return failed

    @property
    def error(self) -> MdlError | None:
        """The one error that stands for all; None if all is well."""
        errors = self.all_errors
        if len(errors) > 1:
            return whole_error(f"{len(errors)} of {len(self.files)} failed", errors)
        return errors[0] if errors else None
