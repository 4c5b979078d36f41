"""The Tab key in bash, zsh and fish themselves."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import pytest
from support.catalogs import catalog_of
from support.shell import Shell, done, machine

from mdl.cli.completion import completion_script

_OWN_TERMINAL = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
_OWN_TERMINAL += "; os.execvp(sys.argv[1], sys.argv[1:])"
PROMPT = "READY> "
TAB, ENTER, CLEAR_LINE = "\t", "\r", "\x15"


class Typist:
    """``with Typist(["bash"], folder, environ) as typist``: the shell is at its `PROMPT`; it is killed in the end."""

    def __init__(self, command: list[str], folder: Path, environ: Mapping[str, str]) -> None:
        self._command, self._folder, self._environ = command, folder, environ

    def __enter__(self) -> Typist:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        words = [sys.executable, "-c", _OWN_TERMINAL, *self._command]
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        environ = {**self._environ, "TERM": "xterm"}
        self._process = subprocess.Popen(words, cwd=self._folder, env=environ, **streams)
        os.close(theirs)
        self.until(PROMPT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def until(self, *texts: str) -> str:
        """All that is seen, without escape codes, until all of ``texts`` are in it; the next call begins anew."""
        seen = b""
        while not all(text in _plain(seen) for text in texts):
            if select.select([self._ours], [], [], 0.1)[0]:
                data = os.read(self._ours, 65536)
                if b"\x1b[c" in data or b"\x1b[0c" in data:  # a newer fish asks what the terminal can do
                    os.write(self._ours, b"\x1b[?6c")
                seen += data
        return _plain(seen)


def _plain(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return re.sub(r"\x1b\][^\x07\x1b]*(\x07|\x1b\\)|\x1b[\[?>=()][0-9;?]*[A-Za-z0-9]?|[\x0e\x0f]", "", text)


NAMES = ["bert", "whisper"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return machine(tmp_path, catalog_of(**{name: f"https://models.example/{name}" for name in NAMES}))


START = {
    "bash": (
        ".bashrc",
        f"PS1='{PROMPT}'\nbind 'set show-all-if-ambiguous on'\nbind 'set enable-bracketed-paste off'\n",
    ),
    "zsh": (".zshrc", f"PS1='{PROMPT}'\nunsetopt zle_bracketed_paste prompt_sp\n"),
    "fish": (".config/fish/config.fish", f"set fish_greeting\nfunction fish_prompt; echo -n '{PROMPT}'; end\n"),
}


@pytest.fixture(params=START)
def typist(request: pytest.FixtureRequest, shell: Shell) -> Iterator[Typist]:
    """A shell for which completion was installed, in a folder with files that are no models."""
    name = request.param
    if not shutil.which(name):
        pytest.skip(f"needs {name}")
    program = shell.home / "bin" / "mdl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mdl "$@"\n')
    program.chmod(0o755)
    start = shell.home / START[name][0]
    start.parent.mkdir(parents=True, exist_ok=True)
    start.write_text(START[name][1])
    for _ in range(2):
        assert name in done(shell.run("--install-completion", name)).out
    if name != "fish":
        assert start.read_text().count("_completions" if name == "bash" else "zfunc") == 1
    environ = {**shell.environ, "PATH": f"{program.parent}:{shell.environ['PATH']}", "ZDOTDIR": str(shell.home)}
    with Typist([name, "-i"], shell.home, environ) as typist:
        yield typist


def test_in_a_real_shell(typist: Typist, shell: Shell) -> None:
    """Tab lists models and groups and no file; it completes a name that is clear, and a file where one is meant."""
    (shell.home / "whisky.zip").touch()
    typist.press(f"mdl get {TAB}")
    seen = typist.until(*NAMES)
    typist.press(f"{CLEAR_LINE}echo fin''ished{ENTER}")
    seen += typist.until("finished")
    assert "whisky" not in seen
    typist.press(f"mdl path whi{TAB}{ENTER}")
    typist.until("whisper: not on this disk")
    typist.press(f"mdl unpack whi{TAB} --list{ENTER}")
    assert "whisky.zip" in typist.until("hint: ")


def test_what_no_shell_may_run(typist: Typist, shell: Shell) -> None:
    """Tab runs nothing that a title or a name says; a name with a colon is completed whole."""
    title = "'It is \\\\\");touch ran;a=(\\\\\"' $(touch ran) `touch ran`"
    entry = f"""[models.odd]\ntitle = {json.dumps(title)}\nsource = "hf:org/odd"\n"""
    (shell.home / "catalog.toml").write_text(f"schema = 1\n{entry}{entry.replace('odd', 'other')}")
    typist.press(f"mdl get o{TAB}{TAB}")
    typist.until("odd", "other")
    typist.press(f"{CLEAR_LINE}mdl path od{TAB} --nope{ENTER}")
    typist.until("--nope")
    assert not (shell.home / "ran").exists()


@pytest.mark.fault(465)
def test_names_that_a_shell_would_run(tmp_path: Path) -> None:
    """Every name that bash offers is one word, quoted; of one with a colon what stands before it is there already."""
    names = ["a b;touch c", "a`d`", "a$(e)", "hf:org/a b"]
    (tmp_path / "mdl").write_text("#!/bin/sh\nprintf 'a b;touch c\\tx\\na`d`\\na$(e)\\nhf:org/a b\\n'\n")
    (tmp_path / "mdl").chmod(0o755)
    (tmp_path / "mdl.sh").write_text(completion_script("bash", {}))
    for line, words, offered_names in (
        ("mdl get a", "mdl get a", names),
        ("mdl get hf:org/a", "mdl get hf : org/a", [*names[:3], "org/a b"]),
        ("mdl get hf:", "mdl get hf :", [*names[:3], "org/a b"]),
    ):
        last = len(words.split()) - 1
        call = (
            f"COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({words}) COMP_CWORD={last}; _mdl_completion ./mdl"
        )
        script = f". ./mdl.sh; {call}; eval \"printf '%s\\n' ${{COMPREPLY[*]}}\""
        ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert ran.stdout.splitlines() == offered_names
