"""The window's title and its progress: only where they are known to do good, and put back in the end."""

from __future__ import annotations

import io

import pytest
from support.console import one, progress, ticking
from support.terminal import Terminal

from mdl.console import Console
from mdl.console.window import Window
from mdl.describe import ProgressState

PROGRESS, TITLE = "\x1b]9;4;", "\x1b]2;"
VTE, GHOSTTY = {"TERM": "xterm-256color", "VTE_VERSION": "7600"}, {"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}


def state(done: int, total: int = 1000) -> ProgressState:
    made = ProgressState()
    made.update(progress(done, total))
    return made


@pytest.mark.parametrize(
    ("environ", "has_progress", "has_title"),
    [
        ({"TERM": "xterm"}, False, False),
        (GHOSTTY, True, False),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, True, False),
        ({"TERM": "xterm-256color", "WT_SESSION": "1"}, True, False),
        ({"TERM": "xterm-256color", "ConEmuANSI": "ON"}, True, False),
        ({"TERM": "xterm-256color", "PTYXIS_VERSION": "48.1", "VTE_VERSION": "8000"}, True, True),
        ({"TERM": "xterm-256color", "PTYXIS_VERSION": "47.10"}, False, False),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app", "TERM_FEATURES": "T3LrMSc7UUw9Sx"}, False, True),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app", "TERM_FEATURES": "T3LrMSc7SxFP"}, True, True),
        (VTE, False, True),
        ({"TERM": "xterm-kitty"}, False, True),
        ({**GHOSTTY, "TMUX": "/tmp/tmux-1/default,1,0"}, False, False),
        ({**VTE, "TERM": "screen-256color"}, False, False),
    ],
)
def test_who_gets_what(environ: dict[str, str], has_progress: bool, has_title: bool) -> None:
    """Progress goes to terminals that show it, as another may take it for a message to the user; a title to those that
    keep the one before; and neither to a multiplexer, which has its own."""
    window = Window(environ)
    shown, restored = window.show(state(420)), window.restore()
    assert (f"{PROGRESS}1;42\x1b\\" in shown, f"{PROGRESS}0\x1b\\" in restored) == (has_progress, has_progress)
    assert (f"{TITLE}42% mdl\x1b\\" in shown, "\x1b[22;2t" in shown) == (has_title, has_title)
    assert ("\x1b[23;2t" in restored) == has_title


def test_only_news_is_written() -> None:
    """The same percentage is written once, and nothing is put back of what was never changed."""
    window = Window(GHOSTTY | VTE)
    assert window.restore() == ""
    assert [bool(window.show(state(done))) for done in (420, 421, 430)] == [True, False, True]
    assert window.show(state(5, 0)) == f"{PROGRESS}3\x1b\\{TITLE}mdl\x1b\\"
    assert (window.restore() != "", window.restore()) == (True, "")


@pytest.mark.parametrize(("kind", "count"), [("auto", 1), ("lines", 0), ("none", 0)])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_put_back_whatever_ends_it(kind: str, count: int, error: BaseException | None) -> None:
    """After the end and after Ctrl-C the title is back and the progress gone; without bars neither was touched."""
    terminal = Terminal()
    environ = {**VTE, **GHOSTTY, "NO_COLOR": "1"}
    console = Console(kind, environ=environ, stdout=io.StringIO(), stderr=terminal.file, clock=ticking(0.3))  # type: ignore[arg-type]
    try:
        with console.watch() as tell:
            tell(progress(420, 1000, one("f", 420)))
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    seen = terminal.text()
    assert [seen.count(text) for text in ("\x1b[22;2t", "\x1b[23;2t", f"{PROGRESS}0\x1b\\")] == [count] * 3
    assert seen.rfind(f"{PROGRESS}0") >= seen.rfind(f"{PROGRESS}1")
