"""Member names: what an archive calls its members, as checked paths. Pure.

``./a`` is ``a``, as ``tar -C folder .`` and many servers write it, and ``./`` is the folder that is unpacked into. All
else that `RelPath` refuses is refused here too.
"""

from __future__ import annotations

from mdl.errors import Unsafe
from mdl.paths import RelPath, shown

TOP = RelPath("")
"""The folder that is unpacked into, as a member: it says nothing."""
_BACKSLASH = (
    "some Windows programs write '\\' for '/', and readers disagree on what it means: unpack it with '7z x', and zip it"
    " again"
)


def member_path(name: str) -> RelPath:
    """The checked path of a member; a folder's name may end with a slash. `TOP` if it is the folder that is unpacked
    into. Raises `Unsafe`."""
    segments = name.removesuffix("/").split("/")
    kept = [segment for segment in segments if segment != "."]
    if not kept and name.endswith("/"):
        return TOP
    try:
        return RelPath.parse("/".join(kept))
    except Unsafe as error:
        hint = _BACKSLASH if "\\" in name else error.hint
        raise error.but(item=shown(name)[:200], hint=hint) from error
