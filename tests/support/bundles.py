"""Bundles taken apart, changed and put together again by Python's tarfile, as somebody else would."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

TOP = "mdl-bundle"
Bundled = list[tuple[tarfile.TarInfo, bytes]]
"""The members of a bundle, each with its bytes."""


def members_of(path: Path) -> Bundled:
    """What is in a bundle."""
    with tarfile.open(path) as tar:
        return [(info, file.read() if (file := tar.extractfile(info)) else b"") for info in tar]


def tar_of(members: Bundled) -> bytes:
    """A tar of these members; sizes are those of their bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def resummed(members: Bundled) -> None:
    """Make the list of digests fit the bytes again."""
    names = {info.name: (at, info) for at, (info, _) in enumerate(members)}
    at, info = names[f"{TOP}/SHA256SUMS"]
    lines = [
        f"{hashlib.sha256(data).hexdigest()}  {one.name.removeprefix(TOP + '/')}\n"
        for one, data in members
        if one.name != info.name
    ]
    members[at] = (info, "".join(lines).encode())
