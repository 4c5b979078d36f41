"""Window: the title of the terminal's window, and the progress that its tab or the taskbar shows (OSC 9;4).

Only terminals that are known to understand these get them, told by the variables that they set; ADR 29 has the list and
the reasons. What was changed is put back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mdl.describe import ProgressState

_SAVE_TITLE, _RESTORE_TITLE = "\x1b[22;2t", "\x1b[23;2t"
_OSC, _END = "\x1b]", "\x1b\\"
_NO_PROGRESS, _UNKNOWN = "0", "3"
_PROGRAMS_WITH_PROGRESS = ("WezTerm", "ghostty")
_TERMS_WITH_TITLES = ("xterm-kitty", "alacritty", "foot")
_FIRST_PTYXIS = 48


class Window:
    """The window of a terminal with these variables. Its methods return what to write, if anything."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        is_inside = any(environ.get(name) for name in ("TMUX", "STY")) or environ.get("TERM", "").startswith(
            ("screen", "tmux")
        )
        self._has_title = not is_inside and _has_titles(environ)
        self._has_progress = not is_inside and _has_progress(environ)
        self._shown = ""

    def show(self, state: ProgressState) -> str:
        """How far the download is."""
        total = state.bytes_total
        percent = state.whole.bytes_done * 100 // total if total else None
        text = self._progress(f"1;{percent}" if percent is not None else _UNKNOWN)
        if self._has_title:
            text += f"{_OSC}2;{'mdl' if percent is None else f'{percent}% mdl'}{_END}"
        if text == self._shown:
            return ""
        first, self._shown = not self._shown, text
        return f"{_SAVE_TITLE if first and self._has_title else ''}{text}"

    def restore(self) -> str:
        """No progress, and the title as it was."""
        if not self._shown:
            return ""
        self._shown = ""
        return self._progress(_NO_PROGRESS) + (_RESTORE_TITLE if self._has_title else "")

    def _progress(self, state: str) -> str:
        return f"{_OSC}9;4;{state}{_END}" if self._has_progress else ""


def _has_progress(environ: Mapping[str, str]) -> bool:
    """The terminal shows progress. Others may take OSC 9 for a message, which they show on the desktop."""
    features = re.findall(r"[A-Z][a-z]*", environ.get("TERM_FEATURES", ""))
    ptyxis = environ.get("PTYXIS_VERSION", "").partition(".")[0]
    return (
        "P" in features
        or environ.get("TERM_PROGRAM") in _PROGRAMS_WITH_PROGRESS
        or bool(environ.get("WT_SESSION"))
        or environ.get("ConEmuANSI") == "ON"
        or (ptyxis.isdecimal() and int(ptyxis) >= _FIRST_PTYXIS)
    )


def _has_titles(environ: Mapping[str, str]) -> bool:
    """The terminal keeps titles, so that the one before can be put back."""
    is_known = environ.get("TERM_PROGRAM") == "iTerm.app" or environ.get("TERM", "") in _TERMS_WITH_TITLES
    return is_known or any(environ.get(name) for name in ("XTERM_VERSION", "VTE_VERSION"))
