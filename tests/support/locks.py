"""Lock files as values."""

from __future__ import annotations

from pathlib import Path

from mdl.catalog.lock import LockedFile, LockedModel
from mdl.catalog.lock_file import parse_lock
from support.shell import Shell


def lock_of(shell: Shell) -> Path:
    return shell.home / "mdl.lock"


def models_of(shell: Shell) -> dict[str, LockedModel]:
    return parse_lock(lock_of(shell).read_text()).models


def only_file(shell: Shell) -> LockedFile:
    return models_of(shell)["one"].files[0]
