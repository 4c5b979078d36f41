"""Lock files as values."""

from __future__ import annotations

from pathlib import Path

from mdl.catalog.lock import Lock, LockedFile, LockedModel
from support.shell import Shell


def lock_of(shell: Shell) -> Path:
    return shell.home / "mdl.lock"


def models_of(shell: Shell) -> dict[str, LockedModel]:
    return Lock.from_toml(lock_of(shell).read_text()).models


def only_file(shell: Shell) -> LockedFile:
    return models_of(shell)["one"].files[0]
