"""The Tab key: what mdl offers for each line, and that bash, zsh and fish show it."""

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
from support.jobs import records_of
from support.shell import Inside, Run, Shell, done, machine, settings

from mdl.cli.completion import completion_script
from mdl.jobs.job import Invocation, Job

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


CATALOG = """\
schema = 1
[models.bert-fa]
title = "It's BERT: Persian"
source = "hf:org/bert"
[models.whisper]
kind = "asr"
tags = ["speech"]
source = "hf:org/whisper"
[groups]
nightly = ["bert-fa", "whisper"]
"""
MODELS = ["bert-fa", "whisper", "nightly"]
PATHS: list[str] = []
"""The shell completes a path by itself where nothing is offered."""
LINES = {
    "mdl ge": ["get"],
    "mdl get ": MODELS,
    "mdl --json get --to x b": ["bert-fa"],
    "mdl get whisper ": ["bert-fa", "nightly"],
    "mdl get 'b": ["bert-fa"],
    "mdl get hf:": [],
    "mdl jobs --status pa": ["paused"],
    "mdl verify ": ["org--other"],
    "mdl update ": [*MODELS, "org--other"],
    "mdl show org": ["org--other"],
    "mdl add ": [],
    "mdl rm ": ["org--other"],
    "mdl import run --as ": [],
    "mdl get x -o ": [],
    "mdl config get conn": ["connections"],
    "mdl rollback served --to ": ["v1", "v2"],
    "mdl get --dry": ["--dry-run"],
    "mdl get -- --dry": [],
    "mdl get x --progress l": ["lines"],
    "mdl get x --progress=j": ["json"],
    "mdl get --via ": ["http", "hub"],
    "mdl list --kind a": ["asr"],
    "mdl list --tag ": ["speech"],
    "mdl list --sort t": ["tags", "title"],
    "mdl list --columns=name,si": ["name,size", "name,since"],
    "mdl list --columns since,si": ["since,size"],
    "mdl --catalog ": PATHS,
    "mdl get --to=": PATHS,
    "mdl unpack ": PATHS,
    "mdl pack ": PATHS,
    "mdl pack run --checkpoint ": ["checkpoint-20", "checkpoint-10", "latest", "best"],
    "mdl fetch g": ["gpu"],
    "mdl fetch gpu --checkpoint ": ["latest", "best"],
    "mdl remote ch": ["check"],
    "mdl remote check ": ["gpu"],
    "mdl help schema ver": ["verify"],
    "mdl help exit": ["exit-codes"],
    "mdl jobs p": ["pause"],
    "mdl doctor --off": ["--offline"],
    "mdl show 'unclosed ": [],
}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A machine with a catalog, a model that no catalog names, a run and a remote."""
    shell = machine(tmp_path, CATALOG)
    (shell.models / "org--other").mkdir(parents=True)
    for step in ("10", "20"):
        folder = shell.home / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x")
    for version in ("v1", "v2"):
        (shell.home / "served" / "releases" / version).mkdir(parents=True)
    settings(shell, '[remotes.gpu]\nkind = "runpod"\nendpoint = "abc"\n')
    return shell


def asked(line: str) -> dict[str, str]:
    """The variables by which the scripts of the shells ask Typer."""
    return {
        "_MDL_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": line,
    }


def offered(run: Run, line: str) -> list[list[str]]:
    """The rows for a line."""
    ran = run("", **asked(line))
    assert ran.err == ""
    return [row.split("\t") for row in ran.out.splitlines() if row]


def test_what_is_offered(run: Run) -> None:
    """Names, jobs, checkpoints and choices where they are meant; paths only where a path is meant; errors never."""
    found = {line: [row[0] for row in offered(run, line)] for line in LINES}
    assert found == LINES
    assert offered(run, "mdl get b") == [["bert-fa", "It's BERT: Persian"]]


def test_jobs_are_offered_with_what_they_are(run: Run, shell: Shell) -> None:
    """A job's id comes with its status and what was typed, and only to the commands that can do something with it."""
    again = Invocation(("get", "--force", "--", "org/bert"), "/")
    job = Job("", "get", ("org--bert",), "owner", "host", again, "2026-01-02T03:04:05.678Z", status="failed")
    job = records_of(shell).create(job)
    assert offered(run, "mdl jobs show ") == [[job.id, "failed: get org/bert"]]
    assert [row[0] for row in offered(run, "mdl jobs resume ")] == [job.id]
    assert offered(run, "mdl jobs pause ") == []


def test_completion_says_no_error(run: Run, shell: Shell) -> None:
    """A file that is broken makes the Tab key offer nothing that is in it; not one word is said."""
    settings(shell, "= broken")
    assert (len(offered(run, "mdl get ")), offered(run, "mdl fetch ")) == (len(MODELS), [])
    (shell.home / "catalog.toml").write_text("= broken")
    assert offered(run, "mdl get ") == []


@pytest.mark.parametrize("asking", ["complete_zsh", "complete_bash", "source_zsh", "x"])
def test_only_mdl_s_own_scripts_are_answered(run: Run, asking: str) -> None:
    """What Typer would say to its own scripts, a shell would run: nothing is said."""
    variables = {**asked("mdl get "), "_MDL_COMPLETE": asking, "COMP_WORDS": "mdl get ", "COMP_CWORD": "2"}
    assert (run("", **variables).out, run("", **variables).err) == ("", "")


@pytest.mark.parametrize("line", ["mdl get ", "mdl jobs show ", "mdl get --"])
def test_completing_is_quick(shell: Shell, line: str) -> None:
    """The Tab key waits for no network, no tables and no validation: nothing of these is imported."""
    code = "import sys; from mdl.cli.main import run; run([]); sys.exit(' '.join({*sys.argv[1:]} & {*sys.modules}))"
    words = [sys.executable, "-c", code, "httpx", "ssl", "rich", "pydantic", "huggingface_hub"]
    environ = {**shell.environ, **asked(line)}
    ran = subprocess.run(words, env=environ, cwd=shell.home, capture_output=True, text=True, check=False)
    assert ran.stderr.strip() == ""


def test_the_shell_is_found_or_asked_for(run: Run, shell: Shell) -> None:
    """Without a name it is the user's shell; for a shell that mdl has no script for the name is asked for."""
    assert "zsh completes mdl" in run("--install-completion", SHELL="/usr/bin/zsh").out
    assert (shell.home / ".zfunc" / "_mdl").read_text() == run("--show-completion zsh").out
    assert "hint: name it, as in mdl --install-completion bash" in run("--install-completion", 2, SHELL="tcsh").err
    assert "tcsh: completion is there for bash, zsh, fish" in run("--install-completion tcsh", 2).err


def test_a_start_file_of_another_day(mdl: Inside, shell: Shell) -> None:
    """The user's file may be in any encoding: it gets one line more, once, and stays what it was. Whatever the umask,
    nobody else may write the script, which the shell runs."""
    start = shell.home / ".bashrc"
    before = "# für mich\n".encode("latin-1")
    start.write_bytes(before)
    umask = os.umask(0)
    try:
        for _ in range(2):
            done(mdl(shell, "--install-completion", "bash"))
    finally:
        os.umask(umask)
    script = shell.home / ".bash_completions/mdl.sh"
    assert start.read_bytes() == before + f"\nsource '{script}'\n".encode()
    assert script.read_text() == completion_script("bash", {})
    assert [path.stat().st_mode & 0o777 for path in (script.parent, script)] == [0o700, 0o644]


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
    seen = typist.until(*MODELS)
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
