"""docs/architecture.md says how to add a layout, a format, a command and a setting: here each is added so, to a copy of
mdl, by the files and lines that it names. (A source is added in test_third_source.py.)"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mdl

PACKAGE = Path(mdl.__file__).parent


class Copy:
    """A copy of mdl that is changed as the document says, and run."""

    def __init__(self, folder: Path) -> None:
        self.root, self.home = folder / "mdl", folder / "home"
        shutil.copytree(PACKAGE, self.root, ignore=shutil.ignore_patterns("__pycache__"))
        self.home.mkdir()
        (self.home / "catalog.toml").write_text("schema = 1\n[models.one]\nsource = 'hf:org/one'\n")

    def write(self, path: str, text: str) -> None:
        """A new file."""
        assert not (self.root / path).exists()
        (self.root / path).write_text(text)

    def line(self, path: str, after: str, text: str) -> None:
        """A new line after the one that contains ``after``."""
        lines = (self.root / path).read_text().split("\n")
        [at] = [number for number, line in enumerate(lines) if after in line]
        (self.root / path).write_text("\n".join([*lines[: at + 1], text, *lines[at + 1 :]]))

    def word(self, path: str, after: str, text: str) -> None:
        """More words right after ``after``."""
        before, found, rest = (self.root / path).read_text().partition(after)
        assert found
        (self.root / path).write_text(before + found + text + rest)

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.home), "PYTHONPATH": str(self.root.parent), **environ}
        command = [sys.executable, "-m", "mdl", *words]
        return subprocess.run(command, cwd=self.home, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_a_run_layout(copy: Copy) -> None:
    """One row in its file and its place in LAYOUTS: `mdl checkpoints` knows the trainer, its steps and its best."""
    row = """
ACME = Layout(
    "acme",
    Pattern(r"acme-((?P<step>[0-9]+)|best)\\.pt", best=r"acme-best\\.pt").find,
    trainers="Acme",
    keep=("*.pt",),
)
"""
    copy.word("runs/trainers/speech.py", "# Speech recognition and translation\n", row)
    copy.line("runs/known_layouts.py", "    speech.COQUI,", "    speech.ACME,")
    (copy.home / "run").mkdir()
    for name in ("acme-10.pt", "acme-9.pt", "acme-best.pt"):
        (copy.home / "run" / name).write_bytes(b"x")
    found = json.loads(copy.run("checkpoints", "run", "--json").stdout)
    rows = [(one["name"], one["step"], one["latest"], one["best"]) for one in found["checkpoints"]]
    assert (found["layout"], rows[:2]) == ("acme", [("acme-9.pt", 9, False, False), ("acme-10.pt", 10, True, False)])
    assert rows[2][::3] == ("acme-best.pt", True)


def test_an_output_format(copy: Copy) -> None:
    """One file with a printer, one line in Console and its name in Progress: `--progress dots` draws it."""
    copy.write(
        "console/dots.py",
        '''"""Dots: one for each event."""

from collections.abc import Sequence

from mdl.console.remarks import Remark
from mdl.console.streams import NonBlockingStream
from mdl.describe import describe
from mdl.events import Event


class Dots:
    def __init__(self, stream: NonBlockingStream) -> None:
        self._stream = stream

    def show(self, event: Event, _remarks: Sequence[Remark]) -> None:
        self._stream.write(f". {describe(event).kind}\\n")

    def close(self) -> None:
        self._stream.drain()
''',
    )
    copy.line(
        "console/reporter.py",
        "from mdl.console.lines import FailuresOnly, Lines",
        """
        if self.progress == "dots":
            from mdl.console.dots import Dots

            return Dots(self.stderr)""",
    )
    copy.word("config/settings.py", "Progress = Literal[", '"dots", ')
    (copy.home / "run").mkdir()
    (copy.home / "run" / "model.safetensors").write_bytes(b"x" * 100)
    ran = copy.run("pack", "run", "--progress", "dots", "--allow-incomplete")
    assert (ran.returncode, ran.stderr.split("\n")[-2]) == (0, ". ended"), ran.stderr


def test_a_command(copy: Copy) -> None:
    """One file, its line in the table and a schema: `mdl count` is there, in the help and with --json."""
    copy.write(
        "cli/count.py",
        '''"""count: how many models the catalog has."""

from mdl.cli.command import command
from mdl.cli.session import Session


@command("count")
def count(session: Session) -> int:
    """How many models the catalog has."""
    models = len(session.client().catalog.models)
    return session.show({"models": models}, lambda: session.console.data(str(models)))
''',
    )
    copy.line(
        "cli/commands.py",
        '"clean": Listed(',
        '        "count": Listed("mdl.cli.count", "Count the models of the catalog"),',
    )
    shutil.copy(copy.root / "schemas" / "path.json", copy.root / "schemas" / "count.json")
    assert "Count the models" in copy.run("--help").stdout
    assert copy.run("count").stdout == "1\n"
    assert json.loads(copy.run("count", "--json").stdout)["models"] == 1
    assert "count" in copy.run("help", "schema").stdout.split()


def test_a_setting(copy: Copy) -> None:
    """One line in Settings: an argument of Client, a variable, a key of config.toml, and a flag of get."""
    copy.line(
        "config/settings.py",
        "connections: Annotated[int,",
        '    calmness: Annotated[int, Setting(3, _integer(1, 9), "How calm mdl is.", "N")]',
    )
    code = "import mdl, sys; print(mdl.Client(**eval(sys.argv[1])).config['calmness'])"

    def read(given: str, **environ: str) -> str:
        environ = {"HOME": str(copy.home), "PYTHONPATH": str(copy.root.parent), **environ}
        words = [sys.executable, "-c", code, given]
        return subprocess.run(
            words, cwd=copy.home, env=environ, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()

    assert read("{}") == "3"
    (copy.home / ".config/mdl").mkdir(parents=True)
    (copy.home / ".config/mdl/config.toml").write_text("[defaults]\ncalmness = 5\n")
    assert (read("{}"), read("{}", MDL_CALMNESS="7"), read("{'calmness': 9}", MDL_CALMNESS="7")) == ("5", "7", "9")
    assert re.search(r"--calmness +N ", copy.run("get", "--help").stdout)
    refused = copy.run("get", "one", "--calmness", "10", "--offline")
    assert (refused.returncode, "--calmness: '10' is not a number from 1 to 9" in refused.stderr) == (2, True)
