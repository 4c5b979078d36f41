"""What `mdl render` is tested with: a machine with models of ordinary and of odd names, and the real checkers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from support.catalogs import entry_of
from support.data import SMALL
from support.shell import Shell, machine

ODD = 'odd\'s 100% "$(id)" x'
"""A name with all that shells, cron, systemd and YAML give a meaning to."""
_ROOT = Path(__file__).parents[2]


def rendering(home: Path, url: str, **extra: str) -> Shell:
    """A machine with the models ``plain`` and `ODD`, whose file is at ``url``, in the group ``both``."""
    odd = entry_of("odd", url, SMALL).replace("models.odd", f"models.{json.dumps(ODD)}")
    groups = f'[groups]\nboth = ["plain", {json.dumps(ODD)}]\n'
    return machine(home, "schema = 1\n" + entry_of("plain", url, SMALL) + odd + groups, **extra)


def program(name: str, *places: Path) -> str:
    """The path of a program that checks manifests; the test is skipped aloud without it."""
    folders = os.pathsep.join([*map(str, places), str(_ROOT / ".venv-kubernetes/bin"), os.environ["PATH"]])
    found = shutil.which(name, path=folders)
    if not found:
        pytest.skip(f"NO {name} HERE: the manifest is not checked")
    return found
