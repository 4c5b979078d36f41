"""The first minute: the help of every command, the words for mistakes, the exit codes, and the written reference."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import runpy
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.shell import Run, Shell, done, machine, with_environ
from support.terminal import Terminal, Told

from mdl import errors
from mdl.cli.command import REGISTERED
from mdl.cli.commands import NO_CATALOG, commands, groups
from mdl.cli.flags import PANELS
from mdl.cli.main import root
from mdl.cli.typer_app import loaded
from mdl.cli.usage import foreign_words
from mdl.errors import EXIT_CODES, Problem

ROOT = Path(__file__).parents[2]
REFERENCE = runpy.run_path(str(ROOT / "docs" / "commands.py"))
MANUAL: Path = REFERENCE["MANUAL"]


def below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for word, one in getattr(command, "commands", {}).items():
        yield from below(one, f"{name} {word}")


@cache
def every() -> dict[str, Any]:
    """Every command, also those below others."""
    return dict(pair for group in groups().values() for name in group for pair in below(loaded(name), name))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return machine(tmp_path)


def shown(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The help of a command in a pipe that is so wide."""
    monkeypatch.setenv("COLUMNS", str(width))
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        root().main(args=[*name.split(), "--help"], prog_name="mdl", standalone_mode=False)
    return text.getvalue()


def letters(text: str) -> str:
    """``text`` without what lays it out."""
    return re.sub(r"[\s│╭╮╰╯─]", "", text)


@pytest.mark.no_cover
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_nothing_is_cut_or_taken_for_markup(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option stands there whole, and every text as it was written, with its brackets; no line is too long."""
    for name in every() if width == 80 else ("get", "jobs pause", "add", "unpack", "remote", "fetch", "list"):
        text = shown(name, width, monkeypatch)
        command = every()[name]
        for line in text.splitlines():
            assert len(line) <= width or "  # " in line, (name, line)
        texts = [command.help, command.epilog]
        for param in command.params:
            if not param.hidden:
                assert all(option in text for option in param.opts if option.startswith("-")), (name, param.opts)
                texts.append(param.help)
        assert text.count("…") == "".join(texts).count("…") + text.count(",…"), name
        shown_letters = letters(text)
        for word in " ".join(texts).split():
            assert letters(word) in shown_letters, (name, word)


def test_the_first_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command stands in its group with its whole summary; the end of it is where to begin."""
    text = shown("", 80, monkeypatch)
    assert re.findall(r"╭─ ([\w ]+) ─", text) == list(groups())
    for name, listed in ((name, listed) for group in groups().values() for name, listed in group.items()):
        assert re.search(rf"^│ {name} +{re.escape(listed.summary)} +│$", text, re.MULTILINE), name
    seen = "\n".join(text.splitlines()[-23:])
    assert ("mdl demo" in seen, "mdl help exit-codes" in seen) == (True, True)


def test_every_option_is_readable() -> None:
    """An option stands under one of the headings; the word for its value is upper case, or a list of choices."""
    for name, command in every().items():
        for param in command.params:
            assert param.param_type_name == "argument" or param.rich_help_panel in PANELS, (name, param.opts)
            assert param.help, (name, param.opts)
            word = param.metavar or ""
            assert re.fullmatch(r"([A-Z][A-Z,|_-]*(,…)?|[a-z0-9-]+(\|[a-z0-9-]+)+|)", word), (name, word)
            said = re.search(r"\b(else|unless|exit) \d+\b|<=|default: (0|None|False)", param.help)
            assert not said, (name, param.help)


def parse(words: list[str]) -> None:
    """Have Typer read a call of mdl, to the last command that it names."""
    context: Any = root().make_context("mdl", [*words])
    while rest := [*context._protected_args, *context.args]:
        word, command, others = context.command.resolve_command(context, rest)
        context = command.make_context(word, others, parent=context)
        if not hasattr(command, "commands"):
            return


def test_every_example_can_be_typed() -> None:
    """Each command has two or more examples; all name it, and Typer understands every call of mdl in them."""
    for name, command in every().items():
        examples = [line for line in command.epilog.splitlines() if line.startswith("  ")]
        assert len(examples) >= 2, name
        for example in examples:
            usage, about = example.split("  # ")
            calls = re.findall(r"\bmdl ((?:'[^']*'|[^|>&)'])+)", usage)
            assert (len(example) <= 80, bool(about)) == (True, True), example
            assert any(call.startswith(name) for call in calls), usage
            for call in calls:
                parse(shlex.split(call.replace('"', "")))


def test_yes_is_shown_by_what_asks() -> None:
    """--yes is in the help of the commands that look at it, and of no other; any takes it."""
    for name, one in every().items():
        looks = "common.yes" in inspect.getsource(REGISTERED[name].body)
        [option] = [param for param in one.params if param.name == "yes"]
        assert (name, not option.hidden) == (name, looks)


def test_a_catalog_is_shown_by_what_reads_one() -> None:
    """The help of a command that reads no catalog does not speak of --catalog; that of any other does."""
    for name, one in every().items():
        [option] = [param for param in one.params if param.name == "catalog"]
        assert (name, option.hidden) == (name, name.split()[0] in NO_CATALOG)
    assert NO_CATALOG.isdisjoint(("get", "list", "lock", "rm", "prefetch", "config", "clean"))


@pytest.mark.parametrize("words", ["--help", "get --help", "jobs -h", "help jobs pause"])
def test_colours_are_for_terminals(words: str, told: Told, shell: Shell, request: pytest.FixtureRequest) -> None:
    """A terminal shows colours; a pipe has none, nor any with NO_COLOR or --no-color."""
    text = told(shell, *words.split())
    assert ("\x1b[1" in text) == (request.node.callspec.params["told"] == "terminal")
    assert "\x1b" not in told(with_environ(shell, NO_COLOR="1"), *words.split())
    assert "\x1b" not in told(shell, *words.split(), "--no-color")


def test_a_pipe_has_no_colours_in_ci(run: Run) -> None:
    """The variable by which Typer knows a CI does not make a pipe a terminal."""
    assert "\x1b" not in run("get --help", GITHUB_ACTIONS="true").out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_stdout_of_another_encoding(shell: Shell, encoding: str) -> None:
    """What an encoding cannot say is a question mark, and no fault."""
    ran = done(with_environ(shell, PYTHONIOENCODING=encoding).run("get", "--help"))
    assert (ran.code, "[FILE?]" in ran.out, ran.err) == (0, True, "")


@pytest.mark.parametrize(
    "environ",
    [{"COLUMNS": "99999999999"}, {"COLUMNS": "x"}, {"COLUMNS": "1"}, {"TERMINAL_WIDTH": "x"}, {"TYPER_USE_RICH": "0"}],
    ids=lambda environ: "".join(environ),
)
def test_no_variable_breaks_the_help(shell: Shell, environ: dict[str, str]) -> None:
    """A width that is none, or that no terminal has, is not taken as it is; without Rich it is plain."""
    ran = done(with_environ(shell, **environ).run("get", "--help"))
    assert (ran.code, ran.err) == (0, "")
    assert "[FILE…]" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 100


def test_help_is_a_command(run: Run) -> None:
    """mdl help COMMAND is mdl COMMAND --help; mdl and mdl help are mdl --help; version and ls mean what they say."""
    assert run("help get").out == run("get --help").out
    assert run("help jobs show").out == run("jobs show -h").out
    assert run("help").out == run("").out == run("--help").out
    assert run("version").out == run("--version").out
    for words in ("list --version", "get -V", "pack run --version", "remote list --version", "jobs --version"):
        assert run(words).out == run("--version").out, words
    assert run("get x --show-completion bash").out == run("--show-completion bash").out
    assert run("ls --json").document["schema"] == "mdl.list/1"
    assert "no such command" in run("help nope", 2).err
    listed = run("help exit-codes --json").document["text"]
    assert all(re.search(rf"^ *{code}  {one[0]} ", listed, re.MULTILINE) for code, one in EXIT_CODES.items())


MISTAKES = {
    "lsit": "mdl: no such command 'lsit'\n  hint: did you mean mdl list or mdl ls?\n",
    "jobs pasue": "mdl: mdl jobs: no such command 'pasue'\n  hint: did you mean mdl jobs pause",
    "zzzz": "mdl: no such command 'zzzz'\n  hint: mdl --help\n",
    "pull bert": "mdl: mdl pull: there is no such command\n  hint: to download a model: mdl get NAME",
    "login": "hint: set HF_TOKEN",
    "get": "mdl: mdl get: missing argument 'TARGET': catalog name, group, org/repo",
    "get x --exlude y": "mdl: mdl get: no such option: --exlude\n  hint: did you mean --exclude?\n",
    "get x --progress loud": "mdl: mdl get: invalid value for '--progress': 'loud' is not one of 'auto'",
    "get x --to": "mdl: mdl get: option '--to' requires an argument\n  hint: mdl get --help\n",
    "get x --json=3": "mdl: mdl get: option '--json' does not take a value",
    "jobs show a b": "mdl: mdl jobs show: got unexpected extra argument(s) (b)\n  hint: mdl jobs show --help\n",
    "unpack a --keep 0": "mdl: mdl unpack: invalid value for '--keep': it must be greater than or equal to 1",
    "unpack a --max-ratio x": "mdl: mdl unpack: invalid value for '--max-ratio': it must be a valid number",
    "--catalog": "mdl: option '--catalog' requires an argument\n  hint: mdl --help\n",
    "--json": "missing command\n  hint: mdl --help\n",
    "help jobs pasue": "hint: did you mean mdl jobs pause",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_told_in_two_lines(run: Run, words: str) -> None:
    """What is wrong, on which command, and what to do: Typer's words in the form of every other error."""
    ran = run(words, 2)
    assert MISTAKES[words] in ran.err
    assert len(ran.err.splitlines()) == 2


def test_a_mistake_is_a_document_too(run: Run) -> None:
    """With --json a call that cannot be parsed is the document of its command."""
    document = run("get --json --nope", 2).document
    assert (document["schema"], document["error"]["code"]) == ("mdl.get/1", "USAGE")


def test_a_mistake_in_a_variable_names_it(run: Run) -> None:
    """A wrong value is told on the variable that it came from."""
    assert "invalid value of MDL_KEEP: it must be a valid integer" in run("unpack a", 2, MDL_KEEP="x").err
    assert "invalid value of MDL_FORCE: it must be a valid boolean" in run("get x", 2, MDL_FORCE="maybe").err


@pytest.mark.parametrize("lines", [10, 1000])
def test_a_long_help_is_paged(shell: Shell, run: Run, tmp_path: Path, lines: int) -> None:
    """On a terminal the user's pager shows what does not fit on the screen; it is the text that a pipe gets."""
    paged = tmp_path / "paged"
    more = {"TERM": "xterm", "LINES": str(lines), "NO_COLOR": "1", "PAGER": f"dd 'of={paged}' status=none"}
    terminal = Terminal(80)
    streams = {"stdin": terminal.file, "stdout": terminal.file, "stderr": terminal.file}
    command = shell.command("help", "jobs", "pause")
    subprocess.run(command, env=shell.environ | more, cwd=shell.home, check=True, **streams)
    shown = terminal.text().replace("\r\n", "\n")
    assert (paged.read_text() if lines == 10 else shown) == run("help jobs pause").out
    assert paged.exists() == (shown == "")


def test_foreign_words_lead_to_commands_that_are_there() -> None:
    """No command has the name of one of another tool, and each hint names commands that mdl has."""
    for word, hint in foreign_words().items():
        assert word not in commands()
        named = re.findall(r"\bmdl (?:-\S+ )*([a-z]+)", hint)
        assert [name for name in named if name not in (*commands(), "runs")] in (
            [],
            ["uploads"],
        )


def test_every_exit_code_has_a_name() -> None:
    """The table has the code of every class of errors, with names that differ."""
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Problem)]
    assert len(classes) > 15
    assert {one.exit_code for one in classes} | {0, 143} <= set(EXIT_CODES)
    assert len({name for name, _, _ in EXIT_CODES.values()}) == len(EXIT_CODES)


@pytest.mark.plugins
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
    assert [name for name in every() if not re.search(rf"^ +mdl {name}$", plain, re.MULTILINE)] == []
    assert [code for code in EXIT_CODES if f"\n       {code} " not in plain] == []


def test_the_wheel_brings_the_man_page() -> None:
    """The wheel has it where ``man mdl`` looks after an installation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert {ROOT / place: target for place, target in shared.items()} == {MANUAL: "share/man/man1/mdl.1"}
