"""Build hook: a wheel and a source archive of mdl say from which commit they were built; `mdl --version` shows it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface[Any]):
    """Adds ``mdl/commit.txt``. What is built from a source archive keeps the file that the archive has."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        kept = Path(self.root, "mdl", "commit.txt")
        if version == "editable" or kept.exists():
            return
        descriptor, name = tempfile.mkstemp(prefix="mdl-commit-")
        with os.fdopen(descriptor, "w") as file:
            file.write(_commit(self.root))
        build_data["force_include"][name] = "mdl/commit.txt"


def _commit(root: str) -> str:
    """The commit of the checkout at ``root``, with a + if anything differs from it; '' if it is not a checkout."""
    if not Path(root, ".git").exists():
        return ""
    command = ["git", "-C", root, "describe", "--always", "--exclude=*", "--abbrev=8", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
