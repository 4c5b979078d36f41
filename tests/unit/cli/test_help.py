"""The first minute: the help of every command, the words for mistakes, the exit codes, and the written reference."""

from __future__ import annotations

import inspect
import re
import runpy
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from support.shell import Run, Shell, machine, with_environ
from support.terminal import Told

from mdl import errors
from mdl.cli.command import REGISTERED
from mdl.cli.commands import COMMANDS, GROUPS, HABITS, NO_CATALOG
from mdl.cli.help_text import text_of
from mdl.cli.main import app_of, build
from mdl.cli.pages import PANELS, ROOT_USAGE, Page, page_of, root_page
from mdl.errors import EXIT_CODES, Problem

ROOT = Path(__file__).parents[3]
REFERENCE = runpy.run_path(str(ROOT / "docs" / "commands.py"))
MANUAL: Path = REFERENCE["MANUAL"]
_APP: Any = typer.main.get_command(app_of(name for group in GROUPS.values() for name in group))


def below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for word, one in getattr(command, "commands", {}).items():
        yield from below(one, f"{name} {word}")


EVERY = dict(pair for name, one in _APP.commands.items() for pair in below(one, name))
"""Every command, also those below others."""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return machine(tmp_path)


def texts(page: Page) -> Iterator[str]:
    for rows in page.panels.values():
        yield from (row.about for row in rows)
    yield from page.about


@pytest.mark.parametrize("width", [80, 57, 100])
@pytest.mark.parametrize("name", ["", *EVERY])
def test_nothing_is_cut_or_broken(name: str, width: int) -> None:
    """Each line fits, each example is one whole line of at most 80 columns, and every word is there in its order."""
    page = page_of(EVERY[name], name) if name else root_page(_APP)
    text = text_of(page, width)
    examples = [row.usage for row in page.examples]
    long = [line for line in text.splitlines() if len(line) > width and len(line.split()) > 1]
    assert [line for line in long if not any(one in line for one in examples)] == []
    assert all(len(f"  {row.usage}  # {row.about}") <= 80 for row in page.examples)
    assert all(re.search(rf"^  {re.escape(one)} +# \S", text, re.MULTILINE) for one in examples)
    words = " ".join(text.split())
    assert [about for about in texts(page) if " ".join(about.split()) not in words] == []


def test_the_first_screen() -> None:
    """Every command stands in its group with its whole summary. A terminal of 24 lines shows the usage and the demo."""
    text = text_of(root_page(_APP), 80)
    assert [line[:-1] for line in text.splitlines() if line[:-1] in GROUPS] == list(GROUPS)
    for name, listed in ((name, listed) for group in GROUPS.values() for name, listed in group.items()):
        assert re.search(rf"^  {name} +{re.escape(listed.summary)}$", text, re.MULTILINE), name
        assert 0 < len(listed.summary) <= 50
    seen = "\n".join(text.splitlines()[-23:])
    assert (ROOT_USAGE in seen, "mdl demo" in seen, "mdl help exit-codes" in seen) == (True, True, True)


@pytest.mark.parametrize("name", EVERY)
def test_every_option_is_readable(name: str) -> None:
    """An option stands under one of the headings; the word for its value is upper case, or a list of choices."""
    page = page_of(EVERY[name], name)
    assert set(page.panels) <= {"Commands", "Arguments", *PANELS}
    for param in EVERY[name].params:
        assert param.param_type_name == "argument" or param.rich_help_panel in PANELS, param.opts
    for title, rows in page.panels.items():
        for row in rows if title != "Commands" else ():
            word = row.usage.split()[-1] if title == "Arguments" else row.usage.partition("--")[2].partition(" ")[2]
            assert re.fullmatch(r"([A-Z][A-Z,|_-]*(,…)?|path|[a-z0-9-]+(\|[a-z0-9-]+)+|)", word), row.usage
            assert row.about, row.usage
            assert not re.search(r"\b(else|unless|exit) \d+\b|<=|default: (0|None|False)", row.about), row.about


@pytest.mark.parametrize("name", EVERY)
def test_every_example_can_be_typed(name: str) -> None:
    """Each command has two or more examples; all name it, and Typer understands every call of mdl in them."""
    examples = page_of(EVERY[name], name).examples
    assert len(examples) >= 2
    for row in examples:
        calls = re.findall(r"\bmdl ((?:'[^']*'|[^|>&)'])+)", row.usage)
        assert any(call.startswith(name) for call in calls), row.usage
        for words in map(shlex.split, (call.replace('"', "") for call in calls)):
            found: Any = build(words)
            context = found.make_context("mdl", [*words])
            while rest := [*context._protected_args, *context.args]:
                word, one, others = context.command.resolve_command(context, rest)
                context = one.make_context(word, others, parent=context)
                if not hasattr(one, "commands"):
                    break


def test_yes_is_shown_by_what_asks() -> None:
    """--yes is in the help of the commands that look at it, and of no other; any takes it."""
    for name, one in EVERY.items():
        looks = "common.yes" in inspect.getsource(REGISTERED[name].body)
        [option] = [param for param in one.params if param.name == "yes"]
        assert (name, not option.hidden) == (name, looks)


def test_a_catalog_is_shown_by_what_reads_one() -> None:
    """The help of a command that reads no catalog does not speak of --catalog; that of any other does."""
    for name, one in EVERY.items():
        [option] = [param for param in one.params if param.name == "catalog"]
        assert (name, option.hidden) == (name, name.split()[0] in NO_CATALOG)
    assert NO_CATALOG.isdisjoint(("get", "list", "lock", "rm", "prefetch", "config", "clean"))


@pytest.mark.parametrize("words", ["--help", "get --help", "jobs -h", "help jobs pause", "help exit-codes"])
def test_colours_are_for_terminals(words: str, told: Told, shell: Shell, request: pytest.FixtureRequest) -> None:
    """A terminal shows headings bold and names in a colour; a pipe has none, nor any with NO_COLOR or --no-color."""
    text = told(shell, *words.split())
    assert ("\x1b[1m" in text, "\x1b[36m" in text) == (request.node.callspec.params["told"] == "terminal",) * 2
    assert "\x1b" not in told(with_environ(shell, NO_COLOR="1"), *words.split())
    assert "\x1b" not in told(shell, *words.split(), "--no-color")


def test_help_is_a_command(run: Run) -> None:
    """mdl help COMMAND is mdl COMMAND --help; mdl and mdl help are mdl --help; version and ls mean what they say."""
    assert run("help get").out == run("get --help").out
    assert run("help jobs show").out == run("jobs show -h").out
    assert run("help").out == run("").out == run("--help").out
    assert run("version").out == run("--version").out
    assert run("ls --json").document["schema"] == "mdl.list/1"
    assert "no such command" in run("help nope", 2).err
    listed = run("help exit-codes --json").document["text"]
    assert all(re.search(rf"^ *{code}  {one[0]} ", listed, re.MULTILINE) for code, one in EXIT_CODES.items())


MISTAKES = {
    "lsit": "mdl: mdl lsit: there is no such command\n  hint: did you mean mdl list?\n",
    "jobs pasue": "mdl: mdl jobs pasue: there is no such command\n  hint: did you mean mdl jobs pause",
    "pull bert": "hint: to download a model: mdl get NAME",
    "login": "hint: set HF_TOKEN",
    "get": "mdl: mdl get: TARGET is missing: catalog name",
    "get x --exlude y": "mdl: --exlude: there is no such option\n  hint: did you mean --exclude?\n",
    "get x --progress loud": "--progress: 'loud' is not one of auto, bars, lines, json, none\n  hint: mdl get --help",
    "get x --to": "mdl: --to: a value must follow\n  hint: mdl get --help",
    "get x --json=3": "mdl: --json: it takes no value",
    "jobs show a b": "mdl: b: more words than the command takes\n  hint: mdl jobs show --help",
    "unpack a --keep 0": "mdl: --keep: '0' is not a number of at least 1",
    "unpack a --max-ratio x": "mdl: --max-ratio: 'x' is not a number of at least 1",
    "--catalog": "mdl: --catalog: a value must follow\n  hint: mdl --help",
    "--json": "mdl: mdl: the command is missing",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_told_in_plain_words(run: Run, words: str) -> None:
    """What is wrong, on which word, and what to type; not a word of Typer or pydantic."""
    ran = run(words, 2)
    assert MISTAKES[words] in ran.err
    assert not re.search(r"Input should|Invalid value|Got unexpected|Missing (option|argument)|No such", ran.err)


def test_a_mistake_in_a_variable_names_it(run: Run) -> None:
    """A wrong value is told on the variable that it came from."""
    assert "mdl: MDL_KEEP: 'x' is not a number" in run("unpack a", 2, MDL_KEEP="x").err
    assert "mdl: MDL_FORCE: 'maybe' is neither yes nor no" in run("get x", 2, MDL_FORCE="maybe").err


def test_habits_lead_to_commands_that_are_there() -> None:
    """No command has the name of a habit, and each hint names commands that mdl has."""
    for word, hint in HABITS.items():
        assert word not in COMMANDS
        assert [name for name in re.findall(r"\bmdl (?:-\S+ )*([a-z]+)", hint) if name not in (*COMMANDS, "runs")] in (
            [],
            ["uploads"],
        )


def test_every_exit_code_has_a_name() -> None:
    """The table has the code of every class of errors, with names that differ."""
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Problem)]
    assert len(classes) > 15
    assert {one.exit_code for one in classes} | {0, 143} <= set(EXIT_CODES)
    assert len({name for name, _, _ in EXIT_CODES.values()}) == len(EXIT_CODES)


def test_the_reference_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/commands.md and the man page are what the help says; if not, ``python docs/commands.py`` writes them."""
    assert (REFERENCE["main"](["--check"]), capsys.readouterr().err) == (0, "")


@pytest.mark.skipif(not shutil.which("mandoc"), reason="needs mandoc")
def test_the_man_page_is_sound() -> None:
    """mandoc finds nothing to say about it, and shows every command and every exit code."""
    lint = subprocess.run(["mandoc", "-Tlint", MANUAL], capture_output=True, text=True, check=False)
    assert (lint.stdout, lint.stderr, lint.returncode) == ("", "", 0)
    shown = subprocess.run(["mandoc", "-Tascii", MANUAL], capture_output=True, text=True, check=True).stdout
    plain = re.sub(r".\x08", "", shown)
    assert [name for name in EVERY if not re.search(rf"^ +mdl {name}$", plain, re.MULTILINE)] == []
    assert [code for code in EXIT_CODES if f"\n       {code} " not in plain] == []


def test_the_wheel_brings_the_man_page() -> None:
    """The wheel has it where ``man mdl`` looks after an installation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert {ROOT / place: target for place, target in shared.items()} == {MANUAL: "share/man/man1/mdl.1"}
