"""Quick commands: what a word means is what Typer says it means; what needs no conversion costs none."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import typer
from support.shell import Shell
from typer.core import TyperCommand, TyperGroup

from mdl.cli import command
from mdl.cli.main import build

CALLS = (
    "list",
    "list a b --kind model --to x --json -vv",
    "get one",
    "get one two --include *.bin --include *.json --connections 3 --via hub --layout hf-cache --stall 9 -n",
    "get one --limit-rate 5M --window 22:00-06:00 --into . --quiet --progress lines",
    "--catalog a.toml --progress json get one --catalog b.toml",
    "verify --strict one",
    "jobs",
    "jobs --status paused --status dead -a",
    "jobs list --status done",
    "jobs show x",
    "get",
    "get one --connections 0",
    "get one --connections many",
    "get one --via pigeon",
    "list --progress loud",
    "jobs show",
    "jobs show a b",
    "get one --to \udcff --catalog ~/a.toml --into a//b/../c",
    "get one --connections 007 --retries -1",
    "get one --connections ٣ -vvv",
    "get one --connections 1_0",
    "get one --connections 65",
    "get one --retries 99999999999999999999",
    "get one --layout HF-CACHE",
    "list --kind model --kind animal",
    "checkpoints run --kind x",
    "pack run --compress store --keep 3",
    "unpack a.zip --to x --keep 2 --max-members 9 --max-ratio 3.5",
)


def outcome(words: str, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> Any:
    """The values that a command is given, or how the call is refused."""
    told: list[object] = []
    with monkeypatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)

        def guarded(name: str, common: object, body: Any, words: tuple[str, ...]) -> int:
            inside = dict(
                zip(body.__code__.co_freevars, (cell.cell_contents for cell in body.__closure__), strict=True)
            )
            told.append((name, common, inside["made"], words))
            return 0

        patch.setattr(command, "guarded", guarded)
        patch.setattr(command, "read_config", lambda: {"defaults": {"connections": 5, "via": "hub", "stall": "7s"}})
        try:
            build(words.split())(args=words.split(), standalone_mode=False)
        except typer.TyperException as error:
            told.append(error.format_message())
    return told


@pytest.mark.parametrize("environ", [{}, {"MDL_CONNECTIONS": "7", "MDL_STALL": "5s", "MDL_VIA": "http"}], ids=len)
@pytest.mark.parametrize("words", CALLS)
def test_a_word_means_what_typer_makes_of_it(
    words: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags, arguments, variables, settings and defaults have the same values, and mistakes the same words."""
    quick = outcome(words, monkeypatch, environ)
    monkeypatch.setattr(command, "QuickCommand", TyperCommand)
    monkeypatch.setattr(command, "QuickGroup", TyperGroup)
    assert quick == outcome(words, monkeypatch, environ)
    assert quick


@pytest.mark.parametrize(
    "words", ["list", "get one --to x --catalog c.toml --progress none --connections 4", "jobs", "prefetch one"]
)
def test_nothing_is_converted_for_nothing(words: str, shell: Shell) -> None:
    """Where no value needs it, pydantic is not imported, which would take longer than all the rest."""
    code = f"import sys; from mdl.cli.main import run; run({words.split()!r}); sys.exit('pydantic' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=shell.environ, cwd=shell.home, capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()


@pytest.mark.parametrize(("before", "told"), [("", ""), ("sys.setprofile(lambda *_: None);", "True")], ids=len)
def test_nothing_is_taken_down_for_nothing(before: str, told: str, shell: Shell) -> None:
    """The process ends as soon as all is said; under a profiler in the ordinary way, and garbage is collected."""
    code = f"import atexit, gc, sys; atexit.register(lambda: print(gc.isenabled())); {before}"
    code += "sys.argv = ['mdl', 'list', '--json']; from mdl.__main__ import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=shell.environ, cwd=shell.home, capture_output=True, text=True, check=True
    )
    document, _, rest = ran.stdout.partition("\n")
    assert json.loads(document)["ok"]
    assert rest.strip() == told


@pytest.fixture
def shell(tmp_path: Any) -> Shell:
    (tmp_path / "catalog.toml").write_text("schema = 1\n")
    return Shell(tmp_path)
