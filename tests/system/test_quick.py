"""Quick commands: what a word means is what Typer says it means; what needs no conversion costs none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from support.catalogs import entry_of
from support.data import SMALL
from support.shell import Shell, machine

from mdl.cli import command, typer_app
from mdl.cli.command import Registered
from mdl.cli.main import root
from mdl.errors import UsageError

CALLS = (
    "list",
    "list a b --kind model --to x --json -vv",
    "list --kind model --kind animal",
    "list --progress loud",
    "get",
    "get one",
    "get one two --include *.bin --include *.json --connections 3 --via hub --layout hf-cache --stall 9 -n",
    "get one --limit-rate 5M --window 22:00-06:00 --into . --quiet --progress lines",
    "get one --to \udcff --catalog ~/a.toml --into a//b/../c",
    "get one --connections 0",
    "get one --connections many",
    "get one --connections 007 --retries -1",
    "get one --connections ٣ -vvv",
    "get one --via pigeon",
    "get one --layout HF-CACHE",
    "--catalog a.toml --progress json get one --catalog b.toml",
    "verify --strict one",
    "jobs",
    "jobs --status paused --status dead -a",
    "jobs list --status done",
    "jobs show",
    "jobs show x",
    "jobs show a b",
    "checkpoints run --kind x",
    "pack run --compress store --keep 3",
    "unpack a.zip --to x --keep 2 --max-members 9 --max-ratio 3.5",
    "unpack a.zip --keep 0",
    "unpack a.zip --keep many",
    "unpack a.zip --max-ratio nan",
)


def outcome(words: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The values that a command is given, or how the call is refused."""
    told: list[object] = []

    def run(registered: Registered, *given: object) -> int:
        told.append((registered.name, *given))
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(command, "run", run)
        try:
            root().main(args=words.split(), prog_name="mdl", standalone_mode=False)
        except (typer.TyperException, UsageError):
            told.append("refused")
    return told


@pytest.mark.parametrize("environ", [{}, {"MDL_CONNECTIONS": "7", "MDL_INTO": "5s", "MDL_FORCE": "1"}], ids=len)
@pytest.mark.parametrize("words", CALLS)
def test_a_word_means_what_typer_makes_of_it(
    words: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags, arguments, variables, settings and defaults have the same values; what Typer refuses is refused."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    quick = outcome(words, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(typer_app, "process_value", lambda _, by_typer, ctx, value: by_typer(ctx, value))
        root.cache_clear()
        typer_app.loaded.cache_clear()
        slow = outcome(words, monkeypatch)
    root.cache_clear()
    typer_app.loaded.cache_clear()
    assert quick == slow
    assert quick


def python(code: str, shell: Shell) -> str:
    """What a new Python process writes to stdout."""
    words = [sys.executable, "-c", code]
    return subprocess.run(words, env=shell.environ, cwd=shell.home, stdout=-1, text=True, check=True).stdout


@pytest.mark.parametrize(
    "words", ["list", "get one --to x --catalog c.toml --progress none --connections 4", "jobs", "prefetch one"]
)
def test_nothing_is_converted_for_nothing(words: str, tmp_path: Path) -> None:
    """If no value needs it, pydantic is not imported, which would take longer than all the rest."""
    code = f"import sys; from mdl.cli.main import run; run({words.split()!r}); sys.exit('pydantic' in sys.modules)"
    python(code, machine(tmp_path))


_OFFERED = "mdl.events mdl.jobs.job mdl.downloader.plan"
_OF_NETWORK = "httpx httpcore ssl mdl.net.client mdl.net.policy mdl.downloader.transfer huggingface_hub boto3 botocore"


@pytest.mark.parametrize(
    ("words", "spared"),
    [
        ("--version", f"{_OF_NETWORK} {_OFFERED} rich"),
        ("list", f"{_OF_NETWORK} {_OFFERED} mdl.toml.positions rich"),
        ("list --json", f"{_OF_NETWORK} {_OFFERED} mdl.toml.positions rich"),
        ("get one --catalog catalog.toml --progress none", f"{_OF_NETWORK} mdl.catalog.lock mdl.toml.positions rich"),
        ("get one --catalog catalog.toml --progress bars", f"{_OF_NETWORK} mdl.catalog.lock mdl.toml.positions rich"),
        ("get --help", f"{_OF_NETWORK} {_OFFERED} mdl.catalog.model"),
        ("--help", f"{_OF_NETWORK} mdl.archive mdl.runs mdl.downloader.plan mdl.results"),
    ],
)
def test_nothing_is_imported_for_nothing(words: str, spared: str, tmp_path: Path) -> None:
    """A command imports only what it uses: if every file is there, nothing of HTTP and nothing that transfers."""
    shell = machine(tmp_path, "schema = 1\n" + entry_of("one", "https://example.org/f", SMALL))
    (shell.models / "one").mkdir(parents=True)
    (shell.models / "one" / "f.bin").write_bytes(SMALL)
    code = f"import sys; from mdl.cli.main import run; code = run({words.split()!r});"
    told = python(f"{code} print(code, *{{*sys.modules}} & {{*{spared.split()!r}}})", shell)
    assert told.splitlines()[-1] == "0"


@pytest.mark.parametrize(("before", "told"), [("", ""), ("sys.setprofile(lambda *_: None);", "True")], ids=len)
def test_nothing_is_taken_down_for_nothing(before: str, told: str, tmp_path: Path) -> None:
    """The process ends as soon as all is said; under a profiler in the ordinary way, and garbage is collected."""
    code = f"import atexit, gc, sys; atexit.register(lambda: print(gc.isenabled())); {before}"
    code += "sys.argv = ['mdl', 'list', '--json']; from mdl.__main__ import main; main()"
    document, _, rest = python(code, machine(tmp_path)).partition("\n")
    assert (json.loads(document)["ok"], rest.strip()) == (True, told)
