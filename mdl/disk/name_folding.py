"""Name folding: which names a folder does not tell apart. Only a probe in that very folder can say: one file system may
have folders of both kinds, and its type says nothing about a network's other side. (ADR 49)"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from pathlib import Path

from mdl.disk import nearest_existing
from mdl.disk.publish import hidden_name
from mdl.values import value_class

_PROBE = "\u00e9"
"""Stands in the name of a probe: it has two Unicode forms."""


@value_class
class NameFolding:
    """Whether names that differ only by case, or only by Unicode form, are one name in a folder."""

    case: bool = False
    form: bool = False

    def key(self, name: str) -> str:
        """The same for two names that are one there."""
        if name.isascii():
            return name.lower() if self.case else name
        if self.form:
            name = unicodedata.normalize("NFC", name)
        if self.case:
            name = name.casefold()
        return unicodedata.normalize("NFC", name) if self.form else name


def name_folding(folder: Path) -> NameFolding:
    """Ask ``folder``, or the nearest one above it that is there, with a file of our own that is gone afterwards. A
    folder that takes no file tells names apart: whatever must be written there will say what is wrong."""
    staged = nearest_existing(folder) / hidden_name(f"{os.urandom(3).hex()}{_PROBE}")
    with contextlib.suppress(OSError, UnicodeEncodeError):
        os.close(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            other_case = staged.with_name(staged.name.replace(".mdl-tmp", ".MDL-TMP"))
            other_form = staged.with_name(unicodedata.normalize("NFD", staged.name))
            return NameFolding(case=os.path.lexists(other_case), form=os.path.lexists(other_form))
        finally:
            staged.unlink(missing_ok=True)
    return NameFolding()
