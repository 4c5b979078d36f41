"""Extras: libraries that only some of mdl's work needs, and how they are added to the installation that runs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
import sys
from pathlib import Path

from mdl.errors import UsageError


def require(extra: str, *modules: str, why: str, item: str | None = None) -> None:
    """Raises `UsageError` with ``why`` and the command that installs the ``extra``, if one of its ``modules`` is
    missing."""
    if any(importlib.util.find_spec(name) is None for name in modules):
        raise UsageError(why, item=item, hint=to_install(extra))


def libraries(extra: str) -> list[str]:
    """What an ``extra`` needs, as pip takes it. They are named one by one: whatever an index has under the name of mdl
    itself is somebody else's. Without an installed mdl it is the extra of the checkout in the current folder."""
    try:
        needed = importlib.metadata.requires("mdl") or []
    except importlib.metadata.PackageNotFoundError:
        needed = []
    pairs = (text.partition(";") for text in needed)
    found = [name.strip() for name, _, when in pairs if re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", when)]
    return found or [f".[{extra}]"]


def to_install(extra: str) -> str:
    """The command that adds an ``extra`` to the installation that runs: a bare ``pip`` may be that of another one."""
    root = Path(sys.prefix)
    wanted = shlex.join(libraries(extra))
    if (root / "pipx_metadata.json").is_file():
        return f"pipx runpip {shlex.quote(root.name)} install {wanted}"
    python = shlex.quote(sys.executable)
    if (root / "uv-receipt.toml").is_file():
        return f"uv pip install --python {python} {wanted}"
    return f"{python} -m pip install {wanted}"
