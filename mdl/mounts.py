"""Mounts: of what type the file system of a folder is."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")


def type_of(folder: Path) -> str:
    """``ext4``, ``nfs4`` …; '' if the system does not tell."""
    here, found, longest = os.path.realpath(folder), "", 0
    try:
        lines = os.fsdecode(_MOUNTS.read_bytes()).splitlines()
    except OSError:
        return ""
    for line in lines:
        front, _, back = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), (front.split(" ") + [""] * 5)[4])
        if len(point) >= longest and f"{here}/".startswith(point.rstrip("/") + "/"):
            found, longest = back.split(" ")[0], len(point)
    return found
