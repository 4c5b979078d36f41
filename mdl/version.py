"""Version: which mdl this is, with the commit that it was built from."""

from __future__ import annotations

from pathlib import Path

from mdl import __version__

_BUILT_FROM = Path(__file__).with_name("commit.txt")
"""Written into a wheel by ``hatch_build.py``; a checkout has none."""


def full_version() -> str:
    """``0.2.0 (1fc3fa41)``; in a checkout, ``0.2.0 (checkout 1fc3fa41)``, with a + if its files were changed."""
    try:
        commit = _BUILT_FROM.read_text("ascii").strip()
    except OSError:
        commit = f"checkout {_commit_of(Path(__file__).parents[1])}".rstrip()
    return f"{__version__} ({commit})" if commit else __version__


def _commit_of(checkout: Path) -> str:
    """The commit of the checkout in this folder, with a + if anything differs from it; '' if git does not tell."""
    if not (checkout / ".git").exists():
        return ""
    from mdl.disk.child_output import output_of

    command = ["git", "-C", str(checkout), "describe", "--always", "--exclude=*", "--abbrev=8", "--dirty=+"]
    try:
        said = output_of(command)
    except OSError:
        return ""
    return said.out.strip() if said.code == 0 else ""
